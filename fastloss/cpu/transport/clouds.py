"""Sums over all pairs of two clouds of points of Gaussians of their distance, and how each point is drawn by them.

Rows of distances are formed and used up a block at a time: nothing is as large as the pairs are many.
"""

from typing import Any

import numpy as np

from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import Typed, unbound
from ..runtime.units import kernel

__all__ = ["drawn", "squared_distances"]

BLOCK = 512
"""Points whose distances are held at a time, and summed in the precision of the call."""


use = unbound(Typed)


def distances(x, columns, lo, c):
    """Squared distances of a point to those from lo on, whose coordinates are rows of a matrix."""
    widest_vectors()
    for j in range(c.size):
        c[j] = use.T(0.0)
    for k in range(x.size):
        # Transposed points: coordinate k of neighbours lies side by side, and fills vectors in any dimension.
        ys = columns[k, lo : lo + c.size]
        place = x[k]
        for j in range(c.size):
            # The difference itself: x.x + y.y - 2 x.y would cancel for near points.
            d = ys[j] - place
            c[j] += d * d


def gaussians(c, u, v, rates, e, w):
    """Sum over the rates of exp(u + v - rate c) in e, and of the rates times it in w."""
    T = use.T
    widest_vectors()
    for j in range(c.size):
        e[j] = T(0.0)
        w[j] = T(0.0)
    for k in range(rates.size):
        rate = rates[k]
        single = T(rate)
        for j in range(c.size):
            # In float64, since potentials and distances may be large where their sum is not.
            g = use.exp(T((u + v[j]) - rate * np.float64(c[j])))
            e[j] += g
            w[j] += g * single


def drawn_by(x, columns, lo, w, out):
    """Add the weighted differences of some points to one."""
    widest_vectors()
    for k in range(x.size):
        ys = columns[k, lo : lo + w.size]
        place = x[k]
        total = use.T(0.0)
        for j in range(w.size):
            total += w[j] * (ys[j] - place)
        out[k] += np.float64(total)


def pairs(lo, hi, x, columns, u, v, rates, without, sums, out):
    """Per point of x the sum of Gaussians to all points, and in out of the weighted differences to them."""
    T = use.T
    m = columns.shape[1]
    room = np.empty((3, min(m, BLOCK)), T)
    for i in range(lo, hi):
        total = 0.0
        for first in range(0, m, BLOCK):
            size = min(BLOCK, m - first)
            c, e, w = room[0, :size], room[1, :size], room[2, :size]
            distances(x[i], columns, first, c)
            gaussians(c, u[i if u.size > 1 else 0], v[first : first + size], rates, e, w)
            if without[0] and first <= i < first + size:
                # A point beside itself, taken out of the sum afterwards: a test in the loop would cost every pair.
                e[i - first] = T(0.0)
            part = T(0.0)
            for j in range(size):
                part += e[j]
            # A block in the precision of the points, blocks in float64.
            total += np.float64(part)
            if out.size > 0:
                drawn_by(x[i], columns, first, w, out[i])
        sums[i] = total


def rows_of_distances(lo, hi, x, columns, out):
    """The matrix of squared distances."""
    for i in range(lo, hi):
        distances(x[i], columns, 0, out[i])


def drawn(name: str, x: Any, columns: Any, u: Any, v: Any, rates: Any, out: Any, *, without: bool = False) -> Any:
    """Per point x_i the sum over j and rates r of exp(u_i + v_j - r |x_i - y_j|^2).

    Where `out` is not empty, the sum of r exp(...) (y_j - x_i) is added to it. `columns` is y transposed; `without`
    leaves the pairs i = j out of the sums.
    """
    sums = np.zeros(len(x))
    d, m = columns.shape
    work = len(x) * m * (1 + 0.1 * d + 0.5 * rates.size)
    pairs_of = kernel(pairs, "pairs_of_points", name, None, (distances, gaussians, drawn_by), flushes=True)
    pairs_of(len(x), work, x, columns, u, v, rates, np.array([without], np.uint8), sums, out)
    return sums


def squared_distances(name: str, x: Any, columns: Any) -> Any:
    """The matrix of squared distances of two clouds, the second transposed."""
    out = np.empty((len(x), columns.shape[1]), x.dtype)
    rows_of = kernel(rows_of_distances, "squared_distances", name, None, (distances,))
    rows_of(len(x), out.size * (0.3 + 0.1 * x.shape[1]), x, columns, out)
    return out
