"""Inputs of elementwise losses, and the exact results that bound their rounding errors."""

import mpmath as mp
import numpy as np
import pytest
from numba import config
from oracles import MP_WORDS, carry, mp_number
from sampling import flat, numbers, sample

import fastloss as fl

LOSSES = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "elementwise"}
DTYPES = [np.float32, np.float64]
each_loss = pytest.mark.parametrize("name", LOSSES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
# Without the compiler a kernel takes 50 us an element.
FEW = config.DISABLE_JIT


def draw(name, n, dtype, seed=1, **variant):
    """(prediction as the loss takes it, target)."""
    record = LOSSES[name].record
    predictions, target = sample(record, n, np.random.default_rng(seed), dtype, **variant)
    return (predictions if len(predictions) > 1 else predictions[0]), target


def columns(prediction, target):
    return [*flat(prediction), *(() if target is None else (target,))]


def per_element(loss, prediction, target):
    """Value, gradients, curvatures and surrogate curvatures per element, in the order in which the formula has them."""
    values, grads = loss.value_and_grad(prediction, target, reduction="none")
    found = [values, *flat(grads)]
    if loss.record.second:
        found += flat(loss.grad_and_hess(prediction, target)[1])
    if loss.record.surrogate:
        found += flat(loss.grad_and_hess(prediction, target, curvature="surrogate")[1])
    return found


# A value or a gradient is within 4 ulp of the exact one, a curvature (a product of more factors) within 8; or else
# within 8 times what one rounding error in the residual, or in any other input or parameter, changes in the exact one.
ULPS, CURVATURE_ULPS, CONDITION = 4, 8, 8
# Differences of terms of size s have an absolute error of some eps * s, whatever is left of them.
CANCELS = {
    "gamma": lambda z, t, full: 2 if full else 0,
    "tweedie": lambda z, t, *p: abs(z) + 4 * (t + 1),
    "negative_binomial_nll": lambda m, r, t: 16 + abs(mp.log(r)) + abs(mp.log(m)),
    "crps_gaussian": lambda m, s, t: 1,
    "evidential_regression": lambda g, n, a, b, t, lam: 8 + abs(mp.log(b)) + abs(mp.log(n)),
}
# exp(x) of a computed x magnifies the relative error of x by |x|.
EXPONENTS = {"barron": lambda z, t, alpha, c: abs(alpha / 2 - 1) * mp.log1p(((z - t) / c) ** 2) if alpha > -1e9 else 0}


class Oracle:
    """The formula at fifty digits, and how far a result of one precision may lie from it."""

    def __init__(self, record, dtype, variant):
        info = np.finfo(dtype)
        self.record, self.dtype = record, dtype
        self.eps, self.tiny, self.huge = (mp.mpf(float(x)) for x in (info.eps, info.tiny, info.max))
        self.least = mp.mpf(float(info.smallest_subnormal))
        self.words = {"epsilon": lambda x: self.eps, "largest": lambda x: self.huge}
        self.function = carry(record.function, mp_number, MP_WORDS | self.words)
        self.parameters = [mp.mpf(float(dtype(p))) for p in numbers(record, variant)]
        self.flags = [p.flag for p in record.parameters.values()]

    def exact(self, row):
        return [mp.mpf(x) for part in self.function(*row, *self.parameters)[:4] for x in flat(part)]

    def ulp(self, x):
        x = abs(x)
        return mp.mpf(2) ** mp.floor(mp.log(x, 2)) * self.eps if x >= self.tiny else self.least

    def condition(self, row, exact):
        """What a relative change of eps in an input, or in the residual, changes in each result."""
        residual = self.record.link == "identity" and self.record.target
        data = [*row, *self.parameters]
        moved = [mp.mpf(0)] * len(exact)
        for j, x in enumerate(data):
            if not mp.isfinite(x) or (j >= len(row) and self.flags[j - len(row)]):
                continue
            for step in (self.eps, -self.eps):
                near = list(data)
                if j == 0 and residual:
                    near[0] = row[-1] + (x - row[-1]) * (1 + step)
                elif j == len(row) - 1 and residual:
                    near[j] = x * (1 + step)
                    near[0] = near[j] + (row[0] - x)
                else:
                    near[j] = x * (1 + step)
                if near == data:
                    continue
                try:
                    out = [mp.mpf(v) for part in self.function(*near)[:4] for v in flat(part)]
                except (ValueError, ZeroDivisionError):
                    continue
                for k, (a, b) in enumerate(zip(out, exact, strict=True)):
                    if mp.isfinite(a) and mp.isfinite(b):
                        moved[k] = max(moved[k], abs(a - b))
        return moved

    def check(self, results, rows):
        """Raise for the first result that is too far from the exact one."""
        name, second = self.record.name, 1 + len(self.record.predictions)
        for i, row in enumerate(rows):
            row = [mp.mpf(float(x)) for x in row]
            exact = self.exact(row)
            condition = None
            for k, (result, e) in enumerate(zip(results, exact, strict=False)):
                got = mp.mpf(float(result[i]))
                told = (name, self.dtype.__name__, k, [float(x) for x in row], float(got), float(e))
                if mp.isnan(e):
                    assert mp.isnan(got), told
                    continue
                if abs(e) > self.huge:
                    assert got == mp.sign(e) * mp.inf, told
                    continue
                assert mp.isfinite(got), told
                ulps = ULPS if k < second else CURVATURE_ULPS
                ulps += 2 * EXPONENTS.get(name, lambda *a: 0)(*row, *self.parameters)
                # An intermediate result below the normal range loses digits, whatever it is multiplied by later.
                allowed = ulps * self.ulp(e) + self.tiny
                if abs(got - e) <= allowed:
                    continue
                condition = condition or self.condition(row, exact)
                cancelled = self.eps * CANCELS.get(name, lambda *a: 0)(*row, *self.parameters)
                allowed += CONDITION * condition[k] + cancelled
                assert abs(got - e) <= allowed, (*told, float(abs(got - e) / self.ulp(e)), float(allowed / self.ulp(e)))


def rows_of(prediction, target):
    return list(zip(*columns(prediction, target), strict=True))
