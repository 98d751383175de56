"""Losses of predictions that tell how sure they are: intervals, divergences of distributions, calibration."""

from ..spec.record import (
    POSITIVE,
    REAL,
    UNIT,
    Input,
    Integers,
    Interval,
    Parameter,
    arrays,
    elementwise,
)
from ..spec.vocabulary import digamma, exp, expm1, lgamma, maximum, trigamma, where

OPEN = Interval(0.0, 1.0, True, True)


@elementwise(
    prediction=(REAL, REAL),
    math="upper - lower + 2 / alpha (max(lower - t, 0) + max(t - upper, 0))",
    parameters={"alpha": Parameter("share of targets that the interval may miss", OPEN)},
    convex=True,
    differentiable=False,
    robust=True,
    surrogate="1",
    paper="Winkler (1972), A decision-theoretic approach to interval estimation; Gneiting, Raftery (2007), Strictly "
    "proper scoring rules, prediction, and estimation",
)
def interval_score(lower, upper, t, alpha=0.1):
    """Interval score: the width of a predicted interval, and a fine for how far the target lies outside.

    It is least for the quantiles alpha / 2 and 1 - alpha / 2, and is then 2 / alpha times the sum of their quantile
    losses. At a bound the derivative is that inside the interval.
    """
    fine = 2.0 / alpha
    below, above = lower - t, t - upper
    value = (upper - lower) + fine * (maximum(below, 0.0) + maximum(above, 0.0))
    # NaN comes through by the value: the comparisons lose it.
    none = where(value == value, 0.0, value)
    by_lower = where(below > 0.0, fine - 1.0, -1.0) + none
    by_upper = where(above > 0.0, 1.0 - fine, 1.0) + none
    return value, (by_lower, by_upper), (0.0, 0.0), (1.0, 1.0)


@arrays(
    "points",
    inputs={
        "mean": Input("*", "mean of the distribution", grad=True),
        "log_var": Input("*", "logarithm of its variance", grad=True),
        "prior_mean": Input("*", "mean of the other distribution; 0 if not given", grad=True, optional=True),
        "prior_log_var": Input("*", "logarithm of its variance; 0 if not given", grad=True, optional=True),
    },
    units="*",
    math="((mean - prior_mean)^2 / exp(prior_log_var) + exp(s) - 1 - s) / 2, s = log_var - prior_log_var",
    paper="Kingma, Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114",
    example="np.array([0.5, -1.0]), np.array([0.0, -0.5])",
)
def kl_gaussian(mean, log_var, prior_mean, prior_log_var):
    """Kullback-Leibler divergence of one Gaussian from another, of means and log-variances.

    Without a prior it is the divergence from the standard normal distribution, the term of a variational
    autoencoder. Latent dimensions are elements: reduction="sum" with divisor=n is the mean over samples of the sum over
    dimensions.
    """
    root = exp(-0.5 * prior_log_var)
    r = (mean - prior_mean) * root
    s = log_var - prior_log_var
    grown = expm1(s)
    value = 0.5 * (r * r + beyond_line(s, grown))
    slope = r * root
    return value, (slope, 0.5 * grown, -slope, -0.5 * (r * r + grown))


def beyond_line(x, grown):
    """Return exp(x) - 1 - x, given exp(x) - 1; a series where the difference would lose digits."""
    near = abs(x) < 0.5
    y = where(near, x, 0.0)
    rest = 1.0 / 20922789888000.0
    rest = rest * y + 1.0 / 1307674368000.0
    rest = rest * y + 1.0 / 87178291200.0
    rest = rest * y + 1.0 / 6227020800.0
    rest = rest * y + 1.0 / 479001600.0
    rest = rest * y + 1.0 / 39916800.0
    rest = rest * y + 1.0 / 3628800.0
    rest = rest * y + 1.0 / 362880.0
    rest = rest * y + 1.0 / 40320.0
    rest = rest * y + 1.0 / 5040.0
    rest = rest * y + 1.0 / 720.0
    rest = rest * y + 1.0 / 120.0
    rest = rest * y + 1.0 / 24.0
    rest = rest * y + 1.0 / 6.0
    rest = rest * y + 0.5
    return where(near, y * y * rest, grown - x)


