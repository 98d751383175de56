"""Loops over rows of K scores for a CPU that need no softmax: log-probabilities, margins, members of a forecast."""

from ..runtime import access
from ..runtime.intrinsics import widest_vectors
from ..runtime.slots import unbound
from ..runtime.staging import flat
from ..runtime.subnormals import flush_subnormals, restore_subnormals
from .slots import RowSlots
from .softmax import BLOCK

__all__ = ["ensemble", "log_probs_dense", "log_probs_labels", "margin_labels"]

use = unbound(RowSlots)

times = access.times[True]


def log_probs_labels(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """A formula of the label's log-probability, and with smoothing of the other classes' too."""
    z, labels, _, weight, class_weight = inputs
    values, grad, hess, _ = outputs
    T = use.T
    n, k = z.shape
    p = use.unpack(params)
    eps = T(params[-2])
    total = 0.0
    for i in range(n):
        y = labels[i]
        v = T(0.0)
        if use.derivatives:
            grad[i, :] = T(0.0)
            if use.curvature:
                hess[i, :] = T(0.0)
        if 0 <= y < k:
            w = weight[i] if weight.size > 0 else T(1.0)
            own = class_weight[y] if class_weight.size > 0 else T(1.0)
            if use.smooth:
                part = eps / T(k) * w
                for j in range(k):
                    each = use.formula(z[i, j], T(1.0), *p)
                    v += times(each[0], part * class_weight[j])
                    if use.derivatives:
                        grad[i, j] = times(each[1], T(scale) * (part * class_weight[j]))
                own *= T(1.0) - eps
            w *= own
            # Reads one score of the row, so nothing here is worth vectorising: the zeros above are the cost.
            out = use.formula(z[i, y], T(1.0), *p)
            v += times(out[0], w)
            if use.derivatives:
                if use.smooth:
                    grad[i, y] += times(out[1], T(scale) * w)
                else:
                    grad[i, y] = times(out[1], T(scale) * w)
                if use.curvature:
                    hess[i, y] = times(out[use.order], T(scale) * w)
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total


def log_probs_dense(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """A formula summed over the row, each class by itself."""
    z, _, target, weight, class_weight = inputs
    values, grad, hess, _ = outputs
    T = use.T
    widest_vectors()
    control = flush_subnormals()
    n, k = z.shape
    p = use.unpack(params)
    total, bad = 0.0, T(0.0)
    if values.size == 0 and weight.size == 0 and class_weight.size == 0:
        # No number depends on its row: rows too short for the vector unit need not be told apart.
        xs, ts = flat(z), flat(target)
        gs, hs = flat(grad) if use.derivatives else xs, flat(hess) if use.curvature else xs
        for lo in range(0, xs.size, BLOCK):
            x, t, g, h = xs[lo : lo + BLOCK], ts[lo : lo + BLOCK], gs[lo : lo + BLOCK], hs[lo : lo + BLOCK]
            # Keeps digits in long rows: a block is summed in the type of the arrays, blocks in float64.
            v = T(0.0)
            for j in range(x.size):
                out = use.formula(x[j], t[j], *p)
                v += out[0]
                bad += T(1.0) if t[j] < T(0.0) else T(0.0)
                if use.derivatives:
                    g[j] = T(scale) * out[1]
                    if use.curvature:
                        h[j] = T(scale) * out[use.order]
            total += v
        stats[0], stats[1] = total, bad
        restore_subnormals(control)
        return total
    for i in range(n):
        x, t, g, h = z[i], target[i], grad[i] if use.derivatives else z[i], hess[i] if use.curvature else z[i]
        w = weight[i] if weight.size > 0 else T(1.0)
        factor = T(scale) * w
        v = T(0.0)
        # Written, not multiplied: a row of weight 0 may hold NaN, and 0 times NaN is NaN.
        if w == T(0.0):
            if use.derivatives:
                g[:] = T(0.0)
                if use.curvature:
                    h[:] = T(0.0)
        else:
            for j in range(k):
                out = use.formula(x[j], t[j], *p)
                c = class_weight[j] if class_weight.size > 0 else T(1.0)
                v += times(out[0], c)
                bad += T(1.0) if (t[j] < T(0.0)) & (c != T(0.0)) else T(0.0)
                if use.derivatives:
                    # By the class's weight alone, which is 1 where there are none: 0.88 of the time of another choice.
                    g[j] = factor * c * out[1] if c != T(0.0) else T(0.0)
                    if use.curvature:
                        h[j] = factor * c * out[use.order] if c != T(0.0) else T(0.0)
            v *= w
        total += v
        if values.size > 0:
            values[i] = v
    stats[0], stats[1] = total, bad
    restore_subnormals(control)
    return total


def margin_labels(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """A formula of margins z_j - z_label: summed over the other classes and divided by K, or of the largest alone."""
    z, labels, _, weight, class_weight = inputs
    values, grad, hess, _ = outputs
    T = use.T
    widest_vectors()
    n, k = z.shape
    p, total = use.unpack(params), 0.0
    for i in range(n):
        x, y, v, w = z[i], labels[i], 0.0, T(0.0)
        if use.derivatives:
            grad[i, :] = T(0.0)
            if use.curvature:
                hess[i, :] = T(0.0)
        if 0 <= y < k and k > 1:
            w = weight[i] if weight.size > 0 else T(1.0)
            w *= class_weight[y] if class_weight.size > 0 else T(1.0)
            # Into the weight, once a row: a division for each class otherwise.
            w /= T(1.0) if use.top_only else T(k)
        # Leaves out rows of weight 0 and ignored ones alike: they may hold anything, and their derivatives are 0.
        if w != T(0.0):
            lo, hi = 0, k
            if use.top_only:
                lo = 1 if y == 0 else 0
                for j in range(k):
                    # Lets NaN through: a score that is NaN counts as the largest.
                    lo = j if j != y and (x[j] > x[lo] or x[j] != x[j]) else lo
                hi = lo + 1
            slope, bend = 0.0, 0.0
            for first in range(lo, hi, BLOCK):
                # Keeps digits with many classes: a block is summed in the type of the arrays, blocks in float64.
                value, by_first, by_second = T(0.0), T(0.0), T(0.0)
                last, own = min(hi, first + BLOCK), y - first
                xs = x[first:last]
                gs = grad[i, first:last] if use.derivatives else xs
                hs = hess[i, first:last] if use.curvature else xs
                for j in range(xs.size):
                    out = use.formula(xs[j] - x[y], *p)
                    # Keeps the loop vectorised: the label is selected out, not skipped by a branch.
                    counted = j != own
                    value += out[0] if counted else T(0.0)
                    if use.derivatives:
                        f1 = T(scale) * w * out[1] if counted else T(0.0)
                        by_first += f1
                        gs[j] = f1
                        if use.curvature:
                            f2 = T(scale) * w * out[use.order] if counted else T(0.0)
                            by_second += f2
                            hs[j] = f2
                v, slope, bend = v + value, slope + by_first, bend + by_second
            v *= w
            if use.derivatives:
                grad[i, y] = -slope
                if use.curvature:
                    hess[i, y] = bend
        total += v
        if values.size > 0:
            values[i] = v
    stats[0], stats[1] = total, 0.0
    return total


def ensemble(inputs, outputs, scale, params, helpers, streamed, scratch, stats):
    """A formula of each member, its mid-rank among all members, and their number."""
    z, _, target, weight, _ = inputs
    values, grad, hess, _ = outputs
    T = use.T
    widest_vectors()
    n, k = z.shape
    p = use.unpack(params)
    total = 0.0
    for i in range(n):
        x, t = z[i], target[i, 0]
        w = weight[i] if weight.size > 0 else T(1.0)
        v = T(0.0)
        if w == T(0.0) and use.derivatives:
            grad[i, :] = T(0.0)
            if use.curvature:
                hess[i, :] = T(0.0)
        for j in range(k if w != T(0.0) else 0):
            below = T(0.0)
            equal = T(0.0)
            # Counts ranks rather than sorts: no order has to be carried back to the members.
            for m in range(k):
                below += T(1.0) if x[m] < x[j] else T(0.0)
                equal += T(1.0) if x[m] == x[j] else T(0.0)
            rank = below + T(0.5) * (equal + T(1.0))
            out = use.formula(x[j], t, rank, T(k), *p)
            v += out[0]
            if use.derivatives:
                grad[i, j] = T(scale) * w * out[1]
                if use.curvature:
                    hess[i, j] = T(scale) * w * out[use.order]
        v *= w
        total += v
        if values.size > 0:
            values[i] = v
    stats[0] = total
    stats[1] = 0.0
    return total
