"""Statistics by group: keys of rows, exact sums of each group, and their reports."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..accumulate import Moments
from ..columns import InputError
from .keys import Keys, partitions
from .tables import Counts, Tables

__all__ = ["Groups", "Keys", "groupings_of", "partitions"]


class Groups:
    """Statistics by group of one evaluation: of each grouping, for each loss. Threads add to tables of their own."""

    def __init__(self, keys: Sequence[Any], losses: int, weighted: bool) -> None:
        self.keys = keys
        self.by = [k.names for k in keys]
        self._losses = losses
        self._weighted = weighted
        self._mine = threading.local()
        self._all: list[list[tuple[Counts, list[Tables]]]] = []

    def codes(self, columns: Sequence[Sequence[tuple[str, Any]]], batch: Any) -> list[Any]:
        """Return the codes of the groups of a batch's rows, for each grouping."""
        found = zip(self.keys, columns, strict=True)
        return [keys.codes(part, batch.source, batch.rows, batch.start) for keys, part in found]

    def _state(self) -> list[tuple[Counts, list[Tables]]]:
        found: list[tuple[Counts, list[Tables]]] | None = getattr(self._mine, "state", None)
        if found is None:
            found = [(Counts(), [Tables(self._weighted) for _ in range(self._losses)]) for _ in self.by]
            self._mine.state = found
            self._all.append(found)
        return found

    def count(self, codes: Sequence[Any], column: int, rows: Any) -> None:
        """Count rows: in column 0 those left out, in 1 those with a null, in 2 those with a NaN or infinity."""
        for keys, part, (counts, _) in zip(self.keys, codes, self._state(), strict=True):
            counts.add(part[rows], column, len(keys))

    def add(self, loss: int, values: Any, weight: Any, codes: Sequence[Any], rows: Any) -> None:
        """Add the values of a loss for some rows of a batch."""
        for keys, part, (_, tables) in zip(self.keys, codes, self._state(), strict=True):
            tables[loss].add(values, np.ascontiguousarray(part[rows]), weight, len(keys))

    def left_out(self, loss: int, column: int, codes: Sequence[Any], rows: Any) -> None:
        """Count rows of a loss: in column 0 those that propagate as NaN, in 1 those ignored by their label."""
        for keys, part, (_, tables) in zip(self.keys, codes, self._state(), strict=True):
            tables[loss].count(part[rows], column, len(keys))

    def found(self, grouping: int, figures: Sequence[str]) -> list[tuple[Any, list[int], list[Moments]]]:
        """Return key, counts of rows and the state of every loss, for each group of a grouping."""
        return [(key, *self.state_of(grouping, code, figures)) for code, key in enumerate(self.keys[grouping])]

    def state_of(self, grouping: int, code: int, figures: Sequence[str]) -> tuple[list[int], list[Moments]]:
        """Return the counts of rows (all, with a null, not finite) and the state of every loss of a group."""
        states = [state[grouping] for state in self._all]
        tables = [counts.table for counts, _ in states if code < len(counts.table)]
        left_out, *invalid = (sum(int(table[code, j]) for table in tables) for j in range(3))
        moments = []
        for k, figure in enumerate(figures):
            parts = [of_losses[k].moments(code, figure) for _, of_losses in states]
            whole = parts[0]
            for part in parts[1:]:
                whole = whole.merge(part)
            moments.append(whole)
        # A count of every row would take a nanosecond each.
        first = moments[0]
        seen = first.finite + first.nan + first.above + first.below + first.ignored
        return [left_out + seen, *invalid], moments


def groupings_of(by: Any, data: Any = None) -> tuple[tuple[tuple[str, ...], ...], dict[str, Any]]:
    """Return the groupings that `by` asks for, each by the names of its columns, and arrays of keys by name."""
    if by is None:
        return (), {}
    if isinstance(data, tuple):
        keys = dict(by) if isinstance(by, Mapping) else {"key": by}
        for name, values in keys.items():
            if isinstance(values, str) or np.ndim(values) != 1:
                what = repr(values) if isinstance(values, str) else f"of shape {np.shape(values)}"
                problem = f"by[{name!r}] is {what}" if isinstance(by, Mapping) else f"by is {what}"
                raise InputError(f"{problem}; beside a tuple of arrays, expected an array with one key a row")
        return tuple((str(name),) for name in keys), {str(name): values for name, values in keys.items()}
    given = [by] if isinstance(by, (str, tuple)) else list(by) if isinstance(by, (list, set)) else [None]
    found = []
    for each in given:
        names = tuple(n.strip() for n in each.split(",")) if isinstance(each, str) else each
        if not isinstance(names, tuple) or not names or not all(isinstance(n, str) and n for n in names):
            raise InputError(
                f"by is {by!r}; expected names of columns, such as 'country' or ['country', 'model,device']"
            )
        if len(set(names)) < len(names) or names in found:
            raise InputError(f"by {','.join(names)} names a column or a grouping twice")
        found.append(names)
    if not found:
        raise InputError("by names no column; leave it out, or name at least one")
    return tuple(found), {}
