"""Each elementwise kernel's main loop is vector code: packed arithmetic, no call, nothing scalar in between."""

import math
import platform
import re

import numpy as np
import pytest
from numba import config

import fastloss as fl
from fastloss.cpu.dispatch import elementwise

X86 = platform.machine().lower() in ("x86_64", "amd64")
pytestmark = [
    pytest.mark.jit,
    pytest.mark.skipif(not X86, reason="reads the names of x86-64 instructions"),
    pytest.mark.skipif(config.DISABLE_JIT, reason="without the compiler there is no machine code"),
]

LOSSES = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "elementwise"}
ARITHMETIC = r"v?(add|sub|mul|div|sqrt|fn?m(?:add|sub)(?:132|213|231))"
PACKED = re.compile(rf"\b{ARITHMETIC}p([sd])\b")
SCALAR = re.compile(rf"\b{ARITHMETIC}s[sd]\b")
STORE = re.compile(r"\bv?mov[au]p[sd]\s+%[xyz]mm\d+, .*\(")
LABEL = re.compile(r"^(\.?L?[\w$.]+):")
JUMP = re.compile(r"^\s+(j\w+)\s+(\.?L?[\w$.]+)\s*$")
END = re.compile(r"^\s+(ret|ud2)")
TYPES = {"float32": "s", "float64": "d"}
CALLED = re.compile(r"movabsq\s+\$([A-Za-z_]\w*),")
# What the last step of an array is copied by, outside the vector code.
ALLOWED_CALLS = {"memcpy", "memset"}
# pow needs more digits than float32 has: its float32 version works in float64.
BY_WAY_OF_FLOAT64 = {"asymmetric"}


def assembly(record, dtype, monkeypatch):
    """The kernel's machine code as text; what the disk cache holds has none, so that is compiled again."""
    # Without parameters there is one kernel, which other tests need too.
    usual = not record.parameters
    chunk = elementwise(record, dtype, "grad", False, usual=usual)[2]
    if chunk.cached:
        from fastloss.cpu import elementwise as cpu

        monkeypatch.setenv("FASTLOSS_CACHE", "0")
        chunk = cpu.elementwise_chunk(record, dtype, "grad", False, usual=usual)
    assert not chunk.cached
    return chunk.inspect_asm()


def kernel(asm):
    """The text of the kernel itself, without the wrappers that come after it."""
    return asm.split(".Lfunc_end0")[0]


def blocks_of(asm):
    """Basic blocks by name, as text, and the names of those that may follow each."""
    blocks, following = {"": ""}, {"": set()}
    name = ""
    for line in kernel(asm).splitlines():
        label, jump = LABEL.match(line), JUMP.match(line)
        if not label and not jump and not END.match(line):
            blocks[name] += line + "\n"
            continue
        after = label[1] if label else f"{name} {len(blocks)}"
        if jump:
            following[name].add(jump[2])
        if label or (jump and jump[1] != "jmp"):
            following[name].add(after)
        name = after
        blocks[name], following[name] = "", set()
    return blocks, following


def in_cycles(blocks, following, without=frozenset()):
    """The names of the blocks that can be reached again from themselves, without passing some others."""

    def returns(start):
        seen, waiting = set(), [start]
        while waiting:
            new = (following[waiting.pop()] & blocks.keys()) - without - seen
            seen |= new
            waiting += new
        return start in seen

    return {name for name in blocks if returns(name)}


def faults(asm, dtype, mixed=False):
    """What keeps the main loop from being vector code, in words; nothing if nothing does."""
    blocks, following = blocks_of(asm)
    repeated = in_cycles(blocks, following)
    main = {name for name in repeated if PACKED.search(blocks[name]) and STORE.search(blocks[name])}
    if not main:
        return ["no loop of packed arithmetic that stores vectors"]
    found = []
    calls = set(CALLED.findall(kernel(asm))) - ALLOWED_CALLS
    if calls:
        found.append(f"a call of {sorted(calls)}")
    # Between two steps a number or two may be computed from the parameters.
    scalar = main | in_cycles(blocks, following, without=main)
    found += ["scalar arithmetic inside the loop" for name in scalar if SCALAR.search(blocks[name])]
    for name in repeated:
        # Sums move to float64 between steps, by additions.
        others = {operation for operation, kind in PACKED.findall(blocks[name]) if kind != TYPES[dtype]} - {"add"}
        if others and not mixed:
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


@pytest.mark.parametrize(("formula", "fault"), [(_calls_libm, "a call of ['lgamma"), (_widens, "another type")])
def test_the_test_can_fail(formula, fault, monkeypatch):
    record = fl.mse.record._replace(name=formula.__name__, function=formula)
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    found = faults(assembly(record, "float32", monkeypatch), "float32")
    assert any(fault in f for f in found), found


POINTS = {
    "giou": lambda a: (a.reshape(-1, 4), a.reshape(-1, 4)),
    "dpo": lambda a: (a, a, a, a),
    "aft": lambda a: (a, a, a),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", POINTS)
def test_loops_of_points_are_vector_code(name, dtype, monkeypatch):
    from fastloss.cpu import points
    from fastloss.cpu.runtime import units

    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    units.kernel.cache_clear()
    points._compiled.cache_clear()
    found = []
    compiled = units.Kernel.compiled
    monkeypatch.setattr(units.Kernel, "compiled", lambda *args: found.append(compiled(*args)) or found[-1])
    fl.LOSSES[name].value_and_grad(*POINTS[name](np.ones(64, dtype)))
    chunk = found[0].chunk
    assert not chunk.cached
    # The kernel comes after the function that unpacks its arrays.
    texts = re.split(r"^(_Z\w+):", chunk.inspect_asm(), flags=re.MULTILINE)
    (body,) = (text for title, text in zip(texts[1::2], texts[2::2], strict=True) if "points" in title)
    blocks_, following = blocks_of(body)
    repeated = in_cycles(blocks_, following)
    wide = {n for n in repeated if re.search(r"%[yz]mm", blocks_[n]) and len(PACKED.findall(blocks_[n])) > 10}
    assert wide
    assert {kind for n in wide for _, kind in PACKED.findall(blocks_[n])} == {TYPES[dtype]}
    assert not any(SCALAR.search(blocks_[n]) for n in wide)
    assert not set(CALLED.findall(body)) - ALLOWED_CALLS
