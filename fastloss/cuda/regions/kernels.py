"""Losses of regions on a GPU: sums over the pixels of each class, a formula of the sums, its slopes back to the pixels.

`measure` sums over pieces of each class of each sample, `collect` adds the pieces up in their order, `judge` evaluates
the formula for each sample or for the batch, and `spread` writes the gradient, a thread a pixel. Under softmax
`normalise` leaves, for each pixel, its largest score and what the others sum to. The mathematics is that of
`cpu/regions/sums.py`: of a probability p the smaller of p and 1 - p is computed, and which of them it is.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from ...cpu.regions.domains import NO_ACTIVATION, SIGMOID, SOFTMAX
from ...cpu.runtime import access
from ...cpu.runtime.slots import ABSENT
from ...spec.record import Formula
from ...spec.worlds import carry
from ..runtime.launch import ADDRESS, PLACE, Kernel
from ..runtime.memory import chained, cuda, present, reader, real, writer
from ..runtime.sums import (
    NONE,
    add,
    block_end,
    block_sum,
    earlier,
    over,
    plus,
    rounded,
)
from ..runtime.world import gpu
from .slots import Averaging, Ends, Pixels, Reading, RegionSlots, Slopes, Units, use

__all__ = ["collecting", "judging", "measuring", "normalising", "spreading"]

times = access.times[True]

ONE, SUMS = np.uint64(1), np.uint64(5)
"""Sums of a class: tp, fp, fn, tn, pixels that count."""

PREDICTION, TARGET, MASK, CLASS_WEIGHT, WEIGHT = (np.int64(k) for k in range(1, 6))
"""The numbers by which inputs out of their domain are told."""


def _look(labels, mask, i, classes, ignore):
    """Whether a pixel counts, its label, and what is out of its domain."""
    T = use.T
    counts, label, fault = True, np.int64(0), np.int64(0)
    if present(mask):
        m = T(use.read_mask(mask, i)[0])
        # A pixel that is masked out may hold any label and any score.
        counts = m != T(0.0)
        fault = MASK if counts and m != T(1.0) else fault
    if present(labels) and counts:
        label = np.int64(use.read_label(labels, i)[0])
        counts = label != ignore
        fault = TARGET if counts and (label < 0 or label >= classes) else fault
    return counts, label, fault


def _target_of(target, labels, label, own, i):
    """The target of a class at a pixel; of a single class the label is 1."""
    T = use.T
    if present(labels):
        return T(1.0) if label == own else T(0.0)
    return T(use.read_target(target, i)[0])


def _probability(x, shares, i, activation):
    """The smaller of p and 1 - p, and whether that is 1 - p."""
    T = use.T
    if activation == SIGMOID:
        e = use.exp(-abs(x))
        return e / (T(1.0) + e), x > T(0.0)
    if activation == SOFTMAX:
        # Two numbers a pixel, left by an earlier kernel: the exponentials of all other classes are not computed again.
        top, rest = use.read_pair(shares, i)
        e = T(1.0) if x == top else use.exp(x - top)
        inverse = T(1.0) / (T(1.0) + rest)
        large = e == T(1.0) and rest < T(1.0)
        return (rest if large else e) * inverse, large
    large = not x <= T(0.5)
    return (T(1.0) - x if large else abs(x)), large


def _normalise(z, shares, c, s):
    """The largest score of each pixel, and what the exponentials of the others sum to, relative to it."""
    T = use.T
    sample = np.uint64(cuda.blockIdx.x)
    # Unsigned, as all indices here: a signed range costs a division of 64 bits, 432 instructions for 64 in a plain
    # loop.
    step = np.uint64(cuda.gridDim.y * cuda.blockDim.x)
    j = np.uint64(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    while j < s:
        start, stop = sample * c * s + j, (sample + ONE) * c * s
        top = use.read(z, start)[0]
        i = start + s
        while i < stop:
            x = use.read(z, i)[0]
            top = x if x > top else top
            i += s
        # Those as large as the largest are counted: what the others sum to is no difference from 1.
        rest, equal, i = T(0.0), T(-1.0), start
        while i < stop:
            x = use.read(z, i)[0]
            # Equal infinities have no difference.
            e = T(1.0) if x == top else use.exp(x - top)
            rest += T(0.0) if e == T(1.0) else e
            equal += T(1.0) if e == T(1.0) else T(0.0)
            i += s
        # Of infinite scores, all is NaN.
        use.write_pair(shares, sample * s + j, (top, equal + rest + (top - top)))
        j += step


def _leave(sums, firsts, place, tp, fp, fn, tn, count, first):
    """Write five sums over a block, and the earliest violation."""
    tp = use.sum_block(tp[0], tp[1], first)
    # Waits: the next sum uses the same shared memory.
    cuda.syncthreads()
    fp = use.sum_block(fp[0], fp[1], NONE)
    cuda.syncthreads()
    fn = use.sum_block(fn[0], fn[1], NONE)
    cuda.syncthreads()
    tn = use.sum_block(tn[0], tn[1], NONE)
    cuda.syncthreads()
    count = use.sum_block(count[0], count[1], NONE)
    if cuda.threadIdx.x == 0:
        i = place * SUMS
        use.write_pair(sums, i, (tp[0], tp[1]))
        use.write_pair(sums, i + ONE, (fp[0], fp[1]))
        use.write_pair(sums, i + np.uint64(2), (fn[0], fn[1]))
        use.write_pair(sums, i + np.uint64(3), (tn[0], tn[1]))
        use.write_pair(sums, i + np.uint64(4), (count[0], count[1]))
        use.write_place(firsts, place, (tp[2],))


def _measure(x, partials, firsts, c, s, read, free):
    """Sums over a piece of the pixels of one class of one sample; partials are by class, sample and piece."""
    T = use.T
    # Class and piece are axes of the grid: no index is divided to find them.
    sample, piece, k = np.uint64(cuda.blockIdx.x), np.uint64(cuda.blockIdx.y), np.uint64(cuda.blockIdx.z)
    # A block reads one class of one sample: neighbouring threads take neighbouring pixels.
    row, own = (sample * c + k) * s, np.int64(k) + (1 if c == ONE else 0)
    classes = np.int64(c) if c > ONE else np.int64(2)
    tp, fp, fn, tn, first = (T(0.0), T(0.0)), (T(0.0), T(0.0)), (T(0.0), T(0.0)), (T(0.0), T(0.0)), NONE
    count = T(0.0)
    step = np.uint64(cuda.gridDim.y * cuda.blockDim.x)
    j = np.uint64(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    while j < s:
        i = sample * s + j
        counts, label, fault = _look(x.labels, x.mask, i, classes, read.ignore)
        place = np.int64(i)
        if counts:
            z, t = use.read(x.z, row + j)[0], _target_of(x.target, x.labels, label, own, row + j)
            if not (free or present(x.labels)) and (t < T(0.0) or t > T(1.0)):
                fault, place = TARGET, np.int64(row + j)
            if read.activation == NO_ACTIVATION and (z < T(0.0) or z > T(1.0)):
                fault, place = PREDICTION, np.int64(row + j)
            small, large = _probability(z, x.shares, i, read.activation)
            p = T(1.0) - small if large else small
            d = (T(1.0) - t) - small if large else small - t
            if read.squared:
                both, beyond, lacking, neither = p * t, T(0.5) * d * d, T(0.5) * d * d, T(1.0)
            else:
                within, q = d <= T(0.0), small if p > T(0.5) else T(1.0) - p
                both, neither = p if within else t, T(1.0) - t if within else q
                # In this order NaN comes through.
                beyond, lacking = T(0.0) if within else d, T(0.0) if d >= T(0.0) else -d
            # Pairs of numbers: float32 alone would lose digits over a thread's many pixels.
            tp, fp = plus(tp[0], tp[1], both), plus(fp[0], fp[1], beyond)
            fn, tn = plus(fn[0], fn[1], lacking), plus(tn[0], tn[1], neither)
            count += T(1.0)
        if fault != 0:
            first = earlier(first, place * 8 + fault)
        j += step
    # By class, then sample, then piece: `collect` adds what it needs from neighbouring cells.
    cell = (k * np.uint64(cuda.gridDim.x) + sample) * np.uint64(cuda.gridDim.y) + piece
    _leave(partials, firsts, cell, tp, fp, fn, tn, (count, T(0.0)), first)


def _collect(partials, firsts, sums, places, count):
    """Sums of one class of one unit, over `count` pieces."""
    T = use.T
    u, k = np.uint64(cuda.blockIdx.x), np.uint64(cuda.blockIdx.y)
    start = (k * np.uint64(cuda.gridDim.x) + u) * count
    tp, fp, fn, tn, first = (T(0.0), T(0.0)), (T(0.0), T(0.0)), (T(0.0), T(0.0)), (T(0.0), T(0.0)), NONE
    kept = (T(0.0), T(0.0))
    j = np.uint64(cuda.threadIdx.x)
    while j < count:
        i = (start + j) * SUMS
        # Each thread takes the same pieces in the same order on every run: no atomics, hence the same bits.
        x = use.read_pair(partials, i)
        tp = add(tp[0], tp[1], x[0], x[1])
        x = use.read_pair(partials, i + ONE)
        fp = add(fp[0], fp[1], x[0], x[1])
        x = use.read_pair(partials, i + np.uint64(2))
        fn = add(fn[0], fn[1], x[0], x[1])
        x = use.read_pair(partials, i + np.uint64(3))
        tn = add(tn[0], tn[1], x[0], x[1])
        x = use.read_pair(partials, i + np.uint64(4))
        kept = add(kept[0], kept[1], x[0], x[1])
        first = earlier(first, use.read_place(firsts, start + j)[0])
        j += np.uint64(cuda.blockDim.x)
    _leave(sums, places, u * np.uint64(cuda.gridDim.y) + k, tp, fp, fn, tn, kept, first)


def _sum_of(sums, i):
    """A sum as one number."""
    x = use.read_pair(sums, i)
    return rounded(x[0], x[1])


def _weight_of(sums, class_weight, i, k, least, power):
    """The weight of a class, whose sums begin at i."""
    T = use.T
    # Computed again in each of three loops: memory for the sizes of any number of classes has no bound.
    size = _sum_of(sums, i) + _sum_of(sums, i + np.uint64(2))
    w = T(use.read_class(class_weight, k)[0]) if present(class_weight) else T(1.0)
    for _ in range(power):
        w *= least / size if size > T(0.0) else T(1.0)
    return w


def _put_slopes(slopes, i, w, by, squared):
    """Slopes by p where it is above t and where it is below; or by t and by p - t."""
    a, b, c, d = times(by[0], w), times(by[1], w), times(by[2], w), times(by[3], w)
    # Needs two numbers: as a prediction moves, two of the four sums change together.
    use.write_pair(slopes, i, (a if squared else b - d, b + c if squared else a - c))


def _judged(x, u, c, own, background):
    """The earliest violation in a unit, and the size of the smallest class that counts and has a pixel."""
    T = use.T
    found, least, k = NONE, T(np.inf), np.uint64(0)
    while k < c:
        i = (u * c + k) * SUMS
        w = T(use.read_class(x.class_weight, k)[0]) if present(x.class_weight) else T(1.0)
        # A sample or a class of weight 0 may hold anything.
        if k >= background and w != T(0.0):
            if own != T(0.0):
                found = earlier(found, use.read_place(x.places, u * c + k)[0])
            size = _sum_of(x.sums, i) + _sum_of(x.sums, i + np.uint64(2))
            if T(0.0) < size < least:
                least = size
        if w < T(0.0) or w == T(np.inf):
            found = earlier(found, np.int64(k) * 8 + CLASS_WEIGHT)
        k += ONE
    return found, least


def _loss_of(x, slopes, u, c, least, by_class, p):
    """The loss of a unit, whose classes' slopes are written."""
    T, sums, class_weight = use.T, x.sums, x.class_weight
    total, k = T(0.0), by_class.background
    while k < c:
        total += _weight_of(sums, class_weight, (u * c + k) * SUMS, k, least, by_class.power)
        k += ONE
    counts = c > np.uint64(0) and _sum_of(sums, u * c * SUMS + np.uint64(4)) > T(0.0) and total != T(0.0)
    value, by = T(0.0), (T(0.0), T(0.0), T(0.0), T(0.0))
    tp, fp, fn, tn, k = T(0.0), T(0.0), T(0.0), T(0.0), np.uint64(0)
    while k < c:
        i, w = (u * c + k) * SUMS, T(0.0)
        if counts and k >= by_class.background:
            w = _weight_of(sums, class_weight, i, k, least, by_class.power)
        if not by_class.micro:
            tp, fp, fn, tn = T(0.0), T(0.0), T(0.0), T(0.0)
            by, w = (T(0.0), T(0.0), T(0.0), T(0.0)), w / total if w != T(0.0) else w
        if w != T(0.0):
            v = w if by_class.micro else T(1.0)
            tp, fp = tp + v * _sum_of(sums, i), fp + v * _sum_of(sums, i + ONE)
            fn, tn = fn + v * _sum_of(sums, i + np.uint64(2)), tn + v * _sum_of(sums, i + np.uint64(3))
        # The loss of a class, or of the sums over all of them once the last is in.
        if (w != T(0.0) and not by_class.micro) or (by_class.micro and counts and k + ONE == c):
            out = use.formula(tp, fp, fn, tn, *p)
            value += times(out[0], T(1.0) if by_class.micro else w)
            by = (T(out[1][0]), T(out[1][1]), T(out[1][2]), T(out[1][3]))
        if not by_class.micro:
            _put_slopes(slopes, u * c + k, w, by, by_class.squared)
        k += ONE
    k = np.uint64(0)
    while by_class.micro and k < c:
        i, w = (u * c + k) * SUMS, T(0.0)
        if counts and k >= by_class.background:
            w = _weight_of(sums, class_weight, i, k, least, by_class.power)
        _put_slopes(slopes, u * c + k, w, by, by_class.squared)
        k += ONE
    return value


