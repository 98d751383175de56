"""Losses of rows other than softmaxes, for a GPU: independent classes, margins, ensembles, thresholds, evidence."""

import numpy as np

from ...cpu.runtime import access
from ..runtime.memory import present
from ..runtime.teams import Merge
from .slots import use

times = access.times[True]


def picked(r, o, f, p, q):
    """A formula of the label's log-probability alone."""
    T = use.T
    out = use.formula(use.read(r.inputs[0], r.row * r.k + np.uint64(r.y))[0], T(1.0), *p)
    use.emit(r, o, (r.c * out[1], r.c * use.second(out, r.surrogate)), f, p)
    return r.c * out[0], T(0.0)


def picked_slope(x, t, c, j, r, s, p):
    """Derivatives at the label, and 0 elsewhere."""
    T = use.T
    own = j == np.uint64(r.y)
    return s[0] if own else T(0.0), s[1] if own else T(0.0)


def summed(r, o, f, p, q):
    """A formula summed over the row, each class by itself: one pass gives values and derivatives."""
    T = use.T
    v, bad = use.total(r, o, (T(0.0),), f, p)
    return v if bad == T(0.0) else T(np.nan), bad


def summed_term(x, t, c, j, r, s, p):
    """A class's value, fault and derivatives."""
    T = use.T
    out = use.formula(x, t, *p)
    fault = use.fault_of(t, c) if c != T(0.0) else T(0.0)
    # A fault makes its derivatives NaN: the host learns of it when it next waits.
    w = c if fault == T(0.0) else T(np.nan)
    return times(out[0], c), fault, times(out[1], w), times(use.second(out, r.surrogate), w)


def ensemble(r, o, f, p, q):
    """A formula of each member, its mid-rank among all members, and their number."""
    t = use.read_target(r.inputs[1], r.row)[0]
    return use.total(r, o, (t,), f, p)[0], use.T(0.0)


def ensemble_term(x, t, c, j, r, s, p):
    """A member's value and derivatives; its rank is counted by reading the row again."""
    T = use.T
    below, equal = T(0.0), T(1.0)
    i, end = r.row * r.k, (r.row + np.uint64(1)) * r.k
    # Reads the row again for each member, from the caches: sorting it would need shared memory and barriers.
    while i < end:
        other = use.read(r.inputs[0], i)[0]
        below += T(1.0) if other < x else T(0.0)
        equal += T(1.0) if other == x else T(0.0)
        i += np.uint64(1)
    out = use.formula(x, s[0], below + T(0.5) * equal, T(r.k), *p)
    return out[0], out[1], use.second(out, r.surrogate)


def margin(r, o, f, p, q):
    """A formula of margins z_j - z_label, summed over the other classes and divided by K."""
    T = use.T
    x = use.read(r.inputs[0], r.row * r.k + np.uint64(r.y))[0]
    v, slope, bend = use.total(r, o, (x,), f, p)
    w = r.c / T(r.k)
    use.emit(r, o, (x, slope, bend), f * w, p)
    return v * w, T(0.0)


def margin_term(x, t, c, j, r, s, p):
    """Return the terms of another class in the sums of the row."""
    T = use.T
    out = use.formula(x - s[0], *p)
    own = j == np.uint64(r.y)
    bend = use.second(out, r.surrogate)
    return T(0.0) if own else out[0], T(0.0) if own else out[1], T(0.0) if own else bend


def margin_slope(x, t, c, j, r, s, p):
    """Derivatives: those of all margins at the label."""
    out = use.formula(x - s[0], *p)
    own = j == np.uint64(r.y)
    bend = use.second(out, r.surrogate)
    return -s[1] if own else out[1], s[2] if own else bend


def top_margin(r, o, f, p, q):
    """A formula of the largest margin alone."""
    T = use.T
    x = use.read(r.inputs[0], r.row * r.k + np.uint64(r.y))[0]
    best, place = use.top(r, o, (x,), f, p)
    out = use.formula(best - x, *p)
    # A single class has no other.
    w = r.c if r.k > np.uint64(1) else T(0.0)
    bend = use.second(out, r.surrogate)
    use.emit(r, o, (place, out[1], bend), f * w, p)
    return (w * out[0] if w != T(0.0) else T(0.0)), T(0.0)


def other_class(x, t, c, j, r, s, p):
    """A score and its class; the label's is none."""
    own = j == np.uint64(r.y)
    return -use.INFINITE if own else x, use.INFINITE if own else use.T(j)


