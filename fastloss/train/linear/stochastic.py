"""Solvers by batches of samples: stochastic and mini-batch descent, Adam, RMSprop and Adagrad."""

import math
from typing import Any

import numpy as np

from ..optim import SGD, Adagrad, Adam, RMSprop
from .objective import MeanLoss, Penalised
from .solvers import Settings, Solved, diverged

__all__ = ["STOCHASTIC", "Stochastic"]

STOCHASTIC = {
    "sgd": (SGD, 0.02, {}),
    "minibatch": (SGD, 0.1, {"momentum": 0.9, "nesterov": True}),
    "adam": (Adam, 0.02, {}),
    "rmsprop": (RMSprop, 0.01, {}),
    "adagrad": (Adagrad, 0.2, {}),
}
"""Optimiser, learning rate and options, by the names of solvers."""


class Stochastic:
    """Descent by batches on an objective; its optimiser is kept from one call to the next."""

    def __init__(self, objective: Penalised, solver: str, batch: int, seed: Any, state: Any = None) -> None:
        self.objective, self.solver, self.seed = objective, solver, seed
        self.batch = 1 if solver == "sgd" else batch
        self.state: Any = state

    def solve(self, u: Any, settings: Settings, patience: int) -> Solved:
        """Run epochs until the objective no longer falls."""
        kind, usual, options = STOCHASTIC[self.solver]
        rate = settings.learning_rate if settings.learning_rate is not None else usual / self._steepness()
        at = np.array(u)
        if self.state is None:
            self.state = kind([at], lr=rate, **options)
        else:
            at = self.state.param_groups[0]["params"][0]
        begun = value = self.objective.value(at)
        least, waited, epoch = math.inf, 0, 0
        for epoch in range(1, settings.max_iter + 1):
            if settings.learning_rate is None:
                self.state.param_groups[0]["lr"] = rate / math.sqrt(epoch)
            with np.errstate(all="ignore"):
                self._epoch(at)
            value = self.objective.value(at)
            if not math.isfinite(value) or value > 10.0 * abs(begun) + 1.0:
                raise diverged(rate, epoch, begun, value)
            if settings.seen(at, value):
                return Solved(np.array(at), epoch, True, "")
            waited = waited + 1 if value > least - settings.tol * abs(least) else 0
            least = min(least, value)
            if waited >= patience:
                return Solved(np.array(at), epoch, True, "")
        return Solved(np.array(at), epoch, False, "max_iter was reached")

    def _steepness(self) -> float:
        """Return the size of the slopes that a learning rate is relative to: the curvature of rows, for descent."""
        if self.solver not in ("sgd", "minibatch"):
            return 1.0
        mean = self.objective.loss
        if not mean.curvature:
            return 1.0
        rows = slice(0, 256)
        part = MeanLoss(mean.loss, mean.x[rows], mean.y[rows], None, mean.outputs, {})
        hess = (
            Penalised.like(self.objective, part)
            .smooth(np.zeros(self.objective.columns * mean.outputs), "surrogate" if mean.surrogate else mean.curvature)
            .hess
        )
        trace = float(np.trace(hess, axis1=1, axis2=2).max())
        return max(trace if self.solver == "sgd" else trace / 4.0, 1e-12)

    def _epoch(self, at: Any) -> None:
        """Take one step for each batch of the shuffled samples."""
        objective, mean = self.objective, self.objective.loss
        order = self.seed.permutation(mean.x.shape[0])
        thresholds = objective.thresholds()
        for lo in range(0, order.size, self.batch):
            rows = order[lo : lo + self.batch]
            arrays = {k: v[rows] for k, v in mean.arrays.items()}
            weight = None if mean.weight is None else mean.weight[rows]
            part = MeanLoss(mean.loss, mean.x[rows], mean.y[rows], weight, mean.outputs, arrays)
            if part.total == 0.0:
                continue
            g = Penalised.like(objective, part).smooth(at).grad
            self.state.step([g])
            if objective.l1:
                limit = thresholds * self.state.param_groups[0]["lr"]
                at[...] = np.sign(at) * np.maximum(np.abs(at) - limit, 0.0)
