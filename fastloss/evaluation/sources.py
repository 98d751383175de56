"""Where rows come from: files of several formats, Arrow tables and streams, arrays in memory; always in batches."""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .columns import InputError, chosen, from_arrow, from_numpy, natural, with_arrow

__all__ = ["FORMATS", "Batch", "Selection", "Source", "expand", "open_source", "spare"]

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".arrow": "feather",
    ".ipc": "feather",
    ".csv": "csv",
    ".tsv": "csv",
    ".npy": "npy",
    ".npz": "npz",
}
BATCH_BYTES = 1 << 21
"""What a batch of all columns should take: large enough to hide the hand-over, small enough to keep several."""

BATCH_ROWS = 1 << 17

HELD_BYTES = 1 << 25
"""How much of mapped files may stay in memory before their pages are let go."""


@dataclass(frozen=True)
class Selection:
    """The columns to read: names or globs of the predictions, the target, the weight."""

    pred: tuple[str, ...]
    target: str | None
    weight: str | None

    def resolve(self, known: Iterable[str], where: str) -> list[list[str]]:
        """Column names by role: one group for each prediction, then the target's and the weight's (or none)."""
        known = list(known)
        groups = chosen(self.pred, known, "pred", where)
        for name, role in ((self.target, "target"), (self.weight, "weight")):
            groups.append([] if name is None else chosen([name], known, role, where)[0])
        if len(groups[-1]) > 1:
            raise InputError(f"weight {self.weight!r} stands for {len(groups[-1])} columns; expected one")
        return groups


@dataclass(frozen=True)
class Batch:
    """Some rows of one source: groups of raw columns in the order of Selection.resolve."""

    source: str
    start: int
    rows: int
    groups: list[list[tuple[str, Any]]]

    def numbers(self, group: int) -> list[tuple[Any, Any]]:
        """Arrays and masks of one group of columns."""
        return [from_numpy(c, n) if isinstance(c, np.ndarray) else from_arrow(c, n) for n, c in self.groups[group]]


class Source(Protocol):
    """Batches in the order of the rows, and how many rows there will be (None: unknown)."""

    def total(self) -> int | None:
        """The number of rows, where it is known."""

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """The rows, in batches."""
        ...


def step_of(row_bytes: float) -> int:
    """Rows in a batch."""
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(row_bytes, 1))))


