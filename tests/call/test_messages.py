"""Arguments of a wrong kind or range: one sentence each, with the value as it was given."""

import datetime
import re

import numpy as np
import pytest

import fastloss as fl
from fastloss.text import rewards

P, T = np.zeros(4), np.zeros(4)
Z, Y = np.zeros((2, 3)), np.array([0, 1])
L, W = np.zeros((1, 2, 5)), np.array([[1, 2]])
HALVES, COST = np.array([0.5, 0.5]), np.array([[0.0, 1.0], [1.0, 0.0]])
BIG = np.array([1, 2**64 - 1], np.uint64)

OUTSIDE = "allowed: whole numbers from"
LABEL = "ignore_index is 9223372036854775808; allowed: -2**63 to 2**63 - 1, or None"
EXACT = f"ignore_index is 9223372036854775808; {OUTSIDE} -2**53 to 2**53"

CASES = [
    (lambda: fl.cross_entropy.value_and_grad(Z, Y, details=2), "cross_entropy: details is 2; allowed: True or False"),
    (
        lambda: fl.cross_entropy.value_and_grad(Z, Y, details=10**400),
        f"cross_entropy: details is {10**400}; allowed: True or False",
    ),
    (
        lambda: fl.cross_entropy.value_and_grad(Z, Y, details=datetime.date(2026, 1, 2)),
        "cross_entropy: details is datetime.date(2026, 1, 2); allowed: True or False",
    ),
    (
        lambda: fl.cross_entropy.value_and_grad(Z, Y, details=np.ones((2, 2))),
        "cross_entropy: details is array([[1., 1.], [1., 1.]]); allowed: True or False",
    ),
    (lambda: fl.poisson(P, T, full=np.ones(2)), "poisson: full is array([1., 1.]); allowed: True or False"),
    (
        lambda: fl.ctc(np.zeros((2, 1, 3)), W, zero_infinity=np.ones(1)),
        "ctc: zero_infinity is array([1.]); allowed: True or False",
    ),
    (lambda: fl.cross_entropy(Z, Y, ignore_index=2**63), f"cross_entropy: {LABEL}"),
    (
        lambda: fl.cross_entropy(Z, Y, ignore_index=-(2**63) - 1),
        LABEL.replace("9223372036854775808;", "-9223372036854775809;"),
    ),
    (lambda: fl.sequence_log_probs(L, W, ignore_index=2**63), f"sequence_log_probs: {LABEL}"),
    (lambda: fl.sequence_cross_entropy(L, W, ignore_index=2**63), f"sequence_cross_entropy: {EXACT}"),
    (lambda: fl.linear_cross_entropy(Z, np.eye(3), Y, ignore_index=2**63), f"linear_cross_entropy: {EXACT}"),
    (lambda: fl.dice(np.zeros((1, 2, 4)), np.zeros((1, 4), int), ignore_index=2**63), f"dice: {EXACT}"),
    (
        lambda: fl.sinkhorn(HALVES, HALVES, COST, max_iterations=2**63),
        f"sinkhorn: max_iterations is 9223372036854775808; {OUTSIDE} 1 to 1000000",
    ),
    (
        lambda: fl.sinkhorn(HALVES, HALVES, COST, epsilon=1e-320),
        "sinkhorn: epsilon is 1e-320; expected at least 2.22507e-308",
    ),
    (lambda: fl.huber(P, T, delta="2"), "huber: delta is '2'; expected a number"),
    (lambda: fl.huber(P, T, delta=b"2"), "huber: delta is b'2'; expected a number"),
    (lambda: fl.huber(P, T, delta=np.array("2")), "huber: delta is array('2', dtype='<U1'); expected a number"),
    (lambda: fl.quantile(P, T, q=["0.5"] * 4), "quantile: q is '0.5'; expected a number"),
    (lambda: fl.quantile(P, T, q=[[0.1, 0.2], [0.1]]), "quantile: q is [0.1, 0.2]; expected a number"),
    (lambda: fl.mse(P, T, divisor=b"2"), "divisor is b'2'; expected a positive finite number"),
    (lambda: fl.mse(P, T, divisor="2"), "divisor is '2'; expected a positive finite number"),
    (
        lambda: fl.ranknet(P, T, offsets=[]),
        "ranknet: offsets is empty; expected 0 first and 4, the number of rows, last",
    ),
    (lambda: fl.mmd(Z, Z, bandwidths=[]), "mmd: bandwidths is empty; expected at least one number, or None"),
    (
        lambda: fl.cross_entropy(Z, Y, class_weight=[1, np.inf, 1]),
        "cross_entropy: class_weight[1] is inf; allowed: [0, inf)",
    ),
    (
        lambda: fl.cross_entropy(Z.astype("f"), Y, class_weight=[1, 1e300, 1]),
        "cross_entropy: class_weight[1] is inf in float32; allowed: [0, inf)",
    ),
    (
        lambda: fl.dice(np.zeros((1, 2, 4)), np.zeros((1, 4), int), class_weight=[1, np.inf]),
        "dice: class_weight[1] is inf; allowed: [0, inf)",
    ),
    *(
        (lambda f=f: f(P, np.array([0, 1, np.inf, 2])), f"{f.name}: relevance[2] is inf; allowed: (-inf, inf)")
        for f in (fl.ranknet, fl.listnet, fl.list_mle)
    ),
    (
        lambda: fl.softmax_ranking(P, np.array([0, 1, np.inf, 2])),
        "softmax_ranking: relevance[2] is inf; allowed: [0, inf)",
    ),
    (
        lambda: rewards.rouge_l("the cat", "the cat"),
        "rouge_l: candidates is a string; expected integer tokens, the number of each word",
    ),
    (
        lambda: rewards.bleu_sentence([[1, 2]], ["the cat"]),
        "bleu_sentence: references[0] is a string; expected integer tokens, the number of each word",
    ),
    (
        lambda: rewards.rouge_n([["the", "cat"]], [[1]]),
        "rouge_n: candidates[0] holds strings; expected integer tokens, the number of each word",
    ),
    (lambda: fl.soft_f1(np.array([0.5, 2.0]), np.ones(2)), "soft_f1: prediction[1] is 2; allowed: [0, 1]"),
    (
        lambda: fl.gaussian_nll(P, T, P + 1.0),
        "gaussian_nll takes ((mean, var), target), the predictions as a tuple or by name; 3 arrays given",
    ),
    (lambda: fl.mse(P, T, P), "mse takes (prediction, target); 3 arrays given, pass weights as weight="),
    (
        lambda: fl.margin_ranking(P, P, T, P),
        "margin_ranking takes ((x1, x2), target), the predictions as a tuple or by name; 4 arrays given",
    ),
]


