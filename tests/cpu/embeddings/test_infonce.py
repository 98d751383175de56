"""Embeddings that find each other: against torch, the definitions of their papers, and each other."""

import math

import numpy as np
import pytest

import fastloss as fl


def several(grads):
    return grads if isinstance(grads, tuple) else (grads,)


def embeddings(rng, *shapes):
    return tuple(rng.standard_normal(s) for s in shapes)


# Torch ---------------------------------------------------------------------------------------------------------------


def torch_info_nce(torch, queries, keys, negatives):
    q, k, m = (torch.nn.functional.normalize(x) for x in (queries, keys, negatives))
    scores = q @ torch.vstack([k, m]).T / 0.07
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(q)))


def torch_ntxent(torch, z1, z2):
    # SimCLR's own code: the similarities to oneself are left out by a large negative number.
    z = torch.nn.functional.normalize(torch.vstack([z1, z2]))
    scores = z @ z.T / 0.07 - 1e9 * torch.eye(len(z), dtype=z.dtype)
    n = len(z1)
    return torch.nn.functional.cross_entropy(scores, torch.cat([torch.arange(n, 2 * n), torch.arange(n)]))


def torch_supcon(torch, features, labels):
    # The loss of the authors' code, for anchors that have a positive.
    z = torch.nn.functional.normalize(features)
    scores = z @ z.T / 0.07
    others = 1 - torch.eye(len(z), dtype=z.dtype)
    mask = (labels[:, None] == labels) * others
    log_prob = scores - torch.log((torch.exp(scores) * others).sum(1, keepdim=True))
    some = mask.sum(1) > 0
    return -((mask * log_prob).sum(1)[some] / mask.sum(1)[some]).mean()


def torch_n_pairs(torch, anchors, positives, labels):
    # TensorFlow's npairs_loss.
    same = (labels[:, None] == labels).to(anchors.dtype)
    found = torch.log_softmax(anchors @ positives.T, 1)
    length = (anchors**2).sum(1).mean() + (positives**2).sum(1).mean()
    return -(same / same.sum(1, keepdim=True) * found).sum(1).mean() + 0.25 * 0.1 * length


