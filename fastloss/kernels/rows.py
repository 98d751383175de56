"""Loops over rows of K classes for a CPU: one scalar formula inside, one driver outside.

Softmax with integer labels has two scans: along a row, or down a transposed tile of rows where K is too small to
fill the vector unit. Both find, per row, the maximum, the sum of exponentials less one (so that a loss or a
1 - p near zero keeps its digits), and leave the exponentials where the gradient will be.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit, prange, types

from .access import UNPACK
from .cpu import array, call, combine
from .specialize import LOOP, SCALAR, Chunk, bind, compile_chunk, compile_driver
from .worlds import carry, cpu

__all__ = ["row_chunk", "row_driver", "row_survey"]

TILE = 64
"""Rows in a transposed tile."""

TILED_TO = 32
"""The largest K for which the tile beats the row."""

# Names that the templates below find bound when they are specialized.
T: Any = None
exp: Any = None
expm1: Any = None
log1p: Any = None
formula: Any = None
unpack: Any = None
top_of: Any = None
scan: Any = None
row_terms: Any = None
spread: Any = None
gather: Any = None
describe: Any = None
derivatives: Any = None
curvature: Any = None
order: Any = None
smooth: Any = None
tiled: Any = None
top_only: Any = None
BITS: Any = None
SHIFT: Any = None
MAGNITUDE: Any = None
LEAST: Any = None


def order_max(x):
    """The largest element; NaN of positive sign is above infinity. As integers, a maximum vectorises."""
    bits = x.view(BITS)
    m = LEAST
    for j in range(bits.size):
        b = bits[j]
        m = max(m, b ^ ((b >> SHIFT) & MAGNITUDE))
    return BITS(m ^ ((m >> SHIFT) & MAGNITUDE)).view(T)


def scan_row(x, beta, class_weight, e):
    """Maximum, sum of exponentials less one, and weighted sum of shifted logits; the exponentials go to e."""
    m = top_of(x)
    rest = T(0.0)
    ties = T(0.0)
    linear = T(0.0)
    for j in range(x.size):
        d = (x[j] - m) * beta
        p = exp(d)
        if derivatives:
            e[j] = p
        rest += T(0.0) if x[j] == m else p
        ties += T(1.0) if x[j] == m else T(0.0)
        if smooth:
            linear += class_weight[j] * d
    return m, rest + (ties - T(1.0)), linear


def scan_rows(z, beta, class_weight, e, top, tail, linear):
    """Scan row by row."""
    for i in range(z.shape[0]):
        top[i], tail[i], linear[i] = scan(z[i], beta, class_weight, e[i])


def scan_tile(z, beta, class_weight, e, top, tail, linear):
    """Scan one class at a time across all rows of a tile; e is transposed."""
    n, k = z.shape
    rest = np.zeros(n, T)
    for j in range(k):
        column = e[j]
        for i in range(n):
            column[i] = z[i, j]
    for i in range(n):
        top[i] = e[0, i]
        tail[i] = T(-1.0)
        linear[i] = T(0.0)
    for j in range(1, k):
        column = e[j]
        for i in range(n):
            top[i] = column[i] if column[i] > top[i] else top[i]
    for j in range(k):
        column = e[j]
        c = class_weight[j] if smooth else T(0.0)
        for i in range(n):
            x = column[i]
            d = (x - top[i]) * beta
            p = exp(d)
            rest[i] += T(0.0) if x == top[i] else p
            tail[i] += T(1.0) if x == top[i] else T(0.0)
            if smooth:
                linear[i] += c * d
            column[i] = p
    for i in range(n):
        tail[i] += rest[i]


def gather_labels(z, labels, weight, class_weight, beta, top, d, w, c):
    """What each row's label picks: its shifted logit, sample weight and class weight; nothing where ignored."""
    n, k = z.shape
    for i in range(n):
        y = labels[i]
        if 0 <= y < k:
            d[i] = (z[i, y] - top[i]) * beta
            w[i] = weight[i] if weight.size > 0 else T(1.0)
            c[i] = class_weight[y] if class_weight.size > 0 else T(1.0)
        else:
            d[i] = T(0.0)
            w[i] = T(0.0)
            c[i] = T(0.0)


