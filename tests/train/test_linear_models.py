"""Linear models against scikit-learn's of the same objective, and SciPy's minimum."""

import doctest
import inspect
import warnings

import numpy as np
import pytest

import fastloss as fl

sk = pytest.importorskip("sklearn.linear_model")
scipy_optimize = pytest.importorskip("scipy.optimize")
sparse = pytest.importorskip("scipy.sparse")
ConvergenceWarning = pytest.importorskip("sklearn.exceptions").ConvergenceWarning
LossClassifier, LossRegressor = fl.linear.LossClassifier, fl.linear.LossRegressor

RNG = np.random.default_rng(7)
N, D = 300, 5
X = RNG.standard_normal((N, D)) * [1.0, 10.0, 0.1, 1.0, 3.0] + [0.0, 5.0, 1.0, -2.0, 0.0]
SIGNAL = (X - X.mean(axis=0)) @ [0.8, 0.05, 2.0, -0.6, 0.0]
Y = SIGNAL + RNG.standard_t(3, N)
COUNTS = RNG.poisson(np.exp(0.5 * SIGNAL)).astype(float)
LABELS = np.where(RNG.random(N) < 1.0 / (1.0 + np.exp(-SIGNAL)), "yes", "no")
THREE = np.digitize(Y, [-1.0, 1.0])
WEIGHT = RNG.random(N) + 0.5
ALPHA = 0.05


def same(model, oracle, rtol=1e-5):
    """Assert that two models have the same coefficients, relative to the largest."""
    mine = np.append(np.ravel(model.coef_), model.intercept_)
    others = np.append(np.ravel(oracle.coef_), oracle.intercept_)
    assert np.abs(mine - others).max() <= rtol * np.abs(others).max()


# Against scikit-learn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton", "lbfgs", "gd", "auto"])
def test_ridge(solver):
    # The mean of (z - y)^2 plus alpha |w|^2 / 2 is sklearn's objective divided by n.
    oracle = sk.Ridge(alpha=ALPHA * WEIGHT.sum() / 2.0, tol=1e-12).fit(X, Y, WEIGHT)
    same(LossRegressor("mse", alpha=ALPHA, solver=solver, tol=1e-10, max_iter=5000).fit(X, Y, WEIGHT), oracle)


@pytest.mark.parametrize("penalty", ["l2", None])
def test_logistic_regression(penalty):
    c = 1.0 / (ALPHA * N) if penalty else np.inf
    oracle = sk.LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12).fit(X, LABELS)
    model = LossClassifier(penalty=penalty, alpha=ALPHA).fit(X, LABELS)
    same(model, oracle)
    assert model.predict_proba(X) == pytest.approx(oracle.predict_proba(X), rel=1e-5)
    assert model.predict(X).tolist() == oracle.predict(X).tolist()
    assert model.solver_ == "newton"


def test_multinomial_logistic_regression():
    oracle = sk.LogisticRegression(C=1.0 / (ALPHA * N), solver="newton-cholesky", tol=1e-12).fit(X, THREE)
    model = LossClassifier(alpha=ALPHA, tol=1e-11).fit(X, THREE)
    assert model.predict_proba(X) == pytest.approx(oracle.predict_proba(X), abs=1e-5)
    balanced = LossClassifier(alpha=ALPHA, tol=1e-11, class_weight="balanced").fit(X, THREE)
    weights = N / (3.0 * np.bincount(THREE))[THREE]
    assert balanced.coef_ == pytest.approx(
        LossClassifier(alpha=ALPHA, tol=1e-11).fit(X, THREE, weights).coef_, rel=1e-4
    )


@pytest.mark.parametrize(
    ("loss", "oracle"), [("poisson", "PoissonRegressor"), ("tweedie:power=1.5", "TweedieRegressor")]
)
def test_generalised_linear_models(loss, oracle):
    options = {"power": 1.5, "link": "log"} if "tweedie" in loss else {}
    oracle = getattr(sk, oracle)(alpha=ALPHA, tol=1e-10, max_iter=1000, **options).fit(X, COUNTS, WEIGHT)
    model = LossRegressor(loss, alpha=ALPHA, tol=1e-10).fit(X, COUNTS, WEIGHT)
    # The unit deviance is twice the loss, and sklearn's objective has half of it.
    same(model, oracle, 1e-4)
    assert model.predict(X) == pytest.approx(oracle.predict(X), rel=1e-4)


