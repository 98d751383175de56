"""Calls written as for other libraries: integers, other names of arguments, no arrays, labels in another code; help."""

import doctest
import inspect
import math

import numpy as np
import pytest
from refusals import P, T, Y, Z, refuse
from registry_calls import NAMES, calls, flat

import fastloss as fl

each_loss = pytest.mark.parametrize("name", NAMES)
METHODS = ["value_and_grad", "grad_and_hess", "bind", "details"]


def usual_call(name):
    """A call of a loss with two or three entries along each axis."""
    every = list(calls(name))
    return every[0] if fl.LOSSES[name].record.family == "arrays" else every[-1]


def integers(domain, shape):
    """Integers of a domain: 0 and 1 where these belong to it."""
    found = [v for v in (1, 0) if not domain.outside(np.float64(v))] or [2, 3]
    return np.resize(np.array(found), shape)


# Integers ------------------------------------------------------------------------------------------------------------


@each_loss
def test_integer_predictions_are_computed_in_float64(name):
    loss, record = fl.LOSSES[name], fl.LOSSES[name].record
    args, named = usual_call(name)
    if record.family == "arrays":
        named = dict(zip(record.inputs, eval(f"({record.example},)", {"np": np}), strict=False))
        whole = {k: integers(record.inputs[k].domain, np.shape(named[k])) for k in record.predictions if k in named}
        got = loss.value_and_grad(**{**named, **whole})
        expected = loss.value_and_grad(**{**named, **{k: v.astype(np.float64) for k, v in whole.items()}})
    else:
        given = args[0] if isinstance(args[0], tuple) else (args[0],)
        parts = [integers(d, x.shape) for x, d in zip(given, record.prediction_domains, strict=True)]
        floats = [x.astype(np.float64) for x in parts]
        whole, wide = (tuple(x) if len(x) > 1 else x[0] for x in (parts, floats))
        got, expected = loss.value_and_grad(whole, *args[1:], **named), loss.value_and_grad(wide, *args[1:], **named)
    for a, b in zip(flat(got), flat(expected), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "uint64"])
def test_integer_dtypes(dtype):
    z, t = np.array([1, 2, 5], dtype), np.array([1.0, 4.0, 2.0])
    assert fl.mse(z, t) == (0 + 4 + 9) / 3
    assert fl.mse(z, t.astype(dtype)) == (0 + 4 + 9) / 3
    _, grad = fl.mse.value_and_grad(z, t)
    np.testing.assert_array_equal(grad, np.array([0.0, -4.0, 6.0]) / 3)


def test_lists_of_integers():
    assert fl.mae([1, 2, 3], [2, 2, 5]) == 1.0
    value, grad = fl.cross_entropy.value_and_grad([[0, 0, 0]], [2])
    assert math.isclose(value, math.log(3), rel_tol=1e-15)
    np.testing.assert_allclose(grad, [[1 / 3, 1 / 3, -2 / 3]], rtol=1e-15)
    assert fl.giou([[0, 0, 2, 2]], [[0, 0, 2, 2]]) == 0.0


def test_integer_targets_of_float_predictions_stay_labels():
    z = Z.astype(np.float32)
    loss, grad = fl.cross_entropy.value_and_grad(z, Y)
    assert grad.dtype == np.float32
    assert loss == fl.cross_entropy(z, [2, 0])


def test_integers_beside_floats_in_float64():
    mean, scale = np.zeros(3, np.float32), np.array([1, 2, 4])
    value, (by_mean, by_scale) = fl.laplace_nll.value_and_grad((mean, scale), np.ones(3))
    assert (by_mean.dtype, by_scale.dtype) == (np.float32, np.float64)
    expected = np.mean(np.log(2.0 * scale) + 1.0 / scale)
    assert math.isclose(value, expected, rel_tol=1e-15)


def test_integers_under_a_level_per_column_a_risk_and_axis():
    q = fl.quantile.bind(q=[0.1, 0.9])
    z, t = np.array([[1, 3], [2, 2]]), np.array([2, 2])
    assert math.isclose(q(z, t), (0.1 * 1 + 0.1 * 1) / 4, rel_tol=1e-15)
    assert fl.mse(z[:, 1], t, reduction=fl.risk.CVaR(0.5)) == 1.0
    assert fl.cross_entropy(z.T, t - 1, axis=0) == fl.cross_entropy(z.astype(float), t - 1)


