"""Weighted sum of the parts of a recipe, and its result."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..call import check
from ..call.arrays import compute_dtype, incoming, outgoing
from ..call.errors import CallTypeError, CallValueError
from ..spec.record import REAL

__all__ = ["Predictions", "Result", "Sum"]


class Result(NamedTuple):
    """Result of a recipe: the weighted sum, its gradients and its parts.

    Attributes
    ----------
    value : float
        Sum of the parts, each times its weight.
    grads : dict of str to array
        Gradient of the value by each prediction, in its shape, dtype and library.
    parts : dict of str to float
        Value of each part without its weight.
    """

    value: float
    grads: dict[str, Any]
    parts: dict[str, float]


class Predictions:
    """Predictions of a call as NumPy arrays, with the functions that turn gradients into the callers' arrays."""

    def __init__(self, **given: Any) -> None:
        self.arrays = {k: incoming(v, k) for k, v in given.items()}
        for k, a in self.arrays.items():
            compute_dtype(a, k)
        self.back = {k: outgoing(v) for k, v in given.items()}

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    def check(self, name: str, *shape: int | str) -> None:
        """Raise unless a prediction has a shape, in which names stand for axes of any length."""
        own = self[name].shape
        if len(own) != len(shape) or any(type(s) is int and s != n for s, n in zip(shape, own, strict=True)):
            expected = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
            raise CallValueError(f"has shape {own}; expected ({expected})", name)


class Sum:
    """Weighted sum of parts: values, and gradients that are added in place."""

    def __init__(self, predictions: Predictions, weights: Any, defaults: Mapping[str, float]) -> None:
        self._predictions = predictions
        self._weights = dict(defaults)
        if weights is not None and not isinstance(weights, Mapping):
            known = ", ".join(f"{k!r}: {v:g}" for k, v in defaults.items())
            raise CallTypeError(f"is {check.shown(weights)}; expected a dictionary such as {{{known}}}", "weights")
        for k, w in (weights or {}).items():
            if k not in defaults:
                raise CallValueError(f"names the part {k!r}; known: {', '.join(defaults)}", "weights")
            self._weights[k] = check.within(f"weights[{k!r}]", w, REAL)
        self._value = 0.0
        self._parts: dict[str, float] = {}
        self._grads: dict[str, Any] = {}

    def weight(self, part: str) -> float:
        """Return the weight of a part."""
        return self._weights[part]

    def wants(self, part: str) -> bool:
        """Whether a part has a weight other than 0: the others are left out."""
        return self._weights[part] != 0.0

    def add(self, part: str, value: float, **grads: Any) -> None:
        """Add a part and its gradients by predictions; a gradient's memory becomes the sum's."""
        weight = self._weights[part]
        self._parts[part] = value
        self._value += weight * value
        with np.errstate(all="ignore"):
            for name, grad in grads.items():
                if weight != 1.0:
                    grad *= grad.dtype.type(weight)
                if name in self._grads:
                    self._grads[name] += grad
                else:
                    self._grads[name] = grad

    def add_rows(self, part: str, value: float, name: str, rows: Any, grad: Any) -> None:
        """Add a part whose gradient is 0 but at some rows, which an index array or a mask selects."""
        a = self._predictions[name]
        whole = np.zeros(a.shape, a.dtype)
        whole[rows] = grad
        self.add(part, value, **{name: whole})

    def result(self) -> Result:
        """Return the sum; predictions that no part reached have gradients of 0."""
        grads = {}
        for name, a in self._predictions.arrays.items():
            grad = self._grads.get(name)
            grad = np.zeros(a.shape, a.dtype) if grad is None else grad
            back = self._predictions.back[name]
            grads[name] = grad if back is None else back(grad)
        return Result(float(self._value), grads, self._parts)
