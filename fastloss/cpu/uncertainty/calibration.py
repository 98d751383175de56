"""Soft-binned calibration error: sums over the samples of each bin, a power mean of them, and back to the samples."""

from typing import Any, NamedTuple

import numpy as np

from ..math.scalar_math import exp64
from ..runtime.slots import unbound
from ..runtime.units import kernel

__all__ = ["run"]

BLOCK = 1 << 12
"""Samples summed by themselves, for any number of threads."""


class Slots(NamedTuple):
    """Settings that the templates read: none."""

    T: type
    """Number type, np.float64."""


use = unbound(Slots)


def membership(c, width, u):
    """Write the weights of one confidence in all bins: softmax of minus its squared distances from their centres."""
    total, bins = 0.0, u.size
    nearest = min(max(int(c * bins), 0), bins - 1) if c == c else 0
    low = (c - (nearest + 0.5) / bins) * (c - (nearest + 0.5) / bins)
    for j in range(bins):
        # Relative to the nearest bin, whose exponential is 1: a small temperature underflows no sum.
        d = c - (j + 0.5) / bins
        u[j] = exp64((low - d * d) / width)
        total += u[j]
    for j in range(bins):
        # Each sample has weight 1 in all bins together.
        u[j] /= total


def sum_bins(lo, hi, settings, confidence, correct, partial):
    """Sum the weights of each bin, and the weights times correct less confidence, over some blocks."""
    u = np.empty(partial.shape[1])
    for block in range(lo, hi):
        sums = partial[block]
        for j in range(u.size):
            sums[j, 0], sums[j, 1] = 0.0, 0.0
        # Blocks depend on the size alone: the same bits on any number of threads.
        for i in range(block * BLOCK, min((block + 1) * BLOCK, confidence.size)):
            c = np.float64(confidence[i])
            gap = (1.0 if correct[i] != 0 else 0.0) - c
            membership(c, settings[0], u)
            for j in range(u.size):
                sums[j, 0] += u[j]
                sums[j, 1] += u[j] * gap


def spread_bins(lo, hi, settings, confidence, correct, slopes, grad):
    """Write the derivatives of some blocks: slopes by the sums of each bin, times those of the sums."""
    bins = slopes.shape[0]
    u = np.empty(bins)
    for i in range(lo * BLOCK, min(hi * BLOCK, confidence.size)):
        c = np.float64(confidence[i])
        gap = (1.0 if correct[i] != 0 else 0.0) - c
        membership(c, settings[0], u)
        centre = 0.0
        for j in range(bins):
            centre += u[j] * ((j + 0.5) / bins)
        total = 0.0
        for j in range(bins):
            # By the softmax, the weight of a bin grows with how far it lies beyond the mean of all.
            turn = u[j] * (2.0 * ((j + 0.5) / bins - centre) / settings[0])
            total += turn * (slopes[j, 0] + slopes[j, 1] * gap) - u[j] * slopes[j, 1]
        grad[i] = total


def run(call: Any) -> None:
    """Evaluate the error of the batch."""
    confidence, correct, p = call["confidence"], call["correct"], float(call.parameters["p"])
    n, bins = confidence.size, int(call.parameters["bins"])
    settings, blocks = np.array([float(call.parameters["temperature"])]), -(-n // BLOCK)
    partial = np.empty((blocks, bins, 2))
    work = 5.0 * n * bins
    sums = kernel(sum_bins, "calibration_sums", "float64", None, (membership,))
    sums(blocks, work, settings, confidence, correct, partial)
    # In the order of the blocks.
    mass, gaps = np.add.reduce(partial, axis=0).T
    # An empty bin has no error, and counts nothing.
    some = mass > 0.0
    error = np.abs(np.divide(gaps, mass, out=np.where(mass == mass, 0.0, mass), where=some))
    total = float((mass * error**p).sum() / n)
    value = total ** (1.0 / p)
    call.values[0] = value
    for grad in call.grads.values():
        # Of the p-th root of the total, 0 at a total of 0.
        outer = value ** (1.0 - p) / p / n * call.factors()[0] if value != 0.0 else 0.0
        by_mass, by_gap = (1.0 - p) * error**p, p * error ** (p - 1.0) * np.sign(gaps)
        slopes = np.ascontiguousarray(np.stack([outer * by_mass, outer * by_gap], axis=1))
        spreads = kernel(spread_bins, "calibration_slopes", "float64", None, (membership,))
        spreads(blocks, work, settings, confidence, correct, slopes, grad)
