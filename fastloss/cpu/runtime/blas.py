"""NumPy's BLAS, kept to one thread while its products are shared out among threads of ours.

The threads of OpenBLAS spin for some 20 ms after each product, and what runs in parallel between two products waits for
them: beside a softmax in parallel, products took 1.3 to 3 times as long. Threads of ours wait without a core.
"""

import ctypes
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ...call.arrays import F32, F64
from .threads import one_by_one, share

__all__ = ["add_product", "multiplied", "single_threaded"]

T = TypeVar("T")

PTHREADS = 1
"""Answer of an OpenBLAS that is built on POSIX threads. On OpenMP, each calling thread has a number of threads of its
own; without threads, it need not be safe to call from several."""

NAMES = (
    *("openblas_get_parallel", "openblas_get_config", "openblas_get_num_threads", "openblas_set_num_threads"),
    *("cblas_sgemm", "cblas_dgemm"),
)
ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112


class _OpenBLAS(NamedTuple):
    get: Callable[[], int]
    set: Callable[[int], None]
    gemm: dict[Any, Any]
    """By type, what adds a product of matrices to one, which NumPy has no function for."""


def _gemm(function: Any, real: Any, whole: Any) -> Any:
    sizes, place = [whole] * 3, [ctypes.c_void_p, whole]
    function.argtypes = [*[ctypes.c_int] * 3, *sizes, real, *place, *place, real, *place]
    function.restype = None
    return function


def _functions(path: str) -> _OpenBLAS | None:
    """Return the functions of the OpenBLAS at a path, or among the dependencies of the library there."""
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    for prefix, suffix in product(("scipy_", ""), ("64_", "_64", "")):
        found: Any = [getattr(library, f"{prefix}{name}{suffix}", None) for name in NAMES]
        if not all(found):
            continue
        parallel, config, get, set_to, single, double = found
        config.restype = ctypes.c_char_p
        if parallel() == PTHREADS:
            whole = ctypes.c_int64 if b"USE64BITINT" in config() else ctypes.c_int
            gemm = {F32: _gemm(single, ctypes.c_float, whole), F64: _gemm(double, ctypes.c_double, whole)}
            return _OpenBLAS(get, set_to, gemm)
    return None


@cache
def _openblas() -> _OpenBLAS | None:
    """The OpenBLAS that NumPy multiplies by; None where it is another library."""
    extension = Path(np.linalg._umath_linalg.__file__)
    # Windows looks for names in the library itself alone.
    beside = (extension.parents[2] / "numpy.libs").glob("*openblas*") if sys.platform == "win32" else ()
    return next(filter(None, map(_functions, map(str, (extension, *beside)))), None)


ENOUGH, COLUMNS = 1 << 22, 256
"""Multiplications in a part of a product, some 50 us of them, and the columns that it has at least: with 64 large ones
take 1.2 times as long."""

UNTHREADED = 1 << 16
"""Multiplications of a product for which OpenBLAS takes one thread by itself: a quarter of its own bound of 2**18.
Setting the number of its threads and back takes 4 us."""

_lock = threading.RLock()
_calls = 0
_before = 0


# A fork may fall between any two of these statements: while another number is set, calls are counted. So may a signal
# handler with a whole call of its own, which leaves one thread where it found one.
def _enter(openblas: _OpenBLAS) -> None:
    global _calls, _before
    with _lock:
        if _calls == 0:
            _before = openblas.get()
        _calls += 1
        openblas.set(1)


def _leave(openblas: _OpenBLAS) -> None:
    global _calls
    with _lock:
        before = _before
        # Somebody else's setting since then stands.
        restores = _calls == 1 and openblas.get() == 1
        if restores:
            openblas.set(before)
        _calls -= 1
        if restores and openblas.get() == 1:
            openblas.set(before)


_alone: Any = nullcontext(one_by_one)


def single_threaded(most: float = math.inf) -> Any:
    """Return the context of products of at most so many multiplications each, which OpenBLAS gives threads or not."""
    return _alone if most <= UNTHREADED else _kept_to_one()


@contextmanager
def _kept_to_one() -> Iterator[Callable[[Callable[[T], Any], Sequence[T]], None]]:
    """Context with a function that calls another for each of some items: on our threads, where BLAS can be kept to one.

    Where it cannot, the items come one after another, each product on the threads of BLAS.
    """
    openblas = _openblas()
    if openblas is None:
        yield one_by_one
        return
    _enter(openblas)
    try:
        yield share
    finally:
        _leave(openblas)


def multiplied(products: Callable[..., None], a: Any, b: Any, out: Any = None) -> Any:
    """The product of two matrices, its columns shared out by what `single_threaded` yields."""
    step = max(COLUMNS, ENOUGH // max(1, a.size))
    # A product of one part needs no threads, and no array of its own.
    if b.shape[1] <= step:
        return np.matmul(a, b, out=out)
    if out is None:
        out = np.empty((len(a), b.shape[1]), a.dtype)

    def columns(lo: int) -> None:
        np.matmul(a, b[:, lo : lo + step], out=out[:, lo : lo + step])

    products(columns, range(0, b.shape[1], step))
    return out


def add_product(total: Any, g: Any, x: Any) -> None:
    """Add g.T @ x to a total. The rows of each are contiguous."""
    openblas = _openblas()
    if openblas is None:
        total += g.T @ x
        return
    k, h = total.shape
    # A single row may claim any distance to the next.
    one, two, out = ((m.ctypes.data, max(m.shape[1], m.strides[0] // m.itemsize)) for m in (g, x, total))
    # Adds in place: NumPy would write the product to an array of its own, and read it again.
    openblas.gemm[total.dtype](ROW_MAJOR, TRANSPOSED, AS_IT_IS, k, h, len(g), 1.0, *one, *two, 1.0, *out)


def _after_fork_in_child() -> None:
    # The threads that were in a call are not here to leave it.
    global _lock, _calls
    _lock = threading.RLock()
    openblas = _openblas() if _calls else None
    _calls = 0
    if openblas is not None:
        openblas.set(_before)


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
