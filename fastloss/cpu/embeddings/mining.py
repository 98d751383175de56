"""Triplets of a batch of labelled embeddings, mined from the matrix of distances.

Nothing larger than that matrix is formed. Active triplets are counted and summed by the rank of each negative among
the sorted positives, in n^2 log n steps for a batch of n, not n^3.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..runtime.slots import Formula, unbound
from ..runtime.units import bound_stages, factor_of, kernel
from .pairwise import comparing, deliver, gathered, room, scaled, weighed

__all__ = ["prepare", "run"]

BLOCK = 64
NONE = 0x7FF8000000000000
"""Bits above those of infinity, which no distance has."""

use = unbound(Formula)


def level(d, back, squared):
    """A distance as the loss takes it, from a scaled one."""
    # The power of two by which embeddings were brought near 1 rounds nothing.
    d *= back
    return d * d if squared else d


# Distances are not negative, so that their bits have their order as integers. Unlike floats, these vectorise here. NaN
# is above infinity, and -1.0, on the diagonal, below all.
def extremes(bits, labels, mine):
    """The largest distance of an equal label, and the smallest of another."""
    far, near = -1, NONE
    for j in range(bits.size):
        # Selected below, not branched on: labels come in any order, and the loop stays in vectors.
        same = labels[j] == mine
        # As integers: a maximum of floats does not vectorise, as NaN has no order.
        far = max(far, bits[j] if same else -1)
        near = min(near, NONE if same else bits[j])
    return far, near


def nan_in(row):
    """Whether a distance is NaN."""
    count = 0
    for d in row:
        count += 1 if d != d else 0
    return count > 0


def any_pair(labels, i):
    """Some positive and some negative of an anchor, -1 where it has none."""
    positive, negative = -1, -1
    for j in range(labels.size):
        if labels[j] != labels[i]:
            negative = j
        elif j != i:
            positive = j
    return positive, negative


def hardest_pair(row, labels, mine):
    """The farthest positive and the nearest negative of an anchor, -1 where it has none."""
    far, near, positive, negative = -1, NONE, 0, 0
    for start in range(0, row.size, BLOCK):
        # Keeps the search vectorised: it finds values by block, and the indices only afterwards.
        f, n = extremes(row[start : start + BLOCK], labels[start : start + BLOCK], mine)
        # Strictly: of equal distances the first in the batch is taken, whatever the blocks are.
        if f > far:
            positive, far = start, f
        if n < near:
            negative, near = start, n
    if far < 0 or near == NONE:
        return -1, -1
    while row[positive] != far or labels[positive] != mine:
        positive += 1
    while row[negative] != near or labels[negative] == mine:
        negative += 1
    return positive, negative


def hardest(lo, hi, params, options, labels, between, bits, values, counted, slopes, chosen):
    """The farthest positive of each anchor against its nearest negative."""
    q = use.unpack(params)
    squared, back, careful = options[0] > 0.0, options[1], options[2] > 0.0
    for i in range(lo, hi):
        row = between[i]
        # Looked for only where an embedding is not finite.
        odd = careful and nan_in(row)
        positive, negative = any_pair(labels, i) if odd else hardest_pair(bits[i], labels, labels[i])
        counts = positive >= 0 and negative >= 0
        counted[i] = 1.0 if counts else 0.0
        chosen[i, 0], chosen[i, 1] = (positive, negative) if counts else (-1, -1)
        if counts:
            near, far = level(row[positive], back, squared), level(row[negative], back, squared)
            out = use.formula(np.nan if odd else near, far, *q)
            values[i] = out[0]
            slopes[i, 0] = out[1][0]
            slopes[i, 1] = out[1][1]


def begin(i, labels, row, careful, values, pull):
    """Return the number of positives of an anchor; 0 if it has none, or no negative, or a distance is NaN."""
    if pull.size > 0:
        pull[i][:] = 0.0
    same = 0
    for j in range(labels.size):
        # Counted first: an anchor without a triplet spares its sort.
        same += 1 if labels[j] == labels[i] else 0
    # Leaves out an anchor without a triplet.
    if same == 1 or same == labels.size:
        return 0
    if careful and nan_in(row):
        values[i] = np.nan
        if pull.size > 0:
            pull[i][:] = np.nan
        return 0
    return same - 1


def ranked(i, row, labels, back, squared, margin, reach, who):
    """Sort the positives of an anchor by distance, and return the power of two to which `reach` is filled with inf.

    `reach` is the distance below which a negative violates the margin, `who` the positive.
    """
    count = 0
    for j in range(row.size):
        if labels[j] == labels[i] and j != i:
            reach[count] = level(row[j], back, squared) + margin
            who[count] = j
            count += 1
    # Sorts in place, without recursion or scratch: Shell, with gaps of 3 h + 1.
    step = 1
    while 3 * step < count:
        step = 3 * step + 1
    while step > 0:
        for k in range(step, count):
            d, j, at = reach[k], who[k], k
            while at >= step and reach[at - step] > d:
                reach[at], who[at] = reach[at - step], who[at - step]
                at -= step
            reach[at], who[at] = d, j
        step //= 3
    # Lets the search below halve without tests of its ends: what lies beyond is infinitely far.
    size = 1
    while size <= count:
        size *= 2
    reach[count:size] = np.inf
    return size


def rank(reach, size, count, d, strict):
    """Return the number of the first `count` that do not exceed d, or are below it; `size` is a power of two."""
    at, step = 0, size // 2
    while step > 0:
        # A halving search without a branch: the next step is selected, so nothing is mispredicted.
        limit = reach[at + step - 1]
        at += step if (limit < d if strict else limit <= d) else 0
        step //= 2
    return min(at, count)


def active(lo, hi, params, options, labels, between, values, counted, pull):
    """The sum over the triplets of each anchor that violate the margin, and how many do.

    Positives are taken by distance. From one to the next, what each negative within reach costs grows by the step;
    every term is positive, so that nothing cancels.
    """
    squared, back, careful, margin, n = options[0] > 0.0, options[1], options[2] > 0.0, params[0], labels.size
    reach, who, cost, hits = np.empty(2 * n), np.empty(n, np.int64), np.empty(n), np.empty(n)
    for i in range(lo, hi):
        row = between[i]
        count = begin(i, labels, row, careful, values, pull)
        counted[i] = 1.0 if values[i] != values[i] else 0.0
        if count == 0:
            continue
        size = ranked(i, row, labels, back, squared, margin, reach, who)
        cost[:count] = 0.0
        hits[:count] = 0.0
        for j in range(n):
            if labels[j] != labels[i]:
                d = level(row[j], back, squared)
                r = rank(reach, size, count, d, False)
                if r < count:
                    # By rank: a negative is looked up once, log2(n) steps, where pairing it with each positive takes n.
                    cost[r] += reach[r] - d
                    hits[r] += 1.0
                    if pull.size > 0:
                        # Minus the number of positives within whose reach this negative lies.
                        pull[i, j] = r - count
        total, within = 0.0, 0.0
        for r in range(count):
            if within > 0.0 and reach[r] > reach[r - 1]:
                # Grows by terms that are never negative: a difference of two sums would cancel.
                total += within * (reach[r] - reach[r - 1])
            total += cost[r]
            within += hits[r]
            values[i] += total
            counted[i] += within
            if pull.size > 0:
                pull[i, who[r]] = within


def every(lo, hi, params, options, labels, between, values, counted, pull):
    """The sum over all triplets of each anchor."""
    q = use.unpack(params)
    squared, back, careful = options[0] > 0.0, options[1], options[2] > 0.0
    unused = np.zeros(labels.size)
    for i in range(lo, hi):
        row, mine = between[i], labels[i]
        count = begin(i, labels, row, careful, values, pull)
        counted[i] = 1.0 if values[i] != values[i] else float(count * (labels.size - 1 - count))
        own = pull[i] if pull.size > 0 else unused
        for p in range(row.size if count > 0 else 0):
            if labels[p] == mine and p != i:
                near, total, slope = level(row[p], back, squared), 0.0, 0.0
                for j in range(row.size):
                    out = use.formula(near, level(row[j], back, squared), *q)
                    counts = labels[j] != mine
                    total += out[0] if counts else 0.0
                    slope += out[1][0] if counts else 0.0
                    # The slopes of all negatives in one loop, which runs in vectors, for each positive.
                    own[j] += out[1][1] if counts else 0.0
                own[p] = slope
                values[i] += total


def semi_hard(lo, hi, params, options, labels, between, values, counted, pull):
    """For each positive of each anchor, the nearest negative that is farther; where none is, the farthest of all."""
    q = use.unpack(params)
    squared, back, careful, n = options[0] > 0.0, options[1], options[2] > 0.0, labels.size
    reach, who, first = np.empty(2 * n), np.empty(n, np.int64), np.empty(n + 1, np.int64)
    for i in range(lo, hi):
        row = between[i]
        count = begin(i, labels, row, careful, values, pull)
        counted[i] = 1.0 if values[i] != values[i] else float(count)
        if count == 0:
            continue
        size = ranked(i, row, labels, 1.0, False, 0.0, reach, who)
        first[: count + 1] = -1
        farthest = -1
        for j in range(n):
            if labels[j] != labels[i]:
                r = rank(reach, size, count, row[j], True)
                if first[r] < 0 or row[j] < row[first[r]]:
                    first[r] = j
                if farthest < 0 or row[j] > row[farthest]:
                    farthest = j
        nearest = farthest
        # Downwards, so that the nearest negative beyond each positive is known from the one after it.
        for r in range(count, 0, -1):
            p, nearest = who[r - 1], first[r] if first[r] >= 0 else nearest
            out = use.formula(level(row[p], back, squared), level(row[nearest], back, squared), *q)
            values[i] += out[0]
            if pull.size > 0:
                pull[i, p] += out[1][0]
                pull[i, nearest] += out[1][1]


def listed(lo, hi, chosen, start, anchors):
    """By row, the anchors that chose it, in order; twice the anchor for a positive, one more for a negative."""
    flat = chosen.reshape(-1)
    for j in flat:
        if j >= 0:
            start[j + 2] += 1
    # Gives every row its anchors in order, so that rows are summed in parallel with the same bits: a counting sort.
    for j in range(2, start.size):
        start[j] += start[j - 1]
    for k in range(flat.size):
        j = flat[k]
        if j >= 0:
            anchors[start[j + 1]] = k
            start[j + 1] += 1


def pull_pair(g, x, i, j, d, slope, square):
    """Add the derivative of a distance by its first row."""
    # The derivative of a squared distance needs no root, and that of a distance of 0 is 0.
    s = slope * square if square != 0.0 else slope / d if d != 0.0 else 0.0
    if s != 0.0:
        a, b = x[i], x[j]
        for k in range(g.size):
            g[k] += s * (a[k] - b[k])


def pull_chosen(lo, hi, square, x, between, chosen, slopes, factors, start, anchors, grad):
    """The derivative by each row, as an anchor and as what others chose."""
    for i in range(lo, hi):
        g, factor = grad[i], factor_of(factors, i)
        g[:] = 0.0
        for which in range(2):
            j = chosen[i, which]
            if j >= 0 and factor != 0.0:
                pull_pair(g, x, i, j, between[i, j], slopes[i, which] * factor, square[0])
        # Gathered by the row that is written: no two threads add to one row, and the order is fixed.
        for k in range(start[i], start[i + 1]):
            a, which = anchors[k] // 2, anchors[k] % 2
            factor = factor_of(factors, a)
            if factor != 0.0:
                pull_pair(g, x, i, a, between[i, a], slopes[a, which] * factor, square[0])


HARDEST, PULL = (level, extremes, nan_in, any_pair, hardest_pair), (pull_pair,)


def _hardest(call: Any) -> Callable[[Any, Any, Any], None]:
    """Return the function that mines the hardest triplets of calls like one."""
    (n, d), formula = call["embeddings"].shape, call.record.function
    compare, work = comparing(n, d)
    mine = kernel(hardest, call.record.name, "float64", formula, HARDEST), n
    line_up = kernel(listed, "listed", "float64"), 1
    # Saves 1 us a stage: one call of the driver runs all steps before the divisor of the mean is known.
    stages = bound_stages(1, work + 0.5 * n * n, compare, mine, *([line_up] if call.grads else []))
    pull = kernel(pull_chosen, "pull_chosen", "float64", None, PULL).bound(n, 2.0 * n * d)

    def evaluate(call: Any, x: Any, options: Any) -> None:
        between = np.empty((n, n))
        counted, slopes, chosen = np.empty(n), np.zeros((n, 2)), np.empty((n, 2), np.int64)
        bits, labels = between.view(np.int64), call.arrays["labels"]
        found = call.numbers(), options, labels, between, bits, call.values, counted, slopes, chosen
        if not call.grads:
            stages((x, between), found)
            call.counted = counted
        else:
            start, anchors = np.zeros(n + 2, np.int64), np.empty(2 * n, np.int64)
            stages((x, between), found, (chosen, start, anchors))
            call.counted = counted
            square, grad = np.array([_square(options)]), room(call)
            pull(square, x, between, chosen, slopes, call.factors(), start, anchors, grad)
            deliver(call, grad)

    return evaluate


def _by_rank(call: Any, x: Any, options: Any) -> None:
    name, n = call.record.name, len(x)
    # The matrix of distances once: mining and gradient read it.
    (compare, tiles), each = comparing(*x.shape)
    between = np.empty((n, n))
    compare(tiles, each, x, between)
    template = semi_hard if name == "semi_hard_triplet" else every if call.parameters["soft"] else active
    counted, pull = np.empty(n), np.empty((n, n) if call.grads else (0, 0))
    helpers = (level, nan_in, begin, ranked, rank)
    mine = kernel(template, f"{name}_{template.__name__}", "float64", call.record.function, helpers)
    work = n * n * (0.1 * n if template is every else 4)
    mine(n, work, call.numbers(), options, call["labels"], between, call.values, counted, pull)
    call.counted = counted
    if call.grads:
        grad = room(call)
        weighed(between, pull, call.factors(), _square(options))
        gathered(x, pull, grad)
        deliver(call, grad)


def _square(options: Any) -> float:
    """The derivative of a squared distance by a scaled difference; 0 for distances themselves."""
    return 2.0 * float(options[1]) if options[0] else 0.0


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that mines, and evaluates what was found, for calls like one."""
    mine = _hardest(call) if call.record.name == "batch_hard_triplet" else _by_rank
    squared = call.parameters["squared"]

    def evaluate(call: Any) -> None:
        x, back, finite = scaled(call.arrays["embeddings"])
        mine(call, x, np.array([squared, back, not finite], np.float64))

    return evaluate


def run(call: Any) -> None:
    """Mine, and evaluate what was found."""
    prepare(call)(call)
