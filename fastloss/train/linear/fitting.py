"""Fit of a linear model: choice of the solver, limits, early stopping and the history."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...call.check import one_of
from ...call.errors import CallValueError
from .objective import MeanLoss, Penalised
from .proximal import by_coordinates, by_proximal_steps
from .smoothing import MAJORANTS, narrowing, with_long_steps
from .solvers import Settings, Solved, descend, lbfgs, newton
from .stochastic import STOCHASTIC, Stochastic

__all__ = ["SOLVERS", "Options", "Problem", "Result", "fit"]

WHOLE = {"newton": newton, "lbfgs": lbfgs, "gd": descend, "cd": by_coordinates, "prox": by_proximal_steps}
"""Solvers that take all samples in each iteration."""

SOLVERS = ("auto", *WHOLE, *STOCHASTIC)
"""Names of solvers."""

NEWTON_UP_TO = 150
"""Columns up to which Newton's method is chosen: the curvature takes so many times the time of a gradient."""


class Options(NamedTuple):
    """Settings of an estimator that a fit reads."""

    solver: str
    l1: float
    l2: float
    fit_intercept: bool
    max_iter: int
    tol: float
    learning_rate: float | None
    batch_size: int
    early_stopping: bool
    n_iter_no_change: int
    seed: Any
    """Random generator of NumPy."""


class Problem(NamedTuple):
    """Samples of a fit, and those that early stopping watches."""

    loss: Any
    x: Any
    y: Any
    weight: Any
    outputs: int
    arrays: dict[str, Any]
    held_out: tuple[Any, Any, Any] | None = None
    """X, y and weights of the samples that are held out."""


class Result(NamedTuple):
    """Coefficients with the course of the fit."""

    w: Any
    n_iter: int
    converged: bool
    reason: str
    solver: str
    history: dict[str, list[float]]
    value: float
    """Objective."""


class _Watch:
    """Record of the objective after each iteration; stops a fit whose loss on held-out samples no longer falls."""

    def __init__(self, objective: Penalised, problem: Problem, options: Options) -> None:
        self.objective, self.patience = objective, options.n_iter_no_change
        self.history: dict[str, list[float]] = {"objective": []}
        self.best: Any = None
        self.least, self.waited = math.inf, 0
        self.held_out: MeanLoss | None = None
        if problem.held_out is not None:
            self.held_out = MeanLoss(problem.loss, *problem.held_out, problem.outputs, {})
            self.history["validation"] = []

    def __call__(self, u: Any, value: float) -> bool:
        """Note an iteration, and say whether to stop."""
        self.history["objective"].append(float(value))
        if self.held_out is None:
            return False
        found = self.held_out(self.objective.coefficients(u), False).value
        self.history["validation"].append(found)
        if found < self.least - 1e-10 * abs(found):
            self.best, self.least, self.waited = np.array(u), found, 0
            return False
        self.waited += 1
        return self.waited >= self.patience


def chosen(solver: str, loss: Any, mean: MeanLoss, options: Options) -> str:
    """Return the name of the solver for "auto", and check any other."""
    one_of("solver", solver, SOLVERS)
    kinked = loss.record.name in MAJORANTS
    columns = mean.shape[1]
    if solver == "auto":
        if options.l1 > 0.0:
            return "cd" if (kinked or mean.curvature) and columns <= 10 * NEWTON_UP_TO else "prox"
        exact = kinked or mean.curvature == "hess"
        return "newton" if exact and columns <= NEWTON_UP_TO and mean.outputs <= 16 else "lbfgs"
    if solver in ("newton", "cd") and not (mean.curvature or kinked):
        problem = f"is {solver!r}, which needs a curvature, and {loss.record.name} has none here; use 'lbfgs' or 'prox'"
        raise CallValueError(problem, "solver")
    if kinked and solver == "prox":
        raise CallValueError(f"is 'prox', which needs a smooth loss; use 'cd' for {loss.record.name}", "solver")
    if options.l1 > 0.0 and solver in ("newton", "lbfgs", "gd"):
        raise CallValueError(f"is {solver!r}, which takes no L1 penalty; use 'cd', 'prox' or 'auto'", "solver")
    return solver


def fit(problem: Problem, options: Options, start: Any = None) -> Result:
    """Return the coefficients that minimise the mean loss plus the penalty, from a start or from 0."""
    mean = MeanLoss(*problem[:6])
    if problem.loss.record.name not in MAJORANTS:
        mean.loss = problem.loss
    solver = chosen(options.solver, problem.loss, mean, options)
    if solver in ("newton", "cd"):
        mean = MeanLoss(with_long_steps(problem.loss), *problem[1:6])
    objective = Penalised(mean, options.l1, options.l2, options.fit_intercept)
    u = _start(objective, solver) if start is None else objective.scaled(start)
    watch = _Watch(objective, problem, options)
    settings = Settings(options.max_iter, options.tol, options.learning_rate, 0.0, watch)
    if solver in STOCHASTIC:
        run = Stochastic(objective, solver, options.batch_size, options.seed)
        solved = run.solve(u, settings, options.n_iter_no_change)
    else:
        solved = _solve(objective, u, settings, solver)
    best = solved.u if watch.best is None else watch.best
    w = objective.coefficients(best)
    if not np.isfinite(w).all():
        raise CallValueError(
            "reached coefficients that are not finite; scale the columns of X or raise alpha", "solver"
        )
    limits = (solved.n_iter, solved.converged, solved.reason, solver)
    return Result(w, *limits, watch.history, objective.value(best))


def _start(objective: Penalised, solver: str) -> Any:
    """Return coefficients to start from: 0, or next to it for losses with kinks, where all scores may tie."""
    found = np.zeros((objective.outputs, objective.columns))
    if not objective.loss.loss.record.differentiable and solver in ("lbfgs", "gd"):
        found[:, :-1] = 1e-3 * np.random.default_rng(0).standard_normal(found[:, :-1].shape)
    return found.reshape(-1)


def _solve(objective: Penalised, u: Any, settings: Settings, solver: str) -> Solved:
    """Run a solver of whole passes; losses with kinks are narrowed."""
    run: Callable[..., Solved] = WHOLE[solver]
    plain = objective.loss.compiled or not objective.loss.arrays
    if objective.loss.loss.record.name in MAJORANTS and solver in ("newton", "cd") and plain:
        return narrowing(objective, u, settings)
    return run(objective, u, settings)
