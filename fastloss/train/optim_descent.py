"""Gradient descent, and rules that divide steps by past gradients: SGD, Adagrad, RMSprop, Adadelta."""

from collections.abc import Mapping
from typing import Any

from ..spec.record import UNIT
from . import optim_formulas as formulas
from .optim_base import COMMON, EPS, MOMENTUM, Optimizer, Rule, Slot, direction
from .optim_checks import Option

__all__ = ["SGD", "Adadelta", "Adagrad", "RMSprop"]


class SGD(Optimizer):
    """Gradient descent with momentum, Nesterov's or not: batch, mini-batch or single-sample by the gradients given.

    The update is ``p -= lr * d``, where d is the gradient, or with momentum ``buffer = momentum * buffer +
    (1 - dampening) * g`` (the first gradient as it is) and d is the buffer, or ``g + momentum * buffer`` (nesterov).

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr : float
        Learning rate.
    momentum, dampening : float
        Factor of past gradients, and the share of a new one that the buffer leaves out.
    weight_decay : float
        Factor of the L2 penalty.
    nesterov : bool
        Look ahead along the buffer; needs momentum and no dampening.
    maximize : bool
        Ascend instead of descend.

    References
    ----------
    Sutskever et al. (2013), On the importance of initialization and momentum in deep learning.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w = np.array([1.0, 2.0])
    >>> fl.optim.SGD([w], lr=0.1).step([np.array([1.0, -1.0])])
    >>> w
    array([0.9, 2.1])
    """

    rule = Rule(
        formula=formulas.sgd,
        states=("momentum_buffer",),
        options={
            **COMMON,
            "momentum": MOMENTUM,
            "dampening": Option("share of a gradient that the buffer leaves out"),
            "nesterov": Option("whether the step looks ahead along the buffer", bool),
        },
        math="b = momentum b + (1 - dampening) g; p -= lr b, with nesterov lr (g + momentum b)",
        paper="Sutskever et al. (2013), On the importance of initialization and momentum in deep learning",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov, "maximize": maximize})

    def _validated(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found = super()._validated(options)
        if found["nesterov"] and (found["momentum"] == 0.0 or found["dampening"] != 0.0):
            raise ValueError("SGD: nesterov is True; it needs a momentum above 0 and dampening=0")
        return found

    def _holds(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        return (group["momentum"] != 0.0,)

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        momentum = group["momentum"]
        kept = 1.0 - group["dampening"] if momentum else 1.0
        first = 1.0 if slot.step == slot.born + 1 else 0.0
        nesterov = 1.0 if group["nesterov"] else 0.0
        return direction(group), group["weight_decay"], momentum, kept, first, nesterov, group["lr"]

    def _allow_rows(self, what: str, group: Mapping[str, Any]) -> None:
        if group["momentum"] or group["weight_decay"]:
            raise ValueError(f"{what} has rows; SGD takes row-sparse gradients with momentum=0 and weight_decay=0")


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients.

    ``sum += g**2; p -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps)``

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr, lr_decay : float
        Learning rate, and its rate of decay with the number of steps.
    weight_decay : float
        Factor of the L2 penalty.
    initial_accumulator_value : float
        Value with which the sums begin.
    eps : float
        Term added to the denominator.
    maximize : bool
        Ascend instead of descend.

    References
    ----------
    Duchi, Hazan and Singer (2011), Adaptive subgradient methods for online learning and stochastic optimization.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> table = np.zeros((4, 2))
    >>> fl.optim.Adagrad([table], lr=0.5).step([(np.array([2]), np.array([[3.0, -4.0]]))])
    >>> table[2].round(6)
    array([-0.5,  0.5])
    """

    rule = Rule(
        formula=formulas.adagrad,
        states=("sum",),
        options={
            **COMMON,
            "lr_decay": Option("rate of decay of the learning rate"),
            "initial_accumulator_value": Option("value with which the sums begin"),
            "eps": EPS,
        },
        math="s += g^2; p -= lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps)",
        paper="Duchi, Hazan and Singer (2011), Adaptive subgradient methods",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        begins = {"initial_accumulator_value": initial_accumulator_value}
        super().__init__(params, {**options, **begins, "maximize": maximize})

    def _start(self, name: str, group: Mapping[str, Any]) -> float:
        return float(group["initial_accumulator_value"])

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        lr = group["lr"] / (1.0 + (slot.step - 1) * group["lr_decay"])
        return direction(group), group["weight_decay"], lr, group["eps"]

    def _allow_rows(self, what: str, group: Mapping[str, Any]) -> None:
        if group["weight_decay"]:
            raise ValueError(f"{what} has rows; Adagrad takes row-sparse gradients with weight_decay=0")


class RMSprop(Optimizer):
    """Steps divided by the root of a moving average of squared gradients, centred on their mean or not.

    ``v = alpha * v + (1 - alpha) * g**2; p -= lr * g / (sqrt(v) + eps)``; centered, v less the square of the moving
    average of g; with momentum, ``b = momentum * b + g / (sqrt(v) + eps); p -= lr * b``.

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr, alpha, eps : float
        Learning rate, rate of decay of the averages, term added to the denominator.
    weight_decay : float
        Factor of the L2 penalty.
    momentum : float
        Factor of past steps.
    centered : bool
        Divide by the standard deviation instead of the root mean square. A variance that rounding leaves below 0 is 0.
    maximize : bool
        Ascend instead of descend.

    References
    ----------
    Tieleman and Hinton (2012), Lecture 6.5 of Neural networks for machine learning; Graves (2013), arXiv:1308.0850.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w = np.array([1.0, 2.0])
    >>> fl.optim.RMSprop([w], lr=0.1, alpha=0.75).step([np.array([4.0, -8.0])])
    >>> w.round(6)
    array([0.8, 2.2])
    """

    rule = Rule(
        formula=formulas.rmsprop,
        states=("square_avg", "grad_avg", "momentum_buffer"),
        options={
            **COMMON,
            "alpha": Option("rate of decay of the moving averages", UNIT),
            "eps": EPS,
            "momentum": MOMENTUM,
            "centered": Option("whether steps are divided by the standard deviation", bool),
        },
        math="v = alpha v + (1 - alpha) g^2; p -= lr g / (sqrt(v) + eps), centered: v - mean(g)^2",
        paper="Tieleman and Hinton (2012), Lecture 6.5; Graves (2013), arXiv:1308.0850",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, {**options, "centered": centered, "maximize": maximize})

    def _holds(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        return True, group["centered"], group["momentum"] != 0.0

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        alpha, centered = group["alpha"], 1.0 if group["centered"] else 0.0
        rates = alpha, 1.0 - alpha, centered, group["momentum"], group["lr"], group["eps"]
        return direction(group), group["weight_decay"], *rates


class Adadelta(Optimizer):
    """Steps scaled by the root mean squares of past steps and gradients, so that the learning rate has no unit.

    ``v = rho * v + (1 - rho) * g**2; d = sqrt(u + eps) / sqrt(v + eps) * g; u = rho * u + (1 - rho) * d**2;
    p -= lr * d``

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr, rho, eps : float
        Factor of the steps, rate of decay of the averages, term added under the roots.
    weight_decay : float
        Factor of the L2 penalty.
    maximize : bool
        Ascend instead of descend.

    References
    ----------
    Zeiler (2012), ADADELTA: an adaptive learning rate method, arXiv:1212.5701.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w = np.array([1.0])
    >>> fl.optim.Adadelta([w], rho=0.75).step([np.array([2.0])])
    >>> float(w[0].round(6))
    0.998
    """

    rule = Rule(
        formula=formulas.adadelta,
        states=("square_avg", "acc_delta"),
        options={
            **COMMON,
            "rho": Option("rate of decay of the moving averages", UNIT),
            "eps": Option("term added under the roots"),
        },
        math="v = rho v + (1 - rho) g^2; d = sqrt((u + eps) / (v + eps)) g; u = rho u + (1 - rho) d^2; p -= lr d",
        paper="Zeiler (2012), arXiv:1212.5701",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize})

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        rho = group["rho"]
        return direction(group), group["weight_decay"], rho, 1.0 - rho, group["lr"], group["eps"]
