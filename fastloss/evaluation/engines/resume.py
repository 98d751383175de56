"""Evaluation file by file, with the exact sums of finished files kept in a directory."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..._version import __version__
from ..columns import InputError, natural
from ..files import output
from ..inputs.paths import STANDARD_INPUT, is_remote
from ..report import Report

__all__ = ["finished", "resumed"]

EVALUATION = "evaluation.json"
KINDS = {"version": "version {} of fastloss", "losses": "the losses {}", "options": "the options {}"}

One = Callable[..., Report]


def resumed(
    files: Sequence[str],
    directory: Any,
    evaluate_one: One,
    identity: Mapping[str, Any],
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Evaluate files one by one, but those whose sums the directory keeps, and return the report of all.

    Parameters
    ----------
    files : sequence of str
        Paths of the files.
    directory : path
        Directory of the sums; it is made if it does not exist.
    evaluate_one : callable
        Function that evaluates one file, given its path and a callback for progress.
    identity : mapping
        Losses and options as JSON; those of the directory must be the same.
    progress : callable, optional
        Called with the rows done.
    """
    if STANDARD_INPUT in files:
        raise InputError("resume keeps the sums of files; the standard input is none")
    directory = os.fspath(directory)
    _check_identity(directory, identity)
    kept = finished(directory)
    _check_files(directory, kept, files)
    reports = [Report.from_json(kept[f]["report"]) if f in kept else None for f in files]
    done = sum(r.rows for r in reports if r is not None)
    for i, file in enumerate(files):
        if reports[i] is None:
            before = _state(file)
            report = evaluate_one(file, progress=_later(progress, done))
            if _state(file) != before:
                raise InputError(f"{file} changed while it was read; evaluate it again when it is complete")
            _write(os.path.join(directory, _record(file)), {**before, "report": report.to_json(None)})
            reports[i] = report
            done += report.rows
        if progress is not None:
            progress(done, None)
    first, *others = [r for r in reports if r is not None]
    return first.merge(*others)


def _later(progress: Callable[[int, int | None], None] | None, done: int) -> Any:
    return None if progress is None else lambda rows, _: progress(done + rows, None)


def _record(file: str) -> str:
    return hashlib.sha256(os.fsencode(file)).hexdigest()[:24] + ".json"


def _state(file: str) -> dict[str, Any]:
    """Return path, size and time of the last change of a file."""
    if is_remote(file):
        from ..inputs import remote

        with remote.accessible(file):
            system, inner = remote.file_system(file)
            info = system.get_file_info(inner)
        return {"file": file, "size": info.size, "changed": str(info.mtime_ns)}
    try:
        found = os.stat(file)
    except FileNotFoundError:
        raise InputError(f"no such file: {file}") from None
    return {"file": file, "size": found.st_size, "changed": str(found.st_mtime_ns)}


def _write(path: str, state: Mapping[str, Any]) -> None:
    with output(path) as file:
        file.write(json.dumps(state, allow_nan=False).encode())


def _read(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; remove it, and its file is evaluated again") from None


def _check_identity(directory: str, identity: Mapping[str, Any]) -> None:
    """Raise unless the directory is new, or of the same losses, options and version."""
    path = os.path.join(directory, EVALUATION)
    mine = json.loads(json.dumps({"version": __version__, **identity}))
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise InputError(f"resume: cannot make {directory}: {error.strerror}") from None
    theirs = _read(path)
    if theirs is None:
        if others := [n for n in os.listdir(directory) if not n.startswith(".fastloss-")]:
            raise InputError(f"resume: {directory} holds {others[0]} and no evaluation; name a new directory")
        _write(path, mine)
        return
    for key, words in KINDS.items():
        if theirs.get(key) != mine[key]:
            was, now = (
                words.format(_shown(key, each.get(key), other))
                for each, other in ((theirs, mine[key]), (mine, theirs.get(key)))
            )
            raise InputError(f"resume: {directory} is of {was}; expected {now}: name another directory")


def _shown(key: str, value: Any, other: Any) -> str:
    """Return what differs from another value as text."""
    if key == "options" and isinstance(value, dict) and isinstance(other, dict):
        return ", ".join(f"{k}={value.get(k)!r}" for k in {**value, **other} if value.get(k) != other.get(k))
    if key == "losses":
        labels = [label for label, _ in value]
        return (
            ", ".join(labels) if labels != [label for label, _ in other] else f"{', '.join(labels)} by another formula"
        )
    return str(value)


def finished(directory: str) -> dict[str, Any]:
    """Return the records of finished files, by path."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return {}
    found = [n for n in names if n.endswith(".json") and n != EVALUATION]
    records = (_read(os.path.join(directory, n)) for n in found)
    return {record["file"]: record for record in records}


def _check_files(directory: str, kept: Mapping[str, Any], files: Sequence[str]) -> None:
    """Raise where the directory keeps sums of a file that is no input, or that has changed since."""
    if others := sorted(set(kept) - set(files), key=natural):
        raise InputError(f"resume: {directory} is also of {others[0]}, which is no input now; name another directory")
    for file in files:
        if file in kept and {k: v for k, v in kept[file].items() if k != "report"} != _state(file):
            record = os.path.join(directory, _record(file))
            raise InputError(f"resume: {file} has changed since it was evaluated; remove {record} to evaluate it again")
