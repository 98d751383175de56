"""Batch-mined triplet and pair losses, by plain loops over all pairs."""

import numpy as np

__all__ = ["batch_all_triplet", "batch_hard_triplet", "circle", "semi_hard_triplet"]


def _anchors(embeddings, labels, squared):
    """Yield each anchor's distances from its positives and from its negatives."""
    for i, x in enumerate(embeddings):
        d = np.linalg.norm(embeddings - x, axis=1) ** (2 if squared else 1)
        same = labels == labels[i]
        yield d[same & (np.arange(len(d)) != i)], d[~same]


def _violation(near, far, margin, soft):
    return np.logaddexp(0, near - far) if soft else np.maximum(near - far + margin, 0)


def batch_hard_triplet(embeddings, labels, margin=1.0, soft=False, squared=False):
    """Triplet loss of each anchor's farthest positive and nearest negative."""
    return [
        _violation(near.max(), far.min(), margin, soft) if near.size and far.size else 0.0
        for near, far in _anchors(embeddings, labels, squared)
    ]


def batch_all_triplet(embeddings, labels, margin=1.0, soft=False, squared=False):
    """Triplet loss of all positives and negatives of each anchor."""
    return [
        _violation(near[:, None], far[None, :], margin, soft).sum()
        for near, far in _anchors(embeddings, labels, squared)
    ]


def semi_hard_triplet(embeddings, labels, margin=1.0, soft=False, squared=False):
    """Triplet loss of each positive with the nearest negative that is farther, else with the farthest negative."""
    values = []
    for near, far in _anchors(embeddings, labels, squared):
        chosen = [far[far > d].min() if (far > d).any() else far.max() for d in near] if far.size else []
        values.append(sum(_violation(d, e, margin, soft) for d, e in zip(near, chosen, strict=False)))
    return values


def circle(embeddings, labels, m=0.25, gamma=256.0, detach=False):
    """Softplus of the sum of two log-sum-exps, of the negatives' weighted cosines and of the positives'."""
    norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = np.divide(embeddings, norm, out=np.zeros_like(embeddings), where=norm > 0)
    values = np.zeros(len(labels))
    for i, cosines in enumerate(unit @ unit.T):
        same = labels == labels[i]
        s_p, s_n = cosines[same & (np.arange(len(labels)) != i)], cosines[~same]
        if s_p.size and s_n.size:
            a_p = -gamma * np.maximum(1 + m - s_p, 0) * (s_p - (1 - m))
            a_n = gamma * np.maximum(s_n + m, 0) * (s_n - m)
            values[i] = np.logaddexp(0, np.logaddexp.reduce(a_p) + np.logaddexp.reduce(a_n))
    return values
