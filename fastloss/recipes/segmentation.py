"""Loss of segmentation networks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..call.arrays import incoming
from ..call.errors import CallTypeError, CallValueError, naming
from ..losses.catalogue import LOSSES
from .base import Predictions, Result, Sum

__all__ = ["unet"]


@naming("unet")
def unet(
    logits: Any,
    target: Any,
    *,
    mask: Any = None,
    gamma: float = 2.0,
    alpha: float | None = None,
    ignore_index: int | None = -100,
    weights: Mapping[str, float] | None = None,
) -> Result:
    r"""Return the loss of a segmentation network such as a U-Net: Dice plus focal loss.

    .. math:: dice(activation(logits), target) + focal(logits, target)

    Labels (n, ...) take one class per pixel: the activation is a softmax, and the focal loss `softmax_focal`. A target
    of the logits' shape has a region for each class, which may overlap: the activation is a sigmoid, and the focal loss
    `focal`. The Dice loss is the mean over samples and classes, the focal loss the mean over pixels (and, with a
    sigmoid, classes).

    Parameters
    ----------
    logits : array, (n, c, ...)
        Scores of c classes at each pixel of n images.
    target : array of int, (n, ...), or array of 0 and 1, (n, c, ...)
        Label of each pixel, or region of each class.
    mask : array of bool, (n, ...), optional
        Pixels that count.
    gamma : float
        Exponent of the focal loss: how much less easy pixels count.
    alpha : float in [0, 1], optional
        Weight of the pixels inside a region in the sigmoid focal loss, and one minus it outside; by default both 1.
    ignore_index : int or None
        Label of pixels that do not count.
    weights : dict, optional
        Weights of the parts "dice" (1) and "focal" (1); a part of weight 0 is left out.

    Returns
    -------
    Result
        value; grads of "logits"; parts "dice" and "focal".

    Raises
    ------
    ValueError
        For shapes that do not match, and labels outside the classes.

    References
    ----------
    Milletari, Navab, Ahmadi (2016), V-Net, arXiv:1606.04797; Lin et al. (2017), arXiv:1708.02002; their sum: Zhu et al.
    (2019), AnatomyNet, arXiv:1808.05238.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> logits = np.array([[[4.0, -4.0, 0.0], [-4.0, 4.0, 0.0]]])
    >>> found = fl.recipes.unet(logits, np.array([[0, 1, 1]]))
    >>> {name: round(part, 4) for name, part in found.parts.items()}
    {'dice': 0.1717, 'focal': 0.0578}
    """
    z = Predictions(logits=logits)
    total = Sum(z, weights, {"dice": 1.0, "focal": 1.0})
    return _unet(z["logits"], total, incoming(target, "target"), mask, (gamma, alpha, ignore_index))


def _unet(a: Any, total: Sum, t: Any, mask: Any, options: tuple[Any, ...]) -> Result:
    """Return the loss of logits; options are gamma, alpha and ignore_index."""
    gamma, alpha, ignore_index = options
    if a.ndim < 3:
        raise CallValueError(f"has shape {a.shape}; expected (n, c, ...)", "logits")
    pixels = (a.shape[0], *a.shape[2:])
    is_labels = t.shape != a.shape
    if is_labels and t.shape != pixels:
        raise CallValueError(f"has shape {t.shape}; expected labels {pixels} or regions {a.shape}", "target")
    if is_labels and alpha is not None:
        raise CallTypeError("belongs to regions; labels are weighed by no alpha", "alpha")
    weight = None if mask is None else (incoming(mask, "mask") != 0).astype(np.float64)
    if weight is not None and weight.shape != pixels:
        raise CallValueError(f"has shape {weight.shape}; expected {pixels}", "mask")
    if total.wants("dice"):
        activation = "softmax" if is_labels else "sigmoid"
        value, grad = LOSSES["dice"].value_and_grad(a, t, mask=mask, activation=activation, ignore_index=ignore_index)
        total.add("dice", value, logits=grad)
    if total.wants("focal"):
        if is_labels:
            loss = LOSSES["softmax_focal"].bind(gamma=gamma)
            value, grad = loss.value_and_grad(a, t, axis=1, weight=weight, ignore_index=ignore_index)
        else:
            loss = LOSSES["focal"].bind(gamma=gamma, alpha=alpha)
            value, grad = loss.value_and_grad(a, t, weight=None if weight is None else weight[:, None])
        total.add("focal", value, logits=grad)
    return total.result()
