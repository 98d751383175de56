"""Rows of lazy frames of Polars, relations of DuckDB and queries in SQL, read in batches."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from ..columns import InputError, reading
from ..sources import BATCH_ROWS, Batch, Selection, Source

__all__ = ["query", "source_of"]


class Streamed:
    """Source of a table that another library computes: its columns' names, and record batches of some of them."""

    def __init__(self, name: str, names: Any, batches: Any) -> None:
        self.name = name
        self.names = names
        self._batches = batches

    def total(self) -> int | None:
        """Return None: only the library that computes the rows could count them."""
        return None

    def batches(self, selection: Selection) -> Iterator[Batch]:
        """Yield the batches in order, cut to a size that fits the caches."""
        from ..arrow import cut

        with reading(self.name):
            names = self.names()
        groups, wanted = selection.resolve(names, self.name), selection.wanted(names, self.name)
        found = cut(self._batches([n for n in names if n in wanted]), groups, "")
        while True:
            with reading(self.name):
                batch = next(found, None)
            if batch is None:
                return
            yield batch


def source_of(data: Any) -> Source | None:
    """Return the source of a lazy frame or of a relation; None for other objects."""
    module, kind = type(data).__module__.split(".")[0], type(data).__name__
    if module == "polars" and kind == "LazyFrame":
        return Streamed("the lazy frame", lambda: data.collect_schema().names(), lambda names: _frames(data, names))
    if kind == "DuckDBPyRelation":
        return Streamed("the relation", lambda: list(data.columns), lambda names: _relation(data, names))
    return None


def _frames(lazy: Any, names: list[str]) -> Iterator[Any]:
    """Yield record batches of a lazy frame, by the streaming engine of Polars where it can hand them over."""
    chosen = lazy.select(names)
    if hasattr(chosen, "collect_batches"):
        frames = chosen.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)
    else:
        frames = [chosen.collect()]
    for frame in frames:
        yield from frame.to_arrow().to_batches()


def _relation(relation: Any, names: list[str]) -> Iterator[Any]:
    """Yield record batches of some columns of a relation."""
    quoted = ", ".join('"' + n.replace('"', '""') + '"' for n in names)
    reader = pa.RecordBatchReader.from_stream(_Stream(relation.project(quoted)))
    yield from reader


class _Stream:
    """A relation as an Arrow stream in batches of a size, which the relation itself exports whole."""

    def __init__(self, relation: Any) -> None:
        for name in ("to_arrow_reader", "fetch_arrow_reader", "fetch_record_batch"):
            if hasattr(relation, name):
                self.reader = getattr(relation, name)(BATCH_ROWS)
                return
        raise InputError("the relation has no Arrow reader; expected duckdb 1.0 or newer")

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Return the reader's stream."""
        return self.reader.__arrow_c_stream__(requested_schema)


def query(sql: str) -> Any:
    """Return the relation of a query, which reads files, databases and whatever DuckDB reads."""
    try:
        import duckdb
    except ImportError as error:
        raise InputError('sql needs duckdb: pip install "fastloss[duckdb]"') from error
    try:
        relation = duckdb.connect().sql(sql)
    except duckdb.Error as error:
        raise InputError(f"sql: {' '.join(str(error).split())}") from None
    if relation is None:
        raise InputError(f"sql: {sql!r} returns no rows; expected a select")
    return relation
