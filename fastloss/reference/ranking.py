"""Losses of ranking in plain NumPy: loops over groups, whole matrices of pairs."""

from itertools import pairwise

import numpy as np

__all__ = ["lambda_rank", "pairwise_logistic", "ranknet"]


def _groups(scores, offsets):
    """The slices that groups are; all of it where no offsets are given."""
    ends = [0, len(scores)] if offsets is None else offsets
    return [slice(a, b) for a, b in pairwise(ends)]


def _over_pairs(loss, chosen, pairs):
    """The loss of the chosen pairs of a group, added up or averaged; 0 of none."""
    total = loss[chosen].sum()
    return total / max(chosen.sum(), 1) if pairs == "mean" else total


def pairwise_logistic(scores, relevance, offsets=None, sigma=1, pairs="mean"):
    """Of log(1 + exp(-sigma (s_i - s_j))) over the pairs where i is better than j."""
    values = []
    for g in _groups(scores, offsets):
        d = scores[g, None] - scores[None, g]
        better = relevance[g, None] > relevance[None, g]
        values.append(_over_pairs(np.logaddexp(0, -sigma * d), better, pairs))
    return np.array(values)


def ranknet(scores, relevance, offsets=None, sigma=1, pairs="mean"):
    """Cross-entropy of which of two is better, over all pairs i < j."""
    values = []
    for g in _groups(scores, offsets):
        d = sigma * (scores[g, None] - scores[None, g])
        p = (1 + np.sign(relevance[g, None] - relevance[None, g])) / 2
        values.append(_over_pairs(np.logaddexp(0, d) - p * d, np.triu(np.ones(d.shape, bool), 1), pairs))
    return np.array(values)


def _gains(relevance, gain):
    return 2.0**relevance - 1 if gain == "exponential" else relevance


def lambda_rank(scores, relevance, offsets=None, sigma=1, k=None, gain="exponential", pairs="sum"):
    """The logistic loss of pairs, weighted by the change of NDCG that swapping them would bring."""
    values = []
    for g in _groups(scores, offsets):
        s, gains = scores[g], _gains(relevance[g], gain)
        position = np.empty(len(s), int)
        position[np.argsort(-s, kind="stable")] = np.arange(len(s))
        table = np.where(np.arange(len(s)) < (k or len(s)), 1 / np.log2(np.arange(len(s)) + 2), 0)
        best = np.sort(gains)[::-1] @ table
        swap = np.abs(gains[:, None] - gains) * np.abs(table[position][:, None] - table[position]) / (best or 1)
        loss = swap * np.logaddexp(0, -sigma * (s[:, None] - s))
        values.append(_over_pairs(loss, relevance[g, None] > relevance[None, g], pairs))
    return np.array(values)
