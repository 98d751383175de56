"""Connectionist temporal classification: sums over alignments, forward and backward, of numbers of any size.

A probability is m * 2**e with 1 <= m < 2 and a whole number e, both in float64: it neither underflows nor takes a
logarithm, however long the sequence and however unlikely the symbols. Zero is m = 0 with the lowest e.

States lie in pairs: blank[i], after i symbols, and symbol[i], within the i-th one, counted from 1.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...call import check
from ...call.arrays import I64, constants
from ...call.errors import CallValueError
from ..dispatch import PARALLEL_FROM
from ..math.scalar_math import exp64, log64
from ..runtime.slots import Number, unbound
from ..runtime.specialize import LOOP, SCALAR, cached_jit, compiled
from ..runtime.units import factor_of, kernel

__all__ = ["prepare", "run"]

use = unbound(Number)

LOWEST = -1e306
"""The exponent of zero."""

LEAST = -1e300
"""Log-probabilities below it count as minus infinity, so that a million of them have a sum."""

LOG2E, LN2 = 1.0 / math.log(2.0), math.log(2.0)
LN2_HIGH = float.fromhex("0x1.62e42feep-1")
LN2_LOW = 1.9082149292705877e-10
SHIFT, ORIGIN = 4503599627370496.0, 4503599627371519.0
"""2**52, whose last bits hold a whole number; and the same with the bias of exponents."""

MANTISSA, ONE, SHIFT_BITS = (1 << 52) - 1, 1023 << 52, 0x433 << 52


# No sum inside a number may be rearranged.
@compiled(SCALAR)
def power(d):
    """2**d for a whole d of at most 1023; what is below the normal numbers becomes the least of them."""
    # Clamped, not tested: what is 2**1022 times smaller than the largest term changes no bit of the sum.
    low = d if d > -1022.0 else -1022.0
    # Takes no conversion: added to ORIGIN, d stands in the low bits, from where it is shifted to the exponent.
    return np.int64(np.float64(low + ORIGIN).view(np.int64) << 52).view(np.float64)


@compiled(SCALAR)
def normal(m, e):
    """Return the number m 2^e with m in [1, 2); zero and NaN stay."""
    bits = np.float64(m).view(np.int64)
    # Takes no conversion: the exponent becomes the low bits of a float, whose origin is then subtracted.
    k = np.int64((bits >> 52) | SHIFT_BITS).view(np.float64) - ORIGIN
    some = m > 0.0
    one = np.int64((bits & MANTISSA) | ONE).view(np.float64)
    return one if some else m, e + k if some else LOWEST


@compiled(SCALAR)
def parts(x):
    """exp(x) as such a number, but for its m, which lies between 1/2 and 2."""
    # The whole part of the exponent is kept as a number: nothing under- or overflows, whatever x is.
    n = np.floor(x * LOG2E + 0.5)
    # ln 2 in two parts: n times the high one is exact, so that r keeps the digits of x.
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    # Where x has no digit behind the point, r is rounding; x - x is NaN for what is not finite.
    m = exp64(min(max(r, -1.0), 1.0)) + (x - x)
    none = x < LEAST
    return 0.0 if none else m, LOWEST if none else n


def emissions(x, labels, blank, pm, pe):
    """Probabilities of the blank and of each symbol of a target in one frame."""
    pm[0], pe[0] = parts(np.float64(x[blank]))
    for i in range(labels.size):
        pm[i + 1] = np.float64(x[labels[i]])
    # Keeps the exponentials vectorised: they are computed apart from the gather before.
    for i in range(1, labels.size + 1):
        pm[i], pe[i] = parts(pm[i])


@compiled(LOOP)
def step(before, p, skip, after):
    """One frame forward."""
    bm, be, sm, se = before[0], before[1], before[2], before[3]
    am, ae, zm, ze = after[0], after[1], after[2], after[3]
    pm, pe = p[0], p[1]
    top = max(be[0], se[0])
    # The first blank has no state before it: apart, so that the loop below has no end to test.
    am[0], ae[0] = normal((bm[0] * power(be[0] - top) + sm[0] * power(se[0] - top)) * pm[0], top + pe[0])
    zm[0], ze[0] = 0.0, LOWEST
    for i in range(1, skip.size - 1):
        top = max(be[i], se[i])
        m = bm[i] * power(be[i] - top) + sm[i] * power(se[i] - top)
        am[i], ae[i] = normal(m * pm[0], top + pe[0])
        over = se[i - 1] if skip[i] > 0.0 else LOWEST
        # Keeps each sum in range: terms are relative to the largest exponent, and those far below it count for nothing.
        top = max(max(se[i], be[i - 1]), over)
        m = sm[i] * power(se[i] - top) + bm[i - 1] * power(be[i - 1] - top)
        # Keeps the loop vectorised: a skip that is not allowed is multiplied by 0, not branched on.
        m += skip[i] * sm[i - 1] * power(over - top)
        zm[i], ze[i] = normal(m * pm[i], top + pe[i])


@compiled(LOOP)
def back(state, p, skip, after):
    """One frame backward; `after` is room for the states times their probabilities."""
    bm, be, sm, se = state[0], state[1], state[2], state[3]
    qm, qe, rm, re = after[0], after[1], after[2], after[3]
    pm, pe = p[0], p[1]
    n = skip.size - 1
    # Products first: each state below reads that of its neighbour, which would otherwise be computed twice.
    for i in range(n):
        qm[i], qe[i] = normal(bm[i] * pm[0], be[i] + pe[0])
        rm[i], re[i] = normal(sm[i] * pm[i], se[i] + pe[i])
    for i in range(n):
        top = max(qe[i], re[i + 1])
        bm[i], be[i] = normal(qm[i] * power(qe[i] - top) + rm[i + 1] * power(re[i + 1] - top), top)
        over = re[i + 1] if skip[i + 1] > 0.0 else LOWEST
        top = max(max(re[i], qe[i]), over)
        m = rm[i] * power(re[i] - top) + qm[i] * power(qe[i] - top)
        sm[i], se[i] = normal(m + skip[i + 1] * rm[i + 1] * power(over - top), top)
    sm[0], se[0] = 0.0, LOWEST


FEW = 12
"""Symbols of a target below which `back_few` is the faster: 48 ns a frame instead of 146 at 5, 71 and 130 at 8, the
same at 15, 314 and 161 at 40 (512-bit vectors)."""


@compiled(LOOP)
def back_few(state, p, skip):
    """One frame backward for short targets, with the bits of `back`.

    In one loop, which takes each symbol's product along and so stays scalar: the tests for overlap before the two loops
    of `back`, of ten arrays, take longer than all states of a short target.
    """
    bm, be, sm, se = state[0], state[1], state[2], state[3]
    pm, pe = p[0], p[1]
    n = skip.size - 1
    rm, re = normal(sm[0] * pm[0], se[0] + pe[0])
    for i in range(n):
        qm, qe = normal(bm[i] * pm[0], be[i] + pe[0])
        # None follows the last symbol.
        following, exponent = 0.0, LOWEST
        if i + 1 < n:
            following, exponent = normal(sm[i + 1] * pm[i + 1], se[i + 1] + pe[i + 1])
        top = max(qe, exponent)
        bm[i], be[i] = normal(qm * power(qe - top) + following * power(exponent - top), top)
        over = exponent if skip[i + 1] > 0.0 else LOWEST
        top = max(max(re, qe), over)
        m = rm * power(re - top) + qm * power(qe - top)
        sm[i], se[i] = normal(m + skip[i + 1] * following * power(over - top), top)
        rm, re = following, exponent
    sm[0], se[0] = 0.0, LOWEST


@compiled(LOOP)
def clear(state):
    """Make all states of a row impossible."""
    for k in range(2):
        m, e = state[2 * k], state[2 * k + 1]
        for i in range(m.size):
            m[i] = 0.0
            e[i] = LOWEST


@compiled(LOOP)
def posteriors(reached, state, share):
    """Probability of each symbol of a target to be the one of this frame; that of a blank first.

    Divided by their own sum, not by that of all alignments: where the exponents have no digit left, it is still 1.
    """
    am, ae, zm, ze = reached[0], reached[1], reached[2], reached[3]
    bm, be, sm, se = state[0], state[1], state[2], state[3]
    top = ae[0] + be[0]
    for i in range(share.size):
        top = max(top, max(ae[i] + be[i], ze[i] + se[i]))
    none, total = 0.0, 0.0
    for i in range(share.size):
        none += am[i] * bm[i] * power(ae[i] + be[i] - top)
        share[i] = zm[i] * sm[i] * power(ze[i] + se[i] - top)
        total += share[i]
    share[0] = none
    # One division a frame, and a product for each symbol.
    inverse = 1.0 / (none + total)
    for i in range(share.size):
        share[i] *= inverse


def forward(x, i, frames, labels, blank, skip, states, emitted):
    """Sum over all alignments of sequence i; the states and probabilities of every frame stay where there is room."""
    n = labels.size
    # Only the first frame: the others are written whole.
    clear(states[0])
    states[0, 0, 0], states[0, 1, 0] = 1.0, 0.0
    now = 0
    for t in range(frames):
        p = emitted[t % emitted.shape[0]]
        emissions(x[t, i], labels, blank, p[0], p[1])
        # A ring of two frames where no derivatives are wanted, of all of them where they are.
        then = (now + 1) % states.shape[0]
        step(states[now], p, skip, states[then])
        now = then
    s = states[now]
    e = max(s[1, n], s[3, n])
    m, e = normal(s[0, n] * power(s[1, n] - e) + s[2, n] * power(s[3, n] - e), e)
    # About 1, so that nothing cancels where the loss is near 0.
    return (0.5 * m, e + 1.0) if m > 1.5 else (m, e)


def backward(grad, i, frames, labels, blank, skip, states, emitted, factor, sums, rest, top):
    """Derivatives of sequence i: minus the probability of each symbol in each frame, given the target."""
    n = labels.size
    state = rest[0]
    # Scratch of the chunk: an allocation a sequence would count references.
    share = top[: n + 1]
    clear(state)
    clear(rest[1])
    state[0, n], state[1, n] = 1.0, 0.0
    if n > 0:
        state[2, n], state[3, n] = 1.0, 0.0
    for t in range(frames - 1, -1, -1):
        posteriors(states[t + 1], state, share)
        sums[blank] = share[0]
        for j in range(n):
            # Adds, since a symbol may stand in a target more than once.
            sums[labels[j]] += share[j + 1]
        g = grad[t, i]
        for k in range(g.size):
            # All symbols of the vocabulary: what stands in no target has the derivative 0, which is written too.
            g[k] = use.T(-factor * sums[k])
        for j in range(n):
            # Saves clearing the whole vocabulary: only these entries were set.
            sums[labels[j]] = 0.0
        if n < FEW:
            back_few(state, emitted[t], skip)
        else:
            back(state, emitted[t], skip, rest[1])


def sequences(lo, hi, log_probs, targets, frames, lengths, settings, factors, values, grad):
    """Loss and derivatives of each sequence."""
    blank = settings[0]
    wanted = grad.size > 0
    longest, widest = 0, 0
    for i in range(lo, hi):
        longest = max(longest, frames[i])
        widest = max(widest, lengths[i])
    # Bounds memory where no derivatives are wanted: two frames of states suffice forward.
    states = np.empty((longest + 1 if wanted else 2, 4, widest + 2))
    emitted = np.empty((max(longest, 1) if wanted else 1, 2, widest + 1))
    rest = np.empty((2, 4, widest + 2))
    skip, top = np.empty(widest + 2), np.empty(widest + 1)
    sums = np.zeros(log_probs.shape[2])
    for i in range(lo, hi):
        labels = targets[i, : lengths[i]]
        for j in range(skip.size):
            skip[j] = 1.0 if 2 <= j <= labels.size and labels[j - 1] != labels[j - 2] else 0.0
        m, e = forward(log_probs, i, frames[i], labels, blank, skip[: labels.size + 2], states, emitted)
        # A target longer than its frames allow has no alignment: its loss is infinite, or 0 on request.
        impossible = m == 0.0
        values[i] = (0.0 if settings[1] else np.inf) if impossible else 0.0 - (log64(m) + e * LN2)
        if wanted:
            factor = factor_of(factors, i)
            counts = factor != 0.0 and not impossible
            for t in range(frames[i] if counts else 0, grad.shape[0]):
                g = grad[t, i]
                for k in range(g.size):
                    g[k] = use.T(0.0)
            if counts:
                near = skip[: labels.size + 2]
                backward(grad, i, frames[i], labels, blank, near, states, emitted, factor, sums, rest, top)


HELPERS = (emissions, forward, backward)


@cached_jit(error_model="numpy")
def all_symbols(targets, v, blank):
    """Whether all targets are symbols other than the blank; takes a tenth of the time of NumPy's comparisons."""
    wrong = 0
    for i in range(targets.size):
        # Counted, not stopped at: a loop that may end early does not vectorise.
        wrong += (targets[i] < 0) | (targets[i] >= v) | (targets[i] == blank)
    return wrong == 0