def _judge(x, to, ends, units, c, by_class, params):
    """The loss of each unit, averaged over classes from the first that counts, and its slopes by what pixels add to."""
    T = use.T
    p = use.unpack(params)
    high, low, mass, mass_low, first = T(0.0), T(0.0), T(0.0), T(0.0), NONE
    step = np.uint64(cuda.gridsize(1))
    u = np.uint64(cuda.grid(1))
    while u < units:
        own = use.read_number(x.weight, u)[0] if present(x.weight) else T(1.0)
        found, least = _judged(x, u, c, own, by_class.background)
        value = _loss_of(x, to.slopes, u, c, least, by_class, p)
        if c > np.uint64(0) and _sum_of(x.sums, u * c * SUMS + np.uint64(4)) > T(0.0):
            mass, mass_low = plus(mass, mass_low, own)
        if own < T(0.0):
            found = earlier(found, np.int64(u) * 8 + WEIGHT)
        # A unit with a violation is NaN; the host tells which element it was when it next waits.
        own = own if found == NONE else T(np.nan)
        value = times(value, own)
        if present(to.values):
            use.write_value(to.values, u, (value,))
        # Left for the kernel of the gradient, which runs next on the same stream.
        use.write_number(to.factors, u, (own,))
        high, low = plus(high, low, value)
        first = earlier(first, found)
        u += step
    use.end(ends.partials, ends.firsts, high, low, first)
    cuda.syncthreads()
    use.end(ends.masses, ends.places_of_masses, mass, mass_low, NONE)


