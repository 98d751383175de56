"""Mismatches: found in planted cases, none reported in sound ones."""

import re

import numpy as np
import pytest

import fastloss as fl

RNG = np.random.default_rng(0)
N = 60
Z = 2.0 * RNG.normal(size=N)
Y = (Z + RNG.logistic(size=N) > 0).astype(float)
P = 1.0 / (1.0 + np.exp(-Z))
SCORES = RNG.normal(size=(N, 4))
SOFT = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
LABELS = RNG.integers(0, 4, N)
LABELS[:4] = range(4)
X = 5.0 * RNG.normal(size=N)
COUNTS = RNG.poisson(np.exp(1.5 + 0.3 * RNG.normal(size=N)))
MEANS = np.full(N, COUNTS.mean()) + 0.5 * RNG.random(N)

PLANTED = [
    (("bce_with_logits", P, Y), "as after a sigmoid"),
    (("focal", P, Y), "as after a sigmoid"),
    (("asymmetric", P.astype(np.float32), Y), "as after a sigmoid"),
    (("cross_entropy", SOFT, LABELS), "as after a softmax"),
    (("softmax_focal", SOFT, LABELS), "as after a softmax"),
    (("nll", SOFT, LABELS), "as after a softmax: give their logarithms"),
    (("nll", SCORES, LABELS), "for logits take cross_entropy"),
    (("bce", Z, Y), "bce_with_logits takes them"),
    (("brier", Z, Y), "takes probabilities"),
    (("bce_with_logits", np.c_[-Z, Z], Y), r"give pred\[:, 1\] - pred\[:, 0\]"),
    (("bce", np.c_[1 - P, P], Y), r"give pred\[:, 1\]\."),
    (("bce_with_logits", Z, 2 * Y - 1), r"give \(target \+ 1\) / 2"),
    (("hinge", Z, Y), r"give 2 \* target - 1"),
    (("hinge", P, 2 * Y - 1), "takes scores of both signs"),
    (("cross_entropy", SCORES, LABELS + 1), "give target - 1"),
    (("poisson", MEANS, COUNTS), "give their logarithms"),
    (("mse", P, X), "as after a sigmoid, and targets go from"),
    (("mae", np.tanh(X), X), "as after a tanh"),
    (("huber", np.maximum(X, 0.0), X), "as after a ReLU"),
    (("mse", X[:, None], X), "every prediction meets every target"),
    (("mae", X, X + 1.0, "newton"), "take pseudo_huber"),
    (("cross_entropy", Z, Y.astype(int)), r"give \(n, K\)"),
]

SOUND = [
    ("bce_with_logits", Z, Y),
    ("bce_with_logits", Z, np.clip(Y, 0.1, 0.9)),
    ("bce_with_logits", np.array([0.2, 0.7]), np.array([0.0, 1.0])),  # too few to tell
    ("focal", 0.1 * Z, Y),
    ("bce", P, Y),
    ("brier", P, Y),
    ("log_loss", P, Y),
    ("hinge", Z, 2 * Y - 1),
    ("logistic", Z, 2 * Y - 1, "newton"),
    ("cross_entropy", SCORES, LABELS, "lbfgs"),
    ("cross_entropy", np.log(SOFT), LABELS),
    ("cross_entropy", np.abs(SCORES) / 5.0, LABELS),
    ("softmax_focal", SCORES, LABELS),
    ("nll", np.log(SOFT), LABELS),
    ("poisson", np.log(MEANS), COUNTS),
    ("mse", X + 1.0, X, "newton"),
    ("mae", X, X, "adam"),
    ("mse", P, Y),
    ("huber", np.maximum(X, 0.0), np.maximum(X, 0.0)),
    ("quantile:q=0.9", X, X + 1.0),
    ("gamma", np.log(MEANS), MEANS),
    ("mse", SCORES, SCORES + 1.0),
]


@pytest.mark.parametrize(("case", "sentence"), PLANTED)
def test_planted_mismatches_are_found(case, sentence):
    *arrays, optimizer = case if len(case) == 4 else (*case, None)
    [found] = fl.mismatches(*arrays, optimizer=optimizer)
    assert re.search(sentence, found)
    assert found.endswith(".")


@pytest.mark.parametrize("case", SOUND)
def test_sound_cases_are_silent(case):
    *arrays, optimizer = case if len(case) == 4 else (*case, None)
    assert fl.mismatches(*arrays, optimizer=optimizer) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("dice", P, Y), "a loss of whole arrays"),
        (("hubr", P, Y), "did you mean huber"),
        ((3, P, Y), "loss is int"),
        (("mse", ["a"], Y), "pred has dtype"),
    ],
)
def test_errors_are_one_sentence(given, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        fl.mismatches(*given)


def test_evaluation_warns_of_probabilities_for_scores():
    report = fl.evaluate((P, 2 * Y - 1), losses="hinge")
    assert "all predictions lie in [0, 1]" in report.warnings()[0]
    assert not fl.evaluate((Z, 2 * Y - 1), losses="hinge").warnings()
