"""Which backend runs a call, with arrays in host memory and on the simulated device."""

from types import SimpleNamespace

import numpy as np
import pytest

import fastloss as fl
from fastloss.cuda.runtime import launch


def test_arrays_in_host_memory_go_to_the_device_and_back_where_it_is_asked_for():
    p, t = np.arange(5.0), np.ones(5)
    with fl.backend("cuda"):
        value, grad = fl.mse.value_and_grad(p, t)
    assert type(value) is float
    assert value == 3.0
    assert type(grad) is np.ndarray
    np.testing.assert_allclose(grad, 2 * (p - 1) / 5)


def test_violation_in_host_memory_is_raised_at_once():
    with fl.backend("cuda"), pytest.raises(ValueError, match=r"^poisson: target\[2\] is -1; allowed: \[0, inf\)$"):
        fl.poisson(np.zeros(3), np.array([1.0, 2.0, -1.0]))


def test_keyword(put):
    p, t = np.arange(5.0), np.ones(5)
    assert fl.mse(p, t, backend="cuda") == 3.0
    assert fl.mse(p, t, backend="cpu") == 3.0
    with pytest.raises(fl.BackendError, match="backend is 'cpu', and an array lies on a GPU"):
        fl.mse(put(p), put(t), backend="cpu")
    with pytest.raises(ValueError, match="backend is 'gpu'; allowed: 'auto', 'cpu', 'cuda'"):
        fl.mse(p, t, backend="gpu")


def test_losses_without_a_kernel_run_on_the_cpu(put, fetch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30))
    with pytest.warns(
        RuntimeWarning, match="energy_distance runs on the CPU, with copies: energy_distance has no CUDA kernel"
    ):
        value = fetch(fl.energy_distance(put(x), put(y)))
    assert value == fl.energy_distance(x, y)
    with pytest.raises(fl.BackendError, match="energy_distance has no CUDA kernel"):
        fl.energy_distance(put(x), put(y), backend="cuda")


def test_configurations_of_a_kernel_are_kept_up_to_a_bound(monkeypatch):
    made, launched = [], []

    class Compiled:
        def __getitem__(self, configuration):
            made.append(configuration)
            return launched.append

    fake = SimpleNamespace(
        get_current_device=lambda: SimpleNamespace(id=0), jit=lambda *_, **__: lambda function: Compiled()
    )
    monkeypatch.setattr(launch, "SIMULATED", False)
    monkeypatch.setattr(launch, "cuda", fake)
    kernel = launch.Kernel(lambda x: None, "nothing", None)
    for blocks in range(1, 2000):
        kernel((blocks, 2), 32, 0, blocks)
        kernel((blocks, 2), 32, 0, -blocks)
    assert len(kernel._configured) <= launch.CONFIGURATIONS
    assert [x for x in launched if x > 0] == list(range(1, 2000)) == [-x for x in launched if x < 0]
    assert made == [((blocks, 2), 32, 0) for blocks in range(1, 2000)]
