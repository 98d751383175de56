"""Objectives beside the libraries' own: the same trees, the same losses, and early stopping on the metric."""

import numpy as np
import pytest

import fastloss as fl

pytestmark = pytest.mark.jit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4)).astype(np.float32)
F = X[:, 0] + 0.5 * X[:, 1] ** 2
W = RNG.uniform(0.5, 2.0, 400)
Y = {
    "mse": F + RNG.normal(size=400),
    "bce_with_logits": (F > 0.3).astype(float),
    "poisson": RNG.poisson(np.exp(0.3 * F)).astype(float),
    "tweedie": RNG.gamma(1.0, np.exp(0.3 * F)) * (RNG.random(400) < 0.7),
    "cross_entropy": np.digitize(F, [-0.2, 0.9]).astype(float),
}
each_loss = pytest.mark.parametrize("name", Y)
each_weight = pytest.mark.parametrize("weight", [None, W], ids=["plain", "weighted"])
XGBOOST = {  # built-in objective, its parameters, and the raw score at which it starts
    "mse": ("reg:squarederror", {"base_score": 0.0}, 0.0),
    "bce_with_logits": ("binary:logistic", {"base_score": 0.5}, 0.0),
    "poisson": ("count:poisson", {"base_score": 1.0}, 0.0),
    "tweedie": ("reg:tweedie", {"base_score": 1.0, "tweedie_variance_power": 1.5}, 0.0),
    "cross_entropy": ("multi:softprob", {"base_score": 0.5, "num_class": 3}, 0.5),
}
LIGHTGBM = {
    "mse": "regression",
    "bce_with_logits": "binary",
    "poisson": "poisson",
    "tweedie": "tweedie",
    "cross_entropy": "multiclass",
}


@pytest.mark.oracle
@each_loss
@each_weight
def test_trees_of_xgboost(name, weight):
    xgboost = pytest.importorskip("xgboost")
    own, builtin, start = XGBOOST[name][0], XGBOOST[name][1], XGBOOST[name][2]
    data = xgboost.DMatrix(X, Y[name], weight=weight)
    common = {"max_depth": 3, "eta": 0.3, "nthread": 1, "disable_default_eval_metric": 1}
    if name == "poisson":
        common["max_delta_step"] = 0.7
    classes = {"num_class": 3} if name == "cross_entropy" else {}
    theirs = xgboost.train({**common, **builtin, "objective": own}, data, 15)
    objective = fl.objective(name)
    ours = xgboost.train({**common, **classes, "base_score": start}, data, 15, obj=objective.xgboost)
    a, b = (m.trees_to_dataframe()[["Tree", "Node", "Feature", "Split"]] for m in (theirs, ours))
    assert a.equals(b)
    np.testing.assert_allclose(
        ours.predict(data, output_margin=True), theirs.predict(data, output_margin=True), atol=5e-6
    )


@pytest.mark.oracle
@each_loss
@each_weight
def test_trees_of_lightgbm(name, weight):
    lightgbm = pytest.importorskip("lightgbm")
    common = {"verbose": -1, "num_threads": 1, "num_leaves": 8, "boost_from_average": False}
    if name == "cross_entropy":
        common["num_class"] = 3
    models = [
        lightgbm.train({**common, "objective": o}, lightgbm.Dataset(X, Y[name], weight=weight), 15)
        for o in (LIGHTGBM[name], fl.objective(name).lightgbm)
    ]
    a, b = (m.trees_to_dataframe()[["node_index", "split_feature", "threshold"]] for m in models)
    assert a.equals(b)
    theirs, ours = (m.predict(X, raw_score=True) for m in models)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Can't optimze method")  # CatBoost's own, of methods of Python objects
