"""All pairs of a batch of embeddings: their distances, and the gradient from derivatives by those.

In float64, without the shortcut by products, which cancels for near neighbours. A triangle of tiles is shared out, so
that each pair is formed once and written to both its places by one thread.
"""

import math
from typing import Any

import numpy as np

from ..runtime.specialize import INNER, cached_jit, compiled
from ..runtime.units import Kernel, convert, factor_of, kernel
from .pairs import DISTANCE, LEAST, MOST, distance, power_of_two, steps

__all__ = ["comparing", "deliver", "gathered", "room", "scaled", "weighed"]


TILE = 32
"""Rows and columns of a tile: two sets of 32 embeddings of 128 numbers fill a first-level cache of 64 kB."""


def corner(u):
    """Row and column of the tile number u of a lower triangle."""
    i = int((math.sqrt(8.0 * u + 1.0) - 1.0) * 0.5)
    # Corrects the root, which is rounded.
    while i * (i + 1) // 2 > u:
        i -= 1
    while (i + 1) * (i + 2) // 2 <= u:
        i += 1
    return i, u - i * (i + 1) // 2


def two(x, a, b):
    """Squared distances of a row from two others."""
    s, t = 0.0, 0.0
    for j in range(x.size):
        # The difference itself: x.x + a.a - 2 x.a would cancel for near neighbours.
        s += (x[j] - a[j]) * (x[j] - a[j])
        t += (x[j] - b[j]) * (x[j] - b[j])
    return s, t


def rooted(row):
    """Take square roots, and count the sums that have lost digits."""
    lost = 0
    for j in range(row.size):
        # Counted beside the root: the loop has no branch, and looks again only where it must.
        lost += 0 if (row[j] > LEAST) & (row[j] < MOST) else 1
        row[j] = math.sqrt(row[j])
    return lost


def compare_tile(first, second, top, left, held):
    """Fill a tile with the distances of rows."""
    for i in range(first.shape[0]):
        own, end = held[i], i if top == left else second.shape[0]
        for j in range(0, end, 2):
            k = min(j + 1, end - 1)
            # Two at a time: 20% less than one by one; four have more sums than stay in registers.
            own[j], own[k] = two(first[i], second[j], second[k])
        if rooted(own[:end]) > 0:
            for j in range(end):
                root, scale = distance(first[i], second[j], 2.0)
                own[j] = abs(root / scale)  # NaN without a sign, which orders above infinity
        if top == left:
            own[i] = -1.0
            for j in range(i):
                held[j, i] = own[j]


def compare(lo, hi, x, out):
    """The distance of every pair of rows; -1 on the diagonal."""
    # Both halves are written row by row: single stores down a column fall on the same few lines of the cache.
    held = np.empty((TILE, TILE))
    for tile in range(lo, hi):
        row, column = corner(tile)
        top, left = row * TILE, column * TILE
        first, second = x[top : top + TILE], x[left : left + TILE]
        compare_tile(first, second, top, left, held)
        for i in range(first.shape[0]):
            out[top + i, left : left + second.shape[0]] = held[i, : second.shape[0]]
        if top != left:
            for j in range(second.shape[0]):
                out[left + j, top : top + first.shape[0]] = held[: first.shape[0], j]


def blend(own, between, held, i, mine, factors, left, slope):
    """One row of a tile, added to the column that mirrors it."""
    for j in range(own.size):
        other = factor_of(factors, left + j)
        # Selected, not multiplied: 0 times NaN would be NaN where a row does not count.
        s = (own[j] * mine if mine != 0.0 else 0.0) + (held[j, i] * other if other != 0.0 else 0.0)
        if slope != 0.0:
            s *= slope
        else:
            d = between[j]
            s = s / d if s != 0.0 and d != 0.0 else 0.0
        own[j] = s
        held[j, i] = s


def weigh(lo, hi, between, pull, factors, slope):
    """Make of derivatives, one row an anchor, what each difference of two rows, or each row, is multiplied by.

    `slope` is 0 where the derivatives are by distances, else what they are to be multiplied by.
    """
    n, held = pull.shape[0], np.empty((TILE, TILE))
    for tile in range(lo, hi):
        row, column = corner(tile)
        top, left = row * TILE, column * TILE
        bottom, right = min(n, top + TILE), min(n, left + TILE)
        for j in range(left, right):
            # Copies the mirrored tile first: rows of both tiles are overwritten below.
            held[j - left, : bottom - top] = pull[j, top:bottom]
        for i in range(top, bottom):
            end = min(right, max(i, left)) if top == left else right
            distances = between[i if between.shape[0] > 1 else 0, left:end]
            blend(pull[i, left:end], distances, held, i - top, factor_of(factors, i), factors, left, slope[0])
        for j in range(left, right):
            if top != left:
                pull[j, top:bottom] = held[j - left, : bottom - top]
            else:
                pull[j, j] = 0.0
                pull[j, j + 1 : bottom] = held[j - left, j + 1 - top : bottom - top]


