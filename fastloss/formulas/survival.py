"""Survival losses of event times that may be censored."""

from ..spec.record import NONNEGATIVE, POSITIVE, Input, Parameter, arrays
from ..spec.special import log1mexp
from ..spec.vocabulary import (
    epsilon,
    exp,
    expm1,
    log,
    log1p,
    mills,
    minimum,
    sigmoid,
    softplus,
    tanh,
    where,
)


def normal_interval(a, b, gap):
    """-log(Phi(b) - Phi(a)), gap = b - a, and (phi(b) - phi(a)) over that probability."""
    # Turned so that the interval lies above zero, or reaches further above it than below.
    turned = a + b < 0.0
    low, high = where(turned, -b, a), where(turned, -a, b)
    size = abs(low)
    shrink = 0.5 * gap * (low + high)
    first, second, fallen = mills(size), mills(high), expm1(-shrink)
    half_log_tau = 0.9189385332046727
    # Above zero: the densities are phi(low) and phi(low) exp(-shrink), the tails those times Mills' ratios.
    between = (first - second) - second * fallen
    far, by_far = half_log_tau + 0.5 * size * size - log(between), fallen / between
    # Across zero: what is missing on both sides.
    scale = 0.3989422804014327
    density = scale * exp(-0.5 * size * size)
    missing = density * first + scale * exp(-0.5 * high * high) * second
    across, by_across = -log1p(-missing), density * fallen / (1.0 - missing)
    # Narrow: the density at the middle times a series of Hermite polynomials.
    r = 0.5 * gap
    m = 0.5 * (low + high)
    x, y = m * r, r * r
    h2 = x * x - y
    h3 = x * h2 - 2.0 * y * x
    h4 = x * h3 - 3.0 * y * h2
    h5 = x * h4 - 4.0 * y * h3
    h6 = x * h5 - 5.0 * y * h4
    h7 = x * h6 - 6.0 * y * h5
    h8 = x * h7 - 7.0 * y * h6
    h9 = x * h8 - 8.0 * y * h7
    h10 = x * h9 - 9.0 * y * h8
    series = h2 / 6.0 + h4 / 120.0 + h6 / 5040.0 + h8 / 362880.0 + h10 / 39916800.0
    width = gap * (1.0 + series)
    close, by_close = half_log_tau + 0.5 * m * m - log(gap) - log1p(series), exp(x - 0.5 * y) * fallen / width
    narrow = (gap < 0.25) & (shrink < 0.5)
    wide, by_wide = where(low < 0.0, across, far), where(low < 0.0, by_across, by_far)
    slope = where(narrow, by_close, by_wide)
    return where(narrow, close, wide), where(turned, -slope, slope)


def extreme_interval(a, b, gap):
    """-log(exp(-exp(a)) - exp(-exp(b))), gap = b - a, and minus the sum of its derivatives by a and b."""
    hazard = exp(a)
    more = where(gap < 100.0, hazard * expm1(minimum(gap, 100.0)), exp(b))
    capped = minimum(more, 1e4)
    # Keeps the quotient exact where the hazard is subnormal and has few digits left: there it is 1.
    tiny = capped < epsilon(a)
    safe = where(tiny, 1.0, capped)
    share = where(tiny, 1.0, -expm1(-safe) / safe)
    # For small differences by way of their logarithm, which does not vanish when they do.
    seen = where(more < 0.5, b + log1mexp(gap) + log(share), log1p(-exp(-safe)))
    return hazard - seen, exp(-capped) / share - hazard


@arrays(
    "points",
    inputs={
        "prediction": Input("*", "location of the logarithm of the time", grad=True),
        "lower": Input("*", "time up to which nothing had happened; 0: left-censored", domain=NONNEGATIVE),
        "upper": Input("*", "time until which it had happened; inf: right-censored", domain=NONNEGATIVE),
    },
    units="*",
    parameters={
        "distribution": Parameter(
            "distribution of the error of the logarithm",
            choices=("normal", "logistic", "extreme"),
            constant=True,
        ),
        "sigma": Parameter("scale of that error", POSITIVE),
    },
    ordered=(("lower", "upper"),),
    math="-log(F(b) - F(a)), or -log(f(a) / (sigma lower)) if lower = upper, with a = (log(lower) - z) / sigma, "
    "b = (log(upper) - z) / sigma",
    convex=True,
    paper="Wei (1992), The accelerated failure time model; Barnwal et al. (2022), arXiv:2006.04920",
    example="np.array([0.5, 1.2]), np.array([2.0, 3.0]), np.array([2.0, np.inf])",
)
def aft(z, lower, upper, distribution=0.0, sigma=1.0):
    """Accelerated failure time loss: negative log-likelihood of an event time, or of the interval that contains it.

    As XGBoost's survival:aft, whose least likelihood of 1e-12 and bounds on the gradient it does not need. Equal bounds
    are a time that was seen, 0 and inf as bounds say nothing: the loss is 0.
    """
    inverse = 1.0 / sigma
    start, end = log(lower), log(upper)
    a, b = (start - z) * inverse, (end - z) * inverse
    near = (upper - lower) < lower
    part = where(near, upper - lower, 0.0) / where(near, lower, 1.0)
    gap = inverse * where(near, log1p(part), end - start)
    normal, by_normal = normal_interval(a, b, gap)
    extreme, by_extreme = extreme_interval(a, b, gap)
    logistic = softplus(a) + softplus(-b) - log1mexp(gap)
    # sigmoid(-b) - sigmoid(a) as a product, which keeps its digits where the two are nearly equal.
    ahead = a + b > 0.0
    both = sigmoid(where(ahead, a, -a)) * sigmoid(where(ahead, b, -b)) * expm1(-abs(a + b))
    by_logistic = where(ahead, both, -both)
    value = where(distribution == 0.0, normal, where(distribution == 1.0, logistic, extreme))
    slope = where(distribution == 0.0, by_normal, where(distribution == 1.0, by_logistic, by_extreme))
    # A time that was seen.
    point = where(
        distribution == 0.0,
        0.5 * a * a + 0.9189385332046727,
        where(distribution == 1.0, softplus(a) + softplus(-a), exp(a) - a),
    )
    by_point = where(distribution == 0.0, -a, where(distribution == 1.0, -tanh(0.5 * a), -expm1(a)))
    seen, unknown = lower == upper, (lower == 0.0) & (0.5 * upper == upper) & (upper > 0.0)
    known = where(lower == 0.0, -start, point + (log(sigma) + start))
    value, slope = where(seen, known, value), where(seen, by_point, slope)
    return where(unknown, 0.0, value), (where(unknown, 0.0, slope * inverse),)
