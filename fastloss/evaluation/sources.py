"""Sources of rows in batches: files of several formats, Arrow tables and streams, arrays in memory."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .columns import (
    InputError,
    chosen,
    from_arrow,
    from_numpy,
    plain,
    with_arrow,
)
from .groups import partitions
from .inputs.paths import FORMATS, GIVEN, STANDARD_INPUT, expand, format_of, is_remote

__all__ = ["FORMATS", "Batch", "Selection", "Source", "input_files", "labelled", "open_source", "paths_of"]

BATCH_BYTES = 1 << 21
"""Target size of a batch (bytes): large enough to hide the hand-over, small enough to keep several."""

BATCH_ROWS = 1 << 17

FEW, LEAST_ROWS = 64, 256
"""Least rows of a batch with more than FEW columns, which spreads the cost of each column over the rows.

With batches of a constant size in bytes, 10,000 columns would cost a hundred times as much as 1,000.
"""

ROW_BYTES = 1 << 28
"""Largest accepted row (bytes), as a batch holds at least one row, whatever a header says."""

HELD_BYTES = 1 << 25
"""Most memory of mapped files that stays resident before the pages are released (bytes)."""


@dataclass(frozen=True)
class Selection:
    """Columns to read: names or globs of the predictions, the target and the weight, and the keys of groups."""

    pred: tuple[str, ...]
    target: str | None
    weight: str | None
    by: tuple[tuple[str, ...], ...] = ()
    """Groupings, each by the columns whose values together are a key."""
    show: tuple[str, ...] = ()
    """Columns shown of the worst rows; no loss reads them."""

    @property
    def names(self) -> list[str]:
        """All names and globs, the keys of groups and the columns to show last."""
        roles = (*self.pred, self.target, self.weight)
        return [n for n in dict.fromkeys((*roles, *sorted(self.keys), *self.show)) if n is not None]

    @property
    def keys(self) -> set[str]:
        """Columns that only tell groups apart."""
        return {n for grouping in self.by for n in grouping} - {*self.pred, self.target, self.weight}

    def resolve(self, known: Iterable[str], where: str) -> list[list[str]]:
        """Return column names by role: a group for each prediction, target, weight, each grouping, and those shown.

        A key that no column has is looked for in the directories of the file, `column=value`, and is not read.
        """
        known = list(known)
        groups = chosen(self.pred, known, "pred", where)
        for name, role in ((self.target, "target"), (self.weight, "weight")):
            groups.append([] if name is None else chosen([name], known, role, where)[0])
        if len(groups[-1]) > 1:
            raise InputError(f"weight {self.weight!r} stands for {len(groups[-1])} columns; expected one")
        there = partitions(where) if self.by else {}
        for grouping in self.by:
            read = [n for n in grouping if n in known or n not in there]
            groups.append([n for group in chosen(read, known, "by", where) for n in group])
        if self.show:
            groups.append([n for group in chosen(self.show, known, "show", where) for n in group])
        return groups

    def wanted(self, known: Sequence[str], where: str) -> set[str]:
        """Return the names of all columns to read; raise unless each occurs exactly once."""
        wanted = {n for g in self.resolve(known, where) for n in g}
        counts = Counter(n for n in known if n in wanted)
        doubled = [n for n in known if counts[n] > 1]
        if doubled:
            raise InputError(f"{where} has several columns named {doubled[0]!r}")
        return wanted


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of one source: groups of raw columns in the order of Selection.resolve."""

    source: str
    start: int
    rows: int
    groups: list[list[tuple[str, Any]]]

    def row(self, group: int, row: int) -> dict[str, Any]:
        """Return the values of a row in one group of columns, as JSON can hold them."""
        return {
            n: plain(c[row].as_py() if hasattr(c[row], "as_py") else c[row].tolist()) for n, c in self.groups[group]
        }

    def numbers(self, group: int) -> list[tuple[Any, Any]]:
        """Return the arrays and masks of one group of columns."""
        try:
            return [from_numpy(c, n) if isinstance(c, np.ndarray) else from_arrow(c, n) for n, c in self.groups[group]]
        except InputError as error:
            raise InputError(f"{self.source}: {error}" if self.source else str(error)) from None