class Arrays:
    """Arrays of equal length by name; memory-mapped ones are let go of as they are read."""

    def __init__(self, columns: Mapping[str, Any], name: str = "") -> None:
        self.columns = columns
        self.name = name

    def total(self) -> int | None:
        """The number of rows."""
        return min((len(c) for c in self.columns.values() if np.ndim(c)), default=0)

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Slices of the arrays."""
        groups = selection.resolve(self.columns, self.name or "the input")
        used = {n: self.columns[n] for g in groups for n in g}
        lengths = {n: len(a) if a.ndim else -1 for n, a in used.items()}
        if len(set(lengths.values())) > 1 or -1 in lengths.values() or any(a.ndim > 2 for a in used.values()):
            shapes = ", ".join(f"{n} {a.shape}" for n, a in used.items())
            raise InputError(f"arrays of shapes {shapes}; expected vectors or matrices with one row each")
        rows = next(iter(lengths.values()))
        mapped = [a for a in used.values() if getattr(a, "_mmap", None) is not None and a.mode == "r"]
        pages = Pages(a._mmap for a in mapped)
        step = step_of(sum(a.itemsize * (a.shape[1] if a.ndim == 2 else 1) for a in used.values()))
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            # Once, though a column may serve as prediction and as target: some can only be read forward.
            part = {n: a[start:stop] for n, a in used.items()}
            yield Batch(self.name, start, stop - start, [[(n, part[n]) for n in g] for g in groups])
            pages.read(sum(int(a[start:stop].nbytes) for a in mapped))


class Pages:
    """Lets go of the pages of read-only mapped files now and then; they come back when they are read again."""

    def __init__(self, maps: Iterable[Any]) -> None:
        import mmap

        self.advice = getattr(mmap, "MADV_DONTNEED", None)
        self.maps = list(maps)
        self.held = 0

    def read(self, count: int) -> None:
        """Note that so many bytes were handed out."""
        self.held += count
        if self.held > HELD_BYTES and self.advice is not None:
            for m in self.maps:
                m.madvise(self.advice)
            self.held = 0


class NumpyFiles:
    """Columns in .npy files (the columns' names are the paths) or in one .npz."""

    def __init__(self, path: str | None, folder: str = "") -> None:
        self.path = path
        self.folder = folder
        self.rows: int | None = None

    def total(self) -> int | None:
        """Unknown until the files are open."""
        return self.rows

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Open the files and slice them."""
        from .npy import npy_column, npz_columns

        if self.path is not None and self.path.endswith(".npz"):
            yield from Arrays(npz_columns(self.path), self.path).batches(selection)
            return
        if self.path is not None:
            array = npy_column(self.path)
            if array.dtype.names is None:
                raise InputError(f"{self.path} holds one array; name such files by pred and target")
            columns = {n: array[n] for n in array.dtype.names}
            yield from Arrays(columns, self.path).batches(selection)
            return
        names = [n for n in (*selection.pred, selection.target, selection.weight) if n is not None]
        columns = {n: npy_column(os.path.join(self.folder, n)) for n in names}
        self.rows = min(len(a) for a in columns.values())
        yield from Arrays(columns, os.path.join(self.folder, selection.pred[0])).batches(selection)


class Chain:
    """Several sources, one after another."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def total(self) -> int | None:
        """The rows of all, if all know."""
        totals = [s.total() for s in self.sources]
        return None if None in totals else sum(t for t in totals if t is not None)

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """All batches of the first, then of the second..."""
        for source in self.sources:
            yield from source.batches(selection)


def expand(paths: Iterable[Any]) -> list[str]:
    """Files that paths, globs and directories stand for, in natural order; hidden ones are left out."""
    files: list[str] = []
    for path in map(os.fspath, paths):
        if os.path.isdir(path):
            found = [str(p) for p in Path(path).rglob("*") if p.suffix.lower() in FORMATS and p.is_file()]
            found = [f for f in found if not any(part[0] in "._" for part in Path(f).relative_to(path).parts)]
            missing = f"directory {path} holds no file that can be read ({', '.join(FORMATS)})"
        elif os.path.isfile(path):
            found, missing = [path], ""
        else:
            found = [f for f in glob.glob(path, recursive=True) if os.path.isfile(f)]
            missing = f"no file matches {path}" if glob.has_magic(path) else f"no such file or directory: {path}"
        if not found:
            raise InputError(missing)
        files += sorted(found, key=natural)
    repeated = {f for f in files if files.count(f) > 1} if len(files) < 1000 else set()
    if repeated:
        raise InputError(f"{min(repeated)} is named twice")
    return files


def open_paths(paths: Sequence[Any], selection: Selection) -> Source:
    """A source over files; runs of files of one format are read as one data set."""
    named = [n for n in (*selection.pred, selection.target, selection.weight) if n is not None]
    if all(n.endswith(".npy") for n in named):
        for folder in paths:
            if not os.path.isdir(folder):
                raise InputError(f"{folder} is given beside .npy columns; expected the directory they are in")
        return Chain([NumpyFiles(None, str(f)) for f in paths]) if paths else NumpyFiles(None)
    if not paths:
        raise InputError("no input; give files, directories or globs, or .npy files as pred and target")
    runs: list[tuple[str, list[str]]] = []
    for file in expand(paths):
        kind = FORMATS.get(Path(file).suffix.lower())
        if kind is None:
            raise InputError(f"{file} has an unknown ending; known: {', '.join(FORMATS)}")
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(file)
        else:
            runs.append((kind, [file]))
    sources: list[Source] = []
    for kind, files in runs:
        if kind in ("npy", "npz"):
            sources += [NumpyFiles(f) for f in files]
        else:
            arrow = _arrow()
            sources += [arrow.IpcFile(f) for f in files] if kind == "feather" else [arrow.Files(files, kind)]
    return sources[0] if len(sources) == 1 else Chain(sources)


def _arrow() -> Any:
    return with_arrow("arrow")


def _array(values: Any) -> Any:
    """Anything array-like as an array; a mapped or a masked one as it is."""
    return values if isinstance(values, np.ndarray) else np.asarray(values)


def _is_path(data: Any) -> bool:
    return isinstance(data, (str, os.PathLike))


def _paths(data: Any) -> list[Any] | None:
    """The paths that the data are; None where they are not."""
    if _is_path(data):
        return [data]
    return list(data) if isinstance(data, (list, tuple)) and all(map(_is_path, data)) else None


def spare(written: Any, data: Any, selection: Selection) -> None:
    """Raise if a file to be written is one of those to be read."""
    if not os.path.exists(written):
        return
    names = [n for n in (*selection.pred, selection.target, selection.weight) if n is not None and os.path.exists(n)]
    if any(os.path.samefile(written, f) for f in (*names, *expand(_paths(data) or []))):
        raise InputError(f"{written} is one of the inputs; it would be overwritten")


def open_source(data: Any, selection: Selection) -> tuple[Source, Selection]:
    """The source behind whatever `evaluate` is given, and the selection that fits it."""
    paths = _paths(data)
    if paths is not None:
        return open_paths(paths, selection), selection
    if isinstance(data, tuple):
        return _from_tuple(data, selection)
    if isinstance(data, Mapping):
        return Arrays({str(k): _array(v) for k, v in data.items()}), selection
    kind = type(data).__module__.split(".")[0]
    if kind == "pyarrow" or hasattr(data, "__arrow_c_stream__"):
        return _arrow().from_object(data), selection
    raise InputError(
        f"cannot evaluate a {type(data).__name__}; expected paths, a tuple (pred, target) or a mapping of arrays, "
        "an Arrow table, stream or data set, or a data frame"
    )


def _from_tuple(data: tuple[Any, ...], selection: Selection) -> tuple[Source, Selection]:
    """Arrays by position: the predictions (an array or a tuple of them), the target, the weight."""
    if not 1 <= len(data) <= 3:
        raise InputError(f"a tuple of {len(data)}; expected (pred, target) or (pred, target, weight)")
    preds = data[0] if isinstance(data[0], tuple) else (data[0],)
    named = {"pred" if len(preds) == 1 else f"pred{i}": a for i, a in enumerate(preds)}
    pred = tuple(named)
    named |= {n: a for n, a in zip(("target", "weight"), data[1:], strict=False) if a is not None}
    columns = {n: _array(a) for n, a in named.items()}
    target, weight = (n if n in named else None for n in ("target", "weight"))
    return Arrays(columns), Selection(pred, target, weight)
