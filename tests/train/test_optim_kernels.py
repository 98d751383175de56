"""Kernels of the optimisers: packed arithmetic in the type of the arrays, and formulas that are right in any world."""

import platform
import re

import numpy as np
import pytest
from numba import config

import fastloss as fl
from fastloss.cpu import optimisers
from fastloss.spec import vocabulary
from fastloss.spec.worlds import World, carry
from fastloss.train.optim import RULES

X86 = platform.machine().lower() in ("x86_64", "amd64")
CONVERSION = re.compile(r"\bv?cvt(ps2pd|ss2sd)\b")
PACKED = {
    "float32": re.compile(r"\bv?(add|sub|mul|f\w+)\d*ps\b"),
    "float64": re.compile(r"\bv?(add|sub|mul|f\w+)\d*pd\b"),
}


@pytest.mark.jit
@pytest.mark.skipif(not X86, reason="reads the names of x86-64 instructions")
@pytest.mark.skipif(config.DISABLE_JIT, reason="without the compiler there is no machine code")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_updates_are_packed_and_nothing_becomes_double(name, dtype, monkeypatch):
    # What the disk cache holds has no text.
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    rule = RULES[name].rule
    made = optimisers.Update(rule.formula.__name__, rule.formula, (True,) * len(rule.states), dtype)
    asm = optimisers._chunk_kernel.__wrapped__(made).inspect_asm()
    assert PACKED[dtype].search(asm)
    assert not (dtype == "float32" and CONVERSION.search(asm))


@pytest.mark.parametrize("name", RULES)
def test_steps_in_fifty_digits(name):
    """The same formula in arbitrary precision bounds the rounding of a few steps."""
    mpmath = pytest.importorskip("mpmath")
    mp = mpmath.mp.clone()
    mp.dps = 50
    words = {
        "sqrt": mp.sqrt,
        "where": vocabulary.where,
        "maximum": vocabulary.maximum,
        "sign": lambda x: mp.mpf(mp.sign(x)),
    }
    kind = RULES[name]
    formula = carry(kind.rule.formula, World(mp.mpf, words))
    record = optimisers.numbers_taken(kind.rule.formula)
    w = np.array([0.7])
    opt = kind([w], lr=0.01)
    p, states = mp.mpf(0.7), [mp.mpf(0)] * len(kind.rule.states)
    product = 1.0
    for g in np.random.default_rng(0).standard_normal(20):
        opt.step([np.array([g])])
        (slot,) = opt._slots
        # The step has brought NAdam's product of momenta up to date: its numbers are those of the product before.
        slot.product, product = product, slot.product
        numbers = opt._numbers(opt.param_groups[0], slot)
        assert slot.product == product
        p, *states = formula(p, mp.mpf(float(g)), *states, record(*map(mp.mpf, numbers)))
    assert abs(float(p - mp.mpf(float(w[0])))) <= 20 * np.finfo(float).eps * max(1.0, abs(float(p)))


def test_compiled_kernels_of_a_rule_are_shared():
    first, second = fl.optim.Adam([np.zeros(3)]), fl.optim.AdamW([np.zeros(2)])
    for opt in (first, second):
        opt.step([np.zeros_like(opt.param_groups[0]["params"][0])])
    assert first._batches[0][1][0][1].address == second._batches[0][1][0][1].address
