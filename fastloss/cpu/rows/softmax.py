"""Softmax loops over rows of K classes for a CPU, around one scalar formula of log-probability and target.

With integer labels there are two scans: along a row, or down a transposed tile of rows where K is too small to
fill the vector unit. Both find, per row, the maximum, the sum of exponentials less one (so that a loss or a
1 - p near zero keeps its digits), and leave the exponentials where the gradient will be.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..runtime import access
from ..runtime.intrinsics import call, prefetch, widest_vectors
from ..runtime.slots import unbound
from ..runtime.specialize import INLINED, LOOP, SCALAR, chained, inner
from ..runtime.staging import drain, flat, streamable
from ..runtime.subnormals import flush_subnormals, restore_subnormals
from .slots import RowSlots
from .tiles import (
    AT_E,
    AT_LABEL,
    AT_PP,
    AT_PQ,
    CLASS_WEIGHT,
    COLUMNS,
    FLAT,
    GROUP,
    HESS_LABEL,
    LINEAR,
    PICKED,
    SHIFTED,
    TAIL,
    TOP,
    VALUE,
    WEIGHT,
    pick_labels,
    put_rows,
    scan_tile,
    spread_tile,
    tail_of,
)

__all__ = ["dense_sums", "label_terms", "maximum", "order_max", "parts", "room", "softmax_dense", "softmax_labels"]

BLOCK = 512
"""Elements summed in the lanes of a row loop before they become one number."""

AHEAD = 2048
"""Elements between a prefetch and their use: two pages, since the hardware's own prefetching ends with a page."""


class Ordering(NamedTuple):
    """Number types and constants that the maximum of a row reads."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    BITS: type
    """Signed integer type of as many bits as T has."""
    SHIFT: Any
    """Number of the sign bit."""
    MAGNITUDE: Any
    """All bits but the sign bit."""
    LEAST: Any
    """Least integer of the type BITS."""


use: Any = unbound(RowSlots, Ordering)

times = access.times[True]
apart = access.times[False]


def order_max(x):
    """The largest element; NaN of positive sign is above infinity. As integers, a maximum vectorises."""
    T = use.T
    widest_vectors()
    m = use.LEAST
    for j in range(x.size):
        b = T(x[j]).view(use.BITS)
        # Orders integers as the floats are: of negative ones, all bits but the sign are flipped.
        b = use.BITS(b ^ ((b >> use.SHIFT) & use.MAGNITUDE))
        m = b if b > m else m
    return use.BITS(m ^ ((m >> use.SHIFT) & use.MAGNITUDE)).view(T)


def exponentials(x, m, beta, e):
    """Shifted, scaled exponentials; a loop of its own, since beside sums it would be unrolled less."""
    widest_vectors()
    for j in range(x.size):
        # The difference first: beta times a large score would round away what the maximum leaves of it.
        e[j] = use.exp((x[j] - m) * beta)


SEGMENT = 1 << 12
"""Elements of a row that stay in the first-level cache from the maximum to the sum.

