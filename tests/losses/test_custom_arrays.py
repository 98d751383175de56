"""Losses of a user's own over points of several arrays."""

import pickle

import numpy as np
import pytest

import fastloss as fl

RANDOM = np.random.default_rng(0)
BOXES, TARGETS = np.sort(RANDOM.random((2, 50, 4)), axis=2)
DISTANCE = 2.0 * RANDOM.random((2, 40))


@fl.array_loss("points", inputs={"boxes": 4, "target": 4})
def overlap(x1, y1, x2, y2, u1, v1, u2, v2):
    """One minus the intersection over union."""
    width = np.maximum(np.minimum(x2, u2) - np.maximum(x1, u1), 0)
    height = np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1), 0)
    both = width * height
    return 1 - both / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both)


@fl.array_loss("points", inputs={"near": 1, "far": 1}, grad=("near", "far"))
def triplets(near, far, margin=1.0):
    """Triplet loss of distances."""
    return np.maximum(near - far + margin, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_boxes_as_iou(dtype):
    boxes, target = BOXES[:, [0, 1, 2, 3]].astype(dtype), TARGETS[:, [0, 1, 2, 3]].astype(dtype)
    value, grad = overlap.value_and_grad(boxes, target)
    expected, slope = fl.iou.value_and_grad(boxes, target)
    tolerance = 100 * float(np.finfo(dtype).eps)
    assert value == pytest.approx(expected, rel=tolerance)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, slope, rtol=1e3 * tolerance, atol=tolerance)
    own, each = (f(boxes, target, reduction="none") for f in (overlap, fl.iou))
    np.testing.assert_allclose(own, each, rtol=tolerance, atol=tolerance)


def test_gradients_by_several_inputs_parameters_and_weights():
    near, far = DISTANCE
    weight = RANDOM.random(40)
    value, (by_near, by_far) = triplets.value_and_grad(near, far, weight=weight, margin=0.5)
    active = near - far + 0.5 > 0
    expected = np.where(active, near - far + 0.5, 0)
    assert value == pytest.approx((weight * expected).sum() / weight.sum())
    np.testing.assert_allclose(by_near, weight * active / weight.sum())
    np.testing.assert_allclose(by_far, -weight * active / weight.sum())


def test_pickles_and_names():
    bound = triplets.bind(margin=0.25)
    copy = pickle.loads(pickle.dumps(bound))
    assert copy == bound
    assert copy(*DISTANCE) == bound(*DISTANCE)
    assert repr(bound) == "<loss triplets(near, far, margin=0.25)>"
    assert "Triplet loss of distances." in triplets.__doc__
    assert "triplets" not in fl.LOSSES


def test_errors():
    with pytest.raises(TypeError, match=r"odd: the formula takes 2 numbers; its inputs hold 1 \+ 2 of them"):
        fl.array_loss("points", inputs={"a": 1, "b": 2}, name="odd")(lambda a, b: a)
    with pytest.raises(TypeError, match=r"inputs\['a'\] is 0; expected how many numbers"):
        fl.array_loss(inputs={"a": 0})
    with pytest.raises(TypeError, match=r"inputs is \['a'\]; expected a dictionary"):
        fl.array_loss(inputs=["a"])
    with pytest.raises(TypeError, match="grad names 'c'; the inputs are a"):
        fl.array_loss(inputs={"a": 1}, grad=("c",))
    with pytest.raises(TypeError, match="odd: returns derivatives"):
        fl.array_loss(inputs={"a": 1}, name="odd")(lambda a: (a, 1.0))
    with pytest.raises(TypeError, match="branches on data"):
        fl.array_loss(inputs={"a": 1}, name="odd")(lambda a: a if a > 0 else -a)
    with pytest.raises(TypeError, match="target is no option"):
        fl.array_loss(inputs={"a": 1}, name="odd", target=(0, 1))(lambda a: a)


