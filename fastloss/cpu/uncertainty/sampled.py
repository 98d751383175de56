"""Cross-entropy of the mean probability over draws of Gaussian logits.

Draws are a function of the seed and of their index: a hash of it makes two uniform numbers, and these a normal one
(Box and Muller). So results have the same bits on any number of threads.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ..math.scalar_math import exp64, log64
from ..runtime.slots import unbound
from ..runtime.units import factor_of, kernel

__all__ = ["run"]

STEP, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""Constants of SplitMix64 (Steele, Lea, Flood 2014)."""


class Slots(NamedTuple):
    """Settings that the template reads."""

    writes_gradient: bool
    """Whether derivatives are written."""


use = unbound(Slots)


def uniform(index):
    """Return a number in (0, 1), the hash of an index."""
    z = index * STEP
    # A hash of the index, not a state: any thread can draw any number.
    z = (z ^ (z >> np.uint64(30))) * FIRST
    z = (z ^ (z >> np.uint64(27))) * SECOND
    z = z ^ (z >> np.uint64(31))
    # 53 bits, in the middle of their interval: neither 0, whose logarithm is infinite, nor 1.
    return (np.float64(z >> np.uint64(11)) + 0.5) * 1.1102230246251565e-16


def normal(index):
    """Return a standard normal number, a function of an index."""
    one = np.uint64(1)
    radius = math.sqrt(-2.0 * log64(uniform((index << one) + one)))
    return radius * math.cos(6.283185307179586 * uniform((index << one) + one + one))


def rows(lo, hi, settings, logits, log_var, labels, factors, values, by_logits, by_log_var):
    """Loss of some rows, and its derivatives."""
    k, draws, seed = logits.shape[1], settings[0], np.uint64(settings[1])
    room = np.empty((4, k))
    noise, p, slope, bend = room[0], room[1], room[2], room[3]
    for i in range(lo, hi):
        z, v, label = logits[i], log_var[i], labels[i]
        # The log of the largest probability of the label so far, and the sum of all relative to it.
        top, total = -math.inf, 0.0
        for j in range(k):
            slope[j], bend[j] = 0.0, 0.0
        for d in range(draws):
            largest = -math.inf
            for j in range(k):
                index = np.uint64((i * draws + d) * k + j) + (seed << np.uint64(40))
                noise[j] = exp64(0.5 * np.float64(v[j])) * normal(index)
                p[j] = np.float64(z[j]) + noise[j]
                largest = p[j] if p[j] > largest or p[j] != p[j] else largest
            own, mass = p[label] - largest, 0.0
            for j in range(k):
                p[j] = exp64(p[j] - largest)
                mass += p[j]
            # A log-probability of at most 0, however far the draws lie.
            own -= log64(mass)
            scale = 1.0
            if own > top:
                # Relative to the largest so far: the mean of probabilities never underflows.
                scale, top = exp64(top - own), own
            share = exp64(own - top)
            total = total * scale + share
            if use.writes_gradient:
                for j in range(k):
                    g = share * (p[j] / mass - (1.0 if j == label else 0.0))
                    # Sums of derivatives change their scale with the sum that divides them.
                    slope[j] = slope[j] * scale + g
                    bend[j] = bend[j] * scale + g * noise[j]
            # NaN comes through, which comparisons lose.
            total += 0.0 * own if own != own else 0.0
        values[i] = math.log(draws) - top - log64(total)
        factor = factor_of(factors, i)
        if use.writes_gradient:
            for j in range(k):
                # A row that does not count may hold anything.
                by_logits[i, j] = factor * slope[j] / total if factor != 0.0 else 0.0
                by_log_var[i, j] = factor * (0.5 * bend[j] / total) if factor != 0.0 else 0.0


def run(call: Any) -> None:
    """Evaluate every row."""
    logits, grads = call["logits"], list(call.grads.values())
    settings = np.array([int(call.parameters["samples"]), int(call.parameters["seed"])], np.int64)
    none = np.empty((0, 0), logits.dtype)
    helpers = (uniform, normal)
    found = kernel(rows, "sampled", "float64", None, helpers, (("writes_gradient", bool(grads)),))
    factors, outs = (call.factors(), grads) if grads else (np.ones(1), [none, none])
    work = 40.0 * logits.size * settings[0]
    found(call.units, work, settings, logits, call["log_var"], call["labels"], factors, call.values, *outs)
