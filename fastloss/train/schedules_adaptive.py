"""Schedules that also change the momentum, or that follow a metric: OneCycleLR, ReduceLROnPlateau."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..call.check import flag, one_of
from ..spec.record import FINITE_NONNEGATIVE, POSITIVE, UNIT
from .optim_base import Optimizer
from .optim_checks import BELOW_ONE, number, whole
from .schedules import Schedule, check_optimizer

__all__ = ["OneCycleLR", "ReduceLROnPlateau"]


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _linear(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


ANNEAL: Mapping[str, Callable[[float, float, float], float]] = {"cos": _cosine, "linear": _linear}
"""Functions between two values, by the name of the strategy."""

TWO = (("initial_lr", "max_lr"), ("max_lr", "min_lr"))
THREE = (("initial_lr", "max_lr"), ("max_lr", "initial_lr"), ("initial_lr", "min_lr"))
"""Rates at the start and end of each phase; momentum goes the other way."""

OPPOSITE = {"initial_lr": "max_momentum", "max_lr": "base_momentum", "min_lr": "max_momentum"}
"""Momentum that goes with a rate."""


def _each(what: str, value: Any, count: int, allowed: Any) -> list[float]:
    """Return a number for each group."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != count:
            raise ValueError(f"{what} has {len(value)} entries; expected {count}, one a group")
        return [number(f"{what}[{i}]", x, allowed) for i, x in enumerate(value)]
    return [number(what, value, allowed)] * count


