"""Tracking speed: what the intervals are worth, what a comparison says, and what is written."""

import itertools
import json
import math
import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from fastloss.evaluation.columns import InputError
from fastloss.tracking import cases, history, intervals, records
from fastloss.tracking.changes import Changes, Samples, compared, paired, publish, verdict
from fastloss.tracking.intervals import Interval, between, fewest, of_median

testing = pytest.importorskip("typer.testing")

from fastloss.commands import app  # noqa: E402


def noise(rng, *shape):
    """Relative noise with the tail of a shared machine; its median is 1."""
    return np.exp(0.03 * rng.standard_t(2, shape))


def skewed(rng, *shape):
    """Noise that only ever slows down; its median is 1."""
    return np.exp(rng.exponential(0.1, shape) - 0.1 * math.log(2))


# The intervals


@pytest.mark.parametrize("cases", [1, 5, 50])
@pytest.mark.parametrize("rounds", [11, 12, 31, 75])
def test_the_interval_of_pairs_is_that_of_the_sign_test(cases, rounds):
    """An oracle that shares no line: SciPy inverts the binomial test of a quantile."""
    stats = pytest.importorskip("scipy.stats")
    ratios = noise(np.random.default_rng(rounds), rounds)
    level = 1 - intervals.ALPHA / cases
    expected = stats.quantile_test(ratios, p=0.5).confidence_interval(level)
    assert of_median(ratios, cases) == pytest.approx((np.median(ratios), expected.low, expected.high))


@pytest.mark.parametrize("draw", [noise, skewed])
def test_two_medians_are_resampled_in_closed_form(draw):
    """The same interval by drawing weights of the gaps, as the Bayesian bootstrap is defined."""
    rng = np.random.default_rng(1)
    old, new = draw(rng, 31), 1.2 * draw(rng, 41)
    drawn = {}
    for side, ratios in (("old", old), ("new", new)):
        weights = rng.dirichlet(np.ones(ratios.size + 1), 40_000)
        gap = (weights.cumsum(axis=1) < 0.5).sum(axis=1)
        ends = np.concatenate(([-np.inf], np.sort(np.log(ratios)), [np.inf]))
        drawn[side] = ends[gap], ends[gap + 1]
    low = np.quantile(drawn["new"][0] - drawn["old"][1], 0.025)
    high = np.quantile(drawn["new"][1] - drawn["old"][0], 0.975)
    found = between(old, new)
    assert found.ratio == pytest.approx(np.median(new) / np.median(old))
    assert np.log(found[1:]) == pytest.approx((low, high), abs=0.004)


@pytest.mark.parametrize("draw", [noise, skewed])
@pytest.mark.parametrize(("cases", "rounds"), [(1, fewest(1)), (10, 15), (10, 31)])
def test_intervals_of_several_cases_hold_together(draw, cases, rounds):
    """Where nothing changed, one of all intervals misses in 5% of the comparisons at the most."""
    rng = np.random.default_rng(cases + rounds)
    runs = 400

    def misses(interval):
        wrong = 0
        for _ in range(runs):
            old, new = draw(rng, cases, rounds), draw(rng, cases, rounds)
            found = [interval(a, b, cases) for a, b in zip(old, new, strict=True)]
            wrong += any(not i.low <= 1.0 <= i.high for i in found)
        return wrong

    # Six standard deviations of a count with the mean 20 are 26.
    assert misses(lambda old, new, m: of_median(new / old, m)) <= 46
    assert misses(between) <= 46


@pytest.mark.parametrize("draw", [noise, skewed])
def test_a_slowdown_of_30_percent_is_seen_among_ten_cases(draw):
    rng = np.random.default_rng(5)
    found = [of_median(1.3 * draw(rng, 31) / draw(rng, 31), 10).low > 1 for _ in range(100)]
    assert sum(found) >= 95
    found = [between(draw(rng, 61), 1.3 * draw(rng, 61), 10).low > 1 for _ in range(100)]
    assert sum(found) >= 95


