"""Curves of losses: value, gradient and curvature against the prediction, with parameters swept."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..call.check import similar
from ..call.errors import CallTypeError, CallValueError
from ..evaluation.losses import found as found_loss
from ..evaluation.losses import named
from .style import LINES, finish, new_axes

__all__ = ["Curve", "computed", "curves"]

NAME = "fl.plot.curves"
SHOWN = ("loss", "gradient", "curvature")
POINTS = 801
"""Points of a curve: odd, so that one lies in the middle, where most losses have their kink."""
CLASSES = 3
DENSE = (0.9, 0.05, 0.05)
"""Target of losses that take no label: nearly certain, as some are infinite at a target of 0."""
MOST = 24
"""Most curves in one picture: three turns of the colours."""
SPANS = {"identity": (-3.0, 3.0), "margin": (-3.0, 3.0), "log": (-2.0, 3.0)}
"""Usual range of predictions by link, about the target where the link is the identity."""
SCORES = {"log-probabilities": (-6.0, 0.0), "cosines": (-1.0, 1.0), "members": (-3.0, 3.0)}
"""Usual range of the drawn score of a row, by what its scores are."""
AXES = {"logit": "logit", "margin": "score", "log": "logarithm of the predicted mean"}


@dataclass(frozen=True)
class Curve:
    """One loss at a fixed target, against its prediction."""

    label: str
    x: Any
    loss: Any
    gradient: Any
    curvature: Any
    """Second derivative by the prediction; not a number where the loss has none."""
    axis: str
    """Label of the prediction's axis."""


