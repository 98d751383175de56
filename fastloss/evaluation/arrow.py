"""Rows from Arrow: data sets of files read ahead in bounded memory, tables, streams and data frames."""

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds

from .columns import InputError
from .sources import BATCH_BYTES, BATCH_ROWS, Batch, Pages, Selection, Source, step_of

__all__ = ["Files", "from_object"]

READAHEAD = 4
NULL_WORDS = ["", "NULL", "null", "NA", "N/A", "n/a", "#N/A", "None", "none"]


def _buffered(kind: str) -> Any:
    # Reading row groups through a small buffer, and not whole, takes a third of the memory and is faster as well.
    if kind != "parquet":
        return None
    return ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True, buffer_size=1 << 20)


def _groups(batch: Any, groups: list[list[str]]) -> list[list[tuple[str, Any]]]:
    return [[(n, batch.column(n)) for n in g] for g in groups]


def _width(kind: Any) -> float:
    """Bytes that a value of this type takes; lists of unknown length count as one number."""
    if pa.types.is_fixed_size_list(kind):
        return float(kind.list_size) * _width(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _width(kind.value_type)
    try:
        return max(1.0, float(kind.bit_width) / 8)
    except ValueError:
        return 8.0


def _row_bytes(dataset: Any, columns: list[str]) -> float:
    """Bytes of a row, with the lengths of lists taken from the first one."""
    total = sum(_width(dataset.schema.field(c).type) for c in columns)
    lists = [c for c in columns if str(dataset.schema.field(c).type).startswith(("list", "large_list"))]
    if lists:
        first = dataset.head(1, columns=lists, batch_size=1, batch_readahead=0, fragment_readahead=0)
        for c in lists:
            if first.num_rows and first[c][0].as_py():
                total += (len(first[c][0]) - 1) * _width(first[c].type.value_type)
    return total


def scan(dataset: Any, selection: Selection, where: str, options: Any = None) -> Iterator[Batch]:
    """Batches of a data set in order, read ahead by Arrow's own threads."""
    groups = selection.resolve(dataset.schema.names, where)
    columns = list(dict.fromkeys(n for g in groups for n in g))
    row_bytes = _row_bytes(dataset, columns)
    scanner = dataset.scanner(
        columns=columns,
        batch_size=step_of(row_bytes),
        batch_readahead=READAHEAD,
        fragment_readahead=1 if row_bytes * BATCH_ROWS > 4 * BATCH_BYTES else 2,
        fragment_scan_options=options,
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
    missing = [c for c in columns if c not in fragment.physical_schema.names]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}, which other files have")


class Files:
    """Parquet or CSV files; each run of files with the same column types is one data set."""

    def __init__(self, files: list[str], kind: str) -> None:
        self.files = files
        self.kind = kind

    def _format(self, file: str) -> Any:
        if self.kind == "parquet":
            return ds.ParquetFileFormat()
        parse = pyarrow.csv.ParseOptions(delimiter="\t" if file.lower().endswith(".tsv") else ",")
        convert = pyarrow.csv.ConvertOptions(null_values=NULL_WORDS)
        return ds.CsvFileFormat(parse_options=parse, convert_options=convert)

    def total(self) -> int | None:
        """Rows, from the files' own metadata; an estimate from the bytes of CSV."""
        try:
            if self.kind == "csv":
                return sum(map(_estimated_rows, self.files))
            form = self._format(self.files[0])
            return sum(int(form.make_fragment(f, _local()).count_rows()) for f in self.files)
        except (OSError, pa.ArrowException):
            return None

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Batches of all files in order."""
        run: list[str] = []
        schema: Any = None
        for file in self.files:
            found = self._schema(file, selection)
            if found is None:
                continue
            if run and found != schema:
                yield from self._scan(run, schema, selection)
                run = []
            schema = found
            run.append(file)
        if run:
            yield from self._scan(run, schema, selection)

    def _schema(self, file: str, selection: Selection) -> Any:
        """The selected columns' types; None for an empty CSV file."""
        try:
            if self.kind == "csv" and os.path.getsize(file) == 0:
                return None
            schema = self._format(file).inspect(os.path.abspath(file), _local())
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from None
        names = schema.names
        wanted = {n for g in selection.resolve(names, file) for n in g}
        doubled = [n for n in wanted if names.count(n) > 1]
        if doubled:
            raise InputError(f"{file} has several columns named {doubled[0]!r}")
        fields = [f for f in schema if f.name in wanted]
        if self.kind == "csv":
            # The type of a CSV column is a guess from its first rows: a whole number there may be 0.5 further on.
            fields = [pa.field(f.name, pa.float64()) if _guessed(f.type) else f for f in fields]
        return pa.schema(fields)

    def _scan(self, run: list[str], schema: Any, selection: Selection) -> Iterator[Batch]:
        given = {os.path.abspath(f): f for f in run}
        dataset = ds.FileSystemDataset.from_paths(
            list(given), schema=schema, format=self._format(run[0]), filesystem=_local()
        )
        name = run[0]
        try:
            for batch in scan(dataset, selection, name, _buffered(self.kind)):
                name = given.get(batch.source, batch.source)
                yield Batch(name, batch.start, batch.rows, batch.groups)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(name if len(run) == 1 else f"{run[0]} to {run[-1]}", error) from None


def _guessed(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_null(kind) or pa.types.is_floating(kind))


def _local() -> Any:
    return pa.fs.LocalFileSystem()


def _estimated_rows(file: str) -> int:
    with open(file, "rb") as f:
        head = f.read(1 << 16)
    lines = max(1, head.count(b"\n"))
    return max(0, round(os.path.getsize(file) * lines / max(1, len(head))) - 1)


def _unreadable(file: str, error: Exception) -> InputError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"cannot read {file}: {text}")


