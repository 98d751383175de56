"""What `fastloss eval` does: evaluate, show progress on a terminal, print tables, write files."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import evaluate
from .columns import InputError
from .files import beside, settle
from .losses import Evaluated, named
from .report import Report, figure
from .sources import Selection, spare

__all__ = ["Request", "evaluate_command"]


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

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


def evaluate_command(request: Request) -> None:
    """Evaluate and print; with `--json -` the JSON is all that goes to stdout."""
    losses = _losses(request)
    reports = _sample(request, losses) if request.sample else [("", _files(request, losses))]
    if request.json is not None:
        _write_json(request.json, reports)
    if request.json != "-":
        console = Console(highlight=False)
        for i, (title, report) in enumerate(reports):
            if i:
                console.print()
            _print(console, title, report)
        if request.per_sample is not None:
            console.print(f"loss of every row: {request.per_sample}", soft_wrap=True)


def _losses(request: Request) -> list[Evaluated]:
    from ..data import SAMPLES

    names = request.losses
    if not names:
        if not request.sample:
            raise InputError("no --loss; name at least one, such as --loss mse (fastloss list shows all)")
        names = [n for s in SAMPLES for n in s.losses]
    try:
        return named(names)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(error)) from None


def _files(request: Request, losses: list[Evaluated]) -> Report:
    if not request.pred:
        raise InputError("no --pred; name the column of the prediction")
    if request.target is None and any(e.loss.record.target is not None for e in losses):
        raise InputError("no --target; name the column of the target")
    if request.json not in (None, "-"):
        spare(request.json, request.paths, Selection(tuple(request.pred), request.target, request.weight))
    with _progress() as progress:
        return evaluate(
            request.paths,
            losses,
            pred=request.pred,
            target=request.target,
            weight=request.weight,
            on_invalid=request.on_invalid,
            worst=request.worst,
            per_sample=request.per_sample,
            threads=request.threads,
            progress=progress,
        )


def _sample(request: Request, losses: list[Evaluated]) -> list[tuple[str, Report]]:
    """One report for each file of the sample that the losses need."""
    from ..data import SAMPLES, sample_for

    if request.paths or request.pred or request.target or request.weight or request.per_sample:
        raise InputError(
            "--sample brings its own files and columns; no paths, --pred, --target, --weight or --per-sample beside it"
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
    with _progress() as progress:
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
                )
                for (file, pred, target), es in chosen.items()
                if file == s.file
            ]
            if parts:
                report = parts[0].beside(*parts[1:], order=[e.label for e in losses])
                reports.append((f"{s.title} {report.rows:,} held-out predictions", report))
    return reports


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8) as bar:
        task = bar.add_task("starting (a first run compiles)", total=None, rows="")

        def progress(done: int, total: int | None) -> None:
            speed = bar.tasks[task].finished_speed or bar.tasks[task].speed
            rate = f", {speed / 1e6:.1f}M rows/s" if speed else ""
            # An estimated total may turn out too small.
            known = None if total is None else max(total, done)
            bar.update(task, description="evaluating", completed=done, total=known, rows=f"{done:,} rows{rate}")

        yield progress


def _print(console: Console, title: str, report: Report) -> None:
    if title:
        console.print(f"[bold]{title}[/bold]")
    heading, *rows = report.table()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(heading):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold", no_wrap=i > 0)
    for row in rows:
        table.add_row(*row)
    if console.is_terminal:
        console.print(table)
        for note in report.notes():
            console.print(note, style="yellow", markup=False, soft_wrap=True)
    else:
        print(report)
    for label, worst in report.worst.items():
        console.print(f"\nrows of largest {label}", style="bold")
        for w in worst:
            where = f"{w.file}, row {w.row:,}" if w.file else f"row {w.row:,}"
            console.print(f"  {figure(w.loss):>12}  {where}", soft_wrap=True, markup=False)


def _write_json(path: str, reports: list[tuple[str, Report]]) -> None:
    if len(reports) == 1:
        text = reports[0][1].to_json()
    else:
        text = json.dumps([r.to_dict() for _, r in reports], indent=2, allow_nan=False)
    if path == "-":
        print(text)
        return
    temporary = beside(Path(path))
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        settle(temporary, Path(path))
    finally:
        temporary.unlink(missing_ok=True)
