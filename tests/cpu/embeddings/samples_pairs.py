"""Sample inputs of the losses of pairs and triplets of embeddings."""

import numpy as np
from array_cases import Sample

D = 7


def vectors(rng, n, names):
    return {name: rng.normal(size=(n, D)) for name in names}


def pairs(rng, n=20):
    """Pairs nearer than a margin of 1 and farther; of both kinds."""
    x1 = rng.normal(size=(n, D))
    x2 = x1 + rng.normal(size=(n, D)) * np.where(np.arange(n) % 3 > 0, 0.2, 1.0)[:, None]
    return {"x1": x1, "x2": x2, "same": np.arange(n) % 2}


def triplets(rng, n=20):
    """Triplets within the margin and beyond it, some with a negative nearer to the positive."""
    anchor = rng.normal(size=(n, D))
    positive = anchor + 0.5 * rng.normal(size=(n, D))
    return {"anchor": anchor, "positive": positive, "negative": anchor + 0.8 * rng.normal(size=(n, D))}


def angles(rng, n=20):
    """Pairs at small and large angles, of both signs."""
    x1 = rng.normal(size=(n, D))
    x2 = np.where(np.arange(n) % 3 == 0, 1.0, 0.0)[:, None] * x1 + rng.normal(size=(n, D))
    return {"x1": x1, "x2": x2, "t": np.where(np.arange(n) % 2, 1.0, -1.0)}


def nothing(*names):
    return lambda: {name: np.empty((0, D)) for name in names}


SAMPLES = {
    "contrastive": Sample(
        pairs,
        [{}, {"margin": 0.4}, {"margin": 1.5, "pos_margin": 0.3}],
        empty=lambda: {**nothing("x1", "x2")(), "same": np.empty(0)},
    ),
    "triplet": Sample(
        triplets,
        [
            {},
            {"margin": 0.3, "swap": True},
            {"squared": True},
            {"p": 1.0},
            {"distance": "cosine"},
            {"p": 3.5, "swap": True, "squared": True},
        ],
        empty=nothing("anchor", "positive", "negative"),
    ),
    "cosine_embedding": Sample(
        angles, [{}, {"margin": 0.2}], empty=lambda: {**nothing("x1", "x2")(), "t": np.empty(0)}
    ),
    "cosine_distance": Sample(
        lambda rng: {k: a for k, a in angles(rng).items() if k != "t"}, empty=nothing("x1", "x2")
    ),
    "gradient_penalty": Sample(
        lambda rng: {"gradients": rng.normal(0, 0.3, size=(12, 3, 2, 2))},
        [{}, {"lam": 1.0, "center": 0.0}, {"center": 1.2, "one_sided": True}],
        empty=lambda: {"gradients": np.empty((0, 3, 2))},
    ),
}
