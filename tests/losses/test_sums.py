"""Sums of losses: against their formulas in NumPy, weights without compilation, names, pickles, errors."""

import pickle

import numpy as np
import pytest

import fastloss as fl
from fastloss.cpu import dispatch

RANDOM = np.random.default_rng(0)
Z, T = RANDOM.standard_normal((2, 500))
LABELS = (T > 0).astype(float)
R = Z - T


def huber(r, delta=1.0):
    """Value, first and second derivative."""
    near = np.abs(r) <= delta
    return (
        np.where(near, 0.5 * r * r, delta * (np.abs(r) - 0.5 * delta)),
        np.where(near, r, delta * np.sign(r)),
        np.where(near, 1.0, 0.0),
    )


def pinball(r, q):
    return np.where(r < 0, -q * r, (1 - q) * r), np.where(r < 0, -q, 1 - q)


def total(mse, mae, huber_weight=0.0, delta=1.0):
    """Value, first and second derivative of a sum of three."""
    h = huber(R, delta)
    return (
        mse * R * R + mae * np.abs(R) + huber_weight * h[0],
        2 * mse * R + mae * np.sign(R) + huber_weight * h[1],
        2 * mse + 0 * R + huber_weight * h[2],
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_value_gradient_and_curvature(dtype):
    loss = 0.7 * fl.mse + 0.3 * fl.mae - 0.2 * fl.huber
    value, slope, bend = total(0.7, 0.3, -0.2, 0.6)
    close = {"rtol": 1e-12 if dtype == "float64" else 1e-4, "atol": 1e-12 if dtype == "float64" else 1e-5}
    z, t = Z.astype(dtype), T.astype(dtype)
    found, grad = loss.value_and_grad(z, t, delta=0.6)
    assert grad.dtype == dtype
    np.testing.assert_allclose(found, value.mean(), **close)
    np.testing.assert_allclose(grad, slope / Z.size, **close)
    np.testing.assert_allclose(loss.bind(delta=0.6)(z, t, reduction="none"), value, **close)
    first, second = loss.grad_and_hess(z, t, delta=0.6)
    np.testing.assert_allclose(first, slope, **close)
    np.testing.assert_allclose(second, bend, **close)


def test_curvature_of_surrogates():
    second = (fl.mse + 0.5 * fl.mae).grad_and_hess(Z, T, curvature="surrogate")[1]
    np.testing.assert_allclose(second, 2.5)


def test_weights_reductions_and_outputs():
    loss, weight, out = 0.5 * fl.mse + fl.mae, np.abs(T), np.empty_like(Z)
    value, slope, _ = total(0.5, 1.0)
    found, grad = loss.value_and_grad(Z, T, weight=weight, out=out)
    assert grad is out
    assert found == pytest.approx((weight * value).sum() / weight.sum())
    np.testing.assert_allclose(out, weight * slope / weight.sum())
    assert loss(Z, T, reduction="sum") == pytest.approx(value.sum())
    assert loss(Z, T, divisor=10.0) == pytest.approx(value.sum() / 10)
    worst = np.sort(value)[-50:].mean()
    assert loss(Z, T, reduction=fl.risk.CVaR(0.1)) == pytest.approx(worst)


def test_binary_cross_entropy_and_focal():
    p = 1 / (1 + np.exp(-Z))
    cross_entropy = -np.log(np.where(LABELS == 1, p, 1 - p))
    other = np.where(LABELS == 1, 1 - p, p)
    focal = np.where(LABELS == 1, 0.25, 0.75) * other**3 * cross_entropy
    loss = fl.bce_with_logits + 4 * fl.focal
    np.testing.assert_allclose(loss(Z, LABELS, gamma=3.0, reduction="none"), cross_entropy + 4 * focal, rtol=1e-10)
    # More parameters than a loss of the catalogue has.
    assert len(loss.record.parameters) == 6
    step = 1e-6
    slope = (loss(Z + step, LABELS, reduction="none") - loss(Z - step, LABELS, reduction="none")) / (2 * step)
    np.testing.assert_allclose(loss.value_and_grad(Z, LABELS, reduction="sum")[1], slope, rtol=1e-6, atol=1e-8)
    assert loss.record.link == "logit"


def test_threads_give_equal_bits():
    z, t, one = np.tile(Z, 300), np.tile(T, 300), fl.get_num_threads()
    loss, found = 0.7 * fl.mse + 0.3 * fl.mae, []
    try:
        for n in (1, 2):
            fl.set_num_threads(n)
            found.append(loss.value_and_grad(z, t))
    finally:
        fl.set_num_threads(one)
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_other_weights_need_no_kernel():
    loss = fl.mse + fl.mae
    loss.value_and_grad(Z, T)
    before = len(dispatch._compiled)
    for mse, mae in ((0.7, 0.3), (0.0, 1.0), (-1.0, 2.0)):
        expected = total(mse, mae)[0].mean()
        assert loss.value_and_grad(Z, T, weights={"mse": mse, "mae": mae})[0] == pytest.approx(expected)
        assert (mse * fl.mse + mae * fl.mae).value_and_grad(Z, T)[0] == pytest.approx(expected)
        assert loss.bind(mse_weight=mse, mae_weight=mae).value_and_grad(Z, T)[0] == pytest.approx(expected)
    assert len(dispatch._compiled) == before


def test_parts():
    loss = fl.combine({"fit": fl.huber, "tail": (0.1, fl.quantile.bind(q=0.9))})
    fit, tail = huber(R, 2.0)[0].mean(), pinball(R, 0.9)[0].mean()
    value, grad, parts = loss.value_and_grad(Z, T, delta=2.0, weights={"tail": 0.2}, parts=True)
    assert value == pytest.approx(fit + 0.2 * tail)
    np.testing.assert_allclose(grad, (huber(R, 2.0)[1] + 0.2 * pinball(R, 0.9)[1]) / Z.size)
    assert parts == pytest.approx({"fit": fit, "tail": tail})
    weight = np.abs(T)
    value, parts = loss(Z, T, weight=weight, parts=True)
    assert value == pytest.approx(parts["fit"] + 0.1 * parts["tail"])
    assert parts["tail"] == pytest.approx((weight * pinball(R, 0.9)[0]).sum() / weight.sum())


def test_names_and_parameters():
    pair = fl.combine({"low": fl.quantile.bind(q=0.1), "high": fl.quantile.bind(q=0.9)}, name="interval")
    assert pair.name == "interval"
    assert set(pair.record.parameters) == {"low_weight", "high_weight", "low_q", "high_q"}
    expected = pinball(R, 0.2)[0].mean() + pinball(R, 0.9)[0].mean()
    assert pair(Z, T, low_q=0.2) == pytest.approx(expected)
    twice = fl.quantile.bind(q=0.1) + fl.quantile.bind(q=0.9)
    assert set(twice(Z, T, parts=True)[1]) == {"quantile", "quantile_2"}
    assert (twice + fl.mse)(Z, T) == pytest.approx(twice(Z, T) + (R * R).mean())


def test_sums_flatten():
    loss = 2 * (fl.mse + 0.5 * fl.mae) - fl.huber.bind(delta=0.5)
    assert repr(loss) == "2 * fastloss.mse + 1 * fastloss.mae - 1 * fastloss.huber.bind(delta=0.5)"
    assert sum([fl.mse, fl.mae]) == fl.mse + fl.mae
    assert hash(fl.mse + fl.mae) == hash(fl.mse + fl.mae)
    assert fl.mse + fl.mae != fl.mse - fl.mae
    assert np.float64(0.5) * fl.mse == fl.mse * 0.5
    nested = fl.combine({"a": (3.0, fl.mse + fl.mae), "b": fl.huber})
    assert set(nested(Z, T, parts=True)[1]) == {"a_mse", "a_mae", "b"}
    assert nested(Z, T) == pytest.approx(total(3, 3, 1)[0].mean())


def test_a_loss_of_a_users_own_is_a_part():
    cubic = fl.formula("abs(z - t)**3 * c", c=2.0, name="cubic")
    loss = pickle.loads(pickle.dumps(fl.mse + 0.5 * cubic))
    assert loss(Z, T) == pytest.approx((R * R + np.abs(R) ** 3).mean())
    assert loss(Z, T, c=4.0) == pytest.approx((R * R + 2 * np.abs(R) ** 3).mean())


def test_pickles_and_immutability():
    loss = fl.combine({"fit": fl.huber, "tail": (0.1, fl.quantile.bind(q=0.9))}).bind(delta=2.0, weights={"tail": 0.3})
    again = pickle.loads(pickle.dumps(loss))
    assert again == loss
    assert again(Z, T) == loss(Z, T) == pytest.approx(huber(R, 2.0)[0].mean() + 0.3 * pinball(R, 0.9)[0].mean())
    assert eval(repr(loss), {"fastloss": fl}) == loss
    with pytest.raises(AttributeError, match="immutable"):
        loss.name = "other"
    assert "tail : 0.3 times fastloss.quantile.bind(q=0.9)" in loss.__doc__


def test_a_sum_has_the_backend_of_its_parts():
    loss = fl.mse.bind(backend="cpu") + fl.mae
    assert loss == (fl.mse + fl.mae).bind(backend="cpu")
    assert pickle.loads(pickle.dumps(loss + fl.huber)) == (fl.mse + fl.mae + fl.huber).bind(backend="cpu")
    with pytest.raises(ValueError, match="parts bound to the backends cpu and cuda"):
        loss + fl.huber.bind(backend="cuda")


def test_properties_follow_the_weights():
    loss = fl.mse + fl.mae
    assert loss.record.convex
    assert not loss.bind(weights={"mae": -1.0}).record.convex
    assert (2 * fl.mae + fl.huber).record.lipschitz == 3.0
    domain = (fl.msle + fl.poisson).record
    assert str(domain.prediction_domains[0]) == "(-1, inf)"
    assert str(domain.target_domain) == "[0, inf)"
    with pytest.raises(ValueError, match=r"target\[0\] is -0.5"):
        (fl.msle + fl.poisson)(np.zeros(1), np.full(1, -0.5))


LOSS = fl.mse + fl.mae


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fl.mse * fl.mae, "mse cannot be multiplied by mae"),
        (lambda: fl.mse + 1, "mse cannot be added to 1"),
        (lambda: 1 - fl.mse, "mse cannot be added to 1"),
        (lambda: fl.mse - 1, "mse minus 1 is no loss"),
        (lambda: np.inf * fl.mse, "mse: the weight is inf; expected a finite number"),
        (lambda: "a" * fl.mse, "mse: the weight is 'a'; expected a finite number"),
        (lambda: np.ones(2) * fl.mse, "expected a finite number"),
        (lambda: fl.combine({"a": (np.nan, fl.mse)}), "the weight of a is nan; expected a finite number"),
        (lambda: fl.combine({"a b": fl.mse}), "names a part 'a b'; expected a Python name"),
        (lambda: fl.combine({"a": 3}), r"a is 3; expected a loss or \(weight, loss\)"),
        (lambda: fl.combine({"a": fl.mse}, name=3), "name is 3; expected a Python name"),
        (lambda: fl.combine([fl.mse]), "takes a dictionary of parts"),
        (lambda: fl.hinge + fl.bce_with_logits, "cannot hold bce_with_logits, whose target is in"),
        (lambda: fl.mse + fl.l1, r"whose default is the sum; a penalty on parameters is fl.l1.on"),
        (lambda: LOSS(Z, T, weights={"huber": 1}), "weights names 'huber'; the parts are mse, mae"),
        (lambda: LOSS(Z, T, weights={"mae": np.inf}), r"weights\['mae'\] is inf; expected a finite number"),
        (lambda: LOSS(Z, T, weights=3), "weights is 3; expected a dictionary"),
        (lambda: LOSS(Z, T, delta=1.0), "delta is not a parameter"),
        (lambda: fl.mse.bind(reduction=fl.risk.CVaR(0.1)) + fl.mae, "part mse under a risk; bind the risk to the sum"),
    ],
)
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_parts_of_one_pass_are_those_of_passes_of_their_own(dtype):
    loss, n = 0.5 * fl.mse + fl.mae - 2 * fl.huber, 70_001  # one step is not full, and threads share the work
    z, t = (np.resize(x, n).astype(dtype) for x in (Z, T))
    weight = np.resize([0.0, 1.0, 0.25], n).astype("float32")
    z[0] = np.nan  # of weight 0
    close = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-5}[dtype]
    d = z.astype(float) - t
    exact = {"mse": d * d, "mae": np.abs(d), "huber": huber(d)[0]}
    mean = {k: np.nansum(weight * v) / weight.sum(dtype=float) for k, v in exact.items()}
    value, grad, parts = loss.value_and_grad(z, t, weight=weight, parts=True)
    assert parts == pytest.approx(mean, rel=close)
    assert value == pytest.approx(0.5 * mean["mse"] + mean["mae"] - 2 * mean["huber"], rel=close)
    np.testing.assert_array_equal(grad, loss.value_and_grad(z, t, weight=weight)[1])
    before = len(dispatch._compiled)
    assert loss(z, t, weight=weight, parts=True, weights={"mae": 0.0}, reduction="sum")[1] == pytest.approx(
        {k: v * weight.sum(dtype=float) for k, v in mean.items()}, rel=close
    )
    assert loss.value_and_grad(z, t, weight=weight, parts=True, weights={"mae": 0.0})[2] == parts
    assert len(dispatch._compiled) == before + 1  # the kernel of values alone
    if dtype == "float64":
        one = fl.get_num_threads()
        try:
            fl.set_num_threads(1)
            assert loss.value_and_grad(z, t, weight=weight, parts=True)[2] == parts
        finally:
            fl.set_num_threads(one)


@pytest.mark.jit
def test_parts_that_overflow_in_float32():
    z, t = np.full(70_000, 1.5e19, "float32"), np.zeros(70_000, "float32")
    value, parts = (fl.mse + fl.mae)(z, t, parts=True)
    assert value == pytest.approx(2.25e38)
    assert parts == pytest.approx({"mse": 2.25e38, "mae": 1.5e19})
    assert (fl.mse + fl.mae)(np.zeros(0), np.zeros(0), parts=True) == (0.0, {"mse": 0.0, "mae": 0.0})
