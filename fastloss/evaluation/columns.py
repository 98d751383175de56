"""Conversion of columns to NumPy arrays, one number or one vector per row, with masks of null rows."""

import difflib
import fnmatch
import importlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = [
    "InputError",
    "check_file",
    "chosen",
    "from_arrow",
    "from_numpy",
    "line",
    "natural",
    "place",
    "plain",
    "plain_rows",
    "reading",
    "with_arrow",
]

LONGEST = 200
"""Most characters quoted of a library's error message, as some messages contain whole rows of data."""


class InputError(ValueError):
    """Error for data that cannot be evaluated; the message names file, row or column, and the expected data."""


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any exception of a library that reads a file into an InputError that names the file."""
    try:
        yield
    except (InputError, ImportError):
        raise
    except FileNotFoundError as error:
        if path.startswith("the "):  # a table of another library, which says which file of its own there is not
            raise InputError(f"cannot read {path}: {_reason(error)}") from None
        raise InputError(f"no such file: {path}") from None
    except Exception as error:
        raise InputError(f"cannot read {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the message of a library's error, shortened to a sentence."""
    if isinstance(error, UnicodeEncodeError):
        return "a name is no UTF-8; rename it"
    if isinstance(error, UnicodeDecodeError):
        return f"a name or text is no UTF-8: {error.object[:60]!r}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def check_file(path: str) -> None:
    """Raise unless the path is a regular file: a pipe would wait for a writer and cannot be read twice."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {_reason(error)}") from None
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a directory"), (stat.S_ISSOCK, "a socket"))
        kind = next((word for is_kind, word in kinds if is_kind(mode)), "a device")
        raise InputError(f"{path} is {kind}; expected a file")


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a sorting key by which logit_2 comes before logit_10."""
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", text) if p]


def chosen(patterns: Sequence[str], known: Iterable[str], role: str, where: str) -> list[list[str]]:
    """Return the columns that match each name or glob; raise for an unknown name, listing similar ones."""
    known = list(known)
    names, groups = set(known), []
    for pattern in patterns:
        if pattern in names:
            groups.append([pattern])
            continue
        found = [k for k in known if fnmatch.fnmatchcase(k, pattern)] if set(pattern) & set("*?[") else []
        if not found:
            close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else _listed(known)
            raise InputError(f"{where} has no column {pattern!r} for {role}; {hint}")
        groups.append(sorted(found, key=natural))
    return groups


def _listed(known: list[str]) -> str:
    shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return f"it has {shown}" if known else "it has no columns"


def line(path: str, row: int) -> int | None:
    """Return the line of a CSV file that holds a row, below a heading and without blank lines; None in other files."""
    return row + 2 if re.search(r"\.[ct]sv(\.\w+)?$", path.lower()) else None


def place(path: str, row: int) -> str:
    """Return the words for a row of a file ("" for arrays and tables): its index from 0, and its line in CSV files."""
    found = line(path, row)
    return f"{path}{', ' if path else ''}row {row}{f' (line {found})' if found else ''}"


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what is no number, text, list or null becomes text."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value if isinstance(value, float) and np.isfinite(value) else str(value)


def plain_rows(mask: Any) -> Any:
    """Return the mask of valid rows; None where all are valid."""
    return None if mask is None or mask.all() else mask


def with_arrow(module: str) -> Any:
    """Import a module of this package that needs pyarrow."""
    try:
        return importlib.import_module(f".{module}", __package__)
    except ImportError as error:
        raise ImportError('this needs pyarrow: pip install "fastloss[eval]"', name="pyarrow") from error


def from_numpy(array: Any, name: str) -> tuple[Any, Any]:
    """Return a slice of a NumPy array (1-D or 2-D) and the mask of its valid rows (None: all)."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; expected numbers")
    if isinstance(array, np.ma.MaskedArray):
        there = ~np.ma.getmaskarray(array)
        return from_numpy(array.data, name)[0], plain_rows(there.all(axis=1) if there.ndim == 2 else there)
    return (array.view(np.uint8) if array.dtype.kind == "b" else array), None


def from_arrow(array: Any, name: str) -> tuple[Any, Any]:
    """Return an Arrow array as a NumPy array (1-D, or 2-D from lists) and the mask of rows without null (None: all)."""
    import pyarrow as pa

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return from_arrow(array.storage, name)
    if pa.types.is_dictionary(kind):
        return from_arrow(array.dictionary_decode(), name)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _matrix(array, name)
    return _vector(array, name)


def _vector(array: Any, name: str) -> tuple[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_null(kind):
        return np.zeros(len(array)), np.zeros(len(array), bool)
    mask = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_decimal(kind):
        array = array.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        hint = "; labels are turned into numbers by positive='yes' or classes=['a', 'b']" if is_text else ""
        raise InputError(f"column {name!r} holds {kind}; expected numbers, or lists of numbers{hint}")
    if mask is not None:
        array = pc.fill_null(array, pa.scalar(0, array.type))
    return array.to_numpy(zero_copy_only=False), mask


def _matrix(array: Any, name: str) -> tuple[Any, Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = len(array)
    mask = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    values, valid = from_arrow(array.flatten(), name)
    if values.ndim != 1:
        raise InputError(f"column {name!r} holds lists of lists; expected one list of numbers a row")
    present = rows if mask is None else int(mask.sum())
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
    else:
        lengths = pc.list_value_length(array.drop_null() if array.null_count else array)
        width = lengths[0].as_py() if present else 0
        if present and not pc.all(pc.equal(lengths, width)).as_py():
            odd = int(np.argmax(lengths.to_numpy(zero_copy_only=False) != width))
            raise InputError(
                f"column {name!r} holds lists of {width} and of {lengths[odd].as_py()} values; expected one length"
            )
    values = values.reshape(present, width)
    if valid is not None:
        valid = valid.reshape(present, width).all(axis=1)
    if mask is not None:
        full, kept = np.zeros((rows, width), values.dtype), mask.copy()
        full[mask] = values
        if valid is not None:
            kept[mask] = valid
        return full, kept
    return values, plain_rows(valid)
