"""Likelihoods of an order: of those at risk, who was next. Cox's model by time, Plackett and Luce's by relevance.

With the items of a group in reverse, the risk set of each is all before it, those of equal time included. One scan
keeps the sum of exponentials over it as exp(top) (1 + tail); one back adds up the slopes, whose exponents are never
positive, so that nothing overflows however far apart the risks lie.
"""

from typing import Any

import numpy as np

from .blocks import kernel
from .groups import COUNTS, largest_of, sizes_of, sort_items, sorting

__all__ = ["run"]

# Names that the templates below find bound when they are specialized.
T: Any = None
exp64: Any = None
log64: Any = None
log1p64: Any = None
factor_of: Any = None
lists: Any = None


def relative(x, top):
    """exp(x - top), 1 where the two are equal, infinite or not."""
    return 1.0 if x == top else exp64(x - top)


def shared(x, failed, top, before):
    """Of those at one time: the sum over the rest of their risk set, and that over those who failed."""
    rest, lost = before, 0.0
    for i in range(x.size):
        if failed[i] != 0:
            lost += relative(x[i], top)
        else:
            rest += relative(x[i], top)
    return rest, lost


def scan(x, failed, runs, efron, tops, tails, losses):
    """What each event adds to the negative log-likelihood; the sums over risk sets."""
    n = x.size
    top, tail = -np.inf, -1.0
    i = 0
    while i < n:
        j = runs[i]
        earlier, before = top, 1.0 + tail
        events = 0
        for q in range(i, j):
            if x[q] > top:
                top, tail = x[q], (tail + 1.0) * exp64(top - x[q])
            else:
                tail += relative(x[q], top)
            events += failed[q]
        among = log1p64(tail)
        if efron and events > 1:
            rest, lost = shared(x[i:j], failed[i:j], top, before * relative(earlier, top))
            among = 0.0
            for k in range(events):
                among += log64(rest + lost * (events - k) / events)
            among /= events
        for q in range(i, j):
            tops[q], tails[q] = top, tail
            ahead = 0.0 if x[q] == top else top - x[q]
            losses[q] = among + ahead if failed[q] != 0 else 0.0
        i = j


def shares(x, failed, top, tail, before, efron, mass):
    """The slope of the logarithms of one time by exp(x - top): of those who failed, and of all others at risk."""
    events = 0
    for i in range(x.size):
        events += failed[i]
    if not efron or events < 2:
        return mass / (1.0 + tail), mass / (1.0 + tail)
    rest, lost = shared(x, failed, top, before)
    of_failed, of_all = 0.0, 0.0
    for k in range(events):
        part = (events - k) / events
        each = mass / events / (rest + lost * part)
        of_failed += part * each
        of_all += each
    return of_failed, of_all


def scan_back(x, failed, runs, efron, tops, tails, factors, slopes):
    """The slope of each item, from the last of the risk sets to the first."""
    carried, above = 0.0, -np.inf
    j = x.size
    while j > 0:
        i, mass, events = j, 0.0, 0
        while i > 0 and runs[i - 1] == j:
            i -= 1
            mass += factors[i] if failed[i] != 0 else 0.0
            events += failed[i]
        top, tail = tops[i], tails[i]
        of_failed, of_all = 0.0, 0.0
        if mass != 0.0:
            before = (1.0 + tails[i - 1]) * relative(tops[i - 1], top) if i > 0 else 0.0
            of_failed, of_all = shares(x[i:j], failed[i:j], top, tail, before, efron, mass)
        carried = carried * relative(top, above) if carried != 0.0 else 0.0
        for q in range(i, j):
            e, f = relative(x[q], top), factors[q] if failed[q] != 0 else 0.0
            slope = carried + (of_failed if failed[q] != 0 else of_all)
            if f != 0.0 and (events == 1 or not efron):
                # Its own part less 1 without cancellation: all others of the risk set.
                others = tail if x[q] == top else 1.0 + (tail - e)
                slope = carried + (mass - f) / (1.0 + tail)
                f *= others / (1.0 + tail)
            slopes[q] = (e * slope if slope != 0.0 else 0.0) - f
        carried += of_all
        above = top
        j = i


def risk_groups(lo, hi, offsets, scores, times, failed, ties, factors, values, grad):
    """The values and slopes of all items, group by group."""
    most = largest_of(lo, hi, offsets)
    places, counts = np.empty((5, most), np.int64), np.empty(COUNTS, np.int64)
    numbers = np.empty((6, most))
    order, efron = places[0], ties[0] == 1
    for g in range(lo, hi):
        a = offsets[g]
        t = times[a : offsets[g + 1]]
        n = t.size
        runs, lost = places[3][:n], places[4][:n]
        x, losses, tops = numbers[0][:n], numbers[1][:n], numbers[2][:n]
        tails, each, slopes = numbers[3][:n], numbers[4][:n], numbers[5][:n]
        sort_items(t, order, places[1], places[2], places[3], counts)
        if lists:
            # The last of a list is the first that is scanned.
            for i in range(n // 2):
                order[i], order[n - 1 - i] = order[n - 1 - i], order[i]
        end = n
        for i in range(n - 1, -1, -1):
            q = order[i]
            tied = not lists and i < n - 1 and t[q] == t[order[i + 1]]
            end = end if tied else i + 1
            runs[i] = end
            # Without a time nothing is known of any risk set.
            x[i] = scores[a + q] if t[q] == t[q] else np.nan
            lost[i] = 1 if lists else failed[a + q]
            each[i] = factor_of(factors, g if lists else a + q)
        scan(x, lost, runs, efron, tops, tails, losses)
        total = 0.0
        for i in range(n):
            total += losses[i]
            if not lists:
                values[a + order[i]] = losses[i]
        if lists:
            values[g] = total
        if grad.size > 0:
            scan_back(x, lost, runs, efron, tops, tails, each, slopes)
            for i in range(n):
                grad[a + order[i]] = T(slopes[i])


def run(call: Any) -> None:
    """Evaluate every group: of lists where the loss has a value for each, else of strata of subjects."""
    offsets, lists = call["offsets"], "relevance" in call.arrays
    if lists:
        scores, times, lost = call["scores"], call["relevance"], np.empty(0, np.uint8)
        call.counted = (sizes_of(offsets) > 1).astype(np.float64)
    else:
        scores, times, lost = call["risk"], call["time"], call["event"]
        call.counted = lost.astype(np.float64)
    grad = next(iter(call.grads.values()), np.empty(0, scores.dtype))
    factors = call.factors() if call.grads else np.ones(1)
    ties = np.array([call.parameters.get("ties") == "efron"], np.int64)
    groups = kernel(
        risk_groups,
        call.record.name,
        call.name,
        None,
        (relative, shared, scan, shares, scan_back),
        (("lists", lists), *sorting()),
    )
    groups(offsets.size - 1, 64.0 * scores.size, offsets, scores, times, lost, ties, factors, call.values, grad)
