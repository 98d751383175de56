"""Options and domains of region losses, as kernels of both backends read and check them."""

from typing import Any

import numpy as np

from ...call import check
from ...call.errors import CallValueError
from ...spec.record import Domain
from ..runtime.slots import Typed, unbound

__all__ = [
    *("ACTIVATIONS", "NO_ACTIVATION", "POWERS", "SIGMOID", "SOFTMAX"),
    *("check_single", "first_class", "inside", "outside"),
]

use = unbound(Typed)

NO_ACTIVATION, SIGMOID, SOFTMAX = 0, 1, 2
ACTIVATIONS = {None: NO_ACTIVATION, "sigmoid": SIGMOID, "softmax": SOFTMAX}
"""Numbers of the activations, by the strings that a caller passes."""

POWERS = {"square": 2, "simple": 1, "uniform": 0}
"""Powers of a region's size by which its class weight is divided, by the strings that a caller passes."""


def first_class(call: Any) -> int:
    """Return the index of the first class that counts: 1 where the background does not."""
    return 0 if call.parameters.get("include_background", True) else 1


def check_single(call: Any) -> None:
    """Raise for options that need more than one class."""
    if call.parameters.get("activation") == "softmax":
        raise CallValueError("is 'softmax' for a single class; expected 'sigmoid'", "activation")
    if first_class(call) > 0:
        raise CallValueError("is False for a single class; nothing is left", "include_background")


def outside(x, keep):
    """Return the number of values outside [0, 1] at pixels that count."""
    T = use.T
    count = T(0.0)
    if keep.size > 0:
        for j in range(x.size):
            # NaN fails both: it is no violation, and comes through.
            bad = (x[j] < T(0.0)) | (x[j] > T(1.0))
            count += keep[j] if bad else T(0.0)
    else:
        for j in range(x.size):
            # In the type of the scores: a count in another width keeps the loop scalar.
            count += T(1.0) if (x[j] < T(0.0)) | (x[j] > T(1.0)) else T(0.0)
    return float(count)


def inside(call: Any, names: list[str], domain: Domain) -> None:
    """Raise for the first number of some arrays, at a pixel that counts, that lies outside of its domain."""
    shape = call["prediction"].shape
    counts = np.ones((shape[0], 1, shape[2]), bool)
    for name in ("target", "mask"):
        given = call.arrays.get(name)
        if given is not None and given.ndim == 2:
            counts &= (given > 0 if name == "mask" else given >= 0)[:, None]
    counts = counts & (np.arange(shape[1]) >= first_class(call))[:, None]
    for kept in (call.kept(-1, 1, 1), None if call["class_weight"] is None else call["class_weight"][:, None] != 0.0):
        counts = counts if kept is None else counts & kept
    whole = (*shape[:2], *call.dims["+"])
    for name in names:
        if call[name].ndim == 3:
            check.violation(name, call[name].reshape(whole), domain, counts=counts.reshape(whole))
