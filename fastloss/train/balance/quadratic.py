"""Quadratic programs of a few non-negative variables, solved exactly by an active set."""

from typing import Any

import numpy as np

__all__ = ["minimum"]

TOLERANCE = 1e-12
"""Relative size of a slope below which a variable stays at 0: rounding errors of inner products reach it."""


def _at_equality(q: Any, b: Any, sums: bool) -> Any:
    """Return the minimiser without signs, of sum 1 where it `sums`; the shortest where there are several."""
    k = len(b)
    if not sums:
        return np.linalg.lstsq(q, -b, rcond=TOLERANCE)[0]
    system = np.ones((k + 1, k + 1))
    system[:k, :k], system[k, k] = q, 0.0
    return np.linalg.lstsq(system, np.append(-b, 1.0), rcond=TOLERANCE)[0][:k]


def minimum(q: Any, b: Any, sums: bool) -> Any:
    """Return the x >= 0, of sum 1 where it `sums`, that minimises x.q.x / 2 + b.x.

    The matrix q is positive semidefinite, and b lies in its range unless x `sums` to 1. A variable joins the free set
    while its slope is negative, and leaves it where the minimum over the free set would make it negative, as in Lawson
    and Hanson (1974), Solving least squares problems.
    """
    k = len(b)
    scale = float(max(np.abs(q).max(), np.abs(b).max()))
    if not 0.0 < scale < np.inf:
        return np.full(k, 1.0 / k) if sums else np.zeros(k)
    q, b = q / scale, b / scale
    x, free = np.zeros(k), np.zeros(k, bool)
    if sums:
        first = int(np.argmin(0.5 * np.diagonal(q) + b))
        x[first], free[first] = 1.0, True
    for _ in range(10 * k + 10):
        slope = q @ x + b
        # With a sum to keep, the slopes of the free variables are equal at the minimum.
        excess = slope - (slope @ x if sums else 0.0)
        excess[free] = 0.0
        joins = int(np.argmin(excess))
        if excess[joins] >= -TOLERANCE:
            return x
        free[joins] = True
        while free.any():
            places = np.flatnonzero(free)
            y = _at_equality(q[np.ix_(places, places)], b[places], sums)
            if (y > 0.0).all():
                x[:] = 0.0
                x[places] = y
                break
            wrong = y <= 0.0
            here = x[places]
            ratio = here[wrong] / np.maximum(here[wrong] - y[wrong], np.finfo(float).tiny)
            step = float(ratio.min())
            x[places] = np.maximum(here + step * (y - here), 0.0)
            x[places[wrong][ratio <= step]] = 0.0
            free &= x > 0.0
    return x
