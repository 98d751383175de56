"""Implementation of `fastloss compare`."""

import json
from dataclasses import dataclass
from typing import Any

from ..._terminal import console as make_console
from ..._terminal import printable
from ..columns import InputError
from ..command import in_options, print_rows, progress_shown
from ..files import check_outputs, write_text
from ..sources import Selection, input_files
from . import Comparison, compare

__all__ = ["Request", "compare_command"]


@dataclass(frozen=True)
class Request:
    """Options of one `fastloss compare` command; `options` are passed to `compare`."""

    paths: list[str]
    losses: list[str]
    pred: list[str]
    against: list[str]
    json: str | None
    options: dict[str, Any]


def compare_command(request: Request) -> None:
    """Compare and print the table; with `--json -` only the JSON goes to stdout."""
    try:
        _compare(request)
    except InputError as error:
        raise InputError(in_options(str(error))) from None


def _compare(request: Request) -> None:
    if not request.losses:
        raise InputError("no --loss; name at least one, such as --loss mse (fastloss list shows all)")
    if not request.pred:
        raise InputError("no --pred; name the column of the prediction")
    data, against = _inputs(request)
    if request.json not in (None, "-"):
        selection = Selection(tuple(request.pred), request.options["target"], request.options["weight"])
        check_outputs([request.json], input_files(request.paths, selection))
    with progress_shown() as (progress, _):
        found = compare(data, request.losses, pred=request.pred, against=against, progress=progress, **request.options)
    if request.json is not None:
        text = json.dumps(found.to_dict(), indent=2, allow_nan=False)
        if request.json == "-":
            print(text)
            return
        write_text(request.json, text + "\n")
    _print(found)


def _inputs(request: Request) -> tuple[Any, Any]:
    """Return the data, and the columns or the other data to compare with."""
    if request.options["on"] is None:
        if not request.against:
            raise InputError("no --against; name the column of the other prediction, or give two inputs and --on")
        return request.paths, request.against
    if request.against:
        raise InputError("--against and --on; expected two inputs with --on, or one with --against")
    if len(request.paths) != 2:
        raise InputError(f"--on joins two inputs and {len(request.paths)} are given; a glob in quotes is one")
    return request.paths[0], request.paths[1]


def _print(found: Comparison) -> None:
    console = make_console()
    for i, (title, rows, left) in enumerate(found.tables()):
        if i:
            console.print()
        if title:
            console.print(printable(title), style="bold")
        print_rows(console, rows, left)
    for note in found.notes:
        console.print(printable(note), style="yellow", soft_wrap=True)
