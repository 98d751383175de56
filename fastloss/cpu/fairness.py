"""Losses of groups: sums over the samples of each group, a formula of the rates, and its slopes back to the samples.

A cell is a group, or a group's positives or negatives. Sums are formed for each block of samples and added in order, so
that results have the same bits on any number of threads.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .runtime.intrinsics import widest_vectors
from .runtime.slots import unbound
from .runtime.units import factor_of, kernel

__all__ = ["run"]

BLOCK = 1 << 15
"""Samples per block, where there are few cells."""

ROOM = 1 << 22
"""Numbers that the sums of all blocks take at most: blocks grow with the number of cells."""

FEW = 1 << 12
"""Largest range of labels of groups that are counted as they are; sorting them would take 80 ns a sample."""

SIGMOID, SCORE, CROSS_ENTROPY = range(3)
"""Quantities of a sample that a group averages."""

ALL, POSITIVES, BOTH = range(3)
"""Samples that count in a rate: all, the positives, or positives and negatives apart."""

USES = {
    "demographic_parity": (SIGMOID, ALL),
    "equal_opportunity": (SIGMOID, POSITIVES),
    "equalized_odds": (SIGMOID, BOTH),
    "bounded_group_loss": (CROSS_ENTROPY, ALL),
    "covariance_fairness": (SCORE, ALL),
}
"""Quantity and samples of each loss."""


class Slots(NamedTuple):
    """Functions and constants that the templates read."""

    T: type
    """Number type of the scores, np.float32 or np.float64."""
    sigmoid: Callable[..., Any]
    """Logistic function in that type."""
    softplus: Callable[..., Any]
    """log(1 + exp(x)) in that type."""
    quantity: int
    """Quantity of a sample: SIGMOID, SCORE or CROSS_ENTROPY."""
    chosen: int
    """Samples that count: ALL, POSITIVES or BOTH."""
    formula: Callable[..., Any]
    """Formula of the loss in float64; absent from kernels of samples."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of an array."""


use = unbound(Slots)


def sum_groups(lo, hi, lengths, scores, labels, weights, codes, partial):
    """Sum the weights of each cell, and the weights times the quantity of its samples, over some blocks."""
    widest_vectors()
    # 512 quantities, 2 or 4 kB, stay in the first-level cache between the two loops.
    room = np.empty(512, scores.dtype)
    for block in range(lo, hi):
        sums = partial[block]
        for cell in range(sums.shape[0]):
            sums[cell, 0], sums[cell, 1] = 0.0, 0.0
        end = min((block + 1) * lengths[0], scores.size)
        for a in range(block * lengths[0], end, room.size):
            x = scores[a : min(a + room.size, end)]
            # Apart from the sums, whose cells lie anywhere, these loops run in vectors.
            if use.quantity == SIGMOID:
                for i in range(x.size):
                    room[i] = use.sigmoid(x[i])
            elif use.quantity == SCORE:
                for i in range(x.size):
                    room[i] = x[i]
            else:
                for i in range(x.size):
                    room[i] = use.softplus(-x[i] if labels[a + i] != 0 else x[i])
            for i in range(x.size):
                w = weights[a + i] if weights.size > 0 else 1.0
                positive = use.chosen == ALL or labels[a + i] != 0
                # Skipped, not multiplied: a sample of weight 0 may hold NaN.
                if w == 0.0 or (use.chosen == POSITIVES and not positive):
                    continue
                cell = 2 * codes[a + i] + int(positive) if use.chosen == BOTH else codes[a + i]
                sums[cell, 0] += w
                sums[cell, 1] += w * np.float64(room[i])


def judge_groups(lo, hi, params, conditions, partial, values, counted, slopes):
    """Evaluate the formula of each cell, and its slope by the quantity of one sample of weight 1."""
    p = use.unpack(params)
    kinds, cells = conditions[0], partial.shape[1]
    sums = np.zeros((cells, 2))
    # In the order of the blocks, whichever threads summed them: the same bits on any number of threads.
    for block in range(partial.shape[0]):
        for cell in range(cells):
            sums[cell, 0] += partial[block, cell, 0]
            sums[cell, 1] += partial[block, cell, 1]
    total, there = 0.0, 0.0
    for kind in range(kinds):
        mass, whole, groups = 0.0, 0.0, 0.0
        for cell in range(kind, cells, kinds):
            mass += sums[cell, 0]
            whole += sums[cell, 1]
            groups += 1.0 if sums[cell, 0] != 0.0 else 0.0
        there += 1.0 if mass != 0.0 else 0.0
        value, common = 0.0, 0.0
        for cell in range(kind, cells, kinds):
            slopes[cell] = 0.0
            if sums[cell, 0] != 0.0:
                out = use.formula(sums[cell, 1] / sums[cell, 0], whole / mass, sums[cell, 0] / mass, *p)
                value += out[0] / groups
                common += out[2] / groups
                slopes[cell] = out[1] / (groups * sums[cell, 0])
        for cell in range(kind, cells, kinds):
            # The mean of all samples moves with every one, also with those of a cell that has no gap.
            slopes[cell] += common / mass if mass != 0.0 else 0.0
        total += value
    values[0] = total / there if there > 0.0 else 0.0
    counted[0] = 1.0 if there > 0.0 else 0.0
    for cell in range(cells):
        slopes[cell] /= max(there, 1.0)


