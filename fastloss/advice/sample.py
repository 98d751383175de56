"""A sample of rows of a stream: the same rows for any size of batches, without knowing their number."""

from typing import Any

import numpy as np

__all__ = ["Sample"]

MOST = 20_000
"""Rows above which the sample is halved; between half as many and all of them are kept."""


class Sample:
    """One row of each block of 2**level rows, at a place that a hash of the block decides.

    Of two neighbouring blocks one is kept when the level rises, so a row's fate depends on its number alone. A stride
    would do too, but for files with a pattern of rows, such as one line for every hour.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.level = 0
        self.rows = np.empty(0, np.int64)
        self.columns: list[Any] = []

    def add(self, start: int, columns: list[Any]) -> None:
        """Add the sampled rows of a batch that begins at row `start`; all columns have its length."""
        count = len(columns[0])
        here = _places(start, start + count, self.level)
        if not self.columns:
            self.columns = [c[:0] for c in columns]
        self.rows = np.concatenate([self.rows, here])
        self.columns = [
            np.concatenate([kept, new[here - start]]) for kept, new in zip(self.columns, columns, strict=True)
        ]
        while len(self.rows) > self.most:
            self.level += 1
            block = self.rows >> (self.level - 1)
            kept = (block & 1) == _bit(block >> 1, self.level)
            self.rows, self.columns = self.rows[kept], [c[kept] for c in self.columns]


def _bit(block: Any, level: int) -> Any:
    """Return which half of each block is kept: one bit of SplitMix64's mixing of block and level."""
    # Products of arrays wrap around without a warning; np.errstate would take longer than they.
    x = block.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(level * 0x632BE59BD9B4E019 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x >> np.uint64(63)) & np.uint64(1)).astype(np.int64)


def _places(start: int, stop: int, level: int) -> Any:
    """Return the kept rows from start to stop (exclusive), in order."""
    block = np.arange(start >> level, ((stop - 1) >> level) + 1) if stop > start else np.empty(0, np.int64)
    for step in range(level, 0, -1):
        block = 2 * block + _bit(block, step)
    return block[(block >= start) & (block < stop)]
