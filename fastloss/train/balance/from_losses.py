"""Weights that follow the values of the losses."""

import math
from typing import Any

import numpy as np

from ...call import check
from ...call.errors import CallValueError
from ...spec.record import FINITE_NONNEGATIVE, POSITIVE
from .base import Balancer, count_of, losses_of, softmax, square

__all__ = ["DWA", "FAMO", "GLS", "RLW", "STCH", "GradNorm", "Uncertainty"]


class Uncertainty(Balancer):
    r"""Uncertainty weighting: every task has a log-variance s, which is learned beside the model.

    .. math:: \sum_i f_i e^{-s_i} L_i + s_i / 2

    The factor f is 1/2 for a regression, where the loss is a mean of squares, and 1 for a classification: both follow
    from the likelihood, and leaving out the 1/2 doubles the variance that is learned.

    Parameters
    ----------
    tasks : int
        Number of tasks.
    regression : bool or (k,) sequence of bool
        Which tasks are regressions.

    Attributes
    ----------
    log_variances : (k,) float64 array
        Log-variance of each task, 0 at first; an optimiser may update it in place.

    References
    ----------
    Kendall, Gal, Cipolla (2018), Multi-task learning using uncertainty to weigh losses, arXiv:1705.07115.

    Examples
    --------
    >>> import fastloss as fl
    >>> balancer = fl.balance.Uncertainty(2, regression=[True, False])
    >>> value, weights, slopes = balancer.value_and_grad([4.0, 1.0])
    >>> value, weights, slopes
    (3.0, array([0.5, 1. ]), array([-1.5, -0.5]))
    >>> balancer.log_variances -= 0.1 * slopes
    """

    def __init__(self, tasks: int, regression: Any = True) -> None:
        k = count_of("Uncertainty", "tasks", tasks)
        flags = np.asarray(regression)
        if flags.dtype != np.bool_ or flags.shape not in ((), (k,)):
            problem = f"is {check.shown(regression)}; expected True, False or one of them per task"
            raise CallValueError(problem, "regression", loss="Uncertainty")
        self.tasks, self.regression = k, np.broadcast_to(flags, (k,)).tolist()
        self.log_variances = np.zeros(k)

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        return np.where(self.regression, 0.5, 1.0) * np.exp(-self.log_variances)

    def value(self, losses: Any) -> float:
        """Return the weighted sum of the losses with its penalty."""
        return self.value_and_grad(losses)[0]

    def value_and_grad(self, losses: Any) -> tuple[float, Any, Any]:
        """Return the value, its derivative by each loss (the weights) and by each log-variance."""
        a = losses_of("Uncertainty", losses, self.tasks)
        w = self.weights()
        return float((w * a + 0.5 * self.log_variances).sum()), w, 0.5 - w * a


