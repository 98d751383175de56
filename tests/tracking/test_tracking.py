"""Tracking speed: what a comparison says of records, and what is read and written."""

import itertools
import json
import math
import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from fastloss.evaluation.columns import InputError
from fastloss.tracking import cases, history, records, workers
from fastloss.tracking.changes import Changes, code, compared, paired, publish, verdict
from fastloss.tracking.intervals import Interval, of_pairs
from fastloss.tracking.sampling import Samples

testing = pytest.importorskip("typer.testing")

from fastloss.command.commands import app  # noqa: E402

# What is said of a change


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((1.30, 1.20, 1.40), "regression"),
        ((1.12, 1.101, 1.20), "regression"),
        ((1.12, 1.05, 1.20), "cannot tell"),
        ((1.08, 1.02, 1.15), "cannot tell"),
        ((1.08, 1.05, 1.09), "unchanged"),
        ((1.30, 0.99, 1.60), "cannot tell"),
        ((1.00, 0.80, 1.20), "cannot tell"),
        ((1.00, 0.95, 1.05), "unchanged"),
        ((0.80, 0.70, 0.90), "faster"),
        ((0.95, 0.85, 1.05), "not slower"),
        ((1.00, 0.00, math.inf), "cannot tell"),
        ((math.nan, 0.00, math.inf), "cannot tell"),
    ],
)
def test_verdicts(interval, expected):
    assert verdict(Interval(*interval), 0.1) == expected


def samples(ratio, rounds=31, seed=0, speed=1.0):
    """A case in one process, whose candidate takes `ratio` times as long as its reference."""
    rng = np.random.default_rng(seed)
    reference = 1e-3 * speed * (1 + rng.exponential(0.01, rounds))
    return Samples(list(ratio * 1e-3 * speed * (1 + rng.exponential(0.01, rounds))), list(reference))


def processes(ratio, count=10, seed=0, speed=1.0):
    return [
        samples(ratio * np.exp(0.01 * ((7 * i + seed) % 10 - 4.5) / 4.5), 11, i + seed, speed) for i in range(count)
    ]


def records_of(rng, count, factor=1.0, between_processes=0.03, outliers=0.1):
    """Records of one code: a process is faster or slower as a whole, and one in ten far slower."""
    made = []
    for _ in range(count):
        processes = np.exp(between_processes * rng.standard_normal(10))
        processes *= np.where(rng.random(10) < outliers, 1.4, 1.0)
        made.append({"a": [samples(factor * p, 11, rng.integers(1 << 30)) for p in processes]})
    return made


def test_records_of_unchanged_code_differ_between_processes_and_raise_no_alarm():
    """Rounds within a process agree to 1%, processes differ by 3%: the interval must span the latter."""
    rng = np.random.default_rng(4)
    made = records_of(rng, 60)
    found = [compared((a, b), 0.1, False).rows[0] for a, b in zip(made[::2], made[1::2], strict=True)]
    assert all(r.verdict != "regression" for r in found)
    assert sum(not r.interval.low <= 1 <= r.interval.high for r in found) <= 6
    assert sum(r.verdict == "unchanged" for r in found) >= 20


def test_a_slowdown_of_30_percent_is_found_through_the_noise_of_processes():
    rng = np.random.default_rng(6)
    old, new = records_of(rng, 20), records_of(rng, 20, 1.3)
    found = [compared((a, b), 0.1, False).rows[0].verdict for a, b in zip(old, new, strict=True)]
    assert found.count("regression") >= 18
    assert set(found) <= {"regression", "cannot tell"}


def test_a_comparison_finds_what_changed_and_only_that():
    old = {n: processes(0.1, seed=i) for i, n in enumerate(["a", "b", "c", "gone"])}
    new = {
        n: processes(0.1 * f, seed=10 + i, speed=1.15)  # the machine slows down more than any limit
        for i, (n, f) in enumerate([("a", 1.3), ("b", 1.0), ("c", 0.7), ("new", 1)])
    }
    changes = compared((old, new), 0.1, True)
    assert {r.case: r.verdict for r in changes.rows} == {"a": "regression", "b": "unchanged", "c": "faster"}
    assert (changes.regressions, changes.added, changes.removed, changes.code) == (["a"], ["new"], ["gone"], 1)
    assert compared((old, new), 0.5, True).code == 0
    text = changes.markdown("title")
    assert "**1 of 3 cases slower by more than 10%.**" in text
    assert [line[2] for line in text.splitlines() if line[:2] == "| " and line[2] != " "] == ["▲", "▼", "="]
    assert "new, nothing to compare with: `new`" in text
    assert "no longer there: `gone`" in text


