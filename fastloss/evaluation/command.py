"""Implementation of `fastloss eval`: evaluation, progress display, tables and output files."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from .._terminal import console as make_console
from .._terminal import printable
from . import evaluate
from .columns import InputError, place, with_arrow
from .details.command import asked, print_details, suited
from .files import check_outputs, write_text
from .losses import Evaluated, named, other_name
from .report import Report, aligned, figure
from .sources import Selection, input_files

__all__ = ["Request", "evaluate_command", "in_options", "print_rows", "progress_shown"]


@dataclass(frozen=True)
class Request:
    """Options of one `fastloss eval` command."""

    paths: list[str]
    losses: list[str]
    pred: list[str]
    target: str | None
    weight: str | None
    on_invalid: str
    worst: int
    json: str | None
    per_sample: str | None
    sample: bool
    threads: int | None
    show: tuple[str, ...] = ()
    format: str = ""
    sql: str = ""
    positive: str | None = None
    classes: tuple[str, ...] = ()
    resume: str | None = None
    scheduler: str | None = None
    by: tuple[tuple[str, ...], ...] = ()
    sort: str = ""
    top: int = 20
    pred_is: str = ""
    html: str | None = None
    markdown: str | None = None
    csv: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `evaluate` that ask for details."""

    @property
    def selection(self) -> Selection:
        """Columns to read."""
        return Selection(tuple(self.pred), self.target, self.weight, self.by, self.show)


OPTIONS = (
    (r"on_invalid: (\w+)", r"--on-invalid \1"),
    (r"pred_is=[\"']([\w-]+)[\"']", r"--pred-is \1"),
    (r"by pred '", "by --pred '"),
    (r"such as by='(\w+)'", r"such as --by \1"),
    (r"^(hist|quantiles|threshold) (is|has|names)\b", r"--\1 \2"),
    (r"so pred as often", "so --pred as often"),
    (r"for (pred|target|weight|by|show)(?=;)", r"for --\1"),
    (
        r"^show (.+) is of the worst rows; give worst as well, such as worst=10",
        r"--show \1 is of --worst rows; give it too",
    ),
    (r"format='csv' names another", "--format csv names another"),
    (r"positive='yes' or classes=\['a', 'b'\]", "--positive yes or --classes a,b"),
    (r"^(format|sql|resume|positive|classes|scheduler)(?=: | is | and | keeps )", r"--\1"),
    (r"^per_sample(?= is written in)", "--per-sample"),
)
"""Arguments of `evaluate` that messages name, and the options of the command that they are."""


def in_options(text: str) -> str:
    """Return a message of `evaluate` with its arguments named as options of the command."""
    text = re.sub(r"(?<= )(row \d+)(?=: )|^(row \d+)(?=: )", r"\1\2 (from 0)", text)
    for pattern, option in OPTIONS:
        text = re.sub(pattern, option, text)
    return text


def evaluate_command(request: Request) -> None:
    """Evaluate and print the report; with `--json -` only the JSON goes to stdout."""
    try:
        _evaluate(request)
    except InputError as error:
        raise InputError(in_options(str(error))) from None


def _evaluate(request: Request) -> None:
    losses = _losses(request)
    labels = [e.label for e in losses]
    if request.sort and request.sort not in [*labels, "count"]:
        raise InputError(f"--sort is {request.sort!r}; allowed: {', '.join([*labels, 'count'])}")
    _check_outputs(request)
    reports = _sample(request, losses) if request.sample else [("", _files(request, losses))]
    for _, report in reports:
        if not report.rows:
            raise InputError(f"{', '.join(request.paths) or 'the input'} has no rows; expected at least one")
        for warning in report.warnings():
            text = f"warning: {printable(in_options(warning))}"
            make_console(stderr=True).print(text, style="yellow", soft_wrap=True)
    if request.json is not None:
        _write_json(request.json, reports)
    _write_pages(request, reports)
    if "-" not in (request.json, request.html, request.markdown, request.csv):
        console = make_console()
        for i, (title, report) in enumerate(reports):
            if i:
                console.print()
            _print(console, title, report)
            print_details(console, report, print_rows)
            for names in request.by:
                _print_groups(console, report, names, request)
        if request.per_sample is not None:
            console.print(f"loss of every row: {printable(request.per_sample)}", soft_wrap=True)


