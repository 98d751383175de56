"""Weights that depend on the step alone."""

import math
from typing import Any

import numpy as np

from ...call import check
from ...call.arrays import F64, incoming
from ...call.errors import CallValueError, naming
from ...spec.record import Interval
from .base import Balancer, count_of

__all__ = ["Constant", "Cosine", "Cyclic", "Exponential", "Linear", "Step"]

SHARE = Interval(0.0, 1.0, low_open=True)


def _values(name: str, what: str, given: Any) -> Any:
    """Return weights as float64, one per task or one for all."""
    with naming(name):
        a = np.atleast_1d(incoming(given, what).astype(F64))
    if a.ndim != 1 or not np.isfinite(a).all():
        raise CallValueError(f"is {check.shown(given)}; expected finite numbers, one per task", what, loss=name)
    return a


def _pair(name: str, first: str, a: Any, second: str, b: Any) -> tuple[Any, Any]:
    """Return two lists of weights of one length; a single number serves for all tasks."""
    x, y = _values(name, first, a), _values(name, second, b)
    if len(x) != len(y) and 1 not in (len(x), len(y)):
        raise CallValueError(f"has {len(y)} entries; expected {len(x)}, as {first}, or one", second, loss=name)
    x, y = np.broadcast_arrays(x, y)
    return x, y


class Constant(Balancer):
    """Fixed weights.

    Parameters
    ----------
    values : float or (k,) array-like
        Weight of each task.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.Constant([1.0, 0.1]).weights()
    array([1. , 0.1])
    """

    def __init__(self, values: Any) -> None:
        self.values = _values("Constant", "values", values)

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        return self.values.copy()


class Step(Balancer):
    """Weights that jump at given steps.

    Parameters
    ----------
    values : (m + 1,) or (m + 1, k) array-like
        Weights before the first jump, and after each.
    at : (m,) increasing integers
        Steps at which they jump.

    Examples
    --------
    >>> import fastloss as fl
    >>> schedule = fl.balance.Step([[1.0, 0.0], [1.0, 0.5]], at=[100])
    >>> schedule.weights(step=99), schedule.weights(step=100)
    (array([1., 0.]), array([1. , 0.5]))
    """

    def __init__(self, values: Any, at: Any) -> None:
        a, at = incoming(values, "values").astype(F64), [int(x) for x in at]
        if a.ndim not in (1, 2) or len(a) != len(at) + 1:
            problem = f"has shape {a.shape}; expected {len(at) + 1} rows, one more than steps in at"
            raise CallValueError(problem, "values", loss="Step")
        if at != sorted(set(at)):
            raise CallValueError(f"is {check.shown(at)}; expected increasing steps", "at", loss="Step")
        self.values, self.at = a.reshape(len(a), -1), at

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        return self.values[sum(x <= step for x in self.at)].copy()


class _Ramp(Balancer):
    """Base class of schedules from one weight to another."""

    def __init__(self, start: Any, end: Any, steps: int) -> None:
        self.start, self.end = _pair(self._name, "start", start, "end", end)
        self.steps = count_of(self._name, "steps", steps)

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        share = self._share(min(max(step / self.steps, 0.0), 1.0))
        return (1.0 - share) * self.start + share * self.end

    def _share(self, x: float) -> float:
        """Return the share of the end in the weights, where x is the share of the steps that have passed."""
        raise NotImplementedError


class Linear(_Ramp):
    """Weights that go from one value to another in a straight line, and stay there.

    Parameters
    ----------
    start, end : float or (k,) array-like
        Weights at step 0, and from `steps` on.
    steps : int
        Length of the way.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.Linear([1.0, 0.0], [1.0, 0.5], steps=100).weights(step=50)
    array([1.  , 0.25])
    """

    def _share(self, x: float) -> float:
        return x


class Cosine(_Ramp):
    """Weights that go from one value to another along half a cosine, and stay there.

    Parameters
    ----------
    start, end : float or (k,) array-like
        Weights at step 0, and from `steps` on.
    steps : int
        Length of the way.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.Cosine(0.0, 1.0, steps=100).weights(step=50).round(12)
    array([0.5])
    """

    def _share(self, x: float) -> float:
        return 0.5 - 0.5 * math.cos(math.pi * x)


class Exponential(Balancer):
    """Weights that change by a factor every step: start * rate ** step.

    Parameters
    ----------
    start : float or (k,) array-like
        Weights at step 0.
    rate : float or (k,) array-like, above 0
        Factor of each step.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.Exponential([1.0, 1.0], [1.0, 0.5]).weights(step=2)
    array([1.  , 0.25])
    """

    def __init__(self, start: Any, rate: Any) -> None:
        self.start, self.rate = _pair("Exponential", "start", start, "rate", rate)
        if (self.rate <= 0.0).any():
            raise CallValueError(f"is {check.shown(rate)}; expected numbers above 0", "rate", loss="Exponential")

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        with np.errstate(all="ignore"):
            return self.start * self.rate**step


class Cyclic(Balancer):
    """Weights that rise in a straight line at the start of every period, and then stay until its end.

    Parameters
    ----------
    low, high : float or (k,) array-like
        Weights at the start of a period, and after the rise.
    period : int
        Steps of a period.
    rise : float in (0, 1]
        Share of a period that the rise takes.

    References
    ----------
    Fu et al. (2019), Cyclical annealing schedule: a simple approach to mitigating KL vanishing, arXiv:1903.10145.

    Examples
    --------
    >>> import fastloss as fl
    >>> schedule = fl.balance.Cyclic(0.0, 1.0, period=10)
    >>> [float(schedule.weights(step=s)[0]) for s in (0, 2, 5, 9, 10)]
    [0.0, 0.4, 1.0, 1.0, 0.0]
    """

    def __init__(self, low: Any, high: Any, period: int, rise: float = 0.5) -> None:
        self.low, self.high = _pair("Cyclic", "low", low, "high", high)
        self.period = count_of("Cyclic", "period", period)
        self.rise = check.within("rise", rise, SHARE, "Cyclic")

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        share = min(step % self.period / self.period / self.rise, 1.0)
        return (1.0 - share) * self.low + share * self.high
