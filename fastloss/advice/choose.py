"""Choice of a loss: what is wanted decides first, then the kind of target, then the shape of the noise."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..call.errors import CallTypeError, CallValueError
from ..evaluation.columns import InputError
from .counts import advise_on_classes, advise_on_counts, advise_on_two_classes, missing_above
from .describe import recommended
from .evidence import Evidence, columns_of, gather
from .numbers import (
    advise_on_amounts,
    advise_on_censored,
    advise_on_numbers,
    advise_on_shares,
    censored_at,
    is_skewed,
)
from .result import Advice

__all__ = ["advise"]

WANTED = ("mean", "median", "quantile:Q", "probability", "ranking")
NAME = "fl.advise"
GAP = 1.5
"""Ratio of the mean errors of two groups from which a risk over groups is advised."""


def advise(
    y: Any,
    pred: Any = None,
    group: Any = None,
    *,
    target: str | None = None,
    wanted: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Advice:
    """Advise on the loss to train with, from what is known: recommendations with reasons, the best first.

    What is wanted comes first: the mean, the median, a quantile and a probability have losses of their own, whose
    minimum they are. Then the kind of the targets decides (real numbers, positive amounts, counts, shares, classes),
    and then the noise: normal, heavy-tailed or with outliers, by likelihood. The shape of noise is that of residuals,
    so `pred` tells most; without it the targets themselves are judged, and nothing about noise is called clear.

    Parameters
    ----------
    y : array of shape (n,), or data with columns
        Targets: numbers, booleans or text. With `target`, files, a table or a data frame, as `fl.evaluate` takes them.
    pred : array of shape (n,) or (n, K), or name of a column, optional
        Predictions of a model that you have, perhaps one trained with squared error.
    group : array, or name of a column, optional
        Groups of rows, such as countries: losses of groups are compared, and rankings are within them.
    target : str, optional
        Column of the targets, where `y` is data with columns.
    wanted : {"mean", "median", "quantile:Q", "probability", "ranking"}, optional
        What predictions are for, such as "quantile:0.9".
    progress : callable, optional
        Called with the rows read and their total number.

    Returns
    -------
    Advice
        A sequence of `Recommendation`, with `.loss`, `.parameters`, `.reasons`, `.warnings` and `.code`; its repr is a
        text, and it has `to_json` and `to_html`.

    Raises
    ------
    ValueError
        If there is nothing to predict: constant targets, one class, no rows.

    Notes
    -----
    Numbers of rows, ranges and classes are those of all rows. Shapes are judged by up to 20,000 rows that are spread
    over the data. Models of noise are compared by Schwarz's criterion [1]_; a lead of 14 is called clear.

    References
    ----------
    .. [1] Schwarz (1978), Estimating the dimension of a model; Kass and Raftery (1995), Bayes factors.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> rng = np.random.default_rng(0)
    >>> pred = rng.normal(size=1000)
    >>> advice = fl.advise(pred + rng.laplace(size=1000), pred)
    >>> advice[0].name, advice.confidence
    ('mae', 'clear')
    >>> advice[0].reasons[0][:30]
    'The residuals are Laplacian, w'
    """
    _purpose(wanted)
    if target is not None:
        names = () if pred is None else (pred,) if isinstance(pred, str) else tuple(pred)
        return advise_on(gather(y, target, names, group, progress), wanted)
    try:
        data, names, by = columns_of(y, pred, group)
        _check_shapes(data)
        found = gather(data, "target", names, by, progress)
    except InputError as error:
        raise CallValueError(str(error), None, None, NAME) from None
    return advise_on(found, wanted)


def _check_shapes(columns: Any) -> None:
    target = columns["target"]
    if target.ndim != 1:
        problem = f"has shape {target.shape}; expected (n,), one target a row"
        raise CallValueError(problem, "y", None, NAME)
    for name in ("pred", "group"):
        if name in columns and len(columns[name]) != len(target):
            problem = f"has {len(columns[name]):,} rows; y has {len(target):,}"
            raise CallValueError(problem, name, None, NAME)
    if target.dtype.kind not in "fiubUSO":
        raise CallTypeError(f"has dtype {target.dtype}; expected numbers, booleans or text", "y", None, NAME)


def advise_on(found: Evidence, wanted: str | None) -> Advice:
    """Return advice on the evidence."""
    purpose, level = _purpose(wanted)
    if found.distinct == 1:
        value = found.names[0] if found.names is not None else found.low
        what = f"of one class, {value!r}" if found.names is not None else f"all {value:g}"
        raise CallValueError(
            f"cannot choose a loss: the targets are {what}, so there is nothing to predict", None, None, NAME
        )
    if found.names is not None and purpose in ("mean", "median", "quantile", "ranking"):
        problem = f"is {wanted!r}, and the targets are text; expected 'probability' or nothing"
        raise CallValueError(problem, "wanted", None, NAME)
    if purpose == "ranking":
        return _ranking(found)
    if purpose in ("median", "quantile"):
        return _quantile(found, level)
    advice = _by_kind(found, purpose)
    return _over_groups(found, advice)


def _purpose(wanted: str | None) -> tuple[str, float]:
    if wanted is None:
        return "", 0.5
    text = str(wanted).strip().lower()
    if match := re.fullmatch(r"quantile:(.+)", text):
        try:
            level = float(match[1])
        except ValueError:
            level = math.nan
        if not 0.0 < level < 1.0:
            raise CallValueError(f"is {wanted!r}; the level of a quantile is in (0, 1)", "wanted", None, NAME)
        return "quantile", level
    if text not in ("mean", "median", "probability", "ranking"):
        raise CallValueError(f"is {wanted!r}; allowed: {', '.join(WANTED)}", "wanted", None, NAME)
    return text, 0.5


def _by_kind(found: Evidence, purpose: str) -> Advice:
    """Return advice by the kind of the targets."""
    probability = purpose == "probability"
    if found.distinct == 2:
        return advise_on_two_classes(found, probability)
    scores = found.pred.shape[1] if found.pred is not None and found.pred.ndim == 2 else 0
    if found.names is not None or (
        scores > 1 and found.whole and found.counts is not None and len(found.counts) <= scores
    ):
        return advise_on_classes(found, probability, False, True)
    if probability and found.whole and found.counts is not None:
        return advise_on_classes(found, True, False, False)
    if missing_above(found) > 10.0:
        ordered = purpose == "mean" or _follows(found) or found.low == 1.0
        return advise_on_classes(found, probability, ordered, _follows(found))
    if found.whole and found.low >= 0.0:
        return advise_on_counts(found)
    if not found.whole and found.low >= 0.0 and found.high <= 1.0:
        return advise_on_shares(found)
    zeros = float(np.mean(found.target == 0.0))
    if found.low == 0.0 and zeros > 0.01:
        return advise_on_amounts(found, zeros)
    if (cut := censored_at(found)) is not None:
        return advise_on_censored(found, *cut)
    if is_skewed(found):
        return advise_on_amounts(found, 0.0)
    return advise_on_numbers(found, purpose == "mean")


def _follows(found: Evidence) -> bool:
    """Whether a single prediction rises with the targets, which then have an order."""
    if found.pred is None or found.pred.ndim > 1 or np.ptp(found.pred) == 0.0:
        return False
    n = len(found.target)
    r = float(np.corrcoef(found.pred, found.target)[0, 1])
    return r > 0.2 and r * math.sqrt(n) > 4.0


def _quantile(found: Evidence, level: float) -> Advice:
    facts: dict[str, Any] = {"rows": found.rows, "level": level}
    median = level == 0.5
    reasons = [
        f"Its minimum is the {'median' if median else f'{level:g} quantile'}, whatever the noise; no other loss's is."
    ]
    first = recommended("mae", reasons) if median else recommended("quantile", reasons, q=level)
    more = recommended(
        "ordered_quantiles",
        ["For several levels at once: they never cross."],
        code="levels = np.array([0.1, 0.5, 0.9])\n"
        "scores = np.c_[pred, np.zeros((len(pred), 2))]  # a model of three outputs\n"
        "value, grad = fl.ordered_quantiles.value_and_grad(scores, y, levels)",
    )
    return Advice("numbers of which a quantile is wanted", "clear", facts, [first, more])


def _ranking(found: Evidence) -> Advice:
    facts: dict[str, Any] = {"rows": found.rows, "different targets": _distinct(found)}
    two = found.distinct == 2
    if two and found.group is None:
        reasons = ["Two classes in one list: every positive should score above every negative, which the AUC counts."]
        code = "value, grad = fl.auc_pairwise.value_and_grad(pred, y)"
        return Advice(
            "one list of two classes",
            "clear",
            facts,
            [
                recommended("auc_pairwise", reasons, code=code),
                recommended("bce_with_logits", ["Probabilities rank too, and it scales better."]),
            ],
        )
    sorted_rows = (
        "order = np.argsort(group, kind='stable')\n"
        "offsets = np.r_[0, np.cumsum(np.unique(group, return_counts=True)[1])]\n"
    )
    call = "value, grad = fl.{}.value_and_grad({})"
    inside = "pred[order], y[order], offsets" if found.group is not None else "pred, y"
    texts = {
        "lambda_rank": "Pairs are weighted by how much NDCG changes when they change places.",
        "listnet": "Smooth and convex: cross-entropy of the chances of being first.",
        "pairwise_logistic": "The plain form: each better item should score above each worse one.",
    }
    warnings = [] if found.group is not None else ["Without groups all rows are one list: give the queries as group."]
    made = [
        recommended(
            n,
            [text],
            warnings if n == "lambda_rank" else [],
            (sorted_rows if found.group is not None else "") + call.format(n, inside),
        )
        for n, text in texts.items()
    ]
    return Advice("items to rank", "clear" if found.group is not None else "likely", facts, made)


def _distinct(found: Evidence) -> Any:
    return len(found.counts) if found.counts is not None else "many"


def _over_groups(found: Evidence, advice: Advice) -> Advice:
    """Put a risk over groups first where the errors of groups differ much more than chance explains."""
    if found.group is None or found.pred is None or found.pred.ndim > 1:
        return advice
    from ..losses.catalogue import LOSSES

    best = advice[0]
    record = LOSSES[best.name].record
    if record.family != "elementwise" or len(record.predictions) > 1:
        return advice
    errors = _errors(best, found)
    if errors is None:
        return advice
    codes, counts = np.unique(found.group, return_counts=True)
    kept = codes[counts >= 20]
    parts = [errors[found.group == c] for c in kept]
    if len(parts) < 2:
        return advice
    means = np.array([p.mean() for p in parts])
    deviations = np.array([p.std(ddof=1) / math.sqrt(len(p)) for p in parts])
    worst, least = int(np.argmax(means)), int(np.argmin(means))
    z = float((means[worst] - means[least]) / (math.hypot(deviations[worst], deviations[least]) or 1e-300))
    advice.facts["worst group to best"] = ratio = float(means[worst] / means[least]) if means[least] > 0 else math.inf
    # The most extreme of all pairs: Bonferroni's correction keeps 4 deviations for ten groups.
    if ratio < GAP or z < 4.0 + 0.5 * math.log(len(parts)):
        return advice
    high, low = (found.groups[int(kept[i])] for i in (worst, least))
    reason = (
        f"The loss of group {high!r} is {ratio:.1f} times that of group {low!r}:"
        " a risk over groups trains for the worst."
    )
    code = "codes = np.unique(group, return_inverse=True)[1]\nrisk = fl.risk.GroupDRO(codes)\n" + best.code.replace(
        "(pred, y", "(pred, y, reduction=risk"
    ).replace("(np.log(pred), y", "(np.log(pred), y, reduction=risk")
    grouped = replace(best, reasons=[reason, *best.reasons], code=code)
    confidence = "clear" if advice.confidence != "open" else "likely"
    return Advice(f"{advice.kind} in unequal groups", confidence, advice.facts, [grouped, *advice])


def _errors(best: Any, found: Evidence) -> Any:
    """Return the loss of each sampled row; None where the predictions are not what the loss takes."""
    pred = np.log(found.pred) if "np.log(pred)" in best.code else found.pred
    target = found.target
    if found.counts is not None and len(found.counts) == 2 and best.name != "logistic":
        target = (target == max(found.counts)).astype(float)
    try:
        return np.asarray(best.loss(pred, target, reduction="none"), np.float64)
    except ValueError:
        return None
