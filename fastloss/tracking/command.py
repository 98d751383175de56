"""Sub-commands of `fastloss track`, defined for typer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .._terminal import console, printable

__all__ = ["track"]

OWN_CASES = "fastloss.performance.tracked"
"""Default module of cases in fastloss's own repository."""

Cases = Annotated[
    str | None,
    typer.Option("--cases", metavar="MODULE", help="Path or dotted name of a module that defines cases()."),
]
Processes = Annotated[int, typer.Option(min=4, max=100, help="Processes that measure, one after another.")]
Rounds = Annotated[int, typer.Option(min=3, help="Samples of each case in each process.")]
Budget = Annotated[float, typer.Option(min=1.0, help="Seconds after which each process takes three samples a case.")]
Threshold = Annotated[
    str, typer.Option(metavar="PERCENT", help="How much slower a case may become, such as 10% or 0.1.")
]
Markdown = Annotated[str | None, typer.Option(metavar="FILE", help="Write the table to a file too.")]

BUSY = 0.03
"""Share of disturbed samples from which a comparison reports a busy machine (0.05 under a load of 8)."""

track = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Track the speed of losses, or of any functions, from one revision to the next.",
)


@track.command()
def record(
    out: Annotated[str, typer.Argument(metavar="OUT.json", help="The file to write.")],
    cases: Cases = None,
    processes: Processes = 10,
    rounds: Rounds = 11,
    budget: Budget = 120.0,
) -> None:
    """Measure each case as a ratio to its reference, in several processes one after another."""
    from .records import measure, whole

    source = _cases(cases)
    with whole(out) as file, _progress() as report:
        found = measure(source, processes, rounds, budget, report)
        file.write(found.to_json().encode())
    print(f"{_count(len(found.cases))} recorded in {printable(out)}")


@track.command()
def compare(
    old: Annotated[str, typer.Argument(metavar="OLD.json", help="A record of before.")],
    new: Annotated[str, typer.Argument(metavar="NEW.json", help="A record of after.")],
    threshold: Threshold = "10%",
    markdown: Markdown = None,
) -> None:
    """Compare two records; exit with 1 after a regression, with 2 if no case could be judged."""
    from ..evaluation.files import check_outputs
    from .changes import code, compared, publish
    from .records import read

    check_outputs([markdown] if markdown is not None else [], [old, new])
    limit, before, after = _fraction(threshold), read(old), read(new)
    names = [r.machine.get("processor", "unknown") for r in (before, after)]
    changes = compared((before.cases, after.cases), limit, is_one_machine=names[0] == names[1])
    if names[0] != names[1]:
        changes.notes.append(f"measured on different machines: {code(names[0])}; {code(names[1])}")
    for path, found in ((old, before), (new, after)):
        if found.busy > BUSY:
            changes.notes.append(
                f"the machine was busy when {code(path)} was recorded: other work disturbed {found.busy:.0%} of the"
                " samples, which were left out"
            )
    publish(changes.markdown(f"{code(new)} against {code(old)}"), markdown)
    raise typer.Exit(changes.code)


@track.command()
def gate(
    base: Annotated[str, typer.Option(metavar="REV", help="The revision to compare with, such as origin/main.")],
    head: Annotated[
        str | None, typer.Option(metavar="REV", help="The revision to judge; the working tree if none is given.")
    ] = None,
    cases: Cases = None,
    processes: Annotated[int, typer.Option(min=4, max=100, help="Pairs of processes that measure, at the most.")] = 20,
    rounds: Rounds = 11,
    budget: Budget = 120.0,
    threshold: Threshold = "10%",
    markdown: Markdown = None,
) -> None:
    """Install two revisions on this machine, time them in turn, exit with 1 if one became slower."""
    from .changes import code, publish
    from .gate import Settings
    from .gate import gate as run

    settings = Settings(base, head, _cases(cases), processes, rounds, budget, _fraction(threshold))
    with _progress() as report:
        changes = run(settings, report)
    publish(changes.markdown(f"Speed of {code(head) if head else 'the working tree'} against {code(base)}"), markdown)
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
    from ..evaluation.files import check_outputs
    from . import history as lines
    from .records import read

    check_outputs([o for o in (file if add is not None else None, plot) if o is not None], [add or file])
    if add is not None:
        lines.add(file, read(add), commit)
    entries = lines.read(file)
    if plot is not None:
        lines.draw(entries, plot)
    what = "1 commit" if len(entries) == 1 else f"{len(entries)} commits"
    print(printable(f"{what} in {file}" + (f", drawn in {plot}" if plot is not None else "")))


def _cases(given: str | None) -> str:
    """Return the module of cases; in fastloss's own repository the default is `OWN_CASES`."""
    from ..evaluation.columns import InputError

    if given is not None:
        return given
    here = Path.cwd()
    if any((folder / "fastloss" / "performance" / "tracked.py").is_file() for folder in (here, *here.parents)):
        return OWN_CASES
    raise InputError(
        f"{here} is not the repository of fastloss, which alone has cases by default; name a module that defines"
        " cases(): --cases path/to/cases.py"
    )


def _count(cases: int) -> str:
    return "1 case" if cases == 1 else f"{cases} cases"


def _fraction(text: str) -> float:
    """Parse a threshold such as 10% or 0.1."""
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
    """Return a progress callback that draws a bar on a terminal and nothing in a pipe."""
    import sys

    if not sys.stderr.isatty():
        yield lambda text, done: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console(stderr=True), transient=True, refresh_per_second=8) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda text, done: bar.update(task, description=text, completed=done)
