"""Series and frames of pandas and Polars: rows are matched by index or refused, and missing values are named."""

import numpy as np
import pytest

import fastloss as fl

pytestmark = [pytest.mark.oracle]

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

P, T, W = np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.0, 1.0]), np.array([1.0, 0.0, 3.0])
OTHER = [2, 1, 0]


def test_series_of_one_index_are_arrays():
    for index in (None, ["a", "b", "c"], pd.MultiIndex.from_product([["x"], [1, 2, 3]])):
        p, t, w = (pd.Series(x, index=index) for x in (P, T, W))
        assert fl.mse(p, t) == 10.0 / 3.0
        assert fl.mse(p, t, weight=w) == 7.0
        value, grad = fl.mse.value_and_grad(p, t, weight=w)
        assert (value, grad.tolist()) == (7.0, [0.5, 0.0, 4.5])
    # Labels of rows alone count: a series beside an array has its order.
    assert fl.mse(pd.Series(P, index=OTHER), T) == fl.mse(P, pd.Series(T, index=OTHER)) == 10.0 / 3.0


@pytest.mark.parametrize("calls", [fl.mse, fl.mse.value_and_grad, fl.mse.grad_and_hess], ids=lambda f: f.__name__)
def test_another_index_is_refused(calls):
    p, t = pd.Series(P), pd.Series(T, index=OTHER)
    told = (
        r"mse: target has another index than prediction, .* pass \.to_numpy\(\) of both, or .*prediction\.align\(target"
    )
    with pytest.raises(fl.CallValueError, match=told):
        calls(p, t)
    with pytest.raises(fl.CallValueError, match="mse: weight has another index than prediction"):
        calls(p, pd.Series(T), weight=pd.Series(W, index=OTHER))
    with pytest.raises(fl.CallValueError, match="mse: weight has another index than target"):
        calls(P, t, weight=pd.Series(W))
    calls(P, T)
    calls(p.to_numpy(), t.to_numpy())
    a, b = p.align(t, join="inner")
    calls(a, b)


def test_the_remedies_give_what_they_say():
    p, t = pd.Series(P), pd.Series(T[::-1], index=OTHER)
    a, b = p.align(t, join="inner")
    assert fl.mse(a, b) == fl.mse(P, T)
    assert fl.mse(p.to_numpy(), t.to_numpy()) == fl.mse(P, T[::-1])


def test_frames_and_losses_of_rows():
    z = pd.DataFrame({"a": P, "b": T})
    y = pd.Series([0, 1, 1])
    assert fl.cross_entropy(z, y) == fl.cross_entropy(z.to_numpy(), y.to_numpy())
    with pytest.raises(fl.CallValueError, match="cross_entropy: target has another index than prediction"):
        fl.cross_entropy(z, y.set_axis(OTHER))
    with pytest.raises(
        fl.CallValueError, match=r"mse: target has other columns than prediction, .* target\[prediction"
    ):
        fl.mse(z, z[["b", "a"]])
    assert fl.mse(z, z) == 0.0


def test_losses_of_several_predictions_and_arrays():
    v = pd.Series(W + 1.0, index=OTHER)
    with pytest.raises(fl.CallValueError, match="gaussian_nll: var has another index than mean"):
        fl.gaussian_nll((pd.Series(P), v), T)
    with pytest.raises(fl.CallValueError, match="lambda_rank: relevance has another index than scores"):
        fl.lambda_rank(pd.Series(P), pd.Series([1, 0, 1], index=OTHER))


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: pd.Series([1.0, None, 2.0], dtype="Float64"), "fillna"),
        (lambda: pd.Series([1, None, 2], dtype="Int64"), "fillna"),
        (lambda: pd.array([1.0, None, 2.0], dtype="Float64"), "fillna"),
        (lambda: pl.Series([1.0, None, 2.0]), "fill_null"),
        (lambda: pl.Series([1, None, 2]), "fill_null"),
    ],
)
def test_missing_values_are_named(make, remedy):
    with pytest.raises(
        fl.CallValueError, match=rf"mse: target\[1\] is missing; expected a number: pass \.{remedy}"
    ) as told:
        fl.mse(P, make())
    assert told.value.index == (1,)


def test_missing_values_of_frames():
    with pytest.raises(fl.CallValueError, match=r"mse: prediction\[1, 0\] is missing"):
        fl.mse(pl.DataFrame({"a": [1.0, None, 2.0]}), P[:, None])
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": pd.array([1.0, None], dtype="Float64")})
    with pytest.raises(fl.CallValueError, match=r"mse: prediction\[1, 1\] is missing"):
        fl.mse(frame, frame.to_numpy(np.float64))


def test_whole_nullable_and_polars_series():
    for t in (pd.Series(T, dtype="Float64"), pd.Series([0, 2, 1], dtype="Int64"), pl.Series(T), pl.Series([0, 2, 1])):
        assert fl.mse(P, t) == 10.0 / 3.0
    # NaN of NumPy is a number that is none, and goes into the loss.
    assert np.isnan(fl.mse(P, pd.Series([0.0, np.nan, 1.0])))
