"""Losses of ranking: other definitions of the same, NDCG by scikit-learn, ends of the range, groups of nothing."""

import math
from itertools import pairwise, permutations

import mpmath as mp
import numpy as np
import pytest

import fastloss as fl
from fastloss import reference

PAIRWISE = ["pairwise_logistic", "ranknet", "lambda_rank"]
GRADED = [*PAIRWISE, "approx_ndcg", "listnet", "softmax_ranking", "list_mle"]


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


@pytest.mark.parametrize(("name", "dtype"), [("ranknet", np.float32), ("lambda_rank", np.float64)])
def test_rows_of_a_large_group_follow_those_of_a_small_one(name, dtype, rng, monkeypatch):
    scores, relevance = rng.normal(size=150).astype(dtype), rng.integers(0, 4, 150).astype(dtype)
    offsets, loss = np.array([0, 3, 130, 150]), fl.LOSSES[name]
    value, grad = loss.value_and_grad(scores, relevance, offsets)
    monkeypatch.setattr("fastloss.cpu.ranking.pairs.LARGE", 10)
    monkeypatch.setattr("fastloss.cpu.dispatch.PARALLEL_FROM", 1)
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


# Lists ---------------------------------------------------------------------------------------------------------------


def test_approx_ndcg_of_ranks_set_apart_is_ndcg(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the peers extra")
    scores, relevance = graded(rng, 40)
    value, grad = fl.approx_ndcg.value_and_grad(scores, relevance, temperature=1e-3, gain="linear")
    assert value == pytest.approx(1 - metrics.ndcg_score([relevance], [scores]), abs=1e-13)
    assert np.abs(grad).max() < 1e-30
    value = fl.approx_ndcg(scores, relevance, temperature=1e-3)
    assert value == pytest.approx(1 - metrics.ndcg_score([2**relevance - 1], [scores]), abs=1e-13)


def test_listwise_losses_against_torch(rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    scores, relevance = graded(rng, 11)
    order = np.argsort(-relevance, kind="stable")

    def list_mle(s):
        s = s[order]
        return (torch.logcumsumexp(s.flip(0), 0).flip(0) - s).sum()

    r = torch.from_numpy(relevance)
    for loss, of_torch in (
        (fl.listnet, lambda s: -(r.softmax(0) * s.log_softmax(0)).sum()),
        (fl.softmax_ranking, lambda s: -(r / r.sum() * s.log_softmax(0)).sum()),
        (fl.list_mle, list_mle),
    ):
        s = torch.tensor(scores, requires_grad=True)
        expected = of_torch(s)
        expected.backward()
        value, grad = loss.value_and_grad(scores, relevance)
        assert value == pytest.approx(expected.item(), rel=1e-13)
        np.testing.assert_allclose(grad, s.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_chances_of_all_orders_sum_to_one(rng):
    scores = rng.normal(size=5)
    chances = [math.exp(-fl.list_mle(scores, np.array(order, float))) for order in permutations(range(5))]
    assert sum(chances) == pytest.approx(1.0, rel=1e-14)


def test_equal_relevance_keeps_its_order_in_list_mle():
    scores = np.array([0.3, -1.0, 2.0])
    expected = fl.list_mle.value_and_grad(scores, np.array([3.0, 2.0, 1.0]))
    value, grad = fl.list_mle.value_and_grad(scores, np.ones(3))
    assert value == expected[0]
    np.testing.assert_array_equal(grad, expected[1])


@pytest.mark.parametrize("n", [2, 95, 96, 97, 2000])
def test_groups_of_all_sizes_are_ordered_stably(n, rng):
    # A few by insertion, many by digits: the value shows the order.
    scores = rng.normal(size=n)
    for relevance in (
        rng.normal(0, 1e3, n),
        rng.integers(-3, 3, n),
        rng.choice([0.0, -0.0, 1e308, -1e308, 1e-310], n),
    ):
        relevance = relevance.astype(float)
        expected = reference.list_mle(scores, relevance)[0]
        assert fl.list_mle(scores, relevance) == pytest.approx(expected, rel=1e-13)
        other = reference.list_mle(scores, relevance[::-1])[0]
        assert abs(other - expected) > 1e-6 * expected or n == 2


def test_one_relevant_item_is_cross_entropy(rng):
    scores = rng.normal(size=(6, 20))
    labels = rng.integers(0, 20, 6)
    offsets = 20 * np.arange(7)
    value, grad = fl.softmax_ranking.value_and_grad(scores.reshape(-1), np.eye(20)[labels].reshape(-1), offsets)
    expected, slopes = fl.cross_entropy.value_and_grad(scores, labels)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(grad.reshape(6, 20), slopes, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("spread", [40.0, 700.0, 1e4])
def test_lists_set_far_apart_in_fifty_digits(spread):
    relevance = np.array([2.0, 0.0, 1.0, 0.0, 3.0])
    for scores in (spread * np.array([0.5, -1, 0, -0.7, 1.0]), spread * np.array([-0.5, 1, 0.3, 0.7, -1.0])):
        with mp.workdps(50):
            s, r = ([mp.mpf(float(x)) for x in a] for a in (scores, relevance))
            log_softmax = [x - mp.log(sum(map(mp.exp, s))) for x in s]
            p = [mp.exp(x) / sum(map(mp.exp, r)) for x in r]
            ranked = [s[i] for i in np.argsort(-relevance, kind="stable")]
            expected = {
                "listnet": -sum(a * b for a, b in zip(p, log_softmax, strict=True)),
                "softmax_ranking": -sum(a * b for a, b in zip(r, log_softmax, strict=True)) / sum(r),
                "list_mle": sum(mp.log(sum(map(mp.exp, ranked[i:]))) - ranked[i] for i in range(5)),
            }
            slopes = {
                "listnet": [mp.exp(b) - a for a, b in zip(p, log_softmax, strict=True)],
                "softmax_ranking": [mp.exp(b) - a / sum(r) for a, b in zip(r, log_softmax, strict=True)],
            }
        for name, exact in expected.items():
            value, grad = fl.LOSSES[name].value_and_grad(scores, relevance)
            assert value == pytest.approx(float(exact), rel=1e-14, abs=1e-300)
            assert np.isfinite(grad).all()
            if name in slopes:
                np.testing.assert_allclose(grad, np.array(slopes[name], float), rtol=1e-13, atol=1e-300)


def test_a_right_order_has_a_small_loss_with_all_its_digits():
    scores, relevance = np.array([60.0, 0.0]), np.array([1.0, 0.0])
    exact = math.exp(-60)
    for loss in (fl.softmax_ranking, fl.list_mle):
        value, grad = loss.value_and_grad(scores, relevance)
        assert value == pytest.approx(exact, rel=1e-14)
        np.testing.assert_allclose(grad, [-exact, exact], rtol=1e-14)


# Area under the curve ------------------------------------------------------------------------------------------------


def all_pairs(scores, labels, weight, margin):
    """The loss and its gradient from all pairs at once."""
    scores = scores.astype(np.float64)
    w = np.where(labels[:, None] > labels, np.outer(weight, weight), 0)
    w /= w.sum()
    short = np.maximum(margin - (scores[:, None] - scores), 0)
    slope = 2 * w * short
    return (w * short**2).sum(), slope.sum(axis=0) - slope.sum(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("centre", "spread", "margin"),
    [(0, 1, 1), (1e5, 1, 1), (-1e8, 2, 1), (0, 1e4, 1), (0, 1e-6, 1), (3, 5, 0), (0, 1, 1e4), (1e6, 1e-3, 1e-3)],
)
def test_sorted_sums_are_those_of_all_pairs(centre, spread, margin, dtype, rng):
    scores = (centre + spread * rng.normal(size=500)).astype(dtype)
    labels = rng.integers(0, 2, 500)
    for weight in (None, rng.uniform(0, 2, 500) * rng.integers(0, 2, 500)):
        expected, slopes = all_pairs(scores, labels, np.ones(500) if weight is None else weight, margin)
        value, grad = fl.auc_pairwise.value_and_grad(scores, labels, sample_weight=weight, margin=margin)
        assert value == pytest.approx(expected, rel=1e-12)
        tolerance = 1e-11 if dtype == np.float64 else 2e-7
        np.testing.assert_allclose(grad, slopes, rtol=tolerance, atol=1e-13 * np.abs(slopes).max())


def test_ties_and_points_at_the_margin(rng):
    scores, labels = rng.integers(-2, 3, 60).astype(float), rng.integers(0, 2, 60)
    expected, slopes = all_pairs(scores, labels, np.ones(60), 1.0)
    value, grad = fl.auc_pairwise.value_and_grad(scores, labels)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(grad, slopes, rtol=1e-13, atol=1e-17)


def test_auc_of_one_kind_of_nothing_and_of_infinities():
    for labels in (np.ones(3, int), np.zeros(3, bool)):
        value, grad = fl.auc_pairwise.value_and_grad(np.array([0.1, np.nan, 2.0]), labels)
        assert value == 0.0
        assert not grad.any()
    assert fl.auc_pairwise(np.array([np.inf, 0.0, -np.inf]), np.array([1, 1, 0])) == 0.0
    value, grad = fl.auc_pairwise.value_and_grad(np.array([-np.inf, 0.0, 1.0]), np.array([1, 0, 0]))
    assert value == np.inf
    assert grad[0] == -np.inf
    for x in ([np.nan, 1.0, 0.0], [1.0, 0.0, -np.nan]):
        value, grad = fl.auc_pairwise.value_and_grad(np.array(x), np.array([1, 0, 0]))
        assert np.isnan(value)
        assert np.isnan(grad).all()


def test_auc_refuses_labels_that_are_none():
    for labels in (np.array([0, 1, 2]), np.array([0.0, 1.0, -1.0])):
        with pytest.raises(ValueError, match=r"auc_pairwise: labels\[2\] is (2|-1.0); allowed: 0 or 1"):
            fl.auc_pairwise(np.zeros(3), labels)
    with pytest.raises(ValueError, match=r"sample_weight\[1\] is -1; allowed"):
        fl.auc_pairwise(np.zeros(2), np.array([0, 1]), sample_weight=np.array([1.0, -1.0]))


# F1 ------------------------------------------------------------------------------------------------------------------


def test_soft_f1_of_decisions_is_the_f1_of_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the peers extra")
    decided, target = rng.integers(0, 2, (2, 50, 4))
    value = fl.soft_f1(decided.astype(float), target.astype(float))
    assert value == pytest.approx(1 - metrics.f1_score(target, decided, average="macro"), rel=1e-14)
    each = fl.soft_f1(decided.astype(float), target.astype(float), reduction="none")
    np.testing.assert_allclose(each, 1 - metrics.f1_score(target, decided, average=None), rtol=1e-14)
    alone = fl.soft_f1(decided[:, 0].astype(float), target[:, 0].astype(float))
    assert alone == pytest.approx(each[0], rel=1e-15)


@pytest.mark.parametrize("shape", [(3,), (1000, 1), (700, 3), (5, 130), (300, 2, 7), (100_000,)])
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_soft_f1_of_any_shape_counts_products(shape, activation, rng):
    target = rng.integers(0, 2, shape).astype(float)
    z = rng.normal(size=shape)
    p = 1 / (1 + np.exp(-z))
    twice, both = 2 * (p * target).sum(axis=0), (p + target).sum(axis=0)
    classes = max(1, twice.size)
    value, grad = fl.soft_f1.value_and_grad(p if activation is None else z, target, activation=activation)
    assert value == pytest.approx((1 - twice / both).mean(), rel=1e-12)
    slopes = (twice / both**2 - 2 * target / both) / classes * (1 if activation is None else p * (1 - p))
    np.testing.assert_allclose(grad, slopes, rtol=1e-11, atol=1e-18)


def test_soft_f1_keeps_its_digits_where_all_is_right():
    z, target = np.array([60.0, -60.0]), np.array([1.0, 0.0])
    e = math.exp(-60)
    value, grad = fl.soft_f1.value_and_grad(z, target, activation="sigmoid")
    assert value == pytest.approx(e, rel=1e-13)
    np.testing.assert_allclose(grad, [-e / 2, e / 2], rtol=1e-13)
    soft = np.array([0.25, 0.5])
    assert fl.soft_f1(soft, soft) == 0.0


def test_a_class_of_nothing_does_not_count():
    prediction, target = np.array([[0.0, 0.5], [0.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    value, grad = fl.soft_f1.value_and_grad(prediction, target)
    assert value == fl.soft_f1(prediction[:, 1], target[:, 1])
    assert not grad[:, 0].any()
    prediction[0, 0] = np.nan
    value, grad = fl.soft_f1.value_and_grad(prediction, target, weight=np.array([0.0, 1.0]))
    assert value == fl.soft_f1(prediction[:, 1], target[:, 1])
    assert not grad[:, 0].any()
    assert np.isnan(fl.soft_f1(prediction, target))
    with pytest.raises(ValueError, match=r"soft_f1: prediction\[0, 1\] is 1.5; allowed: \[0, 1\]"):
        fl.soft_f1(np.array([[0.5, 1.5]]), np.ones((1, 2)))
