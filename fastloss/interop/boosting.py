"""Objectives of XGBoost, LightGBM and CatBoost, by each library's own signature."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..call.check import one_of
from ..losses.base import Loss
from ..spec.record import SIGNS
from .boosting_curvature import KINKED, bend, is_flat
from .boosting_metric import Metric
from .catboost import ClassObjective, ElementObjective
from .hosts import loss_of

__all__ = ["Objective", "objective"]

STEP = math.exp(0.7)
"""Factor of the Hessian of Poisson objectives: exp(max_delta_step), with the default of both libraries."""

Factors = dict[str, Callable[[int], tuple[float, float]]]
SHARED: Factors = {"mse": lambda k: (0.5, 0.5), "poisson": lambda k: (1.0, STEP)}
FACTORS: dict[str, Factors] = {
    "xgboost": {**SHARED, "cross_entropy": lambda k: (1.0, 2.0)},
    "lightgbm": {**SHARED, "cross_entropy": lambda k: (1.0, k / (k - 1.0))},
    "catboost": {"mse": SHARED["mse"]},
}
"""Factors of gradient and Hessian in each library's built-in objective, as functions of the number of classes."""

CURVATURES = ("auto", "exact", "surrogate")


def objective(loss: Any, *, curvature: str = "auto", **parameters: Any) -> "Objective":
    """Return an objective for XGBoost, LightGBM and CatBoost.

    Parameters
    ----------
    loss : str or Loss
        Elementwise loss of one raw prediction, or a loss of classes: a name, "name:parameter=value", or a loss.
    curvature : {"auto", "exact", "surrogate"}
        Second derivative. "auto" takes the exact one, or the surrogate where the exact one is 0 or negative somewhere,
        with a warning.
    **parameters
        Parameters of the loss.

    Returns
    -------
    Objective
        Callables `xgboost`, `xgboost_sklearn`, `lightgbm` and `lightgbm_sklearn`, and the object `catboost`; the same
        of `metric`; and `init_score`.

    Raises
    ------
    TypeError, ValueError
        For a loss that boosting cannot minimise: of several predictions or arrays, or without a second derivative.

    Examples
    --------
    >>> import numpy as np
    >>> import fastloss as fl
    >>> obj = fl.objective("bce_with_logits")
    >>> grad, hess = obj.xgboost_sklearn(np.array([1.0, 0.0]), np.array([0.0, 2.0]))
    >>> grad.round(4), hess.round(4)
    (array([-0.5   ,  0.8808]), array([0.25 , 0.105]))
    """
    return Objective(loss_of(loss, parameters), curvature)


