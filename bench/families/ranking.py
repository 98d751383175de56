"""Losses of ranking and of survival, beside NumPy and where it helps beside the sorting alone."""

import numpy as np

import fastloss as fl

from .case import Bench


def groups(count, size, dtype=np.float32):
    """Scores, grades and offsets of groups of one size, which NumPy can take as a matrix."""
    rng = np.random.default_rng(0)
    scores, relevance = rng.normal(size=count * size).astype(dtype), rng.integers(0, 5, count * size).astype(dtype)
    return scores, relevance, size * np.arange(count + 1)


def pairwise_numpy(s, r, weight=1.0):
    """Mean over pairs of each row, mean of rows, and the gradient."""
    d = s[:, :, None] - s[:, None, :]
    w = (r[:, :, None] > r[:, None, :]) * weight
    w /= np.maximum(w.sum(axis=(1, 2), keepdims=True), 1) * len(s)
    e = np.exp(-np.abs(d))
    value = (w * (np.maximum(-d, 0) + np.log1p(e))).sum()
    slope = -w * np.where(d >= 0, e, 1) / (1 + e)
    return float(value), slope.sum(axis=2) - slope.sum(axis=1)


def swaps_numpy(s, r):
    """Changes of NDCG by each swap."""
    n = s.shape[1]
    table = (1 / np.log2(np.arange(n) + 2)).astype(s.dtype)
    gain = 2**r - 1
    best = np.sort(gain, axis=1)[:, ::-1] @ table
    discount = np.empty_like(s)
    np.put_along_axis(discount, np.argsort(-s, axis=1, kind="stable"), np.broadcast_to(table, s.shape), axis=1)
    gain = gain / np.maximum(best, 1e-30)[:, None]
    return np.abs(gain[:, :, None] - gain[:, None, :]) * np.abs(discount[:, :, None] - discount[:, None, :])


def lambda_numpy(s, r):
    """Sum over pairs weighted by swaps, and the lambdas."""
    d = s[:, :, None] - s[:, None, :]
    w = (r[:, :, None] > r[:, None, :]) * swaps_numpy(s, r) / len(s)
    e = np.exp(-np.abs(d))
    slope = -w * np.where(d >= 0, e, 1) / (1 + e)
    return float((w * (np.maximum(-d, 0) + np.log1p(e))).sum()), slope.sum(axis=2) - slope.sum(axis=1)


def of_pairs(loss, of_numpy, count, size):
    def make():
        s, r, offsets = groups(count, size)
        out = np.empty_like(s)
        rows = s.reshape(count, size), r.reshape(count, size)
        return {
            "fastloss": lambda: loss.value_and_grad(s, r, offsets, out=out),
            "numpy": lambda: of_numpy(*rows),
        }

    return make


def listnet_numpy(s, r):
    """Cross-entropy of two softmaxes along rows."""
    p = np.exp(r - r.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    shifted = s - s.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    return float((p * (np.log(total) - shifted)).sum() / len(s)), (e / total - p) / len(s)


def list_mle_numpy(s, r):
    """Plackett-Luce along rows."""
    order = np.argsort(-r, axis=1, kind="stable")
    x = np.take_along_axis(s, order, axis=1)
    below = np.logaddexp.accumulate(x[:, ::-1], axis=1)[:, ::-1]
    slope = (np.exp(x) * np.cumsum(np.exp(-below), axis=1) - 1) / len(s)
    grad = np.empty_like(s)
    np.put_along_axis(grad, order, slope, axis=1)
    return float((below - x).sum() / len(s)), grad


def auc_numpy(scores, labels):
    """Centred sums of the negatives above each positive, and of the positives below each negative."""
    x = scores.astype(np.float64)
    good, bad = np.sort(x[labels == 1]), np.sort(x[labels == 0])
    centre = x.mean()
    value, grad = 0.0, np.empty_like(x)
    for _, others, side in ((good, bad, 1), (bad, good, 0)):
        shifted = others - centre
        sums = [np.concatenate(([0.0], np.cumsum(shifted**k))) for k in range(3)]
        mine = x[labels == side]
        if side == 1:
            at = np.searchsorted(others, mine - 1, side="right")
            m0, m1, m2 = (s[-1] - s[at] for s in sums)
            u = mine - centre - 1
            value = (m2 - 2 * u * m1 + u * u * m0).sum()
            grad[labels == 1] = -2 * (m1 - u * m0)
        else:
            at = np.searchsorted(others, mine + 1, side="left")
            m0, m1 = sums[0][at], sums[1][at]
            grad[labels == 0] = 2 * ((mine - centre + 1) * m0 - m1)
    pairs = good.size * bad.size
    return value / pairs, grad / pairs


def auc():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1_000_000).astype(bool)
    scores = rng.normal(size=labels.size) + labels
    out = np.empty_like(scores)
    return {
        "fastloss": lambda: fl.auc_pairwise.value_and_grad(scores, labels, out=out),
        "numpy": lambda: auc_numpy(scores, labels),
        "argsort": lambda: np.argsort(scores, kind="stable"),
    }


