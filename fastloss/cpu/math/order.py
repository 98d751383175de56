"""Sorts rows and groups, many numbers digit by digit: in half the time of NumPy's argsort, or less."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import config, types

from .. import dispatch
from ..runtime.intrinsics import call
from ..runtime.slots import unbound
from ..runtime.specialize import LOOP, cached_jit, chained, compile_chunk
from ..runtime.units import kernel

__all__ = ["COUNTS", "FEW", "addressed", "bits_of", "ordered", "sorter"]

FEW = 1 << 10
"""Numbers in a row of a matrix from which sorting by digits pays."""

SMALL = 96
"""Numbers up to which insertion is faster than digits."""

MOVES = 4
"""Moves per number that insertion may take after half of the digits; it takes 0.1 with a million even ones."""

DIGIT = 8
"""Bits of a digit: 2048 places to write to, for 11 bits, are more than the caches follow (1.5 times as long)."""

COUNTS = 8 << DIGIT
"""Whole numbers of scratch for the counts of all digits."""


class Slots(NamedTuple):
    """Number types and constants that the templates of sorting read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    BITS: type
    """Signed integer type of as many bits as T has."""
    DIGITS: int
    """Digits of a key."""
    LOWEST: Any
    """Least integer of the type BITS, its sign bit alone."""


use = unbound(Slots)


def key_of(x):
    """Whole numbers that are ordered, as if unsigned, like floats; the largest for NaN, one for both zeros."""
    T = use.T
    # Adding 0 makes -0 into 0: equal numbers have one key, and keep their order.
    b = T(x + T(0.0)).view(use.BITS)
    return use.BITS(-1) if x != x else use.BITS(b ^ ((b >> use.BITS(DIGIT * use.DIGITS - 1)) | use.LOWEST))


def insert(keys, index, moves):
    """Sort a few keys, or those nearly in order; equal ones keep theirs. False if that took more moves than allowed."""
    for i in range(1, keys.size):
        key, item = keys[i], index[i]
        j = i
        # Compares as if unsigned: flipping the sign bits gives signed integers that order.
        while j > 0 and (keys[j - 1] ^ use.LOWEST) > (key ^ use.LOWEST):
            keys[j] = keys[j - 1]
            index[j] = index[j - 1]
            j -= 1
        keys[j] = key
        index[j] = item
        moves -= i - j
        if moves < 0:
            return False
    return True


def distribute(keys, index, counts, shift, to, at):
    """Write keys in the order of one digit; the counts say where each begins."""
    start = 0
    for d in range(counts.size):
        count = counts[d]
        counts[d] = start
        start += count
    for i in range(keys.size):
        key = keys[i]
        # One read and one write a key and digit: comparisons would take log2(n) rounds.
        d = (key >> shift) & use.BITS(counts.size - 1)
        q = counts[d]
        counts[d] = q + 1
        to[q] = key
        at[q] = index[i]


def by_digits(start, n, keys, index, counts):
    """Sort keys by their digits from one on, those that are equal in their order; in which row they then lie."""
    counts[:] = 0
    last = use.BITS((1 << DIGIT) - 1)
    first = keys[0][:n]
    for i in range(n):
        key = first[i]
        # Counts all digits in one pass over the keys.
        for p in range(use.DIGITS):
            counts[(p << DIGIT) + ((key >> use.BITS(p * DIGIT)) & last)] += 1
    source = 0
    for p in range(start, use.DIGITS):
        shift = use.BITS(p * DIGIT)
        part = counts[p << DIGIT : (p + 1) << DIGIT]
        # A digit that all share changes nothing.
        if part[(keys[source, 0] >> shift) & last] < n:
            other = 1 - source
            distribute(keys[source][:n], index[source][:n], part, shift, keys[other][:n], index[other][:n])
            source = other
    return source


