"""Parameters as arrays, and labels 0 and 1 for losses of margins: torch, scikit-learn and expressions by hand."""

import pickle

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
F = torch.nn.functional


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def autograd(call, z):
    x = torch.tensor(z, requires_grad=True)
    loss = call(x)
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(3,), (1,), (6, 1), (6, 3)])
def test_factors_of_positives_broadcast_as_in_torch(rng, shape, soft):
    z, t = rng.normal(0, 3, (6, 3)), rng.random((6, 3))
    t = t if soft else np.round(t)
    factors, w = rng.uniform(0.1, 50.0, shape), rng.uniform(0.0, 2.0, (6, 3))
    tensors = {"pos_weight": torch.tensor(factors), "weight": torch.tensor(w)}
    for given in (factors, factors.tolist(), torch.tensor(factors)):
        value, grad = fl.bce_with_logits.value_and_grad(z, t, pos_weight=given, weight=w, divisor=18.0)
        theirs, slope = autograd(lambda x: F.binary_cross_entropy_with_logits(x, torch.tensor(t), **tensors), z)
        assert value == pytest.approx(float(theirs), rel=1e-12)
        np.testing.assert_allclose(grad, slope, rtol=1e-11, atol=1e-16)
    each = fl.bce_with_logits(z, t, pos_weight=factors, reduction="none")
    del tensors["weight"]
    none = F.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(t), reduction="none", **tensors)
    np.testing.assert_allclose(each, none, rtol=1e-12)
    assert fl.bce_with_logits(z, t, pos_weight=factors) == pytest.approx(none.mean().item(), rel=1e-12)


def test_images_of_classes(rng):
    z, t = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), np.round(rng.random((2, 3, 4, 5))).astype(np.float32)
    factors = np.array([0.5, 2.0, 8.0]).reshape(3, 1, 1)
    value, grad = fl.bce_with_logits.value_and_grad(z, t, pos_weight=factors)
    double = torch.tensor(t).double()
    theirs, slope = autograd(
        lambda x: F.binary_cross_entropy_with_logits(x, double, pos_weight=torch.tensor(factors)), z.astype(np.float64)
    )
    assert value == pytest.approx(float(theirs), rel=1e-6)
    assert grad.dtype == np.float32
    np.testing.assert_allclose(grad, slope, rtol=1e-5, atol=1e-9)


def test_soft_labels_keep_their_digits(rng):
    """What a large factor leaves of the negative part must not be formed as one less a number near 1."""
    z = np.array([20.0, 30.0], np.float32)
    t = np.array([0.5, 0.25], np.float32)
    got = fl.bce_with_logits(z, t, pos_weight=np.array([1e9, 1e6]), reduction="none")
    z, t = z.astype(np.float64), t.astype(np.float64)
    expected = np.array([1e9, 1e6]) * t * np.log1p(np.exp(-z)) + (1 - t) * (z + np.log1p(np.exp(-z)))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_probabilities_and_curvature(rng):
    z, t = rng.normal(size=(5, 3)), np.round(rng.random((5, 3)))
    factors = np.array([0.5, 2.0, 8.0])
    p = 1 / (1 + np.exp(-z))
    expected = -(factors * t * np.log(p) + (1 - t) * np.log1p(-p))
    np.testing.assert_allclose(fl.bce(p, t, pos_weight=factors, reduction="none"), expected, rtol=1e-12)
    grad, hess = fl.bce_with_logits.grad_and_hess(z, t, pos_weight=factors, label_smoothing=0.2)
    for j, factor in enumerate(factors):
        one = fl.bce_with_logits.grad_and_hess(z[:, j], t[:, j], pos_weight=factor, label_smoothing=0.2)
        np.testing.assert_allclose(grad[:, j], one[0], rtol=1e-12)
        np.testing.assert_allclose(hess[:, j], one[1], rtol=1e-12)


def test_alpha_of_each_class(rng):
    z, t = rng.normal(0, 2, (6, 3)), np.round(rng.random((6, 3)))
    alpha = np.array([0.1, 0.5, 0.9])

    def focal(x):  # Lin et al. (2017), eq. 5
        p, y = torch.sigmoid(x), torch.tensor(t)
        right = torch.where(y == 1, p, 1 - p)
        share = torch.where(y == 1, torch.tensor(alpha), 1 - torch.tensor(alpha))
        return (-share * (1 - right) ** 2 * right.log()).mean()

    theirs, slope = autograd(focal, z)
    value, grad = fl.focal.value_and_grad(z, t, alpha=alpha)
    assert value == pytest.approx(float(theirs), rel=1e-11)
    np.testing.assert_allclose(grad, slope, rtol=1e-9)


def test_where_else_arrays_go(rng):
    z, t = rng.normal(size=(6, 3)), np.round(rng.random((6, 3)))
    factors = np.array([0.5, 2.0, 8.0])
    expected = fl.bce_with_logits(z, t, pos_weight=factors)
    x = torch.tensor(z, requires_grad=True)
    given = torch.tensor(factors)
    loss = fl.torch.bce_with_logits(x, torch.tensor(t), pos_weight=given)
    loss.backward()
    np.testing.assert_allclose(x.grad, fl.bce_with_logits.value_and_grad(z, t, pos_weight=factors)[1], rtol=1e-12)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    # A tensor written over counts anew.
    given *= 3.0
    assert fl.bce_with_logits(z, t, pos_weight=given) == pytest.approx(fl.bce_with_logits(z, t, pos_weight=3 * factors))
    bound = fl.bce_with_logits.bind(pos_weight=factors)
    assert pickle.loads(pickle.dumps(bound)) == bound != fl.bce_with_logits
    assert (bound + 2.0 * fl.mse)(z, t) == pytest.approx(expected + 2.0 * ((z - t) ** 2).mean(), rel=1e-12)
    worst = np.sort(bound(z, t, reduction="none").ravel())[-9:].mean()
    assert bound(z, t, reduction=fl.risk.CVaR(0.5)) == pytest.approx(worst, rel=1e-9)
    out = np.empty_like(z)
    assert bound.value_and_grad(z, t, out=out)[1] is out


