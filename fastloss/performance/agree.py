"""Check that contestants agree with the reference, without which they are not timed."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import reference
from ..losses.catalogue import LOSSES
from .cases import Case, Data
from .contestants import OURS, Contestant, Outcome

__all__ = ["agreeing", "disagreement", "expected"]

TOLERANCES = {"float32": 1e-4, "float64": 1e-9}
"""Tolerances relative to a typical size: float32 sums of 1e7 elements, and other derivations, differ by some 1e-5."""

BLOCK = 1 << 20


class Expected(NamedTuple):
    """Correct loss, and the size of a typical element's loss, to which errors are relative."""

    value: float
    typical: float


def expected(case: Case, data: Data) -> Expected:
    """Return the loss of a case in float64, from the reference formula; a loss of a user's own is its own reference."""
    predictions = [np.asarray(p[: data.tile], np.float64) for p in data.predictions]
    target = data.target if data.target is None else data.target[: data.tile]
    if target is not None:
        target = _plain(case, target) if target.dtype.kind == "i" else target.astype(np.float64)
    function = getattr(reference, case.loss) if case.loss in LOSSES else partial(case.bound, reduction="none")
    with np.errstate(all="ignore"):
        given = predictions if target is None else [*predictions, target]
        tile = np.asarray(function(*given, **dict(case.parameters)))
    losses = np.resize(tile, case.rows)
    total = losses.mean() if case.bound.record.reduction == "mean" else losses.sum()
    return Expected(float(total), float(np.abs(tile).mean() / np.abs(losses.mean()) * abs(total)) or 1.0)


def _plain(case: Case, labels: Any) -> Any:
    """Return labels, as probabilities where the reference formula would build a (K, K) matrix from them."""
    if case.loss != "cross_entropy" or case.classes < 1000:
        return labels
    rows = np.zeros((labels.size, case.classes))
    rows[np.arange(labels.size), labels] = 1.0
    return rows


def agreeing(
    case: Case, data: Data, entrants: Mapping[str, Contestant]
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Return the contestants that agree with the reference, and by name the errors of the others."""
    found: dict[str, Outcome] = {}
    errors = {}
    for name, contestant in entrants.items():
        try:
            found[name] = contestant.read(contestant.call())
        except Exception as error:
            errors[name] = f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    right = expected(case, data)
    ours = found.get(OURS)
    if ours is None:
        raise ArithmeticError(f"{case.id}: {errors[OURS]}")
    for name, outcome in found.items():
        if wrong := disagreement(case, right, ours, outcome):
            errors[name] = f"{name} disagrees: {wrong}"
    if OURS in errors:
        raise ArithmeticError(f"{case.id}: {errors[OURS]}")
    return {n: c for n, c in entrants.items() if n not in errors}, errors


def disagreement(case: Case, right: Expected, ours: Outcome, theirs: Outcome) -> str | None:
    """Return a sentence on how a contestant differs from the reference value or fastloss's derivatives, or None."""
    tolerance = TOLERANCES[case.dtype]
    if theirs.value is not None and not abs(theirs.value - right.value) <= tolerance * right.typical:
        return f"value {theirs.value:.9g}, expected {right.value:.9g}"
    if len(theirs.derivatives) != len(ours.derivatives):
        return f"{len(theirs.derivatives)} derivatives, expected {len(ours.derivatives)}"
    for i, (a, b) in enumerate(zip(ours.derivatives, theirs.derivatives, strict=True)):
        if np.shape(a) != np.shape(b):
            return f"derivative {i} has shape {np.shape(b)}, expected {np.shape(a)}"
        error = _distance(np.ravel(a), np.ravel(b))
        if not error <= tolerance:
            return f"derivative {i} is off by {error:.1e} of its size"
    return None


def _distance(a: Any, b: Any) -> float:
    """Return the largest difference, relative to the element and the mean size."""
    typical = float(np.abs(a[:BLOCK]).mean()) or 1.0
    worst = 0.0
    for start in range(0, a.size, BLOCK):
        x, y = (v[start : start + BLOCK].astype(np.float64) for v in (a, b))
        error = float((np.abs(x - y) / (np.abs(x) + typical)).max(initial=0.0))
        # Not max(), which forgets a NaN that comes second.
        worst = error if error > worst or error != error else worst
        if worst != worst:
            break
    return worst
