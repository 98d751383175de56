"""Comparison of two predictions of the same rows: paired differences of losses, with intervals."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..accumulate import Moments, Partial, Partials
from ..columns import InputError, with_arrow
from ..fixed_point import BIAS
from ..groups import groupings_of
from ..groups.keys import key_order, key_text
from ..intervals import Estimate, adjusted, bootstrapped, estimated, of_buckets, t_quantile
from ..losses import named
from ..report import aligned, figure
from ..run import results
from ..sources import Selection, open_source
from .pairs import BucketSums, PairPlan

__all__ = ["Comparison", "Difference", "compare"]

LARGE_SHARE = 0.2
"""Share of the sum of squared differences that one row may have, before the variance looks infinite.

With a finite variance the largest share tends to 0: 0.06 in the median for 5,000 rows of Student's t with 3 degrees of
freedom, and 0.4 with 1.5, where the variance is infinite.
"""

FEW_CLUSTERS = 20
"""Fewest clusters for which intervals by Student's t hold their level."""

POWER = 0.8
"""Chance to find the difference that is called detectable."""


class Difference(NamedTuple):
    """Paired difference of one loss between two predictions of the same rows."""

    first: float
    """Mean loss of the first prediction."""
    second: float
    """Mean loss of the second."""
    difference: float
    """First minus second: negative where the first is better."""
    standard_error: float
    low: float
    """End of the interval of the difference."""
    high: float
    p_value: float
    """Two-sided p value of no difference; for groups, corrected for their number."""
    detectable: float
    """Least difference that a test at this level would find four times in five."""
    wins: int
    """Rows where the first has the smaller loss."""
    ties: int
    losses: int
    """Rows where the first has the larger loss."""
    rows: int
    """Rows compared."""


