"""Calls of losses over several arrays in a form that their kernels do not read, written as calls that they do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..call.arrays import finish, incoming, outgoing, outputs, predicted, rounded
from ..call.errors import CallTypeError, CallValueError
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
    form = FORMS.get(loss.record.name) or FORMS[loss.record.loop]
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


def _has_axis(loss: Any, inputs: dict[str, Any]) -> bool:
    """Whether regions have their classes along another axis, or are judged class by class."""
    if "axis" not in loss._meant:
        return False
    axis = loss._meant["axis"]
    ndim = getattr(inputs["prediction"], "ndim", 0)
    return axis not in (1, 1 - ndim) or loss._meant["average"] == "none"


def _by_class(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Serve a loss of regions whose classes lie along another axis, or whose values are those of each class."""
    axis, z = loss._meant["axis"], raw["prediction"]
    if not -z.ndim <= axis < z.ndim:
        raise CallValueError(f"is {axis}; the prediction has {z.ndim} dimensions", "axis")
    both = [k for k in ("prediction", "target") if raw[k].ndim == z.ndim]
    moved = raw | {k: np.moveaxis(raw[k], axis, 1) for k in both}
    if loss._meant["average"] != "none":
        value, grads = _called(loss._with({"axis": 1}), moved, how)
    else:
        value, grads = _each_class(loss._with({"axis": 1, "average": "macro"}), moved, how)
    return value, tuple(np.moveaxis(g, 1, axis) for g in grads) if how.derivatives else ()


def _each_class(plain: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Return the loss of each class, and the gradient of their sum: a pass for each class."""
    if how.reduction != "none":
        raise CallValueError(f"is {how.reduction!r}; average='none' goes with reduction='none'", "reduction")
    if raw.get("class_weight") is not None:
        raise CallValueError("is given with average='none', whose values are those of each class", "class_weight")
    classes = raw["prediction"].shape[1]
    values, grad = [], np.zeros(raw["prediction"].shape)
    for k in range(0 if plain._meant["include_background"] else 1, classes):
        value, grads = _called(plain, {**raw, "class_weight": np.eye(classes)[k]}, how)
        values.append(value)
        grad = grad + grads[0] if how.derivatives else grad
    return np.stack(values, axis=-1), (grad,)


def _without_reference(loss: Any, inputs: dict[str, Any]) -> bool:
    """Whether a divergence from a reference model is wanted, and the reference is not given."""
    return loss._meant["beta"] > 0.0 and inputs.get("ref_log_prob") is None


def _refused(loss: Any, raw: dict[str, Any], how: How) -> tuple[Any, tuple[Any, ...]]:
    """Raise for a divergence from nothing."""
    problem = f"is missing, and beta is {loss._meant['beta']:g}; pass ref_log_prob=, or beta=0 for no divergence"
    raise CallTypeError(problem, "ref_log_prob")


class Form(NamedTuple):
    """Another form of the calls of a loss."""

    applies: Callable[[Any, dict[str, Any]], bool]
    """Function of the loss and its inputs: whether a call has this form."""
    serve: Callable[[Any, dict[str, Any], How], tuple[Any, tuple[Any, ...]]]
    """Function of the loss, the inputs as NumPy arrays and the options: the value, and the gradients."""


FORMS = {
    "dpo": Form(lambda loss, inputs: loss._meant["variant"] in ("aot", "aot_pair"), _sorted_ratios),
    **dict.fromkeys(("grpo", "cispo", "sapo"), Form(_without_reference, _refused)),
    "regions.sums": Form(_has_axis, _by_class),
}
"""Other forms of calls, by the name of the loss or of its loop."""
