"""The softmax of a linear layer, beside the bare products and the same layer in plain NumPy."""

import numpy as np

import fastloss as fl
from fastloss.cpu.embeddings.products import rows_at_a_time

from .case import Bench, in_torch


def layer(n, h, k):
    """Inputs of a layer, its weights, and labels."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((n, h), np.float32)
    return hidden, rng.standard_normal((k, h), np.float32) / np.float32(h**0.5), rng.integers(0, k, n)


def products(hidden, projection, out):
    """The three products of a layer and its derivatives, in the chunks that ours takes, and nothing else."""
    n, k = len(hidden), len(projection)
    rows = rows_at_a_time(n, k, hidden.itemsize)
    scores = np.empty((rows, k), hidden.dtype)
    for lo in range(0, n, rows):
        x, z = hidden[lo : lo + rows], scores[: min(rows, n - lo)]
        np.matmul(x, projection.T, out=z)
        np.matmul(z, projection, out=out[0][lo : lo + rows])
        np.matmul(z.T, x, out=out[1])
    return out


def linear_numpy(hidden, projection, labels):
    """Cross-entropy of a layer with its derivatives, all scores held."""
    rows = np.arange(len(hidden))
    z = hidden @ projection.T
    z -= z.max(1, keepdims=True)
    at_label = z[rows, labels]
    np.exp(z, out=z)
    total = z.sum(1)
    z /= total[:, None] * len(hidden)
    z[rows, labels] -= 1 / len(hidden)
    return float((np.log(total) - at_label).mean()), (z @ projection, z.T @ hidden)


def vocabulary():
    hidden, projection, labels = layer(4096, 256, 131_072)
    # Ours makes its results anew: the call that is measured for memory includes them.
    out = np.empty_like(hidden), np.empty_like(projection)
    return {
        "fastloss": lambda: fl.linear_cross_entropy.value_and_grad(hidden, projection, labels),
        "bare products": lambda: products(hidden, projection, out),
    }


def linear_torch(torch, hidden, projection, labels):
    """The logits held whole."""
    return torch.nn.functional.cross_entropy(hidden @ projection.T, labels)


def case(n, h, k):
    """A layer of any size beside NumPy."""

    def make():
        given = layer(n, h, k)
        return {
            "fastloss": lambda: fl.linear_cross_entropy.value_and_grad(*given),
            "numpy": lambda: linear_numpy(*given),
            **in_torch(linear_torch, given[:2], given[2:]),
        }

    return make


BENCHES = [
    Bench("linear_cross_entropy, 4096 tokens, 131072 classes", vocabulary, "bare products", 1.15, 300.0, rounds=3),
    Bench("linear_cross_entropy, 2048 rows, 1000 classes", case(2048, 128, 1000), "numpy", 1.0),
    Bench("linear_cross_entropy, 32 rows, 10 classes", case(32, 16, 10), "numpy", 1.0),
]
