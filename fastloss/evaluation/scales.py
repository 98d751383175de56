"""Scales of predictions: what a loss takes, what a file holds, and the conversion between them."""

from typing import Any

import numpy as np

from ..spec.record import UNIT
from .columns import InputError

__all__ = ["SCALES", "ScaleError", "converted", "may_be_probabilities", "probabilities", "scale_of"]

SCALES = ("prob", "logit", "log-prob", "mean")
"""What a column of predictions may be said to hold."""

ROWS_SUM = 1e-3
"""Largest distance from 1 at which the sum of a row still looks like that of probabilities, rounded to four digits."""


class ScaleError(InputError):
    """A prediction that is not of the scale it was said to have, or a label; `index` is its row."""

    def __init__(self, values: Any, valid: Any, expected: str, of: str = "prediction") -> None:
        where = np.flatnonzero(~valid.ravel())[0]
        super().__init__(f"the {of} is {values.ravel()[where]:g}; expected {expected}")
        self.index = int(where // (values.shape[1] if values.ndim == 2 else 1))


def scale_of(record: Any) -> str:
    """Return the scale on which a loss takes predictions; empty where it takes them as they are."""
    if len(record.predictions) != 1 or record.family == "arrays":
        return ""
    if record.prediction_domains[0] == UNIT:
        return "prob"
    if record.family == "rows":
        return {"softmax": "logit", "log": "log-prob"}.get(record.link, "")
    return {"logit": "logit", "half-logit": "half-logit", "log": "log-mean", "margin": "margin"}.get(record.link, "")


def converted(values: Any, given: str, record: Any) -> Any:
    """Return predictions (float64) on the scale that a loss takes; exact where a probability is 0 or 1."""
    wanted = scale_of(record)
    if given == wanted or not wanted or (given == "mean") != (wanted == "log-mean"):
        return values
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if given == "prob" and not (values.min(initial=0.5) >= 0.0 and values.max(initial=0.5) <= 1.0):
            raise ScaleError(values, (values >= 0.0) & (values <= 1.0), "a probability, 0 to 1")
        if given == "log-prob" and values.max(initial=-1.0) > 0.0:
            raise ScaleError(values, values <= 0.0, "the logarithm of a probability, 0 or less")
        if given == "mean" and not values.min(initial=1.0) > 0.0:
            raise ScaleError(values, values > 0.0, "a mean above 0")
        if wanted == "log-mean":
            return np.log(values)
        if wanted == "margin":
            if given == "logit":
                return values
            raise InputError(f"{record.name} takes margins, and no probability stands for one; give a loss of logits")
        return _of_rows(values, given, wanted) if record.family == "rows" else _of_elements(values, given, wanted)


def _of_rows(values: Any, given: str, wanted: str) -> Any:
    """Return rows of scores converted; logarithms of probabilities are logits."""
    if given == "prob":
        return np.log(values)
    if given == "logit":
        shifted = values - values.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.exp(logs) if wanted == "prob" else logs
    return np.exp(values) if wanted == "prob" else values


def _of_elements(values: Any, given: str, wanted: str) -> Any:
    """Return one prediction a row converted."""
    if wanted == "prob":
        return np.exp(values) if given == "log-prob" else 1.0 / (1.0 + np.exp(-values))
    if given == "prob":
        values = np.log(values) - np.log1p(-values)
    elif given == "log-prob":
        values = values - np.log(-np.expm1(values))
    return 0.5 * values if wanted == "half-logit" else values


def probabilities(values: Any, given: str) -> Any:
    """Return predictions (float64) on a scale as probabilities; of rows of scores, of each class."""
    with np.errstate(over="ignore"):
        if given == "half-logit":
            return _of_elements(2.0 * values, "logit", "prob")
        if given == "prob":
            if not (values.min(initial=0.5) >= 0.0 and values.max(initial=0.5) <= 1.0):
                raise ScaleError(values, (values >= 0.0) & (values <= 1.0), "a probability, 0 to 1")
            return values
        if given == "log-prob" and values.max(initial=-1.0) > 0.0:
            raise ScaleError(values, values <= 0.0, "the logarithm of a probability, 0 or less")
        return (_of_elements if values.ndim == 1 else _of_rows)(values, given, "prob")


def may_be_probabilities(values: Any, record: Any) -> bool:
    """Whether predictions for a loss of logits could all be probabilities: in [0, 1], and rows of classes sum to 1."""
    if not (values.min(initial=0.5) >= 0.0 and values.max(initial=0.5) <= 1.0):
        return False
    return record.family != "rows" or bool((abs(values.sum(axis=1) - 1.0) <= ROWS_SUM).all())
