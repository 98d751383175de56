"""Every validation, and every message: what is wrong, the value, what is allowed."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .formulas.record import SIGNS, Domain, Formula

__all__ = [
    "LossNotFoundError",
    "SettingError",
    "all_or_none",
    "entries",
    "integer",
    "nearest",
    "one_of",
    "ordered",
    "output",
    "parameter",
    "position",
    "positive",
    "same_rows",
    "same_shape",
    "similar",
    "unknown_parameter",
    "violation",
]


class SettingError(ValueError):
    """An environment variable that makes no sense."""


class LossNotFoundError(KeyError):
    """No loss of this name; the message lists the nearest."""

    def __str__(self) -> str:
        return str(self.args[0])


def similar(name: str, known: Iterable[str]) -> str:
    """A hint: the known names that resemble this one; empty where none does."""
    import difflib  # a tenth of this package's import, and only errors need it

    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    close = close or [k for k in known if name in k or k in name][:3]
    return f"did you mean {' or '.join(close)}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the known names that resemble this one, or all of a few."""
    known = list(known)
    hint = similar(name, known)
    if hint:
        return hint
    return f"known: {', '.join(known) or 'none'}" if len(known) < 12 else "see fastloss.LOSSES for all names"


def unknown_parameter(loss: str, name: str, known: Iterable[str]) -> TypeError:
    """The error for a parameter that the loss does not have."""
    return TypeError(f"{loss} has no parameter {name!r}; {nearest(name, known)}")


def parameter(record: Formula, name: str, value: Any) -> float:
    """A parameter's value as the number a kernel takes."""
    spec = record.parameters.get(name)
    if spec is None:
        raise unknown_parameter(record.name, name, record.parameters)
    if value is None and spec.none is not None:
        return spec.none
    if spec.flag:
        if isinstance(value, (bool, np.bool_)) or value in (0, 1):
            return float(value)
        raise ValueError(f"{record.name}: {name} is {value!r}; allowed: True or False")
    if spec.choices:
        one_of(f"{record.name}: {name}", value, spec.choices)
        return float(spec.choices.index(value))
    try:
        number = float(value)
    except OverflowError:
        number = math.nan
    except (TypeError, ValueError):
        expected = "a number or None" if spec.none is not None else "a number"
        raise TypeError(f"{record.name}: {name} is {value!r}; expected {expected}") from None
    if math.isnan(number) or spec.allowed.outside(number):
        raise ValueError(f"{record.name}: {name} is {value!r}; allowed: {spec.allowed}")
    return number


def one_of(what: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise unless value is one of a few words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{what} is {value!r}; allowed: {', '.join(map(repr, allowed))}")


def positive(what: str, value: Any) -> float:
    """A positive finite number."""
    error: type[Exception] = ValueError
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        number, error = math.nan, TypeError
    if not 0.0 < number < math.inf:
        raise error(f"{what} is {value!r}; expected a positive finite number")
    return number


def integer(what: str, value: Any, expected: str = "an integer") -> None:
    """Raise unless value is an integer and no bool."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what} is {value!r}; expected {expected}")


def same_shape(what: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise unless shapes agree; broadcasting (n,) against (n, 1) is never what was meant."""
    if got != expected:
        raise ValueError(f"{what} has shape {got}; expected {expected}, the shape of the prediction")


def same_rows(loss: str, what: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise unless there is one entry per row of the prediction."""
    if got != expected:
        raise ValueError(f"{loss}: {what} has shape {got}; expected {expected}, one entry per row of the prediction")


def all_or_none(loss: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise where one input is empty and another is not."""
    empty = [k for k, shape in shapes.items() if 0 in shape]
    if empty and len(empty) < len(shapes):
        full = next(k for k in shapes if k not in empty)
        raise ValueError(
            f"{loss}: {empty[0]} has shape {shapes[empty[0]]} and {full} has shape {shapes[full]}; "
            "expected both empty or neither"
        )


def position(i: int, shape: tuple[int, ...]) -> str:
    """A flat index as a reader of the array would write it."""
    return ", ".join(str(int(v)) for v in np.unravel_index(i, shape))


def entries(what: str, given: Any, count: int, expected: str) -> tuple[Any, ...]:
    """What was given for several outputs, if it is as many."""
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"{what} is one array; expected {expected}")
    if len(given) != count:
        raise TypeError(f"{what} has {len(given)} entries; expected {expected}")
    return tuple(given)


def output(
    what: str, out: Any, shape: tuple[int, ...], dtype: Any, inputs: Iterable[Any], others: Iterable[Any]
) -> None:
    """Raise unless out can be written: its shape, dtype, and no memory shared with an input or another output."""
    if out.shape != shape:
        raise ValueError(f"{what} has shape {out.shape}; expected {shape}")
    if out.dtype != dtype:
        raise TypeError(f"{what} has dtype {out.dtype}; expected {dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{what} is read-only; expected a writable array")
    if any(_overlap(out, x) for x in inputs):
        raise ValueError(f"{what} overlaps an input; inputs are never written, pass another array")
    if any(_overlap(out, x) for x in others):
        raise ValueError(f"{what} overlaps another output; pass two arrays")


def _overlap(a: Any, b: Any) -> bool:
    try:
        return bool(np.may_share_memory(a, b) and np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except (RuntimeError, ValueError):
        return True


def violation(loss: str, what: str, array: Any, domain: Domain, sibling: str = "", note: str = "") -> None:
    """Raise for the first element outside its domain; name the sibling that takes raw scores where there is one."""
    flat = array.reshape(-1)
    step = 1 << 20
    for start in range(0, flat.size, step):
        outside = np.asarray(domain.outside(flat[start : start + step]))
        if not outside.any():
            continue
        i = start + int(outside.argmax())
        where = f"[{position(i, array.shape)}]" if array.ndim else ""
        value = str(flat[i]).removesuffix(".0")
        hint = ""
        if what == "prediction" and sibling:
            hint = f"; for raw scores use {sibling}"
        if what == "target" and domain == SIGNS and flat[i] == 0:
            hint = "; for labels 0 and 1 pass 2 * target - 1"
        raise ValueError(f"{loss}: {what}{where} is {value}{note}; allowed: {domain}{hint}")


def ordered(loss: str, low: str, a: Any, high: str, b: Any, shape: tuple[int, ...]) -> None:
    """Raise for the first element of one array that exceeds its fellow of another."""
    wrong = a > b
    if wrong.any():
        i = int(wrong.argmax())
        where = position(i, shape)
        raise ValueError(f"{loss}: {low}[{where}] is {a[i]}; allowed: at most {high}[{where}], which is {b[i]}")
