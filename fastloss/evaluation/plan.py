"""Processing of a batch: conversion to float64, treatment of invalid rows, evaluation of every loss, summation."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from ..call.errors import CallError
from .accumulate import Partials
from .columns import InputError, place
from .details import Options
from .details.collector import Collector
from .groups import Groups, Keys
from .lane import Lane
from .losses import Evaluated
from .scales import ScaleError, may_be_probabilities
from .sources import Batch

__all__ = ["Plan", "Result", "joined", "places", "widened"]

HINT = "; expected a finite number (on_invalid: skip leaves such rows out)"

TOGETHER = 64
"""Number of columns copied into a matrix at a time, so that the rows written to stay in the cache."""

ELEMENTS = 1 << 15
"""Number of predictions evaluated at a time: their float64 data fit the L2 cache, and kernels stay serial."""


@dataclass
class Result:
    """Contribution of one batch to the report."""

    source: str
    start: int
    rows: int
    partials: Partials
    null_rows: int = 0
    non_finite_rows: int = 0
    worst: list[list[tuple[float, int]]] = field(default_factory=list)
    shown: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Columns to show of the rows in `worst`."""
    values: list[Any] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)
    """Codes of the groups of the rows, for each grouping."""


@dataclass
class _Rows:
    """Rows of a batch as float64; `index` holds their positions in the batch where some were left out."""

    preds: list[Any]
    target: Any
    weight: Any
    index: Any

    def after(self, done: int) -> "_Rows":
        """Return the rows from one on."""
        target, weight, index = (None if a is None else a[done:] for a in (self.target, self.weight, self.index))
        return _Rows([p[done:] for p in self.preds], target, weight, index)


