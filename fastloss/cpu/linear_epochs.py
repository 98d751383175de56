"""Epochs of stochastic solvers of linear models: every batch of shuffled rows, and its step, in compiled code.

A batch is gathered into a buffer, goes through the products and the loss's kernel as in a pass over X, and its gradient
through the update rule. A step of a batch from Python takes 30 us, more than the batch.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..call.arrays import NAMES, flat
from . import dispatch
from .linear import block_functions
from .linear_products import LANES
from .runtime.intrinsics import array, call
from .runtime.slots import unbound
from .runtime.specialize import INNER, compile_driver, inner

__all__ = ["RULES", "epoch"]

RULES = ("descent", "adam", "rmsprop", "adagrad")
"""Update rules, in the order of their numbers."""


class Lanes(NamedTuple):
    """Constant that the coefficients are placed by."""

    V: int
    """Lanes of a vector."""


class Steps(NamedTuple):
    """Constants and functions that an epoch reads."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    V: int
    """Lanes of a vector."""
    product: Callable[..., None]
    """X w + b for a batch."""
    sums: Callable[..., None]
    """X^T r for a batch."""
    place: Callable[..., None]
    """Coefficients of the data from those that the solver moves."""
    update: Callable[..., None]
    """Step of the coefficients by their gradient."""


use: Any = unbound(Lanes, Steps)


def update(rule, u, g, first, second, numbers):
    """Move the coefficients by their gradient; the numbers are the rate, two factors, epsilon, and the steps so far."""
    rate, a, b, eps = numbers[0], numbers[1], numbers[2], numbers[3]
    numbers[4] += 1.0
    one, two = 1.0 - a ** numbers[4], 1.0 - b ** numbers[4]
    for j in range(u.size):
        if rule == 0:
            first[j] = a * first[j] + g[j]
            u[j] -= rate * (g[j] + a * first[j])
        elif rule == 1:
            first[j] = a * first[j] + (1.0 - a) * g[j]
            second[j] = b * second[j] + (1.0 - b) * g[j] * g[j]
            u[j] -= rate * (first[j] / one) / (np.sqrt(second[j] / two) + eps)
        elif rule == 2:
            second[j] = b * second[j] + (1.0 - b) * g[j] * g[j]
            u[j] -= rate * g[j] / (np.sqrt(second[j]) + eps)
        else:
            second[j] += g[j] * g[j]
            u[j] -= rate * g[j] / (np.sqrt(second[j]) + eps)


def place(u, scaling, intercept, w, padded):
    """Write the coefficients of the data, whole and in vectors, from those that the solver moves."""
    d, V = w.size - 1, use.V
    whole, shift = d // V * V, 0.0
    for j in range(d):
        value = u[j] / scaling[1, j]
        w[j] = value
        shift += value * scaling[0, j]
    w[d] = (u[d] - shift) * intercept
    for j in range(whole):
        padded[j] = w[j]
    for j in range(whole, d):
        padded[whole + j - (d - V if d >= V else 0)] = w[j]


