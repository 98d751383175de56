"""Softmax losses of lists: the relevance of a group's items, made a distribution, and the softmax of their scores."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dispatch import EMPTY
from ..math.scalar_math import log1p64
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import Typed, unbound
from ..runtime.units import kernel
from .groups import scale

__all__ = ["prepare", "run"]


use = unbound(Typed)


def top_of(x):
    """The largest element."""
    top = x[0]
    for i in range(x.size):
        top = x[i] if x[i] > top else top
    return top


def exponentials(x, top, out):
    """Sum of the exponentials relative to the largest element, less one of those that are 1."""
    T = use.T
    widest_vectors()
    rest, ones = 0.0, 0.0
    for i in range(x.size):
        out[i] = T(1.0) if x[i] == top else use.exp(x[i] - top)
        # Without the largest: log1p of the others keeps the digits of a loss near 0.
        rest += np.float64(T(0.0) if x[i] == top else out[i])
        ones += 1.0 if x[i] == top else 0.0
    return rest + (ones - 1.0)


def list_groups(lo, hi, offsets, scores, relevance, values, counted, grad):
    """Cross-entropy of each group, and the slope of each item."""
    T = use.T
    most = 0
    for g in range(lo, hi):
        most = max(most, offsets[g + 1] - offsets[g])
    room = np.empty((2, most), scores.dtype)
    for g in range(lo, hi):
        a, b = offsets[g], offsets[g + 1]
        n = b - a
        e, weights = room[0, :n], room[1, :n]
        x, r = scores[a:b], relevance[a:b]
        mass = 0.0
        if n > 1:
            best = top_of(r)
            for i in range(n):
                # Relative to the largest relevance, so that no exponential overflows.
                weights[i] = use.formula(r[i], best)
                mass += np.float64(weights[i])
        values[g] = 0.0
        counted[g] = 0.0 if mass == 0.0 else 1.0
        if mass == 0.0:
            if grad.size > 0:
                grad[a:b] = T(0.0)
            continue
        top = top_of(x)
        tail = exponentials(x, top, e)
        total = 0.0
        for i in range(n):
            # An item without a target costs nothing, however far below it scores.
            total += np.float64(weights[i]) * np.float64(top - x[i] if weights[i] != T(0.0) and x[i] != top else T(0.0))
        values[g] = log1p64(tail) + total / mass
        if grad.size > 0:
            out = grad[a:b]
            for i in range(n):
                # p (1 - t) - t (1 - p), with 1 - p formed without cancellation.
                t, others = weights[i] / mass, tail if x[i] == top else (1.0 + tail) - e[i]
                out[i] = T((e[i] * (1.0 - t) - t * others) / (1.0 + tail))


HELPERS = (top_of, exponentials)


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates every group of calls like one."""
    which = list_groups, call.record.name, call.name, call.record.function, HELPERS, (), True
    groups, units = kernel(*which).bound(call.units, 8.0 * call["scores"].size), call.units

    def evaluate(call: Any) -> None:
        scores, offsets = call.arrays["scores"], call.arrays["offsets"]
        grad = call.grads.get("scores", EMPTY[call.dtype])
        call.counted = np.empty(units)
        groups(offsets, scores, call.arrays["relevance"], call.values, call.counted, grad)
        if call.grads:
            scale(grad, call.factors(), offsets)

    return evaluate


def run(call: Any) -> None:
    """Evaluate every group."""
    prepare(call)(call)
