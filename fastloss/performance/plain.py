"""Alternative formulas for array libraries, where these are faster than the form that suits a compiler.

Arguments and results are those of the package's formulas, which also guard infinities, weights of 0 and the digits of
tiny values. Other libraries' code is derived from these, so that it is as fast as in normal use.
"""

from ..spec.vocabulary import (
    digamma,
    exp,
    lgamma,
    log,
    log1p,
    maximum,
    minimum,
    pow,
    sqrt,
    tanh,
    trigamma,
    where,
)

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


def poly1_bce(z, t, epsilon):
    """Binary cross-entropy from logits plus epsilon (1 - p_t)."""
    e, i, p = _sigmoid(z)
    turn = epsilon * (1.0 - 2.0 * t)
    c = e * i * i
    return (
        log1p(e) + maximum(z, 0.0) - t * z + (epsilon * t + turn * p),
        p - t + turn * c,
        c * (1.0 + turn - 2.0 * turn * p),
    )


def hinge(z, t, margin):
    """Hinge loss; its kink is met by no data."""
    m = maximum(margin - z * t, 0.0)
    return m, where(m > 0.0, -t, 0.0), 0.0


def perceptron(z, t):
    """Perceptron loss."""
    m = -z * t
    return maximum(m, 0.0), where(m > 0.0, -t, 0.0), 0.0


def margin_ranking(x1, x2, t, margin):
    """Margin ranking loss."""
    m = maximum(margin - t * (x1 - x2), 0.0)
    slope = where(m > 0.0, -t, 0.0)
    return m, (slope, -slope), (0.0, 0.0)


def hinge_embedding(x, t, margin):
    """Hinge embedding loss."""
    same = t > 0.0
    m = maximum(margin - x, 0.0)
    return where(same, x, m), where(same, 1.0, where(m > 0.0, -1.0, 0.0)), 0.0


def contrastive_distance(d, t, margin, pos_margin):
    """Contrastive loss of a distance, for pairs that belong together or do not."""
    same = t > 0.0
    m, far = maximum(margin - d, 0.0), maximum(d - pos_margin, 0.0)
    x = where(same, far, -m)
    # At a pos_margin of 0 the second derivative at 0 is that of d^2.
    bend = where((far > 0.0) | (pos_margin == 0.0), 2.0, 0.0)
    return x * x, 2.0 * x, where(same, bend, where(m > 0.0, 2.0, 0.0))


def triplet_distance(d_positive, d_negative, margin):
    """Triplet loss of two distances."""
    m = maximum(d_positive - d_negative + margin, 0.0)
    slope = where(m > 0.0, 1.0, 0.0)
    return m, (slope, -slope), (0.0, 0.0)


def wasserstein_critic(z, t):
    """Loss of a Wasserstein critic."""
    side = 1.0 - 2.0 * t
    return side * z, side, 0.0


def wasserstein_generator(z):
    """Loss of a Wasserstein generator."""
    return -z, -1.0, 0.0


def gan_bce(z, t, label_smoothing):
    """Cross-entropy of a discriminator's logits."""
    return bce_with_logits(z, (1.0 - label_smoothing) * t, 1.0, 0.0)


def gan_hinge(z, t, generator):
    """Hinge loss of a discriminator, for targets 0 and 1."""
    if generator:
        return wasserstein_generator(z)
    return hinge(z, 2.0 * t - 1.0, 1.0)


def multi_margin(u, p, margin):
    """One term of the multiclass hinge loss."""
    a = maximum(u + margin, 0.0)
    if p == 2.0:
        return a * a, 2.0 * a, where(a > 0.0, 2.0, 0.0)
    return a, where(a > 0.0, 1.0, 0.0), 0.0


def crammer_singer(u, margin):
    """The term of the strongest wrong class."""
    return multi_margin(u, 1.0, margin)


def softmax_focal(lp, t, gamma):
    """Focal loss over a softmax, from the probability."""
    p = exp(lp)
    m = 1.0 - p
    lower = pow(m, gamma - 1.0)
    pull = p * lp
    bend = gamma * (lower * p * (2.0 + lp) - (gamma - 1.0) * pow(m, gamma - 2.0) * p * pull)
    return -t * m * lower * lp, -t * lower * (m - gamma * pull), t * bend


def label_relaxation(lp, t, alpha):
    """Label relaxation of a label, by its probability."""
    p = exp(lp)
    n = 1.0 - p
    met = n <= alpha
    keep = 1.0 - alpha
    value = keep * (log(keep) - lp) + (alpha * log(alpha / n) if alpha > 0.0 else 0.0)
    return t * where(met, 0.0, value), t * where(met, 0.0, alpha / n - 1.0), t * where(met, 0.0, alpha * p / (n * n))


