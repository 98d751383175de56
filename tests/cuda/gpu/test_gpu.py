"""What only a device can show: results, the same bits on every run, streams, and that nothing waits.

Skipped where there is none; `python -m bench.gpu` runs these and the measurements.
"""

import sys
import time

import numpy as np
import pytest
from sampling import sample

import fastloss as fl
from fastloss.call.backend_choice import missing
from fastloss.cuda import placement

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(missing()), reason=missing() or "a device is there"),
]

ELEMENTWISE = [name for name, loss in fl.LOSSES.items() if loss.record.family == "elementwise"]
ROWS = [name for name, loss in fl.LOSSES.items() if loss.record.family == "rows"]
ARRAYS = [name for name, loss in fl.LOSSES.items() if loss.record.loop in placement.ARRAYS]


@pytest.fixture(autouse=True)
def seed():
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="these tests take the tensors of torch")
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no device; it was built for CUDA {torch.version.cuda}")
    return torch


@pytest.fixture
def put(torch):
    def put(x):
        if isinstance(x, tuple):
            return tuple(map(put, x))
        return torch.from_numpy(np.ascontiguousarray(x)).cuda() if isinstance(x, np.ndarray) else x

    return put


def fetch(x):
    if isinstance(x, tuple):
        return tuple(map(fetch, x))
    return x.float().cpu().numpy() if str(x.dtype) == "torch.bfloat16" else x.cpu().numpy()


def tuples(x):
    return x if isinstance(x, tuple) else (x,)


def compare(got, expected, tolerance):
    for g, e in zip(tuples(got), tuples(expected), strict=True):
        e = np.asarray(e, float)
        # By the median: a few large values would hide the others.
        finite = np.abs(e[np.isfinite(e)])
        scale = np.median(finite) if finite.size else 0.0
        np.testing.assert_allclose(np.asarray(g, float), e, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elements(name, dtype, put):
    loss = fl.LOSSES[name]
    predictions, target = sample(loss.record, 100_003, np.random.default_rng(0), dtype)
    prediction = predictions if len(predictions) > 1 else predictions[0]
    tolerance = 2e-5 if dtype is np.float32 else 1e-12
    value, grads = loss.value_and_grad(put(prediction), put(target))
    on_cpu = loss.value_and_grad(prediction, target)
    compare(fetch(value), on_cpu[0], tolerance)
    compare(fetch(grads), on_cpu[1], tolerance)
    if loss.record.second:
        compare(
            fetch(loss.grad_and_hess(put(prediction), put(target))), loss.grad_and_hess(prediction, target), tolerance
        )
    fl.synchronize()


def rows_of(name, n, k, dtype):
    """Arguments of a loss of rows: scores or what else it takes for them, and its target."""
    from fastloss.spec.record import LOOPS

    rng = np.random.default_rng(k)
    loop = LOOPS[fl.LOSSES[name].record.loop]
    z = rng.normal(size=(n, k))
    if "log-prob" in loop.prediction:
        z -= np.log(np.exp(z).sum(1, keepdims=True))
    if "cosine" in loop.prediction:
        z = np.tanh(z)
    t = (
        rng.dirichlet(np.ones(k), n).astype(dtype)
        if loop.dense == "probabilities"
        else rng.normal(size=(n, k)).astype(dtype)
    )
    if loop.dense == "number":
        t = rng.normal(size=n).astype(dtype)
    return z.astype(dtype), rng.integers(0, k, n) if loop.labels else t


@pytest.mark.parametrize(("n", "k"), [(5000, 10), (300, 1000), (17, 5003)])
@pytest.mark.parametrize("name", ROWS)
def test_rows(name, n, k, put):
    loss = fl.LOSSES[name]
    if name == "crps_ensemble" and k > 1000:
        pytest.skip("its cost is the square of the members")
    z, t = rows_of(name, n, k, np.float32)
    on_cpu = loss.value_and_grad(z.astype(np.float64), t if t.dtype.kind == "i" else t.astype(np.float64))
    value, grad = loss.value_and_grad(put(z), put(t))
    compare(fetch(value), on_cpu[0], 5e-5)
    compare(fetch(grad), on_cpu[1], 2e-4)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name, put):
    from array_cases import inputs

    given = inputs(name, np.float64)
    loss = fl.LOSSES[name]
    value, grads = loss.value_and_grad(**{k: put(v) for k, v in given.items()})
    on_cpu = loss.value_and_grad(**given)
    compare(fetch(value), on_cpu[0], 1e-11)
    compare(fetch(grads), on_cpu[1], 1e-11)


