"""Rows from Arrow: data sets of files read ahead in bounded memory, tables, streams and data frames."""

import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from . import ipc, pages
from .columns import InputError, check_file, reading
from .inputs import remote
from .inputs.paths import is_remote
from .sources import BATCH_BYTES, BATCH_ROWS, Batch, Selection, Source, step_of

__all__ = ["Files", "IpcFile", "cut", "from_object", "standard_input"]

READAHEAD = 4
BUFFERS = 1 << 25
"""Size of the read buffers of all columns of a Parquet file together (bytes)."""


def _buffer_size(columns: int) -> int:
    return min(1 << 20, max(1 << 13, BUFFERS // max(1, columns)))


def _buffered(kind: str, columns: int) -> Any:
    # Reading row groups through a small buffer, and not whole, takes a third of the memory and is faster as well.
    # An object store answers each request late: there the ranges of a row group are asked for at once.
    if kind != "parquet":
        return None
    size = _buffer_size(columns)
    return ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True, buffer_size=size)


def _groups(batch: Any, groups: list[list[str]]) -> list[list[tuple[str, Any]]]:
    # Uses a dictionary, as a look-up by name in Arrow takes time proportional to the number of columns.
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return [[(n, columns[n]) for n in g] for g in groups]


def _width(kind: Any) -> float:
    """Return the size of a value of this type (bytes); a list of unknown length counts as one value."""
    if pa.types.is_fixed_size_list(kind):
        return float(kind.list_size) * _width(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _width(kind.value_type)
    try:
        return max(1.0, float(kind.bit_width) / 8)
    except ValueError:
        return 8.0


def _row_bytes(dataset: Any, columns: list[str]) -> float:
    """Return the size of a row (bytes), with the lengths of lists taken from the first row."""
    kinds = {f.name: f.type for f in dataset.schema}
    total = sum(_width(kinds[c]) for c in columns)
    lists = [c for c in columns if pa.types.is_list(kinds[c]) or pa.types.is_large_list(kinds[c])]
    if lists:
        first = dataset.head(1, columns=lists, batch_size=1, batch_readahead=0, fragment_readahead=0)
        for c in lists:
            if first.num_rows and first[c][0].as_py():
                total += (len(first[c][0]) - 1) * _width(first[c].type.value_type)
    return total


def scan(dataset: Any, selection: Selection, where: str, kind: str) -> Iterator[Batch]:
    """Yield the batches of a data set in order, read ahead by Arrow's threads."""
    groups = selection.resolve(dataset.schema.names, where)
    columns = list(dict.fromkeys(n for g in groups for n in g))
    row_bytes = _row_bytes(dataset, columns)
    scanner = dataset.scanner(
        columns=columns,
        batch_size=step_of(row_bytes, len(columns)),
        batch_readahead=READAHEAD,
        fragment_readahead=1 if row_bytes * BATCH_ROWS > 4 * BATCH_BYTES else 2,
        fragment_scan_options=_buffered(kind, len(columns)),
    )
    name, start, checked = where, 0, None
    for tagged in scanner.scan_batches():
        path = getattr(tagged.fragment, "path", where)
        if path != name:
            name, start = path, 0
        if path != checked:
            checked = path
            _same_columns(tagged.fragment, columns, path)
        batch = tagged.record_batch
        if batch.num_rows:
            yield Batch(path, start, batch.num_rows, _groups(batch, groups))
        start += batch.num_rows


def _same_columns(fragment: Any, columns: list[str], path: str) -> None:
    there = set(fragment.physical_schema.names)
    missing = [c for c in columns if c not in there]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}, which other files have")


class Files:
    """Source of Parquet files; consecutive files with equal column types form one data set."""

    def __init__(self, files: list[str]) -> None:
        self.files = files

    def _format(self, keys: Collection[str] = ()) -> Any:
        # Text of groups' keys stays the dictionary that it is in the file: 4 ns a row for 50.
        return ds.ParquetFileFormat(dictionary_columns=set(keys)) if keys else ds.ParquetFileFormat()

    def total(self) -> int | None:
        """Return the number of rows, from the files' metadata."""
        with suppress(Exception):  # what is wrong with a file is said when it is read
            form, rows = self._format(), 0
            for file in self.files:
                system, inner = remote.file_system(file)
                rows += int(form.make_fragment(inner, system).count_rows())
            return rows
        return None

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the batches of all files in order."""
        run: list[str] = []
        schema: Any = None
        for file in self.files:
            found = self._schema(file, selection)
            width = pages.row_bytes(file, set(found.names))
            if run and (found != schema or width is not None):
                yield from self._scan(run, schema, selection)
                run = []
            if width is None:
                schema = found
                run.append(file)
            else:
                yield from _paged(file, selection, width)
        if run:
            yield from self._scan(run, schema, selection)

    def _schema(self, file: str, selection: Selection) -> Any:
        """Return the types of the selected columns."""
        with remote.accessible(file):
            system, inner = remote.file_system(file)
            schema = self._format(selection.keys).inspect(inner, system)
            names = schema.names
        wanted = selection.wanted(names, file)
        return pa.schema([f for f in schema if f.name in wanted])

    def _scan(self, run: list[str], schema: Any, selection: Selection) -> Iterator[Batch]:
        given = {remote.file_system(f)[1]: f for f in run}
        dataset = ds.FileSystemDataset.from_paths(
            list(given), schema=schema, format=self._format(selection.keys), filesystem=remote.file_system(run[0])[0]
        )
        name = run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}"
        found = scan(dataset, selection, run[0], "remote" if is_remote(run[0]) else "parquet")
        while True:
            with remote.accessible(name):
                batch = next(found, None)
            if batch is None:
                return
            name = given.get(batch.source, batch.source)
            yield Batch(name, batch.start, batch.rows, batch.groups)
            name = name if len(run) == 1 else f"{name} or a later one, up to {run[-1]}"


def _paged(file: str, selection: Selection, width: float) -> Iterator[Batch]:
    """Yield the batches of a Parquet file with large row groups."""
    with remote.accessible(file):
        system, inner = remote.file_system(file)
        names = pq.read_schema(inner, filesystem=system).names
    groups, wanted = selection.resolve(names, file), selection.wanted(names, file)
    start = 0
    for batch in pages.batches(file, wanted, width, _buffer_size(len(wanted))):
        if batch.num_rows:
            yield Batch(file, start, batch.num_rows, _groups(batch, groups))
        start += batch.num_rows


class IpcFile:
    """Source of a Feather or Arrow IPC file, or an IPC stream in a file, read one record batch at a time."""

    def __init__(self, path: str) -> None:
        self.path = path

    def total(self) -> int | None:
        """Return the number of rows, from the headers of all batches; unknown for a stream."""
        with suppress(Exception):  # what is wrong with a file is said when it is read
            system, inner = remote.file_system(self.path)
            return int(ds.IpcFileFormat().make_fragment(inner, system).count_rows())
        return None

    def _open(self, file: Any, selection: Selection) -> tuple[Any, list[list[str]]]:
        """Return the record batches of the selected columns, and the columns' groups."""
        magic = file.read(6)
        kind = pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream
        file.seek(0)
        schema = kind(file).schema
        names = schema.names
        groups, wanted = selection.resolve(names, self.path), selection.wanted(names, self.path)
        large = ipc.blocks(file, 8 if kind is pa.ipc.open_file else 0, schema, wanted)
        if large is not None:
            return ipc.parts(file, large, schema, wanted), groups
        fields = [i for i, n in enumerate(names) if n in wanted]
        file.seek(0)
        reader = kind(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
        if kind is pa.ipc.open_stream:
            return reader, groups
        return (reader.get_batch(i) for i in range(reader.num_record_batches)), groups

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the batches in order, cut to a size that fits the caches."""
        if not is_remote(self.path):
            check_file(self.path)
        # Not mapped: the pages of a mapped file that someone cuts short end the process.
        system, inner = remote.file_system(self.path)
        with remote.accessible(self.path), system.open_input_file(inner) as file:
            found, groups = self._open(file, selection)
            yield from cut(map(_sound, found), groups, self.path)


def _sound(batch: Any) -> Any:
    """Return a record batch after a check, which Arrow omits, that offsets and indices lie within its buffers."""
    for column in batch.columns:
        column.validate(full=not pa.types.is_primitive(column.type))
    return batch


def cut(record_batches: Any, groups: list[list[str]], name: str) -> Iterator[Batch]:
    """Yield slices of record batches that fit the caches."""
    start = 0
    for batch in record_batches:
        used = sum(c.nbytes for g in _groups(batch, groups) for _, c in g)
        step = step_of(used / max(1, batch.num_rows), sum(map(len, groups)))
        for low in range(0, batch.num_rows, step):
            part = batch.slice(low, step)
            yield Batch(name, start + low, part.num_rows, _groups(part, groups))
        start += batch.num_rows


class Stream:
    """Source of record batches from a table, a reader or a data frame."""

    def __init__(self, reader: Any, rows: int | None, name: str = "") -> None:
        self.reader = reader
        self.rows = rows
        self.name = name

    def total(self) -> int | None:
        """Return the number of rows, which is known for tables."""
        return self.rows

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield batches, cut to a size that fits the caches."""
        groups = selection.resolve(self.reader.schema.names, self.name or "the table")
        found = cut(self.reader, groups, self.name)
        while True:
            with reading(self.name or "the table"):
                batch = next(found, None)
            if batch is None:
                return
            yield batch


class Scanned:
    """Source of a pyarrow data set that the caller made."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def total(self) -> int | None:
        """Return the number of rows."""
        return int(self.dataset.count_rows())

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the batches in order."""
        kind = "parquet" if isinstance(getattr(self.dataset, "format", None), ds.ParquetFileFormat) else ""
        return scan(self.dataset, selection, "the data set", kind)


def standard_input(kind: str) -> Source:
    """Return a source for the standard input: an Arrow stream, or a Parquet file, which is held in memory."""
    name = "standard input"
    with reading(name):
        if kind == "feather":
            return Stream(pa.ipc.open_stream(pa.PythonFile(sys.stdin.buffer, "r")), None, name)
        file = pq.ParquetFile(pa.BufferReader(sys.stdin.buffer.read()))
        return Stream(_Pages(file), file.metadata.num_rows, name)


class _Pages:
    """Record batches of a Parquet file in memory, as a reader has them."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.schema = file.schema_arrow

    def __iter__(self) -> Iterator[Any]:
        return iter(self.file.iter_batches())


def from_object(data: Any) -> Source:
    """Return a source for an Arrow object, or for any object that exports an Arrow stream."""
    if isinstance(data, ds.Dataset):
        return Scanned(data)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return Stream(data.to_reader(), data.num_rows)
    if isinstance(data, pa.RecordBatchReader):
        return Stream(data, None)
    rows = len(data) if hasattr(data, "__len__") else None
    return Stream(pa.RecordBatchReader.from_stream(data), rows)
