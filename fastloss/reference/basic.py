"""Elementwise and row-wise losses in plain NumPy."""

import math

import numpy as np

_lgamma = np.vectorize(math.lgamma, otypes=[float])
_erf = np.vectorize(math.erf, otypes=[float])


def _xlogy(x, y):
    return np.where(x == 0, 0.0, x * np.log(np.where(x == 0, 1.0, y)))


def _softplus(x):
    return np.logaddexp(0.0, x)


def _sigmoid(x):
    return np.exp(-_softplus(-x))


def mse(z, t):
    """Squared error."""
    return (z - t) ** 2


def mae(z, t):
    """Absolute error."""
    return np.abs(z - t)


def huber(z, t, delta=1.0):
    """Huber loss."""
    a = np.abs(z - t)
    return np.where(a <= delta, a**2 / 2, delta * (a - delta / 2))


def smooth_l1(z, t, beta=1.0):
    """Smooth L1 loss."""
    return mae(z, t) if beta == 0 else huber(z, t, beta) / beta


def log_cosh(z, t):
    """Logarithm of the hyperbolic cosine of the residual."""
    a = np.abs(z - t)
    return np.where(a < 1, np.log1p(2 * np.sinh(np.minimum(a, 1) / 2) ** 2), np.logaddexp(a, -a) - np.log(2))


def quantile(z, t, q=0.5):
    """Pinball loss."""
    return np.maximum(q * (t - z), (q - 1) * (t - z))


def expectile(z, t, q=0.5):
    """Asymmetric squared error."""
    return np.abs(q - (t < z)) * (z - t) ** 2


def msle(z, t):
    """Squared error of log(1 + x)."""
    return (np.log1p(z) - np.log1p(t)) ** 2


def mape(z, t, eps=2.220446049250313e-16):
    """Absolute error relative to the target."""
    return np.abs(z - t) / np.maximum(np.abs(t), eps)


def smape(z, t, eps=2.220446049250313e-16):
    """Absolute error relative to the mean size of prediction and target."""
    return 2 * np.abs(z - t) / np.maximum(np.abs(z) + np.abs(t), eps)


def l1(z):
    """Absolute value."""
    return np.abs(z)


def l2(z):
    """Half the square."""
    return z**2 / 2


def elastic_net(z, l1_ratio=0.5):
    """Mixture of l1 and l2."""
    return l1_ratio * np.abs(z) + (1 - l1_ratio) * z**2 / 2


def pseudo_huber(z, t, delta=1.0):
    """Pseudo-Huber loss."""
    u = (z - t) / delta
    return delta**2 * u**2 / (np.sqrt(1 + u**2) + 1)


def charbonnier(z, t, c=1.0):
    """Charbonnier loss."""
    u = (z - t) / c
    return u**2 / (np.sqrt(1 + u**2) + 1)


def cauchy(z, t, c=1.0):
    """Cauchy loss."""
    return np.log1p(((z - t) / c) ** 2 / 2)


def welsch(z, t, c=1.0):
    """Welsch loss."""
    return -np.expm1(-(((z - t) / c) ** 2) / 2)


def geman_mcclure(z, t, c=1.0):
    """Geman-McClure loss."""
    u = (z - t) / c
    return 2 * u**2 / (u**2 + 4)


def tukey(z, t, c=4.685):
    """Tukey's biweight, with 1 - (1 - x)^3 expanded."""
    x = np.minimum(((z - t) / c) ** 2, 1)
    return c**2 / 6 * (3 * x - 3 * x**2 + x**3)


def fair(z, t, c=1.0):
    """Fair's loss."""
    a = np.abs(z - t) / c
    return c**2 * (a - np.log1p(a))


def wing(z, t, w=10.0, epsilon=2.0):
    """Wing loss."""
    a = np.abs(z - t)
    return np.where(a < w, w * np.log1p(a / epsilon), a - w + w * np.log1p(w / epsilon))


def barron(z, t, alpha=1.0, c=1.0):
    """General robust loss, equation 13 of Barron 2019."""
    x = ((z - t) / c) ** 2
    limits = {2.0: lambda: x / 2, 0.0: lambda: np.log1p(x / 2), -np.inf: lambda: -np.expm1(-x / 2)}
    b = abs(alpha - 2)
    return limits[alpha]() if alpha in limits else b / alpha * np.expm1(alpha / 2 * np.log1p(x / b))


def poisson(z, t, full=False):
    """Poisson negative log-likelihood, of the log of the mean."""
    return np.exp(z) - t * z + (_lgamma(t + 1) if full else 0)


def gamma(z, t, full=False):
    """Gamma loss, of the log of the mean; half the deviance if full."""
    return z + t * np.exp(-z) - (np.log(t) + 1 if full else 0)


