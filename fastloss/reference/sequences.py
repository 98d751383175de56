"""Sequence losses in plain NumPy."""

import numpy as np

__all__ = ["bits_per_byte", "ctc", "perplexity", "sequence_cross_entropy", "unlikelihood"]


def _behind(a, k):
    """Return the array shifted by k positions, filled with log 0 in front."""
    return np.concatenate([np.full(min(k, len(a)), -np.inf), a[: len(a) - k]])


def ctc(log_probs, targets, input_lengths=None, target_lengths=None, blank=0, zero_infinity=False):
    """Minus the log of the summed probabilities of all alignments: the forward recursion of Graves et al. (2006)."""
    t, n, _ = log_probs.shape
    frames = np.full(n, t) if input_lengths is None else input_lengths
    lengths = np.full(n, targets.shape[1]) if target_lengths is None else target_lengths
    values = np.empty(n)
    for i in range(n):
        states = np.full(2 * lengths[i] + 1, blank)
        states[1::2] = targets[i, : lengths[i]]
        may_skip = (states != blank) & (states != np.concatenate([[blank, blank], states])[: len(states)])
        paths = np.full(len(states), -np.inf)
        if frames[i]:
            paths[:2] = log_probs[0, i, states[:2]]
        elif lengths[i] == 0:
            paths[0] = 0.0
        for x in log_probs[1 : frames[i], i]:
            skipped = np.where(may_skip, _behind(paths, 2), -np.inf)
            paths = np.logaddexp.reduce([paths, _behind(paths, 1), skipped]) + x[states]
        values[i] = -np.logaddexp.reduce(paths[-2:])
    return np.where(np.isinf(values) & bool(zero_infinity), 0.0, values)


def _log_softmax(z):
    top = z.max(-1, keepdims=True)
    return z - top - np.log(np.exp(z - top).sum(-1, keepdims=True))


def _token_losses(logits, labels, kept, label_smoothing=0.0):
    """Return the cross-entropy of the kept tokens, and 0 for the others."""
    log_p = _log_softmax(logits)
    picked = np.take_along_axis(log_p, np.where(kept, labels, 0)[..., None], -1)[..., 0]
    return np.where(kept, -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(-1), 0.0)


def _kept(labels, mask, ignore_index):
    return (labels != ignore_index) & (np.ones(labels.shape, bool) if mask is None else mask.astype(bool))


def sequence_cross_entropy(
    logits, labels, lengths=None, mask=None, label_smoothing=0.0, normalization="token", ignore_index=-100
):
    """-log softmax of each token's label; by sequence, over the number of tokens in it."""
    kept = _kept(labels, mask, ignore_index)
    if lengths is not None:
        kept &= np.arange(labels.shape[1]) < lengths[:, None]
    values = _token_losses(logits, labels, kept, label_smoothing)
    return values / np.maximum(kept.sum(1, keepdims=True), 1) if normalization == "sequence" else values


def perplexity(logits, labels, mask=None, ignore_index=-100):
    """exp of the mean -log softmax of the labels."""
    kept = _kept(labels, mask, ignore_index)
    return np.exp(_token_losses(logits, labels, kept).sum() / kept.sum())


def bits_per_byte(logits, labels, n_bytes, mask=None, ignore_index=-100):
    """Total -log2 softmax of the labels over the bytes."""
    return _token_losses(logits, labels, _kept(labels, mask, ignore_index)).sum() / (n_bytes * np.log(2))


def unlikelihood(logits, candidates=None, mask=None, ignore_index=-100):
    """-sum of log(1 - softmax) over the candidates of each row."""
    log_p = _log_softmax(logits)
    total = np.zeros(logits.shape[:-1])
    for i in np.ndindex(total.shape):
        words = np.flatnonzero(mask[i]) if candidates is None else set(candidates[i].tolist()) - {ignore_index}
        for c in words:
            others = np.delete(log_p[i], c)
            total[i] -= np.log(np.exp(others - others.max()).sum()) + others.max()
    return total
