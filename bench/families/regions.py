"""Losses of regions on images of 512 x 512, beside NumPy and torch; dice beside a plain copy of its logits."""

import numpy as np

import fastloss as fl

from .case import Bench


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


def dice_torch(z, t, smooth=1e-5, softmax=False):
    """The same as users write it, with autograd; labels become one array per class."""
    import torch

    z = torch.from_numpy(z).requires_grad_()
    t = torch.from_numpy(t)
    if softmax:
        t = torch.nn.functional.one_hot(t, z.shape[1]).movedim(-1, 1).to(z.dtype)

    def step():
        z.grad = None
        p = z.softmax(1) if softmax else z.sigmoid()
        axes = tuple(range(2, z.ndim))
        ratio = (2 * (p * t).sum(axes) + smooth) / ((p + t).sum(axes) + smooth)
        loss = (1 - ratio).mean()
        loss.backward()
        return float(loss), z.grad

    return step


def dice(n=16, side=512):
    z, t = images(n, 1, side)
    out = np.empty_like(z)
    return {
        "fastloss": lambda: fl.dice.value_and_grad(z, t, activation="sigmoid", out=out),
        "copy": lambda: np.copyto(out, z),
        "numpy": lambda: dice_numpy(z, t),
        "torch": dice_torch(z, t),
    }


def dice_softmax():
    z, labels = images(4, 19)
    out = np.empty_like(z)
    return {
        "fastloss": lambda: fl.dice.value_and_grad(z, labels, activation="softmax", out=out),
        "copy": lambda: np.copyto(out, z),
        "torch": dice_torch(z, labels, softmax=True),
    }


BENCHES = [
    Bench("dice with gradient, 16 x 1 x 512 x 512 logits", dice, "copy", 3.0),
    Bench("dice with gradient, one 2 x 1 x 8 x 8", lambda: dice(2, 8), "numpy", 1.0),
    Bench("dice of a softmax, 4 x 19 x 512 x 512, labels", dice_softmax, "torch", 1.0),
]
