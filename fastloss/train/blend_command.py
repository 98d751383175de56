"""Implementation of `fastloss blend`: columns of a file in, a table or JSON out."""

import json
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.columns import InputError
from ..evaluation.files import write_text
from ..evaluation.losses import named
from ..evaluation.sources import Selection, open_source
from .blend import blend

__all__ = ["Request", "blend_command"]


class Request(NamedTuple):
    """Options of one `fastloss blend` command."""

    paths: list[str]
    pred: list[str]
    target: str
    loss: str
    weight: str | None
    folds: int
    bootstrap: int
    json: str | None


def blend_command(request: Request) -> None:
    """Print the weights of the models; with `--json -` only the JSON goes to stdout."""
    loss = named(request.loss)[0].loss
    if loss.record.family != "elementwise":
        raise InputError(
            f"{loss.record.name} takes rows of scores; blend takes a column a model, see fl.blend for rows"
        )
    models, target, weight = _columns(request)
    try:
        found = blend(models, target, loss, weight=weight, folds=request.folds, bootstrap=request.bootstrap)
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None
    if request.json:
        text = json.dumps(found.to_dict(), indent=2)
        if request.json == "-":
            print(text)
            return
        write_text(request.json, text + "\n")
    print(found)


def _columns(request: Request) -> tuple[dict[str, Any], Any, Any]:
    """Return the predictions of each model, the target and the weights of all rows."""
    source, selection = open_source(request.paths, Selection(tuple(request.pred), request.target, request.weight))
    parts: dict[str, list[Any]] = {}
    ends: list[list[Any]] = [[], []]
    for batch in source.batches(selection):
        *preds, targets, weights = range(len(batch.groups))
        for group in preds:
            for (name, _), (values, mask) in zip(batch.groups[group], batch.numbers(group), strict=True):
                parts.setdefault(name, []).append(_plain(values, mask, name))
        for k, group in enumerate((targets, weights)):
            for (name, _), (values, mask) in zip(batch.groups[group], batch.numbers(group), strict=True):
                ends[k].append(_plain(values, mask, name))
    if not parts:
        raise InputError(f"{', '.join(request.paths)}: no rows")
    models = {name: np.concatenate(values) for name, values in parts.items()}
    return models, np.concatenate(ends[0]), np.concatenate(ends[1]) if ends[1] else None


def _plain(values: Any, mask: Any, name: str) -> Any:
    """Return a copy of a column of numbers, as batches may share memory; raise for nulls and lists."""
    if values.ndim != 1:
        raise InputError(f"column {name!r} holds {values.shape[1]} numbers a row; expected one")
    if mask is not None and np.any(mask):
        raise InputError(f"column {name!r} has nulls; remove those rows")
    return np.array(values, np.float64)
