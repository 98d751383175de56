"""Quantiles that never cross: sums of softplus along each row, and the quantile loss of each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...call.errors import CallValueError
from ..runtime.slots import unbound
from ..runtime.units import factor_of, kernel

__all__ = ["run"]


class Slots(NamedTuple):
    """Functions and settings that the template reads."""

    sigmoid: Callable[..., Any]
    """Logistic function in float64."""
    softplus: Callable[..., Any]
    """log(1 + exp(x)) in float64."""
    formula: Callable[..., Any]
    """Loss of one quantile in float64."""
    writes_gradient: bool
    """Whether derivatives are written."""


use = unbound(Slots)


def rows(lo, hi, scores, target, levels, factors, values, grad):
    """Mean loss of the quantiles of some rows, and its derivatives."""
    k = levels.size
    slopes = np.empty(k)
    for i in range(lo, hi):
        z, t = scores[i], np.float64(target[i])
        q, total = 0.0, 0.0
        for j in range(k):
            # A sum of positive steps: no quantile crosses another, whatever the scores are.
            q = np.float64(z[j]) if j == 0 else q + use.softplus(np.float64(z[j]))
            out = use.formula(q, t, np.float64(levels[j]))
            total += out[0]
            slopes[j] = out[1]
        values[i] = total / k
        factor = factor_of(factors, i) / k
        if use.writes_gradient:
            # A step moves its own quantile and all above it.
            above = 0.0
            # Downwards, so that one running sum has the slopes of all quantiles above.
            for j in range(k - 1, -1, -1):
                above += slopes[j]
                own = 1.0 if j == 0 else use.sigmoid(np.float64(z[j]))
                # A row that does not count may hold anything.
                grad[i, j] = factor * above * own if factor != 0.0 else 0.0


def run(call: Any) -> None:
    """Evaluate every row."""
    scores, levels, grads = call["scores"], call["levels"], list(call.grads.values())
    wrong = np.diff(levels) <= 0.0
    if wrong.any():
        i = int(wrong.argmax()) + 1
        raise CallValueError(f"is {levels[i]:g}, after {levels[i - 1]:g}; expected growing levels", "levels", (i,))
    flags = (("writes_gradient", bool(grads)),)
    found = kernel(rows, "ordered_quantiles", "float64", call.record.function, (), flags)
    grad = grads[0] if grads else np.empty((0, 0), scores.dtype)
    factors = call.factors() if grads else np.ones(1)
    found(call.units, 30.0 * scores.size, scores, call["target"], levels, factors, call.values, grad)