def spread_groups(lo, hi, lengths, scores, labels, weights, codes, slopes, factors, grad):
    """Write the gradient of some blocks: the slope of a sample's cell times that of its quantity."""
    T = use.T
    widest_vectors()
    room = np.empty(512, scores.dtype)
    factor = factor_of(factors, 0)
    for a in range(lo * lengths[0], min(hi * lengths[0], scores.size), room.size):
        b = min(a + room.size, hi * lengths[0], scores.size)
        x, out = scores[a:b], grad[a:b]
        for i in range(x.size):
            w = weights[a + i] if weights.size > 0 else 1.0
            positive = use.chosen == ALL or labels[a + i] != 0
            counts = w != 0.0 and factor != 0.0 and (use.chosen != POSITIVES or positive)
            cell = 2 * codes[a + i] + int(positive) if use.chosen == BOTH else codes[a + i]
            room[i] = T(slopes[cell] * w * factor) if counts else T(0.0)
        for i in range(x.size):
            slope = T(1.0)
            if use.quantity == SIGMOID:
                # A product of two sigmoids: 1 - sigmoid(x) would have no digits from 17 on in float32.
                slope = use.sigmoid(x[i]) * use.sigmoid(-x[i])
            elif use.quantity == CROSS_ENTROPY:
                slope = -use.sigmoid(-x[i]) if labels[a + i] != 0 else use.sigmoid(x[i])
            # A sample that does not count may hold anything.
            out[i] = room[i] * slope if room[i] != T(0.0) else T(0.0)


def codes_of(groups: Any) -> tuple[Any, int]:
    """Return the number of each sample's group, from 0 on, and the number of groups; some may have no samples."""
    codes, count = None, 1
    for column in groups.T:
        low, high = int(column.min()), int(column.max())
        # Counted as they are: sorting labels takes 80 ns a sample.
        if 0 <= low and high < FEW:
            own, size = column, high + 1
        elif high - low < FEW:
            own, size = column - low, high - low + 1
        else:
            names, own = np.unique(column, return_inverse=True)
            own, size = own.reshape(-1), len(names)
        codes, count = own if codes is None else codes * size + own, count * size
        if count > FEW:
            names, codes = np.unique(codes, return_inverse=True)
            codes, count = codes.reshape(-1), len(names)
    if codes is None:
        # A table of groups without a column: all samples are of one group.
        return np.zeros(len(groups), np.int64), 1
    return np.ascontiguousarray(codes), count


def run(call: Any) -> None:
    """Evaluate the loss of the batch."""
    name, scores = call.record.name, call["scores"]
    quantity, chosen = USES[name]
    flags = (("quantity", quantity), ("chosen", chosen))
    codes, groups = codes_of(call["group"])
    kinds = 2 if chosen == BOTH else 1
    cells = groups * kinds
    size = max(BLOCK, -(-2 * cells * scores.size // ROOM))
    lengths, blocks = np.array([size]), -(-scores.size // size)
    labels = call.arrays.get("labels")
    weights = call["sample_weight"]
    labels = np.empty(0, np.uint8) if labels is None else labels
    weights = np.empty(0) if weights is None else weights
    partial, slopes, call.counted = np.empty((blocks, cells, 2)), np.empty(cells), np.empty(1)
    samples = (lengths, scores, labels, weights, codes)
    tag = f"{quantity}{chosen}"
    sums = kernel(sum_groups, f"fairness_sums_{tag}", call.name, None, (), flags)
    sums(blocks, 4 * scores.size, *samples, partial)
    judges = kernel(judge_groups, f"{name}_judge", "float64", call.record.function, (), flags)
    judges(1, 1, call.numbers(), np.array([kinds]), partial, call.values, call.counted, slopes)
    for grad in call.grads.values():
        spreads = kernel(spread_groups, f"fairness_slopes_{tag}", call.name, None, (), flags)
        spreads(blocks, 4 * scores.size, *samples, slopes, call.factors(), grad)
