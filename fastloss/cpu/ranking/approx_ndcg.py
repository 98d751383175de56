"""ApproxNDCG: smooth ranks by a loop over pairs, the loss of them, and back by the same loop."""

from typing import Any

import numpy as np

from ..math.order import COUNTS, sorter
from ..math.scalar_math import log64
from ..runtime.intrinsics import call as at_address
from ..runtime.slots import ABSENT, Typed, unbound
from ..runtime.units import kernel
from .groups import largest_of, longest, scale
from .pairs import LANES, discounts, gains, push

__all__ = ["run"]


use = unbound(Typed)

LOG2 = np.log(2.0)


def loss_of_ranks(ranks, gains, best, slopes):
    """One minus the NDCG of some ranks, and its derivative by each."""
    total = 0.0
    for i in range(ranks.size):
        beyond = 1.0 + ranks[i]
        discount = LOG2 / log64(beyond)
        share = gains[i] / best * discount
        total += share
        slopes[i] = use.T(share * discount / (LOG2 * beyond))
    return 1.0 - total


def against_all(i, n, s, slopes, p):
    """Value and slope of one item beside all others."""
    T = use.T
    value, slope = 0.0, 0.0
    for part in range(2):
        a, b = (0, i) if part == 0 else (i + 1, n)
        more, steeper = push(s[i], slopes[i], T(0.0), s, slopes, slopes, a, b, T(1.0), p)
        value += more
        slope += steeper
    return value, slope


def approx_groups(lo, hi, sort, offsets, scores, gains, table, params, values, counted, grad):
    """One minus the smooth NDCG of each group, and the slope of each item."""
    T = use.T
    p = use.unpack(params)
    most = largest_of(lo, hi, offsets)
    keys, index, counts = np.empty((2, most), np.int64), np.empty((2, most), np.int32), np.empty(COUNTS, np.int32)
    s, slopes = np.empty(most + LANES, scores.dtype), np.zeros(most + LANES, scores.dtype)
    ranks = np.empty(most)
    for g in range(lo, hi):
        a, b = offsets[g], offsets[g + 1]
        n = b - a
        values[g] = 0.0
        counted[g] = 0.0
        x, e = scores[a:b], gains[a:b]
        order = index[int(at_address(sort[0], (e, 1, keys, index, counts)))]
        # A list whose items are alike has no order to learn.
        if n < 2 or e[order[0]] == e[order[n - 1]]:
            if grad.size > 0:
                grad[a:b] = T(0.0)
            continue
        best = 0.0
        for i in range(n):
            best += e[order[i]] * table[i]
            s[i] = x[i]
            slopes[i] = T(0.0)
        for i in range(n, n + LANES):
            s[i], slopes[i] = T(0.0), T(0.0)
        for i in range(n):
            # All pairs of one item at a time: a table of pairs would have the square of the list's length.
            ranks[i] = 1.0 + against_all(i, n, s, slopes, p)[0]
        values[g] = loss_of_ranks(ranks[:n], e, best, slopes)
        counted[g] = 1.0
        if grad.size > 0:
            for i in range(n):
                grad[a + i] = T(against_all(i, n, s, slopes, p)[1])


def run(call: Any) -> None:
    """Evaluate every group."""
    scores, offsets = call["scores"], call["offsets"]
    most = longest(offsets)
    each, table = gains(call["relevance"], call.parameters), discounts(most)
    grad = next(iter(call.grads.values()), np.empty(0, scores.dtype))
    call.counted = np.empty(call.units)
    helpers, flags = (largest_of, push, loss_of_ranks, against_all), (("tied", ABSENT), ("BITS", ABSENT))
    groups = kernel(approx_groups, "approx_ndcg", call.name, call.record.function, helpers, flags)
    work, sort = scores.size * (32.0 + 4.0 * most), sorter("float64")[0]
    groups(call.units, work, sort, offsets, scores, each, table, call.numbers(), call.values, call.counted, grad)
    if call.grads:
        scale(grad, call.factors(), offsets)
