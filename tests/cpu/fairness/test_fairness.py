"""Fairness losses against the definitions of fairlearn and fairret, by hand and by torch."""

import numpy as np
import pytest

import fastloss as fl

SURE = 40.0


def people(n=200, seed=0, groups=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, groups, n)


def rates(decided, group, chosen=True):
    """Selection rate of each group among the chosen, as fairlearn's MetricFrame has it, and that of all."""
    chosen = np.broadcast_to(chosen, decided.shape)
    each = [decided[(group == g) & chosen].mean() for g in np.unique(group)]
    return np.array(each), decided[chosen].mean()


@pytest.mark.parametrize("norm", ["squared", "absolute"])
def test_of_decisions_the_losses_are_the_gaps_of_rates(norm):
    scores, labels, group = people()
    decided = (scores > 0).astype(float)
    hard = np.where(scores > 0, SURE, -SURE)

    def size(chosen=True):
        each, overall = rates(decided, group, chosen)
        gaps = abs(each - overall)
        return (gaps**2 if norm == "squared" else gaps).mean()

    parity = fl.demographic_parity(hard, group=group, norm=norm)
    assert parity == pytest.approx(size(), rel=1e-12)
    assert fl.equal_opportunity(hard, labels, group=group, norm=norm) == pytest.approx(size(labels == 1), rel=1e-12)
    odds = (size(labels == 1) + size(labels == 0)) / 2
    assert fl.equalized_odds(hard, labels, group=group, norm=norm) == pytest.approx(odds, rel=1e-12)


