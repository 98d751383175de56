"""Every line of docs/elsewhere.md is executed with the library that it is of."""

import re
from importlib.util import find_spec

import pytest

import fastloss as fl
from fastloss.losses.aliases import key_of
from tools import same
from tools.elsewhere import LIBRARIES, by_loss

GIVEN = same.samples()
ORACLES = {"POT", "XGBoost", "LightGBM", "CatBoost", "statsmodels"}
EXECUTED = [
    pytest.param(
        library, pair, id=f"{library.name}-{pair.ours}", marks=[pytest.mark.oracle] * (library.name in ORACLES)
    )
    for library in LIBRARIES
    if not library.checked
    for pair in library.same
]


@pytest.mark.filterwarnings("ignore")  # of the other libraries
@pytest.mark.parametrize(("library", "pair"), EXECUTED)
def test_both_expressions_are_one_number(library, pair):
    if find_spec(library.module) is None:
        pytest.skip(f"needs {library.module}")
    assert same.difference(library, pair, GIVEN) <= library.tolerance


def test_a_wrong_factor_is_found():
    torch = next(library for library in LIBRARIES if library.module == "torch")
    pytest.importorskip("torch")
    wrong = torch.same[0]._replace(factor="1.0001")
    assert same.difference(torch, wrong, GIVEN) > torch.tolerance


@pytest.mark.oracle
def test_a_wrong_factor_of_a_gradient_is_found():
    xgboost = next(library for library in LIBRARIES if library.module == "xgboost")
    pytest.importorskip("xgboost")
    wrong = xgboost.same[0]._replace(factor="1 / 1.99")
    assert same.difference(xgboost, wrong, GIVEN) > xgboost.tolerance


def test_the_page_names_losses_that_exist():
    assert set(by_loss()) <= set(fl.LOSSES)
    assert len(set(by_loss()) & set(fl.LOSSES)) >= 60


def test_names_that_resolve_have_no_factor():
    """A function of another library whose name `LOSSES` takes has the value of that loss."""
    own, seen = {key_of(name) for name in fl.LOSSES}, {}
    for library in LIBRARIES:
        for pair in library.same:
            name = re.fullmatch(r"[\w.]+\.(\w+)\([^()]*\)(?:\.mean\(\))?", pair.theirs)
            if name and key_of(name[1]) not in own and name[1] in fl.LOSSES:
                seen.setdefault(name[1], []).append((pair.ours.partition("(")[0], pair.factor))
    assert len(seen) >= 20
    for name, found in seen.items():
        assert (fl.LOSSES[name].name, "1") in found, name
        assert all(factor == "1" for loss, factor in found if loss == fl.LOSSES[name].name), name