@pytest.mark.parametrize(("name", "own"), [("mse", "RMSE"), ("bce_with_logits", "Logloss")])
@each_weight
def test_catboost(name, own, weight):
    catboost = pytest.importorskip("catboost")
    common = {"iterations": 15, "depth": 3, "learning_rate": 0.3, "verbose": 0, "thread_count": 1}
    common |= {"boost_from_average": False, "leaf_estimation_method": "Newton", "leaf_estimation_iterations": 1}
    common |= {"bootstrap_type": "No", "boosting_type": "Plain", "allow_writing_files": False, "score_function": "L2"}
    objective = fl.objective(name)
    pool = catboost.Pool(X, Y[name], weight=weight)
    theirs = catboost.CatBoost({**common, "loss_function": own}).fit(pool)
    ours = catboost.CatBoost({**common, "loss_function": objective.catboost, "eval_metric": objective.metric.catboost})
    ours.fit(pool)
    a, b = (m.predict(X, prediction_type="RawFormulaVal") for m in (theirs, ours))
    np.testing.assert_allclose(b, a, atol=1e-6)
    (values,) = ours.get_evals_result()["learn"].values()
    assert values[-1] == pytest.approx(fl.LOSSES[name](b, Y[name], weight=weight), rel=1e-6)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Can't optimze method")
def test_classes_in_catboost():
    catboost = pytest.importorskip("catboost")
    objective, y = fl.objective("cross_entropy"), Y["cross_entropy"]
    options = {"loss_function": objective.catboost, "eval_metric": objective.metric.catboost, "classes_count": 3}
    model = catboost.CatBoost({**options, "iterations": 10, "verbose": 0, "allow_writing_files": False}).fit(X, y)
    raw = model.predict(X, prediction_type="RawFormulaVal")
    assert (raw.argmax(axis=1) == y).mean() > 0.8


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")  # of LightGBM, from 4.7
def test_estimators():
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    for name, classes in (("mse", 0), ("bce_with_logits", 2), ("cross_entropy", 3)):
        objective, y = fl.objective(name), Y[name]
        kinds = ("XGBClassifier", "LGBMClassifier") if classes else ("XGBRegressor", "LGBMRegressor")
        x = getattr(xgboost, kinds[0])(
            objective=objective.xgboost_sklearn,
            eval_metric=objective.metric.xgboost_sklearn,
            n_estimators=60,
            early_stopping_rounds=5,
            n_jobs=1,
        )
        x.fit(X, y, sample_weight=W, eval_set=[(X[:100], y[:100])], sample_weight_eval_set=[W[:100]], verbose=False)
        values = x.evals_result()["validation_0"][name]
        assert values[-1] < 0.7 * values[0]
        z = getattr(lightgbm, kinds[1])(objective=objective.lightgbm_sklearn, n_estimators=20, n_jobs=1, verbose=-1)
        z.fit(X, y, sample_weight=W, eval_set=[(X[:100], y[:100])], eval_metric=objective.metric.lightgbm_sklearn)
        values = z.evals_result_["valid_0"][name]
        assert values[-1] < 0.8 * values[0]


