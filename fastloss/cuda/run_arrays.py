"""A call of a loss of several arrays on a device: what all of them have in common."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from ..call import check, layout
from ..call.reduction import reduction_of
from ..call.request import Request
from ..spec.record import Formula, Input
from .placement import ARRAYS, Place, Placed, note, number_alone
from .run_elementwise import predicted
from .runtime.scalars import Watch, readable
from .runtime.totals import Total, at, divided_by, mass_of, output, returned

__all__ = ["Call", "run"]


class Call:
    """One call, as the module of kernels of a loss gets it: arrays on the device, room for what it computes."""

    def __init__(self, place: Place, loss: Any, given: dict[str, Any]) -> None:
        self.place = place
        self.record: Formula = loss.record
        self.parameters: dict[str, Any] = loss._meant
        """Parameters in the caller's form: bools, strings, None, integers, floats."""
        self.packed = loss._packed
        self.dims: layout.Dims = {}
        self.given = given
        self.labelled: set[str] = set()
        """Regions that are given as the label of each pixel."""
        self.numbers = {k: float(x) for k, x in given.items() if _number(x, self.record.inputs[k])}
        """Numbers that stand for all elements of an input."""
        own = self.record.predictions
        taken = {
            k: (predicted if k in own else Place.take)(place, x, k) for k, x in given.items() if k not in self.numbers
        }
        self.differentiable = tuple(k for k in own if k in taken)
        self.dtypes = tuple(taken[k].dtype for k in self.differentiable)
        self.number = "float64" if "float64" in self.dtypes else "float32"
        """The precision computed in, and the format of all predictions."""
        self.stored = self.dtypes[0] if len(set(self.dtypes)) == 1 else self.number
        self.arrays: dict[str, Placed | None] = {
            k: self._laid(k, taken[k]) if k in taken else None for k in self.record.inputs
        }
        for k, x in self.numbers.items():
            check.violation(k, np.asarray(x), self.record.inputs[k].domain)
        self.shape = layout.shape_of(self.record.axes(self.parameters), self.dims)
        self.units = Placed(None, None, self.shape, "").size
        self.nothing = self.units == 0 or any(taken[k].size == 0 for k in self.differentiable)
        self.values: Placed | None = None
        self.grads: tuple[Placed | None, ...] = (None,) * len(self.record.predictions)
        self.weight: Placed | None = None
        self.mass: Placed | None = None
        self.divided = 1.0
        self.averaged = False
        """Whether the sum is divided by what counts, or by the weights of that."""
        self.watches: list[Watch] = []
        """Inputs that the kernel tests, set by the function that launches it."""

    def _laid(self, name: str, x: Placed) -> Placed:
        """An input of the shape that it must have, in a format that kernels read."""
        spec, dims, shape = self.record.inputs[name], self.dims, x.shape
        integer = x.dtype.startswith(("int", "uint"))
        if shape == () and spec.dims == "*" and "*" in dims:
            x = self.place.take(self.given[name], name, self.number, dims["*"])
            shape = x.shape
        if spec.kind == "regions":
            n, c, pixels = dims["n"], dims["c"], dims["+"]
            shape = (n, c, *pixels)
            # Whether any label is ignored would have to be looked up; as labels they count the same.
            if layout.labelled(name, x, integer, dims, lambda: True):
                self.labelled.add(name)
                spec, shape = spec._replace(dims="n +"), (n, *pixels)
        elif spec.dims == "n +" and shape == (dims.get("n"), 1, *dims.get("+", ())):
            shape = (shape[0], *shape[2:])
        layout.settle(name, spec.dims, shape, dims)
        if name in self.labelled and x.dtype == "uint64":
            # Converted where it is launched: messages quote the labels as they were given.
            return x
        fits = x.dtype == self.stored if spec.grad else readable(x.dtype, self.stored, self.number)
        wanted = "int64" if name in self.labelled else self.stored if spec.grad else self.number
        return x if fits else self.place.take(self.given[name], name, wanted)

    def absent(self, *names: str) -> tuple[Any, ...]:
        """Return the placeholders of omitted inputs and of the weight, whose placeholder is 0 for an empty call."""
        kind = getattr(np, self.number)
        return (*(kind(self.numbers.get(k, 0.0)) for k in names), kind(not self.nothing))

    def params(self) -> tuple[Any, ...]:
        """All parameters, those of the formula first."""
        kind = getattr(np, self.number)
        return tuple(map(kind, self.packed)) or (kind(0.0),)

    def divide(self, mass: Placed) -> None:
        """Say that the sum is to be divided by a number on the device."""
        self.divided, self.mass = 1.0, mass

    def factor(self) -> tuple[Any, Any]:
        """Return the factor of the derivatives, and the address of their divisor."""
        if self.averaged and self.weight is not None and self.mass is None:
            self.divide(mass_of(self.place, self.weight))
        return (getattr(np, self.number)(1.0 / self.divided if self.divided else 0.0), *at(self.mass))


