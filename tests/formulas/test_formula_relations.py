"""Relations between formulas: limits, special cases, and the least loss at the target."""

import math

import pytest
from formula_cases import CASES, points, run
from sampling import numbers

from fastloss.spec import vocabulary


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
