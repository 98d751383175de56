"""What the compiler makes of every CUDA kernel: no double in float32, no spills, wide accesses, few registers.

Needs no GPU: `pip install "fastloss[cuda-compile]"` brings compiler and assembler. Counts that got worse fail;
`python tests/cuda/compiled/static.py` writes new ones.
"""

import json

import pytest
from cases import KERNELS, elementwise_kernel
from static import COUNTS, DEVICES, compiled, for_device, measured

import fastloss as fl

RECORDED = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}

# A multiprocessor has 65,536 registers for 2,048 threads.
REGISTERS = 65536


def limit(name, kernel):
    """Registers that a kernel may take: to leave room for as many blocks as it says.

    Most in float32 that only memory limits leave room for every thread: eight blocks. Where functions set the pace, a
    quarter of all threads must have room, and in double, whose numbers take two registers, a sixth.
    """
    if kernel.bounds is None:
        return 168 if "float64" in name else 128
    threads, blocks = kernel.bounds
    return REGISTERS // (threads * blocks)


@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name):
    kernel = KERNELS[name]()
    found = measured(kernel)
    recorded = RECORDED[name]
    for device in (f"sm_{a}{b}" for a, b in DEVICES):
        now, then = found[device], recorded[device]
        assert now["spilled"] == now["local"] == 0
        assert now["divisions"] == 0
        assert now["calls"] == 0
        # As exact as on the CPU: div.approx gives 0 beyond 2^126, and a power by lg2.approx makes 0^0 NaN.
        assert now["approximate"] == 0
        if "float64" not in name:
            assert now["double"] == 0
        if kernel.wide:
            assert now["wide_loads"] > 0
            assert now["wide_stores"] > 0
        assert now["registers"] <= limit(name, kernel)
        assert now["registers"] <= then["registers"]
        assert now["wide_loads"] >= then["wide_loads"]
        assert now["wide_stores"] >= then["wide_stores"]
        assert now["instructions"] <= then["instructions"]


@pytest.mark.parametrize("name", list(KERNELS)[::40])
def test_generations_have_one_text(name):
    """The counts of both generations come from one text."""
    kernel = KERNELS[name]()
    first, *others = compiled(kernel, DEVICES)
    assert others == [for_device(first, cc) for cc in DEVICES[1:]]


def test_every_kernel_is_recorded_and_no_other():
    assert list(RECORDED) == list(KERNELS)


OWN = {
    "formula": fl.formula("delta**2 * (sqrt(1 + (r / delta)**2) - 1) + log(1 + exp(z)) * (z > t)", r="z - t", delta=1),
    "integers": fl.formula("where(z > t, 2, 3) * abs(z - t)**1.5"),
    "sum": 0.7 * fl.mse + 0.3 * fl.huber,
}


@pytest.mark.parametrize("name", OWN)
def test_a_loss_of_ones_own_computes_float32_in_float32(name):
    """Whatever numbers its text has: integers, and floats of Python."""
    found = measured(elementwise_kernel(OWN[name].record, "float32", "float32"))
    for counted in found.values():
        assert counted["double"] == counted["spilled"] == counted["calls"] == 0
        assert counted["wide_loads"] > 0
        assert counted["wide_stores"] > 0
