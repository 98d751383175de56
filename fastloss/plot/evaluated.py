"""Pictures of predictions beside their targets: reliability, residuals, and losses by group."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from ..call.errors import CallTypeError, CallValueError
from ..evaluation.details.calibration import wilson
from ..evaluation.groups.keys import key_text
from .style import LINES, finish, new_axes

__all__ = ["groups", "reliability", "residuals"]

SHOWN = 5000
"""Most points of a scatter plot; of more, as many are drawn, evenly spaced in the order of the prediction."""


def reliability(
    pred: Any, target: Any, /, *, bins: int = 10, equal: str = "width", level: float = 0.95, ax: Any = None
) -> Any:
    """Draw how often the event came against the probability that was predicted, with intervals.

    Parameters
    ----------
    pred : array of probabilities, or mapping of str to array
        Predictions of one model, or of several by name.
    target : array of 0 and 1
        Whether the event came.
    bins : int
        Bins of the prediction.
    equal : {"width", "count"}
        Whether bins are equally wide or hold equally many predictions.
    level : float
        Level of the intervals, Wilson's for a share [1]_.
    ax : axes of matplotlib, optional

    Returns
    -------
    matplotlib axes

    References
    ----------
    .. [1] Wilson (1927), Probable inference, the law of succession, and statistical inference.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> p = np.linspace(0.05, 0.95, 200)
    >>> ax = fl.plot.reliability(p, np.random.default_rng(0).random(200) < p)
    >>> ax.get_ylabel()
    'share that came'
    """
    name = "fl.plot.reliability"
    if equal not in ("width", "count"):
        raise CallValueError(f"is {equal!r}; allowed: 'width', 'count'", "equal", None, name)
    if not 0.0 < level < 1.0:
        raise CallValueError(f"is {level!r}; allowed: (0, 1)", "level", None, name)
    models = {k: _pair(p, target, name) for k, p in (pred.items() if isinstance(pred, Mapping) else [("", pred)])}
    [found] = new_axes(ax, 1, name, 4.2)
    found.plot([0, 1], [0, 1], color="#7A7A7A", linewidth=1, linestyle="--")
    for i, (label, (p, t)) in enumerate(models.items()):
        if not ((p >= 0.0) & (p <= 1.0)).all():
            worst = p[(p < 0.0) | (p > 1.0)][0]
            problem = f"holds {worst:g}; allowed: [0, 1]; of logits z, give 1 / (1 + exp(-z))"
            raise CallValueError(problem, "pred", None, name)
        edges = np.linspace(0.0, 1.0, bins + 1) if equal == "width" else np.quantile(p, np.linspace(0.0, 1.0, bins + 1))
        inside = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, bins - 1)
        kept = np.bincount(inside, minlength=bins) > 0
        count: Any = np.bincount(inside, minlength=bins)[kept]
        mean, share = (np.bincount(inside, of, minlength=bins)[kept] / count for of in (p, t))
        low, high = zip(*(wilson(s, c, level) for s, c in zip(share, count, strict=True)), strict=True)
        # The mean distance of a bin, weighted by its count: the expected calibration error of these bins.
        error = float(np.sum(count * np.abs(mean - share)) / np.sum(count))
        label = f"{label}, ECE {error:.3f}" if label else f"ECE {error:.3f}"
        colour = LINES[i % len(LINES)]
        found.fill_between(mean, low, high, color=colour, alpha=0.2, linewidth=0)
        found.plot(mean, share, color=colour, marker="o", markersize=4, linewidth=1.5, label=label)
    found.set_xlim(0, 1)
    found.set_ylim(0, 1)
    found.set_aspect("equal")
    found.set_xlabel("predicted probability")
    found.set_ylabel("share that came")
    finish([found], False, 2)
    return found


def residuals(pred: Any, target: Any, /, *, axes: Any = None) -> list[Any]:
    """Draw residuals `target - pred` against the prediction, and their quantiles against normal ones.

    Lines show the median and the 5% and 95% quantiles of twenty bins of equally many predictions: a median off 0 shows
    bias, quantiles that widen show a variance that depends on the prediction. In the second panel, ends that leave the
    line show heavy tails, for which a robust loss is the remedy.

    Parameters
    ----------
    pred, target : arrays of one shape
    axes : two axes of matplotlib, optional

    Returns
    -------
    list of two matplotlib axes

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> t = np.random.default_rng(0).normal(size=100)
    >>> [ax.get_title() for ax in fl.plot.residuals(0.9 * t, t)]
    ['residuals', 'quantiles of residuals']
    """
    p, t = _pair(pred, target, "fl.plot.residuals")
    order = np.argsort(p, kind="stable")
    p, r = p[order], (t - p)[order]
    some = np.unique(np.linspace(0, len(p) - 1, min(len(p), SHOWN)).astype(int))
    left, right = new_axes(axes, 2, "fl.plot.residuals")
    left.scatter(p[some], r[some], s=6, color=LINES[0], alpha=0.35, linewidths=0)
    left.axhline(0.0, color="#7A7A7A", linewidth=1)
    parts = np.array_split(np.arange(len(p)), max(1, min(20, len(p) // 10)))
    middles = [np.median(p[i]) for i in parts]
    for q, dashes in ((0.05, "--"), (0.5, "-"), (0.95, "--")):
        left.plot(middles, [np.quantile(r[i], q) for i in parts], color=LINES[1], linestyle=dashes, linewidth=1.5)
    left.set_title("residuals")
    left.set_xlabel("prediction")
    left.set_ylabel("target - prediction")
    shares = (np.arange(len(some)) + 0.5) / len(some)
    normal = np.array([NormalDist().inv_cdf(float(s)) for s in shares])
    right.scatter(normal, np.quantile(r, shares), s=6, color=LINES[0], linewidths=0)
    # Through the quartiles, as outliers do not move them.
    spread = (np.quantile(r, 0.75) - np.quantile(r, 0.25)) / (2.0 * NormalDist().inv_cdf(0.75))
    right.axline((0.0, float(np.median(r))), slope=float(spread), color=LINES[1], linewidth=1.5)
    right.set_title("quantiles of residuals")
    right.set_xlabel("of a normal distribution")
    finish([left, right], False, 0)
    return [left, right]


def groups(
    report: Any,
    /,
    loss: str | None = None,
    *,
    by: str | None = None,
    top: int = 20,
    level: float = 0.95,
    ax: Any = None,
) -> Any:
    """Draw the mean loss of each group of an evaluation as a bar, with its interval.

    Parameters
    ----------
    report : Report
        What `fl.evaluate(..., by=...)` returned.
    loss : str, optional
        Label of the loss. Default: the first.
    by : str, optional
        Columns of the grouping, joined by commas. Default: the first.
    top : int
        Groups of largest mean that are drawn.
    level : float
        Level of the intervals of the means, for independent rows.
    ax : axes of matplotlib, optional

    Returns
    -------
    matplotlib axes

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> country = np.array(["at", "at", "ch", "ch"])
    >>> z, t = np.array([0.0, 1.0, 2.0, 0.5]), np.zeros(4)
    >>> report = fl.evaluate({"z": z, "t": t, "country": country}, losses="mse", pred="z", target="t", by="country")
    >>> ax = fl.plot.groups(report)
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['ch', 'at']
    """
    name = "fl.plot.groups"
    groupings = getattr(report, "groupings", None)
    if groupings is None:
        raise CallTypeError(f"is {type(report).__name__}; expected what fl.evaluate returns", "report", None, name)
    if not groupings:
        raise CallValueError('has no groups; evaluate with by="column"', "report", None, name)
    names = groupings[0] if by is None else tuple(part.strip() for part in by.split(","))
    if names not in groupings:
        known = ", ".join(repr(",".join(g)) for g in groupings)
        raise CallValueError(f"is {by!r}; the report is by {known}", "by", None, name)
    label = next(iter(report)) if loss is None else loss
    if label not in report:
        raise CallValueError(f"is {loss!r}; the report has {', '.join(report)}", "loss", None, name)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    bars = [(key, each[label]) for key, each in report.reports_by(names).items()]
    bars = sorted((b for b in bars if math.isfinite(b[1].mean)), key=lambda b: -b[1].mean)[:top]
    [found] = new_axes(ax, 1, name, max(2.0, 0.6 + 0.24 * len(bars)))
    means = [s.mean for _, s in bars]
    # The variance of a population, so over count - 1.
    errors = [z * s.std / math.sqrt(s.count - 1) if s.count > 1 else 0.0 for _, s in bars]
    rows = range(len(bars))
    found.barh(rows, means, xerr=errors, color=LINES[0], height=0.7, error_kw={"ecolor": "#7A7A7A", "elinewidth": 1})
    found.axvline(report[label].mean, color=LINES[1], linewidth=1.2, label=f"all rows, {report[label].mean:.4g}")
    found.set_yticks(rows, [", ".join(map(key_text, k if len(names) > 1 else (k,))) for k, _ in bars])
    found.invert_yaxis()
    found.set_xlabel(f"mean {label}")
    left_out = len(report.reports_by(names)) - len(bars)
    found.set_title(f"by {', '.join(names)}" + (f" (without {left_out:,} of smaller mean)" if left_out else ""))
    finish([found], False, 2)
    found.grid(axis="y", visible=False)
    return found


def _pair(pred: Any, target: Any, name: str) -> tuple[Any, Any]:
    p, t = (np.asarray(x, np.float64).ravel() for x in (pred, target))
    if np.shape(pred) != np.shape(target) or not len(p):
        problem = f"have shapes {np.shape(pred)} and {np.shape(target)}; expected one shape, of at least one element"
        raise CallValueError(f"pred and target {problem}", None, None, name)
    if not (np.isfinite(p).all() and np.isfinite(t).all()):
        raise CallValueError("pred and target hold a NaN or infinity; leave those rows out", None, None, name)
    return p, t
