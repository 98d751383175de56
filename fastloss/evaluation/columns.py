"""Columns of any kind as NumPy arrays: one number, or one vector of numbers, a row; and which rows are null."""

import difflib
import fnmatch
import importlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["InputError", "chosen", "from_arrow", "from_numpy", "natural", "plain_rows", "with_arrow"]


class InputError(ValueError):
    """What was given cannot be evaluated; the message says which file, row or column, and what would do."""


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A sorting key by which logit_2 comes before logit_10."""
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", text) if p]


def chosen(patterns: Sequence[str], known: Iterable[str], role: str, where: str) -> list[list[str]]:
    """The columns that each name or glob stands for; an unknown one raises with the nearest."""
    known = list(known)
    groups = []
    for pattern in patterns:
        if pattern in known:
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


def plain_rows(mask: Any) -> Any:
    """A mask of valid rows, or None where all are."""
    return None if mask is None or mask.all() else mask


def with_arrow(module: str) -> Any:
    """A module of this package that imports pyarrow."""
    try:
        return importlib.import_module(f".{module}", __package__)
    except ImportError as error:
        raise ImportError('this needs pyarrow: pip install "fastloss[eval]"', name="pyarrow") from error


def from_numpy(array: Any, name: str) -> tuple[Any, Any]:
    """A slice of a NumPy array as numbers (1-D or 2-D) and a mask of the rows that nothing masks (None: all)."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}; expected numbers")
    if isinstance(array, np.ma.MaskedArray):
        there = ~np.ma.getmaskarray(array)
        return from_numpy(array.data, name)[0], plain_rows(there.all(axis=1) if there.ndim == 2 else there)
    return (array.view(np.uint8) if array.dtype.kind == "b" else array), None


def from_arrow(array: Any, name: str) -> tuple[Any, Any]:
    """An Arrow array as numbers (1-D, or 2-D from lists) and a mask of the rows without null (None: all)."""
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
        raise InputError(f"column {name!r} holds {kind}; expected numbers, or lists of numbers")
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
