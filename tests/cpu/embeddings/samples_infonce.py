"""Sample inputs of the losses of embeddings that are to find each other."""

import numpy as np
from array_cases import Sample

TEMPERED = 8.0
"""Cosines of length-1 vectors carry the rounding of their products, which a temperature of 0.07 multiplies by 14."""


def two(first, second):
    """Pairs of embeddings that resemble each other."""

    def make(rng, n=9, d=5):
        x = rng.standard_normal((n, d))
        return {first: x, second: x + 0.7 * rng.standard_normal((n, d))}

    return make


def queue(rng):
    """Queries, keys and further negatives."""
    return {**two("queries", "keys")(rng), "negatives": rng.standard_normal((4, 5))}


def classes(rng, n=12):
    """Embeddings of three classes and one that is alone."""
    return {"features": rng.standard_normal((n, 5)), "labels": np.append(np.arange(n - 1) % 3, -7)}


def labelled(rng):
    """Pairs of some classes."""
    return {**two("anchors", "positives")(rng), "labels": np.arange(9) % 4}


def none_of(*names):
    """No embeddings at all."""
    return lambda: {name: np.empty((0, 3)) for name in names}


def alone():
    """Embeddings none of which has another of its class."""
    return {"features": np.eye(3), "labels": np.arange(3)}


def with_others(features, labels, **others):
    """1 where the class has another member."""
    return (np.sum(labels[:, None] == labels, axis=1) > 1) * 1.0


VARIANTS = [{}, {"temperature": 0.5, "chunk": 4}, {"normalize": False, "temperature": 2.0}]

SAMPLES = {
    "info_nce": Sample(queue, VARIANTS, condition=TEMPERED, independent=False, empty=none_of("queries", "keys")),
    "ntxent": Sample(two("z1", "z2"), VARIANTS, condition=TEMPERED, independent=False, empty=none_of("z1", "z2")),
    "supcon": Sample(classes, VARIANTS, counted=with_others, condition=TEMPERED, independent=False, empty=alone),
    "n_pairs": Sample(
        labelled, [{}, {"l2_reg": 0.3, "chunk": 4}], independent=False, empty=none_of("anchors", "positives")
    ),
}
