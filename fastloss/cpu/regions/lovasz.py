"""Lovasz losses: the errors of each class sorted once, for the value and the gradient.

Sorted downwards, the error of each pixel is multiplied by what the pixel adds to the Jaccard loss of those before it
(Berman et al., 2018): 1 / union for a pixel of the region, inter / (union (union + 1)) for another, neither as a
difference of two losses.
"""

from typing import Any, NamedTuple

import numpy as np

from ...call.errors import CallValueError
from ...spec.record import UNIT, OneOf
from ..math.sorting import COUNTS, sort_digits
from ..runtime.slots import unbound
from ..runtime.staging import clear, part
from ..runtime.units import kernel
from .domains import inside
from .pixels import ACTIVATION, BLOCK, FIRST, PRESENT, RAW, WHOLE, Pixels, flagged_in
from .sums import keep_pixels, measuring, region, spreading

__all__ = ["run"]


class Slots(NamedTuple):
    """Number types that the templates of Lovasz losses read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    KEY: type
    """Unsigned integer type of the sorted keys, of as many bits as T has."""


use = unbound(Slots)

ONE = np.uint64(1)
HARD = OneOf((0.0, 1.0))
LONGEST = 1 << 30
"""Numbers among which those to be sorted lie: their places have 31 bits with one for the region."""


def key_of(error):
    """A whole number that falls as an error rises; NaN comes first."""
    # Errors are not negative, so that their bits order as they do; inverted, the largest comes first.
    return use.KEY(~use.T(error).view(use.KEY))


def error_of(key):
    """The error of a key."""
    return float(use.KEY(~key).view(use.T))


def collect(codes, target, labels, mask, how, k, first, last, scratch, rows, found):
    """Keys that sort upwards as the errors of a class do downwards, and twice the place of each pixel, plus its label.

    Fills in how many there are, how many belong to the region, how many targets are neither 0 nor 1, and how many NaN.
    """
    T = use.T
    c, s, size = codes.shape[1], codes.shape[2], how[BLOCK]
    # Empty where every pixel counts: the loop below then reads no mask.
    keep = part(scratch, 0, size if labels.size > 0 or mask.size > 0 else 0)
    keys, items = part(rows, 0, rows.shape[1]), part(rows, 2 * rows.shape[1], rows.shape[1])
    hinge = how[ACTIVATION] == RAW
    zero, one = np.uint64(0), np.uint64(1)
    count, region_size, bad, unknown = zero, zero, zero, zero
    for i in range(first, last):
        for start in range(0, s, size):
            m = min(size, s - start)
            keep_pixels(labels, mask, i * s + start, m, part(scratch, size, size), keep)
            at = (i * c + k) * s + start
            t = region(target, labels, part(scratch, size, size), T(k + (c == 1)), keep, at, part(scratch, 2 * size, m))
            w = part(codes, at, m)
            place = ((i - first) * c * s + start) * 2
            kept = keep if keep.size > 0 else t
            # Without branches, which nobody could predict: what does not count is overwritten by the next.
            for j in range(m):
                x, y = w[j], t[j]
                inside = y == T(1.0)
                if hinge:
                    e = T(1.0) + (-x if inside else x)
                else:
                    small = abs(x)
                    large = T(1.0) - small
                    e = small if (np.copysign(T(1.0), x) < T(0.0)) == inside else large
                # A target of NaN makes the error NaN.
                e = e if y == y else y
                counts = one if (keep.size == 0) | (kept[j] > T(0.0)) else zero
                bit = one if inside else zero
                bad += counts & (one if (y != T(0.0)) & (y == y) else zero) & (bit ^ one)
                unknown += counts & (zero if y == y else one)
                region_size += counts & bit
                keys[count] = key_of(e)
                # The label travels in the lowest bit of the place: sorting then moves two arrays, not three.
                items[count] = use.KEY(np.uint64(place + 2 * j) | bit)
                # Of a hinge, errors below 0 count for nothing.
                count += counts & (zero if e <= T(0.0) else one) if hinge else counts
    found[0] = count
    found[1] = region_size
    found[2] = bad
    found[3] = unknown


def rank(lo, hi, codes, target, labels, mask, how, values, state, given):
    """The loss of each class, of a sample or of the batch, and its slopes by errors."""
    T = use.T
    n, c, s = codes.shape
    many = n if how[WHOLE] else 1
    room = many * s + 1
    # Two arrays to sort and two to sort into, reused for each class of the unit.
    rows = np.empty((4, room), use.KEY)
    counts, scratch, found = np.empty(COUNTS, np.int64), np.empty((3, how[BLOCK]), T), np.empty(4, np.int64)
    for r in range(lo, hi):
        k = r % c
        first = 0 if how[WHOLE] else r // c
        if given.size > 0:
            for i in range(first, first + many):
                clear(part(given, (i * c + k) * s, s), 0)
        if k < how[FIRST]:
            values[r], state[r, 0], state[r, 1] = 0.0, 0.0, 0.0
            continue
        collect(codes, target, labels, mask, how, k, first, first + many, scratch, rows, found)
        m = found[0]
        inter = float(found[1])
        union, value = inter, 0.0
        there = inter > 0.0 or how[PRESENT] == 0 or found[3] > 0
        state[r, 0], state[r, 1] = 1.0 if there else 0.0, float(found[2])
        # By digits, in linear time, where comparisons would take log2(n) rounds.
        row = sort_digits(rows, m, counts) if there and m > 0 else 0
        sorted_keys, sorted_items = part(rows, row * room, m), part(rows, (row + 2) * room, m)
        slopes = part(given, (first * c + k) * s, given.size)
        if there and inter == 0.0 and m > 0:
            # Without a region the largest error is all of the loss.
            value, union = error_of(sorted_keys[0]), 1.0
            if given.size > 0:
                slopes[np.uint64(sorted_items[0] >> ONE)] = T(1.0)
        for q in range(m if there and inter > 0.0 else 0):
            e, item = error_of(sorted_keys[q]), sorted_items[q]
            own = float(item & ONE)
            other = 1.0 - own
            # Both forms of the increment in one division, without a branch on the label.
            step = (own + other * inter) / (union * (own + other * (union + 1.0)))
            # In float64: counts of pixels are whole up to 2**53.
            inter -= own
            union += other
            # No product where an infinite error adds nothing.
            value += e * step if step > 0.0 else 0.0
            if given.size > 0:
                slopes[np.uint64(item >> ONE)] = T((other - own) * step)
        values[r] = value
        if value != value and given.size > 0:
            # Errors that are NaN have no order.
            for i in range(first, first + many):
                rows_of = part(given, (i * c + k) * s, s)
                for j in range(s):
                    rows_of[j] = T(np.nan)


HELPERS = (keep_pixels, region, key_of, error_of, sort_digits, collect)


def run(call: Any) -> None:
    """Evaluate the loss of every sample, or of the batch."""
    raw, z = "activation" not in call.parameters, call["prediction"]
    pixels = Pixels(call, "target")
    how, (n, c, s), whole, read = pixels.how, z.shape, pixels.whole, pixels.read(call)
    how[PRESENT] = call.parameters.get("classes") == "present"
    rows = c if whole else n * c
    if (n * c if whole else 1) * s > LONGEST:
        raise CallValueError(f"has {n * c * s} numbers; allowed: up to {LONGEST} at once", "prediction")
    if raw:
        how[ACTIVATION] = RAW
    parts = pixels.parts()
    codes = pixels.grad(call) if raw or call.grads else np.empty(z.shape, call.dtype)
    measuring(call.name)(n * pixels.blocks, z.size, z, *read, parts, codes)
    given = np.empty(z.shape if call.grads else (0, 0, 0), call.dtype)
    values, state = np.empty(rows), np.empty((rows, 2))
    flags = (("KEY", np.uint32 if call.name == "float32" else np.uint64),)
    ranking = kernel(rank, "lovasz_rank", call.name, None, HELPERS, flags)
    ranking(rows, z.size * 20, z if raw and not call.grads else codes, *read, values, state, given)
    sums = parts.sum(axis=1)
    if flagged_in(state) or (not raw and call.parameters["activation"] is None and sums[..., 5].any()):
        inside(call, ["target"], HARD)
        if not raw and call.parameters["activation"] is None:
            inside(call, ["prediction"], UNIT)
    kept = sums[:, 0, 4]
    weight = state[:, 0].reshape(-1, c)
    if call["class_weight"] is not None:
        weight = weight * call["class_weight"]
    total = weight.sum(axis=1, keepdims=True)
    # A sample without a class that counts has the value 0, not NaN.
    weight = np.divide(weight, total, out=np.zeros_like(weight), where=total != 0.0)
    np.sum(np.where(weight, weight * values.reshape(-1, c), 0.0), axis=1, out=call.values)
    if pixels.masked:
        call.counted = np.array([kept.sum() > 0.0] if whole else kept > 0.0, np.float64)
    if call.grads:
        slopes = np.stack([weight, weight], axis=2)
        grads = (call.factors(), pixels.grad(call))
        spreading(call.name)(n * pixels.blocks, z.size, *read, given, slopes, *grads)
