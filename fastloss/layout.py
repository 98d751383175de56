"""How the arrays of a loss of several are laid out: their axes by name, as kernels take them."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import check
from .arrays import contiguous
from .formulas.record import REAL, Domain, Input

__all__ = ["Dims", "bounded", "labelled", "laid", "laid_integers", "laid_regions", "one_group", "settle", "shape_of"]

Dims = dict[str, Any]
"""The lengths of named axes; "*" and "+" stand for the leading and the trailing shape, `of` for who said so first."""

I64 = np.dtype(np.int64)


def bounded(domain: Domain) -> bool:
    """Whether a domain leaves out any number."""
    return domain != REAL


class Axis(NamedTuple):
    """One named axis: its name, and how much longer than that it is; a number where the name is empty."""

    name: str
    more: int


class Axes(NamedTuple):
    """A shape in names, parsed."""

    leading: bool
    middle: tuple[Axis, ...]
    trailing: bool


@cache
def _parsed(spec: str) -> Axes:
    tokens = spec.split()
    middle = []
    for token in tokens:
        if token not in "*+":
            name, _, more = ("", "", token) if token.isdecimal() else token.partition("+")
            middle.append(Axis(name, int(more or 0)))
    return Axes("*" in tokens, tuple(middle), "+" in tokens)


def _length(axis: Axis, dims: Dims) -> Any:
    """The length of an axis, None where nobody said so yet."""
    if not axis.name:
        return axis.more
    known = dims.get(axis.name)
    return None if known is None else known + axis.more


def shape_of(spec: str, dims: Dims) -> tuple[int, ...]:
    """The shape that some axes have."""
    leading, middle, trailing = _parsed(spec)
    lengths = tuple(_length(axis, dims) for axis in middle)
    return (*(dims["*"] if leading else ()), *lengths, *(dims["+"] if trailing else ()))


def _wrong(loss: str, name: str, spec: str, shape: tuple[int, ...], dims: Dims, axis: str = "") -> ValueError:
    """The error for a shape, which names what it should be and who says so."""
    axes = _parsed(spec)
    shown = []
    for a in axes.middle:
        length = _length(a, dims)
        shown.append(str(length) if length is not None else a.name + (f" + {a.more}" if a.more else ""))
    for there, token, at in ((axes.leading, "*", 0), (axes.trailing, "+", len(shown))):
        if there:
            shown[at:at] = map(str, dims[token]) if token in dims and token == axis else ["..."]
    of = dims.get("of", {}).get(axis, name)
    said = f", as in {of}" if of != name else ""
    return ValueError(f"{loss}: {name} has shape {shape}; expected ({', '.join(shown)}{',' * (len(shown) == 1)}){said}")


def settle(loss: str, name: str, spec: str, shape: tuple[int, ...], dims: Dims) -> tuple[int, ...]:
    """Learn lengths from a shape, or raise where they are not what others said; return it as kernels see it."""
    leading, middle, trailing = _parsed(spec)
    extra = len(shape) - len(middle)
    if extra < 0 or (extra and not (leading or trailing)):
        raise _wrong(loss, name, spec, shape, dims)
    start = extra if leading else 0
    stop = start + len(middle)
    for axis, length in zip(middle, shape[start:stop], strict=True):
        known = _length(axis, dims)
        if known is None and length >= axis.more:
            dims[axis.name] = length - axis.more
            dims.setdefault("of", {})[axis.name] = name
        elif known != length:
            raise _wrong(loss, name, spec, shape, dims, axis.name)
    for there, token, part in ((leading, "*", shape[:start]), (trailing, "+", shape[stop:])):
        if there and dims.setdefault(token, part) != part:
            raise _wrong(loss, name, spec, shape, dims, token)
        if there:
            dims.setdefault("of", {}).setdefault(token, name)
    lead = (math.prod(shape[:start]),) if leading else ()
    return (*lead, *shape[start:stop], math.prod(shape[stop:])) if trailing else (*lead, *shape[start:stop])


def laid(loss: str, name: str, spec: Input, a: Any, dtype: Any, dims: Dims) -> Any:
    """An array of numbers, contiguous and in a precision."""
    return contiguous(a, dtype).reshape(settle(loss, name, spec.dims, a.shape, dims))


def laid_integers(loss: str, name: str, spec: Input, a: Any, dims: Dims, ignore: int | None) -> Any:
    """Labels (-1 where ignored), lengths, offsets, a mask or what is 0 or 1, checked."""
    if spec.dims == "n +" and a.shape == (dims.get("n"), 1, *dims.get("+", ())):
        # Of pixels, with an axis of length 1 where the prediction has its classes.
        a = a[:, 0]
    if spec.kind in ("mask", "binary"):
        if a.dtype.kind not in "biuf":
            raise TypeError(f"{loss}: {name} has dtype {a.dtype}; expected bool")
        if a.dtype.kind != "b" and not ((a == 0) | (a == 1)).all():
            first = int(np.argmax(((a != 0) & (a != 1)).reshape(-1)))
            where, value = check.position(first, a.shape), a.reshape(-1)[first]
            zero = "0 (left out)" if spec.kind == "mask" else "0"
            raise ValueError(f"{loss}: {name}[{where}] is {value}; allowed: {zero} or 1")
        shape = settle(loss, name, spec.dims, a.shape, dims)
        return np.ascontiguousarray(a != 0).view(np.uint8).reshape(shape)
    if a.dtype.kind not in "iu":
        raise TypeError(f"{loss}: {name} has dtype {a.dtype}; expected integers")
    if a.dtype == np.uint64:
        # Where any number will do, two that differ must still differ.
        a = np.minimum(a, np.uint64(I64.type(2**62))) if spec.classes else a.astype(I64)
    whole = contiguous(a, I64)
    whole = whole.reshape(settle(loss, name, spec.dims, a.shape, dims))
    if spec.kind == "offsets":
        _check_offsets(loss, name, spec, whole, dims)
    elif spec.classes:
        low, high = 0, dims[spec.classes] - (spec.kind != "lengths")
        # Most labels need no more than their range.
        if (
            whole.size
            and whole.min() >= low
            and whole.max() <= high
            and not (ignore is not None and low <= ignore <= high)
        ):
            return whole
        outside = (whole < low) | (whole > high)
        ignored = whole == ignore if ignore is not None else np.zeros(1, bool)
        if outside.any() and (outside & ~ignored).any():
            first = int(np.argmax((outside & ~ignored).reshape(-1)))
            where, allowed = check.position(first, a.shape), check.labels_allowed(high + 1, ignore)
            raise ValueError(f"{loss}: {name}[{where}] is {whole.reshape(-1)[first]}; allowed: {allowed}")
        if ignored.any():
            return np.where(ignored, -1, whole)
    return whole


def labelled(loss: str, name: str, a: Any, integer: bool, dims: Dims, ignored: Callable[[], bool]) -> bool:
    """Whether regions are given as the label of each pixel; raise where they are neither that nor floats of each class.

    Of a single class with an axis of its own, whole numbers are labels if any of them is ignored.
    """
    n, c, pixels = dims["n"], dims["c"], dims["+"]
    shape = tuple(a.shape)
    flat, single = shape == (n, *pixels), shape == (n, 1, *pixels)
    if integer and (flat or (single and (c > 1 or ignored()))):
        return True
    if shape != (n, c, *pixels) and not (flat and c == 1):
        raise ValueError(
            f"{loss}: {name} has shape {shape} and dtype {a.dtype}; expected {(n, c, *pixels)}, "
            f"or integer labels of shape {(n, *pixels)}"
        )
    return False


def laid_regions(loss: str, name: str, spec: Input, a: Any, dtype: Any, dims: Dims, ignore: int | None) -> Any:
    """Regions of each class (n, c, +) as floats, or the label of each pixel (n, +), -1 where it is ignored."""
    n, c, pixels = dims["n"], dims["c"], dims["+"]
    if labelled(loss, name, a, a.dtype.kind in "iu", dims, lambda: ignore is not None and bool((a == ignore).any())):
        # Of a single class the labels are 1 in its region and 0 outside.
        labels = spec._replace(dims="n +", kind="labels", classes="labels")
        return laid_integers(loss, name, labels, a, {**dims, "labels": max(c, 2)}, ignore)
    return laid(loss, name, spec, a.reshape(n, c, *pixels), dtype, dims)


def one_group(spec: Input, dims: Dims) -> Any:
    """The offsets that stand for none given: all rows are one group."""
    settle("", "", spec.dims, (2,), dims)
    return np.array([0, dims[spec.classes]], I64)


def _check_offsets(loss: str, name: str, spec: Input, offsets: Any, dims: Dims) -> None:
    """Raise unless offsets begin at 0, never fall, and end at the length of what they divide."""
    end = dims[spec.classes]
    if offsets.size == 0 or offsets[0] != 0:
        raise ValueError(f"{loss}: {name} begin with {offsets[:1].tolist()}; expected 0 first")
    if (offsets[1:] < offsets[:-1]).any():
        i = int(np.argmax(offsets[1:] < offsets[:-1]))
        raise ValueError(
            f"{loss}: {name}[{i + 1}] is {offsets[i + 1]}, below {name}[{i}] = {offsets[i]}; "
            "expected offsets that never fall"
        )
    if offsets[-1] != end:
        raise ValueError(f"{loss}: {name} end with {offsets[-1]}; expected {end}, the number of rows")
