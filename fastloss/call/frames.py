"""Series and frames of pandas and Polars: their indexes must agree, and missing values are refused."""

import sys
from typing import Any

import numpy as np

from .errors import CallValueError

__all__ = ["refuse_missing", "refuse_other_index"]


def refuse_missing(x: Any, what: str) -> None:
    """Raise for the first missing value of a Polars or nullable pandas object, which an array would hold as NaN."""
    library = type(x).__module__.partition(".")[0]
    if library == "polars" and hasattr(x, "null_count"):
        missing = np.asarray(x.is_null() if hasattr(x, "is_null") else x.select(sys.modules["polars"].all().is_null()))
        remedy = "pass .fill_null(...) or .drop_nulls()"
    elif library == "pandas" and hasattr(x, "isna"):
        dtypes: Any = getattr(x, "dtypes", None)
        kinds = list(dtypes) if getattr(dtypes, "ndim", 0) else [getattr(x, "dtype", None)]
        if all(isinstance(kind, np.dtype) or kind is None for kind in kinds):
            return
        missing, remedy = np.asarray(x.isna()), "pass .fillna(...) or .dropna()"
    else:
        return
    if missing.any():
        first = np.unravel_index(int(missing.argmax()), missing.shape)
        index = tuple(int(i) for i in first)
        raise CallValueError(f"is missing; expected a number: {remedy}", what, index)


def refuse_other_index(names: tuple[str, ...], first: Any, target: Any, weight: Any) -> None:
    """Raise where two pandas objects of one length have different indexes: arrays would match rows by position.

    `first` is the prediction, or a tuple of all arrays that have these names.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return
    several = isinstance(first, (tuple, list)) and len(first) == len(names) > 1
    given = [*(zip(names, first, strict=True) if several else [("prediction", first)])]
    given += [("target", target), ("weight", weight)]
    kinds = getattr(pandas, "Series", ()), getattr(pandas, "DataFrame", ())
    found = [(name, x) for name, x in given if isinstance(x, kinds)]
    for name, x in found[1:]:
        leader, like = found[0]
        if len(x) == len(like) and not x.index.equals(like.index):
            remedy = f"pass .to_numpy() of both, or align them: a, b = {leader}.align({name}, join='inner')"
            raise CallValueError(f"has another index than {leader}, and would match it by position; {remedy}", name)
        if x.ndim == like.ndim == 2 and x.shape == like.shape and not x.columns.equals(like.columns):
            remedy = f"pass .to_numpy() of both, or {name}[{leader}.columns]"
            raise CallValueError(f"has other columns than {leader}, and would match them by position; {remedy}", name)
