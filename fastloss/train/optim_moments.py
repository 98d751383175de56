"""Rules that follow moving averages of gradients: Adam, AdamW, Adamax, NAdam, Lion."""

from collections.abc import Mapping
from typing import Any

from . import optim_formulas as formulas
from .optim_base import BETAS, COMMON, DECOUPLED, EPS, Optimizer, Rule, Slot, decay_of, direction
from .optim_checks import Option

__all__ = ["Adam", "AdamW", "Adamax", "Lion", "NAdam"]


class Adam(Optimizer):
    """Moving averages of gradients and of their squares, corrected for their start at 0.

    ``m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g**2;
    p -= lr * m / (1 - beta1**step) / (sqrt(v / (1 - beta2**step)) + eps)``

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr : float
        Learning rate.
    betas : pair of floats
        Rates of decay of the two averages.
    eps : float
        Term added to the denominator.
    weight_decay : float
        Factor of the L2 penalty.
    amsgrad : bool
        Divide by the root of the largest v so far (AMSGrad), which costs a state more.
    maximize : bool
        Ascend instead of descend.
    decoupled_weight_decay : bool
        Shrink the parameter by ``1 - lr * weight_decay`` instead (AdamW).

    References
    ----------
    Kingma and Ba (2015), Adam, arXiv:1412.6980; Reddi, Kale and Kumar (2018), On the convergence of Adam and beyond.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w, b = np.array([1.0, 2.0]), np.zeros(1)
    >>> opt = fl.optim.Adam({"w": w, "b": b}, lr=0.1)
    >>> opt.step({"w": np.array([3.0, -0.5]), "b": np.array([1.0])})
    >>> w.round(6), b.round(6)
    (array([0.9, 2.1]), array([-0.1]))
    """

    rule = Rule(
        formula=formulas.adam,
        states=("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        options={
            **COMMON,
            "betas": BETAS,
            "eps": EPS,
            "amsgrad": Option("whether the largest mean square so far divides", bool),
            "decoupled_weight_decay": DECOUPLED,
        },
        math="m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; p -= lr m' / (sqrt(v') + eps), corrected",
        paper="Kingma and Ba (2015), arXiv:1412.6980; Reddi, Kale and Kumar (2018), AMSGrad",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        flags = {"maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, {**options, **flags})

    def _holds(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        return True, True, group["amsgrad"]

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        t = slot.step
        decay, shrink = decay_of(group, group["decoupled_weight_decay"])
        moments = 1.0 - beta1, beta2, 1.0 - beta2, (1.0 - beta2**t) ** -0.5
        step = group["lr"] / (1.0 - beta1**t)
        return direction(group), decay, shrink, *moments, 1.0 if group["amsgrad"] else 0.0, step, group["eps"]


class AdamW(Adam):
    """Adam with decoupled weight decay: the parameter is shrunk by ``1 - lr * weight_decay`` before each step.

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr, betas, eps, amsgrad, maximize
        As for `Adam`.
    weight_decay : float
        Rate of the decay.

    References
    ----------
    Loshchilov and Hutter (2019), Decoupled weight decay regularization, arXiv:1711.05101.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w = np.array([1.0, 2.0])
    >>> fl.optim.AdamW([w], lr=0.1, weight_decay=0.5).step([np.array([3.0, -0.5])])
    >>> w.round(6)
    array([0.85, 2.  ])
    """

    rule = Adam.rule._replace(
        math="Adam after p *= 1 - lr weight_decay", paper="Loshchilov and Hutter (2019), arXiv:1711.05101"
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        flags = {"maximize": maximize, "decoupled_weight_decay": True}
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **flags)


class Adamax(Optimizer):
    """Adam with the largest decayed magnitude of the gradients in place of their root mean square.

    ``m = beta1 * m + (1 - beta1) * g; u = max(beta2 * u, |g| + eps); p -= lr / (1 - beta1**step) * m / u``

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr, betas, eps, weight_decay, maximize
        As for `Adam`.

    References
    ----------
    Kingma and Ba (2015), Adam, arXiv:1412.6980, section 7.1.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w = np.array([1.0, 2.0])
    >>> fl.optim.Adamax([w], lr=0.1).step([np.array([3.0, -0.5])])
    >>> w.round(6)
    array([0.9, 2.1])
    """

    rule = Rule(
        formula=formulas.adamax,
        states=("exp_avg", "exp_inf"),
        options={**COMMON, "betas": BETAS, "eps": EPS},
        math="m = beta1 m + (1 - beta1) g; u = max(beta2 u, |g| + eps); p -= lr / (1 - beta1^step) m / u",
        paper="Kingma and Ba (2015), arXiv:1412.6980, section 7.1",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize})

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        lr = group["lr"] / (1.0 - beta1**slot.step)
        return direction(group), group["weight_decay"], 1.0 - beta1, beta2, lr, group["eps"]


class NAdam(Optimizer):
    """Adam with Nesterov's look ahead, under a momentum that grows with the steps.

    With ``mu_t = beta1 * (1 - 0.96**(t * momentum_decay) / 2)`` the step is along ``(1 - mu_t) / (1 - mu_1 ... mu_t)
    g + mu_{t+1} / (1 - mu_1 ... mu_{t+1}) m``, divided as in `Adam`.

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr, betas, eps, weight_decay, maximize, decoupled_weight_decay
        As for `Adam`.
    momentum_decay : float
        Rate at which the momentum grows towards beta1.

    References
    ----------
    Dozat (2016), Incorporating Nesterov momentum into Adam.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w = np.array([1.0, 2.0])
    >>> fl.optim.NAdam([w], lr=0.1).step([np.array([3.0, -3.0])])
    >>> w.round(3)
    array([0.894, 2.106])
    """

    rule = Rule(
        formula=formulas.nadam,
        states=("exp_avg", "exp_avg_sq"),
        options={
            **COMMON,
            "betas": BETAS,
            "eps": EPS,
            "momentum_decay": Option("rate at which the momentum grows towards beta1"),
            "decoupled_weight_decay": DECOUPLED,
        },
        math="m, v as in Adam; p -= lr ((1 - mu_t) / (1 - M_t) g + mu_t+1 / (1 - M_t+1) m) / (sqrt(v') + eps)",
        paper="Dozat (2016), Incorporating Nesterov momentum into Adam",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        more = {"momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, {**options, **more, "maximize": maximize})

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        t, lr, rate = slot.step, group["lr"], group["momentum_decay"]
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (t * rate))
        following = beta1 * (1.0 - 0.5 * 0.96 ** ((t + 1) * rate))
        slot.product *= mu
        by_gradient, by_mean = lr * (1.0 - mu) / (1.0 - slot.product), lr * following / (1.0 - slot.product * following)
        moments = 1.0 - beta1, beta2, 1.0 - beta2, (1.0 - beta2**t) ** -0.5
        decay = decay_of(group, group["decoupled_weight_decay"])
        return direction(group), *decay, *moments, by_gradient, by_mean, group["eps"]

    def _state_of(self, slot: Slot) -> dict[str, Any]:
        return {**super()._state_of(slot), "mu_product": slot.product}


class Lion(Optimizer):
    """Steps of size lr along the sign of an interpolated moving average of gradients.

    ``p -= lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p); m = beta2 * m + (1 - beta2) * g``

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of float32 or float64 that are updated in place, or a list of groups ``{"params": [...], "lr": ...}``.
    lr : float
        Size of the steps, a third to a tenth of what suits AdamW.
    betas : pair of floats
        Weight of the average in the step, and its rate of decay.
    weight_decay : float
        Rate of the decoupled decay.
    maximize : bool
        Ascend instead of descend.

    References
    ----------
    Chen et al. (2023), Symbolic discovery of optimization algorithms, arXiv:2302.06675, Algorithm 2.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> w = np.array([1.0, 2.0])
    >>> fl.optim.Lion([w], lr=0.1).step([np.array([3.0, -0.5])])
    >>> w.round(6)
    array([0.9, 2.1])
    """

    rule = Rule(
        formula=formulas.lion,
        states=("exp_avg",),
        options={**COMMON, "betas": BETAS},
        math="p -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay p); m = beta2 m + (1 - beta2) g",
        paper="Chen et al. (2023), arXiv:2302.06675",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def _numbers(self, group: Mapping[str, Any], slot: Slot) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        _, shrink = decay_of(group, decoupled=True)
        return direction(group), shrink, 1.0 - beta1, 1.0 - beta2, group["lr"]
