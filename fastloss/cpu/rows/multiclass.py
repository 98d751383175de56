"""More loops over rows of K scores for a CPU: thresholds, evidence, and rows rewritten for the loops of a softmax."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...formulas.softmax import cross_entropy
from ...spec.special import softplus_parts
from ...spec.worlds import carry
from ..runtime import access
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import unbound
from ..runtime.specialize import LOOP, SCALAR, chained, inner
from ..runtime.subnormals import flush_subnormals, restore_subnormals
from ..runtime.worlds import cpu
from .loops import ensemble, log_probs_dense, log_probs_labels, margin_labels
from .slots import RowSlots
from .softmax import (
    BLOCK,
    SEGMENT,
    label_terms,
    order_max,
    scan_row,
    softmax_dense,
    softmax_labels,
)

__all__ = ["KERNELS", "RowKernels"]

use = unbound(RowSlots)

times = access.times[True]


def threshold(u):
    """Return the threshold that sparsemax subtracts from shifted scores, and the number of scores above it.

    Newton's method from below: of the sum of the excess and the number of scores above, one at least halves.
    """
    T = use.T
    widest_vectors()
    # Scores are shifted by their maximum: the threshold lies between -1 and 0, and sorting them is not needed.
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
                # Keeps the loop vectorised: a count in the type of the scores, selected and not branched on.
                inside = x[j] > edge
                part += x[j] if inside else T(0.0)
                count += T(1.0) if inside else T(0.0)
            total += part
            above += count
        # Ends exactly: the threshold is right once no further score falls below it.
        if above >= before:
            return edge, T(above)
        before = above
        edge = T((total - 1.0) / above)


def mass(class_weight, t):
    """The weight of a row: those of its classes, weighted by the target."""
    widest_vectors()
    total = use.T(0.0)
    for j in range(t.size):
        total += times(t[j], class_weight[j])
    return total


def row_weight(i, y, k, target, weight, class_weight):
    """The weight of row i times that of its classes; 0 of a label that is no class."""
    T = use.T
    w = weight[i] if weight.size > 0 else T(1.0)
    if use.dense:
        if class_weight.size > 0 and w != T(0.0):
            w *= mass(class_weight, target[i])
    elif 0 <= y < k:
        w *= class_weight[y] if class_weight.size > 0 else T(1.0)
    else:
        w = T(0.0)
    return w


def sparsemax(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """A formula of each score less the row's threshold, and its target."""
    z, labels, target, weight, class_weight = inputs
    values, grad, hess, _ = outputs
    T = use.T
    widest_vectors()
    n, k = z.shape
    p = use.unpack(params)
    u, hot = scratch[:k], scratch[k : 2 * k]
    # Once a chunk: each row sets and clears its own entry.
    hot[:] = T(0.0)
    total = 0.0
    bad = T(0.0)
    for i in range(n):
        y = 0 if use.dense else labels[i]
        g = grad[i] if use.derivatives else u
        h = hess[i] if use.curvature else g
        v = T(0.0)
        w = row_weight(i, y, k, target, weight, class_weight)
        if w != T(0.0):
            if not use.dense:
                # Serves labels and probabilities with one loop: a label becomes a row of zeros and a one.
                hot[y] = T(1.0)
            t = target[i] if use.dense else hot
            x = z[i]
            m = order_max(x)
            for j in range(k):
                # Infinite scores are equal too.
                u[j] = T(0.0) if x[j] == m else x[j] - m
            edge, above = threshold(u)
            factor = T(scale) * w
            # The diagonal of the projection on the scores above the threshold; it is 0 where only one is.
            bend = factor * (T(1.0) - T(1.0) / above)
            for j in range(k):
                out = use.formula(u[j] - edge, t[j], *p)
                v += out[0]
                bad += T(1.0) if t[j] < T(0.0) else T(0.0)
                if use.derivatives:
                    g[j] = factor * out[1]
                    if use.curvature:
                        h[j] = bend * out[use.order]
            v *= w
            if not use.dense:
                # Saves clearing the row: only this entry was set.
                hot[y] = T(0.0)
        elif use.derivatives:
            g[:] = T(0.0)
            if use.curvature:
                h[:] = T(0.0)
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = bad
    return total


def evidence(z, t, e, slope):
    """The evidence for each class and its derivative; their sum, and the sum for classes that are wrong."""
    T = use.T
    widest_vectors()
    all_total, all_excess = 0.0, 0.0
    for lo in range(0, z.size, BLOCK):
        total, excess = T(0.0), T(0.0)
        zs, ts, es, slopes = z[lo : lo + BLOCK], t[lo : lo + BLOCK], e[lo : lo + BLOCK], slope[lo : lo + BLOCK]
        for j in range(zs.size):
            # Both share one exponential.
            es[j], slopes[j] = softplus_parts(zs[j])
            total += es[j]
            excess += (T(1.0) - ts[j]) * es[j]
        all_total, all_excess = all_total + total, all_excess + excess
    return T(all_total), T(all_excess)