def _slope_of(t, small, large, x, y, sigmoid, squared):
    """The slope by a probability, or by the score of its sigmoid; and the probability."""
    T = use.T
    p = T(1.0) - small if large else small
    d = (T(1.0) - t) - small if large else small - t
    if squared:
        g = x * t + y * d
    else:
        # A prediction that equals a hard target can only move to one side.
        side = d if d != T(0.0) else T(0.5) - t
        inner = d == T(0.0) and T(0.0) < t < T(1.0)
        g = T(0.5) * (x + y) if inner else x if side > T(0.0) else y
    return (g * (small * (T(1.0) - small)) if sigmoid else g), p


def _class_slope(x, slopes, label, i, at, k, of, factor, read, single):
    """The slope by one class at pixel i, its score at `at` and slopes at `of`; p, and whether that exceeds 1/2."""
    T = use.T
    t = _target_of(x.target, x.labels, label, np.int64(k) + (1 if single else 0), at)
    small, large = _probability(use.read(x.z, at)[0], x.shares, i, read.activation)
    a, b = use.read_pair(slopes, of)
    g, p = _slope_of(t, small, large, times(a, factor), times(b, factor), read.activation == SIGMOID, read.squared)
    # A class that does not count may hold anything.
    return T(0.0) if a == T(0.0) and b == T(0.0) else g, p, large


