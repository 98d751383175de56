"""How the arrays of a loss of several are laid out: their axes by name, as kernels take them."""

import math
from typing import Any

import numpy as np

from . import check
from .arrays import contiguous
from .formulas.record import REAL, Domain, Input

__all__ = ["Dims", "bounded", "laid", "laid_integers", "laid_regions", "shape_of"]

Dims = dict[str, Any]
"""The lengths of named axes; "*" and "+" stand for the leading and the trailing shape, `of` for who said so first."""

I64 = np.dtype(np.int64)


def bounded(domain: Domain) -> bool:
    """Whether a domain leaves out any number."""
    return domain != REAL


def shape_of(spec: str, dims: Dims) -> tuple[int, ...]:
    """The shape that some axes have."""
    shape: list[int] = []
    for token in spec.split():
        shape.extend(dims[token] if token in "*+" else (_length(token, dims),))
    return tuple(shape)


def _length(token: str, dims: Dims) -> Any:
    """The length of an axis, None where nobody said so yet."""
    if token.isdecimal():
        return int(token)
    name, plus, more = token.partition("+")
    return dims[name] + (int(more) if plus else 0) if name in dims else None


def _expected(tokens: list[str], dims: Dims) -> str:
    shown = ["..." if t in "*+" else str(_length(t, dims) if _length(t, dims) is not None else t) for t in tokens]
    return f"({', '.join(shown)}{',' * (len(shown) == 1)})"


def _settle(loss: str, name: str, spec: Input, shape: tuple[int, ...], dims: Dims) -> tuple[int, ...]:
    """Learn lengths from a shape, or raise where they are not what others said; return it as kernels see it."""
    tokens = spec.dims.split()
    lead, tail = "*" in tokens, "+" in tokens
    middle = [t for t in tokens if t not in "*+"]
    extra = len(shape) - len(middle)
    if extra < 0 or (extra and not (lead or tail)):
        raise ValueError(f"{loss}: {name} has shape {shape}; expected {_expected(tokens, dims)}")
    start = extra if lead else 0
    whole: Dims = {"*": shape[:start]} if lead else {"+": shape[len(middle) :]} if tail else {}
    wanted = _expected(tokens, dims)
    for token, given in [*whole.items(), *zip(middle, shape[start:], strict=False)]:
        known = dims.get(token) if token in "*+" else _length(token, dims)
        if known is None:
            axis, _, more = token.partition("+") if token not in "*+" else (token, "", "")
            length = given - int(more or 0) if axis not in "*+" else given
            if axis not in "*+" and length < 0:
                raise ValueError(f"{loss}: {name} has shape {shape}; expected at least {more} along axis {token}")
            dims[axis] = length
            dims.setdefault("of", {})[axis] = name
        elif known != given:
            axis = token if token in "*+" else token.partition("+")[0]
            of = dims.get("of", {}).get(axis)
            if token in "*+":
                text = ", ".join(map(str, known))
                wanted = wanted.replace("...", text or "no further axes", 1)
            same = f", as in {of}" if of and of != name else ""
            raise ValueError(f"{loss}: {name} has shape {shape}; expected {wanted}{same}")
    flat = [math.prod(whole["*"])] if lead else []
    flat += shape[start : start + len(middle)]
    return (*flat, math.prod(whole["+"])) if tail else tuple(flat)


def laid(loss: str, name: str, spec: Input, a: Any, dtype: Any, dims: Dims) -> Any:
    """An array of numbers, contiguous and in a precision."""
    return contiguous(a, dtype).reshape(_settle(loss, name, spec, a.shape, dims))


def laid_integers(loss: str, name: str, spec: Input, a: Any, dims: Dims, ignore: int | None) -> Any:
    """Labels (-1 where ignored), lengths, offsets or a mask, checked."""
    if spec.dims == "n +" and a.shape == (dims.get("n"), 1, *dims.get("+", ())):
        # Of pixels, with an axis of length 1 where the prediction has its classes.
        a = a[:, 0]
    if spec.kind == "mask":
        if a.dtype.kind not in "biuf":
            raise TypeError(f"{loss}: {name} has dtype {a.dtype}; expected bool")
        if a.dtype.kind != "b" and not ((a == 0) | (a == 1)).all():
            first = int(np.argmax(((a != 0) & (a != 1)).reshape(-1)))
            where, value = check.position(first, a.shape), a.reshape(-1)[first]
            raise ValueError(f"{loss}: {name}[{where}] is {value}; allowed: 0 (left out) or 1")
        shape = _settle(loss, name, spec, a.shape, dims)
        return np.ascontiguousarray(a != 0).view(np.uint8).reshape(shape)
    if a.dtype.kind not in "iu":
        raise TypeError(f"{loss}: {name} has dtype {a.dtype}; expected integers")
    whole = contiguous(np.minimum(a, np.uint64(I64.type(2**62))) if a.dtype == np.uint64 else a, I64)
    whole = whole.reshape(_settle(loss, name, spec, a.shape, dims))
    if spec.kind == "offsets":
        _check_offsets(loss, name, spec, whole, dims)
    elif spec.classes:
        low, high = (0, _length(spec.classes, dims)) if spec.kind == "lengths" else (0, _length(spec.classes, dims) - 1)
        outside = (whole < low) | (whole > high)
        ignored = whole == ignore if ignore is not None else np.zeros(1, bool)
        if outside.any() and (outside & ~ignored).any():
            first = int(np.argmax((outside & ~ignored).reshape(-1)))
            also = "" if ignore is None else f", or {ignore} (ignore_index)"
            where, allowed = check.position(first, a.shape), f"{low} to {high}" if high >= low else "none"
            raise ValueError(f"{loss}: {name}[{where}] is {whole.reshape(-1)[first]}; allowed: {allowed}{also}")
        if ignored.any():
            return np.where(ignored, -1, whole)
    return whole


def laid_regions(loss: str, name: str, spec: Input, a: Any, dtype: Any, dims: Dims, ignore: int | None) -> Any:
    """Regions of each class (n, c, +) as floats, or the label of each pixel (n, +), -1 where it is ignored."""
    n, c, pixels = dims["n"], dims["c"], dims["+"]
    flat, single = a.shape == (n, *pixels), a.shape == (n, 1, *pixels)
    if a.dtype.kind in "iu" and (flat or (single and (c > 1 or (ignore is not None and (a == ignore).any())))):
        # Of a single class the labels are 1 in its region and 0 outside.
        labels = spec._replace(dims="n +", kind="labels", classes="c" if c > 1 else "2")
        return laid_integers(loss, name, labels, a, dims, ignore)
    if a.shape != (n, c, *pixels) and not (flat and c == 1):
        raise ValueError(
            f"{loss}: {name} has shape {a.shape} and dtype {a.dtype}; expected {(n, c, *pixels)}, "
            f"or integer labels of shape {(n, *pixels)}"
        )
    return laid(loss, name, spec, a.reshape(n, c, *pixels), dtype, dims)


def _check_offsets(loss: str, name: str, spec: Input, offsets: Any, dims: Dims) -> None:
    """Raise unless offsets begin at 0, never fall, and end at the length of what they divide."""
    end = _length(spec.classes, dims)
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
