"""Mismatches of outputs, targets, loss and optimiser: a sigmoid applied twice, labels of another encoding."""

from typing import Any

import numpy as np

from ..call.errors import CallTypeError, CallValueError
from ..evaluation.losses import found, named
from ..evaluation.scales import may_be_probabilities, scale_of
from ..spec.record import SIGNS, UNIT

__all__ = ["mismatches"]

NAME = "fl.mismatches"
LEAST = 8
"""Rows from which predictions that all lie in [0, 1] are called probabilities; of fewer, logits may do so by chance."""
SECOND_ORDER = {"newton", "newton-cg", "newton-cholesky", "irls", "xgboost", "lightgbm", "lbfgs", "l-bfgs", "bfgs"}


def mismatches(loss: Any, pred: Any, target: Any = None, /, *, optimizer: str | None = None) -> list[str]:
    """Return sentences on what does not fit together: the outputs of a model, the targets, the loss, the optimiser.

    It finds what runs without an error and trains badly: probabilities for a loss of logits (a sigmoid or softmax
    applied twice), logits for a loss of probabilities, two columns for a loss of one, labels of another encoding, means
    for a loss of their logarithms, outputs that cannot reach the targets, and a kink under a second-order method.

    Parameters
    ----------
    loss : str or Loss
        A loss of elements or of rows of scores, such as "bce_with_logits".
    pred : array
        Outputs of the model, of a batch or more.
    target : array, optional
        Targets, as they are given to the loss.
    optimizer : str, optional
        Name of the optimiser, such as "lbfgs", "newton" or "xgboost".

    Returns
    -------
    list of str
        One sentence each with what to do; empty where everything fits.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> z, t = np.array([-2.0, 3.0, 0.5, -1.0, 2.5, -3.0, 1.0, 0.2]), np.array([0, 1, 1, 0, 1, 0, 0, 1])
    >>> fl.mismatches("bce_with_logits", z, t)
    []
    >>> fl.mismatches("bce_with_logits", 1 / (1 + np.exp(-z)), t)[0][:56]
    'bce_with_logits takes logits, and all predictions lie in'
    """
    chosen = _loss(loss)
    record, name = chosen.record, chosen.name
    if record.family == "arrays":
        problem = f"is {name}, a loss of whole arrays; expected a loss of elements or of rows of scores"
        raise CallValueError(problem, "loss", None, NAME)
    p = _numbers(pred, "pred")
    t = None if target is None else _numbers(target, "target")
    sentences = [*_of_shapes(name, record, p, t)]
    if not sentences and p.size:
        sentences += _of_scales(name, record, p, t)
        if t is not None and t.size:
            sentences += _of_labels(name, record, p, t)
            sentences += _of_ranges(name, record, p, t)
    if optimizer is not None:
        sentences += _of_optimizer(name, record, optimizer)
    return sentences


def _loss(loss: Any) -> Any:
    if isinstance(loss, str):
        try:
            whole = found(loss)[0]
            return whole if whole.record.family == "arrays" else named([loss])[0].loss
        except (KeyError, ValueError) as error:
            text = error.args[0] if isinstance(error, KeyError) else error
            raise CallValueError(str(text), None, None, NAME) from None
    if getattr(loss, "record", None) is None:
        problem = f"is {type(loss).__name__}; expected a name such as 'huber:delta=2', or a loss"
        raise CallTypeError(problem, "loss", None, NAME)
    return loss


def _numbers(values: Any, argument: str) -> Any:
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise CallTypeError(f"has dtype {found.dtype}; expected numbers", argument, None, NAME)
    return found.astype(np.float64)


def _of_shapes(name: str, record: Any, p: Any, t: Any) -> list[str]:
    if record.family == "rows":
        if p.ndim < 2:
            return [
                f"{name} takes a row of scores for each sample, and the predictions have shape {p.shape}: give (n, K)."
            ]
        return []
    if t is None or p.shape == t.shape:
        return []
    if p.ndim == t.ndim + 1 and p.shape[:-1] == t.shape and p.shape[-1] == 2:
        what = "pred[:, 1] - pred[:, 0]" if scale_of(record) in ("logit", "margin") else "pred[:, 1]"
        return [f"{name} takes one number a sample, and there are two columns, one a class: give {what}."]
    if p.size == t.size:
        return [f"The shapes are {p.shape} and {t.shape}: broadcast, every prediction meets every target; reshape one."]
    return [f"The shapes of predictions {p.shape} and targets {t.shape} differ: {name} compares them one by one."]


