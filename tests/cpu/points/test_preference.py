"""Losses of preferences and policies: the definitions of TRL in torch, 50 digits at saturation, missing inputs."""

import math

import mpmath as mp
import numpy as np
import pytest

import fastloss as fl

mp.mp.dps = 50
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def slopes(name, *arrays, **parameters):
    """Values, and derivatives of each by its own numbers."""
    loss = fl.LOSSES[name]
    grads = loss.value_and_grad(*arrays, reduction="sum", **parameters)[1]
    return loss(*arrays, reduction="none", **parameters), grads if isinstance(grads, tuple) else (grads,)


# As TRL writes them --------------------------------------------------------------------------------------------------


def trl_dpo(torch, F, c, r, rc, rr, beta, label_smoothing):
    logits = (c - r) - (rc - rr)
    return -F.logsigmoid(beta * logits) * (1 - label_smoothing) - F.logsigmoid(-beta * logits) * label_smoothing


def trl_ipo(torch, F, c, r, rc, rr, beta):
    return ((c - r) - (rc - rr) - 1 / (2 * beta)) ** 2


def trl_simpo(torch, F, c, r, beta, gamma):
    return -F.logsigmoid(beta * (c - r - gamma / beta))


def trl_orpo(torch, F, c, r, lam):
    log_odds = (c - r) - (torch.log1p(-torch.exp(c)) - torch.log1p(-torch.exp(r)))
    return -c - lam * F.logsigmoid(log_odds)


def trl_kto(torch, F, p, ref, desirable, kl, beta, lambda_d, lambda_u):
    kl = kl.clamp(min=0)
    wanted = 1 - torch.sigmoid(beta * (p - ref - kl))
    unwanted = 1 - torch.sigmoid(beta * (kl - (p - ref)))
    return torch.where(desirable, lambda_d * wanted, lambda_u * unwanted)


def trl_ppo(torch, F, p, old, advantage, clip, clip_high):
    ratio = torch.exp(p - old)
    return torch.max(-advantage * ratio, -advantage * torch.clamp(ratio, 1 - clip, 1 + clip_high))


def trl_reinforce(torch, F, p, reward, baseline, entropy, entropy_weight):
    return -(reward - baseline) * p - entropy_weight * entropy


TRL = {
    "dpo": (trl_dpo, 2, 4, {"beta": 0.3, "label_smoothing": 0.1}),
    "ipo": (trl_ipo, 2, 4, {"beta": 0.3}),
    "simpo": (trl_simpo, 2, 2, {"beta": 2.5, "gamma": 0.8}),
    "orpo": (trl_orpo, 2, 2, {"lam": 0.25}),
    "kto": (trl_kto, 1, 4, {"beta": 0.3, "lambda_d": 1.2, "lambda_u": 0.8}),
    "ppo_clip": (trl_ppo, 1, 3, {"clip": 0.2, "clip_high": 0.28}),
    "reinforce": (trl_reinforce, 1, 4, {"entropy_weight": 0.02}),
}


