"""Losses of points on a GPU: a thread takes a point, which is a few numbers of several arrays.

A box is read and written as one group of four numbers. Arrays that are not given have the address 0, and a number
stands for each.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..cpu.runtime import access
from ..cpu.runtime.slots import unbound
from ..cpu.runtime.specialize import bind
from ..spec.record import Formula
from ..spec.worlds import carry
from .runtime.launch import ADDRESS, Kernel, addresses
from .runtime.memory import (
    cuda,
    device,
    present,
    reader,
    real,
    spelled,
    writer,
)
from .runtime.scalars import faults, scalar, watched, width
from .runtime.sums import NONE, block_end, earlier, over, plus
from .runtime.totals import Total, aligned, at, blocks_for, threads
from .runtime.world import gpu

__all__ = ["launch", "points_kernel"]


class Slots(NamedTuple):
    """Constants and functions that the kernel of points reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    formula: Callable[..., Any]
    """Function of (numbers, parameters): the formula of the loss."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of a tuple."""
    load: Callable[..., Any]
    """Function of (addresses, i, absent, grouped): the numbers of each input, and the weight."""
    save: Callable[..., Any]
    """Function of (addresses, i, value, slopes, factor, grouped) that writes what is wanted."""
    fault_of: Callable[..., Any]
    """Function of the numbers: 0, or the first input outside its domain."""
    times: Callable[..., Any]
    """Product with a weight; 0 where a weight is 0."""
    share: Callable[..., Any]
    """Scale over the sum of the weights."""
    end: Callable[..., Any]
    """Function that leaves the sum over a block."""


class Put(NamedTuple):
    """Functions that the writer of a group of neighbours calls."""

    write: Callable[..., Any]
    """Writer of a group at once."""
    singly: Callable[..., Any]
    """Writer of its numbers one by one."""


use: Any = unbound(Slots, Put)


def _points(inputs, outputs, partials, firsts, n, scale, mass, absent, grouped, params):
    """Inputs are those of the loss and the weight, outputs values and gradients: addresses, 0 for what is absent."""
    T = use.T
    p, s = use.unpack(params), use.share(scale, mass)
    high, low, first = T(0.0), T(0.0), NONE
    step = np.uint64(cuda.gridsize(1))
    i = np.uint64(cuda.grid(1))
    while i < n:
        x = use.load(inputs, i, absent, grouped)
        out = use.formula(x, p)
        fault = use.fault_of(x)
        # Makes value and derivatives of a fault NaN: the host learns of it later.
        w = x[-1][0] if fault == T(0.0) else T(np.nan)
        value = use.times(out[0], w)
        use.save(outputs, i, value, out[1], w * s, grouped)
        high, low = plus(high, low, value)
        if fault != T(0.0):
            first = earlier(first, np.int64(i) * 8 + np.int64(fault))
        i += step
    use.end(partials, firsts, high, low, first)


def _group(stored: str, columns: int, number: str) -> Any:
    """A function of (address, i, grouped): some neighbours in the precision given, read at once or one by one."""
    kind = getattr(np, number)
    parts = (f"number(one(a, i * count + at{c})[0])" for c in range(columns))
    # Constants of 64 bits without a sign, as the index: Numba makes a float64 of a mixture.
    offsets: dict[str, Any] = {f"at{c}": np.uint64(c) for c in range(columns)}
    singly = spelled("a, i", *parts, one=reader(stored), count=np.uint64(columns), number=kind, **offsets)
    same = spelled("x", *(f"number(x[{c}])" for c in range(columns)), number=kind)
    group = reader(stored, columns)
    wide = spelled("a, i", "same(group(a, i))", single=True, same=same, group=group)
    # One branch for the whole grid: `grouped` is an argument of the kernel, so no warp diverges at it.
    return spelled("a, i, grouped", "wide(a, i) if grouped else singly(a, i)", single=True, wide=wide, singly=singly)


def _put(a, i, x, grouped):
    if present(a):
        if grouped:
            use.write(a, i, x)
        else:
            use.singly(a, i, x)


def _putting(stored: str, columns: int) -> Any:
    """A function of (address, i, numbers, grouped) that writes some neighbours, where there is an output."""
    parts = (f"one(a, i * count + at{c}, (x[{c}],))" for c in range(columns))
    offsets: dict[str, Any] = {f"at{c}": np.uint64(c) for c in range(columns)}
    singly = spelled("a, i, x", *parts, one=writer(stored), count=np.uint64(columns), **offsets)
    return device(bind(_put, Put(writer(stored, columns), singly)))


