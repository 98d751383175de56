"""Selection of the losses to evaluate, by name, by `name:parameter=value` or as Loss objects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .accumulate import figure
from .columns import InputError
from .scales import SCALES, converted, scale_of

__all__ = ["Evaluated", "by_rows", "found", "named", "other_name"]

IGNORED = -100


def by_rows(record: Any) -> bool:
    """Whether a loss can be evaluated row by row; losses over a batch, group or sequence of rows cannot."""
    if record.family != "arrays" or record.mean_of:
        return True
    whole = all(x.dims.startswith("*") and "+" not in x.dims and x.kind == "float" for x in record.inputs.values())
    return whole and record.units == "*" and len(record.inputs) > 1


@dataclass(frozen=True)
class Evaluated:
    """Loss to evaluate, with its label in the report."""

    label: str
    loss: Any
    ignore_index: int | None = None
    figure: str = ""
    """Name of the requested loss that is a function of this one's mean; empty for a plain mean."""
    pred_is: str = ""
    """Scale of the predictions; empty where it is the one that the loss takes."""

    @property
    def takes_logits(self) -> bool:
        """Whether predictions are logits or scores of both signs, and were not said to be anything."""
        return not self.pred_is and scale_of(self.loss.record) in ("logit", "half-logit", "margin")

    @property
    def by_rows(self) -> bool:
        """Whether the prediction is a row of scores."""
        return bool(self.loss.record.family == "rows")

    def takes_labels(self, target: Any) -> bool:
        """Whether the target holds class indices."""
        return self.by_rows and target is not None and target.ndim == 1 and self.loss.record.row_loop.has_classes

    def prediction(self, preds: Sequence[Any], target: Any) -> Any:
        """Return the prediction in the form that the loss takes, or a sentence that says why it cannot be used."""
        record = self.loss.record
        names = record.predictions if record.family != "arrays" else tuple(record.inputs)[:-1]
        name = self.loss.name
        if target is None and (record.target is not None or record.family == "arrays"):
            raise InputError(f"{name} needs a target" + (f": {list(record.inputs)[-1]}" if record.inputs else ""))
        if len(names) > 1:
            if len(preds) != len(names):
                raise InputError(
                    f"{name} takes {len(names)} predictions ({', '.join(names)}), so pred as often; {len(preds)} given"
                )
            return tuple(preds)
        if record.family == "arrays":
            return (preds[0],)
        if len(preds) > 1 and not self.by_rows:
            raise InputError(f"{name} takes one prediction; {len(preds)} given")
        pred = preds[0]
        if len(preds) > 1:
            pred = np.concatenate([p if p.ndim == 2 else p[:, None] for p in preds], axis=1)
        if self.by_rows and pred.ndim == 1:
            raise InputError(
                f"{name} takes a row of scores and was given one number "
                "(expected a list column, or several columns by pred 'logit_*')"
            )
        leveled = any(isinstance(v, tuple) for v in self.loss.defaults.values())
        if not (self.by_rows or leveled) and target is not None and pred.ndim == 2 and target.ndim == 1:
            raise InputError(f"{name} takes one number a row and was given {pred.shape[1]}, for one target")
        return converted(pred, self.pred_is, record) if self.pred_is else pred

    def hint(self, fails_finite: bool) -> str:
        """Return what to try where a loss refuses a prediction, or is not finite at one; else nothing."""
        scale = scale_of(self.loss.record)
        if self.pred_is or (scale == "prob") == fails_finite or scale not in ("prob", "log-mean"):
            return ""
        other = "logits" if scale == "prob" else "means"
        return f"; if predictions are {other}, say so: pred_is={other[:-1]!r}"

    def call(self, pred: Any, target: Any) -> Any:
        """Return the loss of each row, float64."""
        options = {"ignore_index": None} if self.takes_labels(target) else {}
        if self.loss.record.family == "elementwise" and self.loss.record.target is None:
            target = None
        values = self.loss(pred, target, reduction="none", **options)
        if values.ndim > 1:
            values = values.reshape(len(values), -1).mean(axis=1)
        return np.ascontiguousarray(values, np.float64)

    def shown(self, values: Any) -> Any:
        """Return the values reported for single rows."""
        return np.fromiter((figure(self.figure, v) for v in values), np.float64) if self.figure else values


