"""Base class of risks, and how a call takes one as its reduction: a pass for the losses, one for the gradient."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...call import check
from ...call.arrays import F32, F64, incoming, weights
from ...call.errors import CallValueError, naming
from ...call.reduction import row_mass
from ...call.request import Request
from ...spec.record import NONNEGATIVE, Formula

__all__ = ["UNITS", "Risk", "alike", "restored", "single", "under_risk", "units_under_risk"]


class Risk:
    """Base class of risks: reductions that weigh the samples by their losses, beside "mean", "sum" and "none".

    A risk is called with per-sample losses, and returns one number. `weights` returns its derivative by each loss.
    """

    __slots__ = ("_settings",)

    def __init__(self, **settings: Any) -> None:
        object.__setattr__(self, "_settings", settings)

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_settings")[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable; make another one")

    def __reduce__(self) -> Any:
        return restored, (type(self), self._settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._settings.items())})"

    def __call__(self, losses: Any, weight: Any = None) -> float:
        """Return the risk of per-sample losses, whose weights are all 1 if left out."""
        return self._measured(losses, weight, False)[0]

    def weights(self, losses: Any, weight: Any = None) -> Any:
        """Return the derivative of the risk by each loss, in the losses' shape; float64, or float32 for float32.

        The weights are not negative and sum to 1 (to 0 where there is nothing to weigh).
        """
        return self._measured(losses, weight, True)[1]

    def _measured(self, losses: Any, weight: Any, writes: bool) -> tuple[float, Any]:
        with naming(type(self).__name__):
            a = incoming(losses, "losses")
            a = np.array(a, F32 if a.dtype == F32 else F64, order="C")
            masses = None if weight is None else _checked_weights(weight, a.shape)
            return self.measure(a, masses, writes)[0], a

    def measure(self, losses: Any, masses: Any, writes: bool) -> tuple[float, Any]:
        """Return the risk of losses, and a state for `advance`; with `writes`, replace the losses by their weights.

        `losses` is a C-contiguous array of any shape, `masses` one float64 per loss or None.
        """
        flat = losses.reshape(-1)
        total = float(flat.size) if masses is None else row_mass(masses)
        if total == 0.0:
            losses[...] = 0.0
            return 0.0, None
        with np.errstate(all="ignore"):
            value = self._weigh(losses, masses, total, writes)
            state = None
            if type(value) is tuple:
                value, state = value
        if writes and value != value:
            # Where a loss is NaN, no share of the others is known.
            flat[...] = math.nan
            if masses is not None:
                flat[masses == 0.0] = 0.0
        return value, state

    def advance(self, state: Any) -> None:
        """Keep what a call for a gradient has changed; most risks have no state."""

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> Any:
        """Return the risk, or the risk and a state; replace the losses by their weights where it `writes`."""
        raise NotImplementedError


def restored(kind: type[Risk], settings: dict[str, Any]) -> Any:
    """Return a risk with settings that were checked when it was first made."""
    risk = kind.__new__(kind)
    Risk.__init__(risk, **settings)
    return risk


def alike(a: Any, b: Any) -> bool:
    """Whether two reductions are the same: equal texts, or risks of one class with equal settings."""
    if not (isinstance(a, Risk) and isinstance(b, Risk)):
        return bool(a == b)
    # Not `==`: calls remember losses by their reductions, and two equal risks may differ after a step.
    mine, others = a._settings, b._settings
    return type(a) is type(b) and all(np.array_equal(v, others[k]) for k, v in mine.items())


def _checked_weights(weight: Any, shape: tuple[int, ...]) -> Any:
    """Return sample weights as a flat float64 array; raise for a negative or infinite one."""
    w = weights(weight, shape, F64)
    check.violation("weight", w.reshape(shape), NONNEGATIVE)
    return w


UNITS = "units"
"""Reduction, for risks alone, that returns the values of all units and what each counts in the mean."""


def single(a: Any) -> Any:
    """Return a prediction with 16-bit floats widened, so that its losses are not rounded to 16 bits."""
    if isinstance(a, (tuple, list)):
        return tuple(single(x) for x in a)
    x = incoming(a, "prediction")
    return x.astype(F32) if x.dtype.itemsize == 2 and x.dtype.kind not in "iub" else x


def under_risk(
    record: Formula, run: Callable[[Request], Any], request: Request, shape: tuple[int, ...], ignored: Any = None
) -> tuple[Any, Any]:
    """Return the risk of the losses of a call, of the given shape, and its gradient where the call asks for one.

    One pass computes the losses, a second one the gradient, with the weights that the risk gives to the samples.
    `ignored` is a mask of samples that do not count.
    """
    risk, given, masses = request.reduction, request.weight, None
    _check_options(record.name, request)
    first = request._replace(mode="value", reduction="none", prediction=single(request.prediction), out=None)
    if given is not None:
        masses = _checked_weights(given, shape)
        # Only the zeros of the weights take part: a sample of weight 0 may hold anything.
        first = first._replace(weight=(masses != 0.0).astype(F64).reshape(shape))
    if ignored is not None:
        masses = np.where(ignored.reshape(-1), 0.0, 1.0 if masses is None else masses)
    losses = incoming(run(first)[0], "losses")
    value, state = risk.measure(losses, masses, request.orders > 0)
    if not request.orders:
        return value, None
    grad = run(request._replace(weight=losses, reduction="sum"))[1]
    risk.advance(state)
    return value, grad


def units_under_risk(record: Formula, run: Callable[..., Any], request: Request, shape: tuple[int, ...]) -> Any:
    """Return the risk of a loss over several arrays, which has one value for each unit, and its gradient.

    `run` takes weights, a reduction and whether to return derivatives. A unit counts by what it adds to the divisor of
    the mean: a subject without an event, or a group without pairs, does not.
    """
    risk, masses, mask = request.reduction, None, None
    _check_options(record.name, request)
    if request.weight is not None:
        masses = _checked_weights(request.weight, shape)
        mask = (masses != 0.0).astype(F64).reshape(shape)
    values, counted = run(mask, UNITS, False)[0]
    if counted is not None:
        masses = counted if masses is None else counted * masses
        values = np.divide(values, counted, out=np.zeros_like(values), where=counted != 0.0)
    value, state = risk.measure(values.reshape(shape), masses, request.orders > 0)
    if not request.orders:
        return value, None
    shares = values if counted is None else np.divide(values, counted, out=np.zeros_like(values), where=counted != 0.0)
    grad = run(shares.reshape(shape), "sum", True)[1]
    risk.advance(state)
    return value, grad


def _check_options(name: str, request: Request) -> None:
    """Raise for options that a risk has no use for."""
    if request.divisor is not None:
        raise CallValueError("is given with a risk, whose weights sum to 1; leave divisor out", "divisor")
    if request.details:
        raise CallValueError(f"is given with a risk; call {name}.details(...)", "details")
