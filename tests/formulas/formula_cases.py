"""Every formula with its variants of parameters, and points at which to evaluate it."""

import numpy as np
import pytest
from sampling import numbers, sample, variants

import fastloss.formulas  # noqa: F401
from fastloss.spec.record import registered

FORMULAS = {f.name: f for f in registered.values() if f.family == "elementwise"}
CASES = [pytest.param(f, v, id=f"{f.name}-{v}" if v else f.name) for f in FORMULAS.values() for v in variants(f)]
each_formula = pytest.mark.parametrize("formula", FORMULAS.values(), ids=lambda f: f.name)


def points(formula, variant, n, seed=11):
    """n points as rows (prediction..., target), Python floats."""
    predictions, target = sample(formula, n, np.random.default_rng(seed), **variant)
    columns = predictions if target is None else (*predictions, target)
    return [[float(x) for x in row] for row in zip(*columns, strict=True)]


def run(name, *data, **variant):
    formula = FORMULAS[name]
    return formula.function(*data, *numbers(formula, variant))[:3]
