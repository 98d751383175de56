"""Losses of several arrays on the simulated device, against NumPy's textbook form, differences of it, and the CPU."""

import warnings

import numpy as np
import pytest
from array_cases import SAMPLES, counts, differentiable, inputs, mean, slopes, truth

import fastloss as fl
from fastloss.cuda import pairs
from fastloss.cuda.placement import ARRAYS

NAMES = [name for name in SAMPLES if fl.LOSSES[name].record.loop in ARRAYS]
WITHOUT_KERNELS = {"overlap": "min", "classes": "all"}
"""Options of losses over regions whose kernels know one value, which is the usual one."""
CASES = [
    pytest.param(name, v, id=f"{name}-{v}" if v else name)
    for name in NAMES
    for v in SAMPLES[name].variants
    if all(v.get(option, usual) == usual for option, usual in WITHOUT_KERNELS.items())
]
each_case = pytest.mark.parametrize(("name", "variant"), CASES)
each_loss = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def device(put, fetch):
    """Call a loss on the device with arrays in host memory; results in host memory, gradients by name."""

    def call(name, given, derivatives=True, **options):
        loss = fl.LOSSES[name].value_and_grad if derivatives else fl.LOSSES[name]
        result = loss(**{k: put(a) for k, a in {**given, **options}.items()})
        return named(name, given, tuple(map(fetch, result))) if derivatives else fetch(result)

    return call


def named(name, given, result):
    keys = differentiable(name, given)
    return result[0], dict(zip(keys, result[1] if len(keys) > 1 else (result[1],), strict=True))


def on_cpu(name, given, **options):
    with warnings.catch_warnings():
        # Without the compiler NumPy warns of what formulas do beside the choice.
        warnings.simplefilter("ignore")
        return named(name, given, fl.LOSSES[name].value_and_grad(**given, **options))


def few(name, dtype=np.float64):
    """The sample of a loss; of those whose units take a warp or more, a few units."""
    first = {"points": slice(None), "embeddings.pairs": slice(6), "regions.sums": slice(1, None)}
    part = first[fl.LOSSES[name].record.loop]
    return {k: a if k == "class_weight" else a[part] for k, a in inputs(name, dtype).items()}


def close(got, expected, dtype=np.float64, condition=1.0):
    eps = condition * np.finfo(dtype).eps
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    np.testing.assert_allclose(got, expected, rtol=2000 * eps, atol=200 * eps * scale)


def weights_of(shape, dtype=np.float64):
    w = np.random.default_rng(3).uniform(0.2, 2.0, shape)
    w.reshape(-1)[1::4] = 0.0
    return np.asarray(w, dtype)


