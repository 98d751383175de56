"""Adapters of losses to the objectives and metrics of CatBoost: objects with the methods that it calls."""

from typing import Any

import numpy as np

__all__ = ["ClassObjective", "ElementObjective", "MeanLoss"]


class ElementObjective:
    """Objective of CatBoost, which maximises: derivatives have the opposite sign."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def calc_ders_range(self, approxes: Any, targets: Any, weights: Any) -> list[tuple[float, float]]:
        """Return both derivatives of each sample."""
        pred, y = np.asarray(approxes, np.float64), np.asarray(targets, np.float64)
        grad, hess = self._of.derivatives("catboost", pred, y, weights)
        return list(zip((-grad).tolist(), (-hess).tolist(), strict=True))


class ClassObjective:
    """Multi-class objective of CatBoost, which asks for the derivatives of one sample at a time."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def calc_ders_multi(self, approxes: Any, target: float, weight: float) -> tuple[list[float], list[list[float]]]:
        """Return the gradient and the diagonal of the Hessian of one sample."""
        pred = np.asarray(approxes, np.float64)[None]
        grad, hess = self._of.derivatives("catboost", pred, np.array([target]), np.array([weight]))
        return (-grad[0]).tolist(), np.diag(-hess[0]).tolist()


class MeanLoss:
    """Mean loss as a metric of CatBoost."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def is_max_optimal(self) -> bool:
        """Return False: less is better."""
        return False

    def evaluate(self, approxes: Any, target: Any, weight: Any) -> tuple[float, float]:
        """Return the sum of losses, and of weights."""
        y = np.asarray(target, np.float64)
        w = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
        pred = np.stack([np.asarray(a, np.float64) for a in approxes], axis=-1)
        of = self._of
        scores = pred if of.of_classes else pred[:, 0]
        return float(of.loss(scores, of.labels(y), weight=w, reduction="sum")), float(w.sum())

    def get_final_error(self, error: float, weight: float) -> float:
        """Return the mean loss."""
        return error / (weight + 1e-38)