A longer row is taken in segments, each with a maximum of its own, so that it is read from memory once.
"""


def scan_segment(x, base, beta, e):
    """Sum of exponentials relative to base, and the same without the elements that equal it."""
    T = use.T
    widest_vectors()
    total = T(0.0)
    rest = T(0.0)
    for lo in range(0, x.size, BLOCK):
        hi = min(lo + BLOCK, x.size)
        xs = x[lo:hi]
        # A value alone needs no row of exponentials: each block overwrites the one before, in the first-level cache.
        es = e[lo:hi] if use.stored else e[: hi - lo]
        # Rows follow each other: a short row fetches for later ones.
        prefetch(x, lo + AHEAD, hi + AHEAD)
        if use.stored:
            prefetch(e, lo + AHEAD, hi + AHEAD)
        exponentials(xs, base, beta, es)
        for j in range(xs.size):
            total += es[j]
            # Summed apart: a sum of all less one has no digits of a tail below the rounding of 1.
            rest += T(0.0) if xs[j] == base else es[j]
    return total, rest


def scan_row(x, beta, class_weight, e, tops):
    """Maximum, sum of exponentials less one, and weighted sum of shifted logits.

    The exponentials go to e, relative to each segment's own maximum in tops; e may be shorter than the row where
    nobody will read them.
    """
    T = use.T
    widest_vectors()
    m = T(0.0)
    rest = T(0.0)
    total = T(0.0)
    linear = T(0.0)
    for c in range(tops.size):
        lo = c * SEGMENT
        hi = min(lo + SEGMENT, x.size)
        xs = x[lo:hi]
        # 0.076 ns an element, where a maximum of floats, which does not vectorise, takes 0.55.
        top = order_max(xs)
        # Nothing is relative to minus infinity: exp(-inf - 0) is 0.
        base = top if top != -use.INFINITE else T(0.0)
        part, below = scan_segment(xs, base, beta, e[lo:hi] if use.stored else e)
        tops[c] = top
        if c == 0:
            m, total, rest = top, part, below
        elif top > m:
            # Keeps every exponential at most 1: what was summed is made relative to the new, larger maximum.
            shrink = use.exp((m - top) * beta)
            m, total, rest = top, total * shrink + part, total * shrink + below
        elif top == m:
            total += part
            rest += below
        else:
            shrink = use.exp((top - m) * beta)
            total += part * shrink
            rest += part * shrink
    if use.smooth:
        for j in range(x.size):
            linear += times((x[j] - m) * beta, class_weight[j])
    return m, tail_of(total, rest), linear


def settle(e, tops, m, beta):
    """Make the exponentials of a row relative to its maximum."""
    widest_vectors()
    for c in range(tops.size):
        factor = use.exp((tops[c] - m) * beta)
        for j in range(c * SEGMENT, min((c + 1) * SEGMENT, e.size)):
            e[j] *= factor


def scan_rows(z, beta, class_weight, e, tops, s):
    """Scan row by row."""
    for i in range(z.shape[0]):
        s[TOP + i], s[TAIL + i], s[LINEAR + i] = scan_row(z[i], beta, class_weight, e[i if use.stored else 0], tops[i])


def pick_shifted(z, labels, beta, s):
    """The shifted logit that each row's label picks."""
    n, k = z.shape
    for i in range(n):
        # A gather of one number a row, apart from the scan, which it would keep scalar.
        y = labels[i]
        s[SHIFTED + i] = (z[i, y] - s[TOP + i]) * beta if 0 <= y < k else use.T(0.0)


