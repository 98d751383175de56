"""Losses of pairs and triplets of embeddings beside torch and NumPy."""

import numpy as np

import fastloss as fl

from .case import Bench, in_torch


def embeddings(count, n, d):
    """Sets of embeddings near each other."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(n, d)).astype(np.float32)
    return [first, *(first + 0.1 * rng.normal(size=(n, d)).astype(np.float32) for _ in range(count - 1))]


def triplet_numpy(a, p, n, margin=1.0):
    """Triplet loss of torch with its gradients."""
    to_p, to_n = a - p, a - n
    near, far = np.sqrt((to_p * to_p).sum(1)), np.sqrt((to_n * to_n).sum(1))
    values = np.maximum(near - far + margin, 0)
    active = (values > 0) / np.float32(len(a))
    by_p, by_n = to_p * (active / near)[:, None], to_n * (active / far)[:, None]
    return float(values.mean()), (by_p - by_n, -by_p, by_n)


def cosine_numpy(a, b):
    """One minus the cosine with its gradients."""
    u, v = (x / np.sqrt((x * x).sum(1))[:, None] for x in (a, b))
    c = (u * v).sum(1)
    scale = np.float32(-1 / len(a))
    ga = (v - c[:, None] * u) * (scale / np.sqrt((a * a).sum(1)))[:, None]
    gb = (u - c[:, None] * v) * (scale / np.sqrt((b * b).sum(1)))[:, None]
    return float((1 - c).mean()), (ga, gb)


def triplet(n, d):
    def make():
        arrays = embeddings(3, n, d)
        out = tuple(np.empty_like(a) for a in arrays)
        return {
            "fastloss": lambda: fl.triplet.value_and_grad(*arrays, out=out),
            "numpy": lambda: triplet_numpy(*arrays),
            **in_torch(lambda torch, *x: torch.nn.functional.triplet_margin_loss(*x), arrays),
        }

    return make


def cosine(n, d):
    def make():
        arrays = embeddings(2, n, d)
        out = tuple(np.empty_like(a) for a in arrays)
        return {
            "fastloss": lambda: fl.cosine_distance.value_and_grad(*arrays, out=out),
            "numpy": lambda: cosine_numpy(*arrays),
            **in_torch(lambda torch, *x: (1 - torch.nn.functional.cosine_similarity(*x)).mean(), arrays),
        }

    return make


BENCHES = [
    Bench("triplet, 32 x 64", triplet(32, 64), "numpy", 1.0),
    Bench("triplet, 1e5 x 128", triplet(100_000, 128), "numpy", 1.0),
    Bench("cosine distance, 32 x 64", cosine(32, 64), "numpy", 1.0),
    Bench("cosine distance, 1e5 x 128", cosine(100_000, 128), "numpy", 1.0),
]