def _of_scales(name: str, record: Any, p: Any, t: Any) -> list[str]:
    scale, samples = scale_of(record), p.shape[0] if p.ndim else 1
    inside = bool(p.min() >= 0.0 and p.max() <= 1.0)
    if (
        scale in ("logit", "half-logit", "log-prob")
        and samples >= LEAST
        and may_be_probabilities(p.reshape(samples, -1), record)
    ):
        if record.family == "rows":
            remedy = "give the outputs before the softmax" if scale == "logit" else "give their logarithms"
            what = "logits" if scale == "logit" else "log-probabilities"
            return [f"{name} takes {what}, and every row is in [0, 1] with the sum 1, as after a softmax: {remedy}."]
        other = " (or take bce)" if name == "bce_with_logits" else ""
        return [
            f"{name} takes logits, and all predictions lie in [0, 1], as after a sigmoid: give them before it{other}."
        ]
    if scale == "margin" and samples >= LEAST and inside:
        return [f"{name} takes scores of both signs, and all predictions lie in [0, 1]: give them before the sigmoid."]
    if scale == "prob" and not inside:
        remedy = "bce_with_logits takes them" if name in ("bce", "log_loss") else "give 1 / (1 + exp(-z))"
        return [
            f"{name} takes probabilities, and predictions go from {p.min():.3g} to {p.max():.3g}: of logits, {remedy}."
        ]
    if scale == "log-prob" and p.max() > 1e-6:
        return [f"{name} takes log-probabilities, and predictions reach {p.max():.3g}: for logits take cross_entropy."]
    if scale == "log-mean" and t is not None and samples >= LEAST and p.min() > 0.0 and t.mean() > 0.0:
        with np.errstate(over="ignore"):
            exponential = float(np.exp(p).mean())
        if abs(p.mean() - t.mean()) < 0.5 * t.mean() < abs(exponential - t.mean()):
            alike = f"{p.mean():.3g} on average, as targets are {t.mean():.3g}"
            return [
                f"{name} takes logarithms of means, and predictions look like means ({alike}): give their logarithms."
            ]
    return []


def _of_labels(name: str, record: Any, p: Any, t: Any) -> list[str]:
    values = set(np.unique(t).tolist()) if t.size < 1_000_000 else {float(t.min()), float(t.max())}
    if record.family == "elementwise":
        if record.target_domain == UNIT and values <= {-1.0, 1.0} and -1.0 in values:
            return [f"{name} takes targets 0 and 1, and these are -1 and +1: give (target + 1) / 2."]
        if record.target_domain == SIGNS and values <= {0.0, 1.0} and 0.0 in values:
            return [f"{name} takes targets -1 and +1, and these are 0 and 1: give 2 * target - 1."]
        if record.target_domain == UNIT and values == {1.0, 2.0}:
            return [f"{name} takes targets 0 and 1, and these are 1 and 2: give target - 1."]
        return []
    k = record.row_loop.classes(p.shape[-1])
    if record.row_loop.labels and t.ndim == p.ndim - 1 and t.size and t.max() == k and t.min() == 1.0:
        return [f"{name} takes labels 0 to {k - 1} for {k} classes, and these go from 1 to {k}: give target - 1."]
    return []


def _of_ranges(name: str, record: Any, p: Any, t: Any) -> list[str]:
    """Find outputs that an activation keeps from the targets, where the loss takes any real number."""
    regression = record.family == "elementwise" and record.link == "identity" and scale_of(record) == ""
    if not regression or p.shape != t.shape or p.shape[0] < LEAST or len(record.predictions) != 1:
        return []
    low, high = float(t.min()), float(t.max())
    reach = f"targets go from {low:.3g} to {high:.3g}: leave it out."
    if p.min() >= 0.0 and p.max() <= 1.0 and (low < -0.5 or high > 1.5):
        return [f"All predictions lie in [0, 1], as after a sigmoid, and {reach}"]
    if p.min() >= -1.0 and p.max() <= 1.0 and p.min() < -0.9 and p.max() > 0.9 and (low < -1.5 or high > 1.5):
        return [f"All predictions lie in [-1, 1], as after a tanh, and {reach}"]
    if p.min() == 0.0 and np.mean(p == 0.0) > 0.05 and np.mean(t < 0.0) > 0.05:
        share = np.mean(t < 0.0)
        return [
            f"Predictions are cut off at 0, as after a ReLU, and {share:.0%} of the targets are negative: leave it out."
        ]
    if name in ("mape",) and np.mean(t == 0.0) > 0.0:
        return [f"{name} divides by the target, and {np.count_nonzero(t == 0.0):,} targets are 0: take smape or mae."]
    return []


def _of_optimizer(name: str, record: Any, optimizer: str) -> list[str]:
    if optimizer.lower().replace("_", "-") in SECOND_ORDER and not record.differentiable:
        smooth = {"mae": "pseudo_huber", "quantile": "expectile", "hinge": "smooth_hinge"}.get(
            name, "a smooth relative"
        )
        return [f"{name} has kinks, and {optimizer} relies on curvature: take {smooth}, or Adam or SGD."]
    return []