def _check_outputs(request: Request) -> None:
    written = (request.json, request.html, request.markdown, request.csv)
    if sum(o == "-" for o in written) > 1:
        raise InputError("several outputs are -; expected one on the standard output")
    outputs = [o for o in (*written, request.per_sample, *_tables(request).values()) if o not in (None, "-")]
    if outputs:
        check_outputs(outputs, [] if request.sample else input_files(request.paths, request.selection))


def _losses(request: Request) -> list[Evaluated]:
    from ..data import SAMPLES

    names = request.losses
    if not names:
        if not request.sample:
            raise InputError("no --loss; name at least one, such as --loss mse (fastloss list shows all)")
        names = [n for s in SAMPLES for n in s.losses]
    try:
        found = named(names, request.pred_is)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(error)) from None
    for note in filter(None, map(other_name, names)):
        print(f"fastloss: {printable(note)}", file=sys.stderr)
    return found


def _files(request: Request, losses: list[Evaluated]) -> Report:
    if not request.pred:
        raise InputError("no --pred; name the column of the prediction")
    if request.target is None and any(e.loss.record.target is not None for e in losses):
        raise InputError("no --target; name the column of the target")
    with progress_shown() as (progress, shown):
        if not (request.sql or request.resume or request.positive or request.classes):
            _compile([(request.paths, request.selection, losses)], shown, request)
        return evaluate(
            _data(request),
            request.losses if request.scheduler else losses,
            pred=request.pred,
            target=request.target,
            weight=request.weight,
            by=list(request.by) or None,
            on_invalid=request.on_invalid,
            worst=request.worst,
            show=request.show,
            format=request.format,
            positive=request.positive,
            classes=request.classes,
            resume=request.resume,
            scheduler=request.scheduler,
            per_sample=request.per_sample,
            threads=request.threads,
            progress=progress,
            **request.details,
        )


def _data(request: Request) -> Any:
    """Return the paths, or the relation of a query."""
    if not request.sql:
        return request.paths
    if request.paths:
        raise InputError(f"--sql names its own tables; expected no {request.paths[0]} beside it")
    return with_arrow("inputs.objects").query(request.sql)


def _sample(request: Request, losses: list[Evaluated]) -> list[tuple[str, Report]]:
    """Return one report for each sample file that the losses need."""
    from ..data import SAMPLES, sample_for

    if request.paths or request.pred or request.target or request.weight or request.per_sample or request.by:
        raise InputError(
            "--sample brings its own files and columns; "
            "no paths, --pred, --target, --weight, --by or --per-sample beside it"
        )
    chosen: dict[tuple[str, str, str], list[Evaluated]] = {}
    for e in losses:
        found = sample_for(e.loss)
        if found is None:
            raise InputError(
                f"the sample holds nothing that {e.loss.name} could be evaluated on; try it on a file of yours"
            )
        chosen.setdefault((found[0].file, *found[1:]), []).append(e)
    reports = []
    with progress_shown() as (progress, shown):
        paths = {s.file: s.path for s in SAMPLES}
        _compile([([paths[f]], Selection((p,), t, None), es) for (f, p, t), es in chosen.items()], shown, request)
        for s in SAMPLES:
            parts = [
                evaluate(
                    s.path,
                    es,
                    pred=pred,
                    target=target,
                    on_invalid=request.on_invalid,
                    worst=request.worst,
                    threads=request.threads,
                    progress=progress,
                    **suited(request.details, es, request.pred_is),
                )
                for (file, pred, target), es in chosen.items()
                if file == s.file
            ]
            if parts:
                report = parts[0].beside(*parts[1:], order=[e.label for e in losses])
                reports.append((f"{s.title} {report.rows:,} held-out predictions", report))
    return reports


def _compile(parts: list[tuple[list[str], Selection, list[Evaluated]]], shown: Any, request: Request) -> None:
    """Compile what evaluations will need, by the types and widths of their first rows."""
    from .ahead import Job, compile_ahead, jobs_of

    # A pipe can be read but once. What is wrong with a file, its evaluation says.
    with suppress(InputError, OSError):
        if all(os.path.isfile(f) for paths, selection, _ in parts for f in input_files(paths, selection)):
            given = [*request.details], request.weight is not None
            more = [Job("details", "details", given)] if request.details else []
            compile_ahead([*jobs_of(parts), *more], shown)


