"""Reduction of per-sample losses: divisors, weighted means, and the order of derivatives."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..spec.record import Formula
from . import check
from .arrays import F64, rounded
from .errors import CallValueError

__all__ = ["BATCH_MEAN", "REDUCTIONS", "balanced", "by_batch", "denominator", "reduction_of", "row_mass", "second_of"]

REDUCTIONS = ("mean", "sum", "none")

BATCH_MEAN = "batchmean"
"""Reduction that is rewritten before a call runs: the sum, divided by the length of the first axis."""


def reduction_of(record: Formula, given: Any) -> str:
    """Return the reduction of a call: the caller's, or the loss's default."""
    reduction: str = record.reduction if given is None else given
    check.one_of("reduction", reduction, (*REDUCTIONS, BATCH_MEAN))
    return reduction


def by_batch(first: Any, divisor: Any) -> dict[str, Any]:
    """Return reduction and divisor of a call with "batchmean", whose first input this is.

    Weights and ignored rows leave the divisor as it is: torch divides by the batch size alone.
    """
    if divisor is not None:
        raise CallValueError("is given with reduction='batchmean', which divides by the batch size", "divisor")
    first = first[0] if isinstance(first, tuple) and first else first
    shape = first.shape if hasattr(first, "shape") else np.shape(first)
    if not shape:
        problem = "is 'batchmean', and the prediction is a scalar without a first axis; take 'mean'"
        raise CallValueError(problem, "reduction")
    return {"reduction": "sum", "divisor": float(max(shape[0], 1))}


def second_of(record: Formula, curvature: str = "exact") -> str:
    """Return the kernel mode that computes second derivatives; raise ValueError for a loss without them."""
    check.one_of("curvature", curvature, ("exact", "surrogate"), record.name)
    if curvature == "surrogate" and record.surrogate is not None:
        return "surrogate"
    if not record.second:
        raise CallValueError("has no second derivative; use value_and_grad", loss=record.name)
    return "hess"


def balanced(class_weight: Any, labels: Any, weight: Any) -> Any:
    """Scale class weights so that class weight times row weight sums to the same total as the row weights.

    A mean over the rows then equals the mean divided by the class weights, and leaves z_loss unscaled.
    """
    wide = class_weight.astype(np.float64)
    rows = np.ones(labels.size) if weight is None else weight.astype(np.float64)
    # A class without a row may leave the range of floats.
    with np.errstate(all="ignore"):
        mass = float(rows @ wide[labels])
        return rounded(wide / mass * rows.sum() if mass != 0.0 else wide, class_weight.dtype)


def row_mass(weight: Any) -> float:
    """Return the sum of row weights in float64, in the order of NumPy's pairwise summation."""
    if weight.dtype is not F64:
        return float(np.add.reduce(weight, dtype=F64))
    # Float32 weights cannot overflow in float64, and the context takes 0.4 us.
    with np.errstate(all="ignore"):
        return float(np.add.reduce(weight))


def denominator(reduction: str, divisor: Any, size: float, mass: Callable[[], float] | None = None) -> float:
    """Return the divisor of the sum of losses; 0 where there is nothing to average.

    `mass` returns the sum of the weights; without weights a mean is divided by the size.
    """
    if divisor is not None:
        if reduction == "none":
            raise CallValueError("is given with reduction='none'; it divides a reduced loss", "divisor")
        return check.positive("divisor", divisor)
    if reduction != "mean":
        return 1.0
    return float(size) if mass is None else mass()
