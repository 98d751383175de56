"""Named axes of losses over several arrays: shape checks, and conversion of the arrays for kernels."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..spec.record import REAL, Domain, Input
from . import check, hints
from .arrays import I64, contiguous, unwrapped
from .errors import CallTypeError, CallValueError

__all__ = ["Dims", "bounded", "labelled", "laid", "laid_integers", "laid_regions", "one_group", "settle", "shape_of"]

Dims = dict[str, Any]
"""Lengths of named axes; "*" and "+" are the leading and trailing shape, `of` the input that set each first."""


def bounded(domain: Domain) -> bool:
    """Whether a domain excludes any number."""
    return domain != REAL


Counts = Callable[[tuple[int, ...]], Any]
"""Function from an input's shape to the mask (bool, broadcast to it) of the elements that count."""


def all_count(shape: tuple[int, ...]) -> Any:
    """Return the mask of an input of which every element counts."""
    return np.True_


class Axis(NamedTuple):
    """Named axis and a constant added to its length; an axis of fixed length has an empty name."""

    name: str
    more: int


class Axes(NamedTuple):
    """Parsed shape specification."""

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
    """Return the length of an axis; None while no input has set it."""
    if not axis.name:
        return axis.more
    known = dims.get(axis.name)
    return None if known is None else known + axis.more


def shape_of(spec: str, dims: Dims) -> tuple[int, ...]:
    """Return the shape of the named axes."""
    leading, middle, trailing = _parsed(spec)
    lengths = tuple(_length(axis, dims) for axis in middle)
    return (*(dims["*"] if leading else ()), *lengths, *(dims["+"] if trailing else ()))


def _wrong(name: str, spec: str, shape: tuple[int, ...], dims: Dims, axis: str = "") -> CallValueError:
    """Return the error for a wrong shape; it names the expected shape and the input that set it."""
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
    return CallValueError(f"has shape {shape}; expected ({', '.join(shown)}{',' * (len(shown) == 1)}){said}", name)


def settle(name: str, spec: str, shape: tuple[int, ...], dims: Dims) -> tuple[int, ...]:
    """Record axis lengths from a shape, or raise where another input disagrees; return the kernel's shape."""
    leading, middle, trailing = _parsed(spec)
    extra = len(shape) - len(middle)
    if extra < 0 or (extra and not (leading or trailing)):
        raise _wrong(name, spec, shape, dims)
    start = extra if leading else 0
    stop = start + len(middle)
    for axis, length in zip(middle, shape[start:stop], strict=True):
        known = _length(axis, dims)
        if known is None and length >= axis.more:
            dims[axis.name] = length - axis.more
            dims.setdefault("of", {})[axis.name] = name
        elif known != length:
            raise _wrong(name, spec, shape, dims, axis.name)
    for there, token, part in ((leading, "*", shape[:start]), (trailing, "+", shape[stop:])):
        if there and dims.setdefault(token, part) != part:
            raise _wrong(name, spec, shape, dims, token)
        if there:
            dims.setdefault("of", {}).setdefault(token, name)
    lead = (math.prod(shape[:start]),) if leading else ()
    return (*lead, *shape[start:stop], math.prod(shape[stop:])) if trailing else (*lead, *shape[start:stop])


def axes_of(units: str, spec: str, ndim: int) -> tuple[int, int] | None:
    """Return the axes along which the loss has one value per entry: the first, and one past the last."""
    wanted, names = units.split(), spec.split()
    if not wanted:
        return 0, 0
    start = next((i for i in range(len(names)) if names[i : i + len(wanted)] == wanted), None)
    if start is None:
        return None
    # Where any axes lead, they come first; where any trail, last.
    extra = ndim - sum(token not in "*+" for token in names)
    first = start if start == 0 or "*" not in names else start - 1 + extra
    return first, first + len(wanted) + (extra - 1 if wanted[0] in "*+" or wanted[-1] in "*+" else 0)


def laid(name: str, spec: Input, a: Any, dtype: Any, dims: Dims) -> Any:
    """Return a contiguous float array of the dtype, with its shape checked."""
    if spec.filled and not a.size:
        raise CallValueError("is empty; expected at least one number, or None", name)
    return contiguous(a, dtype).reshape(settle(name, spec.dims, a.shape, dims))


def laid_integers(
    name: str,
    spec: Input,
    a: Any,
    dims: Dims,
    ignore: int | None,
    checked: bool = True,
    counts: Counts = all_count,
) -> Any:
    """Return integer inputs for kernels: labels (-1 where ignored), lengths, offsets, masks or 0/1 values.

    Only labels may be ignored, or invalid where they are masked out. Without `checked` the kernel validates values.
    """
    ignore = ignore if spec.kind == "labels" else None
    if spec.dims == "n +" and a.shape == (dims.get("n"), 1, *dims.get("+", ())):
        # Pixel labels may have an axis of length 1 where the prediction has its classes.
        a = a[:, 0]
    if spec.kind in ("mask", "binary"):
        return _laid_binary(name, spec, a, dims, counts)
    if spec.kind == "offsets" and a.size == 0:
        # An empty list becomes a float array.
        end = dims[spec.classes]
        raise CallValueError(f"is empty; expected 0 first and {end}, the number of rows, last", name)
    if a.dtype.kind not in "iu":
        raise CallTypeError(f"has dtype {a.dtype}; expected integers", name)
    # Keeps distinct labels distinct, which is all that labels without a class axis need.
    whole = contiguous(unwrapped(a, ignore) if spec.classes or spec.kind != "labels" else a.astype(I64), I64)
    whole = whole.reshape(settle(name, spec.dims, a.shape, dims))
    if spec.kind == "offsets":
        _check_offsets(name, spec, whole, a, dims)
    elif spec.classes and checked:
        high = dims[spec.classes] - (spec.kind != "lengths")
        return _laid_within(name, spec, a, whole, high, ignore, counts if spec.kind == "labels" else all_count)
    return whole