def add(g, x, a, b, c, d, s, t, u, v):
    """Add multiples of the differences of a row from four others."""
    for j in range(x.size):
        e = x[j]
        g[j] += (s * (e - a[j]) + t * (e - b[j])) + (u * (e - c[j]) + v * (e - d[j]))


def gather(lo, hi, x, pull, grad):
    """The derivative by each row: what its differences from all others are multiplied by, summed."""
    n = x.shape[0]
    for i in range(lo, hi):
        g, weights, own = grad[i], pull[i], x[i]
        g[:] = 0.0
        for j in range(0, n, 4):
            s = weights[j]
            t = weights[j + 1] if j + 1 < n else 0.0
            u = weights[j + 2] if j + 2 < n else 0.0
            v = weights[j + 3] if j + 3 < n else 0.0
            if s == 0.0 and t == 0.0 and u == 0.0 and v == 0.0:
                continue
            # A row that does not count is not read: it may hold NaN.
            a = x[j] if s != 0.0 else own
            b = x[j + 1] if t != 0.0 else own
            c = x[j + 2] if u != 0.0 else own
            d = x[j + 3] if v != 0.0 else own
            add(g, own, a, b, c, d, s, t, u, v)


def _tiles(n: int) -> int:
    count = -(-n // TILE)
    return count * (count + 1) // 2


MAGNITUDE = np.int64(np.iinfo(np.int64).max)
"""All bits of a float64 but the sign."""

power_near = compiled(INNER)(power_of_two)


@cached_jit(error_model="numpy")
def bring_near(x, wide):
    """Write an array in float64, times a power of two that brings it near 1; return that, and whether all is finite."""
    for i in range(x.size):
        wide[i] = np.float64(x[i])
    # Keeps the search vectorised: bits order as magnitudes do, NaN above infinity, and whole numbers have no NaN that
    # bars it (0.1 ns an element; 1.5 with numbers).
    bits, top = wide.view(np.int64), np.int64(0)
    for i in range(bits.size):
        top = max(top, bits[i] & MAGNITUDE)
    largest = np.int64(top).view(np.float64)
    is_finite = largest - largest == 0.0
    scale = power_near(largest) if is_finite else 1.0
    for i in range(wide.size):
        wide[i] *= scale
    return scale, is_finite


def scaled(x: Any) -> tuple[Any, float, bool]:
    """Embeddings in float64, brought near 1 by a power of two; what brings them back; whether all are finite."""
    wide = np.empty(x.shape)
    scale, finite = bring_near(x.reshape(-1), wide.reshape(-1))
    return wide, 1.0 / scale, finite


COMPARE = (*DISTANCE, corner, two, rooted, compare_tile)


def comparing(n: int, d: int) -> tuple[tuple[Kernel, int], float]:
    """Return the stage that writes the distance of every pair of n rows of d numbers, -1 on the diagonal; its work."""
    made = kernel(compare, "compare", "float64", None, COMPARE, steps(True))
    return (made, _tiles(n)), 0.5 * n * n * (8 + 0.3 * d)


def weighed(between: Any, pull: Any, factors: Any, slope: float) -> None:
    """Make of `pull`, derivatives by distances or products, what differences of rows, or rows, are multiplied by."""
    n = len(pull)
    work = kernel(weigh, "weigh", "float64", None, (corner, blend))
    work(_tiles(n), 2 * n * n, between, pull, factors, np.full(1, slope))


def gathered(x: Any, pull: Any, out: Any) -> None:
    """The derivatives by the rows, from what their differences are multiplied by."""
    n, d = x.shape
    kernel(gather, "gather", "float64", None, (add,))(n, 0.3 * n * n * d, x, pull, out)


def room(call: Any) -> Any:
    """Return the float64 array in which the gradient is computed: the output itself, or a buffer."""
    grad = call.grads["embeddings"]
    return grad if grad.dtype == np.float64 else np.empty(grad.shape)


def deliver(call: Any, grad: Any) -> None:
    """Round a gradient into its output."""
    out = call.grads["embeddings"]
    if out is not grad:
        convert(grad.reshape(-1), out.reshape(-1))
