"""Losses of soft counts: sums down the columns of a matrix, a formula of those of each, and back up.

A row may be as short as one number. So several make one stretch, of at least STRETCH, along which loops run.
"""

from typing import Any

import numpy as np

from .. import check
from ..dispatch import sum_in_order
from ..formulas.record import UNIT
from .blocks import kernel
from .cpu import widest_vectors

__all__ = ["run"]

STRETCH = 64

BLOCK = 1 << 15
"""Elements summed by themselves, for any number of threads."""

# Names that the templates below find bound when they are specialized.
T: Any = None
sigmoid: Any = None
formula: Any = None
unpack: Any = None
factor_of: Any = None
active: Any = None


def add_up(lo, hi, rows, x, t, partial):
    """Sums of |p - t| and of p + t down the columns, of some blocks."""
    widest_vectors()
    for block in range(lo, hi):
        wrong, total = partial[block, 0], partial[block, 1]
        for j in range(wrong.size):
            wrong[j], total[j] = 0.0, 0.0
        first, last = block * rows[0], min((block + 1) * rows[0], x.size)
        for a in range(first, last, wrong.size):
            b = min(a + wrong.size, last)
            xs, ts = x[a:b], t[a:b]
            for j in range(xs.size):
                p = sigmoid(xs[j]) if active else xs[j]
                # From scores p - t is formed without cancellation, so that it has all its digits near a target of 1.
                r = p * (T(1.0) - ts[j]) - ts[j] * sigmoid(-xs[j]) if active else xs[j] - ts[j]
                wrong[j] += np.float64(abs(r))
                total[j] += np.float64(p) + np.float64(ts[j])


def spread(lo, hi, stretch, x, t, by_wrong, by_total, grad):
    """The slope of every element of some stretches."""
    widest_vectors()
    for a in range(lo * stretch[0], min(hi * stretch[0], x.size), stretch[0]):
        b = min(a + stretch[0], x.size)
        xs, ts, out = x[a:b], t[a:b], grad[a:b]
        for j in range(xs.size):
            p = sigmoid(xs[j]) if active else xs[j]
            r = p * (T(1.0) - ts[j]) - ts[j] * sigmoid(-xs[j]) if active else xs[j] - ts[j]
            side = by_wrong[j] if r > T(0.0) else -by_wrong[j]
            slope = by_total[j] if r == T(0.0) else by_total[j] + side
            # A class that does not count has no slope, whatever it holds.
            out[j] = slope * (p * sigmoid(-xs[j])) if active and slope != T(0.0) else slope


def classes(lo, hi, sums, values, by_wrong, by_total):
    """The formula of each class."""
    for k in range(lo, hi):
        values[k], by_wrong[k], by_total[k] = formula(sums[0, k], sums[1, k])


def run(call: Any) -> None:
    """Evaluate every class."""
    record, c = call.record, call.units
    x, t = call["prediction"].reshape(-1), call["target"].reshape(-1)
    active = call.parameters["activation"] is not None
    if not active and sum_in_order(x, domain=UNIT)[1]:
        check.violation(record.name, "prediction", call["prediction"], UNIT)
    stretch = c * -(-STRETCH // c)
    rows = stretch * max(1, BLOCK // stretch)
    partial = np.empty((-(-x.size // rows), 2, stretch))
    flags = (("active", active),)
    kernel(add_up, "soft_counts", call.name, None, (), flags)(len(partial), 2 * x.size, np.array([rows]), x, t, partial)
    sums = partial.sum(axis=0).reshape(2, -1, c).sum(axis=1)
    by_wrong, by_total = np.empty((2, c))
    kernel(classes, record.name, "float64", record.function)(c, c, sums, call.values, by_wrong, by_total)
    call.counted = (sums[1] != 0.0).astype(np.float64)
    for grad in call.grads.values():
        factors = call.factors()
        with np.errstate(over="ignore", invalid="ignore"):
            slopes = np.where(factors != 0.0, np.stack((by_wrong, by_total)) * factors, 0.0).astype(x.dtype)
        sides = np.tile(slopes, stretch // c)
        kernel(spread, "soft_slopes", call.name, None, (), flags)(
            -(-x.size // stretch), 4 * x.size, np.array([stretch]), x, t, sides[0], sides[1], grad.reshape(-1)
        )
