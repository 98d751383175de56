"""Formulas as one writes them for arrays, where that is faster than the form that suits a compiler.

Same arguments and results as the formulas of the package, which guard more: infinities, weights of 0, digits of tiny
values. What is compared with fastloss is derived from these, so that it is as fast as its users get it.
"""

from ..formulas.vocabulary import exp, lgamma, log, log1p, maximum, minimum, pow, sqrt, tanh, where

__all__ = ["FORMULAS"]


def huber(z, t, delta):
    """Huber's loss by clipping the residual."""
    r = z - t
    m = maximum(minimum(r, delta), -delta)
    return m * (r - 0.5 * m), m, where(abs(r) > delta, 0.0, 1.0)


def log_cosh(z, t):
    """log(cosh(r)) without overflow."""
    r = z - t
    a = abs(r)
    h = tanh(r)
    return a + log1p(exp(-2.0 * a)) - 0.6931471805599453, h, 1.0 - h * h


def quantile(z, t, q):
    """Pinball loss by its slope."""
    r = z - t
    slope = where(r > 0.0, 1.0 - q, -q)
    return slope * r, slope, 0.0


def tweedie(z, t, power, full):
    """Tweedie loss from two exponentials, powers 1 and 2 aside."""
    a, b = 2.0 - power, 1.0 - power
    m, n = exp(a * z), t * exp(b * z)
    return (1.0 / a) * (m - 1.0) - (1.0 / b) * (n - t), m - n, a * m - b * n


def gaussian_nll(mean, var, t, full, beta, eps, log_var):
    """Gaussian negative log-likelihood of a mean and a variance."""
    r = mean - t
    v = maximum(var, eps)
    i = 1.0 / v
    f = r * i
    q = r * f
    return 0.5 * (log(v) + q), (f, 0.5 * i * (1.0 - q)), (i, i * i * (q - 0.5))


def student_t_nll(mean, scale, t, df):
    """Student t negative log-likelihood; df is a number, and so are its gamma functions."""
    i = 1.0 / scale
    u = (mean - t) * i
    s = u * u
    w = 1.0 / (df + s)
    heavy = (df + 1.0) * s * w
    constant = lgamma(0.5 * df) - lgamma(0.5 * df + 0.5) + 0.5 * log(3.141592653589793 * df)
    value = constant + log(scale) + 0.5 * (df + 1.0) * log1p(s / df)
    first = ((df + 1.0) * u * w * i, (1.0 - heavy) * i)
    ii = i * i
    return value, first, ((df + 1.0) * (df - s) * w * w * ii, (heavy * (1.0 + 2.0 * df * w) - 1.0) * ii)


def _sigmoid(z):
    """exp(-|z|), 1 / (1 + exp(-|z|)) and the sigmoid, from one exponential."""
    e = exp(-abs(z))
    i = 1.0 / (1.0 + e)
    return e, i, where(z >= 0.0, 1.0, e) * i


def bce_with_logits(z, t, pos_weight, label_smoothing):
    """Binary cross-entropy from logits, as the guides to numerical stability give it."""
    e, i, p = _sigmoid(z)
    t = t - label_smoothing * t + 0.5 * label_smoothing
    more = (pos_weight - 1.0) * t
    w = 1.0 + more
    s = log1p(e) + maximum(-z, 0.0)
    return s + (1.0 - t) * z + more * s, w * p - pos_weight * t, w * (e * i * i)


def focal(z, t, alpha, gamma):
    """Focal loss from logits, for targets 0 and 1: the cross-entropy of the signed logit."""
    s = 2.0 * t - 1.0
    y = s * z
    e, _, p = _sigmoid(y)
    m = 1.0 - p
    entropy = log1p(e) + maximum(-y, 0.0)
    w = 1.0 if alpha < 0.0 else (1.0 - alpha) + (2.0 * alpha - 1.0) * t
    power = w * pow(m, gamma)
    pull = gamma * p * entropy
    curve = p * (m + gamma * (2.0 * m - m * entropy + pull))
    return power * entropy, -s * power * (m + pull), power * curve


def logistic(z, t):
    """Logistic loss of a margin."""
    y = t * z
    e, i, p = _sigmoid(y)
    return log1p(e) + maximum(-y, 0.0), t * (p - 1.0), e * i * i


def pseudo_huber(z, t, delta):
    """Pseudo-Huber loss."""
    r = z - t
    s = sqrt(1.0 + (r / delta) * (r / delta))
    i = 1.0 / s
    return delta * delta * (s - 1.0), r * i, i * i * i


FORMULAS = {
    f.__name__: f
    for f in (
        huber,
        log_cosh,
        quantile,
        tweedie,
        gaussian_nll,
        student_t_nll,
        bce_with_logits,
        focal,
        logistic,
        pseudo_huber,
    )
}