def label_terms(p, beta, eps, zeta, scale, k, mass, rows):
    """Per row: value, factor of the exponentials, smoothing term, and the entries at the label."""
    top, tail, linear, d, w, c, value, at_e, flat, at_label, at_pq, at_pp, hess_label = rows
    keep = T(1.0) - eps
    share = eps / k
    total = T(0.0)
    for i in range(d.size):
        lt = log1p(tail[i])
        out = formula(d[i] - lt, T(1.0), *p)
        lse = top[i] * beta + lt
        # Selected, not multiplied: an infinite log-sum-exp times a z_loss of 0 would be NaN.
        push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
        extra = push + share * mass if smooth else push
        f1 = keep * c[i] * out[1]
        v = keep * c[i] * out[0] + (T(0.5) * push * lse if zeta > T(0.0) else T(0.0))
        if smooth:
            v += share * (mass * lt - linear[i])
        v = T(0.0) if w[i] == T(0.0) else w[i] * v
        value[i] = v
        total += v
        if derivatives:
            factor = scale * w[i] * beta
            inverse = T(1.0) / (tail[i] + T(1.0))
            q = (tail[i] - expm1(d[i])) * inverse
            r = exp(d[i]) * inverse
            at_e[i] = factor * (extra - f1) * inverse
            flat[i] = factor * share
            at_label[i] = factor * (f1 * q + extra * r - (share * c[i] if smooth else T(0.0)))
            if curvature:
                f2 = keep * c[i] * out[order]
                bend = T(2.0) * zeta
                at_pq[i] = factor * beta * (extra - f1)
                at_pp[i] = factor * beta * bend
                hess_label[i] = factor * beta * ((extra - f1) * r * q + f2 * q * q + bend * r * r)
                at_pp[i] += factor * beta * f2
    return total


def spread_rows(e, labels, class_weight, rows, grad, hess):
    """Write the derivatives of each row from its exponentials, which already lie in grad."""
    top, tail, linear, d, w, c, value, at_e, flat, at_label, at_pq, at_pp, hess_label = rows
    k = grad.shape[1]
    for i in range(grad.shape[0]):
        g = grad[i]
        y = labels[i]
        if w[i] == T(0.0):
            for j in range(k):
                g[j] = T(0.0)
            if curvature:
                hess[i, :] = T(0.0)
            continue
        a = at_e[i]
        b = flat[i]
        if curvature:
            h = hess[i]
            inverse = T(1.0) / (tail[i] + T(1.0))
            pq = at_pq[i]
            pp = at_pp[i]
            for j in range(k):
                p = g[j] * inverse
                q = tail[i] * inverse if g[j] == T(1.0) else T(1.0) - p
                h[j] = p * (pq * q + pp * p)
            h[y] = hess_label[i]
        if smooth:
            for j in range(k):
                g[j] = g[j] * a - b * class_weight[j]
        else:
            for j in range(k):
                g[j] = g[j] * a
        g[y] = at_label[i]


def spread_tile(e, labels, class_weight, rows, grad, hess):
    """The same from a transposed tile of exponentials."""
    top, tail, linear, d, w, c, value, at_e, flat, at_label, at_pq, at_pp, hess_label = rows
    n, k = grad.shape
    for j in range(k):
        column = e[j]
        b = class_weight[j] if smooth else T(0.0)
        for i in range(n):
            grad[i, j] = column[i] * at_e[i] - (b * flat[i] if smooth else T(0.0))
        if curvature:
            for i in range(n):
                inverse = T(1.0) / (tail[i] + T(1.0))
                p = column[i] * inverse
                q = tail[i] * inverse if column[i] == T(1.0) else T(1.0) - p
                hess[i, j] = p * (at_pq[i] * q + at_pp[i] * p)
    for i in range(n):
        if w[i] == T(0.0):
            for j in range(k):
                grad[i, j] = T(0.0)
                if curvature:
                    hess[i, j] = T(0.0)
        else:
            grad[i, labels[i]] = at_label[i]
            if curvature:
                hess[i, labels[i]] = hess_label[i]


def describe_rows(z, labels, beta, top, tail, details):
    """By-products on request: log-sum-exp, index of the maximum, rank of the label (0 is the top)."""
    n, k = z.shape
    for i in range(n):
        x = z[i]
        best = 0
        for j in range(k):
            if x[j] == top[i]:
                best = j
                break
        details[i, 0] = top[i] * beta + log1p(tail[i])
        details[i, 1] = best
        y = labels[i]
        ahead = k
        if 0 <= y < k:
            ahead = 0
            for j in range(k):
                ahead += x[j] > x[y] or (x[j] == x[y] and j < y)
        details[i, 2] = ahead