@pytest.mark.jit
@pytest.mark.parametrize(("call", "text"), CASES, ids=[re.sub(r"\W+", "-", text)[:60] for _, text in CASES])
def test_one_sentence(call, text):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    said = str(caught.value)
    assert text in said
    assert "\n" not in said
    assert len(said) < 500


UNSIGNED = [
    (lambda: fl.linear_cross_entropy(Z, np.eye(3), BIG), "labels[1]", "0 to 2, or -100 (ignore_index)"),
    (lambda: fl.sequence_cross_entropy(L, BIG[None]), "labels[0, 1]", "0 to 4, or -100 (ignore_index)"),
    (lambda: fl.perplexity(Z, BIG), "labels[1]", "0 to 2, or -100 (ignore_index)"),
    (lambda: fl.sequence_log_probs(L, BIG[None]), "labels[0, 1]", "0 to 4, or -100 (ignore_index)"),
    (lambda: fl.ctc(np.zeros((4, 1, 3)), BIG[None]), "targets[0, 1]", "0 to 2, but not 0, which is the blank"),
    (lambda: fl.dice(np.zeros((1, 3, 2)), BIG[None]), "target[0, 1]", "0 to 2, or -100 (ignore_index)"),
    (lambda: fl.cross_entropy(Z, BIG, ignore_index=3), "target[1]", "0 to 2, or 3 (ignore_index)"),
]


@pytest.mark.jit
@pytest.mark.parametrize(("call", "where", "allowed"), UNSIGNED, ids=range(len(UNSIGNED)))
def test_an_unsigned_label_is_quoted_as_it_is(call, where, allowed):
    with pytest.raises(ValueError, match=re.escape(f"{where} is 18446744073709551615; allowed: {allowed}")):
        call()


@pytest.mark.jit
def test_an_unsigned_label_never_becomes_one_to_ignore():
    labels = np.array([[1, 2**64 - 100]], np.uint64)
    for loss in (fl.sequence_cross_entropy, fl.sequence_log_probs):
        with pytest.raises(ValueError, match=r"labels\[0, 1\] is 18446744073709551516; allowed"):
            loss(L, labels)


@pytest.mark.jit
def test_lengths_are_never_ignored():
    logits, labels = np.zeros((1, 4, 5)), [[3, 4, 2, 2]]
    assert fl.sequence_cross_entropy(logits, labels, [2], ignore_index=2) == pytest.approx(np.log(5), rel=1e-15)
    for lengths, value in (([-100], -100), ([5], 5)):
        with pytest.raises(ValueError, match=rf"lengths\[0\] is {value}; allowed: 0 to 4$"):
            fl.sequence_cross_entropy(logits, labels, lengths)
        with pytest.raises(ValueError, match=rf"lengths\[0\] is {value}; allowed: 0 to 4$"):
            fl.sequence_log_probs(logits, labels, lengths)
    # A label to ignore that is also a word, a length and a flag of the mask.
    value = fl.sequence_cross_entropy(logits, [[1, 1, 3, 4]], [1], mask=[[1, 1, 1, 1]], ignore_index=1)
    assert value == 0.0


@pytest.mark.jit
def test_arrays_in_the_order_of_torch():
    rng = np.random.default_rng(0)
    x1, x2, t = rng.standard_normal(9), rng.standard_normal(9), rng.choice([-1.0, 1.0], 9)
    assert fl.margin_ranking(x1, x2, t, margin=0.5) == fl.margin_ranking((x1, x2), t, margin=0.5)
    for way in ("value_and_grad", "grad_and_hess"):
        ours, theirs = getattr(fl.margin_ranking, way)(x1, x2, t), getattr(fl.margin_ranking, way)((x1, x2), t)
        np.testing.assert_equal(ours, theirs)
    near, far = np.abs(x1), np.abs(x2)
    assert fl.triplet_distance(near, far) == fl.triplet_distance((near, far))
    np.testing.assert_equal(
        fl.triplet_distance.value_and_grad(near, far), fl.triplet_distance.value_and_grad((near, far))
    )
