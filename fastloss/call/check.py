"""Validation of arguments, and the error messages: the faulty argument, its value, the allowed values.

Checks know no loss: `errors.named` adds its name where the error leaves the loss.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..spec.record import Domain, Formula
from . import hints
from .errors import CallError, CallTypeError, CallValueError

__all__ = [
    "all_or_none",
    "arrays_missing",
    "class_weight",
    "entries",
    "flag",
    "index_of",
    "inputs_of",
    "integer",
    "label_to_ignore",
    "labels",
    "labels_allowed",
    "nearest",
    "one_of",
    "options_of",
    "ordered",
    "output",
    "parameter",
    "positive",
    "row_target",
    "same_rows",
    "same_shape",
    "several",
    "shown",
    "similar",
    "target_given",
    "unknown_parameter",
    "violation",
    "violations",
    "within",
]


def similar(name: str, known: Iterable[str]) -> str:
    """Return a hint that lists the known names similar to this one; empty where none is."""
    import difflib  # a tenth of this package's import, and only errors need it

    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    close = close or [k for k in known if name in k or k in name][:3]
    return f"did you mean {' or '.join(close)}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that lists the known names similar to this one, or all of them if they are few."""
    known = list(known)
    hint = similar(name, known)
    if hint:
        return hint
    return f"known: {', '.join(known) or 'none'}" if len(known) < 12 else "see fastloss.LOSSES for all names"


def unknown_parameter(record: Formula, name: str) -> CallTypeError:
    """Return the error for a parameter that the loss does not have; it knows the names of other libraries."""
    hint = hints.argument(name, inputs_of(record), options_of(record), order_of(record))
    return CallTypeError(f"is not a parameter; {hint or nearest(name, record.parameters)}", name)


def inputs_of(record: Formula) -> tuple[str, ...]:
    """Return the names of the arrays of a loss, in the order of a call."""
    if record.inputs:
        return tuple(record.inputs)
    first = ("prediction",) if len(record.predictions) == 1 else record.predictions
    return (*first, *(("target",) if record.target else ()))


def order_of(record: Formula) -> str:
    """Return the arrays of a call as a caller groups them: several predictions of one element form a tuple."""
    names = inputs_of(record)
    if record.inputs or len(record.predictions) == 1 or record.link == "difference":
        return f"({', '.join(names)})"
    return f"(({', '.join(record.predictions)}), target)" if record.target else f"(({', '.join(names)}),)"


def options_of(record: Formula) -> tuple[str, ...]:
    """Return the names of the keywords of a call: those that every loss has, and the loss's own."""
    own: tuple[str, ...] = ("axis",) if record.family == "rows" else ()
    own += ("class_weight",) if record.family == "rows" and record.row_loop.has_classes else ()
    own += ("ignore_index",) if record.family == "rows" and record.row_loop.labels else ()
    return ("weight", "reduction", "divisor", *own, *record.parameters)


def arrays_missing(record: Formula, missing: Iterable[str], loss: str) -> CallTypeError:
    """Return the error for a call without some of its arrays.

    `loss` is the expression for the loss where the caller may have meant to bind parameters, else empty.
    """
    *first, last = missing
    needed = f"{', '.join(first)} and {last}" if first else last
    hint = f"; for a loss with these defaults type {loss}" if loss else ""
    return CallTypeError(f"needs {needed}; it takes {order_of(record)}{hint}")


