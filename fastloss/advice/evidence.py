"""Evidence for the choice of a loss: facts about targets, predictions and groups, from one pass over the rows."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..evaluation.columns import InputError
from ..evaluation.groups import Keys
from ..evaluation.sources import Batch, Selection, Source, open_source
from .sample import Sample

__all__ = ["Evidence", "gather"]

DISTINCT = 256
"""Most distinct targets that are counted one by one."""


@dataclass
class Evidence:
    """Facts about the rows; arrays are samples of at most 20,000 of them."""

    rows: int = 0
    missing: int = 0
    """Rows left out: a null, NaN or infinity among target and prediction."""
    low: float = math.inf
    high: float = -math.inf
    whole: bool = True
    """Whether all targets are whole numbers."""
    counts: dict[float, int] | None = field(default_factory=dict)
    """Rows of each distinct target; None where there are too many to count."""
    names: list[Any] | None = None
    """Classes by number, where targets are text."""
    target: Any = None
    """Targets of the sampled rows."""
    pred: Any = None
    """Predictions of the sampled rows, a vector or a matrix; None where there are none."""
    group: Any = None
    """Codes of the groups of the sampled rows; None where there are none."""
    groups: list[Any] = field(default_factory=list)
    """Values of the groups by code."""

    @property
    def distinct(self) -> float:
        """Number of distinct targets; infinite where they were too many to count."""
        return math.inf if self.counts is None else len(self.counts)


def gather(data: Any, target: str, pred: tuple[str, ...], group: str | None, progress: Any = None) -> Evidence:
    """Read the rows once and return the facts."""
    by = ((group,),) if group else ()
    source, selection = open_source(data, Selection(pred, target, None, by))
    return _Reader(selection, group).read(source, progress)


class _Reader:
    """One pass over a source."""

    def __init__(self, selection: Selection, group: str | None) -> None:
        self.selection = selection
        self.keys = Keys((group,)) if group else None
        self.classes: Keys | None = None
        self.found = Evidence()
        self.sample = Sample()

    def read(self, source: Source, progress: Any) -> Evidence:
        start, total = 0, source.total() if progress else None
        for batch in source.batches(self.selection):
            self._add(start, batch)
            start += batch.rows
            if progress:
                progress(start, total)
        found = self.found
        if not found.rows:
            raise InputError(
                f"no rows to advise on{f': all {found.missing:,} have a missing value' if found.missing else ''}"
            )
        columns = list(self.sample.columns)
        found.target = columns.pop(0).astype(np.float64)
        kept = np.isfinite(found.target)
        found.pred = columns.pop(0)[kept].astype(np.float64) if self.selection.pred else None
        if self.keys is not None:
            found.group, found.groups = columns.pop(0)[kept], list(self.keys)
        found.target = found.target[kept]
        if self.classes is not None:
            self._in_order(list(self.classes))
        return found

    def _in_order(self, names: list[Any]) -> None:
        """Number classes of text in sorted order, as NumPy and scikit-learn do, not in that of their first row."""
        found = self.found
        known = sorted((str(n), i) for i, n in enumerate(names) if n is not None)
        place = np.zeros(len(names))
        place[[i for _, i in known]] = np.arange(len(known))
        found.names = [names[i] for _, i in known]
        found.target = place[found.target.astype(np.int64)]
        if found.counts is not None:
            found.counts = {float(place[int(code)]): count for code, count in found.counts.items()}

    def _add(self, start: int, batch: Batch) -> None:
        at = len(self.selection.pred)
        target = self._target(batch, at)
        valid = _finite(target)
        columns = [target]
        if at:
            parts = [_numbers(batch, i) for i in range(at)]
            pred = parts[0] if len(parts) == 1 else np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)
            valid = _both(valid, _finite(pred))
            columns.append(pred)
        if self.keys is not None:
            columns.append(self.keys.codes(batch.groups[at + 2], batch.source, batch.rows, batch.start))
        left_out = 0 if valid is None else len(valid) - int(np.count_nonzero(valid))
        if left_out:
            self.found.missing += left_out
            # The sample drops rows whose target is not a number.
            columns[0] = np.where(valid, target, np.nan)
        self.sample.add(start, columns)
        self._facts(target[valid] if left_out else target)

    def _target(self, batch: Batch, at: int) -> Any:
        """Return the targets as numbers: those of text are the codes of its values."""
        [(name, column)] = batch.groups[at]
        if self.classes is None and not _is_text(column):
            return _numbers(batch, at)
        if self.classes is None:
            self.classes = Keys((name,), 1000)
        codes = self.classes.codes([(name, column)], batch.source, batch.rows, batch.start).astype(np.float64)
        missing = [i for i, value in enumerate(self.classes) if value is None]
        return np.where(np.isin(codes, missing), np.nan, codes) if missing else codes

    def _facts(self, target: Any) -> None:
        found = self.found
        if not len(target):
            return
        found.rows += len(target)
        found.low, found.high = min(found.low, float(target.min())), max(found.high, float(target.max()))
        if target.dtype.kind == "f":
            found.whole = found.whole and bool((target == np.rint(target)).all())
        if found.counts is None:
            return
        if len(target) > 4096 and len(np.unique(target[:4096])) > DISTINCT:
            found.counts = None
            return
        if found.whole and found.high - found.low < 1 << 16:
            base = int(target.min())
            counts = np.bincount(target.astype(np.int64) - base if base else target.astype(np.int64))
            pairs: Iterable[tuple[float, int]] = ((base + int(i), counts[i]) for i in np.flatnonzero(counts))
        else:
            values, each = np.unique(target, return_counts=True)
            pairs = zip(values, each, strict=True)
        for value, count in pairs:
            found.counts[float(value)] = found.counts.get(float(value), 0) + int(count)
        if len(found.counts) > DISTINCT:
            found.counts = None


def _is_text(column: Any) -> bool:
    if isinstance(column, np.ndarray):
        return column.dtype.kind in "USO"
    kind = str(getattr(column, "type", ""))
    return any(word in kind for word in ("string", "dictionary", "binary"))


def _finite(values: Any) -> Any:
    """Return which rows are finite; None where all are, as whole numbers and nearly all batches of others are."""
    # One number that is not finite makes the sum so, and a sum writes nothing. Where finite numbers overflow, all are
    # looked at.
    if values.dtype.kind != "f" or np.isfinite(np.sum(values)):
        return None
    return np.isfinite(values) if values.ndim == 1 else np.isfinite(values).all(axis=1)


def _both(a: Any, b: Any) -> Any:
    return a if b is None else b if a is None else a & b


def _numbers(batch: Batch, group: int) -> Any:
    """Return one column of numbers, floating-point ones with missing values as NaN."""
    parts = []
    for values, mask in batch.numbers(group):
        wide = values
        if mask is not None:
            wide = np.where(mask if wide.ndim == 1 else mask[:, None], wide.astype(np.float64), np.nan)
        parts.append(wide.reshape(len(wide), -1) if len(batch.groups[group]) > 1 else wide)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _plain(y: Any) -> Any:
    """Return targets as an array of one type: of Python objects, only numbers alone and text alone are one."""
    found = np.asarray(y)
    if found.dtype.kind != "O":
        return found
    kinds = {type(v) for v in found.ravel() if v is not None}
    if kinds and kinds <= {int, float, bool, np.float64, np.int64}:
        return np.array([np.nan if v is None else float(v) for v in found.ravel()]).reshape(found.shape)
    if kinds == {str}:
        return found
    names = ", ".join(sorted(k.__name__ for k in kinds)) or "nothing"
    raise InputError(f"y holds values of the types {names}; expected numbers alone or text alone")


def columns_of(y: Any, pred: Any, group: Any) -> tuple[Mapping[str, Any], tuple[str, ...], str | None]:
    """Return arrays as named columns, and the names of the predictions and of the group."""
    columns = {"target": _plain(y)}
    if pred is not None:
        columns["pred"] = np.asarray(pred)
    if group is not None:
        columns["group"] = np.asarray(group)
    return columns, ("pred",) * (pred is not None), "group" if group is not None else None
