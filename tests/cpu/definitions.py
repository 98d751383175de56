"""Definitions of the elementwise losses as textbooks have them, on numbers of any precision that carry their slopes.

Nothing here is taken from fastloss.formulas: no rewritten terms, no branches against overflow. At hundreds of digits
the plain text of a definition is exact, and its derivative follows by the rules of differentiation.
"""

from functools import cache

import mpmath as mp

__all__ = ["DEFINITIONS", "Slope", "value_and_slopes"]


class Slope:
    """A number with its derivatives with respect to some inputs (forward mode)."""

    __slots__ = ("d", "v")

    def __init__(self, v, d=()):
        self.v, self.d = v, d

    def then(self, v, by):
        """Return a function's value v and its slope `by`, by the chain rule."""
        return Slope(v, tuple(by * d if d else d for d in self.d))

    def __neg__(self):
        return self.then(-self.v, -1)

    def __abs__(self):
        return self.then(abs(self.v), mp.sign(self.v))

    def __add__(self, other):
        other = held(other)
        return Slope(self.v + other.v, tuple(a + b for a, b in zip(*paired(self, other), strict=True)))

    def __mul__(self, other):
        other = held(other)
        d = tuple(a * other.v + b * self.v for a, b in zip(*paired(self, other), strict=True))
        return Slope(self.v * other.v, d)

    def __truediv__(self, other):
        return self * (held(other) ** -1)

    def __pow__(self, n):
        # The power 0 is 1 whatever its base, and a slope of 0 times an infinite one is none.
        by = n * self.v ** (n - 1) if n and any(self.d) else 0
        return self.then(self.v**n, by)

    def __sub__(self, other):
        return self + -held(other)

    def __rsub__(self, other):
        return held(other) - self

    def __rtruediv__(self, other):
        return held(other) / self

    __radd__ = __add__
    __rmul__ = __mul__

    def __lt__(self, other):
        return self.v < held(other).v

    def __le__(self, other):
        return self.v <= held(other).v

    def __gt__(self, other):
        return self.v > held(other).v

    def __ge__(self, other):
        return self.v >= held(other).v

    def __eq__(self, other):
        return self.v == held(other).v

    __hash__ = None


def held(x):
    """Return x, or a constant made of it if it carries no slopes."""
    return x if isinstance(x, Slope) else Slope(mp.mpf(x))


def paired(a, b):
    n = max(len(a.d), len(b.d))
    return a.d or (0,) * n, b.d or (0,) * n


def constant(x):
    """The value alone: held constant in the derivatives."""
    return Slope(x.v)


def exp(x):
    e = mp.exp(x.v)
    return x.then(e, e)


def expm1(x):
    return x.then(mp.expm1(x.v), mp.exp(x.v))


def log(x):
    return x.then(mp.log(x.v), 1 / x.v)


def log1p(x):
    return x.then(mp.log1p(x.v), 1 / (1 + x.v))


def sqrt(x):
    root = mp.sqrt(x.v)
    return x.then(root, 1 / (2 * root) if any(x.d) else 0)


@cache
def gamma_parts(x, bits):
    """The logarithm of the gamma function and its slope, which take milliseconds at hundreds of digits."""
    return mp.loggamma(x), mp.psi(0, x)


def lgamma(x):
    return x.then(*gamma_parts(x.v, mp.mp.prec))


def cosh(x):
    return x.then(mp.cosh(x.v), mp.sinh(x.v))


def normal(x):
    """The distribution function of a normal distribution."""
    if abs(x.v) > 1e6:
        return x.then(mp.mpf(x.v > 0), mp.mpf(0))
    return x.then(mp.ncdf(x.v), mp.npdf(x.v))


def softplus(x):
    e = mp.exp(-abs(x.v))
    return x.then(max(x.v, mp.mpf(0)) + mp.log1p(e), (1 if x.v >= 0 else e) / (1 + e))


def sigmoid(x):
    e = mp.exp(-abs(x.v))
    return x.then((1 if x.v >= 0 else e) / (1 + e), e / (1 + e) ** 2)


def times(a, b):
    """A product, 0 where the first factor is."""
    return a * b if a != 0 else Slope(mp.mpf(0))


def smoothed(t, smoothing):
    """The target of label smoothing between two classes."""
    return t - smoothing * t + smoothing / 2


def mixed(t, positive, negative):
    """Losses of the two classes, weighted by a soft target."""
    return times(t, positive) + times(1 - t, negative)


def huber(z, t, delta):
    r = abs(z - t)
    return r**2 / 2 if r <= delta else delta * (r - delta / 2)


def smooth_l1(z, t, beta):
    r = abs(z - t)
    return r**2 / (2 * beta) if r < beta else r - beta / 2


def quantile(z, t, q):
    r = z - t
    return (1 - q) * r if r > 0 else -q * r if r < 0 else constant(r)


