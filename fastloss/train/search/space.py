"""Space of a search: parameters of a loss within bounds, as points of the unit cube."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...call import check
from ...call.errors import CallTypeError, CallValueError
from ...losses.base import Loss
from ...spec.record import FINITE

__all__ = ["Axis", "Space"]


class Axis:
    """Parameter within bounds: a number of [0, 1] stands for one between them, evenly or by its logarithm."""

    def __init__(self, loss: Loss, name: str, bounds: Any) -> None:
        spec = loss.record.parameters.get(name)
        if spec is None:
            hint = check.nearest(str(name), loss.record.parameters)
            raise CallTypeError(f"names {name!r}, which is not a parameter of {loss.name}; {hint}", "over")
        if spec.flag or spec.choices:
            raise CallTypeError("is no number, so no search finds it; bind it", f"over[{name!r}]")
        what = f"over[{name!r}]"
        if not isinstance(bounds, (tuple, list)) or len(bounds) not in (2, 3) or bounds[2:] not in ((), [], ("log",)):
            problem = f'is {check.shown(bounds)}; expected bounds (low, high), or (low, high, "log")'
            raise CallTypeError(problem, what)
        low, high = (check.within(f"{what}[{i}]", b, FINITE) for i, b in enumerate(bounds[:2]))
        for b in (low, high):
            if spec.allowed.outside(b):
                raise CallValueError(f"has the bound {b:g}; allowed: {spec.allowed}", what)
        self.name, self.by_logarithm = name, len(bounds) == 3
        if not low < high or (self.by_logarithm and low <= 0.0):
            rule = "0 < low < high" if self.by_logarithm else "low < high"
            raise CallValueError(f"is {bounds}; expected {rule}", what)
        self.low, self.high = (math.log(low), math.log(high)) if self.by_logarithm else (low, high)

    def value(self, x: float) -> float:
        """Return the parameter at a number of [0, 1]."""
        y = self.low + (self.high - self.low) * x
        return math.exp(y) if self.by_logarithm else y

    def place(self, value: Any) -> float:
        """Return the number of [0, 1] of a parameter, the nearest one where it is outside the bounds."""
        if not isinstance(value, (int, float)) or (self.by_logarithm and value <= 0.0):
            return 0.5
        y = math.log(value) if self.by_logarithm else float(value)
        return float(min(max((y - self.low) / (self.high - self.low), 0.0), 1.0))


class Space:
    """Losses that a search may return."""

    def __init__(self, loss: Loss, over: Any) -> None:
        if not isinstance(over, Mapping) or not over:
            known = ", ".join(loss.record.parameters) or "none"
            problem = f'is {check.shown(over)}; expected a dictionary such as {{"gamma": (0.0, 5.0)}} of the parameters'
            raise CallTypeError(f"{problem} of {loss.name}: {known}", "over")
        self.loss = loss
        self.axes = [Axis(loss, name, bounds) for name, bounds in over.items()]

    @property
    def start(self) -> Any:
        """Point of the loss's own parameters."""
        record = self.loss.record
        own = {a.name: record.parameters[a.name].meant(self.loss.defaults[a.name]) for a in self.axes}
        return np.array([a.place(own[a.name]) for a in self.axes])

    def parameters(self, x: Any) -> dict[str, float]:
        """Return the parameters at a point."""
        return {a.name: a.value(float(v)) for a, v in zip(self.axes, x, strict=True)}

    def at(self, x: Any) -> Loss:
        """Return the loss at a point."""
        return self.loss.bind(**self.parameters(x))
