"""Single numbers of each unit of a loss: how they are read, and what is told of those out of their domain."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ...cpu.runtime import access
from ...spec.record import NONNEGATIVE, Formula
from .memory import present, reader, spelled

__all__ = ["Watch", "faults", "readable", "scalar", "scalars", "watched", "width"]


def readable(dtype: str, *floats: str) -> bool:
    """Whether a kernel reads such numbers as they are; floats in a format other than these are converted before."""
    return dtype in (*floats, "int32", "int64", "uint8", "bool")


def width(dims: str) -> int:
    """Return the number of columns of an input that belong to one point."""
    last = dims.split()[-1]
    return int(last) if last.isdecimal() else 1


def scalar(stored: str, k: int, number: str) -> tuple[str, dict[str, Any]]:
    """An expression for the k-th number at i, which c[k] stands for where there is no array, and what it names."""
    kind = getattr(np, number)
    text = f"((number(read{k}(a[{k}], i)[0]) if present(a[{k}]) else c[{k}]),)"
    return text, {f"read{k}": reader(stored), "number": kind, "present": present}


def scalars(formats: tuple[str, ...], number: str) -> Any:
    """A function of (addresses, i, c): a tuple for each of some arrays, of its one number in the precision given."""
    found = [scalar(f, k, number) for k, f in enumerate(formats)]
    bound = {name: what for _, names in found for name, what in names.items()}
    return spelled("a, i, c", *(text for text, _ in found), **bound)


class Watch(NamedTuple):
    """Input that may be outside its domain, and the test that a kernel makes of it."""

    name: str
    domain: Any
    at: str
    test: Any


@cache
def _binary(number: str) -> Any:
    kind = getattr(np, number)
    return spelled("x", "zero if (x == zero) | (x == one) else one", single=True, zero=kind(0.0), one=kind(1.0))


@cache
def _exceeds(number: str) -> Any:
    kind = getattr(np, number)
    return spelled("x, y", "one if x > y else zero", single=True, zero=kind(0.0), one=kind(1.0))


def watched(record: Formula, names: tuple[str, ...], number: str) -> list[Watch]:
    """Return the inputs to test, in the order of the names and with the weight last."""
    found = []
    for k, name in enumerate((*names, "weight")):
        spec = record.inputs.get(name)
        binary = spec is not None and spec.kind == "binary"
        domain = "0 or 1" if binary else NONNEGATIVE if spec is None else spec.domain
        test = _binary(number) if binary else access.check(domain, number)
        if test is not None:
            found.append(Watch(name, domain, f"x[{k}][0]", test))
    for low, high in record.ordered:
        places = f"x[{names.index(low)}][0], x[{names.index(high)}][0]"
        found.append(Watch(low, f"at most that of {high}", places, _exceeds(number)))
    return found


def faults(tests: list[tuple[str, Any]], number: str, weight: str, arguments: str = "x") -> Any:
    """A function of what was read: 0, or the number of the first whose test says that it is out of its domain.

    A test comes with the expression that it is of; None stands for a number that may be any. Where `weight`, an
    expression too, is 0, all may be any.
    """
    kind, found = getattr(np, number), "zero"
    for j, (at, test) in reversed(list(enumerate(tests))):
        if test is not None:
            # As a number of the kernel's type: it travels with the results of an element, through the same shuffles.
            found = f"(number({j + 1}.0) if test{j}({at}) > zero else {found})"
    if any(test is not None and at != weight for at, test in tests):
        found = f"({found} if {weight} != zero else zero)"
    bound = {f"test{j}": test for j, (_, test) in enumerate(tests) if test is not None}
    return spelled(arguments, found, single=True, zero=kind(0.0), number=kind, **bound)
