"""Every formula against its own derivatives, the textbook, other libraries, exact arithmetic and its record."""

import dis
import math

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from oracles import IRRATIONAL, MP_WORDS, carry, exact, in_mpmath, in_numpy, in_sympy, mp_number, sp_number
from sampling import OF_ITSELF, kinks, largest_prediction, numbers, residual, sample, variants

import fastloss.formulas  # noqa: F401
from fastloss import reference
from fastloss.formulas import special, vocabulary
from fastloss.formulas.record import SIGNS, registered

FORMULAS = {f.name: f for f in registered.values() if f.family == "elementwise"}
CASES = [pytest.param(f, v, id=f"{f.name}-{v}" if v else f.name) for f in FORMULAS.values() for v in variants(f)]
each_formula = pytest.mark.parametrize("formula", FORMULAS.values(), ids=lambda f: f.name)
each_case = pytest.mark.parametrize(("formula", "variant"), CASES)


def flat(x):
    return x if isinstance(x, tuple) else (x,)


def points(formula, variant, n, seed=11):
    """n points as rows (prediction..., target), Python floats."""
    predictions, target = sample(formula, n, np.random.default_rng(seed), **variant)
    columns = predictions if target is None else (*predictions, target)
    return [[float(x) for x in row] for row in zip(*columns, strict=True)]


def smooth_points(formula, variant, n):
    """Points off the kinks, the ends of the domain and the floors of a variance."""
    chosen = []
    for row in points(formula, variant, 20 * n):
        z = row[0]
        r = residual(formula, z, row[1:])
        off_kinks = all(abs(abs(r) - abs(k)) > 1e-7 for k in kinks(formula, variant)) and z != 0.0
        off_ends = all(x not in d[:2] for x, d in zip(row, formula.prediction_domains, strict=False))
        floor = {**formula.defaults, **variant}["eps"] if formula.name == "gaussian_nll" else 0.0
        negative = formula.name == "gaussian_nll" and not variant.get("log_var") and row[1] <= floor
        if off_kinks and off_ends and not negative:
            chosen.append(row)
    assert len(chosen) >= n
    return chosen[:n]


def close(got, expected, tolerance):
    return abs(got - expected) <= tolerance * max(1, abs(expected))


# Derivatives ---------------------------------------------------------------------------------------------------------


@each_case
def test_derivatives_in_fifty_digits(formula, variant):
    f = in_mpmath(formula.function)
    k = len(formula.predictions)
    parameters = [mp_number(x) for x in numbers(formula, variant)]
    # beta-NLL holds its weight constant in the derivatives.
    beta = variant.get("beta", 0.0) if formula.name == "gaussian_nll" else 0.0
    plain = [mp_number(x) for x in numbers(formula, {**variant, "beta": 0.0} if beta else variant)]
    for row in smooth_points(formula, variant, 6):
        data = [mp_number(x) for x in row]
        value, first, second = (flat(x) for x in f(*data, *parameters)[:3])
        weight = value[0] / f(*data, *plain)[0] if beta else 1
        for i in range(k):

            def along(x, order, i=i, data=data):
                out = f(*data[:i], x, *data[i + 1 :], *plain)[order]
                return flat(out)[i if order else 0]

            slope, bend = (mp.diff(lambda x, order=order: along(x, order), data[i]) for order in (0, 1))
            assert close(first[i], weight * slope, mp.mpf(10) ** -20), (row, i)
            assert close(second[i], weight * bend, mp.mpf(10) ** -20), (row, i)


def small(x):
    return math.isinf(x) or (abs(x) <= 100.0 and exact(x).denominator <= 10**6)


# SymPy expands gamma functions and powers of long rationals term by term.
@pytest.mark.parametrize(("formula", "variant"), [c for c in CASES if all(map(small, numbers(*c.values)))])
def test_derivatives_in_symbols(formula, variant):
    # beta-NLL holds its weight constant in the derivatives.
    if formula.name == "gaussian_nll" and variant.get("beta"):
        variant = {**variant, "beta": 0.0}
    x = sp.Symbol("x", real=True)
    parameters = [sp.S(p) if math.isinf(p) else sp_number(p) for p in numbers(formula, variant)]
    for row in smooth_points(formula, variant, 2):
        data = [sp.Rational(v) for v in row]
        for i in range(len(formula.predictions)):
            f = in_sympy(formula.function, x, data[i])
            value, first, second = f(*data[:i], x, *data[i + 1 :], *parameters)[:3]
            for low, high in ((value, flat(first)[i]), (flat(first)[i], flat(second)[i])):
                pair = [sp.diff(low, x), sp.sympify(high)]
                slope, expected = sp.lambdify(x, pair, "mpmath")(mp_number(row[i]))
                assert close(slope, expected, mp.mpf(10) ** -20), (row, i)


# Values --------------------------------------------------------------------------------------------------------------

