"""Unlikelihood of candidates: -log(1 - p) of each under the softmax of its row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...call.errors import CallValueError
from ..math.scalar_math import exp64, log1p64, log64
from ..rows.softmax import maximum
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import unbound
from ..runtime.units import factor_of, kernel

__all__ = ["run"]


class Slots(NamedTuple):
    """Constants and functions that the templates of unlikelihood read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    exp: Callable[..., Any]
    """Exponential in that type."""
    top_of: Callable[..., Any]
    """Maximum of a row, NaN if it has one."""


use = unbound(Slots)

SMALL = 1e-20
"""A sum of all but the largest exponential that may have lost digits to underflow."""


def chosen(candidates, mask, seen, picked):
    """The candidates of a row, each once; how many they are."""
    count = 0
    for j in range(mask.size):
        if mask[j] != 0:
            picked[count] = j
            count += 1
    for j in range(candidates.size):
        c = candidates[j]
        # A candidate that is named twice counts once, in any order of naming.
        if c >= 0 and seen[c] == 0:
            seen[c] = 1
            picked[count] = c
            count += 1
    for j in range(count if candidates.size > 0 else 0):
        # Saves clearing the whole vocabulary: only these entries were set.
        seen[picked[j]] = 0
    return count


def exponentials_from(x, base, at, e):
    """Exponentials relative to base, but for a 0 in one place; their sum."""
    T = use.T
    widest_vectors()
    for j in range(x.size):
        e[j] = use.exp(x[j] - base)
    # Leaves out the largest, whose 1 - p is the others' share: subtracting p from 1 would lose it.
    e[at] = T(0.0)
    total = 0.0
    for lo in range(0, e.size, 512):
        block = e[lo : min(lo + 512, e.size)]
        # Keeps digits over a large vocabulary: a block is summed in the type of the arrays, blocks in float64.
        part = T(0.0)
        for j in range(block.size):
            part += block[j]
        total += np.float64(part)
    return total


def unlikely(x, candidates, e, g, factor):
    """Value of one row, and its derivatives if g is not empty. Sums stand relative to the largest score but one's."""
    T = use.T
    # The vectorised maximum of the softmax rows.
    top = use.top_of(x)
    at = 0
    while at < x.size - 1 and x[at] != top:
        at += 1
    base = top
    s = exponentials_from(x, top, at, e)
    # Keeps digits that underflow took: the sum is formed again, relative to the largest of the other scores.
    if s < SMALL and x.size > 1:
        base = max(
            use.top_of(x[:at]) if at > 0 else x[at + 1], use.top_of(x[at + 1 :]) if at + 1 < x.size else x[at - 1]
        )
        s = exponentials_from(x, base, at, e)
    apart = np.float64(base) - np.float64(top)
    shrink = exp64(apart)
    inverse = 1.0 / (1.0 + shrink * s)
    value, ratios, winner = 0.0, 0.0, 0.0
    for j in range(candidates.size):
        c = candidates[j]
        if c == at:
            value += log1p64(shrink * s) - (log64(s) + apart)
            winner = 1.0
        else:
            p = np.float64(e[c]) * shrink * inverse
            value -= log1p64(-p)
            ratios += p / (1.0 - p)
    if g.size > 0:
        each = T(-factor * inverse * (ratios * shrink + (winner / s if s > 0.0 else 0.0)))
        for k in range(g.size):
            g[k] = each * e[k]
        for j in range(candidates.size):
            c = candidates[j]
            if c != at:
                p = np.float64(e[c]) * shrink * inverse
                g[c] += T(factor * (p + p * p / (1.0 - p)))
        g[at] = T(factor * inverse * (winner - ratios))
    return value


def rows_of(lo, hi, logits, candidates, mask, factors, values, grad):
    """Value and derivatives of each row; one without candidates is never read."""
    T = use.T
    v = logits.shape[1]
    e, picked, seen = np.empty(v, T), np.empty(v, np.int64), np.zeros(v, np.uint8)
    for i in range(lo, hi):
        named, marked = candidates[i if candidates.size > 0 else 0], mask[i if mask.size > 0 else 0]
        count = chosen(named, marked, seen, picked)
        factor = factor_of(factors, i)
        g = grad[i if grad.size > 0 else 0]
        if count > 0:
            values[i] = unlikely(logits[i], picked[:count], e, g, factor)
        if count == 0 or factor == 0.0:
            for k in range(g.size):
                g[k] = T(0.0)


def run(call: Any) -> None:
    """Evaluate every row."""
    logits, candidates, mask = call["logits"], call["candidates"], call["mask"]
    if (candidates is None) == (mask is None):
        raise CallValueError("takes candidates, as indices, or mask; expected one of them")
    grad = call.grads.get("logits", np.empty((1, 0), call.dtype))
    factors = call.factors() if call.grads else np.ones(1)
    candidates = np.empty((1, 0), np.int64) if candidates is None else candidates
    mask = np.empty((1, 0), np.uint8) if mask is None else mask
    helpers = (chosen, exponentials_from, unlikely)
    each = kernel(rows_of, "unlikelihood", call.name, None, helpers, (("top_of", maximum(call.name)),), True)
    each(call.units, 2.0 * logits.size, logits, candidates, mask, factors, call.values, grad)
