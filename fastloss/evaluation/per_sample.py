"""Writer for the loss of every row, as a Parquet file that appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .columns import InputError
from .files import output
from .plan import Result

__all__ = ["Writer", "opened"]

GROUP = 1 << 20


class Writer:
    """Writer of batches of losses to an open file."""

    def __init__(self, file: Any, labels: list[str], keep_nan: bool) -> None:
        self.keep_nan = keep_nan
        names = {"file", "row"} & set(labels)
        if names:
            raise InputError(f"the column {names.pop()!r} of --per-sample is taken")
        fields = [("file", pa.dictionary(pa.int32(), pa.string())), ("row", pa.int64())]
        self.schema = pa.schema(fields + [(n, pa.float64()) for n in labels])
        self.writer = pq.ParquetWriter(file, self.schema, compression="zstd")
        self.files: dict[str, int] = {}
        self.waiting: list[Any] = []
        self.rows = 0

    def write(self, result: Result) -> None:
        """Append the losses of one batch."""
        import numpy as np

        # Bytes of a file's name that are no UTF-8 cannot stand in a column of text.
        name = os.fsencode(result.source).decode("utf-8", "backslashreplace")
        code = self.files.setdefault(name, len(self.files))
        codes = pa.array(np.full(result.rows, code, np.int32))
        file = pa.DictionaryArray.from_arrays(codes, pa.array(list(self.files)))
        row = pa.array(np.arange(result.start, result.start + result.rows))
        losses = [pa.array(v, from_pandas=not self.keep_nan) for v in result.values]
        self.waiting.append(pa.Table.from_arrays([file, row, *losses], schema=self.schema))
        self.rows += result.rows
        if self.rows >= GROUP:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            self.writer.write_table(pa.concat_tables(self.waiting).unify_dictionaries())
        self.waiting, self.rows = [], 0

    def close(self) -> None:
        """Write the buffered rows and the file's footer."""
        self._flush()
        self.writer.close()


@contextmanager
def opened(path: Any, labels: list[str], keep_nan: bool) -> Iterator[Writer]:
    """Open a Parquet file of losses for a `with` block."""
    with output(path) as file:
        writer = Writer(file, labels, keep_nan)
        try:
            yield writer
            writer.close()
        except BaseException:
            # Without its footer: a pipe must not be given what reads as a complete file of fewer rows.
            with suppress(Exception):
                file.close()
            with suppress(Exception):
                writer.writer.close()
            raise
