"""Predictions that are probabilities, logits, logarithms or means, for losses that take something else."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from children import command
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss, mean_poisson_deviance

import fastloss as fl
from fastloss.evaluation import InputError, Report

RNG = np.random.default_rng(33)
Z = RNG.normal(size=400) * 4
Y = (RNG.random(400) < expit(Z)).astype(float)
SCORES = RNG.normal(size=(400, 4)) * 3
LABELS = RNG.integers(0, 4, 400)

BINARY = {"logit": Z, "prob": expit(Z), "log-prob": log_expit(Z)}
ROWS = {"logit": SCORES, "prob": softmax(SCORES, axis=1), "log-prob": log_softmax(SCORES, axis=1)}


@pytest.mark.parametrize("given", BINARY)
def test_one_column_for_losses_of_logits_and_of_probabilities(given):
    report = fl.evaluate((BINARY[given], Y), ["bce_with_logits", "brier", "bce"], pred_is=given)
    entropy = log_loss(Y, expit(Z))
    assert report["bce_with_logits"].mean == pytest.approx(entropy, rel=1e-11)
    assert report["bce"].mean == pytest.approx(entropy, rel=1e-11)
    assert report["brier"].mean == pytest.approx(brier_score_loss(Y, expit(Z)), rel=1e-11)
    signs = fl.evaluate((BINARY[given], 2 * Y - 1), ["logistic", "exponential"], pred_is=given)
    assert signs["logistic"].mean == pytest.approx(entropy, rel=1e-11)
    # The exponential loss of half the logit is sqrt((1 - p) / p), with p the probability of the label.
    p = np.where(Y == 1, expit(Z), expit(-Z))
    assert signs["exponential"].mean == pytest.approx(np.mean(np.sqrt((1 - p) / p)), rel=1e-9)


@pytest.mark.parametrize("given", ROWS)
def test_rows_of_classes(given):
    report = fl.evaluate((ROWS[given], LABELS), ["cross_entropy", "nll"], pred_is=given)
    expected = log_loss(LABELS, softmax(SCORES, axis=1))
    assert report["cross_entropy"].mean == pytest.approx(expected, rel=1e-11)
    assert report["nll"].mean == pytest.approx(expected, rel=1e-11)


def test_means_of_counts():
    mean, count = RNG.uniform(0.5, 900, 300), RNG.poisson(3, 300).astype(float)
    report = fl.evaluate((mean, count), ["poisson:full=true", "mse"], pred_is="mean")
    # Half the deviance is the difference of the loss from its least value, at the count.
    least = fl.evaluate((np.maximum(count, 1e-300), count), "poisson:full=true", pred_is="mean")
    half = mean_poisson_deviance(count, mean) / 2
    assert report["poisson:full=true"].mean - least["poisson:full=true"].mean == pytest.approx(half, rel=0.01)
    assert report["mse"].mean == pytest.approx(np.mean((mean - count) ** 2), rel=1e-12)


def test_probabilities_of_0_and_1_are_exact():
    p, y = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0, 1.0])
    report = fl.evaluate((p, y), ["bce_with_logits", "focal", "brier"], pred_is="prob", on_invalid="skip")
    assert (report["bce_with_logits"].max, report["bce_with_logits"].non_finite) == (0.0, 2)
    assert (report["focal"].max, report["brier"].mean) == (0.0, 0.5)


def test_warned_where_all_predictions_could_be_probabilities():
    takes = 'bce_with_logits takes logits, and all predictions lie in [0, 1]; pred_is="prob" converts them'
    report = fl.evaluate((expit(Z), Y), ["bce_with_logits", "brier", "mse"])
    (warning,) = report.warnings()
    assert warning.startswith(takes)
    assert repr(report).endswith(warning)
    assert Report.from_json(report.to_json()).warnings() == [warning]
    sound = fl.evaluate((np.append(expit(Z), 1.5), np.append(Y, 1.0)), "bce_with_logits")
    assert sound.warnings() == []
    part = fl.evaluate((expit(Z), Y), "bce_with_logits")
    assert part.merge(sound).warnings() == sound.merge(part).warnings() == []
    assert part.merge(part).warnings() == part.warnings() == [warning]
    assert fl.evaluate((expit(Z), Y), "bce_with_logits", pred_is="logit").warnings() == []


@pytest.mark.parametrize(("scores", "count"), [(softmax(SCORES, axis=1), 1), (expit(SCORES), 0), (SCORES, 0)])
def test_rows_that_could_be_probabilities_sum_to_one(scores, count):
    assert len(fl.evaluate((scores, LABELS), "cross_entropy").warnings()) == count


@pytest.mark.parametrize(
    ("pred", "loss", "given", "message"),
    [
        ([0.5, 1.25], "bce_with_logits", "prob", "row 1: the prediction is 1.25; expected a probability, 0 to 1"),
        ([-1.0, 0.5], "brier", "log-prob", "row 1: the prediction is 0.5; expected the logarithm of a probability"),
        ([1.0, 0.0], "poisson", "mean", "row 1: the prediction is 0; expected a mean above 0"),
        ([0.5, 0.5], "hinge", "prob", "hinge takes margins, and no probability stands for one"),
        ([0.5, 0.5], "mse", "odds", "pred_is is 'odds'; allowed: prob, logit, log-prob, mean"),
        ([0.5, 2.5], "brier", "", "allowed: [0, 1]; if predictions are logits, say so: pred_is='logit'"),
        ([0.5, 900.0], "poisson", "", "poisson is inf here, of finite inputs; if predictions are means"),
    ],
)
def test_refusals(pred, loss, given, message):
    with pytest.raises(InputError) as refused:
        fl.evaluate((np.array(pred), np.array([1.0, 1.0])), loss, pred_is=given)
    assert message in str(refused.value)


def test_the_command_names_options(tmp_path):
    pq.write_table(pa.table({"p": expit(Z), "z": Z, "y": Y}), tmp_path / "a.parquet")

    def said(*options):
        return command("eval", tmp_path / "a.parquet", "-t", "y", "-l", *options).stderr

    assert said("bce_with_logits", "-p", "p").startswith("warning: bce_with_logits takes logits, and all predictions")
    assert "--pred-is prob converts" in said("bce_with_logits", "-p", "p")
    assert said("brier", "-p", "z").endswith("if predictions are logits, say so: --pred-is logit\n")
    assert "has no column 'q' for --pred; " in said("mse", "-p", "q")
    assert said("bce_with_logits", "-l", "brier", "-p", "p", "--pred-is", "prob") == ""
