"""Exact sums of doubles: the kernels behind the statistics, so that any order and any split gives the same bits.

A sum is an integer in units of 2**-BIAS, held as DIGITS base-2**32 digits. A block of at most BLOCK values is cut into
slices on a common grid (adding and subtracting a large constant rounds a value to that grid); a slice has so few bits
that a block of them adds up without rounding, in any order, and the sum is deposited as an integer. The usual block
spans so few binary orders that two slices and what they leave hold everything; any other is cut until nothing is left.
"""

import numpy as np
from numba import njit

from ...cpu.runtime.intrinsics import call, widest_vectors
from ...cpu.runtime.specialize import INNER, cached_jit
from ..fixed_point import DIGITS
from .slices import (
    BLOCK,
    LEAST,
    LOW,
    NARROW_SPAN,
    POWER,
    SPAN,
    WIDE_SPAN,
    WIDTH,
    _add_narrow,
    _add_usual,
    _add_wide,
    _deposit,
    _grid,
    _minus,
    _tail,
)

ABSOLUTE = np.int64(0x7FFFFFFFFFFFFFFF)
INFINITE = np.int64(0x7FF0000000000000)
# Within 2**-250 .. 2**250 a product of three values keeps all its bits; others are scaled into it by a power of two.
WINDOW_LOW = np.int64((1023 - 250) << 52)
WINDOW_HIGH = np.int64((1023 + 250) << 52)
STEP = 500

PLAIN = {"error_model": "numpy", "nogil": True}
# Sums of slices are exact in any order. The helpers that round or subtract must not be reassociated: without a flag of
# their own they would inherit their caller's. With "nsz" beside "reassoc" on a sum, LLVM 22 cancels inside its
# unflagged operands too: s += v - v becomes s += 0 even for NaN.
SUMS = {**PLAIN, "fastmath": {"reassoc"}}


@njit(**INNER)
def _range(bits):
    """Return the smallest and largest bit pattern, which are those of the extreme values if none is negative."""
    widest_vectors()
    bottom = ABSOLUTE
    top = -ABSOLUTE
    for i in range(bits.size):
        b = bits[i]
        bottom = min(bottom, b)
        top = max(top, b)
    return bottom, top


@njit(**INNER)
def _scan(bits):
    """Return the largest and smallest nonzero magnitude and the smallest and largest value, as ordered integers."""
    bottom, top = _range(bits)
    if bottom > 0:
        return top, bottom - 1, bottom, top
    largest = np.int64(0)
    least = ABSOLUTE
    top = -ABSOLUTE
    bottom = ABSOLUTE
    for i in range(bits.size):
        b = bits[i]
        magnitude = b & ABSOLUTE
        ordered = b ^ ((b >> 63) & ABSOLUTE)
        largest = max(largest, magnitude)
        least = min(least, (magnitude - 1) & ABSOLUTE)
        top = max(top, ordered)
        bottom = min(bottom, ordered)
    return largest, least, bottom, top


@njit(**INNER)
def _carry(digits):
    """Bring every digit but the last into 0 .. 2**32 - 1."""
    for k in range(digits.shape[0]):
        carry = np.int64(0)
        for j in range(DIGITS - 1):
            v = digits[k, j] + carry
            digits[k, j] = v & LOW
            carry = v >> 32
        digits[k, DIGITS - 1] += carry


@njit(**INNER)
def _carry_all(digits):
    for j in range(digits.shape[0]):
        _carry(digits[j])


@njit(**INNER, fastmath={"reassoc"})
def _cut(x, m1, m2, m3):
    """Take three slices off x in place; return their sums, and a sum that is zero only if no remainder is left."""
    widest_vectors()
    a1 = a2 = a3 = rest = 0.0
    for i in range(x.size):
        v = x[i]
        q = _grid(v, m1)
        v = _minus(v, q)
        a1 += q
        q = _grid(v, m2)
        v = _minus(v, q)
        a2 += q
        q = _grid(v, m3)
        v = _minus(v, q)
        a3 += q
        x[i] = v
        rest += abs(v)
    return a1, a2, a3, rest


@njit(**INNER)
def _drain(x, digits, shift):
    """Add every value of x (overwritten) times 2**-shift to the digits."""
    bits = x.view(np.int64)
    rest = 1.0
    while rest != 0.0:
        largest = np.int64(0)
        for i in range(bits.size):
            largest = max(largest, bits[i] & ABSOLUTE)
        if largest == 0:
            return
        grid = max((largest >> 52) - 1022, LEAST + 3 * WIDTH) - WIDTH
        k = grid + 52 - LEAST
        a1, a2, a3, rest = _cut(x, 1.5 * POWER[k], 1.5 * POWER[k - WIDTH], 1.5 * POWER[k - 2 * WIDTH])
        _deposit(digits, a1, grid, shift)
        _deposit(digits, a2, grid - WIDTH, shift)
        _deposit(digits, a3, grid - 2 * WIDTH, shift)


