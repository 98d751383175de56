"""Losses of pairs within groups: the items by falling relevance, then a loop over those above and below each.

Each row of the pairs, all that one item has, is summed by itself and for both sides, so that rows of a large group
can run in parallel and no sum is shared.
"""

from typing import Any

import numpy as np

from ..dispatch import EMPTY
from .blocks import kernel
from .cpu import widest_vectors
from .groups import COUNTS, largest_of, longest, scale, sort_items, sorting

__all__ = ["LANES", "PAIRS", "discounts", "gains", "run"]

LARGE = 1024
"""Items of a group from which its rows run in parallel."""

BLOCK = 512
"""Pairs summed in the precision of the scores before they become one number in double precision."""

LANES = 16
"""Pairs of a row's end that are computed together, some perhaps for nothing; arrays of items are longer by as many."""

NOTHING = EMPTY[np.dtype(np.float64)]

# Names that the templates below find bound when they are specialized.
T: Any = None
formula: Any = None
unpack: Any = None
tied: Any = None
weighted: Any = None


def push(x, y, z, s, gain, discount, lo, hi, t, p):
    """Value and slope of one item paired with those from lo to hi, below it."""
    widest_vectors()
    value, slope = 0.0, 0.0
    full = hi - (hi - lo) % (4 * LANES)
    for a in range(lo, full, BLOCK):
        b = min(a + BLOCK, full)
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        total, slopes = T(0.0), T(0.0)
        for j in range(xs.size):
            out = formula(x - xs[j], t, y - ys[j], z - zs[j], *p)
            total += out[0]
            slopes += out[1]
        value += np.float64(total)
        slope += np.float64(slopes)
    for a in range(full, hi, LANES):
        b = a + LANES
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        total, slopes = T(0.0), T(0.0)
        for j in range(LANES):
            out = formula(x - xs[j], t, y - ys[j], z - zs[j], *p)
            total += out[0] if a + j < hi else T(0.0)
            slopes += out[1] if a + j < hi else T(0.0)
        value += np.float64(total)
        slope += np.float64(slopes)
    return value, slope


def pull(x, y, z, s, gain, discount, lo, hi, t, p):
    """Slope of one item paired with those from lo to hi, above it, each the first of its pair."""
    widest_vectors()
    slope = 0.0
    full = hi - (hi - lo) % (4 * LANES)
    for a in range(lo, full, BLOCK):
        b = min(a + BLOCK, full)
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        slopes = T(0.0)
        for j in range(xs.size):
            slopes += formula(xs[j] - x, t, ys[j] - y, zs[j] - z, *p)[1]
        slope -= np.float64(slopes)
    for a in range(full, hi, LANES):
        b = a + LANES
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        slopes = T(0.0)
        for j in range(LANES):
            slopes += formula(xs[j] - x, t, ys[j] - y, zs[j] - z, *p)[1] if a + j < hi else T(0.0)
        slope -= np.float64(slopes)
    return slope


def arrange(scores, relevance, gains, table, s, gain, discount, runs, order, keys, other, other_keys, counts):
    """The items of one group by falling relevance, and where the equals of each begin and end; the number of pairs."""
    n = scores.size
    if weighted:
        # The discount of each item by the order of the scores, until it is known where the item goes.
        sort_items(scores, order, keys, other, other_keys, counts)
        places = s[:n]
        for i in range(n):
            places[order[i]] = table[i]
        sort_items(relevance, order, keys, other, other_keys, counts)
        best = 0.0
        for i in range(n):
            best += gains[order[i]] * table[i]
            discount[i] = places[order[i]]
        for i in range(n):
            gain[i] = 0.0 if best == 0.0 else gains[order[i]] / best
    else:
        sort_items(relevance, order, keys, other, other_keys, counts)
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


def one_row(i, n, s, gain, discount, runs, p, wanted):
    """All pairs of one item: the value of those with items after it and, where wanted, the slope of all."""
    first, last = runs[i, 0], runs[i, 1]
    x, y, z = s[i], gain[i], discount[i]
    value, slope = push(x, y, z, s, gain, discount, last, n, T(1.0), p)
    if tied:
        more, steeper = push(x, y, z, s, gain, discount, i + 1, last, T(0.5), p)
        value += more
        slope += steeper
    if wanted:
        slope += pull(x, y, z, s, gain, discount, 0, first, T(1.0), p)
        if tied:
            slope += pull(x, y, z, s, gain, discount, first, i, T(0.5), p)
    return value, slope


