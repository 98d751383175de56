"""One rule over all losses: weight 0 removes an element whatever it holds; NaN and infinity come through elsewhere."""

import left_out
import numpy as np
import pytest
from numba import config

import fastloss as fl
from fastloss.spec.record import LOOPS

CHEAP = ["mse", "bce_with_logits", "gaussian_nll"]
"""Elementwise losses whose kernels for 16 bits other tests compile too; those of other losses are of float32."""
DTYPES = [
    pytest.param(name, dtype, id=f"{name}-{np.dtype(dtype)}")
    for name, loss in fl.LOSSES.items()
    for dtype in (np.float32, np.float64, np.float16)
    if dtype != np.float16 or loss.record.family == "rows" or name in CHEAP
]


@pytest.fixture(autouse=True)
def quiet():
    """Casts of what is too large for a precision, and formulas without the compiler."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize(("name", "dtype"), DTYPES)
def test_what_does_not_count_may_hold_anything(name, dtype):
    for case in left_out.cases(name):
        expected, slopes = left_out.run(case, case.given, dtype)
        assert np.isfinite(expected), case
        for key, index in case.parts.items():
            assert not slopes.get(key, np.zeros(0))[index if key in slopes else ...].any(), (str(case), key)
        for key, bad, given in left_out.planted(case):
            value, grads = left_out.run(case, given, dtype)
            assert value == expected, (str(case), key, bad)
            for k, g in grads.items():
                assert g.tobytes() == slopes[k].tobytes(), (str(case), key, bad, k)


SECOND = [name for name, loss in fl.LOSSES.items() if loss.record.second and loss.record.family != "arrays"]


@pytest.mark.parametrize("name", SECOND)
def test_nor_does_it_touch_curvatures(name):
    loss = fl.LOSSES[name]
    for case in left_out.cases(name):
        names = loss.record.predictions

        def found(given, case=case, names=names):
            z = tuple(given[k] for k in names)
            return loss.grad_and_hess(z if len(z) > 1 else z[0], given.get("t"), **case.options)

        expected = found(case.given)
        for key, bad, given in left_out.planted(case):
            for a, b in zip(found(given), expected, strict=True):
                np.testing.assert_array_equal(a, b, f"{case} {key} {bad}")


@pytest.mark.parametrize("name", fl.LOSSES)
def test_nan_comes_through(name):
    for case in left_out.cases(name):
        if not case.what.startswith("weight"):
            continue
        options = {k: v for k, v in case.options.items() if k != "weight"}
        whole = left_out.Case(name, case.what, case.given, options)
        for key, index in case.parts.items():
            if case.given[key].dtype.kind != "f" or case.given[key].size == 0:
                continue
            a = case.given[key].copy()
            if left_out.is_unused(case, key):
                continue
            # Of an item or a class alone, one number.
            part = np.array(a[index])
            part.reshape(-1)[0] = np.nan
            a[index] = part
            if np.array_equal(a, case.given[key]):
                continue
            if "labels" in case.what or index[0] is ...:
                a[index] = np.nan
            value, grads = left_out.run(whole, {**case.given, key: a})
            assert np.isnan(value), (str(case), key)
            for k, g in grads.items():
                if not left_out.no_slope(case, key, k):
                    assert np.isnan(g[case.parts[k]] if k in case.parts else g).any(), (str(case), key, k)


@pytest.mark.parametrize("name", fl.LOSSES)
def test_a_weight_of_nan_comes_through(name):
    record = fl.LOSSES[name].record
    case = left_out.cases(name)[0]
    weight = np.array(case.options["weight"])
    weight[...] = np.where(weight == 0.0, np.nan, weight)
    value, grads = left_out.run(case, case.given, weight=weight)
    assert np.isnan(value)
    assert all(np.isnan(g).any() for g in grads.values()) or record.family != "elementwise"


CLASSED = [n for n, loss in fl.LOSSES.items() if loss.record.family == "rows" and loss.record.loop != "ensemble"]


@pytest.mark.parametrize("name", CLASSED)
def test_what_class_weights_do_not_remove_comes_through(name):
    loop = LOOPS[fl.LOSSES[name].record.loop]
    for kind, there in (("labels", loop.labels), ("dense", bool(loop.dense))):
        if there:
            given = left_out.row_inputs(name, kind, 10)
            given["z"][1] = np.nan
            c = np.ones(10)
            c[2] = 0.0
            value, _ = left_out.run(left_out.Case(name, kind, given, {"class_weight": c}), given)
            assert np.isnan(value), kind


@pytest.mark.parametrize("top", [np.inf, -np.inf])
@pytest.mark.parametrize("name", ["dice", "lovasz_softmax", "boundary"])
def test_a_softmax_of_infinite_scores_is_nan_as_that_of_cross_entropy(name, top):
    z = np.random.default_rng(0).normal(size=(2, 3, 4))
    z[0, :, 1] = top
    target = np.random.default_rng(1).integers(0, 2, z.shape).astype(float)
    values = fl.LOSSES[name](z, target, activation="softmax", reduction="none")
    assert np.isnan(values).tolist() == [True, False]
    assert np.isnan(fl.cross_entropy(z[0, :, 1], np.array([0.0, 1.0, 0.0])))


def test_a_class_without_pixels_counts_where_its_target_is_nan():
    z = np.full((1, 2, 3), 0.5)
    target = np.array([[[1.0, 1.0, 1.0], [0.0, np.nan, 0.0]]])
    value, grad = fl.lovasz_softmax.value_and_grad(z, target)
    assert np.isnan(value)
    assert np.isnan(grad[0, 1]).all()


def test_what_is_out_of_its_domain_and_counts_is_told_where_another_does_not():
    """The message names the first that counts."""
    p, t = np.full(4, 0.5), np.array([2.0, 0.0, 3.0, 1.0])
    with pytest.raises(ValueError, match=r"^bce: target\[2\] is 3; allowed"):
        fl.bce(p, t, weight=[0.0, 1.0, 1.0, 1.0])
    z = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=r"^cross_entropy: target\[1, 2\] is 9; allowed: 0 to 3"):
        fl.cross_entropy(z, np.array([[7, 0, 0], [0, 0, 9]]), weight=[[0.0, 1, 1], [1, 1, 1]])
    dense = np.full(z.shape, 0.25)
    dense[0, 0, 1], dense[1, 2, 3], dense[1, 2, 2] = -1.0, -2.0, -3.0
    for axis in (-1, 1):
        moved = [np.moveaxis(a, -1, axis) for a in (z, dense)]
        options = {"weight": np.array([[0.0, 1, 1], [1, 1, 1]]), "class_weight": np.array([1.0, 1, 0, 1]), "axis": axis}
        where = r"1, 2, 3" if axis == -1 else r"1, 3, 2"
        with pytest.raises(ValueError, match=rf"^kl_div: target\[{where}\] is -2; allowed"):
            fl.kl_div(*moved, **options)
    with pytest.raises(ValueError, match=r"^orpo: chosen\[1\] is 2; allowed"):
        fl.orpo(np.array([1.0, 2.0]), -np.ones(2), weight=[0.0, 1.0])
    if not config.DISABLE_JIT:
        with pytest.raises(ValueError, match=r"^ctc: targets\[1, 0\] is 9; allowed"):
            fl.ctc(np.zeros((4, 2, 3)), np.array([[8, 1], [9, 1]]), weight=[0.0, 1.0])
