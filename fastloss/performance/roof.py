"""What this machine could do at best: the memory's speed, measured beside a case, and the arithmetic's in cache."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import prange

from ..dispatch import PARALLEL_FROM
from ..kernels.specialize import cached_jit
from ..kernels.threads import get_num_threads, run_parallel, set_num_threads
from .cases import Case, draw
from .contestants import fastloss
from .timing import interleave

__all__ = ["arithmetic", "memory", "threads"]

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def _copy(z: Any, g: Any) -> None:
    for i in prange(z.size):
        g[i] = z[i]


def _difference(p: Any, t: Any, g: Any) -> None:
    for i in prange(p.size):
        g[i] = p[i] - t[i]


_copies = {parallel: cached_jit(**OPTIONS, parallel=parallel)(_copy) for parallel in (False, True)}
_differences = {parallel: cached_jit(**OPTIONS, parallel=parallel)(_difference) for parallel in (False, True)}


def memory(case: Case) -> dict[str, tuple[Callable[[], object], int]]:
    """By name, a kernel that only moves memory, at the size of a prediction, and the bytes that it moves.

    ``copy`` reads one array and writes one, ``triad`` is g = p - t: what the lightest loss with a gradient must do.
    """
    n = case.rows * max(1, case.classes)
    p, t = (np.ones(n, case.dtype) for _ in range(2))
    g = np.empty(n, case.dtype)
    parallel = n >= PARALLEL_FROM and get_num_threads() > 1
    copy, triad = _copies[parallel], _differences[parallel]
    run = run_parallel if parallel else lambda kernel, *arguments: kernel(*arguments)
    return {
        "copy": (lambda: run(copy, p, g), 2 * p.nbytes),
        "triad": (lambda: run(triad, p, t, g), 3 * p.nbytes),
    }


@contextmanager
def threads(n: int | None) -> Iterator[None]:
    """Let fastloss use n threads; None leaves it as it is."""
    before = get_num_threads()
    if n is not None:
        set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


SMALL, LARGE = 1 << 13, 1 << 15
"""Elements that stay in a core's own cache; their difference in time has no cost of the call in it."""


def arithmetic(case: Case, rounds: int = 9) -> float:
    """Seconds that the case would take if all data lay in cache and threads shared it evenly: its compute roof.

    One thread runs the loss on 8 and on 32 thousand elements; what the larger takes longer is its time per element.
    """
    sizes = [max(n, case.classes * k) for n, k in ((SMALL, 1), (LARGE, 4))]
    with threads(1):
        calls = {str(n): fastloss(c, draw(c)).call for n in sizes for c in (dataclasses.replace(case, size=n),)}
        times = interleave(calls, rounds, least=2e-4)
    small, large = (float(np.median(times[str(n)])) for n in sizes)
    return max(large - small, 0.0) / (sizes[1] - sizes[0]) * case.size / get_num_threads()