def tweedie(z, t, power=1.5, full=False):
    """Tweedie loss, of the log of the mean: the integral of (mean - t) mean^-power, from mean 1 or (full) mean t."""

    def integral(a, x):
        return x if a == 0 else np.expm1(a * x) / a

    def total(x):
        return integral(2 - power, x) - _product(t, integral(1 - power, x))

    with np.errstate(divide="ignore"):
        return total(z) - (total(np.log(t)) if full else 0)


def _product(t, x):
    return np.where(t == 0, 0.0, t * np.where(t == 0, 0.0, x))


def negative_binomial_nll(mean, r, t):
    """Negative binomial negative log-likelihood."""
    choose = _lgamma(t + r) - _lgamma(r) - _lgamma(t + 1)
    return r * np.log1p(mean / r) + _xlogy(t, (r + mean) / mean) - choose


def gaussian_nll(mean, var, t, full=False, beta=0.0, eps=1e-6, log_var=False):
    """Gaussian negative log-likelihood, times var^beta."""
    v = np.exp(var) if log_var else np.maximum(var, eps)
    return v**beta * (np.log(v) + (mean - t) ** 2 / v + full * np.log(2 * np.pi)) / 2


def laplace_nll(mean, scale, t):
    """Laplace negative log-likelihood."""
    return np.log(2 * scale) + np.abs(mean - t) / scale


def student_t_nll(mean, scale, t, df=4.0):
    """Student t negative log-likelihood."""
    constant = math.lgamma(df / 2) - math.lgamma((df + 1) / 2) + math.log(df * math.pi) / 2
    return constant + np.log(scale) + (df + 1) / 2 * np.log1p(((mean - t) / scale) ** 2 / df)


def evidential_regression(gamma, nu, alpha, beta, t, lam=0.01):
    """Deep evidential regression, equations 8 and 9 of Amini et al. 2020."""
    omega = 2 * beta * (1 + nu)
    fit = (alpha + 0.5) * np.log((t - gamma) ** 2 * nu + omega) - alpha * np.log(omega) + np.log(np.pi / nu) / 2
    return fit + _lgamma(alpha) - _lgamma(alpha + 0.5) + lam * np.abs(t - gamma) * (2 * nu + alpha)


def crps_gaussian(mean, scale, t):
    """Continuous ranked probability score of a normal distribution."""
    u = (t - mean) / scale
    density = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
    return scale * (u * _erf(u / np.sqrt(2)) + 2 * density - 1 / np.sqrt(np.pi))


def _weights(t, pos_weight, label_smoothing):
    soft = (1 - label_smoothing) * t + label_smoothing / 2
    return pos_weight * soft, 1 - soft


def bce(p, t, pos_weight=1.0, label_smoothing=0.0):
    """Binary cross-entropy from probabilities."""
    positive, negative = _weights(t, pos_weight, label_smoothing)
    with np.errstate(divide="ignore"):
        return -positive * np.maximum(np.log(p), -100) - negative * np.maximum(np.log1p(-p), -100)


def bce_with_logits(z, t, pos_weight=1.0, label_smoothing=0.0):
    """Binary cross-entropy from logits."""
    positive, negative = _weights(t, pos_weight, label_smoothing)
    return positive * _softplus(-z) + negative * _softplus(z)


def focal(z, t, alpha=0.25, gamma=2.0):
    """Focal loss from logits, with p_t = p t + (1 - p) (1 - t)."""
    weight = 1.0 if alpha is None else alpha * t + (1 - alpha) * (1 - t)
    wrong = t * _sigmoid(-z) + (1 - t) * _sigmoid(z)
    return weight * wrong**gamma * bce_with_logits(z, t)


def poly1_bce(z, t, epsilon=1.0):
    """Binary cross-entropy plus epsilon (1 - p_t)."""
    return bce_with_logits(z, t) + epsilon * (t * _sigmoid(-z) + (1 - t) * _sigmoid(z))


def asymmetric(z, t, gamma_pos=0.0, gamma_neg=4.0, clip=0.05):
    """Asymmetric loss from logits."""
    q = np.maximum(_sigmoid(z) - clip, 0)
    negative = q**gamma_neg * (_softplus(z) if clip == 0 else -np.log1p(-q))
    return t * _sigmoid(-z) ** gamma_pos * _softplus(-z) + (1 - t) * negative


def brier(p, t):
    """Squared error of a probability."""
    return (p - t) ** 2


def log_loss(p, t):
    """Binary cross-entropy from probabilities clipped by the machine epsilon."""
    eps = np.finfo(float).eps
    p = np.clip(p, eps, 1 - eps)
    return -t * np.log(p) - (1 - t) * np.log1p(-p)


def hinge(z, t, margin=1.0):
    """Hinge loss."""
    return np.maximum(margin - t * z, 0)


def squared_hinge(z, t, margin=1.0):
    """Squared hinge loss."""
    return np.maximum(margin - t * z, 0) ** 2


