"""A call of a loss of rows on a device: what is checked, what is launched."""

from typing import Any, NamedTuple

import numpy as np

from ...call import check
from ...call.arrays import LEAST
from ...call.errors import CallValueError
from ...call.reduction import reduction_of
from ...call.request import Request
from ...spec.record import FINITE_NONNEGATIVE, NONNEGATIVE, Formula
from ..placement import Place, Placed, note
from ..run_elementwise import named, predicted
from ..runtime.labels import signed
from ..runtime.launch import MAX_BLOCKS
from ..runtime.memory import WIDTH, real
from ..runtime.totals import (
    Total,
    at,
    blocks_for,
    divided_by,
    groups_of,
    mass_of,
    output,
    threads,
)
from .kernels import Inputs, Labels, Outputs, Shape, balancing_kernel, counting_kernel, row_kernel

__all__ = ["BLOCK_FROM", "run"]

BLOCK_FROM = 2048
"""Scores from which a row has a block; below, a warp or a part of one."""

PER_THREAD = 4
"""Scores of a short row that a thread takes at least, so that more rows share a warp."""


class _Target(NamedTuple):
    """Target of a call: labels, or one number per class or per row."""

    kind: str
    placed: Placed
    allowed: Any
    """Allowed values: a domain, or their description."""
    classes: int = 0
    ignored: int = LEAST
    quoted: Placed | None = None
    """Labels as the caller gave them, where kernels read a copy whose values may differ."""


