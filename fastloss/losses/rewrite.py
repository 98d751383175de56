"""Calls of elementwise losses with labels 0 and 1, or an array as a parameter, written as calls of a plain loss."""

from typing import Any

import numpy as np

from ..call import check
from ..call.arrays import finish, incoming, outgoing, outputs, rounded, weights
from ..call.errors import CallValueError
from ..call.reduction import denominator, reduction_of
from ..call.request import Request
from ..cuda import placement
from ..cuda.libraries import on_device
from ..spec.record import BITS
from .risks.base import Risk

__all__ = ["rewritten"]

F64 = np.dtype(np.float64)


def rewritten(loss: Any, request: Request) -> tuple[Any, Any]:
    """Serve a call of a loss whose targets are 0 and 1 in place of -1 and +1, or whose parameters are arrays."""
    if loss.record.target_domain is BITS:
        plain = loss._with({"labels": "signs"})
        found: tuple[Any, Any] = plain._run_any(request._replace(target=_signs(request.target)))
        return found
    if isinstance(request.reduction, Risk):
        found = loss._under_risk(request)
        return found
    arrays = (request.prediction, request.target, request.weight)
    if any(map(on_device, (x for x in arrays if x is not None))):
        found = placement.on_host(lambda moved: _spread(loss, moved), request)
        return found
    return _spread(loss, request)


def _signs(target: Any) -> Any:
    """Return targets 0 and 1 as -1 and +1; those on a GPU are checked by the kernel, as -1 and +1."""
    if on_device(target):
        return 2.0 * target - 1.0
    t = incoming(target, "target")
    check.violation("target", t, BITS)
    kind = t.dtype if t.dtype.kind == "f" else F64
    return 2.0 * t.astype(kind) - 1.0


def _spread(loss: Any, request: Request) -> tuple[Any, Any]:
    """Serve a call with a factor of positives for each element: they become weights of each element.

    Labels between 0 and 1 take a pass for their positive part and one for the rest: one pass would have to form the
    rest from the sum of both, without its digits.
    """
    record, weight = loss.record, request.weight
    name = next(k for k, v in loss.defaults.items() if type(v) is tuple)
    reduction = reduction_of(record, request.reduction)
    (p,) = loss._predictions(request.prediction)
    check.target_given(record, request.target)
    t = incoming(request.target, "target")
    if t.ndim:
        check.same_shape("target", t.shape, p.shape)
    check.violation("target", t, record.target_domain)
    w = None if weight is None else weights(weight, p.shape, F64).reshape(p.shape)
    factors = _levels(name, loss.defaults[name], p.shape)
    divisor = denominator(reduction, request.divisor, p.size if w is None else float(w.sum()))
    t, w = np.broadcast_to(t.astype(F64), p.shape), np.ones(p.shape) if w is None else w
    how = request._replace(reduction=reduction, divisor=None if reduction == "none" else divisor or 1.0, out=None)
    how = how if reduction == "none" else how._replace(reduction="sum")
    results = []
    for plain, target, factor in _parts(loss, name, t, factors):
        results.append(plain._run_any(how._replace(prediction=p, target=target, weight=w * factor)))
    outs = outputs(request.out, request.orders, (p,), (request.target, weight))
    value, first = (sum(r[i] for r in results) if results[0][i] is not None else None for i in (0, 1))
    back = outgoing(request.prediction)
    if request.orders == 2:
        outs[0][0][...], outs[1][0][...] = rounded(value, p.dtype), rounded(first, p.dtype)
        return finish(outs, request.out, back)  # type: ignore[return-value]
    if outs:
        outs[0][0][...] = rounded(first, p.dtype)
    if isinstance(value, np.ndarray) and back is not None:
        value = back(value)
    return value, finish(outs, request.out, back)[0] if outs else None


def _levels(name: str, given: Any, shape: tuple[int, ...]) -> Any:
    """Return an array of a parameter, broadcast to the shape of the prediction."""
    levels = np.asarray(given, F64)
    try:
        return np.broadcast_to(levels, shape)
    except ValueError:
        problem = (
            f"has shape {levels.shape}; expected {shape}, the shape of the prediction, or one that broadcasts to it"
        )
        raise CallValueError(problem, name) from None


def _parts(loss: Any, name: str, t: Any, factors: Any) -> list[tuple[Any, Any, Any]]:
    """Return plain losses, their targets and weights, whose sum is the loss with a factor for each element."""
    if name == "alpha":
        return [(loss.bind(alpha=None), t, factors * t + (1.0 - factors) * (1.0 - t))]
    e = loss.defaults["label_smoothing"]
    soft = t - e * t + 0.5 * e
    plain = loss.bind(pos_weight=1.0, label_smoothing=0.0)
    if ((soft == 0.0) | (soft == 1.0)).all():
        return [(plain, soft, np.where(soft == 1.0, factors, 1.0))]
    return [(plain, np.float64(1.0), factors * soft), (plain, np.float64(0.0), 1.0 - soft)]
