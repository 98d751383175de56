"""Compiled elementwise kernels at extremes: huge and tiny numbers, NaN, infinity and saturation."""

import math

import mpmath as mp
import numpy as np
import pytest
from kernel_cases import (
    DTYPES,
    FEW,
    LOSSES,
    Oracle,
    columns,
    draw,
    each_dtype,
    each_loss,
    per_element,
    rows_of,
)
from sampling import flat

import fastloss as fl
from fastloss.spec.record import POSITIVE, SIGNS


def extremes(domain, dtype):
    """Numbers of a domain where a formula may break: its ends, subnormals, +-1e4."""
    if domain == SIGNS:
        return [-1.0, 1.0]
    info = np.finfo(dtype)
    small = [float(info.smallest_subnormal), float(info.tiny), 1e-10]
    eps = float(info.eps)
    candidates = [0.0, *small, *(-x for x in small), -1.0, 1.0, eps, 1 - eps / 2, 0.5, -1e4, 1e4, -104.0, 88.0]
    return [x for x in candidates if not domain.outside(dtype(x))]


def combinations(record, dtype, most=80):
    """Extreme rows, all of them where they are few."""
    domains = [*record.prediction_domains, *([record.target_domain] if record.target else [])]
    names = [*record.predictions, *([record.target] if record.target else [])]
    domains = [POSITIVE if n == "var" else d for n, d in zip(names, domains, strict=True)]
    axes = [extremes(d, dtype) for d in domains]
    if len(record.predictions) > 1:
        # Scales whose inverse squares the smaller type still holds.
        axes = [
            [x for x in a if getattr(d, "low", -1.0) != 0.0 or abs(x) >= 1e-10]
            for a, d in zip(axes, domains, strict=True)
        ]
    if record.link == "log":
        # A mean that is a normal number.
        axes[0] = [z for z in axes[0] if abs(z) < 87.0 or (z < 0.0 and record.name != "gamma")]
    rows = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
    if len(rows) > most:
        rows = rows[np.random.default_rng(10).permutation(len(rows))[:most]]
    found = [np.ascontiguousarray(c, dtype) for c in rows.T]
    return found[: len(record.predictions)], found[-1] if record.target else None


@each_dtype
@each_loss
def test_extremes(name, dtype):
    """Finite, and right, where the mathematics is finite; infinite where it leaves the type."""
    loss = LOSSES[name]
    predictions, target = combinations(loss.record, dtype, 10 if FEW else 80)
    prediction = tuple(predictions) if len(predictions) > 1 else predictions[0]
    results = per_element(loss, prediction, target)
    Oracle(loss.record, dtype, {}).check(results, rows_of(prediction, target))


@each_dtype
@each_loss
def test_nan_comes_through(name, dtype):
    loss = LOSSES[name]
    prediction, target = draw(name, 8, dtype, seed=11)
    for i, x in enumerate(columns(prediction, target)):
        changed = [c.copy() for c in columns(prediction, target)]
        changed[i][3] = np.nan
        count = len(loss.record.predictions)
        again = tuple(changed[:count]) if count > 1 else changed[0]
        goal = None if target is None else changed[-1]
        values, grads = loss.value_and_grad(again, goal, reduction="none")
        assert np.isnan(values[3])
        assert not np.isnan(np.delete(values, 3)).any()
        if i < count and name != "l1":
            assert np.isnan(flat(grads)[i][3]), x
        assert math.isnan(loss.value_and_grad(again, goal)[0])


@each_dtype
@each_loss
def test_infinite_predictions_give_no_wrong_number(name, dtype):
    """At an infinite prediction: the limit of the value, or NaN where infinity meets infinity or 0."""
    loss = LOSSES[name]
    record = loss.record
    prediction, target = draw(name, 40, dtype, seed=12)
    count = len(record.predictions)
    for end in (math.inf, -math.inf):
        if record.prediction_domains[0].outside(dtype(end)) or record.prediction_domains[0].high < end:
            continue
        z = np.full(40, end, dtype)
        values, grads = loss.value_and_grad((z, *prediction[1:]) if count > 1 else z, target, reduction="none")
        far = Oracle(record, dtype, {})
        for i, row in enumerate(rows_of(prediction, target)):
            rest = [mp.mpf(float(x)) for x in row[1:]]
            near, exact = (far.exact([mp.sign(end) * mp.mpf(10) ** n, *rest]) for n in (400, 4000))
            for got, n, e in ((values[i], near[0], exact[0]), (flat(grads)[0][i], near[1], exact[1])):
                grows = abs(e) > far.huge or abs(e) > 2 * abs(n)
                limit = float(mp.sign(e) * mp.inf if grows else e)
                assert np.isnan(got) or got == pytest.approx(limit, rel=1e-5, abs=1e-30), (row, got, limit)


@pytest.mark.parametrize("z", [-50.0, -1e4, 50.0, 1e4])
def test_saturated_logits(z):
    """A sigmoid and then its logarithm lose these gradients; from logits every digit stays."""
    for dtype in DTYPES:
        x = np.array([z], dtype)
        for t in (0.0, 1.0):
            value, grad = fl.bce_with_logits.value_and_grad(x, np.array([t], dtype))
            # log(1 + exp(y)) and its derivative in z, for y = -z or z.
            y = mp.mpf(z) * (1 if t == 0.0 else -1)
            wrong = 1 / (1 + mp.exp(-y))
            floor = float(np.finfo(dtype).tiny)
            assert value == pytest.approx(float(mp.log1p(mp.exp(y))), rel=3 * float(np.finfo(dtype).eps), abs=floor)
            assert grad[0] == pytest.approx(float(wrong if t == 0.0 else -wrong), rel=4e-7, abs=floor)