@fl.array_loss("regions")
def own_dice(tp, fp, fn, tn, smooth=1e-5):
    """Dice loss, written as a ratio."""
    return 1 - (2 * tp + smooth) / (2 * tp + fp + fn + smooth)


@fl.array_loss("pairs")
def own_contrastive(d, t, margin=1.0):
    """Contrastive loss of a distance."""
    return t * d**2 + (1 - t) * np.maximum(margin - d, 0) ** 2


@pytest.mark.parametrize("options", [{}, {"activation": "softmax"}, {"per": "batch", "average": "micro"}])
def test_regions_as_dice(options):
    rng = np.random.default_rng(4)
    scores, labels = rng.random((3, 4, 6, 5)), rng.integers(0, 4, (3, 6, 5))
    value, grad = own_dice.value_and_grad(scores, labels, **options)
    expected, slope = fl.dice.value_and_grad(scores, labels, **options)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(grad, slope, rtol=1e-9, atol=1e-15)
    weighed = {"class_weight": np.array([1.0, 0.0, 2.0, 3.0]), "ignore_index": 2}
    assert own_dice(scores, labels, **weighed) == pytest.approx(fl.dice(scores, labels, **weighed), rel=1e-12)


def test_a_region_formula_of_its_own_by_hand():
    @fl.array_loss("regions")
    def missed(tp, fp, fn, tn, power=2.0):
        return (fn / (tp + fn)) ** power

    p, t = np.array([[[0.75, 0.25, 1.0]]]), np.array([[[1.0, 0.0, 1.0]]])
    value, grad = missed.value_and_grad(p, t)
    # tp = 1.75, fn = 0.25: (1/8)^2, and by a pixel of the region -2 (1/8) (tp + fn) / (tp + fn)^2.
    assert value == pytest.approx(1 / 64)
    np.testing.assert_allclose(grad, [[[-1 / 8, 0.0, -1 / 8]]], atol=1e-15)
    assert missed.bind(power=1.0)(p, t) == pytest.approx(1 / 8)


def test_pairs_as_contrastive():
    rng = np.random.default_rng(5)
    x, y, t = rng.normal(size=(30, 8)), rng.normal(size=(30, 8)), rng.integers(0, 2, 30).astype(float)
    value, grads = own_contrastive.value_and_grad(x, y, t, margin=5.0)
    expected, slopes = fl.contrastive.value_and_grad(x, y, t, margin=5.0)
    assert value == pytest.approx(expected, rel=1e-12)
    for grad, slope in zip(grads, slopes, strict=True):
        np.testing.assert_allclose(grad, slope, rtol=1e-10, atol=1e-14)
    again = pickle.loads(pickle.dumps(own_contrastive))
    assert again(x, y, t) == own_contrastive(x, y, t)

    @fl.array_loss("pairs", name="saturating_cosine")
    def saturating(d, scale=2.0):
        return 1 - np.exp(-d / scale)

    d = np.linalg.norm(x - y, axis=1)
    np.testing.assert_allclose(saturating(x, y, reduction="none"), 1 - np.exp(-d / 2.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("loop", "options", "formula", "message"),
    [
        ("pixels", {}, lambda a: a, "loop is 'pixels'; expected 'points', 'regions' or 'pairs'"),
        ("points", {}, lambda a: a, "points need inputs"),
        ("regions", {"inputs": {"x": 1}}, lambda a: a, "inputs is given for regions, whose arrays are fixed"),
        ("regions", {}, lambda tp, fp: tp / fp, "the formula takes tp, fp; expected tp, fp, fn, tn, then parameters"),
        ("pairs", {}, lambda d, u: d * u, "the formula takes d, u; expected d, and t for a target, then parameters"),
        ("regions", {}, lambda tp, fp, fn, tn, squared=1.0: tp * squared, "squared is an option of this loop"),
    ],
)
def test_refusals_of_loops(loop, options, formula, message):
    with pytest.raises(fl.FormulaError) as refused:
        fl.array_loss(loop, name="mine", **options)(formula)
    assert message in str(refused.value)