def smape(z, t, eps):
    # At a prediction of 0, towards the target.
    size = abs(z) if z != 0 else z * mp.sign(t.v)
    total = size + abs(t)
    return 2 * abs(z - t) / (total if total > eps else eps)


def tukey(z, t, c):
    return c**2 / 6 * (1 - (1 - min(((z - t) / c) ** 2, held(1))) ** 3)


def fair(z, t, c):
    a = abs(z - t) / c
    return c**2 * (a - log1p(a))


def wing(z, t, w, epsilon):
    r = abs(z - t)
    return w * log1p(r / epsilon) if r < w else r - w + w * log1p(w / epsilon)


def barron(z, t, alpha, c):
    u = ((z - t) / c) ** 2
    if alpha == 2:
        return u / 2
    if alpha == 0:
        return log1p(u / 2)
    if alpha.v == -mp.inf:
        return -expm1(-u / 2)
    b = abs(alpha - 2)
    return b / alpha * expm1(alpha / 2 * log1p(u / b))


def poisson(z, t, full):
    return exp(z) - times(t, z) + (lgamma(t + 1) if full == 1 else 0)


def gamma(z, t, full):
    return z + t * exp(-z) - (1 + log(t) if full == 1 else 0)


def tweedie(z, t, power, full):
    def integral(a, x):
        return x if a == 0 else expm1(a * x) / a

    def loss(x):
        return integral(2 - power, x) - times(t, integral(1 - power, x))

    if full == 0:
        return loss(z)
    least = loss(log(t)) if t > 0 else -1 / (2 - power) if power < 2 else held(-mp.inf)
    return loss(z) - least


def negative_binomial(mean, r, t):
    likelihood = lgamma(t + r) - lgamma(r) - lgamma(t + 1)
    return -(likelihood - r * log1p(mean / r) - times(t, log1p(r / mean)))


def gaussian(mean, var, t, full, beta, eps, log_var):
    if log_var == 1:
        logarithm, v = var, exp(var)
    else:
        # Below eps, with the slope there.
        v = var.then(max(var, eps).v, 1)
        logarithm = log(v)
    weight = constant(exp(beta * logarithm))
    return weight * (logarithm + (mean - t) ** 2 / v + (mp.log(2 * mp.pi) if full == 1 else 0)) / 2


def student_t(mean, scale, t, df):
    half = mp.mpf(1) / 2
    constant_part = lgamma(held(half)) + lgamma(df / 2) - lgamma(df / 2 + half) + log(df) / 2
    return (df + 1) / 2 * log1p(((mean - t) / scale) ** 2 / df) + log(scale) + constant_part


def evidential(g, nu, alpha, beta, t, lam):
    r, w, half = g - t, 2 * beta * (1 + nu), mp.mpf(1) / 2
    value = (log(mp.pi / nu) + log(w)) / 2 + (alpha + half) * log1p(nu * r**2 / w)
    return value + lgamma(alpha) - lgamma(alpha + half) + lam * abs(r) * (2 * nu + alpha)


def crps_gaussian(mean, scale, t):
    u = (mean - t) / scale
    density = exp(-(u**2) / 2) / mp.sqrt(2 * mp.pi)
    return scale * (u * (2 * normal(u) - 1) + 2 * density - 1 / mp.sqrt(mp.pi))


def bce(p, t, pos_weight, label_smoothing):
    soft, least = smoothed(t, label_smoothing), held(-100)
    up = max(log(p), least) if p > 0 else least
    down = max(log1p(-p), least) if p < 1 else least
    # Torch's slope divides by at least 1e-12.
    slope = (pos_weight * soft * (p - 1) + (1 - soft) * p) / max(p * (1 - p), 1e-12)
    return p.then((-pos_weight * soft * up - (1 - soft) * down).v, slope.v)


def bce_with_logits(z, t, pos_weight, label_smoothing):
    return mixed(smoothed(t, label_smoothing), pos_weight * softplus(-z), softplus(z))


def focal(z, t, alpha, gamma):
    wrong = mixed(t, sigmoid(-z), sigmoid(z))
    weight = held(1) if alpha < 0 else alpha * t + (1 - alpha) * (1 - t)
    return weight * wrong**gamma.v * mixed(t, softplus(-z), softplus(z))


def asymmetric(z, t, gamma_pos, gamma_neg, clip):
    positive = sigmoid(-z) ** gamma_pos.v * softplus(-z)
    q = max(sigmoid(z) - clip, held(0))
    cost = softplus(z) if clip == 0 else -log(sigmoid(-z) + clip) if q > 0 else held(0)
    return mixed(t, positive, q**gamma_neg.v * cost)


def log_loss(p, t, eps):
    # With the slope at the clipped probability.
    c = p.then(min(max(p, eps), 1 - eps).v, 1)
    return -times(t, log(c)) - times(1 - t, log1p(-c))


