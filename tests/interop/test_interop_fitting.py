"""Scorers of scikit-learn, functions for SciPy's optimisers and expressions of Polars, beside those libraries."""

import pickle

import numpy as np
import pytest

import fastloss as fl

pytestmark = pytest.mark.jit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 4))
REAL = X @ [1.0, -2.0, 0.5, 0.0] + RNG.normal(size=200)
TWO = np.array(["no", "yes"])[(REAL > 0.3).astype(int)]
THREE = np.array([10, 20, 30])[np.digitize(REAL, [-1.0, 1.0])]
COUNTS = RNG.poisson(np.exp(0.3 * X[:, 0]))
WEIGHT = RNG.uniform(0.5, 2.0, 200)


def test_scores_are_those_of_scikit_learn():
    pytest.importorskip("sklearn")
    from sklearn import ensemble, linear_model, metrics

    quantile = linear_model.QuantileRegressor(quantile=0.9, alpha=0.0).fit(X, REAL)
    expected = -metrics.mean_pinball_loss(REAL, quantile.predict(X), alpha=0.9)
    assert fl.scorer("quantile:q=.9")(quantile, X, REAL) == pytest.approx(expected, rel=1e-12)
    poisson = linear_model.PoissonRegressor().fit(X, COUNTS)
    expected = np.mean(COUNTS * np.log(poisson.predict(X)) - poisson.predict(X))
    assert fl.scorer("poisson")(poisson, X, COUNTS) == pytest.approx(expected, rel=1e-12)
    logistic = linear_model.LogisticRegression().fit(X, TWO)
    forest = ensemble.RandomForestClassifier(20, min_samples_leaf=5, random_state=0).fit(X, TWO)
    for model in (logistic, forest):
        expected = -metrics.log_loss(TWO, model.predict_proba(X), sample_weight=WEIGHT)
        for name in ("bce_with_logits", "bce", "cross_entropy", "nll"):
            got = fl.scorer(name)(model, X, TWO, sample_weight=WEIGHT)
            assert got == pytest.approx(expected, rel=1e-9), name
    expected = -metrics.hinge_loss(TWO, logistic.decision_function(X))
    assert fl.scorer("hinge")(logistic, X, TWO) == pytest.approx(expected, rel=1e-12)
    three = linear_model.LogisticRegression().fit(X, THREE)
    expected = -metrics.log_loss(THREE, three.predict_proba(X))
    assert fl.scorer("cross_entropy")(three, X, THREE) == pytest.approx(expected, rel=1e-9)


def test_searches_take_scorers():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import QuantileRegressor
    from sklearn.model_selection import GridSearchCV, cross_validate

    scorer = fl.scorer("quantile", q=0.9)
    search = GridSearchCV(QuantileRegressor(alpha=0.0), {"quantile": [0.5, 0.9]}, scoring=scorer, cv=3, n_jobs=2)
    assert search.fit(X, REAL).best_params_ == {"quantile": 0.9}
    several = {"high": scorer, "low": fl.scorer("quantile:q=.1")}
    found = cross_validate(QuantileRegressor(alpha=0.0, quantile=0.9), X, REAL, scoring=several, cv=3)
    assert (found["test_high"] > found["test_low"]).all()
    again = pickle.loads(pickle.dumps(scorer))
    model = QuantileRegressor(alpha=0.0).fit(X, REAL)
    assert again(model, X, REAL) == scorer(model, X, REAL)


def test_refusals_of_scorers():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression, RidgeClassifier

    with pytest.raises(TypeError, match="triplet: a scorer needs a loss of one prediction"):
        fl.scorer("triplet")
    model = LogisticRegression().fit(X, THREE)
    with pytest.raises(ValueError, match="bce: the estimator has 3 classes; expected 2"):
        fl.scorer("bce")(model, X, THREE)
    with pytest.raises(ValueError, match=r"cross_entropy: y holds .*40"):
        fl.scorer("cross_entropy")(model, X, THREE + 10)
    with pytest.raises(TypeError, match="cross_entropy: the scorer needs predict_proba, which RidgeClassifier has not"):
        fl.scorer("cross_entropy")(RidgeClassifier().fit(X, THREE), X, THREE)


