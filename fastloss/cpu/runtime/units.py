"""Kernels over units of any kind (pairs, boxes, groups, rows of a matrix) for losses over several arrays.

A kernel is a function of (lo, hi, arrays...) that reads the units lo to hi and writes the results of these units
alone. It is compiled per loss and precision. One driver runs all kernels: it calls each by address, and passes a
table of the addresses and shapes of the arrays. Chunks depend on the sizes alone, so results have the same bits on any
number of threads.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, prange, types
from numba.core.types.abstract import Type
from numba.core.types.containers import BaseTuple
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ...spec.worlds import carry
from .. import dispatch
from ..elementwise import call
from ..math.scalar_math import VOCABULARY
from . import access
from .slots import ABSENT, fill, unbound
from .specialize import (
    INNER,
    LOOP,
    SCALAR,
    Chunk,
    bind,
    cached_jit,
    compile_chunk,
    compile_driver,
    compiled,
    inner,
)
from .subnormals import flush_subnormals, restore_subnormals
from .threads import get_num_threads, share
from .worlds import cpu

__all__ = ["Kernel", "all_between", "all_binary", "factor_of", "in_stages", "kernel", "launch_of", "without_ignored"]

WORK = 1 << 15
"""Operations per chunk: enough to hide the call."""

SHARED = 1 << 17
"""Operations per thread for which one of the pool is woken, which takes 30 us."""


class Slots(NamedTuple):
    """Functions and settings that a chunk of units is specialised to."""

    body: Callable[..., None]
    """Kernel of (lo, hi, arrays...)."""
    arrays_of: Callable[..., tuple[Any, ...]]
    """Function that builds the kernel's arrays from a table."""
    flushes: bool
    """Whether the kernel treats subnormal values as 0."""


use = unbound(Slots)


def _chunk(lo, hi, table):
    if use.flushes:
        control = flush_subnormals()
        use.body(lo, hi, *use.arrays_of(table))
        restore_subnormals(control)
    else:
        use.body(lo, hi, *use.arrays_of(table))
    return 0.0


@intrinsic
def _word(typingctx, address):
    """Return the machine word at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], context.get_value_type(types.intp).as_pointer()))

    return types.intp(types.intp), codegen


HEAD = object.__basicsize__
"""Size of the head of a Python object (bytes), before its fields.

The fields of an array, which NumPy's header files publish, are the address of its first element, the number of its
axes, the addresses of its shape and strides, two objects, and its flags."""


LONGEST = 5
"""Words per array in a table, at most: its address, and the lengths of four axes."""


@compiled(INNER)
def table_of(objects):
    """Return the table of data addresses and shapes of arrays, given as addresses of Python objects.

    Reading them in compiled code takes 10 ns an array, from Python 350 ns.
    """
    table = np.empty(objects.size * LONGEST, np.int64)
    k = 0
    for o in objects:
        axes, shape = _word(o + HEAD + 8) & 0xFFFFFFFF, _word(o + HEAD + 16)
        if axes >= LONGEST or not _word(o + HEAD + 48) & 1:
            raise ValueError("an array of a kernel has five axes, or is not contiguous")
        table[k] = _word(o + HEAD)
        k += 1
        for axis in range(axes):
            table[k] = _word(shape + 8 * axis)
            k += 1
    return table[:k]


@compiled(INNER)
def tables_of(objects, counts):
    """Return the tables of all stages, a row each. The driver cannot copy them, as its loops are parallel."""
    tables = np.empty((counts.size, objects.shape[1] * LONGEST), np.int64)
    for k in range(counts.size):
        table = table_of(objects[k, : counts[k]])
        for word in range(table.size):
            tables[k, word] = table[word]
    return tables


def _drive(address, objects, first, end, chunk, parallel):
    """Run all chunks of units, in parallel or one after another."""
    table = table_of(objects)
    chunks = (end - first + chunk - 1) // chunk
    for c in prange(chunks):
        lo = first + c * chunk
        call(address, (lo, min(end, lo + chunk), table))


def _drive_stages(addresses, objects, counts, each, units, parallel):
    """Run all stages of each unit in order, the units in parallel or not; each stage has a row of counted arrays."""
    tables = tables_of(objects, counts)
    for u in prange(units):
        for k in range(addresses.size):
            call(addresses[k], (u * each[k], (u + 1) * each[k], tables[k]))


@cache
def _driver() -> Any:
    table = types.Array(types.int64, 1, "C")
    signature = types.void(types.intp, table, types.intp, types.intp, types.intp, types.boolean)
    return compile_driver(_drive, "units", signature)


@cache
def _stage_driver() -> Any:
    words = types.Array(types.int64, 1, "C")
    signature = types.void(words, types.Array(types.int64, 2, "C"), words, words, types.intp, types.boolean)
    return compile_driver(_drive_stages, "stages", signature)


def warm_drivers() -> None:
    """Compile the parallel companions of the drivers in use."""
    for made in (_driver, _stage_driver):
        if made.cache_info().currsize:
            dispatch.in_parallel(made())


@cached_jit(error_model="numpy")
def all_between(a, high):
    """Whether all integers are between 0 and a bound; takes a tenth of the time of NumPy's min and max."""
    wrong = 0
    for i in range(a.size):
        wrong += (a[i] < 0) | (a[i] > high)
    return wrong == 0


