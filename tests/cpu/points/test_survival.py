"""Accelerated failure times: SciPy's distributions, 50 digits in the far tails and for narrow intervals, errors."""

import mpmath as mp
import numpy as np
import pytest

import fastloss as fl

mp.mp.dps = 60
WORDS = ["normal", "logistic", "extreme"]
each_word = pytest.mark.parametrize("word", WORDS)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def slopes(*arrays, **parameters):
    """Values, and derivatives of each by its own prediction."""
    values = fl.aft(*arrays, reduction="none", **parameters)
    return values, fl.aft.value_and_grad(*arrays, reduction="sum", **parameters)[1]


@each_word
def test_scipy_log_densities_and_tails(word, rng):
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    law = {"normal": stats.norm, "logistic": stats.logistic, "extreme": stats.gumbel_l}[word]
    n, sigma = 200, 0.7
    z, t = rng.normal(0, 3, n), rng.gamma(2.0, 3.0, n)
    log_t = law(loc=z, scale=sigma)
    seen = fl.aft(z, t, t, distribution=word, sigma=sigma, reduction="none")
    # The density of the time itself: that of its logarithm over the time.
    np.testing.assert_allclose(seen, np.log(t) - log_t.logpdf(np.log(t)), rtol=1e-12, atol=1e-12)
    after = fl.aft(z, t, np.full(n, np.inf), distribution=word, sigma=sigma, reduction="none")
    np.testing.assert_allclose(after, -log_t.logsf(np.log(t)), rtol=1e-11)
    before = fl.aft(z, np.zeros(n), t, distribution=word, sigma=sigma, reduction="none")
    if word != "extreme":  # whose logcdf loses its digits in the lower tail
        np.testing.assert_allclose(before, -log_t.logcdf(np.log(t)), rtol=1e-11, atol=1e-300)
    within = fl.aft(z, t, 2 * t, distribution=word, sigma=sigma, reduction="none")
    expected = log_t.cdf(np.log(2 * t)) - log_t.cdf(np.log(t))
    likely = expected > 1e-4
    np.testing.assert_allclose(within[likely], -np.log(expected[likely]), rtol=1e-10)


def exact(word, z, lower, upper, sigma):
    """The loss and its derivative, in 60 digits and more where tails need them."""
    z, sigma, lower = (mp.mpf(float(x)) for x in (z, sigma, lower))
    with mp.workdps(700):
        a = (mp.log(lower) - z) / sigma if lower else -mp.inf
        b = (mp.log(mp.mpf(float(upper))) - z) / sigma if np.isfinite(upper) else mp.inf
        density = {
            "normal": mp.npdf,
            "logistic": lambda x: mp.exp(-abs(x)) / (1 + mp.exp(-abs(x))) ** 2,
            "extreme": lambda x: mp.exp(x - mp.exp(x)),
        }[word]
        below = {
            "normal": mp.ncdf,
            "logistic": lambda x: 1 / (1 + mp.exp(-x)),
            "extreme": lambda x: -mp.expm1(-mp.exp(x)),
        }[word]
        above = {
            "normal": lambda x: mp.ncdf(-x),
            "logistic": lambda x: 1 / (1 + mp.exp(x)),
            "extreme": lambda x: mp.exp(-mp.exp(x)),
        }[word]
        at = [density(x) if abs(x) < mp.inf else mp.mpf(0) for x in (a, b)]
        if a == b:
            slope = {"normal": lambda x: -x, "logistic": lambda x: -mp.tanh(x / 2), "extreme": lambda x: 1 - mp.exp(x)}
            slope["extreme"] = lambda x: -mp.expm1(x)
            return mp.log(sigma) + mp.log(lower) - mp.log(density(a)), slope[word](a) / sigma
        if b == mp.inf:
            p = above(a)
        elif a == -mp.inf:
            p = below(b)
        else:
            p = below(b) - below(a) if a + b < 0 else above(a) - above(b)
        return -mp.log(p), (at[1] - at[0]) / p / sigma


