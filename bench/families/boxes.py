"""Losses of a million pairs of boxes beside torchvision's formulas written in NumPy."""

import numpy as np

import fastloss as fl

from .case import Bench

N = 1_000_000


def boxes(n=N):
    """Boxes near their targets."""
    rng = np.random.default_rng(0)
    target = rng.random((n, 4), np.float32)
    target[:, 2:] += target[:, :2] + 0.1
    return target + rng.normal(0, 0.05, (n, 4)).astype(np.float32), target


def iou_numpy(a, b):
    """IoU with its gradient, as torchvision forms the value."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    side = np.maximum(high - low, 0)
    inter = side[:, 0] * side[:, 1]
    size = a[:, 2:] - a[:, :2]
    union = size[:, 0] * size[:, 1] + (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) - inter
    ratio = inter / (union + 1e-7)
    by_inter, by_area = -(1 + ratio) / union / len(a), ratio / union / len(a)
    grad = np.empty_like(a)
    for k in (0, 1):
        other, extent = np.where(side[:, k] > 0, side[:, 1 - k], 0), size[:, 1 - k]
        grad[:, k] = by_inter * np.where(a[:, k] > b[:, k], -other, 0) - by_area * extent
        grad[:, 2 + k] = by_inter * np.where(a[:, 2 + k] < b[:, 2 + k], other, 0) + by_area * extent
    return float((1 - ratio).mean()), grad


def iou():
    a, b = boxes()
    out = np.empty_like(a)
    return {"fastloss": lambda: fl.iou.value_and_grad(a, b, out=out), "numpy": lambda: iou_numpy(a, b)}


BENCHES = [Bench("iou, 1e6 pairs", iou, "numpy", 0.1)]
