"""A call of an elementwise loss on a device: what is checked, what is launched."""

from typing import Any

import numpy as np

from ..call import check
from ..call.arrays import not_floating
from ..call.reduction import reduction_of
from ..call.request import Request
from ..cpu.runtime.access import PARAMETERS
from ..spec.record import NONNEGATIVE, Formula
from .elementwise import elementwise_kernel
from .placement import Place, Placed, note, number_alone
from .runtime.memory import WIDTH, real
from .runtime.totals import (
    Total,
    at,
    blocks_for,
    divided_by,
    groups_of,
    mass_of,
    output,
    returned,
    threads,
)

__all__ = ["run"]


def predicted(place: Place, given: Any, what: str) -> Placed:
    """Return a prediction as a device array of floats; integers become float64, in which the loss is computed."""
    x = place.take(given, what)
    # On the device: the integers do not pass through the host.
    if x.dtype.startswith(("int", "uint")):
        x = place.take(given, what, "float64")
    if x.dtype not in WIDTH:
        raise not_floating(x.dtype, what)
    return x


def _common(place: Place, record: Formula, prediction: Any) -> tuple[tuple[Placed, ...], tuple[str, ...]]:
    """The predictions, of one shape and dtype; and the dtypes that they came in."""
    names = record.predictions
    if len(names) == 1:
        x = predicted(place, prediction, "prediction")
        return (x,), (x.dtype,)
    found = [predicted(place, x, name) for x, name in zip(check.several(record, prediction), names, strict=True)]
    dtypes = tuple(x.dtype for x in found)
    # One format for all predictions: a kernel for each mixture would be compiled anew.
    dtype = dtypes[0] if len(set(dtypes)) == 1 else "float64" if "float64" in dtypes else "float32"
    for x, name in zip(found, names, strict=True):
        check.same_shape(name, x.shape, found[0].shape)
    same = (place.take(x.array, n, dtype) if x.dtype != dtype else x for x, n in zip(found, names, strict=True))
    return tuple(same), dtypes


def _target(place: Place, record: Formula, target: Any, like: Placed, number: str) -> Placed | None:
    if not check.target_given(record, target):
        return None
    if number_alone(target) or getattr(target, "shape", None) == ():
        return place.take(target, "target", number, like.shape)
    t = place.take(target, "target")
    check.same_shape("target", t.shape, like.shape)
    return t if t.dtype in (like.dtype, number) else place.take(target, "target", number)


def run(place: Place, loss: Any, request: Request) -> tuple[Any, Any]:
    """Launch the kernels of a call; nothing waits for them."""
    record: Formula = loss.record
    mode, prediction, target, weight, reduction, divisor, out = request[:7]
    reduction = reduction_of(record, reduction)
    if any(type(v) is tuple for v in loss.defaults.values()):
        raise NotImplementedError(f"{record.name} with a level per column has no CUDA kernel")
    if len(record.parameters) > PARAMETERS:
        raise NotImplementedError(f"{record.name} with more than {PARAMETERS} parameters has no CUDA kernel")
    preds, dtypes = _common(place, record, prediction)
    if out is not None and len(set(dtypes)) > 1:
        raise NotImplementedError(f"{record.name}: out of several dtypes has no CUDA kernel")
    stored, shape, size = preds[0].dtype, preds[0].shape, preds[0].size
    number = real(stored)
    kind = getattr(np, number)
    t = _target(place, record, target, preds[0], number)
    w = None if weight is None else place.take(weight, "weight", number, shape)
    divided = divided_by(reduction, divisor, size, w)
    # Left on the device, where the kernel reads it: the host does not wait.
    mass = mass_of(place, w) if w is not None and reduction == "mean" and divisor is None and size else None

    sets = request.orders
    wants_rows = reduction == "none" and sets < 2
    values = place.empty(shape, stored) if wants_rows else None
    groups = [_outs(place, o, name, preds, (t, w)) for o, name in named(out, sets)]
    curved = record.second or record.surrogate is not None
    derivatives = [o for group in groups for o in group]
    outputs = (values, *derivatives, *[None] * (len(preds) * (1 + curved) - len(derivatives)))
    inputs = (*preds, *((t,) if record.target else ()), w)
    # All arrays or none: the kernel has one loop over groups of 128 bits.
    whole = groups_of(stored, size, *inputs, *outputs)
    total = Total.of(place, number, blocks_for(-(-size // WIDTH[stored])))
    scale = kind(1.0 / divided if divided else 0.0)
    # Run-time numbers: another delta needs no compilation. A tuple without numbers has no type.
    params = tuple(map(kind, loss._packed)) or (kind(0.0),)
    fixed = (np.uint64(size), np.uint64(whole), scale, *at(mass), mode == "surrogate", params)
    kernel = elementwise_kernel(record, stored, stored if t is None else t.dtype)
    kernel(total.blocks, threads(), place.stream, at(*inputs), at(*outputs), *at(total.partials, total.firsts), *fixed)
    # By a second kernel on the same stream: blocks end in any order, and atomics would sum in any order.
    reduced, cell = total.end(divided, mass)
    names = record.predictions if len(preds) > 1 else ("prediction",)
    domains = (*record.prediction_domains, *((record.target_domain,) if record.target else ()), NONNEGATIVE)
    note(record.name, place, cell, (*names, *(("target",) if record.target else ()), "weight"), domains, inputs)
    results = [tuple(returned(place, o, dtype) for o, dtype in zip(group, dtypes, strict=True)) for group in groups]
    single = [r[0] if len(preds) == 1 else r for r in results]
    if sets == 2:
        return single[0], single[1]
    return place.give(reduced) if values is None else returned(place, values, dtypes[0]), single[0] if single else None


def named(out: Any, sets: int) -> list[tuple[Any, str]]:
    """Return the output array given for each order of derivatives, or None, with its name."""
    if sets < 2:
        return [(out, "out")] * sets
    given = (None, None) if out is None else check.entries("out", out, 2, "a pair (gradient, curvature)")
    return [(given[0], "out[0]"), (given[1], "out[1]")]


def _outs(place: Place, out: Any, name: str, preds: tuple[Placed, ...], others: tuple[Any, ...]) -> tuple[Placed, ...]:
    """Return the output arrays of the derivatives of one order, one for each prediction."""
    given: tuple[Any, ...] = (out,)
    if len(preds) > 1:
        given = (None,) * len(preds)
        if out is not None:
            given = check.entries(name, out, len(preds), f"{len(preds)} arrays, one per prediction")
    kept = tuple(x for x in (*preds, *others) if x is not None)
    found: list[Placed] = []
    for o, p in zip(given, preds, strict=True):
        found.append(output(place, o, name, p, (*kept, *found)))
    return tuple(found)
