"""Pictures of a training run: losses, their parts and weights, step by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..call.errors import CallTypeError, CallValueError
from .style import LINES, finish, new_axes

__all__ = ["training"]

NAME = "fl.plot.training"


def training(
    history: Any, /, *, weights: Any = None, smooth: float = 0.0, log: bool | None = None, axes: Any = None
) -> list[Any]:
    """Draw losses against the step, and the weights of their parts in a second panel.

    Parameters
    ----------
    history : mapping of str to sequence, sequence of mappings, or sequence of numbers
        Losses by name, such as `{"train": [...], "validation": [...]}`; or the parts of each step, as a sum of losses
        returns them with `parts=True`.
    weights : the same, optional
        Weights of the parts, such as `fl.balance` returns at each step.
    smooth : float
        Factor of the moving average, in [0, 1): each point is `smooth` times the one before plus `1 - smooth` times the
        new value, corrected for the start as Adam's averages are. The values themselves stay visible behind it.
    log : bool, optional
        Logarithmic losses. Default: where all are positive and span more than a factor of 30.
    axes : axes of matplotlib, or two with weights, optional

    Returns
    -------
    list of matplotlib axes

    Examples
    --------
    >>> import fastloss as fl
    >>> axes = fl.plot.training({"train": [1.0, 0.4, 0.2], "validation": [1.1, 0.6, 0.5]})
    >>> axes[0].get_xlabel()
    'step'
    """
    if not 0.0 <= smooth < 1.0:
        raise CallValueError(f"is {smooth!r}; allowed: [0, 1)", "smooth", None, NAME)
    panels = [_series(history, "history")] + ([] if weights is None else [_series(weights, "weights")])
    found = new_axes(axes, len(panels), NAME)
    for ax, series, title in zip(found, panels, ("loss", "weight"), strict=False):
        for i, (label, values) in enumerate(series.items()):
            colour = LINES[i % len(LINES)]
            steps = np.arange(1, len(values) + 1)
            factor = smooth if title == "loss" else 0.0
            if factor:
                ax.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
            ax.plot(steps, _smoothed(values, factor), color=colour, linewidth=1.6, label=label)
        ax.set_xlabel("step")
        ax.set_title(title)
        if len(series) > 1:
            ax.legend(frameon=False)
    every = np.concatenate([v[np.isfinite(v)] for v in panels[0].values()])
    if log or (log is None and len(every) and every.min() > 0.0 and every.max() > 30.0 * every.min()):
        found[0].set_yscale("log")
    finish(found, False, 0)
    return found


def _series(given: Any, argument: str) -> dict[str, Any]:
    """Return the values of each name, from any of the forms that are taken."""
    if isinstance(given, Mapping):
        found = {str(k): np.asarray(v, np.float64) for k, v in given.items()}
    elif isinstance(given, Sequence | np.ndarray) and len(given) and isinstance(given[0], Mapping):
        names = list(dict.fromkeys(k for step in given for k in step))
        found = {str(k): np.array([float(step.get(k, np.nan)) for step in given]) for k in names}
    elif isinstance(given, Sequence | np.ndarray) and not isinstance(given, str):
        found = {argument if argument == "weights" else "loss": np.asarray(given, np.float64)}
    else:
        problem = f"is {type(given).__name__}; expected losses by name, a mapping for each step, or numbers"
        raise CallTypeError(problem, argument, None, NAME)
    for name, values in found.items():
        if values.ndim != 1 or not len(values):
            problem = f"[{name!r}] has shape {values.shape}; expected one number a step, and at least one step"
            raise CallValueError(problem, argument, None, NAME)
    if not found:
        raise CallValueError("is empty; expected at least one loss", argument, None, NAME)
    return found


def _smoothed(values: Any, factor: float) -> Any:
    """Return the moving average, corrected for its start; steps without a value repeat the one before."""
    if not factor:
        return values
    average, power, found = 0.0, 1.0, np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if np.isfinite(value):
            average, power = factor * average + (1.0 - factor) * value, power * factor
        if power < 1.0:
            found[i] = average / (1.0 - power)
    return found