def rank_groups(lo, hi, offsets, scores, relevance, gains, table, params, options, values, counted, grad):
    """The loss of each group but the large ones, and the slopes of its items."""
    p = unpack(params)
    limit, mean, wanted = options[0], options[1] != 0, grad.size > 0
    most = min(largest_of(lo, hi, offsets), limit)
    order, keys = np.empty(most, np.int64), np.empty(most, np.int64)
    other, other_keys, counts = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(COUNTS, np.int64)
    runs = np.empty((most, 2), np.int64)
    items = np.empty((3, most + LANES), scores.dtype)
    s, gain, discount = items[0], items[1], items[2]
    for g in range(lo, hi):
        a, b = offsets[g], offsets[g + 1]
        n = b - a
        if n > limit:
            continue
        x, r, e, out = scores[a:b], relevance[a:b], gains[a:b], grad[a:b]
        pairs = arrange(x, r, e, table, s, gain, discount, runs, order, keys, other, other_keys, counts)
        share = 1.0 / pairs if mean and pairs > 0.0 else 1.0
        total = 0.0
        for i in range(n):
            value, slope = one_row(i, n, s, gain, discount, runs, p, wanted)
            total += value
            if wanted:
                out[order[i]] = T(slope * share)
        values[g] = total * share
        counted[g] = 1.0 if pairs > 0.0 else 0.0


def arrange_one(lo, hi, scores, relevance, gains, table, s, gain, discount, runs, order, keys, pairs):
    """The same order for one large group by itself."""
    other, other_keys, counts = np.empty_like(order), np.empty_like(order), np.empty(COUNTS, np.int64)
    pairs[0] = arrange(scores, relevance, gains, table, s, gain, discount, runs, order, keys, other, other_keys, counts)


def rank_rows(lo, hi, s, gain, discount, runs, order, params, share, values, grad):
    """Some rows of the pairs of one large group."""
    p = unpack(params)
    wanted = grad.size > 0
    for i in range(lo, hi):
        values[i], slope = one_row(i, order.size, s, gain, discount, runs, p, wanted)
        if wanted:
            grad[order[i]] = T(slope * share[0])


PAIRS = (push, pull)


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
    most = longest(offsets)
    each, table = (gains(relevance, meant), discounts(most, meant["k"])) if by_weight else (NOTHING, NOTHING)
    flags = (("tied", record.name == "ranknet"), ("weighted", by_weight), *sorting())
    bound = (call.name, record.function, (*PAIRS, arrange, one_row), flags)
    grad = next(iter(call.grads.values()), EMPTY[scores.dtype])
    numbers, mean = call.numbers(), meant["pairs"] == "mean"
    call.counted = np.empty(call.units)
    work = scores.size * (32.0 + 2.0 * min(most, LARGE))
    options = np.array((LARGE, mean))
    groups = kernel(rank_groups, record.name, *bound)
    groups(call.units, work, offsets, scores, relevance, each, table, numbers, options, call.values, call.counted, grad)
    for g in np.flatnonzero(np.diff(offsets) > LARGE) if most > LARGE else ():
        part = slice(offsets[g], offsets[g + 1])
        arrays = (scores[part], relevance[part], each[part], table)
        call.values[g], call.counted[g] = _large(record.name, bound, arrays, numbers, mean, grad[part])
    if call.grads:
        scale(grad, call.factors(), offsets)


def _large(
    name: str, bound: tuple[Any, ...], arrays: tuple[Any, ...], numbers: Any, mean: bool, grad: Any
) -> tuple[float, bool]:
    """The loss of one group, row by row in parallel, and whether it counts."""
    n, dtype = arrays[0].size, arrays[0].dtype
    s, gain, discount = np.empty((3, n + LANES), dtype)
    runs, order, keys = np.empty((n, 2), np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    pairs, values = np.empty(1), np.empty(n)
    kernel(arrange_one, f"{name}_arranged", *bound)(1, 1, *arrays, s, gain, discount, runs, order, keys, pairs)
    share = 1.0 / np.maximum(pairs, 1.0) if mean else np.ones(1)
    rows = kernel(rank_rows, f"{name}_rows", *bound)
    rows(n, 2.0 * n * n, s, gain, discount, runs, order, numbers, share, values, grad)
    return values.sum() * share[0], pairs[0] > 0.0
