"""Sorts rows and says where each number was, long ones digit by digit: twice as fast as NumPy's argsort, or more."""

from typing import Any

import numpy as np

from .blocks import kernel

__all__ = ["ordered"]

FEW = 1 << 10
"""Numbers in a row from which sorting by digits pays."""

DIGIT = 8
"""Bits of a digit: 2048 places to write to, for 11 bits, are more than the caches follow (1.5 times as long)."""

# Names that the templates below find bound when they are specialized.
T: Any = None
BITS: Any = None
DIGITS: Any = None
LOWEST: Any = None


def key_of(x):
    """Whole numbers that are ordered, as if unsigned, like floats; the largest for NaN, one for both zeros."""
    b = T(x + T(0.0)).view(BITS)
    return BITS(-1) if x != x else BITS(b ^ ((b >> BITS(DIGIT * DIGITS - 1)) | LOWEST))


def distribute(keys, index, counts, shift, to, at):
    """Write keys in the order of one digit; the counts say where each begins."""
    start = 0
    for d in range(counts.size):
        count = counts[d]
        counts[d] = start
        start += count
    for i in range(keys.size):
        key = keys[i]
        d = (key >> shift) & BITS(counts.size - 1)
        q = counts[d]
        counts[d] = q + 1
        to[q] = key
        at[q] = index[i]


def order_rows(lo, hi, x, places, order):
    """Sort rows."""
    n = x.shape[1]
    keys = np.empty((2, n), BITS)
    index = np.empty((2, n), np.int32)
    counts = np.empty((DIGITS, 1 << DIGIT), np.int32)
    last = BITS((1 << DIGIT) - 1)
    for row in range(lo, hi):
        counts[:] = 0
        xs, first = x[row], keys[0]
        for i in range(n):
            key = key_of(xs[i])
            first[i] = key
            index[0, i] = i
            for p in range(DIGITS):
                counts[p, (key >> BITS(p * DIGIT)) & last] += 1
        source = 0
        for p in range(DIGITS):
            shift = BITS(p * DIGIT)
            # A digit that all share changes nothing.
            if counts[p, (keys[source, 0] >> shift) & last] < n:
                distribute(keys[source], index[source], counts[p], shift, keys[1 - source], index[1 - source])
                source = 1 - source
        for i in range(n):
            key = keys[source, i]
            places[row, i] = BITS(key ^ LOWEST if key < 0 else ~key).view(T)
            order[row, i] = index[source, i]


def ordered(name: str, x: Any, traced: bool) -> tuple[Any, Any]:
    """The rows of a matrix, sorted, and, if they are to be traced, where each number was; NaN comes last."""
    if not FEW <= x.shape[1] < 1 << 31:
        if not traced:
            return np.sort(x, axis=1), np.empty((1, 0), np.int64)
        order = np.argsort(x, axis=1)
        return np.take_along_axis(x, order, axis=1), order
    places, order = np.empty_like(x), np.empty(x.shape, np.int64)
    bits = np.dtype(np.int32 if name == "float32" else np.int64).type
    whole = np.iinfo(bits)
    flags = (("BITS", bits), ("DIGITS", whole.bits // DIGIT), ("LOWEST", bits(whole.min)))
    rows_of = kernel(order_rows, "order_rows", name, None, (key_of, distribute), flags)
    rows_of(len(x), 20 * x.size, x, places, order)
    return places, order
