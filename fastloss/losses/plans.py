"""Plans of small calls of losses over several arrays, kept by the shapes of the inputs.

The general path checks and lays out every input, 15 to 35 us a call. A plan keeps the result of these checks for
one set of shapes and dtypes. It checks the values of each call, and leaves every error to the general path.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from ..call import layout
from ..call.arrays import F32, F64, I64, rounded
from ..call.errors import CallError
from ..cpu.dispatch import PARALLEL_FROM, small_sum
from ..spec.record import Domain, Formula

__all__ = ["Plan", "kernels", "planned"]

I32, BOOL = np.dtype(np.int32), np.dtype(np.bool_)


@cache
def _module(loop: str) -> Any:
    return import_module(f"..cpu.{loop}", __package__)


def kernels(loop: str) -> Callable[[Any], None]:
    """Return the function that runs the kernels of a loop."""
    run: Callable[[Any], None] = _module(loop).run
    return run


class Entry(NamedTuple):
    """Conversion of one input of a plan."""

    name: str
    shape: tuple[int, ...] | None
    """Shape that kernels read; None where it equals the caller's."""
    taken: Callable[[Any], Any] | None
    """Function that converts the array for kernels, or returns None for values that the general path has to check; None
    where kernels read the array as it is."""


Arrays = dict[str, Any]
"""Arrays by the names of inputs."""

Plan = Callable[[tuple[Any, ...], str], tuple[Any, Any] | None]
"""Function of the inputs and the reduction of a call that returns its loss and gradients, or None for other calls."""


def planned(call: Any, raw: Arrays) -> Plan | None:
    """Return the plan of a call that the general path has checked; None where plans cannot serve its kind."""
    record, parameters, laid, dims, dtype = call.record, call.parameters, call.arrays, call.dims, call.dtype
    if any(raw[k].dtype is not dtype for k in record.predictions if k in raw):
        return None
    entries = []
    for name, a in raw.items():
        entry = _entry(record, name, a, laid[name], parameters.get("ignore_index"), dims, dtype)
        if entry is None:
            return None
        entries.append(entry)
    if sum(a.size for a in raw.values()) >= PARALLEL_FROM or call.units >= PARALLEL_FROM:
        return None
    return _plan(call, raw, [e for e in entries if e.shape is not None or e.taken is not None])


def _plan(call: Any, raw: Arrays, changed: list[Entry]) -> Plan:
    """Return the plan of calls like one, of whose inputs some are changed for the kernels."""
    from ..cpu.runtime.objects import like

    kind, record, parameters, dims, shape = type(call), call.record, call.parameters, call.dims, call.shape
    packed, dtype, units, names = call.packed, call.dtype, call.units, tuple(raw)
    alike, evaluate, total_of = like(tuple(raw.values())), _runner(call), small_sum(F64)
    others = None if names == tuple(call.arrays) else {k: None if k in raw else v for k, v in call.arrays.items()}
    given = [(k, raw[k].shape, call.arrays[k].shape) for k in record.predictions if k in call.grads]
    grads = [(k, own, None if own == flat else flat) for k, own, flat in given]
    empty, zeros, several, plain = np.empty, np.zeros, len(grads) > 1, others is None and not changed

    def run(arrays: tuple[Any, ...], reduction: str) -> tuple[Any, Any] | None:
        if not alike(arrays):
            return None
        given = dict(zip(names, arrays))  # noqa: B905 - the lengths are equal, and strict=True takes 0.1 us
        # Saves 0.1 us: nothing writes to inputs that kernels read as they are.
        laid = given if plain else given.copy() if others is None else {**others, **given}
        for name, flat, taken in changed:
            a = given[name]
            if taken is not None and (a := taken(a)) is None:
                return None
            laid[name] = a if flat is None else a.reshape(flat)
        call = kind(record, parameters, laid, dims, shape, zeros(units, F64))
        call.packed, call.given, call.dtype, call.reduction = packed, given, dtype, reduction
        outs = []
        for name, own, flat in grads:
            o = empty(own, dtype)
            outs.append(o)
            call.grads[name] = o if flat is None else o.reshape(flat)
        try:
            evaluate(call)
        except CallError:
            return None
        values = call.values
        if reduction == "none":
            loss: Any = rounded(values.reshape(shape), dtype)
        elif reduction == "sum" or call.counted is None:
            loss = total_of(values)[0] / (units if reduction == "mean" else 1)
        else:
            divided = call.divided()
            loss = total_of(values)[0] / divided if divided != 0.0 else 0.0
        return loss, tuple(outs) if several else outs[0] if outs else None

    return run


