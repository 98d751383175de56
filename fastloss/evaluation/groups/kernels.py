"""Exact sums by group: the kernels. Any order, split and merge gives the bits that the ungrouped sums have.

A group's state at one level is a row of WORDS int64. Level k holds values from 2**(top - SPAN) up to 2**top, with
top = TOP + k * SPAN: the levels are fixed, so which word a bit lands in never depends on the order of the rows. A value
is cut into three integers of SLICE bits, and its square, exact as the rounded square and its rounding error, into six.
Level 0 takes 2**-55 to 4096 and zero, which are all losses of most data sets.
"""

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from ...cpu.runtime.intrinsics import widest_vectors
from ...cpu.runtime.specialize import INNER, cached_jit
from ..exact import STEP, _add_any, _add_weighted, _carry, _drain, _finite, _inside, _scan
from ..exact.slices import BLOCK as SEGMENT
from ..exact.slices import INLINE, LEAST, POWER, _minus, _tail

__all__ = [
    "COUNT",
    "HIGH",
    "LOW",
    "SLICE",
    "SPAN",
    "SQUARES",
    "SUMS",
    "SWEEP",
    "TOP",
    "WORDS",
    "add",
    "add_any",
    "carry",
    "look_up",
]

TOP, SPAN, SLICE = 12, 67, 40
WORDS = 16
"""Words of a row: two cache lines. Twelve would do, and straddle lines."""
SUMS, SQUARES = (3, 0, 1, 2), (10, 4, 5, 6, 7, 8, 9)
"""Words of the sum and of the sum of squares, from the highest; the first holds what sweeps carried out of the next."""
COUNT, LOW, HIGH = 11, 12, 13
SWEEP = 1 << 21
"""Rows between sweeps (rows): a row adds at most 2**41 to a word of 63 bits."""

BLOCK = 512
"""Rows cut into slices at a time: nine lanes (37 kB) fit the L1 cache. They lie 8 words further apart than BLOCK, as
lanes 4096 bytes apart share one set of that cache (5.0 ns a row for 2.9).
"""

PLAIN = {"error_model": "numpy", "nogil": True}


@njit(**INNER)
def _outside(x, low, high):
    """Return how many values are not of this level."""
    widest_vectors()
    count = 0
    for i in range(x.size):
        v = abs(x[i])
        count += 0 if ((v >= low) & (v < high)) | (v == 0.0) else 1
    return count


