"""Warnings of fits: no convergence, and classes that a plane separates."""

import warnings
from typing import Any

import numpy as np

from ...spec.record import SIGNS
from .objective import MeanLoss

__all__ = ["warn_of_fit"]


def warn_of_fit(owner: str, problem: Any, options: Any, result: Any) -> None:
    """Warn of a fit without an optimum, or one that stopped before it."""
    from sklearn.exceptions import ConvergenceWarning

    if options.l1 == options.l2 == 0.0 and _is_separated(problem, result):
        text = (
            f"{owner}: a plane separates the classes: {problem.loss.record.name} falls as the coefficients grow, "
            "and without a penalty there is no optimum; set alpha"
        )
        warnings.warn(text, ConvergenceWarning, stacklevel=4)
    elif not result.converged:
        text = (
            f"{owner}: {result.reason} (max_iter={options.max_iter}) before solver {result.solver!r} converged; "
            "raise max_iter or tol, or use another solver, such as 'adam'"
        )
        warnings.warn(text, ConvergenceWarning, stacklevel=4)


def _is_separated(problem: Any, result: Any) -> bool:
    """Whether all scores have the sign of their class, under a loss that falls for ever."""
    record = problem.loss.record
    if record.link not in ("logit", "half-logit", "softmax"):
        return False
    z = MeanLoss(problem.loss, problem.x, problem.y, problem.weight, problem.outputs, problem.arrays).scores(result.w)
    if record.family == "rows":
        own = np.take_along_axis(z, problem.y[:, None], axis=1) if problem.y.ndim == 1 and z.shape[1] > 1 else None
        return own is not None and bool((z >= own).sum() == len(z)) and float(np.abs(z).max()) > 10.0
    signs = problem.y if record.target_domain == SIGNS else 2.0 * problem.y - 1.0
    sure = bool(np.isin(signs, (-1.0, 1.0)).all())
    return sure and bool((z * signs > 0.0).all()) and float((z * signs).min()) > 5.0
