"""Key columns of groups as codes into a dictionary of their values, by Arrow."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..columns import InputError

__all__ = ["array_of", "encoded", "looked_up", "whole"]


def whole(values: Any) -> Any:
    """Return a column of whole numbers without nulls as a NumPy array; None for any other column."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        if values.null_count or not pa.types.is_integer(values.type):
            return None
        return values.to_numpy(zero_copy_only=False)
    if isinstance(values, np.ma.MaskedArray) or values.dtype.kind not in "iu" or values.ndim != 1:
        return None
    return values


def looked_up(dictionary: Any, known: Any) -> tuple[Any, Any]:
    """Return the places of values in the known ones (int32), and the indices of those that are not there."""
    if known is None or known.type != dictionary.type:
        return np.empty(len(dictionary), np.int32), np.arange(len(dictionary))
    found = pc.fill_null(pc.index_in(dictionary, value_set=known), -1).to_numpy(zero_copy_only=False)
    return found.copy(), np.flatnonzero(found < 0)


def array_of(values: list[Any], kind: Any) -> Any:
    """Return known values as an array of a column's type; None where they are of several types."""
    try:
        found = pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return None
    # A value that Arrow converted, such as a number to text, is not the key that it was.
    return found if found.to_pylist() == values else None


def encoded(values: Any, name: str) -> tuple[Any, Any]:
    """Return the indices of a column's values (int) and the array of distinct values, with a null for null rows."""
    array = _arrow(values, name)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_nested(inner) or pa.types.is_binary(inner) or pa.types.is_large_binary(inner):
        raise InputError(f"by {name!r} holds {inner}; expected text, numbers, booleans or dates")
    if not pa.types.is_dictionary(kind):
        array = array.dictionary_encode()
    indices, dictionary = array.indices, array.dictionary
    if indices.null_count:
        indices = pc.fill_null(indices.cast(pa.int64()), len(dictionary))
        dictionary = pa.concat_arrays([dictionary, pa.nulls(1, dictionary.type)])
    return indices.to_numpy(zero_copy_only=False), dictionary


def _arrow(values: Any, name: str) -> Any:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if np.ndim(values) != 1:
        raise InputError(f"by {name!r} has the shape {np.shape(values)}; expected one key a row")
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    try:
        return pa.array(np.ma.getdata(values), mask=mask, from_pandas=values.dtype.kind == "O")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        raise InputError(f"by {name!r} holds {values.dtype}; expected text, numbers, booleans or dates") from None
