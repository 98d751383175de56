"""Slices of doubles on common grids, whose sums are exact: the inner loops of exact sums."""

import numpy as np
from numba import config, njit, types
from numba.extending import intrinsic

from ...cpu.runtime.intrinsics import widest_vectors
from ...cpu.runtime.specialize import INNER
from ...cpu.together import TILE
from ..fixed_point import BIAS

BLOCK = TILE  # values whose slices are added without rounding
WIDTH = 43  # bits in a slice: BLOCK of them stay below 2**53
LEAST = -1074
POWER = np.ldexp(1.0, np.arange(LEAST, 1024))  # POWER[k - LEAST] is 2**k
LOW = np.int64(0xFFFFFFFF)

NARROW_SPAN, SPAN, WIDE_SPAN = 17, 33, 76
"""Binary orders within a block that the kernels with two, three and five slices of a square can take.

Values below 2**T and from 2**L have squares on a grid of 2**(2 * L - 52), whose rounding errors lie on one of
2**(2 * L - 104) and below 2**(2 * T - 54); WIDTH bits go to each slice, and one more to the remainder.
"""

# The helpers that round or subtract must not be reassociated: without a flag of their own they would inherit their
# caller's.
INLINE = {**INNER, "forceinline": True, "fastmath": False}


@intrinsic
def _fused(typingctx, a, b, c):
    """Return a * b + c with a single rounding."""

    def codegen(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), codegen


def _dekker(a: float, b: float, product: float) -> float:
    """Return a * b - product without rounding, on a Python without a fused multiply-add."""
    c = a * 134217729.0
    ah = c - (c - a)
    d = b * 134217729.0
    bh = d - (d - b)
    al, bl = a - ah, b - bh
    return al * bl - (((product - ah * bh) - al * bh) - ah * bl)


if config.DISABLE_JIT:
    _tail = _dekker
else:

    @njit(**INLINE)
    def _tail(a, b, product):
        """Return a * b - product without rounding."""
        return _fused(a, b, -product)


@njit(**INLINE)
def _grid(x, magic):
    return (x + magic) - magic


@njit(**INLINE)
def _minus(a, b):
    return a - b


@njit(**INNER)
def _deposit(digits, total, grid, shift):
    """Add total, a multiple of 2**grid below 2**53 of them, times 2**-shift to the digits."""
    v = np.int64(total * POWER[-grid - LEAST])
    place = grid - shift + BIAS
    j = place >> 5
    r = place & 31
    low = np.uint64(v & LOW) << np.uint64(r)
    high = (v >> 32) << r
    digits[j] += np.int64(low & np.uint64(LOW))
    digits[j + 1] += np.int64(low >> np.uint64(32)) + (high & LOW)
    digits[j + 2] += high >> 32


@njit(**INNER, fastmath={"reassoc"})
def _cut_usual(x, m1, s1, s2, t1, t2):
    """Return sums of one slice of x, two of its rounded square, two of the square's rounding error, and remainders."""
    widest_vectors()
    a1 = a2 = b1 = b2 = b3 = c1 = c2 = c3 = 0.0
    for i in range(x.size):
        v = x[i]
        q = _grid(v, m1)
        a1 += q
        a2 += _minus(v, q)
        square = v * v
        q = _grid(square, s1)
        r = _minus(square, q)
        b1 += q
        q = _grid(r, s2)
        b2 += q
        b3 += _minus(r, q)
        tail = _tail(v, v, square)
        q = _grid(tail, t1)
        r = _minus(tail, q)
        c1 += q
        q = _grid(r, t2)
        c2 += q
        c3 += _minus(r, q)
    return a1, a2, b1, b2, b3, c1, c2, c3


@njit(**INNER)
def _add_usual(x, largest, digits):
    """Add a block of values within the window and SPAN binary orders, and their squares."""
    g = (largest >> 52) - 1022 - WIDTH
    s = 2 * (g + WIDTH) - WIDTH
    t = s - 53
    k = 52 - LEAST
    a1, a2, b1, b2, b3, c1, c2, c3 = _cut_usual(
        x,
        1.5 * POWER[g + k],
        1.5 * POWER[s + k],
        1.5 * POWER[s - WIDTH + k],
        1.5 * POWER[t + k],
        1.5 * POWER[t - WIDTH + k],
    )
    first, second = digits[0], digits[1]
    _deposit(first, a1, g, 0)
    _deposit(first, a2, g - WIDTH, 0)
    _deposit(second, b1, s, 0)
    _deposit(second, b2, s - WIDTH, 0)
    _deposit(second, b3, s - 2 * WIDTH, 0)
    _deposit(second, c1, t, 0)
    _deposit(second, c2, t - WIDTH, 0)
    _deposit(second, c3, t - 2 * WIDTH, 0)


