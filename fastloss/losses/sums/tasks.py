"""Losses of several tasks: dictionaries of predictions and targets, one value, a gradient for each task."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...call import check
from ...call.arrays import F32, F64
from ...call.errors import CallTypeError, CallValueError, naming
from ..base import Loss
from .mixed import MixedSum
from .penalties import Penalty
from .terms import finite, named_weights

__all__ = ["Tasks", "tasks"]


class Tasks:
    """Weighted sum of the losses of several tasks, each of its own predictions; made by `fastloss.tasks`.

    Tasks are immutable and pickle. `losses` and `weights` are dictionaries by the names of the tasks.
    """

    __slots__ = ("_losses", "_weights")

    _losses: dict[str, Loss]
    _weights: dict[str, float]

    def __init__(self, losses: Mapping[str, Loss], weights: Mapping[str, float]) -> None:
        object.__setattr__(self, "_losses", dict(losses))
        object.__setattr__(self, "_weights", dict(weights))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("tasks are immutable; bind(...) gives tasks with other weights")

    def __reduce__(self) -> Any:
        return Tasks, (self._losses, self._weights)

    def __repr__(self) -> str:
        parts = [f"{k!r}: ({v!r}, {self._weights[k]:g})" for k, v in self._losses.items()]
        return f"fastloss.tasks({{{', '.join(parts)}}})"

    def __eq__(self, other: object) -> bool:
        mine = list(self._losses.items()), self._weights
        return isinstance(other, Tasks) and mine == (list(other._losses.items()), other._weights)

    def __hash__(self) -> int:
        return hash((tuple(self._losses.items()), tuple(self._weights.items())))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self._losses)

    @property
    def losses(self) -> dict[str, Loss]:
        """Losses by task."""
        return dict(self._losses)

    @property
    def weights(self) -> dict[str, float]:
        """Weights by task."""
        return dict(self._weights)

    def bind(self, *, weights: Any = None, **options: Any) -> "Tasks":
        """Return these tasks with other weights, and with parameters or a reduction of their losses.

        A parameter goes to the tasks whose losses have it; a dictionary by tasks gives each its own.
        """
        own = self._options(options, "bind")
        found = {name: loss.bind(**own[name]) if own[name] else loss for name, loss in self._losses.items()}
        return Tasks(found, self._weighed(weights))

    def __call__(
        self, predictions: Any, targets: Any = None, *, weights: Any = None, parts: bool = False, **options: Any
    ) -> Any:
        """Return the weighted sum of the losses; with ``parts=True`` (sum, losses by task, without weights)."""
        value, _, own = self._run(predictions, targets, weights, options, None, False)
        return (value, own) if parts else value

    def value_and_grad(
        self,
        predictions: Any,
        targets: Any = None,
        *,
        weights: Any = None,
        out: Any = None,
        parts: bool = False,
        **options: Any,
    ) -> tuple[Any, ...]:
        """Return the weighted sum of the losses, and a dictionary of its gradients by task.

        ``weights`` are a dictionary by tasks, or one number per task in their order, as `fastloss.balance` returns
        them. Options such as ``weight``, ``reduction`` or ``gamma`` go to the tasks whose losses have them; a
        dictionary by tasks gives each its own. ``out`` is a dictionary of arrays. With ``parts=True``, the third result
        is the loss of each task, without its weight.
        """
        value, grads, own = self._run(predictions, targets, weights, options, out, True)
        return (value, grads, own) if parts else (value, grads)

    def _weighed(self, weights: Any) -> dict[str, float]:
        """Return the weights of a call by task."""
        if weights is None:
            return self._weights
        if not isinstance(weights, Mapping):
            given = np.asarray(weights) if isinstance(weights, (Sequence, np.ndarray)) else None
            if given is None or given.shape != (len(self._losses),):
                names = ", ".join(self._losses)
                problem = f"is {check.shown(weights)}; expected a dictionary by tasks, {names}, or "
                raise CallTypeError(problem + f"{len(self._losses)} numbers in this order", "weights", loss="tasks")
            weights = dict(zip(self._losses, weights, strict=True))
        return {**self._weights, **named_weights(weights, list(self._losses), "tasks")}

    def _by_task(self, what: str, given: Any) -> Mapping[str, Any]:
        """Return arrays by task; raise for other forms, and for tasks that are missing or unknown."""
        names = ", ".join(self._losses)
        if not isinstance(given, Mapping):
            problem = f"is {check.shown(given)}; expected a dictionary by tasks, {names}"
            raise CallTypeError(problem, what, loss="tasks")
        for name in given:
            if name not in self._losses:
                raise CallValueError(f"names {check.shown(name)}; the tasks are {names}", what, loss="tasks")
        return given

    def _options(self, options: Mapping[str, Any], method: str) -> dict[str, dict[str, Any]]:
        """Return the options of each task: those that its loss has."""
        found: dict[str, dict[str, Any]] = {name: {} for name in self._losses}
        for key, value in options.items():
            by_task = isinstance(value, Mapping) and set(value) <= set(self._losses)
            takes = [name for name, loss in self._losses.items() if _has(loss, key, method)]
            if not takes:
                known = sorted({k for loss in self._losses.values() for k in _known(loss, method)})
                raise CallTypeError(f"is an option of no task; {check.nearest(key, known)}", key, loss="tasks")
            for name in value if by_task else takes:
                found[name][key] = value[name] if by_task else value
        return found

    def _run(
        self, predictions: Any, targets: Any, weights: Any, options: dict[str, Any], out: Any, writes: bool
    ) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        given = self._by_task("predictions", predictions)
        missing = [name for name in self._losses if name not in given]
        if missing:
            problem = f"lack {missing[0]!r}; the tasks are {', '.join(self._losses)}"
            raise CallValueError(problem, "predictions", loss="tasks")
        goals = self._by_task("targets", {} if targets is None else targets)
        outs = self._by_task("out", {} if out is None else out)
        factors, own = self._weighed(weights), self._options(options, "call")
        total: Any = 0.0
        grads: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for name, loss in self._losses.items():
            arrays = (given[name], *([goals[name]] if name in goals else []))
            with naming(loss.name):
                if writes:
                    asked = own[name] | ({"out": outs[name]} if name in outs else {})
                    values[name], grad = loss.value_and_grad(*arrays, **asked)
                    grads[name] = multiplied(grad, factors[name])
                else:
                    values[name] = loss(*arrays, **own[name])
            if np.ndim(values[name]):
                problem = "is 'none', and tasks have one loss each; take 'mean', 'sum' or a risk"
                raise CallValueError(problem, "reduction", loss="tasks")
            total = total + factors[name] * values[name]
        return total, grads, values


def multiplied(grad: Any, factor: float) -> Any:
    """Multiply a gradient, or each of several, by a number, in place where the array allows it."""
    if type(grad) is tuple:
        return tuple(multiplied(g, factor) for g in grad)
    if factor == 1.0:
        return grad
    if type(grad) is np.ndarray and grad.dtype in (F32, F64) and grad.flags.carray and grad.size:
        from ...cpu.vectors import scale

        scale(grad.reshape(-1), factor)
        return grad
    grad *= grad.dtype.type(factor) if isinstance(grad, np.ndarray) else factor
    return grad


def _known(loss: Loss, method: str) -> set[str]:
    """Return the names of the options of a loss."""
    record = loss.record
    found = set(record.parameters) | {"backend", "reduction"}
    if method == "call":
        found |= {"weight", "divisor"} | {k for k, spec in record.inputs.items() if not spec.grad}
        found |= {"class_weight", "ignore_index", "axis"} if loss._of_classes or record.family == "rows" else set()
    return found


def _has(loss: Loss, key: str, method: str) -> bool:
    return key in _known(loss, method)


def tasks(parts: Mapping[str, Any], /) -> Tasks:
    """Return the weighted sum of the losses of several tasks, each of which has predictions and targets of its own.

    value = sum over tasks of weight * loss(predictions[task], targets[task]).

    Parameters
    ----------
    parts : mapping of str to Loss or (Loss, float)
        Losses by task, with weights; 1 where none is given.

    Returns
    -------
    Tasks
        Object to be called with a dictionary of predictions and one of targets. Its `value_and_grad` returns the value
        and a dictionary of gradients; ``parts=True`` adds the losses of the tasks, without their weights.

    Raises
    ------
    TypeError
        Parts that are no losses.
    ValueError
        Weights that are not finite.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> both = fl.tasks({"price": (fl.huber, 1.0), "click": (fl.bce_with_logits, 0.5)})
    >>> predictions = {"price": np.array([2.0, 0.5]), "click": np.array([0.0, 3.0])}
    >>> targets = {"price": np.array([0.0, 0.5]), "click": np.array([1.0, 1.0])}
    >>> value, grads, losses = both.value_and_grad(predictions, targets, parts=True)
    >>> {name: round(loss, 4) for name, loss in losses.items()}
    {'price': 0.75, 'click': 0.3709}
    >>> round(value, 4), grads["price"]
    (0.9354, array([0.5, 0. ]))
    >>> both(predictions, targets, weights={"click": 0.0})
    0.75
    """
    if not isinstance(parts, Mapping) or not parts:
        problem = f'takes a dictionary of losses, such as {{"price": fl.huber}}; given {check.shown(parts)}'
        raise CallTypeError(problem, loss="tasks")
    losses: dict[str, Loss] = {}
    weights: dict[str, float] = {}
    for name, part in parts.items():
        if not isinstance(name, str):
            raise CallTypeError(f"names a task {check.shown(name)}; expected text", loss="tasks")
        pair = part if isinstance(part, tuple) and len(part) == 2 else (part, 1.0)
        # As `combine` has them, the weight first, is understood too.
        loss, weight = pair if isinstance(pair[0], Loss) else pair[::-1]
        if not isinstance(loss, Loss):
            raise CallTypeError(f"{name} is {check.shown(part)}; expected a loss or (loss, weight)", loss="tasks")
        if isinstance(loss, Penalty) or (isinstance(loss, MixedSum) and loss._penalties):
            problem = f"{name} has a penalty on parameters, which no task has; call the penalty by itself"
            raise CallTypeError(problem, loss="tasks")
        losses[name], weights[name] = loss, finite(weight, f"tasks: the weight of {name}")
    return Tasks(losses, weights)
