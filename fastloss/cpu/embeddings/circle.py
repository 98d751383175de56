"""Circle loss: two log-sum-exps of each anchor, over the cosines with its positives and with its negatives."""

import math
from typing import Any

import numpy as np

from ..math.scalar_math import exp64, log64, sigmoid64, softplus64
from ..runtime.slots import Formula, unbound
from ..runtime.units import kernel
from .pairs import inverse_of, largest, power_of_two, shrunk
from .pairwise import deliver, room, weighed

__all__ = ["run"]

use = unbound(Formula)


def normalise(lo, hi, x, unit, inverse):
    """Rows of length 1, and the two factors that each was multiplied by; a row of length 0 stays."""
    for i in range(lo, hi):
        row, out = x[i], unit[i]
        # By a power of two, which is exact: squares of huge or tiny rows would leave the range of numbers.
        scale, s = power_of_two(largest(row)), 0.0
        for j in range(row.size):
            e = np.float64(row[j]) * scale
            s += e * e
        p = inverse_of(math.sqrt(s))
        for j in range(row.size):
            out[j] = shrunk(row[j], scale, p)
        inverse[i, 0], inverse[i, 1] = p, scale


def tops(row, labels, i, q):
    """The largest logits of the positives and of the negatives of an anchor; -inf where it has none."""
    positive, negative = -np.inf, -np.inf
    for j in range(row.size):
        if labels[j] != labels[i]:
            a = use.formula(row[j], 0.0, *q)[0]
            # NaN is taken for the largest, and comes through.
            if a > negative or a != a:
                negative = a
        elif j != i:
            a = use.formula(row[j], 1.0, *q)[0]
            if a > positive or a != a:
                positive = a
    return positive, negative


def pulled(lo, hi, params, labels, cosines, values, counted, pull):
    """The loss of each anchor, and its derivatives by the cosines."""
    q = use.unpack(params)
    for i in range(lo, hi):
        row, mine = cosines[i], labels[i]
        positive, negative = tops(row, labels, i, q)
        counts = positive != -np.inf and negative != -np.inf
        counted[i] = 1.0 if counts else 0.0
        if counts:
            # Relative to the largest logits, which `tops` found in a pass of its own.
            near, far = 0.0, 0.0
            for j in range(row.size):
                same = labels[j] == mine
                a = use.formula(row[j], 1.0 if same else 0.0, *q)[0]
                e = exp64(a - (positive if same else negative))
                near += e if same and j != i else 0.0
                far += 0.0 if same else e
            # Relative to the largest logit of each side, so that no exponential overflows.
            near, far = positive + log64(near), negative + log64(far)
            values[i] = softplus64(near + far)
        if pull.size > 0:
            own, k = pull[i], sigmoid64(near + far) if counts else 0.0
            for j in range(row.size if counts else 0):
                same = labels[j] == mine
                a, slope = use.formula(row[j], 1.0 if same else 0.0, *q)
                own[j] = k * exp64(a - (near if same else far)) * slope
            if not counts:
                own[:] = 0.0
            own[i] = 0.0


def project(lo, hi, unit, inverse, grad):
    """Make of derivatives by rows of length 1 those by the rows that were given."""
    for i in range(lo, hi):
        u, g, s = unit[i], grad[i], 0.0
        for j in range(u.size):
            s += g[j] * u[j]
        for j in range(u.size):
            g[j] = shrunk(g[j] - s * u[j], inverse[i, 0], inverse[i, 1])


def run(call: Any) -> None:
    """Evaluate every anchor."""
    x = call["embeddings"]
    n, d = x.shape
    unit, inverse, counted = np.empty((n, d)), np.empty((n, 2)), np.empty(n)
    helpers = (power_of_two, largest, inverse_of)
    kernel(normalise, "normalise", "float64", None, helpers)(n, n * d, x, unit, inverse)
    # By BLAS: n^2 d multiplications are nearly all of the work.
    cosines, pull = unit @ unit.T, np.empty((n, n) if call.grads else (0, 0))
    mine = kernel(pulled, call.record.name, "float64", call.record.function, (tops,))
    mine(n, 8 * n * n, call.numbers(), call["labels"], cosines, call.values, counted, pull)
    call.counted = counted
    if call.grads:
        weighed(np.empty((1, n)), pull, call.factors(), 1.0)
        # NaN is in the cosines too; where those do not count, it must not come back by 0 * NaN.
        unit[~np.isfinite(unit)] = 0.0
        grad = np.matmul(pull, unit, out=room(call))
        kernel(project, "project", "float64")(n, n * d, unit, inverse, grad)
        deliver(call, grad)
