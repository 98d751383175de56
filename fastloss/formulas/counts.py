"""Count and positive-amount losses; the prediction z of poisson, gamma and tweedie is the log of the mean."""

from ..spec.record import CAPPED, NONNEGATIVE, POSITIVE, UNIT, Parameter, elementwise
from ..spec.special import digamma_tail, finite, lgamma_tail, lifted, log1p_minus, trigamma_tail
from ..spec.vocabulary import (
    digamma,
    exp,
    expm1,
    largest,
    lgamma,
    log,
    log1p,
    maximum,
    trigamma,
    where,
)


@elementwise(
    math="exp(z) - t z, plus log(t!) if full",
    target=NONNEGATIVE,
    link="log",
    parameters={"full": Parameter("add log(t!), which makes it the negative log-likelihood", UNIT, flag=True)},
    convex=True,
    surrogate=CAPPED,
    paper="Nelder and Wedderburn (1972), Generalized linear models",
)
def poisson(z, t, full=0.0):
    """Poisson negative log-likelihood of a count, from the log of the mean.

    As torch and sklearn's HalfPoissonLoss; full is exact where torch takes Stirling's approximation.
    """
    m = exp(z)
    # Where exp(z) overflows, t z may too, but is less for counts below 1e36 (float32) or 1e305 (float64).
    value = where(m > largest(m), m, m - t * z)
    return value + where(full > 0.0, lgamma(t + 1.0), 0.0), m - t, m, finite(m)


@elementwise(
    math="z + t exp(-z), minus 1 + log(t) if full",
    target=POSITIVE,
    link="log",
    parameters={"full": Parameter("add the constant that makes it half the deviance, least value 0", UNIT, flag=True)},
    convex=True,
    surrogate=CAPPED,
    paper="Nelder and Wedderburn (1972), Generalized linear models",
)
def gamma(z, t, full=0.0):
    """Gamma loss of a positive amount, from the log of the mean.

    As sklearn's HalfGammaLoss; full adds its constant_to_optimal_zero.
    """
    # In two factors, as exp(-z) may leave the range where the product does not.
    half = exp(-0.5 * z)
    x = t * half * half
    return z + x - where(full > 0.0, 1.0 + log(t), 0.0), 1.0 - x, x, finite(x)


def power_integral(a, z):
    """Return (exp(a z) - 1) / a, the integral of exp(a x) from 0 to z, which is z at a = 0."""
    return where(a == 0.0, z, expm1(a * z) / where(a == 0.0, 1.0, a))