@each_case
def test_values_and_gradients(name, variant, device):
    given, sample = few(name), SAMPLES[name]
    expected = truth(name, given, variant)
    w = weights_of(expected.shape)
    weight = {"weight": w} if w.ndim else {}
    values, grads = device(name, given, reduction="none", **weight, **variant)
    w = w if w.ndim else np.ones(())
    assert values.shape == expected.shape
    close(values, w * expected, condition=sample.condition)
    _, wanted = on_cpu(name, given, reduction="none", **weight, **variant)
    held = {} if sample.held is None else sample.held(**given, **variant)

    def total(moved):
        return (w * truth(name, moved, {**variant, **held})).sum()

    for key, g in grads.items():
        close(g, wanted[key], condition=10 * sample.condition)
        places = [tuple(p) for p in np.argwhere(np.ones(g.shape))[:: -(-g.size // 3)]]
        found = slopes(total, given, key, places)
        np.testing.assert_allclose([g[p] for p in places], found, rtol=1e-6, atol=1e-7)


@each_loss
def test_mean_under_weights_in_single_precision(name, device):
    given = few(name, np.float32)
    expected = truth(name, given, {})
    w = weights_of(expected.shape, np.float32)
    value, grads = device(name, given, weight=w)
    assert value.dtype == np.float32
    assert value.shape == ()
    np.testing.assert_allclose(value, mean(expected, w.astype(float), counts(name, given, {}, w.shape)), rtol=1e-5)
    assert device(name, given, derivatives=False, weight=w) == value
    _, wanted = on_cpu(name, given, weight=w)
    for key, g in grads.items():
        assert g.dtype == np.float32
        np.testing.assert_allclose(g, wanted[key], rtol=1e-4, atol=2e-5 * np.abs(wanted[key]).max())


@pytest.mark.parametrize("name", ["giou", "dpo", "kto", "triplet", "cosine_embedding", "dice", "boundary"])
def test_half_precision(name, device):
    given = few(name, np.float16)
    value, grads = device(name, given, reduction="sum")
    wide = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in given.items()}
    expected, wanted = on_cpu(name, wide, reduction="sum")
    assert value.dtype == np.float32
    assert value == pytest.approx(expected, rel=1e-5)
    for key, g in grads.items():
        assert g.dtype == np.float16
        np.testing.assert_allclose(g, wanted[key], rtol=2e-3, atol=1e-6)
    assert device(name, given, derivatives=False, reduction="none").dtype == np.float16


@each_loss
def test_nothing(name, device):
    given = SAMPLES[name].empty()
    for reduction in ("mean", "sum"):
        value, grads = device(name, given, reduction=reduction)
        assert value == 0.0
        assert all(g.shape == given[k].shape for k, g in grads.items())


@pytest.mark.parametrize(("name", "length"), [("cosine_distance", 0), ("gradient_penalty", 0)])
def test_vectors_of_no_length_count_nothing(name, length, device):
    given = {k: np.empty((3, length)) for k in fl.LOSSES[name].record.inputs}
    values, _ = device(name, given, reduction="none")
    assert values.tolist() == [0.0] * 3


@pytest.mark.parametrize("block", [32, 64], indirect=True)
@pytest.mark.parametrize("n", [1, 31, 130])
def test_sizes_of_points(n, block, device):
    rng = np.random.default_rng(n)
    given = dict(zip(("boxes", "target"), np.sort(rng.normal(size=(2, n, 2, 2)), axis=2).reshape(2, n, 4), strict=True))
    value, grads = device("giou", given)
    expected, wanted = on_cpu("giou", given)
    close(value, np.asarray(expected))
    close(grads["boxes"], wanted["boxes"])


@pytest.mark.parametrize("block", [32, 64], indirect=True)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 32), (1, 75)])
def test_sizes_of_vectors(n, d, block, device, monkeypatch):
    # Rows share blocks, as those of a large call do.
    monkeypatch.setattr(pairs, "MAX_BLOCKS", 0)
    rng = np.random.default_rng(d)
    given = dict(zip(("anchor", "positive", "negative"), rng.normal(size=(3, n, d)), strict=True))
    value, grads = device("triplet", given, margin=3.0)
    expected, wanted = on_cpu("triplet", given, margin=3.0)
    close(value, np.asarray(expected))
    for key, g in grads.items():
        close(g, wanted[key])