def test_an_interval_of_too_few_rounds_is_infinite():
    for count in (1, 3, 10, 64):
        rounds = fewest(count)
        enough, few = ([1.1] * n for n in (rounds, rounds - 1))
        assert math.isfinite(of_median(enough, count).high)
        assert math.isfinite(between(enough, enough, count).high)
        assert between(few, few, count)[1:] == (0.0, math.inf)


def test_intervals_do_not_depend_on_which_side_is_called_old():
    rng = np.random.default_rng(2)
    old, new = noise(rng, 20), noise(rng, 23)
    ratio, low, high = between(old, new, 3)
    assert between(new, old, 3) == pytest.approx((1 / ratio, 1 / high, 1 / low))
    assert of_median(1 / old, 3) == pytest.approx([1 / x for x in (of_median(old, 3)[i] for i in (0, 2, 1))])


# What is said of a change


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((1.30, 1.20, 1.40), "regression"),
        ((1.11, 1.01, 1.20), "regression"),
        ((1.08, 1.02, 1.15), "slower"),
        ((1.08, 1.05, 1.09), "unchanged"),
        ((1.30, 0.99, 1.60), "inconclusive"),
        ((1.00, 0.80, 1.20), "inconclusive"),
        ((1.00, 0.95, 1.05), "unchanged"),
        ((0.80, 0.70, 0.90), "faster"),
        ((1.00, 0.00, math.inf), "inconclusive"),
    ],
)
def test_verdicts(interval, expected):
    assert verdict(Interval(*interval), 0.1) == expected


def samples(ratio, rounds=31, seed=0, drift=None):
    """A case whose candidate takes `ratio` times as long as its reference."""
    rng = np.random.default_rng(seed)
    speed = np.ones(rounds) if drift is None else drift
    reference = 1e-3 * speed * noise(rng, rounds)
    return Samples(list(ratio * 1e-3 * speed * noise(rng, rounds)), list(reference))


def test_a_comparison_finds_what_changed_and_only_that():
    drift = np.exp(np.linspace(0, 1.5, 61))  # the machine slows down more than any case does
    old = {n: samples(0.1, 61, i, drift) for i, n in enumerate(["a", "b", "c", "gone"])}
    new = {
        n: samples(0.1 * f, 61, 10 + i, drift)
        for i, (n, f) in enumerate([("a", 1.3), ("b", 1.0), ("c", 0.7), ("new", 1)])
    }
    changes = compared((old, new), 0.1)
    assert {r.case: r.verdict for r in changes.rows} == {"a": "regression", "b": "unchanged", "c": "faster"}
    assert (changes.regressions, changes.added, changes.removed, changes.code) == (["a"], ["new"], ["gone"], 1)
    assert compared((old, new), 0.5).code == 0
    text = changes.markdown("title")
    assert "**1 of 3 cases slower by more than 10%.**" in text
    assert [line[2] for line in text.splitlines() if line[:2] == "| " and line[2] != " "] == ["▲", "▼", "="]
    assert "new, nothing to compare with: `new`" in text
    assert "no longer there: `gone`" in text


def test_pairs_ignore_the_reference_in_the_change():
    old, new = samples(0.1, seed=1), samples(0.13, seed=2)
    new.reference = [10 * x for x in new.reference]
    (row,) = paired(({"a": old}, {"a": new}), 0.1).rows
    assert row.interval.ratio == pytest.approx(1.3, rel=0.03)
    assert row.new / row.old == pytest.approx(row.interval.ratio)


def test_what_measures_nothing_fails():
    with pytest.raises(InputError, match="nothing to compare: no case is on both sides"):
        compared(({"a": samples(1.0)}, {"b": samples(1.0)}), 0.1)
    with pytest.raises(InputError, match="b has 5 rounds; to judge 2 cases, each needs at least 8"):
        compared(({n: samples(1.0) for n in "ab"}, {"a": samples(1.0), "b": samples(1.0, 5)}), 0.1)
    rng = np.random.default_rng(3)
    wild = [{"a": Samples(list(np.exp(rng.normal(0, 3, 9))), [1.0] * 9)} for _ in range(2)]
    changes = compared(tuple(wild), 0.1)
    assert changes.code == 2
    assert "Nothing could be judged" in changes.markdown("")


