"""Options of row-wise losses: ignored labels, weights of rows and classes; and relations between the losses."""

import numpy as np
import pytest
from row_cases import CURVED, ROWS, SOFTMAX, each_dtype, kinds, probabilities

import fastloss as fl

# Options -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[4, 40], ids=["tile", "row"])
def batch(request):
    """(logits, labels) for either loop."""
    rng = np.random.default_rng(27)
    return rng.normal(size=(50, request.param)), rng.integers(0, request.param, 50)


@pytest.mark.parametrize("name", [n for n in ROWS if "labels" in kinds(n)])
@pytest.mark.parametrize("index", [-100, 255, 0, 3, -1])
def test_ignored_rows_have_no_part(name, batch, index):
    z, t = batch
    t = t.copy()
    t[::4] = index
    keep = t != index
    loss = ROWS[name]
    value, grad = loss.value_and_grad(z, t, ignore_index=index)
    expected, expected_grad = loss.value_and_grad(z[keep], t[keep], ignore_index=None)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(grad[keep], expected_grad, rtol=1e-12, atol=1e-18)
    assert not grad[~keep].any()
    rows = loss(z, t, ignore_index=index, reduction="none")
    assert not rows[~keep].any()
    if name in CURVED:
        first, hess = loss.grad_and_hess(z, t, ignore_index=index)
        assert not first[~keep].any()
        assert not hess[~keep].any()


@pytest.mark.parametrize("name", [n for n in ROWS if "labels" in kinds(n)])
def test_ignored_rows_may_hold_anything(name, batch):
    z, t = batch[0].copy(), batch[1].copy()
    t[[1, 5, 9]] = -100
    expected = ROWS[name].value_and_grad(z, t)
    z[1], z[5], z[9, 0] = np.nan, np.inf, -np.inf
    value, grad = ROWS[name].value_and_grad(z, t)
    assert value == expected[0]
    assert np.array_equal(grad, expected[1])
    assert name not in CURVED or not any(x[[1, 5, 9]].any() for x in ROWS[name].grad_and_hess(z, t))


@each_dtype
@pytest.mark.parametrize("name", [n for n in ROWS if "labels" in kinds(n)])
def test_everything_ignored(name, batch, dtype):
    z = batch[0].astype(dtype)
    for reduction in ("mean", "sum"):
        value, grad = ROWS[name].value_and_grad(z, np.full(50, -100), reduction=reduction)
        assert value == 0.0
        assert grad.dtype == dtype
        assert not grad.any()
    value, grad = ROWS[name].value_and_grad(z, batch[1], weight=np.zeros(50))
    assert value == 0.0
    assert not grad.any()


@pytest.mark.parametrize("name", ROWS)
def test_no_rows(name):
    for shape in ((0, 4), (0, 40), (3, 0, 4)):
        t = np.empty(shape[:-1], np.int64 if "labels" in kinds(name) else np.float64)
        t = np.empty(shape) if kinds(name) == ("dense",) else t
        value, grad = ROWS[name].value_and_grad(np.empty(shape), t)
        assert value == 0.0
        assert grad.shape == shape


def test_labels_are_never_read_out_of_bounds(batch):
    z, t = batch
    k = z.shape[1]
    for wrong in (k, -1, -2, 10**12, -(2**63)):
        bad = t.copy()
        bad[7] = wrong
        with pytest.raises(ValueError, match=rf"target\[7\] is {wrong}; allowed: 0 to {k - 1}"):
            fl.cross_entropy.value_and_grad(z, bad)
    with pytest.raises(ValueError, match="-100"):
        fl.cross_entropy(z, np.full(50, -100), ignore_index=None)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64, np.bool_])
def test_any_integer_type_of_labels(batch, kind):
    z, t = batch
    t = np.minimum(t, 1) if kind is np.bool_ else t
    expected = fl.cross_entropy.value_and_grad(z, t)
    value, grad = fl.cross_entropy.value_and_grad(z, t.astype(kind))
    assert value == expected[0]
    assert np.array_equal(grad, expected[1])


@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_weights_of_rows(batch, kind):
    rng = np.random.default_rng(28)
    z, t = batch
    k = z.shape[1]
    t = t if kind == "labels" else probabilities(rng, 50, k)
    w, c = rng.gamma(1.0, size=50), rng.gamma(1.0, size=k)
    w[::7] = 0.0
    rows, grads = fl.cross_entropy.value_and_grad(z, t, class_weight=c, reduction="none")
    # The class weight of a label is part of the mean's divisor; that of probabilities is not: as torch.
    mass = float((w * c[t]).sum() if kind == "labels" else w.sum())
    for reduction, divisor, scale in (("mean", None, 1 / mass), ("sum", None, 1.0), ("mean", 7.0, 1 / 7)):
        value, grad = fl.cross_entropy.value_and_grad(
            z, t, weight=w, class_weight=c, reduction=reduction, divisor=divisor
        )
        assert value == pytest.approx(float((w * rows).sum()) * scale, rel=1e-13)
        np.testing.assert_allclose(grad, grads * w[:, None] * scale, rtol=1e-12, atol=1e-17)
    each = fl.cross_entropy(z, t, weight=w, class_weight=c, reduction="none")
    np.testing.assert_allclose(each, w * rows, rtol=1e-13)
    first, hess = fl.cross_entropy.grad_and_hess(z, t, weight=w, class_weight=c)
    np.testing.assert_allclose(first, grads * w[:, None], rtol=1e-12, atol=1e-17)
    unweighted = fl.cross_entropy.grad_and_hess(z, t, class_weight=c)[1]
    np.testing.assert_allclose(hess, unweighted * w[:, None], rtol=1e-12, atol=1e-17)