def softmax_labels(z, labels, target, weight, class_weight, values, grad, hess, details, scale, params, stats):
    """Softmax of each row against an integer label; labels outside the classes are rows to ignore."""
    n, k = z.shape
    p = unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    s = T(scale)
    mass = T(0.0)
    if smooth:
        for j in range(k):
            mass += class_weight[j]
    group = min(n, TILE) if tiled else n
    scratch = np.empty((13, group), T)
    tile = np.empty((k, group) if tiled else (0, 0), T)
    total = 0.0
    for lo in range(0, n, group):
        m = min(group, n - lo)
        zz, yy, gg, hh = z[lo : lo + m], labels[lo : lo + m], grad[lo : lo + m], hess[lo : lo + m]
        e = tile[:, :m] if tiled else (gg if derivatives else zz)
        top, tail, linear, d, w = (scratch[0, :m], scratch[1, :m], scratch[2, :m], scratch[3, :m], scratch[4, :m])
        c, value, at_e, flat = scratch[5, :m], scratch[6, :m], scratch[7, :m], scratch[8, :m]
        at_label, at_pq, at_pp, last = scratch[9, :m], scratch[10, :m], scratch[11, :m], scratch[12, :m]
        rows = (top, tail, linear, d, w, c, value, at_e, flat, at_label, at_pq, at_pp, last)
        scan(zz, beta, class_weight, e, top, tail, linear)
        gather(zz, yy, weight[lo : lo + m], class_weight, beta, top, d, w, c)
        total += row_terms(p, beta, eps, zeta, s, T(k), mass, rows)
        if values.size > 0:
            values[lo : lo + m] = value
        if details.size > 0:
            describe(zz, yy, beta, top, tail, details[lo : lo + m])
        if derivatives:
            spread(e, yy, class_weight, rows, gg, hh)
    stats[0] = total
    stats[1] = 0.0
    return total


def softmax_dense(z, labels, target, weight, class_weight, values, grad, hess, details, scale, params, stats):
    """Softmax of each row against class probabilities."""
    n, k = z.shape
    p = unpack(params)
    beta, eps, zeta = T(params[-3]), T(params[-2]), T(params[-1])
    keep, share = T(1.0) - eps, eps / T(k)
    e = np.empty(k, T)
    total = 0.0
    bad = T(0.0)
    for i in range(n):
        x, t = z[i], target[i]
        m, tail, _ = scan(x, beta, class_weight, e)
        lt = log1p(tail)
        inverse = T(1.0) / (tail + T(1.0))
        lse = m * beta + lt
        push = T(2.0) * zeta * lse if zeta > T(0.0) else T(0.0)
        w = weight[i] if weight.size > 0 else T(1.0)
        v = T(0.0)
        slope = T(0.0)
        others = T(0.0)
        bends = T(0.0)
        for j in range(k):
            out = formula((x[j] - m) * beta - lt, keep * t[j] + share, *p)
            c = class_weight[j]
            f1 = c * out[1]
            v += c * out[0]
            slope += f1
            others += T(0.0) if x[j] == m else f1
            bends += c * out[order]
            bad += T(1.0) if t[j] < T(0.0) else T(0.0)
        v += T(0.5) * push * lse if zeta > T(0.0) else T(0.0)
        v = T(0.0) if w == T(0.0) else w * v
        total += v
        if values.size > 0:
            values[i] = v
        if details.size > 0:
            details[i, 0] = lse
        if derivatives:
            factor = T(scale) * w * beta
            # A single winner's 1 - p is the tail's share: subtracting p from 1 would lose it.
            single = tail < T(1.0)
            g = grad[i]
            h = hess[i] if curvature else g
            for j in range(k):
                out = formula((x[j] - m) * beta - lt, keep * t[j] + share, *p)
                c = class_weight[j]
                f1 = c * out[1]
                r = e[j] * inverse
                winner = single and x[j] == m
                q = tail * inverse if winner else T(1.0) - r
                first = f1 * q - r * others if winner else f1 - r * slope
                if curvature:
                    f2 = c * out[order]
                    second = f2 * q * q + r * r * (bends - f2) - slope * r * q
                    h[j] = factor * beta * (second + r * (push * q + T(2.0) * zeta * r))
                g[j] = factor * (first + push * r)
    stats[0] = total
    stats[1] = bad
    return total


