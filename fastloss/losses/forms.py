"""Calls of losses over several arrays in a form that their kernels do not read, written as calls that they do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..call.arrays import finish, incoming, outgoing, outputs, predicted, rounded
from ..call.request import Request
from ..cuda import placement
from ..cuda.libraries import on_device

__all__ = ["FORMS", "How", "reformed"]


class How(NamedTuple):
    """Options of a call."""

    weight: Any
    reduction: Any
    divisor: Any
    out: Any
    derivatives: bool


def reformed(loss: Any, inputs: dict[str, Any], how: How) -> tuple[Any, Any] | None:
    """Serve a call in another form; return None where the kernels read it as it is."""
    form = FORMS[loss.record.name]
    if not form.applies(loss, inputs):
        return None
    if any(on_device(x) for x in (*inputs.values(), how.weight) if x is not None):
        names = tuple(inputs)
        mode = "grad" if how.derivatives else "value"
        request = Request(mode, tuple(inputs.values()), None, *how[:4], names=names)
        moved: tuple[Any, Any] = placement.on_host(loss._run_placed, request)
        return moved
    own = loss.record.predictions
    raw = {k: predicted(v, k) if k in own else incoming(v, k) for k, v in inputs.items() if v is not None}
    value, grads = form.serve(loss, raw, how)
    back = outgoing(inputs[own[0]])
    if isinstance(value, np.ndarray) and back is not None:
        value = back(value)
    if not how.derivatives:
        return value, None
    arrays = tuple(raw[k] for k in own if k in raw)
    others = [v for k, v in raw.items() if k not in own]
    outs = outputs(how.out, 1, arrays, (*others, how.weight))
    for o, grad in zip(outs[0], grads, strict=True):
        o[...] = rounded(np.asarray(grad), o.dtype)
    return value, finish(outs, how.out, back)[0]


def _called(loss: Any, inputs: dict[str, Any], how: How, weight: Any = None) -> tuple[Any, tuple[Any, ...]]:
    """Return the value and the gradients of a call that the kernels read."""
    weight = how.weight if weight is None else weight
    value, grads = loss._run(inputs, weight, how.reduction, how.divisor, None, how.derivatives)
    return value, grads if isinstance(grads, tuple) else (grads,)


def _sorted_ratios(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Serve dpo's variants of optimal transport, which match log ratios of one rank."""
    plain = loss._with({"variant": "sigmoid"})
    chosen, rejected, *reference = (raw[k] for k in ("chosen", "rejected", "ref_chosen", "ref_rejected"))
    paired = loss._meant["variant"] == "aot_pair"
    if paired:
        first, second = chosen - reference[0], rejected - reference[1]
    else:
        first, second = chosen - rejected, reference[0] - reference[1]
    orders = [np.argsort(x, axis=0, kind="stable") for x in (first, second)]
    ranked = [np.take_along_axis(x, o, axis=0) for x, o in zip((first, second), orders, strict=True)]
    zero = np.zeros_like(first)
    given = dict(zip(("chosen", "rejected", "ref_chosen", "ref_rejected"), (*ranked, zero, zero), strict=True))
    value, grads = _called(plain, given, how)
    if not how.derivatives:
        return value, ()
    found = [np.empty_like(g) for g in grads]
    for into, order, g in zip(found, orders, grads, strict=True):
        np.put_along_axis(into, order, g, axis=0)
    return value, tuple(found) if paired else (found[0], -found[0])


class Form(NamedTuple):
    """Another form of the calls of a loss."""

    applies: Callable[[Any, dict[str, Any]], bool]
    """Function of the loss and its inputs: whether a call has this form."""
    serve: Callable[[Any, dict[str, Any], How], tuple[Any, tuple[Any, ...]]]
    """Function of the loss, the inputs as NumPy arrays and the options: the value, and the gradients."""


FORMS = {
    "dpo": Form(lambda loss, inputs: loss._meant["variant"] in ("aot", "aot_pair"), _sorted_ratios),
}
"""Other forms of calls, by the name of the loss."""
