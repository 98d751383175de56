"""Row-wise losses of a user's own, beside the built-in ones of the same formula."""

import pickle

import numpy as np
import pytest

import fastloss as fl

RANDOM = np.random.default_rng(0)
LOGITS = 2.0 * RANDOM.standard_normal((60, 7))
LABELS = RANDOM.integers(0, 7, 60)
SHARES = RANDOM.dirichlet(np.ones(7), 60)


@fl.row_loss()
def entropy(lp, t):
    """Cross-entropy."""
    return -t * lp


@fl.row_loss()
def focal(lp, t, gamma=2.0):
    """Focal loss."""
    return -t * (1 - np.exp(lp)) ** gamma * lp


@fl.row_loss(loop="log_probs", name="likelihood")
def negative(lp, t):
    """Negative log-likelihood."""
    return -t * lp


@fl.row_loss(loop="margin")
def hinges(u, margin=1.0):
    """Multiclass hinge."""
    return np.maximum(0, margin + u)


@fl.row_loss(loop="top_margin")
def top_hinge(u, margin=1.0):
    """Hinge over the strongest wrong class."""
    return np.maximum(0, margin + u)


PAIRS = [
    (entropy, fl.cross_entropy),
    (focal, fl.softmax_focal),
    (negative, fl.nll),
    (hinges, fl.multi_margin),
    (top_hinge, fl.crammer_singer),
]
each_pair = pytest.mark.parametrize(("own", "built_in"), PAIRS, ids=lambda x: x.name)


def scores(own):
    """Logits, or their log-probabilities."""
    return LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True)) if own.record.loop == "log_probs" else LOGITS


@each_pair
def test_labels_weights_and_padding(own, built_in):
    z, labels = scores(own), np.where(np.arange(60) % 9 == 0, -100, LABELS)
    for options in ({}, {"class_weight": np.arange(1.0, 8.0)}, {"weight": np.abs(LOGITS[:, 0]), "reduction": "sum"}):
        value, grad = own.value_and_grad(z, labels, **options)
        expected, slope = built_in.value_and_grad(z, labels, **options)
        assert value == pytest.approx(expected, rel=1e-13)
        np.testing.assert_allclose(grad, slope, rtol=1e-11, atol=1e-15)
    assert (own.record.surrogate is None) == (built_in.record.surrogate is None)
    for curvature in ("exact", "surrogate") if own.record.surrogate else ("exact",):
        found, expected = (f.grad_and_hess(z, labels, curvature=curvature) for f in (own, built_in))
        for got, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("own", "built_in"), PAIRS[:3], ids=lambda x: x.name)
def test_probabilities_and_temperatures(own, built_in):
    z = scores(own)
    np.testing.assert_allclose(own.value_and_grad(z, SHARES)[1], built_in.value_and_grad(z, SHARES)[1], atol=1e-15)
    if own.record.loop == "softmax":
        assert own(z, SHARES, temperature=2.0) == pytest.approx(built_in(z, SHARES, temperature=2.0))


def test_infinite_logits_count_for_nothing_where_the_target_is_0():
    z = LOGITS.copy()
    z[np.arange(60), (LABELS + 1) % 7] = -np.inf
    value, grad = entropy.value_and_grad(z, LABELS)
    expected, slope = fl.cross_entropy.value_and_grad(z, LABELS)
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(grad, slope, atol=1e-15)


def test_parameters_pickles_and_names():
    assert focal(LOGITS, LABELS, gamma=1.0) == pytest.approx(fl.softmax_focal(LOGITS, LABELS, gamma=1.0))
    copy = pickle.loads(pickle.dumps(focal.bind(gamma=1.0)))
    assert copy == focal.bind(gamma=1.0)
    assert copy(LOGITS, LABELS) == focal(LOGITS, LABELS, gamma=1.0)
    assert repr(focal) == "<loss focal(z, t, gamma=2.0, temperature=1.0, logit_scale=1.0)>"
    assert "Focal loss." in focal.__doc__
    assert negative.name == "likelihood"
    assert "entropy" not in fl.LOSSES


def test_check_of_the_scalar_formula():
    pytest.importorskip("mpmath")
    report = focal.check(40)
    assert "1 - exp(x) -> -expm1(x)" in report.rewrites
    assert report.accuracy[1].errors[0] < 8.0


def test_errors():
    with pytest.raises(TypeError, match="odd: the formula is not 0 where t is 0"):
        fl.row_loss(name="odd")(lambda lp, t: (1 - t) * lp)
    with pytest.raises(TypeError, match=r"odd: the formula of loop='softmax' takes \(lp, t\), then parameters"):
        fl.row_loss(name="odd")(lambda lp: lp)
    with pytest.raises(TypeError, match=r"loop is 'softmaxx'; expected one of softmax, log_probs"):
        fl.row_loss(loop="softmaxx")
    with pytest.raises(TypeError, match=r"loop is \['softmax'\]; expected one of softmax, log_probs"):
        fl.row_loss(loop=["softmax"])
    with pytest.raises(TypeError, match="odd: target is that of the loop; leave it out"):
        fl.row_loss(name="odd", target=(0, 1))(lambda lp, t: -lp * t)
    with pytest.raises(TypeError, match="branches on data"):
        fl.row_loss(name="odd")(lambda lp, t: lp if t > 0 else 0)
