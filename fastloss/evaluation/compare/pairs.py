"""One pass over rows with two predictions: the exact sums of both losses and of their difference."""

import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from ..groups import Groups, Keys
from ..losses import Evaluated
from ..plan import Plan, places
from ..sources import Batch

__all__ = ["BUCKETS", "Buckets", "PairPlan"]

BUCKETS = 4096
"""Buckets of rows, or of clusters, whose sums of differences are kept apart."""

CLUSTERS = 5_000_000
"""Largest number of clusters: each key is held once."""


class Buckets:
    """Codes of buckets: of rows by their place in a file, or of clusters by their keys; the same on any machine."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._keys = Keys(names, CLUSTERS) if names else None
        self._lock = threading.Lock()
        self._found = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return BUCKETS

    def __iter__(self) -> Iterator[int]:
        return iter(range(BUCKETS))

    def codes(self, columns: Sequence[tuple[str, Any]], path: str, rows: int, start: int = 0) -> Any:
        """Return the buckets of some rows."""
        if self._keys is None:
            # Each run of BUCKETS rows fills every bucket once, in an order of its own: no pattern in the rows meets one
            # in the buckets, and a file of fewer rows has one bucket a row.
            row = np.arange(start, start + rows, dtype=np.uint64)
            run = (row // np.uint64(BUCKETS)) * np.uint64(0x9E3779B97F4A7C15)
            seed = np.uint64(zlib.crc32(PurePath(path).name.encode("utf-8", "surrogateescape")))
            return ((row ^ ((run >> np.uint64(20)) + seed)) % np.uint64(BUCKETS)).astype(np.int32)
        codes = self._keys.codes(columns, path, rows, start)
        with self._lock:
            known = len(self._found)
            if len(self._keys) > known:
                keys = list(self._keys)[known:]
                new = [zlib.crc32(repr(key).encode("utf-8", "surrogateescape")) % BUCKETS for key in keys]
                self._found = np.append(self._found, np.array(new, np.int32))
            return self._found[codes]


class PairPlan(Plan):
    """Losses of two predictions of the same rows; the partials are of the first, of the second, of the difference.

    Differences alone are added to groups, of which the buckets come last.
    """

    def __init__(
        self,
        losses: list[Evaluated],
        weighted: bool,
        on_invalid: str,
        by: Sequence[tuple[str, ...]],
        cluster_by: tuple[str, ...],
    ) -> None:
        super().__init__(losses, weighted, on_invalid, 0, False)
        self.groups = Groups([*(Keys(names) for names in by), Buckets(cluster_by)], len(losses), weighted)
        self.partials = 3 * len(losses)
        self._lock = threading.Lock()
        self.wins = np.zeros((len(losses), 3), np.int64)
        """Rows where the first prediction has the smaller loss, the same, the larger."""

    def _evaluate(self, batch: Batch, rows: Any, first: int, k: int, result: Any) -> None:
        """Add both losses of some rows, and their difference, to the result."""
        assert self.groups is not None
        loss = self.losses[k]
        preds, target, weight, index = self._labelled(batch, rows, first, k, result)
        if not len(preds[0]):
            return
        half = len(preds) // 2
        values = [self._values(batch, k, part, target, first, index) for part in (preds[:half], preds[half:])]
        for each in values:
            self._check_finite(batch, loss, each, first, index)
        kept = np.isfinite(values[0]) & np.isfinite(values[1])
        if not kept.all():
            # A row that is infinite under one prediction would count in one mean and not in the other.
            index = (np.arange(first, first + len(kept)) if index is None else index)[kept]
            values = [each[kept] for each in values]
            weight = None if weight is None else weight[kept]
            result.partials[3 * k + 2].counts[1] += int((~kept).sum())
        difference = values[0] - values[1]
        for j, each in enumerate((*values, difference)):
            result.partials[3 * k + j].add(each, weight)
        self.groups.add(k, difference, weight, result.codes, places(first, difference, index))
        smaller, larger = np.count_nonzero(difference < 0), np.count_nonzero(difference > 0)
        with self._lock:
            self.wins[k] += (smaller, len(difference) - smaller - larger, larger)
