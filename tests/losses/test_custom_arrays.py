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
    with pytest.raises(TypeError, match="loop is 'regions'; expected 'points'"):
        fl.array_loss("regions", inputs={"a": 1})
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