def test_errors_of_arrays():
    z = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"bce_with_logits: pos_weight has shape \(2,\); expected \(2, 3\)"):
        fl.bce_with_logits(z, z, pos_weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"bce_with_logits: pos_weight is -1\.0; allowed"):
        fl.bce_with_logits(z, z, pos_weight=[1.0, -1.0, 2.0])
    with pytest.raises(ValueError, match=r"focal: target\[0, 0\] is 2; allowed: \[0, 1\]"):
        fl.focal(z, z + 2.0, alpha=[0.1, 0.2, 0.3])


MARGINS = ["hinge", "squared_hinge", "smooth_hinge", "modified_huber", "perceptron", "exponential", "logistic"]


@pytest.mark.parametrize("name", [*MARGINS, "hinge_embedding"])
def test_labels_0_and_1(rng, name):
    loss, z, bits = fl.LOSSES[name], rng.normal(size=12), np.arange(12) % 2
    for labels in (bits, bits.astype(float), bits.astype(bool).astype(np.int8)):
        value, grad = loss.value_and_grad(z, labels, labels="01")
        signs = loss.value_and_grad(z, 2.0 * bits - 1.0)
        assert value == signs[0]
        np.testing.assert_array_equal(grad, signs[1])


def test_labels_by_name_elsewhere(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    z, bits = rng.normal(size=12), np.arange(12) % 2
    bound = fl.hinge.bind(labels="01")
    # scikit-learn takes any two labels.
    assert bound(z, bits) == pytest.approx(metrics.hinge_loss(bits, z), rel=1e-12)
    assert repr(bound) == "fastloss.hinge.bind(labels='01')"
    assert pickle.loads(pickle.dumps(bound)) == bound != fl.hinge
    assert bound.bind(labels="signs") == fl.hinge
    x = torch.tensor(z, requires_grad=True)
    fl.torch.hinge(x, torch.tensor(bits), labels="01").backward()
    np.testing.assert_allclose(x.grad, bound.value_and_grad(z, bits)[1])
    assert (bound + fl.bce_with_logits)(z, bits) == pytest.approx(bound(z, bits) + fl.bce_with_logits(z, bits))
    with pytest.raises(ValueError, match=r"hinge: target\[0\] is -1; allowed: \{0, 1\}"):
        bound(z, 2.0 * bits - 1.0)
    with pytest.raises(ValueError, match="hinge: labels is '10'; allowed: 'signs', '01'"):
        fl.hinge(z, bits, labels="10")
    with pytest.raises(TypeError, match="mse: labels is not a parameter"):
        fl.mse(z, bits, labels="01")


def test_a_margin_of_0(rng):
    """Crammer-Singer without a margin is the multiclass perceptron, as optax has it."""
    z, labels = rng.normal(size=(8, 4)), np.arange(8) % 4
    expected = z.max(1) - z[np.arange(8), labels]
    np.testing.assert_allclose(fl.crammer_singer(z, labels, margin=0.0, reduction="none"), expected, atol=1e-15)
    grad = fl.crammer_singer.value_and_grad(z, labels, margin=0.0, reduction="sum")[1]
    moved = np.eye(4)[z.argmax(1)] - np.eye(4)[labels]
    np.testing.assert_array_equal(grad, moved)


@pytest.mark.oracle
def test_paths_that_call_kernels_themselves(rng):
    """JAX's handlers, evaluation in one pass and linear models leave these losses to their calls."""
    jax = pytest.importorskip("jax", reason="needs the extra jax")
    z, bits, labels = rng.normal(size=(6, 3)), np.round(rng.random((6, 3))), np.arange(6) % 3
    as_jax = jax.numpy.asarray
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        x = as_jax(z)
        for ours, theirs in (
            (fl.cross_entropy(z, labels, softcap=2.0), fl.jax.cross_entropy(x, as_jax(labels), softcap=2.0)),
            (fl.hinge(z, bits, labels="01"), fl.jax.hinge(x, as_jax(bits), labels="01")),
            (fl.nll(z, bits / 3, label_smoothing=0.3), fl.jax.nll(x, as_jax(bits / 3), label_smoothing=0.3)),
            (fl.focal(z, bits, alpha=[0.1, 0.2, 0.3]), fl.jax.focal(x, as_jax(bits), alpha=(0.1, 0.2, 0.3))),
        ):
            assert float(theirs) == pytest.approx(ours, rel=1e-5)
    losses = [fl.hinge.bind(labels="01"), fl.bce_with_logits, fl.mse]
    found = fl.evaluate({"pred": z.ravel(), "target": bits.ravel()}, losses)
    means = [s.mean for s in found.values()]
    assert means == pytest.approx([loss(z.ravel(), bits.ravel()) for loss in losses], rel=1e-12)
