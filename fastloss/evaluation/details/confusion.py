"""Confusion counts of decisions: of probabilities at thresholds, and of the class with the largest score."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .distribution import long, packed, ratio, short, unpacked

__all__ = ["ARGMAX", "CLASSES", "ClassTally", "Confusion", "Confusions", "DecisionTally"]

ARGMAX = "argmax"
"""Key of the counts of classes, which are decided by the largest score."""

CLASSES = 1000
"""Most classes of confusion counts: 8 MB a thread."""

RATES = ("selection_rate", "accuracy", "precision", "recall", "false_positive_rate", "f1", "mcc")


class Confusion:
    """Counts of rows by class and decision, as scikit-learn's `confusion_matrix` has them.

    Attributes
    ----------
    matrix : array (k, k)
        Rows, or their weights, of each class (first axis) by the class decided (second axis).
    squares : array (k, k)
        Sums of squared weights; the counts without weights.
    """

    def __init__(self, matrix: Any, squares: Any = None) -> None:
        self.matrix = matrix
        self.squares = matrix if squares is None else squares

    @property
    def tn(self) -> Any:
        """True negatives; like the next three, of two classes."""
        return self.matrix[0, 0].item()

    @property
    def fp(self) -> Any:
        """False positives."""
        return self.matrix[0, 1].item()

    @property
    def fn(self) -> Any:
        """False negatives."""
        return self.matrix[1, 0].item()

    @property
    def tp(self) -> Any:
        """True positives."""
        return self.matrix[1, 1].item()

    @property
    def accuracy(self) -> float:
        """Share of right decisions."""
        return share(np.trace(self.matrix), self.matrix.sum())

    @property
    def selection_rate(self) -> float:
        """Share of positive decisions (two classes)."""
        return share(self.matrix[0, 1] + self.matrix[1, 1], self.matrix.sum())

    @property
    def precision(self) -> float:
        """Share of positives among positive decisions; of several classes, the mean over classes. NaN without any."""
        return self._mean(np.diag(self.matrix), self.matrix.sum(axis=0))

    @property
    def recall(self) -> float:
        """Share of positives that are decided so (true positive rate); of several classes, the mean over classes."""
        return self._mean(np.diag(self.matrix), self.matrix.sum(axis=1))

    @property
    def false_positive_rate(self) -> float:
        """Share of negatives that are decided positive (two classes)."""
        return share(self.matrix[0, 1], self.matrix[0].sum())

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; of several classes, the mean over classes."""
        return self._mean(2 * np.diag(self.matrix), self.matrix.sum(axis=0) + self.matrix.sum(axis=1))

    def _mean(self, parts: Any, wholes: Any) -> float:
        """Return the share of the positive class, or the mean of all classes that have rows or decisions."""
        if len(parts) == 2:
            return share(parts[1], wholes[1])
        # As in scikit-learn: a class with neither rows nor decisions does not count, one with either counts as 0.
        seen = (self.matrix.sum(axis=0) + self.matrix.sum(axis=1)) > 0
        if not seen.any():
            return math.nan
        return float(np.mean([share(a, b) if b else 0.0 for a, b in zip(parts[seen], wholes[seen], strict=True)]))

    @property
    def mcc(self) -> float:
        """Matthews' correlation coefficient, of several classes as Gorodkin's R_K; 0 where it is not defined."""
        if self.matrix.dtype.kind == "i":
            matrix = self.matrix.astype(object)
        else:
            matrix = self.matrix / (self.matrix.sum() or 1.0)
        rows, decisions, total = matrix.sum(axis=1), matrix.sum(axis=0), matrix.sum()
        top = np.trace(matrix) * total - rows @ decisions
        square = (total * total - decisions @ decisions) * (total * total - rows @ rows)
        return float(top / math.sqrt(square)) if square > 0 else 0.0

    def figures(self) -> dict[str, float]:
        """Return the figures by name; those of two classes only where there are two."""
        names = RATES if len(self.matrix) == 2 else ("accuracy", "precision", "recall", "f1", "mcc")
        return {name: getattr(self, name) for name in names}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Confusion) and np.array_equal(self.matrix, other.matrix)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if len(self.matrix) == 2:
            return f"<confusion: tp {self.tp:g}, fp {self.fp:g}, tn {self.tn:g}, fn {self.fn:g}>"
        return f"<confusion of {len(self.matrix)} classes: accuracy {self.accuracy:.4g}>"


