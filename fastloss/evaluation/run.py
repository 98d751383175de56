"""Single pass over a source: threads evaluate batches while Arrow decodes the next ones."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from .. import _signals
from .accumulate import Partial
from .columns import with_arrow
from .plan import Plan, Result
from .report import GroupReports, Report, WorstRow, ranked
from .sources import Selection, Source

__all__ = ["results", "run"]

Progress = Callable[[int, int | None], None]


def results(source: Source, selection: Selection, plan: Plan, threads: int) -> Iterator[Result]:
    """Yield results in the order of the rows, so that the first error raised belongs to the first bad row."""
    if threads == 1:
        yield from map(plan.process, source.batches(selection))
        return
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fastloss")
    try:
        for batch in source.batches(selection):
            pending.append(pool.submit(plan.process, batch))
            if len(pending) > threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # A command that a signal ends does not wait for what is being compiled.
        pool.shutdown(wait=not _signals.ended_by(), cancel_futures=True)


def run(
    source: Source,
    selection: Selection,
    plan: Plan,
    *,
    threads: int,
    per_sample: Any = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluate all rows of a source."""
    labels = [e.label for e in plan.losses]
    sums = [Partial(plan.weighted) for _ in labels]
    worst: list[list[WorstRow]] = [[] for _ in labels]
    rows = null_rows = non_finite_rows = 0
    total = source.total() if progress is not None else None
    with ExitStack() as stack:
        writer = None
        if per_sample is not None:
            writing = with_arrow("per_sample")
            writer = stack.enter_context(writing.opened(per_sample, labels, plan.on_invalid == "propagate"))
        for result in results(source, selection, plan, threads):
            for k, partial in enumerate(result.partials):
                sums[k].merge(partial)
            rows += result.rows
            null_rows += result.null_rows
            non_finite_rows += result.non_finite_rows
            if plan.worst:
                _rank(plan, worst, result)
            if writer is not None:
                writer.write(result)
            if progress is not None:
                progress(rows, total)
    return Report(
        {e.label: s.moments(e.figure) for e, s in zip(plan.losses, sums, strict=True)},
        rows=rows,
        null_rows=null_rows,
        non_finite_rows=non_finite_rows,
        on_invalid=plan.on_invalid,
        worst=dict(zip(labels, worst, strict=True)) if plan.worst else None,
        worst_k=plan.worst,
        suspects=[e.label for e, found in zip(plan.losses, plan.may_be_probabilities, strict=True) if found and rows],
        details=plan.details.found() if plan.details else None,
        groups={names: _by_group(plan, k) for k, names in enumerate(plan.groups.by)} if plan.groups else None,
    )


def _by_group(plan: Plan, grouping: int) -> GroupReports:
    """Return a report for each group of a grouping, made when it is asked for."""
    groups = plan.groups
    assert groups is not None
    labels, figures = [e.label for e in plan.losses], [e.figure for e in plan.losses]

    def report(code: int) -> Report:
        counted, moments = groups.state_of(grouping, code, figures)
        return Report(
            dict(zip(labels, moments, strict=True)),
            rows=counted[0],
            null_rows=counted[1],
            non_finite_rows=counted[2],
            on_invalid=plan.on_invalid,
            details=plan.details.of_group(grouping, code) if plan.details else None,
        )

    return GroupReports({key: code for code, key in enumerate(groups.keys[grouping])}, report)


def _rank(plan: Plan, worst: list[list[WorstRow]], result: Result) -> None:
    for k, found in enumerate(result.worst):
        if found:
            new = [WorstRow(result.source, result.start + r, value, result.shown.get(r, {})) for value, r in found]
            worst[k] = ranked(worst[k] + new, plan.worst)
            if len(worst[k]) == plan.worst:
                plan.floors[k] = worst[k][-1].loss
