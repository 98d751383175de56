"""Maximum mean discrepancy: means of Gaussians over the pairs within each cloud and between both."""

from typing import Any

import numpy as np

from ...call.errors import CallValueError
from .clouds import drawn

__all__ = ["run"]


def _rates(call: Any) -> Any:
    """1 / (2 sigma^2) of each bandwidth."""
    sigmas = call["bandwidths"]
    sigmas = np.array([call.parameters["sigma"]]) if sigmas is None else sigmas.astype(np.float64)
    return 0.5 / sigmas**2


def run(call: Any) -> None:
    """Evaluate the discrepancy of two clouds."""
    x, y = call["x"], call["y"]
    unbiased = call.parameters["unbiased"]
    for k, a in (("x", x), ("y", y)):
        if unbiased and len(a) == 1:
            raise CallValueError("has one point; unbiased=True needs at least two", k)
    rates = _rates(call)
    of = {k: np.ascontiguousarray(call[k].T) for k in ("x", "y")}
    factor = call.factors()[0] if call.grads else 0.0
    total = 0.0
    for k, other in (("x", "y"), ("y", "x")):
        a, n, m = call[k], len(call[k]), len(call[other])
        # In float64: the square of 100,000 points is more than 32 bits hold.
        within = 1.0 / (n * (n - 1.0 if unbiased else n))
        room = np.zeros((2, *a.shape)) if call.grads else np.empty((2, 0, 0))
        offsets = np.zeros(1), np.zeros(max(n, m))
        # Value and gradient from one pass over the pairs: exponentials are nearly all of the work.
        own = drawn(call.name, a, of[k], *offsets, rates, room[0], without=unbiased)
        total += own.sum() * within
        if k == "x" or call.grads:
            cross = drawn(call.name, a, of[other], *offsets, rates, room[1])
            total -= 2.0 * cross.sum() / (n * m) if k == "x" else 0.0
        if call.grads:
            # A pair within a cloud comes from either of its points, and each Gaussian has the factor 2 of its square.
            slope = room[0] * (4.0 * within) - room[1] * (4.0 / (n * m))
            call.grads[k][...] = slope * factor if factor != 0.0 else 0.0
    call.values[0] = total
