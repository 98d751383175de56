"""Evaluation by Dask, Ray and Spark: each part gives a report of exact sums, and reports merge to the same bits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..columns import InputError
from ..report import Report
from ..sources import Selection

__all__ = ["by_dask", "by_ray", "by_spark", "engine_of", "files_by_dask"]


PATIENCE = 10.0
"""Time for a scheduler to answer (seconds)."""


def engine_of(data: Any) -> str:
    """Return the engine that holds the data, dask, ray or spark; empty for data of this process."""
    module = type(data).__module__
    if module.startswith(("dask.dataframe", "dask_expr")):
        return "dask"
    if module.startswith("ray.data"):
        return "ray"
    return "spark" if module.startswith("pyspark.sql") else ""


def evaluated(part: Any, losses: Any, options: Mapping[str, Any]) -> Report:
    """Return the report of a part; a function of this module, so that processes find it by its name."""
    import fastloss

    return fastloss.evaluate(part, losses, **options)


def _in_order(reports: Sequence[Report]) -> Report:
    """Return the report of parts that follow each other, the worst rows numbered through all."""
    rows, shifted = 0, []
    for report in reports:
        for label, worst in report.worst.items():
            report.worst[label] = [w._replace(row=w.row + rows) for w in worst]
        shifted.append(report)
        rows += report.rows
    return shifted[0].merge(*shifted[1:])


def _columns(names: Sequence[str], selection: Selection) -> list[str]:
    wanted = selection.wanted(names, "the data frame")
    return [n for n in names if n in wanted]


def _client(scheduler: Any) -> Any:
    """Return the client of a scheduler's address; a client as it is; None for none."""
    if not isinstance(scheduler, str):
        return scheduler
    try:
        from distributed import Client
    except ImportError:
        raise InputError('scheduler needs Dask: pip install "fastloss[dask]"') from None
    try:
        return Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise InputError(f"no scheduler of Dask answers at {scheduler}: {error}") from None


def _gathered(client: Any, futures: Sequence[Any]) -> list[Report]:
    """Return the results of futures; raise a sentence for a part whose workers died."""
    try:
        return list(client.gather(futures))
    except Exception as error:
        client.cancel(futures)
        if type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError"):
            raise InputError(
                "workers died again and again over one part, which may be larger than their memory; "
                "expected smaller parts or more memory: no report was made"
            ) from None
        raise


def by_dask(frame: Any, losses: Any, options: Mapping[str, Any], selection: Selection, scheduler: Any) -> Report:
    """Evaluate the partitions of a Dask data frame where they are."""
    import dask

    parts = frame[_columns(list(frame.columns), selection)].to_delayed()
    tasks = [dask.delayed(evaluated, pure=False)(part, losses, dict(options)) for part in parts]
    client = _client(scheduler)
    if client is None:
        try:
            from distributed import default_client

            client = default_client()
        except (ImportError, ValueError):
            return _in_order(dask.compute(*tasks))
    return _in_order(_gathered(client, client.compute(tasks)))


def files_by_dask(files: Sequence[str], losses: Any, options: Mapping[str, Any], scheduler: Any) -> Report:
    """Evaluate files by the workers of a Dask scheduler, one task a file."""
    client = _client(scheduler)
    one = partial(evaluated, losses=losses, options=dict(options))
    futures = client.map(one, list(files), pure=False)
    try:
        first, *others = _gathered(client, futures)
    finally:
        if isinstance(scheduler, str):
            client.close()
    return first.merge(*others)


def _report_table(table: Any, losses: Any, options: Mapping[str, Any]) -> Any:
    """Return a table of one cell: the report of a block as JSON."""
    import pyarrow as pa

    return pa.table({"report": [evaluated(table, losses, options).to_json(None)]})


def by_ray(dataset: Any, losses: Any, options: Mapping[str, Any], selection: Selection) -> Report:
    """Evaluate the blocks of a Ray data set where they are."""
    names = _columns(list(dataset.columns()), selection)
    function = partial(_report_table, losses=losses, options=dict(options))
    found = dataset.select_columns(names).map_batches(function, batch_format="pyarrow", batch_size=None)
    reports = [Report.from_json(row["report"]) for row in found.take_all()]
    if not reports:
        raise InputError("the data set has no rows; expected at least one")
    return reports[0].merge(*reports[1:])


def _spark_part(losses: Any, options: Mapping[str, Any]) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """Return the function that Spark calls with the record batches of a partition."""

    def part(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        first = next(batches, None)
        if first is None:
            return

        def all_batches() -> Iterator[Any]:
            yield first
            yield from batches

        reader = pa.RecordBatchReader.from_batches(first.schema, all_batches())
        text = evaluated(reader, losses, options).to_json(None)
        yield pa.RecordBatch.from_pydict({"report": [text]})

    return part


def by_spark(frame: Any, losses: Any, options: Mapping[str, Any], selection: Selection) -> Report:
    """Evaluate the partitions of a Spark data frame where they are, by mapInArrow."""
    names = _columns(list(frame.columns), selection)
    chosen = frame.select(*(f"`{n.replace('`', '``')}`" for n in names))
    found = chosen.mapInArrow(_spark_part(losses, dict(options)), "report string").collect()
    if not found:
        raise InputError("the data frame has no rows; expected at least one")
    reports = [Report.from_json(row["report"]) for row in found]
    return reports[0].merge(*reports[1:])