def _runner(call: Any) -> Callable[[Any], None]:
    """Return the function that runs calls of this kind, with kernels bound once where their module can prepare them."""
    module = _module(call.record.loop)
    if hasattr(module, "prepare"):
        prepared: Callable[[Any], None] = module.prepare(call)
        return prepared
    run = kernels(call.record.loop)

    def quiet(call: Any) -> None:
        with np.errstate(all="ignore"):
            run(call)

    return quiet


def _entry(record: Formula, name: str, a: Any, laid: Any, ignored: Any, dims: layout.Dims, dtype: Any) -> Entry | None:
    """Return the entry of one input; None where only the general path can convert such an input."""
    spec = record.inputs[name]
    if type(a) is not np.ndarray or a.ndim == 0 or a.size != laid.size or not a.dtype.isnative:
        return None
    shape = None if a.shape == laid.shape else laid.shape
    checked = name not in record.checked_by_kernel
    if spec.kind in ("float", "double") or (spec.kind == "regions" and laid.dtype.kind == "f"):
        if a.dtype.kind == "f" and a.dtype.itemsize > laid.dtype.itemsize:
            # Left to the general path: rounding can take values out of the domain, or overflow.
            return None
        same, bounded = a.dtype is laid.dtype, layout.bounded(spec.domain) and checked
        return Entry(name, shape, _numbers(laid.dtype, spec.domain if bounded else None, same))
    if spec.kind == "binary" and a.dtype in (BOOL, F32, F64, I64):
        return Entry(name, shape, _binary())
    classes: int = dims.get(spec.classes, 0)
    if spec.kind == "regions" and a.shape == (dims["n"], *dims["+"]):
        # Pixel labels: a single class has the labels 0 and 1.
        spec, classes = spec._replace(kind="labels", classes="c"), max(dims["c"], 2)
    if spec.kind in ("labels", "lengths") and a.dtype in (I64, I32):
        high = classes - (spec.kind != "lengths")
        ignored = ignored if spec.kind == "labels" else None
        return Entry(name, shape, _whole(high, ignored) if spec.classes and checked else _to_whole)
    return None


def _numbers(dtype: Any, domain: Domain | None, same: bool) -> Callable[[Any], Any] | None:
    """Return the function that converts floats to a dtype, or returns None where one is outside a domain."""
    if domain is None:
        return None if same else lambda a: a.astype(dtype)
    sum_of = small_sum(dtype, domain)

    def taken(a: Any) -> Any:
        a = a if same else a.astype(dtype)
        return a if sum_of(a.reshape(-1))[1] == 0.0 else None

    return taken


def _to_whole(a: Any) -> Any:
    return a.astype(I64, copy=False)


def _whole(high: int, ignored: int | None) -> Callable[[Any], Any]:
    """Return the function that converts labels to int64, -1 for ignored ones, or returns None for one out of range."""
    from ..cpu.runtime.units import all_between, without_ignored

    def taken(a: Any) -> Any:
        a = a.astype(I64, copy=False)
        apart = ignored is None or not 0 <= ignored <= high
        if apart and all_between(a.reshape(-1), high):
            return a
        if ignored is None:
            return None
        kept = np.empty_like(a)
        return kept if without_ignored(a.reshape(-1), high, ignored, kept.reshape(-1)) else None

    return taken


def _binary() -> Callable[[Any], Any]:
    """Return the function that converts zeros and ones to bytes, or returns None for other values."""
    from ..cpu.runtime.units import all_binary

    return lambda a: (a != 0).view(np.uint8) if a.dtype is BOOL or all_binary(a.reshape(-1)) else None
