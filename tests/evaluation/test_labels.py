"""Labels of text, booleans and numbers as targets."""

import numpy as np
import pytest

import fastloss as fl
from fastloss.evaluation import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

P = np.array([0.9, 0.2, 0.4, 0.7])
WORDS = ["yes", "no", "no", "yes"]
WANTED = fl.evaluate((P, np.array([1, 0, 0, 1])), "brier")
COLUMNS = {"pred": "p", "target": "t"}


@pytest.mark.parametrize(
    ("labels", "positive"),
    [
        (WORDS, "yes"),
        (pa.array(WORDS).dictionary_encode(), "yes"),
        (pa.array(WORDS, pa.large_string()), "yes"),
        ([True, False, False, True], "true"),
        ([2, 1, 1, 2], "2"),
        ([2, 1, 1, 2], 2),
    ],
)
def test_a_positive_label(labels, positive):
    assert fl.evaluate(pa.table({"p": P, "t": labels}), "brier", positive=positive, **COLUMNS) == WANTED


def test_booleans_need_no_label():
    assert fl.evaluate(pa.table({"p": P, "t": [True, False, False, True]}), "brier", **COLUMNS) == WANTED
    assert fl.evaluate({"p": P, "t": np.array(WORDS)}, "brier", positive="yes", **COLUMNS) == WANTED


def test_classes():
    scores = np.arange(12.0).reshape(4, 3) % 5
    wanted = fl.evaluate((scores, np.array([2, 0, 1, 2])), "cross_entropy")
    for labels in (["c", "a", "b", "c"], pa.array(["c", "a", "b", "c"]).dictionary_encode()):
        table = pa.table({"p": scores.tolist(), "t": labels})
        assert fl.evaluate(table, "cross_entropy", classes=["a", "b", "c"], **COLUMNS) == wanted
    table = pa.table({"p": scores.tolist(), "t": ["c", None, "b", "d"]})
    with pytest.raises(InputError, match="row 3: t is 'd'; allowed: 'a', 'b', 'c'"):
        fl.evaluate(table, "cross_entropy", classes=["a", "b", "c"], on_invalid="skip", **COLUMNS)
    found = fl.evaluate(table.slice(0, 3), "cross_entropy", classes=["a", "b", "c"], on_invalid="skip", **COLUMNS)
    assert (found.null_rows, found["cross_entropy"].count) == (1, 2)


def test_errors_of_labels():
    table = pa.table({"p": P, "t": WORDS})
    with pytest.raises(InputError, match=r"column 't' holds string; .*positive='yes' or classes=\['a', 'b'\]"):
        fl.evaluate(table, "brier", **COLUMNS)
    with pytest.raises(InputError, match="positive and classes; expected one of them"):
        fl.evaluate(table, "brier", positive="yes", classes=["a"], **COLUMNS)
    with pytest.raises(InputError, match="classes is 'yes,no'; expected distinct labels"):
        fl.evaluate(table, "brier", classes="yes,no", **COLUMNS)
    with pytest.raises(InputError, match="positive is 'yes', and column 'p' holds double"):
        fl.evaluate(table, "brier", pred="p", target="p", positive="yes")
    with pytest.warns(UserWarning, match="positive is 'Yes', and no t is that"):
        fl.evaluate(table, "brier", positive="Yes", **COLUMNS)
