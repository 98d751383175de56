"""Kernels that count values by cell of a fixed lattice.

A cell is what doubles share that agree in sign, exponent and the first BITS bits of their fraction. The cells of one
sign and exponent are a page; pages exist once a value falls into them, so that memory follows the range of the data.
"""

import numpy as np

from ...cpu.math.scalar_math import sigmoid64
from ...cpu.runtime.intrinsics import widest_vectors
from ...cpu.runtime.specialize import cached_jit
from ..exact import ABSOLUTE, INFINITE
from ..groups.kernels import _bits

__all__ = [
    "BITS",
    "FLOOR",
    "MIRROR",
    "PAGE",
    "PAGES",
    "SHIFT",
    "STEP",
    "bin_probabilities",
    "confuse",
    "count",
    "sigmoids",
    "wrong_labels",
]

BITS = 9
"""Bits of the fraction that tell cells apart: a cell is at most 1/512 of its values wide, and its middle 1/1024 off."""

SHIFT = 52 - BITS
PAGE, PAGES = 1 << BITS, 1 << 12

NEGATIVE_ZERO = np.int64(-0x8000000000000000)
WITHIN, MIDDLE = np.int64(PAGE - 1), np.int64(PAGES // 2)

STEP = 46
"""Lowest bit that tells cells of probabilities apart: 64 cells between powers of two."""

FLOOR = np.int64((1023 - 30) << 52)
"""Bits of 2**-30: probabilities below share a cell, and so do those as near to 1."""

MIRROR = np.int64(2 * (29 << (52 - STEP)) - 1)
"""Last cell before those of the grid's own edges: cells above 1/2 mirror those below."""

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


@cached_jit(**PLAIN)
def bin_probabilities(p, t, first, split, table, score, codes):
    """Add probabilities and labels (positive: 1) to the cells of `grid.GRID`.

    `codes` gets the cell of each unless it is empty. A row of `table` holds the number of rows, of positive ones, and
    the sum of probabilities in two words, of units 2**-30 and 2**-60: integers, so that any order gives the same sum.
    `score` holds the sum of squared differences of probability and label so.
    """
    bits = p.view(np.int64)
    score_high, score_low = score[0], score[1]
    for i in range(bits.size):
        v = p[i]
        if v <= 0.5:
            place = (max(bits[i] - 1, FLOOR) >> STEP) - (FLOOR >> STEP)
        else:
            place = MIRROR - ((max(_bits(1.0 - v), FLOOR) >> STEP) - (FLOOR >> STEP))
        cell = first[place] + (v > split[place])
        scaled = v * 2.0**30
        high = np.int64(scaled)
        table[cell, 0] += 1
        positive = t[i] > 0.0
        table[cell, 1] += positive
        table[cell, 2] += high
        table[cell, 3] += np.int64((scaled - high) * 2.0**30)
        gap = v - positive
        scaled = gap * gap * 2.0**30
        high = np.int64(scaled)
        score_high += high
        score_low += np.int64((scaled - high) * 2.0**30)
        if codes.size:
            codes[i] = cell
    score[0], score[1] = score_high, score_low


@cached_jit(**PLAIN)
def confuse(p, t, thresholds, groups, counts, codes):
    """Count rows by group, by how many thresholds the probability reaches, and by label (positive: 1).

    `groups` is empty where there is but one; `codes` gets the place of each row in `counts` unless it is empty.
    """
    width = 2 * (thresholds.size + 1)
    for i in range(p.size):
        reached = 0
        for k in range(thresholds.size):
            reached += p[i] >= thresholds[k]
        at = 2 * reached + (t[i] > 0.0)
        if groups.size:
            at += width * groups[i]
        counts[at] += 1
        if codes.size:
            codes[i] = at


@cached_jit(**PLAIN)
def sigmoids(z, out):
    """Compute the sigmoid of logits."""
    widest_vectors()
    for i in range(z.size):
        out[i] = sigmoid64(z[i])


@cached_jit(**PLAIN)
def wrong_labels(t):
    """Return how many labels are none of 0, 1 and -1."""
    widest_vectors()
    count = 0
    for i in range(t.size):
        count += 0 if (t[i] == 0.0) | (abs(t[i]) == 1.0) else 1
    return count
