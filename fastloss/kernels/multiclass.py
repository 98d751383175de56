"""More loops over rows of K scores for a CPU: thresholds, evidence, and rows rewritten for the loops of a softmax."""

from typing import Any

import numpy as np

from ..formulas.softmax import cross_entropy
from ..formulas.special import softplus_parts
from . import access
from .cpu import widest_vectors
from .softmax import BLOCK, SEGMENT, label_terms, softmax_dense, softmax_labels
from .specialize import LOOP, SCALAR, inner
from .worlds import carry, cpu

__all__ = ["LOOPS", "TEMPLATES", "extra_room", "extras"]

# Names that the templates below find bound when they are specialized; branches on flags are pruned.
T: Any = None
formula: Any = None
unpack: Any = None
derivatives: Any = None
curvature: Any = None
order: Any = None
dense: Any = None
top_of: Any = None
scan_one: Any = None
log1p: Any = None
log_softmax_of: Any = None
threshold_of: Any = None
mass_of: Any = None
evidence_of: Any = None
evidence_parts: Any = None
loop: Any = None


def threshold(u):
    """What sparsemax subtracts from shifted scores, and how many exceed it.

    Newton's method from below: of the sum of the excess and the number of scores above, one at least halves.
    """
    widest_vectors()
    edge = T(-1.0)
    before = np.float64(u.size + 1)
    while True:
        total = 0.0
        above = 0.0
        for lo in range(0, u.size, BLOCK):
            x = u[lo : lo + BLOCK]
            part = T(0.0)
            count = T(0.0)
            for j in range(x.size):
                inside = x[j] > edge
                part += x[j] if inside else T(0.0)
                count += T(1.0) if inside else T(0.0)
            total += part
            above += count
        if above >= before:
            return edge, T(above)
        before = above
        edge = T((total - 1.0) / above)


def mass(class_weight, t):
    """The weight of a row: those of its classes, weighted by the target."""
    widest_vectors()
    total = T(0.0)
    for j in range(t.size):
        total += class_weight[j] * t[j]
    return total