OTHERS = ["softmax_focal", "multi_margin", "crammer_singer", "nll", "js_div", "tv_distance", "label_relaxation"]
OTHERS += ["sparsemax_loss", "ordinal", "dirichlet_evidential", "distillation", "arcface"]


@pytest.mark.parametrize("name", OTHERS)
def test_weights_of_other_losses(name, batch):
    rng = np.random.default_rng(29)
    z, t = batch
    k = z.shape[1]
    t = t if "labels" in kinds(name) else probabilities(rng, 50, k)
    if ROWS[name].record.loop in ("log_probs", "divergence"):
        z = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    w = rng.gamma(1.0, size=50)
    rows, grads = ROWS[name].value_and_grad(z, t, reduction="none")
    value, grad = ROWS[name].value_and_grad(z, t, weight=w)
    assert value == pytest.approx(float((w * rows).sum() / w.sum()), rel=1e-13)
    np.testing.assert_allclose(grad, grads * (w / w.sum())[:, None], rtol=1e-12, atol=1e-17)


def test_a_divergence_takes_no_labels(batch):
    """Its classes of target 0 count too: reading the label alone would give another number."""
    with pytest.raises(TypeError, match="js_div: target has dtype int64; expected probabilities"):
        fl.js_div(*batch)


def test_surrogate_curvature_is_not_negative(batch):
    z, t = batch
    for name in ("multi_margin", "crammer_singer"):
        first, second = ROWS[name].grad_and_hess(z, t, curvature="surrogate")
        assert np.array_equal(first, ROWS[name].grad_and_hess(z, t)[0])
        assert (second >= 0).all()
        assert second[np.arange(50), t].any()


# Relations -----------------------------------------------------------------------------------------------------------


def test_relations(batch):
    z, t = batch
    lp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    plain, slope = fl.cross_entropy.value_and_grad(z, t, reduction="none")
    for name, variant in (("softmax_focal", {"gamma": 0.0}), ("poly1_cross_entropy", {"epsilon": 0.0})):
        value, grad = ROWS[name].value_and_grad(z, t, reduction="none", **variant)
        np.testing.assert_allclose(value, plain, rtol=1e-13)
        np.testing.assert_allclose(grad, slope, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(fl.nll(lp, t, reduction="none"), plain, rtol=1e-12)
    near = fl.generalized_cross_entropy(z, t, q=1e-9, reduction="none")
    np.testing.assert_allclose(near, plain, rtol=1e-7)
    p = np.exp(lp[np.arange(50), t])
    np.testing.assert_allclose(fl.generalized_cross_entropy(z, t, q=1.0, reduction="none"), 1 - p, rtol=1e-12)
    dense = np.eye(z.shape[1])[t]
    for name in SOFTMAX:
        value, grad = ROWS[name].value_and_grad(z, t)
        other, gradient = ROWS[name].value_and_grad(z, dense)
        assert value == pytest.approx(other, rel=1e-13)
        np.testing.assert_allclose(grad, gradient, rtol=1e-10, atol=1e-17)
    q = probabilities(np.random.default_rng(40), 50, z.shape[1])
    entropy = -np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0).sum(axis=1)
    kl = fl.kl_div(lp, q, reduction="none")
    np.testing.assert_allclose(kl + entropy, fl.cross_entropy(z, q, reduction="none"), rtol=1e-12)
    # A gradient of a softmax sums to 0 over the classes.
    for name in SOFTMAX:
        np.testing.assert_allclose(ROWS[name].value_and_grad(z, q)[1].sum(axis=1), 0.0, atol=1e-15)


def test_two_classes_are_the_binary_loss():
    rng = np.random.default_rng(41)
    x, y = rng.normal(0, 5, 100), rng.integers(0, 2, 100)
    z = np.stack([np.zeros(100), x], axis=1)
    value, grad = fl.cross_entropy.value_and_grad(z, y)
    binary, slope = fl.bce_with_logits.value_and_grad(x, y.astype(float))
    assert value == pytest.approx(binary, rel=1e-14)
    np.testing.assert_allclose(grad[:, 1], slope, rtol=1e-12)


@pytest.mark.parametrize("name", ["kl_div", "js_div"])
def test_divergences_vanish_where_they_should(name):
    q = probabilities(np.random.default_rng(42), 20, 6)
    with np.errstate(divide="ignore"):
        lp = np.log(q)
    value, grad = ROWS[name].value_and_grad(lp, q, reduction="none")
    np.testing.assert_allclose(value, 0.0, atol=1e-15)
    assert np.isfinite(grad).all()


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_a_label_that_is_masked_out(dtype, gamma):
    z = np.array([[-np.inf, 0.0, 0.0]], dtype)
    value, grad = fl.softmax_focal.value_and_grad(z, np.array([0]), gamma=gamma)
    assert value == np.inf
    np.testing.assert_array_equal(grad, [[-1.0, 0.5, 0.5]])
