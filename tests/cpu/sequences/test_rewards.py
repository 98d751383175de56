"""Rewards: the figures of rouge-score and sacrebleu, published ones, and a plain table for common subsequences."""

import logging

import numpy as np
import pytest

import fastloss as fl
from fastloss.text import rewards


def texts(rng, n=40, words=6, longest=90):
    """Sequences of all lengths, from none."""
    return [rng.integers(0, words, rng.integers(0, longest)).tolist() for _ in range(n)]


def longest_common(a, b):
    """The textbook table."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def runs_in_common(a, b, n):
    """Clipped counts, with dictionaries."""
    counts = [{}, {}]
    for held, text in zip(counts, (a, b), strict=True):
        for k in range(len(text) - n + 1):
            run = tuple(text[k : k + n])
            held[run] = held.get(run, 0) + 1
    return sum(min(c, counts[1].get(run, 0)) for run, c in counts[0].items())


@pytest.mark.parametrize("words", [2, 5, 10**12])
def test_common_subsequences_by_the_textbook(words):
    rng = np.random.default_rng(0)
    ours, theirs = texts(rng, words=words, longest=150), texts(rng, words=words, longest=150)
    if words > 100:
        theirs = [[x for x in a if x % 3] for a in ours]
    scores = rewards.rouge_l(ours, theirs)
    common = np.array([longest_common(a, b) for a, b in zip(ours, theirs, strict=True)])
    np.testing.assert_allclose(scores.precision, common / np.maximum([len(a) for a in ours], 1), rtol=1e-15)
    np.testing.assert_allclose(scores.recall, common / np.maximum([len(b) for b in theirs], 1), rtol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_common_runs_by_dictionaries(n):
    rng = np.random.default_rng(n)
    ours, theirs = texts(rng, words=3), texts(rng, words=3)
    common = np.array([runs_in_common(a, b, n) for a, b in zip(ours, theirs, strict=True)])
    recall = rewards.rouge_n(ours, theirs, n).recall
    np.testing.assert_allclose(recall, common / np.maximum([len(b) - n + 1 for b in theirs], 1), rtol=1e-15)


@pytest.mark.oracle
def test_the_figures_of_rouge_score():
    scorers = pytest.importorskip("rouge_score.rouge_scorer", reason="needs rouge-score")

    class Words:
        def tokenize(self, text):
            return text.split()

    rng = np.random.default_rng(2)
    ours, theirs = texts(rng), texts(rng)
    scorer = scorers.RougeScorer(["rougeL", "rouge1", "rouge2"], tokenizer=Words())
    found = {"rougeL": rewards.rouge_l(ours, theirs)}
    found |= {f"rouge{n}": rewards.rouge_n(ours, theirs, n) for n in (1, 2)}
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        expected = scorer.score(" ".join(map(str, b)), " ".join(map(str, a)))
        for name, scores in found.items():
            theirs_now = expected[name]
            got = (scores.precision[i], scores.recall[i], scores.f[i])
            assert got == (theirs_now.precision, theirs_now.recall, theirs_now.fmeasure)


@pytest.mark.oracle
def test_summaries_as_rouge_score():
    scorers = pytest.importorskip("rouge_score.rouge_scorer", reason="needs rouge-score")

    class Words:
        def tokenize(self, text):
            return text.split()

    rng = np.random.default_rng(3)
    pairs = [[rng.integers(0, 9, rng.integers(0, 40)).tolist() for _ in range(60)] for _ in range(2)]
    scorer = scorers.RougeScorer(["rougeLsum"], tokenizer=Words())
    scores = rewards.rouge_lsum(*pairs, separator=0)
    for i, (ours, theirs) in enumerate(zip(*pairs, strict=True)):
        lines = (" ".join("\n" if t == 0 else str(t) for t in text) for text in (theirs, ours))
        expected = scorer.score(*lines)["rougeLsum"]
        got = (scores.precision[i], scores.recall[i], scores.f[i])
        assert got == pytest.approx((expected.precision, expected.recall, expected.fmeasure), rel=1e-15)


def test_summaries_by_hand():
    """Lin (2004), section 3.2: w1 w2 w3 w4 w5 against w1 w2 w6 w7 w8 and w1 w3 w8 w9 w5 share four words."""
    reference, candidate = [1, 2, 3, 4, 5], [1, 2, 6, 7, 8, 0, 1, 3, 8, 9, 5]
    scores = rewards.rouge_lsum([candidate], [reference], separator=0)
    assert (scores.recall[0], scores.precision[0]) == (0.8, 0.4)
    assert rewards.rouge_lsum([[], [0]], [[1], [0, 0]], separator=0).f.tolist() == [0.0, 0.0]


@pytest.mark.oracle
@pytest.mark.parametrize("effective", [True, False])
@pytest.mark.parametrize("smoothing", ["exp", "floor", "add_k", "none"])
def test_the_figures_of_sacrebleu(smoothing, effective):
    metrics = pytest.importorskip("sacrebleu.metrics", reason="needs sacrebleu")
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    rng = np.random.default_rng(3)
    ours = texts(rng) + texts(rng, longest=8)
    theirs = texts(rng) + texts(rng, longest=8)
    bleu = metrics.BLEU(smooth_method=smoothing.replace("_", "-"), effective_order=effective, tokenize="none")
    expected = [
        bleu.sentence_score(" ".join(map(str, a)), [" ".join(map(str, b))]).score / 100
        for a, b in zip(ours, theirs, strict=True)
    ]
    got = rewards.bleu_sentence(ours, theirs, smoothing=smoothing, effective_order=effective)
    np.testing.assert_allclose(got, expected, atol=1e-15)


@pytest.mark.parametrize("max_n", [1, 4])
def test_bleu_by_the_formula(max_n):
    rng = np.random.default_rng(5)
    ours, theirs = [[], *texts(rng, words=3)], [[1], *texts(rng, words=3)]
    expected = []
    for a, b in zip(ours, theirs, strict=True):
        found = [runs_in_common(a, b, n) for n in range(1, max_n + 1)]
        precisions = [f / max(len(a) - n, 1) for n, f in enumerate(found)]
        brevity = 1.0 if len(a) > len(b) else np.exp(1 - len(b) / len(a)) if a else 0.0
        expected.append(brevity * np.prod(precisions) ** (1 / max_n))
    assert 10 < np.count_nonzero(expected) < len(ours)
    np.testing.assert_allclose(rewards.bleu_sentence(ours, theirs, max_n=max_n, smoothing="none"), expected, rtol=1e-14)


def coded(*sentences):
    """Sentences as whole numbers."""
    words = {}
    return [[words.setdefault(w, len(words)) for w in s.lower().split()] for s in sentences]


def test_published_figures():
    # Lin (2004): reference "police killed the gunman"; the first candidate has an F of 3/4, the second of 1/2.
    reference, one, two = coded("police killed the gunman", "police kill the gunman", "the gunman kill police")
    np.testing.assert_allclose(rewards.rouge_l([one, two], [reference] * 2).f, [0.75, 0.5])
    np.testing.assert_allclose(rewards.rouge_n([one, two], [reference] * 2, 2).recall, [1 / 3, 1 / 3])
    # Papineni et al. (2002): seven times "the" against a reference with two of them has a precision of 2/7.
    the, cat = coded("the the the the the the the", "the cat is on the mat")
    assert rewards.rouge_n([the], [cat], 1).precision == 2 / 7
    assert rewards.bleu_sentence([the], [cat], max_n=1) == pytest.approx(2 / 7)


def test_arrays_with_lengths_are_the_same_as_lists():
    rng = np.random.default_rng(4)
    ours, theirs = texts(rng, longest=20), texts(rng, longest=30)
    lengths = [np.array([len(x) for x in side]) for side in (ours, theirs)]
    padded = [np.array([x + [0] * (30 - len(x)) for x in side], np.int32) for side in (ours, theirs)]
    for f in (rewards.rouge_l, rewards.rouge_n, rewards.bleu_sentence):
        expected = f(ours, theirs)
        got = f(*padded, lengths=lengths[0], reference_lengths=lengths[1])
        np.testing.assert_array_equal(np.array(got), np.array(expected))
    same = rewards.rouge_l(padded[0], padded[0])
    np.testing.assert_array_equal(same.f, 1.0)


def test_nothing_in_common_and_nothing_at_all():
    scores = rewards.rouge_l([[], [1], []], [[], [], [1]])
    for part in scores:
        np.testing.assert_array_equal(part, 0.0)
    np.testing.assert_array_equal(rewards.bleu_sentence([[], [1], [1, 2]], [[1], [], [3, 4]]), 0.0)
    assert rewards.rouge_n(np.zeros((0, 4), int), []).f.shape == (0,)


@pytest.mark.jit
def test_the_number_of_threads_changes_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    ours, theirs = texts(rng), texts(rng)
    expected = rewards.rouge_l(ours, theirs).f, rewards.bleu_sentence(ours, theirs)
    monkeypatch.setattr("fastloss.cpu.dispatch.PARALLEL_FROM", 1)
    monkeypatch.setattr("fastloss.cpu.runtime.units.WORK", 64)
    np.testing.assert_array_equal(rewards.rouge_l(ours, theirs).f, expected[0])
    np.testing.assert_array_equal(rewards.bleu_sentence(ours, theirs), expected[1])


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            lambda: rewards.rouge_l([[1]], []),
            ValueError,
            "rouge_l: candidates hold 1 texts and references 0; expected as many",
        ),
        (lambda: rewards.rouge_l([[1.5]], [[1]]), TypeError, r"candidates\[0\] has dtype float64; expected integers"),
        (
            lambda: rewards.rouge_l(np.zeros(3, int), [[1]]),
            ValueError,
            r"candidates has shape \(3,\); expected \(n, t\)",
        ),
        (lambda: rewards.rouge_l([[1]], [[1]], lengths=[1]), TypeError, "lengths belong to arrays"),
        (
            lambda: rewards.rouge_l(np.zeros((1, 2), int), [[1]], lengths=[3]),
            ValueError,
            r"lengths\[0\] is 3; allowed: 0 to 2",
        ),
        (lambda: rewards.rouge_n([[1]], [[1]], 0), ValueError, "rouge_n: n is 0; expected 1 or more"),
        (lambda: rewards.bleu_sentence([[1]], [[1]], smoothing="some"), ValueError, "smoothing is 'some'; allowed"),
        (
            lambda: rewards.bleu_sentence([[1]], [[1]], smoothing="floor", smooth_value=-1),
            ValueError,
            "smooth_value is -1; expected a positive finite number",
        ),
    ],
)
def test_what_is_wrong_is_named(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_they_are_public():
    assert fl.rewards.rouge_l is rewards.rouge_l
    assert {"rewards", "sequence_log_probs"} <= set(fl.__all__)
