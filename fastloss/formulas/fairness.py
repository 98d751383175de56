"""Fairness losses of scores and groups: a formula of each group's rate beside the rate over all groups."""

from ..spec.record import NONNEGATIVE, POSITIVE, Input, Parameter, arrays
from ..spec.vocabulary import exp, maximum, sign, where

SCORES = Input("n", "scores, of which a sigmoid makes probabilities", grad=True)
LABELS = Input("n", "1 for a positive, 0 for a negative", "binary")
GROUP = Input("n +", "group of each sample, any integers; several columns for groups at their intersections", "labels")
SAMPLE_WEIGHT = Input("n", "factor of each sample", "double", domain=NONNEGATIVE)._replace(optional=True)

NORM = Parameter("whether a gap is squared or taken as its absolute value", choices=("squared", "absolute"))


def gap(d, norm):
    """Return the size of a gap and its slope."""
    return where(norm == 0.0, d * d, abs(d)), where(norm == 0.0, 2.0 * d, sign(d))


@arrays(
    "fairness",
    inputs={"scores": SCORES, "group": GROUP, "sample_weight": SAMPLE_WEIGHT},
    math="mean over groups of (r_g - r)^2, r_g = mean of sigmoid(s) in group g, r = mean over all samples",
    parameters={"norm": NORM},
    bounded=True,
    paper="Dwork et al. (2012), Fairness through awareness; Buyl et al. (2024), fairret, arXiv:2310.17256",
    example="np.array([1.0, -1.0, 0.5, 2.0]), np.array([0, 0, 1, 1])",
)
def demographic_parity(rate, overall, share, norm=0.0):
    """Demographic parity: gaps between the rates of positive predictions of groups and that of all samples.

    Predictions count softly, by the sigmoid of their scores. Groups without samples do not count.
    """
    value, slope = gap(rate - overall, norm)
    return value, slope, -slope


@arrays(
    "fairness",
    inputs={"scores": SCORES, "labels": LABELS, "group": GROUP, "sample_weight": SAMPLE_WEIGHT},
    math="mean over groups of (r_g - r)^2, r_g = mean of sigmoid(s) over the positives of group g",
    parameters={"norm": NORM},
    bounded=True,
    paper="Hardt, Price, Srebro (2016), Equality of opportunity in supervised learning, arXiv:1610.02413",
    example="np.array([1.0, -1.0, 0.5, 2.0]), np.array([1, 0, 1, 1]), np.array([0, 0, 1, 1])",
)
def equal_opportunity(rate, overall, share, norm=0.0):
    """Equal opportunity: gaps between the true positive rates of groups and that of all samples.

    Predictions count softly, by the sigmoid of their scores. Groups without positives do not count.
    """
    value, slope = gap(rate - overall, norm)
    return value, slope, -slope


@arrays(
    "fairness",
    inputs={"scores": SCORES, "labels": LABELS, "group": GROUP, "sample_weight": SAMPLE_WEIGHT},
    math="mean of the losses of equal opportunity over the positives and over the negatives",
    parameters={"norm": NORM},
    bounded=True,
    paper="Hardt, Price, Srebro (2016), Equality of opportunity in supervised learning, arXiv:1610.02413",
    example="np.array([1.0, -1.0, 0.5, 2.0]), np.array([1, 0, 0, 1]), np.array([0, 0, 1, 1])",
)
def equalized_odds(rate, overall, share, norm=0.0):
    """Equalized odds: gaps between the true positive rates, and between the false positive rates, of groups.

    Each rate is compared with that of all samples, and averaged over the groups that have it: a group without positives
    has no true positive rate. Predictions count softly, by the sigmoid of their scores.
    """
    value, slope = gap(rate - overall, norm)
    return value, slope, -slope


@arrays(
    "fairness",
    inputs={"scores": SCORES, "labels": LABELS, "group": GROUP, "sample_weight": SAMPLE_WEIGHT},
    math="mean over groups of max(0, l_g - bound), l_g = mean in group g of log(1 + exp(s)) - t s",
    parameters={"bound": Parameter("mean loss that a group may have at no cost", NONNEGATIVE)},
    convex=True,
    paper="Agarwal, Dudik, Wu (2019), Fair regression: quantitative definitions and reduction-based algorithms",
    example="np.array([1.0, -1.0, 0.5, 2.0]), np.array([1, 0, 0, 1]), np.array([0, 0, 1, 1])",
)
def bounded_group_loss(rate, overall, share, bound=0.0):
    """Bounded group loss: by how much the mean cross-entropy of groups exceeds a bound.

    With a bound of 0 it is the mean of the groups' mean losses, in which each group counts alike, whatever its size.
    """
    return maximum(rate - bound, 0.0), where(rate > bound, 1.0, 0.0), 0.0 * overall


