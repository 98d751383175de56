"""The softmax of a linear layer against its unfused parts, torch, and what may not be."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.cpu.embeddings import products

OPTIONS = [{}, {"label_smoothing": 0.2}, {"z_loss": 1e-2, "temperature": 0.7, "logit_scale": 1.3}]


def layer(rng, n, h, k, dtype):
    labels = rng.integers(0, k, n)
    labels[::7] = -100
    hidden, projection = (rng.standard_normal(s).astype(dtype) for s in ((n, h), (k, h)))
    return hidden, projection, labels, rng.standard_normal(k).astype(dtype), rng.random(k).astype(dtype)


@pytest.mark.parametrize(("k", "options"), [(9, {}), *((301, options) for options in OPTIONS)], ids=str)
def test_the_same_as_its_parts(k, options):
    given = layer(np.random.default_rng(0), 60, 16, k, np.float64)
    hidden, projection, labels, bias, weights = given
    value, (dh, dw, db) = fl.linear_cross_entropy.value_and_grad(*given, chunk=13, **options)
    scores = hidden @ projection.T + bias
    expected, grad = fl.cross_entropy.value_and_grad(scores, labels, class_weight=weights, **options)
    assert value == pytest.approx(expected, rel=1e-13)
    for got, by_parts in ((dh, grad @ projection), (dw, grad.T @ hidden), (db, grad.sum(0))):
        np.testing.assert_allclose(got, by_parts, rtol=1e-12, atol=1e-14)


def test_the_same_as_torch():
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    given = layer(np.random.default_rng(1), 40, 8, 51, np.float64)
    tensors = [torch.from_numpy(a) for a in given]
    h, w, y, b, c = tensors
    for t in (h, w, b):
        t.requires_grad_()
    scores = torch.nn.functional.linear(h, w, b)
    expected = torch.nn.functional.cross_entropy(scores, y, weight=c, label_smoothing=0.1)
    expected.backward()
    value, grads = fl.linear_cross_entropy.value_and_grad(*given, label_smoothing=0.1, chunk=16)
    assert value == pytest.approx(expected.item(), rel=1e-13)
    for got, t in zip(grads, (h, w, b), strict=True):
        np.testing.assert_allclose(got, t.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_no_chunk_changes_more_than_roundings():
    hidden, projection, labels, *_ = layer(np.random.default_rng(2), 50, 12, 600, np.float32)
    given = hidden, projection, labels
    wide = tuple(a.astype(np.float64) if a.dtype.kind == "f" else a for a in given)
    expected, exact = fl.linear_cross_entropy.value_and_grad(*wide)
    for chunk in (None, 1, 3, 50, 1000):
        value, grads = fl.linear_cross_entropy.value_and_grad(*given, chunk=chunk)
        assert value == pytest.approx(expected, rel=1e-6)
        for a, b in zip(grads, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * np.abs(b).max())


def test_sums_over_tiles(monkeypatch):
    hidden, projection, labels, bias, _ = layer(np.random.default_rng(3), 40, 4, 30, np.float64)
    expected = fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, bias)[1]
    monkeypatch.setattr(products, "TILE", 1)
    monkeypatch.setattr(products, "WIDE", 1)
    monkeypatch.setattr(products, "LEAST", 3)
    for chunk in (40, 20, 7):
        grads = fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, bias, chunk=chunk)[1]
        for a, b in zip(grads, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-16)


def test_leading_axes_and_values_of_each_row():
    hidden, projection, labels, bias, _ = layer(np.random.default_rng(4), 12, 5, 48, np.float64)
    values = fl.linear_cross_entropy(
        hidden.reshape(3, 4, 5), projection, labels.reshape(3, 4), bias, reduction="none", chunk=5
    )
    assert values.shape == (3, 4)
    expected = fl.cross_entropy(hidden @ projection.T + bias, labels, reduction="none")
    np.testing.assert_allclose(values.reshape(-1), expected, rtol=1e-13)
    grads = fl.linear_cross_entropy.value_and_grad(hidden.reshape(3, 4, 5), projection, labels.reshape(3, 4))[1]
    assert [g.shape for g in grads] == [(3, 4, 5), (48, 5)]


def test_rows_left_out_add_nothing_whatever_they_hold():
    hidden, projection, labels, bias, _ = layer(np.random.default_rng(5), 15, 5, 48, np.float64)
    expected = fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, bias)
    hidden[labels == -100] = np.inf
    value, grads = fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, bias)
    assert value == expected[0]
    for a, b in zip(grads, expected[1], strict=True):
        np.testing.assert_array_equal(a, b)
    hidden[1] = np.nan
    value, grads = fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, bias)
    assert np.isnan(value)
    assert np.isnan(grads[0][1]).all()
    assert np.isnan(grads[1]).all()
    assert not np.isnan(grads[0][2:]).any()


def test_classes_ruled_out_by_the_bias_and_scores_without_bound():
    hidden, projection, labels, bias, _ = layer(np.random.default_rng(6), 9, 5, 48, np.float64)
    labels[:] = np.arange(9) % 7
    bias[47] = -np.inf
    value, (dh, dw, db) = fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, bias)
    expected, (eh, ew, eb) = fl.linear_cross_entropy.value_and_grad(hidden, projection[:47], labels, bias[:47])
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(dh, eh, rtol=1e-12)
    np.testing.assert_allclose(dw[:47], ew, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(db[:47], eb, rtol=1e-12, atol=1e-16)
    assert not dw[47].any()
    assert db[47] == 0.0
    value, grads = fl.linear_cross_entropy.value_and_grad(1e200 * hidden, 1e100 * projection, labels)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in grads)


def test_nothing_to_average():
    hidden, projection = np.full((4, 3), np.nan), np.ones((50, 3))
    for labels in (np.full(4, -100), np.full(4, 77)):
        value, grads = fl.linear_cross_entropy.value_and_grad(hidden, projection, labels, ignore_index=labels[0])
        assert value == 0.0
        assert not any(g.any() for g in grads)
    assert fl.linear_cross_entropy(hidden[:0], projection, np.empty(0, np.int64)) == 0.0
    values = fl.linear_cross_entropy(hidden, projection, np.full(4, -100), reduction="none")
    np.testing.assert_array_equal(values, np.zeros(4))


def test_any_class_may_be_the_one_to_leave_out():
    hidden, projection, labels, *_ = layer(np.random.default_rng(7), 12, 5, 48, np.float64)
    labels[labels == -100] = 3
    expected = fl.cross_entropy(hidden @ projection.T, labels, ignore_index=3)
    assert fl.linear_cross_entropy(hidden, projection, labels, ignore_index=3) == pytest.approx(expected, rel=1e-13)
    whole = fl.cross_entropy(hidden @ projection.T, labels)
    assert fl.linear_cross_entropy(hidden, projection, labels, ignore_index=None) == pytest.approx(whole, rel=1e-13)


def test_labels_and_shapes_that_cannot_be():
    hidden, projection = np.ones((3, 2)), np.ones((4, 2))
    with pytest.raises(ValueError, match=r"labels\[1\] is 4; allowed: 0 to 3, or -100 \(ignore_index\)"):
        fl.linear_cross_entropy(hidden, projection, np.array([0, 4, 1]))
    with pytest.raises(ValueError, match=r"labels\[2\] is -100; allowed: 0 to 3"):
        fl.linear_cross_entropy(hidden, projection, np.array([0, 3, -100]), ignore_index=None)
    with pytest.raises(TypeError, match="labels has dtype float64; expected integers"):
        fl.linear_cross_entropy(hidden, projection, np.zeros(3))
    with pytest.raises(ValueError, match=r"projection has shape \(4, 3\); expected \(4, 2\), as in hidden"):
        fl.linear_cross_entropy(hidden, np.ones((4, 3)), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\); expected \(4,\)"):
        fl.linear_cross_entropy(hidden, projection, np.zeros(3, int), np.ones(3))
    with pytest.raises(ValueError, match="class_weight"):
        fl.linear_cross_entropy(hidden, projection, np.zeros(3, int), class_weight=-np.ones(4))
    with pytest.raises(ValueError, match="chunk is 0; allowed"):
        fl.linear_cross_entropy(hidden, projection, np.zeros(3, int), chunk=0)
