"""Calls as autograd libraries see them: a sequence of arrays, and all that is no array beside it."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np

from ..call.layout import settle, shape_of
from ..losses.base import Loss
from ..losses.catalogue import LOSSES
from ..losses.forms import shape_of_form
from ..spec.record import Formula

__all__ = ["OPTIONS", "Call", "array_names", "kind_of", "name_of", "sorted_call"]

WEIGHTS = ("weight", "class_weight")
"""Keywords of losses that are arrays beside their inputs."""

OPTIONS = ("reduction", "divisor", "ignore_index", "axis")
"""Keywords of losses that are neither arrays nor parameters of a formula."""

OWN: dict[str, Loss] = {}
"""Losses that are not in the catalogue, by name."""


class Call:
    """Kind of a call: a loss with its parameters bound, its options, and the names of its arrays in order."""

    def __init__(self, loss: Loss, names: tuple[str, ...], positional: int, options: dict[str, Any]) -> None:
        record, own = loss.record, _predictions(loss.record)
        self.loss, self.names, self.positional, self.options = loss, names, positional, options
        self.differentiable = tuple(i for i, n in enumerate(names) if n in own)
        """Positions of the arrays by which the loss is differentiated."""
        several = record.family == "elementwise" and len(own) > 1
        self.grouped = len(own) if several and positional >= len(own) else 0
        """Number of first arrays that are passed as one tuple of predictions; 0 where they are passed one by one."""
        self.is_plain = positional == len(names) and not (self.grouped or options)
        given = options.get("reduction")
        self.reduction: str = record.reduction if given is None else given
        self.is_pulled = self.reduction == "none" and record.family not in ("elementwise", "rows")
        """Whether gradients can only be had together with the factors of the units, which may share elements."""
        levels = any(type(v) is tuple for v in loss.defaults.values())
        is_summed = self.reduction in ("mean", "sum", "none") and not (levels or loss._rewritten)
        self.is_curved = record.family == "elementwise" and len(own) == 1 and record.second and is_summed
        """Whether the second derivative is known in full: of one prediction, element by element."""

    def arguments(self, arrays: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return arrays as positional and named arguments of the loss."""
        if self.is_plain:
            return arrays, self.options
        first, n = tuple(arrays[: self.positional]), self.positional
        if self.grouped:
            first = (first[: self.grouped], *first[self.grouped :])
        return first, {**self.options, **dict(zip(self.names[n:], arrays[n:], strict=True))}

    def value(self, arrays: Sequence[Any]) -> Any:
        """Return the loss."""
        args, keywords = self.arguments(arrays)
        return self.loss(*args, **keywords)

    def value_and_grads(self, arrays: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        """Return the loss and its gradients, one for each differentiable array."""
        args, keywords = self.arguments(arrays)
        value, *results = self.loss.value_and_grad(*args, **keywords)
        grads = results[0] if isinstance(results[0], tuple) else (results[0],)
        if isinstance(results[-1], dict):
            # Of penalties, by the names of their parameters.
            grads = (*(grads if len(results) > 1 else ()), *results[-1].values())
        return value, grads

    def pull(self, arrays: Sequence[Any], factors: Any) -> Sequence[Any]:
        """Return the gradients of the sum of per-unit losses times factors, of either sign."""
        args, keywords = self.arguments(arrays)
        factors = factors * keywords.get("weight", 1.0)
        keywords = {**keywords, "reduction": "sum"}
        found: list[Any] = []
        # Weights are nonnegative: a difference of two calls where some factors are below 0.
        for sign in (1.0, -1.0):
            part = np.maximum(sign * factors, 0.0)
            if sign < 0.0 and not part.any():
                break
            grads = self.loss.value_and_grad(*args, **{**keywords, "weight": part})[1]
            grads = grads if isinstance(grads, tuple) else (grads,)
            found = [a - b for a, b in zip(found, grads, strict=True)] if found else list(grads)
        return found

    def derivatives(self, arrays: Sequence[Any]) -> tuple[Any, Any]:
        """Return first and second derivative of each element, as parts of the reduced loss."""
        args, keywords = self.arguments(arrays)
        weight, divisor = keywords.get("weight"), keywords.get("divisor")
        g, h = self.loss.grad_and_hess(*args, weight=weight)
        if divisor is None and self.reduction == "mean":
            divisor = g.size if weight is None else np.broadcast_to(weight, g.shape).sum(dtype=np.float64)
        return (g, h) if divisor is None else (g / divisor, h / divisor)

    def shape(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """Return the shape of the result, from arrays whose shapes alone are known."""
        if self.reduction != "none":
            return ()
        record, first = self.loss.record, tuple(arrays[0].shape)
        if record.family == "elementwise":
            return first
        if record.family == "rows":
            axis = self.axis(len(first))
            return (*first[:axis], *first[axis + 1 :])
        shapes = {name: tuple(array.shape) for name, array in zip(self.names, arrays, strict=True)}
        other = shape_of_form(self.loss, shapes)
        if other is not None:
            return other
        dims: dict[str, Any] = {}
        for name, array in zip(self.names, arrays, strict=True):
            if name in record.predictions or name == "offsets":
                settle(name, record.inputs[name].dims, tuple(array.shape), dims)
        dims.setdefault("g", 1)
        parameters = {k: record.parameters[k].meant(v) for k, v in self.loss.defaults.items()}
        return shape_of(record.axes(parameters), dims)

    def axis(self, ndim: int) -> int:
        """Return the axis of scores of a row-wise loss, counted from the first."""
        return int(self.options.get("axis", -1)) % ndim


def _predictions(record: Formula) -> tuple[str, ...]:
    """Return the names of the inputs by which a loss is differentiated."""
    several = record.family == "arrays" or len(record.predictions) > 1
    return record.predictions if several else ("prediction",)


def _inputs(record: Formula) -> tuple[str, ...]:
    """Return the names of the inputs of a loss, in the order of the call."""
    return tuple(record.inputs) or (*_predictions(record), *(("target",) if record.target else ()))


def array_names(record: Formula) -> frozenset[str]:
    """Return the names of all arguments of a loss that are arrays."""
    return frozenset((*_inputs(record), *WEIGHTS))


def sorted_call(loss: Loss, arrays: tuple[Any, ...], options: dict[str, Any]) -> tuple[Call, tuple[Any, ...]]:
    """Sort the arguments of a call into its kind and its arrays; those that were left out have no place."""
    record = loss.record
    names = _inputs(record)
    given = _by_position(record, names, arrays)
    options = dict(options)
    for name in [n for n in options if n in names or n in WEIGHTS]:
        if name in given:
            raise TypeError(f"{record.name}: {name} is given twice, by position and by name")
        given[name] = options.pop(name)
    order = tuple(n for n in dict.fromkeys((*names, *WEIGHTS)) if given.get(n) is not None)
    kept = {k: options.pop(k) for k in OPTIONS if k in options and k not in record.parameters}
    positional = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(order, names, strict=False))))
    call = Call(loss.bind(**options) if options else loss, order, positional, kept)
    return call, tuple(given[n] for n in order)


