"""Details of an evaluation beside its statistics: distributions, calibration, confusion counts, gaps between groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..columns import InputError
from ..scales import scale_of
from .calibration import Calibration, plain
from .confusion import Confusions
from .distribution import MOST_BINS, Distribution, long, short

__all__ = ["Details", "Options", "options_of", "scale"]

BINS = 10
"""Bins of calibration errors, unless another number is asked for."""


@dataclass(frozen=True)
class Options:
    """Details that an evaluation is asked for."""

    hist: int = 0
    """Bins of histograms; 0 for none."""
    quantiles: tuple[float, ...] = ()
    calibration: int = 0
    """Bins of calibration errors; 0 for none."""
    confusion: bool = False
    thresholds: tuple[float, ...] = (0.5,)
    """Probabilities from which on a decision is positive."""
    gaps: bool = False
    """Whether groups are compared."""
    scale: str = ""
    """What predictions are: prob, logit, half-logit or log-prob; empty where no probability is needed or known."""

    @property
    def wanted(self) -> bool:
        """Whether any details are asked for."""
        return bool(self.distributions or self.calibration or self.confusion or self.gaps)

    @property
    def distributions(self) -> bool:
        """Whether distributions of losses are kept."""
        return bool(self.hist or self.quantiles)

    @property
    def decides(self) -> bool:
        """Whether decisions of two classes are counted."""
        return self.confusion or (self.gaps and bool(self.scale))

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON-compatible values."""
        state = dict(vars(self))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in state.items()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Options":
        """Return the options that `to_dict` wrote."""
        given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in state.items()}
        return cls(**given)


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    """Return distinct numbers from 0 to 1, in order."""
    values = [given] if np.ndim(given) == 0 else list(given)
    for value in values:
        number = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise InputError(f"{name} has {value!r}; expected numbers from 0 to 1, such as 0.5")
    return tuple(sorted({float(value) for value in values}))


def options_of(given: Mapping[str, Any], losses: Sequence[Any], pred_is: str = "", by: Any = ()) -> Options:
    """Return checked options from arguments of `evaluate`; raise an InputError that says what is allowed."""
    hist, calibration = given["hist"], given["calibration"]
    if isinstance(hist, bool) or not isinstance(hist, int) or not 0 <= hist <= MOST_BINS:
        raise InputError(f"hist is {hist!r}; expected a number of bins, 1 to {MOST_BINS:,}")
    bins = BINS if calibration is True else calibration
    if bins:
        from .grid import WIDTHS

        if bins not in WIDTHS:
            raise InputError(f"calibration is {bins!r}; expected True, or bins: one of {', '.join(map(str, WIDTHS))}")
    if given["gaps"] and not by:
        raise InputError("gaps are between groups; name their column, such as by='country'")
    thresholds = _numbers("threshold", given["threshold"])
    if not thresholds:
        raise InputError("threshold names no probability; expected at least one, such as 0.5")
    options = Options(
        hist,
        _numbers("quantiles", given["quantiles"]),
        int(bins or 0),
        bool(given["confusion"]),
        thresholds,
        bool(given["gaps"]),
    )
    if not (options.calibration or options.confusion or options.gaps):
        return options
    known = scale(losses, pred_is)
    # Classes are decided by the largest score on any scale.
    by_score = options.confusion and not options.calibration and all(e.by_rows for e in losses)
    if not known and (options.calibration or options.confusion) and not by_score:
        what = "calibration" if options.calibration else "confusion"
        raise InputError(f'{what} takes probabilities; say what predictions are, such as pred_is="prob"')
    return replace(options, scale=known)


def scale(losses: Sequence[Any], pred_is: str) -> str:
    """Return the scale of predictions, as they were said to be or as the losses take them; empty where unknown."""
    if pred_is:
        return "" if pred_is == "mean" else pred_is
    found = {scale_of(e.loss.record) for e in losses} & {"prob", "logit", "half-logit", "log-prob"}
    return found.pop() if len(found) == 1 else ""


@dataclass(frozen=True)
class Details:
    """Mergeable details of some rows."""

    options: Options
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    """Distributions of losses, by label."""
    columns: Mapping[str, Distribution] = field(default_factory=dict)
    """Distributions of the prediction and the target, where they are numbers."""
    calibration: Calibration | None = None
    confusions: Confusions | None = None
    squares: int = 0
    """Sum of squared weights of a group, in units of 2**-BIAS."""

    def merge(self, other: "Details") -> "Details":
        """Return the details of these rows and others."""
        if self.options != other.options:
            raise InputError("cannot merge reports of different details; ask both for the same")
        return replace(
            self,
            distributions=_merged(self.distributions, other.distributions),
            columns=_merged(self.columns, other.columns),
            calibration=_united(self.calibration, other.calibration),
            confusions=_united(self.confusions, other.confusions),
            squares=self.squares + other.squares,
        )

    def beside(self, others: Sequence["Details"], order: Sequence[str]) -> "Details":
        """Return the details of several evaluations of the same rows, for other losses."""
        every = (self, *others)
        found = {n: d for each in every for n, d in each.distributions.items()}
        return replace(
            self,
            distributions={n: found[n] for n in order if n in found},
            columns={},
            calibration=next((each.calibration for each in every if each.calibration), None),
            confusions=next((each.confusions for each in every if each.confusions), None),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the details as JSON-compatible values: figures to read and the exact state."""
        state: dict[str, Any] = {"options": self.options.to_dict()}
        for name in ("distributions", "columns"):
            found = getattr(self, name)
            if found:
                state[name] = {n: {**self._figures(d), "exact": d.to_dict()} for n, d in found.items()}
        for name in ("calibration", "confusions"):
            if getattr(self, name) is not None:
                state[name] = getattr(self, name).to_dict()
        if self.squares:
            state["squares"] = short(self.squares)
        return state

    def _figures(self, found: Distribution) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        if self.options.quantiles:
            shares = self.options.quantiles
            values = found.quantile(shares).tolist()
            figures["quantiles"] = [[q, plain(v)] for q, v in zip(shares, values, strict=True)]
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
            calibration=Calibration.from_dict(state["calibration"]) if "calibration" in state else None,
            confusions=Confusions.from_dict(state["confusions"]) if "confusions" in state else None,
            squares=long(state.get("squares", "0@0")),
        )


def _merged(a: Mapping[str, Distribution], b: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """Return distributions by name, those of one name merged."""
    return {name: _united(a.get(name), b.get(name)) for name in {**a, **b}}


def _united(a: Any, b: Any) -> Any:
    """Return two details merged, or the one that is there."""
    return a.merge(b) if a is not None and b is not None else b if a is None else a
