"""Landscapes, decisions, training, reliability, residuals and groups: data and structure, not pixels."""

import matplotlib
import numpy as np
import pytest

import fastloss as fl
from fastloss.plot.models import plane

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] > 0.0).astype(float)


@pytest.fixture(autouse=True)
def _closed():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_a_plane_holds_the_mean_losses():
    a, b, middle = np.array([1.0, 0.0, 2.0]), np.array([0.0, 1.0, 0.0]), np.array([0.5, 0.0, -1.0])
    found = plane(fl.mse, X, Y, middle, (a, b), (np.linspace(-1, 1, 4), np.linspace(-2, 2, 3)))
    assert found.shape == (3, 4)
    for i, v in enumerate(np.linspace(-2, 2, 3)):
        for j, u in enumerate(np.linspace(-1, 1, 4)):
            expected = np.mean((X @ (middle + u * a + v * b) - Y) ** 2)
            assert found[i, j] == pytest.approx(expected, rel=1e-13)


def test_a_plane_of_a_row_loss_holds_the_mean_losses(monkeypatch):
    from scipy.special import logsumexp

    monkeypatch.setattr("fastloss.plot.models.CHUNK", 500)  # several calls
    labels = RNG.integers(0, 4, 40)
    a, b = RNG.normal(size=(2, 3, 4))
    found = plane(fl.cross_entropy, X, labels, np.zeros((3, 4)), (a, b), (np.array([0.0, 1.0]), np.array([-1.0, 2.0])))
    scores = X @ (a + 2.0 * b)
    expected = np.mean(logsumexp(scores, axis=1) - scores[np.arange(40), labels])
    assert found[1, 1] == pytest.approx(expected, rel=1e-13)


def test_two_weights_are_the_axes_and_paths_lie_where_they_went():
    steps = np.array([[0.0, 0.0], [1.0, 0.5], [1.5, 0.25]])
    ax = fl.plot.landscape(fl.mse, X[:, :2], Y, paths={"a": steps}, points=12)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("w[0]", "w[1]")
    np.testing.assert_allclose(np.c_[ax.lines[0].get_data()], steps, atol=1e-12)
    low, high = ax.get_xlim()
    assert low < 0.0 < 1.5 < high


def test_the_plane_of_a_path_contains_it_where_it_can():
    # A path within a plane of three weights: distances in the picture are those of the weights.
    basis = np.linalg.qr(RNG.normal(size=(3, 2)))[0]
    steps = RNG.normal(size=(5, 2)) @ basis.T
    ax = fl.plot.landscape(fl.mse, X, Y, paths={"a": steps}, points=8)
    shown = np.c_[ax.lines[0].get_data()]
    np.testing.assert_allclose(
        np.linalg.norm(shown - shown[-1], axis=1), np.linalg.norm(steps - steps[-1], axis=1), rtol=1e-9, atol=1e-9
    )


def test_a_landscape_without_paths_and_of_one_step():
    fl.plot.landscape(fl.huber, X, Y, around=np.zeros(3), points=6, delta=0.5)
    fl.plot.landscape(fl.mse, X, Y, paths={"a": np.zeros((1, 3))}, points=6)


def test_decision_surfaces():
    points = X[:, :2]
    ax = fl.plot.decision(lambda x: 1.0 / (1.0 + np.exp(-x[:, 0])), points, Y, points=20)
    assert ax.figure.axes[1].get_ylabel() == "probability"
    ax = fl.plot.decision(lambda x: 3.0 * x[:, 0], points, points=20)
    assert ax.figure.axes[1].get_ylabel() == "prediction"
    from sklearn.tree import DecisionTreeClassifier

    three = DecisionTreeClassifier(max_depth=2).fit(points, RNG.integers(0, 3, 40))
    ax = fl.plot.decision(three, points, points=20)
    assert ax.figure.axes[1].get_ylabel() == "prediction"


def test_training_draws_parts_and_weights():
    history = [{"mse": 1.0, "dice": 0.5}, {"mse": 0.5}, {"mse": 0.01, "dice": 0.1}]
    left, right = fl.plot.training(history, weights={"mse": [0.5, 0.6, 0.7]})
    np.testing.assert_array_equal(left.lines[1].get_ydata(), [0.5, np.nan, 0.1])
    assert left.get_yscale() == "log"
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [0.5, 0.6, 0.7])


def test_smoothing_is_adams_corrected_average():
    [ax] = fl.plot.training([4.0, 2.0, 1.0], smooth=0.5)
    expected = [4.0, (0.5 * 2.0 + 0.25 * 4.0) / 0.75, (0.5 * 1.0 + 0.25 * 2.0 + 0.125 * 4.0) / 0.875]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), expected, rtol=1e-14)


