"""Penalties on the parameters of a model, as parts of a sum."""

from typing import Any

import numpy as np

from ...call import check
from ...call.errors import CallTypeError, CallValueError
from ..base import ComposedDoc, Loss

__all__ = ["Penalty", "on", "penalised"]

RESERVED = frozenset(
    (
        *("prediction", "target", "weight", "weights", "reduction", "divisor", "out", "parts"),
        *("axis", "ignore_index", "class_weight", "curvature", "backend"),
    )
)
"""Arguments of calls, which no parameters can be named."""


class Penalty(Loss):  # noqa: D101
    __doc__ = ComposedDoc("A penalty on parameters of a model, made by `on`.")

    __slots__ = ("inner", "of")

    inner: Loss
    """Elementwise loss of one parameter."""
    of: str
    """Name by which calls pass the parameters."""

    def __init__(self, inner: Loss, of: str) -> None:
        super().__init__(inner.record, inner.defaults, inner._backend)
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "of", of)

    def __reduce__(self) -> Any:
        return Penalty, (self.inner, self.of)

    def __repr__(self) -> str:
        return f"{self.inner!r}.on({self.of!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Penalty) and (self.inner, self.of) == (other.inner, other.of)

    def __hash__(self) -> int:
        return hash((self.inner, self.of))

    def _with(self, parameters: dict[str, Any]) -> "Penalty":
        return Penalty(self.inner.bind(**parameters), self.of)

    def __call__(self, *arrays: Any, **options: Any) -> Any:
        """Return the penalty on the parameters, which are passed by their name."""
        return (1.0 * self)(*arrays, **options)

    def value_and_grad(self, *arrays: Any, **options: Any) -> tuple[Any, ...]:
        """Return the penalty, and its gradients as a dictionary by the name of the parameters."""
        return (1.0 * self).value_and_grad(*arrays, **options)

    def grad_and_hess(self, *arrays: Any, **options: Any) -> tuple[Any, Any]:
        """Raise ValueError: a penalty has no part in the derivatives of samples."""
        return (1.0 * self).grad_and_hess(*arrays, **options)

    def warmup(self, dtypes: tuple[str, ...] = ("float32", "float64")) -> None:
        """Compile the kernels of common calls into the disk cache."""
        self.inner.warmup(dtypes)

    def _docstring(self) -> str:
        return f"Penalty {self.inner!r} on the parameters that calls pass as {self.of}=.\n"


def on(loss: Loss, name: Any) -> Penalty:
    """Return a loss of one array as a penalty on parameters of this name."""
    record = loss.record
    if record.family != "elementwise" or len(record.predictions) > 1 or record.target is not None:
        raise CallTypeError("is no penalty on parameters; write fl.l1, fl.l2 or fl.elastic_net", loss=loss.name)
    if not (isinstance(name, str) and name.isidentifier()) or name in RESERVED:
        problem = f'is {check.shown(name)}; expected a Python name that is no option of calls, such as "params"'
        raise CallValueError(problem, "on", loss=loss.name)
    return Penalty(loss, name)


def penalised(penalty: Any, given: Any, writes: bool) -> tuple[float, Any, dict[str, float]]:
    """Return a penalty on an array, or on all of a list or dictionary; the gradients likewise; and its parts."""
    if isinstance(given, (dict, list, tuple)) and not _is_numbers(given):
        items = given.items() if isinstance(given, dict) else enumerate(given)
        total, grads = 0.0, {}
        parts: dict[str, float] = {}
        for key, x in items:
            value, grads[key], own = penalised(penalty, x, writes)
            total += value
            parts = {k: parts.get(k, 0.0) + v for k, v in own.items()}
        found: Any = grads
        if not isinstance(given, dict):
            found = tuple(grads.values()) if isinstance(given, tuple) else list(grads.values())
        return total, found, parts
    # The sum over all elements, whatever the reduction of the samples.
    if writes:
        value, grad, own = penalty.value_and_grad(given, reduction="sum", parts=True)
        return value, grad, own
    value, own = penalty(given, reduction="sum", parts=True)
    return value, None, own


def _is_numbers(given: Any) -> bool:
    """Whether a list holds numbers, and no arrays."""
    return not isinstance(given, dict) and all(isinstance(x, (int, float, np.number)) for x in given)
