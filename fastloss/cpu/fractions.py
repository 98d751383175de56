"""Losses of groups whose rates are fractions of two sums, both of which move with the scores.

With h the probability of the decision that a statistic asks about, the rate of a group is
gain sum(w h t) / sum(w (h + base t)). Sums are formed for each block of samples and added in order, so that results
have the same bits on any number of threads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .fairness import BLOCK, ROOM, codes_of
from .runtime.intrinsics import widest_vectors
from .runtime.slots import unbound
from .runtime.units import factor_of, kernel

__all__ = ["run"]

NEGATED = frozenset({"false_omission_parity"})
"""Losses whose h is the probability of a negative decision."""


class Slots(NamedTuple):
    """Functions and constants that the templates read."""

    T: type
    """Number type of the scores, np.float32 or np.float64."""
    sigmoid: Callable[..., Any]
    """Logistic function in that type."""
    negated: bool
    """Whether h is the probability of a negative decision."""
    formula: Callable[..., Any]
    """Formula of the loss in float64; absent from kernels of samples."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of an array."""


use = unbound(Slots)


def sum_fractions(lo, hi, lengths, settings, scores, labels, weights, codes, partial):
    """Sum numerator and denominator of each group over some blocks."""
    widest_vectors()
    room = np.empty(512, scores.dtype)
    gain, base = settings[0], settings[1]
    for block in range(lo, hi):
        sums = partial[block]
        for g in range(sums.shape[0]):
            # Cleared by the thread that adds: the memory is in its cache then.
            sums[g, 0], sums[g, 1] = 0.0, 0.0
        end = min((block + 1) * lengths[0], scores.size)
        for a in range(block * lengths[0], end, room.size):
            x = scores[a : min(a + room.size, end)]
            # Apart from the sums, whose groups lie anywhere, this loop runs in vectors.
            for i in range(x.size):
                room[i] = use.sigmoid(-x[i] if use.negated else x[i])
            for i in range(x.size):
                w = weights[a + i] if weights.size > 0 else 1.0
                # Skipped, not multiplied: a sample of weight 0 may hold NaN.
                if w == 0.0:
                    continue
                g, h = codes[a + i], np.float64(room[i])
                sums[g, 0] += gain * w * h if labels[a + i] != 0 else 0.0
                sums[g, 1] += w * (h + base) if labels[a + i] != 0 else w * h


def judge_fractions(lo, hi, params, partial, values, counted, slopes):
    """Evaluate the formula of each group, and its slopes by the two sums."""
    p = use.unpack(params)
    groups = partial.shape[1]
    sums = np.zeros((groups, 2))
    # In the order of the blocks, whichever threads summed them: the same bits on any number of threads.
    for block in range(partial.shape[0]):
        for g in range(groups):
            sums[g, 0] += partial[block, g, 0]
            sums[g, 1] += partial[block, g, 1]
    top, bottom, there = 0.0, 0.0, 0.0
    for g in range(groups):
        top += sums[g, 0]
        bottom += sums[g, 1]
        there += 1.0 if sums[g, 1] != 0.0 else 0.0
    value, common = 0.0, 0.0
    for g in range(groups):
        slopes[g, 0], slopes[g, 1] = 0.0, 0.0
        if sums[g, 1] != 0.0:
            rate = sums[g, 0] / sums[g, 1]
            out = use.formula(rate, top / bottom, sums[g, 1] / bottom, *p)
            value += out[0] / there
            common += out[2] / there
            slopes[g, 0] = out[1] / there / sums[g, 1]
            # The quotient rule: numerator and denominator both move with the scores.
            slopes[g, 1] = -slopes[g, 0] * rate
    if there > 0.0:
        for g in range(groups):
            # The rate of all samples moves with every group.
            slopes[g, 0] += common / bottom
            slopes[g, 1] -= common / bottom * (top / bottom)
    values[0] = value
    counted[0] = 1.0 if there > 0.0 else 0.0


def spread_fractions(lo, hi, lengths, settings, scores, labels, weights, codes, slopes, factors, grad):
    """Write the gradient of some blocks: slopes by the sums of a sample's group, times those of the sums by h."""
    T = use.T
    widest_vectors()
    room = np.empty(512, scores.dtype)
    factor, gain = factor_of(factors, 0), settings[0]
    side = -1.0 if use.negated else 1.0
    for a in range(lo * lengths[0], min(hi * lengths[0], scores.size), room.size):
        b = min(a + room.size, hi * lengths[0], scores.size)
        x, out = scores[a:b], grad[a:b]
        for i in range(x.size):
            w = weights[a + i] if weights.size > 0 else 1.0
            g = codes[a + i]
            slope = slopes[g, 1] + (gain * slopes[g, 0] if labels[a + i] != 0 else 0.0)
            room[i] = T(side * slope * w * factor) if w != 0.0 and factor != 0.0 else T(0.0)
        for i in range(x.size):
            # A sample that does not count may hold anything.
            out[i] = room[i] * (use.sigmoid(x[i]) * use.sigmoid(-x[i])) if room[i] != T(0.0) else T(0.0)


def run(call: Any) -> None:
    """Evaluate the loss of the batch."""
    name, scores, beta = call.record.name, call["scores"], float(call.parameters.get("beta", 0.0))
    flags = (("negated", name in NEGATED),)
    codes, groups = codes_of(call["group"])
    size = max(BLOCK, -(-2 * groups * scores.size // ROOM))
    lengths, settings, blocks = np.array([size]), np.array([1.0 + beta**2, beta**2]), -(-scores.size // size)
    weights = call["sample_weight"]
    weights = np.empty(0) if weights is None else weights
    partial, slopes, call.counted = np.empty((blocks, groups, 2)), np.empty((groups, 2)), np.empty(1)
    samples = (lengths, settings, scores, call["labels"], weights, codes)
    sums = kernel(sum_fractions, "fraction_sums", call.name, None, (), flags)
    sums(blocks, 4 * scores.size, *samples, partial)
    judges = kernel(judge_fractions, f"{name}_judge", "float64", call.record.function, (), flags)
    judges(1, 1, call.numbers(), partial, call.values, call.counted, slopes)
    for grad in call.grads.values():
        spreads = kernel(spread_fractions, "fraction_slopes", call.name, None, (), flags)
        spreads(blocks, 4 * scores.size, *samples, slopes, call.factors(), grad)
