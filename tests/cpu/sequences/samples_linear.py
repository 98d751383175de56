"""Sample inputs of the losses of a linear layer."""

import numpy as np
from array_cases import Sample


def layer(rng, n=11, h=6, k=43):
    """A layer with all that may be given; two rows are left out, and no class is one of a few, which go in tiles."""
    labels = rng.integers(0, k, n)
    labels[[2, 7]] = -100
    return {
        "hidden": rng.standard_normal((n, h)),
        "projection": rng.standard_normal((k, h)),
        "labels": labels,
        "bias": rng.standard_normal(k),
        "class_weight": rng.random(k),
    }


def counted(labels, class_weight, **others):
    """The weight of each label's class, 0 for rows that are left out."""
    return np.where(labels == -100, 0.0, class_weight[np.maximum(labels, 0)])


def nothing():
    """Rows that are all left out."""
    return {"hidden": np.ones((3, 2)), "projection": np.ones((4, 2)), "labels": np.full(3, -100)}


# A z_loss under class weights has a mean of its own: test_class_weights.py.
VARIANTS = [{}, {"chunk": 4}, {"label_smoothing": 0.1, "temperature": 2.0, "chunk": 5}]

SAMPLES = {"linear_cross_entropy": Sample(layer, VARIANTS, counted=counted, empty=nothing)}