def dirichlet_evidential(e, t, total, excess, k, lam):
    """Evidential loss by gamma functions."""
    i = 1.0 / (total + k)
    q = (e + 1.0) * i
    j = 1.0 / (total + k + 1.0)
    r = q - t
    spread = q * (1.0 - q) * j
    slope = 2.0 * r + (1.0 - 2.0 * q) * j
    rest = 1.0 - t
    x, y = rest * e, k + excess
    log_ratio = (lgamma(y) - lgamma(k) - excess * digamma(y)) / k
    value = r * r + spread + lam * (log_ratio + x * digamma(1.0 + x) - lgamma(1.0 + x))
    turn = excess * trigamma(y) / k
    return value, (slope * i + lam * rest * x * trigamma(1.0 + x), -slope * q * i - spread * j, -lam * turn)


def js_div(lp, t, beta):
    """Jensen-Shannon divergence of targets above 0."""
    p = exp(lp)
    rest = 1.0 - beta
    m = beta * t + rest * p
    log_m = log(m)
    part = rest * p * (lp - log_m)
    return beta * t * (log(t) - log_m) + part, part, part + rest * p * (1.0 - rest * p / m)


def smooth_l1(z, t, beta):
    """Smooth L1 by clipping, for a width above 0."""
    r = z - t
    m = maximum(minimum(r * (1.0 / beta), 1.0), -1.0)
    return m * (r - 0.5 * beta * m), m, where(abs(r) < beta, 1.0 / beta, 0.0)


def msle(z, t):
    """Squared error of log(1 + x), by two logarithms."""
    d = log1p(z) - log1p(t)
    i = 1.0 / (1.0 + z)
    return d * d, 2.0 * d * i, 2.0 * (1.0 - d) * i * i


def charbonnier(z, t, c):
    """Charbonnier loss."""
    u = (z - t) / c
    s = sqrt(1.0 + u * u)
    i = 1.0 / s
    return s - 1.0, u * i / c, i * i * i / (c * c)


def cauchy(z, t, c):
    """Cauchy loss."""
    u = (z - t) / c
    x = 0.5 * u * u
    w = 1.0 / (1.0 + x)
    return log1p(x), u * w / c, (1.0 - x) * w * w / (c * c)


def welsch(z, t, c):
    """Welsch loss."""
    u = (z - t) / c
    x = u * u
    e = exp(-0.5 * x)
    return 1.0 - e, u * e / c, (1.0 - x) * e / (c * c)


def geman_mcclure(z, t, c):
    """Geman-McClure loss."""
    u = (z - t) / c
    x = u * u
    i = 1.0 / (4.0 + x)
    w = 16.0 * i * i
    return 2.0 * x * i, u * w / c, w * (16.0 * i - 3.0) / (c * c)


def fair(z, t, c):
    """Fair's loss."""
    r = z - t
    a = abs(r) / c
    w = 1.0 / (1.0 + a)
    return c * c * (a - log1p(a)), r * w, w * w


def negative_binomial_nll(mean, r, t):
    """Negative binomial negative log-likelihood by log-gammas."""
    s = r + mean
    u = r + t
    j = 1.0 / s
    k = 1.0 / mean
    logarithm = log(s / r)
    value = lgamma(r) + lgamma(t + 1.0) - lgamma(u) + r * logarithm + t * log(s * k)
    x = (t - mean) * j
    first = (-x * s * k * (r * j), digamma(r) - digamma(u) + logarithm + x)
    second_mean = r * j * j * (t * k * k * (s + mean) - 1.0)
    return value, first, (second_mean, trigamma(r) - trigamma(u) + j - 1.0 / r - x * j)


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
        *(huber, smooth_l1, log_cosh, quantile, msle, pseudo_huber, charbonnier, cauchy, welsch, geman_mcclure, fair),
        *(tweedie, negative_binomial_nll, gaussian_nll, student_t_nll),
        *(bce_with_logits, focal, poly1_bce, logistic, hinge, perceptron),
        *(margin_ranking, hinge_embedding, contrastive_distance, triplet_distance),
        *(wasserstein_critic, wasserstein_generator, gan_bce, gan_hinge),
        *(softmax_focal, label_relaxation, js_div, multi_margin, crammer_singer, dirichlet_evidential),
    )
}
