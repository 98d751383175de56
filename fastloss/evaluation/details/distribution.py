"""Distribution of a loss or column: values while they are few, then counts on a fixed lattice of cells."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..accumulate import HIGHEST, from_ordered
from ..fixed_point import BIAS

__all__ = ["EXACT", "MOST_BINS", "Distribution", "Histogram", "Tally", "long", "packed", "ratio", "short", "unpacked"]

EXACT = 1 << 17
"""Most values that are kept as they are (1 MB a loss); of more, cells are counted."""

MOST_BINS = 10_000


class Histogram(NamedTuple):
    """Counts of values between edges: a bin holds its lower edge, and the last bin its upper edge too."""

    edges: Any
    """Edges (bins + 1), float64."""
    counts: Any
    """Number of values in each bin, int64."""
    weights: Any = None
    """Sum of weights in each bin, float64; None without weights."""


class Distribution:
    """Mergeable distribution of finite values: the same for any order and any split of the rows.

    Up to 131,072 values are kept, and quantiles and histograms are those of NumPy. Of more, each is counted in its cell
    of a fixed lattice, whose middle is at most 1/1024 of the value away. Counts are exact, and smallest and largest
    value are kept.

    Attributes
    ----------
    count : int
        Number of values.
    low, high : float
        Smallest and largest value; NaN without values.
    exact : bool
        Whether all values are kept.
    """

    def __init__(
        self,
        values: Any,
        counts: Any = None,
        weights: Any = None,
        ends: tuple[float, float] | None = None,
    ) -> None:
        # Of kept values: sorted float64, with float64 weights. Of cells: sorted int64, with counts, and weights as
        # integers in units of 2**-BIAS.
        self._values, self._counts, self._weights = values, counts, weights
        self.exact = counts is None
        self.count = len(values) if counts is None else int(counts.sum())
        if ends is None:
            ends = (float(values[0]), float(values[-1])) if len(values) else (float("nan"), float("nan"))
        self.low, self.high = ends

    @classmethod
    def of(cls, values: Any, weights: Any = None) -> "Distribution":
        """Return the distribution of some finite values, with weights unless they are None."""
        order = np.lexsort((weights, values)) if weights is not None else None
        # Adding 0.0 turns -0.0 into 0.0.
        kept = (np.sort(values) if order is None else values[order]) + 0.0
        found = cls(kept, weights=None if order is None else weights[order])
        return found if len(kept) <= EXACT else found.coarse()

    def coarse(self) -> "Distribution":
        """Return the distribution as counts of cells."""
        if not self.exact or not self.count:
            return self
        tally = Tally(self._weights is not None)
        tally.flush()
        tally.add(self._values, self._weights)
        return tally.distribution()

    def merge(self, other: "Distribution") -> "Distribution":
        """Return the distribution of these values and others."""
        if not (self.count and other.count):
            return self if self.count else other
        weighted = self._weights is not None
        if self.exact and other.exact and self.count + other.count <= EXACT:
            values = np.concatenate([self._values, other._values])
            return Distribution.of(values, np.concatenate([self._weights, other._weights]) if weighted else None)
        a, b = self.coarse(), other.coarse()
        cells, places = np.unique(np.concatenate([a._values, b._values]), return_inverse=True)
        counts = np.zeros(len(cells), np.int64)
        np.add.at(counts, places, np.concatenate([a._counts, b._counts]))
        sums = None
        if weighted:
            sums = [0] * len(cells)
            for at, w in zip(places.tolist(), [*a._weights, *b._weights], strict=True):
                sums[at] += w
        return Distribution(cells, counts, sums, (min(a.low, b.low), max(a.high, b.high)))

    @property
    def weighted(self) -> bool:
        """Whether values have weights."""
        return self._weights is not None

    def quantile(self, q: float | Sequence[float]) -> Any:
        """Return quantiles (float, or an array for a sequence of q); NaN without values.

        Between two values they are interpolated, as by `numpy.quantile`. With weights, a quantile is the smallest value
        up to which at least a share q of the weight lies (method "inverted_cdf" of NumPy).
        """
        shares = np.atleast_1d(np.asarray(q, np.float64))
        found = np.array([self._quantile(s) for s in shares.tolist()])
        return found if np.ndim(q) else float(found[0])

    def _quantile(self, share: float) -> float:
        if not self.count:
            return float("nan")
        if self._weights is not None:
            running = self._running_weights()
            wanted = share * running[-1]
            at = int(np.searchsorted(running, wanted, side="left" if wanted else "right"))
            return float(self._middles()[min(at, len(running) - 1)])
        if share in (0.0, 1.0):
            return float(self.high if share else self.low)
        if self.exact:
            with np.errstate(over="ignore", invalid="ignore"):
                return float(np.quantile(self._values, share))
        position = share * (self.count - 1)
        first = int(position)
        upto = np.cumsum(self._counts)
        middles = self._middles()
        low, high = middles[np.searchsorted(upto, [first, min(first + 1, self.count - 1)], side="right")].tolist()
        part = position - first
        return float((1.0 - part) * low + part * high if high > low else low)

    def _running_weights(self) -> Any:
        if self.exact:
            return np.cumsum(self._weights)
        total, running = 0, []
        for w in self._weights:
            total += w
            running.append(total)
        # Shares of the total: sums themselves may be larger than a double.
        return np.array([r / total for r in running]) if total else np.zeros(len(running))

    def _middles(self) -> Any:
        """Return a value for each entry: itself, or the middle of its cell, within the smallest and largest."""
        if self.exact:
            return self._values
        lower, upper = edges_of(self._values), edges_of(self._values + 1, last=True)
        return np.clip(np.where(self._values == 0, 0.0, lower + 0.5 * (upper - lower)), self.low, self.high)

    def histogram(self, bins: int = 50) -> Histogram:
        """Return counts in at most this many bins.

        Bins have equal widths between the smallest and largest value. Values that lie further beyond the 1% and 99%
        quantiles than these lie apart go to the first and last bin, which are then wider. Of counted cells, edges move
        to the nearest edge of the lattice, so that no cell is divided and counts are exact.
        """
        if not self.count:
            return Histogram(np.zeros(0), np.zeros(0, np.int64), np.zeros(0) if self.weighted else None)
        low, high = self._fences()
        share = np.arange(bins + 1) / bins
        edges = low * (1.0 - share) + high * share
        if not self.exact:
            edges = edges_of(nearest(edges))
        inner = np.unique(edges[1:-1])
        inner = inner[(inner > self.low) & (inner <= self.high)]
        edges = np.concatenate([[self.low], inner, [self.high]])
        found = np.searchsorted(inner, self._values if self.exact else edges_of(self._values), side="right")
        counts = np.bincount(found, self._counts, minlength=len(inner) + 1).astype(np.int64)
        if self._weights is None:
            return Histogram(edges, counts)
        sums = [0] * len(counts)
        for at, w in zip(found.tolist(), self._weights, strict=True):
            sums[at] += w
        return Histogram(edges, counts, np.array([ratio(s) if not self.exact else float(s) for s in sums]))

    def _fences(self) -> tuple[float, float]:
        """Return the range of bins of equal width."""
        first, last = self._quantile(0.01), self._quantile(0.99)
        apart = last - first
        if not apart > 0.0 or not np.isfinite(apart):
            return self.low, self.high
        return max(self.low, first - apart), min(self.high, last + apart)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON-compatible values; arrays as compressed bytes in base 64."""
        state = {"ends": [self.low.hex(), self.high.hex()], "values": packed(self._values)}
        if not self.exact:
            state["counts"] = packed(self._counts)
        if self.weighted:
            exact = self.exact
            state["weights"] = packed(self._weights) if exact else [short(w) for w in self._weights]
        return state

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "Distribution":
        """Return the distribution that `to_dict` wrote."""
        exact = "counts" not in state
        weights = state.get("weights")
        if weights is not None:
            weights = unpacked(weights, np.float64) if exact else [long(w) for w in weights]
        low, high = map(float.fromhex, state["ends"])
        values = unpacked(state["values"], np.float64 if exact else np.int64)
        return cls(values, None if exact else unpacked(state["counts"], np.int64), weights, (low, high))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Distribution) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<distribution of {self.count:,} values from {self.low:.6g} to {self.high:.6g}>"