@pytest.mark.parametrize("name", ["huber", "bce_with_logits", "poisson", "cross_entropy"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_gradients_for_scipy(name, weight):
    optimize = pytest.importorskip("scipy.optimize")
    labels = {"huber": REAL, "poisson": COUNTS.astype(float), "cross_entropy": THREE // 10 - 1}
    y = labels.get(name, (TWO == "yes").astype(float))
    f = fl.scipy.fun(name, X, y, weight=weight, l2=0.1)
    w = 0.3 * np.random.default_rng(1).normal(size=12 if name == "cross_entropy" else 4)
    assert optimize.check_grad(lambda w: f(w)[0], lambda w: f(w)[1], w) < 1e-6
    if name == "cross_entropy":
        with pytest.raises(ValueError, match=r"cross_entropy has no Hessian in fl\.scipy"):
            f.hessp(w, w)
    elif name != "huber":
        differences = (f(w + 1e-5 * w)[1] - f(w - 1e-5 * w)[1]) / 2e-5
        np.testing.assert_allclose(f.hessp(w, w), differences, rtol=1e-5, atol=1e-8)


def test_minimisers_agree_with_scikit_learn():
    optimize, linear = pytest.importorskip("scipy.optimize"), pytest.importorskip("sklearn.linear_model")
    sparse = pytest.importorskip("scipy.sparse")
    y = (TWO == "yes").astype(float)
    model = linear.LogisticRegression(C=1.0 / (200 * 0.05), fit_intercept=False, tol=1e-10, max_iter=1000).fit(X, y)
    for inputs in (X, sparse.csr_array(X)):
        f = fl.scipy.fun("bce_with_logits", inputs, y, l2=0.05)
        for options in ({"method": "L-BFGS-B"}, {"method": "trust-ncg", "hessp": f.hessp}):
            found = optimize.minimize(f, np.zeros(4), jac=True, tol=1e-9, **options)
            np.testing.assert_allclose(found.x, model.coef_[0], atol=1e-5)


@pytest.mark.oracle
def test_expressions_of_polars():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"z": [0.1, None, -1.0, 2.0], "t": [1, 0, None, 1], "v": [1.0, 2.0, 3.0, 4.0]})
    expected = fl.bce_with_logits(np.array([0.1, 2.0]), np.ones(2), reduction="none")
    expression = fl.polars.loss("bce_with_logits", "z", polars.col("t"))
    for found in (
        frame.select(expression),
        frame.lazy().select(expression).collect(),
        frame.lazy().select(expression).collect(engine="streaming"),
    ):
        column = found["bce_with_logits"]
        assert column.is_null().to_list() == [False, True, True, False]
        np.testing.assert_array_equal(column.drop_nulls().to_numpy(), expected)
    nll = frame.select(fl.polars.loss("gaussian_nll", "z", "v", polars.col("t").cast(float)))["gaussian_nll"]
    assert nll.null_count() == 2
    rows = polars.DataFrame(
        {"s": [[0.0, 1.0], [2.0, 0.0]], "y": [1, 0]}, schema_overrides={"s": polars.Array(float, 2)}
    )
    got = rows.select(fl.polars.loss("cross_entropy", "s", "y"))["cross_entropy"].to_numpy()
    np.testing.assert_array_equal(got, fl.cross_entropy(np.array([[0.0, 1.0], [2.0, 0.0]]), [1, 0], reduction="none"))
    with pytest.raises(TypeError, match="huber takes 2 columns; 1 given"):
        fl.polars.loss("huber", "z")


def test_a_missing_host_is_named():
    from fastloss.interop.hosts import host

    with pytest.raises(ModuleNotFoundError, match=r'needs nohost, .*; pip install "fastloss\[nohost\]"'):
        host("nohost", "nohost", "fastloss.jelly")