def curves(
    losses: Any,
    /,
    *,
    target: float | None = None,
    over: tuple[float, float] | None = None,
    show: Sequence[str] | str = SHOWN,
    others: Mapping[str, float] | None = None,
    axes: Any = None,
    **parameters: Any,
) -> list[Any]:
    """Draw losses, their gradients and their curvatures against the prediction, a panel each.

    A list as a parameter draws a curve for each of its values; several lists draw all combinations. Losses of rows are
    drawn against the logit of the right class, beside two other classes of logit 0.

    Parameters
    ----------
    losses : str, Loss or a sequence of them
        Elementwise losses and losses of rows of scores: `"huber"`, `"huber:delta=2"`, `fl.huber`, a loss of your own
        or a sum.
    target : float, optional
        Target of every curve. Default: 0 for real targets, 1 for labels, probabilities and positive targets.
    over : (float, float), optional
        Range of the prediction. Default: one about the target that suits the loss's domain.
    show : str or sequence of str
        Panels: `"loss"`, `"gradient"`, `"curvature"`.
    others : mapping, optional
        Values of the other predictions of losses that take several, such as `{"var": 2.0}`. Default: 0, or 1 where they
        are positive.
    axes : axes of matplotlib, or a sequence of them, optional
        As many as panels; a new figure by default.
    **parameters
        Parameters of the losses that have them; a list sweeps its values.

    Returns
    -------
    list of matplotlib axes, one a panel

    Raises
    ------
    CallValueError
        If a loss takes whole arrays (regions, pairs, rankings), or a value is not allowed.

    Examples
    --------
    >>> import fastloss as fl
    >>> axes = fl.plot.curves("huber", delta=[0.5, 1.0, 2.0])
    >>> [ax.get_title() for ax in axes]
    ['loss', 'gradient', 'curvature']
    """
    panels = (show,) if isinstance(show, str) else tuple(show)
    if not panels or len(set(panels)) < len(panels) or not set(panels) <= set(SHOWN):
        raise CallValueError(f"is {show!r}; allowed: {', '.join(SHOWN)}, each at most once", "show", None, NAME)
    drawn = computed(losses, target=target, over=over, others=others, **parameters)
    found = new_axes(axes, len(panels), NAME)
    for ax, panel in zip(found, panels, strict=True):
        for i, curve in enumerate(drawn):
            dashes = ("-", "--", ":")[i // len(LINES) % 3]
            y = getattr(curve, panel)
            ax.plot(curve.x, y, color=LINES[i % len(LINES)], linestyle=dashes, linewidth=1.6, label=curve.label)
        _limit(ax, [getattr(c, panel) for c in drawn])
        ax.set_title(panel)
        ax.set_xlabel(drawn[0].axis if len({c.axis for c in drawn}) == 1 else "prediction")
    finish(found, axes is None, len(drawn))
    if axes is None and len(drawn) == 1:
        found[0].figure.suptitle(drawn[0].label)
    return found


def computed(
    losses: Any,
    *,
    target: float | None = None,
    over: tuple[float, float] | None = None,
    others: Mapping[str, float] | None = None,
    **parameters: Any,
) -> list[Curve]:
    """Return the curves that `curves` draws."""
    chosen = [e for loss in _several(losses) for e in _swept(loss, parameters)]
    _check_names([e[1] for e in chosen], parameters)
    if len(chosen) > MOST:
        raise CallValueError(f"is {len(chosen)} curves; allowed: at most {MOST}", "losses", None, NAME)
    return [_curve(label, loss, target, over, dict(others or {})) for label, loss in chosen]


def _several(losses: Any) -> list[tuple[str, Any]]:
    """Return the label and the loss of each that was named."""
    given = [losses] if isinstance(losses, str) or not isinstance(losses, Sequence) else list(losses)
    found = []
    for loss in given:
        if isinstance(loss, str):
            try:
                if found_loss(loss)[0].record.family == "arrays":
                    found.append(("", found_loss(loss)[0]))
                    continue
                evaluated = named([loss])[0]
            except (KeyError, TypeError, ValueError) as error:
                raise CallValueError(f"{loss!r} cannot be drawn: {_text(error)}", None, None, NAME) from None
            found.append((evaluated.label, evaluated.loss))
        elif getattr(loss, "record", None) is not None:
            found.append((loss.name, loss))
        else:
            problem = f"hold {type(loss).__name__}; expected names such as 'huber:delta=2', or losses"
            raise CallTypeError(problem, "losses", None, NAME)
    if not found:
        raise CallValueError("are none; name at least one", "losses", None, NAME)
    for _, loss in found:
        if loss.record.family not in ("elementwise", "rows"):
            whole = "takes whole arrays; expected losses of elements or of rows of scores"
            raise CallValueError(f"cannot draw {loss.name}: it {whole}", None, None, NAME)
    return found


def _text(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _swept(pair: tuple[str, Any], parameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the loss with each combination of the values of its parameters."""
    label, loss = pair
    mine = {k: v for k, v in parameters.items() if k in loss.defaults}
    if not mine:
        return [pair]
    values = [v if isinstance(v, Sequence) and not isinstance(v, str) else [v] for v in map(_plain, mine.values())]
    found = []
    for combination in itertools.product(*values):
        bound = dict(zip(mine, combination, strict=True))
        shown = ", ".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in bound.items())
        found.append((f"{label} {shown}", loss.bind(**bound)))
    return found


def _plain(values: Any) -> Any:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _check_names(losses: Sequence[Any], parameters: Mapping[str, Any]) -> None:
    known = sorted({k for loss in losses for k in loss.defaults})
    for name in parameters:
        if name not in known:
            hint = similar(name, known) or f"they have {', '.join(known) or 'none'}"
            raise CallTypeError(f"{name!r} is a parameter of none of the losses; {hint}", None, None, NAME)


def _curve(label: str, loss: Any, target: float | None, over: Any, others: dict[str, float]) -> Curve:
    """Compute one curve in float64."""
    record = loss.record
    t = _target(record) if target is None else float(target)
    x = _points(record, t, over)
    if record.family == "rows":
        return _row_curve(label, loss, x, t)
    predictions = [x]
    for name, domain in list(zip(record.predictions, record.prediction_domains, strict=True))[1:]:
        predictions.append(np.full_like(x, float(others.pop(name, _usual(domain)))))
    if others:
        problem = f"names {', '.join(sorted(others))}; {loss.name} takes {', '.join(record.predictions[1:]) or 'none'}"
        raise CallValueError(problem, "others", None, NAME)
    given = tuple(predictions) if len(predictions) > 1 else x
    arguments = (given,) if record.target is None else (given, np.full_like(x, t))
    value, gradient = loss.value_and_grad(*arguments, reduction="none")
    flat = np.median(np.abs(value - np.median(value))) < 1e-12
    if target is None and t == 0.0 and (flat or value.max() > 1e6):
        return _curve(label, loss, 1.0, over, others)  # a loss relative to the target says nothing at 0
    curvature = _first(loss.grad_and_hess(*arguments)[1]) if record.second else np.full_like(x, math.nan)
    axis = AXES.get(record.link, "prediction") + f" (target {t:g})" * (record.target is not None)
    return Curve(label, x, value, _first(gradient), curvature, axis)


def _usual(domain: Any) -> float:
    """Return the value of a further prediction: 0, 1 or 2, the first that is allowed."""
    return next(v for v in (0.0, 1.0, 2.0) if not domain.outside(v) and not (v == 0.0 and domain.outside(-1.0)))


def _row_curve(label: str, loss: Any, x: Any, target: float) -> Curve:
    """Compute the curve of a loss of rows: the right class's score varies, the others stay."""
    loop = loss.record.row_loop
    rows = np.full((len(x), CLASSES), -math.log(CLASSES) if loop.scores == "log-probabilities" else 0.0)
    rows[:, 0] = x
    right: Any = np.zeros(len(x), np.int64)
    if loop.dense == "number":
        right = np.full(len(x), target)
    elif not loop.labels:
        right = np.tile(DENSE, (len(x), 1))
    value, gradient = loss.value_and_grad(rows, right, reduction="none")
    curvature = loss.grad_and_hess(rows, right)[1][:, 0] if loss.record.second else np.full_like(x, math.nan)
    return Curve(
        label,
        x,
        value,
        gradient[:, 0],
        curvature,
        f"one of {CLASSES} {loop.scores}, of the target's class"
        if loop.has_classes
        else f"one of {CLASSES} {loop.scores} (target {target:g})",
    )


def _first(derivative: Any) -> Any:
    return derivative[0] if isinstance(derivative, tuple) else derivative


def _target(record: Any) -> float:
    """Return the usual target: 0 for real ones, else 1, which is a label, a probability and a count."""
    return 0.0 if record.target is None or not record.target_domain.outside(-0.5) else 1.0


def _points(record: Any, target: float, over: Any) -> Any:
    """Return the predictions at which a loss is drawn."""
    domain = record.prediction_domains[0]
    if over is not None:
        low, high = _range(over)
        if domain.outside(low) or domain.outside(high):
            problem = f"is {over!r}; {record.name} takes predictions in {domain}"
            raise CallValueError(problem, "over", None, NAME)
        return np.linspace(low, high, POINTS)
    if domain.outside(2.0):
        return np.linspace(0.005, 0.995, POINTS)
    if domain.outside(-1.0):
        return np.linspace(0.02, 4.0, POINTS) * max(abs(target), 1e-6)
    if record.family == "rows" and record.row_loop.scores in SCORES:
        return np.linspace(*SCORES[record.row_loop.scores], POINTS)
    low, high = SPANS.get(record.link, (-6.0, 6.0))
    middle = target if record.link == "identity" and record.family == "elementwise" else 0.0
    return np.linspace(middle + low, middle + high, POINTS)


def _range(over: Any) -> tuple[float, float]:
    try:
        low, high = map(float, over)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise CallValueError(f"is {over!r}; expected two finite numbers, the smaller first", "over", None, NAME)
    return low, high


def _limit(ax: Any, values: Sequence[Any]) -> None:
    """Keep a pole at one end of a curve from flattening the rest: leave out its highest and lowest hundredth."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    if not len(finite):
        ax.text(0.5, 0.5, "no second derivative", transform=ax.transAxes, ha="center", va="center")
        return
    low, high = np.quantile(finite, [0.01, 0.99])
    span = max(high - low, 1e-9)
    if finite.max() > high + span or finite.min() < low - span:
        ax.set_ylim(low - 0.1 * span, high + 0.1 * span)