def parameter(record: Formula, name: str, value: Any) -> float:
    """Return a validated parameter value as the float passed to kernels."""
    spec = record.parameters.get(name)
    if spec is None:
        raise unknown_parameter(record, name)
    if value is None and spec.none is not None:
        return spec.none
    if spec.flag:
        return float(flag(name, value))
    if spec.choices:
        one_of(name, value, spec.choices)
        return float(spec.choices.index(value))
    try:
        number = _number(value)
    except OverflowError:
        number = math.nan
    except TypeError:
        expected = "a number or None" if spec.none is not None else "a number"
        raise CallTypeError(f"is {shown(value)}; expected {expected}", name) from None
    if math.isnan(number) or spec.allowed.outside(number):
        raise CallValueError(f"is {shown(value)}; allowed: {spec.allowed}", name)
    if 0.0 < abs(number) < SMALLEST and spec.allowed.outside(0.0):
        # Formulas divide by a parameter that may not be 0, and the inverse of a subnormal number is infinite.
        raise CallValueError(f"is {shown(value)}; expected at least {SMALLEST:g}", name)
    return number


SMALLEST = float(np.finfo(np.float64).tiny)
"""Smallest normal float64 value: the least value of a parameter that formulas divide by."""

LONGEST = 500
"""Most characters of a value quoted in a message: enough for 10**400."""


def shown(value: Any) -> str:
    """Return the text of a value for a message, as one line of bounded length."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:
        # Python refuses to print integers of more than 4,300 digits.
        text = f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _number(value: Any) -> float:
    """Return a real number as a float; raise TypeError for anything else, such as text, a date or an array."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    if isinstance(value, (str, bytes, bytearray, np.ma.MaskedArray)) or np.ndim(value) or kind not in "fiub":
        raise TypeError
    try:
        return float(value)
    except ValueError:
        raise TypeError from None


def within(what: str, value: Any, allowed: Domain, owner: str | None = None) -> float:
    """Return a number of a domain as a float; raise for any other value."""
    try:
        number = _number(value)
    except OverflowError:
        number = math.nan
    except TypeError:
        raise CallTypeError(f"is {shown(value)}; expected a number", what, loss=owner) from None
    if math.isnan(number) or allowed.outside(number):
        raise CallValueError(f"is {shown(value)}; allowed: {allowed}", what, loss=owner)
    return number


def flag(what: str, value: Any) -> bool:
    """Return the value of a boolean option, given as True or False, 1 or 0."""
    of_numpy = isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 and value.dtype.kind in "biuf"
    if not (of_numpy or isinstance(value, (bool, int, float))) or value not in (0, 1):
        raise CallValueError(f"is {shown(value)}; allowed: True or False", what)
    return bool(value)


def one_of(what: str, value: Any, allowed: tuple[str, ...], loss: str | None = None) -> None:
    """Raise unless value is one of the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        raise CallValueError(f"is {shown(value)}; allowed: {', '.join(map(repr, allowed))}", what, loss=loss)


def positive(what: str, value: Any) -> float:
    """Return a positive finite number as a float; raise for any other value."""
    error: type[CallError] = CallValueError
    try:
        number = _number(value)
    except OverflowError:
        number = math.inf
    except TypeError:
        number, error = math.nan, CallTypeError
    if not 0.0 < number < math.inf:
        raise error(f"is {shown(value)}; expected a positive finite number", what)
    if number < SMALLEST:
        raise CallValueError(f"is {shown(value)}; expected at least {SMALLEST:g}", what)
    return number


def integer(what: str, value: Any, expected: str = "an integer") -> None:
    """Raise unless value is an integer other than a bool."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise CallTypeError(f"is {shown(value)}; expected {expected}", what)


def label_to_ignore(value: Any) -> None:
    """Raise unless value is None or a 64-bit integer."""
    if value is None:
        return
    integer("ignore_index", value, "an integer or None")
    if not -(2**63) <= value < 2**63:
        raise CallValueError(f"is {shown(value)}; allowed: -2**63 to 2**63 - 1, or None", "ignore_index")


