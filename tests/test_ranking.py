"""Losses of ranking: other definitions of the same, NDCG by scikit-learn, ends of the range, groups of nothing."""

import math
from itertools import pairwise

import mpmath as mp
import numpy as np
import pytest

import fastloss as fl

PAIRWISE = ["pairwise_logistic", "ranknet", "lambda_rank"]
GRADED = PAIRWISE


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def graded(rng, n, grades=5):
    """Scores off ties, whole grades."""
    return rng.permutation(n) / 7.0, rng.integers(0, grades, n).astype(float)


# Pairs ---------------------------------------------------------------------------------------------------------------


def test_lambdas_of_the_report(rng):
    # Burges (2010), equation 6 and section 4, pair by pair; NDCG before and after each swap by its definition.
    scores, relevance = graded(rng, 9)
    sigma, k = 1.5, 4

    def ndcg(order):
        dcg = sum((2 ** relevance[i] - 1) / math.log2(2 + p) for p, i in enumerate(order[:k]))
        best = sum((2**r - 1) / math.log2(2 + p) for p, r in enumerate(sorted(relevance, reverse=True)[:k]))
        return dcg / best

    order = sorted(range(9), key=lambda i: -scores[i])
    lambdas, total = np.zeros(9), 0.0
    for i in range(9):
        for j in range(9):
            if relevance[i] > relevance[j]:
                swapped = [{i: j, j: i}.get(q, q) for q in order]
                change = abs(ndcg(swapped) - ndcg(order))
                pull = -sigma / (1 + math.exp(sigma * (scores[i] - scores[j]))) * change
                lambdas[i] += pull
                lambdas[j] -= pull
                total += change * math.log1p(math.exp(-sigma * (scores[i] - scores[j])))
    value, grad = fl.lambda_rank.value_and_grad(scores, relevance, sigma=sigma, k=k)
    assert value == pytest.approx(total, rel=1e-13)
    np.testing.assert_allclose(grad, lambdas, rtol=1e-12, atol=1e-15)


def test_weights_are_changes_of_scikit_learns_ndcg(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the peers extra")
    scores, relevance = graded(rng, 7)
    # A pair alone has a value of its weight times log 2 where the scores are nearly equal: take the sum of them all.
    tiny = 1e-9 * scores
    expected = 0.0
    for i in range(7):
        for j in range(7):
            if relevance[i] > relevance[j]:
                swapped = scores.copy()
                swapped[[i, j]] = scores[[j, i]]
                change = metrics.ndcg_score([relevance], [swapped]) - metrics.ndcg_score([relevance], [scores])
                expected += abs(change) * math.log(2)
    assert fl.lambda_rank(tiny, relevance, gain="linear") == pytest.approx(expected, rel=1e-8)


def test_ranknet_of_two_and_of_a_tie():
    # Burges (2005): C = -P o + log(1 + e^o).
    for relevance, p in (([1.0, 0.0], 1.0), ([0.0, 1.0], 0.0), ([2.0, 2.0], 0.5)):
        value, grad = fl.ranknet.value_and_grad(np.array([0.3, -0.4]), np.array(relevance))
        assert value == pytest.approx(-p * 0.7 + math.log1p(math.exp(0.7)), rel=1e-14)
        slope = 1 / (1 + math.exp(-0.7)) - p
        np.testing.assert_allclose(grad, [slope, -slope], rtol=1e-14)


def test_without_ties_ranknet_is_pairwise_logistic(rng):
    scores, relevance = rng.normal(size=12), rng.permutation(12).astype(float)
    a, b = (loss.value_and_grad(scores, relevance, sigma=1.7) for loss in (fl.ranknet, fl.pairwise_logistic))
    assert a[0] == pytest.approx(b[0], rel=1e-15)
    np.testing.assert_allclose(a[1], b[1], rtol=1e-13)


def test_sum_over_pairs_and_divisor_average_over_the_batch(rng):
    # As TensorFlow Ranking does: each pair of the batch counts the same.
    scores, relevance = graded(rng, 30)
    offsets = [0, 4, 20, 30]
    pairs = [
        (i, j) for a, b in pairwise(offsets) for i in range(a, b) for j in range(a, b) if relevance[i] > relevance[j]
    ]
    expected = np.mean([np.logaddexp(0, scores[j] - scores[i]) for i, j in pairs])
    value = fl.pairwise_logistic(scores, relevance, offsets, pairs="sum", reduction="sum", divisor=len(pairs))
    assert value == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1e4, 700.0, 40.0, 1e-8, -1e-8, -40.0, -700.0, -1e4])
