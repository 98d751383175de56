"""Pictures of models: the loss of a linear model around its weights, and the decisions of a classifier."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..call.errors import CallTypeError, CallValueError
from .style import LINES, finish, matplotlib, new_axes

__all__ = ["decision", "landscape", "plane"]

PATHS = (LINES[1], LINES[3], LINES[7], LINES[4], LINES[6])
"""Colours of paths: those that differ from the contours' green and blue."""
CHUNK = 1 << 22
"""Losses computed at a time: 32 MiB of float64."""


def landscape(
    loss: Any,
    X: Any,
    y: Any,
    /,
    *,
    paths: Mapping[str, Any] | None = None,
    around: Any = None,
    directions: tuple[Any, Any] | None = None,
    span: float | None = None,
    points: int = 100,
    ax: Any = None,
    **parameters: Any,
) -> Any:
    r"""Draw contours of the mean loss of a linear model, `loss(X @ w, y)`, along two directions of its weights.

    Parameters
    ----------
    loss : Loss
        An elementwise loss, where the weights are a vector, or a loss of rows of scores, where they are a matrix.
    X : array, shape (n, d)
        Inputs. Add a column of ones for an intercept.
    y : array, shape (n,)
        Targets, or labels.
    paths : mapping of str to array of shape (steps, d) or (steps, d, K), optional
        Weights after each step of optimisers, drawn as lines.
    around : array, optional
        Weights in the middle. Default: the last ones of the first path.
    directions : (array, array), optional
        Directions, each of the shape of the weights. Default: the two weights themselves where there are two; the
        principal directions of the paths; without paths, those in which the predictions vary most and least.
    span : float, optional
        Distance from the middle to the edge. Default: what the paths need, or 3.
    points : int
        Points along each direction.
    ax : axes of matplotlib, optional
    **parameters
        Parameters of the loss.

    Returns
    -------
    matplotlib axes

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> X = np.random.default_rng(0).normal(size=(200, 2)) * [1.0, 4.0]
    >>> w, steps = np.zeros(2), []
    >>> opt = fl.optim.SGD([w], lr=0.01)
    >>> for step in range(50):
    ...     steps.append(w.copy())
    ...     opt.step([X.T @ fl.mse.value_and_grad(X @ w, X @ [1.0, -1.0])[1]])
    >>> ax = fl.plot.landscape(fl.mse, X, X @ [1.0, -1.0], paths={"SGD": steps})
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('w[0]', 'w[1]')
    """
    X, followed = _inputs(X), {name: np.asarray(p, np.float64) for name, p in (paths or {}).items()}
    middle, (a, b), named = _frame(X, loss, followed, around, directions)
    shown = {name: _coordinates(p - (0.0 if named else middle), a, b) for name, p in followed.items()}
    centre, origin = (middle, np.zeros_like(middle)) if named else (np.zeros(2), middle)
    xs, ys = (np.linspace(*ends, points) for ends in _ends(shown, centre, span))
    values = plane(loss.bind(**parameters) if parameters else loss, X, y, origin, (a, b), (xs, ys))
    [found] = new_axes(ax, 1, "fl.plot.landscape", 4.2)
    low = np.nanmin(values)
    # Levels by quantiles: as many contours in a flat valley as on a steep wall.
    levels = np.unique(np.quantile(values[np.isfinite(values)], np.linspace(0.0, 1.0, 18) ** 1.5))
    even = matplotlib().colors.BoundaryNorm(levels, 256)
    filled = found.contourf(xs, ys, values, levels=levels, norm=even, cmap="YlGnBu", alpha=0.5)
    found.contour(xs, ys, values, levels=levels, colors="#7A7A7A", linewidths=0.4)
    bar = found.figure.colorbar(filled, ax=found, ticks=levels[:: max(1, len(levels) // 5)], format="%.3g")
    bar.set_label(f"mean {loss.name} (least {low:.3g})", labelpad=8)
    for i, (name, steps) in enumerate(shown.items()):
        colour = PATHS[i % len(PATHS)]
        found.plot(*steps.T, color=colour, linewidth=1.5, marker=".", markersize=3, label=name)
        found.plot(*steps[-1], color=colour, marker="o", markersize=6)
    found.set_xlim(xs[0], xs[-1])
    found.set_ylim(ys[0], ys[-1])
    found.set_xlabel("w[0]" if named else "first direction")
    found.set_ylabel("w[1]" if named else "second direction")
    finish([found], ax is None, 2 if shown else 0)
    return found


def plane(loss: Any, X: Any, y: Any, middle: Any, directions: tuple[Any, Any], at: tuple[Any, Any]) -> Any:
    """Return the mean loss at `middle + x a + y b`, an array with a row for each y."""
    a, b = directions
    base, by_a, by_b = X @ middle, X @ a, X @ b
    targets = np.asarray(y)
    grid = np.stack(np.meshgrid(*at), axis=-1).reshape(-1, 2)
    values = np.empty(len(grid))
    step = max(1, CHUNK // base.size)
    for i in range(0, len(grid), step):
        some = grid[i : i + step].reshape((-1, 2) + (1,) * base.ndim)
        scores = base + some[:, 0] * by_a + some[:, 1] * by_b
        flat = scores.reshape(-1, *base.shape[1:])
        repeated = np.tile(targets, (len(some),) + (1,) * (targets.ndim - 1))
        values[i : i + step] = loss(flat, repeated, reduction="none").reshape(len(some), -1).mean(axis=1)
    return values.reshape(len(at[1]), len(at[0]))


def _inputs(X: Any) -> Any:
    found = np.asarray(X, np.float64)
    if found.ndim != 2 or not found.size:
        problem = f"has shape {found.shape}; expected (n, d), neither of them 0"
        raise CallValueError(problem, "X", None, "fl.plot.landscape")
    return found


def _frame(X: Any, loss: Any, paths: Mapping[str, Any], around: Any, directions: Any) -> tuple[Any, Any, bool]:
    """Return the middle, two directions and whether these are the two weights themselves."""
    name = "fl.plot.landscape"
    if getattr(getattr(loss, "record", None), "family", "") not in ("elementwise", "rows"):
        problem = f"is {getattr(loss, 'name', type(loss).__name__)}; expected a loss of elements or of rows of scores"
        raise CallTypeError(problem, "loss", None, name)
    if around is None:
        if not paths:
            raise CallTypeError("is missing; give the weights in the middle, or paths", "around", None, name)
        around = next(iter(paths.values()))[-1]
    middle = np.asarray(around, np.float64)
    for given, path in paths.items():
        if path.shape[1:] != middle.shape or not len(path):
            problem = f"[{given!r}] has shape {path.shape}; expected (steps, {', '.join(map(str, middle.shape))})"
            raise CallValueError(problem, "paths", None, name)
    if middle.ndim not in (1, 2) or len(middle) != X.shape[1]:
        problem = f"has shape {middle.shape}; expected ({X.shape[1]},), or ({X.shape[1]}, K) for a loss of rows"
        raise CallValueError(problem, "around", None, name)
    if directions is not None:
        a, b = (np.asarray(d, np.float64).reshape(middle.shape) for d in directions)
        return middle, (a, b), False
    if middle.shape == (2,):
        return middle, tuple(np.eye(2)), True
    if paths:
        moved = np.concatenate([(p - middle).reshape(len(p), -1) for p in paths.values()])
        a, b = _principal(moved)[:2]
        return middle, (a.reshape(middle.shape), b.reshape(middle.shape)), False
    axes = np.linalg.svd(X, full_matrices=True)[2]
    a, b = (np.zeros_like(middle) for _ in range(2))
    first = (slice(None),) + (0,) * (middle.ndim - 1)
    a[first], b[first] = axes[0], axes[-1]
    return middle, (a, b), False


def _principal(moved: Any) -> Any:
    """Return orthonormal directions, those of largest extent first; at least two where the space has two."""
    return np.linalg.svd(moved, full_matrices=moved.shape[1] < 4096 and len(moved) < 2)[2]


def _coordinates(weights: Any, a: Any, b: Any) -> Any:
    """Return the coordinates of each step's weights in the plane, its least-squares projection."""
    basis = np.stack([a.ravel(), b.ravel()], axis=1)
    return np.linalg.lstsq(basis, weights.reshape(len(weights), -1).T, rcond=None)[0].T


def _ends(shown: Mapping[str, Any], centre: Any, span: float | None) -> list[tuple[float, float]]:
    """Return the range of each direction: that of the paths and a fifth more, or `span` to each side."""
    if span is not None and not (math.isfinite(span) and span > 0.0):
        raise CallValueError(f"is {span!r}; allowed: (0, inf)", "span", None, "fl.plot.landscape")
    if span is not None or not shown:
        return [(m - (span or 3.0), m + (span or 3.0)) for m in centre]
    every = np.concatenate(list(shown.values()))
    low, high = every.min(axis=0), every.max(axis=0)
    # No direction narrower than a third of the other, so that a path along one axis is not drawn in a sliver.
    room = np.maximum(0.2 * (high - low), (np.max(high - low) or 1.0) / 3.0 - (high - low) / 2.0)
    return list(zip(low - room, high + room, strict=True))


def decision(model: Any, X: Any, y: Any = None, /, *, points: int = 200, margin: float = 0.1, ax: Any = None) -> Any:
    """Draw what a classifier or a regressor of two inputs predicts over the plane, and the samples.

    Parameters
    ----------
    model : fitted estimator of scikit-learn, or callable
        Its `predict_proba` (of two classes), else `predict`; a callable takes an array (m, 2) and returns one number
        for each row: a probability, a score or a class.
    X : array, shape (n, 2)
        Samples, which also give the range.
    y : array, shape (n,), optional
        Labels or targets, the samples' colours.
    points : int
        Points along each input.
    margin : float
        Share of the range that is added at each side.
    ax : axes of matplotlib, optional

    Returns
    -------
    matplotlib axes

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> ax = fl.plot.decision(lambda x: 1.0 / (1.0 + np.exp(-x @ [2.0, -1.0])), X, X[:, 0] > 0)
    """
    name = "fl.plot.decision"
    X = np.asarray(X, np.float64)
    if X.ndim != 2 or X.shape[1] != 2 or not len(X):
        raise CallValueError(f"has shape {X.shape}; expected (n, 2): two inputs make a plane", "X", None, name)
    low, high = X.min(axis=0), X.max(axis=0)
    room = margin * np.where(high > low, high - low, 1.0)
    xs, ys = (np.linspace(*ends, points) for ends in zip(low - room, high + room, strict=True))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    values, label = _predicted(model, grid, name)
    [found] = new_axes(ax, 1, name, 4.2)
    values = values.reshape(points, points)
    classes = np.unique(values)
    levels: Any = 20 if len(classes) > 12 else np.append(classes - 0.5, classes[-1] + 0.5)
    filled = found.contourf(xs, ys, values, levels=levels, cmap="coolwarm", alpha=0.6)
    if label == "probability":
        found.contour(xs, ys, values, levels=[0.5], colors="#7A7A7A", linewidths=1.5)
    found.figure.colorbar(filled, ax=found, label=label)
    colours: dict[str, Any] = {"color": LINES[0]} if y is None else {"c": np.asarray(y, np.float64), "cmap": "coolwarm"}
    found.scatter(*X.T, **colours, s=14, edgecolors="#333333", linewidths=0.4)
    finish([found], False, 0)
    return found


def _predicted(model: Any, grid: Any, name: str) -> tuple[Any, str]:
    """Return one number for each point of the grid, and what it is."""
    found: Any
    if hasattr(model, "predict_proba"):
        found = np.asarray(model.predict_proba(grid), np.float64)
        if found.ndim == 2 and found.shape[1] == 2:
            return found[:, 1], "probability"
    if hasattr(model, "predict"):
        found, label = np.asarray(model.predict(grid)), "prediction"
        if found.dtype.kind not in "fiub":
            found, label = np.unique(found, return_inverse=True)[1], "class, in sorted order"
    elif callable(model):
        found = np.asarray(model(grid), np.float64)
        label = "probability" if found.size and found.min() >= 0.0 and found.max() <= 1.0 else "prediction"
    else:
        raise CallTypeError(f"is {type(model).__name__}; expected an estimator or a callable", "model", None, name)
    found = np.asarray(found, np.float64)
    if found.shape not in ((len(grid),), (len(grid), 1)):
        raise CallValueError(
            f"returned shape {found.shape} for {len(grid)} rows; expected one number a row", "model", None, name
        )
    return found.reshape(len(grid)), label
