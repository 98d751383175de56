"""Short way of small calls of sums of several loops: two NumPy arrays, and no option."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...call.arrays import F32, F64
from .gradients import FEW, add_product, scaled_sum
from .routes import Route

__all__ = ["quick"]

Quick = Callable[[Any, Any], "tuple[Any, Any] | None"]


def quick(routes: Sequence[Route], axis: int, reduction: Any) -> Quick | None:
    """Return the function of a prediction and a target that returns the sum and its gradient; None where there is none.

    The function returns None for the calls that it leaves to the general way, whose errors name the arguments.
    """
    if not isinstance(reduction, str) or reduction == "none" or any(not r.target for r in routes):
        return None
    axes = {"axis": axis} if axis != -1 else {}
    calls = []
    for r in routes:
        fixed = {"reduction": reduction, **(axes if r.record.family == "rows" else {})}
        calls.append((r.loss.value_and_grad, fixed, r.target if r.record.family == "arrays" else ""))
    weights = [r.weight for r in routes]

    def run(prediction: Any, target: Any) -> "tuple[Any, Any] | None":
        p, t = prediction, target
        is_plain = type(p) is type(t) is np.ndarray and (p.dtype is F32 or p.dtype is F64) and p.size < FEW
        if not (is_plain and p.flags.c_contiguous and t.flags.c_contiguous):
            return None
        values, total, first = [], None, 1.0
        try:
            for (call, fixed, name), weight in zip(calls, weights, strict=True):
                value, grad = call(p, **{name: t}, **fixed) if name else call(p, t, **fixed)
                values.append(value)
                if total is None:
                    total, first = grad, weight
                else:
                    add_product(total, first, grad, weight)
                    first = 1.0
        except (TypeError, ValueError):
            return None
        if total is not None and first != 1.0:
            total *= total.dtype.type(first)
        return scaled_sum(weights, values), total

    return run