class Source(Protocol):
    """Protocol of sources: batches in the order of the rows, and the total number of rows (None: unknown)."""

    def total(self) -> int | None:
        """Return the number of rows, where it is known."""

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the rows in batches."""
        ...


def step_of(row_bytes: float, columns: int) -> int:
    """Return the number of rows in a batch."""
    least = LEAST_ROWS if columns > FEW else 1
    return int(min(BATCH_ROWS, max(least, BATCH_BYTES // max(row_bytes, 1))))


class Arrays:
    """Source of named arrays of equal length; pages of memory-mapped arrays are released as they are read."""

    def __init__(self, columns: Mapping[str, Any], name: str = "") -> None:
        self.columns = columns
        self.name = name

    def total(self) -> int | None:
        """Return the number of rows."""
        return min((len(c) for c in self.columns.values() if np.ndim(c)), default=0)

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield slices of the arrays."""
        groups = selection.resolve(self.columns, self.name or "the input")
        used = {n: self.columns[n] for n in dict.fromkeys(n for g in groups for n in g)}
        self._check(used)
        rows = len(next(iter(used.values())))
        mapped = [a for a in used.values() if getattr(a, "_mmap", None) is not None and a.mode == "r"]
        pages = Pages(a._mmap for a in mapped)
        row_bytes = sum(a.itemsize * (a.shape[1] if a.ndim == 2 else 1) for a in used.values())
        if row_bytes > ROW_BYTES:
            raise InputError(f"{self._where}a row takes {row_bytes:,} bytes; expected at most {ROW_BYTES:,}")
        step = step_of(row_bytes, len(used))
        for start in range(0, rows, step):
            stop = min(rows, start + step)
            # Once, though a column may serve as prediction and as target: some can only be read forward.
            part = {n: a[start:stop] for n, a in used.items()}
            yield Batch(self.name, start, stop - start, [[(n, part[n]) for n in g] for g in groups])
            pages.read(sum(int(a[start:stop].nbytes) for a in mapped))

    @property
    def _where(self) -> str:
        return f"{self.name}: " if self.name else ""

    def _check(self, used: Mapping[str, Any]) -> None:
        """Raise unless the arrays are vectors or matrices with equal numbers of rows."""
        lengths = {len(a) if a.ndim else -1 for a in used.values()}
        if len(lengths) > 1 or -1 in lengths or any(a.ndim > 2 for a in used.values()):
            shapes = ", ".join(f"{n} {a.shape}" for n, a in used.items())
            raise InputError(f"{self._where}arrays of shapes {shapes}; expected vectors or matrices with one row each")
        empty = [n for n, a in used.items() if a.ndim == 2 and not a.shape[1]]
        if empty:
            raise InputError(f"{self._where}{empty[0]} has the shape {used[empty[0]].shape}; expected rows of numbers")


class Pages:
    """Periodic release of the pages of read-only mapped files; a later read loads them again."""

    def __init__(self, maps: Iterable[Any]) -> None:
        import mmap

        self.advice = getattr(mmap, "MADV_DONTNEED", None)
        self.maps = list(maps)
        self.held = 0

    def read(self, count: int) -> None:
        """Count bytes that were read, and release pages when they exceed the limit."""
        self.held += count
        if self.held > HELD_BYTES and self.advice is not None:
            for m in self.maps:
                m.madvise(self.advice)
            self.held = 0


