"""Blends against SciPy's optimum on the simplex, and what their intervals cover."""

import json

import numpy as np
import pytest

import fastloss as fl

optimize = pytest.importorskip("scipy.optimize")
RNG = np.random.default_rng(3)
N = 400
Y = RNG.standard_normal(N)
MODELS = np.column_stack([Y + RNG.standard_normal(N), 0.5 * Y + 0.5 * RNG.standard_normal(N), -Y, np.zeros(N)])
LABELS = (Y > 0.3) * 1.0
PROBABILITIES = 1.0 / (1.0 + np.exp(-2.0 * MODELS))


def least(objective, m):
    """Return the minimum over weights of sum 1, by SciPy."""
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1.0}
    options = {"ftol": 1e-14, "maxiter": 1000}
    starts = [np.full(m, 1.0 / m), *(0.9 * np.eye(m) + 0.1 / m)]
    found = [
        optimize.minimize(
            objective, w, bounds=[(0.0, 1.0)] * m, constraints=constraint, method="SLSQP", options=options
        )
        for w in starts
    ]
    return min(f.fun for f in found)


@pytest.mark.parametrize(
    ("loss", "predictions", "target"),
    [("mse", MODELS, Y), ("huber:delta=.5", MODELS, Y), ("log_loss", PROBABILITIES, LABELS), ("mae", MODELS, Y)],
)
def test_weights_are_the_minimum(loss, predictions, target):
    weight = RNG.random(N)
    found = fl.blend(predictions, target, loss, weight=weight, bootstrap=0)
    made = fl.huber.bind(delta=0.5) if "huber" in loss else fl.LOSSES[loss]

    def objective(w):
        return made(np.clip(predictions @ w, predictions.min(), predictions.max()), target, weight=weight)

    best = least(objective, 4)
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-14)
    assert found.weights.min() >= 0.0
    assert found.loss <= best + 1e-6 * abs(best)
    assert found.losses == pytest.approx([made(p.copy(), target, weight=weight) for p in predictions.T])


def test_rows_of_scores():
    labels = np.digitize(Y, [-0.5, 0.5])
    scores = {"a": RNG.standard_normal((N, 3)) + 2.0 * np.eye(3)[labels], "b": RNG.standard_normal((N, 3))}
    scores["c"] = RNG.standard_normal((N, 3)) + np.eye(3)[labels]
    found = fl.blend(scores, labels, "cross_entropy", bootstrap=0)
    stacked = np.stack(list(scores.values()))
    best = least(lambda w: fl.cross_entropy(np.tensordot(w, stacked, axes=1), labels), 3)
    assert found.loss <= best + 1e-6 * best
    assert found.names == ("a", "b", "c")
    assert fl.cross_entropy(found.predict(scores), labels) == pytest.approx(found.loss)


def test_models_of_noise_gain_nothing_out_of_fold():
    target = RNG.standard_normal(100)
    noise = RNG.standard_normal((100, 30)) * 0.5
    found = fl.blend(np.column_stack([np.zeros(100), noise]), target, "mse", bootstrap=0)
    # In the sample, weights on noise always help.
    assert found.loss < fl.mse(np.zeros(100), target) < found.out_of_fold
    assert found.gain_interval[0] <= 0.0
    assert "cannot be told from" in str(found) or "loses to" in str(found)


def test_intervals_cover_the_weights():
    """Of two unbiased models, the best weights are in inverse proportion to the variances: 0.8 and 0.2."""
    inside = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = rng.standard_normal(200)
        models = np.column_stack([y + rng.standard_normal(200), y + 2.0 * rng.standard_normal(200)])
        low, high = fl.blend(models, y, "mse", bootstrap=100, folds=2, seed=seed).intervals[0]
        inside += low <= 0.8 <= high
    # Fewer than 15 of 20 have a probability below 0.001 at a coverage of 95%.
    assert inside >= 15


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((MODELS[:, :1], Y, "mse"), {}, "blend: predictions holds 1 models; expected at least two"),
        ((MODELS, Y[:-1], "mse"), {}, "blend: target has 399 samples; expected 400"),
        ((MODELS, Y, "gaussian_nll"), {}, "blend: loss is gaussian_nll"),
        ((MODELS, Y, "mse"), {"folds": 1}, "folds is 1"),
        ((MODELS, Y, "log_loss"), {}, r"log_loss: (prediction|target)"),
        ((MODELS * np.nan, Y, "mse"), {}, r"predictions\[0\] holds NaN"),
    ],
)
def test_errors(arguments, options, message):
    with (
        pytest.raises(ValueError, match=message)
        if "gaussian" not in message
        else pytest.raises(TypeError, match=message)
    ):
        fl.blend(*arguments, **options)


def test_command(tmp_path, capsys):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    from fastloss.train.blend_command import Request, blend_command

    columns = {"y": LABELS, **{f"model_{j}": PROBABILITIES[:, j] for j in range(4)}}
    path = str(tmp_path / "data.parquet")
    parquet.write_table(arrow.table(columns), path)
    request = Request([path], ["model_*"], "y", "log_loss", None, 5, 0, None)
    blend_command(request)
    lines = capsys.readouterr().out.splitlines()
    found = fl.blend(PROBABILITIES, LABELS, "log_loss", bootstrap=0)
    assert [line.split()[:2] for line in lines[1:5]] == [
        [f"model_{j}", f"{w:.3f}"] for j, w in enumerate(found.weights)
    ]
    blend_command(request._replace(json="-"))
    assert json.loads(capsys.readouterr().out)["out_of_fold"] == pytest.approx(found.out_of_fold)
    with pytest.raises(ValueError, match="blend: predictions holds 1 models"):
        blend_command(request._replace(pred=["model_0"]))
