"""Losses of regions: sums over the pixels of each class, a formula of the sums, its slopes back to the pixels.

Two kernels. `sweep` sums, for each block of pixels of a sample, what the formulas of regions need; `judge` adds the
blocks up in their order, evaluates the formula for each sample or for the batch, and averages over the classes;
`sweep` then goes over the pixels again and writes the gradient. A block is a unit of its own, so that one large image
keeps all threads busy, and blocks depend on the shape alone. Activations are computed in both passes over the pixels:
that takes less time than to store and load them.
"""

from typing import Any

import numpy as np

from .. import check
from ..formulas.record import UNIT
from .blocks import kernel
from .staging import clear, part

__all__ = ["Pixels", "run"]

# Names that the templates below find bound when they are specialized.
T: Any = None
exp: Any = None
formula: Any = None
unpack: Any = None
factor_of: Any = None
widest_vectors: Any = None

ACTIVATIONS = {None: 0, "sigmoid": 1, "softmax": 2}
SUMS = 6
"""Sums of a class over a block: tp, fp, fn, tn, pixels that count, predictions or targets outside of [0, 1]."""

# What a kernel is told, as whole numbers.
ACTIVATION, SQUARED, FREE, WHOLE, MICRO, FIRST, POWER, BLOCK = range(8)


def keep_pixels(labels, mask, at, m, label, keep):
    """Labels of a block of pixels, and 1 for those that count; how many do."""
    if keep.size == 0:
        return float(m)
    for j in range(keep.size):
        keep[j] = T(1.0)
    if labels.size > 0:
        given = part(labels, at, m)
        for j in range(given.size):
            label[j] = T(given[j])
            keep[j] = T(1.0) if given[j] >= 0 else T(0.0)
    if mask.size > 0:
        chosen = part(mask, at, m)
        for j in range(chosen.size):
            keep[j] = keep[j] if chosen[j] != 0 else T(0.0)
    kept = T(0.0)
    row = part(keep, 0, m)
    for j in range(row.size):
        kept += row[j]
    return float(kept)


def region(target, labels, label, own, keep, at, row):
    """The target of one class in a block of pixels, 0 where they do not count."""
    if labels.size > 0:
        for j in range(row.size):
            row[j] = T(1.0) if label[j] == own else T(0.0)
        return row
    given = part(target, at, row.size)
    if keep.size == 0:
        return given
    for j in range(row.size):
        row[j] = given[j] if keep[j] > T(0.0) else T(0.0)
    return row


def by_sigmoid(x, p, q):
    """Probabilities and their complements, neither by subtraction."""
    for j in range(x.size):
        e = exp(-abs(x[j]))
        inverse = T(1.0) / (T(1.0) + e)
        small = e * inverse
        up = x[j] >= T(0.0)
        p[j] = inverse if up else small
        q[j] = small if up else inverse


def by_softmax(z, at, s, p, q, top, tail, ties):
    """The same over the classes of each pixel, whose scores lie s apart."""
    c, size = p.shape
    m = top.size
    first = part(z, at, m)
    for j in range(m):
        top[j] = first[j]
        tail[j] = T(0.0)
        ties[j] = T(0.0)
    for k in range(1, c):
        x = part(z, at + k * s, m)
        for j in range(m):
            top[j] = x[j] if x[j] > top[j] else top[j]
    for k in range(c):
        x, a = part(z, at + k * s, m), part(p, k * size, m)
        for j in range(m):
            most = x[j] == top[j]
            # Equal infinities have no difference.
            e = T(1.0) if most else exp(x[j] - top[j])
            tail[j] += T(0.0) if most else e
            ties[j] += T(1.0) if most else T(0.0)
            a[j] = e
    for j in range(m):
        tail[j] = tail[j] + (ties[j] - T(1.0))
        ties[j] = T(1.0) / (T(1.0) + tail[j])
    for k in range(c):
        a, b = part(p, k * size, m), part(q, k * size, m)
        for j in range(m):
            most = a[j] == T(1.0)
            a[j] = a[j] * ties[j]
            b[j] = tail[j] * ties[j] if most else T(1.0) - a[j]


def activate(z, at, s, m, activation, keep, p, q, rows):
    """Probabilities p of a block of pixels and q = 1 - p, both 0 where a pixel does not count."""
    c, size = p.shape
    if activation == 2:
        by_softmax(z, at, s, p, q, part(rows, 0, m), part(rows, size, m), part(rows, 2 * size, m))
    for k in range(c):
        x, a, b = part(z, at + k * s, m), part(p, k * size, m), part(q, k * size, m)
        if activation == 1:
            by_sigmoid(x, a, b)
        elif activation == 0:
            for j in range(x.size):
                a[j] = x[j]
                b[j] = T(1.0) - x[j]
        if keep.size > 0:
            for j in range(x.size):
                a[j] = a[j] if keep[j] > T(0.0) else T(0.0)
                b[j] = b[j] if keep[j] > T(0.0) else T(0.0)


