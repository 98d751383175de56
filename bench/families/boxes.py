"""Losses of a million pairs of boxes beside torchvision's formulas written in NumPy, with their gradients by hand."""

from functools import partial

import numpy as np

import fastloss as fl

from .case import Bench

N = 1_000_000
EPS = 1e-7


def boxes(n=N):
    """Boxes near their targets."""
    rng = np.random.default_rng(0)
    target = rng.random((n, 4), np.float32)
    target[:, 2:] += target[:, :2] + 0.1
    near = target + rng.normal(0, 0.05, (n, 4)).astype(np.float32)
    return np.sort(near.reshape(n, 2, 2), axis=1).reshape(n, 4), target


class Parts:
    """Intersection, union and hull with their derivatives by the corners of the first boxes, (n, 2) for x and y."""

    def __init__(self, a, b):
        low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
        side = np.maximum(high - low, 0)
        inter = side[:, 0] * side[:, 1]
        self.size = a[:, 2:] - a[:, :2]
        wanted = b[:, 2:] - b[:, :2]
        self.wanted = wanted
        self.union = self.size[:, 0] * self.size[:, 1] + wanted[:, 0] * wanted[:, 1] - inter
        self.iou = inter / (self.union + EPS)
        across = np.where((side > 0).all(1)[:, None], side[:, ::-1], 0)
        self.lower, self.upper = a[:, :2] > b[:, :2], a[:, 2:] < b[:, 2:]
        inter_low, inter_high = np.where(self.lower, -across, 0), np.where(self.upper, across, 0)
        other = self.size[:, ::-1]
        by_inter, by_union = -1 / (self.union + EPS), self.iou / (self.union + EPS)
        self.union_low, self.union_high = -other - inter_low, other - inter_high
        self.low = by_inter[:, None] * inter_low + by_union[:, None] * self.union_low
        self.high = by_inter[:, None] * inter_high + by_union[:, None] * self.union_high

    def hull(self, a, b):
        """Sides of the hull, and their derivatives."""
        sides = np.maximum(a[:, 2:], b[:, 2:]) - np.minimum(a[:, :2], b[:, :2])
        return sides, np.where(self.lower, 0, np.float32(-1)), np.where(self.upper, 0, np.float32(1))

    def done(self, value):
        """The mean, and its gradient."""
        return float(value.mean()), np.concatenate([self.low, self.high], axis=1) / len(value)


def iou_numpy(a, b):
    p = Parts(a, b)
    return p.done(1 - p.iou)


def giou_numpy(a, b):
    p = Parts(a, b)
    sides, by_low, by_high = p.hull(a, b)
    area = sides[:, 0] * sides[:, 1] + EPS
    other = sides[:, ::-1]
    by_union, by_area = (-1 / area)[:, None], (p.union / area**2)[:, None]
    p.low += by_union * p.union_low + by_area * by_low * other
    p.high += by_union * p.union_high + by_area * by_high * other
    return p.done(1 - p.iou + (area - p.union) / area)


def add_distance(p, a, b):
    """Add the gradient of the squared distance of the centres over the squared diagonal; return that."""
    sides, by_low, by_high = p.hull(a, b)
    diagonal = (sides[:, 0] ** 2 + sides[:, 1] ** 2 + EPS)[:, None]
    between = (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2
    q = (between[:, 0] ** 2 + between[:, 1] ** 2) / diagonal[:, 0]
    shift, pull = between / diagonal, 2 * q[:, None] * sides / diagonal
    p.low += shift - pull * by_low
    p.high += shift - pull * by_high
    return q


def diou_numpy(a, b):
    p = Parts(a, b)
    q = add_distance(p, a, b)
    return p.done(1 - p.iou + q)


def ciou_numpy(a, b):
    p = Parts(a, b)
    q = add_distance(p, a, b)
    w, h = p.size[:, 0], p.size[:, 1]
    angle = np.arctan(p.wanted[:, 0] / p.wanted[:, 1]) - np.arctan(w / h)
    v = np.float32(4 / np.pi**2) * angle**2
    alpha = v / (1 - p.iou + v + EPS)
    slope = alpha * np.float32(8 / np.pi**2) * angle / (w**2 + h**2)
    by_size = np.stack([-slope * h, slope * w], axis=1)
    p.low -= by_size
    p.high += by_size
    return p.done(1 - p.iou + q + alpha * v)


REFERENCES = {"iou": iou_numpy, "giou": giou_numpy, "diou": diou_numpy, "ciou": ciou_numpy}


def contestants(name, n=N):
    """Value and gradient, and for few boxes the same many times."""
    a, b = boxes(n)
    out = np.empty_like(a)
    loss, reference = fl.LOSSES[name], REFERENCES[name]
    value, grad = loss.value_and_grad(a, b)
    expected, slopes = reference(a, b)
    assert abs(value - expected) < 1e-5 * expected
    # A mean, because at sides in line the references take another subgradient.
    assert np.abs(grad - slopes).mean() < 1e-4 * np.abs(slopes).mean()
    if n == N:
        return {"fastloss": lambda: loss.value_and_grad(a, b, out=out), "numpy": lambda: reference(a, b)}
    many = range(1000)
    return {
        "fastloss": lambda: [loss.value_and_grad(a, b, out=out) for _ in many],
        "numpy": lambda: [reference(a, b) for _ in many],
    }


BENCHES = [Bench(f"{name}, 1e6 pairs", partial(contestants, name), "numpy", 0.1) for name in REFERENCES]
BENCHES.append(Bench("iou, 10 pairs, 1000 times", partial(contestants, "iou", 10), "numpy", 1.0))
