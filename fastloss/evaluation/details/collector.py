"""Collection of details while an evaluation runs."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..columns import InputError
from ..scales import ScaleError, probabilities
from . import Details, Options, _united
from .calibration import CalibrationTally
from .confusion import CLASSES, ClassTally, DecisionTally
from .distribution import Tally

__all__ = ["Collector", "warm"]

IGNORED = -100
"""Label of rows of scores that count in no figure."""


class _State:
    """Details that one thread has met."""

    def __init__(self, options: Options, losses: int, groupings: int, weighted: bool) -> None:
        from ..groups.tables import Tables

        self.losses = [Tally(weighted) for _ in range(losses)]
        self.columns = [Tally(weighted) for _ in range(2)]
        self.calibration: CalibrationTally | None = None
        # First of all rows, then of each grouping.
        self.decisions: list[DecisionTally] = []
        if options.decides:
            self.decisions = [DecisionTally(options.thresholds, weighted) for _ in range(groupings + 1)]
        self.decided = False
        self.classes: ClassTally | None = None
        self.weights = [Tables(False) for _ in range(groupings)] if weighted and options.gaps else []


class Collector:
    """Details of one evaluation. Threads add to states of their own."""

    def __init__(self, options: Options, losses: Sequence[Any], weighted: bool, groupings: int = 0) -> None:
        self.options = options
        self.losses = list(losses)
        self.weighted = weighted
        self.propagates = False
        """Whether rows may hold a NaN or infinity; set by the plan."""
        self._groupings = groupings
        self._by_rows = any(e.by_rows for e in losses)
        self._mine = threading.local()
        self._all: list[_State] = []

    def _state(self) -> _State:
        found: _State | None = getattr(self._mine, "state", None)
        if found is None:
            found = self._mine.state = _State(self.options, len(self.losses), self._groupings, self.weighted)
            self._all.append(found)
        return found

    def add_loss(self, k: int, values: Any, weight: Any) -> None:
        """Add the values of one loss."""
        if self.options.distributions:
            self._state().losses[k].add(values, weight)

    def add_rows(self, preds: Sequence[Any], target: Any, weight: Any, groups: Sequence[tuple[Any, int]]) -> None:
        """Add predictions and targets; of each grouping, the codes of the rows and the number of groups so far.

        Raise a ScaleError, with the index of the row, for a prediction or label that is none.
        """
        if not len(preds[0]):
            return
        state, options = self._state(), self.options
        for table, (codes, number) in zip(state.weights, groups, strict=bool(state.weights)):
            table.add(weight, np.ascontiguousarray(codes, np.int32), None, number)
        pred = preds[0] if len(preds) == 1 else None
        if len(preds) > 1 and self._by_rows:
            pred = np.concatenate([p if p.ndim == 2 else p[:, None] for p in preds], axis=1)
        if options.hist:
            for tally, column in zip(state.columns, (pred, target), strict=True):
                if column is not None and column.ndim == 1:
                    tally.add(column, weight)
        if not (options.calibration or options.decides):
            return
        if pred is None or target is None or target.ndim != 1:
            raise InputError(
                "calibration, confusion counts and rates take one prediction or row of scores, and a label"
            )
        if pred.ndim == 2:
            self._add_classes(state, pred, target, weight)
        else:
            self._add_labels(state, pred, target, weight, groups)

    def _add_labels(
        self, state: _State, pred: Any, target: Any, weight: Any, groups: Sequence[tuple[Any, int]]
    ) -> None:
        """Add predictions of two classes and labels."""
        from .kernels import wrong_labels

        good = np.isfinite(pred) & np.isfinite(target) if self.propagates else None
        if wrong_labels(target):
            known = (target == 0.0) | (np.abs(target) == 1.0)
            known = known if good is None else known | ~good
            if not known.all():
                raise ScaleError(target, known, "a label, 0 or 1 (or -1 and 1)", "target")
        p = self._probabilities(pred, good)
        if good is not None and not good.all():
            target, weight = target[good], None if weight is None else weight[good]
            groups = [(codes[good], number) for codes, number in groups]
        if self.options.calibration:
            self._calibrate(state, "positive class", p, target, weight)
        if state.decisions:
            state.decided = True
            whole, *by_group = state.decisions
            whole.add(p, target, weight)
            for tally, (codes, number) in zip(by_group, groups, strict=True):
                tally.add(p, target, weight, codes, number)

    def _probabilities(self, pred: Any, good: Any = None) -> Any:
        """Return the probabilities of the good rows (None: all)."""
        from .kernels import sigmoids

        partly = good is not None and not good.all()
        pred = pred[good] if partly else pred
        if self.options.scale == "logit" and pred.ndim == 1:
            sigmoids(pred, p := np.empty(len(pred)))
            return p
        try:
            return probabilities(pred, self.options.scale)
        except ScaleError as error:
            if partly:
                error.index = int(np.flatnonzero(good)[error.index])
            raise

    def _calibrate(self, state: _State, of: str, p: Any, target: Any, weight: Any) -> None:
        if state.calibration is None:
            state.calibration = CalibrationTally(self.options.calibration, of, self.weighted)
        state.calibration.add(p, target, weight)

    def _add_classes(self, state: _State, scores: Any, target: Any, weight: Any) -> None:
        """Add rows of scores and their labels."""
        classes = scores.shape[1]
        good = np.isfinite(scores).all(axis=1) & np.isfinite(target) & (target != IGNORED)
        known = (target >= 0) & (target < classes) & (target == np.floor(target))
        if not known[good].all():
            raise ScaleError(target, known | ~good, f"a class, 0 to {classes - 1}", "target")
        p = self._probabilities(scores, good) if self.options.calibration else None
        if not good.all():
            scores, target, weight = scores[good], target[good], None if weight is None else weight[good]
        labels, decided = target.astype(np.int64), scores.argmax(axis=1)
        if p is not None:
            self._calibrate(state, "top label", p.max(axis=1), decided == labels, weight)
        if self.options.confusion:
            if classes > CLASSES:
                raise InputError(f"confusion counts take at most {CLASSES:,} classes; {classes:,} found")
            if state.classes is None:
                state.classes = ClassTally(self.weighted)
            state.classes.add(labels, decided, classes, weight)

    def found(self) -> Details:
        """Return the details of all rows."""
        details = Details(self.options)
        if self.options.distributions:
            empty = Tally(self.weighted).distribution()
            losses = [self._distribution("losses", k) or empty for k in range(len(self.losses))]
            labels = [e.label for e in self.losses]
            details = replace(details, distributions=dict(zip(labels, losses, strict=True)))
        if self.options.hist:
            named = [(name, self._distribution("columns", k)) for k, name in enumerate(("prediction", "target"))]
            details = replace(details, columns={name: d for name, d in named if d is not None and d.count})
        return replace(
            details,
            calibration=self._merged(lambda state: state.calibration and state.calibration.calibration()),
            confusions=self._decisions(0, 0) if self.options.confusion else None,
        )

    def _distribution(self, name: str, k: int) -> Any:
        return self._merged(lambda state: getattr(state, name)[k].distribution())

    def _decisions(self, place: int, group: int) -> Any:
        """Return the confusion counts of all rows (place 0), or of one group of a grouping."""

        def of(state: _State) -> Any:
            if state.decided:
                return state.decisions[place].confusions(group)
            return None if state.classes is None or place else state.classes.confusions()

        return self._merged(of)

    def _merged(self, of: Callable[[_State], Any]) -> Any:
        whole = None
        for state in self._all:
            whole = _united(whole, of(state))
        return whole

    def of_group(self, grouping: int, code: int) -> Details | None:
        """Return the details of one group of a grouping; None where none are kept by group."""
        if not (self.options.decides or self.options.gaps):
            return None
        options = Options(
            confusion=self.options.confusion,
            thresholds=self.options.thresholds,
            gaps=self.options.gaps,
            scale=self.options.scale,
        )
        squares = sum(state.weights[grouping].moments(code).sums[1] for state in self._all if state.weights)
        return Details(options, confusions=self._decisions(grouping + 1, code), squares=squares)


def warm(asked: Sequence[str], weighted: bool) -> None:
    """Compile the kernels of the details that options ask for."""
    from .kernels import sigmoids, wrong_labels

    one = np.zeros(1)
    weight = np.ones(1) if weighted else None
    if {"hist", "quantiles"} & {*asked}:
        tally = Tally(weighted)
        tally.flush()
        tally.add(one, weight)
    if "calibration" in asked:
        cells = CalibrationTally(2, "", weighted)
        cells.flush()
        cells.add(one, one, weight)
    if {"confusion", "gaps"} & {*asked}:
        DecisionTally((0.5,), weighted).add(one, one, weight)
    if {"calibration", "confusion", "gaps"} & {*asked}:
        sigmoids(one, np.empty(1))
        wrong_labels(one)