def test_integer_logits_of_sequences():
    logits, labels = np.array([[[1, 0], [0, 2]]]), [[0, 1]]
    expected = -math.log1p(math.exp(-1)) - math.log1p(math.exp(-2))
    np.testing.assert_allclose(fl.sequence_log_probs(logits, labels), [expected], rtol=1e-14)


# Names of other libraries --------------------------------------------------------------------------------------------


@each_loss
def test_the_names_of_other_libraries_lead_to_ours(name):
    loss = fl.LOSSES[name]
    own = [*loss.record.inputs, *loss.record.parameters]
    for other in ("y_true", "y_pred", "sample_weight"):
        with pytest.raises(TypeError) as caught:
            loss(**{other: P})
        text = str(caught.value)
        if other in own:
            assert f"{other} is not a parameter" not in text
            continue
        assert text.startswith(f"{name}: {other} is not a parameter; ")
        hint = text.partition("; ")[2]
        assert (hint == "did you mean weight?") if other == "sample_weight" else "(" in hint


def test_the_text_names_the_order():
    order = "The order is (prediction, target)"
    refuse(TypeError, f"y_true is not a parameter; did you mean target? {order}", fl.mse, y_true=T, y_pred=P)
    refuse(TypeError, f"y_pred is not a parameter; did you mean prediction? {order}", fl.mse, y_pred=P, y_true=T)
    refuse(TypeError, f"targets is not a parameter; did you mean target? {order}", fl.mse.value_and_grad, P, targets=T)
    refuse(TypeError, "sample_weight is not a parameter; did you mean weight?", fl.mse, P, T, sample_weight=T)
    text = "y_true is not a parameter; the arrays are (anchor, positive, negative)"
    refuse(TypeError, text, fl.triplet, P, y_true=P)
    text = "y_pred is not a parameter; the arrays are ((mean, var), target)"
    refuse(TypeError, text, fl.gaussian_nll, y_pred=P, target=T)
    refuse(TypeError, "dim is not a parameter; did you mean axis?", fl.cross_entropy, Z, Y, dim=1)


# Without arrays ------------------------------------------------------------------------------------------------------


def test_a_call_without_arrays_may_mean_bind():
    text = "huber needs prediction and target; it takes (prediction, target)"
    bind = "; for a loss with these defaults type fl.huber.bind(delta=2.0)"
    refuse(TypeError, text, fl.huber)
    refuse(TypeError, text + bind, fl.huber, delta=2)
    refuse(TypeError, text + bind, fl.huber.value_and_grad, delta=2)
    refuse(TypeError, text + bind, fl.huber.grad_and_hess, delta=2)
    refuse(TypeError, f"{text}{bind[:-1]}, backend='cuda')", fl.huber, delta=2, backend="cuda")
    text = (
        "cross_entropy needs prediction and target; it takes (prediction, target); for a loss with these defaults type"
    )
    refuse(TypeError, f"{text} fl.cross_entropy.bind(label_smoothing=0.1)", fl.cross_entropy, label_smoothing=0.1)
    text = "triplet needs anchor, positive and negative; it takes (anchor, positive, negative)"
    refuse(TypeError, f"{text}; for a loss with these defaults type fl.triplet.bind(margin=2.0)", fl.triplet, margin=2)


@each_loss
def test_every_loss_says_which_arrays_it_needs(name):
    loss = fl.LOSSES[name]
    for function in (loss, loss.value_and_grad):
        with pytest.raises(fl.CallTypeError, match=rf"^{name} needs .*; it takes \("):
            function()


# Labels in another code ----------------------------------------------------------------------------------------------