def log_probs_labels(z, labels, target, weight, class_weight, values, grad, hess, details, scale, params, stats):
    """A formula of the label's log-probability alone."""
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    for i in range(n):
        y = labels[i]
        v = T(0.0)
        if derivatives:
            grad[i, :] = T(0.0)
            if curvature:
                hess[i, :] = T(0.0)
        if 0 <= y < k:
            w = weight[i] if weight.size > 0 else T(1.0)
            w *= class_weight[y] if class_weight.size > 0 else T(1.0)
            out = formula(z[i, y], T(1.0), *p)
            v = T(0.0) if w == T(0.0) else w * out[0]
            if derivatives:
                grad[i, y] = T(scale) * w * out[1]
                if curvature:
                    hess[i, y] = T(scale) * w * out[order]
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total


def log_probs_dense(z, labels, target, weight, class_weight, values, grad, hess, details, scale, params, stats):
    """A formula summed over the row, each class by itself."""
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    bad = T(0.0)
    for i in range(n):
        x, t, g, h = z[i], target[i], grad[i] if derivatives else z[i], hess[i] if curvature else z[i]
        w = weight[i] if weight.size > 0 else T(1.0)
        factor = T(scale) * w
        v = T(0.0)
        for j in range(k):
            out = formula(x[j], t[j], *p)
            c = class_weight[j]
            v += c * out[0]
            bad += T(1.0) if t[j] < T(0.0) else T(0.0)
            if derivatives:
                g[j] = factor * c * out[1]
                if curvature:
                    h[j] = factor * c * out[order]
        v = T(0.0) if w == T(0.0) else w * v
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = bad
    return total


def margin_labels(z, labels, target, weight, class_weight, values, grad, hess, details, scale, params, stats):
    """A formula of margins z_j - z_label: summed over the other classes and divided by K, or of the largest alone."""
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    for i in range(n):
        y = labels[i]
        x = z[i]
        v = T(0.0)
        if derivatives:
            grad[i, :] = T(0.0)
            if curvature:
                hess[i, :] = T(0.0)
        if 0 <= y < k and k > 1:
            w = weight[i] if weight.size > 0 else T(1.0)
            w *= class_weight[y] if class_weight.size > 0 else T(1.0)
            w /= T(1.0) if top_only else T(k)
            lo, hi = 0, k
            if top_only:
                lo = 1 if y == 0 else 0
                for j in range(k):
                    lo = j if j != y and (x[j] > x[lo] or x[j] != x[j]) else lo
                hi = lo + 1
            slope = T(0.0)
            bend = T(0.0)
            for j in range(lo, hi):
                out = formula(x[j] - x[y], *p)
                counted = j != y
                v += out[0] if counted else T(0.0)
                if derivatives:
                    f1 = T(scale) * w * out[1] if counted else T(0.0)
                    slope += f1
                    grad[i, j] = f1
                    if curvature:
                        f2 = T(scale) * w * out[order] if counted else T(0.0)
                        bend += f2
                        hess[i, j] = f2
            v = T(0.0) if w == T(0.0) else w * v
            if derivatives:
                grad[i, y] = -slope
                if curvature:
                    hess[i, y] = bend
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total


def ensemble(z, labels, target, weight, class_weight, values, grad, hess, details, scale, params, stats):
    """A formula of each member, its mid-rank among all members, and their number."""
    n, k = z.shape
    p = unpack(params)
    total = 0.0
    for i in range(n):
        x, t = z[i], target[i, 0]
        w = weight[i] if weight.size > 0 else T(1.0)
        v = T(0.0)
        for j in range(k):
            below = T(0.0)
            equal = T(0.0)
            for m in range(k):
                below += T(1.0) if x[m] < x[j] else T(0.0)
                equal += T(1.0) if x[m] == x[j] else T(0.0)
            rank = below + T(0.5) * (equal + T(1.0))
            out = formula(x[j], t, rank, T(k), *p)
            v += out[0]
            if derivatives:
                grad[i, j] = T(scale) * w * out[1]
                if curvature:
                    hess[i, j] = T(scale) * w * out[order]
        v = T(0.0) if w == T(0.0) else w * v
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total


def survey(labels, weight, class_weight, k, ignored):
    """Sum of the weights of the rows that count, and the first label that is no class (or -1)."""
    total = 0.0
    wrong = -1
    for i in range(labels.size):
        y = labels[i]
        if 0 <= y < k:
            w = weight[i] if weight.size > 0 else T(1.0)
            total += np.float64(w) * np.float64(class_weight[y] if class_weight.size > 0 else T(1.0))
        elif y != ignored and wrong < 0:
            wrong = i
    return total, wrong


