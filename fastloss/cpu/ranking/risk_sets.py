"""Likelihoods of an order: of those at risk, who was next. Cox's model by time, Plackett and Luce's by relevance.

With the items of a group in reverse, the risk set of each is all before it, those of equal time included. One scan
keeps the sum of exponentials over it as exp(top) (1 + tail); one back adds up the slopes, whose exponents are never
positive, so that nothing overflows however far apart the risks lie.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..math.order import COUNTS, sorter
from ..math.scalar_math import exp64, log1p64, log64
from ..runtime.intrinsics import call as at_address
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import unbound
from ..runtime.units import factor_of, kernel
from .groups import halves, in_double, longest, room_for, settle

__all__ = ["prepare", "run"]

ROWS = 10
"""Rows of scratch: six of numbers, two of keys to sort, four of places, of 32 bits."""


class Slots(NamedTuple):
    """Flags that the templates of risk sets read."""

    lists: bool
    """Whether the order is a ranking without censoring."""
    efron: bool
    """Whether tied failures are averaged as Efron does."""


use = unbound(Slots)


def line_up(first, order, times, scores, failed, x, lost, runs, top, above):
    """The items of one group as they are scanned; where those of equal time end; the largest risk of each risk set."""
    n = order.size
    for i in range(n):
        q = first + order[i]
        x[i], lost[i] = scores[q], 1 if use.lists else failed[q]
        # Times, until it is known who shares one.
        top[i] = times[q]
    i = 0
    largest = -np.inf
    while i < n:
        j = i + 1
        while not use.lists and j < n and top[j] == top[i]:
            j += 1
        before = largest
        for q in range(i, j):
            # Without a time nothing is known of any risk set.
            x[q] = x[q] if top[q] == top[q] else np.nan
            largest = x[q] if x[q] > largest else largest
        for q in range(i, j):
            runs[q], top[q], above[q] = j, largest, largest
        above[i] = before
        i = j


def exponentials(x, top, above, e, ratio):
    """Risks relative to the largest of their risk set; what the sum before them is to be multiplied by."""
    widest_vectors()
    for i in range(x.size):
        # Equal infinities have no difference.
        e[i] = 1.0 if x[i] == top[i] else exp64(x[i] - top[i])
        ratio[i] = 1.0 if above[i] == top[i] else exp64(above[i] - top[i])


def add_up(x, runs, top, e, ratio, tail):
    """The sum of each risk set, relative to its largest risk, less 1 for one that has it."""
    n = x.size
    i = 0
    rest, started = 0.0, False
    while i < n:
        j = runs[i]
        # The largest risk lies here, or in the risk set before, whose 1 stands apart already.
        here = not started or ratio[i] != 1.0
        if started and here:
            # A new largest risk: what was summed is made relative to it, and never exceeds the number of items.
            rest = (1.0 + rest) * ratio[i]
        for q in range(i, j):
            # Counted once as the 1 that stands apart: log1p of the rest keeps the digits of a certain outcome.
            if here and x[q] == top[q]:
                here = False
            else:
                rest += e[q]
        started = True
        for q in range(i, j):
            tail[q] = rest
        i = j


def parts(lost, e, before):
    """Return the number of failures at one time, their sum, and the sum of all others at risk."""
    events, own, rest = 0.0, 0.0, before
    for i in range(e.size):
        events += lost[i]
        own += e[i] if lost[i] != 0 else 0.0
        rest += 0.0 if lost[i] != 0 else e[i]
    return events, own, rest


def logarithms(x, lost, top, tail, losses):
    """Write the term of each event in the negative log-likelihood."""
    widest_vectors()
    for i in range(x.size):
        # Equal infinities have no difference.
        ahead = 0.0 if x[i] == top[i] else top[i] - x[i]
        # The logarithm of the sum less the risk itself, without the difference of two large numbers.
        loss = log1p64(tail[i]) + ahead
        losses[i] = loss if lost[i] != 0 else 0.0


def average(x, lost, runs, top, e, ratio, tail, losses):
    """Efron's logarithms in place of Breslow's, where several failed at one time."""
    n = x.size
    i = 0
    while i < n:
        j = runs[i]
        before = (1.0 + tail[i - 1]) * ratio[i] if i > 0 else 0.0
        events, own, rest = parts(lost[i:j], e[i:j], before)
        if events > 1.0:
            total = 0.0
            for k in range(int(events)):
                # Keeps positive terms alone: rest + own (1 - k / events), where a difference of sums would cancel.
                total += log64(rest + own * ((events - k) / events))
            for q in range(i, j):
                ahead = 0.0 if x[q] == top[q] else top[q] - x[q]
                losses[q] = total / events + ahead if lost[q] != 0 else 0.0
        i = j


def carry_back(first, order, factors, lost, runs, e, ratio, tail, slopes, takes):
    """From the last risk set to the first: what multiplies the exponential of each item, and what is taken off."""
    carried = 0.0
    j = lost.size
    while j > 0:
        i, mass, events = j, 0.0, 0.0
        while i > 0 and runs[i - 1] == j:
            i -= 1
            mass += factor_of(factors, first + order[i]) if lost[i] != 0 else 0.0
            events += lost[i]
        inverse = 1.0 / (1.0 + tail[i])
        of_all = mass * inverse if mass != 0.0 else 0.0
        apart = False
        if use.efron:
            apart = events > 1.0 and mass != 0.0
        if use.efron and apart:
            before = (1.0 + tail[i - 1]) * ratio[i] if i > 0 else 0.0
            _, own, rest = parts(lost[i:j], e[i:j], before)
            of_failed, of_all = 0.0, 0.0
            for k in range(int(events)):
                share = (events - k) / events
                one = mass / events / (rest + own * share)
                of_failed += share * one
                of_all += one
            for q in range(i, j):
                slopes[q] = carried + (of_failed if lost[q] != 0 else of_all)
                takes[q] = factor_of(factors, first + order[q]) if lost[q] != 0 else 0.0
        else:
            for q in range(i, j):
                f = factor_of(factors, first + order[q]) if lost[q] != 0 else 0.0
                slopes[q] = carried + (mass - f) * inverse if mass != f else carried
                # Its own part less 1 without cancellation: all others of the risk set.
                others = tail[q] if e[q] == 1.0 else 1.0 + (tail[q] - e[q])
                takes[q] = f * (others * inverse) if f != 0.0 else 0.0
        carried += of_all
        # Relative to the next risk set: exponents are never positive, so nothing overflows.
        carried = carried * ratio[i] if carried != 0.0 else 0.0
        j = i


def risk_groups(lo, hi, sort, offsets, scores, times, failed, factors, given, values, grad):
    """The values and slopes of all items of some groups. What is costly runs along all of them at once."""
    begin = offsets[lo]
    n = offsets[hi] - begin
    # Lent by the caller where a large batch would fault in fresh pages at each call.
    room = given if given.size > 0 else np.empty((ROWS, n))
    x, top, above, e, ratio, tail = room[0], room[1], room[2], room[3], room[4], room[5]
    keys, index, counts = room[6:8].view(np.int64), halves(room[8]), np.empty(COUNTS, np.int32)
    both = halves(room[9])
    order, runs = both[0], both[1]
    lost = np.empty(n, np.uint8)
    for g in range(lo, hi):
        first = offsets[g]
        a, b = first - begin, offsets[g + 1] - begin
        o = order[a:b]
        sorted_by = index[int(at_address(sort[0], (times[first : offsets[g + 1]], 1, keys, index, counts)))]
        for i in range(o.size):
            # The last of a list is the first that is scanned.
            o[i] = sorted_by[o.size - 1 - i if use.lists else i]
        line_up(first, o, times, scores, failed, x[a:b], lost[a:b], runs[a:b], top[a:b], above[a:b])
    exponentials(x, top, above, e, ratio)
    for g in range(lo, hi):
        a, b = offsets[g] - begin, offsets[g + 1] - begin
        add_up(x[a:b], runs[a:b], top[a:b], e[a:b], ratio[a:b], tail[a:b])
    # What is needed no more makes room for what follows: a large batch asks the system for less.
    losses, slopes, takes = above, x, top
    logarithms(x, lost, top, tail, losses)
    for g in range(lo, hi):
        first = offsets[g]
        a, b = first - begin, offsets[g + 1] - begin
        if use.efron:
            average(x[a:b], lost[a:b], runs[a:b], top[a:b], e[a:b], ratio[a:b], tail[a:b], losses[a:b])
        total = 0.0
        for i in range(a, b):
            total += losses[i]
            if not use.lists:
                values[first + order[i]] = losses[i]
        if use.lists:
            values[g] = total
        if grad.size > 0:
            own = factors[g : g + 1] if use.lists and factors.size > 1 else factors
            place = 0 if use.lists else first
            carry_back(
                place, order[a:b], own, lost[a:b], runs[a:b], e[a:b], ratio[a:b], tail[a:b], slopes[a:b], takes[a:b]
            )
            for i in range(a, b):
                grad[first + order[i]] = (e[i] * slopes[i] if slopes[i] != 0.0 else 0.0) - takes[i]


HELPERS = (halves, line_up, exponentials, add_up, parts, logarithms, average, carry_back)


NO_EVENTS, ONE = np.empty(0, np.uint8), np.ones(1)


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates every group of calls like one.

    The groups are lists where the loss has a value for each, else strata of subjects.
    """
    lists = "relevance" in call.arrays
    efron = call.parameters.get("ties") == "efron"
    # All in double precision: the scans set the pace, and one kernel serves both.
    which = risk_groups, call.record.name, "float64", None, HELPERS, (("lists", lists), ("efron", efron))
    size = call["scores" if lists else "risk"].size
    groups, sort = kernel(*which).bound(call["offsets"].size - 1, 64.0 * size), sorter("float64")[0]

    def evaluate(call: Any) -> None:
        offsets = call.arrays["offsets"]
        if lists:
            scores, times, lost = call.arrays["scores"], call.arrays["relevance"], NO_EVENTS
            call.counted = (offsets[1:] - offsets[:-1] > 1).astype(np.float64)
        else:
            scores, times, lost = call.arrays["risk"], call.arrays["time"], call.arrays["event"]
            call.counted = lost.astype(np.float64)
        longest(offsets)
        scores, times = scores.astype(np.float64, copy=False), times.astype(np.float64, copy=False)
        grad = in_double(call.grads)
        factors = call.factors() if call.grads else ONE
        groups(sort, offsets, scores, times, lost, factors, room_for(ROWS, offsets), call.values, grad)
        settle(call.grads, grad)

    return evaluate


def run(call: Any) -> None:
    """Evaluate every group."""
    prepare(call)(call)