class Plan:
    """Losses and options of one evaluation; `process` may run in several threads."""

    def __init__(
        self,
        losses: list[Evaluated],
        weighted: bool,
        on_invalid: str,
        worst: int,
        keep_values: bool,
        by: Sequence[tuple[str, ...]] = (),
        details: Options | None = None,
    ) -> None:
        self.losses = losses
        self.groups = Groups([Keys(names) for names in by], len(losses), weighted) if by else None
        self.details = Collector(details, losses, weighted, len(by)) if details else None
        self.partials = len(losses)
        self.weighted = weighted
        self.on_invalid = on_invalid
        self.worst = worst
        self.shows = False
        """Whether the last group of a batch's columns is shown of the worst rows."""
        self.keep_values = keep_values
        self.floors = [-np.inf] * len(losses)
        if self.details:
            self.details.propagates = on_invalid == "propagate"
        self.may_be_probabilities = [e.takes_logits for e in losses]
        """Whether all predictions so far, for a loss of logits, could be probabilities."""
        self.lane = Lane(losses)
        self.predictions = 1
        """Number of predictions that each loss is evaluated on."""
        self._buffers = threading.local()

    def process(self, batch: Batch) -> Result:
        """Evaluate all losses on a batch."""
        result = Result(batch.source, batch.start, batch.rows, Partials(self.partials, self.weighted))
        result.worst = [[] for _ in self.losses]
        if self.keep_values:
            result.values = [np.full(batch.rows, np.nan) for _ in self.losses]
        end = len(batch.groups) - self.shows
        read = end - (len(self.groups.by) if self.groups else 0)
        found = [batch.numbers(g) for g in range(read)]
        if self.groups:
            result.codes = self.groups.codes(batch.groups[read:end], batch)
        columns = [joined(group) for group in found]
        width = max((c[0].shape[1] for c in columns if c is not None and c[0].ndim == 2), default=1)
        step = max(1, ELEMENTS // max(1, width))
        for start in range(0, batch.rows, step):
            rows = self._rows(batch, found, columns, start, min(batch.rows, start + step), result)
            if self.details:
                self._add_details(batch, rows, start, result)
            self._evaluate_all(batch, rows, start, result)
        if self.shows:
            result.shown = {row: batch.row(end, row) for found_rows in result.worst for _, row in found_rows}
        return result

    def _rows(self, batch: Batch, found: list[Any], columns: list[Any], start: int, stop: int, result: Result) -> _Rows:
        """Convert rows start to stop; count invalid rows and treat them as `on_invalid` says."""
        null = _nulls([mask for _, mask in filter(None, columns)], start, stop)
        arrays, finite = [], True
        for g, group in enumerate(columns):
            array, good = self._doubles(g, group[0][start:stop]) if group else (None, True)
            arrays.append(array)
            finite &= good
        *preds, target, weight = arrays
        rows = _Rows(preds, target, weight, np.arange(start, stop) if null is not None or not finite else None)
        if rows.index is not None:
            bad = np.zeros(stop - start, bool) if null is None else null
            off = np.zeros(stop - start, bool)
            for a in arrays:
                if a is not None:
                    off |= ~np.isfinite(a) if a.ndim == 1 else ~np.isfinite(a).all(axis=1)
            off &= ~bad
            result.null_rows += int(bad.sum())
            result.non_finite_rows += int(off.sum())
            if self.groups:
                for column, mask in ((1, bad), (2, off)):
                    self.groups.count(result.codes, column, rows.index[mask])
            rows = self._without_invalid(batch, rows, found, bad, off, result)
        if rows.weight is not None and rows.weight.size and rows.weight.min() < 0:
            i = int(np.argmax(rows.weight < 0))
            self._fail(batch, _at(start, rows.index, i), f"the weight is {rows.weight[i]:g}; expected 0 or more")
        return rows

    def _doubles(self, group: int, values: Any) -> tuple[Any, bool]:
        """Return rows of one group of columns as float64, and whether all values are finite."""
        out = self._buffer(group, values.size).reshape(values.shape)
        return out, widened(values, out)

    def _buffer(self, group: int, size: int) -> Any:
        """Return this thread's buffer; fresh memory for every few rows would cost more than the conversion."""
        mine = self._buffers.__dict__.setdefault("of", {})
        kept = mine.get(group)
        if kept is None or kept.size < size:
            kept = mine[group] = np.empty(size)
        return kept[:size]

    def _without_invalid(
        self, batch: Batch, rows: _Rows, columns: list[Any], null: Any, off: Any, result: Result
    ) -> _Rows:
        """Raise for the first invalid row, drop invalid rows, or count rows that no loss can take as NaN."""
        if self.on_invalid == "fail":
            i = int(np.argmax(null | off))
            row = int(rows.index[i])
            self._fail(batch, row, _complaint(batch, columns, row))
        if self.on_invalid == "skip":
            drop = null | off
            if self.groups:
                self.groups.count(result.codes, 0, rows.index[drop])
        else:
            # Of what propagates, only numbers reach the losses: a null, a weight or a label that is none is a NaN.
            drop = null
            labels = rows.target is not None and any(e.takes_labels(rows.target) for e in self.losses)
            for a in (rows.weight, rows.target if labels else None):
                drop = drop if a is None else drop | ~np.isfinite(a)
            for k, partial in enumerate(result.partials):
                partial.counts[1] += int(drop.sum())
                if self.groups:
                    self.groups.left_out(k, 0, result.codes, rows.index[drop])
        keep = ~drop
        kept = [None if a is None else a[keep] for a in (*rows.preds, rows.target, rows.weight)]
        return _Rows(kept[:-2], kept[-2], kept[-1], rows.index[keep])

    def _add_details(self, batch: Batch, rows: _Rows, first: int, result: Result) -> None:
        """Add predictions and targets of some rows to the details."""
        assert self.details is not None
        at = places(first, rows.preds[0], rows.index)
        keys = self.groups.keys if self.groups else []
        groups = [(codes[at], len(k)) for codes, k in zip(result.codes, keys, strict=True)]
        try:
            self.details.add_rows(rows.preds, rows.target, rows.weight, groups)
        except ScaleError as error:
            self._fail(batch, _at(first, rows.index, error.index), str(error))

    def _evaluate_all(self, batch: Batch, rows: _Rows, first: int, result: Result) -> None:
        """Add all losses of some rows to the result: elementwise ones together, as far as they accept the rows."""
        apart: Sequence[int] = range(len(self.losses))
        if self.lane.takes(rows.preds, rows.target, self.predictions) and rows.target.size:
            done = self._evaluate_together(rows, first, result)
            if done < rows.target.size:
                rest = rows.after(done)
                for k in self.lane.losses:
                    self._evaluate(batch, rest, first + done, k, result)
            apart = [k for k in apart if k not in self.lane.losses]
        for k in apart:
            self._evaluate(batch, rows, first, k, result)

    def _evaluate_together(self, rows: _Rows, first: int, result: Result) -> int:
        """Add the losses of the fast path; return the number of rows before the first that one of them refuses."""
        z, t, weight = rows.preds[0], rows.target, rows.weight
        spread = self.details and self.details.options.distributions
        keeps = bool(self.groups or spread or self.keep_values or self.worst or weight is not None)
        strict = self.on_invalid == "fail"
        done, kept = self.lane.run(z, t, result.partials, adds=weight is None, keeps=keeps, strict=strict)
        self._look(z[:done], self.lane.losses)
        if keeps and done:
            index = None if rows.index is None else rows.index[:done]
            for k, values in zip(self.lane.losses, kept, strict=True):
                if weight is not None:
                    result.partials[k].add(values[:done], weight[:done])
                self._spread(k, values[:done], None if weight is None else weight[:done], first, index, result)
        return int(done)

    def _evaluate(self, batch: Batch, rows: _Rows, first: int, k: int, result: Result) -> None:
        """Add one loss of some rows to the result."""
        loss = self.losses[k]
        preds, target, weight, index = self._labelled(batch, rows, first, k, result)
        if not len(preds[0]):
            return
        values = self._values(batch, k, preds, target, first, index)
        result.partials[k].add(values, weight)
        self._check_finite(batch, loss, values, first, index)
        self._spread(k, values, weight, first, index, result)

    def _spread(self, k: int, values: Any, weight: Any, first: int, index: Any, result: Result) -> None:
        """Add the values of one loss to groups, to the values that are written, and to the largest losses."""
        loss = self.losses[k]
        if self.groups:
            self.groups.add(k, values, weight, result.codes, places(first, values, index))
        if self.keep_values or self.worst or self.details:
            values = loss.shown(values)
        if self.details:
            self.details.add_loss(k, values, weight)
        if self.keep_values:
            result.values[k][places(first, values, index)] = values
        if self.worst:
            self._keep_worst(values, first, index, k, result)

    def _labelled(
        self, batch: Batch, rows: _Rows, first: int, k: int, result: Result
    ) -> tuple[list[Any], Any, Any, Any]:
        """Return predictions, target, weight and index of the rows whose label a loss does not ignore."""
        loss = self.losses[k]
        preds, target, weight, index = rows.preds, rows.target, rows.weight, rows.index
        if loss.takes_labels(target):
            target = self._labels(batch, target, first, index)
            if loss.ignore_index is not None and (drop := target == loss.ignore_index).any():
                keep = ~drop
                result.partials[k].ignored += int(drop.sum())
                index = np.arange(first, first + len(keep)) if index is None else index
                if self.groups:
                    self.groups.left_out(k, 1, result.codes, index[drop])
                index = index[keep]
                preds, target = [p[keep] for p in preds], target[keep]
                weight = None if weight is None else weight[keep]
        return preds, target, weight, index

    def _values(self, batch: Batch, k: int, preds: list[Any], target: Any, first: int, index: Any) -> Any:
        """Return the loss of each row; raise an error that names the row it refuses."""
        loss = self.losses[k]
        try:
            pred = loss.prediction(preds, target)
        except ScaleError as error:
            self._fail(batch, _at(first, index, error.index), str(error))
        self._look(pred, (k,))
        try:
            values = loss.call(pred, target)
        except (ValueError, TypeError) as error:
            self._explain(batch, loss, pred, target, first, index, error)
        if values.shape != preds[0].shape[:1]:
            raise InputError(f"{loss.label} gives {values.shape} values for {len(preds[0])} rows")
        return values

    def _look(self, pred: Any, losses: Sequence[int]) -> None:
        """Note losses of logits whose predictions cannot all be probabilities."""
        for k in losses:
            # Looks no further once a prediction is outside [0, 1]: the first rows tell nearly always.
            if self.may_be_probabilities[k] and not may_be_probabilities(pred, self.losses[k].loss.record):
                self.may_be_probabilities[k] = False

    def _check_finite(self, batch: Batch, loss: Evaluated, values: Any, first: int, index: Any) -> None:
        """Raise for a loss that is not finite, if invalid rows are to fail."""
        if self.on_invalid == "fail" and not np.isfinite(values).all():
            i = int(np.argmax(~np.isfinite(values)))
            problem = f"{loss.label} is {values[i]:g} here, of finite inputs{loss.hint(True)}"
            self._fail(batch, _at(first, index, i), problem)

    def _labels(self, batch: Batch, target: Any, first: int, index: Any) -> Any:
        labels = target.astype(np.int64)
        if not np.array_equal(labels, target):
            i = int(np.argmax(labels != target))
            self._fail(batch, _at(first, index, i), f"the label is {target[i]:g}; expected a whole number")
        return labels

    def _keep_worst(self, values: Any, first: int, index: Any, k: int, result: Result) -> None:
        """Collect candidates for the largest losses: the batch's largest that reach those of other batches."""
        found = np.flatnonzero(values >= self.floors[k])
        if found.size > self.worst:
            # A stable sort keeps the earlier of equal rows.
            found = found[np.argsort(-values[found], kind="stable")[: self.worst]]
        kept = result.worst[k] + [(float(values[i]), _at(first, index, int(i))) for i in found]
        result.worst[k] = sorted(kept, key=lambda v: (-v[0], v[1]))[: self.worst]

    def _explain(
        self, batch: Batch, loss: Evaluated, pred: Any, target: Any, first: int, index: Any, error: Exception
    ) -> NoReturn:
        """Raise an error that names the row a loss refused; an error that no single row causes is passed on."""
        low, high = 0, len(pred[0]) if isinstance(pred, tuple) else len(pred)
        while high - low > 1:
            middle = (low + high) // 2
            if _refused(loss, pred, target, low, middle) is None:
                low = middle
            else:
                high = middle
        refused = _refused(loss, pred, target, low, high)
        if refused is None or high - low != 1:
            raise InputError(str(error)) from None
        # The row is that of the file, and the index in the few rows evaluated together would confuse.
        text = refused.without_index() if isinstance(refused, CallError) else refused
        hint = loss.hint(False) if getattr(refused, "argument", "") == "prediction" else ""
        self._fail(batch, _at(first, index, low), f"{text}{hint}")

    def _fail(self, batch: Batch, row: int, text: str) -> NoReturn:
        raise InputError(f"{place(batch.source, batch.start + row)}: {text}")


def widened(a: Any, out: Any) -> bool:
    """Copy numbers to float64; return whether all are finite."""
    if a.dtype.kind == "f" and a.dtype.itemsize in (4, 8) and a.dtype.isnative and a.flags.c_contiguous:
        from . import exact

        return bool(exact.widen(a.reshape(-1), out.reshape(-1)))
    np.copyto(out, a)
    return a.dtype.kind != "f" or bool(np.isfinite(out).all())


def places(first: int, values: Any, index: Any) -> Any:
    """Return the positions in the batch of rows that follow each other, or of those in an index."""
    return slice(first, first + len(values)) if index is None else index


def _at(first: int, index: Any, i: int) -> int:
    return first + i if index is None else int(index[i])


def _refused(loss: Evaluated, pred: Any, target: Any, low: int, high: int) -> Exception | None:
    """Return the loss's error for these rows; None if it accepts them."""
    part = tuple(p[low:high] for p in pred) if isinstance(pred, tuple) else pred[low:high]
    try:
        loss.call(part, None if target is None else target[low:high])
    except (ValueError, TypeError) as error:
        return error
    return None


def joined(parts: list[Any]) -> tuple[Any, Any] | None:
    """Return the columns of a group as one array and one mask of valid rows (None: all); None without columns."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    arrays = [a if a.ndim == 2 else a[:, None] for a, _ in parts]
    out = np.empty((len(arrays[0]), sum(a.shape[1] for a in arrays)))
    at = 0
    for i in range(0, len(arrays), TOGETHER):
        some = arrays[i : i + TOGETHER]
        width = sum(a.shape[1] for a in some)
        np.concatenate(some, axis=1, out=out[:, at : at + width], casting="unsafe")
        at += width
    masks = [mask for _, mask in parts if mask is not None]
    return out, np.logical_and.reduce(masks) if masks else None


def _nulls(masks: list[Any], start: int, stop: int) -> Any:
    """Return the mask of rows with a null in any column; None if there are none."""
    null = None
    for mask in masks:
        if mask is not None and not mask[start:stop].all():
            null = ~mask[start:stop] if null is None else null | ~mask[start:stop]
    return null


def _complaint(batch: Batch, columns: list[Any], row: int) -> str:
    """Return a sentence that names the column and the invalid value of a row."""
    for names, group in zip(batch.groups, columns, strict=False):  # keys of groups follow
        for (name, _), (values, mask) in zip(names, group, strict=True):
            if mask is not None and not mask[row]:
                return f"{name} is null{HINT}"
            if not np.isfinite(values[row]).all():
                value = np.atleast_1d(values[row])
                return f"{name} is {value[~np.isfinite(value)][0]:g}{HINT}"
    return "a value is not finite"
