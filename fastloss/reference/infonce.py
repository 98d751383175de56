"""In-batch contrastive losses in plain NumPy with whole matrices."""

import numpy as np

__all__ = ["info_nce", "n_pairs", "ntxent", "supcon"]


def _unit(x, normalize):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(length == 0, 1.0, length) if normalize else x


def _log_softmax(scores):
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


def _among_others(z, temperature):
    scores = z @ z.T / temperature
    np.fill_diagonal(scores, -np.inf)
    return _log_softmax(scores)


def info_nce(queries, keys, negatives=None, temperature=0.07, normalize=True, chunk=None):
    """Cross-entropy of each query against all keys and negatives, with its own key as the label."""
    q, k = _unit(queries, normalize), _unit(keys if negatives is None else np.vstack([keys, negatives]), normalize)
    return -np.diagonal(_log_softmax(q @ k.T / temperature))


def ntxent(z1, z2, temperature=0.07, normalize=True, chunk=None):
    """Cross-entropy of each of 2n views against all others, with the other view of its sample as the label."""
    n = len(z1)
    found = _among_others(_unit(np.vstack([z1, z2]), normalize), temperature)
    return -np.stack([np.diagonal(found[:n, n:]), np.diagonal(found[n:, :n])])


def supcon(features, labels, temperature=0.07, normalize=True, chunk=None):
    """Cross-entropy of each embedding against all others, with its class as positives; 0 where there are none."""
    found = _among_others(_unit(features, normalize), temperature)
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    total = -np.where(same, found, 0.0).sum(1)
    return total / np.maximum(same.sum(1), 1)


def n_pairs(anchors, positives, labels=None, l2_reg=0.0, chunk=None):
    """Cross-entropy of each anchor against all positives, with those of its row or class as labels."""
    found = _log_softmax(anchors @ positives.T)
    same = np.eye(len(anchors)) if labels is None else labels[:, None] == labels
    lengths = (anchors**2).sum(1) + (positives**2).sum(1)
    return -(same * found).sum(1) / same.sum(1) + l2_reg * lengths / 4