@pytest.mark.parametrize("name", TRL)
def test_values_and_gradients_of_the_definition_in_torch(name, rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    definition, differentiable, count, parameters = TRL[name]
    arrays = [-rng.gamma(2.0, 1.0, 200) for _ in range(count)]
    if name == "kto":
        arrays[2], arrays[3] = rng.random(200) < 0.5, rng.normal(size=200)
    if name in ("ppo_clip", "reinforce"):
        arrays[2] = rng.normal(size=200)
    positions = [0, 3] if name == "reinforce" else range(differentiable)
    tensors = [torch.from_numpy(a) for a in arrays]
    for k in positions:
        tensors[k].requires_grad_()
    expected = definition(torch, torch.nn.functional, *tensors, **parameters)
    exact = torch.autograd.grad(expected.sum(), [tensors[k] for k in positions])
    values, grads = slopes(name, *arrays, **parameters)
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    assert len(grads) == len(exact)
    for a, b in zip(grads, exact, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


# At saturation -------------------------------------------------------------------------------------------------------


def near(got, expected, dtype, ulp):
    """Whether a number of some precision is right to a few units in the last place."""
    eps, least = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    return abs(mp.mpf(float(got)) - expected) <= ulp * eps * max(abs(expected), least)


MARGINS = [-1000.0, -100.0, -30.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 30.0, 80.0, 1000.0]


@each_dtype
def test_pairs_keep_their_digits_at_any_margin(dtype):
    margin = np.array(MARGINS, dtype)
    zero = np.zeros_like(margin)
    for smoothing in (0.0, 0.125):
        values, (by_chosen, by_rejected) = slopes("dpo", margin, zero, zero, zero, beta=0.5, label_smoothing=smoothing)
        others, _ = slopes("simpo", zero, -margin, beta=0.5, gamma=0.0)
        np.testing.assert_array_equal(by_chosen, -by_rejected)
        for k, m in enumerate(margin):
            h = mp.mpf(float(m)) / 2
            good, bad = mp.log1p(mp.exp(-h)), mp.log1p(mp.exp(h))
            assert near(values[k], (1 - smoothing) * good + smoothing * bad, dtype, 6)
            slope = smoothing / (1 + mp.exp(-h)) / 2 - (1 - smoothing) / (1 + mp.exp(h)) / 2
            error = abs(mp.mpf(float(by_chosen[k])) - slope)
            assert error <= 6 * float(np.finfo(dtype).eps) * (abs(slope) if smoothing == 0.0 else 0.5) + 1e-43
            if smoothing == 0.0:
                assert near(others[k], good, dtype, 6)


@each_dtype
def test_answers_keep_their_digits_at_any_distance(dtype):
    r = np.array(MARGINS, dtype)
    zero = np.zeros_like(r)
    for wanted in (True, False):
        values, (by_policy,) = slopes("kto", r, zero, np.full(r.size, wanted), 0.25, beta=0.5)
        for k, x in enumerate(r):
            h = (mp.mpf(float(x)) - 0.25) / 2 * (1 if wanted else -1)
            assert near(values[k], 1 / (1 + mp.exp(h)), dtype, 8)
            slope = (-1 if wanted else 1) / (1 + mp.exp(h)) / (1 + mp.exp(-h)) / 2
            assert near(by_policy[k], slope, dtype, 10)


def orpo_exact(c, r):
    """The odds term and its derivatives, for log-probabilities below 0."""
    p, q = mp.exp(c), mp.exp(r)
    odds = (c - r) - (mp.log1p(-p) - mp.log1p(-q))
    s = 1 / (1 + mp.exp(odds))
    return mp.log1p(mp.exp(-odds)), -s / (1 - p), s / (1 - q)


@each_dtype
def test_odds_keep_their_digits_near_one_and_near_zero(dtype):
    points = [-1e-30, -1e-7, -1e-3, -0.5, -0.6931472, -1.0, -10.0, -80.0, -1000.0]
    c, r = (x.ravel().astype(dtype) for x in np.meshgrid(points, points))
    values, (by_chosen, by_rejected) = slopes("orpo", c, r, lam=1.0)
    eps = float(np.finfo(dtype).eps)
    for k in range(c.size):
        x, y = mp.mpf(float(c[k])), mp.mpf(float(r[k]))
        odds, dc, dr = orpo_exact(x, y)
        # Rounding of the log odds, which may be as large as both together.
        size = 1 + abs(x) + abs(y) + abs(mp.log(-mp.expm1(x))) + abs(mp.log(-mp.expm1(y)))
        assert abs(mp.mpf(float(values[k])) - (odds - x)) <= 4 * eps * (abs(odds) * size + abs(x))
        assert abs(mp.mpf(float(by_chosen[k])) - (dc - 1)) <= 4 * eps * size * abs(dc - 1)
        assert abs(mp.mpf(float(by_rejected[k])) - dr) <= 4 * eps * size * dr + float(np.finfo(dtype).tiny)


@each_dtype
def test_certain_and_impossible_answers(dtype):
    c = np.array([0.0, 0.0, -1.0, -np.inf, -1.0, -np.inf], dtype)
    r = np.array([-1.0, 0.0, 0.0, -1.0, -np.inf, -np.inf], dtype)
    values, (by_chosen, by_rejected) = slopes("orpo", c, r, lam=1.0)
    # Both certain: the odds are equal. A rejected answer that is certain costs without bound.
    np.testing.assert_allclose(values[[0, 1, 4]], [0.0, math.log(2), 1.0], rtol=1e-6)
    assert np.isposinf(values[[2, 3, 5]]).all()
    q = math.exp(-1)
    by_both = [-1 - q / (1 - q), -np.inf, -1 - 1 / (1 - q), -2, -1, -1.5]
    np.testing.assert_allclose(by_chosen, by_both, rtol=2e-6)
    np.testing.assert_allclose(by_rejected, [0, np.inf, np.inf, 1 / (1 - q), 0, 0.5], rtol=2e-6)
    # The odds ratio switched off leaves the likelihood.
    values, (by_chosen, by_rejected) = slopes("orpo", c, r, lam=0.0)
    np.testing.assert_array_equal(values, -c)
    np.testing.assert_array_equal(by_chosen, -np.ones(6))
    assert not by_rejected.any()


@pytest.mark.parametrize("name", ["dpo", "simpo", "ipo"])
def test_nan_comes_through(name):
    count = len(fl.LOSSES[name].record.inputs)
    for k in range(count):
        arrays = [np.array([-1.0, -2.0]) for _ in range(count)]
        arrays[k][1] = np.nan
        values, grads = slopes(name, *arrays)
        assert np.isfinite(values[0])
        assert np.isnan(values[1])
        assert all(np.isnan(g[1]) for g in grads)


def test_relations(rng):
    c, r, rc, rr = (rng.normal(-10, 3, 40) for _ in range(4))
    zero = np.zeros(40)
    # Without a reference and with the margin shifted, dpo is simpo; smoothed evenly, it takes no side.
    np.testing.assert_allclose(
        fl.simpo(c, r, beta=0.7, gamma=0.35, reduction="none"),
        fl.dpo(c, r + 0.5, zero, zero, beta=0.7, reduction="none"),
    )
    even = {"label_smoothing": 0.5, "reduction": "none"}
    np.testing.assert_allclose(fl.dpo(c, r, rc, rr, **even), fl.dpo(r, c, rr, rc, **even), rtol=1e-13)
    # At the reference itself, dpo is log 2 and ipo (1 / (2 beta))^2.
    assert fl.dpo(c, r, c, r) == pytest.approx(math.log(2), rel=1e-15)
    assert fl.ipo(c, r, c, r, beta=0.1) == pytest.approx(25.0, rel=1e-15)
    assert fl.kto(c, c, np.ones(40, bool)) == 0.5


# Policies ------------------------------------------------------------------------------------------------------------


@each_dtype
def test_the_ratio_is_clipped_where_that_is_worse(dtype):
    ratio = np.array([0.5, 0.8, 1.0, 1.2, 2.0] * 2)
    advantage = np.repeat([1.0, -1.0], 5).astype(dtype)
    log_prob = np.log(ratio).astype(dtype)
    values, (grad,) = slopes("ppo_clip", log_prob, np.zeros(10, dtype), advantage, clip=0.25)
    np.testing.assert_allclose(values, [-0.5, -0.8, -1, -1.2, -1.25, 0.75, 0.8, 1, 1.2, 2], rtol=1e-6)
    np.testing.assert_allclose(grad, [-0.5, -0.8, -1, -1.2, 0, 0, 0.8, 1, 1.2, 2], rtol=1e-6)


@each_dtype
def test_ratios_without_bound(dtype):
    log_prob = np.array([1000.0, -1000.0, 1000.0, -1000.0, 1000.0, -np.inf], dtype)
    advantage = np.array([2.0, 2.0, -1.0, -1.0, 0.0, 0.0], dtype)
    values, (grad,) = slopes("ppo_clip", log_prob, np.zeros(6, dtype), advantage)
    np.testing.assert_allclose(values, [-2.4, 0, np.inf, 0.8, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(grad, [0, 0, np.inf, 0, 0, 0])


def test_clip_high_none_is_symmetric(rng):
    arrays = [rng.normal(size=30) for _ in range(3)]
    assert fl.ppo_clip(*arrays, clip=0.3) == fl.ppo_clip(*arrays, clip=0.3, clip_high=0.3)
    assert fl.ppo_clip(*arrays, clip=0.3, clip_high=None) != fl.ppo_clip(*arrays, clip=0.3, clip_high=0.9)


def test_what_is_not_given_counts_zero(rng):
    p, reward, entropy = (rng.normal(size=12) for _ in range(3))
    value, grad = fl.reinforce.value_and_grad(p, reward)
    assert value == pytest.approx(-(reward * p).mean())
    np.testing.assert_allclose(grad, -reward / 12)
    value, (grad, by_entropy) = fl.reinforce.value_and_grad(p, reward, entropy=entropy, entropy_weight=0.5)
    assert value == pytest.approx(-(reward * p + 0.5 * entropy).mean())
    np.testing.assert_allclose(by_entropy, np.full(12, -0.5 / 12))
    # One baseline for all.
    assert fl.reinforce(p, reward, 0.3) == pytest.approx(fl.reinforce(p, reward, np.full(12, 0.3)))
    assert fl.self_critical(p, reward, np.full(12, 0.3)) == fl.reinforce(p, reward, 0.3)
    wanted = rng.random(12) < 0.5
    assert fl.kto(p, reward, wanted) == fl.kto(p, reward, wanted, np.zeros(12)) == fl.kto(p, reward, wanted, -3.0)
    assert fl.kto(p, reward, wanted) == fl.kto(p, reward, wanted.astype(np.int64))
    assert fl.kto(p, reward, wanted) != fl.kto(p, reward, wanted, 0.5)


def test_an_impossible_sample_of_no_advantage_counts_zero():
    p = np.array([-np.inf, -1.0])
    for name in ("reinforce", "self_critical"):
        value, grad = fl.LOSSES[name].value_and_grad(p, np.array([0.5, 1.0]), np.array([0.5, 0.0]))
        assert value == 0.5
        np.testing.assert_array_equal(grad, [0.0, -0.5])
        assert np.isposinf(fl.LOSSES[name](p, np.ones(2), np.zeros(2)))


@each_dtype
def test_minimum_risk_of_shen_et_al(rng, dtype):
    torch = pytest.importorskip("torch")
    log_prob, reward = rng.normal(-30, 10, (6, 5)).astype(dtype), rng.random((6, 5)).astype(dtype)
    p = torch.tensor(log_prob, dtype=torch.float64, requires_grad=True)
    # Probabilities to the power alpha, renormalised over the list; the cost is 1 - reward, apart from the constant 1.
    q = (0.2 * p).exp() / (0.2 * p).exp().sum(dim=1, keepdim=True)
    expected = (q * (1 - torch.tensor(reward).double())).sum(dim=1)
    expected.mean().backward()
    values = fl.minimum_risk(log_prob, reward, alpha=0.2, reduction="none")
    np.testing.assert_allclose(values + 1, expected.detach(), rtol=1e-12 if dtype is np.float64 else 1e-6)
    grad = fl.minimum_risk.value_and_grad(log_prob, reward, alpha=0.2)[1]
    np.testing.assert_allclose(grad, p.grad, rtol=1e-9 if dtype is np.float64 else 1e-5, atol=1e-12)


def test_padding_of_lists_counts_nothing(rng):
    log_prob, reward = rng.normal(-30, 10, (1, 3)), rng.random((1, 3))
    value, grad = fl.minimum_risk.value_and_grad(log_prob, reward)
    more = [np.append(log_prob, [[-np.inf]], axis=1), np.append(reward, [[np.nan]], axis=1)]
    padded, wide = fl.minimum_risk.value_and_grad(*more)
    assert padded == value
    np.testing.assert_array_equal(wide, np.append(grad, [[0.0]], axis=1))
    # The gradient moves probability towards candidates that are better than the mean, and is 0 in sum.
    assert (np.sign(-grad) == np.sign(reward + value)).all()
    assert grad.sum() == pytest.approx(0.0, abs=1e-17)


def test_tokens_of_sequences(rng):
    p, old, advantage = (rng.normal(size=(3, 5)) for _ in range(3))
    mask = rng.random((3, 5)) < 0.6
    values = fl.ppo_clip(p, old, advantage, reduction="none")
    assert values.shape == (3, 5)
    value, grad = fl.ppo_clip.value_and_grad(p, old, advantage, weight=mask.astype(float))
    assert value == pytest.approx(values[mask].mean())
    assert not grad[~mask].any()


def test_errors():
    p = np.array([-1.0, -2.0])
    with pytest.raises(ValueError, match=r"orpo: rejected\[1\] is 0.5; allowed: \(-inf, 0\]"):
        fl.orpo(p, np.array([-1.0, 0.5]))
    with pytest.raises(ValueError, match=r"dpo: beta is 0; allowed: \(0, inf\)"):
        fl.dpo(p, p, p, p, beta=0)
    with pytest.raises(ValueError, match=r"kto: desirable\[1\] is 2; allowed: 0 or 1"):
        fl.kto(p, p, np.array([0, 2]))
    with pytest.raises(ValueError, match=r"ppo_clip: clip is 1.5; allowed: \[0, 1\]"):
        fl.ppo_clip(p, p, p, clip=1.5)
    with pytest.raises(TypeError, match="self_critical needs baseline"):
        fl.self_critical(p, p)
    with pytest.raises(ValueError, match=r"ipo: ref_rejected has shape \(3,\); expected \(2,\)"):
        fl.ipo(p, p, p, np.zeros(3))