def evidential(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """A formula of each class's evidence, its target, and two sums over the row."""
    z, labels, target, weight, class_weight = inputs
    values, grad, _, _ = outputs
    T = use.T
    widest_vectors()
    control = flush_subnormals()
    n, k = z.shape
    p = use.unpack(params)
    e, slope, part, hot = scratch[:k], scratch[k : 2 * k], scratch[2 * k : 3 * k], scratch[3 * k : 4 * k]
    hot[:] = T(0.0)
    total = 0.0
    bad = T(0.0)
    for i in range(n):
        y = 0 if use.dense else labels[i]
        v = 0.0
        w = row_weight(i, y, k, target, weight, class_weight)
        if w != T(0.0):
            if not use.dense:
                hot[y] = T(1.0)
            t = target[i] if use.dense else hot
            # Takes a pass of its own: every class needs both sums over the row.
            whole, excess = evidence(z[i], t, e, slope)
            all_whole, all_excess = 0.0, 0.0
            for lo in range(0, k, BLOCK):
                value, by_whole, by_excess = T(0.0), T(0.0), T(0.0)
                es, ts, parts = e[lo : lo + BLOCK], t[lo : lo + BLOCK], part[lo : lo + BLOCK]
                for j in range(es.size):
                    out = use.formula(es[j], ts[j], whole, excess, T(k), *p)
                    value += out[0]
                    bad += T(1.0) if ts[j] < T(0.0) else T(0.0)
                    if use.derivatives:
                        parts[j] = out[1][0]
                        by_whole += out[1][1]
                        by_excess += out[1][2]
                v += value
                all_whole, all_excess = all_whole + by_whole, all_excess + by_excess
            if use.derivatives:
                g = grad[i]
                factor, by_whole, by_excess = T(scale) * w, T(all_whole), T(all_excess)
                for j in range(k):
                    g[j] = factor * slope[j] * (part[j] + by_whole + (T(1.0) - t[j]) * by_excess)
            v *= w
            if not use.dense:
                hot[y] = T(0.0)
        elif use.derivatives:
            grad[i, :] = T(0.0)
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = bad
    restore_subnormals(control)
    return total


def unless_ignored(z, t):
    """The formula, and 0 where the target is -1."""
    T = use.T
    out = use.formula(z, t)
    kept = t >= T(0.0)
    return (
        (out[0] if kept else T(0.0)),
        (out[1] if kept else T(0.0)),
        (out[2] if kept else T(0.0)),
    )


def ordinal(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """A formula of each logit and whether the label is above its column, in the loop of independent classes."""
    z, labels, _, weight, class_weight = inputs
    T = use.T
    n, k = z.shape
    goal = scratch[: n * k].reshape(n, k)
    for i in range(n):
        y = labels[i]
        if 0 <= y <= k:
            goal[i, :y] = T(1.0)
            goal[i, y:] = T(0.0)
        else:
            # Marks a row to leave out, which `unless_ignored` makes 0: the loop of classes knows no labels.
            goal[i, :] = T(-1.0)
    rest = scratch[n * k :]
    # No second loop over classes: K thresholds are K independent classes.
    total = use.loop((z, labels, goal, weight, class_weight), outputs, scale, params, helpers, streamed, rest, stats)
    stats[1] = 0.0
    return total


def log_softmax(x, beta, class_weight, e, tops, result):
    """The logarithm of a row's softmax."""
    widest_vectors()
    m, tail, _ = scan_row(x, beta, class_weight, e, tops)
    lt = use.log1p(tail)
    for j in range(x.size):
        # In this order: m * beta + lt may round where the difference is exact.
        result[j] = (x[j] - m) * beta - lt


def distillation(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """The loop of a softmax against probabilities, given the teacher's log-probabilities instead."""
    z, labels, target, weight, class_weight = inputs
    values = outputs[0]
    T = use.T
    control = flush_subnormals()
    n, k = z.shape
    beta = params[-3]
    goal = scratch[: n * k].reshape(n, k)
    rest = scratch[n * k :]
    # Shares the scratch of the loop below, which has not begun.
    e, tops = rest[:k], rest[k : k + (k + SEGMENT - 1) // SEGMENT]
    for i in range(n):
        log_softmax(target[i], T(beta), class_weight, e, tops, goal[i])
    # The temperature squared, so that the gradient does not fade as the temperature rises.
    again = 1.0 / (beta * beta)
    taught = (z, labels, goal, weight, class_weight)
    use.loop(taught, outputs, scale * again, params, helpers, streamed, rest, stats)
    for i in range(values.size):
        values[i] *= T(again)
    stats[0] *= again
    stats[1] = 0.0
    restore_subnormals(control)
    return stats[0]


def angular(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """The loop of a softmax against labels, where a formula changes the label's score."""
    z, labels, target, weight, class_weight = inputs
    _, grad, hess, _ = outputs
    T = use.T
    n, k = z.shape
    p = use.unpack(params)
    changed = scratch[: n * k].reshape(n, k)
    rest = scratch[n * k :]
    for i in range(n):
        y = labels[i]
        # Copies the row: the scores belong to the caller.
        changed[i, :] = z[i]
        if 0 <= y < k:
            changed[i, y] = use.formula(z[i, y], *p)[0]
    # The loop of a softmax does the rest: the label's score alone is not the caller's.
    turned = (changed, labels, target, weight, class_weight)
    total = use.loop(turned, outputs, scale, params, helpers, streamed, rest, stats)
    if use.derivatives:
        for i in range(n):
            y = labels[i]
            if not 0 <= y < k:
                continue
            out = use.formula(z[i, y], *p)
            g = grad[i, y]
            # A row of no weight may hold NaN.
            if use.curvature:
                h = hess[i, y]
                hess[i, y] = h * out[1] * out[1] + g * out[use.order] if g != T(0.0) or h != T(0.0) else T(0.0)
            grad[i, y] = g * out[1] if g != T(0.0) else T(0.0)
    return total


Bound = tuple[RowSlots, dict[str, Any]]
"""Record that a template reads, and the functions that it calls by name."""


class RowKernels(NamedTuple):
    """Templates, scratch and preparation of one row loop on a CPU."""

    labels: Callable[..., Any] | None = None
    """Template for labels."""
    dense: Callable[..., Any] | None = None
    """Template for a target of floats."""
    room: Callable[[int], int] = lambda rows: 0
    """Numbers of scratch a class beyond those of a softmax, for a chunk of some rows."""
    prepared: Callable[..., Bound] = lambda dtype, use, functions: (use, functions)
    """Adds what its templates read and call besides what those of all loops do."""


def _sparsemax(dtype: str, use: RowSlots, functions: dict[str, Any]) -> Bound:
    return use, chained((mass, row_weight, threshold), LOOP, use, functions)


def _evidence(dtype: str, use: RowSlots, functions: dict[str, Any]) -> Bound:
    parts = carry(softplus_parts, cpu(dtype))
    return use, chained((mass, row_weight, evidence), LOOP, use, {**functions, "softplus_parts": parts})


def _distillation(dtype: str, use: RowSlots, functions: dict[str, Any]) -> Bound:
    found = chained((log_softmax,), LOOP, use, functions)
    return use._replace(loop=inner(softmax_dense, LOOP, use, **found)), found


def _ordinal(dtype: str, use: RowSlots, functions: dict[str, Any]) -> Bound:
    masked = use._replace(formula=inner(unless_ignored, SCALAR, use))
    return use._replace(loop=inner(log_probs_dense, LOOP, masked, **functions)), functions


def _angular(dtype: str, use: RowSlots, functions: dict[str, Any]) -> Bound:
    # The second derivative of cross-entropy: the surrogate, if any, is that of the changed score.
    own = use._replace(formula=carry(cross_entropy, cpu(dtype)), unpack=access.unpack(0, dtype), order=2)
    terms = inner(label_terms, LOOP, own, **functions)
    return use._replace(loop=inner(softmax_labels, LOOP, own, **functions, label_terms=terms)), functions


def _one_each(rows: int) -> int:
    return rows


KERNELS = {
    "softmax": RowKernels(softmax_labels, softmax_dense),
    "log_probs": RowKernels(log_probs_labels, log_probs_dense),
    "divergence": RowKernels(dense=log_probs_dense),
    "margin": RowKernels(margin_labels),
    "top_margin": RowKernels(margin_labels),
    "ensemble": RowKernels(dense=ensemble),
    "sparsemax": RowKernels(sparsemax, sparsemax, lambda rows: 2, _sparsemax),
    "evidence": RowKernels(evidential, evidential, lambda rows: 4, _evidence),
    "ordinal": RowKernels(ordinal, room=_one_each, prepared=_ordinal),
    "distillation": RowKernels(dense=distillation, room=_one_each, prepared=_distillation),
    "angular": RowKernels(angular, room=_one_each, prepared=_angular),
}
"""Kernels of the row loops on a CPU, by the names of the loops in `formulas.record`."""
