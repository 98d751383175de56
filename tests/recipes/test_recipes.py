"""Losses of segmentation and language tasks against torch."""

import math

import numpy as np
import pytest

import fastloss as fl

TOLERANCE = {"rtol": 1e-10, "atol": 1e-14}


def agree(found, parts, total, **leaves):
    """Compare a result with torch's parts, and its gradients with those of the total."""
    assert list(found.parts) == list(parts)
    for name, part in parts.items():
        assert found.parts[name] == pytest.approx(float(part.detach()), rel=1e-10)
    assert found.value == pytest.approx(float(total.detach()), rel=1e-10)
    total.backward()
    assert list(found.grads) == list(leaves)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(found.grads[name], leaf.grad, err_msg=name, **TOLERANCE)


def leaf(torch, a):
    return torch.tensor(a, requires_grad=True)


# Segmentation --------------------------------------------------------------------------------------------------------


def dice(torch, p, t, counted):
    """Mean over samples and classes of one minus twice the overlap over the sizes of the regions."""
    p, t = (x * counted for x in (p, t))
    axes = tuple(range(2, p.ndim))
    return (1 - (2 * (p * t).sum(axes) + 1e-5) / (p.sum(axes) + t.sum(axes) + 1e-5)).mean()


@pytest.mark.parametrize("masked", [False, True])
def test_unet_of_labels(masked):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3, 5, 4)), rng.integers(0, 3, (2, 5, 4))
    mask = rng.random((2, 5, 4)) < 0.7 if masked else None
    z = leaf(torch, logits)
    counted = torch.ones(2, 1, 5, 4) if mask is None else torch.tensor(mask)[:, None]
    t = torch.nn.functional.one_hot(torch.tensor(labels), 3).permute(0, 3, 1, 2).double()
    p = torch.softmax(z, dim=1)
    own = (p * t).sum(dim=1, keepdim=True)
    parts = {
        "dice": dice(torch, p, t, counted),
        "focal": (-((1 - own) ** 1.5) * own.log() * counted).sum() / counted.sum(),
    }
    found = fl.recipes.unet(logits, labels, mask=mask, gamma=1.5, weights={"focal": 4.0})
    agree(found, parts, parts["dice"] + 4.0 * parts["focal"], logits=z)


@pytest.mark.parametrize("masked", [False, True])
def test_unet_of_regions(masked):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    logits, regions = rng.normal(size=(2, 3, 6)), rng.integers(0, 2, (2, 3, 6)).astype(float)
    mask = rng.random((2, 6)) < 0.7 if masked else None
    z, t = leaf(torch, logits), torch.tensor(regions)
    counted = torch.ones(2, 3, 6) if mask is None else torch.tensor(mask)[:, None].expand(2, 3, 6)
    p = torch.sigmoid(z)
    each = 0.75 * t * (1 - p) ** 2 * p.log() + 0.25 * (1 - t) * p**2 * (1 - p).log()
    parts = {"dice": dice(torch, p, t, counted), "focal": -(each * counted).sum() / counted.sum()}
    found = fl.recipes.unet(logits, regions, mask=mask, alpha=0.75)
    agree(found, parts, parts["dice"] + parts["focal"], logits=z)


def test_pixels_to_ignore_are_pixels_outside_the_mask():
    rng = np.random.default_rng(2)
    logits, labels, mask = rng.normal(size=(2, 3, 8)), rng.integers(0, 3, (2, 8)), rng.random((2, 8)) < 0.6
    one = fl.recipes.unet(logits, labels, mask=mask)
    other = fl.recipes.unet(logits, np.where(mask, labels, -100))
    assert one.value == pytest.approx(other.value, rel=1e-12)
    np.testing.assert_allclose(one.grads["logits"], other.grads["logits"], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((np.zeros((2, 3)), np.zeros(2, int)), {}, r"unet: logits has shape \(2, 3\); expected \(n, c, ...\)"),
        (
            (np.zeros((2, 3, 4)), np.zeros((2, 5), int)),
            {},
            r"unet: target has shape \(2, 5\); expected labels \(2, 4\)",
        ),
        ((np.zeros((2, 3, 4)), np.zeros((2, 4), int)), {"alpha": 0.5}, "unet: alpha belongs to regions"),
        (
            (np.zeros((2, 3, 4)), np.zeros((2, 4), int)),
            {"mask": [1]},
            r"unet: mask has shape \(1,\); expected \(2, 4\)",
        ),
        ((np.zeros((2, 3, 4)), np.full((2, 4), 3)), {}, r"target\[0, 0\] is 3; allowed: 0 to 2"),
        ((np.zeros((2, 3, 4)), np.zeros((2, 4), int)), {"gamma": -1}, "softmax_focal: gamma is -1"),
    ],
)
def test_errors_of_segmentation(given, options, message):
    with pytest.raises(fl.CallError, match=message):
        fl.recipes.unet(*given, **options)