@pytest.mark.parametrize("q", [0.5, 0.9])
@pytest.mark.parametrize("alpha", [0.0, 0.02])
def test_quantile_regression(q, alpha):
    oracle = sk.QuantileRegressor(quantile=q, alpha=alpha).fit(X, Y)
    model = LossRegressor(f"quantile:q={q}", penalty="l1", alpha=alpha).fit(X, Y)
    reached, least = (fl.quantile(m.predict(X), Y, q=q) + alpha * np.abs(m.coef_).sum() for m in (model, oracle))
    assert reached <= least * (1.0 + 1e-6)


@pytest.mark.parametrize("solver", ["cd", "prox"])
@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_elastic_net(solver, ratio):
    # Half the mean of squares in sklearn's objective.
    oracle = sk.ElasticNet(alpha=0.1, l1_ratio=ratio, tol=1e-12, max_iter=100_000).fit(X, Y)
    options = {"penalty": "elasticnet", "alpha": 0.2, "l1_ratio": ratio, "solver": solver, "tol": 1e-10}
    model = LossRegressor("mse", **options).fit(X, Y)
    same(model, oracle)
    assert ((model.coef_ == 0.0) == (oracle.coef_ == 0.0)).all()


def test_sparse_logistic_regression():
    oracle = sk.LogisticRegression(l1_ratio=1.0, C=1.0 / (0.02 * N), solver="saga", tol=1e-9, max_iter=100_000)
    scaled = X / X.std(axis=0)
    oracle.fit(scaled, LABELS)
    same(LossClassifier(penalty="l1", alpha=0.02).fit(scaled, LABELS), oracle, 1e-4)


def test_hinge_against_a_linear_program():
    """The hinge loss with an L1 penalty is a linear program."""
    signs, alpha = np.where(LABELS == "yes", 1.0, -1.0), 0.01
    cost = np.concatenate([np.full(2 * D, alpha), [0.0, 0.0], np.full(N, 1.0 / N)])
    own = signs[:, None] * X
    rows = np.hstack([-own, own, -signs[:, None], signs[:, None], -np.eye(N)])
    least = scipy_optimize.linprog(cost, rows, -np.ones(N), method="highs").fun
    model = LossClassifier("hinge", penalty="l1", alpha=alpha).fit(X, LABELS)
    reached = fl.hinge(model.decision_function(X), signs) + alpha * np.abs(model.coef_).sum()
    assert reached <= least * (1.0 + 1e-6)


def test_multiclass_hinge_against_a_linear_program():
    """The loss of Crammer and Singer begins at a kink, where all scores are equal."""
    scaled = np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.ones(N)])
    rows = []
    for c in range(3):
        others = c != THREE
        slack = -np.eye(N)[others]
        own = np.zeros((others.sum(), 3, D + 1))
        own[:, c] = scaled[others]
        own[np.arange(others.sum()), THREE[others]] -= scaled[others]
        rows.append(np.hstack([own.reshape(len(own), -1), slack]))
    system = np.vstack(rows)
    cost = np.concatenate([np.zeros(3 * (D + 1)), np.full(N, 1.0 / N)])
    bounds = [(None, None)] * (3 * (D + 1)) + [(0.0, None)] * N
    least = scipy_optimize.linprog(cost, system, -np.ones(len(system)), bounds=bounds, method="highs").fun
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LossClassifier("crammer_singer", penalty=None).fit(X, THREE)
    assert least - 1e-9 <= fl.crammer_singer(model.decision_function(X), THREE) <= least * 1.02


# Against SciPy's minimum ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (fl.huber.bind(delta=0.7), Y),
        (fl.log_cosh, Y),
        (0.5 * fl.mse + 2.0 * fl.pseudo_huber, Y),
        (fl.formula("sqrt(1 + (z - t)**2)", name="curve"), Y),
        (fl.gamma, COUNTS + 1.0),
        (fl.huber.bind(reduction=fl.risk.CVaR(0.3)), Y),
    ],
    ids=["huber", "log_cosh", "sum", "formula", "gamma", "cvar"],
)
def test_minimum(loss, target):
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    model = LossRegressor(loss, alpha=ALPHA, tol=1e-9).fit(X * 1e3, target)

    def objective(w):
        own = w[:-1] / X.std(axis=0) / 1e3
        return loss(scaled @ w[:-1] + w[-1], target) + 0.5 * ALPHA * own @ own

    least = scipy_optimize.minimize(objective, np.zeros(D + 1), method="BFGS", options={"gtol": 1e-7}).fun
    reached = loss(X * 1e3 @ model.coef_ + model.intercept_, target) + 0.5 * ALPHA * model.coef_ @ model.coef_
    # A risk that sorts the losses has kinks.
    assert reached <= least + (1e-5 if loss.record.reduction != "mean" else 1e-6) * abs(least)


