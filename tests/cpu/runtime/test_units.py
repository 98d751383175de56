"""Kernels of units: the disk cache, many threads at the first call, a fork after one, and units that fill no chunk."""

import os

import numpy as np
import pytest
from children import run

from fastloss.cpu import dispatch
from fastloss.cpu.runtime import units as runtime
from fastloss.cpu.runtime.slots import Number, unbound
from fastloss.cpu.runtime.units import factor_of

pytestmark = pytest.mark.jit

PRELUDE = """
import os, threading, warnings
import numpy as np
import fastloss as fl

warnings.filterwarnings("ignore", category=DeprecationWarning)
rng = np.random.default_rng(0)
target = np.sort(rng.random((50_000, 2, 2)), axis=1).reshape(-1, 4)
boxes = target + 0.01
"""


def test_a_second_process_compiles_nothing(tmp_path):
    script = PRELUDE + "print(fl.iou.value_and_grad(boxes, target)[0])"
    first = run(script, FASTLOSS_CACHE_DIR=tmp_path)
    files = {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    assert any(f.startswith("iou") for f in files)
    assert run(script, FASTLOSS_CACHE_DIR=tmp_path) == first
    assert {f.name: f.stat().st_mtime_ns for f in tmp_path.iterdir()} == files


def test_many_threads_at_the_first_call_and_a_fork_after_it():
    script = (
        PRELUDE
        + """
results = []
threads = [threading.Thread(target=lambda: results.append(fl.iou.value_and_grad(boxes, target))) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(results) == 4
assert all(value == results[0][0] and (grad == results[0][1]).all() for value, grad in results)
pid = os.fork()
if pid == 0:
    value, grad = fl.iou.value_and_grad(boxes, target)
    os._exit(0 if value == results[0][0] and (grad == results[0][1]).all() else 3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    if not hasattr(os, "fork"):
        pytest.skip("this platform has no fork")
    for layer in ("omp", "workqueue"):
        assert run(script, NUMBA_THREADING_LAYER=layer, FASTLOSS_CACHE_DIR=os.environ.get("FASTLOSS_CACHE_DIR")) == "0"


use = unbound(Number)


def doubled(lo, hi, factors, x, out):
    for i in range(lo, hi):
        row, result = x[i], out[i]
        for j in range(row.size):
            result[j] = use.T(2.0) * use.T(factor_of(factors, i)) * row[j]


@pytest.mark.parametrize("units", [0, 1, 7, 100])
@pytest.mark.parametrize("work", [1, 10**6])
def test_every_unit_is_worked_on_once(units, work, monkeypatch):
    monkeypatch.setattr(dispatch, "PARALLEL_FROM", 1)
    x, out = np.random.default_rng(0).random((units, 3)), np.full((units, 3), np.nan)
    runtime.kernel(doubled, "doubled", "float64")(units, work, np.full(1, 0.5), x, out)
    np.testing.assert_array_equal(out, x)
    if units:
        factors = np.arange(float(units))
        runtime.kernel(doubled, "doubled", "float64")(units, work, factors, x, out)
        np.testing.assert_array_equal(out, 2 * (factors if units > 1 else np.zeros(1))[:, None] * x)


def alike(a):
    """Arrays of the same values that a kernel bound to contiguous float64 must not read as such."""
    wide = np.zeros((*a.shape, 2))
    wide[..., 0] = a
    described = a.astype(np.dtype(np.float64, metadata={"unit": "s"}))
    return {"int64": a.astype(np.int64), "float32": a.astype(np.float32), "described": described}


@pytest.mark.jit
@pytest.mark.parametrize("dtype", ["int64", "float32", "described"])
@pytest.mark.parametrize("launch", ["bound", "launch_of", "bound_stages"])
def test_a_remembered_kernel_reads_arrays_of_other_dtypes_as_they_are(launch, dtype):
    x = np.arange(12.0).reshape(4, 3)
    made, which = runtime.kernel(doubled, "doubled", "float64"), (doubled, "doubled", "float64")
    stages = runtime.bound_stages(4, 1.0, (made, 1))
    calls = {
        "bound": made.bound(4, 1.0),
        "launch_of": lambda *arrays: runtime.launch_of(4, 1.0, "remembered", False, *which)(*arrays),
        "bound_stages": lambda *arrays: stages(arrays),
    }
    for a in (x, alike(x)[dtype], x):
        out = np.full(x.shape, np.nan)
        calls[launch](np.ones(1), a, out)
        np.testing.assert_array_equal(out, 2 * x)


@pytest.mark.jit
@pytest.mark.parametrize("launch", ["bound", "bound_stages", "kernel"])
def test_a_kernel_refuses_strides_and_byte_orders_that_it_cannot_read(launch):
    x, out = np.arange(12.0).reshape(4, 3), np.zeros((4, 3))
    made = runtime.kernel(doubled, "doubled", "float64")
    stages = runtime.bound_stages(4, 1.0, (made, 1))
    calls = {
        "bound": made.bound(4, 1.0),
        "bound_stages": lambda *arrays: stages(arrays),
        "kernel": lambda *arrays: made(4, 1.0, *arrays),
    }
    calls[launch](np.ones(1), x, out)
    for wrong in (np.asfortranarray(x), x.astype(">f8"), np.zeros((4, 6))[:, ::2]):
        with pytest.raises(TypeError, match="expected a C-contiguous array in native byte order"):
            calls[launch](np.ones(1), wrong, out)


def test_warming_up_compiles_what_calls_use(tmp_path):
    script = (
        PRELUDE
        + """
from pathlib import Path
fl.iou.warmup(("float64",))
folder = Path(os.environ["FASTLOSS_CACHE_DIR"])
before = {f.name for f in folder.iterdir()}
fl.iou(boxes[:9], target[:9])
fl.iou.value_and_grad(boxes, target)
print({f.name for f in folder.iterdir()} - before)
"""
    )
    assert run(script, FASTLOSS_CACHE_DIR=tmp_path) == "set()"


def test_a_sum_of_values_leaves_out_those_of_weight_zero():
    values = np.array([1.0, np.nan, 3.0])
    assert dispatch.sum_in_order(values, np.array([1.0, 0.0, 0.5]))[0] == 2.5
