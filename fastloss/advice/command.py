"""Implementation of `fastloss advise`."""

import re
from dataclasses import dataclass

from ..call.errors import CallError
from ..evaluation.columns import InputError
from ..evaluation.command import progress_shown
from ..evaluation.files import check_outputs, write_text
from ..evaluation.sources import Selection, input_files
from .choose import advise

__all__ = ["Request", "advise_command"]


@dataclass(frozen=True)
class Request:
    """Options of one `fastloss advise` command."""

    paths: list[str]
    target: str | None
    pred: list[str]
    group: str | None
    wanted: str | None
    json: str | None
    html: str | None


def advise_command(request: Request) -> None:
    """Advise and print; with `--json -` or `--html -` only that goes to stdout."""
    if request.target is None:
        raise InputError("no --target; name the column of the target")
    outputs = [o for o in (request.json, request.html) if o is not None]
    if outputs.count("-") > 1:
        raise InputError("several outputs are -; expected one on the standard output")
    if written := [o for o in outputs if o != "-"]:
        selection = Selection(tuple(request.pred), request.target, None)
        check_outputs(written, input_files(request.paths, selection))
    try:
        with progress_shown() as (progress, _):
            found = advise(
                request.paths,
                tuple(request.pred) or None,
                request.group,
                target=request.target,
                wanted=request.wanted,
                progress=progress,
            )
    except (CallError, InputError) as error:
        text = re.sub(r"^fl\.advise:? ", "", str(error))
        text = re.sub(r"^wanted is", "--wanted is", text)
        raise InputError(re.sub(r"for (pred|target|by)(?=;)", _option, text)) from None
    for path, text in ((request.json, found.to_json() + "\n"), (request.html, found.to_html())):
        if path == "-":
            print(text, end="")
        elif path is not None:
            write_text(path, text)
    if "-" not in outputs:
        print(found)


def _option(match: "re.Match[str]") -> str:
    return f"for --{'group' if match[1] == 'by' else match[1]}"
