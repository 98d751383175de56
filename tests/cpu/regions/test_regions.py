"""Losses of regions: scikit-learn on hard masks, autograd, soft targets, extremes, ignored pixels, empty masks."""

import itertools

import numpy as np
import pytest

import fastloss as fl
from fastloss import reference

SUMS = ["dice", "jaccard", "tversky", "focal_tversky", "generalized_dice", "mcc"]
HARD = {"smooth_num": 0.0, "smooth_den": 0.0}


def image(seed=0, shape=(2, 3, 6, 5)):
    """Logits and labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, shape), rng.integers(0, shape[1], (shape[0], *shape[2:]))


def one_hot(labels, classes):
    return np.moveaxis(np.eye(classes)[labels], -1, 1)


# Other libraries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "score"), [("dice", "f1_score"), ("jaccard", "jaccard_score")])
@pytest.mark.parametrize("average", ["macro", "micro"])
def test_hard_masks_by_scikit_learn(name, score, average):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the peers extra")
    rng = np.random.default_rng(1)
    true, found = rng.integers(0, 4, (2, 5, 60))
    expected = [
        1 - getattr(metrics, score)(t, p, average=average, labels=range(4)) for t, p in zip(true, found, strict=True)
    ]
    got = fl.LOSSES[name](one_hot(found, 4), true, average=average, reduction="none", **HARD)
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_hard_masks_by_the_matthews_correlation_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the peers extra")
    rng = np.random.default_rng(2)
    true, found = rng.integers(0, 2, (2, 6, 50))
    found[0], found[1] = true[0], 1 - true[1]
    expected = [1 - metrics.matthews_corrcoef(t, p) for t, p in zip(true, found, strict=True)]
    got = fl.mcc(found[:, None].astype(float), true[:, None], reduction="none")
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)
    assert got[0] == 0.0


def monai(torch, p, t, axes, squared=False, jaccard=False, sn=1e-5, sd=1e-5):
    """The Dice loss of MONAI, of which its own smoothing of the Jaccard loss is twice this one."""
    inter = (t * p).sum(axes)
    below = (t**2).sum(axes) + (p**2).sum(axes) if squared else t.sum(axes) + p.sum(axes)
    if jaccard:
        return 1 - (inter + sn) / (below - inter + sd)
    return 1 - (2 * inter + sn) / (below + sd)


@pytest.mark.parametrize("jaccard", [False, True])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_gradients_by_autograd(per, squared, jaccard):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    logits, labels = image()
    z = torch.tensor(logits, requires_grad=True)
    t = torch.tensor(one_hot(labels, 3))
    axes = (0, 2, 3) if per == "batch" else (2, 3)
    loss = monai(torch, z.softmax(1)[:, 1:], t[:, 1:], axes, squared, jaccard).mean()
    loss.backward()
    options = {"activation": "softmax", "include_background": False, "per": per, "squared": squared}
    value, grad = fl.LOSSES["jaccard" if jaccard else "dice"].value_and_grad(logits, labels, **options)
    assert value == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(grad, z.grad.numpy(), rtol=1e-11, atol=1e-16)


def test_generalized_dice_as_in_the_paper():
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    logits, labels = image(3)
    labels[0][labels[0] == 2] = 1
    z = torch.tensor(logits, requires_grad=True)
    p, t = z.softmax(1), torch.tensor(one_hot(labels, 3))
    # As MONAI does: a class that is absent weighs as much as the heaviest.
    w = 1 / t.sum((2, 3)) ** 2
    w = torch.where(w.isinf(), w[~w.isinf()].max(), w)
    w[0, 2] = w[0, :2].max()
    loss = (1 - 2 * (w * (p * t).sum((2, 3))).sum(1) / (w * (p + t).sum((2, 3))).sum(1)).mean()
    loss.backward()
    value, grad = fl.generalized_dice.value_and_grad(logits, labels, activation="softmax", **HARD)
    assert value == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(grad, z.grad.numpy(), rtol=1e-11, atol=1e-16)


def test_mcc_by_autograd():
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    logits, labels = image(4, (3, 1, 40))
    labels = np.random.default_rng(5).integers(0, 2, (3, 40))
    z = torch.tensor(logits, requires_grad=True)
    p, t = z.sigmoid()[:, 0], torch.tensor(labels)
    tp, fp, fn, tn = (x.sum(1) for x in (p * t, p * (1 - t), (1 - p) * t, (1 - p) * (1 - t)))
    loss = (1 - (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)).sqrt()).mean()
    loss.backward()
    value, grad = fl.mcc.value_and_grad(logits, labels, activation="sigmoid")
    assert value == pytest.approx(loss.item(), rel=1e-13)
    np.testing.assert_allclose(grad, z.grad.numpy(), rtol=1e-10, atol=1e-16)


def test_special_cases_of_the_tversky_losses():
    logits, labels = image(6)
    options = {"activation": "softmax"}
    half = fl.tversky(logits, labels, **options, **HARD)
    assert half == pytest.approx(fl.dice(logits, labels, **options, **HARD), rel=1e-14)
    ones = fl.tversky(logits, labels, alpha=1.0, beta=1.0, **options)
    assert ones == pytest.approx(fl.jaccard(logits, labels, **options), rel=1e-14)
    values = fl.tversky(logits[:, :1], (labels[:, None] == 1).astype(float), activation="sigmoid", reduction="none")
    focal = fl.focal_tversky(
        logits[:, :1], (labels[:, None] == 1).astype(float), activation="sigmoid", reduction="none"
    )
    np.testing.assert_allclose(focal, values**0.75, rtol=1e-14)


def test_boundary_is_the_mean_of_distance_times_probability():
    rng = np.random.default_rng(7)
    z, phi = rng.normal(0, 2, (2, 2, 9)), rng.normal(0, 5, (2, 2, 9))
    p = 1 / (1 + np.exp(-z))
    value, grad = fl.boundary.value_and_grad(z, phi, activation="sigmoid")
    assert value == pytest.approx((phi * p).mean(), rel=1e-13)
    np.testing.assert_allclose(grad, phi * p * (1 - p) / p.size, rtol=1e-12)


def test_hard_predictions_of_either_zero():
    p, t = np.array([[[1.0, 0.0, -0.0, 1.0]]]), np.array([[[1.0, 0.0, 0.0, 0.0]]])
    value, grad = fl.dice.value_and_grad(p, t, **HARD)
    assert value == pytest.approx(1 / 3, rel=1e-15)
    # d/dp of (fp + fn) / (2 tp + fp + fn) = 1 / 3: 2 / 9 where p is too large, -4 / 9 where it is too small.
    np.testing.assert_allclose(grad, [[[-4 / 9, 2 / 9, 2 / 9, 2 / 9]]], rtol=1e-14)


# Soft targets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("name", SUMS)
def test_a_perfect_soft_prediction_has_no_loss_and_no_slope(name, squared):
    if squared and name not in ("dice", "jaccard"):
        pytest.skip("has no sums of squares")
    rng = np.random.default_rng(8)
    t = rng.random((2, 3, 7))
    options = {"squared": True} if squared else {}
    value, grad = fl.LOSSES[name].value_and_grad(t, t, **options)
    assert value == 0.0
    np.testing.assert_allclose(grad, 0.0, atol=1e-16)


@pytest.mark.parametrize("name", SUMS)
def test_soft_targets_have_their_minimum_at_the_truth(name):
    rng = np.random.default_rng(9)
    t = rng.random((40, 2, 6))
    p = np.clip(t + rng.normal(0, rng.choice([1e-3, 0.1, 0.5], (40, 1, 1)), t.shape), 0, 1)
    assert (fl.LOSSES[name](p, t, reduction="none") > 0.0).all()
    # A product for the overlap is least elsewhere: at a hard prediction.
    soft, hard = np.array([[[0.7, 0.2]]]), np.array([[[1.0, 0.0]]])
    product = [1 - 2 * (p * soft).sum() / (p + soft).sum() for p in (soft, hard)]
    assert product[1] < product[0]
    assert fl.LOSSES[name](soft, soft) < fl.LOSSES[name](hard, soft)


# Extremes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_nearly_perfect_scores_keep_their_digits(activation, dtype):
    """Errors of e^-40 are what is left of a loss without cancellation."""
    labels = np.array([[0, 1, 1, 0]])
    z = np.where(labels == 1, 40.0, -40.0)[:, None]
    z = z if activation == "sigmoid" else np.concatenate([-z / 2, z / 2], axis=1)
    classes = z.shape[1]
    value, grad = fl.dice.value_and_grad(z.astype(dtype), labels, activation=activation, **HARD)
    e = np.exp(-40.0)
    assert value == pytest.approx(4 * e / 4, rel=1e-6 if dtype == np.float32 else 1e-14)
    # d/dp of (fp + fn) / (2 tp + fp + fn) is 1/4 where p is too large and -1/4 where it is too small; dp/dz is e.
    expected = np.where(labels == 1, -1, 1)[:, None] * e / 4
    if classes == 2:
        # Both classes pull at a score, each with half of the weight of the mean over them.
        expected = np.concatenate([-expected, expected], axis=1)
    np.testing.assert_allclose(grad, expected, rtol=1e-5 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("name", [*SUMS, "lovasz_softmax"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_huge_and_infinite_scores_stay_finite(name, activation):
    # A softmax is that of cross_entropy: NaN where a score is inf or all of a pixel are -inf, see test_nan.py.
    top = np.inf if activation == "sigmoid" else 1e308
    z = np.array([[[1e30, -1e30, top, -top, 0.0, 800.0], [-1e30, 3.0, -np.inf, -top, top, -800.0]]])
    labels = np.array([[0, 1, 1, 0, 0, 1]])
    value, grad = fl.LOSSES[name].value_and_grad(z, labels, activation=activation)
    assert 0.0 < value < (2.0 if name == "mcc" else 1.0)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("activation", [None, "sigmoid", "softmax"])
def test_nan_comes_through(activation):
    z, labels = image(10)
    z = np.clip(z, 0, 1)
    z[1, 0, 0, 0] = np.nan
    for name in [*SUMS, "lovasz_softmax"]:
        values = fl.LOSSES[name](z, labels, activation=activation, reduction="none")
        assert np.isnan(values[1])
        assert np.isfinite(values[0])


# Empty masks and nothing to average ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("smooth", [0.0, 1e-5])
def test_empty_masks(name, smooth):
    nothing, some = np.zeros((1, 1, 4)), np.full((1, 1, 4), 0.25)
    options = {} if name == "mcc" else {"smooth_num": smooth, "smooth_den": smooth}
    for p, expected in ((nothing, 0.0), (some, 1.0)):
        value, grad = fl.LOSSES[name].value_and_grad(p, nothing, **options)
        assert value == pytest.approx(expected, abs=2e-5)
        assert np.isfinite(grad).all()
    value, grad = fl.LOSSES[name].value_and_grad(np.full((1, 1, 4), -800.0), nothing, activation="sigmoid", **options)
    assert value == 0.0
    assert not grad.any()


def test_lovasz_of_empty_masks():
    z, nothing = np.array([[[0.5, -2.0, 1.5]]]), np.zeros((1, 1, 3))
    value, grad = fl.lovasz_hinge.value_and_grad(z, nothing)
    assert value == 2.5
    np.testing.assert_array_equal(grad, [[[0.0, 0.0, 1.0]]])
    p = np.array([[[0.2, 0.7, 0.1]]])
    assert fl.lovasz_softmax(p, nothing) == 0.0
    assert fl.lovasz_softmax(p, nothing, classes="all") == 0.7


@pytest.mark.parametrize("name", [*SUMS, "lovasz_hinge", "lovasz_softmax"])
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_ignored_pixels_count_nowhere(name, per):
    """As if they were not there: not in the sums, not in the mean, whatever they hold."""
    z, labels = image(11, (2, 3, 10))
    options = {"per": per} if name == "lovasz_hinge" else {"per": per, "activation": "softmax"}
    expected, slopes = fl.LOSSES[name].value_and_grad(z[..., :6], labels[:, :6], **options)
    labels[:, 6:] = 255
    z[:, :, 6:] = np.nan
    value, grad = fl.LOSSES[name].value_and_grad(z, labels, ignore_index=255, **options)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(grad[..., :6], slopes, rtol=1e-13)
    assert not grad[..., 6:].any()
    mask = np.arange(10) < 6
    dense = np.where(mask, one_hot(labels * (labels < 3), 3), 7.0)
    value, grad = fl.LOSSES[name].value_and_grad(z, dense, np.tile(mask, (2, 1)), **options)
    assert value == pytest.approx(expected, rel=1e-14)
    assert not grad[..., 6:].any()


@pytest.mark.parametrize("name", [*SUMS, "lovasz_softmax"])
def test_samples_without_a_pixel_leave_the_mean(name):
    z, labels = image(12)
    expected = fl.LOSSES[name](z[:1], labels[:1], activation="softmax")
    labels[1] = -100
    value, grad = fl.LOSSES[name].value_and_grad(z, labels, activation="softmax")
    assert value == pytest.approx(expected, rel=1e-14)
    assert not grad[1].any()
    labels[0] = -100
    for per in ("sample", "batch"):
        value, grad = fl.LOSSES[name].value_and_grad(z, labels, activation="softmax", per=per)
        assert value == 0.0
        assert not grad.any()


# Shapes of targets ---------------------------------------------------------------------------------------------------


def test_labels_masks_and_one_hot_targets_are_the_same():
    z, labels = image(13)
    expected = fl.dice(z, one_hot(labels, 3), activation="softmax")
    for target in (labels, labels[:, None], labels.astype(np.uint8), one_hot(labels, 3).astype(bool)):
        assert fl.dice(z, target, activation="softmax") == expected
    mask = labels == 1
    expected = fl.dice(z[:, :1], mask[:, None].astype(float), activation="sigmoid")
    for target in (mask, mask[:, None], mask.astype(np.uint8), mask[:, None].astype(np.int32), mask.astype(np.float32)):
        assert fl.dice(z[:, :1], target, activation="sigmoid") == expected
    # 255 is what annotators call a pixel of a binary mask that they leave open.
    open_mask = np.where(labels == 2, 255, mask)[:, None].astype(np.uint8)
    masked = fl.dice(z[:, :1], mask, labels != 2, activation="sigmoid")
    assert fl.dice(z[:, :1], open_mask, activation="sigmoid", ignore_index=255) == masked
    assert fl.dice(z[:, :1], mask, (labels != 2)[:, None], activation="sigmoid") == masked


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("shape", [(1, 2, 2500), (3, 20, 300), (4, 2)])
def test_blocks_of_any_size(shape, activation):
    rng = np.random.default_rng(14)
    z, labels = rng.normal(0, 2, shape), rng.integers(0, shape[1], (shape[0], *shape[2:]))
    for per in ("sample", "batch"):
        options = {"activation": activation, "per": per}
        np.testing.assert_allclose(
            fl.dice(z, labels, reduction="none", **options), reference.dice(z, labels, **options), rtol=1e-13
        )
        np.testing.assert_allclose(
            fl.lovasz_softmax(z, labels, reduction="none", **options),
            reference.lovasz_softmax(z, labels, **options),
            rtol=1e-13,
        )


@pytest.mark.jit
@pytest.mark.parametrize("name", ["dice", "lovasz_softmax"])
@pytest.mark.parametrize("n", [1, 3])
def test_threads_change_no_bit_of_images(name, n):
    """Of three samples, one thread takes all stages of each in turn, two take each stage of all of them."""
    rng = np.random.default_rng(15)
    z = rng.normal(0, 2, (n, 2, 70_000 // n)).astype(np.float32)
    labels = rng.integers(0, 2, (n, z.shape[2]))
    before = fl.get_num_threads()
    results = []
    try:
        for threads in range(1, before + 1):
            fl.set_num_threads(threads)
            results.append(fl.LOSSES[name].value_and_grad(z, labels, activation="softmax"))
    finally:
        fl.set_num_threads(before)
    for value, grad in results[1:]:
        assert value == results[0][0]
        np.testing.assert_array_equal(grad, results[0][1])


# The Lovasz extension ------------------------------------------------------------------------------------------------


def jaccard_of_errors(wrong, region):
    """The Jaccard loss where some pixels are predicted wrongly."""
    union = (region | wrong).sum()
    return wrong.sum() / union if union else 0.0


def extension(errors, region):
    """By definition, for a submodular loss: the largest sum of errors times steps along any order of the pixels."""
    best = -np.inf
    for order in itertools.permutations(range(len(errors))):
        wrong, before, total = np.zeros(len(errors), bool), 0.0, 0.0
        for i in order:
            wrong[i] = True
            after = jaccard_of_errors(wrong, region)
            total += errors[i] * (after - before)
            before = after
        best = max(best, total)
    return best


def test_lovasz_losses_by_their_definition():
    rng = np.random.default_rng(16)
    for _ in range(6):
        region = rng.random(5) < 0.5
        region[0] = True
        p, z = rng.random(5), rng.normal(0, 1.5, 5)
        got = fl.lovasz_softmax(p[None, None], region[None, None].astype(float))
        assert got == pytest.approx(extension(np.abs(region - p), region), rel=1e-13)
        got = fl.lovasz_hinge(z[None, None], region[None, None].astype(float))
        assert got == pytest.approx(extension(np.maximum(1 - np.where(region, z, -z), 0), region), rel=1e-13)


def test_at_corners_the_lovasz_extension_is_the_jaccard_loss():
    rng = np.random.default_rng(17)
    p, t = (rng.random((2, 5, 1, 30)) < 0.5).astype(float)
    expected = fl.jaccard(p, t, reduction="none", **HARD)
    np.testing.assert_allclose(fl.lovasz_softmax(p, t, reduction="none"), expected, rtol=1e-13)


def test_equal_errors_have_the_value_of_any_order():
    p = np.full((1, 1, 6), 0.5)
    t = np.array([[[1.0, 0, 1, 0, 0, 1]]])
    value, grad = fl.lovasz_softmax.value_and_grad(p, t)
    assert value == pytest.approx(0.5, rel=1e-14)
    assert np.abs(grad).sum() == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_rows_are_sorted(dtype):
    rng = np.random.default_rng(18)
    z = rng.normal(0, 2, (1, 1, 6000)).astype(dtype)
    t = (rng.random(z.shape) < 0.3).astype(dtype)
    z[0, 0, :50], z[0, 0, 50:100] = 0.25, 1e-30
    expected = reference.lovasz_hinge(z.astype(float), t.astype(float))[0]
    assert fl.lovasz_hinge(z, t) == pytest.approx(expected, rel=1e-6 if dtype == np.float32 else 1e-13)


def test_infinite_hinge_errors():
    z = np.array([[[-np.inf, 2.0, 1.0]]])
    assert fl.lovasz_hinge(z, np.array([[[1.0, 0.0, 1.0]]])) == np.inf
    assert fl.lovasz_hinge(-z, np.array([[[1.0, 0.0, 1.0]]])) < 5.0


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("p", [0.1, 0.7, 0.99])
def test_sums_of_many_equal_pixels_lose_nothing(p, squared):
    # Rounding errors of equal numbers all have one sign: sums of 4096 in float32 were 4e-7 off.
    prediction = np.full((1, 1, 64, 64), p, np.float32)
    prediction[..., 32:] *= np.float32(0.9)
    target = np.full_like(prediction, 0.7)
    wide = fl.dice(prediction.astype(np.float64), target.astype(np.float64), squared=squared)
    assert fl.dice(prediction, target, squared=squared) == pytest.approx(wide, abs=4e-8)


def test_what_cannot_be_is_refused():
    z, labels = image(19)
    with pytest.raises(ValueError, match=r"dice: prediction\[0, 0, 0, 0\] is .*; allowed: \[0, 1\]"):
        fl.dice(z, labels)
    target = one_hot(labels, 3)
    target[1, 2, 3, 4] = 1.5
    with pytest.raises(ValueError, match=r"dice: target\[1, 2, 3, 4\] is 1.5; allowed: \[0, 1\]"):
        fl.dice(z, target, activation="softmax")
    target[1, 2, 3, 4] = 0.5
    with pytest.raises(ValueError, match=r"lovasz_softmax: target\[1, 2, 3, 4\] is 0.5; allowed: {0, 1}"):
        fl.lovasz_softmax(z, target, activation="softmax")
    labels[0, 1, 2] = 3
    with pytest.raises(ValueError, match=r"dice: target\[0, 1, 2\] is 3; allowed: 0 to 2, or -100 \(ignore_index\)"):
        fl.dice(z, labels, activation="softmax")
    with pytest.raises(ValueError, match=r"allowed: 0 to 1, or 255 \(ignore_index\)"):
        fl.dice(z[:, :1], labels, activation="sigmoid", ignore_index=255)
    with pytest.raises(ValueError, match=r"dice: target has shape \(2, 6\) .* or integer labels of shape \(2, 6, 5\)"):
        fl.dice(z, labels[..., 0], activation="softmax")
    with pytest.raises(ValueError, match="activation is 'softmax' for a single class; expected 'sigmoid'"):
        fl.dice(z[:, :1], labels[:, None] == 1, activation="softmax")
    with pytest.raises(ValueError, match="include_background is False for a single class"):
        fl.dice(z[:, :1], labels[:, None] == 1, activation="sigmoid", include_background=False)
    with pytest.raises(ValueError, match="activation is 'relu'; allowed: 'sigmoid', 'softmax'"):
        fl.dice(z, labels, activation="relu")
    with pytest.raises(ValueError, match=r"class_weight\[1\] is -1"):
        fl.dice(z, image(19)[1], activation="softmax", class_weight=np.array([1.0, -1.0, 1.0]))
    with pytest.raises(ValueError, match=r"mask has shape \(2, 6\)"):
        fl.dice(z, image(19)[1], np.ones((2, 6)), activation="softmax")
