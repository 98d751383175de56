"""Sums that have one order: a compensated pair a thread, shuffles in a warp, one partial a block, a last block.

A sum is a pair (high, low) of numbers of the arrays' own precision, together exact to twice its digits: float32 needs
no double. No atomics: the same bits on every run, and on every device.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import types

from ..specialize import bind
from .launch import ADDRESS, PLACE, Kernel
from .memory import cuda, device, present, reader, writer

__all__ = [
    "BLOCK",
    "NONE",
    "add",
    "block_end",
    "block_sum",
    "earlier",
    "finishing",
    "over",
    "plus",
    "rounded",
    "warp_everywhere",
    "warp_sum",
]

BLOCK = 256
"""Threads in a block of a large call."""

NONE = np.int64(2**63 - 1)
"""The place of the first violation where there is none."""

LANES = 0xFFFFFFFF

# Names that the templates below find bound when they are specialized.
T: Any = None
read: Any = None
read_pair: Any = None
write: Any = None
read_place: Any = None
write_place: Any = None
write_pair: Any = None
sum_block: Any = None


@device
def plus(high, low, x):
    """Add a number to a pair."""
    s = high + x
    b = s - high
    return s, low + ((high - (s - b)) + (x - b))


@device
def add(high, low, other_high, other_low):
    """Add a pair to a pair."""
    s, rest = plus(high, low, other_high)
    return s, rest + other_low


@device
def earlier(a, b):
    """The smaller of two places."""
    return a if a < b else b


@device
def warp_sum(high, low, first):
    """The sum over a warp, and the earliest place, in its lane 0."""
    step = 16
    while step > 0:
        other_high = cuda.shfl_down_sync(LANES, high, step)
        other_low = cuda.shfl_down_sync(LANES, low, step)
        other_first = cuda.shfl_down_sync(LANES, first, step)
        high, low = add(high, low, other_high, other_low)
        first = earlier(first, other_first)
        step >>= 1
    return high, low, first


@device
def warp_everywhere(high, low):
    """The sum over a warp in all of its lanes, with the same bits in each."""
    step = 16
    while step > 0:
        other_high = cuda.shfl_xor_sync(LANES, high, step)
        other_low = cuda.shfl_xor_sync(LANES, low, step)
        high, low = plus(high, low + other_low, other_high)
        step >>= 1
    return high, low


@device
def rounded(high, low):
    """A sum as one number: what an infinite one lost is NaN."""
    return high + low if low == low else high


def _block_sum(high, low, first):
    highs = cuda.shared.array(32, T)
    lows = cuda.shared.array(32, T)
    firsts = cuda.shared.array(32, np.int64)
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    high, low, first = warp_sum(high, low, first)
    if lane == 0:
        highs[warp], lows[warp], firsts[warp] = high, low, first
    cuda.syncthreads()
    inside = lane < (cuda.blockDim.x + 31) >> 5
    high = highs[lane] if inside else T(0.0)
    low = lows[lane] if inside else T(0.0)
    first = firsts[lane] if inside else NONE
    return warp_sum(high, low, first)


@cache
def block_sum(number: str) -> Any:
    """The sum over a block, and the earliest place, in its thread 0; every warp is full."""
    return device(bind(_block_sum, T=getattr(np, number)))


def _block_end(partials, firsts, high, low, first):
    high, low, first = sum_block(high, low, first)
    if cuda.threadIdx.x == 0:
        block = np.uint64(cuda.blockIdx.x)
        write_pair(partials, block, (high, low))
        write_place(firsts, block, (first,))


@cache
def block_end(number: str) -> Any:
    """Leaves the sum over a block, and the earliest place, where `finishing` looks for them."""
    writers = {"write_pair": writer(number, 2), "write_place": writer("int64")}
    return device(bind(_block_end, sum_block=block_sum(number), **writers))


def _over(scale, mass):
    if present(mass):
        whole = read(mass, np.uint64(0))[0]
        return scale / whole if whole != T(0.0) else T(0.0)
    return scale


@cache
def over(number: str) -> Any:
    """A factor over a sum that lies on the device, if there is one; 0 if that is 0."""
    return device(bind(_over, T=getattr(np, number), read=reader(number)))


def _finish(partials, firsts, count, divided, mass, result, place):
    """One block: sum the partials of all blocks, divide, and leave NaN where anything was out of its domain."""
    high, low, first = T(0.0), T(0.0), NONE
    i = np.int64(cuda.threadIdx.x)
    while i < count:
        pair = read_pair(partials, np.uint64(i))
        high, low = add(high, low, pair[0], pair[1])
        first = earlier(first, read_place(firsts, np.uint64(i))[0])
        i += cuda.blockDim.x
    high, low, first = sum_block(high, low, first)
    if cuda.threadIdx.x == 0:
        whole = divided
        if present(mass):
            whole = read(mass, np.uint64(0))[0]
        total = rounded(high, low)
        total = total / whole if whole != T(0.0) else T(0.0)
        write(result, np.uint64(0), (total if first == NONE else T(np.nan),))
        write_place(place, np.uint64(0), (first,))


@cache
def finishing(number: str) -> Kernel:
    """The kernel that ends a sum; for one block."""
    bound = {
        "T": getattr(np, number),
        "read": reader(number),
        "read_pair": reader(number, 2),
        "write": writer(number),
        "read_place": reader("int64"),
        "write_place": writer("int64"),
        "sum_block": block_sum(number),
    }
    T = getattr(types, number)
    signature = types.void(ADDRESS, ADDRESS, PLACE, T, ADDRESS, ADDRESS, ADDRESS)
    return Kernel(_finish, f"finish_{number}", signature, bound)
