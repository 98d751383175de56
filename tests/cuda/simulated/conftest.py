"""Kernels for a GPU run by Numba's simulator: NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 pytest tests/cuda/simulated.

The simulator has no shuffles; here they are, for warps whose every thread reaches them. Blocks are a warp or two, as
each of their threads is one of Python.
"""

import sys
import threading

import numpy as np
import pytest
from numba import config

if not config.ENABLE_CUDASIM:
    pytest.exit("the tests of simulated kernels need NUMBA_ENABLE_CUDASIM=1 (and are faster with NUMBA_DISABLE_JIT=1)")

from numba import cuda
from numba.cuda.simulator.kernel import BlockManager, BlockThread
from numba.cuda.simulator.kernelapi import FakeCUDAModule, FakeCUDAShared

from fastloss.cuda import placement
from fastloss.cuda.runtime import sums


class Gate:
    """Where some threads wait for each other; those that have ended are not waited for."""

    def __init__(self, live, manager):
        self.guard, self.live, self.waiting, self.manager = threading.Lock(), live, [], manager

    def wait(self):
        with self.guard:
            last = len(self.waiting) + 1 == self.live
            if last:
                self.open()
            else:
                turn = threading.Lock()
                turn.acquire()
                self.waiting.append(turn)
        if not last and not self.manager.failed:
            turn.acquire()
        if self.manager.failed:
            raise RuntimeError("another thread of the block failed")

    def leave(self):
        with self.guard:
            self.live -= 1
            if len(self.waiting) == self.live:
                self.open()

    def open(self):
        waiting, self.waiting = self.waiting, []
        for turn in waiting:
            turn.release()


def _exchange(mask, value, source):
    """What the thread in the lane source(own lane) of this warp gave; one's own where there is none.

    The lanes of the mask wait for each other, and for nobody else: other rows may be done, or have been left out.
    """
    thread = threading.current_thread()
    manager, warp, lanes = thread._manager, thread.thread_id & ~31, int(mask) & 0xFFFFFFFF
    # Each exchange has a board of its own: nobody need wait until all have read.
    turns = thread.__dict__.setdefault("turns", {})
    turn = turns[lanes] = turns.get(lanes, 0) + 1
    board = manager.boards.setdefault((warp, lanes, turn), {})
    board[thread.thread_id] = value
    manager.gates.setdefault((warp, lanes), Gate(lanes.bit_count(), manager)).wait()
    lane = source(thread.thread_id & 31)
    return board.get(warp + lane, value) if 0 <= lane < 32 else value


def _ballot(module, mask, predicate):
    return sum(1 << k for k in range(32) if _exchange(mask, bool(predicate), lambda lane, k=k: k))


def _run_block(manager, grid_point, *args):
    """In place of the simulator's own way, which polls its threads and is several times as slow."""
    points = list(np.ndindex(*manager._block_dim))
    manager.failed, manager.boards, manager.gates = False, {}, {}
    manager.gate = Gate(len(points), manager)
    threads = [BlockThread(lambda: manager._f(*args), manager, grid_point, p, manager._debug) for p in points]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread in threads:
        if thread.exception and "another thread" not in str(thread.exception[0]):
            raise thread.exception[0].with_traceback(thread.exception[1])


def _run_thread(thread, run=BlockThread.run):
    # Formulas compute both sides of each choice, of which NumPy's numbers warn; each thread has a state of its own.
    with np.errstate(all="ignore"):
        run(thread)
    manager = thread._manager
    manager.gate.leave()
    if thread.exception:
        # Nobody waits for a thread that has failed.
        manager.failed = True
        for gate in (manager.gate, *list(manager.gates.values())):
            with gate.guard:
                gate.open()


_shared_guard = threading.Lock()


def _shared_array(shared, shape, dtype):
    """Shared memory of the line that asks; the simulator itself may give two threads that ask at once one each."""
    frame = sys._getframe(1)
    place = frame.f_code.co_filename, frame.f_lineno
    garbage = np.nan if np.dtype(dtype).kind == "f" else -1
    with _shared_guard:
        return shared._allocations.setdefault(place, np.full(shape, garbage, dtype))


FakeCUDAShared.array = _shared_array
# A thread that waits hands over at once: half the time.
sys.setswitchinterval(5e-5)
BlockManager.run = _run_block
BlockThread.run = _run_thread
BlockThread.syncthreads = lambda thread: thread._manager.gate.wait()
FakeCUDAModule.shfl_sync = lambda module, mask, value, lane: _exchange(mask, value, lambda own: lane)
FakeCUDAModule.shfl_up_sync = lambda module, mask, value, step: _exchange(mask, value, lambda own: own - step)
FakeCUDAModule.shfl_down_sync = lambda module, mask, value, step: _exchange(mask, value, lambda own: own + step)
FakeCUDAModule.shfl_xor_sync = lambda module, mask, value, bits: _exchange(mask, value, lambda own: own ^ bits)
FakeCUDAModule.ballot_sync = _ballot
FakeCUDAModule.syncwarp = lambda module, mask=0xFFFFFFFF: threading.current_thread().syncthreads()


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
