"""Elementwise losses at the far ends of their domains, in both precisions, against definitions at hundreds of digits.

Values and gradients of compiled kernels: zeros, subnormals, 1e-300 to 1e300, both sides of the ends of domains.
"""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from definitions import DEFINITIONS, value_and_slopes
from sampling import domains, inside, numbers, variants

import fastloss as fl
from fastloss.spec.record import SIGNS, Interval

DIGITS = {np.float32: 130, np.float64: 700}
"""Digits at which a definition keeps the smallest term beside the largest."""
POINTS = 40
SLOW = {"negative_binomial_nll": 12, "poisson": 12}
"""Points of a loss, fewer where gamma functions of hundreds of digits take long."""
ROUNDINGS = 8
"""Rounding errors in an input whose effect a result may show: a computed residual or logarithm has some."""
ULPS = 16


def sizes(dtype):
    """Magnitudes from the smallest to a millionth of the largest and beyond what overflows in a square."""
    info = np.finfo(dtype)
    found = [0, info.smallest_subnormal, info.tiny, 1e-30, 1e-15, 1e-7, 1e-3, 0.3, 1, 1 + float(info.eps)]
    found += [2, 10, 30, 88, 1e3, 1e5, 1e15, 1e19, 1e30]
    return np.array(found + [1e-300, 1e-100, 709, 745, 1e100, 1e200, 1e300] * (dtype is np.float64), dtype)


def ends(domain, dtype):
    """Numbers of a domain: 0, its ends and what lies at every distance from them."""
    if domain == SIGNS:
        return np.array([-1, 1], dtype)
    around = [e + s * sizes(dtype) for e in (domain.low, domain.high, 0.0) if math.isfinite(e) for s in (1, -1)]
    return np.unique(inside(Interval(*domain), np.concatenate(around)))


def points(record, variant, dtype):
    """Columns of inputs: every combination, or some that are drawn."""
    rng = np.random.default_rng(1)
    columns = [ends(d, dtype) for d in domains(record, variant)]
    if record.target is not None:
        goals = ends(record.target_domain, dtype)
        # A likelihood of counts cancels to nothing at a count of 1e-30, which is none.
        columns.append(goals[goals == np.round(goals)] if record.name == "negative_binomial_nll" else goals)
    count = SLOW.get(record.name, POINTS)
    if math.prod(map(len, columns)) > count:
        return [rng.choice(c, count) for c in columns]
    return list(np.array(list(itertools.product(*columns)), dtype).T.copy())


class Oracle:
    """A definition at the numbers of one kernel call, and how far a result of one precision may lie from it."""

    def __init__(self, name, count, parameters, dtype):
        self.name, self.count, self.parameters = name, count, parameters
        info = np.finfo(dtype)
        self.eps, self.tiny, self.most = float(info.eps), float(info.tiny), float(info.max)
        self.least = float(info.smallest_subnormal)

    def exact(self, row):
        found, slopes = value_and_slopes(self.name, row[: self.count], row[self.count :])
        return [found, *slopes]

    def moved(self, row, which, exact):
        """What some rounding errors in an input or a parameter change in one result."""
        most = mp.mpf(0)
        for j, x in enumerate(row):
            step = ROUNDINGS * self.eps * abs(x)
            step = max(step, 2 * self.least) if j < len(row) - len(self.parameters) else step
            for s in (step, -step):
                try:
                    near = self.exact([*row[:j], x + s, *row[j + 1 :]])[which]
                except (ValueError, ZeroDivisionError):
                    continue
                most = max(most, abs(mp.re(near) - exact))
        return most

    def right(self, got, row, which, exact):
        """Whether a result is near the exact one, or infinite where that overflows."""
        if abs(exact) > self.most * (1 - 1e-5) and math.isinf(got):
            return (got > 0) == (exact > 0)
        if not math.isfinite(got):
            return False
        error = abs(mp.mpf(got) - exact)
        allowed = ULPS * self.eps * abs(exact) + 4 * self.tiny
        return error <= allowed or error <= allowed + self.moved(row, which, exact)


def test_every_elementwise_loss_is_defined():
    assert set(DEFINITIONS) == {name for name, loss in fl.LOSSES.items() if loss.record.family == "elementwise"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_values_and_gradients_at_the_ends(name, dtype):
    loss = fl.LOSSES[name]
    record = loss.record
    count = len(record.predictions)
    for variant in variants(record)[:2]:
        data = points(record, variant, dtype)
        prediction = tuple(data[:count]) if count > 1 else data[0]
        target = data[count] if record.target is not None else None
        values, grads = loss.value_and_grad(prediction, target, reduction="none", **variant)
        found = [values, *(grads if count > 1 else [grads])]
        with mp.workdps(DIGITS[dtype]):
            parameters = [mp.mpf(float(dtype(p))) for p in numbers(record, variant)]
            if name == "log_loss":
                parameters = [mp.mpf(float(np.finfo(dtype).eps))]
            oracle = Oracle(name, count, parameters, dtype)
            for i in range(data[0].size):
                row = [*(mp.mpf(float(c[i])) for c in data), *parameters]
                for which, (got, exact) in enumerate(zip([float(x[i]) for x in found], oracle.exact(row), strict=True)):
                    case = [float(c[i]) for c in data], variant, which
                    assert oracle.right(got, row, which, exact), (*case, got, mp.nstr(exact, 12))