def named(losses: Any, pred_is: str = "") -> list[Evaluated]:
    """Return the losses to evaluate, each under a distinct label, of predictions on a scale."""
    if pred_is not in ("", *SCALES):
        raise InputError(f"pred_is is {pred_is!r}; allowed: {', '.join(SCALES)}")
    if isinstance(losses, str) or not isinstance(losses, Sequence):
        losses = [losses]
    if not losses:
        raise InputError("no losses to evaluate; name at least one")
    found = [x if isinstance(x, Evaluated) else _parsed(x) if isinstance(x, str) else _given(x) for x in losses]
    for record in (e.loss.record for e in found):
        if not by_rows(record):
            raise InputError(f"{record.name} is a loss of {_whole(record)}; expected a loss of single rows")
    labels = [e.label for e in found]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"{label} is asked for twice")
    return [replace(e, pred_is=pred_is) for e in found] if pred_is else found


def _whole(record: Any) -> str:
    return {"": "a whole batch", "g": "groups of rows"}.get(record.units, "arrays that no row of a file holds")


def _given(loss: Any) -> Evaluated:
    record = getattr(loss, "record", None)
    if record is None:
        raise TypeError(f"a loss is given as {type(loss).__name__}; expected a name such as 'huber:delta=2' or a Loss")
    changed = {k: v for k, v in loss.defaults.items() if v != record.defaults[k]}
    shown = ",".join(f"{k}={_shown(record.parameters[k], v)}" for k, v in changed.items())
    label = f"{record.name}:{shown}" if changed else record.name
    if record.mean_of:
        import fastloss

        ignored = record.parameters["ignore_index"].meant(loss.defaults["ignore_index"])
        return Evaluated(label, fastloss.LOSSES[record.mean_of], ignored, record.name)
    return Evaluated(label, loss, IGNORED)


def _shown(parameter: Any, value: Any) -> str:
    levels = value if isinstance(value, tuple) else (value,)
    return "/".join(parameter.show(v, "{:.15g}".format).lower() for v in levels)


def _parsed(text: str) -> Evaluated:
    """Parse a loss as `found` does, with parameters as `parameter=value,parameter=value`."""
    import fastloss

    loss, rest = found(text)
    if other_name(text):
        text = f"{loss.name}:{rest}"
    whole = loss.name if loss.record.mean_of else ""
    loss = fastloss.LOSSES[loss.record.mean_of] if whole else loss
    ignore: int | None = IGNORED
    parameters: dict[str, Any] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not key or not value:
            raise InputError(f"{text!r}: expected parameter=value after the colon, got {part!r}")
        if key in parameters:
            raise InputError(f"{text!r}: {key} is given twice")
        spec = loss.record.parameters.get(key)
        parameters[key] = value if spec is not None and spec.choices else _value(value, text)
    if loss.record.family == "rows" and "ignore_index" in parameters:
        ignore = parameters.pop("ignore_index")
        if ignore is not None and not isinstance(ignore, int):
            raise InputError(f"{text!r}: ignore_index is {ignore!r}; expected a whole number or none")
    label = " ".join(text.split()) if OWN.match(text.strip()) else re.sub(r"\s+", "", text)
    return Evaluated(label.removesuffix(":"), loss.bind(**parameters) if parameters else loss, ignore, whole)


OWN = re.compile(r"expr:|.+\.py:")
"""Beginnings of losses of a user's own: an expression, or a name in a Python file."""


def found(text: str) -> tuple[Any, str]:
    """Return the loss that a text names, and its parameters: `name:...`, `file.py:name:...` or `expr:...`."""
    import fastloss

    text = text.strip()
    if text.startswith("expr:"):
        return fastloss.formula(text.removeprefix("expr:"), name="expr"), ""
    if text.endswith(".py"):
        known = ", ".join(f"{text}:{name}" for name in fastloss.losses_from(text))
        raise InputError(f"{text} is a file; name a loss in it: {known}")
    if file := re.fullmatch(r"(.+\.py):([^:]*)(?::(.*))?", text):
        losses = fastloss.losses_from(file[1])
        if file[2].strip() not in losses:
            raise InputError(f"{file[1]} has no loss {file[2].strip()!r}; it has {', '.join(losses)}")
        return losses[file[2].strip()], file[3] or ""
    name, _, rest = text.partition(":")
    return fastloss.LOSSES[name.strip()], rest


def other_name(text: str) -> str:
    """Return a note for a loss that is named as in another library; empty for names of the catalogue."""
    import fastloss

    name = text.partition(":")[0].strip()
    if OWN.match(text.strip()) or name in [*fastloss.LOSSES] or name not in fastloss.LOSSES:
        return ""
    return f"{name} is {fastloss.LOSSES[name].name} here"


def _value(text: str, whole: str) -> Any:
    """Parse a number, true, false, none, or levels joined by slashes."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    if "/" in text:
        return tuple(_value(t, whole) for t in text.split("/"))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    raise InputError(f"{whole!r}: {text!r} is not a number, true, false or none")
