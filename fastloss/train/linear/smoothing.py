"""Losses with kinks, minimised through smooth ones that approach them: |u| becomes sqrt(u^2 + w^2) with smaller w.

The mean of the smooth loss exceeds that of the loss by w at most, and by far less where most residuals are larger. That
bounds the distance of its minimum from the loss's, so the last w gives the accuracy.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from ...losses.elementwise import ElementwiseLoss
from ...spec.record import POSITIVE, Parameter
from .objective import MeanLoss, Penalised
from .smooth_formulas import smooth_hinge, smooth_mae, smooth_mape, smooth_quantile, steep_huber
from .solvers import Settings, Solved, newton

__all__ = ["MAJORANTS", "narrowing", "smoothed", "with_long_steps"]


STEEP = {"huber": steep_huber}
"""Formulas whose surrogate lets Newton's method take longer steps than that of boosting, by the names of the losses."""


def with_long_steps(loss: Any) -> Any:
    """Return a loss with the surrogate curvature that Newton's method takes."""
    function = STEEP.get(loss.record.name)
    if function is None or type(loss) is not ElementwiseLoss:
        return loss
    return ElementwiseLoss(loss.record._replace(function=function), loss.defaults)


MAJORANTS = {"mae": smooth_mae, "quantile": smooth_quantile, "mape": smooth_mape, "hinge": smooth_hinge}
"""Smooth formulas above losses, by the names of the losses."""

ACCURACY = 2e-8
"""Last width, relative to the objective."""

EACH = 60
"""Largest number of iterations for one w."""

NARROWER = 0.1
"""Factor from one width to the next."""


@lru_cache(maxsize=64)
def smoothed(loss: Any, width: float) -> ElementwiseLoss:
    """Return the smooth loss of a width above a loss with a kink."""
    record = loss.record
    spec = {**record.parameters, "width": Parameter("rounding of the kink", POSITIVE)}
    made = record._replace(
        name=f"smooth_{record.name}",
        function=MAJORANTS[record.name],
        defaults={**record.defaults, "width": 1.0},
        parameters=spec,
        differentiable=True,
        second=True,
        surrogate="1 / max(|u|, width): that of a parabola above the loss, where u is the residual",
    )
    return ElementwiseLoss(made, {**loss.defaults, "width": width})


def narrowing(objective: Penalised, u: Any, settings: Settings) -> Solved:
    """Minimise by Newton's method on smooth losses that approach the loss, each from the optimum before."""
    own = objective.loss
    hinge = own.loss.record.name == "hinge"
    with np.errstate(all="ignore"):
        residuals = np.ones(1) if hinge else np.abs(own.scores(objective.coefficients(u)) - own.y)
        size = max(float(np.mean(residuals, dtype=np.float64)), 1e-300)
    thresholds = float(objective.thresholds().sum())
    best, least, total, width = u, objective.value(u), 0, size
    while True:
        smooth_loss = MeanLoss(smoothed(own.loss, width), own.x, own.y, own.weight, own.outputs, {})
        rounding = width / thresholds if thresholds else 0.0
        smooth = Penalised.like(objective, smooth_loss, rounding)
        last = width <= ACCURACY * max(least, 1e-300) or width <= 1e-12 * size
        left = max(1, min(EACH, settings.max_iter - total))
        found = newton(smooth, u, settings._replace(max_iter=left, tol=0.0, enough=0.01 * width))
        u, total = found.u, total + found.n_iter
        objective.passes += smooth.passes
        value = objective.value(u)
        gained = least - value
        if value <= least:
            best, least = u, value
        if last or total >= settings.max_iter:
            converged = last and (found.converged or gained <= 1e-6 * abs(least))
            reason = "" if converged else "max_iter was reached"
            return Solved(_zeroed(objective, best, least), total, converged, reason)
        width *= NARROWER


def _zeroed(objective: Penalised, u: Any, value: float) -> Any:
    """Return coefficients of which those that an L1 penalty leaves tiny are 0."""
    if objective.l1:
        cut = np.where((np.abs(u) <= 1e-5 * np.abs(u).max()) & (objective.thresholds() > 0.0), 0.0, u)
        return cut if objective.value(cut) <= value + ACCURACY * abs(value) else u
    return u