@njit(**INNER)
def _inside(x, k, out):
    """Copy the values that 2**(k * STEP) scales into the window, scaled, else 0; return whether there are any."""
    bits = x.view(np.int64)
    low = WINDOW_LOW - ((k * STEP) << 52) if k < 2 else np.int64(1)
    high = WINDOW_HIGH - ((k * STEP) << 52) if k > -2 else INFINITE
    scale = POWER[k * STEP - LEAST]
    found = np.int64(0)
    for i in range(bits.size):
        magnitude = bits[i] & ABSOLUTE
        kept = low <= magnitude < high
        found += kept
        out[i] = x[i] * scale if kept else 0.0
    return found > 0


@njit(**INNER)
def _add_any(x, digits, scratch):
    """Add a block of any finite values and their squares."""
    part, work = scratch[0][: x.size], scratch[1][: x.size]
    for k in range(-2, 3):
        if not _inside(x, k, part):
            continue
        for term in range(3):
            for i in range(x.size):
                v = part[i]
                work[i] = v if term == 0 else v * v if term == 1 else _tail(v, v, v * v)
            _drain(work, digits[min(term, 1)], k * STEP if term == 0 else 2 * k * STEP)


@njit(**INNER)
def _add_products(w, x, digits, work, shift, square_shift):
    """Add the products w * x to the second and w * x * x to the third sum, without rounding."""
    for term in range(6):
        for i in range(w.size):
            p = w[i] * x[i]
            if term == 1 or term >= 4:
                p = _tail(w[i], x[i], p)
            if term >= 2:
                square = p * x[i]
                p = _tail(p, x[i], square) if term & 1 else square
            work[i] = p
        _drain(work, digits[1 if term < 2 else 2], shift if term < 2 else square_shift)


@njit(**INNER)
def _add_weighted(x, w, digits, scratch):
    """Add a block of any finite weights w, w * x and w * x * x."""
    n = x.size
    xs, ws, work = scratch[0][:n], scratch[1][:n], scratch[2][:n]
    for kw in range(-2, 3):
        if not _inside(w, kw, ws):
            continue
        work[:] = ws
        _drain(work, digits[0], kw * STEP)
        for k in range(-2, 3):
            if _inside(x, k, xs):
                _add_products(ws, xs, digits, work, (kw + k) * STEP, (kw + 2 * k) * STEP)


@njit(**INNER)
def _finite(x, w, counts, values, weights):
    """Count NaN and infinities of a block, compact its finite values (and weights), and return their number."""
    n = 0
    for i in range(x.size):
        v = x[i]
        if v - v == 0.0:
            values[n] = v
            if w.size:
                weights[n] = w[i]
            n += 1
        else:
            counts[1 if v != v else 2 if v > 0.0 else 3] += 1
    return n


@njit(**INNER)
def _add_block(block, found, digits, counts, extremes, scratch):
    """Add a block of finite values, of which the scan found this, to the statistics."""
    largest, least, bottom, top = found
    counts[0] += block.size
    extremes[0] = min(extremes[0], bottom)
    extremes[1] = max(extremes[1], top)
    if largest == 0:
        return
    span = (largest >> 52) - (least >> 52)
    if largest >= WINDOW_HIGH or least < WINDOW_LOW or span >= WIDE_SPAN:
        _add_any(block, digits, scratch)
    elif span < NARROW_SPAN:
        _add_narrow(block, largest, digits)
    elif span < SPAN:
        _add_usual(block, largest, digits)
    else:
        _add_wide(block, largest, digits)


@njit(**INNER)
def _add_checked(block, found, digits, counts, extremes, scratch):
    """Add a block of any values to the statistics."""
    if found[0] >= INFINITE:
        finite = scratch[2][: _finite(block, block[:0], counts, scratch[2], scratch[2])]
        if finite.size:
            _add_block(finite, _scan(finite.view(np.int64)), digits, counts, extremes, scratch)
        return
    _add_block(block, found, digits, counts, extremes, scratch)


@njit(**INNER)
def _tile(a, lo, size, padded):
    """Return a tile of rows; what one of fewer rows than BLOCK lacks is its last row, again and again."""
    if size == BLOCK:
        return a[lo : lo + BLOCK]
    for i in range(BLOCK):
        padded[i] = a[lo + min(i, size - 1)]
    return padded


@njit(**INNER)
def _evaluated(codes, ends, params, x, y, values, stats):
    """Write the values of all losses for a tile; return the number of violations."""
    none = stats[:0]
    wrong = 0.0
    begin = 0
    each = values.shape[0] // max(1, codes.size)
    for k in range(codes.size):
        out = values[k * each : (k + 1) * each].reshape(-1)
        own = params[begin : ends[k]]
        begin = ends[k]
        call(codes[k], ((x,), y, none, out, (none,), (none,), 1.0, own, False, stats))
        wrong += stats[1]
    return wrong


