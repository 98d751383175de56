"""Metrics of XGBoost, LightGBM and CatBoost, by each library's own signature."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .catboost import MeanLoss

__all__ = ["Metric"]


class Metric:
    """Mean loss of raw predictions, as the libraries call their metrics; smaller is better."""

    def __init__(self, of: Any) -> None:
        self._of = of
        self.__name__ = of.loss.name
        self.catboost = MeanLoss(of)
        """Object for the `eval_metric` of CatBoost."""

    def _mean(self, pred: Any, y: Any, weight: Any, by_class: bool = False) -> float:
        of = self._of
        weight = None if weight is None or np.size(weight) == 0 else np.asarray(weight)
        return float(of.loss(of.rows(pred, y, by_class).astype(np.float64), of.labels(y), weight=weight))

    def xgboost(self, predt: Any, dtrain: Any) -> tuple[str, float]:
        """Return name and value: `custom_metric` of `xgboost.train`."""
        return self.__name__, self._mean(predt, dtrain.get_label(), dtrain.get_weight())

    @property
    def xgboost_sklearn(self) -> Callable[..., float]:
        """Function for `eval_metric` of `XGBRegressor` and `XGBClassifier`."""

        def metric(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
            return self._mean(y_pred, y_true, sample_weight)

        metric.__name__ = self.__name__
        return metric

    def lightgbm(self, preds: Any, eval_data: Any) -> tuple[str, float, bool]:
        """Return name, value and whether more is better: `feval` of `lightgbm.train`."""
        return self.__name__, self._mean(preds, eval_data.get_label(), eval_data.get_weight(), True), False

    def lightgbm_sklearn(self, y_true: Any, y_pred: Any, weight: Any) -> tuple[str, float, bool]:
        """Return name, value and whether more is better: `eval_metric` of `fit` of LightGBM's estimators."""
        return self.__name__, self._mean(y_pred, y_true, weight, True), False
