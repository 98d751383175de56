"""Check of a candidate before it is trained: whether its derivative leads towards the target."""

from typing import Any

import numpy as np

from ...losses.base import Loss
from ...spec.record import SIGNS, UNIT

__all__ = ["leads_to_target"]

LINKS = ("identity", "log", "logit", "half-logit", "margin")
"""Meanings of predictions that have a side of the target; distances and scores of critics have none."""


def leads_to_target(loss: Loss) -> bool:
    """Whether no step down the derivative leads away from the target, and some step leads towards it.

    Losses of decisions (logits, probabilities, signs) are tried where the prediction is on the wrong side, other
    elementwise losses on both sides of the target, losses of classes where the label's logit is the smallest. Losses
    of other inputs count as good.
    """
    record = loss.record
    if record.family == "rows":
        found = _of_classes(loss) if record.loop == "softmax" else None
    else:
        elementwise = record.family == "elementwise" and len(record.predictions) == 1 and record.target is not None
        found = _of_elements(loss) if elementwise and record.link in LINKS else None
    if found is None:
        return True
    return bool(np.isfinite(found).all() and (found >= 0.0).all() and (found > 0.0).any())


def _of_elements(loss: Loss) -> Any:
    """Return the derivatives at probes, positive where they lead towards the target; None where no probe fits."""
    record = loss.record
    if record.link in ("logit", "half-logit", "margin"):
        wrong = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
        z, t = np.concatenate([wrong, -wrong]), np.repeat([0.0, 1.0], len(wrong))
        t = 2.0 * t - 1.0 if record.target_domain == SIGNS else t
        side = np.where(t > 0.0, -1.0, 1.0)
    elif record.prediction_domains[0] == UNIT:
        wrong = np.array([0.5, 0.6, 0.75, 0.9, 0.99])
        z, t = np.concatenate([wrong, 1.0 - wrong]), np.repeat([0.0, 1.0], len(wrong))
        side = np.where(t > 0.0, -1.0, 1.0)
    else:
        t = np.repeat([-5.0, -1.0, 0.0, 0.5, 1.0, 5.0], 6)
        side = np.tile([-10.0, -1.0, -0.1, 0.1, 1.0, 10.0], 6)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = side + (np.log(t) if record.link == "log" else t)
        kept = np.isfinite(z) & ~record.target_domain.outside(t) & ~record.prediction_domains[0].outside(z)
        z, t, side = z[kept], t[kept], np.sign(side[kept])
    if not len(z):
        return None
    # A sum, whose derivatives no number of probes divides.
    return side * loss.value_and_grad(z, t, reduction="sum")[1]


def _of_classes(loss: Loss) -> Any:
    """Return minus the derivatives by the label's logit where it is the smallest of four."""
    z = np.random.default_rng(0).normal(0.0, 2.0, (16, 4))
    labels = z.argmin(axis=1)
    grad = loss.value_and_grad(z, labels, reduction="sum")[1]
    return -grad[np.arange(len(z)), labels]