class DWA(Balancer):
    r"""Dynamic weight average: a task weighs more, the less its loss fell from the epoch before last to the last one.

    .. math:: w_i = k \, \mathrm{softmax}\left(\frac{L_i(t - 1)}{L_i(t - 2) \, T}\right)

    L(t) is the mean of the losses of epoch t. The weights are 1 in the first two epochs.

    Parameters
    ----------
    temperature : float above 0
        The larger, the more equal the weights.

    References
    ----------
    Liu, Johns, Davison (2019), End-to-end multi-task learning with attention, arXiv:1803.10704.

    Examples
    --------
    >>> import fastloss as fl
    >>> balancer = fl.balance.DWA()
    >>> for losses in ([4.0, 4.0], [2.0, 4.0]):
    ...     weights = balancer.weights(losses)
    ...     balancer.end_epoch()
    >>> balancer.weights([1.0, 4.0]).round(3)
    array([0.876, 1.124])
    """

    def __init__(self, temperature: float = 2.0) -> None:
        self.temperature = check.within("temperature", temperature, POSITIVE, "DWA")
        self._epochs: list[Any] = []
        self._total: Any = 0.0
        self._batches = 0

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64, and add the losses to those of the epoch."""
        a = losses_of("DWA", losses, len(self._epochs[-1]) if self._epochs else 0)
        self._total, self._batches = self._total + a, self._batches + 1
        if len(self._epochs) < 2:
            return np.ones(len(a))
        with np.errstate(all="ignore"):
            return len(a) * softmax(self._epochs[1] / self._epochs[0] / self.temperature)

    def end_epoch(self) -> None:
        """Take the mean of the losses since the last call for those of an epoch."""
        if self._batches:
            self._epochs = [*self._epochs, self._total / self._batches][-2:]
            self._total, self._batches = 0.0, 0


class RLW(Balancer):
    """Random loss weighting: the softmax of normal numbers, new in every step.

    Parameters
    ----------
    tasks : int
        Number of tasks.
    seed : int
        Seed; a step has the same weights whenever it is asked for.

    References
    ----------
    Lin et al. (2022), Reasonable effectiveness of random weighting, arXiv:2111.10603.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.RLW(2, seed=1).weights(step=3).sum().round(12)
    np.float64(1.0)
    """

    def __init__(self, tasks: int, seed: int = 0) -> None:
        self.tasks = count_of("RLW", "tasks", tasks)
        self.seed = int(seed)

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        return softmax(np.random.default_rng([self.seed, step]).standard_normal(self.tasks))


class FAMO(Balancer):
    r"""Fast adaptive multitask optimisation: weights by which all losses fall at one rate, from the losses alone.

    .. math:: w_i = c \, \frac{z_i}{L_i - b_i}, \quad z = \mathrm{softmax}(\xi), \quad c = 1 / \sum_i z_i / (L_i - b_i)

    After the step of the model, `update` takes the losses of the same batch again. It moves the logits xi by one step
    of Adam along the change of the logarithms of the losses.

    Parameters
    ----------
    tasks : int
        Number of tasks.
    rate : float above 0
        Learning rate of the logits.
    decay : float, at least 0
        Weight decay of the logits.
    least : (k,) array-like, optional
        Lower bounds b of the losses; zeros if left out.

    References
    ----------
    Liu et al. (2023), FAMO: fast adaptive multitask optimization, arXiv:2306.03792.

    Examples
    --------
    >>> import fastloss as fl
    >>> balancer = fl.balance.FAMO(2)
    >>> balancer.weights([1.0, 3.0])
    array([0.75, 0.25])
    >>> balancer.update([0.5, 3.0])  # the first loss fell faster: the second one gains
    >>> bool(balancer.weights([1.0, 3.0])[1] > 0.25)
    True
    """

    def __init__(self, tasks: int, rate: float = 0.025, decay: float = 1e-3, least: Any = None) -> None:
        k = count_of("FAMO", "tasks", tasks)
        self.tasks, self.rate = k, check.within("rate", rate, POSITIVE, "FAMO")
        self.decay = check.within("decay", decay, FINITE_NONNEGATIVE, "FAMO")
        self.least = np.zeros(k) if least is None else losses_of("FAMO", least, k)
        self._logits, self._moments, self._steps = np.zeros(k), np.zeros((2, k)), 0
        self._before: Any = None

    def _above(self, losses: Any) -> Any:
        """Return what losses exceed their bounds by."""
        above = losses_of("FAMO", losses, self.tasks) - self.least
        if (above <= 0.0).any():
            i = int(np.argmax(above <= 0.0))
            problem = f"is {above[i] + self.least[i]}; allowed: above {self.least[i]}"
            raise CallValueError(problem, "losses", (i,), "FAMO")
        return above

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64, and keep the losses for `update`."""
        self._before = self._above(losses)
        w = softmax(self._logits) / self._before
        return w / w.sum()

    def update(self, losses: Any) -> None:
        """Move the weights, from the losses of the same batch after the step of the model."""
        if self._before is None:
            raise CallValueError("update comes after weights; call weights(losses) first", loss="FAMO")
        change = np.log(self._before) - np.log(self._above(losses))
        z = softmax(self._logits)
        slope = z * (change - z @ change) + self.decay * self._logits
        self._steps += 1
        self._moments[0] = 0.9 * self._moments[0] + 0.1 * slope
        self._moments[1] = 0.999 * self._moments[1] + 0.001 * slope**2
        first, second = self._moments[0] / (1.0 - 0.9**self._steps), self._moments[1] / (1.0 - 0.999**self._steps)
        self._logits = self._logits - self.rate * first / (np.sqrt(second) + 1e-8)


class GLS(Balancer):
    r"""Geometric loss strategy: the geometric mean of the losses, whose derivatives are the weights.

    .. math:: \left(\prod_i L_i\right)^{1/k}

    References
    ----------
    Chennupati et al. (2019), MultiNet++: multi-stream feature aggregation and geometric loss strategy for multi-task
    learning, arXiv:1904.08492.

    Examples
    --------
    >>> import fastloss as fl
    >>> print(round(fl.balance.GLS().value([1.0, 4.0]), 12))
    2.0
    >>> fl.balance.GLS().weights([1.0, 4.0])
    array([1.  , 0.25])
    """

    def value(self, losses: Any) -> float:
        """Return the geometric mean."""
        a = losses_of("GLS", losses)
        if (a < 0.0).any():
            i = int(np.argmax(a < 0.0))
            raise CallValueError(f"is {a[i]}; allowed: [0, inf]", "losses", (i,), "GLS")
        with np.errstate(divide="ignore"):
            return float(np.exp(np.log(a).mean()))

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        a = losses_of("GLS", losses)
        with np.errstate(all="ignore"):
            return self.value(a) / (len(a) * a)


