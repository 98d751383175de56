"""Copies between classes along axis 1, (n, c, s), and rows of classes, (n, s, c)."""

import math
from functools import cache
from typing import Any

import numpy as np

from ..call.arrays import rounded
from ..call.memory import empty
from .runtime.slots import Number, unbound
from .runtime.staging import part
from .runtime.units import Kernel, kernel

__all__ = ["add_turned", "as_rows", "put_rows", "turnable", "turned"]

PIXELS = 64
"""Pixels that are turned at a time: their rows stay in the first-level cache while each class goes over them."""

LEAST = 1 << 16
"""Elements from which a kernel pays: NumPy takes 3.7 ms for 5 million float32, this one 2.7 ms on one thread."""

use: Any = unbound(Number)


def to_rows(lo, hi, x, rows):
    """Copy blocks of pixels of classes to rows."""
    c, s = x.shape[1], x.shape[2]
    blocks = (s + PIXELS - 1) // PIXELS
    for u in range(lo, hi):
        i, start = u // blocks, u % blocks * PIXELS
        m = min(PIXELS, s - start)
        block = part(rows, (i * s + start) * c, m * c)
        # One class after another: images have sizes of powers of two, whose classes would share few lines of the cache.
        for k in range(c):
            own = part(x, (i * c + k) * s + start, m)
            for j in range(own.size):
                block[j * c + k] = own[j]


def from_rows(lo, hi, rows, x, factors):
    """Write blocks of pixels of rows, times a factor, to classes, or add them to a multiple of what these have."""
    c, s = x.shape[1], x.shape[2]
    blocks = (s + PIXELS - 1) // PIXELS
    f, g = use.T(factors[0]), use.T(factors[1])
    keeps = factors[2] != 0.0
    for u in range(lo, hi):
        i, start = u // blocks, u % blocks * PIXELS
        m = min(PIXELS, s - start)
        block = part(rows, (i * s + start) * c, m * c)
        for k in range(c):
            own = part(x, (i * c + k) * s + start, m)
            # Outside the loop, and not a factor of 0: what the array holds may be NaN.
            if keeps:
                for j in range(own.size):
                    own[j] = f * own[j] + g * block[j * c + k]
            else:
                for j in range(own.size):
                    own[j] = g * block[j * c + k]


@cache
def _kernel(template: Any, dtype: str) -> Kernel:
    return kernel(template, f"turned_{template.__name__}", dtype)


def turnable(x: Any, axis: int) -> bool:
    """Whether kernels turn an array whose classes lie along an axis: large, contiguous, of float32 or float64."""
    return bool(x.size >= LEAST and x.flags.carray and x.dtype.name in ("float32", "float64") and 0 < axis < x.ndim - 1)


def _parts(x: Any, axis: int) -> tuple[Any, int]:
    """Return an array as (n, c, s), and the number of blocks."""
    n, c = math.prod(x.shape[:axis]), x.shape[axis]
    s = x.size // (n * c)
    return x.reshape(n, c, s), n * -(-s // PIXELS)


def turned(x: Any, axis: int, rows: Any) -> None:
    """Write an array of classes along an axis to rows of classes, (n * s, c)."""
    flat, units = _parts(x, axis)
    n, c, s = flat.shape
    _kernel(to_rows, x.dtype.name)(units, 2 * x.size, flat, rows.reshape(n, s, c))


def add_turned(x: Any, axis: int, rows: Any, factor: float = 0.0, weight: float = 1.0, keeps: bool = False) -> None:
    """Write rows times a weight to an array of classes along an axis; or add them to its product with a factor."""
    flat, units = _parts(x, axis)
    n, c, s = flat.shape
    factors = np.array([factor, weight, float(keeps)])
    _kernel(from_rows, x.dtype.name)(units, 2 * x.size, rows.reshape(n, s, c), flat, factors)


def as_rows(x: Any, axis: int) -> Any:
    """Return an array with the classes of an axis last: a copy where kernels turn it, else a view."""
    axis = axis % x.ndim
    if not turnable(x, axis):
        return np.moveaxis(x, axis, -1)
    rows = empty((*x.shape[:axis], *x.shape[axis + 1 :], x.shape[axis]), x.dtype)
    turned(x, axis, rows)
    return rows


def put_rows(out: Any, axis: int, rows: Any) -> None:
    """Write rows of classes, (n, c), to an array of classes along an axis, rounded to its dtype."""
    axis = axis % out.ndim
    if turnable(out, axis) and rows.dtype == out.dtype:
        add_turned(out, axis, rows, weight=1.0)
        return
    shape = (*out.shape[:axis], *out.shape[axis + 1 :], out.shape[axis])
    out[...] = rounded(np.moveaxis(rows.reshape(shape), -1, axis), out.dtype)
