"""Exact statistics by group of one thread."""

from typing import Any

import numpy as np

from ..accumulate import HIGHEST, Moments, from_ordered, integer
from ..columns import InputError
from ..fixed_point import BIAS, DIGITS

__all__ = ["Counts", "Tables"]

WEIGHTED = 20_000
"""Largest number of groups of weighted rows, which take 7 kB a loss and thread."""


def _grown(a: Any, size: int, fill: Any = 0) -> Any:
    """Return the array, or a larger copy of at least `size` rows whose new rows are filled."""
    if len(a) >= size:
        return a
    new = np.full((max(size, 2 * len(a), 64), *a.shape[1:]), fill, a.dtype)
    new[: len(a)] = a
    return new


class Tables:
    """Exact statistics of one loss by group, of one thread."""

    def __init__(self, weighted: bool) -> None:
        self.weighted = weighted
        self.levels: dict[int, Any] = {}
        self.rows = 0
        self.slots = np.zeros(0, np.int32)  # code + 1 where a group has digits of its own
        self.digits = np.zeros((0, 4 if weighted else 2, DIGITS), np.int64)
        self.counts = np.zeros((0, 4), np.int64)
        self.extremes = np.zeros((0, 2), np.int64)
        self.used = 0
        self.other = np.zeros((0, 2), np.int64)
        """Rows by group that no loss took and that propagate as NaN, and rows ignored by their label."""
        self._rest = [(np.empty(0), np.empty(0, np.int32)) for _ in range(2)]

    def add(self, values: Any, codes: Any, weights: Any, groups: int) -> None:
        """Add losses (float64) with the codes of their groups."""
        if self.weighted:
            self._add_any(values, weights, codes, groups)
            return
        from . import kernels

        self.rows += len(values)
        if self.rows > kernels.SWEEP:
            for table in self.levels.values():
                kernels.carry(table)
            self.rows = len(values)
        if len(self._rest[0][0]) < len(values):
            self._rest = [(np.empty(len(values)), np.empty(len(values), np.int32)) for _ in range(2)]
        level = 0
        while len(values):
            rest, rest_codes = self._rest[0]
            self._rest.reverse()
            top = kernels.TOP + kernels.SPAN * level
            left = kernels.add(values, codes, self._table(level, groups), top, rest, rest_codes)
            values, codes = rest[:left], rest_codes[:left]
            if left:
                # Beyond these levels the exponents of squares and of their rounding errors leave those of doubles.
                exponents = np.frexp(values)[1]
                levels = -((kernels.TOP - exponents) // kernels.SPAN)
                far = ~np.isfinite(values) | (levels < -6) | (levels > 7)
                if far.any():
                    self._add_any(values[far], values[:0], codes[far], groups)
                    values, codes, levels = values[~far], codes[~far], levels[~far]
                level = int(levels[0]) if len(values) else 0

    def _table(self, level: int, groups: int) -> Any:
        """Return the words of a level; rows begin on cache lines."""
        from .kernels import HIGH, LOW, WORDS

        old = self.levels.get(level)
        if old is None or len(old) < groups:
            size = max(groups, 64 if old is None else 2 * len(old))
            memory = np.zeros(size * WORDS + WORDS, np.int64)
            lead = -memory.ctypes.data % (8 * WORDS) // 8
            new = memory[lead : lead + size * WORDS].reshape(-1, WORDS)
            new.view(np.float64)[:, LOW], new.view(np.float64)[:, HIGH] = np.inf, -np.inf
            if old is not None:
                new[: len(old)] = old
            self.levels[level] = new
        return self.levels[level]

    def _add_any(self, values: Any, weights: Any, codes: Any, groups: int) -> None:
        """Add losses of any size, or with weights, to digits of groups: as the ungrouped sums are kept."""
        from . import kernels

        order = np.argsort(codes, kind="stable")
        found, starts = np.unique(codes[order], return_index=True)
        self.slots = _grown(self.slots, groups)
        for code in found[self.slots[found] == 0]:
            self.used += 1
            self.slots[code] = self.used
        if self.used > WEIGHTED:
            what = "groups of weighted rows" if self.weighted else "groups whose losses are extreme"
            raise InputError(f"by finds more than {WEIGHTED:,} {what}; expected at most as many")
        new = len(self.extremes)
        self.digits, self.counts, self.extremes = (
            _grown(a, self.used) for a in (self.digits, self.counts, self.extremes)
        )
        self.extremes[new:] = HIGHEST, -HIGHEST
        ends = np.append(starts, len(codes))
        slots = self.slots[found] - 1
        kernels.add_any(values, weights, order, ends, slots, self.digits, self.counts, self.extremes)

    def count(self, codes: Any, column: int, groups: int) -> None:
        """Count rows that propagate as NaN (column 0) or were ignored (column 1)."""
        self.other = _grown(self.other, groups)
        self.other[:, column] += np.bincount(codes, minlength=len(self.other))

    def moments(self, code: int, figure: str = "") -> Moments:
        """Return the state of one group as Python integers."""
        from . import kernels

        sums = [0] * (4 if self.weighted else 2)
        count, low, high = 0, np.inf, -np.inf
        for level, table in self.levels.items():
            if code < len(table) and table[code, kernels.COUNT]:
                row, top = table[code].tolist(), kernels.TOP + kernels.SPAN * level
                count += row[kernels.COUNT]
                ends = table[code].view(np.float64)
                low, high = min(low, float(ends[kernels.LOW])), max(high, float(ends[kernels.HIGH]))
                for j, words in enumerate((kernels.SUMS, kernels.SQUARES)):
                    first = BIAS + (j + 1) * top
                    sums[j] += sum(row[w] << (first - kernels.SLICE * k) for k, w in enumerate(words))
        nan = above = below = 0
        if code < len(self.slots) and self.slots[code]:
            slot = self.slots[code] - 1
            finite, nan, above, below = (int(c) for c in self.counts[slot])
            if finite:
                least, most = from_ordered(self.extremes[slot])
                low, high, count = min(low, least), max(high, most), count + finite
            for j, row in enumerate(self.digits[slot]):
                sums[j] += integer(row)
        unknown, ignored = self.other[code].tolist() if code < len(self.other) else (0, 0)
        return Moments(count, nan + unknown, above, below, ignored, low + 0.0, high + 0.0, tuple(sums), figure)


class Counts:
    """Rows left out, rows with a null and rows with a NaN or infinity, by group, of one thread."""

    def __init__(self) -> None:
        self.table = np.zeros((0, 3), np.int64)

    def add(self, codes: Any, column: int, groups: int) -> None:
        """Count rows in a column: 0 left out, 1 with a null, 2 with a NaN or infinity."""
        self.table = _grown(self.table, groups)
        self.table[:, column] += np.bincount(codes, minlength=len(self.table))
