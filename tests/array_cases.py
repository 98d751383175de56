"""What the tests of losses of several arrays need to know of each: sample inputs, and who is asked for the truth.

Every file ``samples_FAMILY.py``, beside the tests of its family, has a dictionary SAMPLES: a Sample for each loss by
name.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss import reference


@dataclass
class Sample:
    """Inputs of one loss: small, in float64, off the kinks, at which derivatives are compared with differences."""

    make: Callable
    """make(rng) -> inputs by name; float arrays in float64."""
    variants: list = field(default_factory=lambda: [{}])
    """Parameters to test, the defaults first."""
    reference: Callable | None = None
    """reference(**inputs, **parameters) -> values; by default the function of that name in fastloss.reference."""
    counted: Callable | None = None
    """counted(**inputs, **parameters) -> how much each value counts in the mean, where not 1."""
    condition: float = 1.0
    """How many times the usual tolerance rounding errors may reach, for a reason given beside it."""
    held: Callable | None = None
    """held(**inputs, **parameters) -> what the derivatives hold constant, as further arguments of the reference."""
    independent: bool = True
    """Whether each value of the loss depends on its own part of the inputs alone, along the first axis."""
    empty: Callable | None = None
    """empty() -> inputs with nothing to average."""
    of_nothing: float = 0.0
    """The mean of nothing."""


NAMES = [name for name, loss in fl.LOSSES.items() if loss.record.family == "arrays"]
SAMPLES = {}
HERE = Path(__file__).parent
for path in sorted(HERE.glob("cpu/*/samples_*.py")):
    SAMPLES |= importlib.import_module(".".join(path.relative_to(HERE).with_suffix("").parts)).SAMPLES

CASES = [
    pytest.param(name, variant, id=f"{name}-{variant}" if variant else name)
    for name in NAMES
    for variant in (SAMPLES[name].variants if name in SAMPLES else [{}])
]
each_case = pytest.mark.parametrize(("name", "variant"), CASES)
each_loss = pytest.mark.parametrize("name", NAMES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def inputs(name, dtype=np.float64, seed=7):
    """The sample of a loss, its floats in one precision."""
    made = SAMPLES[name].make(np.random.default_rng(seed))
    return {k: a.astype(dtype) if a.dtype.kind == "f" else a for k, a in made.items() if a is not None}


def differentiable(name, given):
    """Names of the inputs by which a loss is differentiated, those that are given."""
    return [k for k in fl.LOSSES[name].record.predictions if k in given]


def truth(name, given, variant):
    """Values by the reference, in float64."""
    wide = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in given.items()}
    function = SAMPLES[name].reference or getattr(reference, name)
    return np.asarray(function(**wide, **variant), np.float64)


def counts(name, given, variant, shape):
    """How much each value counts in the mean."""
    function = SAMPLES[name].counted
    return np.ones(shape) if function is None else np.asarray(function(**given, **variant), np.float64)


def mean(values, weight, counted):
    """The weighted mean of values, 0 of nothing."""
    mass = (weight * counted).sum()
    return (weight * values).sum() / mass if mass else 0.0


def slopes(function, given, key, places, h=1e-4):
    """Derivatives of function(inputs) by some elements of one input, by differences of fourth order."""
    found = []
    for place in places:

        def at(step, place=place):
            moved = {**given, key: given[key].copy()}
            moved[key][place] += step
            return function(moved)

        found.append((8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h))
    return np.array(found)
