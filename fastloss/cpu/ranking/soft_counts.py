"""Losses of soft counts: sums down the columns of a matrix, a formula of those of each, and back up.

A row may be as short as one number. So several make one stretch, of at least STRETCH, along which loops run.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...call import check
from ...spec.record import UNIT
from ..dispatch import sum_in_order
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import unbound
from ..runtime.units import factor_of, kernel

__all__ = ["run"]

STRETCH = 64

BLOCK = 1 << 15
"""Elements summed by themselves, for any number of threads."""


class Slots(NamedTuple):
    """Constants and functions that the templates of soft counts read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    sigmoid: Callable[..., Any]
    """Logistic function in that type."""
    formula: Callable[..., Any]
    """Formula of the loss."""
    active: bool
    """Whether scores pass through a sigmoid."""


use = unbound(Slots)


def add_up(lo, hi, lengths, x, t, partial):
    """Sums of |p - t| and of p + t down the columns, of some blocks."""
    widest_vectors()
    for block in range(lo, hi):
        wrong, total = partial[block, 0], partial[block, 1]
        for j in range(wrong.size):
            wrong[j], total[j] = 0.0, 0.0
        first, last = block * lengths[1], min((block + 1) * lengths[1], x.size)
        for a in range(first, last, wrong.size):
            b = min(a + wrong.size, last)
            xs, ts = x[a:b], t[a:b]
            for j in range(xs.size):
                p = use.sigmoid(xs[j]) if use.active else xs[j]
                # From scores p - t is formed without cancellation, so that it has all its digits near a target of 1.
                r = p * (use.T(1.0) - ts[j]) - ts[j] * use.sigmoid(-xs[j]) if use.active else xs[j] - ts[j]
                # In float64, column by column: a column may have as many rows as there are samples.
                wrong[j] += np.float64(abs(r))
                total[j] += np.float64(p) + np.float64(ts[j])


def classes(lo, hi, partial, values, counted, by_wrong, by_total):
    """The formula of each class."""
    c = by_wrong.size
    for k in range(lo, hi):
        wrong, total = 0.0, 0.0
        for block in range(partial.shape[0]):
            # A stretch holds several rows side by side: every c-th sum belongs to one class.
            for j in range(k, partial.shape[2], c):
                wrong += partial[block, 0, j]
                total += partial[block, 1, j]
        values[k], by_wrong[k], by_total[k] = use.formula(wrong, total)
        counted[k] = 0.0 if total == 0.0 else 1.0


def spread(lo, hi, lengths, x, t, by_wrong, by_total, factors, grad):
    """The slope of every element of some blocks."""
    T = use.T
    widest_vectors()
    c = by_wrong.size
    room = np.empty((2, lengths[0]), x.dtype)
    wrongs, totals = room[0], room[1]
    for j in range(lengths[0]):
        factor = factor_of(factors, j % c)
        # A class that does not count has no slope, whatever it holds.
        wrongs[j] = T(by_wrong[j % c] * factor if factor != 0.0 else 0.0)
        totals[j] = T(by_total[j % c] * factor if factor != 0.0 else 0.0)
    for a in range(lo * lengths[1], min(hi * lengths[1], x.size), lengths[0]):
        b = min(a + lengths[0], x.size)
        xs, ts, out = x[a:b], t[a:b], grad[a:b]
        for j in range(xs.size):
            p = use.sigmoid(xs[j]) if use.active else xs[j]
            r = p * (T(1.0) - ts[j]) - ts[j] * use.sigmoid(-xs[j]) if use.active else xs[j] - ts[j]
            # A select, as the sign changes from one element to the next.
            side = wrongs[j] if r > T(0.0) else -wrongs[j]
            slope = totals[j] if r == T(0.0) else totals[j] + side
            out[j] = slope * (p * use.sigmoid(-xs[j])) if use.active and slope != T(0.0) else slope


def run(call: Any) -> None:
    """Evaluate every class."""
    record, c = call.record, call.units
    x, t = call["prediction"].reshape(-1), call["target"].reshape(-1)
    active = call.parameters["activation"] is not None
    if not active and sum_in_order(x, domain=UNIT)[1]:
        check.violation("prediction", call.given["prediction"], UNIT, counts=call.kept(*call.shape))
    stretch = c * -(-STRETCH // c)
    rows = stretch * max(1, BLOCK // stretch)
    blocks = -(-x.size // rows)
    partial, slopes = np.empty((blocks, 2, stretch)), np.empty((2, c))
    lengths, flags = np.array((stretch, rows)), (("active", active),)
    kernel(add_up, "soft_counts", call.name, None, (), flags)(blocks, 2 * x.size, lengths, x, t, partial)
    call.counted = np.empty(c)
    formulas = kernel(classes, record.name, "float64", record.function, (), flags)
    formulas(c, partial.size, partial, call.values, call.counted, slopes[0], slopes[1])
    for grad in call.grads.values():
        spreads = kernel(spread, "soft_slopes", call.name, None, (), flags)
        out, factors = grad.reshape(-1), call.factors()
        spreads(blocks, 4 * x.size, lengths, x, t, slopes[0], slopes[1], factors, out)