def test_labels_from_one():
    text = (
        "cross_entropy: target[0] is 3; allowed: 0 to 2, or -100 (ignore_index); for labels from 1 to 3 pass target - 1"
    )
    refuse(ValueError, text, fl.cross_entropy, Z, np.array([3, 1]))
    refuse(ValueError, text, fl.cross_entropy, np.concatenate([Z, Z]), np.array([3, 1, -100, 2]))
    refuse(ValueError, text.partition("; for")[0], fl.cross_entropy, Z, np.array([3, 0]))
    refuse(ValueError, text.partition("; for")[0].replace("is 3", "is 4"), fl.cross_entropy, Z, np.array([4, 1]))
    text = "linear_cross_entropy: labels[1] is 4; allowed: 0 to 3, or -100 (ignore_index)"
    more = "; for labels from 1 to 4 pass labels - 1"
    refuse(ValueError, text + more, fl.linear_cross_entropy, np.ones((2, 3)), np.ones((4, 3)), np.array([1, 4]))


def test_lengths_from_one_are_no_labels():
    with pytest.raises(ValueError, match=r"lengths\[0\] is 4; allowed: 0 to 3$"):
        fl.sequence_cross_entropy(np.zeros((1, 3, 2)), np.zeros((1, 3), int), lengths=[4])


def test_one_hot_integers_and_columns():
    shape = "target has shape {}; expected (2,), one entry per row of the prediction; "
    hint = "for one-hot rows pass target.argmax(-1)"
    one_hot, either = np.eye(3, dtype=int)[Y], f"{hint}, or target.astype(float) as probabilities"
    refuse(ValueError, shape.format("(2, 3)") + either, fl.cross_entropy, Z, one_hot)
    refuse(ValueError, shape.format("(2, 3)") + hint, fl.multi_margin, Z, one_hot)
    assert fl.cross_entropy(Z, one_hot.argmax(-1)) == fl.cross_entropy(Z, Y)
    assert math.isclose(fl.cross_entropy(Z, one_hot.astype(float)), fl.cross_entropy(Z, Y), rel_tol=1e-14)
    refuse(ValueError, shape.format("(2, 1)") + "pass target[..., 0]", fl.cross_entropy, Z, Y[:, None])


def test_images_with_classes_along_the_second_axis():
    images, labels = np.zeros((2, 3, 4, 5)), np.zeros((2, 4, 5), int)
    text = "target has shape (2, 4, 5); expected (2, 3, 4), one entry per row of the prediction"
    refuse(ValueError, f"{text}; for classes along another axis pass axis=1", fl.cross_entropy, images, labels)
    assert math.isclose(fl.cross_entropy(images, labels, axis=1), math.log(3), rel_tol=1e-14)
    text = "target has shape (2, 3, 4, 5); expected (2, 4, 5), one entry per row of the prediction; for one-hot rows"
    text += " pass target.argmax(1), or target.astype(float) as probabilities"
    refuse(ValueError, text, fl.cross_entropy, images, np.zeros(images.shape, int), axis=1)


def test_signs_and_bits():
    text = "target[0] is -1; allowed: [0, 1]; for labels -1 and 1 pass (target + 1) / 2"
    refuse(ValueError, text, fl.bce_with_logits, P[:2], np.array([-1.0, 1.0]))
    text = "target[1] is 0; allowed: {-1, +1}; for labels 0 and 1 pass 2 * target - 1"
    refuse(ValueError, text, fl.hinge, P, T)


# Signatures and help -------------------------------------------------------------------------------------------------


def test_signatures_written_out():
    shown = "(prediction, target, *, weight=None, reduction='mean', divisor=None, delta=1.0, backend=None)"
    assert str(inspect.signature(fl.huber)) == shown
    wide = fl.huber.bind(delta=2)
    assert str(inspect.signature(wide)) == shown.replace("delta=1.0", "delta=2.0")
    shown = "(prediction, target, *, weight=None, curvature='exact', out=None, delta=2.0, backend=None)"
    assert str(inspect.signature(wide.grad_and_hess)) == shown
    assert str(inspect.signature(fl.huber.bind)) == "(*, delta=1.0, backend=None, reduction='mean')"
    shown = (
        "(prediction, target, mask=None, class_weight=None, *, weight=None, reduction='mean', divisor=None, out=None"
    )
    assert str(inspect.signature(fl.dice.value_and_grad)).startswith(shown)
    assert "ignore_index=-100, axis=-1" in str(inspect.signature(fl.cross_entropy.details))
    assert "alpha=0.25" in str(inspect.signature(fl.focal))
    assert "alpha=None" in str(inspect.signature(fl.focal.bind(alpha=None).value_and_grad))
    both = 0.5 * fl.mse + fl.huber
    assert "parts=False, mse_weight=0.5" in str(inspect.signature(both.value_and_grad))
    assert "reduction='mean'" in str(inspect.signature(both))
    assert "reduction='sum'" in str(inspect.signature(fl.huber.bind(reduction="sum").value_and_grad))
    mixed = fl.bce_with_logits + 0.5 * fl.dice
    assert str(inspect.signature(mixed.value_and_grad)).startswith("(prediction: Any = None, target: Any = None")
    assert "dice_weight=0.5" in str(inspect.signature(mixed.bind))
    assert str(inspect.signature(type(fl.huber).value_and_grad)).startswith("(self, prediction")