class Tally:
    """Values of one loss or column as one thread meets them."""

    def __init__(self, weighted: bool) -> None:
        self.weighted = weighted
        self.kept: list[tuple[Any, Any]] | None = []
        self.rows = 0
        # Those of counted cells, made when the first value is counted.
        self.pages: Any = None
        self.table: Any = None
        self.used: Any = None
        self.ends: Any = None
        self.sums: Any = None

    def add(self, values: Any, weights: Any = None) -> None:
        """Add float64 values, with weights unless they are None; those that are not finite are left out."""
        if self.kept is not None:
            good = np.isfinite(values)
            weights = None if weights is None else weights[good]
            self.kept.append((values[good], weights))
            self.rows += len(self.kept[-1][0])
            if self.rows > EXACT:
                self.flush()
            return
        from .kernels import count

        codes = np.empty(0 if weights is None else len(values), np.int32)
        start = 0
        while True:
            part = codes[start:]
            start += count(values[start:], self.pages, self.table, self.used, self.ends, part)
            if start == len(values):
                break
            self.table = np.concatenate([self.table, np.zeros_like(self.table)])
        if weights is not None:
            good = codes >= 0
            if not good.all():
                codes, weights = codes[good], weights[good]
            self.sums.add(weights, codes, None, self.table.size)

    def flush(self) -> None:
        """Count the values kept so far, and all from now on, by cell."""
        from ..groups.tables import Tables
        from .kernels import PAGE, PAGES

        kept, self.kept = self.kept or [], None
        self.pages = np.full(PAGES, -1, np.int32)
        self.table = np.zeros((8, PAGE), np.int64)
        self.used = np.zeros(1, np.int64)
        self.ends = np.array([HIGHEST, -HIGHEST], np.int64)
        self.sums = Tables(False)
        for values, weights in kept:
            self.add(values, weights)

    def distribution(self) -> Distribution:
        """Return the distribution of the values so far."""
        if self.kept is not None:
            kept = self.kept or [(np.zeros(0), np.zeros(0))]
            together = np.concatenate([w for _, w in kept]) if self.weighted else None
            return Distribution.of(np.concatenate([v for v, _ in kept]), together)
        from .kernels import PAGE, PAGES

        rows, within = np.nonzero(self.table)
        page_of = np.zeros(len(self.table), np.int64)
        known = np.flatnonzero(self.pages >= 0)
        page_of[self.pages[known]] = known - PAGES // 2
        cells = page_of[rows] * PAGE + within
        order = np.argsort(cells)
        counts = self.table[rows, within][order]
        weights = None
        if self.weighted:
            weights = [self.sums.moments(int(at)).sums[0] for at in (rows * PAGE + within)[order]]
        low, high = from_ordered(self.ends) if len(counts) else (float("nan"), float("nan"))
        return Distribution(cells[order], counts, weights, (low, high))


