"""Sums that have one order: a compensated pair a thread, shuffles in a warp, one partial a block, a last block.

A sum is a pair (high, low) of numbers of the arrays' own precision, together exact to twice its digits: float32 needs
no double. No atomics: the same bits on every run, and on every device.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ...cpu.runtime.slots import Number, unbound
from ...cpu.runtime.specialize import bind
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


class Ends(NamedTuple):
    """Functions that the end of a block's sum calls."""

    sum_block: Callable[..., Any]
    """Sum over a block, and the earliest place."""
    write_pair: Callable[..., Any]
    """Writer of a sum as a pair of numbers."""
    write_place: Callable[..., Any]
    """Writer of a place."""


class Over(NamedTuple):
    """Constants and functions that the division by a sum on the device reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    read: Callable[..., Any]
    """Reader of one number."""


class Finish(NamedTuple):
    """Constants and functions that the end of a sum reads."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    read: Callable[..., Any]
    """Reader of one number."""
    read_pair: Callable[..., Any]
    """Reader of a sum as a pair of numbers."""
    write: Callable[..., Any]
    """Writer of one number."""
    read_place: Callable[..., Any]
    """Reader of a place."""
    write_place: Callable[..., Any]
    """Writer of a place."""
    sum_block: Callable[..., Any]
    """Sum over a block, and the earliest place."""


use: Any = unbound(Number, Ends, Over, Finish)


@device
def plus(high, low, x):
    """Add a number to a pair."""
    s = high + x
    # Exact, without a comparison (Knuth): what the sum rounds off goes to the low part.
    b = s - high
    return s, low + ((high - (s - b)) + (x - b))


@device
def add(high, low, other_high, other_low):
    """Add a pair to a pair."""
    s, rest = plus(high, low, other_high)
    # Adds the low parts plainly: what they lose is below the digits of the result.
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
        # By shuffles, without shared memory or barriers: a warp's lanes run together.
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
        # Adds the lows first: in the other order two lanes would round differently, and a row's threads would disagree.
        high, low = plus(high, low + other_low, other_high)
        step >>= 1
    return high, low


@device
def rounded(high, low):
    """A sum as one number: what an infinite one lost is NaN."""
    return high + low if low == low else high


def _block_sum(high, low, first):
    T = use.T
    # One number of each warp: 32 serve a block of up to 1,024 threads.
    highs = cuda.shared.array(32, T)
    lows = cuda.shared.array(32, T)
    firsts = cuda.shared.array(32, np.int64)
    lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
    high, low, first = warp_sum(high, low, first)
    if lane == 0:
        highs[warp], lows[warp], firsts[warp] = high, low, first
    cuda.syncthreads()
    # Adds the sums of the warps as those of one warp; lanes without a warp hold zeros.
    inside = lane < (cuda.blockDim.x + 31) >> 5
    high = highs[lane] if inside else T(0.0)
    low = lows[lane] if inside else T(0.0)
    first = firsts[lane] if inside else NONE
    return warp_sum(high, low, first)


@cache
def block_sum(number: str) -> Any:
    """The sum over a block, and the earliest place, in its thread 0; every warp is full."""
    return device(bind(_block_sum, Number(getattr(np, number))))


def _block_end(partials, firsts, high, low, first):
    high, low, first = use.sum_block(high, low, first)
    if cuda.threadIdx.x == 0:
        block = np.uint64(cuda.blockIdx.x)
        use.write_pair(partials, block, (high, low))
        use.write_place(firsts, block, (first,))


@cache
def block_end(number: str) -> Any:
    """Leaves the sum over a block, and the earliest place, where `finishing` looks for them."""
    return device(bind(_block_end, Ends(block_sum(number), writer(number, 2), writer("int64"))))


def _over(scale, mass):
    T = use.T
    if present(mass):
        whole = use.read(mass, np.uint64(0))[0]
        # Nothing to average: the gradient is 0, as on the CPU.
        return scale / whole if whole != T(0.0) else T(0.0)
    return scale


@cache
def over(number: str) -> Any:
    """A factor over a sum that lies on the device, if there is one; 0 if that is 0."""
    return device(bind(_over, Over(getattr(np, number), reader(number))))


def _finish(partials, firsts, count, divided, mass, result, place):
    """One block: sum the partials of all blocks, divide, and leave NaN where anything was out of its domain."""
    T = use.T
    high, low, first = T(0.0), T(0.0), NONE
    i = np.int64(cuda.threadIdx.x)
    # Gives the same bits on every run: each thread takes the same partials in the same order, without atomics.
    while i < count:
        pair = use.read_pair(partials, np.uint64(i))
        high, low = add(high, low, pair[0], pair[1])
        first = earlier(first, use.read_place(firsts, np.uint64(i))[0])
        i += cuda.blockDim.x
    high, low, first = use.sum_block(high, low, first)
    if cuda.threadIdx.x == 0:
        whole = divided
        if present(mass):
            whole = use.read(mass, np.uint64(0))[0]
        # Rounded once, here: all sums before are pairs.
        total = rounded(high, low)
        total = total / whole if whole != T(0.0) else T(0.0)
        use.write(result, np.uint64(0), (total if first == NONE else T(np.nan),))
        use.write_place(place, np.uint64(0), (first,))


@cache
def finishing(number: str) -> Kernel:
    """The kernel that ends a sum; for one block."""
    use = Finish(
        T=getattr(np, number),
        read=reader(number),
        read_pair=reader(number, 2),
        write=writer(number),
        read_place=reader("int64"),
        write_place=writer("int64"),
        sum_block=block_sum(number),
    )
    T = getattr(types, number)
    signature = types.void(ADDRESS, ADDRESS, PLACE, T, ADDRESS, ADDRESS, ADDRESS)
    return Kernel(_finish, f"finish_{number}", signature, use)
