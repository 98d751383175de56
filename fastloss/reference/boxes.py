"""Losses of boxes in plain NumPy."""

import numpy as np

__all__ = ["iou"]


def iou(boxes, target):
    """One minus the intersection over union of boxes (x1, y1, x2, y2)."""
    low, high = np.maximum(boxes[:, :2], target[:, :2]), np.minimum(boxes[:, 2:], target[:, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    union = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(target[:, 2:] - target[:, :2], axis=1) - inter
    return 1 - np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