@pytest.mark.oracle
def test_two_groups_of_decisions_against_fairlearn():
    metrics = pytest.importorskip("fairlearn.metrics")
    scores, labels, _ = people()
    group = np.repeat([0, 1], len(scores) // 2)
    decided, hard = scores > 0, np.where(scores > 0, SURE, -SURE)
    # Two groups of one size: each lies half of the difference away from the overall rate.
    difference = metrics.demographic_parity_difference(labels, decided, sensitive_features=group)
    assert fl.demographic_parity(hard, group=group, norm="absolute") == pytest.approx(difference / 2, rel=1e-12)


def test_gradients_against_torch():
    torch = pytest.importorskip("torch")
    scores, labels, group = people()
    s = torch.tensor(scores, requires_grad=True)
    chosen = torch.tensor(labels == 1)
    p = torch.sigmoid(s)
    # fairret's NormLoss of the statistic TPR, with squares and a mean over the groups.
    overall = p[chosen].mean()
    gaps = torch.stack([p[chosen & torch.tensor(group == g)].mean() - overall for g in range(4)])
    (gaps**2).mean().backward()
    grad = fl.equal_opportunity.value_and_grad(scores, labels, group)[1]
    np.testing.assert_allclose(grad, s.grad, rtol=1e-9, atol=1e-15)


def statistic(name, torch, p, t, w, beta=1.0):
    """A linear-fractional statistic of fairret: the ratio of sums of alpha + beta h."""
    if name == "predictive_parity":
        return (w * p * t).sum() / (w * p).sum()
    if name == "false_omission_parity":
        return (w * (t - p * t)).sum() / (w * (1 - p)).sum()
    return ((1 + beta**2) * w * p * t).sum() / (w * (beta**2 * t + p)).sum()


@pytest.mark.parametrize("norm", ["squared", "absolute"])
@pytest.mark.parametrize("name", ["predictive_parity", "false_omission_parity", "f_score_parity"])
def test_linear_fractional_statistics_against_torch(name, norm):
    torch = pytest.importorskip("torch")
    scores, labels, group = people()
    weight = np.random.default_rng(1).integers(0, 3, len(scores)) / 2.0
    s, t, w = torch.tensor(scores, requires_grad=True), torch.tensor(labels).double(), torch.tensor(weight)
    more = {"beta": 0.5} if name == "f_score_parity" else {}
    p = torch.sigmoid(s)
    overall = statistic(name, torch, p, t, w, **more)
    members = [torch.tensor(group == g) for g in range(4)]
    gaps = torch.stack([statistic(name, torch, p[m], t[m], w[m], **more) - overall for m in members])
    expected = (gaps**2 if norm == "squared" else gaps.abs()).mean()
    expected.backward()
    value, grad = fl.LOSSES[name].value_and_grad(scores, labels, group, weight, norm=norm, **more)
    assert value == pytest.approx(expected.item(), rel=1e-11)
    np.testing.assert_allclose(grad, s.grad, rtol=1e-9, atol=1e-14)


def test_of_decisions_they_are_the_gaps_of_precision_omission_and_f_score():
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels, group = people()
    decided, hard = (scores > 0).astype(int), np.where(scores > 0, SURE, -SURE)
    members = [np.ones(len(scores), bool), *(group == g for g in range(4))]
    wanted = {
        "predictive_parity": [metrics.precision_score(labels[m], decided[m]) for m in members],
        "false_omission_parity": [1 - metrics.precision_score(labels[m], decided[m], pos_label=0) for m in members],
        "f_score_parity": [metrics.f1_score(labels[m], decided[m]) for m in members],
    }
    for name, (overall, *each) in wanted.items():
        found = fl.LOSSES[name](hard, labels, group, norm="absolute")
        assert found == pytest.approx(np.abs(np.array(each) - overall).mean(), rel=1e-12)


def test_groups_of_one_kind_have_fractions_too():
    scores, labels, group = people()
    labels[group == 2] = 0
    value, grad = fl.predictive_parity.value_and_grad(scores, labels, group)
    # Its precision is 0 whatever the scores are; but through the overall precision, they still count.
    assert value > 0.0
    assert grad[group == 2].all()
    assert fl.f_score_parity(scores, labels, np.zeros(200, int)) == pytest.approx(0.0, abs=1e-30)


def test_covariance_is_that_of_zafar():
    scores, _, group = people(groups=2)
    expected = np.mean((group - group.mean()) * scores)
    assert fl.covariance_fairness(scores, group, norm="absolute") == pytest.approx(abs(expected), rel=1e-12)
    assert fl.covariance_fairness(scores, group) == pytest.approx(expected**2, rel=1e-12)


def test_mindiff_of_two_groups_is_the_discrepancy():
    scores, labels, group = people(groups=2)
    p = 1 / (1 + np.exp(-scores))
    a, b = (p[(labels == 0) & (group == g), None] for g in (0, 1))
    # fl.mmd has the same kernel.
    assert fl.mindiff(scores, labels, group, sigma=0.2) == pytest.approx(
        fl.mmd(a, b, sigma=0.2, unbiased=False), rel=1e-10
    )
    alone = fl.mindiff.value_and_grad(scores, labels, np.zeros(200, int))
    assert alone[0] == 0.0
    np.testing.assert_array_equal(alone[1], 0.0)


def test_a_bound_of_zero_averages_the_groups():
    scores, labels, group = people()
    each = [fl.bce_with_logits(scores[group == g], labels[group == g].astype(float)) for g in range(4)]
    assert fl.bounded_group_loss(scores, labels, group) == pytest.approx(np.mean(each), rel=1e-12)
    value, grad = fl.bounded_group_loss.value_and_grad(scores, labels, group, bound=max(each))
    assert value == 0.0
    np.testing.assert_array_equal(grad, 0.0)


def test_names_of_groups_do_not_matter():
    scores, labels, group = people()
    names = np.array([10**15, -7, 0, 5])
    one = fl.equalized_odds.value_and_grad(scores, labels, group)
    other = fl.equalized_odds.value_and_grad(scores, labels, names[group])
    assert one[0] == pytest.approx(other[0], rel=1e-12)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-12)


