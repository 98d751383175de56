"""Losses of pairs within groups: the items by falling relevance, then a loop over those above and below each.

Each row of the pairs, all that one item has, is summed by itself and for both sides, so that rows of a large group
can run in parallel and no sum is shared.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...call.arrays import I64, constants
from ..dispatch import EMPTY, PARALLEL_FROM
from ..math.order import COUNTS, addressed, bits_of, sorter
from ..runtime.intrinsics import call as at_address
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import ABSENT, unbound
from ..runtime.units import kernel
from .groups import largest_of, longest, scale

__all__ = ["LANES", "discounts", "gains", "prepare", "push", "run"]

LARGE = 1024
"""Items of a group from which its rows run in parallel."""

BLOCK = 512
"""Pairs summed in the precision of the scores before they become one number in double precision."""

LANES = 16
"""Pairs that are computed together, those beyond a row's end for nothing; arrays of items are longer by as many."""

NOTHING = EMPTY[np.dtype(np.float64)]


class Slots(NamedTuple):
    """Constants and functions that the templates of ranking losses read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    formula: Callable[..., Any]
    """Formula of the loss."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of an array."""
    tied: bool
    """Whether pairs of equal relevance count too."""
    BITS: type
    """Signed integer type of as many bits as T has."""


use = unbound(Slots)


def push(x, y, z, s, gain, discount, lo, hi, t, p):
    """Value and slope of one item paired with those from lo to hi, below it."""
    T = use.T
    widest_vectors()
    value, slope = 0.0, 0.0
    full = hi - (hi - lo) % (4 * LANES)
    for a in range(lo, full, BLOCK):
        b = min(a + BLOCK, full)
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        # Keeps full vectors and the digits: a block is summed in the type of the arrays, blocks in float64.
        total, slopes = T(0.0), T(0.0)
        for j in range(xs.size):
            # From two items as they are needed: a table of all pairs has the square of the list's length.
            out = use.formula(x - xs[j], t, y - ys[j], z - zs[j], *p)
            total += out[0]
            slopes += out[1]
        value += np.float64(total)
        slope += np.float64(slopes)
    # Keeps the rest vectorised: loops of constant length, in which items beyond hi are selected out.
    for a in range(full, hi, LANES):
        b = a + LANES
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        total, slopes = T(0.0), T(0.0)
        for j in range(LANES):
            out = use.formula(x - xs[j], t, y - ys[j], z - zs[j], *p)
            total += out[0] if a + j < hi else T(0.0)
            slopes += out[1] if a + j < hi else T(0.0)
        value += np.float64(total)
        slope += np.float64(slopes)
    return value, slope


def pull(x, y, z, s, gain, discount, lo, hi, t, p):
    """Slope of one item paired with those from lo to hi, above it, each the first of its pair."""
    T = use.T
    widest_vectors()
    slope = 0.0
    full = hi - (hi - lo) % (4 * LANES)
    for a in range(lo, full, BLOCK):
        b = min(a + BLOCK, full)
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        slopes = T(0.0)
        for j in range(xs.size):
            slopes += use.formula(xs[j] - x, t, ys[j] - y, zs[j] - z, *p)[1]
        # The item is the second of these pairs: the same derivative with the sign changed.
        slope -= np.float64(slopes)
    # Keeps the rest vectorised: loops of constant length, in which items beyond hi are selected out.
    for a in range(full, hi, LANES):
        b = a + LANES
        xs, ys, zs = s[a:b], gain[a:b], discount[a:b]
        slopes = T(0.0)
        for j in range(LANES):
            slopes += use.formula(xs[j] - x, t, ys[j] - y, zs[j] - z, *p)[1] if a + j < hi else T(0.0)
        slope -= np.float64(slopes)
    return slope


def one_row(i, n, wanted, params, s, gain, discount, runs, slopes):
    """All pairs of one item: the value of those with items after it and, where wanted, the slope of all."""
    T = use.T
    p = use.unpack(params)
    x, y, z = s[i], gain[i], discount[i]
    first, last = runs[i, 0], runs[i, 1]
    value, slope = 0.0, 0.0
    # Those that differ, then those that tie.
    for part in range(2 if use.tied else 1):
        # A tie is half of a win for either side.
        t = T(0.5) if part == 1 else T(1.0)
        # Ranges, not tests of relevance: items lie by relevance, so equals lie side by side.
        lo, hi = (i + 1, last) if part == 1 else (last, n)
        more, steeper = push(x, y, z, s, gain, discount, lo, hi, t, p)
        value += more
        slope += steeper
        if wanted:
            lo, hi = (first, i) if part == 1 else (0, first)
            slope += pull(x, y, z, s, gain, discount, lo, hi, t, p)
    slopes[0] = slope
    return value


