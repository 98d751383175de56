"""The loss of every row as a Parquet file that appears whole or not at all."""

from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .columns import InputError
from .files import beside, settle
from .plan import Result

__all__ = ["Writer"]

GROUP = 1 << 20


class Writer:
    """Writes batches of losses to a temporary file beside the final one; leaving without an error moves it there."""

    def __init__(self, path: Any, labels: list[str], keep_nan: bool) -> None:
        self.path = Path(path)
        self.keep_nan = keep_nan
        names = {"file", "row"} & set(labels)
        if names:
            raise InputError(f"the column {names.pop()!r} of --per-sample is taken")
        fields = [("file", pa.dictionary(pa.int32(), pa.string())), ("row", pa.int64())]
        self.schema = pa.schema(fields + [(n, pa.float64()) for n in labels])
        self.files: dict[str, int] = {}
        self.waiting: list[Any] = []
        self.rows = 0

    def __enter__(self) -> "Writer":
        self.temporary = beside(self.path)
        self.writer = pq.ParquetWriter(str(self.temporary), self.schema, compression="zstd")
        return self

    def write(self, result: Result) -> None:
        """Append the losses of one batch."""
        import numpy as np

        code = self.files.setdefault(result.source, len(self.files))
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self.writer.close()
            if kind is None:
                settle(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)