def label_terms(p, beta, eps, zeta, scale, k, mass, s):
    """Per row: value, factor of the exponentials, smoothing term, and the entries at the label."""
    T = use.T
    widest_vectors()
    keep = T(1.0) - eps
    share = eps / k
    bend = T(2.0) * zeta
    total = T(0.0)
    for i in range(GROUP):
        tail, d, w = s[TAIL + i], s[SHIFTED + i], s[WEIGHT + i]
        lt = use.log1p(tail)
        # For a whole group of rows at once: formula and logarithm fill vectors even where K is 2.
        out = use.formula(d - lt, T(1.0), *p)
        lse = s[TOP + i] * beta + lt
        # Selected, not multiplied: an infinite log-sum-exp times a z_loss of 0 would be NaN.
        push = bend * lse if zeta > T(0.0) else T(0.0)
        extra = push + share * mass if use.smooth else push
        # A class weight of 0 removes the row's own loss, whatever its slope is.
        f1 = times(out[1], keep * s[CLASS_WEIGHT + i])
        v = times(out[0], keep * s[CLASS_WEIGHT + i]) + (T(0.5) * push * lse if zeta > T(0.0) else T(0.0))
        if use.smooth:
            v += share * (mass * lt - s[LINEAR + i])
        # A row of weight 0 may hold NaN.
        v = T(0.0) if w == T(0.0) else w * v
        s[VALUE + i] = v
        total += v
        if use.derivatives:
            # The chain rule of logits times beta, once a row and not once a class.
            factor = scale * w * beta
            inverse = T(1.0) / (tail + T(1.0))
            # A label that is not the maximum has a tail of at least its own exponential: 1 - picked loses nothing.
            picked = s[PICKED + i] if use.tiled else use.exp(d)
            q = (tail + (T(1.0) - picked)) * inverse
            r = picked * inverse
            s[AT_E + i] = factor * (extra - f1) * inverse
            s[FLAT + i] = factor * share
            s[AT_LABEL + i] = factor * (f1 * q + extra * r - (share * s[CLASS_WEIGHT + i] if use.smooth else T(0.0)))
            if use.curvature:
                f2 = times(out[use.order], keep * s[CLASS_WEIGHT + i])
                pull, twice = use.curved_by(extra - f1), use.curved_by(bend)
                # One beta here, the other last: their product leaves float32 at temperatures below 1e-19, and an
                # infinite factor of what is 0 is NaN. `apart` keeps the compiler from multiplying the two first.
                s[AT_PQ + i] = factor * pull
                s[AT_PP + i] = factor * (twice + f2)
                s[HESS_LABEL + i] = apart(factor * (pull * r * q + f2 * q * q + twice * r * r), beta)
    return total


def spread_rows(tops, beta, labels, class_weight, s, grad, hess):
    """Write the derivatives of each row from its exponentials, which already lie in grad."""
    T = use.T
    widest_vectors()
    k = grad.shape[1]
    for i in range(grad.shape[0]):
        g = grad[i]
        y = labels[i]
        if s[WEIGHT + i] == T(0.0):
            for j in range(k):
                g[j] = T(0.0)
            if use.curvature:
                for j in range(k):
                    hess[i, j] = T(0.0)
            continue
        b = s[FLAT + i]
        for c in range(tops.shape[1]):
            lo = c * SEGMENT
            hi = min(lo + SEGMENT, k)
            gs = g[lo:hi]
            factor = use.exp((tops[i, c] - s[TOP + i]) * beta)
            a = s[AT_E + i] * factor
            if use.curvature:
                hs = hess[i, lo:hi]
                tail = s[TAIL + i]
                # One division a row, and a product for each class.
                inverse = T(1.0) / (tail + T(1.0))
                pq = s[AT_PQ + i]
                pp = s[AT_PP + i]
                for j in range(gs.size):
                    r = gs[j] * factor
                    p = r * inverse
                    # Keeps the digits of the maximum's 1 - p: it is the tail's share, which subtracting p from 1 would
                    # lose.
                    q = tail * inverse if r == T(1.0) else T(1.0) - p
                    hs[j] = apart(p * (pq * q + pp * p), beta)
            if use.smooth:
                cs = class_weight[lo:hi]
                for j in range(gs.size):
                    gs[j] = gs[j] * a - b * cs[j]
            else:
                for j in range(gs.size):
                    gs[j] = gs[j] * a
        # Keeps the loops vectorised: the label is overwritten after them, not told apart in them.
        g[y] = s[AT_LABEL + i]
        if use.curvature:
            hess[i, y] = s[HESS_LABEL + i]


