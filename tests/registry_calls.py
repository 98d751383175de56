"""Small calls of any loss, made from what its record says of its inputs."""

from itertools import product

import numpy as np

import fastloss as fl
from fastloss.spec.record import LOOPS

NAMES = list(fl.LOSSES)


def within(domain, shape, dtype):
    """Numbers of a domain, near 1/2 or 1 where these belong to it."""
    x = 0.5 + 0.01 * np.arange(int(np.prod(shape))).reshape(shape)
    if not domain.outside(0.5):
        return x.astype(dtype)
    return np.where(domain.outside(x + 1.0), 1.0, x + 1.0).astype(dtype) * (-1.0 if domain.outside(1.0) else 1.0)


def _of_elements(record, shapes, dtype):
    for shape in shapes:
        predictions = tuple(within(d, shape, dtype) for d in record.prediction_domains)
        target = None if record.target is None else within(record.target_domain, shape, dtype)
        yield (predictions if len(predictions) > 1 else predictions[0], target), {}


def _of_rows(record, shapes, dtype):
    loop = LOOPS[record.loop]
    for n, k in shapes:
        z = np.linspace(-1.0, 1.0, n * k).reshape(n, k).astype(dtype)
        targets = [np.zeros(n, np.int64)] if loop.labels else []
        if loop.labels:
            targets.append(np.full(n, -100))
        if loop.dense:
            targets.append(np.full(n if loop.dense == "number" else (n, k), 1.0 / max(k, 1), dtype))
        for t in targets:
            yield (z, t), {}


def _input(spec, dims, dtype):
    """One array of a loss of several, with the lengths of its axes given."""
    sizes = []
    for axis in spec.dims.split():
        name, _, more = axis.partition("+") if axis not in "*+" else (axis, "", "")
        sizes.append(int(name) if name.isdecimal() else dims[name] + int(more or 0))
    if spec.kind == "offsets":
        return np.linspace(0, dims[spec.classes], sizes[0]).astype(np.int64)
    if spec.kind == "lengths":
        return np.full(sizes, dims[spec.classes] if spec.classes else 5)
    if spec.kind == "labels":
        return np.arange(int(np.prod(sizes))).reshape(sizes) % max(1, dims.get(spec.classes, 2))
    if spec.kind in ("mask", "binary"):
        return np.ones(sizes, bool)
    return within(spec.domain, tuple(sizes), dtype)


def _axes(record):
    found = {}
    for spec in record.inputs.values():
        for axis in spec.dims.split():
            name = axis if axis in "*+" else axis.partition("+")[0]
            if not name.isdecimal():
                found[name] = True
    return list(found)


def _of_arrays(record, lengths, dtype):
    """Calls with every axis of its usual length but one."""
    axes = _axes(record)
    usual = dict.fromkeys(axes, 2)
    settings = [usual] + [{**usual, axis: length} for axis, length in product(axes, lengths)]
    optional = [name for name, spec in record.inputs.items() if spec.optional]
    for dims, given in product(settings, ([], optional) if optional else ([],)):
        names = [name for name, spec in record.inputs.items() if not spec.optional or name in given]
        yield (), {name: _input(record.inputs[name], dims, dtype) for name in names}


def calls(name, dtype=np.float64):
    """(positional, named) arguments of calls with axes of no length, of length 1, and usual ones."""
    record = fl.LOSSES[name].record
    if record.family == "elementwise":
        yield from _of_elements(record, [(0,), (3, 0), (1,), (1, 3)], dtype)
    elif record.family == "rows":
        yield from _of_rows(record, [(0, 0), (0, 3), (3, 0), (1, 1), (1, 3), (3, 1), (2, 3)], dtype)
    else:
        yield from _of_arrays(record, [0, 1], dtype)


def ways(name):
    """Functions that call a loss in every way: its results by reduction, derivatives, by-products."""
    loss = fl.LOSSES[name]
    for reduction in ("mean", "none"):
        yield lambda *a, r=reduction, **k: loss(*a, reduction=r, **k)
        yield lambda *a, r=reduction, **k: loss.value_and_grad(*a, reduction=r, **k)
    if loss.record.second:
        yield loss.grad_and_hess
    if loss.record.loop == "softmax":
        yield lambda *a, **k: loss.value_and_grad(*a, details=True, **k)
        yield loss.details


def flat(result):
    """The arrays and numbers of a result, in order."""
    if isinstance(result, (tuple, list)):
        return [x for part in result for x in flat(part)]
    return [] if result is None else [np.asarray(result)]
