"""Ranking losses in plain NumPy: loops over groups, whole matrices of pairs."""

from itertools import pairwise

import numpy as np

__all__ = [
    "approx_ndcg",
    "auc_pairwise",
    "cox",
    "lambda_rank",
    "list_mle",
    "listnet",
    "pairwise_logistic",
    "ranknet",
    "soft_f1",
    "softmax_ranking",
]


def _groups(scores, offsets):
    """Return the slice of each group; one slice of all items without offsets."""
    ends = [0, len(scores)] if offsets is None else offsets
    return [slice(a, b) for a, b in pairwise(ends)]


def _over_pairs(loss, chosen, pairs):
    """Return the sum or mean of the chosen pairs' losses; 0 without pairs."""
    total = loss[chosen].sum()
    return total / max(chosen.sum(), 1) if pairs == "mean" else total


def pairwise_logistic(scores, relevance, offsets=None, sigma=1, pairs="mean"):
    """Pairwise logistic loss: log(1 + exp(-sigma (s_i - s_j))) over the pairs where i is better than j."""
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
    """Logistic loss of pairs, weighted by the change of NDCG on swapping them."""
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


def approx_ndcg(scores, relevance, offsets=None, temperature=0.1, gain="exponential"):
    """One minus NDCG with rank 1 + sum over others of sigmoid((s_j - s_i) / temperature)."""
    values = []
    for g in _groups(scores, offsets):
        s, gains = scores[g], _gains(relevance[g], gain)
        above = 1 / (1 + np.exp((s[:, None] - s) / temperature))
        rank = 1 + above.sum(axis=1) - 0.5
        best = np.sort(gains)[::-1] @ (1 / np.log2(np.arange(len(s)) + 2))
        values.append(1 - (gains / np.log2(1 + rank)).sum() / best if len(set(relevance[g])) > 1 else 0)
    return np.array(values)


def _log_softmax(s):
    return s - np.logaddexp.reduce(s)


def listnet(scores, relevance, offsets=None):
    """Cross-entropy of softmax(relevance) and softmax(scores)."""
    return np.array(
        [-(np.exp(_log_softmax(relevance[g])) * _log_softmax(scores[g])).sum() for g in _groups(scores, offsets)]
    )


def softmax_ranking(scores, relevance, offsets=None):
    """Cross-entropy of the relevance, made to sum to one, and softmax(scores)."""
    values = []
    for g in _groups(scores, offsets):
        total = relevance[g].sum()
        values.append(-(relevance[g] * _log_softmax(scores[g])).sum() / total if len(scores[g]) > 1 and total else 0)
    return np.array(values)


def list_mle(scores, relevance, offsets=None):
    """Negative log of the chance that items are drawn by falling relevance, each in proportion to exp(score)."""
    values = []
    for g in _groups(scores, offsets):
        s = scores[g][np.argsort(-relevance[g], kind="stable")]
        values.append(sum(np.logaddexp.reduce(s[i:]) - s[i] for i in range(len(s))))
    return np.array(values, float)


def cox(risk, time, event, offsets=None, ties="breslow"):
    """Negative log partial likelihood, event by event."""
    values = np.zeros(len(risk))
    for g in _groups(risk, offsets):
        x, t, d = risk[g], time[g], event[g] != 0
        for i in np.flatnonzero(d):
            tied = d & (t == t[i])
            m = tied.sum()
            out = np.arange(m) / m if ties == "efron" else np.zeros(1)
            terms = [np.log(np.exp(x[t >= t[i]]).sum() - f * np.exp(x[tied]).sum()) for f in out]
            values[g.start + i] = np.mean(terms) - x[i]
    return values


def auc_pairwise(scores, labels, offsets=None, sample_weight=None, margin=1):
    """Mean of max(0, margin - (s_i - s_j))^2 over positives i and negatives j."""
    values = []
    w = np.ones(len(scores)) if sample_weight is None else sample_weight
    for g in _groups(scores, offsets):
        pairs = np.outer(w[g] * (labels[g] == 1), w[g] * (labels[g] == 0))
        loss = np.maximum(margin - (scores[g, None] - scores[None, g]), 0) ** 2
        values.append((pairs * loss).sum() / (pairs.sum() or 1))
    return np.array(values)


def soft_f1(prediction, target, activation=None):
    """One minus 2 TP / (2 TP + FP + FN), down the first axis."""
    p = 1 / (1 + np.exp(-prediction)) if activation == "sigmoid" else prediction
    tp, fp, fn = np.minimum(p, target), np.maximum(p - target, 0), np.maximum(target - p, 0)
    tp, fp, fn = (x.sum(axis=0) for x in (tp, fp, fn))
    return 1 - 2 * tp / (2 * tp + fp + fn)
