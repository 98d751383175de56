"""Losses for counts and positive amounts; the prediction z of poisson, gamma and tweedie is the log of the mean."""

from .record import NONNEGATIVE, POSITIVE, UNIT, Parameter, elementwise
from .special import digamma_tail, lgamma_tail, log1p_minus, trigamma_tail
from .vocabulary import digamma, exp, expm1, lgamma, log, log1p, maximum, trigamma, where


@elementwise(
    math="exp(z) - t z, plus log(t!) if full",
    target=NONNEGATIVE,
    link="log",
    parameters={"full": Parameter("add log(t!), which makes it the negative log-likelihood", UNIT, flag=True)},
    convex=True,
    paper="Nelder and Wedderburn (1972), Generalized linear models",
)
def poisson(z, t, full=0.0):
    """Poisson negative log-likelihood of a count, from the log of the mean.

    As torch and sklearn's HalfPoissonLoss; full is exact where torch takes Stirling's approximation.
    """
    m = exp(z)
    return m - t * z + where(full > 0.0, lgamma(t + 1.0), 0.0), m - t, m


@elementwise(
    math="z + t exp(-z), minus 1 + log(t) if full",
    target=POSITIVE,
    link="log",
    parameters={"full": Parameter("add the constant that makes it half the deviance, least value 0", UNIT, flag=True)},
    convex=True,
    paper="Nelder and Wedderburn (1972), Generalized linear models",
)
def gamma(z, t, full=0.0):
    """Gamma loss of a positive amount, from the log of the mean.

    As sklearn's HalfGammaLoss; full adds its constant_to_optimal_zero.
    """
    x = t * exp(-z)
    return z + x - where(full > 0.0, 1.0 + log(t), 0.0), 1.0 - x, x


def power_integral(a, z):
    """(exp(a z) - 1) / a, the integral of exp(a x) from 0 to z: z at a = 0."""
    return where(a == 0.0, z, expm1(a * z) / where(a == 0.0, 1.0, a))


@elementwise(
    math="E(2 - power, z) - t E(1 - power, z), with E(a, z) = (exp(a z) - 1) / a and E(0, z) = z",
    target=NONNEGATIVE,
    link="log",
    parameters={
        "power": Parameter("power of the mean in the variance: 1 Poisson, 2 gamma, 3 inverse Gaussian", NONNEGATIVE),
        "full": Parameter("add the constant that makes it half the deviance, least value 0", UNIT, flag=True),
    },
    paper="Jorgensen (1987), Exponential dispersion models",
)
def tweedie(z, t, power=1.5, full=0.0):
    """Tweedie loss of a non-negative amount, from the log of the mean.

    Continuous in the power. sklearn's HalfTweedieLoss is this plus 1 / (2 - power) - t / (1 - power), which it drops at
    1 and 2, where they are infinite; with full, both are half the unit deviance. Convex for 1 <= power <= 2.
    """
    a, b = 2.0 - power, 1.0 - power
    # At t = 0 what it multiplies counts for nothing, though it may overflow.
    zero = t == 0.0
    m, n = exp(a * z), where(zero, 0.0, t * exp(b * z))
    positive = t > 0.0
    y = log(where(positive, t, 1.0))
    # At t = 0 the least value is the limit z -> -inf, which exists for power < 2 only.
    least = where(a > 0.0, -1.0 / where(a > 0.0, a, 1.0), log(t))
    constant = where(positive, power_integral(a, y) - t * power_integral(b, y), least)
    value = power_integral(a, z) - where(zero, 0.0, t * power_integral(b, z)) - where(full > 0.0, constant, 0.0)
    return value, m - n, a * m - b * n


def log_ratio(excess, ratio):
    """log(ratio) from the ratio and from ratio - 1, which has the digits where the ratio is near 1."""
    return where(excess < -0.5, log(ratio), log1p(maximum(excess, -0.5)))


@elementwise(
    math="-log(gamma(t + r) / (gamma(r) t!) (r / (r + mean))^r (mean / (r + mean))^t)",
    prediction=(POSITIVE, POSITIVE),
    target=NONNEGATIVE,
    paper="Lawless (1987), Negative binomial and mixed Poisson regression",
)
def negative_binomial_nll(mean, r, t):
    """Negative binomial negative log-likelihood of a count, from its mean and its concentration r.

    The variance is mean + mean^2 / r: r is scipy's n and scvi's theta, 1 / alpha in statsmodels. In the form of
    Loader (2000), which keeps its digits where large log-gammas would cancel.
    """
    none = t == 0.0
    y = where(none, 1.0, t)
    total = r + y
    d = (mean - y) / total
    likelihood = r * log_ratio(d, (r + mean) / total) + y * log_ratio(-d * (r / mean), y / mean * ((r + mean) / total))
    likelihood = likelihood + 0.5 * log(6.283185307179586 * y * (total / r))
    value = where(none, r * log1p(mean / r), likelihood + lgamma_tail(r) + lgamma_tail(y) - lgamma_tail(total))
    u, s = r + t, r + mean
    i, j, k = 1.0 / u, 1.0 / s, 1.0 / mean
    x = (t - mean) * j
    v = t * i
    first_mean = (mean - t) * k * (r * j)
    second_mean = r * j * j * (t * k * k * (s + mean) - 1.0)
    large = r > 16.0
    first_large = digamma_tail(u) - digamma_tail(r) - 0.5 * v / r - log1p_minus(x)
    first_small = digamma(r + 1.0) - digamma(u + 1.0) - v / r - log(r * j) + x
    turn = v / r * ((r + u) / (r * u))
    second_large = trigamma_tail(r) - trigamma_tail(u) + 0.5 * turn - x * x * i
    second_small = trigamma(r + 1.0) - trigamma(u + 1.0) + turn - (mean / r + x) * j
    first_r = where(large, first_large, first_small)
    return value, (first_mean, first_r), (second_mean, where(large, second_large, second_small))
