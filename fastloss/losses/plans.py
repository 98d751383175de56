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
from ..call.arrays import F32, F64, I64
from ..cpu.dispatch import PARALLEL_FROM, sum_in_order
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
    """Dtype, shape and conversion of one input of a plan."""

    name: str
    dtype: Any
    shape: tuple[int, ...] | None
    """Shape that kernels read; None where it equals the caller's."""
    taken: Callable[[Any], Any] | None
    """Function that converts the array for kernels, or returns None for values that the general path has to check; None
    where kernels read the array as it is."""


class Plan(NamedTuple):
    """Settings of one kind of call: inputs, shapes of the gradients, dimensions and kernels."""

    entries: tuple[Entry, ...]
    others: dict[str, Any]
    """All inputs by name, in the order of the record: placeholders for omitted inputs, None for the others."""
    grads: tuple[tuple[str, tuple[int, ...], tuple[int, ...] | None], ...]
    """Name of each differentiable input, its shape, and the shape that kernels read where it differs."""
    dims: layout.Dims
    shape: tuple[int, ...]
    dtype: Any
    run: Callable[[Any], None]
    """Function that runs the kernels of a call, without warnings of NumPy."""

    def laid(self, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """Return the inputs in the form kernels read; None where the call is not of the plan's kind."""
        arrays = self.others.copy()
        for name, dtype, shape, taken in self.entries:
            a = inputs[name]
            if type(a) is not np.ndarray or a.dtype is not dtype or not a.flags.carray:
                return None
            if taken is not None:
                a = taken(a)
                if a is None:
                    return None
            arrays[name] = a if shape is None else a.reshape(shape)
        return arrays


Arrays = dict[str, Any]
"""Arrays by the names of inputs."""


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
    if sum(a.size for a in raw.values()) >= PARALLEL_FROM:
        return None
    others = {k: None if k in raw else v for k, v in laid.items()}
    given = [(k, raw[k].shape, laid[k].shape) for k in record.predictions if k in raw]
    grads = [(k, own, None if own == flat else flat) for k, own, flat in given]
    return Plan(tuple(entries), others, tuple(grads), dims, call.shape, dtype, _runner(call))


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
        return Entry(name, a.dtype, shape, _numbers(laid.dtype, spec.domain if bounded else None, same))
    if spec.kind == "binary" and a.dtype in (BOOL, F32, F64, I64):
        return Entry(name, a.dtype, shape, _binary())
    classes: int = dims.get(spec.classes, 0)
    if spec.kind == "regions" and a.shape == (dims["n"], *dims["+"]):
        # Pixel labels: a single class has the labels 0 and 1.
        spec, classes = spec._replace(kind="labels", classes="c"), max(dims["c"], 2)
    if spec.kind in ("labels", "lengths") and a.dtype in (I64, I32):
        high = classes - (spec.kind != "lengths")
        ignored = ignored if spec.kind == "labels" else None
        return Entry(name, a.dtype, shape, _whole(high, ignored) if spec.classes and checked else _to_whole)
    return None


def _numbers(dtype: Any, domain: Domain | None, same: bool) -> Callable[[Any], Any] | None:
    """Return the function that converts floats to a dtype, or returns None where one is outside a domain."""
    if domain is None:
        return None if same else lambda a: a.astype(dtype)

    def taken(a: Any) -> Any:
        a = a.astype(dtype, copy=False)
        return a if sum_in_order(a.reshape(-1), domain=domain)[1] == 0.0 else None

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
