"""Reference fairness losses."""

import numpy as np

__all__ = [
    "bounded_group_loss",
    "covariance_fairness",
    "demographic_parity",
    "equal_opportunity",
    "equalized_odds",
    "f_score_parity",
    "false_omission_parity",
    "mindiff",
    "predictive_parity",
]


def _size(gap, norm):
    """Return the size of a gap."""
    return gap**2 if norm == "squared" else np.abs(gap)


def _members(group):
    """Return the mask of each group; a row of several columns names an intersection."""
    rows = group.reshape(len(group), -1)
    return [(rows == names).all(axis=1) for names in np.unique(rows, axis=0)]


def _gaps(quantity, weight, group, norm):
    """Return the mean size of the gaps between the groups' means and the overall mean."""
    overall = (weight * quantity).sum() / weight.sum()
    masks = [m for m in _members(group) if weight[m].sum() > 0]
    return np.mean([_size((weight * quantity)[m].sum() / weight[m].sum() - overall, norm) for m in masks])


def _weights(scores, sample_weight):
    return np.ones(len(scores)) if sample_weight is None else sample_weight


def demographic_parity(scores, group, sample_weight=None, norm="squared"):
    """Mean size of the gaps between the mean probabilities of groups and the overall mean."""
    return _gaps(1 / (1 + np.exp(-scores)), _weights(scores, sample_weight), group, norm)


def equal_opportunity(scores, labels, group, sample_weight=None, norm="squared"):
    """Mean size of the gaps in true positive rate: the positives' mean probability in each group, less that of all."""
    return _gaps(1 / (1 + np.exp(-scores)), labels * _weights(scores, sample_weight), group, norm)


def equalized_odds(scores, labels, group, sample_weight=None, norm="squared"):
    """Mean of the gaps of the mean probabilities over the positives and over the negatives."""
    w, p = _weights(scores, sample_weight), 1 / (1 + np.exp(-scores))
    parts = [_gaps(p, chosen, group, norm) for chosen in (labels * w, (1 - labels) * w) if chosen.sum() > 0]
    return np.mean(parts)


def bounded_group_loss(scores, labels, group, sample_weight=None, bound=0.0):
    """Mean over groups of the excess of the group's mean cross-entropy over a bound."""
    w, loss = _weights(scores, sample_weight), np.log1p(np.exp(scores)) - labels * scores
    masks = [m for m in _members(group) if w[m].sum() > 0]
    return np.mean([max((w * loss)[m].sum() / w[m].sum() - bound, 0.0) for m in masks])


def covariance_fairness(scores, group, sample_weight=None, norm="squared"):
    """Mean size of the covariance between membership in a group and the score."""
    w = _weights(scores, sample_weight)
    w = w / w.sum()
    masks = [m for m in _members(group) if w[m].sum() > 0]
    return np.mean([_size((w * (m - w[m].sum()) * scores).sum(), norm) for m in masks])


def mindiff(scores, labels, group, sample_weight=None, sigma=0.1, samples="negatives"):
    """Mean over pairs of groups of the squared discrepancy of their probabilities."""
    p, chosen = 1 / (1 + np.exp(-scores)), {"negatives": labels == 0, "positives": labels == 1, "all": labels == labels}
    w = _weights(scores, sample_weight) * chosen[samples]
    close = np.exp(-((p[:, None] - p) ** 2) / (2 * sigma**2))
    means = [w * m / w[m].sum() for m in _members(group) if w[m].sum() > 0]
    gaps = [(a - b) @ close @ (a - b) for i, a in enumerate(means) for b in means[:i]]
    return np.mean(gaps) if gaps else 0.0


def _fraction_gaps(top, bottom, group, norm):
    """Return the mean size of the gaps between the groups' fractions of sums and the overall one."""
    masks = [m for m in _members(group) if bottom[m].sum() > 0]
    return np.mean([_size(top[m].sum() / bottom[m].sum() - top.sum() / bottom.sum(), norm) for m in masks])


def predictive_parity(scores, labels, group, sample_weight=None, norm="squared"):
    """Mean size of the gaps between the precisions of groups and that of all samples."""
    p = _weights(scores, sample_weight) / (1 + np.exp(-scores))
    return _fraction_gaps(p * labels, p, group, norm)


def false_omission_parity(scores, labels, group, sample_weight=None, norm="squared"):
    """Mean size of the gaps between the false omission rates of groups and that of all samples."""
    q = _weights(scores, sample_weight) / (1 + np.exp(scores))
    return _fraction_gaps(q * labels, q, group, norm)


def f_score_parity(scores, labels, group, sample_weight=None, norm="squared", beta=1.0):
    """Mean size of the gaps between the F-scores of groups and that of all samples."""
    w = _weights(scores, sample_weight)
    p = w / (1 + np.exp(-scores))
    return _fraction_gaps((1 + beta**2) * p * labels, beta**2 * w * labels + p, group, norm)
