"""Arrays of torch and of other array libraries, against the same call with NumPy arrays."""

import math

import numpy as np
import pytest
from array_likes import Exporter
from layout_cases import (
    ELEMENTWISE,
    draw,
    draw_rows,
    strided,
)

import fastloss as fl

pytestmark = pytest.mark.jit


def test_tensors():
    torch = pytest.importorskip("torch")
    p, t = draw(ELEMENTWISE["bce_with_logits"], (30, 20), "float32")
    tensors = {
        "plain": (torch.from_numpy(p), torch.from_numpy(t)),
        "transposed": (torch.from_numpy(p.T.copy()).T, torch.from_numpy(t.T.copy()).T),
        "strided": (torch.from_numpy(strided(p)), torch.from_numpy(strided(t))),
        "target of NumPy": (torch.from_numpy(p), t),
        "detached": (torch.from_numpy(p).requires_grad_().detach(), torch.from_numpy(t)),
    }
    expected_value, expected = fl.bce_with_logits.value_and_grad(p, t)
    for name, (a, b) in tensors.items():
        before = a.clone(), torch.as_tensor(b).clone()
        value, grad = fl.bce_with_logits.value_and_grad(a, b)
        assert isinstance(grad, torch.Tensor), name
        assert grad.dtype == torch.float32
        assert value == expected_value
        assert np.array_equal(grad.numpy(), expected)
        each = fl.bce_with_logits(a, b, reduction="none")
        assert isinstance(each, torch.Tensor)
        assert each.shape == (30, 20)
        g, h = fl.bce_with_logits.grad_and_hess(a, b)
        assert isinstance(g, torch.Tensor)
        assert isinstance(h, torch.Tensor)
        out = torch.zeros(20, 30).T if name == "transposed" else torch.zeros(30, 20)
        for _ in range(2):
            assert fl.bce_with_logits.value_and_grad(a, b, out=out)[1] is out
        assert np.array_equal(out.numpy(), expected)
        assert torch.equal(a, before[0])
        assert torch.equal(torch.as_tensor(b), before[1])


def test_tensors_against_torch():
    torch = pytest.importorskip("torch")
    z, y = draw_rows(30, 6)
    tensor = torch.from_numpy(z).requires_grad_()
    labels = torch.from_numpy(y)
    expected = torch.nn.functional.cross_entropy(tensor, labels)
    expected.backward()
    value, grad = fl.cross_entropy.value_and_grad(tensor.detach(), labels)
    assert math.isclose(value, expected.item(), rel_tol=1e-6)
    torch.testing.assert_close(grad, tensor.grad)
    out = torch.empty_like(grad)
    assert fl.cross_entropy.value_and_grad(tensor.detach(), labels, out=out)[1] is out
    assert torch.equal(out, grad)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_tensors(kind):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, kind)
    p, t = draw(ELEMENTWISE["mse"], (64,), "float32")
    a, b = torch.from_numpy(p).to(dtype), torch.from_numpy(t)
    wide = a.double().numpy()
    value, grad = fl.mse.value_and_grad(a, b)
    assert math.isclose(value, np.mean((wide - t) ** 2), rel_tol=1e-5)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad.double().numpy(), (wide - t) / 32, rtol=2**-7, atol=1e-4)
    each = fl.mse(a, b, reduction="none")
    assert each.dtype == dtype
    if kind == "bfloat16":
        out = np.zeros(64, np.float32)
        assert fl.mse.value_and_grad(a, b, out=out)[1] is out
        np.testing.assert_allclose(out, (wide - t) / 32, rtol=1e-5)


def test_other_array_libraries():
    p, t = draw(ELEMENTWISE["mse"], (10,), "float32")
    value, grad = fl.mse.value_and_grad(Exporter(p), Exporter(t))
    assert value == fl.mse(p, t)
    assert isinstance(grad, np.ndarray)
