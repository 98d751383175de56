"""Labels of text as numbers: one positive label, or a list of classes."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..columns import InputError, place
from ..sources import Batch, Selection, Source

__all__ = ["Labelled"]


class Labelled:
    """Source whose target is 1 where it is the positive label and else 0, or the index of its class."""

    def __init__(self, source: Source, positive: Any, classes: Sequence[Any]) -> None:
        self.source = source
        self.positive = positive
        self.classes = list(classes)

    def total(self) -> int | None:
        """Return the number of rows, where it is known."""
        return self.source.total()

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the batches with the target as numbers."""
        at, rows, positives, last = len(selection.pred), 0, 0, ""
        for batch in self.source.batches(selection):
            groups = list(batch.groups)
            groups[at] = [(name, self._numbers(name, column, batch)) for name, column in groups[at]]
            yield replace(batch, groups=groups)
            rows += batch.rows
            if not self.classes:
                positives += sum(pc.sum(column).as_py() or 0 for _, column in groups[at])
                last = ", ".join(name for name, _ in groups[at])
        if rows and not positives and not self.classes:
            warnings.warn(f"positive is {self.positive!r}, and no {last} is that", UserWarning, stacklevel=2)

    def _numbers(self, name: str, column: Any, batch: Batch) -> Any:
        """Return a column of labels as numbers, nulls as nulls."""
        array = pa.array(column) if isinstance(column, np.ndarray) else column
        if pa.types.is_dictionary(array.type):
            # A value is looked up once, and not in every row.
            codes = self._codes(name, array.dictionary)
            found = codes.take(array.indices)
        else:
            found = self._codes(name, array)
        unknown = pc.and_(pc.is_null(found), pc.is_valid(array))
        if pc.any(unknown).as_py():
            row = int(np.argmax(unknown.to_numpy(zero_copy_only=False)))
            allowed = ", ".join(map(repr, self.classes))
            raise InputError(
                f"{place(batch.source, batch.start + row)}: {name} is {array[row].as_py()!r}; allowed: {allowed}"
            )
        return found

    def _codes(self, name: str, values: Any) -> Any:
        """Return the numbers of values; null for a value of no class."""
        if pa.types.is_nested(values.type):
            raise InputError(f"column {name!r} holds {values.type}; expected one label a row")
        if self.classes:
            return pc.index_in(values, value_set=_as(self.classes, values.type, name, "classes"))
        return pc.equal(values, _as([self.positive], values.type, name, "positive")[0]).cast(pa.int32())


def _as(labels: list[Any], kind: Any, name: str, argument: str) -> Any:
    """Return labels as an array of a column's type; raise where they are not of it."""
    try:
        return pa.array(labels).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        shown = ", ".join(map(repr, labels))
        raise InputError(f"{argument} is {shown}, and column {name!r} holds {kind}; expected labels of it") from None