@cache
def row_of(name: str, function: Any, dtype: str, tied: bool) -> tuple[Any, Any]:
    """The address of the loop over one row of pairs, and the object that keeps the code alive.

    All that a loss has of its own: what finds the rows is compiled once for all, and calls it by address.
    """
    flags = (("tied", tied), ("BITS", ABSENT))
    row = kernel(one_row, name, dtype, function, (push, pull), flags)
    real, double, short = getattr(types, dtype), types.float64, types.int32
    line, numbers = types.Array(real, 1, "C"), types.Array(double, 1, "C")
    signature = double(
        *(types.intp, types.intp, types.intp, numbers, line, line, line, types.Array(short, 2, "C"), numbers)
    )
    return addressed(one_row, f"{name}_row_{dtype}", signature, row.use, **row.functions)


def arrange(scores, relevance, gains, table, sort, items, runs, order, sorting):
    """The items of one group by falling relevance, and where the equals of each begin and end; pairs that differ.

    `items` receives the scores, gains and discounts in that order; `sorting` is memory: keys, index, counts.
    """
    T = use.T
    s, gain, discount = items
    keys, index, counts = sorting
    n = scores.size
    # Losses without weights of pairs spare the sort by score.
    by_weight = table.size > 0
    if by_weight:
        # The discount of each item by the order of the scores, until it is known where the item goes.
        by_score = index[int(at_address(sort[0], (scores, 1, keys, index, counts)))]
        for i in range(n):
            s[by_score[i]] = table[i]
    by_relevance = index[int(at_address(sort[0], (relevance, 1, keys, index, counts)))]
    best = 0.0
    for i in range(n):
        order[i] = by_relevance[i]
        discount[i] = s[order[i]] if by_weight else T(0.0)
        best += gains[order[i]] * table[i] if by_weight else 0.0
    for i in range(n):
        # Over the ideal sum here, once an item and not once a pair.
        gain[i] = gains[order[i]] / best if best != 0.0 else 0.0
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
        # In float64: the pairs of a list of 100,000 items are more than 32 bits hold.
        pairs += np.float64(j - i) * np.float64(n - j)
        i = j
    for q in range(n, n + LANES):
        s[q], gain[q], discount[q] = T(0.0), T(0.0), T(0.0)
    return pairs


class Groups(NamedTuple):
    """Arrays of a call: g groups that hold n items together."""

    row: Any
    """Address of the loop over one row of pairs, (1,) int64."""
    sort: Any
    """Address of the sorter, (1,) int64."""
    offsets: Any
    """Where each group begins, and the end of the last, (g + 1,) int64."""
    scores: Any
    """(n,) in the dtype of the call."""
    relevance: Any
    """(n,) in the dtype of the call."""
    gains: Any
    """Gain of each item, (n,) float64; empty for losses that weigh no pair."""
    table: Any
    """Discount of each position, (items of the largest group,) float64; empty for losses that weigh no pair."""
    params: Any
    """Parameters of the formula, float64."""
    options: Any
    """Items above which a group is left out, whether a group's pairs are averaged, whether ties count, (3,) int64."""
    values: Any
    """Loss of each group, (g,) float64, written."""
    counted: Any
    """1 for groups that have pairs, else 0, (g,) float64, written."""
    grad: Any
    """Derivative by each score, (n,), written; empty where it is not wanted."""


def rank_groups(lo, hi, a: Groups):
    """The loss of each group but the large ones, and the slopes of its items."""
    limit, mean, ties, wanted = a.options[0], a.options[1] != 0, a.options[2] != 0, 1 if a.grad.size > 0 else 0
    # Scratch for the longest group of the chunk, allocated once for all of them.
    most = min(largest_of(lo, hi, a.offsets), limit)
    keys, index = np.empty((2, most), use.BITS), np.empty((2, most), np.int32)
    counts, order, runs = np.empty(COUNTS, np.int32), np.empty(most, np.int32), np.empty((most, 2), np.int32)
    slopes = np.empty(1)
    items, sorting = np.empty((3, most + LANES), a.scores.dtype), (keys, index, counts)
    s, gain, discount = items[0], items[1], items[2]
    for g in range(lo, hi):
        start, stop = a.offsets[g], a.offsets[g + 1]
        n = stop - start
        # Large groups are run row by row, in parallel within the group.
        if n > limit:
            continue
        x, r, e, out = a.scores[start:stop], a.relevance[start:stop], a.gains[start:stop], a.grad[start:stop]
        pairs = arrange(x, r, e, a.table, a.sort, (s, gain, discount), runs, order, sorting)
        pairs = 0.5 * n * (n - 1.0) if ties else pairs
        share = 1.0 / pairs if mean and pairs > 0.0 else 1.0
        total = 0.0
        for i in range(n):
            total += at_address(a.row[0], (i, n, wanted, a.params, s, gain, discount, runs, slopes))
            if wanted != 0:
                out[order[i]] = use.T(slopes[0] * share)
        a.values[g] = total * share
        a.counted[g] = 1.0 if pairs > 0.0 else 0.0


