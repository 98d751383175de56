"""Calibration of predicted probabilities: reliability tables, calibration errors, decompositions of the Brier score."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from ..accumulate import Partial, integer
from ..fixed_point import BIAS
from .distribution import EXACT, long, packed, ratio, short, unpacked

__all__ = ["Bin", "Calibration", "CalibrationTally"]

UNIT = 1 << 60
"""Units of the exact sums of probabilities."""

LEVEL = 0.95
"""Level of the intervals of observed frequencies."""


class Bin(NamedTuple):
    """Rows of similar predicted probability."""

    lower: float
    """Smallest probability that the bin may hold; of equal width, the bin begins above it."""
    upper: float
    rows: int
    predicted: float
    """Mean predicted probability; NaN without rows."""
    observed: float
    """Share of positive labels."""
    low: float
    """Ends of the 95% interval of the observed share (Wilson, 1927)."""
    high: float


class Cells(NamedTuple):
    """Rows by probability, in its order: a cell of the grid, or one probability. Sums are float64."""

    lower: Any
    upper: Any
    count: Any
    weight: Any
    squares: Any
    """Sums of squared weights."""
    positive: Any
    predicted: Any
    """Sums of weight times probability."""


class Calibration:
    """Agreement of predicted probabilities with labels, mergeable and the same for any split of the rows.

    Up to 131,072 rows are kept. Of more, sums are kept for 3,768 fixed cells of the unit interval: 64 between powers of
    two, towards 0 and towards 1, divided at multiples of 1/60. Bins of equal width, their errors and the Brier score
    have no error from that. Bins of equal mass consist of whole cells, and the isotonic regression takes the
    probabilities of a cell as equal, so that it finds no miscalibration within a cell.

    Attributes
    ----------
    count : int
        Number of rows.
    exact : bool
        Whether all rows are kept.
    bins : int
        Number of bins of the calibration errors.
    of : str
        "positive class", or "top label" for rows of scores: the largest probability, and whether its class is right.
    """

    def __init__(self, bins: int, of: str, state: Mapping[str, Any]) -> None:
        # Either rows (p, y, and w with weights) sorted, or cells of the grid (cells, counts, positive, sums and score;
        # weighted: lists of integers in units of 2**-BIAS for weights, squares, positive and sums).
        self.bins, self.of, self._state = bins, of, dict(state)
        self.exact = "p" in state
        self.count = len(state["p"]) if self.exact else int(state["counts"].sum())
        self._made: dict[str, Any] = {}

    @classmethod
    def of_rows(cls, bins: int, of: str, p: Any, y: Any, w: Any = None) -> "Calibration":
        """Return the calibration of some rows: probabilities, labels (whether positive), weights."""
        order = np.lexsort((y, p)) if w is None else np.lexsort((w, y, p))
        rows = {"p": p[order], "y": y[order], **({} if w is None else {"w": w[order]})}
        found = cls(bins, of, rows)
        return found if len(p) <= EXACT else found.coarse()

    @property
    def weighted(self) -> bool:
        """Whether rows have weights."""
        return "w" in self._state or "weights" in self._state

    def coarse(self) -> "Calibration":
        """Return the calibration as sums of cells."""
        if not self.exact or not self.count:
            return self
        tally = CalibrationTally(self.bins, self.of, self.weighted)
        tally.flush()
        tally.add(self._state["p"], self._state["y"], self._state.get("w"))
        return tally.calibration()

    def merge(self, other: "Calibration") -> "Calibration":
        """Return the calibration of these rows and others."""
        if not (self.count and other.count):
            return self if self.count else other
        if self.exact and other.exact and self.count + other.count <= EXACT:
            names = ("p", "y", "w") if self.weighted else ("p", "y")
            parts = [np.concatenate([self._state[n], other._state[n]]) for n in names]
            return Calibration.of_rows(self.bins, self.of, *parts)
        a, b = self.coarse()._state, other.coarse()._state
        cells, places = np.unique(np.concatenate([a["cells"], b["cells"]]), return_inverse=True)
        merged: dict[str, Any] = {"cells": cells, "score": a["score"] + b["score"]}
        for name in a.keys() - merged.keys():
            if isinstance(a[name], list):
                merged[name] = [0] * len(cells)
                for at, value in zip(places.tolist(), [*a[name], *b[name]], strict=True):
                    merged[name][at] += value
            else:
                merged[name] = np.zeros(len(cells), np.int64)
                np.add.at(merged[name], places, np.concatenate([a[name], b[name]]))
        return Calibration(self.bins, self.of, merged)

    @property
    def _cells(self) -> Cells:
        found: Cells | None = self._made.get("cells")
        if found is None:
            found = self._made["cells"] = self._of_rows() if self.exact else self._of_grid()
        return found

    def _of_rows(self) -> Cells:
        p, y, w = self._state["p"], self._state["y"], self._state.get("w")
        values, places, count = np.unique(p, return_inverse=True, return_counts=True)

        def sums(terms: Any) -> Any:
            return np.bincount(places, terms, minlength=len(values))

        weights = np.ones(len(p)) if w is None else w
        return Cells(values, values, count, sums(weights), sums(weights**2), sums(weights * y), sums(weights * p))

    def _of_grid(self) -> Cells:
        from .grid import GRID

        cells, count = self._state["cells"], self._state["counts"]
        lower, upper = GRID.edges[cells], GRID.edges[cells + 1]
        if self.weighted:
            names = ("weights", "squares", "positive", "sums")
            weight, squares, positive, predicted = (np.array([ratio(v) for v in self._state[n]]) for n in names)
            return Cells(lower, upper, count, weight, squares, positive, predicted)
        predicted = np.array([v / UNIT for v in self._state["sums"]])
        weight = count.astype(np.float64)
        return Cells(lower, upper, count, weight, weight, self._state["positive"].astype(np.float64), predicted)

    def table(self, strategy: str = "width", bins: int | None = None) -> list[Bin]:
        """Return the bins of a reliability diagram, of equal "width" or of equal "mass" (number of rows).

        Of equal width, bin k holds probabilities above k / bins, up to (k + 1) / bins. The edges of equal mass are
        quantiles of the probabilities.
        """
        bins = bins or self.bins
        cells = self._cells
        places = self._places(strategy, bins)
        found = []
        for k in range(bins):
            rows = np.flatnonzero(places == k)
            count, weight = int(cells.count[rows].sum()), float(cells.weight[rows].sum())
            if strategy == "width":
                ends = k / bins, (k + 1) / bins
            elif count:
                ends = float(cells.lower[rows[0]]), float(cells.upper[rows[-1]])
            else:
                continue
            predicted, observed = math.nan, math.nan
            low = high = math.nan
            if weight:
                predicted, observed = (float(a[rows].sum()) / weight for a in (cells.predicted, cells.positive))
                low, high = wilson(observed, weight**2 / float(cells.squares[rows].sum()), LEVEL)
            found.append(Bin(*ends, count, predicted, observed, low, high))
        return found

    def _places(self, strategy: str, bins: int) -> Any:
        """Return the bin of each cell."""
        from .grid import WIDTHS, parts

        if strategy == "width":
            if bins not in WIDTHS:
                raise ValueError(f"bins is {bins!r}; expected one of {', '.join(map(str, WIDTHS))}")
            return np.searchsorted(parts(bins), self._cells.upper)
        if strategy != "mass":
            raise ValueError(f"strategy is {strategy!r}; expected 'width' or 'mass'")
        before = np.cumsum(self._cells.count) - self._cells.count
        # An edge lies at the quantile k / bins, between two rows: above it are cells that begin after it.
        return np.minimum(-(-bins * before // max(1, self.count - 1)) - 1, bins - 1).clip(0)

    def _gaps(self, strategy: str) -> tuple[Any, Any, Any]:
        """Return share of the weight, predicted less observed, and variance of the observed share, by bin."""
        cells, places = self._cells, self._places(strategy, self.bins)
        weight, squares, positive, predicted = (
            np.bincount(places, a, minlength=self.bins)
            for a in (cells.weight, cells.squares, cells.positive, cells.predicted)
        )
        used = weight > 0
        weight, squares, positive, predicted = (a[used] for a in (weight, squares, positive, predicted))
        rows = weight**2 / squares
        observed = positive / weight
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.where(rows > 1, observed * (1 - observed) / (rows - 1), 0.0)
        return weight / weight.sum(), predicted / weight - observed, variance

    def error(self, strategy: str = "width", norm: str = "mean", debiased: bool = False) -> float:
        """Return the calibration error over the bins.

        `norm` is "mean" (ECE, expected calibration error), "rms" or "max". Noise of the observed shares makes errors
        too large: `debiased` takes off what it adds. For "rms" that is the variance of each bin's share; for "mean" the
        expected absolute value of a normal deviate of that variance around the gap, less the gap itself, by a formula
        in place of sampling (Kumar, Liang and Ma, 2019, Verified uncertainty calibration).
        """
        if not self.count:
            return math.nan
        shares, gaps, variance = self._gaps(strategy)
        if norm == "rms":
            square = float(shares @ (gaps**2 - variance * debiased))
            return math.sqrt(max(0.0, square))
        sizes = np.abs(gaps)
        if norm == "max":
            return float(sizes.max())
        plain = float(shares @ sizes)
        if not debiased:
            return plain
        noisy = np.array([folded(m, math.sqrt(v)) for m, v in zip(sizes.tolist(), variance.tolist(), strict=True)])
        return max(0.0, 2.0 * plain - float(shares @ noisy))

    @property
    def positive(self) -> float:
        """Share of positive labels."""
        return float(self._cells.positive.sum() / self._cells.weight.sum()) if self.count else math.nan

    @property
    def predicted(self) -> float:
        """Mean predicted probability."""
        return float(self._cells.predicted.sum() / self._cells.weight.sum()) if self.count else math.nan

    @property
    def brier(self) -> float:
        """Brier score: mean of the squared difference of probability and label."""
        if not self.count:
            return math.nan
        if not self.exact:
            return ratio(self._state["score"]) / float(self._cells.weight.sum())
        p, y, w = self._state["p"], self._state["y"], self._state.get("w")
        scores = (p - y) ** 2
        return math.fsum((scores if w is None else w * scores).tolist()) / float(self._cells.weight.sum())

    def corp(self) -> dict[str, float]:
        """Return the CORP decomposition of the Brier score: miscalibration - discrimination + uncertainty.

        The recalibrated probabilities are those of an isotonic regression (Dimitriadis, Gneiting and Jordan, 2021).
        """
        if not self.count:
            return dict.fromkeys(("miscalibration", "discrimination", "uncertainty"), math.nan)
        total, base = float(self._cells.weight.sum()), self.positive
        positive, fitted = self._cells.positive, self._fitted
        score = float((positive * (1 - fitted) ** 2 + (self._cells.weight - positive) * fitted**2).sum()) / total
        uncertainty = base * (1 - base)
        return {
            "miscalibration": max(0.0, self.brier - score),
            "discrimination": max(0.0, uncertainty - score),
            "uncertainty": uncertainty,
        }

    def murphy(self, strategy: str = "width") -> dict[str, float]:
        """Return Murphy's decomposition of the Brier score over the bins: reliability - resolution + uncertainty.

        `within` is the rest of the score: variance within bins less twice the covariance there (Stephenson et al.,
        2008). It is 0 where all probabilities of a bin are equal (Murphy, 1973).
        """
        names = ("reliability", "resolution", "uncertainty", "within")
        if not self.count:
            return dict.fromkeys(names, math.nan)
        cells, places = self._cells, self._places(strategy, self.bins)
        weight, positive, predicted = (
            np.bincount(places, a, minlength=self.bins) for a in (cells.weight, cells.positive, cells.predicted)
        )
        used = weight > 0
        shares = weight[used] / weight.sum()
        observed, mean = positive[used] / weight[used], predicted[used] / weight[used]
        base = self.positive
        reliability = float(shares @ (mean - observed) ** 2)
        resolution = float(shares @ (observed - base) ** 2)
        uncertainty = base * (1 - base)
        within = self.brier - reliability + resolution - uncertainty
        return dict(zip(names, (reliability, resolution, uncertainty, within), strict=True))

    @property
    def _fitted(self) -> Any:
        """Recalibrated probability of each cell, by isotonic regression."""
        found = self._made.get("fitted")
        if found is None:
            found = self._made["fitted"] = isotonic(self._cells.positive, self._cells.weight)
        return found

    def curve(self) -> tuple[Any, Any]:
        """Return probabilities (mean of each cell) and what the isotonic regression makes of them."""
        used = self._cells.weight > 0
        return self._cells.predicted[used] / self._cells.weight[used], self._fitted[used]

    def figures(self) -> dict[str, float]:
        """Return all figures of the calibration, by name."""
        return {
            "predicted": self.predicted,
            "observed": self.positive,
            "ece": self.error(),
            "ece_debiased": self.error(debiased=True),
            "ece_equal_mass": self.error("mass"),
            "ece_equal_mass_debiased": self.error("mass", debiased=True),
            "rms": self.error(norm="rms"),
            "rms_debiased": self.error(norm="rms", debiased=True),
            "max": self.error(norm="max"),
            "brier": self.brier,
            **self.corp(),
            **{f"murphy_{name}": value for name, value in self.murphy().items() if name != "uncertainty"},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return figures, bins and the exact state as JSON-compatible values; a figure that is not finite is None."""
        state: dict[str, Any] = {"bins": self.bins, "of": self.of, "count": self.count}
        state["figures"] = {name: plain(value) for name, value in self.figures().items()}
        for strategy in ("width", "mass"):
            state[strategy] = [[plain(v) for v in each] for each in self.table(strategy)]
        exact: dict[str, Any] = {}
        for name, value in self._state.items():
            listed = isinstance(value, list)
            exact[name] = [short(v) for v in value] if listed else short(value) if name == "score" else packed(value)
        return {**state, "exact": exact}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Calibration":
        """Return the calibration that `to_dict` wrote."""
        kinds = {"p": np.float64, "y": np.bool_, "w": np.float64}
        exact: dict[str, Any] = {}
        for name, value in state["exact"].items():
            if isinstance(value, list):
                exact[name] = [long(v) for v in value]
            else:
                exact[name] = long(value) if name == "score" else unpacked(value, kinds.get(name, np.int64))
        return cls(state["bins"], state["of"], exact)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Calibration) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        found = self.figures()
        return (
            f"<calibration of {self.count:,} rows, {self.of}: ece {found['ece']:.4g}, brier {found['brier']:.4g} = "
            f"{found['miscalibration']:.4g} - {found['discrimination']:.4g} + {found['uncertainty']:.4g}>"
        )