@each_loss
def test_a_signature_takes_the_calls_of_its_loss(name):
    loss = fl.LOSSES[name]
    for function in (loss, loss.value_and_grad):
        signature = inspect.signature(function)
        for args, named in calls(name):
            signature.bind(*(x for x in args if x is not None), **named)
        for parameter in loss.record.parameters:
            meant = loss.record.parameters[parameter].meant(loss.defaults[parameter])
            assert signature.parameters[parameter].default == meant
        with pytest.raises(TypeError):
            signature.bind(*usual_call(name)[0], unheard_of=1)


@pytest.mark.parametrize("name", ["huber", "cross_entropy", "triplet", "gaussian_nll", "distillation"])
def test_every_keyword_of_a_signature_is_taken(name):
    """The default of each keyword, given by name, changes nothing."""
    loss = fl.LOSSES[name]
    args, named = usual_call(name)
    for function in (loss, loss.value_and_grad):
        shown = inspect.signature(function).parameters.values()
        usual = {p.name: p.default for p in shown if p.kind is p.KEYWORD_ONLY and p.name not in loss.record.predictions}
        for a, b in zip(flat(function(*args, **named, **usual)), flat(function(*args, **named)), strict=True):
            np.testing.assert_array_equal(a, b)


@each_loss
def test_the_help_of_every_method_is_whole(name):
    loss = fl.LOSSES[name]
    for method in METHODS:
        if not hasattr(loss, method):
            continue
        bound = getattr(loss, method)
        text = inspect.getdoc(bound)
        for section in ("Parameters", "Returns", "Raises"):
            assert f"\n{section}\n{'-' * len(section)}\n" in text
        for parameter in inspect.signature(bound).parameters.values():
            listed = (
                parameter.kind is not parameter.VAR_POSITIONAL and parameter.name not in loss.record.predictions[1:]
            )
            if listed and not (parameter.name == "target" and loss.record.target is None):
                assert f"\n{parameter.name} : " in text, (method, parameter.name)


@pytest.mark.parametrize("name", ["huber", "gaussian_nll", "cross_entropy", "crps_ensemble", "triplet", "l1", "dice"])
def test_the_examples_of_methods_run(name):
    for method in METHODS:
        text = getattr(getattr(fl.LOSSES[name], method, None), "__doc__", None)
        if text:
            examples = doctest.DocTestParser().get_doctest(text, {}, f"{name}.{method}", None, None)
            assert doctest.DocTestRunner().run(examples).failed == 0


def test_methods_of_the_class_and_of_subclasses():
    kind = type(fl.huber)
    assert inspect.isfunction(kind.value_and_grad)
    assert kind.value_and_grad(fl.huber, P, T)[0] == fl.huber(P, T)
    both = 0.5 * fl.mse + fl.mae
    first, again = both.value_and_grad(P, T, parts=True), both.value_and_grad(P, T, parts=True)
    assert len(first) == len(again) == 3
    own = fl.formula("(z - t)**2 * s", s=2.0)
    assert own.value_and_grad(P, T)[0] == 2.0 * fl.mse(P, T)
    assert "s=2.0" in str(inspect.signature(own.value_and_grad))
    assert fl.huber.value_and_grad is fl.huber.value_and_grad
    with pytest.raises(AttributeError, match="immutable"):
        fl.huber.value_and_grad = None