def outside(x):
    """How many numbers lie outside of [0, 1]."""
    count = T(0.0)
    for j in range(x.size):
        count += T(1.0) if (x[j] < T(0.0)) | (x[j] > T(1.0)) else T(0.0)
    return float(count)


def difference(p, q, t):
    """p - t, exact where both are near 1."""
    return (T(1.0) - t) - q if t >= T(0.5) else p - t


def overlaps(p, q, t, sums):
    """Sums of min(p, t), of what p has beyond t, of what it lacks, and of min(1 - p, 1 - t)."""
    tp, fp, fn, tn = T(0.0), T(0.0), T(0.0), T(0.0)
    for j in range(t.size):
        d = difference(p[j], q[j], t[j])
        r = T(1.0) - t[j]
        tp += p[j] if d <= T(0.0) else t[j]
        # In this order NaN comes through.
        fp += T(0.0) if d <= T(0.0) else d
        fn += T(0.0) if d >= T(0.0) else -d
        tn += q[j] if q[j] < r else r
    sums[0] = tp
    sums[1] = fp
    sums[2] = fn
    sums[3] = tn


def squares(p, q, t, sums):
    """Sums of p t, and of half of (p - t)^2 for either side."""
    tp, half = T(0.0), T(0.0)
    for j in range(t.size):
        d = difference(p[j], q[j], t[j])
        tp += p[j] * t[j]
        half += T(0.5) * d * d
    sums[0] = tp
    sums[1] = half
    sums[2] = half


def add_blocks(parts, first, last, sums):
    """Sums of samples first to last, and how many numbers lie outside of [0, 1]."""
    bad = 0.0
    for k in range(parts.shape[2]):
        for x in range(SUMS - 1):
            sums[k, x] = 0.0
        for i in range(first, last):
            for b in range(parts.shape[1]):
                for x in range(SUMS - 1):
                    sums[k, x] += parts[i, b, k, x]
                bad += parts[i, b, k, SUMS - 1]
    return bad


def weigh(sums, class_weight, first, power, weight):
    """The weight of each class from the first on; their sum."""
    least = np.inf
    for k in range(first, len(weight)):
        size = sums[k, 0] + sums[k, 2]
        least = size if 0.0 < size < least else least
    total = 0.0
    for k in range(len(weight)):
        size = sums[k, 0] + sums[k, 2]
        w = class_weight[k] if class_weight.size > 0 else 1.0
        for _ in range(power):
            w *= least / size if size > 0.0 else 1.0
        weight[k] = w if k >= first else 0.0
        total += weight[k]
    return total


def judge(lo, hi, params, parts, class_weight, how, values, state, slopes):
    """The loss of each unit, averaged over classes, and its slopes by what the pixels add to."""
    p = unpack(params)
    c, first = parts.shape[2], how[FIRST]
    sums, weight, merged, by = np.empty((c, SUMS)), np.empty(c), np.empty(4), np.empty((c, 4))
    for u in range(lo, hi):
        start, stop = (0, len(parts)) if how[WHOLE] else (u, u + 1)
        state[u, 1] = add_blocks(parts, start, stop, sums)
        total = weigh(sums, class_weight, first, how[POWER], weight)
        counts = sums[0, 4] > 0.0
        state[u, 0] = 1.0 if counts else 0.0
        by[:] = 0.0
        value = 0.0
        if how[MICRO] and total > 0.0:
            merged[:] = 0.0
            for k in range(first, c):
                for x in range(4):
                    merged[x] += weight[k] * sums[k, x] if weight[k] != 0.0 else 0.0
            out = formula(merged[0], merged[1], merged[2], merged[3], *p)
            value = out[0]
            for k in range(first, c):
                w = weight[k]
                by[k, 0], by[k, 1], by[k, 2], by[k, 3] = w * out[1][0], w * out[1][1], w * out[1][2], w * out[1][3]
        elif total > 0.0:
            for k in range(first, c):
                w = weight[k] / total
                if w != 0.0:
                    out = formula(sums[k, 0], sums[k, 1], sums[k, 2], sums[k, 3], *p)
                    value += w * out[0]
                    by[k, 0], by[k, 1], by[k, 2], by[k, 3] = w * out[1][0], w * out[1][1], w * out[1][2], w * out[1][3]
        values[u] = value if counts else 0.0
        for k in range(c):
            if not counts:
                by[k, 0], by[k, 1], by[k, 2], by[k, 3] = 0.0, 0.0, 0.0, 0.0
            # By p where it is above t and where it is below; or by t and by p - t.
            slopes[u, k, 0] = by[k, 0] if how[SQUARED] else by[k, 1] - by[k, 3]
            slopes[u, k, 1] = by[k, 1] + by[k, 2] if how[SQUARED] else by[k, 0] - by[k, 2]