def test_largest_rows(torch):
    z = torch.randn((8, 262144), device="cuda")
    y = torch.randint(0, 262144, (8,), device="cuda")
    value, grad = fl.cross_entropy.value_and_grad(z, y)
    leaf = z.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(leaf, y)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (grad - leaf.grad).abs().max().item() < 1e-8


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half(torch, dtype):
    p, t = (torch.randn(10_007, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))
    value, grad = fl.mse.value_and_grad(p, t)
    assert value.dtype is torch.float32
    assert grad.dtype is p.dtype
    d = p.double() - t.double()
    assert value.item() == pytest.approx((d * d).mean().item(), rel=1e-6)
    # Rounded twice, to float32 and then to half, it may be the neighbour of what is rounded once.
    ulp = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    assert torch.allclose(grad.double(), 2 / 10_007 * d, rtol=ulp / 2 * (1 + 1e-3), atol=2.0**-24)


def test_same_bits_a_hundred_times(torch):
    z = torch.randn((3001, 777), device="cuda")
    y = torch.randint(0, 777, (3001,), device="cuda")
    for call in (lambda: fl.cross_entropy.value_and_grad(z, y), lambda: fl.mse.value_and_grad(z, z.flip(0))):
        first = call()
        for _ in range(99):
            again = call()
            assert torch.equal(first[0], again[0])
            assert torch.equal(first[1], again[1])


def test_nothing_waits_for_the_device(torch):
    p, t = (torch.randn(1000, device="cuda") for _ in range(2))
    fl.mse.value_and_grad(p, t)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(int(4e9))  # two seconds
    done.record()
    start = time.perf_counter()
    value, _ = fl.mse.value_and_grad(p, t)
    took = time.perf_counter() - start
    assert not done.query(), "the call came back after the work before it was done"
    assert took < 0.1
    assert value.item() == pytest.approx(((p - t) ** 2).mean().item(), rel=1e-5)


def test_stream_of_the_caller(torch):
    stream = torch.cuda.Stream()
    p = torch.zeros(1 << 22, device="cuda")
    t = torch.zeros_like(p)
    torch.cuda.synchronize()
    fl.mse(p, t)  # compiled before the sleep, not during it
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(int(1e8))
        p += 3.0
        value = fl.mse(p, t)
    stream.synchronize()
    assert value.item() == 9.0


def test_arrays_that_begin_anywhere(torch):
    x = torch.randn(10_010, device="cuda")
    p, t = x[1:10_000], x[2:10_001]
    value, grad = fl.mse.value_and_grad(p, t)
    d = p.double() - t.double()
    assert value.item() == pytest.approx((d * d).mean().item(), rel=1e-6)
    assert torch.allclose(grad.double(), 2 * d / d.numel(), rtol=1e-6)
    strided = fl.mse(x[::2], x[1::2])
    assert strided.item() == pytest.approx(((x[::2] - x[1::2]) ** 2).double().mean().item(), rel=1e-6)


def test_violations_are_told_by_synchronize(torch):
    z = torch.randn((50, 10), device="cuda")
    y = torch.randint(0, 10, (50,), device="cuda")
    y[17] = 10
    assert torch.isnan(fl.cross_entropy(z, y))
    with pytest.raises(ValueError, match=r"cross_entropy: target\[17\] is 10; allowed"):
        fl.synchronize()


def test_other_libraries():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    p, t = cupy.arange(5.0), cupy.ones(5)
    value, grad = fl.mse.value_and_grad(p, t)
    assert isinstance(value, cupy.ndarray)
    assert float(value) == 3.0
    cupy.testing.assert_allclose(grad, 2 * (p - 1) / 5)


def test_numba_and_host_arrays():
    from numba import cuda

    p, t = np.arange(5.0), np.ones(5)
    value = fl.mse(cuda.to_device(p), cuda.to_device(t))
    assert value.copy_to_host() == 3.0
    assert fl.mse(p, t, backend="cuda") == 3.0
