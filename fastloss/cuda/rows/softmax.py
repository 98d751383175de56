"""Softmax losses of rows for a GPU: the maximum and the sum of exponentials in one pass, derivatives in the last.

The sum is that of exponentials less one, so that a loss or a 1 - p near zero keeps its digits.
"""

import numpy as np

from ...cpu.runtime import access
from ..runtime.teams import Merge
from .slots import use

__all__ = [
    "ONLINE",
    "changed",
    "softmax_dense",
    "softmax_dense_slope",
    "softmax_labels",
    "softmax_slope",
    "softmax_term",
]

times = access.times[True]


def _online(a, b, s):
    """Maximum, sum of exponentials less one; with smoothing, weighted sum of shifted logits, and the weights."""
    T = use.T
    # Both parts in one expression: threads whose maximum is on either side do not diverge.
    over = b[0] > a[0]
    above, below = b if over else a, a if over else b
    # Nothing is relative to minus infinity: exp(-inf - 0) is 0.
    shift = (below[0] - (above[0] if above[0] != -use.INFINITE else T(0.0))) * s[0]
    # Reads the row once: the part with the smaller maximum is made relative to the larger one.
    rest = above[1] + (below[1] + T(1.0)) * use.exp(shift)
    if use.smooth:
        moved = below[3] * shift if below[3] != T(0.0) else T(0.0)
        return above[0], rest, above[2] + below[2] + moved, above[3] + below[3]
    return above[0], rest


ONLINE = Merge(_online, (-np.inf, -1.0, 0.0, 0.0))
"""Merge of two parts of a row; the sum less one of an empty part is -1."""


def softmax_labels(r, o, f, p, q):
    """A softmax of each row against its label, whose score a formula may change first."""
    T = use.T
    beta, eps, zeta = q
    x, first, bend = use.turn(use.read(r.inputs[0], r.row * r.k + np.uint64(r.y))[0], p, r.surrogate)
    # One read of the row for maximum and sum, and another for the derivatives: exponentials are computed twice, not
    # stored.
    found = use.scan(r, o, (beta, x), f, p)
    m = found[0]
    # Of infinite logits, all is NaN.
    tail = found[1] + (m - m)
    d = (x - m) * beta
    lt = use.log1p(tail)
    lse = m * beta + lt
    out = use.formula(d - lt, T(1.0), *p)
    keep, share = T(1.0) - eps, eps / T(r.k)
    # Selected, not multiplied: an infinite log-sum-exp times a z_loss of 0 would be NaN.
    push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
    f1, f2 = times(out[1], keep * r.c), times(use.second(out, r.surrogate), keep * r.c)
    v = times(out[0], keep * r.c) + (T(0.5) * push * lse if zeta > T(0.0) else T(0.0))
    extra, less = push, T(0.0)
    if use.smooth:
        # An infinite sum of logits counts where some of the target is on them.
        v += share * (found[3] * lt - found[2]) if share > T(0.0) else T(0.0)
        extra, less = push + share * found[3], share * r.c
    # A label that is not the maximum has a tail of at least its own exponential: 1 - picked loses nothing.
    inverse, picked = T(1.0) / (tail + T(1.0)), use.exp(d)
    part, rest = picked * inverse, (tail + (T(1.0) - picked)) * inverse
    here = beta * (f1 * rest + extra * part - less)
    at_e = beta * (extra - f1) * inverse
    pull, twice = use.curved_by(extra - f1, r.surrogate), use.curved_by(T(2.0) * zeta, r.surrogate)
    bent = beta * beta * (pull * part * rest + f2 * rest * rest + twice * part * part)
    pq, pp = beta * beta * pull, beta * beta * (twice + f2)
    if use.turned:
        # The chain rule through the formula that changed the label's score, at the label alone.
        here, bent = here * first, bent * first * first + here * bend
    use.emit(r, o, (m, beta, tail, inverse, at_e, beta * share, here, pq, pp, bent), f, p)
    return v, T(0.0)


def changed(x, p, c):
    """The label's score as a formula changes it, and that formula's derivatives."""
    out = use.turning(x, *p)
    return out[0], out[1], use.second(out, c)


def softmax_slope(x, t, c, j, r, s, p):
    """Derivatives of a softmax against a label."""
    T = use.T
    m, beta, tail, inverse, at_e, flat, here, pq, pp, bent = s
    own = j == np.uint64(r.y)
    e = use.exp((x - m) * beta)
    part = e * inverse
    # Keeps the digits of the maximum's 1 - p: it is the tail's share, which subtracting p from 1 would lose.
    rest = tail * inverse if e == T(1.0) else T(1.0) - part
    slope = e * at_e
    if use.smooth:
        slope -= flat * c
    return here if own else slope, bent if own else part * (pq * rest + pp * part)


def softmax_dense(r, o, f, p, q):
    """A softmax of each row against a target for each class; a teacher's logits are the target of a distillation."""
    T = use.T
    beta, eps, zeta = q
    found = use.scan(r, o, (beta, T(0.0)), f, p)
    m = found[0]
    tail = found[1] + (m - m)
    lt = use.log1p(tail)
    lse = m * beta + lt
    # The target is (t - shift) * factor + plus.
    shift, factor, plus, again = T(0.0), T(1.0) - eps, eps / T(r.k), T(1.0)
    if use.taught:
        # The teacher's row by the same pass: maximum and sum of exponentials.
        known = use.learn(r, o, (beta, T(0.0)), f, p)
        shift, factor, plus = known[0], beta, -use.log1p(known[1] + (known[0] - known[0]))
        again = T(1.0) / (beta * beta)
    aim = (m, beta, lt, shift, factor, plus)
    v, slope, others, bends, bad = use.total(r, o, aim, f, p)
    push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
    v += T(0.5) * push * lse if zeta > T(0.0) else T(0.0)
    if bad != T(0.0):
        # Makes value and derivatives of a fault NaN: the host learns of it later.
        v = f = T(np.nan)
    # One division a row, and a product for each class.
    inverse = T(1.0) / (tail + T(1.0))
    use.emit(r, o, (*aim, tail, inverse, slope, others, bends, push, T(2.0) * zeta), f * again * beta, p)
    return v * again, bad


def softmax_term(x, t, c, j, r, s, p):
    """A class's value, derivatives and fault: sums of the row."""
    T = use.T
    m, beta, lt, shift, factor, plus = s
    out = use.formula((x - m) * beta - lt, (t - shift) * factor + plus, *p)
    f1 = times(out[1], c)
    fault = use.fault_of(t, c) if c != T(0.0) else T(0.0)
    return times(out[0], c), f1, T(0.0) if x == m else f1, times(use.second(out, r.surrogate), c), fault


def softmax_dense_slope(x, t, c, j, r, s, p):
    """Derivatives of a softmax against a target for each class."""
    T = use.T
    m, beta, lt, shift, factor, plus, tail, inverse, slope, others, bends, push, twice = s
    out = use.formula((x - m) * beta - lt, (t - shift) * factor + plus, *p)
    f1, f2 = times(out[1], c), times(use.second(out, r.surrogate), c)
    part = use.exp((x - m) * beta) * inverse
    # A single winner's 1 - p is the tail's share: subtracting p from 1 would lose it.
    winner = (tail < T(1.0)) & (x == m)
    rest = tail * inverse if winner else T(1.0) - part
    first = f1 * rest - part * others if winner else f1 - part * slope
    bent = f2 * rest * rest + part * part * (bends - f2)
    pull, twice = use.curved_by(push - slope, r.surrogate), use.curved_by(twice, r.surrogate)
    return first + push * part, beta * (bent + part * (pull * rest + twice * part))
