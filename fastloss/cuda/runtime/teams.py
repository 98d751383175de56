"""Teams of threads that share a row: a few lanes of a warp where it is short, a block where it is long.

A row is read in passes. A pass makes a few numbers of each element; they are merged over the row, after which every
thread of the team has the result, or written as derivatives, or both. The numbers of one element are merged as those
of a part of a row are: a family of losses binds what an element gives and how two parts merge, nothing else.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...cpu.runtime import access
from ...cpu.runtime.slots import ABSENT, unbound
from ...cpu.runtime.specialize import bind
from .memory import (
    SIMULATED,
    WIDTH,
    cuda,
    device,
    present,
    reader,
    real,
    spelled,
    writer,
)

__all__ = ["SUM", "Merge", "Row", "passing"]


class Across(NamedTuple):
    """Constants and functions that the merge over the threads of a team reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    START: tuple[Any, ...]
    """Numbers of a part that is empty."""
    SIZE: int
    """Numbers in shared memory: one of each warp for each that is merged."""
    numbers: int
    """Numbers that are merged."""
    merge: Callable[..., Any]
    """Function of (a, b, state) that merges two parts."""
    swap: Callable[..., Any]
    """Function that gets the numbers of another thread of the warp."""
    taken: Callable[..., Any]
    """Function that reads the numbers of a warp from shared memory."""


class Steps(NamedTuple):
    """Constants and functions that a pass over a row reads; those of merging and of writing may be absent."""

    START: tuple[Any, ...]
    """Numbers of a part that is empty."""
    width: int
    """Elements that are read at once."""
    wide: bool
    """Whether several are."""
    folds: bool
    """Whether numbers are merged over the row."""
    emits: bool
    """Whether derivatives are written."""
    load: Callable[..., Any]
    """Function of (addresses, i in the array, i in the row): a group of each input."""
    load_one: Callable[..., Any]
    """Counterpart for one element."""
    every: Callable[..., Any]
    """Function of the numbers of each element of a group."""
    each: Callable[..., Any]
    """Function of the numbers of one element."""
    save: Callable[..., Any]
    """Function of (addresses, i, numbers, factor) that writes the derivatives of a group."""
    save_one: Callable[..., Any]
    """Counterpart for one element."""
    gather: Callable[..., Any]
    """Function that merges the elements of a group into a part."""
    merge: Callable[..., Any]
    """Function of (a, b, state) that merges two parts."""
    across: Callable[..., Any]
    """Function that merges over the threads of the team."""


use: Any = unbound(Across, Steps)


class Row(NamedTuple):
    """Row of a team of threads: its inputs, its index, and the index of this thread in the team."""

    inputs: Any
    """Addresses of scores, target and class weights, 0 for what is absent."""
    row: Any
    k: Any
    whole: Any
    """Number of groups of 128 bits of it that may be read at once: all of it, or none."""
    y: Any
    """The label, which is a class."""
    c: Any
    """The class weight of the label."""
    rank: Any
    """Index of this thread in its team."""
    team: Any
    """Number of threads of the team, a power of 2."""
    mask: Any
    """The team's lanes of a warp."""
    surrogate: Any


class Merge(NamedTuple):
    """How two parts of a row become one: the template of (a, b, state), and the numbers of a part that is empty."""

    template: Any
    start: tuple[float, ...]


SUM = Merge(None, (0.0,))
"""Sums; as many as there are numbers."""


def _across(acc, r, s):
    """Merge what the threads of a team have; all of them get it."""
    one = np.uint64(1)
    # Only the lanes of the team: teams of 4 exchange twice, a warp five times.
    bits = (r.team if r.team < np.uint64(32) else np.uint64(32)) >> one
    while bits > np.uint64(0):
        # Exchanges in both directions, so that every thread has the result and none writes it for the others.
        acc = use.merge(acc, use.swap(acc, r.mask, np.int32(bits)), s)
        bits >>= one
    if r.team > np.uint64(32):
        # One number of each warp: 32 cells serve a block of up to 1,024 threads.
        cells = cuda.shared.array(use.SIZE, use.T)
        lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
        # What was shared before may still be read.
        cuda.syncthreads()
        if lane == 0:
            for c in range(use.numbers):
                cells[c * 32 + warp] = acc[c]
        cuda.syncthreads()
        # Merges the results of the warps as one warp would; lanes without a warp have an empty part.
        acc = use.taken(cells, lane) if lane < cuda.blockDim.x >> 5 else use.START
        bits = np.uint64(16)
        while bits > np.uint64(0):
            acc = use.merge(acc, use.swap(acc, r.mask, np.int32(bits)), s)
            bits >>= one
    return acc