# The textbook form itself cancels here: relative to the size of the terms that cancel, not to their difference.
TERMS = {
    "log_cosh": lambda z, t: 1e-3,
    "msle": lambda z, t: abs(math.log1p(z)) * 2 + abs(math.log1p(t)) * 2 + 1e-3,
    "fair": lambda z, t, c: c * abs(z - t) + 1e-3,
    "barron": lambda z, t, alpha, c: 1e-3,
    "poisson": lambda z, t, full: math.exp(z) + abs(t * z) + 1,
    "gamma": lambda z, t, full: abs(z) + t * math.exp(-z) + 1,
    "tweedie": lambda z, t, power, full: math.exp(2 * abs(z)) * (1 + t) * (1 + t * t),
    "gaussian_nll": lambda m, v, t, *p: 1.0,
    "laplace_nll": lambda m, s, t: 1.0,
    "student_t_nll": lambda m, s, t, df: 1.0 + df * math.log1p(df),
    "evidential_regression": lambda g, n, a, b, t, lam: (
        (1 + a) * (10 + math.log1p(a) + abs(math.log(b)) + math.log1p(n))
    ),
    "negative_binomial_nll": lambda m, r, t: (r + t + 1) * (1 + math.log1p(r + t)),
    "asymmetric": lambda z, t, *p: 1e-3,
}


@each_case
def test_value_is_the_textbook_value(formula, variant):
    parameters = numbers(formula, variant)
    textbook = getattr(reference, formula.name)
    rows = points(formula, variant, 300)
    with np.errstate(all="ignore"):
        expected = np.broadcast_to(textbook(*(np.array(c) for c in zip(*rows, strict=True)), **variant), len(rows))
    terms = TERMS.get(formula.name, lambda *a: 0.0)
    for row, e in zip(rows, expected, strict=True):
        got = formula.function(*row, *parameters)[0]
        assert abs(got - e) <= 1e-12 * abs(e) + 1e-14 * terms(*row, *parameters) + 1e-290 or got == e, (row, got, e)


