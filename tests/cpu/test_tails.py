"""The far ends of domains, by mpmath: where a factor underflows or overflows though the result does not."""

import mpmath as mp
import numpy as np
import pytest

import fastloss as fl

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True)
def digits():
    """Eighty digits for every test, whatever other modules have set."""
    with mp.workdps(80):
        yield


def assert_near(got, expected, dtype, ulp=4):
    """Right to some units in the last place, a few smallest normal numbers, or infinite where it must overflow."""
    info = np.finfo(dtype)
    for k, (x, e) in enumerate(zip(np.ravel(got), expected, strict=True)):
        if abs(e) > float(info.max):
            assert float(x) == (np.inf if e > 0 else -np.inf), (k, x, e)
        else:
            error = abs(mp.mpf(float(x)) - e)
            assert error <= ulp * float(info.eps) * abs(e) + 4 * float(info.tiny), (k, float(x), mp.nstr(e, 20))


def subnormals(dtype):
    """The smallest numbers, some of which have no digit to lose."""
    least = np.finfo(dtype).smallest_subnormal
    return np.array([1, 2, 3, 5, 1000], dtype) * least


@each_dtype
def test_survival_of_extreme_values_far_below_the_bounds(dtype):
    # The hazard exp(a) is subnormal there.
    far = [84, 87, 90, 95, 99, 100, 101, 103, 103.5, 104, 105, 300]
    if dtype is np.float64:
        far = [700, 708, 720, 731, 735, 740, 744, 745, 746, 1000]
    bounds = [(1.0, 1.0 + 2.0**-20), (1.0, 1.125), (1.0, 2.0), (1.0, 1e3), (0.0, 1.0), (0.0, 2.0), (1.0, np.inf)]
    z, lower, upper = np.array([(z, *b) for z in far for b in bounds], dtype).T.copy()
    loss = fl.aft.bind(distribution="extreme")
    values, slopes = loss(z, lower, upper, reduction="none"), loss.value_and_grad(z, lower, upper, reduction="sum")[1]
    wanted, wanted_slopes = [], []
    for x, low, high in zip(z, lower, upper, strict=True):
        a = mp.exp((mp.log(float(low)) if low else -mp.inf) - float(x))
        gap = (mp.log(float(high)) if high < np.inf else mp.inf) - float(x)
        difference = mp.exp(gap) - a
        wanted.append(a - mp.log(-mp.expm1(-difference)) if high < np.inf else a)
        wanted_slopes.append(-a + (difference / mp.expm1(difference) if high < np.inf else 0))
    assert_near(values, wanted, dtype)
    assert_near(slopes, wanted_slopes, dtype)


@each_dtype
def test_slope_of_an_interval_about_the_middle_of_a_logistic_distribution(dtype):
    lower = np.array([1.0, 1.0, 0.5, 0.5], dtype)
    upper = np.array([1 + 2.0**-20, 1 + 2.0**-10, 2.0, 4.0], dtype)
    z = np.array([2.0**-10, 2.0**-21, -(2.0**-20), 2.0**-20], dtype)
    grad = fl.aft.value_and_grad(z, lower, upper, distribution="logistic", reduction="sum")[1]
    wanted = []
    for x, low, high in zip(z, lower, upper, strict=True):
        a, b = (mp.mpf(float(np.log(t))) - mp.mpf(float(x)) for t in (low, high))
        wanted.append(1 / (1 + mp.exp(b)) - 1 / (1 + mp.exp(-a)))
    np.testing.assert_allclose(grad, [float(w) for w in wanted], rtol=16 * np.finfo(dtype).eps)


@each_dtype
def test_jensen_shannon_of_subnormal_probabilities(dtype):
    lowest = [-80, -87.5, -100, -103, -103.5, -103.9, -104.5] if dtype is np.float32 else [-700, -744, -744.7, -746]
    lp, t = (x.ravel() for x in np.meshgrid(np.array(lowest, dtype), [0.0, *subnormals(dtype), 1e-30, 1.0]))
    lp, t = lp.astype(dtype), t.astype(dtype)
    for beta in (0.5, 1e-3, 1 - 2.0**-30):
        loss = fl.js_div.bind(beta=beta)
        values, slopes = loss.value_and_grad(lp[:, None], t[:, None], reduction="none")
        beta = mp.mpf(float(dtype(beta)))
        wanted, wanted_slopes = [], []
        for x, y in zip(lp, t, strict=True):
            x, y = mp.mpf(float(x)), mp.mpf(float(y))
            p = mp.exp(x)
            m = beta * y + (1 - beta) * p
            pull = (1 - beta) * p * (x - mp.log(m)) if beta < 1 else mp.mpf(0)
            wanted.append((beta * y * mp.log(y / m) if y else 0) + pull)
            wanted_slopes.append(pull)
        eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
        for got, exact in ((values, wanted), (slopes, wanted_slopes)):
            for x, e, a, b in zip(np.ravel(got), exact, lp, t, strict=True):
                # The logarithms have the errors of their size; subnormal probabilities may count as 0.
                size = abs(a) * (mp.exp(float(a)) + float(b)) - (float(b) * mp.log(float(b)) if b else 0)
                assert np.isfinite(x)
                assert abs(mp.mpf(float(x)) - e) <= 8 * eps * size + 2 * float(abs(lp).max()) * tiny, (
                    float(a),
                    float(b),
                    x,
                    e,
                )


