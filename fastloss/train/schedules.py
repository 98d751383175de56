"""Schedules of learning rates, with the names, arguments and recurrences of torch.optim.lr_scheduler."""

import math
from collections.abc import Mapping
from typing import Any

from ..call.check import shown
from ..spec.record import UNIT, Interval
from .optim_base import Optimizer
from .optim_checks import number, whole

__all__ = [
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LinearLR",
    "Schedule",
    "StepLR",
    "check_optimizer",
]


class Schedule:
    """Base class of the schedules: `step()` after each epoch or step of the optimiser sets its learning rates.

    Schedules change the present rate by a factor where they can, so that several of them on one optimiser multiply.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = check_optimizer(type(self).__name__, optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"{type(self).__name__}: group {i} has no 'initial_lr', which last_epoch={last_epoch} needs; "
                    "restore the optimiser first, type: optimizer.load_state_dict(state)"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._begins = True
        self.step()
        self._begins = False

    def step(self) -> None:
        """Set the learning rates of the next epoch."""
        self.last_epoch += 1
        self._set(self._rates())

    def _set(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def _present(self) -> list[float]:
        """Return the learning rates of the optimiser."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def _rates(self) -> list[float]:
        """Return the learning rates of this epoch."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group that the schedule set last."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimiser."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; restore the optimiser too, which holds the rates."""
        unknown = set(state_dict) - set(self.state_dict())
        if unknown:
            raise ValueError(
                f"{type(self).__name__}: state has an entry {min(unknown)!r}; expected one of its own states"
            )
        self.__dict__.update(state_dict)


