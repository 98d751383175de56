"""Rows of CSV and JSON lines, read in blocks that several threads parse: files, compressed or not, and streams."""

import io
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from ... import _signals
from ..columns import InputError, check_file, reading
from ..sources import ROW_BYTES, Batch, Selection, step_of
from . import remote
from .paths import STANDARD_INPUT, compression_of, is_remote

__all__ = ["TextFile"]

NULL_WORDS = ["", "NULL", "null", "NA", "N/A", "n/a", "#N/A", "None", "none"]

BLOCK = 1 << 20
"""Bytes of text parsed at a time: large enough that a call costs little, small enough to hold several."""


FIRST_BLOCKS = 8
"""Blocks of JSON lines that Arrow parses: of small files, compiling a kernel would take longer than it saves."""

MISSES = 4
"""Blocks that the kernel may leave to Arrow before it is no longer tried."""


class Blocks:
    """Blocks of whole lines of a stream, at most BLOCK bytes each unless a line is longer."""

    def __init__(self, stream: Any, has_quotes: bool) -> None:
        self.stream = stream
        self.has_quotes = has_quotes

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while data := self.stream.read(BLOCK):
            block = rest + data if rest else data
            end = self._end(block)
            if not end and len(block) > ROW_BYTES:
                raise InputError(f"a line takes more than {ROW_BYTES:,} bytes")
            if end:
                yield block[:end]
            rest = block[end:]
        if rest.strip():
            yield rest

    def _end(self, block: bytes) -> int:
        """Return where the last line ends that is complete; a line break between quotes ends none."""
        end = block.rfind(b"\n") + 1
        if not self.has_quotes:
            return end
        quotes = block.count(b'"', 0, end)
        while end and quotes % 2:
            before = block.rfind(b"\n", 0, end - 1) + 1
            quotes -= block.count(b'"', before, end)
            end = before
        return end


