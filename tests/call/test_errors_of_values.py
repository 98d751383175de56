"""Messages about labels, domains and weights: the whole text, and nothing is written."""

import math
import re

import numpy as np
import pytest
from refusals import Y, Z, everywhere, jit, refuse, three_ways

import fastloss as fl

# Labels --------------------------------------------------------------------------------------------------------------

SCORES = np.arange(24.0).reshape(2, 3, 4)


@jit
@three_ways
@pytest.mark.parametrize(("label", "dtype"), [(4, "int64"), (-1, "int64"), (127, "int8"), (255, "uint8"), (4, "int32")])
def test_label_out_of_range(way, label, dtype):
    labels = np.array([[0, 1, 2], [3, label, label]], dtype)
    out = np.full((2, 3, 4), 7.0)
    text = f"cross_entropy: target[1, 1] is {label}; allowed: 0 to 3, or -100 (ignore_index)"
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], SCORES, labels)
    if way == 1:
        refuse(ValueError, text, fl.cross_entropy.value_and_grad, SCORES, labels, out=out)


@jit
def test_label_at_the_smallest_integer():
    # What NaN becomes when it is cast.
    low = np.iinfo(np.int64).min
    labels = np.array([0, low])
    text = f"cross_entropy: target[1] is {low}; allowed: 0 to 2"
    refuse(ValueError, text, fl.cross_entropy, Z, labels, ignore_index=None)
    refuse(ValueError, f"{text}, or 0 (ignore_index)", fl.cross_entropy, Z, labels, ignore_index=0)
    refuse(ValueError, f"{text}, or -100 (ignore_index)", fl.cross_entropy, Z, labels)


@jit
def test_unsigned_label_beyond_int64():
    for value in (2**64 - 100, 2**64 - 5, 2**63):
        labels = np.array([1, value], np.uint64)
        text = f"cross_entropy: target[1] is {value}; allowed: 0 to 2, or -100 (ignore_index)"
        refuse(ValueError, text, fl.cross_entropy, Z, labels)


@jit
def test_label_to_ignore_without_ignoring():
    text = "cross_entropy: target[0] is -100; allowed: 0 to 2"
    refuse(ValueError, text, fl.cross_entropy, Z, np.array([-100, 1]), ignore_index=None)


@jit
def test_label_in_a_large_array():
    labels = np.zeros(70_000, np.int64)
    labels[[65_537, 69_000]] = 9, -3
    text = "cross_entropy: target[65537] is 9; allowed: 0 to 1, or -100 (ignore_index)"
    refuse(ValueError, text, fl.cross_entropy.value_and_grad, np.zeros((70_000, 2)), labels)


@jit
def test_label_of_no_class():
    text = "cross_entropy: target[0] is 0; allowed: none, or -100 (ignore_index)"
    refuse(ValueError, text, fl.cross_entropy, np.zeros((2, 0)), np.array([0, 0]))
    refuse(ValueError, text.split(",")[0], fl.cross_entropy, np.zeros((2, 0)), np.array([0, 0]), ignore_index=None)


def test_float_labels():
    text = "cross_entropy: target has dtype float64; expected integers, or rows of 3 probabilities"
    text += "; for class labels pass target.astype(int)"
    refuse(TypeError, text, fl.cross_entropy, Z, Y.astype(np.float64))
    text = "multi_margin: target has dtype float64; expected integer labels; for class labels pass target.astype(int)"
    refuse(TypeError, text, fl.multi_margin, Z, Y.astype(np.float64))


def test_labels_where_numbers_belong():
    text = "crps_ensemble: target has shape (3,); expected (2,), one entry per row of the prediction"
    refuse(ValueError, text, fl.crps_ensemble, Z, np.zeros(3))


@pytest.mark.parametrize("bad", [1.5, "pad", True, (1,)], ids=repr)
def test_ignore_index(bad):
    text = f"cross_entropy: ignore_index is {bad!r}; expected an integer or None"
    refuse(TypeError, text, fl.cross_entropy, Z, Y, ignore_index=bad)
    refuse(TypeError, text, fl.cross_entropy, Z, np.full((2, 3), 1 / 3), ignore_index=bad)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (1, 3), ()], ids=str)