def drive_rows(
    address, z, labels, target, weight, class_weight, values, grad, hess, details, scale, params, chunk, parallel
):
    """All chunks of rows, in parallel or one after another; the bits are the same."""
    n = z.shape[0]
    chunks = (n + chunk - 1) // chunk
    stats = np.empty((chunks, 2), np.float64)
    if parallel:
        for c in prange(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            inputs = (z[a:b], labels[a:b], target[a:b], weight[a:b], class_weight)
            outputs = (values[a:b], grad[a:b], hess[a:b], details[a:b])
            call(address, (*inputs, *outputs, scale, params, stats[c]))
    else:
        for c in range(chunks):
            a = c * chunk
            b = min(n, a + chunk)
            inputs = (z[a:b], labels[a:b], target[a:b], weight[a:b], class_weight)
            outputs = (values[a:b], grad[a:b], hess[a:b], details[a:b])
            call(address, (*inputs, *outputs, scale, params, stats[c]))
    return combine(stats)


def _arguments(dtype: str) -> tuple[Any, ...]:
    one, two, doubles = array(dtype), array(dtype, 2), array("float64")
    # z, labels, target, weight, class_weight; values, grad, hess, details; scale, params
    return (two, array("int64"), two, one, one, one, two, two, array("float64", 2), types.float64, doubles)


_LOOPS = {
    ("softmax", "labels"): softmax_labels,
    ("softmax", "dense"): softmax_dense,
    ("log_probs", "labels"): log_probs_labels,
    ("log_probs", "dense"): log_probs_dense,
    ("margin", "labels"): margin_labels,
    ("top_margin", "labels"): margin_labels,
    ("ensemble", "dense"): ensemble,
}


def row_chunk(record: Any, dtype: str, mode: str, kind: str, smooth: bool, tiled: bool) -> Chunk:
    """Compile, or load from the disk cache, one row loss in one precision, mode and layout."""
    real = getattr(np, dtype)
    bits = np.int32 if dtype == "float32" else np.int64
    info = np.iinfo(bits)
    words = cpu(dtype).words
    own = len(record.parameters) - len(record.loop_parameters)
    constants = {
        "T": real,
        "BITS": bits,
        "SHIFT": bits(info.bits - 1),
        "MAGNITUDE": bits(info.max),
        "LEAST": bits(info.min),
        "derivatives": mode != "value",
        "curvature": mode in ("hess", "surrogate"),
        "order": {"value": 0, "grad": 1, "hess": 2, "surrogate": 3}[mode],
        "smooth": smooth,
        "tiled": tiled,
        "top_only": record.loop == "top_margin",
        **{k: words[k] for k in ("exp", "expm1", "log1p")},
        "formula": carry(record.function, cpu(dtype)),
        "unpack": njit(**SCALAR)(bind(UNPACK[own], T=real)),
    }
    template = _LOOPS[record.loop, kind]

    def loop(function: Any, **bound: Any) -> Any:
        return njit(**LOOP)(bind(function, **constants, **bound))

    if template is softmax_labels:
        scan = loop(scan_tile) if tiled else loop(scan_rows, scan=loop(scan_row, top_of=loop(order_max)))
        parts = {"gather": gather_labels, "row_terms": label_terms, "describe": describe_rows}
        constants |= {k: loop(f) for k, f in parts.items()}
        constants |= {"scan": scan, "spread": loop(spread_tile if tiled else spread_rows)}
    elif template is softmax_dense:
        # The exponentials are needed again for the gradient, and harmless where they are not.
        constants["scan"] = loop(scan_row, top_of=loop(order_max))
    name = f"{record.name}_{kind}_{mode}{'_smooth' if smooth else ''}{'_tiled' if tiled else ''}_{dtype}"
    signature = types.float64(*_arguments(dtype), array("float64"))
    return compile_chunk(template, name, signature, **constants)


@lru_cache(maxsize=None)
def row_driver(dtype: str) -> Any:
    """The driver of all row losses."""
    returns = types.Tuple((types.float64, types.float64))
    signature = returns(types.intp, *_arguments(dtype), types.intp, types.boolean)
    return compile_driver(drive_rows, f"rows_{dtype}", signature)


@lru_cache(maxsize=None)
def row_survey(dtype: str) -> Any:
    """The function that checks labels and adds up the weights of the rows that count."""
    one = array(dtype)
    signature = types.Tuple((types.float64, types.int64))(array("int64"), one, one, types.int64, types.int64)
    return compile_driver(survey, f"survey_{dtype}", signature, parallel=False, T=getattr(np, dtype))
