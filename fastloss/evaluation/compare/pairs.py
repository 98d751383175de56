"""One pass over rows with two predictions: the exact sums of both losses and of their difference."""

import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from ..columns import InputError
from ..fixed_point import BIAS
from ..groups import Groups, Keys
from ..losses import Evaluated
from ..plan import Plan, places
from ..sources import Batch

__all__ = ["BUCKETS", "Buckets", "PairPlan"]

BUCKETS = 4096
"""Buckets of rows, or of clusters, whose sums of differences are kept apart."""

CELLS = 400_000
"""Largest number of pairs of a group and a bucket: each takes 128 bytes a loss and thread."""

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
            table = self._found
        from ..groups.kernels import look_up

        found = np.empty(len(codes), np.int32)
        look_up(codes, 0, table, found)
        return found


class BucketSums(NamedTuple):
    """Sums of differences of buckets, with their weights or numbers of rows, and the number of rows of all."""

    sums: Any
    weights: Any
    rows: int

    @classmethod
    def of(cls, buckets: list[tuple[int, float, float, int]]) -> "BucketSums":
        """Return the sums of buckets in their order, which does not depend on that of the rows."""
        _, sums, weights, rows = zip(*sorted(buckets), strict=True)
        return cls(np.array(sums), np.array(weights), sum(rows))


class Cells:
    """Codes of pairs of a group and a bucket, in the order of their first appearance."""

    def __init__(self, names: tuple[str, ...], buckets: Buckets) -> None:
        self.keys = Keys(names)
        self.names = names
        self._buckets = buckets
        self._lock = threading.Lock()
        self._codes = np.zeros(0, np.int32)  # code + 1 of a pair that has appeared
        self._pairs: list[int] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the codes of group and bucket."""
        return (divmod(pair, BUCKETS) for pair in self._pairs)

    def codes(self, columns: Sequence[tuple[str, Any]], path: str, rows: int, start: int = 0) -> Any:
        """Return the codes of the pairs of some rows."""
        groups = self.keys.codes([c for c in columns if c[0] in self.names], path, rows, start)
        own = [c for c in columns if c[0] in self._buckets.names]
        pairs = groups.astype(np.int64) * BUCKETS + self._buckets.codes(own, path, rows, start)
        with self._lock:
            if len(self._codes) < len(self.keys) * BUCKETS:
                more = 2 * len(self.keys) * BUCKETS - len(self._codes)
                self._codes = np.append(self._codes, np.zeros(more, np.int32))
            codes = self._codes[pairs]
            if not codes.all():
                new = np.unique(pairs[codes == 0])
                if len(self._pairs) + len(new) > CELLS:
                    raise InputError(
                        f"by {','.join(self.names)} finds more than {CELLS:,} pairs of a group and a bucket of rows or "
                        "clusters; expected fewer groups, or neither cluster_by, weight nor bootstrap"
                    )
                self._codes[new] = np.arange(len(self._pairs), len(self._pairs) + len(new)) + 1
                self._pairs += new.tolist()
                codes = self._codes[pairs]
            return codes - 1


class PairPlan(Plan):
    """Losses of two predictions of the same rows; the partials are of the first, of the second, of the difference.

    Differences alone are added to groups. With buckets, these come first, and then the pairs of a group and a bucket:
    they hold sums of differences and, with weights, of w times the difference and, as further losses, of w.
    """

    def __init__(
        self,
        losses: list[Evaluated],
        weighted: bool,
        on_invalid: str,
        by: Sequence[tuple[str, ...]],
        cluster_by: tuple[str, ...] | None,
    ) -> None:
        super().__init__(losses, weighted, on_invalid, 0, False)
        keys: list[Any] = [Keys(names) for names in by]
        if cluster_by is not None:
            buckets = Buckets(cluster_by)
            keys = [buckets, *(Cells(names, buckets) for names in by)]
        self.from_buckets = cluster_by is not None
        self.groups = Groups(keys, len(losses) * (1 + weighted), False) if keys else None
        self.partials = 3 * len(losses)
        self.predictions = 2
        self._lock = threading.Lock()
        self.wins = np.zeros((len(losses), 3), np.int64)
        """Rows where the first prediction has the smaller loss, the same, the larger."""

    def bucket_sums(self, grouping: int) -> dict[Any, list[BucketSums]]:
        """Return the sums of each loss for each group of a grouping; for the key None those of all rows, grouping 0."""
        assert self.groups is not None
        count, unit = len(self.losses), 1 << BIAS
        found: dict[Any, list[list[tuple[int, float, float, int]]]] = {}
        names = list(self.groups.keys[grouping].keys) if grouping else [None]
        for key, _, moments in self.groups.found(grouping, [""] * (count * (1 + self.weighted))):
            group, bucket = key if grouping else (0, key)
            rows = found.setdefault(names[group], [[] for _ in range(count)])
            for k, of_loss in enumerate(rows):
                m = moments[k]
                weight = moments[count + k].sums[0] / unit if self.weighted else float(m.finite)
                of_loss.append((bucket, m.sums[0] / unit, weight, m.finite))
        return {key: [BucketSums.of(of_loss) for of_loss in rows] for key, rows in found.items()}

    def _evaluate_together(self, rows: Any, first: int, result: Any) -> int:
        """Add both losses of some rows, and their difference, to the result."""
        if rows.weight is not None:
            return 0
        done, kept, ranks = self.lane.run_pairs(rows.preds, rows.target, result.partials, keeps=bool(self.groups))
        for each in rows.preds:
            self._look(each[:done], self.lane.losses)
        if self.groups and done:
            index = None if rows.index is None else rows.index[:done]
            for k, values in zip(self.lane.losses, kept, strict=True):
                self.groups.add(k, values[:done], None, result.codes, places(first, values[:done], index))
        with self._lock:
            self.wins[list(self.lane.losses)] += ranks
        return int(done)

    def _evaluate(self, batch: Batch, rows: Any, first: int, k: int, result: Any) -> None:
        """Add both losses of some rows, and their difference, to the result."""
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
        if self.groups:
            at = places(first, difference, index)
            self.groups.add(k, difference if weight is None else difference * weight, None, result.codes, at)
            if weight is not None:
                self.groups.add(len(self.losses) + k, weight, None, result.codes, at)
        smaller, larger = np.count_nonzero(difference < 0), np.count_nonzero(difference > 0)
        with self._lock:
            self.wins[k] += (smaller, len(difference) - smaller - larger, larger)
