"""Choice of the kernel and the number of threads of a call. Numba is imported here, at the first call."""

import os
import threading
from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..call.arrays import F64, NAMES
from ..spec.record import NONNEGATIVE, REAL, Domain, Formula, registered

__all__ = [
    "CHUNK",
    "EMPTY",
    "HALF_CHUNK",
    "PARALLEL_FROM",
    "TILED_TO",
    "chunk_of",
    "compiling",
    "elementwise",
    "few_row_driver",
    "few_row_setup",
    "half_row_driver",
    "helpers",
    "in_parallel",
    "last_level",
    "launch",
    "overflows",
    "pair_driver",
    "room",
    "rows",
    "rows_per_chunk",
    "small_sum",
    "streams",
    "sum_code",
    "sum_in_order",
    "sum_record",
    "weighed",
    "weight_sum",
    "weighted_pair_driver",
]

I64 = np.dtype(np.int64)

EMPTY = {k: np.empty(0, k) for k in map(np.dtype, ("float32", "float64", "int64", "int16", "uint16"))}
"""Empty placeholders, passed to kernels for omitted arrays."""

CHUNK = 1 << 15
"""Elements per chunk: small enough for the second-level cache, large enough to hide the indirect call."""

FEW_CHUNKS = 1 << 20
"""Size of a call (elements) below which chunks are a quarter as large, so that threads share them more evenly."""


def chunk_of(size: int) -> int:
    """Return the number of elements per chunk for a call of this size."""
    # Two threads share bce of 100,000 elements 1.5 times faster than one takes it; 1.34 times with whole chunks.
    return CHUNK // 4 if PARALLEL_FROM <= size < FEW_CHUNKS else CHUNK


TILED_TO = 40
"""Largest K for which a transposed tile of rows beats a loop along each row."""


def rows_per_chunk(k: int, chunk: int = CHUNK) -> int:
    """Return the number of rows per chunk: a multiple of 64 where K is small, at least one where it is large."""
    # Whole tiles: a chunk that ends within one would compute rows that are not there.
    return chunk // k // 64 * 64 if k <= chunk // 64 else max(1, chunk // k)


HALF_CHUNK = 1 << 13
"""Elements per chunk of 16-bit arrays, whose chunks are widened into buffers."""

PARALLEL_FROM = 1 << 16
"""Size of a call (elements) from which a second thread pays: OpenMP takes 2 us, a light kernel 0.1 ns an element."""

LAST_LEVEL = 32 << 20
"""Assumed size of the last-level cache (bytes) where the system does not report it."""

compiling = threading.RLock()
"""Lock that is held while kernels are compiled."""

_compiled: dict[tuple[Any, ...], tuple[int, Callable[..., Any], Any]] = {}
_helpers: dict[tuple[int, Any, str], tuple[Any, Any]] = {}
_parallel: dict[Callable[..., Any], Callable[..., Any]] = {}
_threads: ModuleType | None = None

if hasattr(os, "register_at_fork"):
    # Prevents a deadlock: a child forked while another thread compiles has the lock but not that thread.
    os.register_at_fork(before=compiling.acquire, after_in_parent=compiling.release, after_in_child=compiling.release)


def _once(key: tuple[Any, ...], build: Callable[[], tuple[Any, Any]]) -> tuple[int, Callable[..., Any], Any]:
    """Build a chunk and its driver, unless another thread just did."""
    with compiling:
        found = _compiled.get(key)
        if found is None:
            chunk, driver = build()
            found = _compiled[key] = (chunk.address, driver, chunk)
    return found


def elementwise(
    record: Formula,
    dtype: str,
    mode: str,
    weighted: bool,
    stored: str = "",
    target: str = "",
    usual: bool = False,
    parts: int = 0,
) -> tuple[int, Callable[..., Any], Any]:
    """Return the address of an elementwise chunk, its driver, and the object that keeps the code alive.

    The formula of a sum whose parts are wanted returns their values after its own results.
    """
    key = (record.function, record.prediction_domains, dtype, mode, weighted, stored, target, usual, parts)
    found = _compiled.get(key)
    if found is None:
        from . import elementwise as cpu

        chunk, driver = cpu.elementwise_chunk, cpu.elementwise_driver
        formats, count = (stored, target), len(record.predictions)
        options = (mode, weighted, *formats, usual, parts)
        found = _once(key, lambda: (chunk(record, dtype, *options), driver(dtype, count, *formats, parts > 0)))
    return found


def rows(
    record: Formula, dtype: str, mode: str, kind: str, smooth: bool, tiled: bool
) -> tuple[int, Callable[..., Any], Any]:
    """Return the address of a row-wise chunk, its driver, and the object that keeps the code alive."""
    key = (record.function, dtype, mode, kind, smooth, tiled)
    found = _compiled.get(key)
    if found is None:
        from .rows import drivers as kernels

        options = (mode, kind, smooth, tiled)
        found = _once(key, lambda: (kernels.row_chunk(record, dtype, *options), kernels.row_driver(dtype)))
    return found


@cache
def room(k: int, mode: str, kind: str, tiled: bool, loop: str, rows: int) -> int:
    """Return the number of scratch elements that a chunk of rows needs."""
    from .rows.drivers import room

    return room(k, mode, kind, tiled, loop, rows)


@cache
def pair_driver(dtype: str) -> Callable[..., Any]:
    """Return the driver of small sums over one prediction and its target."""
    with compiling:
        from . import elementwise as cpu

        return cpu.pair_driver(dtype)  # type: ignore[no-any-return]