def test_class_weight_shape(shape):
    text = f"class_weight has shape {shape}; expected (3,), one weight per class"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, class_weight=np.ones(shape))


def test_negative_class_weight():
    text = "cross_entropy: class_weight[2] is -0.5; allowed: [0, inf)"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, class_weight=np.array([1.0, 0.0, -0.5]))


# Domains -------------------------------------------------------------------------------------------------------------

HALF = np.full((3, 4), 0.5)


def with_value(x, where, value):
    x = x.copy()
    x[where] = value
    return x


@jit
def test_probability_outside_the_unit_interval():
    text = "bce: prediction[1, 2] is 3.2; allowed: [0, 1]; for raw scores use bce_with_logits"
    for dtype in (np.float32, np.float64):
        p = with_value(with_value(HALF, (1, 2), 3.2), (2, 0), -1.0).astype(dtype)
        for call in everywhere(fl.bce):
            refuse(ValueError, text, call, p, HALF)
        refuse(ValueError, text, fl.bce.value_and_grad, p, HALF.astype(dtype), out=np.empty_like(p), spoils=("out",))
        refuse(ValueError, text, fl.bce, np.asfortranarray(p), HALF)


@jit
def test_the_value_is_shown_to_its_last_digit():
    p = np.array([0.5, 1.0000001])
    text = "bce: prediction[1] is 1.0000001; allowed: [0, 1]; for raw scores use bce_with_logits"
    refuse(ValueError, text, fl.bce, p, np.array([0.0, 1.0]))
    text = "bce: target[0] is -1e-300; allowed: [0, 1]"
    refuse(ValueError, text, fl.bce, p[:1], np.array([-1e-300]))


@jit
def test_target_outside_its_interval():
    # As often as the call is made: the second one takes the short way.
    t = with_value(HALF, (0, 3), 1.5)
    for _ in range(3):
        refuse(ValueError, "bce_with_logits: target[0, 3] is 1.5; allowed: [0, 1]", fl.bce_with_logits, HALF, t)
        fl.bce_with_logits(HALF, HALF)
    refuse(ValueError, "bce_with_logits: target is 1.5; allowed: [0, 1]", fl.bce_with_logits, HALF, 1.5)


@jit
def test_margin_targets():
    hint = "; for labels 0 and 1 pass 2 * target - 1"
    z = np.zeros(4)
    text = f"hinge: target[1] is 0; allowed: {{-1, +1}}{hint}"
    refuse(ValueError, text, fl.hinge, z, np.array([1, 0, 1, 0]))
    refuse(ValueError, text, fl.hinge.value_and_grad, z, np.array([1.0, 0.0, 1.0, 0.0]))
    refuse(ValueError, "hinge: target[2] is 0.5; allowed: {-1, +1}", fl.hinge, z, np.array([1, -1, 0.5, 0]))


@jit
def test_counts_and_scales():
    text = "poisson: target[2] is -3; allowed: [0, inf)"
    refuse(ValueError, text, fl.poisson, np.zeros(4), np.array([0, 1, -3, -4]))
    for bad in (0.0, -1.0):
        scale = with_value(HALF, (2, 1), bad)
        text = f"laplace_nll: scale[2, 1] is {bad:g}; allowed: (0, inf)"
        refuse(ValueError, text, fl.laplace_nll.value_and_grad, (HALF, scale), HALF)


@jit
def test_a_value_that_leaves_its_domain_when_rounded():
    z = np.zeros(3, np.float32)
    text = "gamma: target[1] is 0 in float32; allowed: (0, inf)"
    refuse(ValueError, text, fl.gamma, z, np.array([1.0, 1e-60, 1.0]))
    assert fl.gamma(z.astype(np.float64), np.array([1.0, 1e-60, 1.0])) > 0