def _laid_binary(name: str, spec: Input, a: Any, dims: Dims, counts: Counts) -> Any:
    """Return masks or 0/1 values as bytes; raise for any other value that counts."""
    if a.dtype.kind not in "biuf":
        raise CallTypeError(f"has dtype {a.dtype}; expected bool", name)
    wrong = (a != 0) & (a != 1) if a.dtype.kind != "b" else np.zeros(1, bool)
    if wrong.any():
        wrong &= counts(a.shape)
    if wrong.any():
        first = int(np.argmax(wrong.reshape(-1)))
        zero = "0 (left out)" if spec.kind == "mask" else "0"
        problem = f"is {a.reshape(-1)[first]}; allowed: {zero} or 1"
        raise CallValueError(problem, name, check.index_of(first, a.shape))
    shape = settle(name, spec.dims, a.shape, dims)
    return np.ascontiguousarray(a != 0).view(np.uint8).reshape(shape)


def _laid_within(name: str, spec: Input, given: Any, whole: Any, high: int, ignore: int | None, counts: Counts) -> Any:
    """Return whole numbers from 0 to `high`, -1 for ignored ones; raise for the first other one that counts."""
    # Checks the range first, which settles most calls.
    is_inside = whole.size and whole.min() >= 0 and whole.max() <= high
    if is_inside and not (ignore is not None and 0 <= ignore <= high):
        return whole
    ignored = whole == ignore if ignore is not None else np.zeros(1, bool)
    wrong = ((whole < 0) | (whole > high)) & ~ignored
    if wrong.any():
        away = wrong & ~np.broadcast_to(counts(given.shape), given.shape).reshape(whole.shape)
        wrong &= ~away
        # Any class will do.
        whole = np.where(away, next((k for k in range(min(high, 1) + 1) if k != ignore), -1), whole)
    if wrong.any():
        first = int(np.argmax(wrong.reshape(-1)))
        hint = (
            hints.labels(whole[np.broadcast_to(~ignored, whole.shape)], high + 1, name) if spec.kind == "labels" else ""
        )
        problem = f"is {given.reshape(-1)[first]}; allowed: {check.labels_allowed(high + 1, ignore)}{hint}"
        raise CallValueError(problem, name, check.index_of(first, given.shape))
    return np.where(ignored, -1, whole) if ignored.any() else whole


def labelled(name: str, a: Any, integer: bool, dims: Dims, ignored: Callable[[], bool]) -> bool:
    """Whether regions are given as the label of each pixel; raise where they are neither that nor floats of each class.

    Of a single class with an axis of its own, whole numbers are labels if any of them is ignored.
    """
    n, c, pixels = dims["n"], dims["c"], dims["+"]
    shape = tuple(a.shape)
    flat, single = shape == (n, *pixels), shape == (n, 1, *pixels)
    if integer and (flat or (single and (c > 1 or ignored()))):
        return True
    if shape != (n, c, *pixels) and not (flat and c == 1):
        raise CallValueError(
            f"has shape {shape} and dtype {a.dtype}; expected {(n, c, *pixels)}, "
            f"or integer labels of shape {(n, *pixels)}",
            name,
        )
    return False


def laid_regions(
    name: str, spec: Input, a: Any, dtype: Any, dims: Dims, ignore: int | None, counts: Counts = all_count
) -> Any:
    """Return class masks (n, c, +) as floats, or pixel labels (n, +) with -1 where ignored."""
    n, c, pixels = dims["n"], dims["c"], dims["+"]
    if labelled(name, a, a.dtype.kind in "iu", dims, lambda: ignore is not None and bool((a == ignore).any())):
        # Of a single class the labels are 1 in its region and 0 outside.
        labels = spec._replace(dims="n +", kind="labels", classes="labels")
        return laid_integers(name, labels, a, {**dims, "labels": max(c, 2)}, ignore, counts=counts)
    return laid(name, spec, a.reshape(n, c, *pixels), dtype, dims)


def one_group(spec: Input, dims: Dims) -> Any:
    """Return the default offsets: all rows form one group."""
    settle("", spec.dims, (2,), dims)
    return np.array([0, dims[spec.classes]], I64)


def _check_offsets(name: str, spec: Input, offsets: Any, given: Any, dims: Dims) -> None:
    """Raise unless offsets begin at 0, never decrease, and end at the length of the divided axis."""
    end = dims[spec.classes]
    if offsets[0] != 0:
        raise CallValueError(f"begin with {given[0]}; expected 0 first", name)
    if (offsets[1:] < offsets[:-1]).any():
        i = int(np.argmax(offsets[1:] < offsets[:-1]))
        problem = f"is {given[i + 1]}, below {name}[{i}] = {given[i]}; expected offsets that never fall"
        raise CallValueError(problem, name, (i + 1,))
    if offsets[-1] != end:
        raise CallValueError(f"end with {given[-1]}; expected {end}, the number of rows", name)
