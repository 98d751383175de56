"""Record of the constants and functions that the kernels of region losses read on a GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...cpu.runtime.slots import unbound

__all__ = ["RegionSlots", "use"]


class RegionSlots(NamedTuple):
    """Constants and functions that the kernels of region losses read."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    exp: Callable[..., Any]
    """Exponential in that type."""
    formula: Callable[..., Any]
    """Formula of the loss, which only the kernel that judges has."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of a tuple."""
    share: Callable[..., Any]
    """Scale over the sum of the weights."""
    sum_block: Callable[..., Any]
    """Sum over a block, and the earliest place."""
    end: Callable[..., Any]
    """Function that leaves that sum where it is looked for."""
    read: Callable[..., Any]
    """Reader of a prediction."""
    read_target: Callable[..., Any]
    """Reader of the target of a class."""
    read_label: Callable[..., Any]
    """Reader of a label."""
    read_mask: Callable[..., Any]
    """Reader of the mask."""
    read_number: Callable[..., Any]
    """Reader of a number of the type T."""
    read_class: Callable[..., Any]
    """Reader of a class weight."""
    read_pair: Callable[..., Any]
    """Reader of a sum as a pair of numbers."""
    read_place: Callable[..., Any]
    """Reader of a place."""
    write: Callable[..., Any]
    """Writer of a derivative."""
    write_number: Callable[..., Any]
    """Writer of a number of the type T."""
    write_value: Callable[..., Any]
    """Writer of a value."""
    write_pair: Callable[..., Any]
    """Writer of a sum as a pair of numbers."""
    write_place: Callable[..., Any]
    """Writer of a place."""


use = unbound(RegionSlots)
