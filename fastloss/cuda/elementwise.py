"""Elementwise loops for a GPU: one scalar formula inside, a stride of the whole grid outside.

One kernel per loss and format serves values, gradients and curvatures: an address of 0 says what is not wanted, and
the compiler moves what only an absent output needs into the branch that writes it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..cpu.runtime import access
from ..cpu.runtime.slots import unbound
from ..cpu.runtime.specialize import bind
from ..spec.record import NONNEGATIVE, Formula
from ..spec.worlds import carry
from .runtime.launch import ADDRESS, Kernel, addresses
from .runtime.memory import (
    WIDTH,
    cuda,
    device,
    present,
    reader,
    real,
    spelled,
    writer,
)
from .runtime.scalars import faults
from .runtime.sums import BLOCK, NONE, block_end, earlier, over, plus
from .runtime.world import gpu

__all__ = ["elementwise_kernel"]


class Lane(NamedTuple):
    """Constants and functions that the evaluation of one element reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    formula: Callable[..., Any]
    """Formula of the loss."""
    numbers: Callable[..., Any]
    """Function of (inputs, k): element k of each prediction."""
    slopes: Callable[..., Any]
    """Function that lines up value, derivatives and the fault."""
    times: Callable[..., Any]
    """Product with a weight; 0 where a weight is 0."""
    fault_of: Callable[..., Any]
    """Function of (inputs, k): 0, or the first input whose element k is outside its domain."""
    targeted: bool
    """Whether there is a target."""
    bent: bool
    """Whether there is a curvature, or a surrogate of it."""
    either: bool
    """Whether there are both."""


class Slots(NamedTuple):
    """Constants and functions that the loop over elements reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    width: int
    """Elements of 128 bits."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of a tuple."""
    load: Callable[..., Any]
    """Function of (addresses, i): a group of each input, and of weights."""
    load_one: Callable[..., Any]
    """Counterpart for one element."""
    each: Callable[..., Any]
    """Function that evaluates the elements of a group."""
    lane: Callable[..., Any]
    """Function that evaluates one element of a group."""
    save: Callable[..., Any]
    """Function of (addresses, i, results) that writes the results of a group that are wanted."""
    save_one: Callable[..., Any]
    """Counterpart for one element."""
    scale_over: Callable[..., Any]
    """Scale over the sum of the weights."""
    end_block: Callable[..., Any]
    """Function that leaves the sum over a block."""


use: Any = unbound(Slots, Lane)


def _lane(x, k, s, p, surrogate):
    """The results of one element: value, derivatives, and which input is out of its domain: then they are NaN."""
    T = use.T
    if use.targeted:
        out = use.formula(*use.numbers(x, k), x[-2][k], *p)
    else:
        out = use.formula(*use.numbers(x, k), *p)
    fault = use.fault_of(x, k)
    # Makes value and derivatives of a fault NaN: the host learns of it later.
    w = x[-1][k] if fault == T(0.0) else T(np.nan)
    ws = w * s
    value = use.times(out[0], w)
    if use.bent:
        second = out[2]
        if use.either:
            second = out[3] if surrogate else out[2]
        return use.slopes(value, out[1], second, ws, fault)
    return use.slopes(value, out[1], out[1], ws, fault)


def _elementwise(inputs, outputs, partials, firsts, n, groups, scale, mass, surrogate, params):
    """Inputs are predictions, target, weight; outputs values, gradients, curvatures: addresses, 0 for what is absent.

    The first `groups` of 128 bits are aligned; what follows them is taken one by one. A violation's place is eight
    times its index and the number of the input.
    """
    T = use.T
    p, s = use.unpack(params), use.scale_over(scale, mass)
    high, low, first = T(0.0), T(0.0), NONE
    # Serves any size with a grid of bounded size: each thread takes every gridsize-th group.
    step = np.uint64(cuda.gridsize(1))
    start = np.uint64(cuda.grid(1))
    i = start
    while i < groups:
        o = use.each(use.load(inputs, i), s, p, surrogate)
        use.save(outputs, i, o)
        for k in range(use.width):
            # Sums in pairs of numbers: float32 alone would lose digits over a thread's many elements, and float64 has
            # 1/64 of the speed on consumer devices.
            high, low = plus(high, low, o[k][0])
            if o[k][-1] != T(0.0):
                # A minimum, not the first to arrive: the host names the same element on every run.
                first = earlier(first, (np.int64(i) * use.width + k) * 8 + np.int64(o[k][-1]))
        i += step
    # Takes what does not fill 128 bits one by one.
    i = start + groups * np.uint64(use.width)
    while i < n:
        one = use.lane(use.load_one(inputs, i), 0, s, p, surrogate)
        use.save_one(outputs, i, (one,))
        high, low = plus(high, low, one[0])
        if one[-1] != T(0.0):
            first = earlier(first, np.int64(i) * 8 + np.int64(one[-1]))
        i += step
    use.end_block(partials, firsts, high, low, first)


