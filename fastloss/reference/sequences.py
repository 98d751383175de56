"""Losses of sequences in plain NumPy."""

import numpy as np

__all__ = ["ctc"]


def _behind(a, k):
    """The same with k places of log 0 put in front."""
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