def smooth_hinge(z, t, margin):
    m = max(margin - t * z, held(0))
    return m**2 / 2 if m < 1 else m - mp.mpf(1) / 2


def gan_hinge(z, t, generator):
    return -z if generator == 1 else mixed(t, max(1 - z, held(0)), max(1 + z, held(0)))


def gradient_norm_penalty(n, center, one_sided, lam):
    r = n - center
    return lam * (max(r, held(0)) if one_sided == 1 else r) ** 2


DEFINITIONS = {
    "mse": lambda z, t: (z - t) ** 2,
    "mae": lambda z, t: abs(z - t),
    "huber": huber,
    "smooth_l1": smooth_l1,
    "log_cosh": lambda z, t: log(cosh(z - t)),
    "quantile": quantile,
    "expectile": lambda z, t, q: (1 - q if z > t else q) * (z - t) ** 2,
    "msle": lambda z, t: (log1p(z) - log1p(t)) ** 2,
    "mape": lambda z, t, eps: abs(z - t) / max(abs(t), eps),
    "smape": smape,
    "l1": abs,
    "l2": lambda z: z**2 / 2,
    "elastic_net": lambda z, l1_ratio: l1_ratio * abs(z) + (1 - l1_ratio) * z**2 / 2,
    "pseudo_huber": lambda z, t, delta: delta**2 * (sqrt(1 + ((z - t) / delta) ** 2) - 1),
    "charbonnier": lambda z, t, c: sqrt(1 + ((z - t) / c) ** 2) - 1,
    "cauchy": lambda z, t, c: log1p(((z - t) / c) ** 2 / 2),
    "welsch": lambda z, t, c: -expm1(-(((z - t) / c) ** 2) / 2),
    "geman_mcclure": lambda z, t, c: 2 * ((z - t) / c) ** 2 / (((z - t) / c) ** 2 + 4),
    "tukey": tukey,
    "fair": fair,
    "wing": wing,
    "barron": barron,
    "poisson": poisson,
    "gamma": gamma,
    "tweedie": tweedie,
    "negative_binomial_nll": negative_binomial,
    "gaussian_nll": gaussian,
    "laplace_nll": lambda mean, scale, t: log(2 * scale) + abs(mean - t) / scale,
    "student_t_nll": student_t,
    "evidential_regression": evidential,
    "crps_gaussian": crps_gaussian,
    "interval_score": lambda low, high, t, alpha: (
        high - low + 2 / alpha * (max(low - t, held(0)) + max(t - high, held(0)))
    ),
    "bce": bce,
    "bce_with_logits": bce_with_logits,
    "focal": focal,
    "poly1_bce": lambda z, t, e: mixed(t, softplus(-z) + e * sigmoid(-z), softplus(z) + e * sigmoid(z)),
    "asymmetric": asymmetric,
    "brier": lambda p, t: (p - t) ** 2,
    "log_loss": log_loss,
    "hinge": lambda z, t, margin: max(margin - t * z, held(0)),
    "squared_hinge": lambda z, t, margin: max(margin - t * z, held(0)) ** 2,
    "smooth_hinge": smooth_hinge,
    "modified_huber": lambda z, t: max(1 - t * z, held(0)) ** 2 if t * z >= -1 else -4 * t * z,
    "perceptron": lambda z, t: max(-t * z, held(0)),
    "exponential": lambda z, t: exp(-t * z),
    "logistic": lambda z, t: softplus(-t * z),
    "margin_ranking": lambda a, b, t, margin: max(margin - t * (a - b), held(0)),
    "hinge_embedding": lambda x, t, margin: x if t > 0 else max(margin - x, held(0)),
    "contrastive_distance": lambda d, t, margin, pos_margin: mixed(
        t, max(d - pos_margin, held(0)) ** 2, max(margin - d, held(0)) ** 2
    ),
    "triplet_distance": lambda p, n, margin: max(p - n + margin, held(0)),
    "wasserstein_critic": lambda z, t: (1 - 2 * t) * z,
    "wasserstein_generator": lambda z: -z,
    "gradient_norm_penalty": gradient_norm_penalty,
    "gan_bce": lambda z, t, smoothing: mixed(t - smoothing * t, softplus(-z), softplus(z)),
    "gan_hinge": gan_hinge,
    "lsgan": lambda z, t: (z - t) ** 2 / 2,
}
"""Definition of each elementwise loss: a function of its predictions, target and parameters."""


def value_and_slopes(name, predictions, rest):
    """Value of a loss and its derivatives with respect to the predictions, from exact numbers."""
    n = len(predictions)
    moving = [Slope(x, tuple(mp.mpf(i == j) for j in range(n))) for i, x in enumerate(predictions)]
    found = DEFINITIONS[name](*moving, *map(held, rest))
    return found.v, found.d or (mp.mpf(0),) * n
