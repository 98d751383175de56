"""Minimum risk: the expected cost over a list of candidates, by probabilities that are sharpened and renormalised."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..math.scalar_math import exp64
from ..runtime.slots import unbound
from ..runtime.units import factor_of, kernel

__all__ = ["run"]


class Slots(NamedTuple):
    """Settings that the template reads."""

    writes_gradient: bool
    """Whether derivatives are written."""


use = unbound(Slots)


def lists(lo, hi, settings, log_prob, reward, factors, values, grad):
    """Expected cost of some lists, and its derivatives."""
    k, alpha = log_prob.shape[1], settings[0]
    q = np.empty(k)
    for i in range(lo, hi):
        top, total, mean = -math.inf, 0.0, 0.0
        for j in range(k):
            q[j] = alpha * np.float64(log_prob[i, j])
            # A NaN stays, as no comparison with it holds.
            top = q[j] if q[j] > top or q[j] != q[j] else top
        for j in range(k):
            q[j] = exp64(q[j] - top)
            total += q[j]
        for j in range(k):
            q[j] /= total
            # What is impossible has no part in the mean, whatever its reward.
            mean += q[j] * np.float64(reward[i, j]) if q[j] != 0.0 else 0.0
        values[i] = -mean
        factor = factor_of(factors, i) * alpha
        if use.writes_gradient:
            for j in range(k):
                # A list that does not count may hold anything.
                counts = factor != 0.0 and q[j] != 0.0
                grad[i, j] = -factor * q[j] * (np.float64(reward[i, j]) - mean) if counts else 0.0


def run(call: Any) -> None:
    """Evaluate every list."""
    log_prob, grads = call["log_prob"], list(call.grads.values())
    found = kernel(lists, "minimum_risk", "float64", None, (), (("writes_gradient", bool(grads)),))
    factors, out = (call.factors(), grads[0]) if grads else (np.ones(1), np.empty((0, 0), log_prob.dtype))
    settings = np.array([float(call.parameters["alpha"])])
    found(call.units, 8.0 * log_prob.size, settings, log_prob, call["reward"], factors, call.values, out)
