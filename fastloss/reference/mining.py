"""Losses of triplets mined from a batch, by plain loops over all of them."""

import numpy as np

__all__ = ["batch_all_triplet", "batch_hard_triplet", "semi_hard_triplet"]


def _anchors(embeddings, labels, squared):
    """For each anchor, its distances from its positives and from its negatives."""
    for i, x in enumerate(embeddings):
        d = np.linalg.norm(embeddings - x, axis=1) ** (2 if squared else 1)
        same = labels == labels[i]
        yield d[same & (np.arange(len(d)) != i)], d[~same]


def _violation(near, far, margin, soft):
    return np.logaddexp(0, near - far) if soft else np.maximum(near - far + margin, 0)


def batch_hard_triplet(embeddings, labels, margin=1.0, soft=False, squared=False):
    """The farthest positive against the nearest negative of each anchor."""
    return [
        _violation(near.max(), far.min(), margin, soft) if near.size and far.size else 0.0
        for near, far in _anchors(embeddings, labels, squared)
    ]


def batch_all_triplet(embeddings, labels, margin=1.0, soft=False, squared=False):
    """All positives against all negatives of each anchor."""
    return [
        _violation(near[:, None], far[None, :], margin, soft).sum()
        for near, far in _anchors(embeddings, labels, squared)
    ]


def semi_hard_triplet(embeddings, labels, margin=1.0, soft=False, squared=False):
    """Each positive of an anchor against the nearest negative that is farther, else the farthest."""
    values = []
    for near, far in _anchors(embeddings, labels, squared):
        chosen = [far[far > d].min() if (far > d).any() else far.max() for d in near] if far.size else []
        values.append(sum(_violation(d, e, margin, soft) for d, e in zip(near, chosen, strict=False)))
    return values