@each_dtype
def test_divergence_of_underflowing_probabilities_from_a_target_of_0(dtype):
    # A finite log-probability is that of a probability above 0, whatever its exponential rounds to.
    lp = np.array([[-1.0, 0.0], [-200.0, 0.0], [-1e4, 0.0], [-np.inf, 0.0], [-1e4, 0.0]], dtype)
    t = np.array([[0, 1], [0, 1], [0, 1], [0, 1], [1, 1]], dtype)
    values, grad = fl.reverse_kl.value_and_grad(lp, t, reduction="none")
    np.testing.assert_array_equal(values, [np.inf] * 3 + [0.0] * 2)
    np.testing.assert_array_equal(grad[:, 0], [np.inf] * 3 + [0.0] * 2)
    np.testing.assert_array_equal(fl.reverse_kl.grad_and_hess(lp, t)[1][:, 0], [np.inf] * 3 + [0.0] * 2)


@each_dtype
def test_likelihood_of_extreme_variances(dtype):
    variances = [-800, -354, -200, -178, -100, -88, -81, -60, 60, 100, 200, 1000]
    residuals = [0.0, float(np.finfo(dtype).tiny), 1e-30, 1.0, 1e15]
    r, s = (x.ravel().astype(dtype) for x in np.meshgrid(residuals, variances))
    zero = np.zeros_like(r)
    for beta in (0.0, 0.5, 1.0):
        loss = fl.gaussian_nll.bind(log_var=True, beta=beta)
        values, first = loss.value_and_grad((r, s), zero, reduction="none")
        second = loss.grad_and_hess((r, s), zero)[1]
        fisher = loss.grad_and_hess((r, s), zero, curvature="surrogate")[1]
        columns = {k: [] for k in range(7)}
        for x, y in zip(r, s, strict=True):
            x, y = mp.mpf(float(x)), mp.mpf(float(y))
            w, precision = mp.exp(beta * y), mp.exp((beta - 1) * y)
            square = x * x * precision
            found = (w * y + square) / 2, x * precision, (w - square) / 2, precision, square / 2, precision, w / 2
            for k, e in enumerate(found):
                columns[k].append(e)
        for k, got in enumerate((values, *first, *second, *fisher)):
            # A difference of two terms has the errors of both; inputs 1e3 apart in size cost as many roundings.
            size = [max(abs(e), mp.exp(beta * float(y))) if k in (0, 2) else e for e, y in zip(columns[k], s)]  # noqa: B905
            for x, e, b in zip(got, columns[k], size, strict=True):
                if abs(e) > float(np.finfo(dtype).max):
                    assert x == np.finfo(dtype).max if k > 4 else np.isinf(x), (k, x, e)
                else:
                    error = abs(mp.mpf(float(x)) - e)
                    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
                    assert error <= 300 * eps * abs(b) * (1 if beta else 0.03) + 4 * tiny, (k, x, mp.nstr(e, 9))


@each_dtype
def test_likelihood_keeps_slopes_that_do_not_overflow_with_it(dtype):
    r = dtype(1e30 if dtype is np.float32 else 1e250)
    v = dtype(1e21 if dtype is np.float32 else 1e180)
    pair = np.array([r]), np.array([v])
    zero = np.zeros(1, dtype)
    value, first = fl.gaussian_nll.value_and_grad(pair, zero, reduction="none")
    second = fl.gaussian_nll.grad_and_hess(pair, zero)[1]
    x, y = mp.mpf(float(r)), mp.mpf(float(v))
    exact = [(mp.log(y) + x * x / y) / 2, x / y, (1 / y - x * x / y**2) / 2, 1 / y, x * x / y**3 - 1 / (2 * y * y)]
    for got, e in zip((value, *first, *second), exact, strict=True):
        assert_near(got, [e], dtype)


@each_dtype
def test_slope_of_a_negative_binomial_with_a_large_mean(dtype):
    mean, r, t = np.array(
        [
            (m, r, t)
            for m in (1e3, 1e7, 1e9, 1e15, 1e30)
            for r in (0.01, 15.0, 17.0, 20.0, 1e4)
            for t in (0.0, 1.0, 50.0)
        ],
        dtype,
    ).T.copy()
    first = fl.negative_binomial_nll.grad_and_hess((mean, r), t)[0]
    wanted = [], []
    for m, n, y in zip(mean, r, t, strict=True):
        m, n, y = (mp.mpf(float(x)) for x in (m, n, y))
        wanted[0].append((m - y) / m * n / (n + m))
        wanted[1].append(mp.digamma(n) - mp.digamma(n + y) - mp.log(n / (n + m)) - 1 + (n + y) / (n + m))
    assert_near(first[0], wanted[0], dtype, 8)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(first[1], [float(w) for w in wanted[1]], rtol=16 * eps, atol=16 * eps)


