"""Calls of losses on guarded arrays: python tests/fuzz/guarded.py [SEED [NAME...]]."""

import ctypes
import mmap
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np
from calls import draw

import fastloss as fl

DRAWS = 2
"""Calls of each loss in each precision, on each side."""


def fence(a, at_end):
    """Copy an array to memory that ends at a protected page, or begins right behind one."""
    page = mmap.PAGESIZE
    room = max(1, -(-a.nbytes // page)) * page
    memory = mmap.mmap(-1, room + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for edge in (address, address + page + room):
        if protect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    start = page + (room - a.nbytes if at_end else 0)
    fenced = np.frombuffer(memory, a.dtype, a.size, start).reshape(a.shape)
    fenced[...] = a
    return fenced


def outputs(call, at_end):
    """Guarded outputs of one derivative of a call, filled with NaN."""
    found = tuple(fence(np.full_like(call.arrays[k], np.nan), at_end) for k in call.differentiable)
    return found if len(found) > 1 else found[0]


def same(a, b):
    """Whether results have the same bits, or all NaN where either is."""
    if isinstance(a, tuple):
        return all(map(same, a, b))
    return np.array_equal(a, b, equal_nan=True)


def run(name, seed):
    """Call a loss on guarded arrays: value, rows and derivatives into guarded outputs."""
    for index in range(DRAWS):
        for dtype in (np.float32, np.float64):
            call = draw(np.random.default_rng([seed, index]), name, dtype, weighted=False, small=True)
            expected = call()
            for at_end in (True, False):
                print(f"{seed} {name}, draw {index}, at the {'end' if at_end else 'start'}: {call}", flush=True)
                guarded = call.moved(lambda a, at_end=at_end: fence(a, at_end))
                assert same(guarded(out=outputs(call, at_end)), expected), "other bits"
                guarded("value", reduction="none")
                if call.loss.record.second:
                    guarded("grad_and_hess", out=(outputs(call, at_end), outputs(call, at_end)))


def main(seed=0, *names):
    """Run some losses, all by default."""
    names = names or tuple(fl.LOSSES)
    for name in names:
        run(name, int(seed))
    print(f"{len(names)} losses stay within their arrays")


if __name__ == "__main__":
    main(*sys.argv[1:])