def sort_items(x, falling, keys, index, counts):
    """Sort the keys of x, rising with NaN last or falling with NaN first; in which row they and their places lie."""
    n = x.size
    first, places = keys[0][:n], index[0][:n]
    flip = use.BITS(-falling)
    for i in range(n):
        first[i] = key_of(x[i]) ^ flip
        places[i] = i
    # Clearing the counts of all digits takes longer than inserting so few.
    if n <= SMALL:
        insert(first, places, n * n)
        return 0.0
    if use.DIGITS == 8:
        # Where the first half of the digits all but decides, insertion does the rest in place of four passes.
        source = by_digits(use.DIGITS // 2, n, keys, index, counts)
        if insert(keys[source][:n], index[source][:n], MOVES * n):
            return float(source)
        if source == 1:
            keys[0][:n] = keys[1][:n]
            index[0][:n] = index[1][:n]
    return float(by_digits(0, n, keys, index, counts))


def bits_of(dtype: str) -> Any:
    """The whole numbers as which floats are compared."""
    return np.int32 if dtype == "float32" else np.int64


def addressed(template: Callable[..., Any], name: str, signature: Any, use: Any, **functions: Any) -> tuple[Any, Any]:
    """A function for kernels to call by address, as they take that; and the object that keeps the code alive."""
    with dispatch.compiling:
        chunk = compile_chunk(template, name, signature, use, **functions)
    return ([chunk.address] if config.DISABLE_JIT else np.array([chunk.address], np.int64)), chunk


def _flags(dtype: str) -> tuple[tuple[str, Any], ...]:
    bits = bits_of(dtype)
    whole = np.iinfo(bits)
    return ("BITS", bits), ("DIGITS", whole.bits // DIGIT), ("LOWEST", bits(whole.min))


@cache
def sorter(dtype: str) -> tuple[Any, Any]:
    """The address of the function that sorts, as kernels take it, and the object that keeps the code alive.

    One function that kernels call by address: as a part of each it would take half of their compilation.
    """
    use = Slots(T=getattr(np, dtype), **dict(_flags(dtype)))
    functions = chained((key_of, insert, distribute, by_digits), LOOP, use, {})
    real, bits = getattr(types, dtype), types.int32 if dtype == "float32" else types.int64
    arrays = (types.Array(bits, 2, "C"), types.Array(types.int32, 2, "C"), types.Array(types.int32, 1, "C"))
    signature = types.float64(types.Array(real, 1, "C"), types.intp, *arrays)
    return addressed(sort_items, f"sort_items_{dtype}", signature, use, **functions)


def order_rows(lo, hi, sort, x, places, order):
    """Sort rows."""
    n = x.shape[1]
    keys, index = np.empty((2, n), use.BITS), np.empty((2, n), np.int32)
    counts = np.empty(COUNTS, np.int32)
    for row in range(lo, hi):
        source = int(call(sort[0], (x[row], 0, keys, index, counts)))
        for i in range(n):
            key = keys[source, i]
            places[row, i] = use.BITS(key ^ use.LOWEST if key < 0 else ~key).view(use.T)
            order[row, i] = index[source, i]


@cached_jit(error_model="numpy")
def gather(x, order, out):
    """Write the numbers of each row in an order; take_along_axis makes an index of each axis, 7 us of a small call."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, order[i, j]]


def ordered(name: str, x: Any, traced: bool) -> tuple[Any, Any]:
    """The rows of a matrix, sorted, and, if they are to be traced, where each number was; NaN comes last."""
    if not FEW <= x.shape[1] < 1 << 31:
        if not traced:
            return np.sort(x, axis=1), np.empty((1, 0), np.int64)
        order, places = x.argsort(axis=1), np.empty_like(x)
        gather(x, order, places)
        return places, order
    places, order = np.empty_like(x), np.empty(x.shape, np.int64)
    rows_of = kernel(order_rows, "order_rows", name, None, (), _flags(name))
    rows_of(len(x), 20 * x.size, sorter(name)[0], x, places, order)
    return places, order
