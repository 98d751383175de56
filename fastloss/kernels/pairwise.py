"""All pairs of a batch of embeddings: their distances or cosines, and the gradient from derivatives by those.

In float64, without the shortcut by products, which cancels for near neighbours. A triangle of tiles is shared out, so
that each pair is formed once and written to both its places by one thread.
"""

import math
from typing import Any

import numpy as np

from ..arrays import rounded
from .blocks import factor_of, kernel
from .pairs import DISTANCE, LEAST, MOST, power_of_two, steps

__all__ = ["cosines_of", "deliver", "distances_of", "room", "scaled", "spread"]

# Names that the templates below find bound when they are specialized.
cosine: Any = None
distance: Any = None

TILE = 32
"""Rows and columns of a tile: two sets of 32 embeddings of 128 numbers fill a first-level cache of 64 kB."""


def corner(u):
    """Row and column of the tile number u of a lower triangle."""
    i = int((math.sqrt(8.0 * u + 1.0) - 1.0) * 0.5)
    while i * (i + 1) // 2 > u:
        i -= 1
    while (i + 1) * (i + 2) // 2 <= u:
        i += 1
    return i, u - i * (i + 1) // 2


def two(x, a, b):
    """Squared distances of a row from two others, or its products with them."""
    s, t = 0.0, 0.0
    for j in range(x.size):
        if cosine:
            s += x[j] * a[j]
            t += x[j] * b[j]
        else:
            s += (x[j] - a[j]) * (x[j] - a[j])
            t += (x[j] - b[j]) * (x[j] - b[j])
    return s, t


def rooted(row):
    """Take square roots, and count the sums that have lost digits."""
    lost = 0
    for j in range(row.size):
        lost += 0 if (row[j] > LEAST) & (row[j] < MOST) else 1
        row[j] = math.sqrt(row[j])
    return lost


def compare_tile(first, second, top, left, held):
    """Fill a tile with the distances, or products, of rows; on the diagonal of all, its lower triangle."""
    for i in range(first.shape[0]):
        own, end = held[i], i if top == left else second.shape[0]
        for j in range(0, end, 2):
            k = min(j + 1, end - 1)
            # Two at a time: 20% less than one by one; four have more sums than stay in registers.
            own[j], own[k] = two(first[i], second[j], second[k])
        if not cosine and rooted(own[:end]) > 0:
            for j in range(end):
                root, scale = distance(first[i], second[j], 2.0)
                own[j] = abs(root / scale)  # NaN without a sign, which orders above infinity
        if top == left:
            own[i] = -1.0
            for j in range(i):
                held[j, i] = own[j]


def compare(lo, hi, x, out):
    """The distance, or the product, of every pair of rows; -1 on the diagonal."""
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


def weigh(lo, hi, between, pull, factors, slope):
    """Make of derivatives by distances, one row an anchor, what each difference of two rows is multiplied by.

    `slope` is that of a squared distance, 0 for distances themselves.
    """
    for tile in range(lo, hi):
        row, column = corner(tile)
        for i in range(row * TILE, min(pull.shape[0], (row + 1) * TILE)):
            mine = factor_of(factors, i)
            for j in range(column * TILE, min(i, (column + 1) * TILE)):
                other = factor_of(factors, j)
                s = (pull[i, j] * mine if mine != 0.0 else 0.0) + (pull[j, i] * other if other != 0.0 else 0.0)
                if cosine:
                    s = -s
                elif slope[0] != 0.0:
                    s *= slope[0]
                else:
                    d = between[i, j]
                    s = s / d if s != 0.0 and d != 0.0 else 0.0
                pull[i, j] = s
                pull[j, i] = s
            if row == column:
                pull[i, i] = 0.0


def add(g, x, a, b, c, d, s, t, u, v):
    """Add multiples of the differences of a row from four others."""
    for j in range(x.size):
        e = x[j]
        g[j] += (s * (e - a[j]) + t * (e - b[j])) + (u * (e - c[j]) + v * (e - d[j]))


def gather(lo, hi, start, x, pull, grad):
    """The derivative by each row: what its differences from all others are multiplied by, summed.

    Differences are taken from `start`: the rows themselves, or one row of zeros.
    """
    n = x.shape[0]
    for i in range(lo, hi):
        g, weights = grad[i], pull[i]
        g[:] = 0.0
        origin = start[i if start.shape[0] > 1 else 0]
        for j in range(0, n, 4):
            s = weights[j]
            t = weights[j + 1] if j + 1 < n else 0.0
            u = weights[j + 2] if j + 2 < n else 0.0
            v = weights[j + 3] if j + 3 < n else 0.0
            if s == 0.0 and t == 0.0 and u == 0.0 and v == 0.0:
                continue
            # A row that does not count is not read: it may hold NaN.
            a = x[j] if s != 0.0 else origin
            b = x[j + 1] if t != 0.0 else origin
            c = x[j + 2] if u != 0.0 else origin
            d = x[j + 3] if v != 0.0 else origin
            add(g, origin, a, b, c, d, s, t, u, v)


def _tiles(n: int) -> int:
    count = -(-n // TILE)
    return count * (count + 1) // 2


def scaled(x: Any) -> tuple[Any, float, bool]:
    """Embeddings in float64, brought near 1 by a power of two; what brings them back; whether all are finite."""
    largest = float(np.abs(x).max())
    finite = math.isfinite(largest)
    scale = power_of_two(largest) if finite else 1.0
    return x.astype(np.float64) * scale, 1.0 / scale, finite


def _compared(x: Any, cosine: bool) -> Any:
    n, d = x.shape
    out = np.empty((n, n))
    flags = (*steps(True), ("cosine", cosine))
    found = kernel(compare, f"compare_{cosine}", "float64", None, (*DISTANCE, corner, two, rooted, compare_tile), flags)
    found(_tiles(n), 0.5 * n * n * (8 + 0.3 * d), x, out)
    return out


def distances_of(x: Any) -> Any:
    """The distance of every pair of rows, -1 on the diagonal."""
    return _compared(x, False)


def cosines_of(x: Any) -> Any:
    """The product of every pair of rows, -1 on the diagonal."""
    return _compared(x, True)


def spread(x: Any, between: Any, pull: Any, factors: Any, slope: float, start: Any, out: Any) -> None:
    """Turn derivatives by distances or products into those by the rows; `pull` is overwritten."""
    n, d = x.shape
    flags = (("cosine", start is not x),)
    name = f"weigh_{start is not x}"
    kernel(weigh, name, "float64", None, (corner,), flags)(_tiles(n), n * n, between, pull, factors, np.full(1, slope))
    kernel(gather, "gather", "float64", None, (add,))(n, 0.3 * n * n * d, start, x, pull, out)


def room(call: Any) -> Any:
    """Where the gradient is formed, in float64."""
    grad = call.grads["embeddings"]
    return grad if grad.dtype == np.float64 else np.empty(grad.shape)


def deliver(call: Any, grad: Any) -> None:
    """Round a gradient to where it is wanted."""
    out = call.grads["embeddings"]
    if out is not grad:
        out[...] = rounded(grad, out.dtype)
