"""Number of threads, and conditions under which a parallel region may be entered.

Numba's OpenMP layer kills the child of a process that forked after a parallel region; its workqueue layer aborts
when two Python threads enter at once. So a forked child stays serial, and workqueue is entered under a lock.
A signal handler that calls a loss runs between two bytecodes of the call that it interrupts, under all locks which that
call holds: the locks here are re-entrant, and no task is submitted within a submission.

Between products of BLAS, work is shared out among Python threads instead, which hold no core while they wait.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numba
import numpy as np
from numba.np.ufunc import parallel as _layer

from ...call.errors import SettingError

__all__ = ["allowed", "get_num_threads", "one_by_one", "parallel_allowed", "run_parallel", "set_num_threads", "share"]

T = TypeVar("T")

_lock = threading.RLock()


def _abandoned() -> bool:
    """Whether another user of Numba started its threads before a fork that nobody here saw: none of them is left."""
    if not getattr(_layer, "_is_initialized", False):
        return False
    try:
        running = len(os.listdir("/proc/self/task"))
    except OSError:
        return False
    return running <= threading.active_count()


_forked = _abandoned()


def _from_environment() -> int:
    text = os.environ.get("FASTLOSS_NUM_THREADS")
    limit = int(numba.config.NUMBA_NUM_THREADS)
    if not text:
        return limit
    if not text.isdecimal() or int(text) < 1:
        raise SettingError(f"FASTLOSS_NUM_THREADS is {text!r}; expected a whole number of at least 1")
    return min(int(text), limit)


_threads = _from_environment()

allowed = np.array([1 if _forked else _threads], np.int64)
"""Number of threads, for compiled code that no Python calls."""


def get_num_threads() -> int:
    """Return the number of threads that large calls use."""
    return 1 if _forked else _threads


def set_num_threads(n: int) -> None:
    """Use n threads for large calls, in every Python thread."""
    global _threads
    limit = int(numba.config.NUMBA_NUM_THREADS)
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= limit:
        raise ValueError(f"the number of threads is {n!r}; expected a whole number from 1 to {limit}")
    _threads = n
    allowed[0] = get_num_threads()


def parallel_allowed() -> bool:
    """Whether a parallel region may be entered."""
    return _threads > 1 and not _forked


def run_parallel(driver: Callable[..., Any], *arguments: Any) -> Any:
    """Enter the driver's parallel region with our number of threads, leaving the caller's setting as it was."""
    mine = numba.get_num_threads()
    # Workqueue aborts the process when two threads enter; OpenMP and TBB take any number.
    guard = _lock if _exclusive() else contextlib.nullcontext()
    with guard:
        # Spares two calls of Numba where both settings agree.
        if mine == _threads:
            return driver(*arguments)
        try:
            numba.set_num_threads(_threads)
            return driver(*arguments)
        finally:
            numba.set_num_threads(mine)


def _new_pool() -> ThreadPoolExecutor:
    # Its threads start when they are first needed.
    return ThreadPoolExecutor(int(numba.config.NUMBA_NUM_THREADS), "fastloss")


_pool = _new_pool()
_submitting = threading.local()


def one_by_one(work: Callable[[T], Any], items: Iterable[T]) -> None:
    """Call work(item) for every item that is left."""
    for item in items:
        work(item)


class _Crew(Generic[T]):
    """Threads at one call's work. The caller waits for those that have begun when nothing is left to take.

    It waits for no others: they may be at another call's work, or may never start.
    """

    def __init__(self, work: Callable[[T], Any], items: Iterable[T]) -> None:
        self.work, self.items = work, iter(items)
        self.changed = threading.Condition()
        self.busy, self.ended = 0, False
        self.error: BaseException | None = None

    def help(self) -> None:
        """Take items, in a thread of the pool."""
        with self.changed:
            if self.ended:
                return
            self.busy += 1
        try:
            # Warnings are set for each thread; what is infinite or NaN comes through without one, as in the kernels.
            with np.errstate(all="ignore"):
                one_by_one(self.work, self.items)
        except BaseException as error:
            self.error = error
        finally:
            with self.changed:
                self.busy -= 1
                self.changed.notify()

    def end(self) -> None:
        """Turn away who comes late, and wait for who came."""
        with self.changed:
            self.ended = True
            while self.busy:
                self.changed.wait()


def _submit(task: Callable[[], None], times: int) -> None:
    # The pool's own locks are not re-entrant: a signal handler that comes in between must not submit.
    _submitting.now = True
    try:
        # No thread can be had: at the end of the interpreter, or past a limit of the system.
        with contextlib.suppress(RuntimeError):
            for _ in range(times):
                _pool.submit(task)
    finally:
        _submitting.now = False


def share(work: Callable[[T], Any], items: Sequence[T]) -> None:
    """Call work(item) for every item, in this thread and those of a pool; it should leave the interpreter's lock."""
    # No more than there are items: waking a thread takes 30 us.
    threads = min(get_num_threads(), len(items))
    if threads == 1 or getattr(_submitting, "now", False):
        one_by_one(work, items)
        return
    crew = _Crew(work, items)
    try:
        _submit(crew.help, threads - 1)
        one_by_one(work, crew.items)
    finally:
        crew.end()
    if crew.error is not None:
        raise crew.error


def _exclusive() -> bool:
    # Before the first region the layer is unknown; the lock is right for any.
    try:
        return bool(numba.threading_layer() == "workqueue")
    except ValueError:
        return True


def _after_fork_in_child() -> None:
    global _forked, _lock, _pool
    _lock, _pool = threading.RLock(), _new_pool()
    # A child of a process that never entered a region may enter one of its own.
    _forked = _forked or bool(getattr(_layer, "_is_initialized", True))
    allowed[0] = get_num_threads()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
