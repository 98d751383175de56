"""Losses of sequences beside torch's."""

import numpy as np

import fastloss as fl

from .case import Bench, in_torch


def ctc():
    """64 sequences of 200 frames, 100 symbols, 40 of them to be read: loss and gradient."""
    rng = np.random.default_rng(0)
    log_probs = rng.normal(size=(200, 64, 100)).astype(np.float32)
    log_probs -= np.logaddexp.reduce(log_probs, axis=-1, keepdims=True)
    targets = rng.integers(1, 100, (64, 40))
    out = np.empty_like(log_probs)
    frames, lengths = np.full(64, 200), np.full(64, 40)

    def value(torch, x, *rest):
        return torch.nn.functional.ctc_loss(x, *rest)

    theirs = in_torch(value, (log_probs,), (targets, frames, lengths))
    return {"fastloss": lambda: fl.ctc.value_and_grad(log_probs, targets, out=out), **theirs}


def batch(n=32, t=256, v=1000, kept=0.25):
    """Logits of padded sequences of which so much is kept, by lengths."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, t, v)).astype(np.float32)
    return logits, rng.integers(0, v, (n, t)), rng.integers(0, int(2 * kept * t) + 1, n).clip(1, t)


def cross_entropy_numpy(logits, labels, lengths):
    """Loss and gradient of the rows that are kept."""
    inside = np.arange(labels.shape[1]) < lengths[:, None]
    z, y = logits[inside], labels[inside]
    z -= z.max(1, keepdims=True)
    e = np.exp(z)
    total = e.sum(1, keepdims=True)
    rows = np.arange(len(y))
    value = float((np.log(total[:, 0]) - z[rows, y]).mean())
    e /= total * len(y)
    e[rows, y] -= 1 / len(y)
    grad = np.zeros_like(logits)
    grad[inside] = e
    return value, grad


def sequence_cross_entropy(n=32, t=256, v=1000):
    """A quarter of the steps kept, beside all of them, NumPy on those kept, and torch, which ignores by the label.

    The zeros in the gradient of the others are written.
    """
    logits, labels, lengths = batch(n, t, v)
    out = np.empty_like(logits)
    ignored = np.where(np.arange(t) < lengths[:, None], labels, -100)

    def value(torch, z, labels):
        return torch.nn.functional.cross_entropy(z.view(-1, v), labels.view(-1))

    return {
        "fastloss": lambda: fl.sequence_cross_entropy.value_and_grad(logits, labels, lengths, out=out),
        "all steps": lambda: fl.sequence_cross_entropy.value_and_grad(logits, labels, out=out),
        "numpy": lambda: cross_entropy_numpy(logits, labels, lengths),
        **in_torch(value, (logits,), (ignored,)),
    }


def value_alone():
    """The loss alone of a quarter of the steps, beside that of all."""
    logits, labels, lengths = batch()
    return {
        "fastloss": lambda: fl.sequence_cross_entropy(logits, labels, lengths),
        "all steps": lambda: fl.sequence_cross_entropy(logits, labels),
    }


def unlikelihood(n=2000, v=1000, c=20):
    """Candidates among a thousand words."""
    rng = np.random.default_rng(0)
    logits, candidates = rng.normal(size=(n, v)).astype(np.float32), rng.integers(0, v, (n, c))
    out = np.empty_like(logits)

    def plain():
        mask = np.zeros(logits.shape, bool)
        np.put_along_axis(mask, candidates, True, 1)
        e = np.exp(logits - logits.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        ratio = np.where(mask, p / (1 - p), 0)
        grad = (np.where(mask, ratio, 0) - p * ratio.sum(1, keepdims=True)) / n
        return float(-np.where(mask, np.log1p(-p), 0).sum() / n), grad

    return {"fastloss": lambda: fl.unlikelihood.value_and_grad(logits, candidates, out=out), "numpy": plain}


def rouge():
    """A thousand pairs of 200 tokens, beside the table in NumPy, a row of all pairs at a time."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5000, (1000, 200))
    b = np.where(rng.random(a.shape) < 0.5, a, rng.integers(0, 5000, a.shape))

    def plain():
        before = np.zeros((len(a), b.shape[1] + 1), np.int32)
        for i in range(a.shape[1]):
            after = np.zeros_like(before)
            after[:, 1:] = np.maximum(before[:, 1:], before[:, :-1] + (b == a[:, i : i + 1]))
            before = np.maximum.accumulate(after, axis=1)
        return before[:, -1] / 200

    return {"fastloss": lambda: fl.rewards.rouge_l(a, b), "numpy": plain}


BENCHES = [
    Bench("ctc, 64 x 200 frames, 40 of 100 symbols", ctc, "torch", 1.0),
    Bench("sequence_cross_entropy, 32 x 256 x 1000, 1/4 kept", sequence_cross_entropy, "all steps", 0.4),
    Bench("sequence_cross_entropy, value, 1/4 kept", value_alone, "all steps", 0.3),
    Bench("sequence_cross_entropy, 2 x 5 x 20", lambda: sequence_cross_entropy(2, 5, 20), "numpy", 1.0),
    Bench("unlikelihood, 20 of 1000 words, 2000 rows", unlikelihood, "numpy", 1.0),
    Bench("unlikelihood, 3 of 10 words, 8 rows", lambda: unlikelihood(8, 10, 3), "numpy", 1.0),
    Bench("rouge_l, 1000 pairs of 200 tokens", rouge, "numpy", 1.0),
]
