"""Scorers of scikit-learn: the negative mean loss of an estimator."""

from typing import Any

import numpy as np

from ..evaluation.scales import converted
from ..spec.record import SIGNS, UNIT
from .hosts import loss_of

__all__ = ["Scorer", "scorer"]


def scorer(loss: Any, **parameters: Any) -> "Scorer":
    """Return a scorer for scikit-learn: the negative mean loss, so that more is better.

    Parameters
    ----------
    loss : str or Loss
        Loss of single rows: a name, "name:parameter=value", or a loss.
    **parameters
        Parameters of the loss.

    Returns
    -------
    Scorer
        Callable of (estimator, X, y, sample_weight=None), which can be pickled. It asks the estimator for what the loss
        takes: `predict`, probabilities, their logarithms or logits, or `decision_function` for margins.

    Examples
    --------
    >>> import fastloss as fl
    >>> from sklearn.linear_model import QuantileRegressor
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0]
    >>> scorer = fl.scorer("quantile:q=.9")
    >>> cross_val_score(QuantileRegressor(quantile=0.9, alpha=0.0), X, y, cv=2, scoring=scorer).shape
    (2,)
    """
    return Scorer(loss_of(loss, parameters))


class Scorer:
    """Negative mean loss of an estimator's predictions."""

    def __init__(self, loss: Any) -> None:
        record = loss.record
        if record.family == "arrays" or len(record.predictions) > 1 or record.target is None:
            raise TypeError(f"{record.name}: a scorer needs a loss of one prediction a row, or of classes")
        self.loss = loss

    def __repr__(self) -> str:
        return f"fastloss.scorer({self.loss!r})"

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the negative mean loss."""
        pred = self._prediction(estimator, X)
        weight = None if sample_weight is None else np.asarray(sample_weight)
        return -float(self.loss(pred, self._target(estimator, np.asarray(y)), weight=weight))

    def _prediction(self, estimator: Any, X: Any) -> Any:
        """Return what the loss takes, by the method of the estimator that gives it."""
        record = self.loss.record
        if record.family == "rows" and record.row_loop.labels:
            p = self._probabilities(estimator, X)
            return p if record.prediction_domains[0] == UNIT else np.log(np.maximum(p, np.finfo(p.dtype).tiny))
        if record.link in ("logit", "half-logit"):
            if not hasattr(estimator, "predict_proba"):
                return np.asarray(self._asked(estimator, "decision_function")(X), np.float64)
            z = converted(self._probabilities(estimator, X)[:, 1], "prob", record)
            # The largest score of a probability in float64: a score of infinity is no number to learn from.
            most = 372.5 if record.link == "half-logit" else 745.0
            return np.clip(z, -most, most)
        if record.link == "margin":
            return np.asarray(self._asked(estimator, "decision_function")(X), np.float64)
        if record.prediction_domains[0] == UNIT:
            return self._probabilities(estimator, X)[:, 1]
        pred = np.asarray(estimator.predict(X), np.float64)
        if record.link == "log":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(pred)
        return pred

    def _asked(self, estimator: Any, method: str) -> Any:
        found = getattr(estimator, method, None)
        if found is None:
            kind = type(estimator).__name__
            raise TypeError(f"{self.loss.name}: the scorer needs {method}, which {kind} has not")
        return found

    def _probabilities(self, estimator: Any, X: Any) -> Any:
        return np.asarray(self._asked(estimator, "predict_proba")(X), np.float64)

    def _target(self, estimator: Any, y: Any) -> Any:
        """Return labels as the loss takes them: positions among the estimator's classes, or -1 and 1."""
        record, classes = self.loss.record, getattr(estimator, "classes_", None)
        if classes is None:
            return y.astype(np.float64) if y.dtype.kind in "iub" and record.family != "rows" else y
        labels = np.searchsorted(classes, y)
        known = classes[np.minimum(labels, len(classes) - 1)] == y
        if not known.all():
            raise ValueError(f"{record.name}: y holds {y[~known][0]!r}; the estimator knows {list(classes)}")
        if record.family == "rows":
            return labels
        if len(classes) != 2:
            raise ValueError(f"{record.name}: the estimator has {len(classes)} classes; expected 2")
        return 2.0 * labels - 1.0 if record.target_domain == SIGNS else labels.astype(np.float64)