@arrays(
    "fairness",
    inputs={"scores": SCORES, "group": GROUP, "sample_weight": SAMPLE_WEIGHT},
    math="mean over groups of cov(1[g], s)^2, cov = n_g / n (mean of s in group g - mean of s)",
    parameters={"norm": NORM},
    convex=True,
    paper="Zafar et al. (2017), Fairness constraints: mechanisms for fair classification, arXiv:1507.05259",
    example="np.array([1.0, -1.0, 0.5, 2.0]), np.array([0, 0, 1, 1])",
)
def covariance_fairness(rate, overall, share, norm=0.0):
    """Decision boundary covariance: between membership in a group and the score, without a sigmoid.

    The scores stand for the signed distances from the decision boundary. Of two groups both covariances have the same
    size, which is Zafar's.
    """
    value, slope = gap(share * (rate - overall), norm)
    return value, share * slope, -share * slope


LABELLED = {"scores": SCORES, "labels": LABELS, "group": GROUP, "sample_weight": SAMPLE_WEIGHT}
LABELLED_EXAMPLE = "np.array([1.0, -1.0, 0.5, 2.0]), np.array([1, 0, 1, 1]), np.array([0, 0, 1, 1])"
FAIRRET = "Buyl, Defrance, De Bie (2024), fairret: a framework for differentiable fairness, arXiv:2310.17256"


@arrays(
    "fractions",
    inputs=LABELLED,
    math="mean over groups of (r_g - r)^2, r_g = sum of t sigmoid(s) / sum of sigmoid(s) over group g",
    parameters={"norm": NORM},
    bounded=True,
    paper=f"Chouldechova (2017), Fair prediction with disparate impact, arXiv:1703.00056; {FAIRRET}",
    example=LABELLED_EXAMPLE,
)
def predictive_parity(rate, overall, share, norm=0.0):
    """Predictive parity: gaps between the precisions (PPV) of groups and that of all samples.

    Predictions count softly, by the sigmoid of their scores. Groups without samples do not count.
    """
    value, slope = gap(rate - overall, norm)
    return value, slope, -slope


@arrays(
    "fractions",
    inputs=LABELLED,
    math="mean over groups of (r_g - r)^2, r_g = sum of t sigmoid(-s) / sum of sigmoid(-s) over group g",
    parameters={"norm": NORM},
    bounded=True,
    paper=f"Berk et al. (2021), Fairness in criminal justice risk assessments, arXiv:1703.09207; {FAIRRET}",
    example=LABELLED_EXAMPLE,
)
def false_omission_parity(rate, overall, share, norm=0.0):
    """False omission parity: gaps between the groups' shares of positives among negative predictions (FOR) and all's.

    Predictions count softly, by the sigmoid of their scores. Groups without samples do not count.
    """
    value, slope = gap(rate - overall, norm)
    return value, slope, -slope


@arrays(
    "fractions",
    inputs=LABELLED,
    math="mean over groups of (r_g - r)^2, r_g = (1 + beta^2) sum of t p / sum of (beta^2 t + p), p = sigmoid(s)",
    parameters={"norm": NORM},
    options={"beta": (1.0, Parameter("weight of recall beside precision", POSITIVE))},
    bounded=True,
    paper=FAIRRET,
    example=LABELLED_EXAMPLE,
)
def f_score_parity(rate, overall, share, norm=0.0):
    """F-score parity: gaps between the F-scores of groups and that of all samples.

    Predictions count softly, by the sigmoid of their scores. Groups without samples do not count.
    """
    value, slope = gap(rate - overall, norm)
    return value, slope, -slope


SAMPLES = Parameter("samples whose scores are compared", choices=("negatives", "positives", "all"))


@arrays(
    "mindiff",
    inputs={"scores": SCORES, "labels": LABELS, "group": GROUP, "sample_weight": SAMPLE_WEIGHT},
    math="mean over pairs of groups of E k(p, p') + E k(q, q') - 2 E k(p, q), k(x, y) = exp(-(x - y)^2 / (2 sigma^2))",
    parameters={"sigma": Parameter("width of the Gaussian, in units of probability", POSITIVE)},
    options={"samples": (0.0, SAMPLES)},
    bounded=True,
    paper="Prost et al. (2019), Toward a better trade-off between performance and fairness, arXiv:1910.11779",
    example="np.array([1.0, -1.0, 0.5, 2.0]), np.array([0, 0, 0, 0]), np.array([0, 0, 1, 1])",
)
def mindiff(d, sigma=0.1):
    """MinDiff: squared maximum mean discrepancy between the distributions of the groups' probabilities.

    By default it compares negatives, and so evens out false positive rates at every threshold at once. The time grows
    with the square of the number of samples, and the memory with their number. Groups without samples do not count.
    """
    value = exp(-0.5 * (d / sigma) * (d / sigma))
    return value, -d / sigma / sigma * value
