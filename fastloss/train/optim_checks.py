"""Validation of parameters, gradients and options of optimisers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..call.check import flag, integer, nearest, shown, within
from ..call.errors import CallTypeError
from ..spec.record import FINITE_NONNEGATIVE, Interval

__all__ = ["BELOW_ONE", "Option", "dense", "named", "number", "overlaps", "parameter", "row_sparse"]

BELOW_ONE = Interval(0.0, 1.0, high_open=True)
"""Rates of decay of moving averages."""

NUMBERS = np.dtype(np.float32), np.dtype(np.float64)
"""Dtypes of parameters."""


class Option(NamedTuple):
    """Option of an optimiser: its meaning and its allowed values."""

    meaning: str
    """Meaning, for messages and tables."""
    allowed: Interval | type[bool] = FINITE_NONNEGATIVE
    """Interval of allowed numbers, or bool."""
    pair: bool = False
    """Whether the option is a pair of numbers."""

    def checked(self, what: str, value: Any) -> Any:
        """Return a validated value as a float, a bool or a pair of floats."""
        if self.allowed is bool:
            return flag(what, value)
        assert isinstance(self.allowed, Interval)
        if not self.pair:
            return number(what, value, self.allowed)
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
            raise ValueError(f"{what} is {shown(value)}; expected two numbers")
        return tuple(number(f"{what}[{i}]", x, self.allowed) for i, x in enumerate(value))


def number(what: str, value: Any, allowed: Interval = FINITE_NONNEGATIVE) -> float:
    """Return a number within an interval as a float; raise for any other value, also for True and False."""
    owner, _, name = what.rpartition(": ")
    if isinstance(value, bool):
        raise CallTypeError(f"is {value}; expected a number", name, loss=owner or None)
    return within(name, value, allowed, owner or None)


def named(what: str, given: Any) -> dict[str, Any]:
    """Return arrays by the text of their indices, as "[0]" or "['w']", in order."""
    if isinstance(given, Mapping):
        found = {f"[{key!r}]": value for key, value in given.items()}
    elif isinstance(given, np.ndarray) or not hasattr(given, "__iter__"):
        raise TypeError(f"{what} is {_kind(given)}; expected a list or a dictionary of arrays, such as [w, b]")
    else:
        found = {f"[{i}]": value for i, value in enumerate(given)}
    if not found:
        raise ValueError(f"{what} holds no arrays; expected at least one")
    return found


def _kind(value: Any) -> str:
    return "an array" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"


def parameter(what: str, p: Any) -> None:
    """Raise unless an array can be updated in place."""
    if not isinstance(p, np.ndarray) or isinstance(p, np.ma.MaskedArray):
        hint = "; type: tensor.detach().numpy(), which shares its memory" if hasattr(p, "detach") else ""
        raise TypeError(f"{what} is {_kind(p)}; expected a NumPy array of float32 or float64{hint}")
    if p.dtype not in NUMBERS:
        raise TypeError(
            f"{what} has dtype {p.dtype}; expected float32 or float64 in native byte order, type: a.astype(np.float64)"
        )
    if not p.flags.writeable:
        raise ValueError(f"{what} is read-only; expected an array to update in place, type: a.copy()")
    if not p.flags.aligned:
        raise ValueError(f"{what} is not aligned in memory; type: a.copy()")
    if p.size and any(step == 0 and n > 1 for step, n in zip(p.strides, p.shape, strict=True)):
        raise ValueError(f"{what} repeats elements in memory (a stride is 0); type: a.copy()")


def overlaps(arrays: Mapping[str, Any]) -> None:
    """Raise where two arrays share memory: each would undo the update of the other."""
    spans = []
    for what, a in arrays.items():
        if a.size:
            low, high = _bounds(a)
            spans.append((low, high, what, a))
    spans.sort(key=lambda span: span[:2])
    active: list[Any] = []
    for span in spans:
        active = [other for other in active if other[1] > span[0]]
        for other in active:
            if _share(other[3], span[3]):
                first, second = (other[2], span[2])
                raise ValueError(f"{first} and {second} share memory; expected separate arrays, each of them once")
        active.append(span)


def _bounds(a: Any) -> tuple[int, int]:
    """Return the addresses of the first byte of an array and of the byte after its last."""
    start = a.ctypes.data
    reach = [(n - 1) * step for n, step in zip(a.shape, a.strides, strict=True)]
    return start + sum(x for x in reach if x < 0), start + sum(x for x in reach if x > 0) + a.itemsize


def _share(a: Any, b: Any) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except (RuntimeError, ValueError):  # too hard to say
        return True


def dense(what: str, g: Any, p: Any) -> Any:
    """Return a gradient as an aligned C-contiguous array; raise unless it has the parameter's shape and dtype."""
    if not isinstance(g, np.ndarray) or isinstance(g, np.ma.MaskedArray):
        raise TypeError(f"{what} is {_kind(g)}; expected a NumPy array, (indices, rows) or None")
    if g.shape != p.shape:
        raise ValueError(f"{what} has shape {g.shape}; expected {p.shape}, the shape of its parameter")
    if g.dtype != p.dtype:
        raise TypeError(f"{what} has dtype {g.dtype}; expected {p.dtype}, type: g.astype(np.{p.dtype})")
    return np.require(g, requirements=["C", "A"])


def row_sparse(what: str, g: tuple[Any, ...], p: Any) -> tuple[Any, Any]:
    """Return a row-sparse gradient as int64 indices (k,) and contiguous rows (k, d)."""
    if len(g) != 2:
        raise ValueError(f"{what} is a tuple of {len(g)}; expected (indices, rows)")
    indices, rows = g
    if p.ndim == 0:
        raise ValueError(f"{what} has rows, but its parameter has shape ()")
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu" and indices.size:
        raise TypeError(f"{what}: indices have dtype {indices.dtype}; expected integers")
    if indices.ndim != 1:
        raise ValueError(f"{what}: indices have shape {indices.shape}; expected one axis")
    n, like = len(p), (len(indices), *p.shape[1:])
    if not isinstance(rows, np.ndarray) or rows.shape != like:
        raise ValueError(f"{what}: rows have shape {np.shape(rows)}; expected {like}, a row for each index")
    if rows.dtype != p.dtype:
        raise TypeError(f"{what}: rows have dtype {rows.dtype}; expected {p.dtype}")
    wrong = (indices < 0) | (indices >= n)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"{what}: indices[{i}] is {indices[i]}; allowed: 0 to {n - 1}")
    width = p.size // n if n else 0
    return np.require(indices, np.int64, ["C", "A"]), np.require(rows, requirements=["C", "A"]).reshape(
        len(indices), width
    )


def unknown(what: str, names: Any, known: Any) -> None:
    """Raise for the first name that is not known."""
    for name in names:
        if name not in known:
            raise TypeError(f"{what} has no option {name!r}; {nearest(str(name), known)}")


def whole(what: str, value: Any, least: int) -> int:
    """Return an integer of at least a bound."""
    integer(what, value)
    if value < least:
        raise ValueError(f"{what} is {value}; expected at least {least}")
    return int(value)
