"""Coordinate descent on a quadratic with absolute values, in compiled code."""

from typing import Any

import numpy as np

from .runtime.specialize import cached_jit

__all__ = ["descend_coordinates"]


@cached_jit(error_model="numpy")
def sweep_coordinates(hess, slope, u, each, tol, sweeps):
    """Move one coordinate after another to its optimum, in place, until none moves; return the number of sweeps.

    `slope` is the gradient of the quadratic at u, and is kept up to date.
    """
    for sweep in range(sweeps):
        largest, size = 0.0, 0.0
        for j in range(u.size):
            curve = hess[j, j]
            if not curve > 0.0:
                continue
            wanted = u[j] - slope[j] / curve
            limit = each[j] / curve
            moved = wanted - limit if wanted > limit else (wanted + limit if wanted < -limit else 0.0)
            change = moved - u[j]
            size = max(size, abs(moved))
            if change != 0.0:
                u[j] = moved
                largest = max(largest, abs(change))
                for i in range(u.size):
                    slope[i] += change * hess[j, i]
        if largest <= tol * size:
            return sweep + 1
    return sweeps


def descend_coordinates(hess: Any, g: Any, u: Any, each: Any, tol: float, sweeps: int) -> tuple[Any, int]:
    """Return the v that minimises g (v - u) + (v - u) hess (v - u) / 2 + sum of each |v|, and the number of sweeps."""
    v, slope = np.array(u, np.float64), np.array(g, np.float64)
    taken = sweep_coordinates(np.ascontiguousarray(hess), slope, v, np.ascontiguousarray(each), tol, sweeps)
    return v, taken
