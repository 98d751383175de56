"""Losses of predictions in files, tables and arrays of any size, in one pass and in bounded memory."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from .accumulate import Statistics
from .columns import InputError
from .report import Report, WorstRow

__all__ = ["InputError", "Report", "Statistics", "WorstRow", "evaluate"]

ON_INVALID = ("fail", "skip", "propagate")


def evaluate(
    data: Any,
    losses: Any,
    *,
    pred: str | Sequence[str] = "pred",
    target: str | None = "target",
    weight: str | None = None,
    pred_is: str = "",
    by: Any = None,
    hist: int = 0,
    quantiles: float | Sequence[float] = (),
    calibration: bool | int = False,
    confusion: bool = False,
    threshold: float | Sequence[float] = 0.5,
    gaps: bool = False,
    format: str = "",
    positive: Any = None,
    classes: Sequence[Any] = (),
    on_invalid: str = "fail",
    worst: int = 0,
    show: str | Sequence[str] = (),
    per_sample: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    scheduler: Any = None,
    threads: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Evaluate losses on data that may be larger than memory, all of them in one read.

    Each row's loss is computed in float64 and added up exactly, so the figures do not depend on the number of threads,
    on the order of the rows or on how they are split over files, and reports of shards merge to the same bits.

    Parameters
    ----------
    data : path, list of paths, tuple or mapping of arrays, Arrow table, reader, data set, or data frame
        Parquet, Feather / Arrow IPC, CSV, JSON lines (compressed as well), .npy and .npz files, directories and globs;
        URIs such as ``s3://bucket/key``; "-" for the standard input, CSV unless `format` says otherwise;
        ``(pred, target[, weight])``
        arrays, where several predictions are a tuple; a mapping of names to arrays; anything that exports an Arrow
        stream; lazy frames of Polars, relations of DuckDB; data frames of Dask and Spark and data sets of Ray, whose
        workers compute.
    losses : str, Loss, or sequence of these
        Names such as ``"mse"`` or ``"huber:delta=2"``, or Loss objects.
    pred : str or sequence of str
        Column of the prediction: numbers, or lists of numbers for losses of whole rows. Globs (``"logit_*"``) and
        several names stand for several columns: a row of scores, or the predictions of a loss like gaussian_nll.
    target, weight : str, optional
        Columns of the target and of the row's weight (0 or more).
    pred_is : {"prob", "logit", "log-prob", "mean"}, optional
        What the predictions are, where losses take something else: they are converted for each loss, exactly at
        probabilities of 0 and 1, so that losses of logits and of probabilities go together. "mean" stands for the means
        that losses of their logarithms take (poisson, gamma, tweedie).
    by : str, sequence of str or tuples, array, or mapping of names to arrays, optional
        Columns of keys: `report.groups` then has a report for each group, with the bits of an evaluation of its rows
        alone. A tuple, or names joined by commas, crosses columns; several in a list are groupings of their own.
        Columns may be text, numbers, booleans, dates or dictionaries; a null is a group, and directories named
        ``country=US`` are a column. Up to 100,000 groups. For a tuple of arrays, an array of keys or a mapping.
    hist : int, optional
        Bins of `report.histograms`: of each loss, and of predictions and targets where they are single numbers.
    quantiles : float or sequence of float, optional
        Shares, such as ``[0.5, 0.99]``, of `report.quantiles`. Up to 131,072 values are kept, and quantiles are those
        of NumPy; of more they are within 0.1%. The same for any split of the rows.
    calibration : bool or int, optional
        Bins (True: 10) of `report.calibration`: reliability tables, calibration errors and decompositions of the Brier
        score, of predicted probabilities and labels 0 and 1, or of the largest probability of rows of scores.
    confusion : bool, optional
        Count right and wrong decisions in `report.confusion`: of probabilities that reach `threshold` (or several), or
        of the class with the largest score.
    threshold : float or sequence of float
        Probabilities from which on a decision is positive.
    gaps : bool, optional
        Compare the groups in `report.gaps`: largest difference and ratio of each loss and, for labels 0 and 1, of
        selection rate, accuracy, precision, recall and false positive rate.
    format : {"csv", "tsv", "jsonl", "arrow", "parquet"}, optional
        Format of the standard input and of files whatever their endings.
    positive : optional
        Label of the positive class: the target is 1 where it is this label, and else 0.
    classes : sequence, optional
        Labels of the classes in the order of the scores: the target becomes the index of its label.
    on_invalid : {"fail", "skip", "propagate"}
        Treatment of rows with a null, NaN or infinity, or with a loss that is not finite: raise an error that names
        file and row; leave them out; or let them through, so that the figures become NaN.
    worst : int
        Number of rows of largest loss to report.
    show : str or sequence of str
        Columns to report of these rows, such as an identifier or the text.
    per_sample : path, optional
        Parquet file to write every row's loss to: columns file, row, and one for each loss. It appears whole or not
        at all, in place of an older one; a pipe or device is written into.
    resume : path, optional
        Directory that keeps the exact sums of each finished file. An evaluation that was interrupted and is called
        again reads only what is left, and returns the bits of one that was not.
    scheduler : str or client, optional
        Address of a Dask scheduler, or a client, whose workers read the files.
    threads : int, optional
        Threads that compute while others read; by default the number that fastloss uses.
    progress : callable, optional
        Called after every batch with the rows done and the total number of rows (None if unknown).

    Returns
    -------
    Report
        A mapping of each loss's label to its `Statistics`, with `to_json` and `merge`; its repr is a table.

    Raises
    ------
    InputError
        A ValueError: unknown columns, unreadable files, invalid rows, values outside a loss's domain.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> logits, labels = np.array([2.0, -1.0, 0.5]), np.array([1, 0, 1])
    >>> fl.evaluate((logits, labels), losses=["bce_with_logits", "focal"])["bce_with_logits"].count
    3
    """
    given = dict(locals())
    from .details import options_of
    from .engines import in_parts
    from .files import check_outputs
    from .groups import groupings_of
    from .losses import named
    from .plan import Plan
    from .run import run
    from .sources import FORMATS, Selection, input_files, labelled, open_source, paths_of

    if on_invalid not in ON_INVALID:
        raise InputError(f"on_invalid is {on_invalid!r}; allowed: {', '.join(ON_INVALID)}")
    if isinstance(worst, bool) or not isinstance(worst, int) or worst < 0:
        raise InputError(f"worst is {worst!r}; expected a whole number, 0 or more")
    evaluated = named(losses, pred_is)
    preds = (pred,) if isinstance(pred, str) else tuple(pred)
    groupings, keys = groupings_of(by, data)
    asked = {"hist": hist, "quantiles": quantiles, "calibration": calibration, "confusion": confusion}
    details = options_of({**asked, "threshold": threshold, "gaps": gaps}, evaluated, pred_is, groupings)
    if per_sample is not None:
        if FORMATS.get(os.path.splitext(per_sample)[1].lower(), "parquet") != "parquet":
            raise InputError(f"per_sample is {os.fspath(per_sample)}; it is written as Parquet, expected FILE.parquet")
        check_outputs([per_sample], input_files(data, Selection(preds, target, weight)))
    shown = (show,) if isinstance(show, str) else tuple(show)
    if shown and not worst:
        raise InputError(f"show {', '.join(shown)} is of the worst rows; give worst as well, such as worst=10")
    columns = Selection(preds, target, weight, groupings, shown)
    if (report := in_parts(given, evaluated, columns, paths_of(data))) is not None:
        return report
    source, selection = open_source(data, columns, keys, format)
    source = labelled(source, positive, classes, target)
    weighted, keeps = selection.weight is not None, per_sample is not None
    plan = Plan(evaluated, weighted, on_invalid, worst, keeps, groupings, details if details.wanted else None)
    plan.shows = bool(shown)
    return run(source, selection, plan, threads=thread_count(threads), per_sample=per_sample, progress=progress)


def thread_count(threads: int | None) -> int:
    """Return the number of threads asked for, or that fastloss uses; raise for one that is no number of them."""
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise InputError(f"threads is {threads!r}; expected a whole number of at least 1")
        return threads
    from numba import config

    from ..cpu.runtime.threads import get_num_threads

    return 1 if config.DISABLE_JIT else get_num_threads()