def test_intersections_are_groups_of_their_own():
    scores, _, group = people()
    columns = np.stack([group // 2, group % 2], axis=1)
    assert fl.demographic_parity(scores, columns) == pytest.approx(fl.demographic_parity(scores, group), rel=1e-14)
    assert fl.demographic_parity(scores, columns[:, :1]) == fl.demographic_parity(scores, columns[:, 0])


def test_missing_groups():
    scores, labels, group = people()
    labels[group == 2] = 0
    there = group != 2
    value, grad = fl.equal_opportunity.value_and_grad(scores, labels, group)
    kept, slope = fl.equal_opportunity.value_and_grad(scores[there], labels[there], group[there])
    assert value == pytest.approx(kept, rel=1e-14)
    np.testing.assert_allclose(grad[there], slope, rtol=1e-12)
    np.testing.assert_array_equal(grad[~there], 0.0)
    value, grad = fl.equal_opportunity.value_and_grad(scores, np.zeros_like(labels), group)
    assert value == 0.0
    np.testing.assert_array_equal(grad, 0.0)
    # Without positives, equalized odds compares the rates of the negatives alone.
    odds = fl.equalized_odds(scores, np.zeros_like(labels), group)
    assert odds == pytest.approx(fl.demographic_parity(scores, group), rel=1e-14)


def test_one_group_is_fair():
    scores, labels, _ = people()
    assert fl.demographic_parity(scores, np.zeros(200, int)) == pytest.approx(0.0, abs=1e-30)
    assert fl.equalized_odds(scores, labels, np.zeros(200, int)) == pytest.approx(0.0, abs=1e-30)


def test_samples_of_weight_zero_may_hold_anything():
    scores, labels, group = people()
    weight = np.ones(200)
    weight[:3], scores[:3] = 0.0, [np.nan, np.inf, -np.inf]
    value, grad = fl.equalized_odds.value_and_grad(scores, labels, group, weight)
    kept, slope = fl.equalized_odds.value_and_grad(scores[3:], labels[3:], group[3:])
    assert value == pytest.approx(kept, rel=1e-14)
    np.testing.assert_allclose(grad, [0.0, 0.0, 0.0, *slope], rtol=1e-12)
    scores[5] = np.nan
    value, grad = fl.equalized_odds.value_and_grad(scores, labels, group, weight)
    assert np.isnan(value)
    assert np.isnan(grad[5])


@pytest.mark.parametrize("groups", [3, 9000])
def test_many_samples_have_the_same_bits_on_any_number_of_threads(groups):
    scores, labels, group = people(200_000, groups=groups)
    scores = scores.astype(np.float32)
    threads = fl.get_num_threads()
    try:
        fl.set_num_threads(1)
        one = fl.equalized_odds.value_and_grad(scores, labels, group)
        fl.set_num_threads(2)
        two = fl.equalized_odds.value_and_grad(scores, labels, group)
    finally:
        fl.set_num_threads(threads)
    assert one[0] == two[0]
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fl.demographic_parity(np.ones(2), [0.0, 1.0]), "demographic_parity: group has dtype float64"),
        (lambda: fl.demographic_parity(np.ones(2), [0, 1, 1]), r"demographic_parity: group has shape \(3,\)"),
        (lambda: fl.demographic_parity(np.ones(2)), "demographic_parity needs group"),
        (lambda: fl.equal_opportunity(np.ones(2), [0, 2], [0, 1]), r"equal_opportunity: labels\[1\] is 2"),
        (lambda: fl.equal_opportunity(np.ones(2), 7, [0, 1], weight=0.5), "equal_opportunity: labels is 7"),
        (
            lambda: fl.equalized_odds(np.ones(2), [0, 1], [0, 1], norm="max"),
            "equalized_odds: norm is 'max'; allowed: 'squared', 'absolute'",
        ),
        (lambda: fl.bounded_group_loss(np.ones(1), [0], [0], bound=-1.0), "bounded_group_loss: bound is -1"),
        (
            lambda: fl.demographic_parity(np.ones(2), [0, 1], reduction=fl.risk.CVaR(0.5)),
            "demographic_parity has one value for all its inputs",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(fl.CallError, match=message):
        call()
