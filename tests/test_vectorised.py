"""Each elementwise kernel's main loop is vector code: packed arithmetic, no call, nothing scalar in between."""

import math
import platform
import re

import numpy as np
import pytest
from numba import config

import fastloss as fl
from fastloss.dispatch import elementwise

X86 = platform.machine().lower() in ("x86_64", "amd64")
pytestmark = [
    pytest.mark.jit,
    pytest.mark.skipif(not X86, reason="reads the names of x86-64 instructions"),
    pytest.mark.skipif(config.DISABLE_JIT, reason="without the compiler there is no machine code"),
]

LOSSES = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "elementwise"}
ARITHMETIC = r"v?(?:add|sub|mul|div|sqrt|fn?m(?:add|sub)(?:132|213|231))"
PACKED = re.compile(rf"\b{ARITHMETIC}p([sd])\b")
SCALAR = re.compile(rf"\b{ARITHMETIC}s[sd]\b")
STORE = re.compile(r"\bv?mov[au]p[sd]\s+%[xyz]mm\d+, .*\(")
LABEL = re.compile(r"^(\.?L?[\w$.]+):")
JUMP = re.compile(r"^\s+j\w+\s+(\.?L?[\w$.]+)\s*$")
TYPES = {"float32": "s", "float64": "d"}
# pow needs more digits than float32 has: its float32 version works in float64.
BY_WAY_OF_FLOAT64 = {"asymmetric"}


def assembly(record, dtype, monkeypatch):
    """The kernel's machine code as text; what the disk cache holds has none, so that is compiled again."""
    chunk = elementwise(record, dtype, "grad", False)[2]
    if chunk.cached:
        from fastloss.kernels import cpu

        monkeypatch.setenv("FASTLOSS_CACHE", "0")
        chunk = cpu.elementwise_chunk(record, dtype, "grad", False)
    assert not chunk.cached
    return chunk.inspect_asm()


def vector_loops(asm):
    """The innermost loops with packed arithmetic and packed stores, as text."""
    lines = [line for line in asm.splitlines() if line.strip()]
    labels = {m[1]: i for i, line in enumerate(lines) if (m := LABEL.match(line))}
    spans = []
    for i, line in enumerate(lines):
        m = JUMP.match(line)
        if m and labels.get(m[1], i) < i:
            spans.append((labels[m[1]], i))
    texts = {(a, b): "\n".join(lines[a : b + 1]) for a, b in spans}
    spans = [s for s, text in texts.items() if PACKED.search(text) and STORE.search(text)]
    # A small loop of another purpose may have been placed within: only loops of vectors count as inner ones.
    innermost = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [texts[s] for s in innermost]


def faults(asm, dtype, mixed=False):
    """What keeps the main loop from being vector code, in words; nothing if nothing does."""
    loops = vector_loops(asm)
    if not loops:
        return ["no loop of packed arithmetic that stores vectors"]
    found = []
    for text in loops:
        found += ["a call inside the loop"] * bool(re.search(r"\bcall", text))
        found += ["scalar arithmetic inside the loop"] * bool(SCALAR.search(text))
        if not mixed and set(PACKED.findall(text)) != {TYPES[dtype]}:
            found.append(f"arithmetic of another type in the loop of {dtype}")
    return found


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_main_loop_is_vector_code(name, dtype, monkeypatch):
    asm = assembly(LOSSES[name].record, dtype, monkeypatch)
    assert faults(asm, dtype, name in BY_WAY_OF_FLOAT64) == []


def _calls_libm(z, t):
    """A formula with a function that LLVM cannot vectorise."""
    return math.lgamma(z - t), z - t, 1.0


def _widens(z, t):
    """A formula that computes in float64 whatever it is given."""
    r = np.float64(z) - np.float64(t)
    return r * r, 2.0 * r, 2.0


@pytest.mark.parametrize(("formula", "fault"), [(_calls_libm, "no loop"), (_widens, "another type")])
def test_the_test_can_fail(formula, fault, monkeypatch):
    record = fl.mse.record._replace(name=formula.__name__, function=formula)
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    found = faults(assembly(record, "float32", monkeypatch), "float32")
    assert any(fault in f for f in found), found
