"""Losses of boxes: torchvision's and YOLOv6's formulas, exact fractions, ties, boxes of no size, extremes."""

import math
from fractions import Fraction

import numpy as np
import pytest

import fastloss as fl
from fastloss import reference

NAMES = ["iou", "giou", "diou", "ciou", "siou"]
each_name = pytest.mark.parametrize("name", NAMES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def draw(rng, n, spread=0.7):
    """Targets, and boxes that lie near, within, around or apart from them."""
    target = np.sort(rng.normal(0, 2, (n, 2, 2)), axis=1)
    near = np.sort(target + rng.normal(0, spread, (n, 2, 2)), axis=1)
    return near.reshape(n, 4), target.reshape(n, 4)


def centred(boxes):
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def both(name, boxes, target, **parameters):
    """Values and gradient, each box by itself."""
    loss = fl.LOSSES[name]
    values = loss(boxes, target, reduction="none", **parameters)
    total, grad = loss.value_and_grad(boxes, target, reduction="sum", **parameters)
    if np.isfinite(values).all():
        assert total == pytest.approx(values.astype(np.float64).sum(), rel=1e-5)
    return values, grad


# Other people's formulas ---------------------------------------------------------------------------------------------


def torch_parts(torch, a, b):
    """Intersection over union, hull and centres, as torchvision forms them."""
    x1, y1, x2, y2 = a.unbind(-1)
    u1, v1, u2, v2 = b.unbind(-1)
    shared = (torch.min(x2, u2) - torch.max(x1, u1)).clamp(min=0) * (torch.min(y2, v2) - torch.max(y1, v1)).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    width, height = torch.max(x2, u2) - torch.min(x1, u1), torch.max(y2, v2) - torch.min(y1, v1)
    between = (x1 + x2 - u1 - u2) / 2, (y1 + y2 - v1 - v2) / 2
    return shared / union, union, width, height, between, (x2 - x1, y2 - y1), (u2 - u1, v2 - v1)


def torchvision(torch, name, a, b):
    ratio, union, width, height, (dx, dy), (w, h), (tw, th) = torch_parts(torch, a, b)
    if name == "iou":
        return 1 - ratio
    if name == "giou":
        return 1 - ratio + (width * height - union) / (width * height)
    loss = 1 - ratio + (dx**2 + dy**2) / (width**2 + height**2)
    if name == "diou":
        return loss
    v = 4 / math.pi**2 * (torch.atan(tw / th) - torch.atan(w / h)) ** 2
    with torch.no_grad():
        alpha = torch.where(v > 0, v / (1 - ratio + v), 0)
    return loss + alpha * v


def yolov6(torch, a, b):
    """SIoU as in yolov6/utils/figure_iou.py."""
    ratio, _, cw, ch, (dx, dy), (w, h), (tw, th) = torch_parts(torch, a, b)
    s_cw, s_ch = -dx, -dy
    sigma = (s_cw**2 + s_ch**2) ** 0.5
    sin_alpha_1, sin_alpha_2 = s_cw.abs() / sigma, s_ch.abs() / sigma
    sin_alpha = torch.where(sin_alpha_1 > 2**0.5 / 2, sin_alpha_2, sin_alpha_1)
    angle_cost = torch.cos(torch.arcsin(sin_alpha) * 2 - math.pi / 2)
    gamma = angle_cost - 2
    distance_cost = 2 - torch.exp(gamma * (s_cw / cw) ** 2) - torch.exp(gamma * (s_ch / ch) ** 2)
    omega_w, omega_h = (w - tw).abs() / torch.max(w, tw), (h - th).abs() / torch.max(h, th)
    shape_cost = (1 - torch.exp(-omega_w)) ** 4 + (1 - torch.exp(-omega_h)) ** 4
    return 1 - (ratio - 0.5 * (distance_cost + shape_cost))


def by_torch(name, boxes, target):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    a = torch.from_numpy(boxes).requires_grad_()
    b = torch.from_numpy(target)
    values = yolov6(torch, a, b) if name == "siou" else torchvision(torch, name, a, b)
    (grad,) = torch.autograd.grad(values.sum(), a)
    return values.detach().numpy(), grad.numpy()


@each_name
def test_values_and_gradients_of_torch(name, rng):
    boxes, target = draw(rng, 400)
    values, grad = both(name, boxes, target)
    expected, slopes = by_torch(name, boxes, target)
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(grad, slopes, rtol=1e-9, atol=1e-9)


@each_name
def test_sides_in_line_share_the_gradient_as_in_torch(name, rng):
    boxes, target = (np.sort(rng.integers(0, 6, (4000, 2, 2)), axis=1).reshape(-1, 4).astype(float) for _ in range(2))
    inner = (np.minimum(boxes[:, 2:], target[:, 2:]) > np.maximum(boxes[:, :2], target[:, :2])).all(1)
    if name == "siou":
        # Its arcsine has an infinite slope where the centres lie on a line along an axis, or in a diagonal.
        offset = np.abs(centred(boxes)[:, :2] - centred(target)[:, :2])
        inner &= (offset > 0).all(1) & (offset[:, 0] != offset[:, 1])
    boxes, target = boxes[inner], target[inner]
    assert ((boxes == target).any(1)).sum() > 100
    values, grad = both(name, boxes, target)
    expected, slopes = by_torch(name, boxes, target)
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(grad, slopes, rtol=1e-9, atol=1e-9)


def test_siou_takes_the_mean_of_both_sides_where_the_angle_has_a_corner():
    target = np.array([[0.0, 0.0, 4.0, 2.0]])
    for move in ([0.5, 0.0], [0.0, 0.5], [0.5, 0.5], [-0.5, 0.5]):
        boxes = target + np.array([[*move, *move]]) + np.array([[0.125, 0.25, -0.125, -0.25]])
        _, grad = both("siou", boxes, target)
        for k in range(4):
            sides = []
            for h in (1e-6, -1e-6):
                moved = boxes.copy()
                moved[0, k] += h
                sides.append((reference.siou(moved, target) - reference.siou(boxes, target))[0] / h)
            assert grad[0, k] == pytest.approx(np.mean(sides), abs=2e-5)


def test_the_gradient_of_ciou_holds_alpha(rng):
    boxes, target = draw(rng, 50)
    _, grad = both("ciou", boxes, target)
    pair = reference.boxes.Pair(boxes, target, "xyxy")
    alpha, h = pair.v / (1 - pair.iou + pair.v), 1e-6
    up, down = boxes.copy(), boxes.copy()
    up[:, 2] += h
    down[:, 2] -= h
    held = (reference.ciou(up, target, alpha=alpha) - reference.ciou(down, target, alpha=alpha)) / (2 * h)
    whole = (reference.ciou(up, target) - reference.ciou(down, target)) / (2 * h)
    np.testing.assert_allclose(grad[:, 2], held, rtol=1e-6, atol=1e-7)
    assert np.abs(whole - held).max() > 1e-2


# Rounding ------------------------------------------------------------------------------------------------------------


def in_fractions(name, a, b):
    """The loss without any rounding."""
    x1, y1, x2, y2, u1, v1, u2, v2 = (Fraction(float(c)) for c in (*a, *b))
    shared = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    width, height = max(x2, u2) - min(x1, u1), max(y2, v2) - min(y1, v1)
    loss = 1 - shared / union
    if name == "giou":
        return loss + 1 - union / (width * height)
    if name == "diou":
        return loss + ((x1 + x2 - u1 - u2) ** 2 + (y1 + y2 - v1 - v2) ** 2) / 4 / (width**2 + height**2)
    return loss


@pytest.mark.parametrize("name", ["iou", "giou", "diou"])
@each_dtype
def test_right_to_a_few_ulp_however_small_the_loss(name, dtype, rng):
    eps = float(np.finfo(dtype).eps)
    for spread in (1.0, 1e-3, 64 * eps, 4 * eps):
        boxes, target = (x.astype(dtype) for x in draw(rng, 60, spread))
        values, _ = both(name, boxes, target)
        for value, a, b in zip(values, boxes, target, strict=True):
            exact = in_fractions(name, a, b)
            assert abs(Fraction(float(value)) - exact) <= 10 * Fraction(eps) * exact


@each_name
@each_dtype
@pytest.mark.parametrize("box_format", ["xyxy", "cxcywh"])
def test_a_perfect_prediction_is_not_pushed(name, dtype, box_format, rng):
    boxes = draw(rng, 300)[0].astype(dtype)
    values, grad = both(name, boxes, boxes, box_format=box_format)
    if box_format == "cxcywh":
        # A target of negative size covers nothing that could be met.
        covers = (boxes[:, 2:] > 0).all(1)
        values, grad = values[covers], grad[covers]
    assert not values.any()
    assert not grad.any()


@each_name
def test_centres_and_sizes_are_the_same_boxes(name, rng):
    boxes, target = draw(rng, 200)
    values, grad = both(name, boxes, target)
    others, slopes = both(name, centred(boxes), centred(target), box_format="cxcywh")
    np.testing.assert_allclose(others, values, rtol=1e-11, atol=1e-13)
    expected = np.concatenate([grad[:, :2] + grad[:, 2:], (grad[:, 2:] - grad[:, :2]) / 2], axis=1)
    np.testing.assert_allclose(slopes, expected, rtol=1e-9, atol=1e-9)


# Boxes of no size, of negative size, and far apart -------------------------------------------------------------------

UNIT = [0.0, 0.0, 1.0, 1.0]
ODD = {
    "a point outside": ([3.0, 3.0, 3.0, 3.0], UNIT),
    "a point inside": ([0.5, 0.5, 0.5, 0.5], UNIT),
    "a point in the corner": ([1.0, 1.0, 1.0, 1.0], UNIT),
    "two points": ([3.0, 3.0, 3.0, 3.0], [1.0, 2.0, 1.0, 2.0]),
    "the same point": ([3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]),
    "a line": ([0.2, 0.0, 0.2, 1.0], UNIT),
    "two lines across": ([0.5, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 0.5]),
    "two lines along": ([0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 3.0]),
    "a target of no size": (UNIT, [0.5, 0.5, 0.5, 0.5]),
    "touching": ([1.0, 0.0, 2.0, 1.0], UNIT),
    "touching in a corner": ([1.0, 1.0, 2.0, 2.0], UNIT),
    "turned around": ([1.0, 1.0, 0.0, 0.0], UNIT),
    "turned around across": ([1.0, 0.0, 0.0, 1.0], UNIT),
    "turned around apart": ([5.0, 0.0, 4.0, 1.0], UNIT),
    "a target turned around": (UNIT, [1.0, 1.0, 0.0, 0.0]),
    "both turned around": ([0.9, 1.0, 0.1, 0.2], [1.0, 1.0, 0.0, 0.0]),
    "far apart": ([0.0, 0.0, 1.0, 1.0], [1e7, 1e7, 1e7 + 1, 1e7 + 1]),
    "small and far apart": ([0.0, 0.0, 1e-7, 1e-7], [1e7, 1e7, 1e7 + 1, 1e7 + 1]),
}


@each_name
@each_dtype
@pytest.mark.parametrize("box_format", ["xyxy", "cxcywh"])
@pytest.mark.parametrize("case", ODD)
def test_odd_boxes_are_finite(case, name, dtype, box_format):
    boxes, target = (np.array([x], dtype) for x in ODD[case])
    values, grad = both(name, boxes, target, box_format=box_format)
    assert np.isfinite(grad).all()
    wide = getattr(reference, name)(boxes.astype(float), target.astype(float), box_format=box_format)
    assert values == pytest.approx(wide, rel=1e-6, abs=1e-6)
    assert 0 <= values <= 5


def test_boxes_that_cover_nothing():
    for case in ("a point outside", "a line", "two points", "the same point", "turned around", "both turned around"):
        boxes, target = (np.array([x]) for x in ODD[case])
        values, grad = both("iou", boxes, target)
        assert values == 1.0
        assert not grad.any()
    # As torchvision: a hull of no area adds nothing.
    for case in ("the same point", "two lines along"):
        assert both("giou", *(np.array([x]) for x in ODD[case]))[0] == 1.0


@each_name
@pytest.mark.parametrize("box_format", ["xyxy", "cxcywh"])
def test_boxes_turned_around_have_the_gradient_of_their_value(name, box_format, rng):
    boxes, target = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    values, grad = both(name, boxes, target, box_format=box_format)
    held, h = {}, 1e-6
    if name == "ciou":
        pair = reference.boxes.Pair(boxes, target, box_format)
        held["alpha"] = reference.boxes.ratio(pair.v, 1 - pair.iou + pair.v)
    np.testing.assert_allclose(values, getattr(reference, name)(boxes, target, box_format), rtol=1e-11, atol=1e-12)
    for k in range(4):
        up, down = boxes.copy(), boxes.copy()
        up[:, k] += h
        down[:, k] -= h
        high, low = (getattr(reference, name)(x, target, box_format=box_format, **held) for x in (up, down))
        np.testing.assert_allclose(grad[:, k], (high - low) / (2 * h), rtol=1e-4, atol=1e-5)


@each_name
@each_dtype
def test_boxes_of_any_scale_have_the_same_loss(name, dtype, rng):
    boxes, target = (x.astype(dtype) for x in draw(rng, 50))
    values, grad = both(name, boxes, target)
    exponents = (120, 60, -60, -90) if dtype == np.float32 else (1015, 500, -120, -240)
    for exponent in exponents:
        scale = dtype(2.0**exponent)
        others, slopes = both(name, scale * boxes, scale * target)
        np.testing.assert_allclose(others, values, rtol=0, atol=4 * np.finfo(dtype).eps)
        size = np.abs(grad).max()
        np.testing.assert_allclose(slopes.astype(float) * 2.0**exponent, grad, rtol=0, atol=2e-6 * size)


@each_name
@each_dtype
@pytest.mark.parametrize("box_format", ["xyxy", "cxcywh"])
def test_the_largest_numbers_do_not_overflow(name, dtype, box_format):
    top = float(np.finfo(dtype).max)
    corners = [[-top, -top, top, top], [0.0, 0.0, top, top], [-top, 0.0, 0.0, 1.0], UNIT, [top, top, top, top]]
    boxes, target = (np.array(x, dtype) for x in zip(*[(a, b) for a in corners for b in corners], strict=True))
    values, grad = both(name, boxes, target, box_format=box_format)
    assert np.isfinite(values).all()
    assert np.isfinite(grad).all()
    same = both(name, boxes[:1], target[:1])
    assert same[0] == 0.0
    assert not same[1].any()


@each_name
@each_dtype
@pytest.mark.parametrize("box_format", ["xyxy", "cxcywh"])
def test_nan_comes_through(name, dtype, box_format):
    for k in range(8):
        pair = np.array([[0.0, 0.0, 2.0, 2.0], [1.0, 0.5, 3.0, 3.0]], dtype)
        pair[k // 4, k % 4] = np.nan
        values, grad = both(name, pair[:1], pair[1:], box_format=box_format)
        assert np.isnan(values).all()
        assert np.isnan(grad).any()


def test_leading_axes_and_errors():
    boxes = np.zeros((2, 3, 4)) + np.array(UNIT)
    assert fl.giou(boxes, boxes, reduction="none").shape == (2, 3)
    with pytest.raises(ValueError, match=r"iou: box_format is 'xywh'; allowed: 'xyxy', 'cxcywh'"):
        fl.iou(boxes, boxes, box_format="xywh")
    with pytest.raises(ValueError, match=r"iou: target has shape \(2, 4\); expected \(2, 3, 4\)"):
        fl.iou(boxes, boxes[:, 0])
    with pytest.raises(ValueError, match=r"siou: theta is 0.5; allowed: \[1, inf\)"):
        fl.siou(boxes, boxes, theta=0.5)