@intrinsic
def _as_bits(typingctx, x):
    """Return the bits of a double as an integer."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


if config.DISABLE_JIT:

    def _bits(x):
        """Return the bits of a double as an integer."""
        return np.float64(x).view(np.int64)

else:

    @njit(**INLINE)
    def _bits(x):
        """Return the bits of a double as an integer."""
        return _as_bits(x)


@njit(**INNER)
def _slices(x, m, lanes):
    """Cut values and squares: adding m, 1.5 * 2**52 units, rounds to a grid and leaves the integer in the low bits."""
    widest_vectors()
    m0, m1, m2, s0, s1, s2, s3, s4, s5 = m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[8]
    c0, c1, c2 = _bits(m0), _bits(m1), _bits(m2)
    d0, d1, d2, d3, d4, d5 = _bits(s0), 2 * _bits(s1), 2 * _bits(s2), 2 * _bits(s3), 2 * _bits(s4), _bits(s5)
    for i in range(x.size):
        v = x[i]
        a = v + m0
        lanes[0, i] = _bits(a) - c0
        r = _minus(v, _minus(a, m0))
        a = r + m1
        lanes[1, i] = _bits(a) - c1
        lanes[2, i] = _bits(_minus(r, _minus(a, m1)) + m2) - c2
        square = v * v
        a = square + s0
        lanes[3, i] = _bits(a) - d0
        r = _minus(square, _minus(a, s0))
        t = _tail(v, v, square)
        a = r + s1
        b = t + s1
        lanes[4, i] = _bits(a) + _bits(b) - d1
        r = _minus(r, _minus(a, s1))
        t = _minus(t, _minus(b, s1))
        a = r + s2
        b = t + s2
        lanes[5, i] = _bits(a) + _bits(b) - d2
        r = _minus(r, _minus(a, s2))
        t = _minus(t, _minus(b, s2))
        a = r + s3
        b = t + s3
        lanes[6, i] = _bits(a) + _bits(b) - d3
        r = _minus(r, _minus(a, s3))
        t = _minus(t, _minus(b, s3))
        a = r + s4
        b = t + s4
        lanes[7, i] = _bits(a) + _bits(b) - d4
        lanes[8, i] = _bits(_minus(t, _minus(b, s4)) + s5) - d5


@njit(**INNER)
def _scatter(x, codes, lanes, table, extremes):
    """Add the columns of lanes to the rows of their groups."""
    for i in range(x.size):
        g = codes[i]
        table[g, 0] += lanes[0, i]
        table[g, 1] += lanes[1, i]
        table[g, 2] += lanes[2, i]
        table[g, 4] += lanes[3, i]
        table[g, 5] += lanes[4, i]
        table[g, 6] += lanes[5, i]
        table[g, 7] += lanes[6, i]
        table[g, 8] += lanes[7, i]
        table[g, 9] += lanes[8, i]
        table[g, 11] += 1
        v = x[i]
        extremes[g, 12] = min(extremes[g, 12], v)
        extremes[g, 13] = max(extremes[g, 13], v)


@cached_jit(**PLAIN)
def add(x, codes, table, top, rest, rest_codes):
    """Add the values of one level to the rows of their groups; copy the others to `rest` and return their number."""
    low, high, k = POWER[top - SPAN - LEAST], POWER[top - LEAST], 52 - SLICE - LEAST
    m = np.empty(9)
    for j in range(3):
        m[j] = 1.5 * POWER[top - SLICE * j + k]
    for j in range(6):
        m[3 + j] = 1.5 * POWER[2 * top - SLICE * j + k]
    lanes, extremes = np.empty((9, BLOCK + 8), np.int64), table.view(np.float64)
    kept, places = np.empty(BLOCK), np.empty(BLOCK, codes.dtype)
    left = 0
    for start in range(0, x.size, BLOCK):
        block, place = x[start : start + BLOCK], codes[start : start + BLOCK]
        if _outside(block, low, high):
            n = 0
            for i in range(block.size):
                v = abs(block[i])
                if ((v >= low) & (v < high)) | (v == 0.0):
                    kept[n], places[n] = block[i], place[i]
                    n += 1
                else:
                    rest[left], rest_codes[left] = block[i], place[i]
                    left += 1
            block, place = kept[:n], places[:n]
        _slices(block, m, lanes)
        _scatter(block, place, lanes, table, extremes)
    return left


@cached_jit(**PLAIN)
def carry(table):
    """Bring all words but the highest of each sum into 0 .. 2**SLICE - 1."""
    for g in range(table.shape[0]):
        for j in (2, 1, 9, 8, 7, 6, 5):
            up = table[g, j] >> SLICE
            table[g, j] -= up << SLICE
            table[g, j - 1] += up
        for j, k in ((0, 3), (4, 10)):
            up = table[g, j] >> SLICE
            table[g, j] -= up << SLICE
            table[g, k] += up


@njit(**INNER)
def _add_weights(w, digits, scratch):
    """Add any finite weights to the digits of one sum."""
    part = scratch[0][: w.size]
    for k in range(-2, 3):
        if _inside(w, k, part):
            _drain(part, digits, k * STEP)


@cached_jit(**PLAIN)
def add_any(x, w, order, ends, slots, digits, counts, extremes):
    """Add any values, with weights unless w is empty, to the digits of their groups, which follow each other in order.

    Segment j is `order[ends[j] : ends[j + 1]]` and belongs to slot slots[j]. The weights of rows whose loss is not
    finite are added to the fourth sum.
    """
    scratch = np.empty((5, SEGMENT))
    gathered = np.empty((2, SEGMENT))
    for j in range(slots.size):
        s = slots[j]
        for start in range(ends[j], ends[j + 1], SEGMENT):
            size = min(SEGMENT, ends[j + 1] - start)
            values, weights = gathered[0][:size], gathered[1][: size if w.size else 0]
            for i in range(size):
                values[i] = x[order[start + i]]
            for i in range(weights.size):
                weights[i] = w[order[start + i]]
            n = _finite(values, weights, counts[s], scratch[3], scratch[4])
            if w.size and n < size:
                rest = 0
                for i in range(size):
                    if values[i] - values[i] != 0.0:
                        weights[rest] = weights[i]
                        rest += 1
                _add_weights(weights[:rest], digits[s, 3], scratch)
            block, weight = scratch[3][:n], scratch[4][:n]
            _, _, bottom, top = _scan(block.view(np.int64))
            counts[s, 0] += n
            extremes[s, 0] = min(extremes[s, 0], bottom)
            extremes[s, 1] = max(extremes[s, 1], top)
            if w.size:
                _add_weighted(block, weight, digits[s], scratch)
            else:
                _add_any(block, digits[s], scratch)
        _carry(digits[s])


@cached_jit(**PLAIN)
def look_up(values, base, table, out):
    """Write table[values[i] - base] for whole numbers within the table; return whether any of it is negative."""
    widest_vectors()
    least = np.int32(0)
    for i in range(values.size):
        code = table[np.int64(values[i]) - base]
        out[i] = code
        least = min(least, code)
    return least < 0