def test_far_scores_in_fifty_digits(d, dtype):
    scores = np.array([d, 0.0], dtype)
    value, grad = fl.pairwise_logistic.value_and_grad(scores, np.array([1.0, 0.0], dtype))
    with mp.workdps(50):
        exact = mp.mpf(float(scores[0]))
        expected, slope = float(mp.log1p(mp.exp(-exact))), float(-1 / (1 + mp.exp(exact)))
    tiny = float(np.finfo(dtype).tiny)
    eps = float(np.finfo(dtype).eps)
    assert abs(value - expected) <= 4 * eps * expected + tiny
    assert abs(grad[0] - slope) <= 4 * eps * abs(slope) + tiny
    assert grad[1] == -grad[0]


@pytest.mark.parametrize("name", PAIRWISE)
def test_infinite_scores(name):
    loss, relevance = fl.LOSSES[name], np.array([2.0, 1.0, 0.0])
    value, grad = loss.value_and_grad(np.array([np.inf, 0.5, -np.inf]), relevance)
    assert value < 1.0
    assert np.isfinite(grad).all()
    value, grad = loss.value_and_grad(np.array([-np.inf, 0.5, np.inf]), relevance)
    assert value == np.inf
    assert np.isfinite(grad).all()


def test_a_pair_below_the_positions_that_count_has_no_loss():
    scores = np.array([3.0, 0.0, -np.inf])
    value, grad = fl.lambda_rank.value_and_grad(scores, np.array([3.0, 0.0, 1.0]), k=1)
    # Items 2 and 3 are in the wrong order, infinitely far apart, but no swap of theirs changes NDCG@1.
    assert value == pytest.approx(math.log1p(math.exp(-3.0)))
    assert grad[2] == 0.0


def test_equal_scores_rank_in_their_order():
    # Of two equal scores the first ranks first: its swap with the third costs more.
    _, grad = fl.lambda_rank.value_and_grad(np.zeros(3), np.array([0.0, 0.0, 1.0]))
    swap = [0.5 * (1 - 1 / 2), 0.5 * (1 / math.log2(3) - 1 / 2)]
    np.testing.assert_allclose(grad, [*swap, -sum(swap)], rtol=1e-14)
    relevance = np.tile([0.0, 0.0, 1.0, 3.0], 50)
    tied, falling = (fl.lambda_rank.value_and_grad(s, relevance)[1] for s in (np.zeros(200), -1e-13 * np.arange(200)))
    np.testing.assert_allclose(tied, falling, rtol=1e-9)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_a_large_group_follow_those_of_a_small_one(name, dtype, rng, monkeypatch):
    scores, relevance = rng.normal(size=150).astype(dtype), rng.integers(0, 4, 150).astype(dtype)
    offsets, loss = np.array([0, 3, 130, 150]), fl.LOSSES[name]
    value, grad = loss.value_and_grad(scores, relevance, offsets)
    monkeypatch.setattr("fastloss.kernels.ranking.LARGE", 10)
    monkeypatch.setattr("fastloss.dispatch.PARALLEL_FROM", 1)
    many = loss.value_and_grad(scores, relevance, offsets)
    assert many[0] == pytest.approx(value, rel=1e-14)
    np.testing.assert_array_equal(many[1], grad)


