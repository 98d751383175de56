"""Sample inputs of the losses of batches of labelled embeddings."""

import numpy as np
from array_cases import Sample

MARGINS = {False: (1.0, 0.3), True: (1.0, 0.3)}


def distances(embeddings):
    return np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)


def triplets(embeddings, labels, squared=False):
    """Anchor, differences of the two distances, of all triplets."""
    d = distances(embeddings) ** (2 if squared else 1)
    same = labels[:, None] == labels
    a, p, n = np.nonzero((same & ~np.eye(len(labels), dtype=bool))[:, :, None] & ~same[:, None, :])
    return a, d[a, p] - d[a, n]


def labelled(rng):
    """Classes of several sizes, one of a single embedding; no triplet within a hundredth of a kink."""
    labels = np.array([3, -7, 3, 0, 0, 3, 10**12, -7, 0, -7])
    while True:
        embeddings = rng.normal(size=(len(labels), 4)) * 0.5
        gaps = [triplets(embeddings, labels, squared)[1] for squared in (False, True)]
        if all(np.abs(g + m).min() > 3e-3 for g in gaps for m in (0.0, 0.3, 1.0)):
            d = distances(embeddings)[np.triu_indices(len(labels), 1)]
            if np.diff(np.sort(d)).min() > 1e-3:
                return {"embeddings": embeddings, "labels": labels}


def in_triplets(embeddings, labels, **parameters):
    """1 for an anchor with a positive and a negative."""
    return np.isin(np.arange(len(labels)), triplets(embeddings, labels)[0])


def active(embeddings, labels, margin=1.0, soft=False, squared=False):
    """How many triplets of each anchor cost something."""
    a, gap = triplets(embeddings.astype(np.float64), labels, squared)
    return np.bincount(a[(gap + margin > 0) | soft], minlength=len(labels))


def pairs(embeddings, labels, **parameters):
    """How many positives an anchor has, if it has a negative."""
    same = labels[:, None] == labels
    return (same.sum(1) - 1) * (~same).any(1)


VARIANTS = [{}, {"margin": 0.3, "squared": True}, {"soft": True}]


def nothing():
    return {"embeddings": np.ones((3, 2)), "labels": np.array([1, 1, 1])}


SAMPLES = {
    "batch_hard_triplet": Sample(labelled, VARIANTS, counted=in_triplets, empty=nothing, independent=False),
    "batch_all_triplet": Sample(labelled, VARIANTS, counted=active, empty=nothing, independent=False),
    "semi_hard_triplet": Sample(labelled, VARIANTS, counted=pairs, empty=nothing, independent=False),
    "circle": Sample(
        # Long vectors, which a step of the differences turns by little: gamma makes derivatives of high order large.
        lambda rng: {**labelled(rng), "embeddings": 30 * rng.normal(size=(10, 4))},
        [{}, {"m": 0.4, "gamma": 16.0}],
        counted=in_triplets,
        empty=nothing,
        independent=False,
    ),
}