class Objective:
    """Objective of boosting; the callables have the signatures of their libraries.

    Gradient and Hessian carry the factors of each library's built-in objective: 1/2 for `mse`, exp(0.7) on the Hessian
    of `poisson` (XGBoost and LightGBM), and 2 (XGBoost) or K / (K - 1) (LightGBM) on that of `cross_entropy`. Those of
    `mae` and `quantile` are multiplied by the mean absolute residual.
    """

    def __init__(self, loss: Loss, curvature: str = "auto") -> None:
        one_of("curvature", curvature, CURVATURES)
        record = loss.record
        if record.family == "arrays" or len(record.predictions) > 1:
            raise TypeError(f"{record.name}: boosting needs a loss of one prediction a row, or of classes")
        if record.from_logits:
            raise ValueError(f"{record.name} takes probabilities; boosting predicts raw scores: {record.from_logits}")
        if not (record.second or record.surrogate):
            raise ValueError(f"{record.name} has no second derivative, which boosting needs")
        self.loss = loss
        self.of_classes = record.family == "rows"
        if curvature == "auto":
            curvature = "surrogate" if record.surrogate is not None and is_flat(loss) else "exact"
            if curvature == "surrogate":
                text = f"{record.name}: the second derivative is 0 or negative in places; the surrogate is taken"
                warnings.warn(f"{text} ({record.surrogate}); curvature='surrogate' says so", UserWarning, stacklevel=3)
        self.curvature = curvature
        self.metric = Metric(self)
        self.catboost = ClassObjective(self) if self.of_classes else ElementObjective(self)
        """Object for the `loss_function` of CatBoost."""

    def __repr__(self) -> str:
        return f"fastloss.objective({self.loss!r}, curvature={self.curvature!r})"

    def labels(self, y: Any) -> Any:
        """Return labels in the form that the loss takes: integers for classes, -1 and 1 for margins."""
        y = np.asarray(y)
        if self.of_classes:
            whole = y.astype(np.int64)
            if (whole != y).any():
                wrong = y[whole != y][0]
                raise ValueError(f"{self.loss.name}: a label is {wrong}; expected the whole numbers 0 to K - 1")
            return whole
        if self.loss.record.target is None:
            return None
        return 2.0 * y - 1.0 if self.loss.record.target_domain == SIGNS and ((y == 0) | (y == 1)).all() else y

    def rows(self, pred: Any, y: Any, by_class: bool) -> Any:
        """Return predictions as one row of scores a sample; old versions pass those of classes in one row."""
        pred = np.asarray(pred)
        if not self.of_classes or pred.ndim == 2:
            return pred
        return pred.reshape(-1, len(y)).T if by_class else pred.reshape(len(y), -1)

    def derivatives(self, host: str, pred: Any, y: Any, weight: Any) -> tuple[Any, Any]:
        """Return gradient and Hessian of every prediction, with the factors of a library, in its layout."""
        scores = self.rows(pred, y, host == "lightgbm")
        weight = None if weight is None or np.size(weight) == 0 else np.asarray(weight)
        grad, hess = self.loss.grad_and_hess(scores, self.labels(y), weight=weight, curvature=self.curvature)
        factors = FACTORS[host].get(self.loss.name)
        for a, factor in zip((grad, hess), factors(scores.shape[-1]) if factors else (1.0, 1.0), strict=True):
            if factor != 1.0:
                a *= factor
        if self.curvature == "surrogate" and self.loss.name in KINKED and host != "catboost":  # which asks in parts
            bend(self.loss.name, grad, hess, scores - np.reshape(np.asarray(y), scores.shape), weight)
        if np.shape(pred) == scores.shape:
            return grad, hess
        order: Any = "F" if host == "lightgbm" else "C"
        return grad.ravel(order), hess.ravel(order)

    def xgboost(self, predt: Any, dtrain: Any) -> tuple[Any, Any]:
        """Return gradient and Hessian: `obj` of `xgboost.train`."""
        return self.derivatives("xgboost", predt, dtrain.get_label(), dtrain.get_weight())

    def xgboost_sklearn(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[Any, Any]:
        """Return gradient and Hessian: `objective` of `XGBRegressor` and `XGBClassifier`."""
        return self.derivatives("xgboost", y_pred, y_true, sample_weight)

    def lightgbm(self, preds: Any, train_data: Any) -> tuple[Any, Any]:
        """Return gradient and Hessian: `params["objective"]` of `lightgbm.train`."""
        return self.derivatives("lightgbm", preds, train_data.get_label(), train_data.get_weight())

    def lightgbm_sklearn(self, y_true: Any, y_pred: Any, weight: Any) -> tuple[Any, Any]:
        """Return gradient and Hessian: `objective` of `LGBMRegressor` and `LGBMClassifier`."""
        return self.derivatives("lightgbm", y_pred, y_true, weight)

    def init_score(self, y: Any, weight: Any = None) -> Any:
        """Return the constant prediction of least mean loss, for each sample: (n,), or (n, K) for classes.

        Pass it as `init_score` to LightGBM, as `base_margin` to XGBoost, and add it to raw predictions of LightGBM:
        libraries start their own objectives there, and those of others at 0.
        """
        labels = self.labels(y)
        n = len(np.asarray(y))
        if self.of_classes:
            score = np.zeros(int(labels.max()) + 1)
            # All samples of a class have the same derivatives: one row for each, by the weight of its samples.
            labels, index = np.unique(labels, return_inverse=True)
            mass = np.bincount(index, weight, len(labels)).astype(np.float64)
            for _ in range(200):  # Newton's steps by the diagonal, a half of each as classes share their scores
                rows = np.tile(score, (len(labels), 1))
                g, h = self.loss.grad_and_hess(rows, labels, weight=mass, curvature=self.curvature)
                score -= 0.5 * g.sum(axis=0) / np.maximum(h.sum(axis=0), 1e-12)
            return np.tile(score - score.mean(), (n, 1))

        def slope(c: float) -> float:
            grad = self.loss.value_and_grad(np.full(n, c), labels, weight=weight)[1]
            return float(grad.sum())

        low, high = -1.0, 1.0
        while slope(low) > 0.0 and low > -1e9:
            low *= 2.0
        while slope(high) < 0.0 and high < 1e9:
            high *= 2.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if slope(middle) < 0.0 else (low, middle)
        return np.full(n, 0.5 * (low + high))
