"""Reference forms of row-wise losses against other libraries; test_formulas_against_libraries.py has the others."""

import numpy as np
import pytest

from fastloss import reference

N, K = 40, 7


@pytest.fixture
def data():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 3, (N, K))
    targets = rng.dirichlet(np.ones(K), N)
    return logits, rng.integers(0, K, N), targets, rng.random(K) + 0.5


def log_softmax(z):
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


@pytest.fixture
def functional():
    torch = pytest.importorskip("torch", reason="needs the peers extra")

    def call(name, *args, **kwargs):
        args = [torch.tensor(a) for a in args]
        kwargs = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        return getattr(torch.nn.functional, name)(*args, reduction="none", **kwargs).numpy()

    return call


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(data, functional, smoothing):
    logits, labels, targets, weight = data
    labels[:5] = -100
    for class_weight in (None, weight):
        got = reference.cross_entropy(logits, labels, class_weight, smoothing)
        expected = functional("cross_entropy", logits, labels, weight=class_weight, label_smoothing=smoothing)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        got = reference.cross_entropy(logits, targets, class_weight, smoothing)
        expected = functional("cross_entropy", logits, targets, weight=class_weight, label_smoothing=smoothing)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_options_of_cross_entropy(data):
    logits, labels, _, _ = data
    plain = reference.cross_entropy(logits / 2, labels)
    np.testing.assert_allclose(reference.cross_entropy(logits, labels, temperature=2.0), plain, rtol=1e-12)
    lse = np.log(np.exp(logits).sum(axis=1))
    with_z = reference.cross_entropy(logits, labels, z_loss=0.1)
    np.testing.assert_allclose(with_z, reference.cross_entropy(logits, labels) + 0.1 * lse**2, rtol=1e-12)
    shifted = reference.cross_entropy(logits + 1e6, labels)
    np.testing.assert_allclose(shifted, reference.cross_entropy(logits, labels), rtol=1e-7)


def test_losses_of_log_probabilities(data, functional):
    logits, labels, targets, _ = data
    lp = log_softmax(logits)
    np.testing.assert_allclose(reference.nll(lp, labels), functional("nll_loss", lp, labels), rtol=1e-12)
    targets[0] = np.eye(K)[2]
    np.testing.assert_allclose(reference.kl_div(lp, targets), functional("kl_div", lp, targets).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_multi_margin(data, functional, p):
    logits, labels, _, weight = data
    got = reference.multi_margin(logits, labels, p, 0.7, weight)
    expected = functional("multi_margin_loss", logits, labels, p=p, margin=0.7, weight=weight)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_crammer_singer_is_the_largest_term(data):
    logits, labels, _, _ = data
    for row, label, got in zip(logits, labels, reference.crammer_singer(logits, labels, 0.7), strict=True):
        assert got == max(0.0, *(0.7 + z - row[label] for j, z in enumerate(row) if j != label))


def test_limits_of_the_softmax_family(data):
    logits, labels, _, _ = data
    ce = reference.cross_entropy(logits, labels)
    p = np.exp(-ce)
    np.testing.assert_allclose(reference.softmax_focal(logits, labels, gamma=0.0), ce, rtol=1e-12)
    np.testing.assert_allclose(reference.softmax_focal(logits, labels, gamma=2.0), (1 - p) ** 2 * ce, rtol=1e-9)
    np.testing.assert_allclose(reference.poly1_cross_entropy(logits, labels, epsilon=2.0), ce + 2 * (1 - p), rtol=1e-12)
    np.testing.assert_allclose(reference.generalized_cross_entropy(logits, labels, q=0.0), ce, rtol=1e-12)
    np.testing.assert_allclose(reference.generalized_cross_entropy(logits, labels, q=1.0), 1 - p, rtol=1e-12)


def test_js_div(data):
    distance = pytest.importorskip("scipy.spatial.distance", reason="needs the peers extra")
    logits, _, targets, _ = data
    lp = log_softmax(logits)
    p = np.exp(lp)
    expected = distance.jensenshannon(p, targets, axis=1) ** 2
    np.testing.assert_allclose(reference.js_div(lp, targets), expected, rtol=1e-10)
    # Scaled by beta (1 - beta), it leads from KL(t || p) to KL(p || t): the limits that GKD names.
    small = 1e-8
    np.testing.assert_allclose(reference.js_div(lp, targets, small) / small, reference.kl_div(lp, targets), rtol=1e-3)
    reverse = (p * (lp - np.log(targets))).sum(axis=1)
    np.testing.assert_allclose(reference.js_div(lp, targets, 1 - small) / small, reverse, rtol=1e-3)


def test_crps_ensemble():
    rng = np.random.default_rng(0)
    members, target = rng.normal(size=(1, 9)), np.array([0.3])
    # The integral of (F(x) - [x >= t])^2 over the steps of F.
    x = np.sort(np.append(members[0], target))
    below = (members[0][:, None] <= x[:-1]).mean(axis=0)
    integral = ((below - (x[:-1] >= target)) ** 2 * np.diff(x)).sum()
    assert reference.crps_ensemble(members, target)[0] == pytest.approx(integral, rel=1e-12)
    # Fair: unbiased for the distribution the members are drawn from, a normal here.
    many = rng.normal(size=(20000, 4))
    fair = reference.crps_ensemble(many, np.full(20000, 0.3), fair=True).mean()
    assert fair == pytest.approx(reference.crps_gaussian(0.0, 1.0, 0.3), abs=0.01)
