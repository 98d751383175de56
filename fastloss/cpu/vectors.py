"""Norms, products and scaled sums of vectors, with the same bits on any number of threads.

Sums run over blocks of fixed size, in float64, and the sums of the blocks are added in their order.
"""

import math
from functools import cache
from typing import Any

import numpy as np

from .runtime.slots import Number, unbound
from .runtime.units import Kernel, kernel

__all__ = ["add_scaled", "blend", "clamp", "dot", "norm", "scale"]

BLOCK = 4096
"""Elements in a block: few enough that the sums of blocks are no work, enough to hide the call."""

use: Any = unbound(Number)


def measure(lo, hi, x, power, parts):
    """Write the sum of |x| to a power for each block; for an infinite power the largest, NaN where there is one."""
    p = power[0]
    for u in range(lo, hi):
        block = x[u * BLOCK : (u + 1) * BLOCK]
        total = 0.0
        if p == 2.0:
            for i in range(block.size):
                # In float64: squares of float32 overflow from 1.8e19 on, and this norm decides how gradients are
                # clipped.
                total += float(block[i]) * float(block[i])
        elif p == 1.0:
            for i in range(block.size):
                total += abs(float(block[i]))
        elif p == np.inf:
            missing = False
            for i in range(block.size):
                a = abs(float(block[i]))
                total = max(total, a)
                # By itself: a maximum drops NaN.
                missing |= a != a
            total = np.nan if missing else total
        else:
            for i in range(block.size):
                total += abs(float(block[i])) ** p
        parts[u] = total


def multiply(lo, hi, x, factor):
    """Multiply elements by a number."""
    f = use.T(factor[0])
    part = x[lo:hi]
    for i in range(part.size):
        part[i] *= f


def limit(lo, hi, x, bound):
    """Limit elements to [-bound, bound]; NaN comes through."""
    b = use.T(bound[0])
    part = x[lo:hi]
    for i in range(part.size):
        a = part[i]
        # NaN fails both comparisons, and stays.
        a = b if a > b else a
        part[i] = -b if a < -b else a


def add_and_multiply(lo, hi, x, factor, y, z, parts):
    """Add factor times y to x, and write the sums of the products of x and z for each block."""
    f = use.T(factor[0])
    for u in range(lo, hi):
        a, b, c = x[u * BLOCK : (u + 1) * BLOCK], y[u * BLOCK : (u + 1) * BLOCK], z[u * BLOCK : (u + 1) * BLOCK]
        total = 0.0
        for i in range(a.size):
            # Two operations in one pass: LBFGS reads each vector of its history once a loop.
            value = a[i] + f * b[i]
            a[i] = value
            total += float(value) * float(c[i])
        parts[u] = total


def multiply_both(lo, hi, x, y, factors):
    """Replace x by its product with a number plus the product of y with another one."""
    f, g = use.T(factors[0]), use.T(factors[1])
    a, b = x[lo:hi], y[lo:hi]
    for i in range(a.size):
        a[i] = f * a[i] + g * b[i]


def products(lo, hi, x, y, parts):
    """Write the sums of the products of x and y for each block."""
    for u in range(lo, hi):
        a, b = x[u * BLOCK : (u + 1) * BLOCK], y[u * BLOCK : (u + 1) * BLOCK]
        total = 0.0
        for i in range(a.size):
            total += float(a[i]) * float(b[i])
        parts[u] = total


@cache
def _kernel(template: Any, dtype: str) -> Kernel:
    return kernel(template, f"vectors_{template.__name__}", dtype)


def _summed(template: Any, x: Any, *more: Any) -> Any:
    """Run a kernel over blocks and return what it writes for each of them."""
    parts = np.empty(-(-x.size // BLOCK))
    _kernel(template, x.dtype.name)(len(parts), x.size, x, *more, parts)
    return parts


def norm(arrays: Any, power: float) -> float:
    """Return the norm of flat arrays taken as one vector: the root of the sum of |x|**power, or the largest |x|."""
    parts = [_summed(measure, x, np.array([power])) for x in arrays]
    if power == math.inf:
        return float(np.max([part.max() for part in parts if part.size], initial=0.0))
    total = sum(float(part.sum()) for part in parts)
    return math.sqrt(total) if power == 2.0 else float(np.float64(total) ** (1.0 / power))


def scale(x: Any, factor: float) -> None:
    """Multiply a flat array by a number, in place."""
    _kernel(multiply, x.dtype.name)(x.size, x.size, x, np.array([factor]))


def blend(x: Any, factor: float, y: Any, weight: float) -> None:
    """Replace a flat array by its product with a factor plus another one's with a weight, in one pass."""
    _kernel(multiply_both, x.dtype.name)(x.size, x.size, x, y, np.array([factor, weight]))


def clamp(x: Any, bound: float) -> None:
    """Limit a flat array to [-bound, bound], in place."""
    _kernel(limit, x.dtype.name)(x.size, x.size, x, np.array([bound]))


def dot(x: Any, y: Any) -> float:
    """Return the product of two flat arrays."""
    return float(_summed(products, x, y).sum())


def add_scaled(x: Any, factor: float, y: Any, z: Any) -> float:
    """Add factor times y to x, in place, and return the product of the new x and z, in one pass."""
    return float(_summed(add_and_multiply, x, np.array([factor]), y, z).sum())