def smooth_hinge(z, t, margin=1.0):
    """Hinge loss with a rounded kink."""
    m = margin - t * z
    return np.where(m <= 0, 0, np.where(m < 1, m**2 / 2, m - 0.5))


def modified_huber(z, t):
    """Squared hinge loss, linear below margin -1."""
    return np.where(t * z >= -1, np.maximum(1 - t * z, 0) ** 2, -4 * t * z)


def perceptron(z, t):
    """Perceptron loss."""
    return np.maximum(-t * z, 0)


def exponential(z, t):
    """Exponential loss."""
    return np.exp(-t * z)


def logistic(z, t):
    """Logistic loss."""
    return _softplus(-t * z)


def _log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _picked(rows, labels):
    return np.take_along_axis(rows, np.asarray(labels)[:, None], axis=-1)[:, 0]


def cross_entropy(
    logits, targets, class_weight=None, label_smoothing=0.0, z_loss=0.0, temperature=1.0, ignore_index=-100
):
    """Softmax cross-entropy against labels (n,) or probabilities (n, K), plus z_loss times the squared log-sum-exp."""
    z, k = logits / temperature, logits.shape[-1]
    weight = np.ones(k) if class_weight is None else class_weight
    targets = np.asarray(targets)
    kept = targets != ignore_index if targets.ndim == 1 else np.full(len(z), True)
    t = np.eye(k)[np.where(kept, targets, 0)] if targets.ndim == 1 else targets
    lse = z.max(axis=-1) + np.log(np.exp(z - z.max(axis=-1, keepdims=True)).sum(axis=-1))
    t = (1 - label_smoothing) * t + label_smoothing / k
    return np.where(kept, -(weight * t * _log_softmax(z)).sum(axis=-1) + z_loss * lse**2, 0.0)


def nll(log_probs, labels, label_smoothing=0):
    """Negative log-likelihood of labels, from log-probabilities."""
    e = label_smoothing
    return (e - 1) * _picked(log_probs, labels) - e * log_probs.mean(axis=-1)


def softmax_focal(logits, labels, gamma=2.0):
    """Focal loss over a softmax."""
    lp = _log_softmax(logits)
    others = np.where(np.eye(logits.shape[-1], dtype=bool)[labels], 0.0, np.exp(lp)).sum(axis=-1)
    return -(others**gamma) * _picked(lp, labels)


def poly1_cross_entropy(logits, labels, epsilon=1.0):
    """Softmax cross-entropy plus epsilon (1 - p_label)."""
    lp = _picked(_log_softmax(logits), labels)
    return -lp - epsilon * np.expm1(lp)


def generalized_cross_entropy(logits, labels, q=0.7):
    """(1 - p_label^q) / q, Zhang and Sabuncu 2018; cross-entropy at q = 0."""
    lp = _picked(_log_softmax(logits), labels)
    return -lp if q == 0 else -np.expm1(q * lp) / q


def kl_div(log_probs, targets):
    """Kullback-Leibler divergence, the sum of t (log t - log p)."""
    return (_xlogy(targets, targets) - np.where(targets == 0, 0.0, targets * log_probs)).sum(axis=-1)


def js_div(log_probs, targets, beta=0.5):
    """Jensen-Shannon divergence beta KL(t || m) + (1 - beta) KL(p || m), with m = beta t + (1 - beta) p."""
    p = np.exp(log_probs)
    m = beta * targets + (1 - beta) * p
    log_m = np.log(np.where(m == 0, 1.0, m))
    return beta * kl_div(log_m, targets) + (1 - beta) * kl_div(log_m, p)


def crammer_singer(logits, labels, margin=1.0):
    """Largest violation of the margin by another class, Crammer and Singer 2001."""
    label = np.eye(logits.shape[-1], dtype=bool)[labels]
    best = np.where(label, -np.inf, logits).max(axis=-1)
    return np.maximum(margin + best - _picked(logits, labels), 0)


def multi_margin(logits, labels, p=1, margin=1.0, class_weight=None):
    """Mean over the classes of the violations of the margin to the power p, as torch's multi_margin_loss."""
    label = np.eye(logits.shape[-1], dtype=bool)[labels]
    violation = np.maximum(margin + logits - _picked(logits, labels)[:, None], 0) ** p
    weight = 1.0 if class_weight is None else np.asarray(class_weight)[labels]
    return weight * np.where(label, 0.0, violation).mean(axis=-1)


def crps_ensemble(ensemble, target, fair=False):
    """Continuous ranked probability score of an ensemble (n, M): E|X - t| - E|X - X'| / 2, unbiased if fair."""
    m = ensemble.shape[-1]
    spread = np.abs(ensemble[:, :, None] - ensemble[:, None, :]).sum(axis=(1, 2)) / (2 * m * (m - 1 if fair else m))
    return np.abs(ensemble - target[:, None]).mean(axis=-1) - spread