def _checked(call: Any, lengths: Any) -> Any:
    """The targets; raise for the first symbol that counts and is none, or is the blank."""
    targets, v, blank = call["targets"], call.dims["v"], call.parameters["blank"]
    if blank >= v:
        raise CallValueError(f"is {blank}; allowed: {check.labels_allowed(v, None)}", "blank")
    if all_symbols(targets.reshape(-1), v, blank):
        return targets
    wrong = (targets < 0) | (targets >= v) | (targets == blank)
    wrong &= np.arange(targets.shape[1]) < lengths[:, None]
    if wrong.any() and call.weight is not None:
        away = wrong & (call.weight == 0.0)[:, None]
        # Any symbol will do.
        targets, wrong = np.where(away, int(blank == 0), targets), wrong & ~away
    if wrong.any():
        first = int(np.argmax(wrong.reshape(-1)))
        value = call.given["targets"].reshape(-1)[first]
        problem = f"is {value}; allowed: 0 to {v - 1}, but not {blank}, which is the blank"
        raise CallValueError(problem, "targets", check.index_of(first, targets.shape))
    return targets


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates every sequence of calls like one."""
    (t, n, _), symbols = call["log_probs"].shape, call["targets"].shape[1]
    full = np.full(n, t), np.full(n, symbols)
    settings = constants(I64, call.parameters["blank"], call.parameters["zero_infinity"])
    each = kernel(sequences, "ctc", call.name, None, HELPERS)
    no_grad, size = np.empty((0, 0, 0), call.dtype), call["log_probs"].size if call.grads else 0
    # Small work need not be counted.
    most = n * t * (16.0 * symbols + 16.0) + size
    few = each.bound(n, most) if most < PARALLEL_FROM else None

    def evaluate(call: Any) -> None:
        frames, lengths = call.arrays["input_lengths"], call.arrays["target_lengths"]
        frames, lengths = full[0] if frames is None else frames, full[1] if lengths is None else lengths
        targets = _checked(call, lengths)
        grad = call.grads.get("log_probs", no_grad)
        factors = call.factors() if grad.size else NO_FACTORS
        arrays = (call.arrays["log_probs"], targets, frames, lengths, settings, factors, call.values, grad)
        if few is not None:
            few(*arrays)
        else:
            each(n, float(frames @ (16 * lengths + 16)) + size, *arrays)

    return evaluate


def run(call: Any) -> None:
    """Evaluate every sequence."""
    prepare(call)(call)


NO_FACTORS = np.ones(1)