def test_a_reference_that_became_faster_is_no_regression_on_one_machine():
    old, new = {"a": processes(0.1)}, {"a": processes(0.1, seed=3)}
    for s in new["a"]:
        s.reference = [x / 1.5 for x in s.reference]
    changes = compared((old, new), 0.1, True)
    assert changes.rows[0].verdict == "cannot tell"
    assert "cannot tell `a`: its seconds changed by " in changes.markdown("")
    assert compared((old, new), 0.1, False).rows[0].verdict == "regression"


def test_processes_that_were_disturbed_have_no_say():
    old, new = {"a": processes(0.1)}, {"a": processes(0.1, seed=3)}
    for s in new["a"][:7]:
        s.candidate, s.disturbed = [1.0, 1.0], 64  # two samples that other work spoilt unnoticed
    changes = compared((old, new), 0.1, True)
    assert (changes.rows[0].verdict, changes.code) == ("cannot tell", 2)
    text = changes.markdown("")
    assert "cannot tell `a`: other work left 3 of 10 processes undisturbed, of which it takes 4" in text
    assert "unknown" in text
    assert compared((old, {"a": new["a"][5:] + new["a"][7:]}), 0.1, True).rows[0].verdict == "unchanged"


def test_pairs_ignore_the_reference_in_the_change():
    old, new = processes(0.1, seed=1), processes(0.13, seed=2)
    for s in new:
        s.reference = [10 * x for x in s.reference]
    (row,) = paired(({"a": old}, {"a": new}), 0.1).rows
    assert row.interval.ratio == pytest.approx(1.3, rel=0.03)
    assert row.new / row.old == pytest.approx(row.interval.ratio)


def test_what_measures_nothing_fails():
    with pytest.raises(InputError, match="nothing to compare: no case is on both sides"):
        compared(({"a": processes(1.0)}, {"b": processes(1.0)}), 0.1, True)
    rng = np.random.default_rng(3)
    wild = [{"a": [samples(r, 11, i) for i, r in enumerate(np.exp(rng.normal(0, 3, 9)))]} for _ in range(2)]
    changes = compared(tuple(wild), 0.1, True)
    assert changes.code == 2
    assert "Nothing could be judged" in changes.markdown("")
    mixed = ({**wild[0], "b": processes(1.0)}, {**wild[1], "b": processes(1.0, seed=5)})
    assert "1 of 2 cases could be judged, and none of these became slower" in compared(mixed, 0.1, True).markdown("")


