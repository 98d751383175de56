"""Kernels for a GPU run by Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 pytest tests/cuda/simulated.

The simulator has no shuffles; here they are, for warps whose every thread reaches them. It takes a thread of the
operating system for each thread of a block, whose handing over took three quarters of the time of these tests and more:
here they are greenlets of one thread. Blocks are a warp or two.
"""

import contextvars
import random
import sys
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from greenlet import getcurrent, greenlet
from numba import config

if not config.ENABLE_CUDASIM:
    pytest.exit("the tests of simulated kernels need NUMBA_ENABLE_CUDASIM=1 (and are faster with NUMBA_DISABLE_JIT=1)")

from numba import cuda
from numba.cuda.simulator import kernelapi
from numba.cuda.simulator.kernel import BlockManager
from numba.cuda.simulator.kernelapi import Dim3, FakeCUDAModule, FakeCUDAShared

from fastloss.cuda import placement
from fastloss.cuda.runtime import sums


class Thread(greenlet):
    """One thread of a block, which runs until it waits for others or ends."""

    def __init__(self, run, manager, block, point):
        super().__init__(run)
        # Formulas compute both sides of each choice, of which NumPy's numbers warn: the state of the test is ours.
        self.gr_context = contextvars.copy_context()
        self.manager, self.blockIdx, self.threadIdx = manager, Dim3(*block), Dim3(*point)
        x, y, z = point
        width, height, _ = manager._block_dim
        self.thread_id = x + width * (y + height * z)
        self.turns = {}

    def syncthreads(self):
        self.manager.gate.wait()


class Gate:
    """Where some threads wait for each other; those that have ended are not waited for."""

    def __init__(self, live, ready):
        self.live, self.ready, self.waiting = live, ready, []

    def wait(self):
        thread = getcurrent()
        self.waiting.append(thread)
        self.open_if_all_are_here()
        thread.parent.switch()

    def leave(self):
        self.live -= 1
        self.open_if_all_are_here()

    def open_if_all_are_here(self):
        if len(self.waiting) == self.live:
            self.ready.extend(self.waiting)
            self.waiting.clear()


def _exchange(mask, value, source):
    """What the thread in the lane source(own lane) of this warp gave; one's own where there is none.

    The lanes of the mask wait for each other, and for nobody else: other rows may be done, or have been left out.
    """
    thread = getcurrent()
    manager, warp, lanes = thread.manager, thread.thread_id & ~31, int(mask) & 0xFFFFFFFF
    # Each exchange has a board of its own: nobody need wait until all have read.
    turn = thread.turns[lanes] = thread.turns.get(lanes, 0) + 1
    board = manager.boards.setdefault((warp, lanes, turn), {})
    board[thread.thread_id] = value
    gate = manager.gates.get((warp, lanes))
    if gate is None:
        gate = manager.gates[warp, lanes] = Gate(lanes.bit_count(), manager.ready)
    gate.wait()
    lane = source(thread.thread_id & 31)
    return board.get(warp + lane, value) if 0 <= lane < 32 else value


def _ballot(module, mask, predicate):
    return sum(1 << k for k in range(32) if _exchange(mask, bool(predicate), lambda lane, k=k: k))


def _run_block(manager, grid_point, *args):
    """Run the threads of a block in turns, in an order that no kernel may rely on: each turn ends where one waits."""
    points = list(np.ndindex(*manager._block_dim))
    random.Random(len(points)).shuffle(points)
    manager.boards, manager.gates, manager.ready = {}, {}, deque()
    manager.gate = Gate(len(points), manager.ready)
    threads = [Thread(manager._f, manager, grid_point, p) for p in points]
    try:
        for thread in threads:
            thread.switch(*args)
            if thread.dead:
                manager.gate.leave()
        while manager.ready:
            thread = manager.ready.popleft()
            thread.switch()
            if thread.dead:
                manager.gate.leave()
        stuck = sorted(thread.thread_id for thread in threads if not thread.dead)
        assert not stuck, f"threads {stuck} of a block wait for others that never come"
    finally:
        for thread in threads:
            thread.throw()


def _shared_array(shared, shape, dtype):
    """Shared memory of the line that asks, full of garbage."""
    frame = sys._getframe(1)
    place = frame.f_code.co_filename, frame.f_lineno
    if place not in shared._allocations:
        shared._allocations[place] = np.full(shape, np.nan if np.dtype(dtype).kind == "f" else -1, dtype)
    return shared._allocations[place]


FakeCUDAShared.array = _shared_array
BlockManager.run = _run_block
kernelapi.threading = SimpleNamespace(current_thread=getcurrent, Lock=kernelapi.threading.Lock)
FakeCUDAModule.shfl_sync = lambda module, mask, value, lane: _exchange(mask, value, lambda own: lane)
FakeCUDAModule.shfl_up_sync = lambda module, mask, value, step: _exchange(mask, value, lambda own: own - step)
FakeCUDAModule.shfl_down_sync = lambda module, mask, value, step: _exchange(mask, value, lambda own: own + step)
FakeCUDAModule.shfl_xor_sync = lambda module, mask, value, bits: _exchange(mask, value, lambda own: own ^ bits)
FakeCUDAModule.ballot_sync = _ballot
FakeCUDAModule.syncwarp = lambda module, mask=0xFFFFFFFF: getcurrent().syncthreads()


@pytest.fixture(autouse=True, params=[32])
def block(request, monkeypatch):
    """Threads in a block; no violation of another test is pending."""
    monkeypatch.setattr(sums, "BLOCK", request.param)
    placement._pending.clear()
    return request.param


@pytest.fixture
def put():
    """Copy an array, or a tuple of them, to the simulated device."""

    def put(x):
        if isinstance(x, tuple):
            return tuple(map(put, x))
        return cuda.to_device(np.ascontiguousarray(x)) if isinstance(x, np.ndarray) else x

    return put


@pytest.fixture
def fetch():
    """Copy results back."""

    def fetch(x):
        if isinstance(x, tuple):
            return tuple(map(fetch, x))
        return x.copy_to_host() if hasattr(x, "copy_to_host") else x

    return fetch