def sparsemax(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """A formula of each score less the row's threshold, and its target."""
    widest_vectors()
    n, k = z.shape
    p = unpack(params)
    u, hot = scratch[:k], scratch[k : 2 * k]
    hot[:] = T(0.0)
    total = 0.0
    bad = T(0.0)
    for i in range(n):
        y = 0 if dense else labels[i]
        g = grad[i] if derivatives else u
        h = hess[i] if curvature else g
        v = T(0.0)
        if dense or 0 <= y < k:
            if not dense:
                hot[y] = T(1.0)
            t = target[i] if dense else hot
            x = z[i]
            m = top_of(x)
            for j in range(k):
                # Infinite scores are equal too.
                u[j] = T(0.0) if x[j] == m else x[j] - m
            edge, above = threshold_of(u)
            w = weight[i] if weight.size > 0 else T(1.0)
            w *= mass_of(class_weight, t) if class_weight.size > 0 else T(1.0)
            factor = T(scale) * w
            bend = factor * (T(1.0) - T(1.0) / above)
            for j in range(k):
                out = formula(u[j] - edge, t[j], *p)
                v += out[0]
                bad += T(1.0) if t[j] < T(0.0) else T(0.0)
                if derivatives:
                    g[j] = factor * out[1]
                    if curvature:
                        h[j] = bend * out[order]
            v = T(0.0) if w == T(0.0) else w * v
            if not dense:
                hot[y] = T(0.0)
        elif derivatives:
            g[:] = T(0.0)
            if curvature:
                h[:] = T(0.0)
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = bad
    return total


def evidence(z, t, e, slope):
    """The evidence for each class and its derivative; their sum, and the sum for classes that are wrong."""
    widest_vectors()
    total = T(0.0)
    excess = T(0.0)
    for j in range(z.size):
        e[j], slope[j] = evidence_parts(z[j])
        total += e[j]
        excess += (T(1.0) - t[j]) * e[j]
    return total, excess


def evidential(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """A formula of each class's evidence, its target, and two sums over the row."""
    widest_vectors()
    n, k = z.shape
    p = unpack(params)
    e, slope, part, hot = scratch[:k], scratch[k : 2 * k], scratch[2 * k : 3 * k], scratch[3 * k : 4 * k]
    hot[:] = T(0.0)
    total = 0.0
    bad = T(0.0)
    for i in range(n):
        y = 0 if dense else labels[i]
        v = T(0.0)
        if dense or 0 <= y < k:
            if not dense:
                hot[y] = T(1.0)
            t = target[i] if dense else hot
            whole, excess = evidence_of(z[i], t, e, slope)
            w = weight[i] if weight.size > 0 else T(1.0)
            w *= mass_of(class_weight, t) if class_weight.size > 0 else T(1.0)
            all_whole = T(0.0)
            all_excess = T(0.0)
            for j in range(k):
                out = formula(e[j], t[j], whole, excess, T(k), *p)
                v += out[0]
                bad += T(1.0) if t[j] < T(0.0) else T(0.0)
                if derivatives:
                    part[j] = out[1][0]
                    all_whole += out[1][1]
                    all_excess += out[1][2]
            if derivatives:
                g = grad[i]
                factor = T(scale) * w
                for j in range(k):
                    g[j] = factor * slope[j] * (part[j] + all_whole + (T(1.0) - t[j]) * all_excess)
            v = T(0.0) if w == T(0.0) else w * v
            if not dense:
                hot[y] = T(0.0)
        elif derivatives:
            grad[i, :] = T(0.0)
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = bad
    return total


def unless_ignored(z, t):
    """The formula, and 0 where the target is -1."""
    out = formula(z, t)
    kept = t >= T(0.0)
    return (
        (out[0] if kept else T(0.0)),
        (out[1] if kept else T(0.0)),
        (out[2] if kept else T(0.0)),
    )


def ordinal(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """A formula of each logit and whether the label is above its column, in the loop of independent classes."""
    n, k = z.shape
    goal = scratch[: n * k].reshape(n, k)
    for i in range(n):
        y = labels[i]
        if 0 <= y <= k:
            goal[i, :y] = T(1.0)
            goal[i, y:] = T(0.0)
        else:
            goal[i, :] = T(-1.0)
    rest = scratch[n * k :]
    outputs = (values, grad, hess, details)
    total = loop(z, labels, goal, weight, class_weight, *outputs, scale, params, helpers, streamed, rest, stats)
    stats[1] = 0.0
    return total


def log_softmax(x, beta, class_weight, e, tops, result):
    """The logarithm of a row's softmax."""
    widest_vectors()
    m, tail, _ = scan_one(x, beta, class_weight, e, tops)
    lt = log1p(tail)
    for j in range(x.size):
        result[j] = (x[j] - m) * beta - lt


def distillation(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """The loop of a softmax against probabilities, given the teacher's log-probabilities instead."""
    n, k = z.shape
    beta = params[-3]
    goal = scratch[: n * k].reshape(n, k)
    rest = scratch[n * k :]
    e, tops = rest[:k], rest[k : k + (k + SEGMENT - 1) // SEGMENT]
    for i in range(n):
        log_softmax_of(target[i], T(beta), class_weight, e, tops, goal[i])
    again = 1.0 / (beta * beta)
    outputs = (values, grad, hess, details)
    loop(z, labels, goal, weight, class_weight, *outputs, scale * again, params, helpers, streamed, rest, stats)
    for i in range(values.size):
        values[i] *= T(again)
    stats[0] *= again
    stats[1] = 0.0
    return stats[0]


def angular(
    z,
    labels,
    target,
    weight,
    class_weight,
    values,
    grad,
    hess,
    details,
    scale,
    params,
    helpers,
    streamed,
    scratch,
    stats,
):
    """The loop of a softmax against labels, where a formula changes the label's score."""
    n, k = z.shape
    p = unpack(params)
    changed = scratch[: n * k].reshape(n, k)
    rest = scratch[n * k :]
    for i in range(n):
        y = labels[i]
        changed[i, :] = z[i]
        if 0 <= y < k:
            changed[i, y] = formula(z[i, y], *p)[0]
    outputs = (values, grad, hess, details)
    total = loop(changed, labels, target, weight, class_weight, *outputs, scale, params, helpers, streamed, rest, stats)
    if derivatives:
        for i in range(n):
            y = labels[i]
            if not 0 <= y < k:
                continue
            out = formula(z[i, y], *p)
            g = grad[i, y]
            # A row of no weight may hold NaN.
            if curvature:
                h = hess[i, y]
                hess[i, y] = h * out[1] * out[1] + g * out[order] if g != T(0.0) or h != T(0.0) else T(0.0)
            grad[i, y] = g * out[1] if g != T(0.0) else T(0.0)
    return total


TEMPLATES = {
    ("sparsemax", "labels"): sparsemax,
    ("sparsemax", "dense"): sparsemax,
    ("evidence", "labels"): evidential,
    ("evidence", "dense"): evidential,
    ("ordinal", "labels"): ordinal,
    ("distillation", "dense"): distillation,
    ("angular", "labels"): angular,
}


LOOPS = {name for name, _ in TEMPLATES}


def extra_room(k: int, loop: str, rows: int) -> int:
    """How many numbers of scratch these loops need beyond what the loop that they call does."""
    per_class = {"sparsemax": 2, "evidence": 4, "ordinal": rows, "distillation": rows, "angular": rows}
    return k * per_class.get(loop, 0)


def extras(name: str, kind: str, dtype: str, independent: Any, bound: dict[str, Any]) -> dict[str, Any]:
    """What the templates of one loop find bound besides the names of all loops; `independent` is that of classes."""
    found: dict[str, Any] = {"dense": kind == "dense"}
    if name in ("sparsemax", "evidence"):
        found["mass_of"] = inner(mass, LOOP, T=bound["T"])
    if name == "sparsemax":
        found["threshold_of"] = inner(threshold, LOOP, T=bound["T"])
    if name == "evidence":
        parts = carry(softplus_parts, cpu(dtype))
        found["evidence_of"] = inner(evidence, LOOP, T=bound["T"], evidence_parts=parts)
    if name == "distillation":
        names = ("scan_one", "log1p")
        found["log_softmax_of"] = inner(log_softmax, LOOP, **{n: bound[n] for n in names})
        found["loop"] = inner(softmax_dense, LOOP, **bound)
    if name == "ordinal":
        masked = inner(unless_ignored, SCALAR, T=bound["T"], formula=bound["formula"])
        found["loop"] = inner(independent, LOOP, **{**bound, "formula": masked})
    if name == "angular":
        own = {**bound, "formula": carry(cross_entropy, cpu(dtype)), "unpack": access.unpack(0, dtype)}
        found["loop"] = inner(softmax_labels, LOOP, **own, row_terms=inner(label_terms, LOOP, **own))
    return found