def test_reliability_is_that_of_scikit_learn():
    from sklearn.calibration import calibration_curve

    p = RNG.random(500)
    t = (RNG.random(500) < p**2).astype(float)
    for equal, strategy in (("width", "uniform"), ("count", "quantile")):
        ax = fl.plot.reliability(p, t, bins=7, equal=equal)
        share, mean = calibration_curve(t, p, n_bins=7, strategy=strategy)
        np.testing.assert_allclose(ax.lines[1].get_xdata(), mean, rtol=1e-13)
        np.testing.assert_allclose(ax.lines[1].get_ydata(), share, rtol=1e-13)


def test_reliability_intervals_are_wilsons():
    from scipy.stats import binomtest

    ax = fl.plot.reliability(np.full(20, 0.3), np.r_[np.ones(5), np.zeros(15)], level=0.9)
    interval = binomtest(5, 20).proportion_ci(0.9, method="wilson")
    ys = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (ys.min(), ys.max()) == pytest.approx((interval.low, interval.high), rel=1e-12)


def test_residuals_are_target_minus_prediction():
    from scipy.stats import norm

    t = RNG.normal(size=60)
    left, right = fl.plot.residuals(t * 0.5, t)
    offsets = left.collections[0].get_offsets()
    np.testing.assert_allclose(offsets[:, 1], offsets[:, 0], rtol=1e-12)  # t - t/2 is t/2
    shown = right.collections[0].get_offsets()
    np.testing.assert_allclose(shown[:, 0], norm.ppf((np.arange(60) + 0.5) / 60), rtol=1e-12)


def test_groups_have_bars_of_means_and_intervals():
    from scipy.stats import norm

    z, key = RNG.normal(size=90), np.repeat(["a", "b", "c"], 30)
    report = fl.evaluate({"z": z, "t": 0.0 * z, "key": key}, losses="mse", pred="z", target="t", by="key")
    ax = fl.plot.groups(report)
    means = sorted((np.mean(z[key == k] ** 2) for k in "abc"), reverse=True)
    np.testing.assert_allclose([p.get_width() for p in ax.patches], means, rtol=1e-13)
    best = max("abc", key=lambda k: np.mean(z[key == k] ** 2))
    half = norm.ppf(0.975) * np.std(z[key == best] ** 2, ddof=1) / np.sqrt(30)
    [lines] = next(c for c in ax.containers if c.get_label() == "_nolegend_")[2]
    segment = lines.get_segments()[0]
    assert (segment[1][0] - segment[0][0]) / 2.0 == pytest.approx(half, rel=1e-12)
    assert [text.get_text() for text in fl.plot.groups(report, top=1).get_yticklabels()] == [best]


BAD = [
    (lambda: fl.plot.landscape(fl.dice, X, Y, around=np.zeros(3)), "loss is dice; expected a loss of elements"),
    (lambda: fl.plot.landscape(fl.mse, X, Y), "around is missing"),
    (lambda: fl.plot.landscape(fl.mse, X, Y, around=np.zeros(2)), r"around has shape \(2,\); expected \(3,\)"),
    (lambda: fl.plot.landscape(fl.mse, X, Y, around=np.zeros(3), span=-1.0), "span is -1.0"),
    (lambda: fl.plot.landscape(fl.mse, Y, Y, around=np.zeros(3)), r"X has shape \(40,\)"),
    (lambda: fl.plot.decision(None, X[:, :2]), "model is NoneType"),
    (lambda: fl.plot.decision(lambda x: x, X[:, :2]), r"returned shape \(40000, 2\)"),
    (lambda: fl.plot.decision(lambda x: x, X), r"X has shape \(40, 3\); expected \(n, 2\)"),
    (lambda: fl.plot.training({}), "history is empty"),
    (lambda: fl.plot.training(3.0), "history is float"),
    (lambda: fl.plot.training([1.0], smooth=1.0), r"smooth is 1.0; allowed: \[0, 1\)"),
    (lambda: fl.plot.reliability(X[:, 0], Y), r"allowed: \[0, 1\]; of logits z"),
    (lambda: fl.plot.reliability(Y, Y, equal="size"), "equal is 'size'"),
    (lambda: fl.plot.residuals(Y, Y[1:]), r"have shapes \(40,\) and \(39,\)"),
    (lambda: fl.plot.residuals(Y, np.full(40, np.nan)), "hold a NaN or infinity"),
    (lambda: fl.plot.groups(3), "report is int"),
    (lambda: fl.plot.groups(fl.evaluate((Y, Y), losses="mse")), 'evaluate with by="column"'),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_errors_are_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call()