# Groups --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRADED)
def test_groups_with_nothing_to_rank_count_for_nothing(name):
    loss = fl.LOSSES[name]
    scores, relevance = np.array([0.4, -1.0, 0.3, 2.0]), np.array([1.0, 0.0, 2.0, 1.0])
    expected, slopes = loss.value_and_grad(scores, relevance)
    lonely = np.r_[5.0, scores], np.r_[3.0, relevance], np.array([0, 0, 1, 5, 5])
    value, grad = loss.value_and_grad(*lonely)
    assert value == expected
    np.testing.assert_array_equal(grad, np.r_[0.0, slopes])
    np.testing.assert_array_equal(loss(*lonely, reduction="none"), [0.0, 0.0, expected, 0.0])
    value, grad = loss.value_and_grad(scores[:1], relevance[:1])
    assert value == 0.0
    assert not grad.any()
    weighted = loss.value_and_grad(*lonely, weight=np.array([1.0, 7.0, 2.0, 1.0]))
    assert weighted[0] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("name", GRADED)
def test_a_group_of_weight_zero_is_left_out_whatever_it_holds(name):
    loss, offsets = fl.LOSSES[name], np.array([0, 3, 6])
    scores, relevance = np.array([0.4, -1.0, 0.3, 2.0, 1.0, np.nan]), np.array([1.0, 0.0, 2.0, 1.0, 0.0, 2.0])
    expected, slopes = loss.value_and_grad(scores[:3], relevance[:3])
    value, grad = loss.value_and_grad(scores, relevance, offsets, weight=np.array([1.0, 0.0]))
    assert value == expected
    np.testing.assert_array_equal(grad, np.r_[slopes, np.zeros(3)])
    assert np.isnan(loss(scores, relevance, offsets))


@pytest.mark.parametrize("name", GRADED)
def test_what_is_not_a_number_comes_through(name):
    loss, clean = fl.LOSSES[name], np.array([0.4, -1.0, 0.3])
    for scores, relevance in ((np.array([0.4, np.nan, 0.3]), np.arange(3.0)), (clean, np.array([1.0, np.nan, 0.0]))):
        value, grad = loss.value_and_grad(scores, relevance)
        assert np.isnan(value)
        assert np.isnan(grad).all()


@pytest.mark.parametrize("name", GRADED)
def test_offsets_must_divide_the_items(name):
    loss, scores = fl.LOSSES[name], np.zeros(5)
    for offsets, message in (
        ([1, 5], "begin with"),
        ([0, 4], r"end with 4; expected 5, the number of rows"),
        ([0, 4, 2, 5], r"offsets\[2\] is 2, below offsets\[1\] = 4"),
        ([0.0, 5.0], "offsets has dtype float64; expected integers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            loss(scores, scores, np.array(offsets))


def test_whole_grades_are_taken_and_senseless_ones_refused():
    scores = np.array([0.4, -1.0, 0.3])
    assert fl.lambda_rank(scores, np.array([1, 0, 2])) == fl.lambda_rank(scores, np.array([1.0, 0.0, 2.0]))
    with pytest.raises(ValueError, match=r"lambda_rank: relevance\[1\] is -1; allowed"):
        fl.lambda_rank(scores, np.array([1.0, -1.0, 2.0]))
    with pytest.raises(ValueError, match="k is 0"):
        fl.lambda_rank(scores, np.array([1.0, 0.0, 2.0]), k=0)


@pytest.mark.jit
def test_sorting_follows_numpy(rng):
    # By insertion, by digits, with ties, zeros of both signs and infinities: a stable order of falling value.
    for n in (0, 1, 5, 96, 97, 3000):
        for x in (
            rng.normal(size=n),
            rng.integers(-3, 3, n).astype(np.float32),
            rng.choice([0.0, -0.0, np.inf, -np.inf, 1e-310, -1e300], n),
        ):
            relevance = np.arange(float(n))
            np.testing.assert_array_equal(order_of(x, relevance), np.argsort(-x, kind="stable"))


def probe(lo, hi, x, order):
    n = x.size
    other = np.empty((3, n), np.int64)
    sort_items(x, order, other[0], other[1], other[2], np.empty(8 * 256, np.int64))


sort_items = None


def order_of(x, relevance):
    from fastloss.kernels.blocks import kernel
    from fastloss.kernels.groups import sorting

    order = np.empty(x.size, np.int64)
    kernel(probe, "probe", x.dtype.name, None, (), sorting())(1, 1, x, order)
    return order
