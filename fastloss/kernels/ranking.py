"""Losses of pairs within groups: the items by falling relevance, then a loop over those above and below each.

Each row of the pairs, all that one item has, is summed by itself and for both sides, so that rows of a large group
can run in parallel and no sum is shared.
"""

from typing import Any

import numpy as np

from ..dispatch import EMPTY
from .blocks import kernel
from .cpu import call as at_address
from .cpu import widest_vectors
from .groups import largest_of, longest, scale
from .order import COUNTS, sorter

__all__ = ["LANES", "discounts", "gains", "push", "run"]

LARGE = 1024
"""Items of a group from which its rows run in parallel."""

BLOCK = 512
"""Pairs summed in the precision of the scores before they become one number in double precision."""

LANES = 16
"""Pairs that are computed together, those beyond a row's end for nothing; arrays of items are longer by as many."""

NOTHING = EMPTY[np.dtype(np.float64)]

# Names that the templates below find bound when they are specialized.
T: Any = None
formula: Any = None
unpack: Any = None
tied: Any = None
BITS: Any = None
weighted: Any = None


def push(x, y, z, s, gain, discount, lo, hi, t, lanes, p):
    """Value and slope of one item paired with those from lo to hi, below it."""
    widest_vectors()
    values, slopes = lanes[0], lanes[1]
    value, slope = 0.0, 0.0
    for start in range(lo, hi, BLOCK):
        for j in range(LANES):
            values[j], slopes[j] = T(0.0), T(0.0)
        stop = min(start + BLOCK, hi)
        for a in range(start, stop, LANES):
            b = a + LANES
            xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
            for j in range(LANES):
                out = formula(x - xs[j], t, y - ys[j], z - zs[j], *p)
                values[j] += out[0] if a + j < stop else T(0.0)
                slopes[j] += out[1] if a + j < stop else T(0.0)
        for j in range(LANES):
            value += np.float64(values[j])
            slope += np.float64(slopes[j])
    return value, slope


def pull(x, y, z, s, gain, discount, lo, hi, t, lanes, p):
    """Slope of one item paired with those from lo to hi, above it, each the first of its pair."""
    widest_vectors()
    slopes = lanes[1]
    slope = 0.0
    for start in range(lo, hi, BLOCK):
        for j in range(LANES):
            slopes[j] = T(0.0)
        stop = min(start + BLOCK, hi)
        for a in range(start, stop, LANES):
            b = a + LANES
            xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
            for j in range(LANES):
                out = formula(xs[j] - x, t, ys[j] - y, zs[j] - z, *p)
                slopes[j] += out[1] if a + j < stop else T(0.0)
        for j in range(LANES):
            slope -= np.float64(slopes[j])
    return slope


def arrange(scores, relevance, gains, table, sort, s, gain, discount, runs, order, keys, index, counts):
    """The items of one group by falling relevance, and where the equals of each begin and end; the number of pairs."""
    n = scores.size
    if weighted:
        # The discount of each item by the order of the scores, until it is known where the item goes.
        by_score = index[int(at_address(sort[0], (scores, 1, keys, index, counts)))]
        places = s[:n]
        for i in range(n):
            places[by_score[i]] = table[i]
    by_relevance = index[int(at_address(sort[0], (relevance, 1, keys, index, counts)))]
    for i in range(n):
        order[i] = by_relevance[i]
    if weighted:
        best = 0.0
        for i in range(n):
            best += gains[order[i]] * table[i]
            discount[i] = places[order[i]]
        for i in range(n):
            gain[i] = 0.0 if best == 0.0 else gains[order[i]] / best
    pairs = 0.0
    i = 0
    while i < n:
        r = relevance[order[i]]
        j = i + 1
        while j < n and relevance[order[j]] == r:
            j += 1
        for q in range(i, j):
            # Without a relevance nothing is known of any pair with it.
            s[q] = scores[order[q]] if r == r else T(r)
            runs[q, 0], runs[q, 1] = i, j
        pairs += np.float64(j - i) * np.float64(n - j)
        i = j
    for q in range(n, n + LANES):
        s[q], gain[q], discount[q] = T(0.0), T(0.0), T(0.0)
    return 0.5 * n * (n - 1.0) if tied else pairs


def one_row(i, n, s, gain, discount, runs, lanes, p, wanted):
    """All pairs of one item: the value of those with items after it and, where wanted, the slope of all."""
    x, y, z = s[i], gain[i], discount[i]
    first, last = runs[i, 0], runs[i, 1]
    value, slope = 0.0, 0.0
    # Those that differ, then those that tie.
    for part in range(2 if tied else 1):
        t = T(0.5) if part == 1 else T(1.0)
        lo, hi = (i + 1, last) if part == 1 else (last, n)
        more, steeper = push(x, y, z, s, gain, discount, lo, hi, t, lanes, p)
        value += more
        slope += steeper
        if wanted:
            lo, hi = (first, i) if part == 1 else (0, first)
            slope += pull(x, y, z, s, gain, discount, lo, hi, t, lanes, p)
    return value, slope