@arrays(
    "uncertainty.dirichlet",
    inputs={
        "alpha": Input("* k", "concentrations of the distribution", grad=True, domain=POSITIVE),
        "prior": Input(
            "* k",
            "concentrations of the other distribution; 1, the uniform one, if not given",
            "float",
            True,
            True,
            POSITIVE,
        ),
    },
    units="*",
    math="b(alpha_1, prior_1) + ... - b(sum alpha, sum prior), b(x, y) = log G(y) - log G(x) - (y - x) digamma(x)",
    paper="Joo et al. (2020), Dirichlet variational autoencoder, arXiv:1901.02739; Sensoy et al. (2018), "
    "arXiv:1806.01768",
    example="np.array([[2.0, 1.0, 0.5]])",
)
def kl_dirichlet(x, y):
    """Kullback-Leibler divergence of one Dirichlet distribution from another.

    Without a prior it is the divergence from the uniform distribution, the regulariser of evidential classifiers.
    """
    u = digamma(x)
    return lgamma(y) - lgamma(x) - (y - x) * u, ((x - y) * trigamma(x), digamma(y) - u)


@arrays(
    "uncertainty.quantiles",
    inputs={
        "scores": Input("* k", "the lowest quantile, and softplus inverses of the steps between quantiles", grad=True),
        "target": Input("*", "number to be predicted"),
        "levels": Input("k", "levels of the quantiles, growing", domain=OPEN, shared=True),
    },
    units="*",
    math="mean over j of max(l_j (t - q_j), (l_j - 1) (t - q_j)), q_1 = z_1, q_j = q_(j-1) + log(1 + exp(z_j))",
    paper="Koenker, Bassett (1978), Regression quantiles; ordered by sums of softplus: Park et al. (2022), Learning "
    "quantile functions without quantile crossing, arXiv:2111.06581",
    example="np.array([[-1.0, 0.5, 0.5]]), np.array([0.3]), np.array([0.1, 0.5, 0.9])",
)
def ordered_quantiles(q, t, level):
    """Quantile loss of a set of quantiles that never cross: each lies above the one before by a softplus.

    The quantiles are `np.cumsum(np.concatenate([z[:, :1], np.logaddexp(0, z[:, 1:])], 1), 1)`. The derivative at a
    quantile that equals the target is 0.
    """
    r = t - q
    slope = where(r > 0.0, -level, where(r < 0.0, 1.0 - level, 0.0 * r))
    return -slope * r, slope


@arrays(
    "uncertainty.sampled",
    inputs={
        "logits": Input("* k", "mean scores of the classes", grad=True),
        "log_var": Input("* k", "logarithms of the scores' variances", grad=True),
        "labels": Input("*", "the right classes", kind="labels", classes="k"),
    },
    units="*",
    options={
        "samples": (16.0, Parameter("draws of the scores of each row", Integers(1.0))),
        "seed": (0.0, Parameter("seed of the draws: another one in each step of training", Integers(0.0))),
    },
    math="-log mean over draws of softmax(logits + exp(log_var / 2) e)_label, e standard normal",
    paper="Kendall, Gal (2017), What uncertainties do we need in Bayesian deep learning for computer vision?, "
    "arXiv:1703.04977",
    example="np.array([[2.0, 0.0, -1.0]]), np.array([[0.0, -1.0, -1.0]]), np.array([0])",
)
def heteroscedastic_cross_entropy():
    """Classification with noisy logits: cross-entropy of the mean probability over draws of Gaussian scores.

    Where the variance is large, a wrong label costs less. The draws depend on the seed and on the row's index in the
    call, not on threads or precision; they are held constant in the derivatives.
    """


@arrays(
    "uncertainty.calibration",
    inputs={
        "confidence": Input("n", "probability that the prediction is right", grad=True, domain=UNIT),
        "correct": Input("n", "1 where it is right, 0 where not", "binary"),
    },
    parameters={},
    options={
        "bins": (15.0, Parameter("number of bins", Integers(1.0))),
        "temperature": (0.01, Parameter("width of the borders between bins, squared probabilities", POSITIVE)),
        "p": (2.0, Parameter("power of a bin's error", Interval(1.0, high_open=True))),
    },
    math="(sum over bins of S_j / n |mean_j(correct) - mean_j(confidence)|^p)^(1/p), with weights "
    "softmax_j(-(confidence - centre_j)^2 / temperature), S_j their sum",
    bounded=True,
    paper="Karandikar et al. (2021), Soft calibration objectives for neural networks, arXiv:2108.00106",
    example="np.array([0.9, 0.8, 0.6, 0.7]), np.array([1, 1, 0, 1])",
)
def soft_calibration_error():
    """Soft-binned expected calibration error: every sample belongs to each bin a little, so that it has a gradient.

    For classes, the confidence is the largest probability, and correct is whether its class is the label. With a
    temperature near 0 the bins are those of the expected calibration error.
    """