class OneCycleLR(Schedule):
    """One cycle: the learning rate up to max_lr and down to far below the start, momentum down and up.

    `step()` follows every step of the optimiser, total_steps times at most.

    Parameters
    ----------
    optimizer : Optimizer
        Optimiser whose learning rates are set.
    max_lr : float or list of floats
        Greatest learning rate, of all groups or of each.
    total_steps : int, optional
        Steps of the cycle; or give epochs and steps_per_epoch, whose product it is.
    epochs, steps_per_epoch : int, optional
        Epochs, and steps of each.
    pct_start : float
        Share of the steps until the greatest rate.
    anneal_strategy : {"cos", "linear"}
        Form of the curve between rates.
    cycle_momentum : bool
        Whether the momentum (of SGD and RMSprop), or the first of the betas, goes the other way.
    base_momentum, max_momentum : float or list of floats
        Least and greatest momentum.
    div_factor, final_div_factor : float
        Ratio of max_lr to the first rate, and of the first rate to the last.
    three_phase : bool
        Come down to the first rate as fast as it went up, then to the last.
    last_epoch : int
        Step from which to resume; -1 begins.

    References
    ----------
    Smith and Topin (2018), Super-convergence: very fast training of neural networks, arXiv:1708.07120.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> opt = fl.optim.SGD([np.zeros(2)], lr=0.1, momentum=0.9)
    >>> schedule = fl.optim.OneCycleLR(opt, max_lr=1.0, total_steps=5, pct_start=0.4, anneal_strategy="linear")
    >>> [(round(schedule.get_last_lr()[0], 3), schedule.step())[0] for _ in range(4)]
    [0.04, 1.0, 0.667, 0.333]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        *,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        name, groups = "OneCycleLR", check_optimizer("OneCycleLR", optimizer).param_groups
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        self.pct_start = number(f"{name}: pct_start", pct_start, UNIT)
        one_of(f"{name}: anneal_strategy", anneal_strategy, tuple(ANNEAL))
        self.anneal_strategy = anneal_strategy
        self.three_phase = flag(f"{name}: three_phase", three_phase)
        self.cycle_momentum = flag(f"{name}: cycle_momentum", cycle_momentum)
        first = number(f"{name}: div_factor", div_factor, POSITIVE)
        last = number(f"{name}: final_div_factor", final_div_factor, POSITIVE)
        for group, high in zip(groups, _each(f"{name}: max_lr", max_lr, len(groups), POSITIVE), strict=True):
            if last_epoch == -1:
                group.update(initial_lr=high / first, max_lr=high, min_lr=high / first / last)
        if self.cycle_momentum:
            self._begin_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _begin_momentum(self, optimizer: Optimizer, low: Any, high: Any, last_epoch: int) -> None:
        """Set the range of the momentum in each group."""
        if not {"momentum", "betas"} & set(optimizer.defaults):
            raise ValueError(
                f"OneCycleLR: {type(optimizer).__name__} has neither momentum nor betas; type: cycle_momentum=False"
            )
        groups = optimizer.param_groups
        least = _each("OneCycleLR: base_momentum", low, len(groups), BELOW_ONE)
        greatest = _each("OneCycleLR: max_momentum", high, len(groups), BELOW_ONE)
        for group, small, large in zip(groups, least, greatest, strict=True):
            if last_epoch == -1:
                group.update(base_momentum=small, max_momentum=large)
                _set_momentum(group, large)

    def _phases(self) -> list[tuple[float, str, str]]:
        """Return the last step of each phase, and the rates at its start and end."""
        peak = float(self.pct_start * self.total_steps) - 1
        back = float(2 * self.pct_start * self.total_steps) - 2
        ends = [peak, back, self.total_steps - 1] if self.three_phase else [peak, self.total_steps - 1]
        return [(end, *pair) for end, pair in zip(ends, THREE if self.three_phase else TWO, strict=True)]

    def _rates(self) -> list[float]:
        step, anneal = self.last_epoch, ANNEAL[self.anneal_strategy]
        if step > self.total_steps:
            raise ValueError(f"OneCycleLR: step {step} is past the cycle of total_steps={self.total_steps}")
        phases = self._phases()
        passed = [end for end, _, _ in phases[:-1] if step > end]
        start = passed[-1] if passed else 0.0
        end, before, after = phases[len(passed)]
        # A phase of no length, where torch divides by 0, ends at once.
        share = (step - start) / (end - start) if end != start else 1.0
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                _set_momentum(group, anneal(group[OPPOSITE[before]], group[OPPOSITE[after]], share))
        return [anneal(group[before], group[after], share) for group in self.optimizer.param_groups]


def _total(total_steps: Any, epochs: Any, steps_per_epoch: Any) -> int:
    if total_steps is not None:
        return whole("OneCycleLR: total_steps", total_steps, 1)
    if epochs is None or steps_per_epoch is None:
        raise ValueError("OneCycleLR: total_steps is None; expected total_steps, or epochs and steps_per_epoch")
    each = whole("OneCycleLR: steps_per_epoch", steps_per_epoch, 1)
    return whole("OneCycleLR: epochs", epochs, 1) * each


def _set_momentum(group: dict[str, Any], value: float) -> None:
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


class ReduceLROnPlateau(Schedule):
    """Learning rate times factor once a metric has not improved for more than patience epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Optimiser whose learning rates are set.
    mode : {"min", "max"}
        Whether a smaller or a larger metric is better.
    factor : float
        Factor of each reduction, below 1.
    patience : int
        Epochs without improvement that are waited for.
    threshold : float
        Least improvement that counts.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is a share of the best metric or a difference to it.
    cooldown : int
        Epochs after a reduction that do not count.
    min_lr : float or list of floats
        Least learning rate, of all groups or of each.
    eps : float
        Least change of the rate that is made.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> opt = fl.optim.SGD([np.zeros(2)], lr=1.0)
    >>> schedule = fl.optim.ReduceLROnPlateau(opt, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        *,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Any = 0.0,
        eps: float = 1e-8,
    ) -> None:
        name = "ReduceLROnPlateau"
        self.optimizer = check_optimizer(name, optimizer)
        one_of(f"{name}: mode", mode, ("min", "max"))
        one_of(f"{name}: threshold_mode", threshold_mode, ("rel", "abs"))
        self.mode, self.threshold_mode = mode, threshold_mode
        self.factor = number(f"{name}: factor", factor, BELOW_ONE)
        self.patience, self.cooldown = whole(f"{name}: patience", patience, 0), whole(f"{name}: cooldown", cooldown, 0)
        self.threshold, self.eps = number(f"{name}: threshold", threshold), number(f"{name}: eps", eps)
        self.min_lrs = _each(f"{name}: min_lr", min_lr, len(optimizer.param_groups), FINITE_NONNEGATIVE)
        self.last_epoch = 0
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0
        self._last_lr = self._present()

    def step(self, metrics: float) -> None:  # type: ignore[override]
        """Take the metric of an epoch into account; NaN is no improvement."""
        self.last_epoch += 1
        metric = float(metrics)
        self.num_bad_epochs += 1
        if self._is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._present()

    def _is_better(self, metric: float) -> bool:
        if self.mode == "min":
            bound = self.best * (1.0 - self.threshold) if self.threshold_mode == "rel" else self.best - self.threshold
            return metric < bound
        bound = self.best * (self.threshold + 1.0) if self.threshold_mode == "rel" else self.best + self.threshold
        return metric > bound

    def _reduce(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            reduced = max(group["lr"] * self.factor, least)
            if group["lr"] - reduced > self.eps:
                group["lr"] = reduced
