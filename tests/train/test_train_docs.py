"""Docstrings of fastloss.optim: examples that run, parameters that are all described."""

import doctest
import inspect

import pytest

import fastloss as fl

NAMES = [name for name in fl.optim.__all__ if name not in ("Optimizer", "Schedule")]


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    found = doctest.DocTestFinder().find(getattr(fl.optim, name), name, globs={})
    examples = [test for test in found if test.examples]
    assert examples
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_described(name):
    public = getattr(fl.optim, name)
    text = inspect.getdoc(public)
    described = text.partition("Parameters\n")[2].partition("\n\n")[0].replace(":", ",").replace("\n", ",")
    words = {word.strip() for word in described.split(",")}
    assert set(inspect.signature(public).parameters) <= words