def run_epoch(address, arrays, params, d, batch, rule, state, numbers, scaling, parallel):
    """Take one step for each batch of rows in the given order; all but the rows' own arrays are changed in place.

    `state` holds the coefficients that the solver moves and two states of the rule, (3, outputs (d + 1)); `scaling` the
    mean and the spread of each column and the thresholds of an L1 penalty; `numbers` ends with the L2 penalty and
    whether there is an intercept.
    """
    x, target, weight, order, w, padded = arrays
    T, V = use.T, use.V
    k, m = w.shape[0], d + 1
    # Zeros: with fewer columns than lanes, the last row's vector reaches beyond it, and a coefficient of 0 makes NaN of
    # a NaN that memory holds there.
    rows = np.zeros(batch * d + V, T)
    z, r, t = np.empty(batch * k, T), np.empty(batch * k, T), np.empty(batch * k, T)
    weights = np.empty(batch * k if weight.size > 0 else 0, T)
    one, g = np.empty(batch, T), np.empty((d + V - 1) // V * V, T)
    grad, flat_grad, own = np.empty((k, m)), np.empty(k * m), np.zeros(2)
    u, l2, intercept = state[0], numbers[5], numbers[6]
    n = order.size
    for lo in range(0, n, batch):
        count = min(batch, n - lo)
        mass = float(count * k)
        for i in range(count):
            a = order[lo + i]
            # Slices keep the copy vectorised.
            source, copied = x[a * d : a * d + d], rows[i * d : i * d + d]
            for j in range(d):
                copied[j] = source[j]
            for c in range(k):
                t[i * k + c] = target[a * k + c]
        if weight.size > 0:
            mass = 0.0
            for i in range(count):
                for c in range(k):
                    weights[i * k + c] = weight[order[lo + i] * k + c]
                    mass += np.float64(weights[i * k + c])
            if mass == 0.0:
                continue
        for c in range(k):
            use.place(u[c * m : c * m + m], scaling, intercept, w[c], padded[c])
            use.product(rows, 0, count, d, w[c], padded[c], one)
            for i in range(count):
                z[i * k + c] = one[i]
        size = count * k
        wb = weights[: size if weight.size > 0 else 0]
        none = z[:0]
        call(address, ((z[:size],), t[:size], wb, none, (r[:size],), (none,), 1.0, params, False, own))
        grad[:] = 0.0
        for c in range(k):
            for i in range(count):
                one[i] = r[i * k + c]
            use.sums(rows, 0, count, d, one, g, grad[c], 0, 0)
            for j in range(d):
                slope = grad[c, j] / mass + l2 * np.float64(w[c, j]) - scaling[0, j] * grad[c, d] / mass
                flat_grad[c * m + j] = slope / scaling[1, j]
            flat_grad[c * m + d] = intercept * grad[c, d] / mass
        use.update(rule, u, flat_grad, state[1], state[2], numbers)
        if numbers[7] > 0.0:
            for i in range(u.size):
                limit = scaling[2, i % m] * numbers[0]
                u[i] = u[i] - limit if u[i] > limit else (u[i] + limit if u[i] < -limit else 0.0)


@cache
def _driver(dtype: str) -> Any:
    blocks = block_functions(dtype)
    steps = Steps(
        blocks.T, blocks.V, blocks.product, blocks.sums, inner(place, INNER, Lanes(blocks.V)), inner(update, INNER)
    )
    one, two = array(dtype), array(dtype, 2)
    arrays = types.Tuple((one, one, one, array("int64"), two, two))
    doubles, squares = array("float64"), array("float64", 2)
    sizes = (types.intp, types.intp, types.intp)
    signature = types.void(types.intp, arrays, doubles, *sizes, squares, doubles, squares, types.boolean)
    with dispatch.compiling:
        return compile_driver(run_epoch, f"epoch_{dtype}", signature, steps)


def epoch(loss: Any, x: Any, target: Any, weight: Any, scaling: Any) -> Callable[..., None]:
    """Return the function of (order, batch, rule, state, numbers) that takes the steps of one epoch.

    The loss is elementwise; the other arrays are those of `run_epoch`.
    """
    dtype, none, (n, d) = NAMES[x.dtype], np.empty(0, x.dtype), x.shape
    target, weight = flat(target, x.dtype), none if weight is None else flat(weight, x.dtype)
    k, lanes, rows = max(1, target.size // n), LANES[dtype], flat(x, x.dtype)
    address = dispatch.elementwise(loss._compiled, dtype, "grad", weight.size > 0, usual=loss._usual)[0]
    w, padded = np.zeros((k, d + 1), x.dtype), np.zeros((k, -(-d // lanes) * lanes), x.dtype)

    def run(order: Any, batch: int, rule: str, state: Any, numbers: Any) -> None:
        arrays = (rows, target, weight, order, w, padded)
        fixed = (loss._packed, d, min(batch, n), RULES.index(rule))
        with np.errstate(all="ignore"):
            _driver(dtype)(address, arrays, *fixed, state, numbers, scaling, False)

    return run
