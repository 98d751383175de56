"""Which kernel runs a call, and on how many threads. Numba is imported here, at the first call."""

import os
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import F64, NAMES
from .formulas.record import NONNEGATIVE, REAL, Domain, Formula, registered

__all__ = [
    "CHUNK",
    "EMPTY",
    "HALF_CHUNK",
    "PARALLEL_FROM",
    "TILED_TO",
    "chunk_of",
    "compiling",
    "elementwise",
    "half_row_driver",
    "helpers",
    "label_driver",
    "launch",
    "overflows",
    "pair_driver",
    "room",
    "rows",
    "rows_per_chunk",
    "streams",
    "sum_in_order",
    "sum_record",
    "weight_sum",
]

I64 = np.dtype(np.int64)

EMPTY = {k: np.empty(0, k) for k in map(np.dtype, ("float32", "float64", "int64", "int16", "uint16"))}
"""What stands for an array that a call has not got."""

CHUNK = 1 << 15
"""Elements in a chunk: small enough for the second-level cache, large enough to hide the indirect call."""

FEW_CHUNKS = 1 << 20
"""Elements up to which chunks are a quarter as large, so that threads share them more evenly."""


def chunk_of(size: int) -> int:
    """Elements in a chunk of a call of this size."""
    return CHUNK // 4 if PARALLEL_FROM <= size < FEW_CHUNKS else CHUNK


TILED_TO = 40
"""The largest K for which a transposed tile of rows beats a loop along each row."""


def rows_per_chunk(k: int, chunk: int = CHUNK) -> int:
    """Whole groups of 64 rows where K is small, at least one row where it is large."""
    return chunk // k // 64 * 64 if k <= chunk // 64 else max(1, chunk // k)


HALF_CHUNK = 1 << 13
"""The same for arrays of 16 bits, whose chunks are widened into buffers."""

PARALLEL_FROM = 1 << 16
"""Elements from which a second thread pays: an OpenMP region costs about 2 us, a light kernel 0.1 ns an element."""

LAST_LEVEL = 32 << 20
"""Bytes of the last-level cache where the system does not say."""

compiling = threading.RLock()
"""Held while kernels are compiled."""

_compiled: dict[tuple[Any, ...], tuple[int, Callable[..., Any], Any]] = {}
_helpers: dict[tuple[int, Any], tuple[Any, Any]] = {}
_threads: Any = None

if hasattr(os, "register_at_fork"):
    # A child forked while another thread compiles would wait for ever for that thread, which it has not got.
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
    record: Formula, dtype: str, mode: str, weighted: bool, stored: str = "", target: str = "", usual: bool = False
) -> tuple[int, Callable[..., Any], Any]:
    """The address of a compiled chunk, its driver, and the object that keeps the code alive."""
    key = (record.function, record.prediction_domains, dtype, mode, weighted, stored, target, usual)
    found = _compiled.get(key)
    if found is None:
        from .kernels import cpu

        chunk, driver = cpu.elementwise_chunk, cpu.elementwise_driver
        formats, count = (stored, target), len(record.predictions)
        found = _once(
            key, lambda: (chunk(record, dtype, mode, weighted, *formats, usual), driver(dtype, count, *formats))
        )
    return found


def rows(
    record: Formula, dtype: str, mode: str, kind: str, smooth: bool, tiled: bool, described: bool
) -> tuple[int, Callable[..., Any], Any]:
    """The same for a loss of rows."""
    key = (record.function, dtype, mode, kind, smooth, tiled, described)
    found = _compiled.get(key)
    if found is None:
        from .kernels import rows as kernels

        options = (mode, kind, smooth, tiled, described)
        found = _once(key, lambda: (kernels.row_chunk(record, dtype, *options), kernels.row_driver(dtype)))
    return found


@cache
def room(k: int, mode: str, kind: str, tiled: bool, loop: str, rows: int) -> int:
    """How many numbers of scratch a chunk of rows needs."""
    from .kernels.rows import room

    return room(k, mode, kind, tiled, loop, rows)


@cache
def pair_driver(dtype: str) -> Callable[..., Any]:
    """The driver of small sums over one prediction and its target."""
    with compiling:
        from .kernels import cpu

        return cpu.pair_driver(dtype)  # type: ignore[no-any-return]


@cache
def label_driver(dtype: str) -> Callable[..., Any]:
    """The driver of small calls with labels."""
    with compiling:
        from .kernels import rows

        return rows.label_driver(dtype)  # type: ignore[no-any-return]


@cache
def half_row_driver(stored: str) -> Callable[..., Any]:
    """The driver of row losses on scores of 16 bits."""
    with compiling:
        from .kernels import half

        return half.half_row_driver(stored)  # type: ignore[no-any-return]


def helpers(k: int, dtype: Any, tiled: bool) -> Any:
    """The addresses of what a chunk of rows calls besides its formula."""
    if not tiled:
        return EMPTY[I64]
    found = _helpers.get((k, dtype))
    if found is None:
        from .kernels.rows import tile_helpers

        with compiling:
            found = _helpers[k, dtype] = tile_helpers(k, NAMES[dtype])
    return found[0]


def launch(driver: Callable[..., Any], size: int, *arguments: Any) -> Any:
    """Run a driver, in parallel where the size pays for it; the last argument is the switch."""
    if size < PARALLEL_FROM:
        return driver(*arguments, False)
    global _threads
    if _threads is None:
        from .kernels import threads

        _threads = threads
    if not _threads.parallel_allowed():
        return driver(*arguments, False)
    return _threads.run_parallel(driver, *arguments, True)


@cache
def _last_level() -> int:
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) << 10
    except (OSError, ValueError):
        return LAST_LEVEL


def overflows(*groups: tuple[Any, ...]) -> bool:
    """Whether some arrays together are larger than the last-level cache."""
    return bool(sum(a.nbytes for group in groups for a in group) > _last_level())


def streams(record: Formula, *groups: tuple[Any, ...]) -> bool:
    """Whether results should be written past the caches: where the memory, not the formula, sets the pace."""
    return overflows(*groups) and not record.transcendental


def _identity(z):  # type: ignore[no-untyped-def]
    """The sum of an array, as a loss."""
    return z, 1.0, 0.0


@lru_cache(maxsize=32)
def sum_record(domain: Domain) -> Formula:
    """The sum of an array of some domain, as a loss."""
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


def sum_in_order(values: Any, weight: Any = None, domain: Domain = REAL) -> tuple[float, float]:
    """The sum of values, in the fixed order of all sums here, and how many lie outside a domain.

    Under weights it is of value times weight, 0 where the weight is, and negative weights count too.
    """
    address, driver, _ = elementwise(sum_record(domain), NAMES[values.dtype], "value", weight is not None)
    e, nothing = EMPTY[values.dtype], EMPTY[F64]
    w = e if weight is None else weight
    total: tuple[float, float] = launch(
        driver, values.size, address, (values,), e, w, e, (e,), (e,), 1.0, nothing, False, CHUNK
    )
    return total


def weight_sum(weight: Any) -> tuple[float, float]:
    """The sum of weights, and how many are negative."""
    return sum_in_order(weight, domain=NONNEGATIVE)
