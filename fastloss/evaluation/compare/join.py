"""Rows of two inputs, joined by an identifier."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..columns import InputError, from_arrow
from ..sources import Selection, open_source

__all__ = ["joined_table"]


def joined_table(a: Any, b: Any, on: str, selection: Selection) -> tuple[Any, Selection, list[str]]:
    """Return one table of the rows that both inputs have, the selection of both predictions in it, and notes.

    The target, the weight and the keys of groups are those of the first input. Both are held in memory.
    """
    columns = _read(a, selection, on)
    others = _read(b, Selection(selection.pred, selection.target, None), on)
    ids, other_ids = columns["on"], others["on"]
    _check_distinct(ids, on, "the first")
    _check_distinct(other_ids, on, "the second")
    if ids.type != other_ids.type:
        try:
            other_ids = other_ids.cast(ids.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise InputError(f"{on} is {ids.type} in the first input and {other_ids.type} in the second") from None
    found = pc.index_in(ids, value_set=other_ids)
    kept = found.is_valid()
    places = found.filter(kept)
    if not len(places):
        raise InputError(f"no {on} is in both inputs; expected the same rows in both")
    first = {name: values.filter(kept) for name, values in columns.items()}
    second = {name: values.take(places) for name, values in others.items()}
    if selection.target is not None and not _equal(first["target"], second["target"]):
        raise InputError(
            f"{selection.target} differs between the inputs for some {on}; expected the same target in both"
        )
    arrays = {name: values for name, values in first.items() if name != "on"}
    arrays |= {f"{name} of the second": v for name, v in second.items() if name.startswith("pred")}
    preds = [n for n in first if n.startswith("pred")]
    keys = tuple(tuple(f"by:{n}" for n in grouping) for grouping in selection.by)
    target, weight = ("target" if selection.target else None), ("weight" if selection.weight else None)
    both = (*preds, *(f"{n} of the second" for n in preds))
    notes = []
    for count, name in ((len(ids) - len(places), "first"), (len(other_ids) - len(places), "second")):
        if count:
            notes.append(f"{count:,} rows of the {name} input have no {on} of the other: left out")
    return pa.table(arrays), Selection(both, target, weight, keys), notes


def _read(data: Any, selection: Selection, on: str) -> dict[str, Any]:
    """Return the columns of an input as arrays of Arrow, by their role."""
    keys = tuple((n,) for n in sorted({n for grouping in selection.by for n in grouping}))
    asked = Selection(selection.pred, selection.target, selection.weight, (*keys, (on,)))
    source, asked = open_source(data, asked)
    parts: dict[str, list[Any]] = {}
    for batch in source.batches(asked):
        roles = [f"pred{i}" for i in range(len(asked.pred))]
        *groups, target, weight = batch.groups[: len(roles) + 2]
        names = [(f"{role}.{j}", c) for role, g in zip(roles, groups, strict=True) for j, (_, c) in enumerate(g)]
        names += [(role, c) for role, g in (("target", target), ("weight", weight)) for _, c in g]
        names += [(f"by:{n}", c) for g in batch.groups[len(roles) + 2 : -1] for n, c in g]
        names += [("on", batch.groups[-1][0][1])]
        for name, column in names:
            parts.setdefault(name, []).append(_arrow(column))
    if not parts:
        raise InputError("an input of a comparison has no rows")
    return {name: pa.chunked_array(arrays).combine_chunks() for name, arrays in parts.items()}


def _arrow(column: Any) -> Any:
    """Return a column as an array of Arrow; rows of a matrix become lists of a fixed length."""
    if isinstance(column, np.ndarray):
        if column.ndim == 2:
            return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), column.shape[1])
        return pa.array(column)
    if isinstance(column, pa.ExtensionArray):
        return column.storage
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _check_distinct(ids: Any, on: str, which: str) -> None:
    if ids.null_count:
        raise InputError(f"{on} is null in {which} input; expected an identifier in every row")
    counts = pc.value_counts(ids)
    if len(counts) < len(ids):
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"].as_py()
        raise InputError(f"{on} {twice!r} is in several rows of {which} input; expected each once")


def _equal(a: Any, b: Any) -> bool:
    x, y = (from_arrow(column, "target")[0] for column in (a, b))
    return x.shape == y.shape and bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f" == y.dtype.kind))
