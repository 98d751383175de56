"""Evaluation in parts: file by file with the sums kept, and by Dask, Ray and Spark."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..columns import InputError
from ..inputs.paths import expand
from ..losses import Evaluated
from ..sources import Selection

if TYPE_CHECKING:
    from ..report import Report

__all__ = ["identity_of", "in_parts"]

WHOLE = ("data", "losses", "per_sample", "resume", "scheduler", "progress")
"""Arguments of `evaluate` that are of the whole evaluation; each part gets the others."""


def in_parts(
    given: Mapping[str, Any], evaluated: Sequence[Evaluated], selection: Selection, paths: Sequence[Any] | None
) -> "Report | None":
    """Return the report of an evaluation in parts; None where it takes place in this process and in one read.

    Parameters
    ----------
    given : mapping
        Arguments of `evaluate` by name.
    evaluated : sequence of Evaluated
        Losses.
    selection : Selection
        Columns.
    paths : sequence, optional
        Paths that the data is; None for other data.
    """
    from . import cluster

    engine = cluster.engine_of(given["data"])
    resume, scheduler = given["resume"], given["scheduler"]
    if not engine and resume is None and scheduler is None:
        return None
    if given["per_sample"] is not None:
        raise InputError("per_sample is written in one read; expected none beside resume, scheduler and clusters")
    options = {name: value for name, value in given.items() if name not in WHOLE}
    if resume is not None and (scheduler is not None or engine):
        raise InputError("resume keeps the sums of files that this process reads; expected no scheduler beside it")
    if engine == "dask":
        return cluster.by_dask(given["data"], given["losses"], options, selection, scheduler)
    if engine:
        by = cluster.by_ray if engine == "ray" else cluster.by_spark
        return by(given["data"], given["losses"], options, selection)
    if not paths:
        raise InputError("resume and scheduler take files; expected paths as data")
    if scheduler is not None:
        return cluster.files_by_dask(expand(paths), given["losses"], options, scheduler)
    from .resume import resumed

    def one(file: str, progress: Any) -> "Report":
        return cluster.evaluated(file, list(evaluated), {**options, "pred_is": "", "progress": progress})

    return resumed(expand(paths), resume, one, identity_of(evaluated, options), given["progress"])


def identity_of(evaluated: Sequence[Evaluated], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return losses and options as JSON can hold them; threads and the order of keys do not matter."""
    losses = [[e.label, _digest(e)] for e in evaluated]
    return {"losses": losses, "options": {k: repr(v) for k, v in sorted(options.items()) if k != "threads"}}


def _digest(loss: Evaluated) -> str:
    """Return a digest of a loss: its parameters, what is ignored, and the instructions of its formula."""
    parts = [loss.loss.name, repr(sorted(loss.loss.defaults.items())), repr(loss.ignore_index), loss.figure]
    code = getattr(getattr(loss.loss.record, "function", None), "__code__", None)
    if code is not None:
        parts += [
            code.co_code.hex(),
            repr([c for c in code.co_consts if not hasattr(c, "co_code")]),
            repr(code.co_names),
        ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
