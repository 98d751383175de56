"""Steps that all calls on a device share: partial sums and their end, the sum of weights, output arrays."""

from typing import Any, NamedTuple

import numpy as np

from ...call.arrays import rounded
from ...call.errors import CallTypeError, CallValueError
from ...call.reduction import denominator
from ...cpu.dispatch import sum_record
from ...spec.record import NONNEGATIVE
from ..elementwise import elementwise_kernel
from ..placement import Place, Placed
from . import sums
from .launch import MAX_BLOCKS
from .memory import BYTES, SIMULATED, WIDTH, alignment

__all__ = [
    "Total",
    "absent",
    "aligned",
    "at",
    "blocks_for",
    "divided_by",
    "groups_of",
    "mass_of",
    "output",
    "returned",
    "threads",
]

absent = None if SIMULATED else 0
"""The address of an array that is not there."""


def at(*arrays: Placed | None) -> tuple[Any, ...]:
    """Addresses of some arrays, as kernels take them."""
    return tuple(absent if a is None else a.address for a in arrays)


def threads() -> int:
    """Threads in a block; the simulator starts each as a thread of Python, so its tests take fewer."""
    return sums.BLOCK


def blocks_for(work: int) -> int:
    """Return the number of blocks for a number of threads' work; it depends on the size alone."""
    # Never by the device: the sum would have another order on another one.
    return max(1, min(MAX_BLOCKS, -(-work // threads())))


def groups_of(stored: str, size: int, *arrays: Placed | None) -> int:
    """Return the number of groups of 128 bits that may be read and written whole: 0 for arrays that are not aligned."""
    # A load of 128 bits at another address is an error of the device.
    if not SIMULATED and any(a is not None and a.address % 16 for a in arrays):
        return 0
    return size // WIDTH[stored]


def aligned(width: int, *arrays: Placed | None) -> bool:
    """Whether groups of so many numbers can be read and written whole."""
    return SIMULATED or not any(a is not None and a.address % alignment(a.dtype, width) for a in arrays)


class Total(NamedTuple):
    """Partial sums of the blocks of a call."""

    place: Place
    number: str
    blocks: int
    partials: Placed
    firsts: Placed

    @classmethod
    def of(cls, place: Place, number: str, blocks: int) -> "Total":
        """Room for the partial sums of some blocks."""
        return cls(place, number, blocks, place.empty((2 * blocks,), number), place.empty((blocks,), "int64"))

    def end(self, divided: float, mass: Placed | None = None) -> tuple[Placed, Placed]:
        """The sum over a number, or over one that lies on the device; and where the first violation is."""
        result, cell = self.place.empty((), self.number), self.place.empty((1,), "int64")
        kind = getattr(np, self.number)
        arguments = (*at(self.partials, self.firsts), self.blocks, kind(divided), *at(mass, result, cell))
        sums.finishing(self.number)(1, threads(), self.place.stream, *arguments)
        return result, cell


def mass_of(place: Place, weight: Placed) -> Placed:
    """The sum of weights, on the device."""
    record, stored, size = sum_record(NONNEGATIVE), weight.dtype, weight.size
    total = Total.of(place, stored, blocks_for(-(-size // WIDTH[stored])))
    kernel = elementwise_kernel(record, stored, stored)
    kind = getattr(np, stored)
    sizes = (np.uint64(size), np.uint64(groups_of(stored, size, weight)), kind(1.0), absent, False, (kind(0.0),))
    outputs = (absent,) * 3
    arrays = (at(weight, None), outputs, *at(total.partials, total.firsts))
    kernel(total.blocks, threads(), place.stream, *arrays, *sizes)
    return total.end(1.0)[0]


def output(place: Place, out: Any, name: str, like: Placed, others: tuple[Placed, ...]) -> Placed:
    """Return the array of a result: a new one, or the given one if it can be written."""
    if out is None:
        return place.empty(like.shape, like.dtype)
    if place.on_host:
        raise CallTypeError("lies in host memory; with backend 'cuda', expected an array on the GPU, or none", name)
    dtype, contiguous = place.library.described(out, name)
    if tuple(out.shape) != like.shape:
        raise CallValueError(f"has shape {tuple(out.shape)}; expected {like.shape}", name)
    if dtype != like.dtype:
        raise CallTypeError(f"has dtype {dtype}; expected {like.dtype}", name)
    if not contiguous:
        raise CallValueError("is not contiguous; expected a C-contiguous array", name)
    placed = Placed(out, place.library.address(out), like.shape, dtype)
    for x in others:
        if _overlap(placed, x):
            problem = "overlaps an input or another output; inputs are never written, pass another array"
            raise CallValueError(problem, name)
    return placed


def returned(place: Place, x: Placed, dtype: str) -> Any:
    """A result as the caller sees it, in the dtype of the input that it belongs to."""
    if x.dtype == dtype:
        return place.give(x)
    if not place.on_host:
        return place.give(x._replace(array=place.library.converted(x.array, dtype)))
    # Rounded once, from the precision in which it was computed.
    a = rounded(x.array.copy_to_host(), np.dtype(dtype))
    return a if place.back is None else place.back(a)


def _overlap(a: Placed, b: Placed) -> bool:
    if SIMULATED:
        return bool(np.may_share_memory(a.address, b.address))
    ends = [x.address + x.size * BYTES[x.dtype] for x in (a, b)]
    return bool(a.address < ends[1] and b.address < ends[0])


def divided_by(reduction: str, divisor: Any, count: int, weight: Placed | None) -> float:
    """Return the divisor of the sum, where the host knows it."""
    # The sum of the weights lies on the device.
    return denominator("sum" if reduction == "mean" and weight is not None else reduction, divisor, count)
