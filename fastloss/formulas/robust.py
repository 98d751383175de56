"""Robust regression losses, whose influence stays bounded as the residual r = z - t grows."""

from ..spec.record import POSITIVE, Parameter, elementwise
from ..spec.special import finite, log1p_minus, log1p_square, square_parts
from ..spec.vocabulary import (
    exp,
    expm1,
    largest,
    log1p,
    maximum,
    minimum,
    sign,
    sqrt,
    where,
)

IRLS = "IRLS weight rho'(r)/r"


@elementwise(
    math="delta^2 (sqrt(1 + (r / delta)^2) - 1), with r = z - t",
    parameters={"delta": Parameter("residual at which the loss turns from quadratic to linear", POSITIVE)},
    convex=True,
    robust=True,
    lipschitz=1.0,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Charbonnier et al. (1997), Deterministic edge-preserving regularization",
)
def pseudo_huber(z, t, delta=1.0):
    """Pseudo-Huber loss: a smooth curve from r^2 / 2 to delta |r|.

    As XGBoost's reg:pseudohubererror.
    """
    r = z - t
    u = r / delta
    far = abs(u) > 1e9
    s = where(far, abs(u), sqrt(1.0 + u * u))
    i = 1.0 / s
    # sqrt(1 + u^2) - 1 = u^2 / (sqrt(1 + u^2) + 1), without cancellation.
    value = where(far, delta * (abs(r) - delta), delta * (r * (u / (1.0 + s))))
    return value, where(far, delta * sign(r), r * i), i * i * i, i


@elementwise(
    math="sqrt(1 + (r / c)^2) - 1, with r = z - t",
    parameters={"c": Parameter("scale of the residual", POSITIVE)},
    convex=True,
    robust=True,
    lipschitz=1.0,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Charbonnier et al. (1994), Two deterministic half-quadratic regularization algorithms",
)
def charbonnier(z, t, c=1.0):
    """Charbonnier loss, the general robust loss at alpha = 1.

    As kornia and Barron 2019; pseudo_huber(delta=c) is c^2 times it.
    """
    u = (z - t) / c
    far = abs(u) > 1e9
    s = where(far, abs(u), sqrt(1.0 + u * u))
    i = 1.0 / s
    w = i / c / c
    return where(far, s - 1.0, u * (u / (1.0 + s))), where(far, sign(u), u * i) / c, w * i * i, finite(w)


@elementwise(
    math="log(1 + (r / c)^2 / 2), with r = z - t",
    parameters={"c": Parameter("scale of the residual", POSITIVE)},
    robust=True,
    lipschitz=0.7071067811865476,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Black and Anandan (1996), The robust estimation of multiple motions",
)
def cauchy(z, t, c=1.0):
    """Cauchy (Lorentzian) loss, the general robust loss at alpha = 0.

    As kornia and Barron 2019; statistics texts multiply by a constant and put c^2 in place of 2 c^2.
    """
    u = 0.7071067811865476 * ((z - t) / c)
    w = 1.0 / (1.0 + u * u)
    far = abs(u) > 1e9
    slope = where(far, 1.0 / where(far, u, 1.0), u * w)
    scale = finite(1.0 / c)
    curvature = w * scale * scale
    return log1p_square(u), 1.4142135623730951 * scale * slope, curvature * (2.0 * w - 1.0), finite(curvature)


@elementwise(
    math="1 - exp(-(r / c)^2 / 2), with r = z - t",
    parameters={"c": Parameter("scale of the residual", POSITIVE)},
    bounded=True,
    robust=True,
    lipschitz=0.6065306597126334,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Dennis and Welsch (1978), Techniques for nonlinear least squares and robust regression",
)
def welsch(z, t, c=1.0):
    """Welsch (Leclerc) loss, the general robust loss at alpha = -inf.

    As kornia and Barron 2019; statistics texts multiply by c^2 / 2 and put c^2 in place of 2 c^2.
    """
    # Beyond 1e3 the exponential is 0 in every type, and u times it is 0 at infinity too.
    u = maximum(minimum((z - t) / c, 1e3), -1e3)
    x = -0.5 * u * u
    scale = finite(1.0 / c)
    e = exp(x)
    w = e * scale * scale
    return -expm1(x), u * e * scale, (1.0 - u) * (1.0 + u) * w, finite(w)


@elementwise(
    math="2 (r / c)^2 / ((r / c)^2 + 4), with r = z - t",
    parameters={"c": Parameter("scale of the residual", POSITIVE)},
    bounded=True,
    robust=True,
    lipschitz=0.649519052838329,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Geman and McClure (1985), Bayesian image analysis",
)
def geman_mcclure(z, t, c=1.0):
    """Geman-McClure loss, the general robust loss at alpha = -2.

    As kornia and Barron 2019.
    """
    # Its square does not overflow; there, the slope has underflowed.
    most = 0.5 * sqrt(largest(z))
    u = maximum(minimum((z - t) / c, most), -most)
    i = 1.0 / (4.0 + u * u)
    q = u * i
    scale = 4.0 * i / c
    w = scale * scale
    return 2.0 * u * q, 4.0 * q * scale, w * (16.0 * i - 3.0), finite(w)


