"""Implementation of `fastloss bench`: measurement, progress display, tables and output files."""

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from .._terminal import console as make_console
from .._terminal import printable
from ..evaluation.columns import InputError
from ..evaluation.files import check_outputs, write_text
from . import report
from .ask import chosen_contestants, parse_sizes, table
from .cases import Case
from .machine import about, sentence
from .report import Document
from .roof import threads
from .run import Measured, measure
from .startup import compilation, imports

__all__ = ["Request", "bench"]

SECONDS = 1.5
"""Time limit for the rounds of one case (seconds), where the number of rounds is not given."""


@dataclass(frozen=True)
class Request:
    """Options of one `fastloss bench` command."""

    names: list[str]
    everything: bool
    sizes: list[str]
    dtypes: list[str]
    modes: list[str]
    contestants: list[str]
    rounds: int | None
    json: str | None
    markdown: str | None
    plot: str | None
    threads: int | None
    compile: bool


def bench(request: Request) -> None:
    """Measure and print; with `--json -` or `--markdown -` only that output goes to stdout."""
    if request.json == "-" and request.markdown == "-":
        raise InputError("--json and --markdown cannot both go to the standard output")
    names = chosen_contestants(request.contestants)
    cases = table(request.names, request.everything, parse_sizes(request.sizes), request.dtypes, request.modes)
    if request.plot is not None:
        from .plot import check

        check(request.plot)
    # Before the minutes that the figures take.
    check_outputs((p for p in (request.json, request.markdown, request.plot) if p not in (None, "-")), [])
    with threads(_checked(request.threads)):
        results = _measured(request, cases, names)
        document = Document(about(), request.rounds or 0, results, imports() if request.compile else {})
    for path, text in ((request.json, document.to_json), (request.markdown, lambda: report.markdown(document))):
        if path == "-":
            sys.stdout.write(text().rstrip("\n") + "\n")
        elif path is not None:
            write_text(path, text().rstrip("\n") + "\n")
    if request.plot is not None:
        from .plot import draw

        draw(document, request.plot)
    if "-" not in (request.json, request.markdown):
        show(document)


def _checked(n: int | None) -> int | None:
    import numba

    limit = int(numba.config.NUMBA_NUM_THREADS)
    if n is not None and n > limit:
        raise InputError(f"--threads is {n}; expected at most {limit}")
    return n


def _measured(request: Request, cases: Sequence[Case], names: Sequence[str]) -> list[Measured]:
    results = []
    with _progress(len(cases)) as progress:
        for case in cases:

            def say(what: str, case: Case = case) -> None:
                progress(f"{case.id}: {what}", False)

            budget = SECONDS if request.rounds is None else None
            found = measure(case, names, request.rounds or 15, budget, say)
            if request.compile:
                say("compiling in a process of its own")
                found = dataclasses.replace(found, compile=compilation(case))
            results.append(found)
            progress(case.id, True)
    return results


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, bool], None]]:
    """Return a progress callback that draws a bar on a terminal's stderr and nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda what, done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    label = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), label)
    with Progress(*columns, console=make_console(stderr=True), transient=True, refresh_per_second=8) as bar:
        task = bar.add_task("starting", total=total)

        def progress(what: str, done: bool) -> None:
            bar.update(task, description=what, advance=1 if done else 0)

        yield progress


def show(document: Document) -> None:
    """Print the tables in the terminal's width and colours; lines are not wrapped in a pipe."""
    console = make_console()
    if not console.is_terminal:
        console = make_console(width=1000, no_color=True)
    console.print(sentence(document.machine))
    for title, results in report.groups(document.results).items():
        console.print()
        console.print(title, style="bold")
        _print(console, report.cells(results))
        console.print()
        console.print("memory of a call" + (", and a first call's time" if results[0].compile else ""), style="bold")
        _print(console, report.more(results))
    console.print()
    if document.beginnings:
        console.print(document.beginnings)
    for note in report.NOTES:
        console.print(note, style="dim")
    for line in (*report.problems(document.results), *report.disturbances(document)):
        console.print(printable(line), style="yellow")


def _print(console: Any, rows: Sequence[Sequence[str]]) -> None:
    heading, *body = rows
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(heading):
        # A heading may take two lines, as its column is narrow: scikit-learn, torch.compile.
        title = re.sub(r"(?<=\w)[-.]", r"\g<0>\n", name) if console.is_terminal else name
        table.add_column(title, justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
    previous = ""
    for row in body:
        # A loss is named once, at the first of its sizes.
        table.add_row(*(_cell(c, i == 0 and c == previous) for i, c in enumerate(row)))
        previous = row[0]
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n")


def _cell(text: str, repeated: bool) -> Any:
    return Text("" if repeated else printable(text), style="bold red" if text.endswith(report.LOST) else "")