NAMES = {
    "a|b": ("`a|b`", r"`a\|b`"),
    "two\nlines\x1b[2J\u202e": ("`two lines [2J`", "`two lines [2J`"),
    "**[x](http://y)** <b>@you": ("`**[x](http://y)** <b>@you`",) * 2,
    "`a``b": ("``` `a``b ```",) * 2,
    " ": ("`?`",) * 2,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_code_on_one_line(name):
    plain, in_table = NAMES[name]
    assert (code(name), code(name, in_table=True)) == (plain, in_table)
    sides = {name: processes(0.1), "gone": []}, {name: processes(0.1), name + "2": []}
    lines = compared(sides, 0.1, True).markdown("title").splitlines()
    assert sum(line.count(in_table) for line in lines if line[:1] == "|") == 1
    assert all(line.replace("\\|", "").count("|") == 8 for line in lines if line[:1] == "|")


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
    asked = ("--cases", "cases.py", "--processes", 6, "--rounds", 4)
    assert run("record", "a.json", *asked) == (0, "2 cases recorded in a.json\n", "")
    assert sorted(os.listdir()) == ["a.json", "cases.py"]  # and no __pycache__
    found = records.read("a.json")
    assert list(found.cases) == ["square", "root"]
    for name, each in found.cases.items():
        assert len(each) == 6, name
        assert all(len(s.candidate) <= 24 and len(s.reference) <= 24 for s in each)
    assert found.machine["processor"]
    whole = json.loads((folder / "a.json").read_text())
    for name in found.cases:
        ratio = of_pairs(found.ratios(name)).ratio
        assert whole["cases"][name]["ratio"] == (pytest.approx(ratio) if math.isfinite(ratio) else None)
    code, out, _ = run("compare", "a.json", "a.json", "--markdown", "table.md", "--threshold", "900%")
    assert code in (0, 2)  # 2 where other work left too few samples
    assert (folder / "table.md").read_text() == out


def write(name, cases, **machine):
    with open(name, "w") as file:
        file.write(records.Record({"processor": "P", **machine}, cases).to_json())


def test_compare_exits_with_1_after_a_regression(folder):
    for name, factor in (("old", 1.0), ("new", 1.3)):
        cases = {"a": processes(factor, seed=1), "b": processes(1.0, seed=2)}
        for s in cases["b"] if name == "new" else ():
            s.disturbed = 50
        write(f"{name}.json", cases, processor=f"{name} | `x`")
    code, out, err = run("compare", "old.json", "new.json")
    assert (code, err) == (1, "")
    assert "+30.0%" in out
    assert "measured on different machines: `` old | `x` ``; `` new | `x` ``" in out
    assert "the machine was busy when `new.json` was recorded: other work disturbed 53% of the samples" in out
    assert "`old.json` was recorded" not in out
    assert run("compare", "old.json", "new.json", "--threshold", "0.4")[0] == 0
    assert run("compare", "new.json", "old.json")[0] == 0


def changed(change):
    """The text of a record in which one thing is changed."""
    text = records.Record({"processor": "P"}, {"a": processes(1.0)}).to_json()
    document = json.loads(text)
    change(document, document["cases"]["a"]["processes"])
    return json.dumps(document)


def put(value):
    """A record one of whose times is this JSON."""
    return changed(lambda d, p: p[0].update(candidate=["HERE"])).replace('"HERE"', value)


MALFORMED = {
    "no JSON": "x",
    "empty": "",
    "a list": "[]",
    "a number": "1",
    "nested": "[" * 100_000,
    "no cases": changed(lambda d, p: d.pop("cases")),
    "cases as a list": changed(lambda d, p: d.update(cases=[1])),
    "cases as a text": changed(lambda d, p: d.update(cases="a")),
    "a case as a number": changed(lambda d, p: d["cases"].update(a=1)),
    "processes as a mapping": changed(lambda d, p: d["cases"]["a"].update(processes={"b": 1})),
    "times as a text": changed(lambda d, p: p[0].update(candidate="123")),
    "times as a mapping": changed(lambda d, p: p[0].update(reference={"1": 1})),
    "no reference": changed(lambda d, p: p[0].pop("reference")),
    "a count as a text": changed(lambda d, p: p[0].update(disturbed="1")),
    "a machine as a text": changed(lambda d, p: d.update(machine="m")),
    "a processor as a list": changed(lambda d, p: d["machine"].update(processor=["x"])),
    "a number of 400 digits": put("1" * 400),
    "a number of 9,000 digits": put("1" * 9000),
    "NaN": put("NaN"),
    "infinity": put("1e400"),
    "zero": put("0"),
    "a time below any clock": put("1e-300"),
    "a truth": put("true"),
    "null": put("null"),
    "a format that is a list": changed(lambda d, p: d.update(format=["x"])),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_exits_with_2(folder, name):
    write("good.json", {"a": processes(1.0)})
    (folder / "bad.json").write_text(MALFORMED[name])
    for order in (("bad.json", "good.json"), ("good.json", "bad.json")):
        code, out, err = run("compare", *order)
        assert (code, out) == (2, "")
        assert err.startswith("fastloss: bad.json ")
        assert err.count("\n") == 1
    assert run("history", "h.jsonl", "--add", "bad.json")[0] == 2


def test_a_record_of_an_older_format_is_to_be_recorded_again(folder):
    (folder / "old.json").write_text('{"format": "fastloss track record, version 1"}')
    assert "version 1'; record it again with this version of fastloss" in run("compare", "old.json", "old.json")[2]


LINE = '{"commit": "a", "date": "b", "machine": "c", "cases": {"x": [1, 1, 1]}}'


@pytest.mark.parametrize(
    "line",
    [
        *("x", "[]", "[" * 100_000, LINE.replace('"a"', "1"), LINE.replace('"c"', "[]")),
        *(
            LINE.replace("[1, 1, 1]", f"[{x}]")
            for x in ("1", "1, NaN, 1", "1, 1" + "0" * 400 + ", 1", "1, 2, 3", "0, 0, 0")
        ),
        LINE.replace("[1, 1, 1]", '"abc"'),
    ],
)
def test_a_malformed_history_exits_with_2(folder, line):
    (folder / "h.jsonl").write_text(LINE + "\n" + line)
    code, out, err = run("history", "h.jsonl", "--plot", "h.svg")
    assert (code, out) == (2, "")
    assert "h.jsonl, line 2 is no entry of a history" in err
    assert err.count("\n") == 1


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


def test_a_process_that_does_not_answer_is_ended(folder, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 1.5)
    (folder / "hangs.py").write_text("import time\nCASES = {'a': (lambda: time.sleep(60), int)}")
    code, out, err = run("record", "x.json", "--cases", "hangs.py", "--processes", 4)
    assert (code, out) == (2, "")
    assert "the process of hangs.py ended with " in err


MISUSES = {
    "no module": (("record", "x.json", "--cases", "no.such"), "there is no module no.such"),
    "no file": (("record", "x.json", "--cases", "none.py"), "there is no file none.py"),
    "no cases": (("record", "x.json", "--cases", "empty.py"), "empty.py defines no cases()"),
    "wrong cases": (
        ("record", "x.json", "--cases", "wrong.py"),
        "case 'a' of wrong.py is (1, 2); expected (candidate,",
    ),
    "few processes": (
        ("record", "x.json", "--cases", "cases.py", "--processes", "4"),
        "--processes is 4; expected at least 5, by the number of cases",
    ),
    "sys.exit": (("record", "x.json", "--cases", "exits.py"), "exits.py calls sys.exit(0) when it is loaded"),
    "a case that exits": (("record", "x.json", "--cases", "leaves.py"), "leaves.py: SystemExit: 0"),
    "a case that reads": (("record", "x.json", "--cases", "reads.py"), "reads.py: EOFError"),
    "an error in the cases": (("record", "x.json", "--cases", "fails.py"), "fails.py: ZeroDivisionError: division by"),
    "elsewhere": (("record", "x.json"), "is not the repository of fastloss, which alone has cases by default; name a"),
    "a gate elsewhere": (("gate", "--base", "HEAD"), "cases(): --cases path/to/cases.py"),
    "no folder": (("record", "no/x.json", "--cases", "cases.py"), "cannot write no/x.json"),
    "no record": (("compare", "cases.py", "cases.py"), "cases.py is no record"),
    "no such record": (("compare", "none.json", "none.json"), "none.json: No such file"),
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
    (folder / "exits.py").write_text("import sys\nsys.exit(0)")
    (folder / "leaves.py").write_text("import sys\nCASES = {'a': (lambda: sys.exit(0), int)}")
    (folder / "reads.py").write_text("CASES = {'a': (input, int)}")
    (folder / "fails.py").write_text("1 / 0")
    arguments, message = MISUSES[name]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "x.json").exists()


def test_history_grows_by_one_line_and_is_drawn(folder, monkeypatch):
    monkeypatch.setenv("GITHUB_SHA", "c0ffee" * 6)
    for i, ratio in enumerate((0.1, 0.2)):
        cases = {"a": processes(ratio), "b": processes(1.0)}
        write("r.json", cases, processor=f"P{i}", date=f"2026-01-0{i + 1}")
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


def test_names_in_a_drawing_are_no_formulas_and_no_markup(folder):
    pytest.importorskip("matplotlib", reason="it draws")
    name = "$\\frac$ <b> & \x00\x1b"
    history.draw([history.Entry("$x$\x01", "b\nc", "d", {name: Interval(1.0, 0.9, 1.1)})], "x.svg")
    texts = {"".join(e.itertext()).strip() for e in ElementTree.parse("x.svg").iter() if e.tag.endswith("}text")}
    assert {"$\\frac$ <b> &  1x", "$x$"} <= texts


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