@cache
def few_row_driver(dtype: str) -> Callable[..., Any]:
    """Return the driver of small reduced calls over rows."""
    with compiling:
        from . import few

        return few.row_driver(dtype)  # type: ignore[no-any-return]


def few_row_setup(dtype: str, address: int, divides: bool, code: tuple[int, ...]) -> Any:
    """Return the setup of that driver for one kernel."""
    from . import few

    return few.row_setup(dtype, address, divides, code)


@cache
def weighted_pair_driver(dtype: str) -> Callable[..., Any]:
    """Return the driver of small weighted means over one prediction and its target."""
    with compiling:
        from . import few

        return few.weighted_pair_driver(dtype)  # type: ignore[no-any-return]


@cache
def half_row_driver(stored: str) -> Callable[..., Any]:
    """Return the driver of row-wise losses on 16-bit scores."""
    with compiling:
        from .rows import drivers as rows

        return rows.half_row_driver(stored)  # type: ignore[no-any-return]


def helpers(k: int, dtype: Any, tiled: bool, described: str = "") -> Any:
    """Return the addresses of helpers of a chunk of rows; `described` is the kind of target for by-products."""
    if not tiled and not described:
        return EMPTY[I64]
    found = _helpers.get((k if tiled else 0, dtype, described))
    if found is None:
        from .rows.drivers import row_helpers

        with compiling:
            found = _helpers[k if tiled else 0, dtype, described] = row_helpers(k, NAMES[dtype], tiled, described)
    return found[0]


def launch(driver: Callable[..., Any], size: int, *arguments: Any) -> Any:
    """Run a driver, in parallel where the size pays for it; the driver's last argument says which."""
    # Spares small calls a parallel region, which takes 2 us on OpenMP and 75 to 105 on workqueue.
    if size < PARALLEL_FROM:
        return driver(*arguments, False)
    global _threads
    if _threads is None:
        from .runtime import threads

        _threads = threads
    if not _threads.parallel_allowed():
        return driver(*arguments, False)
    return _threads.run_parallel(in_parallel(driver), *arguments, True)


def in_parallel(driver: Callable[..., Any]) -> Callable[..., Any]:
    """Return the companion of a driver that shares its loop among threads."""
    found = _parallel.get(driver)
    if found is None:
        from .runtime import specialize

        with compiling:
            found = _parallel[driver] = specialize.in_parallel(driver)
    return found


@cache
def last_level() -> int:
    """Return the size of the last-level cache (bytes)."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) << 10
    except (OSError, ValueError):
        return LAST_LEVEL


def overflows(*groups: tuple[Any, ...]) -> bool:
    """Whether the arrays together exceed the last-level cache."""
    return bool(sum(a.nbytes for group in groups for a in group) > last_level())


def streams(record: Formula, *groups: tuple[Any, ...]) -> bool:
    """Whether results bypass the caches: where memory bandwidth, not the formula, limits the speed."""
    # Where an exponential sets the pace, stores past the caches gain nothing.
    return overflows(*groups) and not record.transcendental


def _identity(z):
    """Return z as its own loss, with slope 1 and curvature 0."""
    return z, 1.0, 0.0


@lru_cache(maxsize=32)
def sum_record(domain: Domain) -> Formula:
    """Return the formula record under which kernels sum arrays and check a domain."""
    like = next(iter(registered.values()))
    return like._replace(
        name="sum",
        function=_identity,
        predictions=("z",),
        target=None,
        defaults={},
        parameters={},
        prediction_domains=(domain,),
    )


def sum_code(domain: Domain, dtype: Any) -> int:
    """Return the address of the kernel that sums an array and counts the values outside a domain."""
    return _sum_kernel(dtype, False, domain)[0]


@lru_cache(maxsize=64)
def small_sum(dtype: Any, domain: Domain = REAL) -> Callable[[Any], tuple[float, float]]:
    """Return the function that gives what `sum_in_order` does of fewer than `PARALLEL_FROM` values, in 0.2 of its time.

    It passes one array for six.
    """
    address = sum_code(domain, dtype)
    with compiling:
        from . import few

        driver = few.sum_driver(NAMES[dtype])
    return partial(driver, CHUNK, address)


def sum_in_order(values: Any, weight: Any = None, domain: Domain = REAL) -> tuple[float, float]:
    """Return the sum of values, in the fixed order of all kernels, and the number of values outside a domain.

    With weights, each value is multiplied by its own, a weight of 0 takes it out, and negative weights count as well.
    """
    address, driver, e, nothing = _sum_kernel(values.dtype, weight is not None, domain)
    total: tuple[float, float] = launch(
        driver,
        values.size,
        address,
        (values,),
        e,
        e if weight is None else weight,
        e,
        (e,),
        (e,),
        1.0,
        nothing,
        False,
        CHUNK,
    )
    return total


@lru_cache(maxsize=64)
def _sum_kernel(dtype: Any, weighted: bool, domain: Domain) -> tuple[int, Callable[..., Any], Any, Any]:
    """Return the address of a summing kernel, its driver, and the placeholders for their omitted arrays."""
    address, driver, _ = elementwise(sum_record(domain), NAMES[dtype], "value", weighted)
    return address, driver, EMPTY[dtype], EMPTY[F64]


def weight_sum(weight: Any) -> tuple[float, float]:
    """Return the sum of weights, and the number of negative ones."""
    return sum_in_order(weight, domain=NONNEGATIVE)


def weighed(weight: Any) -> Callable[[], float] | None:
    """Return the function that sums the weights of a mean; None without weights."""
    return None if weight is None else lambda: weight_sum(weight)[0]