@pytest.mark.oracle
def test_early_stopping_on_the_metric():
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    objective, y = fl.objective("mse"), Y["mse"]
    train, valid = slice(0, 200), slice(200, 400)
    a, b = xgboost.DMatrix(X[train], y[train]), xgboost.DMatrix(X[valid], y[valid])
    options = {"custom_metric": objective.metric.xgboost, "early_stopping_rounds": 5, "evals": [(b, "v")]}
    common = {"eta": 0.5, "disable_default_eval_metric": 1, "base_score": 0.0, "nthread": 1}
    model = xgboost.train(common, a, 200, obj=objective.xgboost, verbose_eval=False, **options)
    assert model.num_boosted_rounds() < 100
    predicted = model.predict(b, iteration_range=(0, model.best_iteration + 1)).astype(float)
    assert model.best_score == pytest.approx(fl.mse(predicted, b.get_label().astype(float)), rel=1e-6)
    data = lightgbm.Dataset(X[train], y[train])
    model = lightgbm.train(
        {"objective": objective.lightgbm, "learning_rate": 0.5, "verbose": -1, "metric": "none", "num_threads": 1},
        data,
        200,
        valid_sets=[data.create_valid(X[valid], y[valid])],
        feval=objective.metric.lightgbm,
        callbacks=[lightgbm.early_stopping(5, verbose=False)],
    )
    assert model.best_iteration < 100


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:quantile. the second derivative")
@pytest.mark.parametrize(("q", "scale"), [(0.5, 1.0), (0.5, 1e3), (0.9, 1e-3), (0.9, 1.0), (0.9, 1e3)])
def test_quantiles_are_as_good_as_those_whose_leaves_are_renewed(q, scale):
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] ** 2 + rng.normal(size=4000)) * scale
    train, valid = xgboost.DMatrix(x[:2000], y[:2000]), xgboost.DMatrix(x[2000:], y[2000:])
    objective = fl.objective("quantile", q=q)
    common = {"max_depth": 3, "eta": 0.1, "disable_default_eval_metric": 1, "nthread": 1}
    losses = []
    for parameters, obj in (
        ({"objective": "reg:quantileerror", "quantile_alpha": q}, None),
        ({"base_score": float(objective.init_score(y[:2000])[0])}, objective.xgboost),
    ):
        seen = {}
        options = {"custom_metric": objective.metric.xgboost, "evals_result": seen, "verbose_eval": False}
        xgboost.train({**common, **parameters}, train, 200, obj=obj, evals=[(valid, "v")], **options)
        losses.append(min(seen["v"]["quantile"]))
    assert losses[1] < 1.02 * losses[0]


@pytest.mark.parametrize("name", ["mae", "quantile"])
def test_parabolas_lie_above_losses_with_a_kink(name):
    rng = np.random.default_rng(0)
    t, z = 1e3 * rng.normal(size=(2, 50))
    more = {"q": 0.8} if name == "quantile" else {}
    g, h = fl.objective(name, curvature="surrogate", **more).xgboost_sklearn(t, z)
    distance = np.abs(z - t)
    high, low = (1.0, 1.0) if name == "mae" else (0.8, 0.2)
    for i in np.flatnonzero(distance > distance.mean()):
        steps = np.linspace(-3.0, 3.0, 101) * distance[i]
        r = z[i] - t[i]
        value = [max(low * x, -high * x) for x in (r, *(r + steps))]
        above = value[0] + (g[i] * steps + 0.5 * h[i] * steps**2) / distance.mean()
        assert (above >= np.array(value[1:]) - 1e-9 * distance[i]).all()
        # They touch on the other side too: no flatter parabola would do.
        other = value[0] + (g[i] * -2.0 * r + 2.0 * h[i] * r * r) / distance.mean()
        assert other == pytest.approx(max(low * -r, high * r))
    # Another unit of the target gives the same trees: Hessians of no unit, gradients in that of the square.
    smaller = fl.objective(name, curvature="surrogate", **more).xgboost_sklearn(1e-6 * t, 1e-6 * z)
    np.testing.assert_allclose(smaller[0], 1e-6 * g, 1e-9)
    np.testing.assert_allclose(smaller[1], h, 1e-9)


@pytest.mark.oracle
def test_focal_trains_on_rare_positives():
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 4))
    y = (x[:, 0] + 0.5 * rng.normal(size=20_000) > 2.9).astype(float)
    assert 0.003 < y.mean() < 0.008
    with pytest.warns(UserWarning, match="focal: the second derivative is 0 or negative in places"):
        objective = fl.objective("focal", gamma=1.5)
    start = objective.init_score(y)
    data = lightgbm.Dataset(x, y, init_score=start)
    model = lightgbm.train({"objective": objective.lightgbm, "verbose": -1, "num_threads": 1}, data, 30)
    raw = model.predict(x, raw_score=True) + start
    assert fl.focal(raw, y, gamma=1.5) < 0.5 * fl.focal(start, y, gamma=1.5)
    assert (objective.lightgbm_sklearn(y, raw, None)[1] >= 0.0).all()


