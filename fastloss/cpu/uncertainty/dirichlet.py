"""Divergence of Dirichlet distributions: a function of each concentration, less that of their sum."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..runtime.slots import unbound
from ..runtime.units import factor_of, kernel

__all__ = ["run"]


class Slots(NamedTuple):
    """Functions and settings that the template reads."""

    formula: Callable[..., Any]
    """Formula of one concentration and the other's, in float64."""
    has_prior: bool
    """Whether the other concentrations are given; they are 1 otherwise."""
    slopes: int
    """Number of inputs whose derivatives are written."""


use = unbound(Slots)


def rows(lo, hi, alpha, prior, factors, values, by_alpha, by_prior):
    """Divergence of some rows, and its derivatives."""
    for i in range(lo, hi):
        a = alpha[i]
        total, other, value = 0.0, 0.0, 0.0
        for j in range(a.size):
            x, y = np.float64(a[j]), np.float64(prior[i, j]) if use.has_prior else 1.0
            total += x
            other += y
            # In float64: differences of log gammas cancel.
            value += use.formula(x, y)[0]
        # The sums first: each derivative needs that of the whole.
        whole = use.formula(total, other)
        values[i] = value - whole[0]
        factor = factor_of(factors, i)
        for j in range(a.size if use.slopes > 0 else 0):
            x, y = np.float64(a[j]), np.float64(prior[i, j]) if use.has_prior else 1.0
            own = use.formula(x, y)[1]
            # A row that does not count may hold anything.
            by_alpha[i, j] = factor * (own[0] - whole[1][0]) if factor != 0.0 else 0.0
            # A constant of the kernel: without a prior its branch is compiled away.
            if use.slopes > 1:
                by_prior[i, j] = factor * (own[1] - whole[1][1]) if factor != 0.0 else 0.0


def run(call: Any) -> None:
    """Evaluate every row, in float64: the terms cancel."""
    alpha, prior, grads = call["alpha"], call["prior"], list(call.grads.values())
    flags = (("has_prior", prior is not None), ("slopes", len(grads)))
    none = np.empty((0, 0), alpha.dtype)
    outs = [*grads, none, none][:2]
    found = kernel(rows, "kl_dirichlet", "float64", call.record.function, (), flags)
    factors = call.factors() if grads else np.ones(1)
    found(call.units, 100.0 * alpha.size, alpha, none if prior is None else prior, factors, call.values, *outs)