def _spread(x, slopes, factors, grad, c, s, whole, scale, mass, read):
    """The gradient, a thread a pixel."""
    T = use.T
    sample = np.uint64(cuda.blockIdx.x)
    u = np.uint64(0) if whole else sample
    # The divisor is read on the device: the host never waits for the sum of the weights.
    factor = use.read_number(factors, u)[0] * use.share(scale, mass)
    single, of = c == ONE, u * c
    step = np.uint64(cuda.gridDim.y * cuda.blockDim.x)
    j = np.uint64(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x)
    while j < s:
        i, start = sample * s + j, sample * c * s + j
        counts, label, _ = _look(x.labels, x.mask, i, np.int64(0), read.ignore)
        counts = counts and factor != T(0.0)
        base, mean = T(0.0), T(0.0)
        if read.activation == SOFTMAX and counts:
            # Slopes relative to that of a class that takes more than half: where it takes nearly all, little is left
            # to cancel.
            k, at = np.uint64(0), start
            while k < c:
                # Computed again in each of the three loops: slopes of any number of classes do not fit in registers.
                g, p, large = _class_slope(x, slopes, label, i, at, k, of + k, factor, read, single)
                base = g if large else base
                k, at = k + ONE, at + s
            k, at = np.uint64(0), start
            while k < c:
                g, p, large = _class_slope(x, slopes, label, i, at, k, of + k, factor, read, single)
                mean += p * (g - base)
                k, at = k + ONE, at + s
        k, at = np.uint64(0), start
        while k < c:
            g = T(0.0)
            if counts:
                g, p, large = _class_slope(x, slopes, label, i, at, k, of + k, factor, read, single)
                g = p * ((g - base) - mean) if read.activation == SOFTMAX else g
            use.write(grad, at, (g,))
            k, at = k + ONE, at + s
        j += step


