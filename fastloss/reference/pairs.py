"""Embedding pair and triplet losses in plain NumPy."""

import numpy as np

__all__ = ["contrastive", "cosine_distance", "cosine_embedding", "gradient_penalty", "triplet"]


def contrastive(x1, x2, same, margin=1.0, pos_margin=0.0):
    """Squared distance of pairs that belong together, squared missing distance of the others."""
    d = np.linalg.norm(x1 - x2, axis=-1)
    return same * np.maximum(d - pos_margin, 0) ** 2 + (1 - same) * np.maximum(margin - d, 0) ** 2


def triplet(anchor, positive, negative, margin=1.0, p=2.0, squared=False, swap=False, distance="euclidean"):
    """Distance to the positive less that to the negative, plus the margin."""
    near, far, other = (
        1 - _cosine(a, b) if distance == "cosine" else np.linalg.norm(a - b, ord=p, axis=-1)
        for a, b in ((anchor, positive), (anchor, negative), (positive, negative))
    )
    far = np.minimum(far, other) if swap else far
    return np.maximum((near**2 - far**2 if squared else near - far) + margin, 0)


def _cosine(x1, x2):
    product = np.linalg.norm(x1, axis=-1) * np.linalg.norm(x2, axis=-1)
    return np.divide((x1 * x2).sum(-1), product, out=np.zeros_like(product), where=product > 0)


def cosine_embedding(x1, x2, t, margin=0.0):
    """One minus the cosine where t is 1, the cosine above the margin where it is -1."""
    return np.where(t > 0, 1 - _cosine(x1, x2), np.maximum(_cosine(x1, x2) - margin, 0))


def cosine_distance(x1, x2):
    """One minus the cosine."""
    return 1 - _cosine(x1, x2)


def gradient_penalty(gradients, lam=10.0, center=1.0, one_sided=False):
    """Squared difference of the norms from the center."""
    r = np.linalg.norm(gradients.reshape(len(gradients), -1), axis=-1) - center
    return lam * (np.maximum(r, 0) if one_sided else r) ** 2
