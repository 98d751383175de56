"""Losses of several tasks: dictionaries in and out, weights at the call, balancing, errors."""

import pickle

import numpy as np
import pytest

import fastloss as fl

RANDOM = np.random.default_rng(0)
GIVEN = {"price": RANDOM.standard_normal(20), "click": RANDOM.standard_normal((20, 2))}
GOALS = {"price": RANDOM.standard_normal(20), "click": (RANDOM.random((20, 2)) > 0.5).astype(float)}
TASKS = fl.tasks({"price": (fl.mse, 2.0), "click": (fl.bce_with_logits, 0.5)})
P = 1 / (1 + np.exp(-GIVEN["click"]))
LOSSES = {
    "price": ((GIVEN["price"] - GOALS["price"]) ** 2).mean(),
    "click": -np.log(np.where(GOALS["click"] == 1, P, 1 - P)).mean(),
}
SLOPES = {"price": 2 * (GIVEN["price"] - GOALS["price"]) / 20, "click": (P - GOALS["click"]) / 40}


def test_value_gradients_and_losses():
    value, grads, losses = TASKS.value_and_grad(GIVEN, GOALS, parts=True)
    assert losses == pytest.approx(LOSSES)
    assert value == pytest.approx(2 * LOSSES["price"] + 0.5 * LOSSES["click"])
    np.testing.assert_allclose(grads["price"], 2 * SLOPES["price"])
    np.testing.assert_allclose(grads["click"], 0.5 * SLOPES["click"])
    assert TASKS(GIVEN, GOALS) == pytest.approx(value)
    assert TASKS(GIVEN, GOALS, parts=True) == (TASKS(GIVEN, GOALS), losses)
    out = {"click": np.empty((20, 2))}
    assert TASKS.value_and_grad(GIVEN, GOALS, out=out)[1]["click"] is out["click"]
    np.testing.assert_array_equal(out["click"], grads["click"])


def test_weights_at_the_call_and_balancing():
    value, grads = TASKS.value_and_grad(GIVEN, GOALS, weights={"click": 3.0})
    assert value == pytest.approx(2 * LOSSES["price"] + 3 * LOSSES["click"])
    np.testing.assert_allclose(grads["click"], 3 * SLOPES["click"])
    assert TASKS.bind(weights={"click": 3.0})(GIVEN, GOALS) == pytest.approx(value)
    _, losses = TASKS(GIVEN, GOALS, parts=True)
    weights = fl.balance.STCH(mu=0.1).weights(losses=list(losses.values()))
    value, grads = TASKS.value_and_grad(GIVEN, GOALS, weights=weights)
    assert value == pytest.approx(weights @ list(LOSSES.values()))
    np.testing.assert_allclose(grads["price"], weights[0] * SLOPES["price"])


def test_options_of_all_tasks_and_of_one():
    total = TASKS(GIVEN, GOALS, reduction="sum")
    assert total == TASKS.bind(reduction="sum")(GIVEN, GOALS)
    assert total == pytest.approx(2 * 20 * LOSSES["price"] + 0.5 * 40 * LOSSES["click"])
    weight = RANDOM.random(20)
    found = TASKS(GIVEN, GOALS, weight={"price": weight}, parts=True)[1]
    assert found["price"] == pytest.approx(np.average((GIVEN["price"] - GOALS["price"]) ** 2, weights=weight))
    assert found["click"] == pytest.approx(LOSSES["click"])
    robust = fl.tasks({"price": fl.huber, "fair": fl.mse + 2 * fl.demographic_parity})
    given, goals = {**GIVEN, "fair": GIVEN["price"]}, {"price": GOALS["price"], "fair": GOALS["price"]}
    del given["click"]
    group = np.arange(20) % 2
    value = robust(given, goals, delta=0.5, group=group)
    fair = LOSSES["price"] + 2 * fl.demographic_parity(GIVEN["price"], group)
    assert value == pytest.approx(fl.huber(GIVEN["price"], GOALS["price"], delta=0.5) + fair)


def test_texts_pickles_and_equality():
    assert repr(TASKS) == "fastloss.tasks({'price': (fastloss.mse, 2), 'click': (fastloss.bce_with_logits, 0.5)})"
    assert eval(repr(TASKS), {"fastloss": fl}) == TASKS
    again = pickle.loads(pickle.dumps(TASKS))
    assert again == TASKS
    assert hash(again) == hash(TASKS)
    assert again.names == ("price", "click")
    assert (again.losses["price"], again.weights["click"]) == (fl.mse, 0.5)
    assert TASKS.bind(weights={"click": 1.0}) != TASKS
    with pytest.raises(AttributeError, match="immutable"):
        TASKS.names = ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fl.tasks([fl.mse]), "tasks takes a dictionary of losses"),
        (lambda: fl.tasks({"a": 3.0}), r"tasks a is 3.0; expected a loss or \(loss, weight\)"),
        (lambda: fl.tasks({"a": (fl.mse, "b")}), "the weight of a is 'b'; expected a finite number"),
        (lambda: fl.tasks({"a": fl.mse + fl.l1.on("w")}), "a has a penalty on parameters"),
        (lambda: TASKS(GIVEN["price"], GOALS), "predictions is array.*; expected a dictionary by tasks, price, click"),
        (lambda: TASKS({"price": 0}, GOALS), "predictions lack 'click'; the tasks are price, click"),
        (lambda: TASKS({**GIVEN, "other": 0}, GOALS), "predictions names 'other'; the tasks are price, click"),
        (lambda: TASKS(GIVEN, {"price": GOALS["price"]}), "bce_with_logits needs a target"),
        (lambda: TASKS(GIVEN, GOALS, weights=[1.0]), r"weights is \[1.0\]; expected a dictionary by tasks"),
        (lambda: TASKS(GIVEN, GOALS, weights=[1.0, None]), r"weights\['click'\] is None; expected a finite number"),
        (lambda: TASKS(GIVEN, GOALS, gama=1.0), "gama is an option of no task"),
        (lambda: TASKS(GIVEN, GOALS, reduction="none"), "reduction is 'none', and tasks have one loss each"),
    ],
)
def test_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
