"""Losses as functions of SQL in DuckDB, which pass columns as Arrow arrays."""

from inspect import Parameter, Signature
from typing import Any

import numpy as np

from ..call.errors import CallValueError
from ..losses.base import Loss
from ..losses.catalogue import LOSSES
from .hosts import host, loss_of

__all__ = ["register"]


def register(con: Any, *losses: Any, **named: Any) -> None:
    """Make losses functions of SQL: ``fl_huber(prediction, target)``, one loss a row, null where an input is null.

    Parameters
    ----------
    con : duckdb.DuckDBPyConnection
        Connection on which the functions are created.
    *losses : str or Loss
        Losses of single rows: names, "name:parameter=value", or losses. Each is registered as ``fl_`` and its name.
        Without any, all elementwise losses are.
    **named : str or Loss
        Losses by the names of their functions.

    Raises
    ------
    TypeError
        For a loss over several arrays, which no row holds.
    ModuleNotFoundError
        Without DuckDB or PyArrow (extra `duckdb`).

    Notes
    -----
    Columns are DOUBLE. Scores of classes are one column of the type DOUBLE[], and their labels are BIGINT.

    Examples
    --------
    >>> fl.duckdb.register(con, "huber", focal15="focal:gamma=1.5")  # doctest: +SKIP
    >>> con.sql("select avg(fl_huber(pred, target)) from 'rows.parquet'")  # doctest: +SKIP
    """
    host("duckdb", "duckdb", "fastloss.duckdb.register")
    host("pyarrow", "duckdb", "fastloss.duckdb.register")
    found = {**{f"fl_{loss.name}": loss for loss in map(loss_of, losses)}, **{k: loss_of(v) for k, v in named.items()}}
    if not found:
        found = {f"fl_{k}": v for k, v in LOSSES.items() if v.record.family == "elementwise"}
    for name, loss in found.items():
        inputs = _inputs(loss)
        con.create_function(name, _rows(loss, len(inputs)), inputs, "DOUBLE", type="arrow", null_handling="special")


def _inputs(loss: Loss) -> list[str]:
    """Return the types of the columns of a loss."""
    record = loss.record
    if record.family == "arrays":
        raise TypeError(f"{record.name} takes arrays that no row holds")
    if record.family == "rows":
        labels = {True: "BIGINT", False: "DOUBLE[]"}[record.row_loop.labels]
        return ["DOUBLE[]", labels if record.row_loop.has_classes else "DOUBLE"]
    return ["DOUBLE"] * (len(record.predictions) + (record.target is not None))


def _rows(loss: Loss, count: int) -> Any:
    """Return the function of Arrow arrays that gives one loss a row."""
    import pyarrow as pa

    several = len(loss.record.predictions) if loss.record.family == "elementwise" else 1

    def plain(column: Any, kept: Any) -> Any:
        """Return a column without nulls as an array."""
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        column = column.filter(kept)
        if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
            return column.to_numpy(zero_copy_only=False)
        scores = column.flatten()
        if scores.null_count or (len(column) and len(set(column.value_lengths().to_pylist())) > 1):
            raise CallValueError("has rows of different lengths, or nulls in a row", "prediction", loss=loss.name)
        return scores.to_numpy(zero_copy_only=False).reshape(len(column), -1)

    def each(*columns: Any) -> Any:
        kept = np.logical_and.reduce([np.asarray(c.is_valid()) for c in columns])
        given = [plain(c, pa.array(kept)) for c in columns]
        first: Any = tuple(given[:several]) if several > 1 else given[0]
        found = np.zeros(len(kept))
        found[kept] = loss(first, *given[several:], reduction="none") if kept.any() else 0.0
        return pa.array(found, mask=~kept)

    # DuckDB counts the parameters of a function.
    names = [Parameter(f"column{i}", Parameter.POSITIONAL_ONLY) for i in range(count)]
    each.__signature__ = Signature(names)  # type: ignore[attr-defined]
    return each
