"""Radix sort of keys with what belongs to them, for kernels: a few passes over digits, in a fixed order."""

import numpy as np

from ..runtime.staging import part

__all__ = ["COUNTS", "sort_digits"]

FEW = 4096
"""Keys up to which digits have 8 bits, whose counts are sooner cleared; 11 bits of more, whose counts still fit the
first-level cache."""

COUNTS = 6 << 11
"""Room for the counts of all digits of 64 bits."""


def sort_digits(rows, m, counts):
    """Sort the first m keys in rows 0 and 1, which are unsigned, upwards, and with them what is in rows 2 and 3.

    They begin in rows 0 and 2; returned is the one of 0 and 1 where they end. Equal keys keep their order. One array,
    since the memory of two is given back and faulted in again at each call. It takes 6 to 8 ns a key of 32 bits.
    """
    room = rows.shape[1]
    bits = np.uint64(8 if m < FEW else 11)
    size = 1 << (8 if m < FEW else 11)
    passes = rows.itemsize if m < FEW else (rows.itemsize * 8 + 10) // 11
    # Unsigned throughout: mixed with signed integers, Numba makes float64 of both.
    last = np.uint64(size - 1)
    given = part(rows, 0, m)
    places = part(counts, 0, passes * size)
    for b in range(places.size):
        places[b] = 0
    for j in range(given.size):
        key = np.uint64(given[j])
        for d in range(passes):
            places[np.uint64(d * size) + ((key >> (np.uint64(d) * bits)) & last)] += 1
    row = 0
    for d in range(passes):
        shift = np.uint64(d) * bits
        first = part(counts, d * size, size)
        # A digit that all keys share moves none of them.
        if first[(np.uint64(given[0]) >> shift) & last] < m:
            # Counts become places in the order of the digits: an exclusive sum, in place.
            at = 0
            for b in range(first.size):
                found = first[b]
                first[b] = at
                at += found
            source, belongs = part(rows, row * room, m), part(rows, (row + 2) * room, m)
            row = 1 - row
            result, follows = part(rows, row * room, m), part(rows, (row + 2) * room, m)
            for j in range(source.size):
                digit = (np.uint64(source[j]) >> shift) & last
                to = np.uint64(first[digit])
                first[digit] += 1
                result[to] = source[j]
                follows[to] = belongs[j]
    return row
