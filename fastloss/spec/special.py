"""Scalar functions shared by several formulas, written as formulas and compiled for every backend with them."""

from .vocabulary import (
    exp,
    expm1,
    largest,
    lgamma,
    log,
    log1p,
    log1p_unit,
    maximum,
    minimum,
    ndtr,
    sign,
    sqrt,
    where,
)


def logistic_parts(z):
    """Return exp(-|z|), sigmoid(z) and 1 - sigmoid(z), the last without cancellation."""
    e = exp(-abs(z))
    q = 1.0 / (1.0 + e)
    return e, where(z >= 0.0, q, e * q), where(z >= 0.0, e * q, q)


def softplus_parts(z):
    """Return softplus(z) and its derivative."""
    e, p, _ = logistic_parts(z)
    return maximum(z, 0.0) + log1p_unit(e), p


def sine_cosine(x):
    """Sine and cosine of an angle from 0 to pi / 2."""
    q = x * x
    tail = 1.0 - q / 210.0 * (1.0 - q / 272.0 * (1.0 - q / 342.0 * (1.0 - q / 420.0)))
    sine = 1.0 - q / 42.0 * (1.0 - q / 72.0 * (1.0 - q / 110.0 * (1.0 - q / 156.0 * tail)))
    last = 1.0 - q / 182.0 * (1.0 - q / 240.0 * (1.0 - q / 306.0 * (1.0 - q / 380.0)))
    cosine = 1.0 - q / 30.0 * (1.0 - q / 56.0 * (1.0 - q / 90.0 * (1.0 - q / 132.0 * last)))
    return x * (1.0 - q / 6.0 * (1.0 - q / 20.0 * sine)), 1.0 - 0.5 * q * (1.0 - q / 12.0 * cosine)


def share(part, x):
    """Return part * x, and 0 where the part is 0, even for infinite x."""
    return where(part == 0.0, 0.0, part * x)


def finite(x):
    """Return x, at most the largest finite number; NaN stays."""
    return minimum(x, largest(x))


def convex_factor(x):
    """Return x limited to finite, non-negative values as a factor of a curvature; NaN stays.

    At most a quarter of the largest finite number, so that sums of a few products with probabilities are finite too.
    """
    return minimum(where(x < 0.0, 0.0, x), 0.25 * largest(x))


def lifted(x):
    """Return a positive x times a scale that makes its reciprocal finite, and the scale."""
    lift = where(x < 1e-30, 18446744073709551616.0, 1.0)
    return x * lift, lift


def above_zero(m):
    """Return max(m, 0) and its slope, which is 1 at 0; NaN stays."""
    inside = m >= 0.0
    outside = where(m < 0.0, 0.0, m)
    return where(inside, m, outside), where(inside, 1.0, outside)


def log1mexp(x):
    """log(1 - exp(-x)) for x >= 0, without cancellation."""
    near = x < 0.6931471805599453
    return where(near, log(-expm1(-x)), log1p(-exp(-where(near, 1.0, x))))


def log1p_square(u):
    """log(1 + u^2), also where u^2 overflows."""
    a = abs(u)
    far = a > 1e18
    logarithm = log1p(where(far, a, u * u))
    return where(far, 2.0 * logarithm, logarithm)


def square_parts(u):
    """1 / (1 + u^2) and u^2 / (1 + u^2), the latter exact for small u and where u^2 overflows."""
    s = u * u
    w = 1.0 / (1.0 + s)
    return w, where(s < 1.0, s * w, 1.0 - w)


def log1p_minus(x):
    """log(1 + x) - x, without cancellation near 0."""
    s = x / (2.0 + x)
    q = s * s
    tail = 1.0 / 13.0 + q * (1.0 / 15.0 + q * (1.0 / 17.0 + q * (1.0 / 19.0 + q * (1.0 / 21.0 + q * (1.0 / 23.0)))))
    series = 1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q * tail))))
    return where(abs(s) < 0.2, 2.0 * s * (q * series) - x * s, log1p(x) - x)


def normal_within(u):
    """2 Phi(u) - 1, the signed normal probability within |u|, without cancellation near 0."""
    q = 0.5 * u * u
    tail = 1.0 / 1320.0 - q * (1.0 / 9360.0 - q * (1.0 / 75600.0 - q * (1.0 / 685440.0 - q * (1.0 / 6894720.0))))
    series = 1.0 - q * (1.0 / 3.0 - q * (1.0 / 10.0 - q * (1.0 / 42.0 - q * (1.0 / 216.0 - q * tail))))
    return where(abs(u) < 0.5, 0.7978845608028654 * u * series, sign(u) * (1.0 - 2.0 * ndtr(-abs(u))))


def gamma_ratio_four(n):
    """Product and two sums over a = n, n+1, n+2, n+3 that take the ratio gamma(a + 1/2) / gamma(a) four steps up."""
    b, c, d = n + 1.0, n + 2.0, n + 3.0
    i, j, k, m = 0.5 / (n * (n + 0.5)), 0.5 / (b * (b + 0.5)), 0.5 / (c * (c + 0.5)), 0.5 / (d * (d + 0.5))
    product = n / (n + 0.5) * (b / (b + 0.5)) * (c / (c + 0.5)) * (d / (d + 0.5))
    squares = i * i * (n + 0.25) + j * j * (b + 0.25) + k * k * (c + 0.25) + m * m * (d + 0.25)
    return product, i + j + k + m, 4.0 * squares


