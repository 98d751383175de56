"""Logits that are capped before a softmax: cap tanh(z / cap), with the derivatives carried back through it."""

from typing import Any

import numpy as np

from ..call.arrays import compute_dtype, finish, outgoing, outputs, predicted, rounded
from ..call.request import Request
from ..cuda import placement
from ..cuda.libraries import on_device

__all__ = ["capped"]


def capped(loss: Any, request: Request) -> tuple[Any, Any, Any]:
    """Serve a call of a loss with a cap: the loss of the capped logits, by a pass of its own."""
    arrays = (request.prediction, request.target, request.weight, request.class_weight)
    if any(on_device(x) for x in arrays if x is not None):
        moved: tuple[Any, Any, Any] = placement.on_host(loss._run, request)
        return moved
    cap, plain = loss.defaults["softcap"], loss._with({"softcap": None})
    p = predicted(request.prediction, "prediction")
    z = p.astype(compute_dtype(p, "prediction"), copy=False) / z_type(p, cap)
    inner = np.tanh(z) * z_type(p, cap)
    value, first, extra = plain._run(request._replace(prediction=inner, out=None))
    back = outgoing(request.prediction)
    if isinstance(value, np.ndarray) and request.orders < 2:
        value = rounded(value, p.dtype)
        value = value if back is None else back(value)
    if not request.orders:
        return value, None, extra
    # 1 - tanh^2 from the exponential: the difference has no digits where tanh is nearly 1.
    e = np.exp(-2.0 * np.abs(z))
    slope = 4.0 * e / np.square(1.0 + e)
    outs = outputs(request.out, request.orders, (p,), (request.target, request.weight, request.class_weight))
    grad = value if request.orders == 2 else first
    outs[0][0][...] = rounded(grad * slope, p.dtype)
    if request.orders == 2:
        bend = -2.0 * np.tanh(z) * slope / cap
        outs[1][0][...] = rounded(first * np.square(slope) + grad * bend, p.dtype)
        found = finish(outs, request.out, back)
        return found[0], found[1], None
    return value, finish(outs, request.out, back)[0], extra


def z_type(p: Any, cap: float) -> Any:
    """Return a number in the dtype in which the loss of a prediction is computed."""
    return compute_dtype(p, "prediction").type(cap)