def arrange_one(lo, hi, sort, scores, relevance, gains, table, items, runs, order, pairs):
    """Arrange the items of one large group, whose rows then run in parallel."""
    n = scores.size
    sorting = (np.empty((2, n), use.BITS), np.empty((2, n), np.int32), np.empty(COUNTS, np.int32))
    parts = (items[0], items[1], items[2])
    pairs[0] = arrange(scores, relevance, gains, table, sort, parts, runs, order, sorting)


def rank_rows(lo, hi, row, items, runs, order, params, share, values, grad):
    """Some rows of the pairs of one large group."""
    s, gain, discount = items[0], items[1], items[2]
    wanted = 1 if grad.size > 0 else 0
    slopes = np.empty(1)
    for i in range(lo, hi):
        values[i] = at_address(row[0], (i, order.size, wanted, params, s, gain, discount, runs, slopes))
        if wanted != 0:
            grad[order[i]] = use.T(slopes[0] * share[0])


SHORT = 1 << 10
"""Items of a list up to which its discounts are kept for calls to come."""


def gains(relevance: Any, meant: dict[str, Any]) -> Any:
    """Return the gain of each item by its relevance."""
    # In float64: 2**r - 1 overflows float32 from r = 128 on.
    wide = relevance.astype(np.float64)
    if meant["gain"] != "exponential":
        return wide
    with np.errstate(over="ignore"):
        return np.exp2(wide) - 1.0


def discounts(most: int, k: int | None = None) -> Any:
    """The factor of each position of a list; 0 behind the first k."""
    table = 1.0 / np.log2(np.arange(2.0, most + 2.0))
    if k is not None:
        table[k:] = 0.0
    return table


@lru_cache(maxsize=64)
def _weights(most: int, k: int | None) -> Any:
    """Return the discounts of short lists, which kernels only read."""
    return discounts(most, k)


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates every group of calls like one."""
    record, meant, size = call.record, call.parameters, call["scores"].size
    by_weight, mean, ties = record.name == "lambda_rank", meant["pairs"] == "mean", record.name == "ranknet"
    row, sort = row_of(record.name, record.function, call.name, ties)[0], sorter(call.name)[0]
    options, nothing = constants(I64, LARGE, mean, ties), EMPTY[call.dtype]
    groups, which = kernel(*_which(rank_groups, call.name)), (row, sort)
    # In small calls the longest group does not matter to the work.
    most_work = size * (32.0 + 2.0 * min(size, LARGE))
    few = groups.bound(call.units, most_work) if most_work < PARALLEL_FROM else None

    def evaluate(call: Any) -> None:
        scores, relevance, offsets = call.arrays["scores"], call.arrays["relevance"], call.arrays["offsets"]
        most = longest(offsets)
        each = table = NOTHING
        if by_weight:
            each, table = gains(relevance, meant), (_weights if most <= SHORT else discounts)(most, meant["k"])
        grad, numbers = call.grads.get("scores", nothing), call.numbers()
        call.counted = np.empty(call.units)
        arrays = (*which, offsets, scores, relevance, each, table, numbers, options, call.values, call.counted, grad)
        if few is not None:
            few(*arrays)
        else:
            groups(call.units, size * (32.0 + 2.0 * min(most, LARGE)), *arrays)
        for g in np.flatnonzero(np.diff(offsets) > LARGE) if most > LARGE else ():
            part = slice(offsets[g], offsets[g + 1])
            own = (scores[part], relevance[part], each[part], table)
            call.values[g], call.counted[g] = _large(row, sort, own, numbers, options, grad[part])
        if call.grads:
            scale(grad, call.factors(), offsets)

    return evaluate


def run(call: Any) -> None:
    """Evaluate every group."""
    prepare(call)(call)


@cache
def _which(template: Any, dtype: str) -> tuple[Any, ...]:
    """Return the arguments of the kernel of a template."""
    flags = (("tied", ABSENT), ("BITS", bits_of(dtype)))
    return template, template.__name__, dtype, None, (largest_of, arrange), flags


def _large(row: Any, sort: Any, arrays: tuple[Any, ...], numbers: Any, options: Any, grad: Any) -> tuple[float, bool]:
    """The loss of one group, row by row in parallel, and whether it counts."""
    n, dtype = arrays[0].size, arrays[0].dtype
    items = np.empty((3, n + LANES), dtype)
    runs, order = np.empty((n, 2), np.int32), np.empty(n, np.int32)
    pairs, values = np.empty(1), np.empty(n)
    kernel(*_which(arrange_one, dtype.name))(1, 1, sort, *arrays, items, runs, order, pairs)
    if options[2]:
        pairs[0] = 0.5 * n * (n - 1.0)
    share = 1.0 / np.maximum(pairs, 1.0) if options[1] else np.ones(1)
    rows = kernel(*_which(rank_rows, dtype.name))
    rows(n, 2.0 * n * n, row, items, runs, order, numbers, share, values, grad)
    return values.sum() * share[0], pairs[0] > 0.0
