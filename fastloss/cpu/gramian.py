"""Gramian of a few long vectors: all their inner products, in one read."""

from typing import Any

import numpy as np

from .runtime.intrinsics import widest_vectors
from .runtime.slots import Number, unbound
from .runtime.units import kernel

__all__ = ["gramian"]

use = unbound(Number)

BLOCK = 1 << 14
"""Elements per block, whose products are summed by themselves for any number of threads."""

TILE = 1024
"""Elements multiplied in the vectors' own precision before the sum moves to float64. Eight vectors of them take 32 KiB,
so that each is read from memory once and then from the first-level cache; half as many take 1.1 times as long."""


def products(lo, hi, partial, *vectors):
    """Inner products of all pairs of vectors over some blocks."""
    widest_vectors()
    for block in range(lo, hi):
        first = block * BLOCK
        end = min(first + BLOCK, vectors[0].size)
        sums = partial[block]
        for i in range(len(vectors)):
            for j in range(len(vectors)):
                sums[i, j] = 0.0
        for a in range(first, end, TILE):
            b = min(a + TILE, end)
            for i in range(0, len(vectors), 2):
                # Halves the loads, which set the pace: two vectors are multiplied by two others at once. The last of
                # an odd number stands for the one that is missing, and its products are not counted twice.
                i2 = min(i + 1, len(vectors) - 1)
                x, x2 = vectors[i][a:b], vectors[i2][a:b]
                for j in range(0, i + 1, 2):
                    j2 = min(j + 1, len(vectors) - 1)
                    y, y2 = vectors[j][a:b], vectors[j2][a:b]
                    s, s2, s3, s4 = use.T(0.0), use.T(0.0), use.T(0.0), use.T(0.0)
                    for k in range(x.size):
                        s += x[k] * y[k]
                        s2 += x2[k] * y[k]
                        s3 += x[k] * y2[k]
                        s4 += x2[k] * y2[k]
                    sums[i, j] += np.float64(s)
                    if i2 > i:
                        sums[i2, j] += np.float64(s2)
                    if j2 > j:
                        sums[i, j2] += np.float64(s3)
                    if i2 > i and j2 > j:
                        sums[i2, j2] += np.float64(s4)


def gramian(vectors: tuple[Any, ...]) -> Any:
    """Return the inner products (k, k) in float64 of k contiguous vectors of one length and dtype."""
    k, n = len(vectors), vectors[0].size
    partial = np.empty((-(-n // BLOCK), k, k))
    found = kernel(products, f"gramian_{k}", vectors[0].dtype.name)
    found(len(partial), n * k * (k + 1) // 4, partial, *vectors)
    sums = np.add.reduce(partial, axis=0)
    lower = np.tril(sums)
    return lower + np.tril(sums, -1).T