def same_shape(what: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise unless shapes agree; broadcasting (n,) against (n, 1) would hide a mistake."""
    if got != expected:
        hint = hints.shape(what, got, expected)
        raise CallValueError(f"has shape {got}; expected {expected}, the shape of the prediction{hint}", what)


def same_rows(what: str, got: tuple[int, ...], expected: tuple[int, ...], hint: str = "") -> None:
    """Raise unless there is one entry per row of the prediction."""
    if got != expected:
        raise CallValueError(f"has shape {got}; expected {expected}, one entry per row of the prediction{hint}", what)


def several(record: Formula, prediction: Any) -> tuple[Any, ...]:
    """Return the predictions of a loss that takes several, as the caller passed them."""
    names = record.predictions
    if not isinstance(prediction, (tuple, list)) or len(prediction) != len(names):
        raise CallTypeError(f"takes {len(names)} predictions, ({', '.join(names)}), as a tuple or by name")
    return tuple(prediction)


def target_given(record: Formula, target: Any) -> bool:
    """Whether the call has a target; raise where it is missing or not allowed."""
    if record.target is None and target is not None:
        alone = "its argument" if len(record.predictions) == 1 else "its arguments"
        raise CallTypeError(f"is a penalty on {alone} alone and takes no target")
    if record.target is not None and target is None:
        raise CallTypeError("needs a target")
    return target is not None


def row_target(
    record: Formula, dtype: Any, integer: bool, got: tuple[int, ...], rows: tuple[int, ...], k: int, axis: int = -1
) -> str:
    """Return the kind of a row-wise target, by dtype and shape: "labels" (integers) or "dense" (floats per row)."""
    loop = record.row_loop
    if loop.dense == "number":
        same_rows("target", got, rows)
        return "dense"
    if integer:
        if not loop.labels:
            kind = {"logits": "the teacher's logits"}.get(loop.dense, "probabilities")
            raise CallTypeError(f"has dtype {dtype}; expected {kind}, as floats", "target")
        if got != rows:
            same_rows("target", got, rows, hints.rows_of_labels(got, rows, k, axis, bool(loop.dense)))
        return "labels"
    if not loop.dense:
        hint = hints.float_labels(got, rows)
        raise CallTypeError(f"has dtype {dtype}; expected integer labels{hint}", "target")
    if got == rows and got != (*rows, k):
        also = f"integers, or rows of {k} {loop.dense}" if loop.labels else f"rows of {k} {loop.dense}"
        hint = hints.float_labels(got, rows) if loop.labels else ""
        raise CallTypeError(f"has dtype {dtype}; expected {also}{hint}", "target")
    return "dense"


def labels_allowed(classes: int, ignore_index: int | None) -> str:
    """Return the text that lists the allowed labels."""
    also = "" if ignore_index is None else f", or {ignore_index} (ignore_index)"
    return (f"0 to {classes - 1}" if classes > 0 else "none") + also


def labels(given: Any, found: Any, weight: Any, classes: int, ignored: int, ignore_index: int | None) -> None:
    """Raise for the first label that is neither a class nor ignored, of the rows that count.

    `given` are the labels as the caller passed them, `found` the same as int64, `weight` those of the rows or empty.
    """
    counts = found != ignored
    if weight.size:
        counts &= weight != 0.0
    wrong = ((found < 0) | (found >= classes)) & counts
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    allowed = f"{labels_allowed(classes, ignore_index)}{hints.labels(found[counts], classes)}"
    raise CallValueError(f"is {given.reshape(-1)[first]}; allowed: {allowed}", "target", index_of(first, given.shape))


def class_weight(record: Formula, got: tuple[int, ...], k: int) -> None:
    """Raise unless class_weight has one entry per class."""
    if not record.row_loop.has_classes:
        raise CallTypeError("has no classes, so no class_weight; weight is the factor of each row")
    if got != (k,):
        expected = f"expected ({k},), one weight per {record.row_loop.each}"
        raise CallValueError(f"has shape {got}; {expected}", "class_weight")


def all_or_none(shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise where some of these inputs are empty and others are not."""
    empty = [k for k, shape in shapes.items() if 0 in shape]
    if empty and len(empty) < len(shapes):
        full = next(k for k in shapes if k not in empty)
        raise CallValueError(
            f"has shape {shapes[empty[0]]} and {full} has shape {shapes[full]}; expected both empty or neither",
            empty[0],
        )


def index_of(i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index in an array of this shape of an element with flat index i."""
    return tuple(int(v) for v in np.unravel_index(i, shape))


def entries(what: str, given: Any, count: int, expected: str) -> tuple[Any, ...]:
    """Return the entries of out or of several predictions as a tuple; raise unless there are `count`."""
    if not isinstance(given, (tuple, list)):
        raise CallTypeError(f"is one array; expected {expected}", what)
    if len(given) != count:
        raise CallTypeError(f"has {len(given)} entries; expected {expected}", what)
    return tuple(given)


def output(
    what: str, out: Any, shape: tuple[int, ...], dtype: Any, inputs: Iterable[Any], others: Iterable[Any]
) -> None:
    """Raise unless out is writable, has the shape and dtype, and overlaps no input and no other output."""
    if out.shape != shape:
        raise CallValueError(f"has shape {out.shape}; expected {shape}", what)
    if out.dtype != dtype:
        raise CallTypeError(f"has dtype {out.dtype}; expected {dtype}", what)
    if not out.flags.writeable:
        raise CallValueError("is read-only; expected a writable array", what)
    if any(_overlap(out, x) for x in inputs):
        raise CallValueError("overlaps an input; inputs are never written, pass another array", what)
    if any(_overlap(out, x) for x in others):
        raise CallValueError("overlaps another output; pass two arrays", what)


def _overlap(a: Any, b: Any) -> bool:
    try:
        return bool(np.may_share_memory(a, b) and np.shares_memory(a, b, max_work=10_000))  # type: ignore[arg-type]
    except (RuntimeError, ValueError):
        return True


def violation(what: str, array: Any, domain: Domain, sibling: str = "", note: str = "", counts: Any = None) -> None:
    """Raise for the first element outside its domain; name the sibling that takes raw scores where there is one.

    Elements masked out by `counts` (bool, broadcast to the shape) are not checked.
    """
    flat = array.reshape(-1)
    kept = None
    if counts is not None:
        # A broadcast scalar is checked if any element counts.
        whole = counts if array.ndim else np.any(counts)
        kept = np.broadcast_to(whole, array.shape).reshape(-1)
    step = 1 << 20
    for start in range(0, flat.size, step):
        outside = np.asarray(domain.outside(flat[start : start + step]))
        if kept is not None:
            outside = outside & kept[start : start + step]
        if not outside.any():
            continue
        i = start + int(outside.argmax())
        value = str(flat[i]).removesuffix(".0")
        hint = ""
        if what == "prediction" and sibling:
            hint = f"; for raw scores use {sibling}"
        if what == "target":
            hint = hints.target_value(float(flat[i]), str(domain))
        raise CallValueError(f"is {value}{note}; allowed: {domain}{hint}", what, index_of(i, array.shape))


def violations(what: str, given: Any, converted: Any, domain: Domain, counts: Any = None) -> None:
    """Raise for the first element outside its domain, before or after conversion to the kernel's dtype."""
    if np.asarray(domain.outside(converted)).any():
        violation(what, given, domain, counts=counts)
        note = f" in {converted.dtype.name}"
        rounded = converted.reshape(given.shape) if given.ndim else converted.reshape(-1)[0]
        violation(what, rounded, domain, note=note, counts=counts)


def ordered(low: str, a: Any, high: str, b: Any, shape: tuple[int, ...], counts: Any = None) -> None:
    """Raise for the first unmasked element of `a` that exceeds the element of `b` at the same index."""
    wrong = a > b if counts is None else (a > b) & counts
    if wrong.any():
        i = int(wrong.argmax())
        index = index_of(i, shape)
        where = ", ".join(map(str, index))
        raise CallValueError(f"is {a[i]}; allowed: at most {high}[{where}], which is {b[i]}", low, index)