INT, FLAG, SIZE = types.int32, types.boolean, types.uint64

PIXELS = types.NamedUniTuple(ADDRESS, len(Pixels._fields), Pixels)
UNITS = types.NamedUniTuple(ADDRESS, len(Units._fields), Units)
SLOPES = types.NamedUniTuple(ADDRESS, len(Slopes._fields), Slopes)
ENDS = types.NamedUniTuple(ADDRESS, len(Ends._fields), Ends)
READING = types.NamedTuple((PLACE, INT, FLAG), Reading)
AVERAGING = types.NamedTuple((SIZE, FLAG, INT, FLAG), Averaging)
"""Types of the records that kernels take."""


STEPS = (_look, _target_of, _probability, _leave, _sum_of, _weight_of, _put_slopes, _slope_of, _class_slope, _judged)
"""Functions that kernels share, each after those that it calls."""


def _slots(
    stored: str,
    target: str = "",
    label: str = "int64",
    mask: str = "uint8",
    classes: str = "",
    formula: Callable[..., Any] | None = None,
) -> RegionSlots:
    """Return the record that kernels read, by the formats of predictions, targets, labels, masks and class weights."""
    number = real(stored)
    count = 0 if formula is None else len(formula.__defaults__ or ())
    return RegionSlots(
        T=getattr(np, number),
        exp=gpu(number).words["exp"],
        share=over(number),
        sum_block=block_sum(number),
        end=block_end(number),
        read=reader(stored),
        read_target=reader(target or stored),
        read_label=reader(label),
        read_mask=reader(mask),
        read_number=reader(number),
        read_class=reader(classes or number),
        read_pair=reader(number, 2),
        read_place=reader("int64"),
        write=writer(stored),
        write_number=writer(number),
        write_value=writer(stored),
        write_pair=writer(number, 2),
        write_place=writer("int64"),
        formula=ABSENT if formula is None else carry(formula, gpu(number)),
        unpack=ABSENT if formula is None else access.unpack(count, number),
    )