@cached_jit(error_model="numpy")
def without_ignored(a, high, ignored, out):
    """Copy labels, with -1 for ignored ones; return whether all others are between 0 and a bound."""
    wrong = 0
    for i in range(a.size):
        skipped = a[i] == ignored
        wrong += ((a[i] < 0) | (a[i] > high)) & (not skipped)
        out[i] = -1 if skipped else a[i]
    return wrong == 0


@cached_jit(error_model="numpy")
def all_binary(a):
    """Whether all values are 0 or 1."""
    wrong = 0
    for i in range(a.size):
        wrong += (a[i] != 0) & (a[i] != 1)
    return wrong == 0


def _reader(kinds: tuple[Type, ...]) -> Any:
    """Return the function that builds arrays from a table: the address of the first element of each, then its shape."""
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
"""Numba types of the dtypes that kernels read and write."""


def factor_of(factors, i):
    """Return the factor of one unit: its own, or the common one."""
    return factors[i] if factors.size > 1 else factors[0]


class Kernel:
    """Template bound to a dtype and optionally a formula; compiled once for each set of array types."""

    def __init__(
        self, template: Callable[..., Any], name: str, use: Any, functions: dict[str, Any], flushes: bool
    ) -> None:
        self.template, self.name, self.use, self.functions, self.flushes = template, name, use, functions, flushes
        self._compiled: dict[Any, Chunk] = {}

    def compiled(self, arrays: tuple[Any, ...]) -> Chunk:
        """Return the compiled code for arrays of these types."""
        # Saves 0.2 us an array: numbers hash faster than dtypes.
        key = tuple([(a.dtype.num, a.ndim) for a in arrays])
        found = self._compiled.get(key)
        if found is None:
            with dispatch.compiling:
                found = self._compiled[key] = self._compile(arrays)
        return found

    def _compile(self, arrays: tuple[Any, ...]) -> Chunk:
        kinds = tuple(types.Array(KINDS[a.dtype], a.ndim, "C") for a in arrays)
        work = inner(self.template, LOOP, self.use, **self.functions)
        table = types.Array(types.int64, 1, "C")
        signature = types.float64(types.intp, types.intp, table)
        return compile_chunk(_chunk, self.name, signature, Slots(work, _reader(kinds), self.flushes))

    def __call__(self, units: int, work: float, *arrays: Any) -> None:
        """Run on all units; `work` estimates the operations of all units together, each of a nanosecond or less."""
        if units == 0:
            return
        chunk = _chunk_of(units, work, WORK)
        if config.DISABLE_JIT:
            plain = bind(self.template, self.use, **self.functions)
            for lo in range(0, units, chunk):
                plain(lo, min(units, lo + chunk), *arrays)
            return
        address = self.compiled(arrays).address
        dispatch.launch(_driver(), int(work), address, _objects(arrays), 0, units, chunk)

    def bound(self, units: int, work: float) -> Callable[..., None]:
        """Return a function of arrays that runs this kernel on a fixed number of units and fixed array types.

        It repeats no look-up, which halves the 5 us of a small call. It lets no warning of NumPy through.
        """
        if config.DISABLE_JIT or units == 0 or work >= dispatch.PARALLEL_FROM:

            def plain(*arrays: Any) -> None:
                with np.errstate(all="ignore"):
                    self(units, work, *arrays)

            return plain
        driver, chunk, address = _driver(), _chunk_of(units, work, WORK), 0

        def launch(*arrays: Any) -> None:
            nonlocal address
            if not address:
                address = self.compiled(arrays).address
            driver(address, _objects(arrays), 0, units, chunk, False)

        return launch

    def shared(self, units: int, work: float, *arrays: Any) -> None:
        """Run on all units beside products of BLAS, by `share`."""
        chunk = _chunk_of(units, work, SHARED)
        if config.DISABLE_JIT or chunk >= units:
            self(units, 0.0, *arrays)
            return
        address, objects = self.compiled(arrays).address, _objects(arrays)
        small, drive = _chunk_of(units, work, WORK), _driver()
        share(
            lambda lo: drive(address, objects, lo, min(units, lo + chunk), small, False),
            range(0, units, chunk),
        )