def _number(x: Any, spec: Input) -> bool:
    """Whether x is a number in host memory that stands for all elements of an input."""
    return number_alone(x) and spec.dims == "*" and spec.kind == "float" and not spec.grad


def run(place: Place, loss: Any, request: Request) -> tuple[Any, Any]:
    """Launch the kernels of a call; nothing waits for them."""
    record: Formula = loss.record
    reduction, divisor, weight, out = request.reduction, request.divisor, request.weight, request.out
    reduction, derivatives = reduction_of(record, reduction), request.orders > 0
    call = Call(place, loss, {k: x for k, x in zip(request.names, request.prediction, strict=True) if x is not None})
    w = None if weight is None else place.take(weight, "weight", call.number, call.shape)
    if call.nothing:
        check.all_or_none({k: x.shape for k, x in call.arrays.items() if x and k in record.together})
    else:
        call.weight = w
    call.divided = divided_by(reduction, divisor, call.units, call.weight)
    call.averaged = reduction == "mean" and divisor is None
    if reduction == "none":
        call.values = place.empty(call.shape, call.stored)
    if derivatives:
        found = dict(zip(call.differentiable, _outs(call, out, w), strict=True))
        call.grads = tuple(found.get(k) for k in record.predictions)
    total = _launching(record.loop)(call)
    reduced, cell = total.end(call.divided, call.mass)
    _note(call, cell)
    value = place.give(reduced) if call.values is None else returned(place, call.values, call.dtypes[0])
    if not derivatives:
        return value, None
    if out is not None:
        return value, out
    grads = [returned(place, g, dtype) for g, dtype in zip(filter(None, call.grads), call.dtypes, strict=True)]
    return value, grads[0] if len(grads) == 1 else tuple(grads)


def _outs(call: Call, out: Any, weight: Placed | None) -> list[Placed]:
    """Return the output arrays of the derivatives, one for each given input that has derivatives."""
    count = len(call.differentiable)
    outs: tuple[Any, ...] = (out,)
    if count > 1:
        outs = (None,) * count if out is None else check.entries("out", out, count, f"{count} arrays, one per input")
    if out is not None and len(set(call.dtypes)) > 1:
        raise NotImplementedError(f"{call.record.name}: out of several dtypes has no CUDA kernel")
    kept = [x for x in (*call.arrays.values(), weight) if x is not None]
    for k, o in zip(call.differentiable, outs, strict=True):
        like = call.arrays[k]
        assert like is not None
        kept.append(output(call.place, o, "out", like, tuple(kept)))
    return kept[-count:]


def _note(call: Call, cell: Placed) -> None:
    """Remember where what was found out of its domain stands."""
    looked = [(w, call.weight if w.name == "weight" else call.arrays[w.name]) for w in call.watches]
    names, domains = tuple(w.name for w, _ in looked), tuple(w.domain for w, _ in looked)
    note(call.record.name, call.place, cell, names, domains, tuple(x for _, x in looked))


@cache
def _launching(loop: str) -> Callable[[Call], Total]:
    found: Callable[[Call], Total] = import_module(f".{ARRAYS[loop].module}", __package__).launch
    return found