@jit
def test_probability_targets():
    t = np.array([[0.2, 0.3, 0.5], [1.1, -0.1, 0.0]])
    text = "cross_entropy: target[1, 1] is -0.1; allowed: [0, inf)"
    for call in everywhere(fl.cross_entropy):
        refuse(ValueError, text, call, Z, t)
    text = "cross_entropy: target[1, 1] is -0.1; allowed: [0, inf)"
    refuse(ValueError, text, fl.cross_entropy, Z, t.copy(), axis=0)


@jit
def test_violation_in_a_large_array():
    n = 3 << 20
    t = np.zeros(n, np.float32)
    t[[n - 70_000, n - 5]] = 2.0, -7.0
    p = np.zeros(n, np.float32)
    text = f"bce_with_logits: target[{n - 70_000}] is 2; allowed: [0, 1]"
    refuse(ValueError, text, fl.bce_with_logits.value_and_grad, p, t)


@jit
def test_nan_is_no_violation():
    for where in ("p", "t"):
        p, t = HALF.copy(), HALF.copy()
        (p if where == "p" else t)[1, 1] = math.nan
        value, grad = fl.bce.value_and_grad(p, t)
        assert math.isnan(value)
        assert np.isnan(grad[1, 1])
        assert np.isfinite(np.delete(grad.ravel(), 5)).all()
    assert math.isnan(fl.cross_entropy(with_value(Z, (0, 1), math.nan), Y))
    assert math.isnan(fl.hinge(np.zeros(2), np.array([1.0, math.nan])))


# Weights -------------------------------------------------------------------------------------------------------------


@jit
@three_ways
def test_negative_weight(way):
    w = with_value(np.ones((3, 4)), (2, 1), -0.25)
    refuse(ValueError, "mse: weight[2, 1] is -0.25; allowed: [0, inf)", everywhere(fl.mse)[way], HALF, HALF, weight=w)
    text = "mse: weight[0, 3] is -2; allowed: [0, inf)"
    refuse(ValueError, text, everywhere(fl.mse)[way], HALF, HALF, weight=np.array([1.0, 1.0, 1.0, -2.0]))
    text = "cross_entropy: weight[1] is -1; allowed: [0, inf)"
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], Z, Y, weight=np.array([1.0, -1.0]))


@jit
def test_weight_of_nan_comes_through():
    w = np.array([1.0, math.nan])
    assert math.isnan(fl.mse(np.ones(2), np.zeros(2), weight=w))
    assert math.isnan(fl.cross_entropy(Z, Y, weight=w))


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 4), (0,)], ids=str)
def test_weight_shape(shape):
    text = f"weight has shape {shape}; expected (3, 4), or one that broadcasts to it"
    refuse(ValueError, text, fl.mse, HALF, HALF, weight=np.ones(shape))


def test_weight_shape_of_rows():
    text = "weight has shape (3,); expected (2,), or one that broadcasts to it"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, weight=np.ones(3))


# The objects themselves ----------------------------------------------------------------------------------------------


@jit
def test_a_negative_variance_is_refused_unless_it_is_a_logarithm():
    mean, var = np.zeros(3), np.array([1.0, -2.0, 1.0])
    with pytest.raises(ValueError, match=re.escape("gaussian_nll: var[1] is -2; allowed: [0, inf)")):
        fl.gaussian_nll((mean, var), mean)
    logged = fl.gaussian_nll.bind(log_var=True)
    assert np.isfinite(logged((mean, var), mean))
    with pytest.raises(ValueError, match=re.escape("var[1] is -2")):
        logged((mean, var), mean, log_var=False)


@jit
def test_log_loss_names_the_loss_for_raw_scores():
    with pytest.raises(ValueError, match="for raw scores use bce_with_logits"):
        fl.log_loss(np.array([3.2]), np.array([1.0]))


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.0, 2.0])])
def test_one_number_out_of_its_domain_for_all_elements(weight):
    p = np.ones(3, np.float32)
    with pytest.raises(ValueError, match=r"^msle: target is -2; allowed: \(-1, inf\)$"):
        fl.msle(p, -2, weight=weight)
    with pytest.raises(ValueError, match=r"^gamma: target is 0 in float32; allowed: \(0, inf\)$"):
        fl.gamma(p, 1e-60, weight=weight)
