"""Options of region losses that other libraries have: expressions of torch by hand, differentiated by autograd."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")


@pytest.fixture
def images():
    rng = np.random.default_rng(4)
    target = rng.random((2, 3, 4, 5))
    target[0, 1] = 0.0
    return rng.uniform(0.02, 0.98, (2, 3, 4, 5)), target


def autograd(call, prediction):
    x = torch.tensor(prediction, requires_grad=True)
    loss = call(x)
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def sums(p, t, dims=(2, 3)):
    return (p * t).sum(dims), (p * (1 - t)).sum(dims), ((1 - p) * t).sum(dims), ((1 - p) * (1 - t)).sum(dims)


PRODUCTS = {
    # MONAI's and segmentation-models' overlap, with smoothing 1.
    "dice": lambda tp, fp, fn, tn: 1 - (2 * tp + 1) / (2 * tp + fp + fn + 1),
    "jaccard": lambda tp, fp, fn, tn: 1 - (tp + 1) / (tp + fp + fn + 1),
    "tversky": lambda tp, fp, fn, tn: 1 - (tp + 1) / (tp + 0.5 * fp + 0.5 * fn + 1),
    "mcc": lambda tp, fp, fn, tn: (
        1 - (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)).clamp(min=1e-30).sqrt()
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
def test_products_of_soft_targets(images, name, activation):
    p, t = images
    if name == "mcc":
        t = np.maximum(t, 0.05)
    z = p if activation is None else np.log(p)
    act = {None: lambda x: x, "sigmoid": torch.sigmoid, "softmax": lambda x: torch.softmax(x, 1)}[activation]
    value, grad = autograd(lambda x: PRODUCTS[name](*sums(act(x), torch.tensor(t))).mean(), z)
    how = {"overlap": "product", "activation": activation}
    how |= {} if name == "mcc" else {"smooth_num": 1.0, "smooth_den": 1.0}
    ours, slope = fl.LOSSES[name].value_and_grad(z, t, **how)
    assert ours == pytest.approx(float(value), rel=1e-11)
    np.testing.assert_allclose(slope, grad, rtol=1e-8, atol=1e-13)


def test_products_with_a_mask_and_batch(images):
    p, t = images
    mask = np.random.default_rng(6).random((2, 4, 5)) < 0.7
    m = torch.tensor(mask)[:, None]

    def dice(x):
        both, size = (x * torch.tensor(t) * m).sum((0, 2, 3)), ((x + torch.tensor(t)) * m).sum((0, 2, 3))
        return (1 - (2 * both + 1e-5) / (size + 1e-5)).mean()

    value, grad = autograd(dice, p)
    ours, slope = fl.dice.value_and_grad(p, t, mask=mask, overlap="product", per="batch")
    assert ours == pytest.approx(float(value), rel=1e-12)
    np.testing.assert_allclose(slope, grad, rtol=1e-9, atol=1e-14)


def test_logarithm(images):
    p, t = images
    t = np.round(t)

    def dice(x):  # segmentation-models, log_loss=True
        tp, fp, fn, _ = sums(x, torch.tensor(t))
        return -((2 * tp + 1e-5) / (2 * tp + fp + fn + 1e-5)).clamp(min=1e-7).log().mean()

    value, grad = autograd(dice, p)
    ours, slope = fl.dice.value_and_grad(p, t, log=True)
    assert ours == pytest.approx(float(value), rel=1e-10)
    np.testing.assert_allclose(slope, grad, rtol=1e-8, atol=1e-13)
    # A prediction that is nearly right keeps its digits, and one without any overlap is finite.
    near = t * (1 - 1e-14)
    assert fl.jaccard(near, t, log=True, smooth_num=0.0, smooth_den=0.0, classes="present") == pytest.approx(
        1e-14, rel=1e-2
    )
    none = fl.tversky(np.zeros((1, 1, 4)), np.ones((1, 1, 4)), log=True, smooth_num=0.0)
    assert none == pytest.approx(-np.log(1e-7), rel=1e-6)


def test_classes_that_are_present(images):
    p, t = images
    t = np.round(t)
    each = fl.dice(p, t, average="none", reduction="none")
    some = t.sum((2, 3)) > 0
    assert not some.all()
    expected = (each * some).sum(1) / some.sum(1)
    np.testing.assert_allclose(fl.dice(p, t, classes="present", reduction="none"), expected, rtol=1e-12)
    grad = fl.dice.value_and_grad(p, t, classes="present")[1]
    assert not grad[0, 1].any()
    assert fl.dice(p, np.zeros_like(t), classes="present") == 0.0
    with pytest.raises(ValueError, match="dice: squared is True, which goes not together with classes='present'"):
        fl.dice(p, t, classes="present", squared=True)


def test_values_of_each_class(images):
    p, t = images
    both, size = (p * t).sum((2, 3)), (p + t).sum((2, 3))
    each, grad = fl.dice.value_and_grad(p, t, average="none", overlap="product", reduction="none")
    np.testing.assert_allclose(each, 1 - (2 * both + 1e-5) / (size + 1e-5), rtol=1e-12)
    _, whole = fl.dice.value_and_grad(p, t, overlap="product", reduction="sum")
    np.testing.assert_allclose(grad, 3 * whole, rtol=1e-12)
    some = fl.dice(p, t, average="none", reduction="none", include_background=False, per="batch")
    assert some.shape == (2,)
    with pytest.raises(ValueError, match="dice: reduction is 'mean'; average='none' goes with reduction='none'"):
        fl.dice(p, t, average="none")


def test_channels_last(images):
    p, t = images
    last, labels = np.moveaxis(p, 1, -1), t.argmax(1)
    value, grad = fl.dice.value_and_grad(p, t)
    for target in (np.moveaxis(t, 1, -1), None):
        ours, slope = fl.dice.value_and_grad(last, labels if target is None else target, axis=-1)
        if target is None:
            value, grad = fl.dice.value_and_grad(p, labels)
        assert ours == pytest.approx(value, rel=1e-14)
        np.testing.assert_array_equal(slope, np.moveaxis(grad, 1, -1))
    with pytest.raises(ValueError, match="dice: axis is 4; the prediction has 4 dimensions"):
        fl.dice(p, t, axis=4)