CASES = {
    "info_nce": (torch_info_nce, ((20, 6), (20, 6), (7, 6)), False, {}),
    "ntxent": (torch_ntxent, ((20, 6), (20, 6)), False, {}),
    "supcon": (torch_supcon, ((20, 6),), True, {}),
    "n_pairs": (torch_n_pairs, ((20, 6), (20, 6)), True, {"l2_reg": 0.1}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_torch(name):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    written, shapes, labelled, options = CASES[name]
    given = embeddings(np.random.default_rng(0), *shapes)
    labels = np.append(np.arange(19) % 6, 99)
    tensors = [torch.from_numpy(a).requires_grad_() for a in given]
    expected = written(torch, *tensors, *([torch.from_numpy(labels)] if labelled else []))
    expected.backward()
    value, grads = fl.LOSSES[name].value_and_grad(*given, *([labels] if labelled else []), chunk=8, **options)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    for got, t in zip(several(grads), tensors, strict=True):
        np.testing.assert_allclose(got, t.grad.numpy(), rtol=1e-10, atol=1e-13)


# Definitions ---------------------------------------------------------------------------------------------------------


def test_values_term_by_term():
    x, y = embeddings(np.random.default_rng(1), (5, 3), (5, 3))
    labels = [0, 1, 0, 1, 0]

    def cosine(a, b):
        return math.fsum(a * b) / math.sqrt(math.fsum(a * a) * math.fsum(b * b))

    found = fl.info_nce(x, y, temperature=0.5, reduction="none")
    for i in range(5):
        rest = math.fsum(math.exp(cosine(x[i], y[j]) / 0.5) for j in range(5))
        assert found[i] == pytest.approx(math.log(rest) - cosine(x[i], y[i]) / 0.5, rel=1e-13)
    found = fl.supcon(x, np.array(labels), temperature=0.5, reduction="none")
    for i in range(5):
        rest = math.fsum(math.exp(cosine(x[i], x[j]) / 0.5) for j in range(5) if j != i)
        positives = [j for j in range(5) if j != i and labels[j] == labels[i]]
        terms = [math.log(rest) - cosine(x[i], x[j]) / 0.5 for j in positives]
        assert found[i] == pytest.approx(math.fsum(terms) / len(terms), rel=1e-13)


def test_two_views_are_classes_of_two():
    z1, z2 = embeddings(np.random.default_rng(2), (8, 4), (8, 4))
    value, (g1, g2) = fl.ntxent.value_and_grad(z1, z2)
    other, g = fl.supcon.value_and_grad(np.vstack([z1, z2]), np.tile(np.arange(8), 2))
    assert value == pytest.approx(other, rel=1e-13)
    np.testing.assert_allclose(np.vstack([g1, g2]), g, rtol=1e-12, atol=1e-15)
    values = fl.ntxent(z1, z2, reduction="none")
    assert values.shape == (2, 8)
    np.testing.assert_allclose(values, fl.ntxent(z2, z1, reduction="none")[::-1], rtol=1e-13)


def test_finding_keys_is_a_linear_layer_of_keys():
    q, k = embeddings(np.random.default_rng(3), (9, 4), (9, 4))
    value, grads = fl.info_nce.value_and_grad(q, k, normalize=False, temperature=2.0)
    layer, parts = fl.linear_cross_entropy.value_and_grad(q, k, np.arange(9), temperature=2.0)
    pairs, others = fl.n_pairs.value_and_grad(q / 2, k)
    assert value == pytest.approx(layer, rel=1e-13)
    assert value == pytest.approx(pairs, rel=1e-13)
    for k in range(2):
        np.testing.assert_allclose(grads[k], parts[k], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(grads[k], others[k] / (2, 1)[k], rtol=1e-11, atol=1e-15)


def test_pairs_of_one_class_each_need_no_labels():
    a, p = embeddings(np.random.default_rng(4), (9, 4), (9, 4))
    value, grads = fl.n_pairs.value_and_grad(a, p, l2_reg=0.2)
    labelled, same = fl.n_pairs.value_and_grad(a, p, np.arange(9) - 4, l2_reg=0.2)
    assert value == pytest.approx(labelled, rel=1e-13)
    for g, s in zip(grads, same, strict=True):
        np.testing.assert_allclose(g, s, rtol=1e-12, atol=1e-15)


# Extremes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_of_any_length_have_their_direction(dtype):
    q, k = (x.astype(dtype) for x in embeddings(np.random.default_rng(5), (6, 4), (6, 4)))
    value, grads = fl.info_nce.value_and_grad(q, k)
    huge, tiny = (2.0**100, 2.0**-100) if dtype == np.float32 else (2.0**900, 2.0**-900)
    for scale in (huge, tiny):
        moved, slopes = fl.info_nce.value_and_grad((q * dtype(scale)), k)
        assert moved == pytest.approx(value, rel=1e-6 if dtype == np.float32 else 1e-13)
        tolerance = 2e-5 if dtype == np.float32 else 1e-12
        expected = np.float64(grads[0]) / scale
        np.testing.assert_allclose(slopes[0], expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", ["info_nce", "ntxent", "supcon"])
def test_zero_vectors_are_finite(name):
    x, y = embeddings(np.random.default_rng(6), (6, 4), (6, 4))
    x[2] = 0.0
    given = (x, np.arange(6) // 2) if name == "supcon" else (x, y)
    value, grads = fl.LOSSES[name].value_and_grad(*given)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in several(grads))
    assert not several(grads)[0][2].any()
    for all_zero in (np.zeros_like(x), x * 0.0):
        given = (all_zero, np.arange(6) // 2) if name == "supcon" else (all_zero, all_zero.copy())
        value, grads = fl.LOSSES[name].value_and_grad(*given)
        assert value == pytest.approx(math.log({"info_nce": 6, "ntxent": 11, "supcon": 5}[name]), rel=1e-14)
        assert not any(g.any() for g in several(grads))


def test_a_small_temperature_stays_finite():
    x, y = embeddings(np.random.default_rng(7), (6, 4), (6, 4))
    for value, grads in (
        fl.info_nce.value_and_grad(x, y, temperature=1e-6),
        fl.ntxent.value_and_grad(x, y, temperature=1e-6),
        fl.supcon.value_and_grad(x, np.arange(6) // 3, temperature=1e-6),
        fl.n_pairs.value_and_grad(1e100 * x, 1e50 * y),
    ):
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in several(grads))


def test_nan_comes_through():
    x, y = embeddings(np.random.default_rng(8), (6, 4), (6, 4))
    x[3, 1] = np.nan
    values = fl.info_nce(x, y, reduction="none")
    assert np.isnan(values[3])
    assert not np.isnan(np.delete(values, 3)).any()
    assert np.isnan(fl.supcon(x, np.arange(6) // 2))


# What does not count -------------------------------------------------------------------------------------------------


def test_embeddings_alone_in_their_class_do_not_count():
    x = embeddings(np.random.default_rng(9), (7, 4))[0]
    labels = np.array([0, 0, 1, 1, 1, 8, 9])
    values = fl.supcon(x, labels, reduction="none")
    np.testing.assert_array_equal(values[5:], 0.0)
    assert fl.supcon(x, labels) == pytest.approx(values[:5].mean(), rel=1e-14)
    value, grad = fl.supcon.value_and_grad(x, np.arange(7))
    assert value == 0.0
    assert not grad.any()


def test_no_further_negatives_and_a_single_pair():
    x, y = embeddings(np.random.default_rng(10), (6, 4), (6, 4))
    expected, grads = fl.info_nce.value_and_grad(x, y)
    value, slopes = fl.info_nce.value_and_grad(x, y, np.empty((0, 4)))
    assert value == expected
    assert slopes[2].shape == (0, 4)
    np.testing.assert_array_equal(slopes[0], grads[0])
    for loss in (fl.info_nce, fl.ntxent, fl.n_pairs):
        value, grads = loss.value_and_grad(x[:1], y[:1])
        assert value == 0.0
        assert not any(g.any() for g in grads)
    assert fl.supcon(x[:1], np.zeros(1, int)) == 0.0


@pytest.mark.parametrize("name", ["info_nce", "ntxent", "supcon", "n_pairs"])
def test_chunks_change_no_more_than_roundings(name):
    x, y = embeddings(np.random.default_rng(11), (30, 8), (30, 8))
    given = (x, np.arange(30) // 4) if name == "supcon" else (x, y)
    shape = (2, 30) if name == "ntxent" else (30,)
    weight = np.random.default_rng(12).integers(0, 3, shape).astype(float)
    expected, exact = fl.LOSSES[name].value_and_grad(*given, weight=weight, chunk=1000)
    for chunk in (1, 7):
        value, grads = fl.LOSSES[name].value_and_grad(*given, weight=weight, chunk=chunk)
        assert value == pytest.approx(expected, rel=1e-13)
        for a, b in zip(several(grads), several(exact), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14)


def test_what_cannot_be_is_refused():
    x, y = np.ones((4, 3)), np.ones((5, 3))
    with pytest.raises(ValueError, match=r"keys has shape \(5, 3\); expected \(4, 3\)"):
        fl.info_nce(x, y)
    with pytest.raises(ValueError, match=r"negatives has shape \(5, 2\); expected \(5, 3\), as in queries"):
        fl.info_nce(x, x, np.ones((5, 2)))
    with pytest.raises(ValueError, match=r"labels has shape \(3,\); expected \(4,\)"):
        fl.supcon(x, np.zeros(3, int))
    with pytest.raises(TypeError, match="labels has dtype float64; expected integers"):
        fl.supcon(x, np.zeros(4))
    with pytest.raises(ValueError, match="temperature is 0"):
        fl.ntxent(x, x, temperature=0)
    with pytest.raises(ValueError, match="l2_reg is -1"):
        fl.n_pairs(x, x, l2_reg=-1)
