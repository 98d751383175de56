"""Losses of regions: sums over the pixels of each class, a formula of the sums, its slopes back to the pixels.

Three kernels. `measure` sums, for each block of pixels of a sample, what the formulas of regions need; `judge` adds
the blocks up in their order, evaluates the formula for each sample or for the batch, and averages over the classes;
`spread` goes over the pixels again and writes the gradient. A block is a unit of its own, so that one large image
keeps all threads busy, and blocks depend on the shape alone.

Between the two passes the memory of the gradient holds the probabilities, which saves the second pass the
exponentials. A probability p is kept as the smaller of p and 1 - p, with the sign bit set where that is 1 - p: neither
loses a digit.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ...call.errors import CallValueError
from ...spec.record import UNIT
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import Typed, unbound
from ..runtime.staging import clear, part
from ..runtime.units import Kernel, bound_stages, factor_of, kernel
from .common import PRODUCT, decode, overlaps, products, squares
from .domains import POWERS, inside, outside
from .pixels import (
    ACTIVATION,
    BLOCK,
    FIRST,
    FREE,
    MICRO,
    NO_WEIGHT,
    POWER,
    PRESENT,
    RAW,
    SQUARED,
    SUMS,
    WHOLE,
    Pixels,
    flagged_in,
)

__all__ = ["keep_pixels", "measuring", "prepare", "region", "run", "spreading"]


use = unbound(Typed)


def keep_pixels(labels, mask, at, m, label, keep):
    """Labels of a block of pixels, -1 of those that do not count, and 1 for those that do; how many."""
    T = use.T
    # Nearly all calls have no mask, and read no array of ones.
    if keep.size == 0:
        return float(m)
    for j in range(keep.size):
        keep[j] = T(1.0)
    if labels.size > 0:
        given = part(labels, at, m)
        for j in range(given.size):
            # Keeps loops over pixels in one type: labels of 64 bits beside scores of 32 would halve the vectors.
            label[j] = T(given[j])
            keep[j] = T(1.0) if given[j] >= 0 else T(0.0)
    if mask.size > 0:
        chosen = part(mask, at, m)
        for j in range(chosen.size):
            keep[j] = keep[j] if chosen[j] != 0 else T(0.0)
        for j in range(chosen.size):
            label[j] = label[j] if keep[j] > T(0.0) else T(-1.0)
    kept = T(0.0)
    row = part(keep, 0, m)
    for j in range(row.size):
        kept += row[j]
    return float(kept)


def region(target, labels, label, own, keep, at, row):
    """The target of one class in a block of pixels, 0 where they do not count."""
    T = use.T
    if labels.size > 0:
        for j in range(row.size):
            # A region as it is needed: one-hot targets of all classes would be the largest array of the call.
            row[j] = T(1.0) if label[j] == own else T(0.0)
        return row
    given = part(target, at, row.size)
    if keep.size == 0:
        return given
    for j in range(row.size):
        # Selected, not multiplied: pixels that do not count may hold NaN.
        row[j] = given[j] if keep[j] > T(0.0) else T(0.0)
    return row


def by_sigmoid(x, w):
    """The code of a probability: the smaller of p and 1 - p, with the sign bit set where that is 1 - p."""
    for j in range(x.size):
        e = use.exp(-abs(x[j]))
        # Loses no digit on either side: e / (1 + e) is the smaller of p and 1 - p.
        w[j] = np.copysign(e / (use.T(1.0) + e), -x[j])


def by_softmax(z, at, s, w, first, step, rest, inverse, top):
    """Write the codes of a softmax over the classes of each pixel, whose scores lie s apart and codes `step` apart."""
    T = use.T
    c, m = z.shape[1], top.size
    x = part(z, at, m)
    for j in range(m):
        top[j] = x[j]
        rest[j] = T(-1.0)
        inverse[j] = T(0.0)
    for k in range(1, c):
        x = part(z, at + k * s, m)
        for j in range(m):
            # Pixels lie side by side: each lane has a maximum of its own, which vectorises without whole numbers.
            # A NaN that it passes over comes back by its exponential.
            top[j] = x[j] if x[j] > top[j] else top[j]
    for k in range(c):
        x, e = part(z, at + k * s, m), part(w, first + k * step, m)
        for j in range(m):
            # Equal infinities have no difference.
            e[j] = T(1.0) if x[j] == top[j] else use.exp(x[j] - top[j])
        # Apart, since LLVM gives up on loops with more arrays. What the others sum to is no difference from 1.
        for j in range(m):
            inverse[j] += T(0.0) if e[j] == T(1.0) else e[j]
            rest[j] += T(1.0) if e[j] == T(1.0) else T(0.0)
    for j in range(m):
        # Of infinite scores, all is NaN.
        rest[j] += inverse[j] + (top[j] - top[j])
        inverse[j] = T(1.0) / (T(1.0) + rest[j])
    for k in range(c):
        e = part(w, first + k * step, m)
        for j in range(m):
            # A single winner keeps its 1 - p, the sum of the others, with every digit.
            small = rest[j] < T(1.0)
            e[j] = -rest[j] * inverse[j] if (e[j] == T(1.0)) & small else e[j] * inverse[j]


def activate(z, at, s, m, activation, keep, w, first, step, rows):
    """Codes of the probabilities of a block of pixels; 0 where a pixel does not count."""
    T = use.T
    if activation == 2:
        size = rows.shape[1]
        by_softmax(z, at, s, w, first, step, part(rows, 0, m), part(rows, size, m), part(rows, 2 * size, m))
    for k in range(z.shape[1]):
        x, y = part(z, at + k * s, m), part(w, first + k * step, m)
        if activation == 1:
            by_sigmoid(x, y)
        elif activation == 0:
            for j in range(m):
                # The sign bit is set of 1 - p alone, be it 0, and not of a p of -0.
                y[j] = abs(x[j]) if x[j] <= T(0.5) else np.copysign(T(1.0) - x[j], T(-1.0))
        elif activation == RAW:
            for j in range(m):
                y[j] = x[j]
        if keep.size > 0:
            for j in range(m):
                y[j] = y[j] if keep[j] > T(0.0) else T(0.0)


def measure(lo, hi, z, target, labels, mask, how, parts, codes):
    """Sums over blocks of pixels; codes of their probabilities where there is room for them."""
    T = use.T
    widest_vectors()
    c, s, size = z.shape[1], z.shape[2], how[BLOCK]
    blocks, kept_codes, rows = parts.shape[1], codes.size > 0, np.empty((5, size), T)
    # A value alone keeps the codes of one block, in the second-level cache.
    w = codes if kept_codes else np.empty((1, c, size), T)
    keep = np.empty(size if labels.size > 0 or mask.size > 0 else 0, T)
    label = part(rows, 3 * size, size)
    for v in range(lo, hi):
        # Keeps all threads busy with one large image: a unit is a block of pixels of a sample.
        i, start = v // blocks, v % blocks * size
        m = min(size, s - start)
        at = i * c * s + start
        first, step = (at, s) if kept_codes else (0, size)
        kept = keep_pixels(labels, mask, i * s + start, m, label, keep)
        activate(z, at, s, m, how[ACTIVATION], keep, w, first, step, rows)
        for k in range(c):
            x, sums = part(w, first + k * step, m), part(parts, (v * c + k) * SUMS, SUMS)
            t = region(target, labels, label, T(k + (c == 1)), keep, at + k * s, part(rows, 4 * size, m))
            sums[4] = kept
            sums[5] = outside(part(z, at + k * s, m), keep) if how[ACTIVATION] == 0 else 0.0
            if how[FREE] == 0 and labels.size == 0:
                sums[5] += outside(t, keep)
            if how[SQUARED] == 0:
                overlaps(x, t, sums)
                # Pixels that do not count were taken for true negatives.
                sums[3] -= m - kept
            elif how[SQUARED] == PRODUCT:
                products(x, t, sums)
                sums[3] -= m - kept
            else:
                squares(x, t, sums)
                sums[3] = kept


def add_blocks(parts, first, last, sums):
    """Sums of samples first to last, and how many numbers lie outside of [0, 1]."""
    bad = 0.0
    for k in range(parts.shape[2]):
        for x in range(SUMS - 1):
            sums[k, x] = 0.0
        for i in range(first, last):
            # Gives the same bits on any number of threads: blocks are added in their order.
            for b in range(parts.shape[1]):
                for x in range(SUMS - 1):
                    sums[k, x] += parts[i, b, k, x]
                bad += parts[i, b, k, SUMS - 1]
    return bad


def weigh(sums, class_weight, first, power, present, weight):
    """The weight of each class from the first on, or of those that the target has; their sum."""
    least = np.inf
    for k in range(first, len(weight)):
        size = sums[k, 0] + sums[k, 2] if class_weight.size == 0 or class_weight[k] != 0.0 else 0.0
        # Relative to the smallest region: weights lie between 0 and 1, whatever the sizes are.
        least = size if 0.0 < size < least else least
    total = 0.0
    for k in range(len(weight)):
        size = sums[k, 0] + sums[k, 2]
        w = class_weight[k] if class_weight.size > 0 else 1.0
        for _ in range(power):
            # A region that is not there has the weight of the smallest: not infinity.
            w *= least / size if size > 0.0 else 1.0
        weight[k] = w if k >= first and (not present or size > 0.0) else 0.0
        total += weight[k]
    return total


def judge(lo, hi, params, parts, class_weight, how, values, state, slopes):
    """The loss of each unit, averaged over classes, and its slopes by what the pixels add to."""
    p = use.unpack(params)
    c, first = parts.shape[2], how[FIRST]
    sums, weight, merged, by = np.empty((c, SUMS)), np.empty(c), np.empty(4), np.empty((c, 4))
    for u in range(lo, hi):
        start, stop = (0, len(parts)) if how[WHOLE] else (u, u + 1)
        state[u, 1] = add_blocks(parts, start, stop, sums)
        total = weigh(sums, class_weight, first, how[POWER], how[PRESENT] != 0, weight)
        counts = sums[0, 4] > 0.0
        state[u, 0] = 1.0 if counts else 0.0
        by[:] = 0.0
        value = 0.0
        micro = how[MICRO] != 0
        for k in range(first, c if total != 0.0 else first):
            for x in range(4):
                merged[x] = (merged[x] if micro and k > first else 0.0) + (
                    sums[k, x] * (weight[k] if micro else 1.0) if weight[k] != 0.0 else 0.0
                )
            share = 1.0 if micro else weight[k] / total
            # The loss of a class, or of the sums over all of them once the last is in.
            if share != 0.0 and (not micro or k == c - 1):
                out = use.formula(merged[0], merged[1], merged[2], merged[3], *p)
                value += share * out[0]
                for x in range(first if micro else k, k + 1):
                    w = weight[x] if micro else share
                    by[x, 0], by[x, 1], by[x, 2], by[x, 3] = w * out[1][0], w * out[1][1], w * out[1][2], w * out[1][3]
        values[u] = value if counts else 0.0
        for k in range(c):
            if not counts:
                by[k, 0], by[k, 1], by[k, 2], by[k, 3] = 0.0, 0.0, 0.0, 0.0
            # By p where it is above t and where it is below; or by t and by p - t.
            squared = how[SQUARED] == 1
            slopes[u, k, 0] = by[k, 0] if squared else by[k, 1] - by[k, 3]
            slopes[u, k, 1] = by[k, 1] + by[k, 2] if squared else by[k, 0] - by[k, 2]


def slope_row(w, t, x, y, squared, sigmoid):
    """The slopes by the probabilities of one class, or by the scores of their sigmoid, in place of the codes."""
    T = use.T
    if squared == PRODUCT:
        for j in range(w.size):
            small = abs(w[j])
            w[j] = (x * (T(1.0) - t[j]) + y * t[j]) * (small * (T(1.0) - small) if sigmoid else T(1.0))
    elif squared:
        for j in range(w.size):
            _, d = decode(w[j], t[j])
            small = abs(w[j])
            # p (1 - p) from the smaller of both: the same product, and no digit lost.
            w[j] = (x * t[j] + y * d) * (small * (T(1.0) - small) if sigmoid else T(1.0))
    else:
        middle = T(0.5) * (x + y)
        for j in range(w.size):
            _, d = decode(w[j], t[j])
            small = abs(w[j])
            # A prediction that equals a hard target can only move to one side.
            side = d if d != T(0.0) else T(0.5) - t[j]
            inner = (d == T(0.0)) & (t[j] > T(0.0)) & (t[j] < T(1.0))
            g = middle if inner else (x if side > T(0.0) else y)
            w[j] = g * (small * (T(1.0) - small) if sigmoid else T(1.0))


def through_softmax(w, first, step, g, base, mean):
    """From slopes by probabilities to slopes by scores, which take the place of the codes."""
    T = use.T
    c, size = g.shape
    m = base.size
    for j in range(m):
        base[j] = T(0.0)
        mean[j] = T(0.0)
    # Slopes relative to that of a class that takes more than half: where it takes nearly all, little is left to cancel.
    for k in range(c):
        x, row = part(w, first + k * step, m), part(g, k * size, m)
        for j in range(m):
            # Both are read whatever the choice: a load on one side only would be a branch.
            this, before = row[j], base[j]
            base[j] = this if np.copysign(T(1.0), x[j]) < T(0.0) else before
    for k in range(c):
        x, row = part(w, first + k * step, m), part(g, k * size, m)
        for j in range(m):
            p, _ = decode(x[j], T(0.0))
            # In the lanes of pixels: a sum along the classes of one pixel would be scalar.
            mean[j] += p * (row[j] - base[j])
    for k in range(c):
        x, row = part(w, first + k * step, m), part(g, k * size, m)
        for j in range(m):
            p, _ = decode(x[j], T(0.0))
            x[j] = p * ((row[j] - base[j]) - mean[j])


def spread(lo, hi, target, labels, mask, how, given, slopes, factors, grad):
    """The gradient of blocks of pixels in place of their codes, from slopes given for each pixel or computed here."""
    T = use.T
    widest_vectors()
    c, s, size, activation = grad.shape[1], grad.shape[2], how[BLOCK], how[ACTIVATION]
    blocks, rows = (s + size - 1) // size, np.empty((4, size), T)
    g = np.empty((c, size) if activation == 2 else (0, 0), T)
    keep = np.empty(size if labels.size > 0 or mask.size > 0 else 0, T)
    label = part(rows, 0, size)
    for v in range(lo, hi):
        i, start = v // blocks, v % blocks * size
        m = min(size, s - start)
        at = i * c * s + start
        u = 0 if how[WHOLE] else i
        factor = factor_of(factors, u)
        # Spares the pass of a sample that does not count, which may hold NaN.
        if factor == 0.0:
            for k in range(c):
                clear(part(grad, at + k * s, m), 0)
            continue
        keep_pixels(labels, mask, i * s + start, m, label, keep)
        for k in range(c):
            w = part(grad, at + k * s, m)
            # Two numbers a class stand for the whole chain rule: no loop over pixels reads float64.
            x, y = T(slopes[u, k, 0] * factor), T(slopes[u, k, 1] * factor)
            if activation == 2:
                # Only the sums over classes need the codes of all of them again.
                own = part(g, k * size, m)
                for j in range(m):
                    own[j] = w[j]
                w = own
            if x == T(0.0) and y == T(0.0):
                # A class that does not count may hold anything.
                clear(w, 0)
            elif given.size > 0:
                ready = part(given, at + k * s, m)
                for j in range(m):
                    small = abs(w[j])
                    w[j] = x * ready[j] * (small * (T(1.0) - small) if activation == 1 else T(1.0))
            else:
                t = region(target, labels, label, T(k + (c == 1)), keep, at + k * s, part(rows, size, m))
                slope_row(w, t, x, y, how[SQUARED], activation == 1)
            if keep.size > 0 and activation != 2:
                for j in range(m):
                    w[j] = w[j] if keep[j] > T(0.0) else T(0.0)
        if activation == 2:
            through_softmax(grad, at, s, g, part(rows, 2 * size, m), part(rows, 3 * size, m))


MEASURE = (keep_pixels, region, by_sigmoid, by_softmax, activate, outside, decode, overlaps, squares, products)
SPREAD = (keep_pixels, region, decode, slope_row, through_softmax)


@cache
def measuring(dtype: str) -> Kernel:
    """Return the kernel that sums over blocks, and leaves codes of the probabilities where the gradient will be."""
    return kernel(measure, "regions_measure", dtype, None, MEASURE, flushes=True)


@cache
def spreading(dtype: str) -> Kernel:
    """Return the kernel that writes the gradient, by slopes given for each pixel or computed from those of the sums."""
    return kernel(spread, "regions_spread", dtype, None, SPREAD, flushes=True)


@cache
def _judging(name: str, formula: Any) -> Kernel:
    return kernel(judge, f"{name}_judge", "float64", formula, (add_blocks, weigh))


def refuse_squares(options: dict[str, Any], other: str) -> None:
    """Raise for an option that sums of squares do not have."""
    if options.get("squared"):
        raise CallValueError(f"is True, which goes not together with {other}", "squared")


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates the loss of every sample, or of the batch, for calls like one."""
    options, free = call.parameters, "distance" in call.arrays
    second = "distance" if free else "target"
    pixels = Pixels(call, second)
    how, c, n, units, masked = pixels.how, pixels.c, pixels.n, call.units, pixels.masked
    how[SQUARED], how[FREE] = free or options.get("squared", False), free
    if options.get("overlap") == "product":
        refuse_squares(options, "overlap='product'")
        how[SQUARED] = PRODUCT
    if options.get("classes") == "present":
        refuse_squares(options, "classes='present'")
        how[PRESENT] = 1
    how[MICRO] = "weighting" in options or options.get("average") == "micro"
    # A run-time number, by which three weightings share one kernel.
    how[POWER] = POWERS[options.get("weighting", "uniform")]
    judging = _judging(call.record.name, call.record.function)
    work, blocks = call["prediction"].size, pixels.blocks
    sums, slopes_of = (measuring(call.name), blocks), (spreading(call.name), blocks)
    # What the mean is divided by, which the slopes need, is known once all samples are judged.
    apart = pixels.whole or masked
    steps = [sums] if pixels.whole else [sums, (judging, 1)]
    first = bound_stages(n, work, *steps, *([] if apart or not call.grads else [slopes_of]))
    last = bound_stages(n, work, slopes_of)

    def evaluate(call: Any) -> None:
        read, grad, parts = pixels.read(call), pixels.grad(call), pixels.parts()
        weight = call.arrays["class_weight"]
        weight = NO_WEIGHT if weight is None else weight.astype(np.float64)
        state, slopes = np.empty((units, 2)), np.empty((units, c, 2))
        measured = (call.arrays["prediction"], *read, parts, grad)
        judged = (call.numbers(), parts, weight, how, call.values, state, slopes)
        if pixels.whole:
            first(measured)
            judging(1, 1, *judged)
        elif masked or not call.grads:
            first(measured, judged)
        else:
            first(measured, judged, (*read, pixels.nothing, slopes, call.factors(), grad))
        if flagged_in(state):
            inside(call, (["prediction"] if options["activation"] is None else []) + ([] if free else [second]), UNIT)
        if masked:
            call.counted = np.ascontiguousarray(state[:, 0])
        if call.grads and apart:
            last((*read, pixels.nothing, slopes, call.factors(), grad))

    return evaluate


def run(call: Any) -> None:
    """Evaluate the loss of every sample, or of the batch."""
    prepare(call)(call)