@pytest.mark.parametrize("block", [32, 64], indirect=True)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 33), (1, 4, 130)])
def test_sizes_of_regions(shape, block, device):
    rng = np.random.default_rng(shape[-1])
    given = {"prediction": rng.normal(size=shape), "target": rng.integers(0, max(2, shape[1]), (shape[0], shape[2]))}
    options = {"activation": "softmax" if shape[1] > 1 else "sigmoid", "smooth_den": 0.5}
    value, grads = device("tversky", given, **options)
    expected, wanted = on_cpu("tversky", given, **options)
    close(value, np.asarray(expected))
    close(grads["prediction"], wanted["prediction"])


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e18, 1e30])
def test_long_and_short_vectors_lose_nothing(scale, device):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 40)) * scale
    y = x + rng.normal(size=(3, 40)) * np.array([[1e-3], [1.0], [0.0]]) * scale
    given = {"x1": x.astype(np.float32), "x2": y.astype(np.float32)}
    values, grads = device("cosine_distance", given, reduction="none")
    expected, wanted = on_cpu("cosine_distance", given, reduction="none")
    np.testing.assert_allclose(values, expected, rtol=3e-5, atol=1e-14)
    for key, g in grads.items():
        np.testing.assert_allclose(g * scale, wanted[key] * scale, rtol=1e-4, atol=3e-7)
    given["same"] = np.zeros(3, np.float32)
    values, grads = device("contrastive", given, reduction="none", margin=20 * scale)
    expected, wanted = on_cpu("contrastive", given, reduction="none", margin=20 * scale)
    np.testing.assert_allclose(values, expected, rtol=2e-6)
    np.testing.assert_allclose(grads["x1"], wanted["x1"], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_triplet_whose_squares_overflow_is_no_nan(dtype, device):
    size = dtype(1e30 if dtype == np.float32 else 1e160)
    a, p = np.zeros((3, 2), dtype), np.array([[0, 1], [3, 0], [0, 1]], dtype) * size
    n = np.array([[2, 0], [0, 1], [1, 0]], dtype) * size
    given = {"anchor": a, "positive": p, "negative": n}
    values, grads = device("triplet", given, margin=0.5, squared=True, reduction="none")
    assert values.tolist() == [0.0, np.inf, 0.5]
    slopes = np.array([[0], [2], [2]], dtype)
    for key, expected in (("anchor", slopes * (n - p)), ("positive", slopes * p), ("negative", slopes * -n)):
        np.testing.assert_allclose(grads[key], expected, rtol=4 * np.finfo(dtype).eps)


def test_vectors_that_are_equal_or_zero_have_no_slope(device):
    given = {k: np.ones((2, 5)) for k in ("anchor", "positive", "negative")}
    for options in ({}, {"p": 1.0}, {"p": 3.0}):
        values, grads = device("triplet", given, reduction="none", **options)
        assert values.tolist() == [1.0, 1.0]
        assert not any(g.any() for g in grads.values())
    values, grads = device("cosine_distance", {"x1": np.zeros((1, 4)), "x2": np.ones((1, 4))}, reduction="none")
    assert values.tolist() == [1.0]
    assert not any(g.any() for g in grads.values())


def test_numbers_stand_for_arrays_and_some_may_be_absent(put, fetch):
    given = inputs("kto")
    del given["kl"]
    for kl in (None, 0.3):
        found = fl.kto(**{k: put(a) for k, a in given.items()}, kl=kl, reduction="none")
        np.testing.assert_allclose(fetch(found), fl.kto(**given, kl=kl, reduction="none"), rtol=1e-12)
    z, reward = np.array([-1.0, -2.0]), np.array([1.0, 0.5])
    value, grad = fl.reinforce.value_and_grad(put(z), put(reward), 0.25)
    expected, wanted = fl.reinforce.value_and_grad(z, reward, 0.25)
    assert fetch(value) == expected
    np.testing.assert_allclose(fetch(grad), wanted)


def test_regions_of_a_single_class_and_masks_have_several_shapes(put, fetch):
    rng = np.random.default_rng(2)
    z, t, mask = rng.random((2, 1, 3, 4)), rng.integers(0, 2, (2, 1, 3, 4)), rng.random((2, 1, 3, 4)) < 0.7
    expected = fl.dice(z, t, mask[:, 0])
    for target in (t, t[:, 0].astype(np.int32), t.astype(np.uint8), t.astype(float), t.astype(bool)):
        assert fetch(fl.dice(put(z), put(target), put(mask[:, 0]))) == pytest.approx(expected, rel=1e-12)
    assert fetch(fl.dice(put(z), put(t), put(mask.astype(np.uint8)))) == pytest.approx(expected, rel=1e-12)


def test_out_is_written_and_returned(put, fetch):
    given = inputs("simpo")
    out = tuple(put(np.zeros(20)) for _ in range(2))
    _, grads = fl.simpo.value_and_grad(*map(put, given.values()), out=out)
    assert grads is out
    for g, wanted in zip(fetch(out), fl.simpo.value_and_grad(**given)[1], strict=True):
        close(g, wanted)


def test_arrays_in_host_memory():
    given = inputs("jaccard")
    expected, wanted = fl.jaccard.value_and_grad(**given)
    with fl.backend("cuda"):
        value, grad = fl.jaccard.value_and_grad(**given)
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-12)
    close(grad, wanted)
    with fl.backend("cuda"), pytest.raises(ValueError, match=r"^dice: target\[0, 1\] is 7; allowed: 0 to 1, or -100"):
        fl.dice(np.full((1, 2, 3), 0.5), np.array([[0, 7, 1]]))


VECTORS = {"x1": np.eye(3), "x2": np.ones((3, 3))}
IMAGE = {"prediction": np.full((2, 3, 4), 0.5), "target": np.zeros((2, 4), np.int64)}


def changed(given, key, place, value, like=None):
    a = np.array(given[key] if like is None else like)
    a[place] = value
    return {**given, key: a}


