"""Mined triplets beside what is usually written in NumPy and torch."""

import numpy as np

import fastloss as fl

from .case import Bench, in_torch


def batch(n, d=128, each=8):
    """Embeddings in classes of a few, of about unit length."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) // each
    x = rng.normal(size=(labels[-1] + 1, d))[labels] + rng.normal(size=(n, d))
    return (x / np.sqrt(2 * d)).astype(np.float32), labels


def distances_numpy(x):
    """Distances by the products of all pairs."""
    square = (x * x).sum(1)
    return np.sqrt(np.maximum(square[:, None] + square - 2 * (x @ x.T), 0))


def batch_hard_numpy(x, labels, margin=1.0):
    """Batch-hard triplets with their gradient."""
    n, rows = len(x), np.arange(len(x))
    d, same = distances_numpy(x), labels[:, None] == labels
    p, q = np.where(same, d, -1).argmax(1), np.where(same, np.inf, d).argmin(1)
    values = np.maximum(d[rows, p] - d[rows, q] + margin, 0)
    active = (values > 0) / np.float32(n)
    by_p, by_q = (x - x[p]) * (active / d[rows, p])[:, None], (x - x[q]) * (active / d[rows, q])[:, None]
    grad = by_p - by_q
    np.subtract.at(grad, p, by_p)
    np.add.at(grad, q, by_q)
    return float(values.mean()), grad


def batch_all_numpy(x, labels, margin=1.0):
    """All triplets at once, with their gradient."""
    d, same = distances_numpy(x), labels[:, None] == labels
    positive = same & ~np.eye(len(x), dtype=bool)
    cost = np.where(positive[:, :, None] & ~same[:, None, :], d[:, :, None] - d[:, None, :] + margin, 0)
    active = cost > 0
    count = active.sum()
    pull = active.sum(2) - active.sum(1).astype(np.float32)
    pull = np.divide(pull + pull.T, d * count, out=np.zeros_like(d), where=d > 0)
    return float(cost[active].sum() / count), pull.sum(1)[:, None] * x - pull @ x


def batch_hard_torch(torch, x, labels):
    """Batch-hard triplets, from torch.cdist."""
    d, same = torch.cdist(x, x), labels[:, None] == labels
    far = torch.where(same, d, -torch.inf).max(1).values
    near = torch.where(same, torch.inf, d).min(1).values
    return torch.relu(far - near + 1.0).mean()


def batch_all_torch(torch, x, labels):
    """All triplets in a cube, as in sentence-transformers."""
    square = (x * x).sum(1)
    d = torch.sqrt(torch.clamp(square[:, None] + square - 2 * (x @ x.T), min=1e-16))
    same = labels[:, None] == labels
    valid = (same & ~torch.eye(len(x), dtype=torch.bool))[:, :, None] & ~same[:, None, :]
    cost = torch.relu((d[:, :, None] - d[:, None, :] + 1.0) * valid)
    return cost.sum() / ((cost > 1e-16).sum() + 1e-16)


def semi_hard_torch(torch, x, labels):
    """Semi-hard triplets, as TensorFlow Addons finds them: every pair against every negative."""
    d, same = torch.cdist(x, x), labels[:, None] == labels
    farther = torch.where(~same[:, None, :] & (d[:, None, :] > d[:, :, None]), d[:, None, :], torch.inf).min(2).values
    farthest = torch.where(same, -torch.inf, d).max(1, keepdim=True).values
    cost = torch.relu(d - torch.where(torch.isinf(farther), farthest, farther) + 1.0)
    return cost[same & ~torch.eye(len(x), dtype=torch.bool)].mean()


def circle_numpy(x, labels, m=0.25, gamma=256.0):
    """Circle loss with its gradient."""
    norm = np.sqrt((x * x).sum(1))[:, None]
    unit = x / norm
    s, same = unit @ unit.T, labels[:, None] == labels
    positive = same & ~np.eye(len(x), dtype=bool)
    logits = np.where(same, -gamma * np.maximum(1 + m - s, 0) * (s - 1 + m), gamma * np.maximum(s + m, 0) * (s - m))
    slopes = np.where(same, -2 * gamma * (1 - s), np.where(s > -m, 2 * gamma * s, 0))
    values, pull = 0.0, np.zeros_like(s)
    for mask in (positive, ~same):
        inside = np.where(mask, logits, -np.inf)
        top = inside.max(1, keepdims=True)
        e = np.exp(inside - top)
        total = e.sum(1, keepdims=True)
        values = values + top + np.log(total)
        pull += e / total * np.where(mask, slopes, 0)
    pull *= 1 / (1 + np.exp(-values)) / len(x)
    grad = (pull + pull.T) @ unit
    return float(np.logaddexp(0, values).mean()), (grad - (grad * unit).sum(1)[:, None] * unit) / norm


def circle_torch(torch, x, labels, m=0.25, gamma=256.0):
    """Circle loss by masks."""
    unit = torch.nn.functional.normalize(x, dim=1)
    s, same = unit @ unit.T, labels[:, None] == labels
    near = torch.where(same, -gamma * torch.relu(1 + m - s) * (s - 1 + m), -torch.inf)
    near = torch.logsumexp(near.masked_fill(torch.eye(len(x), dtype=torch.bool), -torch.inf), 1)
    far = torch.logsumexp(torch.where(same, -torch.inf, gamma * torch.relu(s + m) * (s - m)), 1)
    return torch.nn.functional.softplus(near + far).mean()


def case(loss, n, numpy=None, torch=None):
    def make():
        x, labels = batch(n)
        out = np.empty_like(x)
        found = {"fastloss": lambda: loss.value_and_grad(x, labels, out=out)}
        if numpy is not None:
            found["numpy"] = lambda: numpy(x, labels)
        return found | (in_torch(torch, (x,), (labels,)) if torch is not None else {})

    return make


BENCHES = [
    Bench(
        "batch-hard triplets, 32 x 128",
        case(fl.batch_hard_triplet, 32, batch_hard_numpy, batch_hard_torch),
        "numpy",
        1.0,
    ),
    Bench(
        "batch-hard triplets, 1024 x 128",
        case(fl.batch_hard_triplet, 1024, batch_hard_numpy, batch_hard_torch),
        "numpy",
        1.0,
    ),
    Bench(
        "batch-all triplets, 32 x 128", case(fl.batch_all_triplet, 32, batch_all_numpy, batch_all_torch), "numpy", 1.0
    ),
    Bench(
        "batch-all triplets, 256 x 128", case(fl.batch_all_triplet, 256, batch_all_numpy, batch_all_torch), "torch", 0.1
    ),
    Bench("semi-hard triplets, 256 x 128", case(fl.semi_hard_triplet, 256, None, semi_hard_torch), "torch", 1.0),
    Bench("circle, 32 x 128", case(fl.circle, 32, circle_numpy, circle_torch), "numpy", 1.0),
    Bench("circle, 1024 x 128", case(fl.circle, 1024, circle_numpy, circle_torch), "numpy", 1.0),
]
