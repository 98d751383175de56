"""Roofs of this machine: memory bandwidth, measured beside a case, and arithmetic speed on data in cache."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..cpu.dispatch import PARALLEL_FROM
from ..cpu.runtime.specialize import cached_jit
from ..cpu.runtime.threads import get_num_threads, run_parallel, set_num_threads
from .cases import Case, draw
from .contestants import fastloss
from .timing import interleave

__all__ = ["arithmetic", "memory", "threads"]

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


LINE = 64
"""Size of a cache line (bytes), to which streamed arrays are aligned."""

CHUNK = 1 << 15
"""Number of elements that a thread streams at a time."""


def _copy(z: Any, g: Any) -> None:
    for i in prange(z.size):
        g[i] = z[i]


def _difference(p: Any, t: Any, g: Any) -> None:
    for i in prange(p.size):
        g[i] = p[i] - t[i]


@intrinsic  # type: ignore[untyped-decorator]
def _stream(typingctx: Any, inputs: Any, g: Any, start: Any, stop: Any) -> Any:
    """Write the difference of the inputs, or the one input, to g with non-temporal stores, a cache line at a time."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = [*signature.args[0], signature.args[1]]
        arrays = [*(builder.extract_value(args[0], i) for i in range(len(kinds) - 1)), args[1]]
        element = context.get_data_type(kinds[0].dtype)
        lanes = LINE * 8 // kinds[0].dtype.bitwidth
        line = ir.VectorType(element, lanes)
        data = [context.make_array(k)(context, builder, a).data for k, a in zip(kinds, arrays, strict=True)]
        step = ir.Constant(args[2].type, lanes)
        with cgutils.for_range_slice(builder, args[2], args[3], step) as (index, _):
            places = [builder.bitcast(builder.gep(d, [index]), line.as_pointer()) for d in data]
            values = [builder.load(x, align=kinds[0].dtype.bitwidth // 8) for x in places[:-1]]
            value = builder.fsub(*values) if len(values) == 2 else values[0]
            store = builder.store(value, places[-1], align=LINE)
            store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(inputs, g, types.intp, types.intp), codegen


def _streamed(inputs: Any, g: Any) -> None:
    for c in prange((g.size + CHUNK - 1) // CHUNK):
        # What is short of a line at the end is left out.
        _stream(inputs, g, c * CHUNK, min((c + 1) * CHUNK, g.size // LINE * LINE))


_copies = {parallel: cached_jit(**OPTIONS, parallel=parallel)(_copy) for parallel in (False, True)}
_differences = {parallel: cached_jit(**OPTIONS, parallel=parallel)(_difference) for parallel in (False, True)}
_streams = {parallel: cached_jit(**OPTIONS, parallel=parallel)(_streamed) for parallel in (False, True)}

STREAMED_FROM = 1 << 22
"""Least size of an array for which non-temporal stores can be faster (bytes)."""


class Move(NamedTuple):
    """Kernel that only moves memory: the roof that it measures, the call, and its traffic (bytes)."""

    roof: str
    call: Callable[[], object]
    size: int


def memory(case: Case) -> dict[str, Move]:
    """Return kernels that only move memory, at the size of a prediction.

    ``copy`` reads one array and writes one, ``triad`` is g = p - t: what the lightest loss with a gradient must do.
    Large arrays are also written with non-temporal stores; the faster variant is the roof.
    """
    n = case.rows * max(1, case.classes)
    p, t = (np.ones(n, case.dtype) for _ in range(2))
    g = _aligned(n, case.dtype)
    parallel = n >= PARALLEL_FROM and get_num_threads() > 1
    copy, triad, stream = _copies[parallel], _differences[parallel], _streams[parallel]
    run = run_parallel if parallel else lambda kernel, *arguments: kernel(*arguments)
    moves = {
        "copy": Move("copy", lambda: run(copy, p, g), 2 * p.nbytes),
        "triad": Move("triad", lambda: run(triad, p, t, g), 3 * p.nbytes),
    }
    if p.nbytes >= STREAMED_FROM and not config.DISABLE_JIT:
        moves["streamed copy"] = Move("copy", lambda: run(stream, (p,), g), 2 * p.nbytes)
        moves["streamed triad"] = Move("triad", lambda: run(stream, (p, t), g), 3 * p.nbytes)
    return moves


def _aligned(n: int, dtype: str) -> Any:
    """Return an array that starts at a cache line."""
    item = np.dtype(dtype).itemsize
    space = np.empty(n + LINE // item, dtype)
    skipped = -space.ctypes.data % LINE // item
    return space[skipped : skipped + n]


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Let fastloss use n threads within a block; None changes nothing."""
    before = get_num_threads()
    if n is not None:
        set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


SMALL, LARGE = 1 << 13, 1 << 15
"""Numbers of elements that stay in a core's own cache; the difference of their times excludes call overhead."""


def arithmetic(case: Case, rounds: int = 9) -> float:
    """Return the compute roof: the case's time (seconds) if all data lay in cache and threads shared it evenly.

    One thread runs the loss on 8 and on 32 thousand elements; what the larger takes longer is its time per element.
    """
    sizes = [max(n, case.classes * k) for n, k in ((SMALL, 1), (LARGE, 4))]
    with threads(1):
        calls = {str(n): fastloss(c, draw(c)).call for n in sizes for c in (dataclasses.replace(case, size=n),)}
        times = interleave(calls, rounds, least=2e-4)
    small, large = (float(np.median(times[str(n)])) for n in sizes)
    return max(large - small, 0.0) / (sizes[1] - sizes[0]) * case.size / get_num_threads()
