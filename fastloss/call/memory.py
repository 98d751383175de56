"""Memory for large results, reused when the arrays of earlier results are gone.

A fresh large array costs page faults, as the C library maps and unmaps whatever is over 32 MB each time: at 1e7
float32 elements a call took 1.5 times as long as with ``out=`` on one thread, twice as long on two. Recycled memory
has its pages.
"""

import math
import mmap
import os
import sys

# The built-in half of tracemalloc, which takes no time to import.
from _tracemalloc import is_tracing
from pathlib import Path
from typing import Any

import numpy as np

from .errors import SettingError

__all__ = ["SMALLEST", "MemoryPool", "empty", "release_memory", "zeros"]

SMALLEST = 1 << 21
"""Least size of a recycled array (bytes): one huge page, where the 4 us of a block are 2% of the lightest call."""

PAGE = 1 << 21
"""Size of a huge page on x86-64 and ARM (bytes), to which blocks are aligned."""

GRAIN = 1 << 16
"""Granularity of block sizes (bytes): rounding up to huge pages would waste half of a block just over one."""

HELD = 1 << 25
"""Idle memory that the system cannot reclaim by itself (bytes); further blocks are marked as reclaimable.

The advice takes 15 us, and twice 20 us a call with it: too much for small blocks, 1% of a call of 32 MB.
"""

DEFAULT_LIMIT = 256
"""Default limit of idle memory (MB of 2**20 bytes): the gradient of 5e7 float32 elements, or six of 1e7."""

VARIABLE = "FASTLOSS_MEMORY_POOL_MB"


def _limit_from_environment() -> int:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT << 20
    if not text.isdecimal():
        raise SettingError(f"{VARIABLE} is {text!r}; expected a whole number of megabytes, 0 to recycle no memory")
    return int(text) << 20


def _has_huge_pages() -> bool:
    """Whether Linux gives huge pages to whoever asks; with small ones, advice to be free costs a quarter of a call.

    A kernel of 64 kB pages has huge ones of 512 MB, which no block holds.
    """
    if sys.platform != "linux":
        return False
    folder = Path("/sys/kernel/mm/transparent_hugepage")
    try:
        size, enabled = int((folder / "hpage_pmd_size").read_text()), (folder / "enabled").read_text()
        return size == PAGE and "[never]" not in enabled
    except (OSError, ValueError):
        return False


