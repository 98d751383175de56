"""Box losses in plain NumPy."""

import numpy as np

__all__ = ["ciou", "diou", "giou", "iou", "siou"]


def corners(boxes, box_format):
    """Return the lower and upper corners as given, which may be swapped."""
    if box_format == "cxcywh":
        return boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    return boxes[..., :2], boxes[..., 2:]


def ratio(x, y):
    """Return x / y, and 0 where y is 0."""
    return np.divide(x, y, out=np.zeros_like(x), where=y != 0)


class Pair:
    """Geometric quantities of a box A and its target B, by the textbook."""

    def __init__(self, boxes, target, box_format):
        (a, b), (c, d) = corners(boxes, box_format), corners(target, box_format)
        self.sizes, self.wanted = np.abs(b - a), np.abs(d - c)
        self.between = (a + b) / 2 - (c + d) / 2
        corner = np.stack([a, b, c, d])
        self.hull = corner.max(0) - corner.min(0)
        covers, target_covers = ((high >= low).all(-1) for low, high in ((a, b), (c, d)))
        shared = np.maximum(np.minimum(b, d) - np.maximum(a, c), 0).prod(-1) * covers * target_covers
        self.union = self.sizes.prod(-1) * covers + self.wanted.prod(-1) * target_covers - shared
        self.iou = ratio(shared, self.union)
        # The squared difference of the angles of the diagonals, 1 for perpendicular ones; 0 for a box of no size.
        first, second = (np.arctan2(size[..., 0], size[..., 1]) for size in (self.sizes, self.wanted))
        known = (self.wanted.sum(-1) > 0) & (self.sizes.sum(-1) > 0)
        self.v = np.where(known, 4 / np.pi**2 * (second - first) ** 2, 0)


def iou(boxes, target, box_format="xyxy"):
    """One minus the intersection over union."""
    return 1 - Pair(boxes, target, box_format).iou


def giou(boxes, target, box_format="xyxy"):
    """IoU loss plus the uncovered part of the hull."""
    p = Pair(boxes, target, box_format)
    area = p.hull.prod(-1)
    return 1 - p.iou + ratio(area - p.union, area)


def diou(boxes, target, box_format="xyxy"):
    """IoU loss plus the squared distance of the centres over the squared diagonal of the hull."""
    p = Pair(boxes, target, box_format)
    return 1 - p.iou + ratio((p.between**2).sum(-1), (p.hull**2).sum(-1))


def ciou(boxes, target, box_format="xyxy", alpha=None):
    """Distance IoU loss plus alpha times the difference in aspect; a given alpha is held constant."""
    p = Pair(boxes, target, box_format)
    alpha = ratio(p.v, 1 - p.iou + p.v) if alpha is None else alpha
    return diou(boxes, target, box_format) + alpha * p.v


def siou(boxes, target, box_format="xyxy", theta=4.0):
    """SIoU loss: IoU loss plus costs of distance, with its angle, and of shape."""
    p = Pair(boxes, target, box_format)
    centre = np.hypot(*np.moveaxis(p.between, -1, 0))
    sine = ratio(np.abs(p.between[..., 1]), centre)
    angle = np.where(centre > 0, 1 - 2 * np.sin(np.arcsin(np.minimum(sine, 1)) - np.pi / 4) ** 2, 0)
    distance = (1 - np.exp(-(2 - angle)[..., None] * ratio(p.between, p.hull) ** 2)).sum(-1)
    shape = ((1 - np.exp(-ratio(np.abs(p.sizes - p.wanted), np.maximum(p.sizes, p.wanted)))) ** theta).sum(-1)
    return 1 - p.iou + (distance + shape) / 2