@njit(**INNER, fastmath={"reassoc"})
def _cut_narrow(x, m1, s1, t1):
    """Return sums of one slice of x, of its rounded square and of the square's rounding error, each with remainders."""
    widest_vectors()
    a1 = a2 = b1 = b2 = c1 = c2 = 0.0
    for i in range(x.size):
        v = x[i]
        q = _grid(v, m1)
        a1 += q
        a2 += _minus(v, q)
        square = v * v
        q = _grid(square, s1)
        b1 += q
        b2 += _minus(square, q)
        tail = _tail(v, v, square)
        q = _grid(tail, t1)
        c1 += q
        c2 += _minus(tail, q)
    return a1, a2, b1, b2, c1, c2


@njit(**INNER)
def _add_narrow(x, largest, digits):
    """Add a block of values within the window and NARROW_SPAN binary orders, and their squares."""
    g = (largest >> 52) - 1022 - WIDTH
    s = 2 * (g + WIDTH) - WIDTH
    t = s - 53
    k = 52 - LEAST
    a1, a2, b1, b2, c1, c2 = _cut_narrow(x, 1.5 * POWER[g + k], 1.5 * POWER[s + k], 1.5 * POWER[t + k])
    first, second = digits[0], digits[1]
    # A remainder is half a step of its grid at the most: one bit below WIDTH is its own.
    _deposit(first, a1, g, 0)
    _deposit(first, a2, g - WIDTH - 1, 0)
    _deposit(second, b1, s, 0)
    _deposit(second, b2, s - WIDTH - 1, 0)
    _deposit(second, c1, t, 0)
    _deposit(second, c2, t - WIDTH - 1, 0)


@njit(**INNER, fastmath={"reassoc"})
def _cut_wide(x, m1, m2, s1, s2, s3, s4):
    """Return sums of two slices of x, four of its rounded square, and of the remainders."""
    widest_vectors()
    a1 = a2 = a3 = b1 = b2 = b3 = b4 = b5 = 0.0
    for i in range(x.size):
        v = x[i]
        q = _grid(v, m1)
        r = _minus(v, q)
        a1 += q
        q = _grid(r, m2)
        a2 += q
        a3 += _minus(r, q)
        square = v * v
        q = _grid(square, s1)
        r = _minus(square, q)
        b1 += q
        q = _grid(r, s2)
        r = _minus(r, q)
        b2 += q
        q = _grid(r, s3)
        r = _minus(r, q)
        b3 += q
        q = _grid(r, s4)
        b4 += q
        b5 += _minus(r, q)
    return a1, a2, a3, b1, b2, b3, b4, b5


@njit(**INNER, fastmath={"reassoc"})
def _cut_tails(x, t1, t2, t3, t4):
    """Return sums of four slices of the rounding errors of squares, and of the remainders."""
    widest_vectors()
    c1 = c2 = c3 = c4 = c5 = 0.0
    for i in range(x.size):
        v = x[i]
        r = _tail(v, v, v * v)
        q = _grid(r, t1)
        r = _minus(r, q)
        c1 += q
        q = _grid(r, t2)
        r = _minus(r, q)
        c2 += q
        q = _grid(r, t3)
        r = _minus(r, q)
        c3 += q
        q = _grid(r, t4)
        c4 += q
        c5 += _minus(r, q)
    return c1, c2, c3, c4, c5


@njit(**INNER)
def _add_wide(x, largest, digits):
    """Add a block of values within the window and WIDE_SPAN binary orders, and their squares."""
    g = (largest >> 52) - 1022 - WIDTH
    s = 2 * (g + WIDTH) - WIDTH
    t = s - 53
    k = 52 - LEAST
    w = WIDTH
    a1, a2, a3, b1, b2, b3, b4, b5 = _cut_wide(
        x,
        1.5 * POWER[g + k],
        1.5 * POWER[g - w + k],
        1.5 * POWER[s + k],
        1.5 * POWER[s - w + k],
        1.5 * POWER[s - 2 * w + k],
        1.5 * POWER[s - 3 * w + k],
    )
    c1, c2, c3, c4, c5 = _cut_tails(
        x, 1.5 * POWER[t + k], 1.5 * POWER[t - w + k], 1.5 * POWER[t - 2 * w + k], 1.5 * POWER[t - 3 * w + k]
    )
    first, second = digits[0], digits[1]
    _deposit(first, a1, g, 0)
    _deposit(first, a2, g - w, 0)
    _deposit(first, a3, g - 2 * w, 0)
    _deposit(second, b1, s, 0)
    _deposit(second, b2, s - w, 0)
    _deposit(second, b3, s - 2 * w, 0)
    _deposit(second, b4, s - 3 * w, 0)
    _deposit(second, b5, s - 4 * w, 0)
    _deposit(second, c1, t, 0)
    _deposit(second, c2, t - w, 0)
    _deposit(second, c3, t - 2 * w, 0)
    _deposit(second, c4, t - 3 * w, 0)
    _deposit(second, c5, t - 4 * w, 0)