def rank_groups(lo, hi, sort, offsets, scores, relevance, gains, table, params, options, values, counted, grad):
    """The loss of each group but the large ones, and the slopes of its items."""
    p = unpack(params)
    limit, mean, wanted = options[0], options[1] != 0, grad.size > 0
    most = min(largest_of(lo, hi, offsets), limit)
    keys, index = np.empty((2, most), BITS), np.empty((2, most), np.int32)
    counts, order, runs = np.empty(COUNTS, np.int32), np.empty(most, np.int32), np.empty((most, 2), np.int32)
    lanes = np.empty((2, LANES), scores.dtype)
    items = np.empty((3, most + LANES), scores.dtype)
    s, gain, discount = items[0], items[1], items[2]
    for g in range(lo, hi):
        a, b = offsets[g], offsets[g + 1]
        n = b - a
        if n > limit:
            continue
        x, r, e, out = scores[a:b], relevance[a:b], gains[a:b], grad[a:b]
        pairs = arrange(x, r, e, table, sort, s, gain, discount, runs, order, keys, index, counts)
        share = 1.0 / pairs if mean and pairs > 0.0 else 1.0
        total = 0.0
        for i in range(n):
            value, slope = one_row(i, n, s, gain, discount, runs, lanes, p, wanted)
            total += value
            if wanted:
                out[order[i]] = T(slope * share)
        values[g] = total * share
        counted[g] = 1.0 if pairs > 0.0 else 0.0


def arrange_one(lo, hi, sort, scores, relevance, gains, table, s, gain, discount, runs, order, pairs):
    """The same order for one large group by itself."""
    n = scores.size
    keys, index, counts = np.empty((2, n), BITS), np.empty((2, n), np.int32), np.empty(COUNTS, np.int32)
    pairs[0] = arrange(scores, relevance, gains, table, sort, s, gain, discount, runs, order, keys, index, counts)


def rank_rows(lo, hi, s, gain, discount, runs, order, params, share, values, grad):
    """Some rows of the pairs of one large group."""
    p = unpack(params)
    wanted = grad.size > 0
    lanes = np.empty((2, LANES), s.dtype)
    for i in range(lo, hi):
        values[i], slope = one_row(i, order.size, s, gain, discount, runs, lanes, p, wanted)
        if wanted:
            grad[order[i]] = T(slope * share[0])


def gains(relevance: Any, meant: dict[str, Any]) -> Any:
    """What an item of each relevance gains."""
    wide = relevance.astype(np.float64)
    return np.exp2(wide) - 1.0 if meant["gain"] == "exponential" else wide


def discounts(most: int, k: int | None = None) -> Any:
    """The factor of each position of a list; 0 behind the first k."""
    table = 1.0 / np.log2(np.arange(2.0, most + 2.0))
    if k is not None:
        table[k:] = 0.0
    return table


def run(call: Any) -> None:
    """Evaluate every group."""
    record, meant = call.record, call.parameters
    scores, relevance, offsets = call["scores"], call["relevance"], call["offsets"]
    by_weight = record.name == "lambda_rank"
    most = longest(record.name, offsets)
    each, table = (gains(relevance, meant), discounts(most, meant["k"])) if by_weight else (NOTHING, NOTHING)
    sort, bits = sorter(call.name)[0], np.int32 if call.name == "float32" else np.int64
    flags = (("tied", record.name == "ranknet"), ("weighted", by_weight), ("BITS", bits))
    bound = (call.name, record.function, (largest_of, push, pull, arrange, one_row), flags)
    grad = next(iter(call.grads.values()), EMPTY[scores.dtype])
    numbers, mean = call.numbers(), meant["pairs"] == "mean"
    call.counted = np.empty(call.units)
    work = scores.size * (32.0 + 2.0 * min(most, LARGE))
    arrays, options = (scores, relevance, each, table), np.array((LARGE, mean))
    groups = kernel(rank_groups, record.name, *bound)
    groups(call.units, work, sort, offsets, *arrays, numbers, options, call.values, call.counted, grad)
    for g in np.flatnonzero(np.diff(offsets) > LARGE) if most > LARGE else ():
        part = slice(offsets[g], offsets[g + 1])
        own = (sort, scores[part], relevance[part], each[part], table)
        call.values[g], call.counted[g] = _large(record.name, bound, own, numbers, mean, grad[part])
    if call.grads:
        scale(grad, call.factors(), offsets)


def _large(
    name: str, bound: tuple[Any, ...], arrays: tuple[Any, ...], numbers: Any, mean: bool, grad: Any
) -> tuple[float, bool]:
    """The loss of one group, row by row in parallel, and whether it counts."""
    n, dtype = arrays[1].size, arrays[1].dtype
    s, gain, discount = np.empty((3, n + LANES), dtype)
    runs, order = np.empty((n, 2), np.int32), np.empty(n, np.int32)
    pairs, values = np.empty(1), np.empty(n)
    kernel(arrange_one, f"{name}_arranged", *bound)(1, 1, *arrays, s, gain, discount, runs, order, pairs)
    share = 1.0 / np.maximum(pairs, 1.0) if mean else np.ones(1)
    rows = kernel(rank_rows, f"{name}_rows", *bound)
    rows(n, 2.0 * n * n, s, gain, discount, runs, order, numbers, share, values, grad)
    return values.sum() * share[0], pairs[0] > 0.0
