"""Everything that needs a GPU, in one command: tests, speed beside the peers, and the speed of a copy; one JSON.

    python -m bench.gpu [--rounds 50] [--output bench/results/gpu.json] [--no-tests]

Needs a device, numba-cuda (`pip install "fastloss[cuda13]"`) and a torch built for CUDA. Times are those of CUDA
events, in microseconds, medians over interleaved rounds; `bandwidth` is the share of the speed of a copy on the device
that a call reaches with the bytes it must move at least.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import fastloss as fl
from fastloss.call.backend_choice import missing
from fastloss.performance import machine

RESULTS = Path(__file__).parent / "results" / "gpu.json"
ROOT = Path(__file__).parents[1]


class Case(NamedTuple):
    """One call, and the same by torch: functions that return the loss; gradients are taken of the first input."""

    name: str
    inputs: Callable[[Any], tuple[Any, ...]]
    """inputs(torch) -> tensors on the device, the prediction first."""
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    """theirs(torch.nn.functional, *inputs) -> loss."""


def _pair(*shape: int, dtype: str = "float32") -> Callable[[Any], tuple[Any, ...]]:
    def inputs(torch: Any) -> tuple[Any, ...]:
        kind = getattr(torch, dtype)
        return torch.randn(shape, device="cuda", dtype=kind), torch.rand(shape, device="cuda", dtype=kind)

    return inputs


def _regions(*shape: int) -> Callable[[Any], tuple[Any, ...]]:
    def inputs(torch: Any) -> tuple[Any, ...]:
        z, t = _pair(*shape)(torch)
        # Of soft targets there are several Dice losses; of hard ones one.
        return z, (t > 0.7).to(z.dtype)

    return inputs


def _labels(n: int, k: int, dtype: str = "float32") -> Callable[[Any], tuple[Any, ...]]:
    def inputs(torch: Any) -> tuple[Any, ...]:
        z = torch.randn((n, k), device="cuda", dtype=getattr(torch, dtype))
        return z, torch.randint(0, k, (n,), device="cuda")

    return inputs


def _soft_dice(f: Any, z: Any, t: Any) -> Any:
    p = z.sigmoid().flatten(2)
    t = t.flatten(2)
    return (1 - (2 * (p * t).sum(-1) + 1e-5) / (p.sum(-1) + t.sum(-1) + 1e-5)).mean()


LARGE = 1 << 26
CASES = [
    Case(f"mse/{n}", _pair(n), fl.mse.value_and_grad, lambda f, z, t: f.mse_loss(z, t)) for n in (1000, 1 << 20, LARGE)
]
CASES += [
    Case(
        f"mse/{LARGE}/bfloat16", _pair(LARGE, dtype="bfloat16"), fl.mse.value_and_grad, lambda f, z, t: f.mse_loss(z, t)
    ),
    Case(f"huber/{LARGE}", _pair(LARGE), fl.huber.value_and_grad, lambda f, z, t: f.huber_loss(z, t)),
    Case(
        f"bce_with_logits/{LARGE}",
        _pair(LARGE),
        fl.bce_with_logits.value_and_grad,
        lambda f, z, t: f.binary_cross_entropy_with_logits(z, t),
    ),
]
CASES += [
    Case(
        f"cross_entropy/{n}x{k}/{dtype}",
        _labels(n, k, dtype),
        fl.cross_entropy.value_and_grad,
        lambda f, z, t: f.cross_entropy(z, t),
    )
    for n, k, dtype in (
        (1 << 22, 10, "float32"),
        (1 << 16, 1000, "float32"),
        (4096, 32768, "bfloat16"),
        (2048, 131072, "float32"),
        (2048, 262144, "bfloat16"),
    )
]
CASES.append(
    Case(
        "dice/16x1x512x512",
        _regions(16, 1, 512, 512),
        lambda z, t: fl.dice.value_and_grad(z, t, activation="sigmoid"),
        _soft_dice,
    )
)


def _by_autograd(torch: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(z: Any, *rest: Any) -> Any:
        leaf = z.detach().requires_grad_()
        loss = function(torch.nn.functional, leaf, *rest)
        return loss, torch.autograd.grad(loss, leaf)[0]

    return call


def _liger(torch: Any, case: Case) -> Callable[..., Any] | None:
    """Liger's fused cross-entropy, where it is installed; it writes the gradient over the logits, so it gets a copy."""
    if not case.name.startswith("cross_entropy"):
        return None
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy
    except ImportError:
        return None
    return _by_autograd(torch, lambda f, z, t: liger_cross_entropy(z.clone(), t))


def contestants(torch: Any, case: Case) -> dict[str, Callable[..., Any]]:
    """Whom to time on a case; torch.compile is left out where it cannot compile."""
    # What was compiled for the shapes of other cases would serve this one, and after eight nothing is compiled.
    torch.compiler.reset()
    eager = _by_autograd(torch, case.theirs)
    found = {"fastloss": case.ours, "torch": eager}
    compiled = torch.compile(lambda z, *rest: case.theirs(torch.nn.functional, z, *rest))
    found["torch.compile"] = _by_autograd(torch, lambda f, z, *rest: compiled(z, *rest))
    liger = _liger(torch, case)
    if liger is not None:
        found["liger"] = liger
    return found


