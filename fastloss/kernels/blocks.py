"""Kernels over units of any kind (pairs, boxes, groups, rows of a matrix) for losses of several arrays.

A kernel is a function of (lo, hi, arrays...) that works on the units lo to hi and writes what belongs to them, and to
them alone. It is compiled per loss and precision; one driver runs all of them: it hands each chunk of units, by
address, a table of where the arrays lie. Chunks depend on the sizes alone, so results have the same bits on any
number of threads.
"""

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, prange, types
from numba.core.types.abstract import Type
from numba.core.types.containers import BaseTuple
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from .. import dispatch
from . import access
from .cpu import call, widest_vectors
from .scalar_math import VOCABULARY
from .specialize import LOOP, SCALAR, Chunk, bind, cached_jit, compile_chunk, compile_driver, inner
from .threads import get_num_threads, share
from .worlds import carry, cpu

__all__ = ["Kernel", "factor_of", "in_stages", "kernel"]

WORK = 1 << 15
"""Operations in a chunk: enough to hide the call."""

SHARED = 1 << 17
"""Operations for which a thread of the pool is woken, which takes 30 us."""

# Names that the templates find bound when they are specialized.
body: Any = None
arrays_of: Any = None


def _chunk(lo, hi, table):
    body(lo, hi, *arrays_of(table))
    return 0.0


def _drive(address, table, first, end, chunk, parallel):
    """All chunks of units, in parallel or one after another."""
    chunks = (end - first + chunk - 1) // chunk
    if parallel:
        for c in prange(chunks):
            lo = first + c * chunk
            call(address, (lo, min(end, lo + chunk), table))
    else:
        for c in range(chunks):
            lo = first + c * chunk
            call(address, (lo, min(end, lo + chunk), table))


def _drive_stages(addresses, tables, each, units, parallel):
    """All stages of one unit after another; units in parallel or not."""
    if parallel:
        for u in prange(units):
            for k in range(addresses.size):
                call(addresses[k], (u * each[k], (u + 1) * each[k], tables[k]))
    else:
        for u in range(units):
            for k in range(addresses.size):
                call(addresses[k], (u * each[k], (u + 1) * each[k], tables[k]))


@cache
def _driver() -> Any:
    table = types.Array(types.int64, 1, "C")
    signature = types.void(types.intp, table, types.intp, types.intp, types.intp, types.boolean)
    return compile_driver(_drive, "units", signature)


@cache
def _stage_driver() -> Any:
    table = types.Array(types.int64, 1, "C")
    signature = types.void(table, types.Array(types.int64, 2, "C"), table, types.intp, types.boolean)
    return compile_driver(_drive_stages, "stages", signature)


@cached_jit(error_model="numpy")
def address_of(a):
    """Where the first element of an array lies; NumPy itself takes five times as long to say so."""
    return a.ctypes.data


