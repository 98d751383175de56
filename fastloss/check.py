"""Every validation, and every message: what is wrong, the value, what is allowed."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .formulas.record import LOOPS, SIGNS, Domain, Formula

__all__ = [
    "LossNotFoundError",
    "SettingError",
    "all_or_none",
    "class_weight",
    "entries",
    "integer",
    "labels_allowed",
    "nearest",
    "one_of",
    "ordered",
    "output",
    "parameter",
    "position",
    "positive",
    "row_target",
    "same_rows",
    "same_shape",
    "several",
    "similar",
    "target_given",
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


def several(record: Formula, prediction: Any) -> tuple[Any, ...]:
    """The predictions of a loss of several, as they were given."""
    names = record.predictions
    if not isinstance(prediction, (tuple, list)) or len(prediction) != len(names):
        raise TypeError(f"{record.name} takes {len(names)} predictions, ({', '.join(names)}), as a tuple or by name")
    return tuple(prediction)


def target_given(record: Formula, target: Any) -> bool:
    """Whether there is a target; raise where there should be one, or should not."""
    if record.target is None and target is not None:
        alone = "its argument" if len(record.predictions) == 1 else "its arguments"
        raise TypeError(f"{record.name} is a penalty on {alone} alone and takes no target")
    if record.target is not None and target is None:
        raise TypeError(f"{record.name} needs a target")
    return target is not None


def row_target(record: Formula, dtype: Any, integer: bool, got: tuple[int, ...], rows: tuple[int, ...], k: int) -> str:
    """The kind of a target of rows of k, by its dtype and shape: "labels", or "dense", numbers of each row."""
    name, loop = record.name, LOOPS[record.loop]
    if loop.dense == "number":
        same_rows(name, "target", got, rows)
        return "dense"
    if integer:
        if not loop.labels:
            kind = {"logits": "the teacher's logits"}.get(loop.dense, "probabilities")
            raise TypeError(f"{name}: the target has dtype {dtype}; expected {kind}, as floats")
        same_rows(name, "target", got, rows)
        return "labels"
    if not loop.dense:
        raise TypeError(f"{name}: the target has dtype {dtype}; expected integer labels")
    if got == rows and got != (*rows, k):
        also = f"integers, or rows of {k} {loop.dense}" if loop.labels else f"rows of {k} {loop.dense}"
        raise TypeError(f"{name}: labels have dtype {dtype}; expected {also}")
    return "dense"


def labels_allowed(classes: int, ignore_index: int | None) -> str:
    """What a label may be, in words."""
    also = "" if ignore_index is None else f", or {ignore_index} (ignore_index)"
    return (f"0 to {classes - 1}" if classes > 0 else "none") + also


def class_weight(record: Formula, got: tuple[int, ...], k: int) -> None:
    """Raise unless there is one weight for each class."""
    if record.loop == "ensemble":
        raise TypeError(f"{record.name} has no classes, so no class_weight; weight is the factor of each row")
    if got != (k,):
        what = "threshold" if record.loop == "ordinal" else "class"
        raise ValueError(f"class_weight has shape {got}; expected ({k},), one weight per {what}")


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