def cox_numpy(risk, time, event):
    """Breslow's likelihood with distinct times, shifted by the largest risk."""
    order = np.argsort(-time)
    x, d = risk[order] - risk.max(), event[order]
    e = np.exp(x)
    at_risk = np.cumsum(e)
    slope = e * np.cumsum((d / at_risk)[::-1])[::-1] - d
    grad = np.empty_like(risk)
    grad[order] = slope / d.sum()
    return float((d * (np.log(at_risk) - x)).sum() / d.sum()), grad


def cox():
    rng = np.random.default_rng(0)
    risk, time, event = rng.normal(size=1_000_000), rng.random(1_000_000), rng.integers(0, 2, 1_000_000)
    out = np.empty_like(risk)
    return {
        "fastloss": lambda: fl.cox.value_and_grad(risk, time, event, out=out),
        "numpy": lambda: cox_numpy(risk, time, event),
        "argsort": lambda: np.argsort(time, kind="stable"),
    }


def f1_numpy(p, t):
    """One minus F1 of each column, and the gradient of their mean."""
    both, total = 2 * (p * t).sum(axis=0), (p + t).sum(axis=0)
    return float((1 - both / total).mean()), (both / total**2 - 2 * t / total) / p.shape[1]


def soft_f1(n, c):
    def make():
        rng = np.random.default_rng(0)
        p, t = rng.random((n, c), np.float32), rng.integers(0, 2, (n, c)).astype(np.float32)
        out = np.empty_like(p)
        return {"fastloss": lambda: fl.soft_f1.value_and_grad(p, t, out=out), "numpy": lambda: f1_numpy(p, t)}

    return make


BENCHES = [
    Bench("pairwise_logistic, 1 group of 10", of_pairs(fl.pairwise_logistic, pairwise_numpy, 1, 10), "numpy", 1.0),
    Bench("pairwise_logistic, 1 group of 100", of_pairs(fl.pairwise_logistic, pairwise_numpy, 1, 100), "numpy", 1.0),
    Bench("pairwise_logistic, 1 group of 2000", of_pairs(fl.pairwise_logistic, pairwise_numpy, 1, 2000), "numpy", 1.0),
    Bench("pairwise_logistic, 1e5 groups of 10", of_pairs(fl.pairwise_logistic, pairwise_numpy, 100_000, 10)),
    Bench("lambda_rank, 1000 groups of 100", of_pairs(fl.lambda_rank, lambda_numpy, 1000, 100), "numpy", 1.0),
    Bench("lambda_rank, 1 group of 100", of_pairs(fl.lambda_rank, lambda_numpy, 1, 100), "numpy", 1.0),
    Bench("listnet, 1e5 groups of 10", of_pairs(fl.listnet, listnet_numpy, 100_000, 10), "numpy", 1.0),
    Bench("listnet, 1 group of 100", of_pairs(fl.listnet, listnet_numpy, 1, 100), "numpy", 1.0),
    Bench("list_mle, 1e5 groups of 10", of_pairs(fl.list_mle, list_mle_numpy, 100_000, 10), "numpy", 1.0),
    Bench("list_mle, 1 group of 100", of_pairs(fl.list_mle, list_mle_numpy, 1, 100), "numpy", 1.0),
    Bench("auc_pairwise, 1e6 samples", auc, "numpy", 1.0),
    Bench("cox, 1e6 subjects", cox, "numpy", 1.0),
    Bench("soft_f1, 1e6 samples", soft_f1(1_000_000, 1), "numpy", 1.0),
    Bench("soft_f1, 1e5 samples of 10 classes", soft_f1(100_000, 10), "numpy", 1.0),
]
