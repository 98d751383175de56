"""Solvers for an L1 penalty: coordinate descent on Newton's quadratic, and accelerated proximal steps."""

import math
from typing import Any

import numpy as np

from ...cpu.coordinates import descend_coordinates
from .objective import Penalised
from .solvers import ARMIJO, ROUNDING, SHORTEST, Settings, Solved, require_finite

__all__ = ["by_coordinates", "by_proximal_steps"]

SWEEPS = 3000
"""Largest number of passes over the coordinates of one quadratic."""


def by_coordinates(objective: Penalised, u: Any, settings: Settings) -> Solved:
    """Minimise by proximal Newton steps: coordinate descent on a quadratic around each iterate, then a search.

    Coefficients that do not help are exactly 0.
    """
    exact, fallback = objective.loss.curvature, objective.loss.surrogate
    mode, held, slow, damping = exact, 0, 0, 0.0
    each = objective.thresholds()
    smooth, g, hess = objective.smooth(u, mode)
    require_finite(smooth)
    value = smooth + float(each @ np.abs(u))
    for iteration in range(settings.max_iter):
        replaceable = mode != fallback != ""
        step, reached = _quadratic_step(objective, u, g, hess, each, damping)
        with np.errstate(all="ignore"):
            expected = float(g @ step) + float(each @ (np.abs(u + step) - np.abs(u)))
        usable = reached and np.isfinite(expected) and expected < 0.0
        longest = float(np.abs(step).max(initial=0.0))
        if usable or (reached and expected == 0.0):
            tiny = longest <= settings.tol * (1e-2 + float(np.abs(u).max(initial=0.0)))
            if tiny or -expected <= ROUNDING * abs(value):
                return Solved(u + step if usable else u, iteration, True, "")
        moved = _search(objective, u, step, value, expected, 12 if replaceable else SHORTEST) if usable else None
        if moved is None:
            if replaceable:
                mode, held = fallback, 3
            elif damping > 1e3:
                return Solved(u, iteration, True, "")
            else:
                damping = max(100.0 * damping, 1e-8)
            smooth, g, hess = objective.smooth(u, mode)
            continue
        length, found = moved
        damping = 0.0 if damping < 1e-7 else damping / 10.0
        slow = slow + 1 if value - found <= settings.enough else 0
        held -= 1
        mode = exact if held <= 0 else mode
        u = u + length * step
        smooth, g, hess = objective.smooth(u, mode)
        value = smooth + float(each @ np.abs(u))
        if slow > 1 or settings.seen(u, value):
            return Solved(u, iteration + 1, True, "")
    return Solved(u, settings.max_iter, False, "max_iter was reached")


def _quadratic_step(objective: Penalised, u: Any, g: Any, hess: Any, each: Any, damping: float) -> tuple[Any, bool]:
    """Return the step to the minimum of the quadratic of each output, and whether the descent reached it."""
    k, m = objective.outputs, objective.columns
    target, reached = np.empty((k, m)), True
    for c in range(k):
        part = slice(c * m, (c + 1) * m)
        own = hess[c] + np.diag(np.full(m, (damping + 1e-13) * max(float(np.diagonal(hess[c]).max()), 1e-300)))
        if not objective.fit_intercept:
            own[-1, -1] = 1.0
        target[c], sweeps = descend_coordinates(own, g[part], u[part], each[part], 1e-12, SWEEPS)
        reached &= sweeps < SWEEPS
    return target.reshape(-1) - u, reached


def _search(
    objective: Penalised, u: Any, step: Any, value: float, expected: float, halvings: int
) -> tuple[float, float] | None:
    """Return the length of a step that decreases the objective as expected, and the objective there; None without."""
    length = 1.0
    for _ in range(halvings):
        found = objective.value(u + length * step)
        if found <= value + ARMIJO * length * expected + ROUNDING * abs(value) * (
            -expected * length < 1e-6 * abs(value)
        ):
            return length, found
        length *= 0.5
    return None


def by_proximal_steps(objective: Penalised, u: Any, settings: Settings) -> Solved:
    """Minimise by accelerated proximal steps with restarts (FISTA), whose length a line search finds."""
    each, length, momentum = objective.thresholds(), 1.0, 1.0
    before, at = u, u
    value = objective.smooth(u).value
    require_finite(value)
    value += float(each @ np.abs(u))
    for iteration in range(settings.max_iter):
        smooth, g, _ = objective.smooth(at)
        while True:
            moved = at - length * g
            moved = np.sign(moved) * np.maximum(np.abs(moved) - length * each, 0.0)
            change = moved - at
            found = objective.value(moved) - float(each @ np.abs(moved))
            bound = smooth + float(g @ change) + float(change @ change) / (2.0 * length)
            if found <= bound + 1e-14 * abs(smooth) or length < 1e-20:
                break
            length *= 0.5
        total = found + float(each @ np.abs(moved))
        if total > value:
            if momentum == 1.0:
                return Solved(before, iteration, True, "")
            momentum, at = 1.0, before
            continue
        following = (1.0 + math.sqrt(1.0 + 4.0 * momentum * momentum)) / 2.0
        at = moved + (momentum - 1.0) / following * (moved - before)
        small = float(np.abs(moved - before).max(initial=0.0))
        before, momentum, value = moved, following, total
        if settings.seen(before, value):
            return Solved(before, iteration + 1, True, "")
        if small <= settings.tol * 1e-2 * (1e-2 + float(np.abs(moved).max(initial=0.0))):
            return Solved(before, iteration + 1, True, "")
        length *= 1.1
    return Solved(before, settings.max_iter, False, "max_iter was reached")
