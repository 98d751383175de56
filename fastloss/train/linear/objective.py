"""Mean loss of a linear model as a function of its coefficients: by one compiled pass, or by two products."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...call.errors import CallValueError
from ...losses.base import Loss
from ...losses.elementwise import ElementwiseLoss
from ...losses.rows import RowLoss
from ...spec.record import REAL

__all__ = ["Evaluated", "MeanLoss", "Penalised", "is_compiled"]

NO_LABELS = np.empty(0, np.int64)


class Evaluated(NamedTuple):
    """Value of an objective with its derivatives."""

    value: float
    grad: Any
    """Gradient in the shape of the coefficients, (outputs, d + 1); empty where it was not wanted."""
    hess: Any
    """Curvature of each output, (outputs, d + 1, d + 1); empty where it was not wanted."""


def is_compiled(loss: Loss, x: Any, arrays: Mapping[str, Any]) -> bool:
    """Whether one compiled pass over X serves a loss: of dense X, one prediction, and the mean of its samples."""
    record = loss.record
    plain = isinstance(loss, (ElementwiseLoss, RowLoss)) and len(record.predictions) == 1 and record.target is not None
    return (
        plain
        and isinstance(x, np.ndarray)
        and record.reduction == "mean"
        and not arrays
        and not (loss._levels or loss._rewritten)
    )


class MeanLoss:
    """Mean loss of z = X W^T + b over weighted samples, by coefficients (outputs, d + 1) with b last.

    The target is (n,), (n, outputs), or labels of classes as int64; weights are (n,), or None.
    """

    def __init__(self, loss: Loss, x: Any, y: Any, weight: Any, outputs: int, arrays: Mapping[str, Any]) -> None:
        self.loss, self.x, self.y, self.weight, self.outputs, self.arrays = loss, x, y, weight, outputs, dict(arrays)
        self.by_rows = loss.record.family == "rows"
        self.shape = (outputs, x.shape[1] + 1)
        each = 1 if self.by_rows else outputs
        self.total = each * (float(x.shape[0]) if weight is None else float(np.sum(weight, dtype=np.float64)))
        self.run: Callable[..., Any] = self._compiled() if is_compiled(loss, x, arrays) else self._by_products

    @property
    def compiled(self) -> bool:
        """Whether one compiled pass serves the loss."""
        return self.run != self._by_products

    @property
    def curvature(self) -> str:
        """Mode of the second derivative that steps of Newton's method take; empty where there is none."""
        record = self.loss.record
        if self.by_rows or not record.second or record.family != "elementwise":
            return ""
        if not isinstance(self.loss, ElementwiseLoss) or record.reduction != "mean" or self.arrays:
            return ""
        return "hess" if record.convex and record.differentiable else "surrogate" if record.surrogate else ""

    @property
    def surrogate(self) -> str:
        """Mode of a curvature that is never singular for its own sake; empty where there is none."""
        return "surrogate" if self.curvature and self.loss.record.surrogate else ""

    @property
    def restricted(self) -> bool:
        """Whether a long step may leave the domain of the predictions, or overflow."""
        record = self.loss.record
        return record.link == "log" or any(domain != REAL for domain in record.prediction_domains)

    def _compiled(self) -> Callable[..., Any]:
        from ...cpu import linear

        x, dtype, loss = self.x, self.x.dtype, self.loss
        if not self.by_rows:
            target = np.ascontiguousarray(self.y, dtype).reshape(-1)
            each = None if self.weight is None else np.repeat(self.weight.astype(dtype), self.outputs)
            return linear.element_pass(loss._compiled, loss._packed, loss._usual, x, target, each)  # type: ignore[attr-defined]
        weight = None if self.weight is None else np.ascontiguousarray(self.weight, dtype)
        if self.y.ndim == 1 and self.y.dtype == np.int64:
            return linear.row_pass(loss, x, self.outputs, self.y, np.empty((0, 0), dtype), weight)
        dense = np.ascontiguousarray(self.y, dtype).reshape(len(x), -1)
        return linear.row_pass(loss, x, self.outputs, NO_LABELS, dense, weight)

    def scores(self, w: Any) -> Any:
        """Return z, (n,) for one output of an elementwise loss, otherwise (n, outputs)."""
        z = np.asarray(self.x @ w[:, :-1].T.astype(self.x.dtype)) + w[:, -1].astype(self.x.dtype)
        return z[:, 0] if self.outputs == 1 and not self.by_rows else z

    def _by_products(self, w: Any, slope: bool = True, curvature: str = "") -> Any:
        """Return what a compiled pass does, by a product for the scores and one for the gradient."""
        z, k, total = self.scores(w), self.outputs, self.total
        weight = self.weight
        if weight is not None and z.ndim == 2 and not self.by_rows:
            weight = np.repeat(weight[:, None], k, axis=1)
        options = {**self.arrays, **({} if weight is None else {"weight": weight})}
        arrays = () if self.loss.record.target is None and "labels" not in self.loss.record.inputs else (self.y,)
        with np.errstate(all="ignore"):
            if not slope and not curvature:
                return float(self.loss(z, *arrays, **options)) * total, np.zeros((0, 0)), np.zeros((0, 0, 0))
            value, r = self.loss.value_and_grad(z, *arrays, **options)[:2]
            hess = np.zeros((0, 0, 0))
            if curvature:
                h = self.loss.grad_and_hess(z, *arrays, curvature=_kind(curvature), **options)[1].reshape(-1, k)
                hess = np.stack([_gram(self.x, h[:, c]) for c in range(k)])
        r = np.asarray(r, np.float64).reshape(-1, k) * total
        return float(value) * total, np.column_stack([np.asarray(self.x.T @ r).T, r.sum(axis=0)]), hess

    def __call__(self, w: Any, slope: bool = True, curvature: str = "") -> Evaluated:
        """Return the mean loss, its gradient and its curvature; infinite where a prediction leaves its domain."""
        try:
            value, grad, hess = self.run(w, slope, curvature)
        except CallValueError as error:
            if error.argument != self.loss.record.predictions[0]:
                raise
            value, grad, hess = np.inf, np.zeros(self.shape if slope else (0, 0)), np.zeros((0, 0, 0))
        return Evaluated(value / self.total, grad / self.total, hess / self.total)