@elementwise(
    math="E(2 - power, z) - t E(1 - power, z), with E(a, z) = (exp(a z) - 1) / a and E(0, z) = z",
    target=NONNEGATIVE,
    link="log",
    parameters={
        "power": Parameter("power of the mean in the variance: 1 Poisson, 2 gamma, 3 inverse Gaussian", NONNEGATIVE),
        "full": Parameter("add the constant that makes it half the deviance, least value 0", UNIT, flag=True),
    },
    surrogate="exp((2 - power) z), its mean over targets of mean exp(z)",
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
    # In two factors, as exp(b z) may leave the range where the product does not.
    up, down = exp(0.5 * a * z), exp(0.5 * b * z)
    m, n = up * up, where(zero, 0.0, t * down * down)
    positive = t > 0.0
    y = log(where(positive, t, 1.0))
    # At t = 0 the least value is the limit z -> -inf, which exists for power < 2 only.
    least = where(a > 0.0, -1.0 / where(a > 0.0, a, 1.0), log(t))
    constant = where(positive, power_integral(a, y) - t * power_integral(b, y), least)
    turned = where(b * z > 30.0, (n - t) / where(b == 0.0, 1.0, b), t * power_integral(b, z))
    value = power_integral(a, z) - where(zero, 0.0, turned) - where(full > 0.0, constant, 0.0)
    # Of two terms that overflow, the first is the larger where exp(z) > t, and in the value where exp(z) / a > t / b.
    both = (m > largest(m)) & (n > largest(n))
    root = up / where(both, down, 1.0)
    ratio = where(root == root, root * root, where(a > 0.0, m, 0.0))
    value = where(both, where(ratio * b > t * a, m, -n), value)
    return value, where(both, where(ratio > t, m, -n), m - n), a * m - b * n, finite(m)


def log_ratio(excess, ratio, difference):
    """Return log(ratio) from the ratio, from ratio - 1 near 1, or from a difference of logarithms far from it."""
    near = where(excess < -0.5, log(ratio), log1p(maximum(excess, -0.5)))
    return where((ratio < 1e-30) | (excess > 1e30), difference, near)


@elementwise(
    math="-log(gamma(t + r) / (gamma(r) t!) (r / (r + mean))^r (mean / (r + mean))^t)",
    prediction=(POSITIVE, POSITIVE),
    target=NONNEGATIVE,
    surrogate="the second derivative at the count t = mean",
    paper="Lawless (1987), Negative binomial and mixed Poisson regression",
)
def negative_binomial_nll(mean, r, t):
    """Negative binomial negative log-likelihood of a count, from its mean and its concentration r.

    The variance is mean + mean^2 / r: r is scipy's n and scvi's theta, 1 / alpha in statsmodels. In the form of
    Loader (2000), which keeps its digits where large log-gammas would cancel.
    """
    none = t == 0.0
    y = where(none, 1.0, t)
    total, s = r + y, r + mean
    log_r, log_y, log_mean, log_total, log_s = log(r), log(y), log(mean), log(total), log(s)
    d, ratio, odds = (mean - y) / total, s / total, mean / r
    likelihood = r * log_ratio(d, ratio, log_s - log_total)
    by_counts = log_ratio(-d * r / mean, y / mean * ratio, log_y - log_mean + (log_s - log_total))
    likelihood = likelihood + y * by_counts + 0.5 * (1.8378770664093453 + log_y + log_total - log_r)
    zeros = r * where(odds > 1e30, log_mean - log_r, log1p(odds))
    value = where(none, zeros, likelihood + lgamma_tail(r) + lgamma_tail(y) - lgamma_tail(total))
    u = r + t
    i, j, k = 1.0 / u, finite(1.0 / s), finite(1.0 / mean)
    x, share = (t - mean) / s, r / s
    v = t / u
    small, lift = lifted(mean)
    first_mean = (mean - t) * share / small * lift
    second_mean = r * j * j * (t * k * k * (s + mean) - 1.0)
    large = r > 16.0
    # log(1 + x) from the ratio where x is near -1, of which 1 + x would keep no digit.
    change = where(x < -0.5, log(u / s) - x, log1p_minus(maximum(x, -0.5)))
    first_large = digamma_tail(u) - digamma_tail(r) - 0.5 * v / r - change
    first_small = digamma(r + 1.0) - digamma(u + 1.0) - v / r - where(share < 1e-30, log_r - log_s, log(share)) + x
    by_r = finite(1.0 / r)
    turn = v * by_r * (i + by_r)
    second_large = trigamma_tail(r) - trigamma_tail(u) + 0.5 * turn - x * x * i
    second_small = trigamma(r + 1.0) - trigamma(u + 1.0) + turn - (mean / r + x) * j
    first_r = where(large, first_large, first_small)
    part = finite(mean * j * by_r)
    expected_turn = finite(part * (j + by_r))
    expected_large = trigamma_tail(r) - trigamma_tail(s) + 0.5 * expected_turn
    expected_small = trigamma(r + 1.0) - trigamma(s + 1.0) + expected_turn - part
    # Not less than what is left where the difference of trigammas is lost in rounding.
    expected_r = maximum(where(large, expected_large, expected_small), 0.5 * expected_turn)
    return (
        value,
        (first_mean, first_r),
        (second_mean, where(large, second_large, second_small)),
        (finite(r * j * k), finite(expected_r)),
    )