def slope_row(p, q, t, x, y, squared, g):
    """The slopes by the probabilities of one class."""
    if squared:
        for j in range(g.size):
            g[j] = x * t[j] + y * difference(p[j], q[j], t[j])
        return
    middle = T(0.5) * (x + y)
    for j in range(g.size):
        d = difference(p[j], q[j], t[j])
        # A prediction that equals a hard target can only move to one side.
        above = (d > T(0.0)) | ((d == T(0.0)) & (t[j] <= T(0.0)))
        below = (d < T(0.0)) | ((d == T(0.0)) & (t[j] >= T(1.0)))
        g[j] = x if above else (y if below else middle)


def through_softmax(z, at, s, p, g, top, base, mean, grad):
    """From slopes by probabilities to slopes by scores."""
    c, size = p.shape
    m = top.size
    for j in range(m):
        base[j] = T(0.0)
        mean[j] = T(0.0)
    # Slopes relative to that of a largest score: where it takes nearly all, little is left to cancel.
    for k in range(c):
        x, row = part(z, at + k * s, m), part(g, k * size, m)
        for j in range(m):
            base[j] = row[j] if x[j] == top[j] else base[j]
    for k in range(c):
        a, row = part(p, k * size, m), part(g, k * size, m)
        for j in range(m):
            mean[j] += a[j] * (row[j] - base[j])
    for k in range(c):
        a, row, out = part(p, k * size, m), part(g, k * size, m), part(grad, at + k * s, m)
        for j in range(m):
            out[j] = a[j] * ((row[j] - base[j]) - mean[j])


def sweep(lo, hi, z, target, labels, mask, how, parts, given, slopes, factors, grad):
    """Sums over blocks of pixels; or their gradient, from slopes given for each pixel or computed anew."""
    widest_vectors()
    c, s, size, activation = z.shape[1], z.shape[2], how[BLOCK], how[ACTIVATION]
    blocks = (s + size - 1) // size
    writing, softmax = grad.size > 0, activation == 2
    p, q, rows = np.empty((c, size), T), np.empty((c, size), T), np.empty((5, size), T)
    g = np.empty((c, size) if softmax and writing else (0, 0), T)
    keep = np.empty(size if labels.size > 0 or mask.size > 0 else 0, T)
    label = part(rows, 3 * size, size)
    for v in range(lo, hi):
        i, start = v // blocks, v % blocks * size
        m = min(size, s - start)
        at = i * c * s + start
        u = 0 if how[WHOLE] else i
        factor = factor_of(factors, u)
        if factor == 0.0:
            for k in range(c):
                clear(part(grad, at + k * s, m), 0)
            continue
        kept = keep_pixels(labels, mask, i * s + start, m, label, keep)
        activate(z, at, s, m, activation, keep, p, q, rows)
        for k in range(c):
            place = at + k * s
            a, b = part(p, k * size, m), part(q, k * size, m)
            # Of a single class the label is 1.
            own = T(k + 1) if c == 1 else T(k)
            t = a if given.size > 0 else region(target, labels, label, own, keep, place, part(rows, 4 * size, m))
            if writing:
                out = part(g, k * size, m) if softmax else part(grad, place, m)
                x, y = T(slopes[u, k, 0] * factor), T(slopes[u, k, 1] * factor)
                if given.size > 0:
                    ready = part(given, place, m)
                    for j in range(m):
                        out[j] = x * ready[j]
                else:
                    slope_row(a, b, t, x, y, how[SQUARED] != 0, out)
                if activation == 1:
                    for j in range(m):
                        out[j] *= a[j] * b[j]
                elif keep.size > 0:
                    for j in range(m):
                        out[j] = out[j] if keep[j] > T(0.0) else T(0.0)
            else:
                sums = part(parts, (v * c + k) * SUMS, SUMS)
                sums[4] = kept
                sums[5] = outside(a) if activation == 0 else 0.0
                if how[FREE] == 0 and labels.size == 0:
                    sums[5] += outside(t)
                if how[SQUARED] == 0:
                    overlaps(a, b, t, sums)
                else:
                    squares(a, b, t, sums)
                    sums[3] = kept
        if softmax and writing:
            rows3 = part(rows, 0, m), part(rows, size, m), part(rows, 2 * size, m)
            through_softmax(z, at, s, p, g, *rows3, grad)


