"""Kernels over units of any kind (pairs, boxes, groups, rows of a matrix) for losses over several arrays.

A kernel is a function of (lo, hi, arrays...) that reads the units lo to hi and writes the results of these units
alone; one of many arrays takes them as a record, the NamedTuple that its third parameter is annotated with. It is
compiled per loss and precision. One driver runs all kernels: it calls each by address, and passes a table of the
addresses and shapes of the arrays. Chunks depend on the sizes alone, so results have the same bits on any number of
threads.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numba import config, prange, types

from ...spec.worlds import carry
from .. import dispatch
from ..math.scalar_math import VOCABULARY
from . import access
from .intrinsics import call
from .objects import KINDS, LONGEST, reader, table_of, tables_of, words_of
from .slots import ABSENT, fill, unbound
from .specialize import (
    LOOP,
    SCALAR,
    Chunk,
    bind,
    cached_jit,
    compile_chunk,
    compile_driver,
    inner,
)
from .subnormals import flush_subnormals, restore_subnormals
from .threads import get_num_threads, share
from .worlds import cpu

__all__ = [
    "Kernel",
    "all_between",
    "all_binary",
    "bound_stages",
    "convert",
    "factor_of",
    "kernel",
    "launch_of",
    "without_ignored",
]

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


def _drive(setup, arrays, parallel):
    """Run all chunks of units, in parallel or one after another; return whether the arrays are of the right types.

    The setup has the address of the kernel, the first unit, the end, the units per chunk, and two words per array: the
    address of its dtype and its number of axes.
    """
    address, first, chunk = setup[0], setup[1], setup[3]
    # Addresses and shapes as numbers: the driver passes one table whatever the kernel's arrays are.
    table = table_of(arrays, setup[4:])
    alike = table.size > 0
    # No units where types differ: nothing is read through wrong types.
    end = setup[2] if alike else first
    chunks = (end - first + chunk - 1) // chunk
    for c in prange(chunks):
        lo = first + c * chunk
        call(address, (lo, min(end, lo + chunk), table))
    return alike


def _drive_stages(setup, arrays, parallel):
    """Run all stages of each unit in order, the units in parallel or not; return whether the arrays are of their types.

    `arrays` is the address of a tuple of the stages' tuples. The setup has the number of units, that of stages, three
    words per stage (the address of the kernel, its units per unit, the number of its arrays), then two words per array.
    """
    tables, alike = tables_of(setup, arrays)
    units, stages = setup[0] if alike else 0, setup[1]
    for u in prange(units):
        for k in range(stages):
            each = setup[3 + 3 * k]
            call(setup[2 + 3 * k], (u * each, (u + 1) * each, tables[k]))
    return alike


SIGNATURE = types.boolean(types.Array(types.int64, 1, "C"), types.intp, types.boolean)
"""Signature of both drivers."""


@cache
def _driver() -> Any:
    return compile_driver(_drive, "units", SIGNATURE)


@cache
def _stage_driver() -> Any:
    return compile_driver(_drive_stages, "stages", SIGNATURE)


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
        # Counted, not stopped at: a loop that may end early does not vectorise.
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


@cached_jit(error_model="numpy")
def convert(a, out):
    """Write an array into one of another dtype; takes a third of the time of NumPy without its warnings."""
    for i in range(a.size):
        out[i] = a[i]


def factor_of(factors, i):
    """Return the factor of one unit: its own, or the common one."""
    return factors[i] if factors.size > 1 else factors[0]


class Kernel:
    """Template bound to a dtype and optionally a formula; compiled once for each set of array types."""

    def __init__(
        self, template: Callable[..., Any], name: str, use: Any, functions: dict[str, Any], flushes: bool
    ) -> None:
        self.template, self.name, self.use, self.functions, self.flushes = template, name, use, functions, flushes
        self.record = next(iter(template.__annotations__.values()), None)
        self._compiled: dict[Any, Code] = {}

    def compiled(self, arrays: tuple[Any, ...]) -> "Code":
        """Return the compiled code for arrays of these types."""
        # Saves 0.2 us an array: numbers hash faster than dtypes.
        key = tuple([(a.dtype.num, a.ndim) for a in arrays])
        found = self._compiled.get(key)
        if found is None:
            with dispatch.compiling:
                found = self._compiled[key] = self._compile(arrays)
        return found

    def _compile(self, arrays: tuple[Any, ...]) -> "Code":
        if max([a.ndim for a in arrays]) >= LONGEST:
            raise TypeError(f"{self.name}: an array of a kernel has {LONGEST} axes or more")
        # Contiguous, as calls lay out what is not: strides that only run time knows keep loops scalar.
        kinds = tuple(types.Array(KINDS[a.dtype], a.ndim, "C") for a in arrays)
        work = inner(self.template, LOOP, self.use, **self.functions)
        # One signature for kernels of any arrays: one driver, compiled in 1.3 s, calls them all.
        table = types.Array(types.int64, 1, "C")
        signature = types.float64(types.intp, types.intp, table)
        chunk = compile_chunk(_chunk, self.name, signature, Slots(work, reader(kinds, self.record), self.flushes))
        # Once a kernel: Python takes 0.2 us an array to look types up, the driver compares words.
        words = words_of([(a.dtype, a.ndim) for a in arrays])
        return Code(chunk, chunk.address, words)

    def __call__(self, units: int, work: float, *arrays: Any) -> None:
        """Run on all units; `work` estimates the operations of all units together, each of a nanosecond or less."""
        if units == 0:
            return
        # By the sizes alone: partial results have the same bits on any number of threads.
        chunk = _chunk_of(units, work, WORK)
        if config.DISABLE_JIT:
            plain = bind(self.template, self.use, **self.functions)
            arrays = arrays if self.record is None else (self.record(*arrays),)
            for lo in range(0, units, chunk):
                plain(lo, min(units, lo + chunk), *arrays)
            return
        self._run(int(work), 0, units, chunk, arrays)

    def _run(self, work: int, first: int, end: int, chunk: int, arrays: tuple[Any, ...]) -> None:
        """Run on some units, in parallel where their work pays for it."""
        _, address, words = self.compiled(arrays)
        setup = np.array([address, first, end, chunk, *words], np.int64)
        # A dtype that equals NumPy's own may be another object: that is looked at once the driver has refused it.
        if not dispatch.launch(_driver(), work, setup, id(arrays)):
            arrays = _canonical(arrays)
            dispatch.launch(_driver(), work, setup, id(arrays))

    def bound(self, units: int, work: float) -> Callable[..., None]:
        """Return a function of arrays that runs this kernel on a fixed number of units.

        Arrays of the types of the first call need no look-up. The function lets no warning of NumPy through.
        """

        def general(*arrays: Any) -> None:
            with np.errstate(all="ignore"):
                self(units, work, *arrays)

        if config.DISABLE_JIT or units == 0 or work >= dispatch.PARALLEL_FROM:
            return general
        driver, chunk, setup = _driver(), _chunk_of(units, work, WORK), NO_SETUP

        def launch(*arrays: Any) -> None:
            nonlocal setup
            if setup is NO_SETUP:
                _, address, words = self.compiled(arrays)
                setup = np.array([address, 0, units, chunk, *words], np.int64)
            if not driver(setup, id(arrays), False):
                general(*arrays)

        return launch

    def shared(self, units: int, work: float, *arrays: Any) -> None:
        """Run on all units beside products of BLAS, by `share`."""
        chunk = _chunk_of(units, work, SHARED)
        if config.DISABLE_JIT or chunk >= units:
            self(units, 0.0, *arrays)
            return
        small = _chunk_of(units, work, WORK)
        share(lambda lo: self._run(0, lo, min(units, lo + chunk), small, arrays), range(0, units, chunk))


class Code(NamedTuple):
    """Compiled code of a kernel for one set of array types."""

    chunk: Chunk
    """Object that keeps the code alive."""
    address: int
    words: list[int]
    """Address of the dtype and number of axes of each array."""


NO_SETUP = np.empty(0, np.int64)
"""Setup of a driver before the types of the arrays are known."""


def _chunk_of(units: int, work: float, each: int) -> int:
    """Return the number of units per chunk of `each` operations."""
    return max(1, int(min(units, each * units / max(work, 1.0))))


def _canonical(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arrays with the dtype objects that NumPy itself has; raise TypeError for arrays that no kernel can read.

    Equal dtypes may be several objects, and drivers compare their addresses.
    """
    for a in arrays:
        if not (a.flags.c_contiguous and a.dtype.isnative):
            raise TypeError(
                f"an array of a kernel has dtype {a.dtype} and strides {a.strides}; "
                "expected a C-contiguous array in native byte order"
            )
    return tuple([a.view(a.dtype.type) for a in arrays])