def _first_largest(a, b, s):
    """The largest score and the first class that has it; NaN is above all."""
    # Ties go to the first class, so that the order in which threads merge does not show.
    tie = (a[0] == b[0]) | ((a[0] != a[0]) & (b[0] != b[0]))
    better = b[1] < a[1] if tie else (b[0] > a[0]) | (b[0] != b[0])
    return b[0] if better else a[0], b[1] if better else a[1]


FIRST_LARGEST = Merge(_first_largest, (-np.inf, np.inf))


def top_margin_slope(x, t, c, j, r, s, p):
    """Derivatives at the label and at the strongest other class."""
    T = use.T
    own, best = j == np.uint64(r.y), T(j) == s[0]
    return -s[1] if own else s[1] if best else T(0.0), s[2] if own | best else T(0.0)


def _largest(a, b, s):
    """The larger of two; NaN is above all."""
    return (b[0] if (b[0] > a[0]) | (b[0] != b[0]) else a[0],)


LARGEST = Merge(_largest, (-np.inf,))


def score(x, t, c, j, r, s, p):
    """The score itself."""
    return (x,)


def sparsemax(r, o, f, p, q):
    """A formula of each score less the row's threshold, and its target.

    Newton's method from below: of the sum of the excess and the number of scores above, one at least halves.
    """
    T = use.T
    # The threshold lies between the maximum less 1 and the maximum: no sorting, which needs shared memory.
    m = use.top(r, o, (T(0.0),), f, p)[0]
    edge, before = T(-1.0), T(r.k) + T(1.0)
    # Ends exactly: the threshold is right once no further score falls below it.
    excess, inside = use.above(r, o, (m, edge), f, p)
    while inside < before:
        before = inside
        edge = (excess - T(1.0)) / inside
        excess, inside = use.above(r, o, (m, edge), f, p)
    v, bad, mass = use.total(r, o, (m, edge), f, p)
    w = (mass if use.dense else r.c) if present(r.inputs[2]) else T(1.0)
    bad = bad if w != T(0.0) else T(0.0)
    if bad != T(0.0):
        w = T(np.nan)
    use.emit(r, o, (m, edge, T(1.0) - T(1.0) / inside), f * w, p)
    return times(v, w), bad


def sparsemax_above(x, t, c, j, r, s, p):
    """The shifted score and 1 where it exceeds the threshold."""
    T = use.T
    u = use.shifted(x, s[0])
    inside = u > s[1]
    return u if inside else T(0.0), T(1.0) if inside else T(0.0)


def sparsemax_term(x, t, c, j, r, s, p):
    """A class's value, fault, and its share of the row's weight."""
    u = use.shifted(x, s[0])
    return use.formula(u - s[1], t, *p)[0], use.fault_of(t, c), times(t, c)


def sparsemax_slope(x, t, c, j, r, s, p):
    """Derivatives."""
    u = use.shifted(x, s[0])
    out = use.formula(u - s[1], t, *p)
    return out[1], s[2] * use.second(out, r.surrogate)


def evidential(r, o, f, p, q):
    """A formula of each class's evidence, its target, and two sums over the row."""
    T = use.T
    whole, excess, bad, mass = use.gather(r, o, (T(0.0),), f, p)
    v, all_whole, all_excess = use.total(r, o, (whole, excess), f, p)
    w = (mass if use.dense else r.c) if present(r.inputs[2]) else T(1.0)
    bad = bad if w != T(0.0) else T(0.0)
    if bad != T(0.0):
        w = T(np.nan)
    use.emit(r, o, (whole, excess, all_whole, all_excess), f * w, p)
    return times(v, w), bad


def evidence_found(x, t, c, j, r, s, p):
    """A class's evidence, that for wrong classes, its fault and its share of the row's weight."""
    e, _ = use.evidence(x)
    return e, (use.T(1.0) - t) * e, use.fault_of(t, c), times(t, c)


def evidence_term(x, t, c, j, r, s, p):
    """A class's value, and its derivatives in the two sums."""
    e, _ = use.evidence(x)
    out = use.formula(e, t, s[0], s[1], use.T(r.k), *p)
    return out[0], out[1][1], out[1][2]


def evidence_slope(x, t, c, j, r, s, p):
    """The derivative, by way of the evidence."""
    T = use.T
    e, turn = use.evidence(x)
    out = use.formula(e, t, s[0], s[1], T(r.k), *p)
    return turn * (out[1][0] + s[2] + (T(1.0) - t) * s[3]), T(0.0)
