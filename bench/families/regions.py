"""Losses of regions on images of 512 x 512, beside NumPy and torch; dice beside a plain copy of its logits."""

import numpy as np

import fastloss as fl

from .case import Bench, in_torch


def images(n=16, c=1, side=512):
    """Logits, and regions of each class, of a third of the pixels if there is one class."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (n, c, side, side)).astype(np.float32)
    if c == 1:
        return logits, (rng.random(logits.shape) < 0.3).astype(np.float32)
    return logits, rng.integers(0, c, (n, side, side))


def dice_numpy(z, t, smooth=1e-5):
    """Dice of a sigmoid with its gradient, one loss a sample."""
    p = 1 / (1 + np.exp(-z))
    axes = tuple(range(2, z.ndim))
    below = (p + t).sum(axes, keepdims=True) + smooth
    ratio = (2 * (p * t).sum(axes, keepdims=True) + smooth) / below
    return float(1 - ratio.mean()), (ratio - 2 * t) / below * p * (1 - p) / (ratio.size)


def dice_torch(torch, z, t, smooth=1e-5):
    """The same as users write it; labels become one array per class."""
    if t.ndim < z.ndim:
        p, t = z.softmax(1), torch.nn.functional.one_hot(t, z.shape[1]).movedim(-1, 1).to(z.dtype)
    else:
        p = z.sigmoid()
    axes = tuple(range(2, z.ndim))
    ratio = (2 * (p * t).sum(axes) + smooth) / ((p + t).sum(axes) + smooth)
    return (1 - ratio).mean()


def dice(n=16, side=512):
    z, t = images(n, 1, side)
    out = np.empty_like(z)
    return {
        "fastloss": lambda: fl.dice.value_and_grad(z, t, activation="sigmoid", out=out),
        "numpy": lambda: dice_numpy(z, t),
        **in_torch(dice_torch, (z,), (t,)),
    }


def dice_and_copy():
    """Without the peers: their threads spin for a while after a call, and what comes next has fewer cores."""
    z, t = images(16, 1)
    out = np.empty_like(z)
    return {
        "fastloss": lambda: fl.dice.value_and_grad(z, t, activation="sigmoid", out=out),
        "copy": lambda: np.copyto(out, z),
    }


def dice_softmax():
    z, labels = images(4, 19)
    out = np.empty_like(z)
    return {
        "fastloss": lambda: fl.dice.value_and_grad(z, labels, activation="softmax", out=out),
        "copy": lambda: np.copyto(out, z),
        **in_torch(dice_torch, (z,), (labels,)),
    }


def lovasz_numpy(z, t):
    """The authors' hinge with its gradient, image by image."""
    total, grad = 0.0, np.empty_like(z)
    for i in range(len(z)):
        sign = 2 * t[i].ravel() - 1
        errors = 1 - z[i].ravel() * sign
        order = np.argsort(-errors)
        found = t[i].ravel()[order]
        inter = found.sum() - np.cumsum(found, dtype=np.float64)
        step = 1 - inter / (found.sum() + np.cumsum(1 - found, dtype=np.float64))
        step[1:] -= step[:-1].copy()
        total += float(np.maximum(errors[order], 0) @ step)
        grad[i].reshape(-1)[order] = np.where(errors[order] > 0, -sign[order] * step, 0) / len(z)
    return total / len(z), grad


def lovasz_torch(torch, z, labels):
    """The authors' Lovasz-Softmax, image by image and class by class."""

    def one(p, y):
        losses = []
        for c in y.unique():
            found = (y == c).to(p.dtype)
            errors, order = (found - p[c]).abs().sort(0, descending=True)
            found = found[order]
            union = found.sum() + (1 - found).cumsum(0)
            step = 1 - (found.sum() - found.cumsum(0)) / union
            step = torch.cat([step[:1], step[1:] - step[:-1]])
            losses.append(errors @ step)
        return torch.stack(losses).mean()

    p = z.softmax(1).flatten(2)
    return torch.stack([one(a, b) for a, b in zip(p, labels.flatten(1), strict=True)]).mean()


def lovasz_hinge():
    z, t = images(8)
    out = np.empty_like(z)
    return {
        "fastloss": lambda: fl.lovasz_hinge.value_and_grad(z, t, out=out),
        "numpy": lambda: lovasz_numpy(z, t),
    }


def lovasz_softmax():
    z, labels = images(2, 5)
    out = np.empty_like(z)
    return {
        "fastloss": lambda: fl.lovasz_softmax.value_and_grad(z, labels, activation="softmax", out=out),
        **in_torch(lovasz_torch, (z,), (labels,)),
    }


BENCHES = [
    Bench("dice with gradient, 16 x 1 x 512 x 512 logits, beside a copy", dice_and_copy, "copy", 3.0, rounds=25),
    Bench("dice with gradient, 16 x 1 x 512 x 512 logits", dice, "torch", 1.0),
    Bench("dice with gradient, one 2 x 1 x 8 x 8", lambda: dice(2, 8), "numpy", 1.0),
    Bench("dice of a softmax, 4 x 19 x 512 x 512, labels", dice_softmax, "torch", 1.0),
    Bench("lovasz hinge, 8 x 1 x 512 x 512", lovasz_hinge, "numpy", 1.0),
    Bench("lovasz softmax, 2 x 5 x 512 x 512, labels", lovasz_softmax, "torch", 1.0),
]