def _by_position(record: Formula, names: tuple[str, ...], arrays: tuple[Any, ...]) -> dict[str, Any]:
    """Return the arrays given by position under their names."""
    several = record.family == "elementwise" and len(record.predictions) > 1
    if arrays and type(arrays[0]) is tuple:
        arrays = (*arrays[0], *arrays[1:])
    elif several and record.target and len(arrays) > 1 and record.link != "difference":
        # Others take (mean, target, variance): no order of three tells which is meant.
        names = (names[0], "target") if len(arrays) == 2 else ()
    if len(arrays) > len(names):
        shown = f"(({', '.join(record.predictions)}), target), the predictions as a tuple or by name"
        expected = f"({', '.join(names)})" if names else shown
        raise TypeError(f"{record.name} takes {expected}; {len(arrays)} arrays given")
    return dict(zip(names, arrays, strict=False))


def name_of(loss: Loss) -> tuple[str, dict[str, Any]]:
    """Return the name by which `kind_of` finds a loss, and the parameters that were bound."""
    name, record = loss.name, loss.record
    changed = {k: v for k, v in loss.defaults.items() if v != record.defaults[k]}
    bound = {k: v if type(v) is tuple else record.parameters[k].meant(v) for k, v in changed.items()}
    known = LOSSES.get(name)
    is_other = known is None or known.record.function is not record.function
    if is_other or _usual(known.record) != _usual(record):  # type: ignore[union-attr]
        name = f"{name}@{id(loss):x}"  # several losses of users may share a name; the entry keeps the object
        OWN[name] = loss
    return name, bound


def _usual(record: Formula) -> tuple[Any, Any]:
    """Return the fields of a record that `bind` changes, beside the parameters."""
    return record.reduction, record.target_domain


@lru_cache(maxsize=1024)
def kind_of(name: str, is_grouped: bool, count: int, words: tuple[str, ...], options: tuple[Any, ...]) -> Any:
    """Return the kind of a call, and the positions of its arrays among those given by position and then by name."""
    given: Any = tuple(range(count))
    keywords = dict(zip(words, range(count, count + len(words)), strict=True))
    loss = OWN[name] if name in OWN else LOSSES[name]
    if is_grouped:
        n = len(loss.record.predictions)
        given = (given[:n], *given[n:])
    return sorted_call(loss, given, {**keywords, **dict(options)})
