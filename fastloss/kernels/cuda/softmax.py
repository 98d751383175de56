"""Softmax losses of rows for a GPU: the maximum and the sum of exponentials in one pass, derivatives in the last.

The sum is that of exponentials less one, so that a loss or a 1 - p near zero keeps its digits.
"""

from typing import Any

import numpy as np

from .teams import Merge

__all__ = [
    "ONLINE",
    "changed",
    "softmax_dense",
    "softmax_dense_slope",
    "softmax_labels",
    "softmax_slope",
    "softmax_term",
]

# Names that the templates below find bound when they are specialized; branches on flags are pruned.
T: Any = None
INFINITE: Any = None
exp: Any = None
log1p: Any = None
formula: Any = None
turn: Any = None
turning: Any = None
second: Any = None
fault_of: Any = None
read: Any = None
smooth: Any = None
taught: Any = None
turned: Any = None
scan: Any = None
learn: Any = None
total: Any = None
emit: Any = None


def _online(a, b, s):
    """Maximum, sum of exponentials less one; with smoothing, weighted sum of shifted logits, and the weights."""
    over = b[0] > a[0]
    above, below = b if over else a, a if over else b
    # Nothing is relative to minus infinity: exp(-inf - 0) is 0.
    shift = (below[0] - (above[0] if above[0] != -INFINITE else T(0.0))) * s[0]
    rest = above[1] + (below[1] + T(1.0)) * exp(shift)
    if smooth:
        moved = below[3] * shift if below[3] != T(0.0) else T(0.0)
        return above[0], rest, above[2] + below[2] + moved, above[3] + below[3]
    return above[0], rest


ONLINE = Merge(_online, (-np.inf, -1.0, 0.0, 0.0))
"""Of nothing, the sum less one is -1."""


def softmax_labels(r, o, f, p, q):
    """A softmax of each row against its label, whose score a formula may change first."""
    beta, eps, zeta = q
    x, first, bend = turn(read(r.inputs[0], r.row * r.k + np.uint64(r.y))[0], p, r.surrogate)
    found = scan(r, o, (beta, x), f, p)
    m = found[0]
    # Of infinite logits, all is NaN.
    tail = found[1] + (m - m)
    d = (x - m) * beta
    lt = log1p(tail)
    lse = m * beta + lt
    out = formula(d - lt, T(1.0), *p)
    keep, share = T(1.0) - eps, eps / T(r.k)
    # Selected, not multiplied: an infinite log-sum-exp times a z_loss of 0 would be NaN.
    push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
    f1, f2 = keep * r.c * out[1], keep * r.c * second(out, r.surrogate)
    v = keep * r.c * out[0] + (T(0.5) * push * lse if zeta > T(0.0) else T(0.0))
    extra, less = push, T(0.0)
    if smooth:
        # An infinite sum of logits counts where some of the target is on them.
        v += share * (found[3] * lt - found[2]) if share > T(0.0) else T(0.0)
        extra, less = push + share * found[3], share * r.c
    # A label that is not the maximum has a tail of at least its own exponential: 1 - picked loses nothing.
    inverse, picked = T(1.0) / (tail + T(1.0)), exp(d)
    part, rest = picked * inverse, (tail + (T(1.0) - picked)) * inverse
    here = beta * (f1 * rest + extra * part - less)
    pull, twice = extra - f1, T(2.0) * zeta
    bent = beta * beta * (pull * part * rest + f2 * rest * rest + twice * part * part)
    at_e, pq, pp = beta * pull * inverse, beta * beta * pull, beta * beta * (twice + f2)
    if turned:
        here, bent = here * first, bent * first * first + here * bend
    emit(r, o, (m, beta, tail, inverse, at_e, beta * share, here, pq, pp, bent), f, p)
    return v, T(0.0)


def changed(x, p, c):
    """The label's score as a formula changes it, and that formula's derivatives."""
    out = turning(x, *p)
    return out[0], out[1], second(out, c)


def softmax_slope(x, t, c, j, r, s, p):
    """Derivatives of a softmax against a label."""
    m, beta, tail, inverse, at_e, flat, here, pq, pp, bent = s
    own = j == np.uint64(r.y)
    e = exp((x - m) * beta)
    part = e * inverse
    rest = tail * inverse if e == T(1.0) else T(1.0) - part
    slope = e * at_e
    if smooth:
        slope -= flat * c
    return here if own else slope, bent if own else part * (pq * rest + pp * part)


def softmax_dense(r, o, f, p, q):
    """A softmax of each row against a target for each class; a teacher's logits are the target of a distillation."""
    beta, eps, zeta = q
    found = scan(r, o, (beta, T(0.0)), f, p)
    m = found[0]
    tail = found[1] + (m - m)
    lt = log1p(tail)
    lse = m * beta + lt
    # The target is (t - shift) * factor + plus.
    shift, factor, plus, again = T(0.0), T(1.0) - eps, eps / T(r.k), T(1.0)
    if taught:
        known = learn(r, o, (beta, T(0.0)), f, p)
        shift, factor, plus = known[0], beta, -log1p(known[1] + (known[0] - known[0]))
        again = T(1.0) / (beta * beta)
    aim = (m, beta, lt, shift, factor, plus)
    v, slope, others, bends, bad = total(r, o, aim, f, p)
    push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
    v += T(0.5) * push * lse if zeta > T(0.0) else T(0.0)
    if bad != T(0.0):
        v = f = T(np.nan)
    inverse = T(1.0) / (tail + T(1.0))
    emit(r, o, (*aim, tail, inverse, slope, others, bends, push, T(2.0) * zeta), f * again * beta, p)
    return v * again, bad


def softmax_term(x, t, c, j, r, s, p):
    """A class's value, derivatives and fault: sums of the row."""
    m, beta, lt, shift, factor, plus = s
    out = formula((x - m) * beta - lt, (t - shift) * factor + plus, *p)
    f1 = c * out[1]
    return c * out[0], f1, T(0.0) if x == m else f1, c * second(out, r.surrogate), fault_of(t, c)


def softmax_dense_slope(x, t, c, j, r, s, p):
    """Derivatives of a softmax against a target for each class."""
    m, beta, lt, shift, factor, plus, tail, inverse, slope, others, bends, push, twice = s
    out = formula((x - m) * beta - lt, (t - shift) * factor + plus, *p)
    f1, f2 = c * out[1], c * second(out, r.surrogate)
    part = exp((x - m) * beta) * inverse
    # A single winner's 1 - p is the tail's share: subtracting p from 1 would lose it.
    winner = (tail < T(1.0)) & (x == m)
    rest = tail * inverse if winner else T(1.0) - part
    first = f1 * rest - part * others if winner else f1 - part * slope
    bent = f2 * rest * rest + part * part * (bends - f2) - slope * part * rest
    return first + push * part, beta * (bent + part * (push * rest + twice * part))
