"""Tensors of torch on the simulated device: host tensors that pose as tensors on a GPU."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.cuda import libraries

torch = pytest.importorskip("torch", reason="needs the peers extra")


class Posing(libraries.Torch):
    """Torch's tensors, all of them on the simulated device."""

    owns = staticmethod(lambda x: isinstance(x, torch.Tensor))

    def device(self, x):
        return 0

    def stream(self, x):
        return 0

    def to_host(self, x):
        return x if x.dtype is torch.bfloat16 else x.numpy()  # NumPy has no name for it

    def address(self, x):
        if x.dtype is torch.bfloat16:
            ml_dtypes = pytest.importorskip("ml_dtypes")
            return self.memory(x.view(torch.uint16)).view(ml_dtypes.bfloat16)
        return self.memory(x)

    @staticmethod
    def memory(x):
        """What lies behind the address, in the order in which it lies there, whatever strides say."""
        return x.as_strided((x.numel(),), (1,)).numpy()


@pytest.fixture(autouse=True)
def posing(monkeypatch):
    monkeypatch.setattr(libraries, "LIBRARIES", (Posing,))


def test_results_are_tensors():
    p, t = torch.arange(5.0, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    loss, grad = fl.mse.value_and_grad(p, t)
    assert (loss.shape, loss.dtype) == ((), torch.float64)
    assert loss.item() == 3.0
    assert torch.allclose(grad, 2 * (p - 1) / 5)
    assert fl.mse(p, t, reduction="none").dtype is torch.float64
    out = torch.zeros(5, dtype=torch.float64)
    assert fl.mse.value_and_grad(p, t, out=out)[1] is out
    assert torch.equal(out, grad)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_formats(dtype):
    kind = getattr(torch, dtype)
    rng = np.random.default_rng(0)
    p, t = (torch.tensor(rng.normal(size=19)).to(kind) for _ in range(2))
    loss, grad = fl.huber.value_and_grad(p, t)
    assert loss.dtype is torch.float32
    assert grad.dtype is kind
    wide = torch.nn.functional.huber_loss(p.double(), t.double())
    assert loss.item() == pytest.approx(wide.item(), rel=1e-6)


def test_what_is_not_laid_out_for_a_kernel_is_converted_by_torch():
    x = torch.arange(12.0).reshape(3, 4)
    d = x.t() - x.t().flip(0)
    assert fl.mse(x.t(), x.t().flip(0).contiguous()).item() == pytest.approx((d * d).mean().item())
    assert fl.mse(x.t(), x.t().double().flip(0)).item() == pytest.approx((d * d).mean().item())
    assert fl.mse(x, x.double() + 1.0).item() == 1.0
    weight = torch.tensor([[1.0], [0.0], [3.0]])
    expected = ((x * x) * weight).sum() / (4 * weight.sum())
    assert fl.mse(x, torch.zeros(3, 4), weight=weight).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_violation_in_any_format_is_told(dtype):
    target = torch.ones(9, dtype=getattr(torch, dtype))
    target[5] = -2.0
    assert fl.poisson(torch.zeros(9, dtype=target.dtype), target).isnan()
    with pytest.raises(ValueError, match=r"^poisson: target\[5\] is -2; allowed: \[0, inf\)$"):
        fl.synchronize()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_labels_of_any_integers(dtype):
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 6, 3, 2, 5])
    expected = torch.nn.functional.cross_entropy(logits, labels).item()
    assert fl.cross_entropy(logits, labels.to(getattr(torch, dtype))).item() == pytest.approx(expected, rel=1e-6)


def test_predictions_of_two_dtypes():
    rng = np.random.default_rng(1)
    mean, target = rng.normal(size=(2, 11)).astype(np.float32)
    var = rng.uniform(0.5, 2.0, 11)
    wide = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (mean, var)]
    expected = torch.nn.functional.gaussian_nll_loss(wide[0], torch.tensor(target).double(), wide[1], eps=0.0)
    expected.backward()
    given = torch.tensor(mean), torch.tensor(var)
    loss, grads = fl.gaussian_nll.value_and_grad(given, torch.tensor(target))
    assert [g.dtype for g in grads] == [torch.float32, torch.float64]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for g, x, tolerance in zip(grads, wide, (1e-6, 1e-12), strict=True):
        np.testing.assert_allclose(g, x.grad, rtol=tolerance, atol=tolerance)
    assert fl.gaussian_nll(given, torch.tensor(target), reduction="none").dtype is torch.float32
    with pytest.raises(fl.BackendError, match="out of several dtypes"):
        fl.gaussian_nll.value_and_grad(given, torch.tensor(target), out=tuple(map(torch.zeros_like, given)))


def test_refusals():
    x = torch.zeros(3, requires_grad=True)
    with pytest.raises(TypeError, match=r"prediction is a tensor that requires grad; pass prediction.detach\(\)"):
        fl.mse(x, torch.zeros(3))
    with pytest.raises(ValueError, match="all on a GPU or all in host memory"):
        fl.mse(torch.zeros(3), np.zeros(3))
    with pytest.raises(TypeError, match="prediction has dtype bool"):
        fl.mse(torch.zeros(3, dtype=torch.bool), torch.zeros(3))


def test_a_loss_without_a_kernel_gives_tensors_too():
    x, y = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
    with pytest.warns(RuntimeWarning, match="energy_distance has no CUDA kernel"):
        loss, grads = fl.energy_distance.value_and_grad(x, y)
    assert isinstance(loss, torch.Tensor)
    assert loss.dtype is torch.float32
    assert all(isinstance(g, torch.Tensor) for g in (grads if isinstance(grads, tuple) else (grads,)))


def test_unsigned_labels_are_taken():
    z = torch.log_softmax(torch.arange(15.0).reshape(3, 5), 1)
    t = torch.tensor(np.array([0, 2**64 - 100, 4], np.uint64))
    values = fl.nll(z, t, reduction="none")
    assert torch.isnan(values).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"^nll: target\[1\] is 18446744073709551516; allowed: 0 to 4, or -100"):
        fl.synchronize()
