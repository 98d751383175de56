"""Losses of a user's own on the command line: of a Python file, and of an expression."""

import json

import numpy as np
import pytest
from children import command

import fastloss as fl

pytest.importorskip("pyarrow")
pytest.importorskip("typer")

FILE = """
import numpy as np
import fastloss as fl

@fl.loss
def skewed(z, t, ratio=3.0):
    "Squared error, dearer below."
    r = z - t
    return np.where(r > 0, r * r, ratio * r * r)
"""
RANDOM = np.random.default_rng(0)
SCORE, LABEL = RANDOM.random(500), RANDOM.integers(0, 2, 500)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    np.savez("data.npz", score=SCORE, label=LABEL)
    return tmp_path


def skewed(ratio):
    r = SCORE - LABEL
    return np.where(r > 0, r * r, ratio * r * r).mean()


EXPRESSION = "expr:(p - t)**2 * (1 + (p > t))"


@pytest.mark.slow
def test_losses_of_files_and_expressions(folder):
    losses = ["mine.py:skewed", "mine.py:skewed:ratio=5", EXPRESSION, "expr:abs(p - t) if p > t else 2*abs(p - t)"]
    options = [x for loss in losses for x in ("--loss", loss)]
    found = command("eval", "data.npz", "--pred", "score", "--target", "label", "--json", "-", *options)
    assert found.returncode == 0, found.stderr
    report = {k: x["mean"] for k, x in json.loads(found.stdout)["losses"].items()}
    r = SCORE - LABEL
    expected = [skewed(3.0), skewed(5.0), (r * r * (1 + (r > 0))).mean(), np.where(r > 0, r, -2 * r).mean()]
    assert report == pytest.approx(dict(zip(losses, expected, strict=True)))


def test_evaluate_takes_them_as_names_and_as_losses(folder):
    own = fl.losses_from("mine.py")["skewed"].bind(ratio=2.0)
    report = fl.evaluate("data.npz", [own, EXPRESSION], pred="score", target="label")
    assert list(report) == ["skewed:ratio=2", EXPRESSION]
    assert report["skewed:ratio=2"].mean == pytest.approx(skewed(2.0))


def test_show(folder):
    found = command("show", "mine.py:skewed")
    assert found.returncode == 0, found.stderr
    assert "Squared error, dearer below." in found.stdout
    assert "fastloss eval FILE --loss mine.py:skewed" in found.stdout
    found = command("show", "expr:z**2")
    assert found.returncode == 0
    assert "formula     z * z" in found.stdout


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("mine.py:skewedd", "mine.py has no loss 'skewedd'; it has skewed"),
        ("absent.py:skewed", "absent.py: No such file or directory"),
        ("broken.py:f", 'broken.py: line 1 of broken.py, "1 / 0", raises ZeroDivisionError'),
        ("expr:__import__('os').getcwd() + p", "calls what no formula has"),
        ("expr:(p - t", "is no expression"),
        ("mine.py:skewed:ratoi=3", "ratoi is not a parameter; did you mean ratio"),
    ],
)
def test_errors_are_one_sentence(folder, loss, sentence):
    (folder / "broken.py").write_text("1 / 0\n")
    found = command("eval", "data.npz", "--pred", "score", "--target", "label", "--loss", loss)
    assert found.returncode == 2
    assert sentence in found.stderr
    assert len(found.stderr.splitlines()) == 1