def _team(k: int) -> int:
    """The logarithm of how many threads share a row; it depends on the length alone."""
    # A warp would read a long row 32 scores at a time, while other multiprocessors idle where rows are few.
    if k >= BLOCK_FROM:
        return threads().bit_length() - 1
    return min(5, max(0, (-(-k // PER_THREAD) - 1).bit_length()))


def _target(place: Place, record: Formula, given: Any, z: Placed, ignore_index: Any, axis: int) -> _Target:
    loop, (*rows, k), number = record.row_loop, z.shape, real(z.dtype)
    t = place.take(given, "target")
    integer = t.dtype.startswith(("int", "uint", "bool"))
    if check.row_target(record, t.dtype, integer, t.shape, tuple(rows), k, axis) == "labels":
        classes = loop.classes(k)
        ignored = LEAST if ignore_index is None else int(ignore_index)
        allowed = check.labels_allowed(classes, ignore_index)
        if t.dtype == "uint64":
            return _Target("labels", signed(place, t, classes, ignore_index), allowed, classes, ignored, t)
        if t.dtype not in ("int64", "int32"):
            t = place.take(given, "target", "int64")
        return _Target("labels", t, allowed, classes, ignored)
    if loop.dense != "number":
        given = place.moved(given, "target", axis, -1)
        t = place.take(given, "target")
        check.same_shape("target", t.shape, z.shape)
    fits = t.dtype == number or (t.dtype == z.dtype and loop.dense != "number")
    return _Target("dense", t if fits else place.take(given, "target", number), record.target_domain)


def _class_weight(place: Place, record: Formula, given: Any, k: int, number: str) -> Placed | None:
    if given is None:
        return None
    found = place.take(given, "class_weight", number)
    check.class_weight(record, found.shape, k)
    return found


def _counted(place: Place, target: _Target, weight: Placed | None, class_weight: Placed | None, number: str) -> Placed:
    """The sum of the weights of the rows that count, on the device."""
    t = target.placed
    total = Total.of(place, number, blocks_for(t.size))
    arrays = at(t, weight, class_weight, total.partials, total.firsts)
    sizes = (np.uint64(t.size), np.int64(target.classes), np.int64(target.ignored), t.dtype == "int64")
    counting_kernel(number)(total.blocks, threads(), place.stream, *arrays, *sizes)
    return total.end(1.0)[0]


def _balanced(place: Place, class_weight: Placed, rows: Placed, mass: Placed) -> Placed:
    """Class weights by which the mean may be divided by the rows that count, as on the CPU."""
    result = place.empty(class_weight.shape, class_weight.dtype)
    arrays = at(class_weight, rows, mass, result)
    blocks = blocks_for(class_weight.size)
    balancing_kernel(class_weight.dtype)(blocks, threads(), place.stream, *arrays, np.uint64(class_weight.size))
    return result


def _scores(place: Place, record: Formula, request: Request) -> tuple[Placed, int]:
    """Return the checked prediction with its classes along the last axis, and the axis that they had."""
    prediction, axis = request.prediction, request.axis
    check.target_given(record, request.target)
    check.integer("axis", axis)
    check.label_to_ignore(request.ignore_index)
    dims = len(prediction.shape) if hasattr(prediction, "shape") else np.ndim(prediction)
    if dims == 0:
        raise CallValueError(f"is a scalar; expected rows of scores along axis {axis}", "prediction")
    if not -dims <= axis < dims:
        raise CallValueError(f"is {axis}; the prediction has {dims} dimensions", "axis")
    axis = -1 if axis == dims - 1 else axis
    if axis != -1 and request.out is not None:
        raise NotImplementedError(f"{record.name} on a GPU writes to out along the last axis alone; axis is {axis}")
    z = predicted(place, place.moved(prediction, "prediction", axis, -1), "prediction")
    stored, k = z.dtype, z.shape[-1]
    if record.row_loop.top_only and k > 1 << np.finfo(getattr(np, real(stored))).nmant:
        raise NotImplementedError(f"{record.name} of {k} classes in {stored} has no CUDA kernel, which counts in it")
    return z, axis


def _mass(
    place: Place, loss: Any, goal: _Target, weight: Placed | None, class_weight: Placed | None, number: str
) -> tuple[Placed | None, Placed | None]:
    """Return the divisor of the mean over weighted or labelled rows, on the device, and the factors of the classes."""
    if goal.kind != "labels":
        return None if weight is None else mass_of(place, weight), class_weight
    counted = class_weight if loss.record.row_loop.divides else None
    mass = _counted(place, goal, weight, counted, number)
    if counted is None or not loss.defaults.get("z_loss", 0.0) > 0.0:
        return mass, class_weight
    rows = _counted(place, goal, weight, None, number)
    return rows, _balanced(place, counted, rows, mass)


def run(place: Place, loss: Any, request: Request) -> tuple[Any, Any, Any]:
    """Launch the kernels of a call; nothing waits for them."""
    record: Formula = loss.record
    mode, _, target, weight, reduction, divisor, out, class_weight, ignore_index = request[:9]
    reduction = reduction_of(record, reduction)
    if request.details:
        raise NotImplementedError(f"{record.name} has no details on a GPU")
    if not record.row_loop.describes and loss.defaults.get("label_smoothing", 0.0) > 0.0:
        raise NotImplementedError(f"{record.name} with label_smoothing has no CUDA kernel")
    z, axis = _scores(place, record, request)
    stored, shape, k = z.dtype, z.shape[:-1], z.shape[-1]
    number = real(stored)
    kind = getattr(np, number)
    goal = _target(place, record, target, z, ignore_index, axis)
    w = None if weight is None else place.take(weight, "weight", number, shape)
    c = _class_weight(place, record, class_weight, k, number)
    t, labelled = goal.placed, goal.kind == "labels"
    n = int(np.prod(shape, dtype=np.int64))
    divided = 1.0 if labelled and divisor is None else divided_by(reduction, divisor, n, w)
    mass, factors = None, c
    if reduction == "mean" and divisor is None and n:
        mass, factors = _mass(place, loss, goal, w, c, number)

    sets = request.orders
    values = place.empty(shape, stored) if reduction == "none" and sets < 2 else None
    kept = [x for x in (z, t, goal.quoted, w, c) if x is not None]
    derivatives: list[Placed] = []
    for o, name in named(out, sets):
        derivatives.append(output(place, o, name, z, (*kept, *derivatives)))
    outputs = (values, *derivatives, *[None] * (2 - len(derivatives)))
    wide = [z, factors, *derivatives, *([] if labelled or not record.row_loop.has_classes else [t])]
    whole = groups_of(stored, k, *wide) if k % WIDTH[stored] == 0 else 0
    shift = _team(k)
    total = Total.of(place, number, max(1, min(MAX_BLOCKS, -(-(n << shift) // threads()))))
    sizes = Shape(*map(np.uint64, (n, k, whole, shift)))
    labels = Labels(np.int64(goal.classes), np.int64(goal.ignored), t.dtype == "int64")
    fixed = sizes, labels, kind(1.0 / divided if divided else 0.0), *at(mass)
    kernel = row_kernel(record, goal.kind, stored, number if labelled else t.dtype)
    arrays = Inputs(*at(z, t, w, factors)), Outputs(*at(*outputs)), *at(total.partials, total.firsts)
    kernel(total.blocks, threads(), place.stream, *arrays, *fixed, mode == "surrogate", tuple(map(kind, loss._packed)))
    reduced, cell = total.end(divided, mass)
    domains = (record.prediction_domains[0], goal.allowed, NONNEGATIVE, FINITE_NONNEGATIVE)
    names, given = ("prediction", "target", "weight", "class_weight"), (z, goal.quoted or t, w, c)
    note(record.name, place, cell, names, domains, given)
    results = [place.moved(place.give(o), "the gradient", -1, axis) for o in derivatives]
    if sets == 2:
        return results[0], results[1], None
    return place.give(values if values is not None else reduced), results[0] if results else None, None
