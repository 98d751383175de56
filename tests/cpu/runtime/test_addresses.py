"""No result depends on where arrays lie: packed, shifted by an element and spaced arrays give the same bits.

Kernels are compiled with the promise that arrays do not overlap; that they keep it is tested here too.
"""

from pathlib import Path

import numpy as np
import pytest
from array_cases import inputs
from children import ROOT, start, wait
from numba import njit, types
from row_cases import kinds, scores, targets
from sampling import sample

import fastloss as fl
from fastloss.cpu.embeddings import pairs
from fastloss.cpu.rows import drivers as rows
from fastloss.cpu.runtime import units
from fastloss.cpu.runtime.intrinsics import array
from fastloss.cpu.runtime.specialize import LOOP, compile_chunk

ITEMS_IN_LINE = 64
SPACED = (4096, 0)
LAYOUTS = [*((gap, shift) for gap in (0, 1, 5, 16, 40) for shift in (0, 1)), (4096, 1)]
"""Elements between neighbouring arrays, and elements by which the first is shifted from the start of a cache line."""

ROWS = [(1, 3), (2, 33), (1, 63), (5, 100), (67, 6)]
"""Rows and classes: tiles and rows, shorter and longer than a few vectors."""


ONE_ROW = (1, 17)
MORE = {
    "contrastive": {"x1": ONE_ROW, "x2": ONE_ROW, "same": (1,)},
    "gradient_penalty": {"gradients": ONE_ROW},
    "reinforce": {"log_prob": (17,), "reward": (17,), "baseline": (17,)},
}
"""Shapes of further inputs: one row that is longer than a vector and shorter than a few."""


def calls(name, dtype):
    """Inputs of a loss: positional arrays or arrays by name, each a dictionary, with the names of the predictions."""
    record, rng = fl.LOSSES[name].record, np.random.default_rng(5)
    if record.family == "arrays":
        more = {k: rng.random(shape).astype(dtype) for k, shape in MORE.get(name, {}).items()}
        for given in filter(None, (inputs(name, dtype), more)):
            yield given, [k for k in record.predictions if k in given]
    elif record.family == "rows":
        for kind in kinds(name):
            for n, k in ROWS:
                yield {"z": scores(rng, name, n, k, dtype), "t": targets(rng, name, kind, n, k, dtype)}, ["z"]
    else:
        for n in (7, 45, 100):
            predictions, target = sample(record, n, rng, dtype)
            given = dict(zip(record.predictions, predictions, strict=True))
            yield given | ({} if target is None else {"t": target}), list(record.predictions)


def placed(arrays, dtype, gap, shift):
    """Copies of arrays in one buffer."""
    memory = np.empty(sum(a.size + gap for a in arrays) + ITEMS_IN_LINE + shift, dtype)
    at = (-memory.ctypes.data // memory.itemsize) % ITEMS_IN_LINE + shift
    for a in arrays:
        view = memory[at : at + a.size].reshape(a.shape)
        view[...] = a
        at += a.size + gap
        yield view


VALUES_IN_SINGLE = ("mse", "bce_with_logits", "gaussian_nll", "tweedie", "cross_entropy", "kl_div", "multi_margin")
"""One loss of each loop, with and without exponentials: the values of other losses have the same loops."""


def bits(name, given, predictions, dtype, gap, shift):
    """The bytes of the value, and of the value and gradients that are computed together, for arrays in one buffer."""
    loss = fl.LOSSES[name]
    keys = [k for k, a in given.items() if a.dtype == dtype]
    results = [np.full_like(given[k], 7.0) for k in predictions]
    moved = list(placed([given[k] for k in keys] + results, dtype, gap, shift))
    given = given | dict(zip(keys, moved, strict=False))
    out = tuple(moved[len(keys) :])
    out = out if len(out) > 1 else out[0]
    if loss.record.family == "arrays":
        alone, (value, _) = loss(**given), loss.value_and_grad(**given, out=out)
    else:
        z = tuple(given.pop(k) for k in predictions)
        z = z if len(z) > 1 else z[0]
        value, _ = loss.value_and_grad(z, *given.values(), out=out)
        alone = loss(z, *given.values()) if dtype == np.float64 or name in VALUES_IN_SINGLE else 0.0
    return [np.float64(alone).tobytes(), np.float64(value).tobytes(), *(a.tobytes() for a in moved[len(keys) :])]


@pytest.mark.jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", fl.LOSSES)
def test_bits_wherever_arrays_lie(name, dtype):
    for given, predictions in calls(name, np.dtype(dtype)):
        expected = bits(name, given, predictions, np.dtype(dtype), *SPACED)
        shapes = {k: a.shape for k, a in given.items()}
        for layout in LAYOUTS:
            assert bits(name, given, predictions, np.dtype(dtype), *layout) == expected, (layout, shapes)


def _differences(x, y, out):
    """A loop that sums and writes."""
    total = 0.0
    for j in range(x.size):
        d = x[j] - y[j]
        out[j] = d
        total += d * d
    return total


@pytest.mark.jit
def test_no_loop_is_chosen_at_run_time_by_overlap(monkeypatch):
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    one = array("float64")
    signature = types.float64(one, one, one)
    without = njit(signature, **LOOP)(_differences)
    assert "vector.memcheck" in without.inspect_llvm(without.signatures[0])
    text = compile_chunk(_differences, "differences", signature).inspect_llvm()
    assert "vector.body" in text
    assert "vector.memcheck" not in text


def _rows_kernel():
    return rows.row_chunk(fl.kl_div.record, "float32", "grad", "dense", False, False)


def _pairs_kernel():
    record, single, double = fl.contrastive.record, np.dtype(np.float32), np.dtype(np.float64)
    flags = (*pairs.steps(True), ("targets", True))
    kernel = units.kernel(pairs.single, "overlap", "float64", record.function, pairs.HELPERS[pairs.single], flags)
    one, vector, matrix = np.empty(1, double), np.empty(1, single), np.empty((1, 1), single)
    # Parameters, factors, values; two arrays, targets; two gradients.
    return kernel._compile((one, one, one, matrix, matrix, vector, matrix, matrix)).chunk


@pytest.mark.jit
@pytest.mark.parametrize("compiled", [_rows_kernel, _pairs_kernel])
def test_kernels_have_no_loop_chosen_by_overlap(compiled, monkeypatch):
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    text = compiled().inspect_llvm()
    assert "vector.body" in text
    assert "vector.memcheck" not in text


@pytest.mark.jit
def test_no_kernel_writes_to_an_array_that_overlaps_another():
    # Each kernel, and each function that kernels call, runs as plain Python and compares its arrays before and after.
    folders = (str(Path(__file__).parent), str(ROOT / "tests"))
    script = "import sys; sys.path[:0] = sys.argv[1:]; import overlap_audit; print(*overlap_audit.found())"
    assert wait(start(script, *folders, NUMBA_DISABLE_JIT=1), 600.0) == "('planted', 'x', 'y')"
