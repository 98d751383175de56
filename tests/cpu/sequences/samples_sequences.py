"""Sample inputs of the losses of sequences."""

import numpy as np
from array_cases import Sample


def spoken(rng, t=9, n=5, v=6):
    """Frames and targets of several lengths, with symbols that repeat; what is padding is no symbol at all."""
    logits = rng.normal(size=(t, n, v))
    targets = np.array([[1, 2, 2, 5], [3, 1, 4, -9], [5, 99, 99, 99], [2, 2, 2, 2], [7, 7, 7, 7]])
    return {
        "log_probs": logits - np.log(np.exp(logits).sum(-1, keepdims=True)),
        "targets": targets,
        "input_lengths": np.array([9, 8, 3, 9, 6]),
        "target_lengths": np.array([4, 3, 1, 4, 0]),
    }


def padded(rng, n=4, t=6, v=50):
    """Tokens of sequences of several lengths, some masked, some with a label to ignore; one sequence is empty."""
    labels = rng.integers(0, v, (n, t))
    labels[0, 2], labels[1, 4:] = -100, 4 * v
    return {
        "logits": rng.normal(0, 2, (n, t, v)),
        "labels": labels,
        "lengths": np.array([6, 4, 5, 0]),
        "mask": rng.random((n, t)) < 0.8,
    }


def kept(labels, lengths, mask, normalization="token", **_):
    """How much each token counts in the mean."""
    inside = (np.arange(labels.shape[1]) < lengths[:, None]) & mask & (labels != -100)
    return inside / np.maximum(inside.sum(1, keepdims=True), 1) if normalization == "sequence" else inside


def text(rng, n=7, v=9):
    """Tokens of a text, one masked, one to ignore."""
    labels = rng.integers(0, v, n)
    labels[3] = -100
    return {"logits": rng.normal(0, 2, (n, v)), "labels": labels, "mask": np.arange(n) != 5}


def unwanted(rng, n=8, v=11):
    """Candidates of each row, some repeated, some padded; the last row has none."""
    candidates = rng.integers(0, v, (n, 5))
    candidates[0, 1] = candidates[0, 0]
    candidates[2, 3:] = -100
    candidates[-1] = -100
    return candidates


def nothing(**more):
    return lambda: {"logits": np.ones((3, 4)), "labels": np.full(3, -100), **more}


SAMPLES = {
    "sequence_cross_entropy": Sample(
        padded,
        [{}, {"normalization": "sequence"}, {"label_smoothing": 0.2}],
        counted=kept,
        empty=lambda: {"logits": np.ones((2, 3, 4)), "labels": np.zeros((2, 3), int), "lengths": np.zeros(2, int)},
    ),
    "perplexity": Sample(text, empty=nothing(), of_nothing=1.0),
    "bits_per_byte": Sample(lambda rng: {**text(rng), "n_bytes": np.array(23)}, empty=nothing(n_bytes=np.array(4))),
    "unlikelihood": Sample(
        lambda rng: {"logits": rng.normal(0, 3, (8, 11)), "candidates": unwanted(rng)},
        empty=lambda: {"logits": np.zeros((0, 4)), "candidates": np.zeros((0, 2), int)},
    ),
    "ctc": Sample(
        spoken,
        [{}, {"zero_infinity": True}],
        independent=False,
        empty=lambda: {"log_probs": np.zeros((3, 0, 4)), "targets": np.zeros((0, 2), int)},
    ),
}