@cached_jit(**PLAIN)
def tally(codes, ends, params, z, t, which, digits, counts, extremes, kept, adds, strict):
    """Evaluate losses of z and t tile by tile, and add their values to the statistics.

    Kernel j of `codes` takes the parameters that end before ends[j]. All write the values of as many losses, which
    belong to the statistics `which`, one after another; without kernels, z holds the values of one loss. Values are
    written to the rows of `kept`, where it has any, and `adds` says whether they are added. Return the number of rows
    done: all, or those before the first tile that a loss refuses or, if `strict`, that has a loss that is not finite.
    """
    scratch = np.empty((3, BLOCK))
    values = np.empty((which.size, BLOCK))
    padded = np.empty((2, BLOCK))
    found = np.empty((which.size, 4), np.int64)
    stats = np.empty(2)
    for lo in range(0, z.size, BLOCK):
        size = min(BLOCK, z.size - lo)
        wrong = 0.0
        if codes.size:
            x, y = _tile(z, lo, size, padded[0]), _tile(t, lo, size, padded[1])
            wrong = _evaluated(codes, ends, params, x, y, values, stats)
        else:
            values[0, :size] = z[lo : lo + size]
        for k in range(which.size):
            largest, least, bottom, top = _scan(values[k][:size].view(np.int64))
            found[k, 0], found[k, 1], found[k, 2], found[k, 3] = largest, least, bottom, top
            if strict and largest >= INFINITE:
                wrong += 1.0
        if wrong != 0.0:
            _carry_all(digits)
            return lo
        for k in range(which.size):
            block, j = values[k][:size], which[k]
            if kept.shape[1]:
                kept[k, lo : lo + size] = block
            if adds:
                scanned = found[k, 0], found[k, 1], found[k, 2], found[k, 3]
                _add_checked(block, scanned, digits[j], counts[j], extremes[j], scratch)
    _carry_all(digits)
    return z.size


@njit(**INNER)
def _differences(a, b, out, rank):
    """Write a - b, and count the elements where it is below 0, 0, above 0."""
    widest_vectors()
    smaller = 0
    larger = 0
    for i in range(a.size):
        d = a[i] - b[i]
        out[i] = d
        smaller += d < 0.0
        larger += d > 0.0
    rank[0] += smaller
    rank[1] += a.size - smaller - larger
    rank[2] += larger


@cached_jit(**PLAIN)
def tally_pairs(codes, ends, params, preds, t, which, digits, counts, extremes, kept, ranks):
    """Evaluate losses of two predictions, and add both values and their difference to the statistics.

    Those of loss k begin at which[k]. Differences are written to the rows of `kept`, where it has any. Return the
    number of rows done: all, or those before the first tile with a loss that is refused or not finite.
    """
    scratch = np.empty((3, BLOCK))
    values = np.empty((3, which.size, BLOCK))
    padded = np.empty((2, BLOCK))
    found = np.empty((2, which.size, 4), np.int64)
    stats = np.empty(2)
    for lo in range(0, t.size, BLOCK):
        size = min(BLOCK, t.size - lo)
        y = _tile(t, lo, size, padded[1])
        wrong = 0.0
        for m in range(2):
            x = _tile(preds[m], lo, size, padded[0])
            wrong += _evaluated(codes, ends, params, x, y, values[m], stats)
            for k in range(which.size):
                largest, least, bottom, top = _scan(values[m, k][:size].view(np.int64))
                found[m, k, 0], found[m, k, 1], found[m, k, 2], found[m, k, 3] = largest, least, bottom, top
                wrong += largest >= INFINITE
        if wrong != 0.0:
            _carry_all(digits)
            return lo
        for k in range(which.size):
            difference, j = values[2, k][:size], which[k]
            _differences(values[0, k][:size], values[1, k][:size], difference, ranks[k])
            if kept.shape[1]:
                kept[k, lo : lo + size] = difference
            for m in range(2):
                scanned = found[m, k, 0], found[m, k, 1], found[m, k, 2], found[m, k, 3]
                _add_block(values[m, k][:size], scanned, digits[j + m], counts[j + m], extremes[j + m], scratch)
            j += 2
            _add_block(difference, _scan(difference.view(np.int64)), digits[j], counts[j], extremes[j], scratch)
    _carry_all(digits)
    return t.size


@cached_jit(**PLAIN)
def add_weighted(x, w, digits, counts, extremes):
    """Add weighted values to the digits (sum of w, of w * x, of w * x * x), counts and extremes."""
    scratch = np.empty((5, BLOCK))
    for start in range(0, x.size, BLOCK):
        n = _finite(x[start : start + BLOCK], w[start : start + BLOCK], counts, scratch[3], scratch[4])
        block, weight = scratch[3][:n], scratch[4][:n]
        _, _, bottom, top = _scan(block.view(np.int64))
        counts[0] += n
        extremes[0] = min(extremes[0], bottom)
        extremes[1] = max(extremes[1], top)
        _add_weighted(block, weight, digits, scratch)
    _carry(digits)


@cached_jit(**SUMS)
def widen(x, out):
    """Copy float32 or float64 values to float64; return whether all are finite."""
    rest = x.dtype.type(0.0)
    for i in range(x.size):
        v = x[i]
        out[i] = v
        rest += _minus(v, v)
    return rest == 0