def bound_stages(units: int, work: float, *stages: tuple[Kernel, int]) -> Callable[..., None]:
    """Return the function that runs kernels one after another on each of a fixed number of units.

    It takes the arrays of each stage as a tuple. Each stage finds the results of the one before in the caches. A stage
    is a kernel and the number of its own units per unit.
    Where few units share much work, each stage runs on all units at once and in parallel within them, with results of
    the same bits.
    """
    setup, size = NO_SETUP, int(work)

    def launch(*arrays: tuple[Any, ...]) -> None:
        nonlocal setup
        if config.DISABLE_JIT or (size >= dispatch.PARALLEL_FROM and units < 2 * get_num_threads()):
            with np.errstate(all="ignore"):
                for (k, each), own in zip(stages, arrays, strict=True):
                    k(units * each, work, *own)
            return
        # One compiled call for all stages: batch_hard_triplet of 32 x 128 took 25.5 us with one for each of three, and
        # takes 20.
        if setup is not NO_SETUP and dispatch.launch(_stage_driver(), size, setup, id(arrays)):
            return
        arrays = tuple(map(_canonical, arrays))
        codes = [k.compiled(own) for (k, _), own in zip(stages, arrays, strict=True)]
        words = [
            w
            for (_, each), own, code in zip(stages, arrays, codes, strict=True)
            for w in (code.address, each, len(own))
        ]
        setup = np.array([units, len(stages), *words, *[w for code in codes for w in code.words]], np.int64)
        dispatch.launch(_stage_driver(), size, setup, id(arrays))

    return launch


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

    The cache binds kernels that small calls repeat once. `types` keeps apart calls with arrays of different types, each
    of which is then bound. A kernel that shares its work runs beside products of BLAS; `which` are the arguments of
    `kernel`.
    """
    found = kernel(*which)
    if not shares:
        return found.bound(units, work)
    if _chunk_of(units, work, SHARED) < units:
        return partial(found.shared, units, work)
    return found.bound(units, 0.0)