def _chunk_of(units: int, work: float, each: int) -> int:
    """Return the number of units per chunk of `each` operations."""
    return max(1, int(min(units, each * units / max(work, 1.0))))


def _objects(arrays: tuple[Any, ...]) -> Any:
    """Return the addresses of arrays as Python objects; the caller keeps them alive."""
    return np.fromiter(map(id, arrays), dispatch.I64, len(arrays))


_stages: dict[Any, tuple[Any, Any, Any]] = {}
"""Addresses, numbers of arrays and units of stages, cached by their kernels and units."""


def in_stages(units: int, work: float, *stages: tuple[Kernel, int, tuple[Any, ...]]) -> None:
    """Run kernels one after another on each unit, so that each stage finds the results of the one before in the caches.

    A stage is a kernel, the number of its own units per unit, and its arrays. Where few units share much work, each
    stage runs on all units at once and in parallel within them, with results of the same bits. A kernel has to get
    arrays of the same types in all calls.
    """
    if config.DISABLE_JIT or (work >= dispatch.PARALLEL_FROM and units < 2 * get_num_threads()):
        for k, each, arrays in stages:
            k(units * each, work, *arrays)
        return
    key = tuple([(k, each) for k, each, _ in stages])
    found = _stages.get(key)
    if found is None:
        addresses = np.array([k.compiled(arrays).address for k, _, arrays in stages], np.int64)
        counts = np.array([len(arrays) for _, _, arrays in stages], np.int64)
        found = addresses, counts, np.array([each for _, each, _ in stages], np.int64)
        if len(_stages) < 512:
            _stages[key] = found
    addresses, counts, each_of = found
    words: list[int] = []
    most = max([len(arrays) for _, _, arrays in stages])
    for _, _, arrays in stages:
        words += [*map(id, arrays), *[0] * (most - len(arrays))]
    objects = np.array(words, np.int64).reshape(len(stages), most)
    dispatch.launch(_stage_driver(), int(work), addresses, objects, counts, each_of, units)


@cache
def kernel(
    template: Callable[..., Any],
    name: str,
    dtype: str,
    formula: Callable[..., Any] | None = None,
    helpers: tuple[Callable[..., Any], ...] = (),
    flags: tuple[tuple[str, Any], ...] = (),
    flushes: bool = False,
) -> Kernel:
    """Return the kernel of a template in one dtype.

    The template reads a record with these fields: T, the scalar type; the functions of formulas in that type (exp,
    log ...); `formula` compiled for the type, and `unpack`, which reads its parameters from an array; and `flags`,
    constants by which branches are pruned. `helpers` are functions of the template's module that are compiled for it,
    each after those it may call. A kernel that flushes treats subnormal values as 0.
    """
    found: dict[str, Any] = {"T": getattr(np, dtype), **VOCABULARY[dtype], "formula": ABSENT, "unpack": ABSENT}
    if formula is not None:
        found["formula"] = carry(formula, cpu(dtype))
        found["unpack"] = access.unpack(len(formula.__defaults__ or ()), dtype)
    found |= dict(flags)
    functions = {"factor_of": inner(factor_of, SCALAR)}
    for helper in helpers:
        functions[helper.__name__] = inner(helper, LOOP, fill(helper, found), **functions)
    return Kernel(template, f"{name}_{dtype}", fill(template, found), functions, flushes)


@lru_cache(maxsize=512)
def launch_of(units: int, work: float, types: Any, shares: bool, *which: Any) -> Callable[..., None]:
    """Return the function of arrays that runs a kernel on a fixed number of units, cached by its arguments.

    The cache binds kernels that small calls repeat once. `types` keeps apart calls with arrays of different types. A
    kernel that shares its work runs beside products of BLAS; `which` are the arguments of `kernel`.
    """
    found = kernel(*which)
    if not shares:
        return found.bound(units, work)
    if _chunk_of(units, work, SHARED) < units:
        return partial(found.shared, units, work)
    return found.bound(units, 0.0)
