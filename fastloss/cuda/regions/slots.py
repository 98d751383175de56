"""Record of the constants and functions that the kernels of region losses read on a GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...cpu.runtime.slots import unbound

__all__ = ["Averaging", "Ends", "Pixels", "Reading", "RegionSlots", "Slopes", "Units", "use"]


class Pixels(NamedTuple):
    """Addresses of what a call reads of each pixel; none for arrays that it has not got."""

    z: Any
    """Predictions, (n, c, s)."""
    target: Any
    """Target of each class, (n, c, s); absent beside labels."""
    labels: Any
    """Class of each pixel, (n, s); absent beside a dense target."""
    mask: Any
    """1 where a pixel counts, else 0, (n, s)."""
    shares: Any
    """Largest score of each pixel and the sum of the other exponentials, (n, s, 2); under softmax alone."""


class Reading(NamedTuple):
    """Options by which kernels read a pixel."""

    ignore: Any
    """Label of pixels that do not count."""
    activation: Any
    """NO_ACTIVATION, SIGMOID or SOFTMAX."""
    squared: Any
    """Whether differences are squared."""


class Units(NamedTuple):
    """Addresses of what the formula is evaluated on."""

    sums: Any
    """Five sums of each class of each unit, as pairs of numbers, (units, c, 5, 2)."""
    places: Any
    """Earliest violation of each class of each unit, (units, c)."""
    class_weight: Any
    """(c,), or absent."""
    weight: Any
    """(units,), or absent."""


class Slopes(NamedTuple):
    """Addresses of the results of each unit."""

    values: Any
    """Losses, (units,), or absent."""
    factors: Any
    """Weight of each unit, NaN beside a violation, (units,)."""
    slopes: Any
    """Two slopes of each class of each unit, (units, c, 2)."""


class Ends(NamedTuple):
    """Addresses of the sums over a block, and of the earliest violation in it."""

    partials: Any
    """Sums of the losses, as pairs of numbers."""
    firsts: Any
    masses: Any
    """Sums of the weights, as pairs of numbers."""
    places_of_masses: Any


class Averaging(NamedTuple):
    """Options by which classes are averaged."""

    background: Any
    """First class that counts."""
    micro: Any
    """Whether sums are averaged, rather than losses."""
    power: Any
    """Power of a class's size that divides its weight."""
    squared: Any
    """Whether differences are squared."""


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