# Evaluated in the given type, a result may differ from the exact one by 8 rounding errors of itself, and by as much as
# inputs that are 8 rounding errors off would change it. Where more is allowed, this names what cancels: the size of
# the terms, in rounding errors.
ROUNDING = 8
CANCELS = {
    "poisson": "log(t!) of a t far below 1, and the deviance at its minimum",
    "gamma": "half the deviance at its minimum",
    "tweedie": "E(2 - power) against t E(1 - power) at their equilibrium",
    "negative_binomial_nll": "digamma(r + 1) - digamma(r + t + 1)",
    "evidential_regression": "lgamma terms of shapes near each other",
    "student_t_nll": "the constant of the density against log(scale)",
    "gaussian_nll": "log(var) against the squared residual over var",
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_case
def test_rounding_errors(formula, variant, dtype):
    eps = float(np.finfo(dtype).eps)
    tiny, huge = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    words = MP_WORDS | {"epsilon": lambda x: mp.mpf(eps)}
    truth = carry(formula.function, mp_number, words)
    predictions, target = sample(formula, 24, np.random.default_rng(5), dtype, **variant)
    columns = predictions if target is None else (*predictions, target)
    parameters = [dtype(x) for x in numbers(formula, variant)]
    with np.errstate(all="ignore"):
        out = in_numpy(formula.function, dtype)(*columns, *(np.asarray(p) for p in parameters))
    out = [np.broadcast_to(x, columns[0].shape) for part in out[:3] for x in flat(part)]
    assert {x.dtype for x in out} <= {np.dtype(dtype), np.dtype(np.float64)}

    def evaluate(data):
        return [mp.mpf(x) for part in truth(*data)[:3] for x in flat(part)]

    constants = [mp.mpf(float(p)) for p in parameters]
    flags = [j for j, p in enumerate(formula.parameters.values()) if p.flag]
    for i in range(columns[0].size):
        data = [mp.mpf(float(c[i])) for c in columns] + constants
        expected = evaluate(data)
        moved = [mp.mpf(0)] * len(expected)
        for j, x in enumerate(data):
            if not mp.isfinite(x) or x == 0 or j - len(columns) in flags:
                continue
            for s in (1, -1):
                try:
                    near = evaluate([*data[:j], x * (1 + s * ROUNDING * eps), *data[j + 1 :]])
                except (ValueError, ZeroDivisionError):
                    continue
                steps = [abs(b - e) if mp.isfinite(b) else 0 for b, e in zip(near, expected, strict=True)]
                moved = [max(a, b) for a, b in zip(moved, steps, strict=True)]
        cancelled = eps if formula.name in CANCELS else 0.0
        for x, e, m in zip(out, expected, moved, strict=True):
            got = float(x[i])
            if not mp.isfinite(e) or abs(e) > huge:
                assert math.isinf(got), (data, got, e)
            else:
                allowed = ROUNDING * (eps * abs(e) + cancelled) + len(data) * m + 4 * tiny
                assert abs(mp.mpf(got) - e) <= allowed, ([float(d) for d in data], got, float(e), float(allowed))


FAR = ("identity", "logit", "margin", *OF_ITSELF)
FAR = [f for f in FORMULAS.values() if f.link in FAR and len(f.predictions) == 1]
FAR = [f for f in FAR if f.prediction_domains[0].high == math.inf]


@pytest.mark.parametrize("formula", FAR, ids=lambda f: f.name)
def test_far_predictions(formula):
    """Where the exact result is representable, no intermediate overflows: predictions up to a quarter of the range."""
    for dtype in (np.float32, np.float64):
        big = float(np.finfo(dtype).max) / 4
        z = np.array([1e10, 1e15, 1e19, 1e25, 1e30, big], dtype)
        z = np.concatenate([z, -z]) if formula.prediction_domains[0].low < -1 else z
        data = (z,) if formula.target is None else (z, np.ones_like(z))
        parameters = numbers(formula, {})
        with np.errstate(all="ignore"):
            out = in_numpy(formula.function, dtype)(*data, *(dtype(p) for p in parameters))
        in_full = in_mpmath(formula.function)
        for i in range(z.size):
            expected = in_full(*(mp.mpf(float(d[i])) for d in data), *(mp_number(p) for p in parameters))
            for order in range(3):
                got, e = float(np.broadcast_to(out[order], z.shape)[i]), expected[order]
                top = float(np.finfo(dtype).max)
                truth = float(e) if abs(e) <= top else math.copysign(math.inf, e)
                # A derivative below 1e-35 counts as 0; geman_mcclure clips where it is 1e-53.
                assert got == pytest.approx(truth, rel=1e-5, abs=1e-35), (dtype, z[i], order)


LOGIT = [f for f in FORMULAS.values() if f.link == "logit"]


@pytest.mark.parametrize("t", [1.0, 0.0])
@pytest.mark.parametrize("formula", LOGIT, ids=lambda f: f.name)
def test_saturated_logits_have_their_limits(formula, t):
    """At the ends of the range and at infinity, where a vanishing weight meets an infinite cost: 0 and not NaN."""
    target = 2.0 * t - 1.0 if formula.target_domain == SIGNS else t
    for changed in variants(formula):
        near = formula.function(1e4, target, *numbers(formula, changed))
        far = formula.function(-1e4, target, *numbers(formula, changed))
        for dtype in (np.float32, np.float64):
            function = in_numpy(formula.function, dtype)
            parameters = [dtype(p) for p in numbers(formula, changed)]
            for z in (float(np.finfo(dtype).max), math.inf):
                for sign, limit in ((1.0, near), (-1.0, far)):
                    with np.errstate(all="ignore"):
                        value, first, second, *_ = map(float, function(dtype(sign * z), dtype(target), *parameters))
                    # Beyond 1e4 a loss is constant or grows with |z|; its derivatives are where they will stay.
                    assert value == pytest.approx(limit[0], rel=1e-5) if limit[0] < 100.0 else value > 1e30, changed
                    assert first == pytest.approx(limit[1], rel=1e-5, abs=1e-30), (dtype, sign * z, changed)
                    assert second == pytest.approx(limit[2], rel=1e-5, abs=1e-30), (dtype, sign * z, changed)


@each_formula
def test_not_a_number_comes_through(formula):
    parameters = numbers(formula, {})
    for i in range(len(formula.predictions)):
        for dtype in (np.float32, np.float64):
            row = [dtype(x) for x in points(formula, {}, 1)[0]]
            row[i] = dtype(math.nan)
            with np.errstate(all="ignore"):
                value, first, *_ = in_numpy(formula.function, dtype)(*row, *(dtype(p) for p in parameters))
            assert np.isnan(value)
            assert np.isnan(flat(first)[i]) or formula.name in ("l1", "l2"), first


# Special functions ---------------------------------------------------------------------------------------------------

SERIES = {
    "log1p_minus": (lambda x: 10.0**x, -9, 6),
    "normal_within": (lambda x: 10.0**x, -9, 1),
    "gamma_ratio": (lambda x: 10.0**x, -6, 8),
    "lgamma_tail": (lambda x: 10.0**x, -6, 8),
    "digamma_tail": (lambda x: 10.0**x, 1.2042, 8),
    "trigamma_tail": (lambda x: 10.0**x, 1.2042, 8),
}


@pytest.mark.parametrize("name", SERIES)
def test_series_against_their_sums(name):
    spread, low, high = SERIES[name]
    for x in spread(np.linspace(low, high, 400)):
        expected = flat(MP_WORDS[name](mp.mpf(x)))
        for got, e in zip(flat(getattr(special, name)(float(x))), expected, strict=True):
            # lgamma near its zeros: relative to the terms.
            terms = 1 + abs(float(mp.log(x))) if name in ("lgamma_tail", "gamma_ratio") else 0
            assert abs(got - e) <= 2e-15 * abs(e) + 1e-15 * terms, (x, got, e)


def test_log1p_minus_below_zero():
    for x in -(10.0 ** np.linspace(-9, -0.001, 200)):
        assert special.log1p_minus(float(x)) == pytest.approx(float(mp.log1p(mp.mpf(x)) - mp.mpf(x)), rel=3e-15)


def test_normal_within_is_odd():
    assert all(special.normal_within(-x) == -special.normal_within(x) for x in (1e-9, 0.3, 0.5, 2.0, 40.0))


# Relations -----------------------------------------------------------------------------------------------------------


def run(name, *data, **variant):
    formula = FORMULAS[name]
    return formula.function(*data, *numbers(formula, variant))[:3]


def agree(a, b, factor=1.0, constant=0.0, rel=1e-13, abs_=1e-13):
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        assert x == pytest.approx(factor * y + (constant if k == 0 else 0.0), rel=rel, abs=abs_)


GRID = [(z, t) for z in (-7.3, -1.0, -0.4, 0.0, 0.3, 2.5, 30.0) for t in (-2.0, 0.1, 0.3, 1.7)]
LOGITS = [(z, t) for z in (-60.0, -3.0, -0.4, 0.0, 0.2, 5.0, 90.0) for t in (0.0, 0.3, 1.0)]


@pytest.mark.parametrize(("z", "t"), GRID)
def test_relations_of_regression_losses(z, t):
    agree(run("smooth_l1", z, t, beta=0.65), run("huber", z, t, delta=0.65), 1 / 0.65)
    agree(run("smooth_l1", z, t, beta=0.0), run("mae", z, t))
    agree(run("quantile", z, t, q=0.5), run("mae", z, t), 0.5)
    agree(run("expectile", z, t, q=0.5), run("mse", z, t), 0.5)
    agree(run("huber", z, t, delta=1e6), run("mse", z, t), 0.5)
    agree(run("pseudo_huber", z, t, delta=1.3), run("charbonnier", z, t, c=1.3), 1.3**2)
    agree(run("barron", z, t, alpha=2.0, c=1.3), run("mse", z, t), 0.5 / 1.3**2)
    agree(run("barron", z, t, alpha=1.0, c=1.3), run("charbonnier", z, t, c=1.3))
    agree(run("barron", z, t, alpha=0.0, c=1.3), run("cauchy", z, t, c=1.3))
    agree(run("barron", z, t, alpha=-2.0, c=1.3), run("geman_mcclure", z, t, c=1.3))
    agree(run("barron", z, t, alpha=-math.inf, c=1.3), run("welsch", z, t, c=1.3))
    agree(run("barron", z, t, alpha=1e-9, c=1.3), run("cauchy", z, t, c=1.3), rel=1e-7)
    agree(run("barron", z, t, alpha=2.0 - 1e-9), run("mse", z, t), 0.5, rel=1e-6)
    agree(run("barron", z, t, alpha=-1e9), run("welsch", z, t), rel=1e-5, abs_=1e-7)
    agree(run("elastic_net", z, l1_ratio=1.0), run("l1", z))
    agree(run("elastic_net", z, l1_ratio=0.0), run("l2", z))


@pytest.mark.parametrize(("z", "t"), LOGITS)
def test_relations_of_binary_losses(z, t):
    bce = run("bce_with_logits", z, t)
    agree(run("focal", z, t, alpha=None, gamma=0.0), bce)
    agree(run("poly1_bce", z, t, epsilon=0.0), bce)
    agree(run("asymmetric", z, t, gamma_pos=0.0, gamma_neg=0.0, clip=0.0), bce)
    p = vocabulary.sigmoid(z)
    if abs(z) < 10:
        agree(run("log_loss", p, t), run("bce", p, t))
        assert run("bce", p, t)[0] == pytest.approx(bce[0], rel=1e-12)
        assert run("bce", p, t)[1] * p * (1 - p) == pytest.approx(bce[1], rel=1e-12, abs=1e-16)
    if t in (0.0, 1.0):
        agree(run("logistic", z, 2 * t - 1), bce, abs_=0.0)
        focal = run("focal", z, t, alpha=0.3, gamma=2.0)
        powers = run("asymmetric", z, t, gamma_pos=2.0, gamma_neg=2.0, clip=0.0)
        agree(focal, powers, 0.3 if t else 0.7, abs_=1e-300)


def test_hinges_meet():
    for z in (-3.0, -0.5, 0.0, 0.5, 2.0):
        for t in (-1.0, 1.0):
            agree(run("perceptron", z, t), run("hinge", z, t, margin=0.0))
            assert run("squared_hinge", z, t)[0] == run("hinge", z, t)[0] ** 2


@pytest.mark.parametrize(("z", "t"), [(z, t) for z in (-5.0, -0.3, 0.0, 1.2, 6.0) for t in (0.4, 1.0, 3.0)])
def test_limits_of_tweedie(z, t):
    agree(run("tweedie", z, t, power=1.0), run("poisson", z, t), constant=-1.0, rel=1e-12, abs_=1e-12)
    agree(run("tweedie", z, t, power=2.0), run("gamma", z, t), constant=-t, rel=1e-12, abs_=1e-12)
    agree(run("tweedie", z, t, power=2.0, full=True), run("gamma", z, t, full=True), rel=1e-12, abs_=1e-12)
    for power in (1.0, 2.0):
        near = run("tweedie", z, t, power=power + 1e-9, full=True)
        agree(near, run("tweedie", z, t, power=power, full=True), rel=1e-6, abs_=1e-6)
    half = (math.exp(z) - t) ** 2 / 2
    assert run("tweedie", z, t, power=0.0, full=True)[0] == pytest.approx(half, rel=1e-9, abs=1e-12)
    # At the optimum, log(t), the deviance is 0 and so is the gradient.
    for power in (0.0, 1.0, 1.5, 2.0, 3.0):
        value, slope, bend = run("tweedie", math.log(t), t, power=power, full=True)
        assert abs(value) < 1e-14
        assert abs(slope) < 1e-14
        assert bend > 0.0


def test_tweedie_deviance_of_zero():
    for power in (1.0, 1.5, 1.9):
        assert run("tweedie", -200.0, 0.0, power=power, full=True)[0] == pytest.approx(0.0, abs=1e-7)
    assert run("tweedie", 0.0, 0.0, power=2.0, full=True)[0] == math.inf


def test_likelihoods_meet():
    for m, s, t in ((0.0, 1.0, 0.3), (-2.0, 0.2, 1.0), (5.0, 30.0, -4.0)):
        normal = run("gaussian_nll", m, s * s, t, full=True)[0]
        logarithmic = run("gaussian_nll", m, 2 * math.log(s), t, full=True, log_var=True)[0]
        assert logarithmic == pytest.approx(normal, rel=1e-13)
        assert run("student_t_nll", m, s, t, df=1e12)[0] == pytest.approx(normal, rel=1e-9)
        beta = run("gaussian_nll", m, s * s, t, beta=1.0)
        agree([beta[1][0]], [run("gaussian_nll", m, s * s, t)[1][0]], s * s)
    for mean, count in ((0.5, 0.0), (3.0, 7.0), (40.0, 31.0)):
        poisson = run("poisson", math.log(mean), count, full=True)[0]
        assert run("negative_binomial_nll", mean, 1e12, count)[0] == pytest.approx(poisson, rel=1e-9)


def test_negative_variance_is_not_a_number():
    assert math.isnan(run("gaussian_nll", 0.0, -1.0, 0.0)[0])
    assert run("gaussian_nll", 0.0, -1.0, 0.0, log_var=True)[0] == -0.5


@pytest.mark.parametrize(("formula", "variant"), [c for c in CASES if c.values[0].minimum_at_target])
def test_minimum_at_the_target(formula, variant):
    parameters = numbers(formula, variant)
    for row in points(formula, variant, 100):
        t = row[-1]
        least, slope = formula.function(t, t, *parameters)[:2]
        assert slope == 0.0
        assert least == 0.0
        assert formula.function(row[0], t, *parameters)[0] >= 0.0


# Other libraries -----------------------------------------------------------------------------------------------------


def column(name, *data, order=0, **variant):
    """One result of a formula over arrays, element by element."""
    out = [run(name, *(float(x) for x in row), **variant)[order] for row in zip(*data, strict=True)]
    return np.array(out)


@pytest.fixture
def rng():
    return np.random.default_rng(42)


TORCH = {
    "mse": (lambda F, z, t: F.mse_loss(z, t, reduction="none"), {}),
    "mae": (lambda F, z, t: F.l1_loss(z, t, reduction="none"), {}),
    "huber": (lambda F, z, t: F.huber_loss(z, t, delta=0.7, reduction="none"), {"delta": 0.7}),
    "smooth_l1": (lambda F, z, t: F.smooth_l1_loss(z, t, beta=0.7, reduction="none"), {"beta": 0.7}),
    "poisson": (lambda F, z, t: F.poisson_nll_loss(z, t.abs(), reduction="none"), {}),
    "bce_with_logits": (
        lambda F, z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none", pos_weight=z.new_tensor(3.0)),
        {"pos_weight": 3.0},
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_against_torch(name, rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    call, variant = TORCH[name]
    z, t = rng.normal(0, 2, 200), rng.normal(0, 2, 200)
    t = rng.random(200) if name.startswith("bce") else np.abs(t) if name == "poisson" else t
    x = torch.tensor(z, requires_grad=True)
    loss = call(torch.nn.functional, x, torch.tensor(t))
    loss.sum().backward()
    np.testing.assert_allclose(column(name, z, t, **variant), loss.detach().numpy(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(column(name, z, t, order=1, **variant), x.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_bce_against_torch_at_the_ends(rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    p = np.concatenate([rng.random(50), [0.0, 1.0, 0.0, 1.0, 1e-13, 1e-300]])
    t = np.concatenate([rng.random(50), [0.0, 1.0, 1.0, 0.0, 1.0, 0.5]])
    x = torch.tensor(p, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy(x, torch.tensor(t), reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(column("bce", p, t), loss.detach().numpy(), rtol=1e-13)
    # torch's 1e-12 is a float32 literal, 4e-9 smaller.
    np.testing.assert_allclose(column("bce", p, t, order=1), x.grad.numpy(), rtol=5e-9)


@pytest.mark.parametrize("full", [False, True])
def test_gaussian_nll_against_torch(full, rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    m, v, t = rng.normal(size=50), np.append(rng.gamma(1.0, size=48), [1e-9, 0.0]), rng.normal(size=50)
    x, y = torch.tensor(m, requires_grad=True), torch.tensor(v, requires_grad=True)
    loss = torch.nn.functional.gaussian_nll_loss(x, torch.tensor(t), y, full=full, eps=1e-6, reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(column("gaussian_nll", m, v, t, full=full), loss.detach().numpy(), rtol=1e-12)
    first = column("gaussian_nll", m, v, t, order=1, full=full)
    np.testing.assert_allclose(first[:, 0], x.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(first[:, 1], y.grad.numpy(), rtol=1e-9)


SKLEARN = {
    "mse": ("HalfSquaredError", {}, {}, 2.0),
    "mae": ("AbsoluteError", {}, {}, 1.0),
    "quantile": ("PinballLoss", {"quantile": 0.8}, {"q": 0.8}, 1.0),
    "huber": ("HuberLoss", {"delta": 0.7}, {"delta": 0.7}, 1.0),
    "poisson": ("HalfPoissonLoss", {}, {}, 1.0),
    "gamma": ("HalfGammaLoss", {}, {}, 1.0),
    "bce_with_logits": ("HalfBinomialLoss", {}, {}, 1.0),
}


@pytest.mark.parametrize("name", SKLEARN)
def test_against_sklearn_losses(name, rng):
    losses = pytest.importorskip("sklearn._loss.loss", reason="needs the peers extra")
    kind, arguments, variant, factor = SKLEARN[name]
    loss = getattr(losses, kind)(**arguments)
    z, t = rng.normal(0, 2, 200), rng.normal(0, 2, 200)
    t = rng.random(200) if name.startswith("bce") else np.abs(t) + 0.1 if name in ("poisson", "gamma") else t
    value, gradient = loss.loss_gradient(y_true=t, raw_prediction=z)
    np.testing.assert_allclose(column(name, z, t, **variant), factor * value, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(column(name, z, t, order=1, **variant), factor * gradient, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 1.99, 2.0, 3.0])
def test_tweedie_against_sklearn(power, rng):
    losses = pytest.importorskip("sklearn._loss.loss", reason="needs the peers extra")
    loss = losses.HalfTweedieLoss(power=power)
    z, t = rng.normal(size=100), rng.gamma(1.0, size=100) + 0.05
    value, gradient = loss.loss_gradient(y_true=t, raw_prediction=z)
    deviance = value + loss.constant_to_optimal_zero(t)
    np.testing.assert_allclose(column("tweedie", z, t, power=power, full=True), deviance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(column("tweedie", z, t, order=1, power=power), gradient, rtol=1e-11, atol=1e-13)
    # At 0, 1 and 2 sklearn has other constants: none for the squared error, and the infinite ones dropped.
    if power not in (0.0, 1.0, 2.0):
        shift = 1 / (2 - power) - t / (1 - power)
        np.testing.assert_allclose(column("tweedie", z, t, power=power) + shift, value, rtol=1e-11, atol=1e-12)


def test_against_sklearn_metrics(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the peers extra")
    z, t, p, y = rng.gamma(1.0, size=80), rng.gamma(1.0, size=80), rng.random(80), rng.integers(0, 2, 80)
    p[:2], y[:2] = (0.0, 1.0), (1, 0)
    assert column("msle", z, t).mean() == pytest.approx(metrics.mean_squared_log_error(t, z), rel=1e-12)
    assert column("mape", z, t).mean() == pytest.approx(metrics.mean_absolute_percentage_error(t, z), rel=1e-12)
    pinball = metrics.mean_pinball_loss(t, z, alpha=0.8)
    assert column("quantile", z, t, q=0.8).mean() == pytest.approx(pinball, rel=1e-12)
    assert column("brier", p, y).mean() == pytest.approx(metrics.brier_score_loss(y, p), rel=1e-12)
    assert column("log_loss", p, y).mean() == pytest.approx(metrics.log_loss(y, p), rel=1e-12)
    signs = 2 * y - 1
    assert column("hinge", z - 1, signs).mean() == pytest.approx(metrics.hinge_loss(signs, z - 1), rel=1e-12)


SCIPY = {
    "laplace_nll": (lambda st, m, s, t: st.laplace.logpdf(t, m, s), {}),
    "student_t_nll": (lambda st, m, s, t: st.t.logpdf(t, 2.5, m, s), {"df": 2.5}),
    "gaussian_nll": (lambda st, m, s, t: st.norm.logpdf(t, m, np.sqrt(s)), {"full": True}),
}


@pytest.mark.parametrize("name", SCIPY)
def test_against_scipy(name, rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    m, s, t = rng.normal(size=100), rng.gamma(1.0, size=100) + 0.05, rng.normal(size=100)
    call, variant = SCIPY[name]
    np.testing.assert_allclose(column(name, m, s, t, **variant), -call(stats, m, s, t), rtol=1e-11)


def test_counts_against_scipy(rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    m, r, t = rng.gamma(2.0, 5.0, 100), rng.gamma(1.0, 9.0, 100) + 0.01, rng.poisson(8.0, 100)
    expected = -stats.nbinom.logpmf(t, r, r / (r + m))
    np.testing.assert_allclose(column("negative_binomial_nll", m, r, t), expected, rtol=1e-10)
    np.testing.assert_allclose(column("poisson", np.log(m), t, full=True), -stats.poisson.logpmf(t, m), rtol=1e-10)


def test_evidential_regression_is_the_student_marginal(rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    g, nu, a, b, t = rng.normal(size=60), *(rng.gamma(2.0, size=60) + 0.1 for _ in range(3)), rng.normal(size=60)
    a = a + 1
    expected = -stats.t.logpdf(t, 2 * a, g, np.sqrt(b * (1 + nu) / (nu * a)))
    np.testing.assert_allclose(column("evidential_regression", g, nu, a, b, t, lam=0.0), expected, rtol=1e-11)


def test_crps_gaussian_is_its_integral():
    for m, s, t in ((0.0, 1.0, 0.4), (1.0, 0.3, -1.0), (-2.0, 3.0, 2.0)):
        below = mp.quad(lambda x, m=m, s=s: mp.ncdf((x - m) / s) ** 2, [-mp.inf, m - 5 * s, t])
        above = mp.quad(lambda x, m=m, s=s: mp.ncdf((m - x) / s) ** 2, [t, m + 5 * s, mp.inf])
        assert run("crps_gaussian", m, s, t)[0] == pytest.approx(float(below + above), rel=1e-12)


# The text of the formulas --------------------------------------------------------------------------------------------


def texts():
    found = {f.function for f in FORMULAS.values()}
    while True:
        more = {f.__globals__[n] for f in found for n in set(f.__code__.co_names) - {*vocabulary.__all__, "abs"}}
        if more <= found:
            return sorted(found, key=lambda f: f.__name__)
        found |= more


def test_formulas_use_the_vocabulary_and_float_literals_only():
    for function in texts():
        code = function.__code__
        for name in code.co_names:
            known = name in vocabulary.__all__ or name == "abs" or function.__globals__[name] in texts()
            assert known, (function.__name__, name)
        numbers_only = [c for c in code.co_consts if c is not None and c != function.__doc__]
        assert all(type(c) is float for c in numbers_only), (function.__name__, numbers_only)
        for instruction in dis.get_instructions(code):
            assert instruction.opcode not in dis.hasjrel + dis.hasjabs, (function.__name__, instruction.opname)
            assert "**" not in instruction.argrepr, function.__name__


def test_every_irrational_literal_is_known_to_the_oracle():
    for function in (f for f in texts() if f.__name__ not in MP_WORDS):
        for c in function.__code__.co_consts:
            if isinstance(c, float) and len(repr(c)) > 12 and c not in IRRATIONAL:
                assert exact(c).denominator <= 10**6, (function.__name__, c)


@each_formula
def test_the_record_is_complete(formula):
    assert formula.math
    assert formula.paper
    assert formula.summary.endswith(".")
    assert getattr(reference, formula.name).__doc__
    assert all(p.doc for p in formula.parameters.values())
    row = points(formula, {}, 1)[0]
    out = formula.function(*row, *numbers(formula, {}))
    assert len(out) == 2 + formula.second + (formula.surrogate is not None)
    for derivative in out[1:]:
        assert isinstance(derivative, tuple) == (len(formula.predictions) > 1)
        assert len(flat(derivative)) == len(formula.predictions)


# The record ----------------------------------------------------------------------------------------------------------


def midpoint_violations(formula, variant):
    parameters = numbers(formula, variant)
    rows = points(formula, variant, 400, seed=1)
    rng = np.random.default_rng(2)
    k = len(formula.predictions)
    found = 0
    for row in rows:
        other = rows[rng.integers(len(rows))]
        for scale in (1.0, 1e-2):
            b = [x + scale * (y - x) for x, y in zip(row[:k], other[:k], strict=True)]
            middle = [(x + y) / 2 for x, y in zip(row[:k], b, strict=True)]
            u, v, w = (formula.function(*x, *row[k:], *parameters)[0] for x in (row[:k], b, middle))
            found += w > (u + v) / 2 + 1e-9 * (abs(u) + abs(v) + 1e-3)
    return found


@each_formula
def test_convex(formula):
    found = sum(midpoint_violations(formula, v) for v in variants(formula))
    assert (found == 0) == formula.convex, found
    if formula.convex:
        for variant in variants(formula):
            for row in points(formula, variant, 200):
                assert all(h >= 0.0 for h in flat(formula.function(*row, *numbers(formula, variant))[2]))


@pytest.mark.parametrize("formula", [f for f in FORMULAS.values() if f.surrogate], ids=lambda f: f.name)
def test_surrogate_is_positive(formula):
    for variant in variants(formula):
        for row in points(formula, variant, 200):
            assert all(h >= 0.0 for h in flat(formula.function(*row, *numbers(formula, variant))[3]))


SURROGATES = {
    "smooth_l1": lambda z, t, beta: 1 / beta if beta else 1.0,
    "mape": lambda z, t, eps: 1 / max(abs(t), eps),
    "smape": lambda z, t, eps: 2 / max(abs(z) + abs(t), eps),
    "wing": lambda z, t, w, epsilon: w / epsilon,
    "squared_hinge": lambda *a: 2.0,
    "modified_huber": lambda *a: 2.0,
    "contrastive_distance": lambda *a: 2.0,
    "gradient_norm_penalty": lambda n, center, one_sided, lam: 2 * lam,
}


@pytest.mark.parametrize(("formula", "variant"), [c for c in CASES if c.values[0].surrogate])
def test_surrogate_is_what_it_says(formula, variant):
    parameters = numbers(formula, variant)
    for row in points(formula, variant, 50):
        out = formula.function(*row, *parameters)
        if formula.surrogate.startswith("IRLS"):
            r = row[0] - row[1]
            assert out[3] * r == pytest.approx(out[1], rel=1e-12)
        elif formula.surrogate != "Fisher information":
            expected = SURROGATES[formula.name](*row, *parameters) if formula.name in SURROGATES else 1.0
            assert all(x == pytest.approx(expected, rel=1e-14) for x in flat(out[3]))


FISHER = [c for c in CASES if c.values[0].surrogate == "Fisher information" and not {"beta", "eps"} & {*c.values[1]}]


@pytest.mark.parametrize(("formula", "variant"), FISHER)
def test_fisher_information_is_the_mean_squared_score(formula, variant):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    parameters = numbers(formula, variant)
    first, second = 0.4, 1.7
    spread = math.exp(second / 2) if variant.get("log_var") else math.sqrt(second)
    density = {
        "gaussian_nll": stats.norm(first, spread),
        "laplace_nll": stats.laplace(first, second),
        "student_t_nll": stats.t({**formula.defaults, **variant}.get("df"), first, second),
    }[formula.name]
    # Equally likely targets, symmetric about the location; the tails beyond the last cost 1e-3 at most.
    targets = density.ppf((np.arange(20000) + 0.5) / 20000)
    scores = np.array([formula.function(first, second, float(t), *parameters)[1] for t in targets])
    stated = formula.function(first, second, 0.0, *parameters)[3]
    np.testing.assert_allclose((scores**2).mean(axis=0), stated, rtol=2e-3)


def test_weighted_fisher_information():
    plain, weighted = (FORMULAS["gaussian_nll"].function(0.4, 1.7, 0.0, 0.0, beta, 1e-6, 0.0)[3] for beta in (0.0, 0.5))
    assert weighted == pytest.approx([x * math.sqrt(1.7) for x in plain], rel=1e-14)


def wide(formula, n=4000):
    """Points whose predictions reach farther than usual, at the defaults."""
    rows = points(formula, {}, n, seed=3)
    factor = 1e3 if largest_prediction(formula) > 100 else 5.0
    domain = formula.prediction_domains[0]
    farther = [[r[0] * factor, *r[1:]] for r in rows if not domain.outside(r[0] * factor)]
    farthest = [[z, *rows[0][1:]] for z in (-1e250, 1e250) if factor > 100.0 and not domain.outside(z)]
    return rows + farther + farthest


@each_formula
def test_bounded(formula):
    values = [formula.function(*row, *numbers(formula, {}))[0] for row in wide(formula)]
    assert (max(values) < 150.0) == formula.bounded, max(values)


# Bounded slopes whose bound has no closed form, or depends on the other predictions.
UNSTATED = {"focal", "asymmetric", "student_t_nll"}


@each_formula
def test_lipschitz(formula):
    slopes = [abs(flat(formula.function(*row, *numbers(formula, {}))[1])[0]) for row in wide(formula)]
    if formula.lipschitz is None:
        assert max(slopes) > 100.0 or formula.name in UNSTATED
    else:
        assert max(slopes) <= formula.lipschitz * (1 + 1e-12)
        assert max(slopes) >= formula.lipschitz * 0.98


RESIDUAL = [f for f in FORMULAS.values() if f.link == "identity" and f.target]
RESIDUAL = [f for f in RESIDUAL if f.prediction_domains[0].high == math.inf]


@pytest.mark.parametrize("formula", RESIDUAL, ids=lambda f: f.name)
def test_robust(formula):
    """Robust means that an outlying target pulls no harder the farther out it lies."""
    row = [1.5] * len(formula.predictions)

    def pull(t, parameters):
        return max(abs(g) for g in flat(formula.function(*row, t, *parameters)[1]))

    tolerant = []
    for variant in variants(formula):
        parameters = numbers(formula, variant)
        ends = (1.0, -1.0) if formula.target_domain.low < -1 else (1.0,)
        tolerant += [pull(s * 1e15, parameters) <= 1.01 * pull(s * 1e12, parameters) + 1e-9 for s in ends]
    assert all(tolerant) == formula.robust


def test_only_losses_of_a_residual_call_themselves_robust():
    assert {f.name for f in FORMULAS.values() if f.robust} <= {f.name for f in RESIDUAL}
