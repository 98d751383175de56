"""Details of an evaluation beside its statistics: distributions of losses and columns."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..columns import InputError
from .distribution import MOST_BINS, Distribution, Tally

__all__ = ["Collector", "Details", "Options", "options_of"]


@dataclass(frozen=True)
class Options:
    """Details that an evaluation is asked for."""

    hist: int = 0
    """Bins of histograms; 0 for none."""
    quantiles: tuple[float, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether any details are asked for."""
        return self != Options()

    @property
    def distributions(self) -> bool:
        """Whether distributions of losses are kept."""
        return bool(self.hist or self.quantiles)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON-compatible values."""
        return {"hist": self.hist, "quantiles": list(self.quantiles)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Options":
        """Return the options that `to_dict` wrote."""
        return cls(state["hist"], tuple(state["quantiles"]))


def options_of(*, hist: Any = 0, quantiles: Any = ()) -> Options:
    """Return checked options; raise an InputError that says what is allowed."""
    if isinstance(hist, bool) or not isinstance(hist, int) or not 0 <= hist <= MOST_BINS:
        raise InputError(f"hist is {hist!r}; expected a number of bins, 1 to {MOST_BINS:,}")
    given = [quantiles] if isinstance(quantiles, (int, float)) else list(quantiles)
    for q in given:
        if isinstance(q, bool) or not isinstance(q, (int, float, np.floating)) or not 0 <= q <= 1:
            raise InputError(f"quantiles has {q!r}; expected numbers from 0 to 1, such as 0.5")
    return Options(hist, tuple(sorted({float(q) for q in given})))


@dataclass(frozen=True)
class Details:
    """Mergeable details of some rows."""

    options: Options
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    """Distributions of losses, by label."""
    columns: Mapping[str, Distribution] = field(default_factory=dict)
    """Distributions of the prediction and the target, where they are numbers."""

    def merge(self, other: "Details") -> "Details":
        """Return the details of these rows and others."""
        if self.options != other.options:
            raise InputError("cannot merge reports of different details; ask both for the same")
        return replace(
            self,
            distributions=_merged(self.distributions, other.distributions),
            columns=_merged(self.columns, other.columns),
        )

    def beside(self, others: Sequence["Details"], order: Sequence[str]) -> "Details":
        """Return the details of several evaluations of the same rows, for other losses."""
        found = {n: d for each in (self, *others) for n, d in each.distributions.items()}
        return replace(self, distributions={n: found[n] for n in order if n in found}, columns={})

    def to_dict(self) -> dict[str, Any]:
        """Return the details as JSON-compatible values: figures to read and the exact state."""
        state: dict[str, Any] = {"options": self.options.to_dict()}
        for name in ("distributions", "columns"):
            found = getattr(self, name)
            if found:
                state[name] = {n: {**self._figures(d), "exact": d.to_dict()} for n, d in found.items()}
        return state

    def _figures(self, found: Distribution) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        if self.options.quantiles:
            shares = self.options.quantiles
            values = found.quantile(shares).tolist()
            figures["quantiles"] = [[q, v if found.count else None] for q, v in zip(shares, values, strict=True)]
        if self.options.hist:
            histogram = found.histogram(self.options.hist)
            figures["histogram"] = {n: a.tolist() for n, a in histogram._asdict().items() if a is not None}
        return figures

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Details":
        """Return the details that `to_dict` wrote."""
        return cls(
            Options.from_dict(state["options"]),
            **{
                name: {n: Distribution.from_dict(d["exact"]) for n, d in state.get(name, {}).items()}
                for name in ("distributions", "columns")
            },
        )


def _merged(a: Mapping[str, Distribution], b: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """Return distributions by name, those of one name merged."""
    found = dict(a)
    for name, each in b.items():
        found[name] = found[name].merge(each) if name in found else each
    return found


class Collector:
    """Details of one evaluation while it runs. Threads add to states of their own."""

    def __init__(self, options: Options, labels: Sequence[str], weighted: bool) -> None:
        self.options = options
        self.labels = list(labels)
        self.weighted = weighted
        self._mine = threading.local()
        self._all: list[dict[str, list[Tally]]] = []

    def _state(self) -> dict[str, list[Tally]]:
        found: dict[str, list[Tally]] | None = getattr(self._mine, "state", None)
        if found is None:
            kinds = {"losses": len(self.labels), "columns": 2}
            found = {name: [Tally(self.weighted) for _ in range(n)] for name, n in kinds.items()}
            self._mine.state = found
            self._all.append(found)
        return found

    def add_loss(self, k: int, values: Any, weight: Any) -> None:
        """Add the values of one loss."""
        if self.options.distributions:
            self._state()["losses"][k].add(values, weight)

    def add_rows(self, preds: Sequence[Any], target: Any, weight: Any) -> None:
        """Add predictions and targets."""
        if not self.options.hist:
            return
        pred = preds[0] if len(preds) == 1 else None
        for tally, column in zip(self._state()["columns"], (pred, target), strict=True):
            if column is not None and column.ndim == 1:
                tally.add(column, weight)

    def found(self) -> Details:
        """Return the details of all rows."""
        details = Details(self.options)
        if self.options.distributions:
            losses = [self._distribution("losses", k) for k in range(len(self.labels))]
            details = replace(details, distributions=dict(zip(self.labels, losses, strict=True)))
        if self.options.hist:
            columns = {name: self._distribution("columns", k) for k, name in enumerate(("prediction", "target"))}
            details = replace(details, columns={name: d for name, d in columns.items() if d.count})
        return details

    def _distribution(self, name: str, k: int) -> Distribution:
        found = Distribution.of(np.zeros(0), np.zeros(0) if self.weighted else None)
        for state in self._all:
            found = found.merge(state[name][k].distribution())
        return found
