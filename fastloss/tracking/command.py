"""The sub-commands of `fastloss track`, as typer runs them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

__all__ = ["track"]

CASES = "fastloss.performance.tracked"

Cases = Annotated[
    str,
    typer.Option("--cases", metavar="MODULE", help="Path or dotted name of a module that defines cases()."),
]
Threshold = Annotated[
    str, typer.Option(metavar="PERCENT", help="How much slower a case may become, such as 10% or 0.1.")
]
Markdown = Annotated[str | None, typer.Option(metavar="FILE", help="Write the table to a file too.")]

track = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Track the speed of losses, or of any functions, from one revision to the next.",
)


@track.command()
def record(
    out: Annotated[str, typer.Argument(metavar="OUT.json", help="The file to write.")],
    cases: Cases = CASES,
    rounds: Annotated[int, typer.Option(min=3, help="Rounds of each case.")] = 101,
    budget: Annotated[float, typer.Option(min=1.0, help="Seconds after which there is no further round.")] = 120.0,
) -> None:
    """Measure each case as a ratio to its reference, timed in the same run."""
    from .records import measure, whole

    with whole(out) as file, _progress() as report:
        found = measure(cases, rounds, budget, report)
        file.write_text(found.to_json(), encoding="utf-8")
    print(f"{_count(len(found.cases))} recorded in {out}")


@track.command()
def compare(
    old: Annotated[str, typer.Argument(metavar="OLD.json", help="A record of before.")],
    new: Annotated[str, typer.Argument(metavar="NEW.json", help="A record of after.")],
    threshold: Threshold = "10%",
    markdown: Markdown = None,
) -> None:
    """Compare two records; exit with 1 after a regression, with 2 if nothing could be compared."""
    from .changes import compared, publish
    from .records import read

    limit, before, after = _fraction(threshold), read(old), read(new)
    changes = compared((before.cases, after.cases), limit)
    if before.machine.get("processor") != after.machine.get("processor"):
        names = [r.machine.get("processor", "unknown") for r in (before, after)]
        changes.notes.append(f"measured on different machines: {names[0]}; {names[1]}")
    for path, found in ((old, before), (new, after)):
        if found.busy:
            changes.notes.append(f"the machine was busy when {path} was recorded: load {found.machine['load']:g}")
    publish(changes.markdown(f"{new} against {old}"), markdown)
    raise typer.Exit(changes.code)


@track.command()
def gate(
    base: Annotated[str, typer.Option(metavar="REV", help="The revision to compare with, such as origin/main.")],
    head: Annotated[
        str | None, typer.Option(metavar="REV", help="The revision to judge; the working tree if none is given.")
    ] = None,
    cases: Cases = CASES,
    rounds: Annotated[int, typer.Option(min=15, help="Rounds of each case, at the most.")] = 101,
    budget: Annotated[float, typer.Option(min=1.0, help="Seconds after which there is no further round.")] = 120.0,
    threshold: Threshold = "10%",
    markdown: Markdown = None,
) -> None:
    """Install two revisions on this machine, time them in turn, exit with 1 if one became slower."""
    from .changes import publish
    from .gate import Settings
    from .gate import gate as run

    settings = Settings(base, head, cases, rounds, budget, _fraction(threshold))
    with _progress() as report:
        changes = run(settings, report)
    publish(changes.markdown(f"Speed of {head or 'the working tree'} against {base}"), markdown)
    raise typer.Exit(changes.code)


@track.command()
def history(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="The history: one line for each commit.")],
    add: Annotated[str | None, typer.Option(metavar="RECORD.json", help="Append a record.")] = None,
    commit: Annotated[
        str | None, typer.Option(metavar="SHA", help="The record's commit; by default that of the workflow or folder.")
    ] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE.svg|png", help="Draw the history.")] = None,
) -> None:
    """Append a record to the history; draw it."""
    from . import history as lines
    from .records import read

    if add is not None:
        lines.add(file, read(add), commit)
    entries = lines.read(file)
    if plot is not None:
        lines.draw(entries, plot)
    what = "1 commit" if len(entries) == 1 else f"{len(entries)} commits"
    print(f"{what} in {file}" + (f", drawn in {plot}" if plot is not None else ""))


def _count(cases: int) -> str:
    return "1 case" if cases == 1 else f"{cases} cases"


def _fraction(text: str) -> float:
    """A threshold as it is written: 10% or 0.1."""
    from ..evaluation.columns import InputError

    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < (10 if text.endswith("%") else 1):
        raise InputError(f"--threshold is {text}; expected a percentage such as 10%, or a fraction such as 0.1")
    return value


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal; nothing in a pipe."""
    import sys

    if not sys.stderr.isatty():
        yield lambda text, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda text, done: bar.update(task, description=text, completed=done)