def timed(torch: Any, calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median microseconds of each call, round by round, by CUDA events."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in list(calls.items()):
        try:
            for _ in range(3):
                call()
        except Exception as error:  # a peer that cannot do a case is left out, and said so
            if name == "fastloss":
                raise
            print(f"  {name}: {type(error).__name__}: {error}", file=sys.stderr)
            del calls[name]
    torch.cuda.synchronize()
    for _ in range(rounds):
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times[name].append(start.elapsed_time(end) * 1e3)
    return {name: median(t) for name, t in times.items() if t}


def launch(torch: Any, call: Callable[[], Any], calls: int = 200) -> float:
    """Microseconds that the host needs to enqueue a call while the device is busy with something else."""
    torch.cuda.synchronize()
    torch.cuda._sleep(int(2e9))
    start = time.perf_counter()
    for _ in range(calls):
        call()
    took = (time.perf_counter() - start) / calls * 1e6
    torch.cuda.synchronize()
    return took


def measured(torch: Any, case: Case, rounds: int) -> dict[str, Any]:
    """One case: times, ratios, the share of a copy's speed, the largest difference from torch in double."""
    inputs = case.inputs(torch)
    calls = {name: lambda f=f: f(*inputs) for name, f in contestants(torch, case).items()}
    room = torch.empty_like(inputs[0])
    calls["copy"] = lambda: room.copy_(inputs[0])
    times = timed(torch, calls, rounds)
    moved = sum(x.numel() * x.element_size() for x in inputs) + inputs[0].numel() * inputs[0].element_size()
    copied = 2 * inputs[0].numel() * inputs[0].element_size()
    loss, grad = case.ours(*inputs)
    wide = _by_autograd(torch, case.theirs)(
        inputs[0].double(), *(x.double() if x.is_floating_point() else x for x in inputs[1:])
    )
    off = (grad.double() - wide[1]).abs().max() / wide[1].abs().max()
    ours = times["fastloss"]
    return {
        "microseconds": {k: round(v, 2) for k, v in times.items()},
        "times_faster_than": {k: round(v / ours, 2) for k, v in times.items() if k not in ("fastloss", "copy")},
        "gigabytes_per_second": round(moved / ours / 1e3, 1),
        "bandwidth": round(moved / ours / (copied / times["copy"]), 3),
        "loss_off": abs(float(loss.double() - wide[0])) / abs(float(wide[0])),
        "gradient_off": float(off),
    }


def tests() -> dict[str, Any]:
    """The tests marked gpu: how many passed, failed, were skipped, and the names of those that failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "gpu",
            "-q",
            f"--junitxml={report}",
            str(ROOT / "tests" / "gpu"),
        ]
        status = subprocess.run(command, check=False, cwd=ROOT).returncode
        if not report.exists():
            return {"failed": [f"pytest ended with {status}"]}
        suite = next(ET.parse(report).getroot().iter("testsuite"))
    count = {k: int(suite.attrib[k]) for k in ("tests", "failures", "errors", "skipped")}
    failed = [
        c.attrib["name"] for c in suite.iter("testcase") if c.find("failure") is not None or c.find("error") is not None
    ]
    return {**count, "failed": failed}


def about(torch: Any) -> dict[str, Any]:
    """The device beside the machine and the versions."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "capability": list(torch.cuda.get_device_capability(0)),
        "cuda": torch.version.cuda,
        **machine.about(machine.ON_A_GPU),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    options = parser.parse_args(arguments)
    reason = missing()
    if reason:
        print(f"Nothing measured: {reason}.", file=sys.stderr)
        return 1
    try:
        import torch
    except ImportError:
        print("Nothing measured: torch is not installed; the measurements take its tensors.", file=sys.stderr)
        return 1
    if not torch.cuda.is_available():
        print(
            f"Nothing measured: torch {torch.__version__} finds no device; it was built for CUDA {torch.version.cuda}.",
            file=sys.stderr,
        )
        return 1
    found: dict[str, Any] = {"machine": about(torch)}
    if not options.no_tests:
        found["tests"] = tests()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    found["cases"] = {}
    for case in CASES:
        print(case.name, file=sys.stderr)
        try:
            result = measured(torch, case, options.rounds)
        except Exception as error:  # such as memory that does not suffice; the other cases are measured
            result = {"error": f"{type(error).__name__}: {error}"}
        found["cases"][case.name] = result
        print(f"  {result}", file=sys.stderr)
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    small = CASES[0].inputs(torch)
    found["launch_microseconds"] = round(launch(torch, lambda: fl.mse.value_and_grad(*small)), 2)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {options.output}", file=sys.stderr)
    return int(bool(found.get("tests", {}).get("failed")) or any("error" in case for case in found["cases"].values()))


if __name__ == "__main__":
    sys.exit(main())
