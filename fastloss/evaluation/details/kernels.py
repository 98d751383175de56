"""Kernels that count values by cell of a fixed lattice.

A cell is what doubles share that agree in sign, exponent and the first BITS bits of their fraction. The cells of one
sign and exponent are a page; pages exist once a value falls into them, so that memory follows the range of the data.
"""

import numpy as np

from ...cpu.runtime.specialize import cached_jit
from ..exact import ABSOLUTE, INFINITE

__all__ = ["BITS", "PAGE", "PAGES", "SHIFT", "count"]

BITS = 9
"""Bits of the fraction that tell cells apart: a cell is at most 1/512 of its values wide, and its middle 1/1024 off."""

SHIFT = 52 - BITS
PAGE, PAGES = 1 << BITS, 1 << 12

NEGATIVE_ZERO = np.int64(-0x8000000000000000)
WITHIN, MIDDLE = np.int64(PAGE - 1), np.int64(PAGES // 2)

PLAIN = {"error_model": "numpy", "nogil": True}


@cached_jit(**PLAIN)
def count(x, pages, table, used, ends, codes):
    """Count doubles by cell; return how many were done before a page was missing that `table` has no room for.

    `pages` holds the row of each page in `table` (-1: none), `used` the number of rows in use, and `ends` the smallest
    and largest value as ordered integers. Values that are not finite are left out. Unless `codes` is empty, it gets
    the place of each value's cell in the table, -1 for those left out.
    """
    bits = x.view(np.int64)
    low, high, n = ends[0], ends[1], used[0]
    done = bits.size
    flat = table.reshape(-1)
    for i in range(bits.size):
        b = bits[i]
        if b == NEGATIVE_ZERO:
            b = np.int64(0)
        if b & INFINITE == INFINITE:
            if codes.size:
                codes[i] = -1
            continue
        key = b ^ ((b >> 63) & ABSOLUTE)
        cell = key >> SHIFT
        page = (cell >> BITS) + MIDDLE
        row = pages[page]
        if row < 0:
            if n == table.shape[0]:
                done = i
                break
            row = pages[page] = n
            n += 1
        at = (np.int64(row) << BITS) | (cell & WITHIN)
        flat[np.uint64(at)] += 1
        low, high = min(low, key), max(high, key)
        if codes.size:
            codes[i] = at
    ends[0], ends[1], used[0] = low, high, n
    return done