class TextFile:
    """Source of a CSV file or of JSON lines: a path, a URI, or - for the standard input."""

    def __init__(self, path: str, kind: str, delimiter: str | None = None) -> None:
        self.path = path
        self.kind = kind
        name = path.lower()
        self.delimiter = delimiter or ("\t" if ".tsv" in name[-8:] else ",")
        self.names: list[str] = []
        self.misses = 0

    @property
    def name(self) -> str:
        """Name of the input in messages and reports."""
        return "standard input" if self.path == STANDARD_INPUT else self.path

    def total(self) -> int | None:
        """Return an estimate of the number of rows, from the size; unknown of streams and compressed files."""
        with suppress(Exception):  # what is wrong with a file is said when it is read
            if self.path == STANDARD_INPUT or is_remote(self.path) or compression_of(self.path):
                return None
            with open(self.path, "rb") as f:
                head = f.read(1 << 16)
            lines = max(1, head.count(b"\n"))
            rows = round(os.path.getsize(self.path) * lines / max(1, len(head)))
            return max(0, rows - (self.kind == "csv"))
        return None

    def _opened(self) -> Any:
        if self.path == STANDARD_INPUT:
            return _Kept(sys.stdin.buffer)
        if not is_remote(self.path):
            check_file(self.path)
        with remote.accessible(self.path):
            return remote.opened(self.path, BLOCK)

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the rows in order, while other threads parse what follows."""
        workers = max(1, min(4, pa.cpu_count()))
        pending: deque[Future[Any]] = deque()
        with closing(self._opened()) as stream:
            blocks = iter(Blocks(stream, self.kind == "csv"))
            first = self._next(blocks)
            if first is None:
                return
            with reading(self.name):
                schema = self._schema(first, selection)
            groups = selection.resolve(self.names, self.name)
            pool = ThreadPoolExecutor(workers, thread_name_prefix="fastloss-text")
            start = count = 0
            try:
                pending.append(pool.submit(self._parsed, first, schema, True))
                while pending:
                    while len(pending) <= workers and (block := self._next(blocks)) is not None:
                        count += 1
                        parse = self._numbers if count > FIRST_BLOCKS and self.kind == "json" else self._parsed
                        pending.append(pool.submit(parse, block, schema))
                    try:
                        with reading(self.name):
                            table = pending.popleft().result()
                    except InputError as error:
                        raise InputError(f"{error} (after row {start:,})" if start else str(error)) from None
                    yield from _cut(table, start, groups, self.name)
                    start += table.num_rows
            finally:
                pool.shutdown(wait=not _signals.ended_by(), cancel_futures=True)

    def _next(self, blocks: Iterator[bytes]) -> bytes | None:
        with remote.accessible(self.name), reading(self.name):
            return next(blocks, None)

    def _schema(self, block: bytes, selection: Selection) -> Any:
        """Return the types of the selected columns, by the first block."""
        found = self._parsed(block, None, True).schema
        self.names = found.names
        wanted = selection.wanted(self.names, self.name)
        # The type of a column is a guess from its first rows: a whole number there may be 0.5 further on.
        return pa.schema([pa.field(f.name, _widened(f.type)) for f in found if f.name in wanted])

    def _numbers(self, block: bytes, schema: Any) -> Any:
        """Return the rows of a block of JSON lines as a table, by the kernel where its objects are flat."""
        from . import numbers

        if numbers.is_compiled and self.misses < MISSES and all(f.type == pa.float64() for f in schema):
            keys = [f.name.encode() for f in schema]
            starts = np.cumsum([0, *map(len, keys)])
            out = np.empty((len(keys), block.count(b"\n") + 1), np.uint64)
            names = np.frombuffer(b"".join(keys), np.uint8)
            rows = numbers.json_numbers(np.frombuffer(block, np.uint8), names, starts, out)
            if rows >= 0:
                return pa.table([pa.array(column[:rows].view(np.float64)) for column in out], schema=schema)
            self.misses += 1
        return self._parsed(block, schema)

    def _parsed(self, block: bytes, schema: Any, is_first: bool = False) -> Any:
        """Return the rows of a block as a table, of all columns where no schema is given."""
        size = max(len(block) + 1, 64)
        data = pa.BufferReader(block)
        if self.kind == "json":
            parse = pa.json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore" if schema else "infer"
            )
            if not block.strip():
                return schema.empty_table()
            table = pa.json.read_json(data, pa.json.ReadOptions(use_threads=False, block_size=size), parse)
            return table.select(schema.names) if schema else table
        names = None if is_first else self.names
        return pa.csv.read_csv(
            data,
            pa.csv.ReadOptions(use_threads=False, block_size=size, column_names=names),
            pa.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            pa.csv.ConvertOptions(
                null_values=NULL_WORDS,
                include_columns=schema.names if schema else None,
                column_types=schema,
            ),
        )


class _Kept(io.RawIOBase):
    """Standard input, read in large pieces and left open."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """Read as many bytes as asked for, fewer only at the end."""
        return self._stream.read(size)  # type: ignore[no-any-return]


def _widened(kind: Any) -> Any:
    """Return the type that numbers of a column may turn out to have."""
    if pa.types.is_list(kind):
        return pa.list_(_widened(kind.value_type))
    numeric = pa.types.is_integer(kind) or pa.types.is_null(kind) or pa.types.is_floating(kind)
    return pa.float64() if numeric else kind


def _cut(table: Any, start: int, groups: list[list[str]], name: str) -> Iterator[Batch]:
    """Yield slices of a table that fit the caches."""
    step = step_of(table.nbytes / max(1, table.num_rows), table.num_columns)
    for part in table.combine_chunks().to_batches(step):
        columns = dict(zip(part.schema.names, part.columns, strict=True))
        yield Batch(name, start, part.num_rows, [[(n, columns[n]) for n in g] for g in groups])
        start += part.num_rows