def softmax_labels(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """Softmax of each row against an integer label; labels outside the classes are rows to ignore."""
    z, labels, _, weight, class_weight = inputs
    values, grad, hess, details = outputs
    T = use.T
    control = flush_subnormals()
    n, k = z.shape
    p = use.unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    mass = T(0.0)
    if use.smooth:
        for j in range(k):
            # Once a chunk: smoothing spreads over all classes, the same for each row.
            mass += class_weight[j]
    segments = (k + SEGMENT - 1) // SEGMENT
    # Lent by the driver: an allocation in the kernel would cost each chunk, and count references.
    s = scratch[:COLUMNS]
    rest = scratch[COLUMNS:]
    tops = rest[: GROUP * segments].reshape(GROUP, segments)
    tile = k * GROUP if use.tiled else 1
    pad = rest[:tile]
    e = (rest[tile : 2 * tile] if use.tiled else rest[GROUP * segments :]).reshape(k if use.tiled else 1, -1)
    bent = rest[2 * tile : 3 * tile].reshape(k, GROUP) if use.tiled and use.curvature else e[:0]
    # Only a gradient that does not fit the last-level cache: below that, stores past the caches lose.
    past = streamed & streamable((flat(grad), flat(hess)))
    total = 0.0
    for lo in range(0, n, GROUP):
        hi = min(n, lo + GROUP)
        # Keeps formula and logarithm vectorised, whatever K is: they run over the rows of a group, not one row at a
        # time.
        zz, yy, gg, hh = z[lo:hi], labels[lo:hi], grad[lo:hi], hess[lo:hi]
        pick_labels(yy, weight[lo:hi], class_weight, k, not use.smooth and zeta == T(0.0), s)
        if use.tiled:
            # The next tile, while this one is computed: K = 10 went from 4.4 to 3.9 of a plain copy.
            prefetch(flat(z), hi * k, min(n, hi + GROUP) * k)
            scan_tile(zz, beta, class_weight, helpers[0], e, pad, s)
        else:
            scan_rows(zz, beta, class_weight, gg if use.stored else e, tops, s)
            pick_shifted(zz, yy, beta, s)
        total += label_terms(p, beta, eps, zeta, T(scale), T(k), mass, s)
        if values.size > 0:
            for i in range(hi - lo):
                values[lo + i] = s[VALUE + i]
        if details.size > 0:
            call(helpers[2], (zz, yy, params, s, details[lo:hi]))
        if use.derivatives:
            if use.tiled:
                spread_tile(e, bent, helpers[1], pad, beta, class_weight, s, gg, hh, past)
            else:
                spread_rows(tops, beta, yy, class_weight, s, gg, hh)
    if past:
        drain()
    stats[0] = total
    stats[1] = 0.0
    restore_subnormals(control)
    return total


def dense_sums(x, t, m, beta, lt, keep, share, class_weight, p):
    """Sums over a row: values, slopes, slopes but of the largest score, second derivatives; and negative targets."""
    T = use.T
    widest_vectors()
    all_v, all_slope, all_others, all_bends, all_bad = 0.0, 0.0, 0.0, 0.0, 0.0
    for lo in range(0, x.size, BLOCK):
        xs, ts, cs = x[lo : lo + BLOCK], t[lo : lo + BLOCK], class_weight[lo : lo + BLOCK]
        # Keeps full vectors and the digits: a block is summed in the type of the arrays, blocks in float64.
        v, slope, others, bends, bad = T(0.0), T(0.0), T(0.0), T(0.0), T(0.0)
        for j in range(xs.size):
            out = use.formula((xs[j] - m) * beta - lt, keep * ts[j] + share, *p)
            c = cs[j]
            f1 = times(out[1], c)
            v += times(out[0], c)
            slope += f1
            others += T(0.0) if xs[j] == m else f1
            bends += times(out[use.order], c)
            bad += T(1.0) if (ts[j] < T(0.0)) & (c != T(0.0)) else T(0.0)
        all_v, all_slope, all_others = all_v + v, all_slope + slope, all_others + others
        all_bends, all_bad = all_bends + bends, all_bad + bad
    return all_v, all_slope, all_others, all_bends, all_bad


def softmax_dense(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """Softmax of each row against class probabilities."""
    z, _, target, weight, class_weight = inputs
    values, grad, hess, details = outputs
    T = use.T
    widest_vectors()
    control = flush_subnormals()
    n, k = z.shape
    p = use.unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    keep, share = T(1.0) - eps, eps / T(k)
    e, tops = scratch[:k], scratch[k : k + (k + SEGMENT - 1) // SEGMENT]
    total = 0.0
    bad = 0.0
    for i in range(n):
        x, t = z[i], target[i]
        w = weight[i] if weight.size > 0 else T(1.0)
        m, tail, _ = scan_row(x, beta, class_weight, e, tops)
        if tops.size > 1:
            settle(e, tops, m, beta)
        lt = use.log1p(tail)
        inverse = T(1.0) / (tail + T(1.0))
        lse = m * beta + lt
        push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
        v, by_all, by_others, by_curves, outside = dense_sums(x, t, m, beta, lt, keep, share, class_weight, p)
        # Keeps the loops below in one precision: one number of float64 would halve their vectors.
        slope, others, bends = T(by_all), T(by_others), T(by_curves)
        bad += outside if w != T(0.0) else 0.0
        v += T(0.5) * push * lse if zeta > T(0.0) else T(0.0)
        v = times(v, w)
        total += v
        if values.size > 0:
            values[i] = v
        if details.size > 0:
            details[i, 0] = lse
            call(helpers[2], (x, t, details[i]))
        if use.derivatives:
            factor = T(scale) * w * beta
            # A single winner's 1 - p is the tail's share: subtracting p from 1 would lose it.
            single = tail < T(1.0)
            g = grad[i]
            h = hess[i] if use.curvature else g
            for j in range(k):
                out = use.formula((x[j] - m) * beta - lt, keep * t[j] + share, *p)
                c = class_weight[j]
                f1 = times(out[1], c)
                r = e[j] * inverse
                winner = single and x[j] == m
                q = tail * inverse if winner else T(1.0) - r
                first = f1 * q - r * others if winner else f1 - r * slope
                if use.curvature:
                    f2 = times(out[use.order], c)
                    second = f2 * q * q + r * r * (bends - f2)
                    pull, twice = use.curved_by(push - slope), use.curved_by(T(2.0) * zeta)
                    h[j] = apart(times(second + r * (pull * q + twice * r), factor), beta)
                g[j] = times(first + push * r, factor)
    stats[0] = total
    stats[1] = bad
    restore_subnormals(control)
    return total


def room(k: int, mode: str, kind: str, tiled: bool) -> int:
    """Return the scratch elements per chunk: column buffers, and tiles (small K) or segment maxima (large K).

    Rows without a gradient have a buffer for exponentials besides.
    """
    segments = -(-k // SEGMENT)
    if kind == "dense":
        return k + segments
    if tiled:
        return COLUMNS + k * GROUP * (2 if mode in ("value", "grad") else 3)
    return COLUMNS + GROUP * segments + (min(k, BLOCK) if mode == "value" else 1)


@cache
def maximum(dtype: str) -> Any:
    """The vectorised maximum of a row, which lets NaN through."""
    bits = np.int32 if dtype == "float32" else np.int64
    # Of as many bits as the scores, so that a vector holds as many.
    info = np.iinfo(bits)
    use = Ordering(getattr(np, dtype), bits, bits(info.bits - 1), bits(info.max), bits(info.min))
    return inner(order_max, LOOP, use)


def parts(use: RowSlots, dtype: str) -> dict[str, Any]:
    """Functions that the loops of a softmax call, by their names; those that read the same are compiled once."""
    functions = {"order_max": maximum(dtype), "tail_of": inner(tail_of, SCALAR, use)}
    own = (put_rows, scan_tile, spread_tile) if use.tiled else (scan_rows, pick_shifted, spread_rows)
    functions = chained((exponentials,), LOOP, use, functions)
    functions = chained((scan_segment,), INLINED, use, functions)
    return chained((scan_row, settle, pick_labels, *own), LOOP, use, functions)
