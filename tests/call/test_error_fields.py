"""Errors of every loss: they begin with its name, say which argument is at fault and where, and can be pickled."""

import copy
import pickle

import numpy as np
import pytest
from refusals import jit
from registry_calls import calls

import fastloss as fl


def usual(name):
    """Arguments of a call that every loss takes: the last of the sample calls without an axis of no length."""
    found = [
        (given, named)
        for given, named in calls(name)
        if all(np.size(a) for a in (*given, *named.values()) if a is not None)
    ]
    return found[-1]


def first_input(loss):
    """Name of the first argument, and of the first prediction where a loss takes a tuple of them."""
    record = loss.record
    if record.inputs:
        return next(iter(record.inputs))
    return record.predictions[0] if len(record.predictions) > 1 else "prediction"


def spoilt(given, named):
    """The same arguments with text in the place of the first array."""
    text = np.array(["a"])
    if named:
        return given, {**named, next(iter(named)): text}
    first = (text, *given[0][1:]) if isinstance(given[0], tuple) else text
    return (first, *given[1:]), named


def refusals(loss):
    """Wrong calls of a loss, with the argument at fault."""
    given, named = usual(loss.name)
    bad, bad_named = spoilt(given, named)
    way, both = loss.value_and_grad, {**named}
    yield lambda: loss(*bad, **bad_named), first_input(loss)
    yield lambda: way(*bad, **bad_named), first_input(loss)
    yield lambda: way(*given, **both, weight=np.ones((7, 6, 5, 4, 3, 2))), "weight"
    yield lambda: way(*given, **both, weight="heavy"), "weight"
    yield lambda: way(*given, **both, out="here"), "out"
    yield lambda: loss(*given, **both, reduction="median"), "reduction"
    yield lambda: loss(*given, **both, unheard_of=1.0), "unheard_of"
    yield lambda: loss.bind(backend="tpu"), "backend"
    yield lambda: loss.bind(unheard_of=1.0), "unheard_of"
    for parameter, spec in loss.record.parameters.items():
        if not spec.choices:
            yield lambda p=parameter: loss(*given, **both, **{p: "many"}), parameter
    if loss.record.family == "arrays" or not loss.record.second:
        yield lambda: loss.grad_and_hess(*given, **both), None
    else:
        yield lambda: loss.grad_and_hess(*given, **both, curvature="round"), "curvature"
    if loss.record.family == "arrays":
        yield lambda: loss(), None
        yield lambda: loss(*[1.0] * 12), None
    if loss.record.family == "rows":
        yield lambda: loss(*given, axis=9), "axis"
        yield lambda: loss(*given, axis="rows"), "axis"
        yield lambda: loss(*given, ignore_index=0.5), "ignore_index"
        yield (
            lambda: loss(*given, class_weight=np.ones(9)),
            "class_weight" if loss.record.row_loop.has_classes else None,
        )
        yield lambda: loss(given[0]), None
        yield lambda: loss(0.0, 1), "prediction"


@pytest.mark.parametrize("name", fl.LOSSES)
def test_every_refusal_names_its_loss_and_argument(name):
    for call, argument in refusals(fl.LOSSES[name]):
        with pytest.raises(fl.CallError) as caught:
            call()
        error = caught.value
        assert isinstance(error, (ValueError, TypeError))
        assert (error.loss, error.argument, error.index) == (name, argument, None), str(error)
        assert str(error).startswith(f"{name} " if argument is None else f"{name}: {argument} ")


OUTSIDE = [n for n, loss in fl.LOSSES.items() if loss.record.family != "arrays" and loss.record.target is not None]


@jit
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_target_outside_its_domain_has_its_index(name):
    record = fl.LOSSES[name].record
    (z, target), _ = usual(name)
    target = np.array(target)
    low = -5 if target.dtype.kind == "i" else -1.0
    if target.dtype.kind == "f" and not record.target_domain.outside(low):
        low = 7.0
        if not record.target_domain.outside(low):
            pytest.skip("takes any number")
    index = (0,) * (target.ndim - 1) + (target.shape[-1] - 1,)
    target[index] = low
    with pytest.raises(fl.CallValueError, match=rf"^{name}: target\[") as caught:
        fl.LOSSES[name](z, target)
    assert (caught.value.loss, caught.value.argument, caught.value.index) == (name, "target", index)


@pytest.mark.parametrize("kind", [fl.CallError, fl.CallTypeError, fl.CallValueError, fl.BackendError])
def test_errors_can_be_copied_and_pickled(kind):
    error = kind("is 2; allowed: 1", "weight", (1, 2))
    assert str(error) == "weight[1, 2] is 2; allowed: 1"
    error.loss = "mse"
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert str(other) == str(error) == "mse: weight[1, 2] is 2; allowed: 1"
        assert (other.loss, other.argument, other.index) == ("mse", "weight", (1, 2))
    assert kind("takes no target", loss="mse").without_index().args
    assert str(error.without_index()) == "mse: weight is 2; allowed: 1"


def test_functions_beside_the_losses_name_themselves():
    for call, loss, argument in (
        (lambda: fl.sequence_log_probs(np.zeros((1, 2, 3)), np.zeros((2, 2), int)), "sequence_log_probs", "labels"),
        (lambda: fl.rewards.rouge_n([[1]], [[1]], n=0), "rouge_n", "n"),
        (lambda: fl.rewards.bleu_sentence("a", "b"), "bleu_sentence", "candidates"),
    ):
        with pytest.raises(fl.CallError, match=f"^{loss}: {argument} ") as caught:
            call()
        assert (caught.value.loss, caught.value.argument) == (loss, argument)


def test_a_loss_of_a_combination_keeps_its_name():
    from fastloss.call.errors import naming

    with pytest.raises(fl.CallError, match=r"^mse: ") as caught, naming("combination"):
        fl.mse([1.0], [1.0, 2.0])
    assert caught.value.loss == "mse"
