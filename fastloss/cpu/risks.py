"""Kernels of risks: sums over per-sample losses, and the weight of each sample, written over its loss.

All kernels compute in float64, whatever the dtype of the losses. Samples are summed in blocks of a fixed size and the
blocks are added in order, so results have the same bits on any number of threads. `masses` holds the weight of each
sample; it is empty where every sample weighs 1.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..call.arrays import NAMES
from .runtime.intrinsics import widest_vectors
from .runtime.slots import unbound
from .runtime.units import Kernel, kernel

__all__ = ["Level", "by_level", "excess", "exponential", "level_above", "mass_at", "write_excess", "write_exponential"]

BLOCK = 1 << 15
"""Samples per block."""

PART = 1 << 12
"""Samples of a block that are compared at a time, and stay in the first-level cache."""

ROOM = BLOCK // 8
"""Samples of one block that a selection copies at most."""

SELECTED_FROM = 1 << 17
"""Number of samples from which a random sample brackets a level; sorting fewer takes 2 ms at most."""

DRAWN = 1 << 16
"""Size of that random sample: a bracket of four standard deviations then holds 1.6% of all samples at most."""


class Slots(NamedTuple):
    """Functions and flags that the templates of risks read."""

    T: type
    """Number type of the kernel: float64, but of counts the type of the losses where all masses are 1."""
    exp: Callable[..., Any]
    """Exponential in float64."""
    expm1: Callable[..., Any]
    """Exponential less 1 in float64."""
    weighted: bool
    """Whether samples have masses of their own."""
    writes: bool
    """Whether weights are written over the losses."""


use = unbound(Slots)


def count_levels(lo, hi, losses, masses, bracket, partial, kept, kept_masses):
    """Sum the masses above two levels in some blocks, and copy the samples between them, the higher one included."""
    widest_vectors()
    one, nothing = use.T(1.0), use.T(0.0)
    low, high = bracket[0], bracket[1]
    inside, groups = np.empty(PART, np.uint8), np.empty(PART // 8 + 1, np.int32)
    words = inside.view(np.uint64)
    for block in range(lo, hi):
        row, end = kept[block], min(block * BLOCK + BLOCK, losses.size)
        # Keeps as many samples in a vector as their dtype allows: single precision counts a block exactly.
        above, k = nothing, 0
        for first in range(block * BLOCK, end, PART):
            x = losses[first : min(first + PART, end)]
            for i in range(x.size):
                m = use.T(masses[first + i]) if use.weighted else one
                above += m if x[i] > high else nothing
                inside[i] = np.uint8((x[i] > low) & (x[i] <= high))
            inside[x.size :] = 0
            # Skips most groups of eight, without a branch to mispredict: a look at each sample takes 10 times as long.
            found = 0
            for j in range(words.size):
                groups[found] = j
                found += words[j] != 0
            for j in range(found):
                start = 8 * np.intp(groups[j])
                for i in range(start, min(start + 8, x.size)):
                    if k < ROOM:
                        row[k] = x[i]
                        if use.weighted:
                            kept_masses[block, k] = masses[first + i]
                    k += np.intp(inside[i])
        partial[block, 0], partial[block, 1] = above, float(k)


def weigh_levels(lo, hi, losses, masses, numbers, partial):
    """Sum weight times loss in some blocks; the weight depends on the side of a level on which the loss lies."""
    widest_vectors()
    tau, above, equal, below = numbers[0], numbers[1], numbers[2], numbers[3]
    for block in range(lo, hi):
        first = block * BLOCK
        x = losses[first : min(first + BLOCK, losses.size)]
        total, lost = 0.0, 0.0
        for i in range(x.size):
            v = np.float64(x[i])
            m = masses[first + i] if use.weighted else 1.0
            # Selects, not branches: losses come in any order, and the loop stays in vectors.
            w = (above if v > tau else (equal if v == tau else below)) * m
            # Weight 0 removes a loss, infinite ones and NaN too.
            total += w * v if w != 0.0 else 0.0
            # NaN lies on no side of a level: its mass is counted, and by_level returns NaN.
            lost += m if v != v else 0.0
            if use.writes:
                x[i] = w
        partial[block, 0], partial[block, 1] = total, lost


def sum_excess(lo, hi, losses, masses, numbers, partial):
    """Sum the mass of some blocks above a level, and the first and second powers of what exceeds it."""
    widest_vectors()
    eta = numbers[0]
    for block in range(lo, hi):
        first = block * BLOCK
        x = losses[first : min(first + BLOCK, losses.size)]
        mass, one, two = 0.0, 0.0, 0.0
        for i in range(x.size):
            d = np.float64(x[i]) - eta
            m = (masses[first + i] if use.weighted else 1.0) if d > 0.0 else 0.0
            # Keeps 0 times infinity out of the sums: what lies below the level counts nothing, however far.
            d = d if d > 0.0 else 0.0
            mass += m
            one += m * d
            two += m * d * d
        partial[block, 0], partial[block, 1], partial[block, 2] = mass, one, two


def put_excess(lo, hi, losses, masses, numbers):
    """Write weights in proportion to what each loss of some blocks exceeds a level by."""
    eta, scale = numbers[0], numbers[1]
    for block in range(lo, hi):
        first = block * BLOCK
        x = losses[first : min(first + BLOCK, losses.size)]
        for i in range(x.size):
            d = np.float64(x[i]) - eta
            m = masses[first + i] if use.weighted else 1.0
            x[i] = m * d * scale if d > 0.0 else 0.0


def sum_exponential(lo, hi, losses, masses, numbers, partial):
    """Sum exp(rate d) - 1, d exp(rate d) and d^2 exp(rate d) of some blocks, with d = loss - origin."""
    rate, origin = numbers[0], numbers[1]
    for block in range(lo, hi):
        first = block * BLOCK
        x = losses[first : min(first + BLOCK, losses.size)]
        less, one, two = 0.0, 0.0, 0.0
        for i in range(x.size):
            m = masses[first + i] if use.weighted else 1.0
            d = np.float64(x[i]) - origin if m != 0.0 else 0.0
            # Without 1: at small rates, where the tilted mean tends to the mean, exp(rate d) would keep few digits of
            # rate d.
            e = use.expm1(rate * d)
            # Keeps a loss infinitely far from the origin at 0.
            inner = m * (e + 1.0) * d if e > -1.0 else 0.0
            less += m * e
            one += inner
            two += inner * d if e > -1.0 else 0.0
        partial[block, 0], partial[block, 1], partial[block, 2] = less, one, two


def put_exponential(lo, hi, losses, masses, numbers):
    """Write weights in proportion to exp(rate (loss - origin)) in some blocks."""
    rate, origin, scale = numbers[0], numbers[1], numbers[2]
    for block in range(lo, hi):
        first = block * BLOCK
        x = losses[first : min(first + BLOCK, losses.size)]
        for i in range(x.size):
            m = masses[first + i] if use.weighted else 1.0
            w = m * use.exp(rate * (np.float64(x[i]) - origin)) * scale
            # The exponential of a loss that does not count may be infinite.
            x[i] = w if m != 0.0 else 0.0


@cache
def _kernel(template: Any, weighted: bool, writes: bool, dtype: str) -> Kernel:
    flags = (("weighted", weighted), ("writes", writes))
    return kernel(template, f"risk_{template.__name__}_{weighted:d}{writes:d}", dtype, None, (), flags)


NOTHING = np.empty(0)


def _run(template: Any, losses: Any, masses: Any, numbers: tuple[float, ...], *more: Any, writes: bool = False) -> None:
    """Run a template on all blocks of samples."""
    blocks, weighted = -(-losses.size // BLOCK), masses is not None
    found = _kernel(template, weighted, writes, "float64")
    found(blocks, losses.size, losses, masses if weighted else NOTHING, np.array(numbers), *more)


def _summed(template: Any, losses: Any, masses: Any, numbers: tuple[float, ...], writes: bool = False) -> list[float]:
    """Return the sums of a template over all samples."""
    partial = np.zeros((-(-losses.size // BLOCK), 3))
    _run(template, losses, masses, numbers, partial, writes=writes)
    sums: list[float] = np.add.reduce(partial, axis=0).tolist()
    return sums


class Level(NamedTuple):
    """Loss at which samples, taken from the largest down, first reach a mass."""

    tau: float
    above: float
    """Mass of the samples above."""
    equal: float
    """Mass of the samples that equal it."""


def level_above(losses: Any, masses: Any, target: float, total: float) -> Level:
    """Return the level at which the mass of the losses above and at it first reaches a target above 0."""
    found = _bracketed(losses, masses, target, total) if losses.size >= SELECTED_FROM else None
    if found is not None:
        return found
    if masses is None:
        # Numbers of samples are exact, and a target above all of them comes from rounding.
        k = min(max(math.ceil(target), 1), losses.size)
        tau = np.partition(losses, losses.size - k)[losses.size - k]
        # NaN is ordered last, and counted by the kernels that come after.
        return Level(float(tau), float(np.count_nonzero(losses > tau)), float(np.count_nonzero(losses == tau)))
    return _sorted_level(losses[masses != 0.0], masses[masses != 0.0], target, 0.0)


def _sorted_level(losses: Any, masses: Any, target: float, above: float) -> Level:
    """Return the level of a few samples, below which nothing is taken and above which lies a mass."""
    order = np.argsort(losses, kind="stable")[::-1]
    x, m = losses[order], masses[order]
    reached = above + np.cumsum(m)
    i = min(int(np.searchsorted(reached, target)), x.size - 1)
    tau = x[i]
    # A stable order and one sum over all ties: the same bits whichever of them comes first.
    return Level(float(tau), above + float(m[x > tau].sum()), float(m[x == tau].sum()))


@lru_cache(maxsize=2)
def _drawn(size: int) -> Any:
    """Return the places of a random sample, in order: reading them takes a third of the time, and training repeats."""
    return np.sort(np.random.default_rng(0).integers(size, size=DRAWN))


def _bracketed(losses: Any, masses: Any, target: float, total: float) -> Level | None:
    """Return the level of many samples in one pass, between two losses of a random sample; None where it missed."""
    drawn = _drawn(losses.size)
    share = 1.0 - target / total
    if masses is None:
        order, middle = np.sort(losses[drawn]), share * DRAWN
    else:
        places = drawn[np.argsort(losses[drawn], kind="stable")]
        order, reached = losses[places], np.cumsum(masses[places])
        middle = float(np.searchsorted(reached, share * reached[-1]))
    # Four standard deviations of a rank in the sample: the level lies outside less than once in 10,000 calls.
    spread = 4.0 * math.sqrt(max(share * (1.0 - share), 0.0) * DRAWN) + 4.0
    low, high = (order[int(min(max(middle + s, 0.0), DRAWN - 1.0))] for s in (-spread, spread))
    blocks = -(-losses.size // BLOCK)
    partial, weighted = np.zeros((blocks, 2)), masses is not None
    kept = np.empty((blocks, ROOM), losses.dtype)
    kept_masses = np.empty((blocks, ROOM) if weighted else (0, 0))
    counting = _kernel(count_levels, weighted, False, "float64" if weighted else NAMES[losses.dtype])
    arrays = masses if weighted else NOTHING, np.array((low, high), losses.dtype), partial, kept, kept_masses
    counting(blocks, losses.size, losses, *arrays)
    above, counts = float(partial[:, 0].sum()), partial[:, 1].astype(np.int64)
    # The level lies above the bracket: the caller goes the way of few samples.
    if target <= above:
        return None
    if (counts > ROOM).any():
        # Many losses are equal: that happens at a kink, such as the 0 of a hinge.
        return _at_level(losses, masses, float(high), above, target)
    # In the order of the blocks; few are left, between two neighbours of the random sample.
    x = np.concatenate([row[:k] for row, k in zip(kept, counts, strict=True)])
    if masses is None:
        if target > above + x.size:
            return _at_level(losses, masses, float(low), above + x.size, target)
        tau = np.partition(x, x.size - math.ceil(target - above))[x.size - math.ceil(target - above)]
        return Level(float(tau), above + np.count_nonzero(x > tau), float(np.count_nonzero(x == tau)))
    weights = np.concatenate([row[:k] for row, k in zip(kept_masses, counts, strict=True)])
    mass = float(weights.sum())
    if target > above + mass or not x.size:
        return _at_level(losses, masses, float(low), above + mass, target)
    return _sorted_level(x, weights, target, above)


def mass_at(losses: Any, masses: Any, level: float) -> float:
    """Return the mass of the samples whose loss equals a level."""
    equal = losses == level
    return float(np.count_nonzero(equal) if masses is None else masses[equal].sum())


def _at_level(losses: Any, masses: Any, tau: float, above: float, target: float) -> Level | None:
    """Return a level below a mass, if the losses that equal it reach the target."""
    mass = mass_at(losses, masses, tau)
    return Level(tau, above, mass) if target <= above + mass else None


def by_level(losses: Any, masses: Any, weights: tuple[float, float, float, float], writes: bool) -> float:
    """Return the sum of weight times loss for a level and the weights above, at and below it; NaN if a loss is NaN.

    With `writes`, the weights take the place of the losses.
    """
    total, lost, _ = _summed(weigh_levels, losses, masses, weights, writes)
    return math.nan if lost > 0.0 else total


def excess(losses: Any, masses: Any, eta: float) -> list[float]:
    """Return the mass above a level, and the sums of mass times (loss - eta) and (loss - eta)^2."""
    return _summed(sum_excess, losses, masses, (eta,))


def write_excess(losses: Any, masses: Any, eta: float, scale: float) -> None:
    """Replace losses by mass times max(loss - eta, 0) times scale."""
    _run(put_excess, losses, masses, (eta, scale))


def exponential(losses: Any, masses: Any, rate: float, origin: float) -> list[float]:
    """Return the sums of mass times exp(rate d) - 1, d exp(rate d) and d^2 exp(rate d), with d = loss - origin."""
    return _summed(sum_exponential, losses, masses, (rate, origin))


def write_exponential(losses: Any, masses: Any, rate: float, origin: float, scale: float) -> None:
    """Replace losses by mass times exp(rate (loss - origin)) times scale."""
    _run(put_exponential, losses, masses, (rate, origin, scale))