class _Block:
    """Memory block mapped from the system, unmapped when the object is dropped."""

    __slots__ = ("_mapping", "_start", "address", "capacity", "is_reclaimable")

    page = PAGE

    def __init__(self, capacity: int, huge: bool) -> None:
        # Private, as a child that is forked must not write into the arrays of its parent.
        flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        # One page more, so that whole huge pages begin at the start of the block.
        self._mapping = mmap.mmap(-1, capacity + PAGE, **flags)
        address = np.frombuffer(self._mapping, np.uint8).__array_interface__["data"][0]
        self._start = -address % PAGE
        self.address, self.capacity = address + self._start, capacity
        self.is_reclaimable = False
        """Whether the system may take the pages, until they are written to."""
        if huge:
            self.advise(mmap.MADV_HUGEPAGE)

    def advise(self, advice: int) -> None:
        """Pass advice about the block's huge pages to the system; systems that do not support it ignore it.

        Each small page that is advised to be free costs 0.3 us, and a huge one hardly more.
        """
        # Not `contextlib`: at the end of the interpreter, the names of a module are gone.
        try:  # noqa: SIM105
            self._mapping.madvise(advice, self._start, self.capacity // self.page * self.page)
        except OSError:
            pass


class _Owner:
    """Base object of an array and its views, which returns their block to the pool when the last is gone."""

    __slots__ = ("__array_interface__", "_block", "_home", "_pool")

    def __init__(self, pool: "MemoryPool", block: _Block, shape: tuple[int, ...], dtype: Any) -> None:
        self._pool, self._block, self._home = pool, block, pool.idle
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (block.address, False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._pool.give(self._block, self._home)


class MemoryPool:
    """Pool of idle memory blocks for later results, of at most ``limit`` bytes together.

    Arrays die anywhere: in any thread, in a signal handler, in the garbage collector within a call of this class. So
    there is no lock to wait for: each step on the list of idle blocks is one operation of a list, which no other
    interrupts.
    """

    advice = getattr(mmap, "MADV_FREE", 0) if _has_huge_pages() else 0
    """Advice that lets Linux take the pages of an idle block when memory is short; 0 where it is not given."""

    held = HELD

    def __init__(self, limit: int | None = None) -> None:
        self.idle: list[_Block] = []
        """Idle blocks, the newest last."""
        self._limit = limit

    @property
    def limit(self) -> int:
        """Limit of idle memory (bytes); by default the environment's setting at the first large result."""
        if self._limit is None:
            self._limit = _limit_from_environment()
        return self._limit

    def kept(self) -> int:
        """Idle memory (bytes)."""
        kept = 0
        for block in self.idle.copy():
            kept += block.capacity
        return kept

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised array of at least `SMALLEST` bytes."""
        capacity = -(-math.prod(shape) * dtype.itemsize // GRAIN) * GRAIN
        # NumPy tells tracemalloc of its own memory alone, and whoever traces wants to see every array.
        if capacity > self.limit or is_tracing():
            return self._fresh(shape, dtype)
        try:
            block = self._taken(capacity) or self._mapped(capacity)
        except OSError:
            return self._fresh(shape, dtype)
        a = np.asarray(_Owner(self, block, shape, dtype))
        # The view names the format: an interface knows no bfloat16, and equal dtypes may be several objects.
        return a if a.dtype is dtype else a.view(dtype)

    def _taken(self, capacity: int) -> _Block | None:
        """Return the newest idle block of a capacity, or of up to a quarter more; None where there is none."""
        for block in reversed(self.idle.copy()):
            if capacity <= block.capacity <= capacity + (capacity >> 2):
                try:
                    self.idle.remove(block)
                except ValueError:  # another thread was faster
                    continue
                block.is_reclaimable = False
                return block
        return None

    def _mapped(self, capacity: int) -> _Block:
        try:
            return _Block(capacity, bool(self.advice))
        except OSError:
            self.release()
            return _Block(capacity, bool(self.advice))

    def _fresh(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array allocated by NumPy; release idle blocks where memory is short."""
        try:
            return np.empty(shape, dtype)
        except MemoryError:
            if not self.release():
                raise
            return np.empty(shape, dtype)

    def give(self, block: _Block, home: list[_Block]) -> None:
        """Put an unused block into the pool; the oldest blocks beyond the limit are dropped.

        This runs in `__del__`, at the end of the interpreter too: it needs nothing of the module.
        """
        # A block from before a fork shares its pages with the parent: to write to it is to copy them.
        if home is not self.idle:
            return
        if self.advice:
            held = block.capacity
            for other in home.copy():
                held += 0 if other.is_reclaimable else other.capacity
            if held > self.held:
                block.is_reclaimable = True
                block.advise(self.advice)
        home.append(block)
        while self.kept() > self.limit:
            try:
                home.pop(0)
            except IndexError:  # another thread was faster
                return

    def release(self) -> int:
        """Release every idle block to the system; return their size (bytes)."""
        released = 0
        while self.idle:
            try:
                released += self.idle.pop().capacity
            except IndexError:  # another thread was faster
                break
        return released

    def forget(self) -> None:
        """Drop the idle blocks from before a fork, and blocks that older arrays return later."""
        before, self.idle = self.idle, []
        before.clear()


_pool = MemoryPool()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an uninitialised array, from recycled memory where it is large."""
    if math.prod(shape) * dtype.itemsize < SMALLEST:
        return np.empty(shape, dtype)
    return _pool.empty(shape, dtype)


def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array of zeros, from recycled memory where it is large."""
    if math.prod(shape) * dtype.itemsize < SMALLEST:
        return np.zeros(shape, dtype)
    a = _pool.empty(shape, dtype)
    a.fill(0)
    return a


def release_memory() -> int:
    """Return the memory that is kept for results to the system, and its size in bytes.

    Memory that an array still uses is not touched. ``FASTLOSS_MEMORY_POOL_MB`` limits what is kept; 0 keeps nothing.

    Examples
    --------
    >>> import fastloss as fl
    >>> released = fl.release_memory()
    >>> fl.release_memory()
    0
    """
    return _pool.release()