class Confusions:
    """Mergeable confusion counts: by threshold of two classes, or of the class with the largest score.

    State: `counts` (int64) of rows by how many thresholds they reach and by label, (thresholds + 1, 2), or by class and
    decision, (k, k); with weights also lists of the exact sums of weights and of their squares, flattened.
    """

    def __init__(self, thresholds: tuple[float, ...], counts: Any, sums: Any = None, squares: Any = None) -> None:
        self.thresholds, self.counts, self._sums, self._squares = thresholds, counts, sums, squares

    @property
    def of_classes(self) -> bool:
        """Whether decisions are classes, by the largest score."""
        return not self.thresholds

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    def merge(self, other: "Confusions") -> "Confusions":
        """Return the counts of these rows and others."""
        if not (self.count and other.count):
            return self if self.count else other
        if self.counts.shape != other.counts.shape:
            raise ValueError(f"cannot merge confusion counts of {len(self.counts)} and {len(other.counts)} classes")
        sums, squares = (
            None if a is None else [x + y for x, y in zip(a, b, strict=True)]
            for a, b in ((self._sums, other._sums), (self._squares, other._squares))
        )
        return Confusions(self.thresholds, self.counts + other.counts, sums, squares)

    def tables(self) -> list[Any]:
        """Return the counts; with weights their sums and the sums of their squares, rounded to float64."""
        if self._sums is None:
            return [self.counts]
        both = (self._sums, self._squares)
        return [np.array([ratio(v) for v in each]).reshape(self.counts.shape) for each in both]

    def by_threshold(self) -> dict[Any, Confusion]:
        """Return the counts by threshold; of classes, under "argmax"."""
        tables = self.tables()
        if self.of_classes:
            return {ARGMAX: Confusion(*tables)}
        found = {}
        for k, threshold in enumerate(self.thresholds):
            pairs = [np.stack([t[: k + 1].sum(axis=0), t[k + 1 :].sum(axis=0)], axis=1) for t in tables]
            found[threshold] = Confusion(*pairs)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-compatible values."""
        state = {"thresholds": list(self.thresholds), "shape": list(self.counts.shape), "counts": packed(self.counts)}
        if self._sums is not None:
            state |= {"sums": [short(v) for v in self._sums], "squares": [short(v) for v in self._squares]}
        if not self.of_classes:
            state["matrices"] = [found.matrix.tolist() for found in self.by_threshold().values()]
        return state

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Confusions":
        """Return the counts that `to_dict` wrote."""
        sums, squares = ([long(v) for v in state[n]] if n in state else None for n in ("sums", "squares"))
        counts = unpacked(state["counts"], np.int64).reshape(state["shape"])
        return cls(tuple(state["thresholds"]), counts, sums, squares)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Confusions) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


class DecisionTally:
    """Counts of decisions at thresholds, by group, as one thread meets them."""

    def __init__(self, thresholds: tuple[float, ...], weighted: bool) -> None:
        from ..groups.tables import Tables

        self.thresholds = thresholds
        self.width = 2 * (len(thresholds) + 1)
        self.levels = np.array(thresholds, np.float64)
        self.counts = np.zeros(self.width, np.int64)
        self.sums = Tables(False) if weighted else None

    def add(self, p: Any, t: Any, weights: Any, groups: Any = None, number: int = 1) -> None:
        """Add probabilities and labels, with the codes of their groups unless these are None."""
        from .kernels import confuse

        if len(self.counts) < number * self.width:
            self.counts = np.concatenate([self.counts, np.zeros(2 * number * self.width, np.int64)])
        places = np.empty(0, np.int32) if groups is None else np.ascontiguousarray(groups, np.int32)
        codes = np.empty(0 if weights is None else len(p), np.int32)
        confuse(p, np.asarray(t, np.float64), self.levels, places, self.counts, codes)
        if self.sums is not None:
            self.sums.add(weights, codes, None, number * self.width)

    def confusions(self, group: int = 0) -> Confusions:
        """Return the counts of one group so far."""
        first, shape = group * self.width, (len(self.thresholds) + 1, 2)
        counts = np.zeros(self.width, np.int64)
        part = self.counts[first : first + self.width]
        counts[: len(part)] = part
        sums = squares = None
        if self.sums is not None:
            moments = [self.sums.moments(first + k).sums for k in range(self.width)]
            sums, squares = [m[0] for m in moments], [m[1] for m in moments]
        return Confusions(self.thresholds, counts.reshape(shape), sums, squares)


class ClassTally:
    """Counts of rows by class and by the class of the largest score, as one thread meets them."""

    def __init__(self, weighted: bool) -> None:
        from ..groups.tables import Tables

        self.classes = 0
        self.counts = np.zeros(0, np.int64)
        self.sums = Tables(False) if weighted else None

    def add(self, labels: Any, decided: Any, classes: int, weights: Any) -> None:
        """Add labels and decisions (int64) of so many classes."""
        if not self.classes:
            self.classes, self.counts = classes, np.zeros(classes * classes, np.int64)
        codes = labels * classes + decided
        # A count of all pairs for every few rows would cost more than the rows, where classes are many.
        if len(self.counts) > len(codes):
            np.add.at(self.counts, codes, 1)
        else:
            self.counts += np.bincount(codes, minlength=len(self.counts))
        if self.sums is not None:
            self.sums.add(weights, codes.astype(np.int32), None, len(self.counts))

    def confusions(self) -> Confusions:
        """Return the counts so far."""
        sums = squares = None
        if self.sums is not None:
            moments = [self.sums.moments(k).sums for k in range(len(self.counts))]
            sums, squares = [m[0] for m in moments], [m[1] for m in moments]
        return Confusions((), self.counts.reshape(self.classes, self.classes), sums, squares)


def share(part: Any, whole: Any) -> float:
    """Return part / whole; NaN of nothing."""
    return float(part / whole) if whole else math.nan
