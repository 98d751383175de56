"""Solvers by batches of samples: stochastic and mini-batch descent, Adam, RMSprop and Adagrad."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..optim import SGD, Adagrad, Adam, RMSprop
from .objective import MeanLoss, Penalised
from .solvers import Settings, Solved, diverged

__all__ = ["STOCHASTIC", "Stochastic"]


class Method(NamedTuple):
    """Update rule of a solver."""

    rule: str
    """Name of the rule in compiled epochs."""
    rate: float
    """Learning rate; of descent, relative to the curvature of the loss."""
    factors: tuple[float, float, float]
    """Momentum or decay of the first state, decay of the second, epsilon."""
    optimiser: Callable[..., Any]
    """Optimiser of the same rule, for losses that no compiled epoch serves."""


STOCHASTIC = {
    "sgd": Method("descent", 0.05, (0.0, 0.0, 0.0), lambda p, lr: SGD(p, lr=lr)),
    "minibatch": Method("descent", 0.1, (0.9, 0.0, 0.0), lambda p, lr: SGD(p, lr=lr, momentum=0.9, nesterov=True)),
    "adam": Method("adam", 0.02, (0.9, 0.999, 1e-8), lambda p, lr: Adam(p, lr=lr)),
    "rmsprop": Method("rmsprop", 0.01, (0.0, 0.99, 1e-8), lambda p, lr: RMSprop(p, lr=lr)),
    "adagrad": Method("adagrad", 0.2, (0.0, 0.0, 1e-10), lambda p, lr: Adagrad(p, lr=lr)),
}
"""Methods by the names of solvers."""


class Stochastic:
    """Descent by batches on an objective."""

    def __init__(self, objective: Penalised, solver: str, batch: int, seed: Any) -> None:
        self.objective, self.method, self.seed = objective, STOCHASTIC[solver], seed
        self.batch = 1 if solver == "sgd" else batch

    def solve(self, u: Any, settings: Settings, patience: int) -> Solved:
        """Run epochs until the objective no longer falls."""
        found = settings.learning_rate
        rate = self.method.rate / self._steepness() if found is None else found
        state = np.zeros((3, u.size))
        state[0] = u
        at, epoch_of = state[0], self._epochs(state, rate)
        begun = value = self.objective.value(at)
        least, waited, count = math.inf, 0, 0
        for count in range(1, settings.max_iter + 1):
            order = self.seed.permutation(self.objective.loss.x.shape[0])
            with np.errstate(all="ignore"):
                epoch_of(order, rate if found is not None else rate / math.sqrt(count))
            value = self.objective.value(at)
            if not math.isfinite(value) or value > 10.0 * abs(begun) + 1.0:
                raise diverged(rate, count, begun, value)
            if settings.seen(at, value):
                return Solved(np.array(at), count, True, "")
            waited = waited + 1 if value > least - settings.tol * abs(least) else 0
            least = min(least, value)
            if waited >= patience:
                return Solved(np.array(at), count, True, "")
        return Solved(np.array(at), count, False, "max_iter was reached")

    def _steepness(self) -> float:
        """Return the curvature that the learning rate of descent is relative to; 1 for the other rules."""
        mean = self.objective.loss
        if self.method.rule != "descent" or not mean.curvature:
            return 1.0
        part = MeanLoss(mean.loss, mean.x[:256], mean.y[:256], None, mean.outputs, {})
        start, mode = np.zeros(self.objective.columns * mean.outputs), mean.surrogate or mean.curvature
        hess = Penalised.like(self.objective, part).smooth(start, mode).hess
        trace = float(np.trace(hess, axis1=1, axis2=2).max())
        return max(trace, 1e-12)

    def _epochs(self, state: Any, rate: float) -> Callable[[Any, float], None]:
        """Return the function of the order of samples and the learning rate that takes the steps of an epoch."""
        objective, mean, method = self.objective, self.objective.loss, self.method
        if not mean.compiled or mean.by_rows:
            return self._by_steps(state[0], rate)
        from ...cpu import linear_epochs

        weight = None if mean.weight is None else np.repeat(mean.weight.astype(mean.x.dtype), mean.outputs)
        scaling = np.stack(
            [np.append(objective.mean, 0.0), objective.spread, objective.thresholds()[: objective.columns]]
        )
        run = linear_epochs.epoch(mean.loss, mean.x, mean.y, weight, scaling)
        more = (0.0, objective.l2, float(objective.fit_intercept), objective.l1)
        numbers = np.array([rate, *method.factors, *more])

        def compiled(order: Any, rate: float) -> None:
            numbers[0] = rate
            run(order, self.batch, method.rule, state, numbers)

        return compiled

    def _by_steps(self, at: Any, rate: float) -> Callable[[Any, float], None]:
        """Return the function of an epoch for other losses, each step of which is a call."""
        objective, mean = self.objective, self.objective.loss
        optimiser, thresholds = self.method.optimiser([at], rate), objective.thresholds()

        def steps(order: Any, rate: float) -> None:
            optimiser.param_groups[0]["lr"] = rate
            for lo in range(0, order.size, self.batch):
                rows = order[lo : lo + self.batch]
                arrays = {k: np.asarray(v)[rows] for k, v in mean.arrays.items()}
                weight = None if mean.weight is None else mean.weight[rows]
                part = MeanLoss(mean.loss, mean.x[rows], mean.y[rows], weight, mean.outputs, arrays)
                if part.total == 0.0:
                    continue
                optimiser.step([Penalised.like(objective, part).smooth(at).grad])
                if objective.l1:
                    at[...] = np.sign(at) * np.maximum(np.abs(at) - thresholds * rate, 0.0)

        return steps
