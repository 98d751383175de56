"""Reference losses of uncertain predictions."""

import math

import numpy as np

__all__ = [
    "heteroscedastic_cross_entropy",
    "interval_score",
    "kl_dirichlet",
    "kl_gaussian",
    "ordered_quantiles",
    "soft_calibration_error",
]


def interval_score(lower, upper, t, alpha=0.1):
    """Interval score."""
    return (upper - lower) + 2 / alpha * (np.maximum(lower - t, 0) + np.maximum(t - upper, 0))


def kl_gaussian(mean, log_var, prior_mean=0.0, prior_log_var=0.0):
    """Divergence of Gaussians."""
    ratio = np.exp(log_var - prior_log_var)
    return 0.5 * ((mean - prior_mean) ** 2 / np.exp(prior_log_var) + ratio - 1 - np.log(ratio))


def _digamma(x):
    """Derivative of lgamma, by a fourth-order difference of its recurrence far out."""
    total = 0.0
    while x < 30:
        total -= 1 / x
        x += 1
    return total + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6) + 1 / (240 * x**8)


def kl_dirichlet(alpha, prior=None):
    """Divergence of Dirichlet distributions: the difference of log-normalisers, and of the mean log-probabilities."""
    prior = np.ones_like(alpha) if prior is None else prior
    lgamma, psi = np.vectorize(math.lgamma), np.vectorize(_digamma)
    beta = [lgamma(a).sum(-1) - lgamma(a.sum(-1)) for a in (prior, alpha)]
    return beta[0] - beta[1] + ((alpha - prior) * (psi(alpha) - psi(alpha.sum(-1))[..., None])).sum(-1)


def ordered_quantiles(scores, target, levels):
    """Mean quantile loss of sums of softplus."""
    steps = np.concatenate([scores[..., :1], np.log1p(np.exp(scores[..., 1:]))], axis=-1)
    r = target[..., None] - np.cumsum(steps, axis=-1)
    return np.maximum(levels * r, (levels - 1) * r).mean(-1)


def _hashed(index):
    """SplitMix64 of indices, as numbers in (0, 1)."""
    z = index * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(float) + 0.5) / 2**53


def heteroscedastic_cross_entropy(logits, log_var, labels, samples=16, seed=0):
    """Negative logarithm of the mean probability of the label, over draws of the logits."""
    n, k = logits.reshape(-1, logits.shape[-1]).shape
    index = np.arange(n * samples * k, dtype=np.uint64).reshape(n, samples, k) + np.uint64(seed * 2**40)
    first, second = _hashed(2 * index + np.uint64(1)), _hashed(2 * index + np.uint64(2))
    noise = np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)
    z = logits.reshape(n, 1, k) + np.exp(log_var.reshape(n, 1, k) / 2) * noise
    p = np.exp(z - z.max(axis=2, keepdims=True))
    p = (p / p.sum(axis=2, keepdims=True))[np.arange(n), :, labels.reshape(-1)]
    return -np.log(p.mean(axis=1)).reshape(labels.shape)


def soft_calibration_error(confidence, correct, bins=15, temperature=0.01, p=2.0):
    """Power mean over soft bins of the gap between accuracy and confidence."""
    centres = (np.arange(bins) + 0.5) / bins
    far = -((confidence[:, None] - centres) ** 2) / temperature
    u = np.exp(far - far.max(axis=1, keepdims=True))
    u = u / u.sum(axis=1, keepdims=True)
    mass = u.sum(axis=0)
    gap = np.abs((u * (correct - confidence)[:, None]).sum(axis=0) / mass)
    return ((mass / len(confidence)) @ gap**p) ** (1 / p)
