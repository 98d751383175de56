"""Every elementwise loss through its compiled kernels, in both precisions and all modes.

Two oracles: the textbook in NumPy (fastloss.reference), and the formula itself at fifty digits on the very inputs and
parameters that the kernel had, which shows the rounding.
"""

import math

import mpmath as mp
import numpy as np
import pytest
from numba import config
from oracles import MP_WORDS, carry, mp_number
from sampling import numbers, sample, variants

import fastloss as fl
from fastloss import reference
from fastloss.formulas.record import POSITIVE, SIGNS

LOSSES = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "elementwise"}
DTYPES = [np.float32, np.float64]
MANY = [name for name, loss in LOSSES.items() if len(loss.record.predictions) > 1]
# Every weighted kernel is the same template with one more factor: one loss per shape of formula (polynomial, branches,
# exponentials, a penalty, margins, domain checks), and all that store several gradients. More would only add minutes.
WEIGHTED = ["mse", "huber", "elastic_net", "bce_with_logits", "bce", "hinge", *MANY]

each_loss = pytest.mark.parametrize("name", LOSSES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
weighted_loss = pytest.mark.parametrize("name", WEIGHTED)
# Without the compiler a kernel takes 50 us an element.
FEW = config.DISABLE_JIT


def flat(x):
    return x if isinstance(x, tuple) else (x,)


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


# Rounding ------------------------------------------------------------------------------------------------------------

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
        self.function = carry(record.function, mp_number, MP_WORDS | {"epsilon": lambda x: self.eps})
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


@each_dtype
@each_loss
def test_rounding(name, dtype):
    loss = LOSSES[name]
    for variant in variants(loss.record):
        prediction, target = draw(name, 4 if FEW else 100 if not variant else 60, dtype, **variant)
        results = per_element(loss.bind(**variant), prediction, target)
        assert all(x.dtype == dtype for x in results)
        Oracle(loss.record, dtype, variant).check(results, rows_of(prediction, target))


# The textbook itself cancels here: relative to the size of the terms that cancel.
TERMS = {
    "log_cosh": lambda z, t: 1e-3,
    "msle": lambda z, t: np.log1p(z) ** 2 + np.log1p(t) ** 2 + 1e-3,
    "fair": lambda z, t, c=1.0: c * np.abs(z - t) + 1e-3,
    "barron": lambda z, t, alpha=1.0, c=1.0: 1.0,
    "poisson": lambda z, t, full=0: np.exp(z) + np.abs(t * z) + t * np.log1p(t) + 1,
    "gamma": lambda z, t, full=0: np.abs(z) + t * np.exp(-z) + 1,
    "tweedie": lambda z, t, power=1.5, full=0: np.exp(2 * np.abs(z)) * (1 + t) * (1 + t * t),
    "gaussian_nll": lambda m, v, t, **p: 2.0 + np.abs(v),
    "laplace_nll": lambda m, s, t: 1.0,
    "student_t_nll": lambda m, s, t, df=4.0: 1.0 + df * math.log1p(df),
    "evidential_regression": lambda g, n, a, b, t, lam=0.01: (1 + a) * (10 + np.log1p(a) + np.abs(np.log(b)) + n),
    "negative_binomial_nll": lambda m, r, t: (r + t + 1) * (10 + np.log1p(r + t) + np.abs(np.log(m))),
    "asymmetric": lambda z, t, **p: 1e-3,
    "log_loss": lambda p, t: 40.0,
    "bce": lambda p, t, **q: 1.0,
    "welsch": lambda z, t, c=1.0: 1e-3,
    "margin_ranking": lambda a, b, t, margin=0.0: np.abs(a - b) + margin,
    "triplet_distance": lambda a, b, margin=1.0: np.abs(a - b) + margin,
}


@each_dtype
@each_loss
def test_value_is_that_of_the_textbook(name, dtype):
    """The textbook in float64 at the same inputs and, in their type, the same parameters."""
    if name == "log_loss" and dtype is np.float32:
        pytest.skip("its clipping depends on the type; test_rounding covers it")
    loss = LOSSES[name]
    rel = 1e-12 if dtype is np.float64 else 2e-5
    for variant in variants(loss.record):
        prediction, target = draw(name, 3 if FEW else 500, dtype, seed=2, **variant)
        data = [x.astype(np.float64) for x in columns(prediction, target)]
        given = {k: v if v is None or isinstance(v, bool) else float(dtype(v)) for k, v in variant.items()}
        given = {k: v for k, v in given.items() if k in loss.record.parameters}
        with np.errstate(all="ignore"):
            expected = getattr(reference, name)(*data, **given)
            terms = TERMS.get(name, lambda *a, **k: 0.0)(*data, **given)
        got = loss.value_and_grad(prediction, target, reduction="none", **variant)[0]
        allowed = rel * np.abs(expected) + 10 * np.finfo(dtype).eps * terms + 1e-37
        wrong = np.flatnonzero(~((np.abs(got - expected) <= allowed) | (got == expected)))
        assert wrong.size == 0, (variant, [x[wrong[0]] for x in data], got[wrong[0]], expected[wrong[0]])


# Reductions ----------------------------------------------------------------------------------------------------------


def close(got, expected, dtype, eps=4):
    np.testing.assert_allclose(got, expected, rtol=eps * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)


@each_dtype
@each_loss
def test_reductions(name, dtype):
    """All reductions are sums and multiples of what there is per element."""
    loss = LOSSES[name]
    n = 5 if FEW else 700
    prediction, target = draw(name, n, dtype, seed=3)
    values, grads = loss.value_and_grad(prediction, target, reduction="none")
    total = math.fsum(values.tolist())
    # A block's sum in lanes of float32 carries a few rounding errors of them, before it moves to float64.
    size = math.fsum(np.abs(values).tolist()) * (1e-6 if dtype is np.float32 else 1e-14)
    for reduction, divisor, scale in (
        ("sum", None, 1.0),
        ("mean", None, 1.0 / n),
        ("mean", 7.5, 1 / 7.5),
        ("sum", 7.5, 1 / 7.5),
    ):
        value, grad = loss.value_and_grad(prediction, target, reduction=reduction, divisor=divisor)
        assert type(value) is float
        assert value == pytest.approx(total * scale, abs=size * scale, rel=0)
        for g, per in zip(flat(grad), flat(grads), strict=True):
            assert g.dtype == dtype
            close(g, per * dtype(scale), dtype)
    default = loss.value_and_grad(prediction, target)[0]
    assert default == pytest.approx(total / (n if loss.record.reduction == "mean" else 1), abs=size, rel=0)


@each_loss
def test_value_alone(name):
    """Kernels of the value alone agree with those of value and gradient."""
    prediction, target = draw(name, 5 if FEW else 300, np.float32, seed=4)
    loss = LOSSES[name]
    value = loss(prediction, target, reduction="sum")
    assert type(value) is float
    values = loss.value_and_grad(prediction, target, reduction="none")[0]
    if name in WEIGHTED:
        close(loss(prediction, target, reduction="none"), values, np.float32)
    size = math.fsum(np.abs(values).tolist())
    assert value == pytest.approx(math.fsum(values.tolist()), abs=1e-6 * size, rel=0)


@each_dtype
@each_loss
def test_grad_and_hess_has_the_gradient(name, dtype):
    loss = LOSSES[name]
    prediction, target = draw(name, 5 if FEW else 60, dtype, seed=5)
    values = loss.value_and_grad(prediction, target, reduction="none")[0]
    for curvature in ("exact", "surrogate"):
        first, second = loss.grad_and_hess(prediction, target, curvature=curvature)
        # Not compared with value_and_grad: another kernel contracts other products and sums.
        Oracle(loss.record, dtype, {}).check([values, *flat(first)], rows_of(prediction, target))
        for h, p in zip(flat(second), flat(prediction), strict=True):
            assert h.dtype == dtype
            assert h.shape == p.shape
        if curvature == "surrogate" and loss.record.surrogate:
            assert all((h >= 0).all() for h in flat(second))


@each_dtype
@weighted_loss
def test_weights(name, dtype):
    loss = LOSSES[name]
    n = 6 if FEW else 600
    prediction, target = draw(name, n, dtype, seed=6)
    w = np.random.default_rng(7).gamma(1.0, size=n).astype(dtype)
    w[::5] = 0.0
    values, grads = loss.value_and_grad(prediction, target, reduction="none")
    mass = math.fsum(w.tolist())
    total = math.fsum((w.astype(np.float64) * values).tolist())
    size = math.fsum(np.abs(w * values).tolist()) * (1e-6 if dtype is np.float32 else 1e-14)
    weighted, first = loss.value_and_grad(prediction, target, weight=w, reduction="none")
    close(weighted, w * values, dtype)
    for reduction, divisor, scale in (("mean", None, 1 / mass), ("sum", None, 1.0), ("mean", 3.0, 1 / 3)):
        value, grad = loss.value_and_grad(prediction, target, weight=w, reduction=reduction, divisor=divisor)
        assert value == pytest.approx(total * scale, abs=size * scale, rel=0)
        for g, per in zip(flat(grad), flat(grads), strict=True):
            close(g, per * w * dtype(scale), dtype, 6)
    for g, per in zip(flat(first), flat(grads), strict=True):
        close(g, per * w, dtype)
    hess, weighted_hess = loss.grad_and_hess(prediction, target), loss.grad_and_hess(prediction, target, weight=w)
    for plain, times in zip(hess, weighted_hess, strict=True):
        for a, b in zip(flat(plain), flat(times), strict=True):
            close(b, a * w, dtype, 8)


def test_a_weight_broadcasts():
    rng = np.random.default_rng(8)
    z, t, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.random((4, 1))
    full = np.broadcast_to(w, z.shape)
    for a, b in zip(fl.mse.value_and_grad(z, t, weight=w), fl.mse.value_and_grad(z, t, weight=full), strict=True):
        assert np.array_equal(a, b)
    assert fl.mse(z, t, weight=2.5) == pytest.approx(fl.mse(z, t), rel=1e-15)
    assert fl.mse(z, t, weight=w) == pytest.approx(np.average((z - t) ** 2, weights=full), rel=1e-14)


# Outputs -------------------------------------------------------------------------------------------------------------


@each_loss
def test_out_is_written_and_returned(name):
    loss = LOSSES[name]
    prediction, target = draw(name, 5 if FEW else 100, np.float64, seed=9)
    many = type(prediction) is tuple
    copies = [x.copy() for x in columns(prediction, target)]

    def fresh():
        arrays = tuple(np.full_like(p, np.nan) for p in flat(prediction))
        return arrays if many else arrays[0]

    out = fresh()
    expected = loss.value_and_grad(prediction, target)
    value, grad = loss.value_and_grad(prediction, target, out=out)
    assert all(a is b for a, b in zip(flat(grad), flat(out), strict=True))
    assert value == expected[0]
    assert all(np.array_equal(a, b) for a, b in zip(flat(grad), flat(expected[1]), strict=True))
    pair = (fresh(), fresh())
    first, second = loss.grad_and_hess(prediction, target, out=pair)
    for got, given, wanted in zip((first, second), pair, loss.grad_and_hess(prediction, target), strict=True):
        assert all(a is b for a, b in zip(flat(got), flat(given), strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(flat(got), flat(wanted), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(copies, columns(prediction, target), strict=True))


# Extremes ------------------------------------------------------------------------------------------------------------


def extremes(domain, dtype):
    """Numbers of a domain where a formula may break: its ends, subnormals, +-1e4."""
    if domain == SIGNS:
        return [-1.0, 1.0]
    info = np.finfo(dtype)
    small = [float(info.smallest_subnormal), float(info.tiny), 1e-10]
    eps = float(info.eps)
    candidates = [0.0, *small, *(-x for x in small), -1.0, 1.0, eps, 1 - eps / 2, 0.5, -1e4, 1e4, -104.0, 88.0]
    return [x for x in candidates if not domain.outside(dtype(x))]


def combinations(record, dtype, most=150):
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
    predictions, target = combinations(loss.record, dtype, 10 if FEW else 150)
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


# The optimum ---------------------------------------------------------------------------------------------------------


def logit(t):
    return math.log(t) - math.log1p(-t)


# Where a loss of target t is least, for losses that are least elsewhere than at a prediction of t.
OPTIMUM = {
    "bce": lambda t: (t,),
    "log_loss": lambda t: (t,),
    "bce_with_logits": lambda t: (logit(t),),
    "poisson": lambda t: (math.log(t),),
    "gamma": lambda t: (math.log(t),),
    "tweedie": lambda t: (math.log(t),),
    "gaussian_nll": lambda t: (t - 0.5, 0.25),
    "crps_gaussian": lambda t: (t, 1.0),
    "negative_binomial_nll": lambda t: (t, 2.0),
    "student_t_nll": lambda t: (t, 1.0),
    "laplace_nll": lambda t: (t - 0.5, 0.5),
    "evidential_regression": lambda t: (t, 1.0, 2.0, 1.0),
}


@each_dtype
@pytest.mark.parametrize("name", [n for n, loss in LOSSES.items() if loss.record.minimum_at_target])
def test_no_gradient_and_no_loss_at_the_target(name, dtype):
    loss = LOSSES[name]
    for variant in variants(loss.record):
        t = draw(name, 5 if FEW else 200, dtype, seed=13, **variant)[1]
        values, grads = loss.bind(**variant).value_and_grad(t.copy(), t, reduction="none")
        assert not values.any()
        assert not grads.any()


@each_dtype
@pytest.mark.parametrize("name", OPTIMUM)
def test_no_gradient_at_the_optimum(name, dtype):
    """In the first prediction (in laplace_nll and gaussian_nll: in the scale) to a few rounding errors."""
    loss = LOSSES[name]
    t = np.array([0.9, 0.5, 0.2, 0.01], dtype)
    points = zip(*(OPTIMUM[name](float(x)) for x in t), strict=True)
    predictions = tuple(np.array(p, dtype) for p in points)
    single = len(predictions) == 1
    grads = flat(loss.value_and_grad(predictions[0] if single else predictions, t, reduction="none")[1])
    k = 1 if name in ("gaussian_nll", "laplace_nll") else 0
    assert np.abs(grads[k]).max() <= 8 * np.finfo(dtype).eps
    if name in ("crps_gaussian", "negative_binomial_nll", "student_t_nll", "evidential_regression"):
        assert not grads[0].any()


@pytest.mark.parametrize("name", ["hinge", "squared_hinge", "smooth_hinge", "modified_huber", "perceptron"])
def test_no_gradient_beyond_the_margin(name):
    z = np.array([5.0, -5.0, 1e4])
    value, grad = LOSSES[name].value_and_grad(z, np.sign(z))
    assert value == 0.0
    assert not grad.any()


# Nothing to average --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@each_dtype
@each_loss
def test_no_elements(name, dtype, reduction):
    loss = LOSSES[name]
    count = len(loss.record.predictions)
    for shape in ((0,), (0, 3), (2, 0)):
        x = np.empty(shape, dtype)
        value, grad = loss.value_and_grad(
            (x,) * count if count > 1 else x, None if loss.record.target is None else x, reduction=reduction
        )
        assert value == 0.0
        assert all(g.shape == shape and g.dtype == dtype for g in flat(grad))


@each_dtype
@weighted_loss
def test_no_weight(name, dtype):
    prediction, target = draw(name, 20, dtype, seed=14)
    value, grad = LOSSES[name].value_and_grad(prediction, target, weight=np.zeros(20, dtype), reduction="mean")
    assert value == 0.0
    assert not any(g.any() for g in flat(grad))


@each_dtype
@pytest.mark.parametrize("name", ["mse", "bce_with_logits", "gaussian_nll"])
def test_elements_of_no_weight_have_no_part(name, dtype):
    """Padding may hold anything, NaN and infinity too: its weight of 0 takes it out."""
    loss = LOSSES[name]
    prediction, target = draw(name, 20, dtype, seed=15)
    w = np.ones(20, dtype)
    w[[2, 7]] = 0.0
    padded = [p.copy() for p in flat(prediction)]
    padded[0][2], padded[0][7] = np.nan, np.inf
    padded = tuple(padded) if type(prediction) is tuple else padded[0]
    expected, expected_grads = loss.value_and_grad(prediction, target, weight=w)
    value, grads = loss.value_and_grad(padded, target, weight=w)
    assert value == expected
    assert all(np.array_equal(a, b) for a, b in zip(flat(grads), flat(expected_grads), strict=True))
    assert not any(g[[2, 7]].any() for g in flat(grads))


# Long sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.jit
@pytest.mark.parametrize("name", ["mse", "mae", "bce_with_logits", "exponential"])
def test_sums_of_float32_are_accumulated_in_float64(name):
    loss = LOSSES[name]
    rng = np.random.default_rng(16)
    z = rng.normal(size=1_000_000).astype(np.float32)
    t = rng.choice([-1.0, 1.0], z.size) if name == "exponential" else rng.random(z.size)
    t = t.astype(np.float32)
    values = loss(z, t, reduction="none")
    assert values.dtype == np.float32
    total = math.fsum(values.tolist())
    # Blocks of 512 elements are summed in float32 with an error of 3e-8 or so, of either sign: over 2000 blocks 1e-9.
    assert loss(z, t, reduction="sum") == pytest.approx(total, rel=2e-9)
    assert loss.value_and_grad(z, t)[0] == pytest.approx(total / z.size, rel=2e-9)
    # What a sum in float32 would give is off by more: the test can fail.
    assert np.cumsum(values)[-1] != pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [6, 700, pytest.param(70_000, marks=pytest.mark.jit)])
def test_a_mean_is_finite_where_a_sum_in_float32_overflows(n, weighted):
    z, t = np.full(n, 3e38, np.float32), np.zeros(n, np.float32)
    w = np.ones(n, np.float32) if weighted else None
    if FEW and n > 100:
        pytest.skip("slow without the compiler")
    expected = float(np.float32(3e38))
    assert fl.mae(z, t, weight=w) == pytest.approx(expected, rel=1e-12)
    value, grad = fl.mae.value_and_grad(z, t, weight=w)
    assert value == pytest.approx(expected, rel=1e-12)
    close(grad, np.full(n, 1 / n, np.float32), np.float32)
    assert fl.mae(z, t, weight=w, reduction="sum") == pytest.approx(n * expected, rel=1e-12)
    # An infinite element still is one.
    z[1] = np.inf
    assert fl.mae(z, t, weight=w) == math.inf


SIZES = [1, 2, 15, 16, 17, 31, 33, 511, 512, 513, 1025, 32767, 32768, 32769, 65535, 65536, 65537, 100_001]


@pytest.mark.jit
@pytest.mark.parametrize("name", ["mse", "bce_with_logits", "gaussian_nll"])
@each_dtype
def test_sizes_around_every_boundary(name, dtype):
    """Every element is counted once and written once, whatever the lanes, blocks, chunks and threads."""
    loss = LOSSES[name]
    prediction, target = draw(name, SIZES[-1], dtype, seed=17)
    values, grads = loss.value_and_grad(prediction, target, reduction="none")
    for n in SIZES:
        cut = tuple(p[:n] for p in prediction) if type(prediction) is tuple else prediction[:n]
        value, grad = loss.value_and_grad(cut, target[:n], reduction="sum")
        size = math.fsum(np.abs(values[:n]).tolist()) * (1e-6 if dtype is np.float32 else 1e-14)
        assert value == pytest.approx(math.fsum(values[:n].tolist()), abs=size, rel=0)
        rows, again = loss.value_and_grad(cut, target[:n], reduction="none")
        # An element behind the last whole vector goes through scalar code, which contracts other products and sums.
        close(rows, values[:n], dtype)
        for a, b, c in zip(flat(grad), flat(again), flat(grads), strict=True):
            close(b, c[:n], dtype, 8)
            close(a, c[:n], dtype, 8)


@pytest.mark.jit
@each_dtype
@pytest.mark.parametrize("name", ["mse", "huber", "hinge", "bce", "gaussian_nll"])
def test_the_result_does_not_depend_on_where_arrays_lie(name, dtype):
    """Side by side or far apart, the same bits.

    LLVM tests at run time whether arrays may overlap, unless told that they do not, and takes a scalar loop, which sums
    in another order, where they lie within a vector of each other.
    """
    loss = LOSSES[name]
    count = len(loss.record.predictions)
    for n in (5, 20, 50, 63, 70):
        prediction, target = draw(name, n, dtype, seed=18)
        data = columns(prediction, target)
        found = set()
        for apart in (0, 1, 4, 40, 1000):
            memory = np.empty((len(data) + count) * (n + apart), dtype)
            places = [memory[k * (n + apart) :][:n] for k in range(len(data) + count)]
            for turn in range(len(places)):
                inputs, outs = places[: len(data)], places[len(data) :]
                for a, x in zip(inputs, data, strict=True):
                    a[:] = x
                given, out = (tuple(inputs[:count]), tuple(outs)) if count > 1 else (inputs[0], outs[0])
                found.add(loss.value_and_grad(given, inputs[-1], out=out)[0])
                places = places[1:] + places[:1] if turn % 2 else places[::-1]
        assert len(found) == 1, n
