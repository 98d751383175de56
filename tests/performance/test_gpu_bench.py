"""`python -m bench.gpu` compares like with like: what it times of torch is what it times of ours, here on the CPU."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the peers extra")

import fastloss as fl  # noqa: E402
from bench import gpu  # noqa: E402


def few(shape):
    return tuple(min(n, 40) for n in ((shape,) if isinstance(shape, int) else shape))


SMALL = SimpleNamespace(
    randn=lambda shape, device, dtype: torch.randn(few(shape), dtype=dtype),
    rand=lambda shape, device, dtype: torch.rand(few(shape), dtype=dtype),
    randint=lambda low, high, shape, device: torch.randint(low, min(high, 40), few(shape)),
    float32=torch.float32,
    bfloat16=torch.bfloat16,
)


@pytest.mark.parametrize("case", gpu.CASES, ids=lambda case: case.name)
def test_same_loss(case):
    torch.manual_seed(0)
    inputs = case.inputs(SMALL)
    loss, grad = case.ours(*inputs)
    wide = [x.double() if x.is_floating_point() else x for x in inputs]
    expected, slopes = gpu._by_autograd(torch, case.theirs)(*wide)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    tolerance = 1e-2 if inputs[0].dtype is torch.bfloat16 else 1e-4
    np.testing.assert_allclose(grad.double(), slopes, rtol=tolerance, atol=tolerance * slopes.abs().max().item())


def test_device_and_machine():
    properties = SimpleNamespace(name="a device", total_memory=3 << 30, multi_processor_count=7)
    cuda = SimpleNamespace(get_device_properties=lambda k: properties, get_device_capability=lambda k: (9, 0))
    told = gpu.about(SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0")))
    assert (told["device"], told["memory_gib"], told["multiprocessors"]) == ("a device", 3.0, 7)
    assert told["versions"]["fastloss"] == fl.__version__
    json.dumps(told)


def test_without_a_gpu_nothing_is_measured(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "missing", lambda: "numba-cuda is not installed")
    assert gpu.main(["--output", str(tmp_path / "gpu.json")]) == 1
    assert capsys.readouterr().err == "Nothing measured: numba-cuda is not installed.\n"
    assert not list(tmp_path.iterdir())


def test_a_case_that_fails_costs_no_other(monkeypatch, tmp_path):
    def measured(there, case, rounds):
        if case.name == "second":
            raise MemoryError("not enough")
        return {"bandwidth": 0.9}

    cases = [gpu.Case(name, lambda there: (), None, None) for name in ("first", "second", "third")]
    replaced = {
        "missing": lambda: "",
        "about": lambda there: {},
        "measured": measured,
        "launch": lambda there, call: 1.0,
    }
    for name, there in {**replaced, "CASES": cases}.items():
        monkeypatch.setattr(gpu, name, there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    file = tmp_path / "results" / "gpu.json"
    assert gpu.main(["--no-tests", "--output", str(file)]) == 1
    found = json.loads(file.read_text())["cases"]
    assert found == {
        "first": {"bandwidth": 0.9},
        "second": {"error": "MemoryError: not enough"},
        "third": {"bandwidth": 0.9},
    }


def test_torch_without_the_device_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "missing", lambda: "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--output", str(tmp_path / "gpu.json")]) == 1
    assert capsys.readouterr().err.startswith(f"Nothing measured: torch {torch.__version__} finds no device")
