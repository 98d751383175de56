"""A kernel and how it is launched."""

import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import cuda, types

from ...cpu.runtime.slots import resolve_in
from ...cpu.runtime.specialize import bind
from .memory import SIMULATED

__all__ = ["ADDRESS", "MAX_BLOCKS", "PLACE", "Kernel", "addresses"]

if not SIMULATED:
    # Without numba-cuda, whose compiler this is, the module is still imported where its documentation is read.
    with suppress(ModuleNotFoundError):
        resolve_in("numba.cuda.core")

ADDRESS, PLACE = types.uint64, types.int64

MAX_BLOCKS = 1024
"""Blocks of a large call: eight of 256 threads for each multiprocessor of the largest devices, and the same on all, so
that sums have one order everywhere."""

CONFIGURATIONS = 64
"""Grids and streams for which a kernel keeps its launcher. A program whose batches have one size uses a few; one whose
batches differ in size would otherwise add one for each, without end."""


def addresses(count: int) -> Any:
    """The type of a tuple of addresses."""
    return types.UniTuple(ADDRESS, count)


class Kernel:
    """A template with its names bound and the types of its arguments, compiled at its first launch on a device."""

    def __init__(
        self,
        template: Callable[..., Any],
        name: str,
        signature: Any,
        use: Any = None,
        bounds: tuple[int, int] | None = None,
        wide: bool = False,
        **functions: Any,
    ) -> None:
        self.function = bind(template, use, **functions)
        self.function.__name__ = self.function.__qualname__ = name
        self.name, self.signature = name, signature
        self.bounds = bounds
        """Threads in a block, and the blocks that a multiprocessor should have room for."""
        self.wide = wide
        """Whether it reads and writes 128 bits at a time."""
        self._compiled: dict[int, Any] = {}
        self._configured: dict[Any, Any] = {}
        self._lock = threading.RLock()  # a signal handler may call the same loss meanwhile

    def __call__(self, blocks: int | tuple[int, ...], threads: int, stream: Any, *arguments: Any) -> None:
        """Launch on the current device, without waiting."""
        if SIMULATED:
            cuda.jit(self.function)[blocks, threads](*arguments)
            return
        key = (cuda.get_current_device().id, blocks, threads, stream)
        found = self._configured.get(key)
        if found is None:
            with self._lock:
                if len(self._configured) >= CONFIGURATIONS:
                    self._configured.clear()
                found = self._configured[key] = self._configure(*key)
        found(*arguments)

    def _configure(self, device: int, *configuration: Any) -> Any:
        """The kernel for one device, and how it is to be launched."""
        if device not in self._compiled:
            # As the tests compile and count it; by itself numba-cuda would optimize once more where it is linked.
            self._compiled[device] = cuda.jit(self.signature, launch_bounds=self.bounds, lto=False)(self.function)
        with warnings.catch_warnings():
            # A small call has few blocks, and knows it.
            warnings.filterwarnings("ignore", message="Grid size")
            return self._compiled[device][configuration]