@contextmanager
def progress_shown() -> Iterator[tuple[Callable[[int, int | None], None] | None, Callable[[str], None] | None]]:
    """Yield two callbacks that draw progress on a terminal, for rows done and for messages; None in a pipe."""
    if not sys.stderr.isatty():
        yield None, None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[rows]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[unit]}"),
    )
    with Progress(*columns, console=make_console(stderr=True), transient=True, refresh_per_second=8) as bar:
        task = bar.add_task("starting", total=None, rows="", unit="")
        begun = False

        def progress(done: int, total: int | None) -> None:
            nonlocal begun
            if not begun:
                # The time that compilation took says nothing about the rows.
                bar.reset(task, rows="", unit="remaining")
                begun = True
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            rate = f", {speed / 1e6:.1f}M rows/s" if speed else ""
            # An estimated total may turn out too small: then nothing is known, and no full bar goes on counting.
            known = None if total is None or done > total else total
            bar.update(task, description="evaluating", completed=done, total=known, rows=f"{done:,} rows{rate}")

        yield progress, lambda text: bar.update(task, description=text)


def _print(console: Any, title: str, report: Report) -> None:
    if title:
        console.print(title, style="bold")
    print_rows(console, report.table(), 1)
    if console.is_terminal:
        for note in report.notes():
            console.print(printable(note), style="yellow", soft_wrap=True)
    else:
        print("".join(f"{printable(note)}\n" for note in report.notes()), end="")
    for label, worst in report.worst.items():
        console.print(f"\nrows of largest {printable(label)}, counted from 0", style="bold")
        if worst and worst[0].shown:
            rows = report.worst_table(label)
            print_rows(console, rows, len(rows[0]) - 1)
            continue
        for w in worst:
            console.print(f"  {figure(w.loss):>12}  {printable(place(w.file, w.row))}", soft_wrap=True)


def print_rows(console: Any, rows: list[tuple[str, ...]], left: int) -> None:
    """Print a heading and rows; the first columns are text, the others numbers."""
    if not console.is_terminal:
        print("\n".join(map(printable, aligned(rows, left))))
        return
    heading, *body = rows
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(heading):
        table.add_column(printable(name), justify="left" if i < left else "right", overflow="fold", no_wrap=i >= left)
    for row in body:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def _print_groups(console: Any, report: Report, names: tuple[str, ...], request: Request) -> None:
    """Print the table of one grouping, and how many groups it leaves out."""
    console.print(f"\nby {printable(', '.join(names))}", style="bold")
    rows = report.group_table(names, request.sort, request.top)
    print_rows(console, rows, len(names))
    count = report.group_count(names)
    if left := count - (len(rows) - 1):
        console.print(f"{left:,} of {count:,} groups not shown; --top 0 shows all", style="yellow", soft_wrap=True)


def _write_pages(request: Request, reports: list[tuple[str, Report]]) -> None:
    """Write the report as HTML, Markdown and CSV, as far as they are asked for."""
    from .report import page

    titled = [(title or f"Losses of {', '.join(request.paths)}", report) for title, report in reports]
    texts: list[tuple[str | None, Callable[[], str]]] = [
        (request.html, lambda: page.html_page(titled, request.sort, request.top)),
        (request.markdown, lambda: page.markdown(reports, request.sort, request.top)),
        (request.csv, lambda: page.written_csv(reports)),
    ]
    for path, text in texts:
        if path == "-":
            print(text(), end="")
        elif path is not None:
            write_text(path, text())
    for table, path in _tables(request).items():
        write_text(path, page.written_csv(reports, table))


def _tables(request: Request) -> dict[str, str]:
    """Return the files beside that of `--csv` for the tables of details: of out.csv, out.quantiles.csv and others."""
    if request.csv in (None, "-"):
        return {}
    stem, ending = os.path.splitext(str(request.csv))
    return {name: f"{stem}.{name}{ending}" for name in asked(request.details)}


def _write_json(path: str, reports: list[tuple[str, Report]]) -> None:
    if len(reports) == 1:
        text = reports[0][1].to_json()
    else:
        text = json.dumps([r.to_dict() for _, r in reports], indent=2, allow_nan=False)
    if path == "-":
        print(text)
        return
    write_text(path, text + "\n")