class CalibrationTally:
    """Probabilities and labels as one thread meets them."""

    def __init__(self, bins: int, of: str, weighted: bool) -> None:
        self.bins, self.of, self.weighted = bins, of, weighted
        self.kept: list[tuple[Any, Any, Any]] | None = []
        self.rows = 0
        # Those of the grid, made when the first cell is counted.
        self.cells: Any = None
        self.plain: Any = None
        """Score without weights, in words of units 2**-30 and 2**-60."""
        self.score: Any = None
        self.sums: list[Any] = []

    def add(self, p: Any, t: Any, weights: Any = None) -> None:
        """Add probabilities (float64, 0 to 1), labels, positive where they are 1, and weights unless they are None."""
        if self.kept is not None:
            self.kept.append((p + 0.0, t > 0, None if weights is None else weights.copy()))
            self.rows += len(p)
            if self.rows > EXACT:
                self.flush()
            return
        from .grid import GRID
        from .kernels import bin_probabilities

        t = np.asarray(t, np.float64)
        codes = np.empty(0 if weights is None else len(p), np.int32)
        bin_probabilities(p, t, GRID.first, GRID.split, self.cells, self.plain, codes)
        if weights is None:
            return
        positive = t > 0
        self.score.add(weights * (p - positive) ** 2, None)
        terms = ((weights, codes), (weights[positive], codes[positive]), (weights * p, codes))
        for table, (values, places) in zip(self.sums, terms, strict=True):
            table.add(values, places, None, GRID.cells)

    def flush(self) -> None:
        """Add the rows kept so far, and all from now on, to the cells of the grid."""
        from ..groups.tables import Tables
        from .grid import GRID

        kept, self.kept = self.kept or [], None
        self.cells = np.zeros((GRID.cells, 4), np.int64)
        self.plain = np.zeros(2, np.int64)
        self.score = Partial(False)
        self.sums = [Tables(False) for _ in range(3)]
        for rows in kept:
            self.add(*rows)

    def calibration(self) -> Calibration:
        """Return the calibration of the rows so far."""
        if self.kept is not None:
            kept = self.kept or [(np.zeros(0), np.zeros(0, bool), np.zeros(0))]
            p, y, w = ([each[k] for each in kept] for k in range(3))
            weights = np.concatenate(w) if self.weighted else None
            return Calibration.of_rows(self.bins, self.of, np.concatenate(p), np.concatenate(y), weights)
        cells = np.flatnonzero(self.cells[:, 0])
        found = self.cells[cells]
        state: dict[str, Any] = {"cells": cells, "counts": found[:, 0], "score": integer(self.score.digits[0])}
        if not self.weighted:
            high, low = self.plain.tolist()
            state["score"] = ((high << 30) + low) << (BIAS - 60)
        if self.weighted:
            moments = [[table.moments(int(cell)).sums for cell in cells] for table in self.sums]
            state["weights"], state["squares"] = [s[0] for s in moments[0]], [s[1] for s in moments[0]]
            state["positive"], state["sums"] = ([s[0] for s in each] for each in moments[1:])
        else:
            state["positive"] = found[:, 1]
            state["sums"] = [(high << 30) + low for high, low in found[:, 2:].tolist()]
        return Calibration(self.bins, self.of, state)