@each_dtype
def test_odds_of_answers_that_are_all_but_certain(dtype):
    least = -np.append(subnormals(dtype), [np.finfo(dtype).tiny, 1e-30, 100.0]).astype(dtype)
    chosen, rejected = (x.ravel() for x in np.meshgrid(least, least))
    values = fl.orpo(chosen, rejected, reduction="none", lam=1.0)
    grads = fl.orpo.value_and_grad(chosen, rejected, reduction="sum", lam=1.0)[1]
    wanted = [], [], []
    with mp.workdps(700):
        for c, r in zip(chosen, rejected, strict=True):
            c, r = mp.mpf(float(c)), mp.mpf(float(r))
            ratio = mp.exp(r - c) * mp.expm1(c) / mp.expm1(r)
            s = ratio / (1 + ratio)
            found = mp.log1p(ratio) - c, -1 + s / mp.expm1(c), -s / mp.expm1(r)
            for k, e in enumerate(found):
                wanted[k].append(e)
    for got, e in zip((values, *grads), wanted, strict=True):
        assert_near(got, e, dtype, 128 if dtype is np.float32 else 1024)


def box_loss(name, box, target, centred, alpha=None):
    """The definition of a loss of boxes at some digits, and the factor of ciou, which may be given."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = (
        (b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2) if centred else b for b in (box, target)
    )
    w, h, tw, th = x2 - x1, y2 - y1, u2 - u1, v2 - v1
    shared = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
    union = w * h + tw * th - shared
    cw, ch = max(x2, u2) - min(x1, u1), max(y2, v2) - min(y1, v1)
    dx, dy = (x1 + x2 - u1 - u2) / 2, (y1 + y2 - v1 - v2) / 2
    loss = 1 - shared / union
    if name == "giou":
        return loss + 1 - union / (cw * ch), None
    if name == "siou":
        gamma = 2 - 2 * abs(dx * dy) / (dx * dx + dy * dy)
        cost = -mp.expm1(-gamma * (dx / cw) ** 2) - mp.expm1(-gamma * (dy / ch) ** 2)
        cost += sum((-mp.expm1(-abs(a - b) / max(a, b))) ** 4 for a, b in ((w, tw), (h, th)))
        return loss + cost / 2, None
    aspect = 4 / mp.pi**2 * (mp.atan(tw / th) - mp.atan(w / h)) ** 2
    if alpha is None:
        alpha = aspect / (loss + aspect) if name == "ciou" else 0
    if name != "iou":
        loss += (dx * dx + dy * dy) / (cw * cw + ch * ch)
    return loss + alpha * aspect, alpha


@each_dtype
@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou", "siou"])
def test_gradients_of_boxes_far_apart(name, dtype):
    places = [(x, y) for x in (0.125, -40.0, 1e3, 2.0**20, -(2.0**27)) for y in (0.25, -3e4, 2.0**20)]
    box = [0.0, 0.0, 1.5, 1.0]
    step = mp.mpf(10) ** -25
    for word in ("xyxy", "cxcywh"):
        # Corners far away are rounded: the boxes are what they have become.
        b = np.array([[x, y, 1.0, 2.0] if word == "cxcywh" else [x, y, x + 16, y + 16] for x, y in places], dtype)
        a = np.array([box] * len(b), dtype)
        loss = fl.LOSSES[name].bind(box_format=word)
        values, grad = loss(a, b, reduction="none"), loss.value_and_grad(a, b, reduction="sum")[1]
        for k in range(len(a)):
            one, other = ([mp.mpf(float(x)) for x in c[k]] for c in (a, b))
            value, alpha = box_loss(name, one, other, word == "cxcywh")
            slopes = []
            for i in range(4):
                moved = ([x + s * (j == i) for j, x in enumerate(one)] for s in (step, -step))
                ahead, behind = (box_loss(name, x, other, word == "cxcywh", alpha)[0] for x in moved)
                slopes.append((ahead - behind) / (2 * step))
            assert_near(values[k], [value], dtype, 8)
            # The slope by a coordinate has the errors of the terms that pull and push.
            assert_near(grad[k], slopes, dtype, 64)


@pytest.mark.parametrize("tiny", [1e-320, 1e-310])
def test_subnormal_parameters_that_may_be_0_are_as_0(tiny):
    z, t = np.array([0.5, 0.0, -3.0]), np.zeros(3)
    for name, parameter in (("smooth_l1", "beta"), ("barron", "alpha")):
        loss = fl.LOSSES[name]
        for mode in (loss.value_and_grad, lambda *a, f=loss, **k: f.grad_and_hess(*a, curvature="surrogate", **k)[:1]):
            for got, expected in zip(mode(z, t, **{parameter: tiny}), mode(z, t, **{parameter: 0.0}), strict=True):
                np.testing.assert_array_equal(got, expected)