class STCH(Balancer):
    r"""Smooth Tchebycheff scalarisation: a smooth maximum of the losses, whose derivatives are the weights.

    .. math:: \mu \log \sum_i \exp\left(\frac{p_i (L_i - b_i)}{\mu}\right)

    The largest exponent is subtracted before the division by mu, which may be small.

    Parameters
    ----------
    mu : float above 0
        Smoothing, in units of the losses.
    preference : (k,) array-like, optional
        Factors p; 1 / k if left out.
    ideal : (k,) array-like, optional
        Losses b that could be reached one by one; zeros if left out.

    References
    ----------
    Lin et al. (2024), Smooth Tchebycheff scalarization for multi-objective optimization, arXiv:2402.19078.

    Examples
    --------
    >>> import fastloss as fl
    >>> fl.balance.STCH(mu=0.1).weights([1.0, 1.0, 1.2]).round(3)
    array([0.084, 0.084, 0.164])
    """

    def __init__(self, mu: float, preference: Any = None, ideal: Any = None) -> None:
        self.mu = check.within("mu", mu, POSITIVE, "STCH")
        self.preference = None if preference is None else losses_of("STCH", preference)
        self.ideal = None if ideal is None else losses_of("STCH", ideal, 0 if preference is None else len(preference))

    def _scaled(self, losses: Any) -> tuple[Any, Any]:
        given = self.ideal if self.preference is None else self.preference
        a = losses_of("STCH", losses, 0 if given is None else len(given))
        p = np.full(len(a), 1.0 / len(a)) if self.preference is None else self.preference
        return p, p * (a if self.ideal is None else a - self.ideal)

    def value(self, losses: Any) -> float:
        """Return the smooth maximum."""
        y = self._scaled(losses)[1]
        return float(y.max() + self.mu * math.log(np.exp((y - y.max()) / self.mu).sum()))

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64."""
        p, y = self._scaled(losses)
        return p * softmax((y - y.max()) / self.mu)


class GradNorm(Balancer):
    r"""Gradient normalisation: weights by which tasks train at one rate, measured by the fall of their losses.

    With G_i = w_i |g_i| and r_i = L_i / L_i(0), divided by their mean, a step of descent on

    .. math:: \sum_i |G_i - \bar G \, r_i^\alpha|

    moves the weights, with the second term held constant; then they are scaled to sum to k. The norms come from the
    diagonal of the Gramian of the gradients by the last shared layer.

    Parameters
    ----------
    tasks : int
        Number of tasks.
    alpha : float
        How strongly slow tasks are favoured; 0 makes all norms equal.
    rate : float above 0
        Length of a step.

    References
    ----------
    Chen et al. (2018), GradNorm: gradient normalization for adaptive loss balancing, arXiv:1711.02257.

    Examples
    --------
    >>> import fastloss as fl
    >>> balancer = fl.balance.GradNorm(2, rate=0.1)
    >>> balancer.weights(losses=[1.0, 1.0], gramian=[[4.0, 0.0], [0.0, 1.0]]).round(3)
    array([0.842, 1.158])
    """

    def __init__(self, tasks: int, alpha: float = 1.5, rate: float = 0.025) -> None:
        self.tasks = count_of("GradNorm", "tasks", tasks)
        self.alpha = check.within("alpha", alpha, FINITE_NONNEGATIVE, "GradNorm")
        self.rate = check.within("rate", rate, POSITIVE, "GradNorm")
        self._weights = np.ones(self.tasks)
        self._start: Any = None

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64, after a step on them."""
        a = losses_of("GradNorm", losses, self.tasks)
        each = np.sqrt(np.diagonal(square("GradNorm", gramian)))
        if len(each) != self.tasks:
            problem = f"has shape {(len(each),) * 2}; expected {(self.tasks,) * 2}"
            raise CallValueError(problem, "gramian", loss="GradNorm")
        if self._start is None:
            self._start = a
        ratio = a / self._start
        norms = self._weights * each
        goal = norms.mean() * (ratio / ratio.mean()) ** self.alpha
        moved = np.maximum(self._weights - self.rate * np.sign(norms - goal) * each, 1e-6)
        self._weights = self.tasks * moved / moved.sum()
        return self._weights.copy()