# Language ------------------------------------------------------------------------------------------------------------


def texts(seed=0, n=3, t=6, v=9):
    """Logits, tokens padded by -100, and the lengths of texts."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, t + 1, n)
    tokens = np.where(np.arange(t) < lengths[:, None], rng.integers(0, v, (n, t)), -100)
    return rng.normal(size=(n, t, v)), tokens, lengths


@pytest.mark.parametrize("weight", [0.0, 0.03])
def test_language_model_is_the_shifted_cross_entropy(weight):
    torch = pytest.importorskip("torch")
    logits, tokens, _ = texts()
    z, labels = leaf(torch, logits), torch.tensor(tokens[:, 1:])
    rows = z[:, :-1].reshape(-1, 9)
    parts = {"cross_entropy": torch.nn.functional.cross_entropy(rows, labels.reshape(-1), ignore_index=-100)}
    total = 0.5 * parts["cross_entropy"]
    if weight:
        parts["z_loss"] = torch.logsumexp(rows[labels.reshape(-1) != -100], dim=1).square().mean()
        total = total + weight * parts["z_loss"]
    found = fl.recipes.language_model(logits, tokens, weights={"cross_entropy": 0.5, "z_loss": weight})
    agree(found, parts, total, logits=z)


def test_language_model_of_labels_and_masks():
    torch = pytest.importorskip("torch")
    logits, tokens, _ = texts()
    mask = np.random.default_rng(1).random(tokens.shape) < 0.6
    z = leaf(torch, logits)
    labels = torch.tensor(np.where(mask, tokens, -100)).reshape(-1)
    ours = fl.recipes.language_model(logits, tokens, mask=mask, shift=False)
    total = torch.nn.functional.cross_entropy(z.reshape(-1, 9), labels, ignore_index=-100)
    agree(ours, {"cross_entropy": total}, total, logits=z)
    # Another number may stand for padding, or none.
    again = fl.recipes.language_model(logits, np.where(tokens < 0, 7, tokens), mask=mask & (tokens >= 0), shift=False)
    assert again.value == pytest.approx(ours.value, rel=1e-12)
    whole = np.abs(tokens) % 9
    z = leaf(torch, logits)
    total = torch.nn.functional.cross_entropy(z[:, :-1].reshape(-1, 9), torch.tensor(whole[:, 1:]).reshape(-1))
    agree(fl.recipes.language_model(logits, whole, ignore_index=None), {"cross_entropy": total}, total, logits=z)


def test_seq2seq_smooths_and_keeps_from_repeating():
    torch = pytest.importorskip("torch")
    logits, labels, lengths = texts(1, v=4)
    z = leaf(torch, logits)
    smooth = torch.nn.functional.cross_entropy(
        z.reshape(-1, 4), torch.tensor(labels).reshape(-1), ignore_index=-100, label_smoothing=0.2
    )
    p, repeated = torch.softmax(z, dim=2), []
    for i in range(len(labels)):
        for step in range(lengths[i]):
            words = set(labels[i, :step].tolist()) - {labels[i, step]}
            repeated.append(-sum([torch.log(1 - p[i, step, w]) for w in words], torch.zeros(()).double()))
    parts = {"cross_entropy": smooth, "unlikelihood": torch.stack(repeated).mean()}
    for given, padded in ((lengths, np.where(labels < 0, 3, labels)), (None, labels)):
        found = fl.recipes.seq2seq(logits, padded, given, label_smoothing=0.2, weights={"unlikelihood": 0.7})
        z.grad = None
        total = parts["cross_entropy"] + 0.7 * parts["unlikelihood"]
        total.backward(retain_graph=True)
        assert found.value == pytest.approx(total.item(), rel=1e-10)
        assert found.parts == {k: pytest.approx(part.item(), rel=1e-10) for k, part in parts.items()}
        np.testing.assert_allclose(found.grads["logits"], z.grad, **TOLERANCE)


def common(a, b):
    """Length of the longest common subsequence, by recursion."""
    if not (a and b):
        return 0
    if a[0] == b[0]:
        return 1 + common(a[1:], b[1:])
    return max(common(a[1:], b), common(a, b[1:]))


def rouge(a, b):
    """F-score of ROUGE-L (Lin 2004)."""
    a, b = ([w for w in x.tolist() if w != -100] for x in (a, b))
    return 2 * common(a, b) / (len(a) + len(b))


def test_summarization_rewards_what_beats_the_greedy_summary():
    torch = pytest.importorskip("torch")
    logits, labels, _ = texts(3, v=5)
    sampled_logits, samples, _ = texts(4, t=5, v=5)
    greedy = texts(5, t=7, v=5)[1]
    z, s = leaf(torch, logits), leaf(torch, sampled_logits)
    words = torch.tensor(samples)
    own = torch.log_softmax(s, dim=2).gather(2, words.clamp(min=0)[..., None])[..., 0] * (words != -100)
    gains = torch.tensor(
        [rouge(greedy[i], labels[i]) - rouge(samples[i], labels[i]) for i in range(3)], dtype=torch.float64
    )
    assert (gains != 0).any()
    parts = {
        "cross_entropy": torch.nn.functional.cross_entropy(
            z.reshape(-1, 5), torch.tensor(labels).reshape(-1), ignore_index=-100
        ),
        "self_critical": (gains * own.sum(dim=1)).mean(),
    }
    found = fl.recipes.summarization(logits, labels, sampled_logits, samples, greedy)
    total = 0.0016 * parts["cross_entropy"] + 0.9984 * parts["self_critical"]
    assert found.parts == {k: pytest.approx(part.item(), rel=1e-10) for k, part in parts.items()}
    total.backward()
    np.testing.assert_allclose(found.grads["logits"], z.grad, **TOLERANCE)
    np.testing.assert_allclose(found.grads["sampled_logits"], s.grad, **TOLERANCE)


def test_precision_and_padding():
    logits, tokens, lengths = texts()
    one = fl.recipes.seq2seq(logits.astype(np.float32), tokens, weights={"unlikelihood": 1.0})
    assert one.grads["logits"].dtype == np.float32
    assert not one.grads["logits"][tokens < 0].any()
    found = fl.recipes.language_model(logits, np.full_like(tokens, -100))
    assert found.value == 0.0
    assert not found.grads["logits"].any()
    assert math.isfinite(fl.recipes.seq2seq(logits, np.abs(tokens) % 9, lengths, normalization="sequence").value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda z, y: fl.recipes.language_model(z, y[:, :2]),
            r"language_model: tokens has shape \(3, 2\); expected \(3, 6\)",
        ),
        (
            lambda z, y: fl.recipes.language_model(z, y * 1.0),
            "language_model: tokens has dtype float64; expected integers",
        ),
        (
            lambda z, y: fl.recipes.language_model(z, y, ignore_index=None),
            r"language_model: tokens\[\d, \d\] is -100; allowed: 0 to 8",
        ),
        (lambda z, y: fl.recipes.language_model(z, y, mask=[1]), r"language_model: mask has shape \(1,\)"),
        (
            lambda z, y: fl.recipes.language_model(z, y + 50),
            r"language_model: tokens\[0, 0\] is 5\d; allowed: 0 to 8, or -100",
        ),
        (
            lambda z, y: fl.recipes.language_model(z, y, weights={"cross_entropy": 0, "z_loss": 1}),
            "language_model: weights has cross_entropy 0 and z_loss 1",
        ),
        (lambda z, y: fl.recipes.seq2seq(z, y[0]), r"labels has shape \(6,\)"),
        (lambda z, y: fl.recipes.seq2seq(z[0], y), r"seq2seq: logits has shape \(6, 9\); expected \(n, t, v\)"),
        (lambda z, y: fl.recipes.summarization(z, y, z, y[:2], y), r"summarization: samples has shape \(2, 6\)"),
        (lambda z, y: fl.recipes.summarization(z, y, z, y, y * 0.5), "summarization: greedy has dtype float64"),
        (
            lambda z, y: fl.recipes.summarization(z, y, z[..., 1:], y, y),
            r"sampled_logits has shape \(3, 6, 8\); expected",
        ),
    ],
)
def test_errors_of_language(call, message):
    logits, tokens, _ = texts()
    with pytest.raises(fl.CallError, match=message):
        call(logits, tokens)