def check_optimizer(name: str, optimizer: Any) -> Optimizer:
    """Return the optimiser; raise TypeError for anything else."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name}: optimizer is {shown(optimizer)}; expected one of fastloss.optim")
    return optimizer


class StepLR(Schedule):
    """Learning rate times gamma after every step_size epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Optimiser whose learning rates are set.
    step_size : int
        Epochs between changes.
    gamma : float
        Factor of each change.
    last_epoch : int
        Epoch from which to resume; -1 begins.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> opt = fl.optim.SGD([np.zeros(2)], lr=1.0)
    >>> schedule = fl.optim.StepLR(opt, step_size=2, gamma=0.5)
    >>> [(schedule.get_last_lr()[0], schedule.step())[0] for _ in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = whole("StepLR: step_size", step_size, 1)
        self.gamma = number("StepLR: gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _rates(self) -> list[float]:
        if self.last_epoch == 0 or self.last_epoch % self.step_size:
            return self._present()
        return [lr * self.gamma for lr in self._present()]


class ExponentialLR(Schedule):
    """Learning rate times gamma after every epoch.

    Parameters
    ----------
    optimizer : Optimizer
        Optimiser whose learning rates are set.
    gamma : float
        Factor of each change.
    last_epoch : int
        Epoch from which to resume; -1 begins.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> opt = fl.optim.SGD([np.zeros(2)], lr=1.0)
    >>> schedule = fl.optim.ExponentialLR(opt, gamma=0.5)
    >>> schedule.step()
    >>> opt.param_groups[0]["lr"]
    0.5
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = number("ExponentialLR: gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _rates(self) -> list[float]:
        return self._present() if self._begins else [lr * self.gamma for lr in self._present()]


class LinearLR(Schedule):
    """Linear warm-up: a factor of the learning rate from start_factor to end_factor over total_iters epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Optimiser whose learning rates are set.
    start_factor, end_factor : float
        First and last factor, in (0, 1] and [0, 1].
    total_iters : int
        Epochs until the last factor.
    last_epoch : int
        Epoch from which to resume; -1 begins.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> opt = fl.optim.SGD([np.zeros(2)], lr=1.0)
    >>> schedule = fl.optim.LinearLR(opt, start_factor=0.25, total_iters=3)
    >>> [(schedule.get_last_lr()[0], schedule.step())[0] for _ in range(5)]
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = number("LinearLR: start_factor", start_factor, Interval(0.0, 1.0, low_open=True))
        self.end_factor = number("LinearLR: end_factor", end_factor, UNIT)
        self.total_iters = whole("LinearLR: total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def _rates(self) -> list[float]:
        t, first, gain = self.last_epoch, self.start_factor, self.end_factor - self.start_factor
        if t == 0:
            return [lr * first for lr in self._present()]
        if self._begins or t > self.total_iters:
            return self._present()
        # The ratio of this factor to the one before.
        return [lr * (1.0 + gain / (self.total_iters * first + (t - 1) * gain)) for lr in self._present()]


class CosineAnnealingLR(Schedule):
    """Half a cosine from the learning rate down to eta_min over T_max epochs, and up again.

    Parameters
    ----------
    optimizer : Optimizer
        Optimiser whose learning rates are set.
    T_max : int
        Epochs until the least learning rate.
    eta_min : float
        Least learning rate.
    last_epoch : int
        Epoch from which to resume; -1 begins.

    References
    ----------
    Loshchilov and Hutter (2017), SGDR: stochastic gradient descent with warm restarts, arXiv:1608.03983.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> opt = fl.optim.SGD([np.zeros(2)], lr=1.0)
    >>> schedule = fl.optim.CosineAnnealingLR(opt, T_max=2)
    >>> [(round(schedule.get_last_lr()[0], 6), schedule.step())[0] for _ in range(3)]
    [1.0, 0.5, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = whole("CosineAnnealingLR: T_max", T_max, 1)
        self.eta_min = number("CosineAnnealingLR: eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def _rates(self) -> list[float]:
        t, period, low = self.last_epoch, self.T_max, self.eta_min
        if self._begins:
            return self._present()
        if (t - 1 - period) % (2 * period) == 0:
            # The rate before was the least, from which no ratio leads up.
            pairs = zip(self._present(), self.base_lrs, strict=True)
            return [lr + (base - low) * (1 - math.cos(math.pi / period)) / 2 for lr, base in pairs]
        ratio = (1 + math.cos(math.pi * t / period)) / (1 + math.cos(math.pi * (t - 1) / period))
        return [ratio * (lr - low) + low for lr in self._present()]


class CosineAnnealingWarmRestarts(Schedule):
    """Half a cosine from the learning rate down to eta_min, begun again after T_0, T_0 T_mult, T_0 T_mult^2... epochs.

    Parameters
    ----------
    optimizer : Optimizer
        Optimiser whose learning rates are set.
    T_0 : int
        Epochs until the first restart.
    T_mult : int
        Factor of the number of epochs after each restart.
    eta_min : float
        Least learning rate.
    last_epoch : int
        Epoch from which to resume; -1 begins.

    References
    ----------
    Loshchilov and Hutter (2017), SGDR: stochastic gradient descent with warm restarts, arXiv:1608.03983.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> opt = fl.optim.SGD([np.zeros(2)], lr=1.0)
    >>> schedule = fl.optim.CosineAnnealingWarmRestarts(opt, T_0=2)
    >>> [(round(schedule.get_last_lr()[0], 6), schedule.step())[0] for _ in range(4)]
    [1.0, 0.5, 1.0, 0.5]
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0 = self.T_i = whole("CosineAnnealingWarmRestarts: T_0", T_0, 1)
        self.T_mult = whole("CosineAnnealingWarmRestarts: T_mult", T_mult, 1)
        self.eta_min = number("CosineAnnealingWarmRestarts: eta_min", eta_min)
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """Set the learning rates of the next epoch, or of a given one, which may be a fraction."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self._locate(number("CosineAnnealingWarmRestarts: epoch", epoch))
        self.last_epoch = math.floor(epoch)
        self._set(self._rates())

    def _locate(self, epoch: float) -> None:
        """Find the period of an epoch, and the epochs since its start."""
        if epoch < self.T_0:
            self.T_i, self.T_cur = self.T_0, epoch
        elif self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        else:
            restarts = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**restarts - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**restarts

    def _rates(self) -> list[float]:
        low, share = self.eta_min, math.pi * self.T_cur / self.T_i
        return [low + (base - low) * (1 + math.cos(share)) / 2 for base in self.base_lrs]
