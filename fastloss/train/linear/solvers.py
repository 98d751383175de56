"""Solvers of smooth objectives by whole passes: Newton's method, L-BFGS and gradient descent."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...call.errors import CallValueError
from ..optim_search import Trial, strong_wolfe
from .objective import Penalised

__all__ = [
    "ARMIJO",
    "ROUNDING",
    "SHORTEST",
    "Settings",
    "Solved",
    "descend",
    "diverged",
    "lbfgs",
    "newton",
    "require_finite",
]

ARMIJO = 1e-4
"""Share of the decrease along the slope that a step must reach."""

SHORTEST = 40
"""Halvings of a step after which no decrease is left that rounding does not hide."""

ROUNDING = 4.0 * np.finfo(np.float64).eps
"""Relative change of the objective that counts as none."""


STUCK = 1e-2
"""Size of a gradient, relative to the objective, at which a line search without a decrease has met a kink."""

MEMORY = 20
"""Pairs of steps and changes of the gradient that L-BFGS keeps."""


class Settings(NamedTuple):
    """Limits and options of a solver."""

    max_iter: int
    tol: float
    """Largest element of the gradient at an optimum, relative to that at the start and to the objective."""
    learning_rate: float | None
    """Length of a step; None where the solver finds it."""
    enough: float
    """Decrease of the objective in one iteration that counts as none, where two in a row make no more."""
    seen: Callable[[Any, float], bool]
    """Function of (coefficients, objective) that is called after each iteration and says whether to stop."""


class Solved(NamedTuple):
    """Result of a solver."""

    u: Any
    n_iter: int
    converged: bool
    reason: str
    """Cause of a stop before the optimum."""


def _scale(value: float, g: Any) -> float:
    """Return the size of gradients that a tolerance is relative to."""
    return max(float(np.abs(g).max(initial=0.0)), abs(value) if math.isfinite(value) else 0.0, 1e-300)


def require_finite(value: float) -> None:
    """Raise where the objective at the start is not finite."""
    if not math.isfinite(value):
        raise CallValueError(
            f"objective at the start is {value}: a prediction of 0 is outside the loss's domain, or targets are huge; "
            "scale the target, or start elsewhere with warm_start"
        )


def newton(objective: Penalised, u: Any, settings: Settings) -> Solved:
    """Minimise by Newton's method: the curvature of the loss from the same pass as its gradient.

    Where the curvature is singular or its step too long, steps of the surrogate curvature take its place for a while. A
    step that does not decrease the objective is halved, and damped where that does not help.
    """
    exact, fallback = objective.loss.curvature, objective.loss.surrogate
    mode, held, damping, slow = exact, 0, 0.0, 0
    value, g, hess = objective.smooth(u, mode)
    require_finite(value)
    limit = settings.tol * _scale(value, g)
    for iteration in range(settings.max_iter):
        if np.abs(g).max(initial=0.0) <= limit:
            return Solved(u, iteration, True, "")
        step, singular = _newton_step(hess, g, damping)
        slope = float(g @ step)
        replaceable = mode != fallback != ""
        moved = None
        if slope < 0.0 and np.isfinite(step).all() and not (singular and replaceable):
            whole = objective.smooth(u + step, mode)
            # The full step is mostly taken: its derivatives come from the pass that judges it.
            if _is_lower(whole.value, value, slope):
                moved = 1.0, whole.value
            else:
                moved = _backtrack(objective, u, step, value, slope, 12 if replaceable else SHORTEST, 0.5)
        if moved is None:
            if replaceable:
                mode, held = fallback, 3
            elif damping > 1e3:
                return Solved(u, iteration, True, "")
            else:
                damping = max(100.0 * damping, 1e-8)
            value, g, hess = objective.smooth(u, mode)
            continue
        length, found = moved
        slow = slow + 1 if value - found <= settings.enough else 0
        small = (value - found <= ROUNDING * abs(value) and length == 1.0) or slow > 1
        damping = 0.0 if damping < 1e-7 else damping / 10.0
        held -= 1
        before, mode = mode, exact if held <= 0 else mode
        u = u + length * step
        value, g, hess = whole if length == 1.0 and mode == before else objective.smooth(u, mode)
        if small or settings.seen(u, value):
            return Solved(u, iteration + 1, True, "")
    converged = bool(np.abs(g).max(initial=0.0) <= limit)
    return Solved(u, settings.max_iter, converged, "" if converged else "max_iter was reached")


def _newton_step(hess: Any, g: Any, damping: float) -> tuple[Any, bool]:
    """Return the step of each output by its own curvature, and whether a curvature is singular."""
    k, m = hess.shape[:2]
    step, parts, singular = np.empty((k, m)), g.reshape(k, m), False
    for c in range(k):
        if not np.isfinite(hess[c]).all():
            return np.full(k * m, np.nan), True
        scale = max(float(np.diagonal(hess[c]).max()), 1e-300)
        damped = hess[c] + np.diag(np.full(m, damping * scale))
        values, vectors = np.linalg.eigh(damped)
        # The shortest step: directions without curvature stay where they are.
        kept = values > 1e-12 * max(float(values[-1]), 1e-300)
        singular |= not kept.all()
        inverse = np.divide(1.0, values, out=np.zeros(m), where=kept)
        step[c] = -vectors @ (inverse * (vectors.T @ parts[c]))
    return step.reshape(-1), singular


def _is_lower(found: float, value: float, slope: float) -> bool:
    """Whether a step of such a slope decreased the objective enough."""
    # Close to the optimum, the decrease drowns in the rounding of the objective.
    slack = ROUNDING * abs(value) if abs(slope) < 1e-6 * abs(value) else 0.0
    return found <= value + ARMIJO * slope + slack


def _backtrack(
    objective: Penalised, u: Any, step: Any, value: float, slope: float, halvings: int = SHORTEST, length: float = 1.0
) -> tuple[float, float] | None:
    """Return the length of a step that decreases the objective, and the objective there; None where none does."""
    for _ in range(halvings):
        found = objective.value(u + length * step)
        if _is_lower(found, value, length * slope):
            return length, found
        length *= 0.5
    return None


def lbfgs(objective: Penalised, u: Any, settings: Settings) -> Solved:
    """Minimise by L-BFGS with a strong Wolfe line search."""
    value, g, _ = objective.smooth(u)
    require_finite(value)
    limit = settings.tol * _scale(value, g)
    pairs: list[Any] = []
    for iteration in range(settings.max_iter):
        if np.abs(g).max(initial=0.0) <= limit:
            return Solved(u, iteration, True, "")
        step = _two_loops(g, pairs)
        slope = float(g @ step)
        if not slope < 0.0:
            pairs, step = [], -g
            slope = -float(g @ g)
        best = _wolfe(
            objective, u, step, Trial(0.0, value, g, slope), 1.0 if pairs else min(1.0, 1.0 / (-slope) ** 0.5)
        )
        if best is None or not best.value < value:
            if not pairs:
                stuck = iteration == 0 and np.abs(g).max() > STUCK * _scale(value, g)
                return Solved(u, iteration, not stuck, "the line search stopped at a kink" if stuck else "")
            # Begins anew from the slope: the pairs no longer describe the objective.
            pairs = []
            continue
        moved, change = best.step * step, best.gradient - g
        if float(moved @ change) > 1e-12 * float(np.sqrt((moved @ moved) * (change @ change))):
            pairs = [*pairs[1 - MEMORY :], (moved, change, 1.0 / float(moved @ change))]
        small = value - best.value <= ROUNDING * abs(value)
        u, value, g = u + moved, best.value, best.gradient
        if small or settings.seen(u, value):
            return Solved(u, iteration + 1, True, "")
    return Solved(u, settings.max_iter, False, "max_iter was reached")


def _two_loops(g: Any, pairs: list[Any]) -> Any:
    """Return the step of L-BFGS from pairs of steps and changes of the gradient."""
    q, shares = -g, []
    for moved, change, inverse in reversed(pairs):
        share = inverse * float(moved @ q)
        shares.append(share)
        q = q - share * change
    if pairs:
        moved, change, inverse = pairs[-1]
        q = q / (inverse * float(change @ change))
    for (moved, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        q = q + (share - inverse * float(change @ q)) * moved
    return q


def _wolfe(objective: Penalised, u: Any, step: Any, start: Trial, first: float) -> Trial | None:
    """Return the point of a step that meets the strong Wolfe conditions; None where no step decreases the objective."""

    def trial(length: float) -> Trial:
        value, g, _ = objective.smooth(u + length * step)
        if not math.isfinite(value):
            value, g = 1e300, step * (1e300 / max(float(step @ step), 1e-300))
        return Trial(length, value, g, float(g @ step))

    if objective.loss.restricted:
        while first > 1e-300 and not math.isfinite(objective.value(u + first * step)):
            first *= 0.1
    found = strong_wolfe(trial, start, first, float(np.abs(step).max()), 25)
    return found if math.isfinite(found.value) else None


def descend(objective: Penalised, u: Any, settings: Settings) -> Solved:
    """Minimise by gradient descent: steps of the learning rate, or of a length that each line search finds."""
    value, g, _ = objective.smooth(u)
    require_finite(value)
    begun, limit, length, rising = value, settings.tol * _scale(value, g), 1.0, 0
    for iteration in range(settings.max_iter):
        if np.abs(g).max(initial=0.0) <= limit:
            return Solved(u, iteration, True, "")
        if settings.learning_rate is None:
            moved = _backtrack(objective, u, -length * g, value, -length * float(g @ g))
            if moved is None:
                return Solved(u, iteration, True, "")
            length *= moved[0]
            u = u - length * g
            # Longer steps are tried only while their decrease shows: close to the optimum, it drowns in rounding.
            length *= 2.0 if value - moved[1] > 1e-9 * abs(value) and moved[0] == 1.0 else 1.0
        else:
            u = u - settings.learning_rate * g
        before = value
        value, g, _ = objective.smooth(u)
        rising = rising + 1 if value > before else 0
        if not math.isfinite(value) or (rising >= 5 and value > 10.0 * abs(begun) + 1.0):
            rate = settings.learning_rate if settings.learning_rate is not None else length
            raise diverged(rate, iteration + 1, begun, value)
        if settings.seen(u, value):
            return Solved(u, iteration + 1, True, "")
    return Solved(u, settings.max_iter, False, "max_iter was reached")


def diverged(rate: float, steps: int, begun: float, value: float) -> CallValueError:
    """Return the error for a learning rate that is too large."""
    return CallValueError(
        f"is {rate:g}, which is too large: the objective went from {begun:.4g} to {value:.4g} in {steps} iterations; "
        f"try learning_rate={rate / 10.0:g}",
        "learning_rate",
    )