def edges_of(cells: Any, last: bool = False) -> Any:
    """Return the smallest double of each cell; with `last`, the largest of the cell before it."""
    from .kernels import SHIFT

    keys = (cells << SHIFT) - last
    return (keys ^ ((keys >> 63) & HIGHEST)).view(np.float64) + 0.0


def nearest(values: Any) -> Any:
    """Return the cells whose lower edges are nearest to values."""
    from .kernels import SHIFT

    bits = (values + 0.0).view(np.int64)
    return ((bits ^ ((bits >> 63) & HIGHEST)) + (1 << (SHIFT - 1))) >> SHIFT


def packed(array: Any) -> str:
    """Return an array as text: its bytes, little-endian, compressed, in base 64."""
    return base64.b64encode(zlib.compress(array.astype(array.dtype.newbyteorder("<")).tobytes(), 6)).decode()


def unpacked(text: str, dtype: Any) -> Any:
    """Return the array that `packed` wrote."""
    found = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.dtype(dtype).newbyteorder("<"))
    return found.astype(dtype)


def short(total: int) -> str:
    """Return an integer as text: hexadecimal, with the number of binary zeros at its end after an @."""
    zeros = (total & -total).bit_length() - 1 if total else 0
    return f"{total >> zeros:x}@{zeros}"


def long(text: str) -> int:
    """Return the integer that `short` wrote."""
    digits, zeros = text.split("@")
    return int(digits, 16) << int(zeros)


def ratio(total: int) -> float:
    """Return a sum of weights, in units of 2**-BIAS, rounded to float64."""
    try:
        return total / (1 << BIAS)
    except OverflowError:
        return float("inf")
