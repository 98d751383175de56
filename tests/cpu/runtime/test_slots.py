"""The records that templates read: complete, of their own kind, and constants to the compiler."""

import ast
import ctypes
import importlib
import pkgutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numba import njit, types
from numba.core.errors import TypingError

import fastloss
import fastloss.cpu
from fastloss.cpu.runtime import slots
from fastloss.cpu.runtime.slots import ABSENT, Number, fill, unbound
from fastloss.cpu.runtime.specialize import Linked, bind, compile_chunk, compile_driver, digest, inner

SOURCES = sorted(Path(fastloss.__file__).parent.rglob("*.py"))


def test_no_global_stands_for_what_is_bound_later():
    found = [
        f"{path}: {ast.unparse(node)}"
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node).endswith(": Any = None")
    ]
    assert found == []


def records():
    """Kinds of records of the kernels for a CPU."""
    for module in pkgutil.walk_packages(fastloss.cpu.__path__, "fastloss.cpu."):
        importlib.import_module(module.name)
    return sorted((k for k in slots._records if k.__module__.startswith("fastloss")), key=lambda k: k.__module__)


def test_a_record_without_one_of_its_fields_is_refused():
    found = records()
    assert len(found) >= 20
    for kind in found:
        for left_out in kind._fields:
            with pytest.raises(TypeError, match=f"missing 1 required positional argument: '{left_out}'"):
                kind(**{name: ABSENT for name in kind._fields if name != left_out})


class Slots(NamedTuple):
    formula: Any
    doubled: Any
    half: Any


use = unbound(Slots)


def template(x):
    if use.doubled:
        return use.formula(x, x)
    return use.half * use.formula(x)


def alone(x):
    return x + 1.0


def pair(x, y):
    return x * y


SIGNATURE = types.float64(types.float64)


def called(address, x):
    return ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)(x)


def test_a_template_that_was_not_specialised_cannot_be_run():
    with pytest.raises(AttributeError, match="doubled is not bound"):
        template(3.0)


def test_a_record_is_filled_by_names_and_not_without_one():
    assert fill(template, {"formula": 1, "doubled": 2, "half": 3, "unread": 4}) == Slots(1, 2, 3)
    assert fill(alone, {}) is None
    with pytest.raises(TypeError, match=r"template: .*Slots lacks doubled, half"):
        fill(template, {"formula": 1})


def test_a_record_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"template of .* reads no Number"):
        bind(template, Number(np.float32))
    with pytest.raises(TypeError, match="reads no Slots"):
        bind(bind(template, Slots(alone, False, 0.5)), Slots(alone, False, 0.5))


def test_what_a_branch_does_not_read_may_be_absent():
    assert bind(template, Slots(pair, True, ABSENT))(3.0) == 9.0
    with pytest.raises(TypeError, match="no such function"):
        bind(template, Slots(ABSENT, True, ABSENT))(3.0)
    with pytest.raises(TypeError, match="no such flag"):
        bind(template, Slots(pair, ABSENT, ABSENT))(3.0)


@pytest.mark.jit
def test_fields_are_constants_to_the_compiler(monkeypatch):
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    # Of two branches, one alone has a type: the other is gone before types are inferred.
    chunk = compile_chunk(template, "pruned", SIGNATURE, Slots(njit(pair), True, ABSENT))
    assert called(chunk.address, 3.0) == 9.0
    chunk = compile_chunk(template, "pruned", SIGNATURE, Slots(njit(alone), False, 0.5))
    assert called(chunk.address, 3.0) == 2.0
    for bad in (Slots(ABSENT, False, 0.5), Slots(njit(alone), False, ABSENT), Slots(njit(alone), ABSENT, 0.5), None):
        with pytest.raises(TypingError):
            compile_chunk(template, "incomplete", SIGNATURE, bad)


@pytest.mark.jit
def test_a_function_in_a_record_is_linked(monkeypatch):
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    for function, expected in ((alone, 2.0), (njit(lambda x: x - 1.0).py_func, 1.0)):
        linked = Linked(inner(function, {}), SIGNATURE)
        chunk = compile_chunk(template, "linked", SIGNATURE, Slots(linked, False, 0.5))
        assert called(chunk.address, 3.0) == expected


@pytest.mark.jit
def test_a_driver_reads_a_record(monkeypatch):
    monkeypatch.setenv("FASTLOSS_CACHE", "0")
    driver = compile_driver(template, "driver", SIGNATURE, Slots(njit(alone), False, 0.5))
    assert driver(3.0) == 2.0


def test_a_digest_covers_the_fields_that_a_template_reads():
    def key(formula=alone, half=0.5, function=template):
        return digest("kind", bind(function, Slots(formula, False, half)))

    assert key() == key()
    assert len({key(), key(half=0.25), key(formula=pair)}) == 3
    assert key(function=halved, formula=alone) == key(function=halved, formula=pair)
    assert key(function=halved) != key(function=halved, half=0.25)


def halved(x):
    return use.half * x


def test_a_digest_covers_the_order_of_a_records_fields():
    def key(*names):
        kind = NamedTuple("Read", [(name, Any) for name in names])
        return digest("kind", kind)

    assert key("a", "b") == key("a", "b")
    assert key("a", "b") != key("b", "a")