def _kind(curvature: str) -> str:
    return "exact" if curvature == "hess" else curvature


def _gram(x: Any, h: Any) -> Any:
    """Return X^T diag(h) X with a last column of ones in X."""
    scaled = x.multiply(h[:, None]).tocsr() if hasattr(x, "multiply") else x * h[:, None]
    inner = scaled.T @ x
    found = np.empty((x.shape[1] + 1, x.shape[1] + 1))
    found[:-1, :-1] = inner.toarray() if hasattr(inner, "toarray") else inner
    found[-1, :-1] = found[:-1, -1] = np.asarray(scaled.sum(axis=0)).ravel()
    found[-1, -1] = h.sum()
    return found


class Penalised:
    """Mean loss plus l1 |w|_1 + l2 |w|^2 / 2, by coefficients of columns that have mean 0 and spread 1.

    Solvers see u = w s and c = b + m w: the objective is that of the data as they are, and columns of different scales
    or far from 0 cost no iterations. The intercept has no penalty; without one, it stays 0.
    """

    def __init__(self, loss: MeanLoss, l1: float, l2: float, fit_intercept: bool) -> None:
        self.loss, self.l1, self.l2, self.fit_intercept = loss, l1, l2, fit_intercept
        self.outputs, self.columns = loss.shape
        mean, spread = _moments(loss.x, fit_intercept)
        self.mean, self.spread = mean, np.append(spread, 1.0)
        self.passes = 0
        self.rounding = 0.0
        """Width within which absolute values of coefficients are rounded; 0 leaves them to the solver."""

    @classmethod
    def like(cls, other: "Penalised", loss: MeanLoss, rounding: float = 0.0) -> "Penalised":
        """Return an objective with another loss, whose solver moves the same coefficients."""
        found = cls.__new__(cls)
        found.__dict__.update(other.__dict__)
        found.loss, found.passes, found.rounding = loss, 0, rounding
        return found

    def thresholds(self) -> Any:
        """Return the factor of each absolute value of the coefficients that a solver moves."""
        each = self.l1 / self.spread
        each[-1] = 0.0
        return np.tile(each, self.outputs)

    def coefficients(self, u: Any) -> Any:
        """Return the coefficients of the data, (outputs, d + 1), from those that a solver moves."""
        w = np.reshape(u, (self.outputs, self.columns)) / self.spread
        w[:, -1] = w[:, -1] - w[:, :-1] @ self.mean if self.fit_intercept else 0.0
        return w

    def scaled(self, w: Any) -> Any:
        """Return the coefficients that a solver moves from those of the data."""
        u = np.array(w, np.float64) * self.spread
        u[:, -1] += w[:, :-1] @ self.mean
        if not self.fit_intercept:
            u[:, -1] = 0.0
        return u.reshape(-1)

    def penalty(self, w: Any) -> float:
        """Return the penalty of coefficients of the data."""
        own = w[:, :-1]
        return float(self.l1 * np.abs(own).sum() + 0.5 * self.l2 * (own * own).sum())

    def value(self, u: Any) -> float:
        """Return the objective."""
        self.passes += 1
        # Steps that are too long overflow, and are then halved.
        with np.errstate(all="ignore"):
            w = self.coefficients(u)
            if not self.rounding:
                return self.loss(w, False).value + self.penalty(w)
            own = self.loss(w, False).value + 0.5 * self.l2 * float((w[:, :-1] ** 2).sum())
            return own + float(self.thresholds() @ np.hypot(u, self.rounding))

    def smooth(self, u: Any, curvature: str = "") -> Evaluated:
        """Return the objective with its derivatives by u, without an L1 penalty that is not rounded."""
        self.passes += 1
        with np.errstate(all="ignore"):
            return self._smooth(u, curvature)

    def _smooth(self, u: Any, curvature: str) -> Evaluated:
        """Evaluate the objective; steps that are too long overflow, and are then halved."""
        w = self.coefficients(u)
        value, g, hess = self.loss(w, True, curvature)
        g = np.array(g)
        g[:, :-1] += self.l2 * w[:, :-1]
        value += 0.5 * self.l2 * float((w[:, :-1] ** 2).sum())
        if hess.size:
            hess = np.array(hess)
            index = np.arange(self.columns - 1)
            hess[:, index, index] += self.l2
            hess = self._moved(hess)
        g[:, :-1] -= self.mean * g[:, -1:]
        g /= self.spread
        if not self.fit_intercept:
            g[:, -1] = 0.0
        flat = g.reshape(-1)
        if self.rounding:
            each, s = self.thresholds(), np.hypot(u, self.rounding)
            value, flat = value + float(each @ s), flat + each * u / s
            if hess.size:
                index = np.arange(self.columns)
                hess[:, index, index] += (each * (self.rounding / s) ** 2 / s).reshape(self.outputs, -1)
        return Evaluated(value, flat, hess)

    def _moved(self, hess: Any) -> Any:
        """Return the curvature by what a solver moves."""
        back = np.diag(1.0 / self.spread)
        back[-1, :-1] = -self.mean / self.spread[:-1]
        found = back.T @ hess @ back
        if not self.fit_intercept:
            found[:, -1, :] = found[:, :, -1] = 0.0
            found[:, -1, -1] = 1.0
        return found


SAMPLED = 1 << 13
"""Largest number of rows from which means and spreads are taken: any values leave the objective as it is."""


def _moments(x: Any, centred: bool) -> tuple[Any, Any]:
    """Return mean and spread of each column by some of its rows; mean 0 without an intercept, spread 1 of zeros."""
    x = x[:: max(1, x.shape[0] // SAMPLED)]
    x = np.asarray(x.toarray() if hasattr(x, "toarray") else x, np.float64)
    # The largest element as a unit keeps squares of huge columns finite.
    unit = np.maximum(np.abs(x).max(axis=0), np.finfo(np.float64).tiny)
    mean = (x / unit).mean(axis=0) if centred else np.zeros(x.shape[1])
    spread = np.sqrt(((x / unit - mean) ** 2).mean(axis=0))
    # A constant column has a spread of rounding errors alone.
    spread = np.where(spread <= 1e-7 * np.abs(mean) + 1e-150, 1.0, spread)
    unit = np.where(unit < 1e-300, 1.0, unit)
    return mean * unit, spread * unit