def _loading(formats: tuple[str, ...], width: int, number: str) -> Any:
    """A function of (inputs, i): a group of each, and of weights, which are 1 where there are none."""
    m = len(formats)
    reads: dict[str, Any] = {f"read{k}": reader(f, width) for k, f in enumerate((*formats, number))}
    parts = [f"read{k}(a[{k}], i)" for k in range(m)]
    ones = (getattr(np, number)(1.0),) * width
    return spelled(
        "a, i", *parts, f"read{m}(a[{m}], i) if present(a[{m}]) else ones", **reads, present=present, ones=ones
    )


def _putting(stored: str, width: int) -> Any:
    """A function that writes a group where there is an output."""
    return spelled(
        "a, i, x", "write(a, i, x) if present(a) else None", single=True, write=writer(stored, width), present=present
    )


def _saving(stored: str, count: int, width: int) -> Any:
    """A function of (outputs, i, results of each element) that writes those that are wanted."""
    column = spelled("o, j", *(f"o[{k}][j]" for k in range(width)))
    parts = (f"put(a[{j}], i, column(o, {j}))" for j in range(count))
    return spelled("a, i, o", *parts, put=_putting(stored, width), column=column)


@cache
def _slopes(count: int, curved: bool) -> Any:
    """A function that lines up what an element gives: value, derivatives times w, curvatures times w, the fault."""
    each = ("{}",) if count == 1 else tuple(f"{{}}[{k}]" for k in range(count))
    parts = [f"times({e.format(name)}, w)" for name in "dh"[: 1 + curved] for e in each]
    return spelled("v, d, h, w, fault", "v", *parts, "fault", times=access.times[True])


def _faults(record: Formula, number: str) -> Any:
    """A function of (inputs, k): 0, or the number of the first input whose element k is out of its domain."""
    count, target = len(record.predictions), record.target is not None
    places = [*range(count), *[count] * target, -1]
    domains = [*record.prediction_domains, *[record.target_domain] * target, NONNEGATIVE]
    tests = [(f"x[{i}][k]", access.check(d, number)) for i, d in zip(places, domains, strict=True)]
    return faults(tests, number, "x[-1][k]", "x, k")


CROWDED = {
    "charbonnier": 6,
    "contrastive_distance": 6,
    "gan_hinge": 6,
    "geman_mcclure": 6,
    "hinge_embedding": 6,
    "interval_score": 5,
    "mape": 6,
    "margin_ranking": 6,
    "pseudo_huber": 6,
    "smape": 6,
    "triplet_distance": 6,
    "tukey": 6,
}
"""Blocks for losses whose float32 kernels would keep numbers in memory if they had to leave room for every thread."""


def blocks_of(record: Formula, stored: str) -> int:
    """For how many blocks a multiprocessor should have room, where memory alone sets the pace: 8 are all its threads.

    In double and in 16 bits a thread has as many bytes under way with twice the registers.
    """
    return CROWDED.get(record.name, 8) if stored == "float32" else 4


_built: dict[tuple[Any, ...], Kernel] = {}


def elementwise_kernel(record: Formula, stored: str, target: str) -> Kernel:
    """The kernel of one loss whose predictions are stored in one format, and its target in another."""
    key = (record.function, record.prediction_domains, stored, target)
    found = _built.get(key)
    if found is None:
        found = _built[key] = _elementwise_kernel(record, stored, target)
    return found


def _elementwise_kernel(record: Formula, stored: str, target: str) -> Kernel:
    number, width = real(stored), WIDTH[stored]
    count, curved = len(record.predictions), record.second or record.surrogate is not None
    formats = (*[stored] * count, *[target] * (record.target is not None))
    results = 1 + count * (1 + curved)
    lane = device(
        bind(
            _lane,
            Lane(
                T=getattr(np, number),
                formula=carry(record.function, gpu(number)),
                numbers=spelled("x, k", *(f"x[{i}][k]" for i in range(count))),
                slopes=_slopes(count, curved),
                times=access.times[True],
                fault_of=_faults(record, number),
                targeted=record.target is not None,
                bent=curved,
                either=record.second and record.surrogate is not None,
            ),
        )
    )
    use = Slots(
        T=getattr(np, number),
        width=width,
        unpack=access.unpack(len(record.parameters), number),
        load=_loading(formats, width, number),
        load_one=_loading(formats, 1, number),
        each=spelled("x, s, p, c", *(f"lane(x, {k}, s, p, c)" for k in range(width)), lane=lane),
        lane=lane,
        save=_saving(stored, results, width),
        save_one=_saving(stored, results, 1),
        scale_over=over(number),
        end_block=block_end(number),
    )
    T = getattr(types, number)
    arrays = (addresses(len(formats) + 1), addresses(results), ADDRESS, ADDRESS)
    params = types.UniTuple(T, max(1, len(record.parameters)))
    signature = types.void(*arrays, types.uint64, types.uint64, T, ADDRESS, types.boolean, params)
    bounds = None if record.transcendental else (BLOCK, blocks_of(record, stored))
    return Kernel(_elementwise, f"{record.name}_{stored}_{target}", signature, use, bounds, wide=True)