def isotonic(positive: Any, weight: Any) -> Any:
    """Return the isotonic regression of positive / weight, by pooling neighbours that violate the order."""
    tops: list[float] = []
    bottoms: list[float] = []
    lengths: list[int] = []
    for top, bottom in zip(positive.tolist(), weight.tolist(), strict=True):
        length = 1
        while tops and tops[-1] * bottom >= top * bottoms[-1]:
            top, bottom, length = top + tops.pop(), bottom + bottoms.pop(), length + lengths.pop()
        tops.append(top)
        bottoms.append(bottom)
        lengths.append(length)
    with np.errstate(invalid="ignore"):
        return np.repeat(np.nan_to_num(np.array(tops) / np.array(bottoms)), lengths)


def folded(mean: float, deviation: float) -> float:
    """Return the expected absolute value of a normal deviate."""
    if not deviation:
        return abs(mean)
    ratio = mean / deviation
    tails = 1.0 - 2.0 * NormalDist().cdf(-ratio)
    return deviation * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * ratio * ratio) + mean * tails


def wilson(share: float, rows: float, level: float) -> tuple[float, float]:
    """Return the score interval of a share of so many independent rows (Wilson, 1927)."""
    if not rows > 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(max(0.0, share * (1 - share)) / rows + z * z / (4 * rows * rows))
    return (0.0 if share <= 0 else max(0.0, middle - half)), (1.0 if share >= 1 else min(1.0, middle + half))


def plain(value: Any) -> Any:
    """Return a number as JSON has it; None where it is not finite."""
    return value if isinstance(value, int) or math.isfinite(value) else None