def gamma_ratio(n):
    """log(gamma(n + 1/2) / gamma(n)) - log(n) / 2, and the first two derivatives of the first logarithm."""
    p, f, s = gamma_ratio_four(n)
    q, g, t = gamma_ratio_four(n + 4.0)
    r, h, u = gamma_ratio_four(n + 8.0)
    x = n + 12.0
    i = 1.0 / x
    y = i * i
    product = p * q * r
    series = 17.0 / 14336.0 - y * (31.0 / 18432.0 - y * (691.0 / 180224.0))
    value = i * (0.125 - y * (1.0 / 192.0 - y * (1.0 / 640.0 - y * series)))
    series = 17.0 / 2048.0 - y * (31.0 / 2048.0 - y * (691.0 / 16384.0))
    first = i * (0.5 + i * (0.125 - y * (1.0 / 64.0 - y * (1.0 / 128.0 - y * series))))
    series = 17.0 / 256.0 - y * (155.0 / 1024.0 - y * (2073.0 / 4096.0))
    second = y * (0.5 + i * (0.25 - y * (1.0 / 16.0 - y * (3.0 / 64.0 - y * series))))
    return 0.5 * log(x / n * product * product) - value, first + f + g + h, -second - s - t - u


def lgamma_tail(x):
    """lgamma(x) - (x - 1/2) log(x) + x - log(2 pi) / 2."""
    i = 1.0 / x
    y = i * i
    series = 1.0 / 1260.0 - y * (1.0 / 1680.0 - y * (1.0 / 1188.0 - y * (691.0 / 360360.0 - y * (1.0 / 156.0))))
    direct = lgamma(x) - (x - 0.5) * log(x) + x - 0.9189385332046727
    return where(x > 10.0, i * (1.0 / 12.0 - y * (1.0 / 360.0 - y * series)), direct)


def digamma_tail(x):
    """log(x) - 1 / (2 x) - digamma(x), for x > 16."""
    y = 1.0 / (x * x)
    series = 1.0 / 252.0 - y * (1.0 / 240.0 - y * (1.0 / 132.0 - y * (691.0 / 32760.0 - y * (1.0 / 12.0))))
    return y * (1.0 / 12.0 - y * (1.0 / 120.0 - y * series))


def trigamma_tail(x):
    """trigamma(x) - 1 / x - 1 / (2 x^2), for x > 16."""
    i = 1.0 / x
    y = i * i
    series = 1.0 / 42.0 - y * (1.0 / 30.0 - y * (5.0 / 66.0 - y * (691.0 / 2730.0 - y * (7.0 / 6.0))))
    return i * y * (1.0 / 6.0 - y * (1.0 / 30.0 - y * series))


def xlogy(x, y):
    """x log(y), and 0 where x is 0."""
    return where(x == 0.0, 0.0, x * log(y))


def xlog1py(x, y):
    """x log(1 + y), and 0 where x is 0."""
    return where(x == 0.0, 0.0, x * log1p(y))


def cosh(x):
    """Hyperbolic cosine."""
    half = exp(0.5 * abs(x))
    return 0.5 * half * half + 0.5 / (half * half)


def sinh(x):
    """Hyperbolic sine, exact for small x."""
    a = abs(x)
    half = exp(0.5 * where(a < 1.0, 1.0, a))
    change = expm1(where(a < 1.0, a, 0.0))
    near = 0.5 * (change + change / (1.0 + change))
    return sign(x) * where(a < 1.0, near, 0.5 * half * half - 0.5 / (half * half))


def log_of_cosh(x):
    """log(cosh(x)), without overflow and exact for small x."""
    a = abs(x)
    e, h = exp(-2.0 * a), expm1(-2.0 * a)
    near = a < 0.875
    # cosh^2 = 1 + sinh^2; where that serves, e is at least 0.17.
    s = log1p_unit(where(near, 0.25 * h * h / maximum(e, 0.125), e))
    return where(near, 0.5 * s, a - 0.6931471805599453 + s)


def log_of_cosh_slope(x):
    """Derivative of log_of_cosh, tanh(x), from the exponentials that it computes too."""
    a = -2.0 * abs(x)
    return sign(x) * (-expm1(a) / (1.0 + exp(a)))


def log_of_cosh_bend(x):
    """Second derivative of log_of_cosh, without cancellation."""
    e = exp(-2.0 * abs(x))
    return 4.0 * (e / ((1.0 + e) * (1.0 + e)))


def hypot1(x):
    """sqrt(1 + x^2), also where x^2 overflows."""
    a = abs(x)
    far = a > 1e9
    return where(far, a, sqrt(1.0 + where(far, 0.0, a * a)))


def hypot1_less_1(x):
    """sqrt(1 + x^2) - 1, without cancellation or overflow."""
    return abs(x) * (abs(x) / (1.0 + hypot1(x)))