def test_fairness_term():
    group = (X[:, 3] > -2.0).astype(int)
    plain = LossClassifier(fl.bce_with_logits, alpha=ALPHA).fit(X, LABELS)
    fair = LossClassifier(fl.bce_with_logits + 50.0 * fl.demographic_parity, alpha=ALPHA).fit(X, LABELS, group=group)
    gaps = [fl.demographic_parity(m.decision_function(X), group=group) for m in (plain, fair)]
    assert gaps[1] < 0.2 * gaps[0]


# What fit takes ------------------------------------------------------------------------------------------------------


def test_csr_and_float32():
    model = LossClassifier(alpha=ALPHA).fit(X, LABELS)
    same(LossClassifier(alpha=ALPHA).fit(sparse.csr_matrix(X), LABELS), model)
    single = LossClassifier(alpha=ALPHA).fit(X.astype(np.float32), LABELS)
    same(single, model, 1e-3)
    assert single.decision_function(X.astype(np.float32)).dtype == np.float32


def test_several_outputs_are_fits_of_their_own():
    both = LossRegressor("huber", alpha=ALPHA).fit(X, np.column_stack([Y, -2.0 * Y]))
    # The mean over both outputs weighs each by a half.
    first = LossRegressor("huber", alpha=2.0 * ALPHA).fit(X, Y)
    assert both.coef_[0] == pytest.approx(first.coef_, rel=1e-5, abs=1e-8)
    assert both.predict(X).shape == (N, 2)


def test_levels_are_ordered_in_the_mean():
    model = LossRegressor(fl.quantile.bind(q=(0.1, 0.5, 0.9)), penalty=None).fit(X, Y)
    share = (Y[:, None] <= model.predict(X) + 1e-9).mean(axis=0)
    assert np.abs(share - [0.1, 0.5, 0.9]).max() <= (D + 1) / N


def test_warm_start_continues():
    model = LossRegressor("mse", solver="lbfgs", warm_start=True).fit(X, Y)
    assert model.fit(X, Y).n_iter_ <= 2


