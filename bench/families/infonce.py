"""Embeddings that find each other in a batch of 16384, beside the bare products and NumPy with whole matrices."""

import numpy as np

import fastloss as fl

from .case import Bench, in_torch
from .linear import products

TEMPERATURE = np.float32(0.07)


def embeddings(n, d=128):
    """Pairs that resemble each other."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d), np.float32)
    return x, x + rng.standard_normal((n, d), np.float32)


def large(loss):
    """A batch whose whole matrix would be a gigabyte."""

    def make():
        x, y = embeddings(16_384)
        given = (x, np.arange(len(x)) % 1000) if loss == "supcon" else (x, y)
        out = np.empty_like(x), np.empty_like(y)
        return {
            "fastloss": lambda: fl.LOSSES[loss].value_and_grad(*given),
            "bare products": lambda: products(x, y, out),
        }

    return make


def unit(x):
    length = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    return x / length, length


def through(u, length, g):
    g -= np.einsum("ij,ij->i", g, u)[:, None] * u
    g /= length
    return g


def numpy_info_nce(x, y):
    """InfoNCE with its derivatives, the whole matrix held."""
    n = len(x)
    rows = np.arange(n)
    (u, a), (v, b) = unit(x), unit(y)
    z = u @ v.T
    z /= TEMPERATURE
    own = z[rows, rows]
    top = z.max(1, keepdims=True)
    z -= top
    np.exp(z, out=z)
    total = z.sum(1)
    value = float((np.log(total) + top[:, 0] - own).mean())
    z /= total[:, None] * (n * TEMPERATURE)
    z[rows, rows] -= 1 / (n * TEMPERATURE)
    return value, (through(u, a, z @ v), through(v, b, z.T @ u))


def numpy_supcon(x, labels):
    """Supervised contrastive loss with its derivatives, the whole matrix held."""
    n = len(x)
    rows = np.arange(n)
    u, a = unit(x)
    z = u @ u.T
    z /= TEMPERATURE
    z[rows, rows] = -np.inf
    same = (labels[:, None] == labels).astype(x.dtype)
    same[rows, rows] = 0
    same /= np.maximum(same.sum(1, keepdims=True), 1)
    z -= z.max(1, keepdims=True)
    right = np.multiply(z, same, where=same > 0, out=np.zeros_like(z)).sum(1)
    np.exp(z, out=z)
    total = z.sum(1)
    value = float((np.log(total) - right).mean())
    z /= total[:, None]
    z -= same
    z /= n * TEMPERATURE
    g = z @ u
    g += z.T @ u
    return value, through(u, a, g)


def torch_info_nce(torch, x, y):
    """InfoNCE as one writes it: cross-entropy of all cosines."""
    f = torch.nn.functional
    return f.cross_entropy(f.normalize(x) @ f.normalize(y).T / TEMPERATURE, torch.arange(len(x)))


def small(n, d, loss):
    def make():
        x, y = embeddings(n, d)
        given = (x, np.arange(n) // 2) if loss == "supcon" else (x, y)
        numpy_loss = numpy_supcon if loss == "supcon" else numpy_info_nce
        torch_loss = {} if loss == "supcon" else in_torch(torch_info_nce, given)
        return {
            "fastloss": lambda: fl.LOSSES[loss].value_and_grad(*given),
            "numpy": lambda: numpy_loss(*given),
            **torch_loss,
        }

    return make


BENCHES = [
    Bench("info_nce, 16384 pairs of 128", large("info_nce"), "bare products", 1.3, 200.0, rounds=3),
    Bench("supcon, 16384 of 128", large("supcon"), "bare products", 1.5, 200.0, rounds=3),
    Bench("info_nce, 1024 pairs of 128", small(1024, 128, "info_nce"), "numpy", 1.0),
    Bench("info_nce, 32 pairs of 16", small(32, 16, "info_nce"), "numpy", 1.0),
    Bench("supcon, 1024 of 128", small(1024, 128, "supcon"), "numpy", 1.0),
    Bench("supcon, 32 of 16", small(32, 16, "supcon"), "numpy", 1.0),
]
