"""Losses as expressions of Polars."""

from typing import Any

import numpy as np

from .hosts import host, loss_of

__all__ = ["loss"]


def loss(loss: Any, *arrays: Any, **parameters: Any) -> Any:
    """Return the loss of each row as an expression, in Float64; a row with a null gives null.

    Parameters
    ----------
    loss : str or Loss
        Loss of single rows: a name, "name:parameter=value", or a loss.
    *arrays : str or polars.Expr
        Prediction and target, in the order of the loss; each a column's name or an expression. Scores of classes are
        one column of the type Array.
    **parameters
        Parameters of the loss.

    Returns
    -------
    polars.Expr
        Expression that works in lazy and streaming queries.

    Examples
    --------
    >>> import polars as pl  # doctest: +SKIP
    >>> df.with_columns(fl.polars.loss("huber", "pred", "target", delta=2.0).alias("loss"))  # doctest: +SKIP
    """
    polars = host("polars", "polars", "fastloss.polars.loss")
    bound = loss_of(loss, parameters)
    record = bound.record
    several = len(record.predictions) if record.family == "elementwise" else 1
    count = several + (record.target is not None)
    if record.family == "arrays" or len(arrays) != count:
        takes = f"{count} columns; {len(arrays)} given" if record.family != "arrays" else "arrays that no row holds"
        raise TypeError(f"{record.name} takes {takes}")
    names = [f"{i}" for i in range(count)]
    columns = [polars.col(x) if isinstance(x, str) else x for x in arrays]

    def each(rows: Any) -> Any:
        frame = rows.struct.unnest()
        kept = ~frame.select(polars.any_horizontal(polars.all().is_null())).to_series().to_numpy()
        given = [np.ascontiguousarray(frame[n].filter(polars.Series(kept)).to_numpy()) for n in names]
        given = [x.astype(np.float64) if x.dtype.kind in "iub" and record.family != "rows" else x for x in given]
        first: Any = tuple(given[:several]) if several > 1 else given[0]
        found = np.full(len(kept), np.nan)
        found[kept] = bound(first, *given[several:], reduction="none") if kept.any() else 0.0
        series = polars.Series(found, dtype=polars.Float64)
        return series if kept.all() else series.set(polars.Series(~kept), None)

    named = polars.struct(*[c.alias(n) for c, n in zip(columns, names, strict=True)])
    return named.map_batches(each, return_dtype=polars.Float64, is_elementwise=True).alias(record.name)
