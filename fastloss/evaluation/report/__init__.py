"""Report of an evaluation: statistics by loss, mergeable in any order, as a table and as JSON."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ..accumulate import Moments, Statistics
from ..columns import InputError, line, natural
from ..details import Details
from ..details.calibration import Calibration
from ..details.confusion import Confusion
from ..details.distribution import Distribution, Histogram
from ..details.gaps import SMALL, Gap, gaps_of, small_groups
from ..groups.keys import key_from_json, key_text, key_to_json
from .groups import GroupReports, united
from .tables import text_tables
from .text import aligned, figure

__all__ = ["GroupReports", "Report", "WorstRow", "aligned", "figure", "ranked"]

FORMAT = 1
COLUMNS = ("loss", "mean", "std", "min", "max", "count", "non-finite", "weight sum")


class WorstRow(NamedTuple):
    """Row of large loss: its file ("" for arrays and tables), its index there (from 0), its loss, columns to show."""

    file: str
    row: int
    loss: float
    shown: Mapping[str, Any] = MappingProxyType({})


class Report(Mapping[str, Statistics]):
    """Read-only mapping of each loss's label to its statistics.

    Attributes
    ----------
    rows : int
        Rows read.
    null_rows, non_finite_rows : int
        Rows with a null, or else a NaN or infinity, among prediction, target and weight.
    on_invalid : str
        Treatment of invalid rows: "fail", "skip" or "propagate".
    worst : mapping of str to list of WorstRow
        The rows of largest loss, by label of the loss.
    groups : mapping
        A report for each group, by its key: a value, or a tuple of values of crossed columns; None for a null. With
        several groupings, a mapping of these by their columns, joined by commas. Empty without `by`.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> report = fl.evaluate((np.array([0.5, 2.0]), np.array([0.0, 2.0])), losses=["mse", "mae"])
    >>> report["mse"].mean, report["mae"].max
    (0.125, 0.5)
    """

    def __init__(
        self,
        moments: Mapping[str, Moments],
        *,
        rows: int,
        null_rows: int,
        non_finite_rows: int,
        on_invalid: str,
        worst: Mapping[str, list[WorstRow]] | None = None,
        worst_k: int = 0,
        groups: Mapping[tuple[str, ...], Mapping[Any, "Report"]] | None = None,
        suspects: Iterable[str] = (),
        details: Details | None = None,
    ) -> None:
        self._moments = dict(moments)
        self.rows = rows
        self.null_rows = null_rows
        self.non_finite_rows = non_finite_rows
        self.on_invalid = on_invalid
        self.worst = {k: list(v) for k, v in (worst or {}).items()}
        self._worst_k = worst_k
        self._suspects = set(suspects)
        self._details = details
        self._gaps: list[Gap] | None = None
        self._groups = {
            names: found if isinstance(found, GroupReports) else GroupReports(found)
            for names, found in (groups or {}).items()
        }
        self._statistics: dict[str, Statistics] = {}

    def __getitem__(self, label: str) -> Statistics:
        # Rounded when they are asked for: a report may have a hundred thousand groups.
        found = self._statistics.get(label)
        if found is None:
            propagate = self.on_invalid == "propagate"
            found = self._statistics[label] = self._moments[label].statistics(propagate)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._moments)

    def __len__(self) -> int:
        return len(self._moments)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]

    @property
    def groups(self) -> Mapping[Any, Any]:
        """Reports of groups by key; with several groupings, these by the names of their columns."""
        if len(self._groups) == 1:
            return next(iter(self._groups.values()))
        return {",".join(names): found for names, found in self._groups.items()}

    @property
    def weighted(self) -> bool:
        """Whether rows were weighted."""
        return any(s.weight_sum is not None for s in self.values())

    @property
    def distributions(self) -> Mapping[str, Distribution]:
        """Distribution of each loss, by label; empty unless `hist` or `quantiles` asked for it."""
        return dict(self._details.distributions) if self._details else {}

    @property
    def quantiles(self) -> dict[str, dict[float, float]]:
        """Quantiles of each loss that `quantiles` asked for: by label, then by share."""
        shares = self._details.options.quantiles if self._details else ()
        if not shares:
            return {}
        return {n: dict(zip(shares, d.quantile(shares).tolist(), strict=True)) for n, d in self.distributions.items()}

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Histograms that `hist` asked for: of each loss, then of "prediction" and "target" where they are numbers."""
        if not self._details or not self._details.options.hist:
            return {}
        found = {**self._details.columns, **self._details.distributions}
        names = [*self._details.distributions, *(n for n in self._details.columns if n not in self)]
        return {n: found[n].histogram(self._details.options.hist) for n in names}

    @property
    def calibration(self) -> Calibration | None:
        """Calibration that `calibration` asked for; None without."""
        return self._details.calibration if self._details else None

    @property
    def confusion(self) -> dict[Any, Confusion]:
        """Confusion counts by threshold, or of classes under "argmax"; empty unless asked for."""
        found = self._details.confusions if self._details else None
        return found.by_threshold() if found else {}

    @property
    def gaps(self) -> list[Gap]:
        """Largest differences between groups that `gaps` asked for, of losses and of rates of decisions."""
        if not self._details or not self._details.options.gaps:
            return []
        if self._gaps is None:
            self._gaps = [gap for names, groups in self._groups.items() for gap in gaps_of(names, groups)]
        return list(self._gaps)

    @property
    def details(self) -> Details | None:
        """Mergeable state behind histograms, calibration, decisions and gaps; None where none was asked for."""
        return self._details

    @property
    def tables(self) -> list[str]:
        """Names of the tables that `to_arrow` and `to_pandas` have."""
        found = {"losses": True, "quantiles": self.quantiles, "histogram": self.histograms}
        found |= dict.fromkeys(("calibration", "calibration_figures"), self.calibration)
        found |= dict.fromkeys(("confusion", "decisions"), self.confusion)
        found["gaps"] = self._details is not None and self._details.options.gaps
        return [name for name, each in found.items() if each]

    def merge(self, *others: "Report") -> "Report":
        """Return the combined report of this and other rows: the same bits in any order and for any split.

        Examples
        --------
        >>> import numpy as np, fastloss as fl
        >>> z, t = np.linspace(-3, 3, 10), np.arange(10) % 2
        >>> a, b = (fl.evaluate((z[i::2], t[i::2]), losses="bce_with_logits") for i in (0, 1))
        >>> b.merge(a) == fl.evaluate((z, t), losses="bce_with_logits")
        True
        """
        merged = self
        for other in others:
            if not isinstance(other, Report):
                raise TypeError(f"cannot merge a report with a {type(other).__name__}")
            merged = merged._merged(other)
        return merged

    def _merged(self, other: "Report") -> "Report":
        if set(self) != set(other):
            raise InputError(f"cannot merge reports of different losses: {', '.join(self)} and {', '.join(other)}")
        if self.on_invalid != other.on_invalid:
            raise InputError(f"cannot merge reports with on_invalid {self.on_invalid!r} and {other.on_invalid!r}")
        if set(self._groups) != set(other._groups):
            mine, theirs = (" and ".join(",".join(n) for n in r._groups) or "none" for r in (self, other))
            raise InputError(f"cannot merge reports by {mine} and by {theirs}")
        if (self._details is None) != (other._details is None):
            raise InputError("cannot merge a report with details, such as histograms, and one without")
        k = min(self._worst_k, other._worst_k)
        worst = {n: ranked(self.worst.get(n, []) + other.worst.get(n, []), k) for n in self} if k else None
        return Report(
            {n: m.merge(other._moments[n]) for n, m in self._moments.items()},
            rows=self.rows + other.rows,
            null_rows=self.null_rows + other.null_rows,
            non_finite_rows=self.non_finite_rows + other.non_finite_rows,
            on_invalid=self.on_invalid,
            worst=worst,
            worst_k=k,
            groups={names: united(found, other._groups[names]) for names, found in self._groups.items()},
            # Of no rows nothing is known.
            suspects=self._suspects & other._suspects if self.rows and other.rows else self._suspects | other._suspects,
            details=self._details.merge(other._details) if self._details and other._details else None,
        )

    def beside(self, *others: "Report", order: Sequence[str]) -> "Report":
        """Return one report with the losses of several reports of the same rows."""
        reports = (self, *others)
        moments = {n: m for r in reports for n, m in r._moments.items()}
        worst = {n: w for r in reports for n, w in r.worst.items()}
        details = [r._details for r in reports if r._details]
        return Report(
            {n: moments[n] for n in order if n in moments},
            rows=self.rows,
            null_rows=max(r.null_rows for r in reports),
            non_finite_rows=max(r.non_finite_rows for r in reports),
            on_invalid=self.on_invalid,
            worst={n: worst[n] for n in order if n in worst},
            worst_k=self._worst_k,
            groups={
                names: {
                    key: r.beside(*(o._groups[names][key] for o in others), order=order) for key, r in found.items()
                }
                for names, found in self._groups.items()
            },
            suspects=set().union(*(r._suspects for r in reports)),
            details=details[0].beside(details[1:], order) if details else None,
        )

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "format": FORMAT,
            "on_invalid": self.on_invalid,
            "rows": self.rows,
            "null_rows": self.null_rows,
            "non_finite_rows": self.non_finite_rows,
            "losses": {n: {**_plain(s), "exact": self._moments[n].to_dict()} for n, s in self.items()},
        }
        if self._worst_k:
            state["worst_k"] = self._worst_k
            # JSON has no infinity; a string tells it from a number.
            state["worst"] = {n: [_row_state(w) for w in rows] for n, rows in self.worst.items()}
        if self._details:
            state["details"] = self._details.to_dict()
        if self._suspects:
            state["suspects"] = sorted(self._suspects)
        if self._groups:
            state["groups"] = [
                {"by": list(names), "found": [{"key": key_to_json(key), **r._state()} for key, r in found.items()]}
                for names, found in self._groups.items()
            ]
        return state

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return self._state()

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as JSON: rounded figures to read, and the exact state for `from_json` and `merge`.

        A figure that is not finite is null.
        """
        return json.dumps(self._state(), indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Return the report that `to_json` wrote."""
        try:
            return cls._from_state(json.loads(text))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InputError(f"not a report of fastloss: {error}") from None

    @classmethod
    def _from_state(cls, state: dict[str, Any]) -> "Report":
        if state["format"] != FORMAT:
            raise InputError(f"the report has format {state['format']!r}; this version reads {FORMAT}")
        return cls(
            {n: Moments.from_dict(s["exact"]) for n, s in state["losses"].items()},
            rows=state["rows"],
            null_rows=state["null_rows"],
            non_finite_rows=state["non_finite_rows"],
            on_invalid=state["on_invalid"],
            worst={
                n: [WorstRow(f, r, float(v), *more) for f, r, v, *more in rows]
                for n, rows in state.get("worst", {}).items()
            },
            worst_k=state.get("worst_k", 0),
            groups={
                tuple(g["by"]): {key_from_json(r["key"]): cls._from_state(r) for r in g["found"]}
                for g in state.get("groups", [])
            },
            suspects=state.get("suspects", ()),
            details=Details.from_dict(state["details"]) if "details" in state else None,
        )

    def table(self) -> list[tuple[str, ...]]:
        """Return headings and one row of text for each loss."""
        shown = len(COLUMNS) if self.weighted else len(COLUMNS) - 1
        body = [
            (n, *map(figure, (s.mean, s.std, s.min, s.max)), f"{s.count:,}", f"{s.non_finite:,}", figure(s.weight_sum))
            for n, s in self.items()
        ]
        return [row[:shown] for row in (COLUMNS, *body)]

    def worst_table(self, label: str) -> list[tuple[str, ...]]:
        """Return headings and one row of text for each of a loss's worst rows: its place, columns shown, the loss."""
        worst = self.worst[label]
        names = tuple(worst[0].shown) if worst else ()
        body = [
            (
                w.file or "-",
                f"{w.row}",
                str(line(w.file, w.row) or ""),
                *(_cell(w.shown.get(n)) for n in names),
                figure(w.loss),
            )
            for w in worst
        ]
        heading = ("file", "row, from 0", "line", *names, "loss")
        kept = [i for i in range(len(heading)) if i != 2 or any(row[2] for row in body)]
        return [tuple(row[i] for i in kept) for row in (heading, *body)]

    def group_table(self, names: tuple[str, ...], sort: str = "", top: int = 0) -> list[tuple[str, ...]]:
        """Return headings and one row of text for each group: its key, the mean of each loss, the number of rows.

        Sorted by key, or by `sort`: the label of a loss, largest mean first, or "count". Of one loss, its other
        statistics follow. `top` groups at the most; 0 stands for all.
        """
        single = next(iter(self)) if len(self) == 1 else None
        heading = (*names, *(self if single is None else (f"{single} mean", "std", "min", "max")), "count")
        body = []
        for key, report in self._ordered(names, sort, top):
            parts = key if len(names) > 1 else (key,)
            means = [s.mean for s in report.values()]
            if single is not None:
                only = report[single]
                means = [only.mean, only.std, only.min, only.max]
            count = max(s.count for s in report.values())
            body.append((*map(key_text, parts), *map(figure, means), f"{count:,}"))
        return [heading, *body]

    def _ordered(self, names: tuple[str, ...], sort: str, top: int) -> list[tuple[Any, "Report"]]:
        """Return the first groups in the order that `sort` names."""
        groups = self._groups[names]
        found = [(key, groups[key]) for key in (list(groups)[: top or None] if not sort else groups)]
        if sort == "count":
            found.sort(key=lambda each: -each[1].rows)
        elif sort:
            # A group without a mean comes last.
            found.sort(key=lambda each: (math.isnan(each[1][sort].mean), -each[1][sort].mean))
        return found[: top or None]

    @property
    def groupings(self) -> list[tuple[str, ...]]:
        """Columns of each grouping."""
        return list(self._groups)

    def reports_by(self, names: tuple[str, ...]) -> Mapping[Any, "Report"]:
        """Return the reports of the groups of a grouping, by key."""
        return self._groups[names]

    def group_means(self, names: tuple[str, ...], sort: str = "", top: int = 0) -> list[float]:
        """Return the mean of the first loss of the groups that `group_table` shows."""
        label = next(iter(self))
        return [report[label].mean for _, report in self._ordered(names, sort, top)]

    def to_html(self, title: str = "Losses") -> str:
        """Return a page of HTML that needs nothing but itself: statistics, up to 200 groups, the worst rows."""
        from .page import html_page

        return html_page([(title, self)])

    def to_arrow(self, table: str = "losses") -> Any:
        """Return a table of Arrow: a row for each loss of all rows, and for each loss of each group.

        `table` names another one of `tables`, such as "quantiles", where it was asked for.
        """
        import pyarrow as pa

        from .page import table_of
        from .tables import columns_of

        if table not in self.tables:
            raise InputError(f"the report has no table {table!r}; it has {', '.join(self.tables)}")
        return pa.table(table_of(self) if table == "losses" else columns_of(self, table))

    def to_pandas(self, table: str = "losses") -> Any:
        """Return the table of `to_arrow` as a data frame of pandas."""
        found = self.to_arrow(table)
        try:
            return found.to_pandas()
        except ModuleNotFoundError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas", name="pandas") from error

    def _repr_html_(self) -> str:
        """Return the tables as a notebook shows them."""
        from .page import html_tables

        return "\n".join(html_tables(self, top=20))

    def group_count(self, names: tuple[str, ...]) -> int:
        """Return the number of groups of a grouping."""
        return len(self._groups[names])

    def warnings(self) -> list[str]:
        """Return sentences about figures that are probably not what was meant."""
        found = [n for n in self if n in self._suspects]
        if not found:
            return []
        takes = f"{' and '.join(found)} {'takes' if len(found) == 1 else 'take'} logits"
        hint = 'pred_is="prob" converts them if they are probabilities'
        return [f"{takes}, and all predictions lie in [0, 1]; {hint}"]

    def notes(self) -> list[str]:
        """Return sentences about rows that were left out, ignored or propagated."""
        done = {"skip": "left out", "propagate": "propagated", "fail": ""}[self.on_invalid]
        found = [(self.null_rows, "with a null"), (self.non_finite_rows, "with a NaN or infinity")]
        notes = [f"{n:,} of {self.rows:,} rows {what}: {done}" for n, what in found if n]
        notes += [f"{n}: {s.ignored:,} rows ignored by their label" for n, s in self.items() if s.ignored]
        if self._details and self._details.options.gaps:
            for names, groups in self._groups.items():
                if few := small_groups(groups):
                    notes.append(f"{few:,} of {len(groups):,} groups by {','.join(names)} have fewer than {SMALL} rows")
        return notes

    def __repr__(self) -> str:
        notes = self.notes()
        notes += [f"{len(found):,} groups by {','.join(names)}" for names, found in self._groups.items()]
        more = [line for title, rows, left in text_tables(self) for line in ("", title, *aligned(rows, left))]
        return "\n".join([*aligned(self.table(), 1), *notes, *self.warnings(), *more])


def ranked(rows: list[WorstRow], k: int) -> list[WorstRow]:
    """Return the k rows of largest loss, the first among equals."""
    return sorted(rows, key=lambda w: (-w.loss, natural(w.file), w.row))[:k]


SHOWN = 60
"""Most characters of a cell of a worst row."""


def _cell(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _row_state(w: WorstRow) -> list[Any]:
    return [w.file, w.row, _finite(w.loss), *([dict(w.shown)] if w.shown else [])]


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _plain(s: Statistics) -> dict[str, Any]:
    figures: dict[str, float | None] = {k: getattr(s, k) for k in ("mean", "std", "min", "max", "weight_sum")}
    plain: dict[str, Any] = {k: v if v is None or math.isfinite(v) else None for k, v in figures.items()}
    if s.weight_sum is None:
        del plain["weight_sum"]
    return {**plain, "count": s.count, "non_finite": s.non_finite, "ignored": s.ignored}