@elementwise(
    math="c^2 / 6 (1 - (1 - min((r / c)^2, 1))^3), with r = z - t",
    parameters={"c": Parameter("residual beyond which the loss is constant", POSITIVE)},
    bounded=True,
    robust=True,
    lipschitz=1.3409252447470739,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Beaton and Tukey (1974), The fitting of power series",
)
def tukey(z, t, c=4.685):
    """Tukey's biweight: r^2 / 2 near the target, constant beyond c.

    As statsmodels' TukeyBiweight.
    """
    u = maximum(minimum((z - t) / c, 1.0), -1.0)
    x = u * u
    y = (1.0 - u) * (1.0 + u)
    value = c * (c * (x * (0.5 - x * (0.5 - x * (1.0 / 6.0)))))
    return value, c * u * (y * y), y * (1.0 - 5.0 * x), y * y


@elementwise(
    math="c^2 (|r| / c - log(1 + |r| / c)), with r = z - t",
    parameters={"c": Parameter("scale of the residual", POSITIVE)},
    convex=True,
    robust=True,
    lipschitz=1.0,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Fair (1974), On the robust estimation of econometric models",
)
def fair(z, t, c=1.0):
    """Fair's loss: r^2 / 2 near the target, c |r| far away.

    As LightGBM's objective fair.
    """
    r = z - t
    a = abs(r) / c
    far = a > 1e18
    w = 1.0 / (1.0 + a)
    return c * (c * where(far, a, -log1p_minus(a))), where(far, c * sign(r), r * w), w * w, w


@elementwise(
    math="w log(1 + |r| / epsilon) where |r| < w, else |r| - w + w log(1 + w / epsilon), with r = z - t",
    parameters={
        "w": Parameter("residual at which the loss turns from logarithmic to linear", POSITIVE),
        "epsilon": Parameter("curvature of the logarithm", POSITIVE),
    },
    differentiable=False,
    robust=True,
    lipschitz=5.0,
    minimum_at_target=True,
    surrogate="w / epsilon, the slope at the target",
    paper="Feng et al. (2018), Wing loss for robust facial landmark localisation",
)
def wing(z, t, w=10.0, epsilon=2.0):
    """Wing loss: steep and logarithmic for small residuals, linear beyond w; gradient 0 at the target."""
    r = z - t
    a = abs(r)
    inside = a < w
    m = minimum(a, w)
    i = w / (epsilon + m)
    value = w * log1p(m / epsilon) + (a - m)
    return value, sign(r) * where(inside, i, 1.0), where(inside, -i / (epsilon + m), 0.0), finite(w / epsilon)


@elementwise(
    math="(b / alpha) ((u^2 / b + 1)^(alpha / 2) - 1), u = (z - t) / c, b = |alpha - 2|; its limits at 2, 0 and -inf",
    parameters={
        "alpha": Parameter("shape: 2 is squared, 1 Charbonnier, 0 Cauchy, -2 Geman-McClure, -inf Welsch"),
        "c": Parameter("scale of the residual", POSITIVE),
    },
    lipschitz=1.0,
    minimum_at_target=True,
    surrogate=IRLS,
    paper="Barron (2019), A general and adaptive robust loss function",
)
def barron(z, t, alpha=1.0, c=1.0):
    """General robust loss, whose shape alpha leads from squared error to Welsch's loss.

    Without the paper's epsilon: the limits are exact, and near them nothing cancels. Convex for alpha >= 1.
    """
    u = (z - t) / c
    shape = maximum(minimum(alpha, 1e18), -1e18)
    excess = shape - 2.0
    b = where(excess == 0.0, 1.0, abs(excess))
    a = u / sqrt(b)
    logarithm = log1p_square(a)
    # (1 + a^2)^(shape / 2) is (1 + a^2) exp(power): near alpha = 2 the power is small while the logarithm is not.
    power = 0.5 * excess * logarithm
    # So near 0 its limit is exact, and the quotient below may overflow.
    flat = abs(shape) < 1e-30
    divisor = where(flat, 1.0, shape)
    general = where(flat, 0.5 * b * logarithm, b / divisor * expm1(0.5 * shape * logarithm))
    half = u * (u / divisor)
    near_two = half + (b / divisor + half) * expm1(power)
    near = (shape > 1.0) & (abs(power) < 0.5)
    # An infinite square times a power of 0 would be NaN.
    value = where(near, where(half > largest(half), half, near_two), general)
    scale = finite(1.0 / c)
    weight = exp(power) * scale * scale
    w, share = square_parts(a)
    # 1 + excess share, whose two terms cancel for large residuals where alpha is 1.
    bend = where(share < 0.5, 1.0 + excess * share, shape - 1.0 - excess * w)
    return value, (z - t) * weight, weight * bend, finite(weight)
