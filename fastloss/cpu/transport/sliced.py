"""Sliced Wasserstein distances: clouds of points projected onto directions, and coupled along each."""

from functools import lru_cache
from typing import Any

import numpy as np

from ..runtime.blas import single_threaded
from .samples import coupled, side

__all__ = ["run"]

TOGETHER = 1 << 22
"""Projected points held at a time."""


@lru_cache(maxsize=8)
def _directions(count: int, seed: int, d: int) -> Any:
    """Unit vectors, drawn anew for a seed the same everywhere."""
    u = np.random.default_rng(seed).standard_normal((count, d))
    u /= np.sqrt((u * u).sum(axis=1, keepdims=True))
    return u


def run(call: Any) -> None:
    """Evaluate the distance of two clouds."""
    with single_threaded():
        _evaluate(call)


def _evaluate(call: Any) -> None:
    # In float64 throughout: a projection rounds once, and the distance is one of differences.
    x, y = (np.asarray(call[k], np.float64) for k in ("x", "y"))
    p, count = call.parameters["p"], call.parameters["n_projections"]
    given = call.arrays.get("projections")
    if given is None:
        u = _directions(count, call.parameters["seed"], x.shape[1])
    else:
        u = np.asarray(given, np.float64)
        count = len(u)
    step = max(1, TOGETHER // (len(x) + len(y)))
    sums = {k: np.zeros(call[k].shape) for k in call.grads}
    total, ones, nowhere = 0.0, np.ones(1), np.empty((1, 0))
    for lo in range(0, count, step):
        some = u[lo : lo + step]
        one, other = (side("float64", np.ascontiguousarray(some @ a.T), None, bool(sums)) for a in (x, y))
        if not sums:
            total += coupled("float64", one, other, p, ones, nowhere).sum()
            continue
        for k, (mine, others) in {"x": (one, other), "y": (other, one)}.items():
            along = np.empty(mine.places.shape)
            costs = coupled("float64", mine, others, p, ones, along)
            sums[k] += along.T @ some
            total += costs.sum() if k == "x" else 0.0
    mean = total / count
    value = mean if p == 1.0 else np.sqrt(mean)
    call.values[0] = value
    if sums:
        factor = call.factors()[0]
        chain = 1.0 if p == 1.0 else 0.0 if value == 0.0 else 0.5 / value
        for k, g in sums.items():
            call.grads[k][...] = g * (factor * chain / count) if factor != 0.0 else 0.0
