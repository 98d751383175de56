"""Settings and scratch arrays that the kernels of region losses share."""

from typing import Any

import numpy as np

from ..runtime.specialize import cached_jit
from .domains import ACTIVATIONS, check_single, first_class

__all__ = [
    *("ACTIVATION", "BLOCK", "FIRST", "FREE", "MICRO", "POWER", "PRESENT", "RAW", "SQUARED", "SUMS", "WHOLE"),
    *("NO_WEIGHT", "Pixels", "flagged_in"),
]

SUMS = 6
"""Sums of a class over a block: tp, fp, fn, tn, pixels that count, predictions or targets outside of [0, 1]."""

RAW = 3
"""In place of an activation: scores stay what they are, and no codes of probabilities."""

# Indices of the settings of a call, which kernels read as one array of integers.
ACTIVATION, SQUARED, FREE, WHOLE, MICRO, FIRST, POWER, BLOCK, PRESENT = range(9)

NO_LABELS, NO_MASK, NO_WEIGHT = np.empty((0, 0), np.int64), np.empty((0, 0), np.uint8), np.empty(0)


def block_of(classes: int, pixels: int) -> int:
    """Pixels in a block: what is held of all classes should fit the second-level cache.

    Of a single class 4096 take 0.87 of the time of 1024.
    """
    return max(1, min(pixels, 4096 if classes == 1 else 1024 if classes <= 4 else 512 if classes <= 16 else 256))


class Pixels:
    """Settings of the kernels of regions for calls of one kind: the same shapes, options and optional inputs."""

    def __init__(self, call: Any, second: str) -> None:
        options, self.second = call.parameters, second
        self.n, self.c, s = call["prediction"].shape
        self.dense = call[second].ndim == 3
        self.masked = call["mask"] is not None or not self.dense
        if self.c == 1:
            check_single(call)
        self.size = block_of(self.c, s)
        # By the shape alone: results have the same bits on any number of threads.
        self.blocks = -(-s // self.size)
        self.whole = options["per"] == "batch"
        self.how = np.zeros(9, np.int64)
        self.how[ACTIVATION] = ACTIVATIONS[options.get("activation")]
        self.how[WHOLE] = self.whole
        self.how[FIRST] = first_class(call)
        self.how[BLOCK] = self.size
        self.no_target, self.no_grad = np.empty((0, self.c, 0), call.dtype), np.empty((0, self.c, s), call.dtype)
        self.nothing = np.empty((0, 0, 0), call.dtype)

    def read(self, call: Any) -> tuple[Any, ...]:
        """Return the arrays that both kernels read: target, labels, mask and settings."""
        target, mask = call.arrays[self.second], call.arrays["mask"]
        own = (target, NO_LABELS) if self.dense else (self.no_target, target)
        return (*own, NO_MASK if mask is None else mask, self.how)

    def parts(self) -> Any:
        """Return room for the sums of each block."""
        return np.empty((self.n, self.blocks, self.c, SUMS))

    def grad(self, call: Any) -> Any:
        """Return the gradient; empty where there is none."""
        return call.grads["prediction"] if call.grads else self.no_grad


def flagged(state):
    """Whether the second column has anything but zeros; takes a sixth of the time of NumPy's any."""
    found = 0
    for i in range(len(state)):
        # Counted, not stopped at: a loop that may end early does not vectorise.
        found += state[i, 1] != 0.0
    return found != 0


flagged_in = cached_jit(error_model="numpy")(flagged)
