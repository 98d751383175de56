"""On a GPU too, weight 0 removes an element whatever it holds, and NaN comes through everywhere else."""

import left_out
import numpy as np
import pytest

import fastloss as fl
from fastloss.cuda.placement import ARRAYS

NAMES = [name for name, loss in fl.LOSSES.items() if loss.record.family != "arrays" or loss.record.loop in ARRAYS]
each_loss = pytest.mark.parametrize("name", NAMES)


def cases(name):
    """The calls of a loss; of rows only those of a few classes, of regions only one of each kind."""
    found = left_out.cases(name)
    if fl.LOSSES[name].record.loop == "regions.sums":
        whats = ("weight {}", "mask of labels None", "class weight None", "class weight softmax", "background sigmoid")
        return [case for case in found if case.what in whats]
    return [case for case in found if not case.what.endswith("100")]


def filled(case):
    """The inputs with everything that does not count filled, by turns, with NaN and what is out of its domain."""
    given = dict(case.given)
    for key, index in case.parts.items():
        bad = left_out.bad_values(case, key)
        if bad:
            given[key] = a = given[key].copy()
            part = a[index]
            a[index] = np.resize([bad[0], bad[-1]], part.shape)
    return given


def run(case, given, put, fetch, **more):
    value, grads = left_out.run(case, given, np.float64, put, **more)
    return fetch(value), {k: fetch(g) for k, g in grads.items()}


@each_loss
def test_what_does_not_count_may_hold_anything(name, put, fetch):
    for case in cases(name):
        expected, slopes = run(case, case.given, put, fetch)
        assert np.isfinite(expected), case
        for key, index in case.parts.items():
            if key in slopes:
                assert not slopes[key][index].any(), (str(case), key)
        value, grads = run(case, filled(case), put, fetch)
        assert value == expected, str(case)
        for k, g in grads.items():
            assert g.tobytes() == slopes[k].tobytes(), (str(case), k)
        fl.synchronize()


@each_loss
def test_nan_comes_through(name, put, fetch):
    case = cases(name)[0]
    whole = left_out.Case(name, case.what, case.given, {k: v for k, v in case.options.items() if k != "weight"})
    for key, index in case.parts.items():
        if case.given[key].dtype.kind == "f" and not left_out.is_unused(case, key):
            a = case.given[key].copy()
            a[index] = np.nan
            value, grads = run(whole, {**case.given, key: a}, put, fetch)
            assert np.isnan(value), (str(case), key)
            for k, g in grads.items():
                if not left_out.no_slope(case, key, k):
                    assert np.isnan(g[case.parts[k]] if k in case.parts else g).any(), (str(case), key, k)


@pytest.mark.parametrize("top", [np.inf, -np.inf])
def test_a_softmax_of_infinite_scores_is_nan(top, put, fetch):
    z = np.random.default_rng(0).normal(size=(2, 3, 4))
    z[0, :, 1] = top
    target = np.random.default_rng(1).integers(0, 2, z.shape).astype(float)
    values = fetch(fl.dice(put(z), put(target), activation="softmax", reduction="none"))
    assert np.isnan(values).tolist() == [True, False]
