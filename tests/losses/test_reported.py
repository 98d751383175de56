"""Cases in which users of other libraries report wrong results, as they are reported: one test for each.

Expected values are written out or come from mpmath and NumPy; the issues are those of the libraries named beside them.
"""

import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import mpmath as mp
import numpy as np
import pytest

import fastloss as fl

RNG = np.random.default_rng(7)


# Nothing to average --------------------------------------------------------------------------------------------------


def test_ignored_rows_and_pixels_leave_the_denominator():
    """segmentation_models.pytorch#852: ignored pixels were still counted in the mean."""
    z, y = RNG.normal(size=(6, 4)), np.array([0, -100, 2, -100, 3, -100])
    kept = y >= 0
    assert fl.cross_entropy(z, y) == pytest.approx(fl.cross_entropy(z[kept], y[kept]), rel=1e-15)
    grad = fl.cross_entropy.value_and_grad(z, y)[1]
    assert not grad[~kept].any()
    np.testing.assert_allclose(grad[kept], fl.cross_entropy.value_and_grad(z[kept], y[kept])[1], rtol=1e-14)
    images, labels = RNG.normal(size=(2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    labels[:, 2:] = 255
    moved = np.moveaxis(images, 1, -1)
    seen = labels != 255
    got = fl.cross_entropy(images, labels, axis=1, ignore_index=255)
    assert got == pytest.approx(fl.cross_entropy(moved[seen], labels[seen]), rel=1e-14)


@pytest.mark.parametrize("name", ["batch_hard_triplet", "batch_all_triplet", "semi_hard_triplet"])
def test_no_active_triplet_is_zero(name):
    """pytorch-metric-learning#107: zero active triplets gave NaN."""
    far = np.array([[0.0, 0.0], [0.0, 0.1], [100.0, 0.0], [100.0, 0.1]])
    value, grad = fl.LOSSES[name].value_and_grad(far, np.array([0, 0, 1, 1]))
    assert value == 0.0
    assert not grad.any()


# Saturation ----------------------------------------------------------------------------------------------------------


def test_probabilities_of_0_and_1_in_float32():
    """keras#377, tensorflow#41595, scikit-learn#24315: epsilons that vanish in float32."""
    p, t = np.array([0.0, 1.0, 1.0, 0.0], np.float32), np.array([1.0, 0.0, 1.0, 0.0], np.float32)
    for loss in (fl.bce, fl.log_loss):
        value, grad = loss.value_and_grad(p, t, reduction="none")
        assert np.isfinite(value).all()
        assert np.isfinite(grad).all()
        assert (value[:2] > 10.0).all()
        assert (value[2:] < 1e-6).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("z", [-1e4, -750.0, -100.0, 100.0, 750.0, 1e4])
def test_binomial_derivatives_of_large_scores(z, dtype):
    """scikit-learn#28048: gradient and Hessian of the binomial loss overflowed."""
    grad, hess = fl.bce_with_logits.grad_and_hess(np.array([z, z], dtype), np.array([0.0, 1.0], dtype))
    p = float(mp.mpf(1) / (1 + mp.exp(-mp.mpf(z))))
    np.testing.assert_allclose(grad, [p, -float(1 / (1 + mp.exp(mp.mpf(z))))], rtol=1e-6, atol=1e-37)
    assert (hess >= 0.0).all()
    assert np.isfinite(hess).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("loss", ["focal", "softmax_focal"])
def test_focal_gradients_of_saturated_scores(loss, gamma):
    """optax#1267, kornia#918: NaN at gamma 0, and between 0 and 1."""
    scores = np.array([-2000.0, -50.0, 0.0, 50.0, 2000.0])
    if loss == "focal":
        value, grad = fl.focal.value_and_grad(scores, np.ones(5), gamma=gamma, alpha=None, reduction="none")
    else:
        rows = np.stack([scores, np.zeros(5)], axis=1)
        value, grad = fl.softmax_focal.value_and_grad(rows, np.zeros(5, int), gamma=gamma, reduction="none")
        grad = grad[:, 0]
    with mp.workdps(60):
        p = [1 / (1 + mp.exp(-mp.mpf(z))) for z in scores]
        q = [1 / (1 + mp.exp(mp.mpf(z))) for z in scores]
        expected = [float(-(b**gamma) * mp.log(a)) for a, b in zip(p, q, strict=True)]
        slopes = [float(b**gamma * (gamma * a * mp.log(a) - b)) for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(grad, slopes, rtol=1e-12, atol=1e-300)


def test_divergences_of_targets_of_zero():
    """optax#1786, pytorch#89558: NaN where a target is 0."""
    lp = np.log([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    t = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    value, grad = fl.kl_div.value_and_grad(lp, t, reduction="none")
    np.testing.assert_allclose(value, [math.log(2), math.log(2)], rtol=1e-15)
    np.testing.assert_array_equal(grad, -t)


@pytest.mark.parametrize("loss", ["triplet", "contrastive", "batch_hard_triplet"])
def test_equal_embeddings_have_a_gradient(loss):
    """tensorflow#30199: the derivative of the root of 0 is infinite."""
    same, other = np.ones((2, 3)), np.zeros((2, 3))
    if loss == "triplet":
        found = fl.triplet.value_and_grad(same, same, same)[1]
    elif loss == "contrastive":
        found = fl.contrastive.value_and_grad(same, same, np.array([1.0, 0.0]))[1]
    else:
        found = (fl.batch_hard_triplet.value_and_grad(np.concatenate([same, other]), np.array([0, 0, 1, 1]))[1],)
    assert all(np.isfinite(g).all() for g in found)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou", "siou"])
def test_boxes_of_no_size(name):
    """vision#7746: a box of no area gave NaN."""
    point, box = np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[0.0, 0.0, 2.0, 2.0]])
    for a, b in ((point, box), (box, point), (point, point)):
        value, grad = fl.LOSSES[name].value_and_grad(a, b)
        assert math.isfinite(value)
        assert np.isfinite(grad).all()


# Precision -----------------------------------------------------------------------------------------------------------


def test_weight_gradients_of_many_chunks_in_bfloat16():
    """Liger-Kernel#830, #1391: gradients of weights added up in bfloat16 drift with the number of chunks."""
    hidden = RNG.normal(size=(512, 4)).astype(ml_dtypes.bfloat16)
    weight, labels = RNG.normal(size=(5, 4)).astype(ml_dtypes.bfloat16), np.arange(512) % 5
    got = fl.linear_cross_entropy.value_and_grad(hidden, weight, labels, chunk=8)[1][1]
    wide = (hidden.astype(np.float64), weight.astype(np.float64))
    logits = wide[0] @ wide[1].T
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected = (p - np.eye(5)[labels]).T @ wide[0] / 512
    # Half a unit in the last place of 8 bits, and the rounding of products in float32.
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=2.0**-8, atol=1e-6)


def test_the_gradient_of_the_true_class_near_probability_one():
    """Liger-Kernel#1329: 1 - p lost all digits of the true class's gradient."""
    z = np.array([[12.0, 0.0, 0.0]], np.float32)
    grad = fl.cross_entropy.value_and_grad(z, np.array([0]))[1]
    exact = -2.0 * math.exp(-12.0) / (1.0 + 2.0 * math.exp(-12.0))
    assert float(grad[0, 0]) == pytest.approx(exact, rel=1e-6)
    assert abs(float(grad.sum(dtype=np.float64))) < 1e-6 * abs(exact)


def test_sums_beyond_float16():
    """pytorch#29429: the sum of float16 losses overflows above 65504."""
    z = np.full(2000, 10.0, np.float16)
    assert fl.mse(z, np.zeros(2000, np.float16), reduction="sum") == 200_000.0
    assert fl.mse(z, np.zeros(2000, np.float16)) == 100.0


# Inputs and reductions -----------------------------------------------------------------------------------------------


def test_logits_are_not_overwritten():
    """Liger-Kernel#272, unsloth#5002: gradients written over the caller's logits."""
    z, y = RNG.normal(size=(5, 4)), np.array([0, 1, 2, 3, 0])
    before = z.copy()
    _, grad = fl.cross_entropy.value_and_grad(z, y)
    assert not np.shares_memory(z, grad)
    np.testing.assert_array_equal(z, before)
    with pytest.raises(ValueError, match="overlaps an input"):
        fl.cross_entropy.value_and_grad(z, y, out=z)


def test_gradients_without_reduction_are_those_of_each_row():
    """Liger-Kernel#678, #968, #1298: reduction="none" with the gradients of another reduction."""
    z, y = RNG.normal(size=(5, 4)), np.array([0, 1, 2, 3, 0])
    values, grad = fl.cross_entropy.value_and_grad(z, y, reduction="none")
    for i in range(5):
        value, own = fl.cross_entropy.value_and_grad(z[i : i + 1], y[i : i + 1])
        assert values[i] == pytest.approx(value, rel=1e-15)
        np.testing.assert_allclose(grad[i : i + 1], own, rtol=1e-14)


def test_micro_batches_add_up_to_the_batch():
    """transformers#34191, torchtune#1875: the mean of the means of unequal micro-batches is not the mean."""
    z, y = RNG.normal(size=(10, 4)), RNG.integers(0, 4, 10)
    y[6:9] = -100
    whole, grad = fl.cross_entropy.value_and_grad(z, y)
    counted = float((y >= 0).sum())
    parts = [fl.cross_entropy.value_and_grad(z[s], y[s], divisor=counted) for s in (slice(0, 5), slice(5, 10))]
    assert sum(value for value, _ in parts) == pytest.approx(whole, rel=1e-15)
    np.testing.assert_allclose(np.concatenate([g for _, g in parts]), grad, rtol=1e-14)


def test_class_weights_with_smoothing():
    """pytorch#104776: class weights weigh the smoothed target too; the mean divides by the weights of the labels."""
    z, y, w, e = RNG.normal(size=(6, 3)), np.array([0, 1, 2, 2, 1, 0]), np.array([1.0, 2.0, 5.0]), 0.2
    lp = z - np.log(np.exp(z).sum(1, keepdims=True))
    smooth = (1 - e) * np.eye(3)[y] + e / 3
    expected = -(smooth * w * lp).sum() / w[y].sum()
    assert fl.cross_entropy(z, y, class_weight=w, label_smoothing=e) == pytest.approx(expected, rel=1e-14)


def test_the_mean_of_a_divergence_is_over_rows():
    """torch's "mean" of kl_div divides by the elements, so that it is no divergence."""
    t = np.array([[0.5, 0.5], [1.0, 0.0]])
    expected = (0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75) + math.log(1 / 0.25)) / 2
    assert fl.kl_div(np.log([[0.25, 0.75], [0.25, 0.75]]), t) == pytest.approx(expected, rel=1e-14)


# Labels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [-1, 3, 2**40, -(2**40)])
@pytest.mark.parametrize("loss", ["cross_entropy", "multi_margin", "nll"])
def test_labels_out_of_range(loss, label):
    """pytorch#12670, #66872, #89404: labels out of range read foreign memory, or were taken without a word."""
    y = np.array([0, 1, label, 2])
    with pytest.raises(ValueError, match=rf"^{loss}: target\[2\] is {label}; allowed: 0 to 2, or -100"):
        fl.LOSSES[loss](np.zeros((4, 3)), y)


def test_the_code_of_labels_is_not_guessed_from_the_batch():
    """Hinge losses elsewhere take a batch of ones and zeros as signs, and one of ones alone as it is."""
    for t in ([0.0, 1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match=r"hinge: target\[0\] is 0; allowed: \{-1, \+1\}"):
            fl.hinge(np.zeros(2), np.array(t))
    assert fl.hinge(np.zeros(2), np.ones(2)) == 1.0


# Memory and speed ----------------------------------------------------------------------------------------------------


@pytest.mark.jit
def test_logits_of_a_large_vocabulary_are_never_held():
    """pytorch#124480: logits larger than the model."""
    hidden, weight = np.zeros((64, 4), np.float32), np.zeros((50_000, 4), np.float32)
    labels = np.arange(64)
    fl.linear_cross_entropy.value_and_grad(hidden[:2], weight[:10], labels[:2])
    tracemalloc.start()
    try:
        value, _ = fl.linear_cross_entropy.value_and_grad(hidden, weight, labels, chunk=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value == pytest.approx(math.log(50_000), rel=1e-6)
    # The logits would take 12.8 MB, the gradients take 0.8 MB.
    assert peak < 6_000_000


def test_distances_of_a_batch_of_histograms_in_one_call():
    """POT#161: one-dimensional distances of many pairs take a loop."""
    stats = pytest.importorskip("scipy.stats", reason="needs the peers extra")
    a, b = RNG.dirichlet(np.ones(6), size=(2, 5))
    places = np.arange(6.0)
    expected = [stats.wasserstein_distance(places, places, u, v) for u, v in zip(a, b, strict=True)]
    np.testing.assert_allclose(fl.wasserstein_1d(a, b, reduction="none"), expected, rtol=1e-12)


# Boosting ------------------------------------------------------------------------------------------------------------


def test_objectives_take_margins_and_never_a_negative_curvature():
    """LightGBM#2052: margins taken for probabilities; XGBoost clips negative Hessians without a word."""
    z, y = np.linspace(-8.0, 8.0, 33), np.tile([0.0, 1.0, 1.0], 11)
    grad, hess = fl.objective("bce_with_logits").xgboost_sklearn(y, z)
    p = 1.0 / (1.0 + np.exp(-z))
    np.testing.assert_allclose(grad, p - y, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(hess, p * (1.0 - p), rtol=1e-12)
    exact = fl.focal.grad_and_hess(z, y)[1]
    assert (exact < 0.0).any()
    assert (fl.objective("focal", curvature="surrogate").xgboost_sklearn(y, z)[1] >= 0.0).all()


def test_scores_of_classes_keep_their_order():
    """LightGBM#1308: scores of K classes come flattened class by class, and elsewhere row by row."""
    scores, y = RNG.normal(size=(5, 3)), np.array([0, 1, 2, 0, 1])
    objective = fl.objective("cross_entropy")
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    grad, _ = objective.lightgbm_sklearn(y, scores, None)
    np.testing.assert_allclose(np.reshape(grad, (5, 3)), p - np.eye(3)[y], rtol=1e-12)


# Determinism, threads ------------------------------------------------------------------------------------------------


@pytest.mark.jit
def test_weighted_sums_have_the_same_bits_on_any_number_of_threads():
    """pytorch#17350, #46024, numba#8749: sums that differ between runs and thread counts."""
    z = RNG.normal(size=(40_000, 3)).astype(np.float32)
    y, w = RNG.integers(0, 3, 40_000), np.array([0.3, 1.7, 2.9], np.float32)
    before, found = fl.get_num_threads(), set()
    try:
        for threads in (1, 2, before):
            fl.set_num_threads(threads)
            value, grad = fl.cross_entropy.value_and_grad(z, y, class_weight=w)
            found.add((value, grad.tobytes()))
    finally:
        fl.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.jit
def test_losses_in_many_threads_of_python():
    """numba#8563, #9288, #10565: one threading layer of Numba aborts the process under threads of Python."""
    z, t = RNG.normal(size=(2, 300_000))
    expected = fl.mse.value_and_grad(z, t)
    with ThreadPoolExecutor(4) as pool:
        for value, grad in pool.map(lambda _: fl.mse.value_and_grad(z, t), range(8)):
            assert value == expected[0]
            np.testing.assert_array_equal(grad, expected[1])