def _reader(kinds: tuple[Type, ...]) -> Any:
    """The arrays of a table: for each the address of its first element, then its shape."""
    result = BaseTuple.from_types(kinds)

    @intrinsic
    def arrays_of(typingctx, table):
        def codegen(context, builder, signature, args):
            cells = context.make_array(signature.args[0])(context, builder, args[0]).data
            word = context.get_value_type(types.intp)
            place = iter(range(1 << 10))

            def take():
                return builder.load(builder.gep(cells, [word(next(place))]))

            views = []
            for kind in kinds:
                data = builder.inttoptr(take(), context.get_data_type(kind.dtype).as_pointer())
                shape = [take() for _ in range(kind.ndim)]
                item = word(kind.dtype.bitwidth // 8)
                strides = [item]
                for length in shape[:0:-1]:
                    strides.insert(0, builder.mul(strides[0], length))
                view = context.make_array(kind)(context, builder)
                populate_array(view, data, shape, strides, item, ir.Constant(view.meminfo.type, None))
                views.append(view._getvalue())
            return context.make_tuple(builder, result, views)

        return result(table), codegen

    return arrays_of


KINDS = {
    np.dtype(np.float32): types.float32,
    np.dtype(np.float64): types.float64,
    np.dtype(np.int64): types.int64,
    np.dtype(np.int32): types.int32,
    np.dtype(np.uint8): types.uint8,
}
"""What the arrays of a kernel may hold."""


def factor_of(factors, i):
    """The factor of one unit: its own, or that of all."""
    return factors[i] if factors.size > 1 else factors[0]


class Kernel:
    """A template bound to a precision and perhaps a formula; compiled for the arrays that it first meets."""

    def __init__(self, template: Callable[..., Any], name: str, bound: Mapping[str, Any]) -> None:
        self.template, self.name, self.bound = template, name, bound
        self._compiled: dict[Any, Chunk] = {}
        self._lock = threading.Lock()

    def compiled(self, arrays: tuple[Any, ...]) -> Chunk:
        """The machine code for arrays of these types."""
        key = tuple((a.dtype, a.ndim) for a in arrays)
        found = self._compiled.get(key)
        if found is None:
            with dispatch.compiling:
                found = self._compiled[key] = self._compile(key)
        return found

    def _compile(self, key: tuple[Any, ...]) -> Chunk:
        kinds = tuple(types.Array(KINDS[dtype], ndim, "C") for dtype, ndim in key)
        work = inner(self.template, LOOP, **self.bound)
        table = types.Array(types.int64, 1, "C")
        signature = types.float64(types.intp, types.intp, table)
        return compile_chunk(_chunk, self.name, signature, body=work, arrays_of=_reader(kinds))

    def __call__(self, units: int, work: float, *arrays: Any) -> None:
        """Run on all units; `work` is about how many operations they take together, each a nanosecond or less."""
        if units == 0:
            return
        chunk = _chunk_of(units, work, WORK)
        if config.DISABLE_JIT:
            plain = bind(self.template, **self.bound)
            for lo in range(0, units, chunk):
                plain(lo, min(units, lo + chunk), *arrays)
            return
        address = self.compiled(arrays).address
        dispatch.launch(_driver(), int(work), address, np.array(_cells(arrays), np.int64), 0, units, chunk)

    def shared(self, units: int, work: float, *arrays: Any) -> None:
        """The same beside products of BLAS, by `share`."""
        chunk = _chunk_of(units, work, SHARED)
        if config.DISABLE_JIT or chunk >= units:
            self(units, 0.0, *arrays)
            return
        address, table = self.compiled(arrays).address, np.array(_cells(arrays), np.int64)
        small, drive = _chunk_of(units, work, WORK), _driver()
        share(
            lambda lo: drive(address, table, lo, min(units, lo + chunk), small, False),
            range(0, units, chunk),
        )


def _chunk_of(units: int, work: float, each: int) -> int:
    """How many units make so much work."""
    return max(1, int(min(units, each * units / max(work, 1.0))))


def _cells(arrays: tuple[Any, ...], known: dict[int, int] | None = None) -> list[int]:
    """Where some arrays lie, and their shapes; empty ones nowhere. Places may be known by the arrays' identities."""
    known = {} if known is None else known
    cells: list[int] = []
    for a in arrays:
        place = known.get(id(a))
        if place is None:
            assert a.flags.c_contiguous
            place = known[id(a)] = address_of(a) if a.size else 0
        cells.append(place)
        cells.extend(a.shape)
    return cells


def in_stages(units: int, work: float, *stages: tuple[Kernel, int, tuple[Any, ...]]) -> None:
    """Run kernels one after another on each of some units, which finds in its caches what the stage before left.

    A stage is a kernel, how many of its own units a unit has, and its arrays. Where few units share much work, each
    stage runs on all of them at once, in parallel within them; the bits are the same.
    """
    if config.DISABLE_JIT or (work >= dispatch.PARALLEL_FROM and units < 2 * get_num_threads()):
        for k, each, arrays in stages:
            k(units * each, work, *arrays)
        return
    addresses = np.array([k.compiled(arrays).address for k, _, arrays in stages], np.int64)
    known: dict[int, int] = {}
    cells = [_cells(arrays, known) for _, _, arrays in stages]
    width = max(map(len, cells))
    tables = np.array([row + [0] * (width - len(row)) for row in cells], np.int64)
    each_of = np.array([each for _, each, _ in stages], np.int64)
    dispatch.launch(_stage_driver(), int(work), addresses, tables, each_of, units)


@cache
def kernel(
    template: Callable[..., Any],
    name: str,
    dtype: str,
    formula: Callable[..., Any] | None = None,
    helpers: tuple[Callable[..., Any], ...] = (),
    flags: tuple[tuple[str, Any], ...] = (),
) -> Kernel:
    """A template in one precision.

    It finds bound: T, the type; the words of formulas in that type (exp, log ...), and with 64 behind them in float64;
    `formula` carried into the type, and `unpack`, which makes its parameters of an array; `flags` as constants, on
    which branches are pruned; and `helpers`, functions of its module that are compiled for it, each with all that
    stands before it.
    """
    bound: dict[str, Any] = {"T": getattr(np, dtype), "widest_vectors": widest_vectors, **dict(flags)}
    bound |= {f"{word}64": function for word, function in VOCABULARY["float64"].items()}
    bound |= VOCABULARY[dtype]
    if formula is not None:
        bound["formula"] = carry(formula, cpu(dtype))
        bound["unpack"] = access.unpack(len(formula.__defaults__ or ()), dtype)
    bound["factor_of"] = inner(factor_of, SCALAR)
    for helper in helpers:
        bound[helper.__name__] = inner(helper, LOOP, **bound)
    return Kernel(template, f"{name}_{dtype}", bound)