def test_curvatures():
    y, z = np.array([0.0, 1.0, 5.0]), np.array([1.0, 1.5, 1.0])
    with pytest.warns(UserWarning, match="quantile: the second derivative is 0 .* surrogate is taken"):
        objective = fl.objective("quantile:q=.9")
    assert (objective.xgboost_sklearn(y, z)[1] > 0.0).all()
    assert (fl.objective("quantile", q=0.9, curvature="exact").xgboost_sklearn(y, z)[1] == 0.0).all()
    assert fl.objective("huber", curvature="surrogate").curvature == "surrogate"
    for name in ("mse", "bce_with_logits", "poisson", "gamma", "tweedie", "cross_entropy", "expectile", "log_cosh"):
        assert fl.objective(name).curvature == "exact"


def test_init_score():
    y = np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(fl.objective("mse").init_score(y), 3.0, rtol=1e-12)
    np.testing.assert_allclose(fl.objective("mse").init_score(y, np.array([1.0, 1.0, 0.0])), 1.5, rtol=1e-12)
    np.testing.assert_allclose(fl.objective("poisson").init_score(y), np.log(3.0), rtol=1e-12)
    labels = np.array([0.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(fl.objective("bce_with_logits").init_score(labels), np.log(3.0), rtol=1e-12)
    score = fl.objective("cross_entropy").init_score(np.array([0, 1, 1, 2]))
    assert score.shape == (4, 3)
    np.testing.assert_allclose(np.exp(score[0]) / np.exp(score[0]).sum(), [0.25, 0.5, 0.25], rtol=1e-9)
    score = fl.objective("cross_entropy").init_score(np.array([0, 1, 1, 2]), np.array([1.0, 2.0, 0.0, 1.0]))
    np.testing.assert_allclose(np.exp(score[0]) / np.exp(score[0]).sum(), [0.25, 0.5, 0.25], rtol=1e-9)
    with pytest.raises(ValueError, match=r"cross_entropy: target\[0\] is -1; allowed: 0 to 2"):
        fl.objective("cross_entropy").init_score(np.array([-1, 1, 1, 2]))


def test_labels_of_margins_and_classes():
    objective = fl.objective("squared_hinge", curvature="surrogate")
    z = np.array([0.3, -0.2])
    grad, _ = objective.xgboost_sklearn(np.array([1.0, 0.0]), z)
    np.testing.assert_array_equal(grad, fl.squared_hinge.grad_and_hess(z, np.array([1.0, -1.0]))[0])
    with pytest.raises(ValueError, match=r"cross_entropy: a label is 0\.5; expected the whole numbers"):
        fl.objective("cross_entropy").xgboost_sklearn(np.array([0.5, 1.0]), np.zeros((2, 3)))
    flat = fl.objective("cross_entropy").lightgbm_sklearn(np.array([0.0, 2.0]), np.arange(6.0), None)[0]
    wide = fl.objective("cross_entropy").lightgbm_sklearn(np.array([0.0, 2.0]), np.arange(6.0).reshape(3, 2).T, None)[0]
    np.testing.assert_array_equal(flat, wide.T.ravel())


def test_refusals():
    with pytest.raises(TypeError, match="gaussian_nll: boosting needs a loss of one prediction"):
        fl.objective("gaussian_nll")
    with pytest.raises(TypeError, match="triplet: boosting needs a loss of one prediction"):
        fl.objective("triplet")
    with pytest.raises(ValueError, match="bce takes probabilities; boosting predicts raw scores: bce_with_logits"):
        fl.objective("bce")
    with pytest.raises(ValueError, match="curvature"):
        fl.objective("mse", curvature="none")
