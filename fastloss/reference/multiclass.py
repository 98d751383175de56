"""Multiclass, margin and adversarial losses in textbook form."""

import math

import numpy as np

__all__ = [
    "arcface",
    "contrastive_distance",
    "cosface",
    "dirichlet_evidential",
    "distillation",
    "gan_bce",
    "gan_hinge",
    "gradient_norm_penalty",
    "hinge_embedding",
    "label_relaxation",
    "lsgan",
    "margin_ranking",
    "ordinal",
    "reverse_kl",
    "sparsemax_loss",
    "triplet_distance",
    "tv_distance",
    "wasserstein_critic",
    "wasserstein_generator",
]


def margin_ranking(x1, x2, t, margin=0.0):
    """Margin ranking loss."""
    return np.maximum(-t * (x1 - x2) + margin, 0)


def hinge_embedding(x, t, margin=1.0):
    """Hinge embedding loss."""
    return np.where(t == 1, x, np.maximum(margin - x, 0))


def contrastive_distance(d, t, margin=1.0, pos_margin=0.0):
    """Contrastive loss of a distance."""
    return t * np.maximum(d - pos_margin, 0) ** 2 + (1 - t) * np.maximum(margin - d, 0) ** 2


def triplet_distance(d_positive, d_negative, margin=1.0):
    """Triplet loss of two distances."""
    return np.maximum(d_positive - d_negative + margin, 0)


def wasserstein_critic(z, t):
    """Loss of a Wasserstein critic."""
    return (1 - t) * z - t * z


def wasserstein_generator(z):
    """Loss of a Wasserstein generator."""
    return -z


def gradient_norm_penalty(n, center=1.0, one_sided=False, lam=10.0):
    """Gradient penalty from gradient norms."""
    return lam * (np.maximum(n - center, 0) if one_sided else n - center) ** 2


def gan_bce(z, t, label_smoothing=0.0):
    """Cross-entropy of a discriminator, with one-sided label smoothing."""
    s = (1 - label_smoothing) * t
    return s * np.logaddexp(0.0, -z) + (1 - s) * np.logaddexp(0.0, z)


def gan_hinge(z, t, generator=False):
    """Hinge loss of a discriminator, or of a generator."""
    return -z if generator else t * np.maximum(1 - z, 0) + (1 - t) * np.maximum(1 + z, 0)


def lsgan(z, t):
    """Least-squares loss of a discriminator."""
    return (z - t) ** 2 / 2


def _softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _goal(z, t):
    """Return labels (n,) as one-hot rows, and probabilities unchanged."""
    t = np.asarray(t)
    return np.eye(z.shape[-1])[t] if t.ndim == z.ndim - 1 else t


def tv_distance(log_probs, targets):
    """Total variation distance."""
    return np.abs(np.exp(log_probs) - targets).sum(axis=-1) / 2


def reverse_kl(log_probs, targets):
    """Kullback-Leibler divergence of the prediction from the target."""
    p = np.exp(log_probs)
    with np.errstate(divide="ignore"):
        gap = np.where(p > 0, log_probs, 0.0) - np.where(p > 0, np.log(targets), 0.0)
    missing = (np.asarray(targets) == 0) & np.isfinite(log_probs)
    return np.where(missing, np.inf, p * np.where(missing, 0.0, gap)).sum(axis=-1)


def label_relaxation(logits, targets, alpha=0.1):
    """Label relaxation: KL(p_r || p), with p_r the nearest distribution that has at least 1 - alpha on the label."""
    p = _softmax(logits)
    cost = np.zeros_like(p)
    for y in range(p.shape[-1]):
        at = np.arange(p.shape[-1]) == y
        others = np.where(at, 0.0, p).sum(axis=-1)
        share = np.where(at, 0.0, p) / np.where(others == 0, 1.0, others)[:, None]
        near = np.where(at, 1.0 - alpha, alpha * share)
        safe = np.where(near == 0, 1.0, near / np.where(p == 0, 1.0, p))
        cost[:, y] = np.where(others <= alpha, 0.0, (near * np.log(safe)).sum(axis=-1))
    return (_goal(logits, targets) * cost).sum(axis=-1)


def sparsemax_loss(logits, targets):
    """Sparsemax loss, the threshold by sorting as in algorithm 1 of Martins and Astudillo 2016."""
    t, k = _goal(logits, targets), logits.shape[-1]
    down = -np.sort(-logits, axis=-1)
    sums = down.cumsum(axis=-1)
    size = (1 + np.arange(1, k + 1) * down > sums).sum(axis=-1, keepdims=True)
    tau = (np.take_along_axis(sums, size - 1, axis=-1) - 1) / size
    inside = logits > tau
    half = np.where(inside, logits**2 - tau**2, 0.0).sum(axis=-1) / 2
    return half - (t * logits).sum(axis=-1) + (t**2).sum(axis=-1) / 2


def ordinal(logits, labels):
    """Sum over the thresholds k of the cross-entropy of [label > k]."""
    above = np.asarray(labels)[..., None] > np.arange(logits.shape[-1])
    return np.logaddexp(0.0, np.where(above, -logits, logits)).sum(axis=-1)


def dirichlet_evidential(logits, targets, lam=1.0):
    """Evidential loss of Sensoy et al. 2018, equation 5 and the divergence below it."""
    lgamma = np.vectorize(math.lgamma, otypes=[float])
    digamma = np.vectorize(_digamma, otypes=[float])
    t = _goal(logits, targets)
    alpha = np.logaddexp(0.0, logits) + 1
    s = alpha.sum(axis=-1, keepdims=True)
    q = alpha / s
    risk = ((t - q) ** 2 + q * (1 - q) / (s + 1)).sum(axis=-1)
    a = t + (1 - t) * alpha
    total = a.sum(axis=-1)
    log_ratio = lgamma(total) - math.lgamma(a.shape[-1]) - lgamma(a).sum(axis=-1)
    return risk + lam * (log_ratio + ((a - 1) * (digamma(a) - digamma(total)[..., None])).sum(axis=-1))


def _digamma(x):
    shift = 0.0
    while x < 30:
        shift, x = shift - 1 / x, x + 1
    return shift + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6) + 1 / (240 * x**8)


def distillation(logits, teacher, temperature=2.0):
    """Temperature^2 KL(softmax(teacher / T) || softmax(student / T))."""
    q, p = _softmax(teacher / temperature), _softmax(logits / temperature)
    safe = np.where(q == 0, 1.0, q / np.where(p == 0, 1.0, p))
    return temperature**2 * (q * np.log(safe)).sum(axis=-1)


def _label_entropy(cosines, labels, changed, scale):
    at = _goal(cosines, labels) == 1
    z = scale * np.where(at, changed, cosines)
    top = z.max(axis=-1)
    return top + np.log(np.exp(z - top[..., None]).sum(axis=-1)) - np.where(at, z, 0.0).sum(axis=-1)


def arcface(cosines, labels, margin=0.5, scale=64.0):
    """Additive angular margin loss."""
    angle = np.arccos(np.clip(cosines, -1, 1)) + margin
    changed = np.where(angle <= np.pi, np.cos(angle), cosines - margin * np.sin(margin))
    return _label_entropy(cosines, labels, changed, scale)


def cosface(cosines, labels, margin=0.35, scale=64.0):
    """Additive cosine margin loss."""
    return _label_entropy(cosines, labels, cosines - margin, scale)
