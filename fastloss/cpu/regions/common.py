"""Sums over pixels of what probabilities and targets have in common, and of what either has alone."""

from typing import Any

import numpy as np

from ..runtime.slots import Typed, unbound
from ..runtime.staging import part

__all__ = ["LANES", "PRODUCT", "decode", "overlaps", "products", "squares"]

use: Any = unbound(Typed)

PRODUCT = 2
"""Value of the setting SQUARED for sums of products of p and t; 1 for sums of squares, 0 for min(p, t)."""

LANES = 256
"""Pixels summed in the arrays' own precision before the sums move to float64.

With 4096, the loss of equal pixels was 4e-7 off; with 512, 3e-8 or 7e-8, as the CPU's vectors are; with 256, 3e-8 on
both. The time of dice with its gradient is that of 512 (0.8 to 1.0 of it).
"""


def decode(w, t):
    """p, and p - t, exact where both are near 1."""
    T = use.T
    large = np.copysign(T(1.0), w) < T(0.0)
    small = abs(w)
    p = T(1.0) - small if large else small
    return p, ((T(1.0) - t) - small if large else small - t)


def overlaps(w, t, sums):
    """Sums of min(p, t), of what p has beyond t, of what it lacks, and of min(1 - p, 1 - t)."""
    T = use.T
    sums[0], sums[1], sums[2], sums[3] = 0.0, 0.0, 0.0, 0.0
    for lo in range(0, t.size, LANES):
        m = min(LANES, t.size - lo)
        ws, ts = part(w, lo, m), part(t, lo, m)
        # Keeps full vectors and the digits: LANES pixels are summed in the type of the arrays, the rest in float64.
        tp, fp, fn, tn = T(0.0), T(0.0), T(0.0), T(0.0)
        for j in range(m):
            p, d = decode(ws[j], ts[j])
            q = abs(ws[j]) if p > T(0.5) else T(1.0) - p
            within = d <= T(0.0)
            tp += p if within else ts[j]
            # In this order NaN comes through.
            fp += T(0.0) if within else d
            fn += T(0.0) if d >= T(0.0) else -d
            tn += T(1.0) - ts[j] if within else q
        sums[0] += tp
        sums[1] += fp
        sums[2] += fn
        sums[3] += tn


def squares(w, t, sums):
    """Sums of p t, and of half of (p - t)^2 for either side."""
    T = use.T
    sums[0], sums[1] = 0.0, 0.0
    for lo in range(0, t.size, LANES):
        m = min(LANES, t.size - lo)
        ws, ts = part(w, lo, m), part(t, lo, m)
        tp, half = T(0.0), T(0.0)
        for j in range(m):
            p, d = decode(ws[j], ts[j])
            # Half of the squared difference for either side: both move together, so one sum stands for two.
            tp += p * ts[j]
            half += T(0.5) * d * d
        sums[0] += tp
        sums[1] += half
    sums[2] = sums[1]


def products(w, t, sums):
    """Sums of p t, p (1 - t), (1 - p) t and (1 - p) (1 - t)."""
    T = use.T
    sums[0], sums[1], sums[2], sums[3] = 0.0, 0.0, 0.0, 0.0
    for lo in range(0, t.size, LANES):
        m = min(LANES, t.size - lo)
        ws, ts = part(w, lo, m), part(t, lo, m)
        tp, fp, fn, tn = T(0.0), T(0.0), T(0.0), T(0.0)
        for j in range(m):
            p, _ = decode(ws[j], ts[j])
            q = abs(ws[j]) if p > T(0.5) else T(1.0) - p
            rest = T(1.0) - ts[j]
            tp += p * ts[j]
            fp += p * rest
            fn += q * ts[j]
            tn += q * rest
        sums[0] += tp
        sums[1] += fp
        sums[2] += fn
        sums[3] += tn