def _pass(r, o, s, f, p):
    """One pass over a row: derivatives go to the addresses o, times f; s is what earlier passes found."""
    acc = use.START
    done = np.uint64(0)
    if use.wide:
        done = r.whole * np.uint64(use.width)
        # Reads 128 bits at a time: neighbouring threads take neighbouring groups, so that their loads coalesce.
        i, base = r.rank, r.row * r.whole
        while i < r.whole:
            found = use.every(use.load(r.inputs, base + i, i), i * np.uint64(use.width), r, s, p)
            if use.folds:
                acc = use.gather(acc, found, s)
            if use.emits:
                use.save(o, base + i, found, f)
            i += r.team
    # Takes the rest one by one: all of the row where groups are not aligned.
    j, base = done + r.rank, r.row * r.k
    while j < r.k:
        one = use.each(use.load_one(r.inputs, base + j, j), j, r, s, p)
        if use.folds:
            acc = use.merge(acc, one, s)
        if use.emits:
            use.save_one(o, base + j, (one,), f)
        j += r.team
    if use.folds:
        return use.across(acc, r, s)
    return acc


def _merging(how: Merge, number: str, count: int, slots: Any) -> dict[str, Any]:
    """The function that merges two parts, and the one that does so across a team.

    Each pass has its own: shared memory of a function that two others call would be defined twice.
    """
    kind = getattr(np, number)
    if how is SUM:
        start = (kind(0.0),) * count
        merge = spelled("a, b, s", *(f"a[{k}] + b[{k}]" for k in range(count)))
    else:
        start = tuple(map(kind, how.start[:count]))
        merge = device(bind(how.template, slots))
    use = Across(
        T=kind,
        START=start,
        # The simulator shares by the line that asks: all functions made of the template have one array.
        SIZE=32 * (8 if SIMULATED else count),
        numbers=count,
        merge=merge,
        swap=spelled("a, m, bits", *(f"cuda.shfl_xor_sync(m, a[{k}], bits)" for k in range(count)), cuda=cuda),
        taken=spelled("a, i", *(f"a[i + {32 * k}]" for k in range(count))),
    )
    return {"merge": merge, "START": start, "across": device(bind(_across, use))}


def _loading(formats: tuple[str, str, str], width: int, reads: frozenset[str]) -> Any:
    """A function of (inputs, i in the array, i in the row): a group of scores, targets and class weights.

    What a loss does not take is 1: class weights also where there are none.
    """
    number = real(formats[0])
    z, t, c = (reader(f, width) for f in formats)
    ones = (getattr(np, number)(1.0),) * width
    target = "t(a[1], i)" if "target" in reads else "ones"
    weight = "(c(a[2], j) if present(a[2]) else ones)" if "class_weight" in reads else "ones"
    return spelled("a, i, j", "z(a[0], i)", target, weight, z=z, t=t, c=c, present=present, ones=ones)


def _saving(stored: str, first: int, width: int) -> Any:
    """A function that writes the derivatives of a group that are wanted; they follow what is merged."""
    parts = []
    for k in range(2):
        numbers = "".join(f"times(x[{m}][{first + k}], f), " for m in range(width))
        parts.append(f"write(o[{k}], i, ({numbers})) if present(o[{k}]) else None")
    return spelled("o, i, x, f", *parts, write=writer(stored, width), present=present, times=access.times[True])


def passing(
    each: Any,
    how: Merge | None,
    count: int,
    emits: bool,
    formats: tuple[str, str, str],
    reads: frozenset[str],
    goal: Any,
    wide: bool,
    slots: Any,
) -> Any:
    """A pass: `each` is a function of (x, t, c, j, row, state, parameters), a score, its target, its class weight.

    It gives `count` numbers to be merged, then the derivatives if it `emits`. `goal` makes a target of a label.
    """
    stored, number = formats[0], real(formats[0])
    width = WIDTH[stored] if wide else 1
    target = "v[1][{k}]" if "target" in reads else "goal(j{plus}, r)"
    places: dict[str, Any] = {f"n{k}": np.uint64(k) for k in range(width)}
    element = "each(v[0][{k}], " + target + ", v[2][{k}], j{plus}, r, s, p)"
    parts = [element.format(k=k, plus=f" + n{k}") for k in range(width)]
    names = {"each": each, "goal": goal}
    merging = {"START": (), "merge": ABSENT, "across": ABSENT, "gather": ABSENT}
    if how is not None:
        merging |= _merging(how, number, count, slots)
        nested = "acc"
        for k in range(width):
            nested = f"merge({nested}, x[{k}], s)"
        merging["gather"] = spelled("acc, x, s", nested, single=True, merge=merging["merge"])
    use = Steps(
        width=width,
        wide=wide,
        folds=how is not None,
        emits=emits,
        load=_loading(formats, width, reads),
        load_one=_loading(formats, 1, reads),
        every=spelled("v, j, r, s, p", *parts, **names, **places),
        each=spelled("v, j, r, s, p", element.format(k=0, plus=""), single=True, **names),
        save=_saving(stored, count, width),
        save_one=_saving(stored, count, 1),
        **merging,
    )
    return device(bind(_pass, use))