def _kernel(template: Callable[..., Any], name: str, signature: Any, use: RegionSlots) -> Kernel:
    """A kernel with the functions that it shares with others."""
    return Kernel(template, name, signature, use, **chained(STEPS, use))


@cache
def normalising(stored: str) -> Kernel:
    """The kernel that prepares the softmax of each pixel."""
    signature = types.void(ADDRESS, ADDRESS, SIZE, SIZE)
    return _kernel(_normalise, f"regions_normalise_{stored}", signature, _slots(stored))


@cache
def measuring(stored: str, target: str, label: str, mask: str) -> Kernel:
    """The kernel that sums over pieces."""
    signature = types.void(PIXELS, ADDRESS, ADDRESS, SIZE, SIZE, READING, FLAG)
    name = f"regions_measure_{stored}_{target}_{label}_{mask}"
    return _kernel(_measure, name, signature, _slots(stored, target, label, mask))


@cache
def collecting(number: str) -> Kernel:
    """The kernel that adds the pieces up."""
    signature = types.void(*[ADDRESS] * 4, SIZE)
    return _kernel(_collect, f"regions_collect_{number}", signature, _slots(number))


@cache
def _judging(function: Any, stored: str, classes: str) -> Kernel:
    number, count = real(stored), len(function.__defaults__ or ())
    params = types.UniTuple(getattr(types, number), max(1, count))
    signature = types.void(UNITS, SLOPES, ENDS, SIZE, SIZE, AVERAGING, params)
    use, name = _slots(stored, classes=classes, formula=function), f"{function.__name__}_{stored}_{classes}"
    return Kernel(_judge, name, signature, use, **chained((*STEPS, _loss_of), use))


def judging(record: Formula, stored: str, classes: str) -> Kernel:
    """The kernel that evaluates the formula of a loss, with weights of classes in a format."""
    return _judging(record.function, stored, classes)


@cache
def spreading(stored: str, target: str, label: str, mask: str) -> Kernel:
    """The kernel that writes the gradient."""
    T = getattr(types, real(stored))
    signature = types.void(PIXELS, *[ADDRESS] * 3, SIZE, SIZE, FLAG, T, ADDRESS, READING)
    name = f"regions_spread_{stored}_{target}_{label}_{mask}"
    return _kernel(_spread, name, signature, _slots(stored, target, label, mask))