class Comparison(Mapping[str, Difference]):
    """Read-only mapping of each loss's label to its paired `Difference`.

    Attributes
    ----------
    confidence : float
        Level of the intervals.
    method : str
        How they were computed: "t" from the rows, "clusters" from sums of buckets, or "bootstrap".
    groups : dict
        For each group, a dictionary of loss to `Difference`, where `by` was given; `wins`, `ties` and `losses` are 0
        there. With several groupings, a dictionary of these by their columns.
    notes : list of str
        Sentences about rows left out and about figures to doubt.
    """

    def __init__(
        self,
        found: Mapping[str, Difference],
        *,
        confidence: float,
        method: str,
        groups: Mapping[tuple[str, ...], Mapping[Any, Mapping[str, Difference]]],
        notes: Sequence[str],
    ) -> None:
        self._found = dict(found)
        self.confidence = confidence
        self.method = method
        self._groups = {names: dict(each) for names, each in groups.items()}
        self.notes = list(notes)

    def __getitem__(self, label: str) -> Difference:
        return self._found[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def groups(self) -> dict[Any, Any]:
        """Differences by group; with several groupings, these by the names of their columns."""
        if len(self._groups) == 1:
            return dict(next(iter(self._groups.values())))
        return {",".join(names): dict(found) for names, found in self._groups.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-compatible values; a figure that is not finite is None."""
        return {
            "confidence": self.confidence,
            "method": self.method,
            "losses": {label: _plain(found) for label, found in self.items()},
            "groups": [
                {
                    "by": list(names),
                    "found": [
                        {"key": [key_text(k) for k in (key if len(names) > 1 else (key,))], "losses": losses}
                        for key, each in found.items()
                        for losses in [{label: _plain(d) for label, d in each.items()}]
                    ],
                }
                for names, found in self._groups.items()
            ],
            "notes": self.notes,
        }

    def tables(self) -> list[tuple[str, list[tuple[str, ...]], int]]:
        """Return title, heading and rows of text, and number of columns of text, of all rows and of each grouping."""
        level = f"{100 * self.confidence:g}% interval"
        heading = ("first", "second", "difference", level, "p")
        body = [(label, *_shown(found)) for label, found in self.items()]
        tables = [("", [("loss", *heading), *body], 1)]
        for names, groups in self._groups.items():
            for label in self:
                rows = [
                    (
                        *map(key_text, key if len(names) > 1 else (key,)),
                        *_shown(each[label])[2:],
                        f"{each[label].rows:,}",
                    )
                    for key, each in groups.items()
                ]
                tables.append((f"{label} by {', '.join(names)}", [(*names, *heading[2:], "rows"), *rows], len(names)))
        return tables

    def __repr__(self) -> str:
        lines: list[str] = []
        for title, rows, left in self.tables():
            lines += ([""] if lines else []) + ([title] if title else []) + aligned(rows, left)
        return "\n".join([*lines, *self.notes])


def _plain(found: Difference) -> dict[str, Any]:
    return {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in found._asdict().items()}


def _shown(found: Difference) -> tuple[str, ...]:
    p = found.p_value
    interval = f"{found.low:.3g} to {found.high:.3g}"
    shown_p = "-" if math.isnan(p) else "< 1e-9" if p < 1e-9 else f"{p:.2g}"
    means = (figure(None if math.isnan(x) else x) for x in (found.first, found.second))
    return *means, f"{found.difference:.4g}", interval, shown_p


def compare(
    data: Any,
    losses: Any,
    *,
    against: Any,
    pred: str | Sequence[str] = "pred",
    target: str | None = "target",
    weight: str | None = None,
    on: str | None = None,
    by: Any = None,
    cluster_by: str | Sequence[str] = (),
    confidence: float = 0.95,
    bootstrap: bool = False,
    correction: str = "holm",
    pred_is: str = "",
    on_invalid: str = "fail",
    threads: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Comparison:
    """Compare the losses of two predictions of the same rows, by paired differences.

    The two losses of a row are alike, as the row is easy or hard for both. The mean of their differences is therefore
    known far better than the difference of two means.

    Parameters
    ----------
    data : as for `evaluate`
        Rows with both predictions; or, with `on`, those of the first.
    losses : str, Loss, or sequence of these
        Losses of single rows.
    against : str or sequence of str; with `on` as `data`
        Column of the second prediction; with `on`, the input that holds it, whose columns have the same names.
    pred, target, weight, pred_is, on_invalid, threads, progress
        As for `evaluate`. A row that is invalid under one prediction counts under neither.
    on : str, optional
        Column of an identifier by which rows of two inputs are joined, in memory.
    by : str or sequence of str or tuples, optional
        Columns of groups that are compared on their own, with p values corrected for the number of groups. With
        clusters, weights or the bootstrap, up to 400,000 pairs of a group and a bucket.
    cluster_by : str or sequence of str, optional
        Columns whose values together name a cluster of rows that are not independent, such as a user. Intervals then
        come from the sums of 4,096 buckets of clusters.
    confidence : float
        Level of intervals.
    bootstrap : bool
        Take BCa intervals of 2,000 samples of 4,096 buckets, which follow the skewness of the differences, in place of
        Student's t.
    correction : {"holm", "bh"}
        Correction of p values of groups: the chance of any false finding, or the share of false ones among findings.

    Returns
    -------
    Comparison
        A mapping of each loss's label to its `Difference`; its repr is a table.

    Raises
    ------
    InputError
        A ValueError: what `evaluate` raises, identifiers that are not unique, targets that differ between inputs.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> rng = np.random.default_rng(0)
    >>> target, noise = rng.normal(size=200), rng.normal(size=200)
    >>> data = {"a": target + noise, "b": target + 1.1 * noise, "t": target}
    >>> found = fl.compare(data, "mse", pred="a", against="b", target="t")["mse"]
    >>> found.wins, found.high < 0
    (200, True)
    """
    from .. import ON_INVALID, thread_count

    if on_invalid not in ON_INVALID[:2]:
        raise InputError(f"on_invalid is {on_invalid!r}; allowed: {', '.join(ON_INVALID[:2])}")
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence is {confidence!r}; expected a number between 0 and 1, such as 0.95")
    if correction not in ("holm", "bh"):
        raise InputError(f"correction is {correction!r}; allowed: holm, bh")
    evaluated = named(losses, pred_is)
    if mean := next((e.figure for e in evaluated if e.figure), ""):
        raise InputError(f"{mean} is no mean over rows; compare cross_entropy, whose exponential it is")
    groupings, _ = groupings_of(by)
    clusters = (cluster_by,) if isinstance(cluster_by, str) else tuple(cluster_by)
    from_buckets = bool(clusters or weight or bootstrap)
    # With buckets, the columns of groups are read for pairs of a group and a bucket.
    keys = (clusters, *(tuple(dict.fromkeys((*g, *clusters))) for g in groupings)) if from_buckets else groupings
    preds = (pred,) if isinstance(pred, str) else tuple(pred)
    if on is None:
        others = (against,) if isinstance(against, str) else tuple(against)
        if len(others) != len(preds):
            raise InputError(f"against names {len(others)} columns and pred {len(preds)}; expected as many")
        notes: list[str] = []
        source, selection = open_source(data, Selection((*preds, *others), target, weight, keys))
    else:
        asked = Selection(preds, target, weight, keys)
        table, selection, notes = with_arrow("compare.join").joined_table(data, against, on, asked)
        source, selection = open_source(table, selection)
    by_names = selection.by
    if from_buckets:
        by_names = tuple(names[: len(g)] for names, g in zip(selection.by[1:], groupings, strict=True))
    named_clusters = selection.by[0] if from_buckets else None
    plan = PairPlan(evaluated, selection.weight is not None, on_invalid, by_names, named_clusters)
    partials = Partials(3 * len(evaluated), plan.weighted)
    total, done, invalid = source.total() if progress is not None else None, 0, 0
    for result in results(source, selection, plan, thread_count(threads)):
        for mine, part in zip(partials, result.partials, strict=True):
            mine.merge(part)
        done += result.rows
        invalid += result.null_rows + result.non_finite_rows
        if progress is not None:
            progress(done, total)
    if invalid:
        notes.append(f"{invalid:,} of {done:,} rows with a null, a NaN or an infinity: left out")
    return _compared(plan, partials, groupings, clusters, confidence, bootstrap, correction, notes)


def _compared(
    plan: PairPlan,
    partials: Sequence[Partial],
    groupings: Sequence[tuple[str, ...]],
    clusters: tuple[str, ...],
    confidence: float,
    bootstrap: bool,
    correction: str,
    notes: list[str],
) -> Comparison:
    found = {}
    sums = plan.bucket_sums(0).get(None, [_NOTHING] * len(plan.losses)) if plan.from_buckets else []
    for k, e in enumerate(plan.losses):
        first, second, moments = (p.moments() for p in partials[3 * k : 3 * k + 3])
        estimate = _of_buckets(sums[k], confidence, bootstrap) if sums else _of_rows(moments, confidence)
        means = first.statistics(False).mean, second.statistics(False).mean
        ranks = tuple(plan.wins[k].tolist())
        found[e.label] = _difference(*means, moments.finite, estimate, ranks, confidence)
        notes += _doubts(e.label, moments, estimate, bool(clusters))
    groups: dict[tuple[str, ...], Any] = {}
    for j, names in enumerate(groupings):
        estimates = _group_estimates(plan, j, confidence, bootstrap)
        groups[names] = _by_group(plan, estimates, confidence, correction)
        few = sum(any(x.degrees + 1 < FEW_CLUSTERS for x, _ in each) for each in estimates.values())
        if few and clusters:
            notes.append(
                f"by {','.join(names)}: {few} groups have fewer than {FEW_CLUSTERS} clusters, too few to trust"
            )
    method = "bootstrap" if bootstrap else "clusters" if clusters or plan.weighted else "t"
    return Comparison(found, confidence=confidence, method=method, groups=groups, notes=notes)


_NOTHING = BucketSums(np.zeros(0), np.zeros(0), 0)


def _of_buckets(sums: BucketSums, confidence: float, bootstrap: bool) -> Estimate:
    """Return the estimate of a mean from the sums of buckets and their weights."""
    if bootstrap:
        return bootstrapped(sums.sums, sums.weights, confidence)
    return estimated(*of_buckets(sums.sums, sums.weights), confidence)


def _group_estimates(
    plan: PairPlan, grouping: int, confidence: float, bootstrap: bool
) -> dict[Any, list[tuple[Estimate, int]]]:
    """Return estimate and number of rows, of each loss, for each group of a grouping."""
    assert plan.groups is not None
    if plan.from_buckets:
        sums = plan.bucket_sums(grouping + 1)
        return {key: [(_of_buckets(x, confidence, bootstrap), x.rows) for x in each] for key, each in sums.items()}
    found = plan.groups.found(grouping, [""] * len(plan.losses))
    return {key: [(_of_rows(m, confidence), m.finite) for m in moments] for key, _, moments in found}


def _by_group(
    plan: PairPlan, estimates: dict[Any, list[tuple[Estimate, int]]], confidence: float, correction: str
) -> dict[Any, dict[str, Difference]]:
    """Return the differences of each group, with corrected p values."""
    labels = [e.label for e in plan.losses]
    found: dict[Any, dict[str, Difference]] = {}
    for key in sorted(estimates, key=key_order):
        found[key] = {
            label: _difference(math.nan, math.nan, rows, estimate, (0, 0, 0), confidence)
            for label, (estimate, rows) in zip(labels, estimates[key], strict=True)
        }
    for label in labels:
        p_values = adjusted([each[label].p_value for each in found.values()], correction)
        for each, p_value in zip(found.values(), p_values, strict=True):
            each[label] = each[label]._replace(p_value=p_value)
    return found


def _of_rows(moments: Moments, confidence: float) -> Estimate:
    """Return the estimate of the mean of independent rows."""
    found = moments.statistics(False)
    degrees = found.count - 1
    standard_error = found.std / math.sqrt(degrees) if degrees > 0 else math.nan
    return estimated(found.mean, standard_error, degrees, confidence)


def _difference(
    first: float, second: float, rows: int, estimate: Estimate, ranks: tuple[int, int, int], confidence: float
) -> Difference:
    detectable = math.nan
    if estimate.degrees >= 1:
        degrees = estimate.degrees
        detectable = (t_quantile(0.5 + confidence / 2, degrees) + t_quantile(POWER, degrees)) * estimate.standard_error
    return Difference(
        first,
        second,
        estimate.mean,
        estimate.standard_error,
        estimate.low,
        estimate.high,
        estimate.p_value,
        detectable,
        *ranks,
        rows,
    )


def _doubts(label: str, moments: Moments, estimate: Estimate, clustered: bool) -> list[str]:
    """Return sentences about an interval that may be wrong."""
    found = []
    if clustered and estimate.degrees + 1 < FEW_CLUSTERS:
        found.append(f"{label}: {estimate.degrees + 1} clusters are few; intervals are reliable from {FEW_CLUSTERS}")
    if len(moments.sums) == 2 and moments.finite >= 100:
        squares = moments.sums[1] / (1 << BIAS)
        share = max(moments.low**2, moments.high**2) / squares if squares > 0 else 0.0
        if share > LARGE_SHARE:
            found.append(
                f"{label}: one row has {share:.0%} of the squared differences, as where the variance is infinite; "
                "the interval may be too narrow"
            )
    return found