@pytest.mark.parametrize("solver", ["sgd", "minibatch", "adam", "rmsprop", "adagrad"])
def test_solvers_by_batches_come_close(solver):
    best = LossClassifier(alpha=ALPHA).fit(X, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LossClassifier(alpha=ALPHA, solver=solver, max_iter=30, random_state=0).fit(X, LABELS)

    def objective(m):
        z = m.decision_function(X)
        return fl.bce_with_logits(z, (LABELS == "yes") * 1.0) + 0.5 * ALPHA * (m.coef_**2).sum()

    assert objective(best) <= objective(model) <= objective(best) * 1.02
    assert len(model.history_["objective"]) == model.n_iter_


def test_partial_fit_learns():
    model = LossClassifier(random_state=0)
    for lo in range(0, N, 50):
        model.partial_fit(X[lo : lo + 50], LABELS[lo : lo + 50], classes=["no", "yes"])
    assert model.score(X, LABELS) > 0.65
    with pytest.raises(ValueError, match="the first call of partial_fit names all classes"):
        LossClassifier().partial_fit(X, LABELS)


def test_early_stopping_keeps_the_best():
    model = LossRegressor("mse", solver="gd", early_stopping=True, random_state=0, tol=0.0, n_iter_no_change=3)
    course = model.fit(X, Y).history_["validation"]
    assert min(course) == min(course[:-3]) or len(course) == model.max_iter


# Errors and limits ---------------------------------------------------------------------------------------------------


def test_a_learning_rate_too_large_is_named():
    for solver in ("gd", "minibatch"):
        with pytest.raises(ValueError, match=r"LossRegressor: learning_rate is 50, which is too large: the objective"):
            LossRegressor("mse", solver=solver, learning_rate=50.0).fit(X, Y)


def test_separable_classes_are_named():
    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    with pytest.warns(ConvergenceWarning, match="a plane separates the classes"):
        LossClassifier(penalty=None).fit(x, [0, 0, 1, 1])


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
def test_constant_columns_and_few_samples(solver):
    x = np.column_stack([X[:4], np.ones(4), np.zeros(4)])
    model = LossRegressor("mse", alpha=1e-3, solver=solver, tol=1e-10).fit(x, Y[:4])
    oracle = sk.Ridge(alpha=1e-3 * 4 / 2, solver="svd").fit(x, Y[:4])
    assert model.predict(x) == pytest.approx(oracle.predict(x), abs=1e-4)
    assert np.abs(model.coef_[-2:]).max() < 1e-8


def test_columns_of_huge_and_tiny_scale():
    scale = np.array([1e150, 1e-150, 1e8, 1.0, 1e-8])
    plain = LossRegressor("huber", penalty=None).fit(X, Y)
    scaled = LossRegressor("huber", penalty=None).fit(X * scale, Y)
    assert scaled.coef_ * scale == pytest.approx(plain.coef_, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (LossRegressor("poisson"), -COUNTS - 1.0, r"poisson: target\[0\] is -"),
        (LossRegressor("gaussian_nll"), Y, "gaussian_nll, which takes 2 predictions"),
        (LossClassifier("log_loss"), LABELS, "use 'bce_with_logits'"),
        (LossClassifier("nll"), LABELS, "takes log-probabilities"),
        (LossClassifier(), np.full(N, "yes"), "y has one class, 'yes'"),
        (LossRegressor(solver="sag"), Y, "solver is 'sag'"),
        (LossRegressor(penalty="l3"), Y, "penalty is 'l3'"),
        (LossRegressor(alpha=-1.0), Y, "alpha is -1"),
        (LossRegressor(penalty="l1", solver="lbfgs"), Y, "takes no L1 penalty"),
        (LossClassifier(solver="newton", loss="crammer_singer"), THREE, "needs a curvature"),
    ],
)
def test_errors(model, target, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X, target)


def test_margins_are_no_probabilities():
    model = LossClassifier("hinge").fit(X, LABELS)
    assert not hasattr(model, "predict_proba")


# Ensembles -----------------------------------------------------------------------------------------------------------


def test_ensembles_combine_their_members():
    losses = ("mse", "huber:delta=0.5", "mae")
    members = np.stack([LossRegressor(loss).fit(X, Y).predict(X) for loss in losses])
    for combine, expected in (("mean", members.mean(axis=0)), ("median", np.median(members, axis=0))):
        model = fl.linear.LossEnsemble(losses, combine=combine).fit(X, Y)
        assert model.predict(X) == pytest.approx(expected)
    model = fl.linear.LossEnsemble(losses[:2], combine="stacked", metric="mae").fit(X, Y)
    assert model.predict(X) == pytest.approx(model.weights_ @ members[:2])
    assert model.weights_.sum() == pytest.approx(1.0)
    assert model.blend_.names == ("model 0", "model 1")


# Documentation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("public", [LossRegressor, LossClassifier, fl.linear.LossEnsemble, fl.blend])
def test_examples_run_and_parameters_are_described(public):
    found = [t for t in doctest.DocTestFinder(recurse=False).find(public, public.__name__) if t.examples]
    assert found
    for test in found:
        assert doctest.DocTestRunner().run(test).failed == 0
    described = inspect.getdoc(public).partition("Parameters\n")[2].partition("\n\n")[0].replace(":", ",")
    words = {word.strip() for word in described.replace("\n", ",").split(",")}
    assert set(inspect.signature(public).parameters) <= words


def test_epochs_of_few_columns_read_no_memory_beyond_their_rows():
    """A vector of the last row reaches beyond it: NaN that memory held there came through in one fit of fifty."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(3, 40))
        x = rng.normal(size=(n, 2))
        junk = [np.full(size, np.nan) for size in range(1, 300) for _ in range(3)]
        del junk
        fitted = LossRegressor(solver="minibatch").partial_fit(x, x @ [1.0, 2.0])
        assert np.isfinite(fitted.coef_).all(), n