class IpcFile:
    """A Feather or Arrow IPC file, or an IPC stream in a file; mapped, so that uncompressed columns are not copied."""

    def __init__(self, path: str) -> None:
        self.path = path

    def total(self) -> int | None:
        """Rows, from the headers of all batches; unknown for a stream."""
        try:
            return int(ds.IpcFileFormat().make_fragment(self.path, _local()).count_rows())
        except (OSError, pa.ArrowException):
            return None

    def _open(self, mapped: Any, selection: Selection) -> tuple[Any, list[list[str]]]:
        """A reader of the selected columns, and their groups."""
        buffer = pa.py_buffer(mapped)
        kind = pa.ipc.open_file if mapped[:6] == b"ARROW1" else pa.ipc.open_stream
        names = kind(pa.BufferReader(buffer)).schema.names
        groups = selection.resolve(names, self.path)
        wanted = {n for g in groups for n in g}
        doubled = [n for n in wanted if names.count(n) > 1]
        if doubled:
            raise InputError(f"{self.path} has several columns named {doubled[0]!r}")
        fields = [i for i, n in enumerate(names) if n in wanted]
        return kind(pa.BufferReader(buffer), options=pa.ipc.IpcReadOptions(included_fields=fields)), groups

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Batches in order, cut to a size that fits the caches."""
        try:
            with open(self.path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            reader, groups = self._open(mapped, selection)
            found = reader
            if isinstance(reader, pa.ipc.RecordBatchFileReader):
                found = (reader.get_batch(i) for i in range(reader.num_record_batches))
            pages = Pages([mapped])
            for batch in _cut(found, groups, self.path):
                yield batch
                pages.read(sum(c.nbytes for g in batch.groups for _, c in g))
        except InputError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(self.path, error) from None


def _cut(record_batches: Any, groups: list[list[str]], name: str) -> Iterator[Batch]:
    """Slices of record batches that fit the caches."""
    start = 0
    for batch in record_batches:
        used = sum(batch.column(n).nbytes for g in groups for n in g)
        step = step_of(used / max(1, batch.num_rows))
        for low in range(0, batch.num_rows, step):
            part = batch.slice(low, step)
            yield Batch(name, start + low, part.num_rows, _groups(part, groups))
        start += batch.num_rows


class Stream:
    """Record batches from a table, a reader or a data frame."""

    def __init__(self, reader: Any, rows: int | None) -> None:
        self.reader = reader
        self.rows = rows

    def total(self) -> int | None:
        """The number of rows, where a table told it."""
        return self.rows

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Batches, cut to a size that fits the caches."""
        groups = selection.resolve(self.reader.schema.names, "the table")
        yield from _cut(self.reader, groups, "")


class Scanned:
    """A pyarrow data set that the caller made."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def total(self) -> int | None:
        """The number of rows."""
        return int(self.dataset.count_rows())

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Batches in order."""
        kind = "parquet" if isinstance(getattr(self.dataset, "format", None), ds.ParquetFileFormat) else ""
        return scan(self.dataset, selection, "the data set", _buffered(kind))


def from_object(data: Any) -> Source:
    """A source over an Arrow object, or anything that exports an Arrow stream."""
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
