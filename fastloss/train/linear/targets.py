"""Losses, targets and predictions of linear models: which losses fit, what they learn from, what their scores mean."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...call.errors import CallTypeError, CallValueError
from ...losses.base import Loss
from ...spec.record import SIGNS

__all__ = ["binary_targets", "inverse_link", "loss_of", "require_linear", "threshold_of"]


def loss_of(owner: str, loss: Any) -> Loss:
    """Return a loss given as an object, by name, or as text such as "quantile:q=.9"."""
    if isinstance(loss, str):
        from ...evaluation.losses import named
        from ...losses.catalogue import LOSSES

        return named(loss)[0].loss if ":" in loss else LOSSES[loss]
    if not isinstance(loss, Loss):
        problem = f"is {type(loss).__name__}; expected a name such as 'huber', text such as 'quantile:q=.9', or a Loss"
        raise CallTypeError(problem, "loss", loss=owner)
    return loss


def require_linear(owner: str, loss: Loss) -> None:
    """Raise for a loss whose predictions no linear model gives."""
    record, instead = loss.record, ""
    if len(record.predictions) > 1:
        instead = f"takes {len(record.predictions)} predictions ({', '.join(record.predictions)}); expected one"
    elif record.prediction_domains and record.prediction_domains[0].outside(0.0):
        instead = f"takes predictions in {record.prediction_domains[0]}, where 0 is not; scores of X w start there"
    elif record.prediction_domains and record.prediction_domains[0].outside(1e6) and record.link != "log":
        better = {"log_loss": "bce_with_logits", "bce": "bce_with_logits", "brier": "lsgan"}.get(record.name, "mse")
        instead = f"takes predictions in {record.prediction_domains[0]}, which X w leaves; use {better!r}"
    elif record.family == "rows" and record.link == "log":
        instead = "takes log-probabilities, which X w is not; use 'cross_entropy'"
    elif record.family == "arrays" and record.inputs and not any(x.grad for x in record.inputs.values()):
        instead = "has no gradient by a score"
    if instead:
        raise CallValueError(f"{record.name}, which {instead}", "loss is", loss=owner)


def binary_targets(loss: Loss, positive: Any, dtype: Any) -> Any:
    """Return targets of two classes as the loss takes them: -1 and 1, or 0 and 1."""
    found = positive.astype(dtype)
    return 2.0 * found - 1.0 if loss.record.target_domain == SIGNS else found


def threshold_of(loss: Loss) -> float:
    """Return the score above which the second class is predicted."""
    record = loss.record
    margins = record.link in ("logit", "half-logit", "margin", "softmax") or record.target_domain == SIGNS
    return 0.0 if margins or record.family != "elementwise" else 0.5


def _sigmoid(z: Any) -> Any:
    e = np.exp(-np.abs(z))
    return np.where(z >= 0.0, 1.0, e) / (1.0 + e)


def _softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def inverse_link(loss: Loss) -> Callable[[Any], Any] | None:
    """Return the function from scores to means or probabilities; None where scores are no more than margins."""
    record = loss.record
    if record.link == "softmax":
        beta = loss.defaults.get("logit_scale", 1.0) / loss.defaults.get("temperature", 1.0)
        return lambda z: _softmax(z * beta)
    if record.link == "margin" or record.family == "rows":
        return None
    known: dict[str, Any] = {
        "logit": _sigmoid,
        "half-logit": lambda z: _sigmoid(2.0 * z),
        "log": np.exp,
        "identity": lambda z: z,
    }
    return known.get(record.link)
