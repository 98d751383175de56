"""Values, gradients and options of float16 and bfloat16: what float32 copies give, rounded once."""

import tracemalloc

import numpy as np
import pytest
from half_cases import (
    BFLOAT16,
    FLOAT16,
    bits,
    check,
    draw,
    draw_rows,
    each,
    each_format,
    ml_dtypes,
    results,
    rounded,
    same,
    wide,
)
from numba import config

import fastloss as fl

ELEMENTWISE = ["mse", "huber", "bce_with_logits", "gaussian_nll", "l1"]
SIZES = [1, 63, 64, 65, 8191, 8193, 100_000]
CLASSES = [2, 10, 33, 100, 5000]
if config.DISABLE_JIT:
    SIZES, CLASSES = [1, 65], [2, 10, 33]


# Values and derivatives ----------------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elements(name, n, half):
    check(fl.LOSSES[name], *draw(name, n, half))


@each_format
@pytest.mark.parametrize("k", CLASSES)
@pytest.mark.parametrize("name", ["cross_entropy", "kl_div"])
def test_rows(name, k, half):
    """One row, part of a tile, a whole one, and several chunks of at most 8192 scores."""
    for n in (1, 63, 64, 65, 20_000 // k + 3) if not config.DISABLE_JIT else (1, 65):
        check(fl.LOSSES[name], *draw_rows(name, n, k, half))


@each_format
@pytest.mark.parametrize("name", ["mse", "bce_with_logits", "cross_entropy", "kl_div"])
def test_nothing_comes_of_nothing(name, half):
    loss = fl.LOSSES[name]
    if name in ELEMENTWISE:
        value, gradient = loss.value_and_grad(np.empty(0, half), np.empty(0, half))
    else:
        target = np.empty(0, np.int64) if name == "cross_entropy" else np.empty((0, 5), half)
        value, gradient = loss.value_and_grad(np.empty((0, 5), half), target)
    assert value == 0.0
    assert gradient.dtype == half
    assert gradient.size == 0


def every_number(half):
    return np.arange(1 << 16, dtype=np.uint16).view(half)


@pytest.mark.jit
@each_format
def test_every_number_is_read(half):
    """All 65536: the subnormal ones, infinities and NaN among them. The gradient of half a square is the number."""
    z = every_number(half)
    same(fl.l1(z, reduction="none"), np.abs(wide(z)), half)
    same(fl.l2.value_and_grad(z, reduction="sum")[1], wide(z), half)
    target = z[::-1].copy()
    with np.errstate(invalid="ignore"):
        difference = np.abs(wide(z) - wide(target))
    same(fl.mae(z, target, reduction="none"), difference, half)


@pytest.mark.jit
@each_format
def test_gradients_are_rounded_to_the_nearest(half):
    """Between all neighbours, and one float32 to either side; to even from the middle, to infinity from the largest."""
    z = wide(every_number(half))
    z = np.unique(z[np.isfinite(z) & (z > 0)]).astype(np.float64)
    beyond = 2 * z[-1] - z[-2]
    middle = ((z + np.append(z[1:], beyond)) / 2).astype(np.float32)
    weight = np.concatenate([z.astype(np.float32), middle, *(np.nextafter(middle, np.float32(s)) for s in (0, np.inf))])
    weight = weight[np.isfinite(weight)]
    for sign in (1, -1):
        gradient = fl.l2.value_and_grad(np.full(weight.size, sign, half), weight=weight, reduction="sum")[1]
        same(gradient, sign * weight, half)
        expected = np.isinf(rounded(weight, half))
        assert expected.any()
        np.testing.assert_array_equal(np.isinf(gradient), expected)


@pytest.mark.jit
@each_format
def test_small_and_large_gradients(half):
    """A mean over many elements brings gradients of float16 to its subnormal numbers; large ones overflow."""
    rng = np.random.default_rng(3)
    p, t = rng.normal(0, 1, (2, 100_000)).astype(half)
    check(fl.mse, p, t)
    if half == FLOAT16:
        gradient = np.abs(fl.mse.value_and_grad(p, t)[1])
        assert ((gradient > 0) & (gradient < np.finfo(half).tiny)).any()
    largest = np.array([3e38, -3e38, 1.0]).astype(half) if half == BFLOAT16 else np.array([6e4, -6e4, 1.0], half)
    gradient = fl.mse.value_and_grad(largest, np.zeros(3, half), reduction="sum")[1]
    np.testing.assert_array_equal(gradient.astype(np.float32), [np.inf, -np.inf, 2.0])


@each_format
@pytest.mark.parametrize("call", ["elements", "rows", "two types"])
def test_overflow_is_silent(call, half):
    """What is beyond the largest number is infinite, and no warning tells of it, as in float32 arrays."""
    largest = np.array([6e4 if half == FLOAT16 else 3e38]).astype(half)
    if call == "elements":
        assert np.isposinf(fl.mse(largest, np.zeros(1, half), reduction="none"))
    elif call == "rows":
        scores = np.concatenate([largest, -largest])[None]
        assert np.isposinf(fl.cross_entropy(scores, np.array([1]), reduction="none"))
    else:
        prediction = largest, np.full(1, 1e-4, np.float32)
        assert np.isposinf(fl.gaussian_nll.value_and_grad(prediction, np.zeros(1), reduction="sum")[1][0])


@each_format
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_and_infinity_stay_where_they_are(name, half):
    prediction, target = draw(name, 200, half)
    first = each(prediction)[0]
    first[[3, 64, 199]] = np.nan
    first[70:72] = np.inf, -np.inf
    check(fl.LOSSES[name], prediction, target)
    gradient = each(fl.LOSSES[name].value_and_grad(prediction, target)[1])[0]
    assert np.isnan(gradient[[3, 64, 199]]).all()
    assert np.isfinite(np.delete(gradient, [3, 64, 199, 70, 71])).all()


# What comes with the prediction --------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("kind", ["half", "other", "float32", "float64", "int8", "uint64", "bool", "one"])
def test_targets_of_other_types(kind, half):
    p, t = draw("bce_with_logits", 8193 if not config.DISABLE_JIT else 65, half)
    other = BFLOAT16 if half == FLOAT16 else FLOAT16
    dtype = {"half": half, "other": other}.get(kind, kind)
    target = 0.25 if kind == "one" else t if kind == "half" else (t > 0.5).astype(dtype)
    if kind in ("other", "float32", "float64"):
        target = t.astype(dtype)
    check(fl.bce_with_logits, p, np.asarray(target))


@each_format
@pytest.mark.parametrize("other", ["bfloat16", "float16", "float32", "float64"])
def test_predictions_of_two_types(half, other):
    """Only those that all have one format are read as they are; a gradient has its own prediction's type."""
    (mean, var), t = draw("gaussian_nll", 300, half)
    other = np.dtype(getattr(ml_dtypes, other, other))
    var = var.astype(other)
    kept = np.float64 if other == np.float64 else np.float32
    value, gradients = fl.gaussian_nll.value_and_grad((mean, var), t)
    expected, expected_gradients = fl.gaussian_nll.value_and_grad((mean.astype(kept), var.astype(kept)), t.astype(kept))
    assert value == pytest.approx(expected, rel=1e-6)
    for got, wanted, given in zip(gradients, expected_gradients, (mean, var), strict=True):
        assert got.dtype == given.dtype
        np.testing.assert_array_equal(got, wanted.astype(given.dtype))


@each_format
@pytest.mark.parametrize("weight", ["half", "float32", "int8", "scalar"])
def test_weights(weight, half):
    rng = np.random.default_rng(5)
    p, t = draw("mse", 8193 if not config.DISABLE_JIT else 65, half)
    w = rng.integers(0, 4, p.size)
    p[np.flatnonzero(w == 0)[0]] = np.nan
    w = np.array(0.7, np.float32) if weight == "scalar" else w.astype(half if weight == "half" else weight)
    if weight == "scalar":
        p = np.nan_to_num(p.astype(np.float32)).astype(half)
    check(fl.mse, p, t, weight=w)
    assert np.isfinite(fl.mse.value_and_grad(p, t, weight=w)[1]).all()


@each_format
def test_a_divisor(half):
    check(fl.mse, *draw("mse", 100, half), divisor=7.0)


@each_format
@pytest.mark.parametrize("name", ["cross_entropy", "kl_div"])
@pytest.mark.parametrize("k", [10, 100])
def test_weights_of_rows_and_classes(name, k, half):
    rng = np.random.default_rng(6)
    z, t = draw_rows(name, 130, k, half)
    weight, classes = rng.integers(0, 3, 130).astype(half), rng.random(k).astype(half)
    check(fl.LOSSES[name], z, t, weight=weight)
    check(fl.LOSSES[name], z, t, class_weight=classes)
    check(fl.LOSSES[name], z, t, weight=weight, class_weight=classes)


@each_format
@pytest.mark.parametrize("k", [10, 100])
@pytest.mark.parametrize("ignored", [-100, 3, 255])
def test_ignored_rows(ignored, k, half):
    z, labels = draw_rows("cross_entropy", 130, k, half)
    rows = np.array([0, 5, 63, 64, 129])
    labels[rows] = ignored
    z[rows[1:3]] = np.nan
    check(fl.cross_entropy, z, labels, ignore_index=ignored)
    value, gradient = fl.cross_entropy.value_and_grad(z, labels, ignore_index=ignored)
    assert np.isfinite(value)
    assert not gradient[rows].any()
    check(fl.cross_entropy, z, np.full(130, ignored), ignore_index=ignored)


@each_format
@pytest.mark.parametrize("kind", ["uint8", "int32", ">i8"])
def test_types_of_labels(kind, half):
    z, labels = draw_rows("cross_entropy", 70, 10, half)
    check(fl.cross_entropy, z, labels.astype(kind))


@each_format
def test_options_of_a_softmax(half):
    z, labels = draw_rows("cross_entropy", 70, 10, half)
    check(fl.cross_entropy.bind(label_smoothing=0.1, z_loss=0.01, temperature=2.0), z, labels)
    details = fl.cross_entropy.details(z, labels)
    expected = fl.cross_entropy.details(wide(z), labels)
    np.testing.assert_array_equal(details.logsumexp, expected.logsumexp)
    np.testing.assert_array_equal(details.argmax, expected.argmax)
    np.testing.assert_array_equal(details.rank, expected.rank)


@each_format
@pytest.mark.parametrize("axis", [0, 1])
def test_classes_along_another_axis(axis, half):
    rng = np.random.default_rng(7)
    z = rng.normal(size=(5, 6, 7)).astype(half)
    labels = rng.integers(0, z.shape[axis], np.delete(z.shape, axis))
    value, gradient = fl.cross_entropy.value_and_grad(z, labels, axis=axis)
    expected, expected_gradient = fl.cross_entropy.value_and_grad(wide(z), labels, axis=axis)
    assert value == pytest.approx(expected, rel=1e-6)
    same(gradient, expected_gradient, half)


# Errors --------------------------------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize("size", [100, 8300])
def test_violations_are_named(size, half):
    p, t = draw("bce_with_logits", size, half)
    i = size - 3
    t[i] = -2.0
    with pytest.raises(ValueError, match=rf"^bce_with_logits: target\[{i}\] is -2; allowed:"):
        fl.bce_with_logits(p, t)
    (mean, scale), t = draw("gaussian_nll", size, half)
    scale[i] = -0.5
    with pytest.raises(ValueError, match=rf"^laplace_nll: scale\[{i}\] is -0\.5; allowed:"):
        fl.laplace_nll.value_and_grad((mean, scale), t)
    weight = np.ones(size, half)
    weight[i] = -1.0
    with pytest.raises(ValueError, match=rf"weight\[{i}\] is -1; allowed:"):
        fl.mse(p, p.copy(), weight=weight)


@each_format
@pytest.mark.parametrize("k", [5, 200])
def test_violations_in_rows_are_named(k, half):
    z, labels = draw_rows("cross_entropy", 70, k, half)
    labels[66] = k
    with pytest.raises(ValueError, match=rf"^cross_entropy: target\[66\] is {k}; allowed: 0 to {k - 1}, or -100"):
        fl.cross_entropy.value_and_grad(z, labels)
    z, t = draw_rows("kl_div", 70, k, half)
    t[66, 2] = -0.25
    with pytest.raises(ValueError, match=r"^kl_div: target\[66, 2\] is -0\.25; allowed:"):
        fl.kl_div(z, t)


# Threads and memory --------------------------------------------------------------------------------------------------


@pytest.fixture
def threads():
    held = fl.get_num_threads()
    yield fl.set_num_threads
    fl.set_num_threads(held)


@pytest.mark.jit
@each_format
@pytest.mark.parametrize("name", [*ELEMENTWISE, "cross_entropy", "kl_div"])
def test_same_bits_for_any_number_of_threads(threads, name, half):
    if name in ELEMENTWISE:
        shapes = [draw(name, n, half) for n in (1 << 16, 1_000_003)]
    else:
        shapes = [draw_rows(name, 300_000 // k + 1, k, half) for k in (10, 100, 5000)]
    for prediction, target in shapes:
        threads(1)
        values, arrays = results(fl.LOSSES[name], prediction, target, {})
        threads(2)
        again, other = results(fl.LOSSES[name], prediction, target, {})
        assert values == again
        for a, b in zip(arrays, other, strict=True):
            np.testing.assert_array_equal(bits(a), bits(b))


@pytest.mark.jit
@each_format
@pytest.mark.parametrize(
    ("name", "target_type"),
    [
        ("mse", "half"),
        ("bce_with_logits", "half"),
        ("gaussian_nll", "half"),
        ("mse", "float32"),
        ("cross_entropy", "labels"),
        ("kl_div", "float32"),
        ("kl_div", "half"),
    ],
)
def test_no_copy_is_made(name, target_type, half):
    """Four million elements are 16 MB in float32; NumPy tells tracemalloc of each array."""
    n = 1 << 22
    prediction, target = draw(name, n, half) if name in ELEMENTWISE else draw_rows(name, n // 32, 32, half)
    target = wide(target) if target_type == "float32" else target
    out = tuple(np.empty_like(p) for p in each(prediction))
    out = out if isinstance(prediction, tuple) else out[0]
    loss = fl.LOSSES[name]
    first = loss.value_and_grad(prediction, target, out=out)[0]
    tracemalloc.start()
    try:
        second = loss.value_and_grad(prediction, target, out=out)[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert first == second
    assert peak < 1e6
