"""Signatures, docstrings and tensor options of the losses of PyTorch tensors."""

import doctest
import gc
import inspect
import weakref

import pytest

import fastloss as fl
from fastloss.interop import calls

torch = pytest.importorskip("torch")


def test_signatures_have_the_names_of_torch():
    plain = inspect.signature(fl.huber)
    expected = [p for p in plain.parameters.values() if p.name != "backend"]
    assert list(inspect.signature(fl.torch.huber).parameters.values()) == expected
    found = inspect.signature(fl.torch.cross_entropy).parameters
    assert list(found)[:4] == ["prediction", "target", "weight", "sample_weight"]
    assert "class_weight" not in found
    assert found["label_smoothing"].default == 0.0
    assert found["reduction"].kind is inspect.Parameter.KEYWORD_ONLY
    assert "class_weight" in inspect.signature(fl.torch.dice).parameters


@pytest.mark.parametrize("name", ["huber", "cross_entropy", "gaussian_nll", "iou", "dice", "crps_ensemble"])
def test_signatures_bind_what_calls_take(name):
    signature = inspect.signature(getattr(fl.torch, name))
    names = [n for n, p in signature.parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    signature.bind(*names, reduction="sum", divisor=2.0)
    signature.bind(**dict.fromkeys(names, 0), **({"weight": 0}))
    with pytest.raises(TypeError):
        signature.bind(*names, unknown=1.0)


def test_docstrings_speak_of_tensors():
    text = fl.torch.huber.__doc__
    assert text.startswith(fl.huber.record.summary)
    assert "target : Tensor of the same shape, or a scalar" in text
    assert "delta : float, default 1\n" in text
    assert "backend" not in text
    assert "array" not in text.replace("Bool", "")
    text = fl.torch.cross_entropy.__doc__
    assert "\nweight : Tensor (K,), optional\n    Factor of each class." in text
    assert "\nsample_weight : Tensor, optional\n    Factor of each row." in text
    assert text.index("\nweight : ") < text.index("\nsample_weight : ")
    assert "class_weight" not in text


def test_an_axis_that_is_none_is_the_default():
    z, y = torch.randn(2, 3, 4), torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])
    expected = torch.nn.functional.cross_entropy(z, y)
    torch.testing.assert_close(fl.torch.cross_entropy(z, y, axis=None), expected)


@pytest.mark.parametrize("name", ["huber", "cross_entropy", "gaussian_nll", "dice"])
def test_examples_of_docstrings_run(name):
    case = doctest.DocTestParser().get_doctest(getattr(fl.torch, name).__doc__, {}, name, None, None)
    assert len(case.examples) >= 3
    assert doctest.DocTestRunner().run(case).failed == 0


def test_a_tensor_as_divisor():
    p = torch.tensor([1.0, -3.0, 0.5], requires_grad=True)
    t = torch.zeros(3)
    before = calls.kind_of.cache_info().currsize
    divisors = [torch.tensor(float(k)) for k in (2, 3, 4)]
    for k, divisor in zip((2, 3, 4), divisors, strict=True):
        value = fl.torch.huber(p, t, divisor=divisor)
        expected = torch.nn.functional.huber_loss(p, t, reduction="sum") / k
        torch.testing.assert_close(value, expected)
        found, own = (torch.autograd.grad(x, p)[0] for x in (value, expected))
        torch.testing.assert_close(found, own)
    # One kind of call serves them all, and keeps none of the tensors.
    assert calls.kind_of.cache_info().currsize <= before + 1
    kept = weakref.ref(divisors[0])
    del divisors, divisor
    gc.collect()
    assert kept() is None


def test_the_gradient_by_a_divisor_and_its_errors():
    divisor = torch.tensor(4.0, requires_grad=True)
    fl.torch.huber(torch.ones(3), torch.zeros(3), divisor=divisor).backward()
    assert divisor.grad.item() == pytest.approx(-1.5 / 16.0)
    with pytest.raises(ValueError, match="huber: divisor is given with reduction='none'"):
        fl.torch.huber(torch.ones(3), torch.zeros(3), divisor=divisor, reduction="none")
    with pytest.raises(ValueError, match=r"huber: divisor has shape \(2,\); expected one number"):
        fl.torch.huber(torch.ones(3), torch.zeros(3), divisor=torch.ones(2))


def test_tensors_as_parameters_are_read_as_numbers():
    p, t = torch.tensor([1.0, -3.0, 0.5]), torch.zeros(3)
    before = calls.kind_of.cache_info().currsize
    for _ in range(3):
        value = fl.torch.huber(p, t, delta=torch.tensor(2.0))
    torch.testing.assert_close(value, torch.nn.functional.huber_loss(p, t, delta=2.0))
    assert calls.kind_of.cache_info().currsize <= before + 1
