"""Squared hinges of all pairs of a positive and a negative, in the time of sorting.

Going down the scores, the sums over the negatives passed, of w, w (v - c) and w (v - c)^2 with v = s + margin and c
where we are, grow with every step by what is never negative. So nothing cancels, as it does where such sums are
formed about a fixed point; and a second walk, up, is the same with signs and sides changed.
"""

from typing import Any

import numpy as np

from ..math.order import COUNTS, sorter
from ..runtime.intrinsics import call as at_address
from ..runtime.units import kernel
from .groups import (
    halves,
    in_double,
    largest_of,
    longest,
    room_for,
    scale,
    settle,
)

__all__ = ["run"]

ROWS = 7
"""Rows of scratch: four of numbers, two of keys to sort, two of places, of 32 bits."""


def walk(x, w, side, low, margin, slopes):
    """Down x: the sum over the pairs of each of the lower side, and its slope; what the other side sums to."""
    n = x.size
    value, mass, first, second = 0.0, 0.0, 0.0, 0.0
    i, j = 0, 0
    above, at = False, 0
    while i < n:
        if side[i] != low:
            i += 1
            continue
        while j < n and side[j] == low:
            j += 1
        # Whether the next of the other side, raised by the margin, still lies above.
        taken = j < n and (x[j] - x[i]) + margin > 0.0
        q = j if taken else i
        if mass > 0.0:
            apart = x[at] - x[q]
            if above != taken:
                apart = apart + margin if above else apart - margin
            # Rounding alone makes a step up.
            step = max(apart, 0.0) if apart == apart else apart
            if step != 0.0:
                # The square of each distance grows by (2 d + step) step: three sums move all pairs at once.
                second += step * (2.0 * first + mass * step)
                first += mass * step
        if taken:
            mass += w[q]
            j += 1
        # An item of weight 0 adds nothing, and may hold anything.
        elif w[q] != 0.0:
            value += w[q] * second
            slopes[q] = -2.0 * w[q] * first
            i += 1
        else:
            slopes[q] = 0.0
            i += 1
        above, at = taken, q
    return value


def auc_groups(lo, hi, sort, offsets, scores, labels, weights, margin, given, values, counted, grad):
    """The mean of each group over its pairs, and the slope of each item."""
    most = largest_of(lo, hi, offsets)
    room = given if given.size > 0 else np.empty((ROWS, most))
    keys, index, counts = room[4:6].view(np.int64), halves(room[6]), np.empty(COUNTS, np.int32)
    sides = np.empty(most, np.uint8)
    for g in range(lo, hi):
        a = offsets[g]
        n = offsets[g + 1] - a
        x, w, slopes, others = room[0][:n], room[1][:n], room[2][:n], room[3][:n]
        side = sides[:n]
        order = index[int(at_address(sort[0], (scores[a : a + n], 1, keys, index, counts)))]
        good, bad = 0.0, 0.0
        for i in range(n):
            q = a + order[i]
            x[i], side[i] = scores[q], labels[q]
            w[i] = weights[q] if weights.size > 0 else 1.0
            good += w[i] if side[i] != 0 else 0.0
            bad += 0.0 if side[i] != 0 else w[i]
        # Pairs are weighed by the product of both weights: their mass needs no loop over pairs.
        mass = good * bad
        counted[g] = 0.0 if mass == 0.0 else 1.0
        share = 1.0 / mass if mass > 0.0 else 0.0
        # What is not a number comes first, and may be passed by no pair.
        lost = np.nan if (mass > 0.0 and x[0] != x[0]) or mass != mass else 0.0
        total = walk(x, w, side, 1, margin[0], slopes) if mass > 0.0 else 0.0
        values[g] = total * share + lost
        if grad.size == 0:
            continue
        if mass > 0.0:
            # The same upwards: the order of the negatives of the scores, with the other side below.
            for i in range(n // 2):
                j = n - 1 - i
                x[i], x[j] = x[j], x[i]
                w[i], w[j] = w[j], w[i]
                side[i], side[j] = side[j], side[i]
            for i in range(n):
                x[i] = -x[i]
            walk(x, w, side, 0, margin[0], others)
        for i in range(n):
            slope = 0.0
            if mass > 0.0:
                slope = slopes[i] if labels[a + order[i]] != 0 else -others[n - 1 - i]
            weighs = weights.size == 0 or weights[a + order[i]] != 0.0
            grad[a + order[i]] = slope * share + lost if weighs else 0.0


def run(call: Any) -> None:
    """Evaluate every group."""
    scores, weights, offsets = call["scores"].astype(np.float64, copy=False), call["sample_weight"], call["offsets"]
    longest(offsets)
    if weights is None:
        weights = np.empty(0)
    elif not weights.all():
        # A sample of weight 0 may hold anything.
        scores = np.where(weights != 0.0, scores, 0.0)
    grad, margin = in_double(call.grads), np.array([call.parameters["margin"]])
    call.counted = np.empty(call.units)
    arrays = (
        offsets,
        scores,
        call["labels"],
        weights,
        margin,
        room_for(ROWS, offsets),
        call.values,
        call.counted,
        grad,
    )
    # All in double precision: the sort sets the pace, and one kernel serves both.
    groups = kernel(auc_groups, "auc_pairwise", "float64", None, (halves, largest_of, walk))
    groups(call.units, 64.0 * scores.size, sorter("float64")[0], *arrays)
    if call.grads:
        scale(grad, call.factors(), offsets)
        settle(call.grads, grad)