@pytest.mark.parametrize(
    ("name", "given", "unit", "message"),
    [
        ("orpo", {"chosen": [-1.0, 0.5], "rejected": [-1.0, -1.0]}, 1, r"chosen\[1\] is 0.5; allowed: \(-inf, 0\]"),
        ("aft", {"prediction": [0.0], "lower": [2.0], "upper": [1.0]}, 0, r"lower\[0\] is 2; allowed: at most that of"),
        ("kto", {"log_prob": [0.0] * 2, "ref_log_prob": [0.0] * 2, "desirable": [0, 2]}, 1, r"desirable\[1\] is 2;"),
        ("simpo", {"chosen": [0.0] * 2, "rejected": [1.0] * 2, "weight": [1.0, -3.0]}, 1, r"weight\[1\] is -3; allow"),
        ("cosine_embedding", {**VECTORS, "t": [1, -1, 0]}, 2, r"t\[2\] is 0; allowed: \{-1, \+1\}"),
        ("dice", changed(IMAGE, "target", (1, 2), 3), 1, r"target\[1, 2\] is 3; allowed: 0 to 2, or -100 \(ignore_ind"),
        (
            "dice",
            changed(IMAGE, "target", (1, 2), 2**64 - 100, np.zeros((2, 4), np.uint64)),
            1,
            r"target\[1, 2\] is 18446744073709551516; allowed: 0 to 2, or -100",
        ),
        (
            "jaccard",
            {**changed(IMAGE, "target", (1, 2), 2**63 - 1, np.zeros((2, 4), np.uint64)), "ignore_index": None},
            1,
            r"target\[1, 2\] is 9223372036854775807; allowed: 0 to 2$",
        ),
        ("mcc", changed(IMAGE, "prediction", (1, 2, 3), 1.5), 1, r"prediction\[1, 2, 3\] is 1.5; allowed: \[0, 1\]"),
        (
            "dice",
            changed(IMAGE, "mask", (1, 1), 7, np.ones((2, 4), np.uint8)),
            1,
            r"mask\[1, 1\] is 7; allowed: 0 \(le",
        ),
        (
            "jaccard",
            changed(IMAGE, "class_weight", 2, -1.0, np.ones(3)),
            None,
            r"class_weight\[2\] is -1; allowed: \[0, ",
        ),
        (
            "tversky",
            changed(IMAGE, "class_weight", 1, np.inf, np.ones(3)),
            None,
            r"class_weight\[1\] is inf; allowed: \[0, inf\)",
        ),
    ],
)
def test_violations_are_nan_and_reported_by_synchronize(name, given, unit, message, put, fetch):
    given = {k: a if a is None else put(np.array(a)) for k, a in given.items()}
    values = fetch(fl.LOSSES[name](**given, reduction="none"))
    assert np.flatnonzero(np.isnan(values)).tolist() == ([0, 1] if unit is None else [unit])
    with pytest.raises(ValueError, match=rf"^{name}: {message}"):
        fl.synchronize()
    assert np.isnan(fetch(fl.LOSSES[name](**given)))


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("iou", {"boxes": np.ones((2, 4)), "target": np.ones((3, 4))}, {}),
        ("iou", {"boxes": np.ones((2, 3)), "target": np.ones((2, 3))}, {}),
        ("dpo", {"chosen": np.ones(3), "rejected": np.ones(3)}, {}),
        ("cosine_distance", {"x1": np.ones((2, 4)), "x2": np.ones((2, 5))}, {}),
        ("dice", {**IMAGE, "target": np.zeros((2, 5), np.int64)}, {}),
        ("dice", {**IMAGE, "target": np.zeros((2, 4))}, {}),
        ("dice", {"prediction": np.ones((1, 1, 4)), "target": np.ones((1, 1, 4))}, {"activation": "softmax"}),
        ("dice", {"prediction": np.ones((1, 1, 4)), "target": np.ones((1, 1, 4))}, {"include_background": False}),
        ("triplet", dict.fromkeys(("anchor", "positive", "negative"), np.ones((2, 3), bool)), {}),
        ("simpo", {"chosen": np.ones(3), "rejected": np.ones(3)}, {"reduction": "max"}),
        ("simpo", {"chosen": np.ones(3), "rejected": np.ones(3)}, {"reduction": "none", "divisor": 2.0}),
    ],
)
def test_wrong_calls_are_told_as_on_the_cpu(name, given, options, put):
    with pytest.raises((ValueError, TypeError)) as expected:
        fl.LOSSES[name](**given, **options)
    with pytest.raises(type(expected.value)) as found:
        fl.LOSSES[name](**{k: put(a) for k, a in given.items()}, **options)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou", "siou"])
def test_boxes_of_integers(name, kind, device):
    boxes = np.array([[10.0, 20.0, 150.0, 180.0]], np.float32)
    target = np.array([[5, 10, 200, 220]], kind)
    value, grads = device(name, {"boxes": boxes, "target": target})
    expected, slopes = on_cpu(name, {"boxes": boxes.astype(np.float64), "target": target.astype(np.float64)})
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(grads["boxes"], slopes["boxes"], rtol=1e-4, atol=1e-7)
