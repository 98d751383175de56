"""Paths of inputs: formats by their endings, directories, globs, URIs, and the standard input."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..columns import InputError, check_file, natural, with_arrow

__all__ = ["FORMATS", "GIVEN", "STANDARD_INPUT", "compression_of", "expand", "format_of", "is_remote"]

STANDARD_INPUT = "-"

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".ipc": "feather",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".npy": "npy",
    ".npz": "npz",
}
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
"""Endings of compressed text, which follow that of the format."""

GIVEN = {"csv": "csv", "tsv": "csv", "jsonl": "json", "ndjson": "json", "arrow": "feather", "parquet": "parquet"}
"""Formats that a caller can name, for the standard input and files of other endings."""


def is_remote(path: Any) -> bool:
    """Whether a path is a URI, such as s3://bucket/key."""
    return isinstance(path, str) and "://" in path


def _ending(path: str) -> tuple[str, str]:
    """Return the ending of a path and that of its compression ("" without), in lower case."""
    name = path.split("?")[0] if is_remote(path) else path
    stem, last = os.path.splitext(name.lower())
    if last in COMPRESSED:
        inner = os.path.splitext(stem)[1]
        if FORMATS.get(inner) in ("csv", "json"):
            return inner, last
    return last, ""


def format_of(path: str) -> str | None:
    """Return the format of a file by its ending; None for an unknown one."""
    return FORMATS.get(_ending(path)[0])


def compression_of(path: str) -> str | None:
    """Return the compression of a text file by its ending; None for none."""
    return COMPRESSED.get(os.path.splitext(path.split("?")[0].lower() if is_remote(path) else path.lower())[1])


def _hidden(relative: Path) -> bool:
    return any(part[0] in "._" for part in relative.parts)


def expand(paths: Iterable[Any]) -> list[str]:
    """Return the files that match paths, globs, directories and URIs, in natural order, without hidden files."""
    files: list[str] = []
    for path in map(os.fspath, paths):
        if path == STANDARD_INPUT:
            found, missing = [path], ""
        elif is_remote(path):
            found, missing = with_arrow("inputs.remote").expand(path), f"no file matches {path}"
        else:
            found, missing = _local(path)
        if not found:
            raise InputError(missing)
        files += sorted(found, key=natural)
    repeated = {f for f in files if files.count(f) > 1} if len(files) < 1000 else set()
    if repeated:
        raise InputError(f"{min(repeated)} is named twice")
    return files


def _local(path: str) -> tuple[list[str], str]:
    """Return the files that a path of this machine stands for, and a sentence in case there are none."""
    if os.path.isdir(path):
        found = [str(p) for p in Path(path).rglob("*") if format_of(p.name) and p.is_file()]
        found = [f for f in found if not _hidden(Path(f).relative_to(path))]
        return found, f"directory {path} holds no file that can be read ({', '.join(FORMATS)})"
    if os.path.isfile(path):
        return [path], ""
    if os.path.exists(path):
        check_file(path)
    found = [f for f in glob.glob(path, recursive=True) if os.path.isfile(f)]
    return found, f"no file matches {path}" if glob.has_magic(path) else f"no such file or directory: {path}"