def test_the_table_is_printed_and_added_to_the_step_summary(tmp_path, monkeypatch, capsys):
    summary, file = tmp_path / "summary.md", tmp_path / "comment.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    publish("one\n", str(file))
    publish("two\n", None)
    assert capsys.readouterr().out == "one\ntwo\n"
    assert summary.read_text() == "one\n\ntwo\n\n"
    assert file.read_text() == "one\n"


# A module of cases, records, history

MODULE = """\
import numpy as np
x = np.linspace(0, 1, 2000)
def cases():
    return {"square": (lambda: x * x, lambda: np.power(x, 2.0)), "root": (lambda: np.sqrt(x), lambda: x**0.5)}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    (tmp_path / "cases.py").write_text(MODULE)
    return tmp_path


def run(*arguments):
    result = testing.CliRunner().invoke(app, ["track", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_record_then_compare_with_itself(folder):
    assert run("record", "a.json", "--cases", "cases.py", "--rounds", 9) == (0, "2 cases recorded in a.json\n", "")
    found = records.read("a.json")
    assert list(found.cases) == ["square", "root"]
    assert all(len(s.candidate) == len(s.reference) == 9 for s in found.cases.values())
    assert found.machine["processor"]
    whole = json.loads((folder / "a.json").read_text())
    for name, s in found.cases.items():
        assert whole["cases"][name]["ratio"] == pytest.approx(np.median(np.divide(s.candidate, s.reference)))
    code, out, _ = run("compare", "a.json", "a.json", "--markdown", "table.md", "--threshold", "900%")
    assert code == 0
    assert (folder / "table.md").read_text() == out
    assert "+0.0%" in out


def test_compare_exits_with_1_after_a_regression(folder):
    for name, factor in (("old", 1.0), ("new", 1.3)):
        machine = {"processor": name, "cores": 2, "load": 0.4 if name == "old" else 1.9}
        record = records.Record(machine, {"a": samples(factor, seed=1), "b": samples(1.0, seed=2)})
        (folder / f"{name}.json").write_text(record.to_json())
    code, out, err = run("compare", "old.json", "new.json")
    assert (code, err) == (1, "")
    assert "+30.0%" in out
    assert "measured on different machines: old; new" in out
    assert "the machine was busy when new.json was recorded: load 1.9" in out
    assert "old.json was recorded" not in out
    assert run("compare", "old.json", "new.json", "--threshold", "0.4")[0] == 0
    assert run("compare", "new.json", "old.json")[0] == 0


def test_cases_may_be_a_dictionary_in_a_module_by_name(folder, monkeypatch):
    (folder / "tracked_by_name.py").write_text("CASES = {'a': (int, str)}")
    monkeypatch.syspath_prepend(str(folder))
    assert cases.load("tracked_by_name") == {"a": (int, str)}


@pytest.mark.jit
def test_the_cases_of_this_package_run():
    found = cases.load("fastloss.performance.tracked")
    assert len(found) >= 5
    for candidate, reference in found.values():
        candidate()
        reference()


MISUSES = {
    "no module": (("record", "x.json", "--cases", "no.such"), "there is no module no.such"),
    "no file": (("record", "x.json", "--cases", "none.py"), "there is no file none.py"),
    "no cases": (("record", "x.json", "--cases", "empty.py"), "empty.py defines no cases()"),
    "wrong cases": (
        ("record", "x.json", "--cases", "wrong.py"),
        "case 'a' of wrong.py is (1, 2); expected (candidate,",
    ),
    "few rounds": (("record", "x.json", "--cases", "cases.py", "--rounds", "3"), "rounds is 3; to compare 2 cases"),
    "no folder": (("record", "no/x.json", "--cases", "cases.py"), "cannot write no/x.json"),
    "no record": (("compare", "cases.py", "cases.py"), "cases.py is no record"),
    "no such record": (("compare", "none.json", "none.json"), "none.json: No such file"),
    "zero time": (("compare", "zero.json", "zero.json"), "zero.json is no record"),
    "threshold": (("compare", "cases.py", "cases.py", "--threshold", "10"), "--threshold is 10; expected"),
    "no repository": (("gate", "--base", "HEAD", "--cases", "cases.py"), "not a git repository"),
    "empty history": (("history", "none.jsonl", "--plot", "x.png"), "there is nothing to draw"),
    "plot": (("history", "none.jsonl", "--plot", "x.gif"), "plot is x.gif; expected FILE.svg or FILE.png"),
    "no history": (("history", "cases.py"), "cases.py, line 1 is no entry of a history: import numpy"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_one_sentence_and_exit_code_2(folder, monkeypatch, name):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    (folder / "empty.py").write_text("")
    (folder / "wrong.py").write_text("CASES = {'a': (1, 2)}")
    zero = records.Record({}, {"a": Samples([0.0] * 9, [1.0] * 9)})
    (folder / "zero.json").write_text(
        json.dumps({"format": records.FORMAT, "machine": {}, "cases": {"a": zero.cases["a"].__dict__}})
    )
    arguments, message = MISUSES[name]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "x.json").exists()


def test_history_grows_by_one_line_and_is_drawn(folder, monkeypatch):
    monkeypatch.setenv("GITHUB_SHA", "c0ffee" * 6)
    for i, ratio in enumerate((0.1, 0.2)):
        record = records.Record(
            {"processor": f"P{i}", "date": f"2026-01-0{i + 1}"}, {"a": samples(ratio), "b": samples(1.0)}
        )
        (folder / "r.json").write_text(record.to_json())
        options = ("--commit", "abc1234") if i else ()
        code, out, err = run("history", "h.jsonl", "--add", "r.json", *options)
        assert (code, out, err) == (0, f"{i + 1} commit{'s' if i else ''} in h.jsonl\n", "")
    first, second = history.read("h.jsonl")
    assert (first.commit, second.commit, second.date, second.machine) == ("c0ffee" * 6, "abc1234", "2026-01-02", "P1")
    ratio, low, high = second.cases["a"]
    assert low < ratio < high
    assert ratio == pytest.approx(0.2, rel=0.05)
    pytest.importorskip("matplotlib", reason="it draws")
    assert run("history", "h.jsonl", "--plot", "h.svg")[0] == 0
    texts = {"".join(e.itertext()).strip() for e in ElementTree.parse("h.svg").iter() if e.tag.endswith("}text")}
    assert {f"a  {ratio:.3g}x", "other machine", "the reference"} <= texts
    assert run("history", "h.jsonl", "--plot", "h.png")[0] == 0
    assert (folder / "h.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir()) == ["cases.py", "h.jsonl", "h.png", "h.svg", "r.json"]


def test_a_drawing_without_matplotlib_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(InputError, match=r'pip install "fastloss\[track\]"'):
        history.draw([history.Entry("a", "b", "c", {"x": Interval(1.0, 0.9, 1.1)})], "x.png")


def test_labels_of_equal_lines_do_not_cover_each_other(folder):
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(11, 4.4), dpi=150)
    axes = figure.add_subplot()
    axes.set_yscale("log")
    axes.plot([1, 2], [0.1, 1.0])
    history._labels(axes, [(f"case {i}", 0.3, "black") for i in range(8)])
    heights = sorted(t.xyann[1] for t in axes.texts)
    tall = 8 * 150 / 72 / axes.get_window_extent().height
    assert min(b - a for a, b in itertools.pairwise(heights)) >= tall


def test_an_empty_table_has_no_verdict():
    assert Changes([], 0.1, 0).code == 2
