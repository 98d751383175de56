"""Sums of losses of several loops: against torch and NumPy; options, risks, penalties, errors."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import fastloss as fl

RANDOM = np.random.default_rng(0)
Z, LABELS = RANDOM.standard_normal((2, 3, 4, 5)), RANDOM.integers(0, 3, (2, 4, 5))
SCORES, SIGNS, GROUP = RANDOM.standard_normal(40), (RANDOM.random(40) > 0.4).astype(float), RANDOM.integers(0, 3, 40)
ROWS, CLASSES = RANDOM.standard_normal((30, 4)), RANDOM.integers(0, 4, 30)
SEGMENTS = fl.cross_entropy + 0.5 * fl.dice


def softmax(z, axis):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def cross_entropy(z, labels, axis=1):
    return -np.log(np.take_along_axis(softmax(z, axis), np.expand_dims(labels, axis), axis)).squeeze(axis)


def dice(p, t, smooth=1e-5):
    """Mean over samples of the mean over classes, for hard targets."""
    p, t = (x.reshape(*x.shape[:2], -1) for x in (p, t))
    tp, fp, fn = (p * t).sum(2), (p * (1 - t)).sum(2), ((1 - p) * t).sum(2)
    return 1 - ((2 * tp + smooth) / (2 * tp + fp + fn + smooth)).mean(1)


def one_hot(labels, k=3):
    return np.moveaxis(np.eye(k)[labels], -1, 1)


def slopes(f, x, step=1e-6):
    """Central differences."""
    found = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        found[i] = (f(up) - f(down)) / (2 * step)
    return found


def segments(z, weight=0.5):
    return cross_entropy(z, LABELS).mean() + weight * dice(softmax(z, 1), one_hot(LABELS)).mean()


def test_cross_entropy_and_dice_of_the_same_logits():
    value, grad, parts = SEGMENTS.value_and_grad(Z, LABELS, parts=True)
    assert value == pytest.approx(segments(Z), rel=1e-12)
    np.testing.assert_allclose(grad, slopes(segments, Z), atol=1e-9)
    dices = dice(softmax(Z, 1), one_hot(LABELS)).mean()
    assert parts == pytest.approx({"cross_entropy": cross_entropy(Z, LABELS).mean(), "dice": dices}, rel=1e-12)
    assert SEGMENTS(Z, LABELS) == pytest.approx(value, rel=1e-14)
    out = np.empty_like(Z)
    assert SEGMENTS.value_and_grad(Z, LABELS, out=out)[1] is out
    np.testing.assert_array_equal(out, grad)
    other = SEGMENTS.value_and_grad(Z, LABELS, weights={"dice": 2.0})
    assert other[0] == pytest.approx(segments(Z, 2.0))
    np.testing.assert_allclose(other[1], slopes(lambda z: segments(z, 2.0), Z), atol=1e-9)
    assert SEGMENTS.bind(dice_weight=2.0)(Z, LABELS) == pytest.approx(segments(Z, 2.0))
    assert SEGMENTS(Z, LABELS, axis=1) == value


def test_formats_and_layouts():
    exact, slope = SEGMENTS.value_and_grad(Z, LABELS)
    for dtype, close in (("float32", 1e-5), ("float16", 2e-3)):
        value, grad = SEGMENTS.value_and_grad(Z.astype(dtype), LABELS)
        assert grad.dtype == dtype
        assert value == pytest.approx(exact, rel=close)
        np.testing.assert_allclose(grad, slope, atol=close)
    turned = np.asfortranarray(Z)
    out = np.empty(Z.shape, order="F")
    value, grad = SEGMENTS.value_and_grad(turned, LABELS, out=out)
    assert grad is out
    assert value == pytest.approx(exact)
    np.testing.assert_allclose(out, slope, atol=1e-12)
    kept = Z.copy()
    SEGMENTS.value_and_grad(Z, LABELS)
    np.testing.assert_array_equal(Z, kept)


def test_options_go_to_the_parts_that_have_them():
    labels = LABELS.copy()
    labels[:, 0] = 255
    kept = labels != 255
    value = SEGMENTS(Z, labels, ignore_index=255, class_weight=np.array([1.0, 2.0, 3.0]))
    weight = np.array([1.0, 2.0, 3.0])
    entropies, w = cross_entropy(Z, np.where(kept, labels, 0)), weight[np.where(kept, labels, 0)] * kept
    p, t = softmax(Z, 1) * kept[:, None], one_hot(np.where(kept, labels, 0)) * kept[:, None]
    tp = (p * t).sum((2, 3))
    sizes = (p + t).sum((2, 3))
    overlaps = ((1 - (2 * tp + 1e-5) / (sizes + 1e-5)) * weight).sum(1) / weight.sum()
    assert value == pytest.approx((entropies * w).sum() / w.sum() + 0.5 * overlaps.mean(), rel=1e-9)
    smooth = SEGMENTS(Z, LABELS, label_smoothing=0.1)
    assert smooth == SEGMENTS.bind(label_smoothing=0.1)(Z, LABELS) != SEGMENTS(Z, LABELS)
    # One that several parts have is that of each.
    both = fl.cross_entropy.bind(temperature=1.0) + fl.softmax_focal
    assert both(ROWS, CLASSES, temperature=2.0) == pytest.approx(both(ROWS / 2, CLASSES))
    assert both(ROWS, CLASSES, cross_entropy_temperature=2.0) != both(ROWS, CLASSES, temperature=2.0)


def test_sigmoid_and_dice():
    target = one_hot(LABELS)
    loss = fl.bce_with_logits + fl.dice

    def by_hand(z):
        p = 1 / (1 + np.exp(-z))
        return -np.log(np.where(target == 1, p, 1 - p)).mean() + dice(p, target).mean()

    value, grad = loss.value_and_grad(Z, target)
    assert value == pytest.approx(by_hand(Z), rel=1e-12)
    np.testing.assert_allclose(grad, slopes(by_hand, Z), atol=1e-9)


def odds(s, group=GROUP):
    p = 1 / (1 + np.exp(-s))
    gaps = []
    for label in (1, 0):
        of = label == SIGNS
        rates = [p[of & (group == g)].mean() for g in np.unique(group[of])]
        gaps.append(np.mean([(r - p[of].mean()) ** 2 for r in rates]))
    return np.mean(gaps)


def fair(s):
    p = 1 / (1 + np.exp(-s))
    return -np.log(np.where(SIGNS == 1, p, 1 - p)).mean() + 5 * odds(s)


def test_a_fairness_loss_takes_its_group_by_name():
    loss = fl.bce_with_logits + 5 * fl.equalized_odds
    value, grad = loss.value_and_grad(SCORES, SIGNS, group=GROUP)
    assert value == pytest.approx(fair(SCORES), rel=1e-12)
    np.testing.assert_allclose(grad, slopes(fair, SCORES), atol=1e-9)
    assert loss(SCORES, SIGNS, GROUP) == value
    alone = 2.0 * fl.demographic_parity
    assert alone(SCORES, group=GROUP) == pytest.approx(2 * fl.demographic_parity(SCORES, GROUP))
    # The weights of samples are those of a fairness loss too: weight 0 takes a sample out.
    kept = np.arange(40) < 30
    found = loss(SCORES, SIGNS, group=GROUP, weight=kept.astype(float))
    assert found == pytest.approx(loss(SCORES[:30], SIGNS[:30], group=GROUP[:30]), rel=1e-12)


def test_row_losses_and_fused_parts():
    loss = fl.cross_entropy + 0.3 * fl.softmax_focal
    p = softmax(ROWS, 1)[np.arange(30), CLASSES]
    losses = -np.log(p) * (1 + 0.3 * (1 - p) ** 2)
    assert loss(ROWS, CLASSES) == pytest.approx(losses.mean())
    np.testing.assert_allclose(loss(ROWS, CLASSES, reduction="none"), losses)
    assert loss(ROWS, CLASSES, reduction="sum") == pytest.approx(losses.sum())
    weight = np.abs(ROWS[:, 0])
    assert loss(ROWS, CLASSES, weight=weight) == pytest.approx((weight * losses).sum() / weight.sum())
    for way in ("mean", "sum"):
        grad = loss.value_and_grad(ROWS, CLASSES, reduction=way)[1]
        np.testing.assert_allclose(grad, slopes(lambda z, way=way: loss(z, CLASSES, reduction=way), ROWS), atol=1e-8)
    first, second = loss.grad_and_hess(ROWS, CLASSES)
    expected = [fl.cross_entropy.grad_and_hess(ROWS, CLASSES), fl.softmax_focal.grad_and_hess(ROWS, CLASSES)]
    np.testing.assert_allclose(first, expected[0][0] + 0.3 * expected[1][0], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(second, expected[0][1] + 0.3 * expected[1][1], rtol=1e-12, atol=1e-15)
    # Elementwise parts beside others are one formula.
    triple = fl.bce_with_logits + fl.focal + fl.dice
    assert len(triple._routes) == 2
    value, parts = triple(Z, one_hot(LABELS), parts=True)
    assert list(parts) == ["bce_with_logits", "focal", "dice"]
    assert value == pytest.approx(sum(parts.values()))


def test_risks_and_bound_reductions():
    loss = fl.cross_entropy + fl.softmax_focal
    losses = loss(ROWS, CLASSES, reduction="none")
    worst = loss.bind(reduction=fl.risk.CVaR(0.1))
    value, grad = worst.value_and_grad(ROWS, CLASSES)
    assert value == pytest.approx(np.sort(losses)[-3:].mean())
    np.testing.assert_allclose(grad, slopes(lambda z: worst(z, CLASSES), ROWS), atol=1e-7)
    ignored = np.where(np.arange(30) < 10, -100, CLASSES)
    assert worst(ROWS, ignored) == pytest.approx(np.sort(losses[10:])[-2:].mean())
    weight = (np.arange(30) >= 10).astype(float)
    assert worst(ROWS, CLASSES, weight=weight) == pytest.approx(np.sort(losses[10:])[-2:].mean())
    total = (fl.mse + fl.mae).bind(reduction="sum")
    assert total(SCORES, SIGNS) == pytest.approx(40 * (fl.mse + fl.mae)(SCORES, SIGNS))
    assert pickle.loads(pickle.dumps(total)) == total != fl.mse + fl.mae
    assert eval(repr(total), {"fastloss": fl}) == total
    with pytest.raises(ValueError, match="dice"):
        worst = SEGMENTS(Z, LABELS, reduction=fl.risk.CVaR(0.1))


def test_penalties_on_parameters():
    w, bias = np.array([1.0, -2.0, 0.5]), np.array([3.0])
    loss = fl.mse + 0.1 * fl.l1.on("params") + 0.01 * fl.l2.on("params")
    data = ((SCORES - SIGNS) ** 2).mean()
    value, grad, grads = loss.value_and_grad(SCORES, SIGNS, params=w)
    assert value == pytest.approx(data + 0.1 * 3.5 + 0.01 * 0.5 * 5.25)
    np.testing.assert_allclose(grad, 2 * (SCORES - SIGNS) / 40)
    np.testing.assert_allclose(grads["params"], 0.1 * np.sign(w) + 0.01 * w)
    value, _, grads, parts = loss.value_and_grad(SCORES, SIGNS, params={"w": w, "b": [bias]}, parts=True)
    assert parts == pytest.approx({"mse": data, "l1": 6.5, "l2": 0.5 * (5.25 + 9)})
    assert value == pytest.approx(parts["mse"] + 0.1 * parts["l1"] + 0.01 * parts["l2"])
    np.testing.assert_allclose(grads["params"]["b"][0], 0.1 + 0.03)
    assert loss(SCORES, SIGNS, params=w, reduction="sum") == pytest.approx(40 * data + 0.35 + 0.02625)
    worst = loss(SCORES, SIGNS, params=w, reduction=fl.risk.CVaR(0.1), weights={"l1": 0.0})
    assert worst == pytest.approx(np.sort((SCORES - SIGNS) ** 2)[-4:].mean() + 0.02625)
    net = 2 * fl.elastic_net.bind(l1_ratio=0.25).on("w")
    value, grads = net.value_and_grad(w=w)
    assert value == pytest.approx(2 * (0.25 * 3.5 + 0.75 * 0.5 * 5.25))
    np.testing.assert_allclose(grads["w"], 2 * (0.25 * np.sign(w) + 0.75 * w))
    two = fl.mae + fl.l1.on("first") + fl.l2.on("second")
    assert list(two.value_and_grad(SCORES, SIGNS, first=w, second=bias)[2]) == ["first", "second"]
    assert pickle.loads(pickle.dumps(loss)) == loss
    assert eval(repr(loss), {"fastloss": fl}) == loss


def test_losses_of_two_predictions():
    a, b = RANDOM.standard_normal((2, 8, 4))
    loss = fl.vicreg + 0.1 * fl.barlow_twins
    value, grads = loss.value_and_grad(a, b)
    first, second = fl.vicreg.value_and_grad(a, b), fl.barlow_twins.value_and_grad(a, b)
    assert value == pytest.approx(first[0] + 0.1 * second[0])
    for g, x, y in zip(grads, first[1], second[1], strict=True):
        np.testing.assert_allclose(g, x + 0.1 * y, rtol=1e-10, atol=1e-12)
    mean, scale, t = a[0], np.abs(b[0]) + 0.1, b[1]
    both = fl.laplace_nll + fl.crps_gaussian
    assert both((mean, scale), t) == pytest.approx(
        fl.laplace_nll((mean, scale), t) + fl.crps_gaussian((mean, scale), t)
    )


def evaluated(loss):
    return loss.value_and_grad(Z, LABELS)


@pytest.mark.jit
def test_threads_pickles_and_processes():
    one = fl.get_num_threads()
    z, labels, found = np.tile(Z, (4, 1, 20, 10)), np.tile(LABELS, (4, 20, 10)), []
    try:
        for n in (1, 2):
            fl.set_num_threads(n)
            found.append(SEGMENTS.value_and_grad(z, labels))
    finally:
        fl.set_num_threads(one)
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
    again = pickle.loads(pickle.dumps(SEGMENTS))
    assert again == SEGMENTS
    assert hash(again) == hash(SEGMENTS)
    assert repr(SEGMENTS) == "1 * fastloss.cross_entropy + 0.5 * fastloss.dice.bind(activation='softmax')"
    assert eval(repr(SEGMENTS), {"fastloss": fl}) == SEGMENTS
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        value, grad = pool.submit(evaluated, SEGMENTS).result()
    assert value == evaluated(SEGMENTS)[0]
    np.testing.assert_array_equal(grad, evaluated(SEGMENTS)[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SEGMENTS(Z, LABELS, gama=1.0), "gama is an option of no part"),
        (lambda: SEGMENTS(Z, LABELS, axis=-1), r"axis is -1; dice has its classes along axis 1"),
        (lambda: SEGMENTS(Z, LABELS, reduction="none"), r"shape \(2,\) from dice and \(2, 4, 5\) from cross_entropy"),
        (lambda: SEGMENTS.grad_and_hess(Z, LABELS), "no second derivative, as its part dice has none"),
        (lambda: SEGMENTS.bind(ignore_index=255), "ignore_index is an option of calls in cross_entropy; pass it with"),
        (lambda: SEGMENTS(), "needs prediction; it takes .prediction, target, mask, "),
        (lambda: SEGMENTS(Z, LABELS, weights={"dice": "a"}), r"weights\['dice'\] is 'a'; expected a finite number"),
        (lambda: SEGMENTS.bind(dice_weight=np.nan), "dice_weight is nan"),
        (lambda: (fl.mse + fl.cross_entropy)(ROWS, CLASSES), r"mse: target has shape \(30,\); expected \(30, 4\)"),
        (lambda: fl.nll + fl.cross_entropy, "cannot hold nll, which takes log-probabilities, beside cross_entropy"),
        (lambda: fl.triplet + fl.mse, "which takes anchor, positive, negative, and mse, which takes one prediction"),
        (lambda: fl.bce_with_logits + fl.cross_entropy + fl.dice, "so dice needs the activation; write fl.dice.bind"),
        (lambda: (fl.bce_with_logits + fl.equalized_odds)(SCORES, SIGNS), "equalized_odds needs group"),
        (lambda: (2 * fl.mindiff)(SCORES, SIGNS, GROUP, GROUP, GROUP), r"takes .prediction, target, group, sample_"),
        (lambda: (fl.mse + fl.l1.on("params"))(SCORES, SIGNS), "needs params=, the parameters of its penalty"),
        (
            lambda: (fl.mse + fl.l1.on("p"))(SCORES, SIGNS, p=SCORES, reduction="none"),
            "reduction is 'none', and a penalty",
        ),
        (lambda: fl.mse.on("params"), "mse is no penalty on parameters; write fl.l1"),
        (lambda: fl.l1.on("weight"), "l1: on is 'weight'; expected a Python name that is no option"),
    ],
)
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as found:
        call()
    assert "\n" not in str(found.value)


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_large_images_are_turned_into_rows_once(dtype):
    z = np.resize(Z, (2, 3, 101, 131)).astype(dtype)  # enough for the kernels that turn, and no whole block of pixels
    labels = np.resize(LABELS, (2, 101, 131))
    loss, out = fl.softmax_focal + 0.5 * fl.cross_entropy + 2 * fl.dice, np.empty_like(z)
    value, grad = loss.value_and_grad(z, labels, out=out, ignore_index=1)
    apart = [
        (1.0, fl.softmax_focal.value_and_grad(z, labels, axis=1, ignore_index=1)),
        (0.5, fl.cross_entropy.value_and_grad(z, labels, axis=1, ignore_index=1)),
        (2.0, fl.dice.value_and_grad(z, labels, activation="softmax", ignore_index=1)),
    ]
    close = 1e-12 if dtype == "float64" else 1e-6
    assert value == pytest.approx(sum(w * v for w, (v, _) in apart), rel=close)
    np.testing.assert_allclose(grad, sum(w * g for w, (_, g) in apart), rtol=0, atol=close * np.abs(grad).max())
    assert loss(z, labels, ignore_index=1) == pytest.approx(value, rel=close)
    rows = fl.softmax_focal + 0.5 * fl.cross_entropy
    value, grad = rows.value_and_grad(z, labels, axis=1, ignore_index=1)
    np.testing.assert_allclose(grad, apart[0][1][1] + 0.5 * apart[1][1][1], rtol=0, atol=close * np.abs(grad).max())


def test_the_short_way_of_small_calls_has_the_bits_of_the_general_one():
    rng = np.random.default_rng(40)
    images, pixels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    rows, labels = rng.normal(size=(20, 5)).astype(np.float32), rng.integers(0, 5, 20)
    cases = (
        (0.7 * fl.cross_entropy + 0.3 * fl.dice, images, pixels),
        (fl.cross_entropy + fl.softmax_focal, rows, labels),
    )
    for loss, p, t in cases:
        before = p.copy()
        for reduction in ("mean", "sum"):
            bound = loss.bind(reduction=reduction)
            value, grad = bound.value_and_grad(p, t)
            # Parts are asked for in the general way alone.
            expected = bound.value_and_grad(p, t, parts=True)
            assert value == expected[0]
            assert grad.dtype == p.dtype
            np.testing.assert_array_equal(grad, expected[1])
            assert grad is not bound.value_and_grad(p, t)[1]
        np.testing.assert_array_equal(p, before)
        with pytest.raises(ValueError, match=r"target\[.*\] is 9"):
            loss.value_and_grad(p, np.full_like(t, 9))