class NumpyFiles:
    """Source of columns in .npy files (the columns' names are the paths) or in one .npz file."""

    def __init__(self, path: str | None, folder: str = "") -> None:
        self.path = path
        self.folder = folder
        self.rows: int | None = None

    def total(self) -> int | None:
        """Return the number of rows, which is unknown until the files are open."""
        return self.rows

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Open the files and yield slices of them."""
        from .npy import Archive, NpyFile

        with ExitStack() as stack:

            def opened(path: str) -> NpyFile:
                return stack.enter_context(closing(NpyFile(path)))

            if self.path is not None and self.path.lower().endswith(".npz"):
                archive = stack.enter_context(closing(Archive(self.path)))
                yield from Arrays(archive, self.path).batches(selection)
                return
            if self.path is not None:
                array = opened(self.path)
                if array.dtype.names is None:
                    raise InputError(f"{self.path} holds one array; name such files by pred and target")
                yield from Arrays(array.fields(), self.path).batches(selection)
                return
            columns = {n: opened(os.path.join(self.folder, n)) for n in dict.fromkeys(selection.names)}
            self.rows = min(len(a) for a in columns.values())
            yield from Arrays(columns, os.path.join(self.folder, selection.pred[0])).batches(selection)


class Chain:
    """Concatenation of several sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def total(self) -> int | None:
        """Return the total number of rows, if all sources know theirs."""
        totals = [s.total() for s in self.sources]
        return None if None in totals else sum(t for t in totals if t is not None)

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the batches of each source in order."""
        for source in self.sources:
            yield from source.batches(selection)


def open_paths(paths: Sequence[Any], selection: Selection, format: str = "") -> Source:
    """Return a source for files; consecutive files of one format are read as one data set."""
    if all(n.endswith(".npy") for n in selection.names):
        for folder in paths:
            if not os.path.isdir(folder):
                raise InputError(f"{folder} is given beside .npy columns; expected the directory they are in")
        return Chain([NumpyFiles(None, str(f)) for f in paths]) if paths else NumpyFiles(None)
    if not paths:
        raise InputError("no input; give files, directories or globs, or .npy files as pred and target")
    runs: list[tuple[str, list[str]]] = []
    for file in expand(paths):
        kind = GIVEN.get(format) or format_of(file) or ("csv" if file == STANDARD_INPUT else None)
        if kind is None:
            raise InputError(f"{file} has an unknown ending; known: {', '.join(FORMATS)}; format='csv' names another")
        if is_remote(file) and kind in ("npy", "npz"):
            raise InputError(f"{file} is remote; .npy and .npz are read from this machine only")
        if runs and kind == "parquet" == runs[-1][0] and is_remote(file) == is_remote(runs[-1][1][0]):
            runs[-1][1].append(file)
        else:
            runs.append((kind, [file]))
    sources = [_source(kind, files, format) for kind, files in runs]
    return sources[0] if len(sources) == 1 else Chain(sources)


def _source(kind: str, files: list[str], format: str) -> Source:
    """Return the source for files of one format: several Parquet files, or one of another format."""
    if kind in ("npy", "npz"):
        return NumpyFiles(files[0])
    if kind in ("csv", "json"):
        source: Source = with_arrow("inputs.text").TextFile(files[0], kind, "\t" if format == "tsv" else None)
    elif files == [STANDARD_INPUT]:
        source = _arrow().standard_input(kind)
    else:
        source = _arrow().IpcFile(files[0]) if kind == "feather" else _arrow().Files(files)
    return source


def _arrow() -> Any:
    return with_arrow("arrow")


def _array(values: Any) -> Any:
    """Return an array-like as an array; mapped and masked arrays are not converted."""
    return values if isinstance(values, np.ndarray) else np.asarray(values)


def _is_path(data: Any) -> bool:
    return isinstance(data, (str, os.PathLike))


def paths_of(data: Any) -> list[Any] | None:
    """Return the paths in `data`; None where it holds no paths."""
    if _is_path(data):
        return [data]
    return list(data) if isinstance(data, (list, tuple)) and all(map(_is_path, data)) else None


def input_files(data: Any, selection: Selection) -> list[str]:
    """Return the files that will be read, as far as their names are known."""
    paths = paths_of(data)
    if paths is None:
        return list(getattr(data, "files", [])) if type(data).__module__.startswith("pyarrow") else []
    columns = [os.path.join(folder, n) for folder in map(os.fspath, paths or [""]) for n in selection.names]
    return [n for n in columns if os.path.isfile(n)] + expand(paths)


def open_source(
    data: Any, selection: Selection, keys: Mapping[str, Any] | None = None, format: str = ""
) -> tuple[Source, Selection]:
    """Return the source for the data passed to `evaluate`, and the matching selection; keys are columns of a tuple."""
    if format and format not in GIVEN:
        raise InputError(f"format is {format!r}; allowed: {', '.join(GIVEN)}")
    paths = paths_of(data)
    if paths is not None:
        return open_paths(paths, selection, format), selection
    if isinstance(data, tuple):
        return _from_tuple(data, selection, keys)
    if isinstance(data, Mapping):
        return Arrays({str(k): _array(v) for k, v in data.items()}), selection
    kind = type(data).__module__.split(".")[0]
    if kind in ("polars", "duckdb", "_duckdb") and (source := with_arrow("inputs.objects").source_of(data)) is not None:
        return source, selection
    if kind == "pyarrow" or hasattr(data, "__arrow_c_stream__"):
        return _arrow().from_object(data), selection
    raise InputError(
        f"cannot evaluate a {type(data).__name__}; expected paths, a tuple (pred, target) or a mapping of arrays, "
        "an Arrow table, stream or data set, or a data frame"
    )


def _from_tuple(
    data: tuple[Any, ...], selection: Selection, keys: Mapping[str, Any] | None
) -> tuple[Source, Selection]:
    """Return the source for a tuple: the predictions (an array or a tuple of arrays), the target, the weight."""
    if not 1 <= len(data) <= 3:
        raise InputError(f"a tuple of {len(data)}; expected (pred, target) or (pred, target, weight)")
    preds = data[0] if isinstance(data[0], tuple) else (data[0],)
    named = {"pred" if len(preds) == 1 else f"pred{i}": a for i, a in enumerate(preds)}
    pred = tuple(named)
    named |= {n: a for n, a in zip(("target", "weight"), data[1:], strict=False) if a is not None}
    columns = {n: _array(a) for n, a in named.items()}
    target, weight = (n if n in named else None for n in ("target", "weight"))
    columns |= {n: _array(a) for n, a in (keys or {}).items()}
    return Arrays(columns), Selection(pred, target, weight, selection.by, selection.show)


def labelled(source: Source, positive: Any, classes: Sequence[Any], target: str | None) -> Source:
    """Return the source with labels of the target turned into numbers, where a positive label or classes are given."""
    if positive is None and not len(classes):
        return source
    if positive is not None and len(classes):
        raise InputError("positive and classes; expected one of them")
    if target is None:
        raise InputError("positive and classes are labels of the target; expected its name as target")
    if isinstance(classes, str) or len(set(classes)) < len(classes):
        raise InputError(f"classes is {classes!r}; expected distinct labels in the order of the scores")
    wrapped: Source = with_arrow("inputs.labels").Labelled(source, positive, classes)
    return wrapped
