"""Losses of padded sequences of tokens: padding, figures of a whole text, log-probabilities, unlikelihood."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from array_cases import inputs, slopes
from mpmath import mpf

import fastloss as fl
from fastloss import reference
from fastloss.cpu.sequences import tokens

# Cross-entropy of sequences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("v", [7, 120])
def test_the_cross_entropy_of_torch(v, smoothing):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    rng = np.random.default_rng(v)
    logits = torch.from_numpy(rng.normal(0, 3, (5, 9, v))).requires_grad_(True)
    labels = rng.integers(0, v, (5, 9))
    labels[rng.random((5, 9)) < 0.3] = -100
    theirs = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), torch.from_numpy(labels), label_smoothing=smoothing
    )
    theirs.backward()
    value, grad = fl.sequence_cross_entropy.value_and_grad(logits.detach().numpy(), labels, label_smoothing=smoothing)
    assert value == pytest.approx(theirs.item(), rel=1e-13)
    np.testing.assert_allclose(grad, logits.grad, atol=1e-15)
    rows = fl.cross_entropy(logits.detach().numpy(), labels, label_smoothing=smoothing)
    assert value == pytest.approx(rows, rel=1e-15)


@pytest.mark.parametrize("v", [3, 60, 3000])
def test_padding_is_never_read_and_gets_no_gradient(v):
    rng = np.random.default_rng(0)
    n, t = 6, 12
    lengths = np.array([12, 1, 0, 7, 3, 12])
    logits, labels = rng.normal(size=(n, t, v)), rng.integers(0, v, (n, t))
    inside = np.arange(t) < lengths[:, None]
    expected, grads = fl.sequence_cross_entropy.value_and_grad(logits, labels, lengths)
    logits[~inside], labels[~inside] = np.nan, 10**12
    value, grad = fl.sequence_cross_entropy.value_and_grad(logits, labels, lengths)
    assert value == expected
    np.testing.assert_array_equal(grad, grads)
    assert not grad[~inside].any()
    assert grad[inside].all()
    masked, same = fl.sequence_cross_entropy.value_and_grad(logits, labels, mask=inside)
    assert masked == expected
    np.testing.assert_array_equal(same, grads)
    np.testing.assert_allclose(value, fl.cross_entropy(logits[inside], labels[inside]), rtol=1e-14)


def test_by_sequence_each_counts_the_same():
    given = inputs("sequence_cross_entropy")
    tokens = fl.sequence_cross_entropy(**given, reduction="none")
    counts = np.array([(row != 0).sum() for row in tokens])
    means = tokens.sum(1)[counts > 0] / counts[counts > 0]
    ours = fl.sequence_cross_entropy(**given, normalization="sequence")
    assert ours == pytest.approx(means.mean(), rel=1e-14)
    assert fl.sequence_cross_entropy(**given, normalization="sequence", reduction="sum") == pytest.approx(means.sum())
    assert abs(ours - fl.sequence_cross_entropy(**given)) > 1e-3


def test_a_label_to_ignore_may_be_a_word_and_none_ignores_nothing():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 5, 6)), np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
    value = fl.sequence_cross_entropy(logits, labels, ignore_index=0)
    assert value == pytest.approx(fl.sequence_cross_entropy(logits, labels, np.array([3, 1]), ignore_index=None))
    with pytest.raises(ValueError, match=r"labels\[0, 1\] is -100; allowed: 0 to 5$"):
        fl.sequence_cross_entropy(logits[:1, :2], np.array([[1, -100]]), ignore_index=None)


def test_wrong_labels_are_named_where_they_count():
    logits, labels = np.zeros((2, 3, 4)), np.array([[1, 2, 9], [0, -1, 3]])
    with pytest.raises(ValueError, match=r"labels\[0, 2\] is 9; allowed: 0 to 3, or -100 \(ignore_index\)"):
        fl.sequence_cross_entropy(logits, labels)
    with pytest.raises(ValueError, match=r"labels\[1, 1\] is -1; allowed"):
        fl.sequence_cross_entropy(logits, labels, np.array([2, 2]))
    assert fl.sequence_cross_entropy(logits, labels, np.array([2, 1])) == pytest.approx(math.log(4))
    with pytest.raises(ValueError, match=r"lengths\[1\] is 4; allowed: 0 to 3"):
        fl.sequence_cross_entropy(logits, labels, np.array([2, 4]))
    with pytest.raises(ValueError, match=r"normalization is 'batch'; allowed: 'token', 'sequence'"):
        fl.sequence_cross_entropy(logits, labels, normalization="batch")


@pytest.mark.parametrize("v", [3, 90])
@pytest.mark.parametrize("worth", [0, 300])
def test_runs_of_any_pattern_are_found(v, worth, monkeypatch):
    monkeypatch.setattr(tokens, "WORTH", worth)
    monkeypatch.setattr("fastloss.cpu.dispatch.rows_per_chunk", lambda k: 7)
    rng = np.random.default_rng(v)
    logits, labels = rng.normal(size=(1, 41, v)), rng.integers(0, v, (1, 41))
    for density in (0.0, 0.1, 0.5, 0.9, 1.0):
        mask = rng.random((1, 41)) < density
        value, grad = fl.sequence_cross_entropy.value_and_grad(logits, labels, mask=mask)
        expected, rows = fl.cross_entropy.value_and_grad(logits[mask], labels[mask])
        assert value == pytest.approx(expected, rel=1e-14)
        np.testing.assert_array_equal(grad[mask], rows)
        assert not grad[~mask].any()


def test_weights_of_tokens():
    given = inputs("sequence_cross_entropy")
    weight = np.zeros(given["labels"].shape)
    weight[0, 0] = 2.0
    first = {**given, "logits": given["logits"][:1, :1], "labels": given["labels"][:1, :1]}
    alone = fl.sequence_cross_entropy.value_and_grad(first["logits"], first["labels"])
    value, grad = fl.sequence_cross_entropy.value_and_grad(**{**given, "mask": None}, weight=weight)
    assert value == pytest.approx(alone[0], rel=1e-15)
    np.testing.assert_allclose(grad[0, 0], alone[1][0, 0], rtol=1e-14)
    assert np.count_nonzero(grad) == grad.shape[-1]


# Figures of a text ---------------------------------------------------------------------------------------------------


def test_perplexity_is_the_exponential_of_the_mean_in_many_digits():
    given = inputs("perplexity")
    with mpmath.workdps(40):
        total, count = mpf(0), 0
        for z, y, m in zip(given["logits"], given["labels"], given["mask"], strict=True):
            if m and y != -100:
                total += mpmath.log(sum(mpmath.exp(mpf(float(x))) for x in z)) - mpf(float(z[y]))
                count += 1
        value = fl.perplexity(**given)
        assert abs(mpf(value) / mpmath.exp(total / count) - 1) < 1e-14
        bits = fl.bits_per_byte(**given, n_bytes=np.array(10))
        assert abs(mpf(bits) / (total / (10 * mpmath.log(2))) - 1) < 1e-14
    cross, slope = fl.cross_entropy.value_and_grad(given["logits"], np.where(given["mask"], given["labels"], -100))
    assert value == pytest.approx(math.exp(cross), rel=1e-14)
    np.testing.assert_allclose(fl.perplexity.value_and_grad(**given)[1], value * slope, rtol=1e-13, atol=1e-16)


def test_uniform_scores_have_the_perplexity_of_the_vocabulary():
    logits, labels = np.zeros((2, 3, 256)), np.arange(6).reshape(2, 3)
    assert fl.perplexity(logits, labels) == pytest.approx(256.0, rel=1e-13)
    assert fl.bits_per_byte(logits, labels, np.array(6)) == pytest.approx(8.0, rel=1e-15)
    with pytest.raises(ValueError, match=r"perplexity: labels\[1, 2\] is 256; allowed: 0 to 255"):
        fl.perplexity(logits, np.array([[0, 1, 2], [3, 4, 256]]))
    with pytest.raises(ValueError, match="bits_per_byte: n_bytes is 0; expected 1 or more"):
        fl.bits_per_byte(logits, labels, np.array(0))


def test_a_perplexity_beyond_the_largest_number_is_infinite_and_its_gradient_no_nan():
    for dtype, level in ((np.float64, 1e4), (np.float32, 200.0)):
        logits = np.array([[0.0, level, -1e6]], dtype)
        value, grad = fl.perplexity.value_and_grad(logits, np.array([0]))
        assert value == pytest.approx(math.exp(level) if level < 700 else math.inf)
        np.testing.assert_array_equal(grad, [[-math.inf, math.inf, 0.0]])


# Perplexity in reports -----------------------------------------------------------------------------------------------


def reports(losses, cuts=(0, 10, 300, 301, 500), **options):
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 3, (500, 12)), rng.integers(0, 12, 500)
    labels[::7] = -100
    whole = fl.evaluate((logits, labels), losses, **options)
    parts = [fl.evaluate((logits[a:b], labels[a:b]), losses, **options) for a, b in pairwise(cuts)]
    return logits, labels, whole, parts


def test_perplexity_of_shards_merges_to_that_of_the_whole():
    logits, labels, whole, parts = reports(["perplexity", "cross_entropy"])
    merged = parts[0].merge(*parts[1:])
    assert merged == whole
    value = merged["perplexity"].mean
    assert value == pytest.approx(fl.perplexity(logits, labels), rel=1e-12)
    assert value == pytest.approx(math.exp(whole["cross_entropy"].mean), rel=1e-15)
    counts = np.array([p["perplexity"].count for p in parts])
    means = np.array([p["perplexity"].mean for p in parts])
    assert abs((counts * means).sum() / counts.sum() / value - 1) > 1e-3
    rows = np.exp(reference.cross_entropy(logits, np.maximum(labels, 0))[labels >= 0])
    assert whole["perplexity"].max == pytest.approx(rows.max(), rel=1e-12)
    assert whole["perplexity"].min == pytest.approx(rows.min(), rel=1e-12)
    assert math.isnan(whole["perplexity"].std)
    assert whole["perplexity"].ignored == (labels == -100).sum()


def test_perplexity_survives_json_and_is_no_cross_entropy(tmp_path):
    _, _, whole, parts = reports(["perplexity"], worst=2, per_sample=tmp_path / "rows.parquet")
    again = type(whole).from_json(whole.to_json())
    assert again == whole
    assert again["perplexity"].mean == whole["perplexity"].mean
    assert whole.worst["perplexity"][0].loss == pytest.approx(whole["perplexity"].max, rel=1e-15)
    cross = fl.evaluate((np.zeros((2, 3)), np.zeros(2, int)), fl.cross_entropy)
    with pytest.raises(ValueError, match="cannot merge"):
        parts[0].merge(cross)
    bound = fl.evaluate((np.zeros((2, 3)), np.array([0, 1])), fl.perplexity.bind(ignore_index=1))
    assert bound["perplexity:ignore_index=1"].count == 1
    named = fl.evaluate((np.zeros((2, 3)), np.array([0, 1])), "perplexity:ignore_index=1")
    assert named["perplexity:ignore_index=1"] == bound["perplexity:ignore_index=1"]


# Log-probabilities ---------------------------------------------------------------------------------------------------


def log_probs(logits, given):
    labels = given["labels"]
    inside = (np.arange(labels.shape[1]) < given["lengths"][:, None]) & given["mask"] & (labels != -100)
    rows = reference.cross_entropy(logits.reshape(-1, logits.shape[-1]), np.where(inside, labels, 0).reshape(-1))
    return -np.where(inside, rows.reshape(labels.shape), 0.0).sum(1)


def test_log_probabilities_and_gradients_of_either_sign():
    given = inputs("sequence_cross_entropy")
    values, pull = fl.sequence_log_probs.vjp(**given)
    np.testing.assert_allclose(values, log_probs(given["logits"], given), rtol=1e-14)
    np.testing.assert_array_equal(values, fl.sequence_log_probs(**given))
    cotangent = np.array([1.5, -2.0, 0.0, 3.0])
    grad = pull(cotangent)
    places = [(0, 1, 3), (0, 0, int(given["labels"][0, 0])), (1, 0, 2), (1, 5, 2), (2, 1, 1)]
    expected = slopes(lambda moved: float(cotangent @ log_probs(moved["logits"], given)), given, "logits", places)
    np.testing.assert_allclose([grad[p] for p in places], expected, rtol=1e-8, atol=1e-9)
    assert not grad[2:].any()
    single, back = fl.sequence_log_probs.vjp(**{**given, "logits": given["logits"].astype(np.float32)})
    assert single.dtype == np.float64
    out = np.empty(grad.shape, np.float32)
    assert back(cotangent, out=out) is out
    np.testing.assert_allclose(out, grad, atol=2e-6)


def test_log_probabilities_make_a_preference_loss():
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    rng = np.random.default_rng(5)
    logits = torch.from_numpy(rng.normal(size=(4, 6, 20))).requires_grad_(True)
    labels, held = rng.integers(0, 20, (4, 6)), rng.normal(-18, 1, 4)
    own = logits.log_softmax(-1).gather(-1, torch.from_numpy(labels)[..., None])[..., 0].sum(1)
    ratio = own - torch.from_numpy(held)
    (-torch.nn.functional.logsigmoid(0.1 * (ratio[:2] - ratio[2:]))).mean().backward()
    values, pull = fl.sequence_log_probs.vjp(logits.detach(), torch.from_numpy(labels))
    margin = (values.numpy() - held)[:2] - (values.numpy() - held)[2:]
    _, slope = fl.bce_with_logits.value_and_grad(0.1 * margin, np.ones(2))
    grad = pull(torch.from_numpy(np.concatenate([0.1 * slope, -0.1 * slope])))
    assert isinstance(grad, torch.Tensor)
    np.testing.assert_allclose(grad, logits.grad, atol=1e-16)


def test_log_probabilities_refuse_what_they_cannot_take():
    logits, labels = np.zeros((2, 3, 4)), np.zeros((2, 3), int)
    _, pull = fl.sequence_log_probs.vjp(logits, labels)
    with pytest.raises(ValueError, match=r"cotangent has shape \(3,\); expected \(2,\)"):
        pull(np.ones(3))
    with pytest.raises(TypeError, match="cotangent has dtype int64; expected floats"):
        pull(np.ones(2, int))
    with pytest.raises(ValueError, match="overlaps an input"):
        pull(np.ones(2), out=logits)
    with pytest.raises(ValueError, match=r"labels\[1, 2\] is 4; allowed: 0 to 3"):
        fl.sequence_log_probs(logits, np.array([[0, 1, 2], [2, 3, 4]]))
    values, pull = fl.sequence_log_probs.vjp(np.zeros((2, 0, 4)), np.zeros((2, 0), int))
    np.testing.assert_array_equal(values, [0.0, 0.0])
    assert pull(np.ones(2)).shape == (2, 0, 4)
    assert repr(fl.sequence_log_probs) == "fastloss.sequence_log_probs"


# Unlikelihood --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unlikelihood_of_a_certain_word_in_many_digits(dtype):
    top = 80.0 if dtype is np.float32 else 600.0
    for z in ([top, 0.0, 1.0, -3.0], [2 * top, 0.0, 1.0, -3.0], [1e-3, 0.0, 1e-3, -1.0], [1e30, 1e30, 0.0, 0.0]):
        for picked in ([0], [1], [0, 2], [1, 2, 3]):
            x = np.array([z], dtype)
            value, grad = fl.unlikelihood.value_and_grad(x, np.array([picked]), reduction="sum")
            with mpmath.workdps(700):
                e = [mpmath.exp(mpf(float(v)) - mpf(float(x.max()))) for v in x[0]]
                p = [v / sum(e) for v in e]
                others = [sum(e[:c] + e[c + 1 :]) / sum(e) for c in range(4)]
                expected = -sum(mpmath.log(others[c]) for c in picked)
                slope = [sum((p[c] if k == c else -p[c] * p[k] / others[c]) for c in picked) for k in range(4)]
                ulp = float(np.finfo(dtype).eps)
                assert abs(value - expected) <= 4 * ulp * max(abs(expected), mpf(10) ** -30)
                for got, true in zip(grad[0], slope, strict=True):
                    assert abs(float(got) - float(true)) <= 8 * ulp * max(abs(float(true)), 1e-30)


def test_a_mask_is_the_same_as_indices():
    given = inputs("unlikelihood")
    mask = np.zeros(given["logits"].shape, bool)
    for row, words in zip(mask, given["candidates"], strict=True):
        row[words[words >= 0]] = True
    expected, grads = fl.unlikelihood.value_and_grad(**given)
    value, grad = fl.unlikelihood.value_and_grad(given["logits"], mask=mask)
    assert value == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(grad, grads, rtol=1e-13)
    value, grad = fl.unlikelihood.value_and_grad(np.full((2, 3), np.nan), mask=np.zeros((2, 3), bool))
    assert value == 0.0
    assert not grad.any()


def test_unlikelihood_needs_one_kind_of_candidates():
    logits, mask = np.zeros((2, 3)), np.ones((2, 3), bool)
    for wrong in ({}, {"candidates": np.zeros((2, 1), int), "mask": mask}):
        with pytest.raises(ValueError, match="takes candidates, as indices, or mask; expected one of them"):
            fl.unlikelihood(logits, **wrong)
    with pytest.raises(ValueError, match=r"candidates\[1, 0\] is 3; allowed: 0 to 2, or -100 \(ignore_index\)"):
        fl.unlikelihood(logits, np.array([[0], [3]]))
    assert math.isnan(fl.unlikelihood(np.array([[0.0, math.nan]]), np.array([[0]])))