def _loading(formats: tuple[tuple[str, int], ...], number: str) -> Any:
    """A function of (addresses, i, absent, grouped): the numbers of each input at a point, and the weight."""
    parts: list[str] = []
    bound: dict[str, Any] = {}
    for k, (stored, columns) in enumerate((*formats, (number, 1))):
        if columns == 1:
            text, names = scalar(stored, k, number)
        else:
            text, names = f"group{k}(a[{k}], i, g)", {f"group{k}": _group(stored, columns, number)}
        parts.append(text)
        bound |= names
    return spelled("a, i, c, g", *parts, **bound)


def _saving(stored: str, columns: tuple[int, ...]) -> Any:
    """A function of (outputs, i, value, slopes, factor, grouped) that writes those that are wanted."""
    parts, bound, start = ["put1(a[0], i, (v,), g)"], {"put1": _putting(stored, 1)}, 0
    for k, count in enumerate(columns, 1):
        slopes = "".join(f"times(d[{j}], w)," for j in range(start, start + count))
        parts.append(f"put{count}(a[{k}], i, ({slopes}), g)")
        bound[f"put{count}"] = _putting(stored, count)
        start += count
    return spelled("a, i, v, d, w, g", *parts, times=access.times[True], **bound)


def _evaluating(record: Formula, formats: tuple[tuple[str, int], ...], number: str) -> Any:
    """The formula of what was read and of parameters: a branch for each value of one that is a constant."""
    numbers = ", ".join(f"x[{k}][{c}]" for k, (_, columns) in enumerate(formats) for c in range(columns))
    kind, formula = getattr(np, number), carry(record.function, gpu(number))
    constant = next((k for k, p in enumerate(record.parameters.values()) if p.constant), None)
    if constant is None:
        return spelled("x, p", f"formula({numbers}, *p)", single=True, formula=formula)
    before = "".join(f"p[{j}], " for j in range(constant))
    count = len(tuple(record.parameters.values())[constant].choices)
    values = {f"value{j}": kind(j) for j in range(count)}
    texts = [f"formula({numbers}, {before}{v}, *p[{constant + 1}:])" for v in values]
    # A branch, not a kernel, for each value of a constant: the grid takes one side as a whole.
    found = texts[-1]
    for j in reversed(range(count - 1)):
        found = f"({texts[j]} if p[{constant}] == value{j} else {found})"
    return spelled("x, p", found, single=True, formula=formula, **values)


_built: dict[tuple[Any, ...], Kernel] = {}


def points_kernel(record: Formula, stored: str, formats: tuple[tuple[str, int], ...]) -> Kernel:
    """The kernel of one loss for inputs in some formats, each with how many numbers of it a point has."""
    key = (record.function, stored, formats)
    found = _built.get(key)
    if found is None:
        found = _built[key] = _points_kernel(record, stored, formats)
    return found


def _points_kernel(record: Formula, stored: str, formats: tuple[tuple[str, int], ...]) -> Kernel:
    number, names = real(stored), tuple(record.inputs)
    columns = tuple(c for name, (_, c) in zip(names, formats, strict=True) if name in record.predictions)
    use = Slots(
        T=getattr(np, number),
        formula=_evaluating(record, formats, number),
        unpack=access.unpack(len(record.function.__defaults__ or ()), number),
        load=_loading(formats, number),
        save=_saving(stored, columns),
        fault_of=faults([(w.at, w.test) for w in watched(record, names, number)], number, f"x[{len(names)}][0]"),
        times=access.times[True],
        share=over(number),
        end=block_end(number),
    )
    T = getattr(types, number)
    arrays = (addresses(len(formats) + 1), addresses(1 + len(columns)), ADDRESS, ADDRESS)
    numbers = (types.UniTuple(T, len(formats) + 1), types.boolean, types.UniTuple(T, max(1, len(record.parameters))))
    signature = types.void(*arrays, types.uint64, T, ADDRESS, *numbers)
    kinds = "_".join(dict.fromkeys(f for f, _ in formats))
    return Kernel(_points, f"{record.name}_{kinds}", signature, use, wide=max(columns) > 1 and stored == number)


def launch(call: Any) -> Total:
    """Launch the kernel of a call."""
    inputs = tuple(call.arrays[k] for k in call.record.inputs)
    columns = (width(call.record.inputs[k].dims) for k in call.record.inputs)
    formats = tuple((call.stored if a is None else a.dtype, c) for a, c in zip(inputs, columns, strict=True))
    call.watches = watched(call.record, tuple(call.record.inputs), call.number)
    grouped = aligned(4, *inputs, *call.grads)
    total = Total.of(call.place, call.number, blocks_for(call.units))
    kernel = points_kernel(call.record, call.stored, formats)
    arrays = (at(*inputs, call.weight), at(call.values, *call.grads), *at(total.partials, total.firsts))
    numbers = (np.uint64(call.units), *call.factor(), call.absent(*call.record.inputs), grouped, call.params())
    kernel(total.blocks, threads(), call.place.stream, *arrays, *numbers)
    return total
