"""docs/api-stability.md names everything that is public: names, results, environment variables, files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from tools import pages

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "api-stability.md").read_text(encoding="utf-8")


def table(heading, text=PAGE):
    """Return the rows of the first table with this heading as {first cell: other cells}."""
    _, _, rest = text.partition(f"| {heading} |")
    assert rest, f"there is no table with the heading {heading!r}"
    lines = rest.split("\n\n")[0].splitlines()[2:]
    return {
        cells[0]: cells[1:] for cells in (re.split(r" *(?<!\\)\| *", line)[1:-1] for line in lines if line[0] == "|")
    }


def code(text):
    return set(re.findall(r"`([^`]+)`", text))


def public(value):
    return {name for name in dir(value) if not name.startswith("_")}


def test_every_public_name_has_a_promise():
    promised, listed = table("Category"), table("Name")
    catalogue = (DOCS / "losses.md").read_text(encoding="utf-8")
    for name in fl.__all__:
        word = pages.category(name, getattr(fl, name), fl.LOSSES)
        assert word in promised
        assert (f"\n| `{name}` |" in catalogue) if word == "loss" else (listed[f"`{name}`"][0] == word)
    assert {cells[0] for cells in listed.values()} | {"loss"} == set(promised)


def test_a_public_name_of_no_category_is_refused():
    with pytest.raises(ValueError, match=r"fastloss\.answer is a int"):
        pages.category("answer", 42, fl.LOSSES)


def test_every_public_attribute_of_a_loss_is_listed():
    listed = code("".join(table("Method or attribute")))
    assert {f"loss.{name}" for loss in fl.LOSSES.values() for name in public(loss)} | {"loss(...)"} == listed


def test_results_have_the_attributes_that_are_promised():
    promised = {re.sub("`", "", first): code(cells[0]) for first, cells in table("Result of").items()}
    details = fl.cross_entropy.details(np.zeros((2, 3)), np.zeros(2, dtype=np.int64))
    assert promised["details and value_and_grad(details=True)"] == {*details._fields, "top_k"}
    report = fl.evaluate((np.ones(3), np.zeros(3)), losses=["mse"], worst=1)
    assert promised["fl.evaluate"] == public(report) - {"get", "items", "keys", "values"}
    assert promised["each of its statistics"] == public(report["mse"])
    assert promised["each of its worst rows"] == set(report.worst["mse"][0]._fields)
    compared = fl.compare({"a": [1.0, 2.0], "b": [0.0, 2.0], "t": [0.0, 0.0]}, "mse", pred="a", against="b", target="t")
    assert promised["fl.compare"] == public(compared) - {"get", "items", "keys", "values"}
    assert promised["each of its differences"] == set(compared["mse"]._fields)
    scores = fl.rewards.rouge_l([[1, 2]], [[1, 3]])
    assert promised["fl.rewards.rouge_l and rouge_n"] == set(scores._fields)
    found = fl.search(fl.huber, lambda loss: 1.0, {"delta": (0.5, 2.0)}, method="reinforce", budget=1)
    assert promised["fl.search"] == set(found._fields)
    assert promised["each entry of its log"] == set(found.log[0]._fields)
    assert promised["the functions of fl.recipes"] == set(fl.recipes.Result._fields)


def test_the_keys_of_a_report_are_promised():
    files = table("File")
    report = fl.evaluate(
        (np.ones(3), np.zeros(3), np.ones(3)), losses=["bce_with_logits"], worst=1, by=[0, 1, 1], hist=1
    )
    written = json.loads(report.to_json())
    assert set(written) == code(files["`eval --json`"][0]) - {"--sample", "null"}
    assert set(written["losses"]["bce_with_logits"]) == public(report["bce_with_logits"]) | {"exact"}


def test_every_environment_variable_is_documented():
    package = Path(fl.__file__).parent
    named = {
        x for path in package.rglob("*.py") for x in re.findall(r"[\"'](FASTLOSS_\w+)[\"']", path.read_text("utf-8"))
    }
    named.remove("FASTLOSS_TRACK_PADDING")  # moves the stack of a process, is read by nobody
    settings = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert len(named) >= 5
    assert code("".join(table("Variable", settings))) == named
