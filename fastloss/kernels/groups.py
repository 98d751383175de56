"""What losses of groups share: the order of a group's items, and the factors of groups.

Group g has the items from offsets[g] up to offsets[g + 1].
"""

from functools import cache
from typing import Any

import numpy as np

from .specialize import LOOP, inner

__all__ = ["COUNTS", "largest_of", "longest", "scale", "sort_items", "sorting"]

COUNTS = 8 * 256
"""Whole numbers of scratch that sorting needs beside its copies."""

SMALL = 96
"""Items up to which a group is sorted by insertion."""

LEAST = np.int64(np.iinfo(np.int64).min)
GREATEST = np.int64(np.iinfo(np.int64).max)


def key_of(x):
    """A whole number that falls where x rises; equal for both zeros, the first of all for NaN."""
    bits = np.float64(x).view(np.int64)
    bits = bits ^ ((bits >> np.int64(63)) & GREATEST) if x != 0.0 else np.int64(0)
    return LEAST if x != x else ~bits


def by_insertion(keys, order):
    """Sort a few items by key; those of equal keys stay in order."""
    for i in range(1, keys.size):
        key, item = keys[i], order[i]
        j = i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            order[j] = order[j - 1]
            j -= 1
        keys[j] = key
        order[j] = item


def move(digit, places, keys, order, to_keys, to_order):
    """Deal items out to where those of their digit begin."""
    shift = np.int64(8 * digit)
    flip = np.int64(128 if digit == 7 else 0)
    for i in range(keys.size):
        d = ((keys[i] >> shift) & np.int64(255)) ^ flip
        p = places[d]
        places[d] = p + 1
        to_keys[p] = keys[i]
        to_order[p] = order[i]


def by_digits(keys, order, other_keys, other, counts):
    """Sort many items by key, from the last byte of it to the first; bytes that are equal for all are skipped."""
    n = keys.size
    for c in range(counts.size):
        counts[c] = 0
    for i in range(n):
        key = keys[i]
        for digit in range(8):
            flip = 128 if digit == 7 else 0
            counts[(digit << 8) + (((key >> np.int64(8 * digit)) & np.int64(255)) ^ flip)] += 1
    swapped = False
    for digit in range(8):
        places = counts[digit << 8 : (digit + 1) << 8]
        total, largest = 0, 0
        for c in range(places.size):
            count = places[c]
            largest = max(largest, count)
            places[c] = total
            total += count
        if largest < n:
            if swapped:
                move(digit, places, other_keys, other, keys, order)
            else:
                move(digit, places, keys, order, other_keys, other)
            swapped = not swapped
    if swapped:
        for i in range(n):
            order[i] = other[i]


def sort_items(x, order, keys, other, other_keys, counts):
    """The places of the elements of x by falling value; equal ones keep their order, and NaN comes first."""
    for i in range(x.size):
        keys[i] = key_of(x[i])
        order[i] = i
    if x.size <= SMALL:
        by_insertion(keys[: x.size], order[: x.size])
    else:
        by_digits(keys[: x.size], order[: x.size], other_keys[: x.size], other[: x.size], counts)


def largest_of(lo, hi, offsets):
    """How many items the largest of some groups has."""
    most = 0
    for g in range(lo, hi):
        most = max(most, offsets[g + 1] - offsets[g])
    return most


@cache
def sorting() -> tuple[tuple[str, Any], ...]:
    """What kernels bind that sort: compiled once, whatever the kernel."""
    bound: dict[str, Any] = {}
    for helper in (key_of, by_insertion, move, by_digits, sort_items, largest_of):
        bound[helper.__name__] = inner(helper, LOOP, **bound)
    return tuple((name, bound[name]) for name in ("sort_items", "largest_of"))


def longest(offsets: Any) -> int:
    """How many items the largest group has."""
    return int(offsets[1]) if offsets.size == 2 else int((offsets[1:] - offsets[:-1]).max())


def scale(grad: Any, factors: Any, offsets: Any) -> None:
    """Multiply what each group's items have by the factor of the group; by a factor of 0 it is 0, whatever it was."""
    if factors.size == 1:
        factor = float(factors[0])
        if factor == 0.0:
            grad.fill(0.0)
        elif factor != 1.0:
            with np.errstate(over="ignore"):
                np.multiply(grad, factor, out=grad)
        return
    each = np.repeat(factors, offsets[1:] - offsets[:-1])
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(grad, each, out=grad, casting="same_kind")
    if not factors.all():
        grad[each == 0.0] = 0.0