HELPERS = (
    *(keep_pixels, region, by_sigmoid, by_softmax, activate, outside, difference, overlaps, squares),
    *(slope_row, through_softmax),
)


def block_of(classes: int, pixels: int) -> int:
    """Pixels in a block: what is held of all classes should fit the second-level cache."""
    return max(1, min(pixels, 1024 if classes <= 4 else 512 if classes <= 16 else 256))


class Pixels:
    """The arrays of a call, and what its kernels are told."""

    def __init__(self, call: Any, second: str) -> None:
        options = call.parameters
        self.z = call["prediction"]
        n, c, s = self.z.shape
        target, mask = call[second], call["mask"]
        dense = target.ndim == 3
        self.target = target if dense else np.empty((0, c, 0), call.dtype)
        self.labels = np.empty((0, 0), np.int64) if dense else target
        self.mask = np.empty((0, 0), np.uint8) if mask is None else mask
        self.masked = mask is not None or not dense
        if options["activation"] == "softmax" and c == 1:
            raise ValueError(f"{call.record.name}: activation is 'softmax' for a single class; expected 'sigmoid'")
        first = 0 if options.get("include_background", True) else 1
        if first >= c:
            raise ValueError(f"{call.record.name}: include_background is False for a single class; nothing is left")
        self.how = np.zeros(8, np.int64)
        self.how[ACTIVATION] = ACTIVATIONS[options["activation"]]
        self.how[WHOLE] = options["per"] == "batch"
        self.how[FIRST] = first
        self.size = block_of(c, s)
        self.how[BLOCK] = self.size
        self.blocks = -(-s // self.size)

    def sweep(self, call: Any, parts: Any, given: Any, slopes: Any, factors: Any, grad: Any) -> None:
        """Sum up all blocks, or write their gradient."""
        sweeping = kernel(sweep, "regions_sweep", call.name, None, HELPERS)
        read = (self.z, self.target, self.labels, self.mask, self.how)
        sweeping(len(self.z) * self.blocks, self.z.size * 2, *read, parts, given, slopes, factors, grad)

    def sums(self, call: Any) -> Any:
        """What the pixels of each block sum to."""
        n, c, _ = self.z.shape
        parts, no = np.empty((n, self.blocks, c, SUMS)), np.empty((0, 0, 0), call.dtype)
        self.sweep(call, parts, no, np.empty((0, 0, 0)), np.ones(1), no)
        return parts

    def spread(self, call: Any, slopes: Any, given: Any = None) -> None:
        """Write the gradient."""
        given = np.empty((0, 0, 0), call.dtype) if given is None else given
        self.sweep(call, np.empty((0, 0, 0, 0)), given, slopes, call.factors(), call.grads["prediction"])


def refuse(call: Any, second: str) -> None:
    """Raise for the first number outside of [0, 1]."""
    names = [second] if call.parameters["activation"] else ["prediction", second]
    counts = np.True_
    if call[second].ndim == 2:
        names.remove(second)
        counts = (call[second] >= 0)[:, None]
    if call["mask"] is not None:
        counts = counts & (call["mask"] != 0)[:, None]
    for name in names:
        a = np.where(counts, call[name], 0.0)
        check.violation(call.record.name, name, a.reshape(*a.shape[:2], *call.dims["+"]), UNIT)
    raise ValueError(f"{call.record.name}: an input changed while it was read")


def run(call: Any) -> None:
    """Evaluate the loss of every sample, or of the batch."""
    options, free = call.parameters, "distance" in call.arrays
    second = "distance" if free else "target"
    pixels = Pixels(call, second)
    how, c = pixels.how, pixels.z.shape[1]
    how[SQUARED], how[FREE] = free or options.get("squared", False), free
    how[MICRO] = "weighting" in options or options.get("average") == "micro"
    how[POWER] = {"square": 2, "simple": 1, "uniform": 0}[options.get("weighting", "uniform")]
    parts = pixels.sums(call)
    weight = call["class_weight"]
    weight = np.empty(0) if weight is None else weight.astype(np.float64)
    state, slopes = np.empty((call.units, 2)), np.empty((call.units, c, 2))
    judging = kernel(judge, f"{call.record.name}_judge", "float64", call.record.function, (add_blocks, weigh))
    judging(call.units, parts.size, call.numbers(), parts, weight, how, call.values, state, slopes)
    if state[:, 1].any():
        refuse(call, second)
    if pixels.masked:
        call.counted = np.ascontiguousarray(state[:, 0])
    if call.grads:
        pixels.spread(call, slopes)
