"""Sample inputs of the losses of ranking."""

from itertools import pairwise

import numpy as np
from array_cases import Sample

OFFSETS = np.array([0, 1, 9, 9, 14, 34])


def graded(rng):
    """Groups of several sizes, one of one item, one of none and one of a single grade."""
    scores = rng.permutation(34) / 5.0 + rng.uniform(-0.05, 0.05, 34) - 3.0
    relevance = rng.integers(0, 4, 34).astype(np.float64)
    relevance[9:14] = 2.0
    return {"scores": scores, "relevance": relevance, "offsets": OFFSETS}


def has_pairs(relevance, offsets, **parameters):
    """Whether a group has a better and a worse item."""
    return np.array([len(set(relevance[a:b])) > 1 for a, b in pairwise(offsets)], float)


def several(offsets, **others):
    """Whether a group has two items."""
    return np.diff(offsets) > 1


def nothing():
    """No items, one group."""
    return {"scores": np.empty(0), "relevance": np.empty(0), "offsets": np.zeros(2, int)}


SAMPLES = {
    "pairwise_logistic": Sample(graded, [{}, {"sigma": 2.0, "pairs": "sum"}], counted=has_pairs, empty=nothing),
    "ranknet": Sample(graded, [{}, {"sigma": 0.5, "pairs": "sum"}], counted=several, empty=nothing),
    "lambda_rank": Sample(
        graded, [{}, {"k": 3, "sigma": 2.0}, {"gain": "linear", "pairs": "mean"}], counted=has_pairs, empty=nothing
    ),
}


def has_relevance(relevance, offsets, **others):
    """Whether a group has two items and some relevance."""
    return np.array([b - a > 1 and relevance[a:b].sum() > 0 for a, b in pairwise(offsets)], float)


def subjects(rng):
    """Times with ties, two strata."""
    return {
        "risk": rng.normal(0, 1.5, 34),
        "time": rng.integers(0, 9, 34) / 2.0,
        "event": rng.integers(0, 2, 34),
        "offsets": np.array([0, 20, 34]),
    }


def nobody():
    """No subjects."""
    return {"risk": np.empty(0), "time": np.empty(0), "event": np.empty(0, int)}


def labelled(rng):
    """Positives and negatives off the kinks, a group of one kind."""
    labels = rng.integers(0, 2, 34)
    labels[9:14] = 1
    return {
        "scores": rng.permutation(34) / 11.0 + rng.uniform(-0.01, 0.01, 34),
        "labels": labels,
        "offsets": OFFSETS,
        "sample_weight": rng.integers(0, 4, 34) / 2.0,
    }


def has_both(labels, sample_weight, offsets, **others):
    """Whether a group has a positive and a negative."""
    parts = [(labels[a:b], sample_weight[a:b]) for a, b in pairwise(offsets)]
    return np.array([(w * t).sum() * (w * (1 - t)).sum() > 0 for t, w in parts], float)


def no_labels():
    """No samples, one group."""
    return {"scores": np.empty(0), "labels": np.empty(0, int)}


def classes(rng):
    """Probabilities and truths of a few classes."""
    return {"prediction": rng.uniform(0.05, 0.95, (21, 5)), "target": rng.integers(0, 2, (21, 5)).astype(float)}


SAMPLES |= {
    "auc_pairwise": Sample(labelled, [{}, {"margin": 0.3}], counted=has_both, empty=no_labels),
    "soft_f1": Sample(
        classes,
        [{}, {"activation": "sigmoid"}],
        empty=lambda: {"prediction": np.empty((0, 3)), "target": np.empty((0, 3))},
    ),
    "approx_ndcg": Sample(
        graded, [{"temperature": 0.5}, {"temperature": 1.0, "gain": "linear"}], counted=has_pairs, empty=nothing
    ),
    "listnet": Sample(graded, counted=several, empty=nothing),
    "softmax_ranking": Sample(graded, counted=has_relevance, empty=nothing),
    "list_mle": Sample(graded, counted=several, empty=nothing),
    "cox": Sample(subjects, [{}, {"ties": "efron"}], counted=lambda event, **others: event, empty=nobody),
}
for _sample in SAMPLES.values():
    # Values are of groups, the first axis is of items.
    _sample.independent = False