@each_word
@each_dtype
def test_digits_of_intervals_wide_and_narrow_near_and_far(word, dtype):
    eps = float(np.finfo(dtype).eps)
    far = [-30.0, -8.0, -1.0, 0.0, 0.3, 2.0, 4.0, 20.0]
    rows = []
    for z in far:
        for lower, upper in (
            *((1.0, 1.0 + d) for d in (0.0, 2.0**-20, 2.0**-10, 0.125, 0.25, 0.3, 1.0, 8.0, 1e3)),
            *((1.0, np.inf), (0.0, 1.0), (0.0, 2.0), (3.0, np.inf)),
        ):
            rows.append((z, lower, upper))
    z, lower, upper = (np.array(c, dtype) for c in zip(*rows, strict=True))
    values, grad = slopes(z, lower, upper, distribution=word)
    for k in range(len(z)):
        value, slope = exact(word, z[k], lower[k], upper[k], 1.0)
        # Rounding of the two scaled ends, by which the loss changes as much as by the prediction.
        size = 1 + abs(z[k]) + 3
        case = word, z[k], lower[k], upper[k]
        if abs(value) > float(np.finfo(dtype).max):
            assert np.isposinf(values[k]), case
            assert np.isneginf(grad[k]), case
            continue
        assert abs(mp.mpf(float(values[k])) - value) <= 10 * eps * (abs(value) + abs(slope) * size + 1), case
        assert abs(mp.mpf(float(grad[k])) - slope) <= 40 * eps * (
            abs(slope) * (size if word == "extreme" else 1) + 1
        ), case


@each_word
@each_dtype
def test_finite_a_thousand_scales_away(word, dtype):
    z = np.array([1000.0, -1000.0] * 4, dtype)
    lower = np.repeat([1.0, 1.0, 0.0, 1.0], 2).astype(dtype)
    upper = np.repeat([1.0, np.inf, 1.0, 1.5], 2).astype(dtype)
    values, grad = slopes(z, lower, upper, distribution=word)
    assert not np.isnan(values).any()
    assert not np.isnan(grad).any()
    explode = np.array([word == "extreme"]) & (z < 0) & (lower > 0)
    assert np.isfinite(values[~explode]).all()
    assert np.isfinite(grad[~explode]).all()
    # exp(1000) does not fit.
    assert np.isposinf(values[explode]).all()
    far = {"normal": [5e5, 5e5, 0, 5e5, 5e5, 0], "logistic": [1e3, 1e3, 0, 1e3, 1e3, 0]}.get(
        word, [1e3, np.inf, 0, np.inf, 1e3, 0]
    )
    np.testing.assert_allclose(values[:6], far, rtol=1e-4, atol=1e-30)


@each_word
def test_bounds_that_say_nothing(word):
    value, grad = fl.aft.value_and_grad(np.array([0.3, -700.0]), np.zeros(2), np.full(2, np.inf), distribution=word)
    assert value == 0.0
    assert not grad.any()
    # A time of 0 cannot be seen.
    values, grad = slopes(np.array([0.3]), np.zeros(1), np.zeros(1), distribution=word)
    assert np.isposinf(values).all()
    assert (grad > 0).all()


@each_word
def test_an_interval_about_to_close_is_a_time_that_was_seen(word):
    z, t, d = np.array([0.4]), np.array([2.0]), 2.0**-40
    seen, by_seen = slopes(z, t, t, distribution=word, sigma=0.5)
    within, by_within = slopes(z, t, t * (1 + d), distribution=word, sigma=0.5)
    np.testing.assert_allclose(within + np.log(t * d), seen, rtol=1e-11)
    np.testing.assert_allclose(by_within, by_seen, rtol=1e-10)


@each_word
def test_nan_comes_through(word):
    given = [np.array([0.3, 0.3]), np.array([1.0, 1.0]), np.array([2.0, 2.0])]
    for k in range(3):
        arrays = [a.copy() for a in given]
        arrays[k][1] = np.nan
        values, grad = slopes(*arrays, distribution=word)
        assert np.isfinite(values[0])
        assert np.isnan(values[1])
        assert np.isnan(grad[1])


def test_errors():
    z = np.zeros((2, 2))
    lower, upper = np.ones((2, 2)), np.full((2, 2), 2.0)
    upper[1, 0] = 0.5
    with pytest.raises(ValueError, match=r"aft: lower\[1, 0\] is 1.0; allowed: at most upper\[1, 0\], which is 0.5"):
        fl.aft(z, lower, upper)
    with pytest.raises(ValueError, match=r"aft: lower\[0, 1\] is -1; allowed: \[0, inf\)"):
        fl.aft(z, np.array([[0.0, -1.0], [0.0, 0.0]]), lower)
    with pytest.raises(ValueError, match=r"aft: distribution is 'weibull'; allowed: 'normal', 'logistic', 'extreme'"):
        fl.aft(z, lower, lower, distribution="weibull")
    with pytest.raises(ValueError, match=r"aft: sigma is 0; allowed: \(0, inf\)"):
        fl.aft(z, lower, lower, sigma=0)
