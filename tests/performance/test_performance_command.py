"""`fastloss bench`: what may be asked for, what is printed and written; and the pages' sections, made of figures."""

import dataclasses
import io
import json
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl

testing = pytest.importorskip("typer.testing")
rich = pytest.importorskip("rich.console")

from bench import table  # noqa: E402
from fastloss.command.commands import app  # noqa: E402
from fastloss.cuda.placement import has_kernel  # noqa: E402
from fastloss.evaluation import InputError  # noqa: E402
from fastloss.performance import ask, command, report  # noqa: E402
from fastloss.performance.cases import MEASURED, Case  # noqa: E402
from fastloss.performance.contestants import BUILDERS, OURS  # noqa: E402
from fastloss.performance.cuda_model import SIZE, estimates  # noqa: E402
from fastloss.performance.machine import about, sentence  # noqa: E402
from fastloss.performance.run import Measured, Timing  # noqa: E402


def bench(*arguments):
    result = testing.CliRunner().invoke(app, ["bench", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


PERFORMANCE_PAGES = (("docs", "performance.md"), ("bench", "results", "performance.md"))
QUICK = ("-n", "1e2", "-c", "numpy", "--rounds", 3)


# what is asked for ---------------------------------------------------------------------------------------------------


OWN = """
import numpy as np, fastloss as fl
@fl.loss
def skewed(z, t, ratio=3.0):
    return np.where(z > t, 1.0, ratio) * (z - t) ** 2
@fl.loss(name="huber")
def other(z, t, delta=1.0):
    return (z - t) ** 4
@fl.row_loss()
def rows(lp, t):
    return -t * lp
both = 0.7 * fl.mse + 0.3 * skewed
"""


def test_losses_of_ones_own_are_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    names = ["mine.py:skewed:ratio=5", "mine.py:other", "mine.py:rows[K=4]", "mine.py:both", "expr:(p - t)**2"]
    code, out, err = bench(*names, *QUICK, "--json", "-")
    assert (code, err) == (0, "")
    found = json.loads(out)["results"]
    assert [r["case"]["loss"] for r in found] == [n.removesuffix("[K=4]") for n in names]
    # NumPy's reference is of the user's formula, not of the built-in huber: it would disagree, and not be timed.
    assert all("numpy" in r["timings"] and not r["errors"] for r in found)
    assert ask.parse_loss("mine.py:skewed:ratio=5").bound.defaults["ratio"] == 5.0
    code, out, err = bench("mine.py")
    assert code == 2
    assert "mine.py is a file; name a loss in it: mine.py:skewed, mine.py:other, mine.py:rows, mine.py:both" in err
    code, out, err = bench("mine.py:rows[K=4,logits]")
    assert code == 2
    assert "expected [K=NUMBER]" in err


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("mse", Case("mse", 0)),
        ("huber:delta=2", Case("huber", 0, parameters=(("delta", 2.0),))),
        ("huber:delta=1", Case("huber", 0)),
        ("focal:alpha=none,gamma=1", Case("focal", 0, parameters=(("alpha", None), ("gamma", 1.0)))),
        ("cross_entropy", Case("cross_entropy", 0, classes=10, target="labels")),
        ("cross_entropy[K=1000]", Case("cross_entropy", 0, classes=1000, target="labels")),
        ("cross_entropy[K=5,probabilities]", Case("cross_entropy", 0, classes=5, target="probabilities")),
        ("js_div", Case("js_div", 0, classes=10, target="probabilities")),
        ("crps_ensemble[K=50]", Case("crps_ensemble", 0, classes=50, target="number")),
    ],
)
def test_names_become_cases(text, case):
    assert ask.parse_loss(text) == case
    assert case.target == "probabilities" or ask.parse_loss(case.label) == case


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mes", "no loss named 'mes'; did you mean mse"),
        ("huber:dleta=2", "huber: dleta is not a parameter; did you mean delta"),
        ("huber:delta=-1", "huber: delta is -1; allowed: (0, inf)"),
        ("quantile:q=0.1/0.9", "q has several levels; expected one"),
        ("mse[K=3]", "mse is a loss of single elements and has no columns"),
        ("cross_entropy[K=1]", "expected [K=NUMBER] with at least 2 columns, got 'K=1'"),
        ("cross_entropy[10]", "got '10'"),
        ("multi_margin[probabilities]", "got 'probabilities'"),
    ],
)
def test_names_that_are_wrong(text, message):
    with pytest.raises(InputError) as caught:
        ask.parse_loss(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mes"], "no loss named 'mes'; did you mean mse"),
        (["mse", "--size", "0"], "--size is '0'; expected a whole number from 1"),
        (["mse", "--size", "1.5"], "--size is '1.5'"),
        (["mse", "--size", "many"], "--size is 'many'"),
        (["mse", "--size", "1e400"], "--size is '1e400'"),
        (["mse", "--dtype", "float8"], "--dtype is 'float8'; allowed: float32, float64"),
        (["mse", "--mode", "grad"], "--mode is 'grad'; allowed: value, value_and_grad, grad_and_hess"),
        (["mse", "-c", "nunpy"], "no contestant named 'nunpy'; did you mean numpy"),
        (["mse", "--plot", "x.pdf"], "--plot is 'x.pdf'; expected a file that ends in .png or .svg"),
        (["mse", "--json", "-", "--markdown", "-"], "--json and --markdown cannot both go to the standard output"),
        (["mse", "--json", "no/such/folder.json"], "cannot write no/such/folder.json"),
        (["mse", "--threads", "100000"], "--threads is 100000; expected at most"),
    ],
)
def test_options_that_are_wrong_exit_with_2(arguments, message):
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("fastloss: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_contestant_that_is_not_installed_is_refused_by_name(monkeypatch):
    entry = BUILDERS["jax"]._replace(needs="no_such_module")
    monkeypatch.setitem(BUILDERS, "jax", entry)
    code, _, err = bench("mse", "-c", "jax")
    assert code == 2
    assert "jax is not installed" in err
    assert "jax" not in ask.chosen_contestants([])


def test_sizes_and_the_table_of_cases():
    assert ask.parse_sizes(["1e2,1e4", "64", "100"]) == [100, 10_000, 64]
    assert len(ask.table([], False, [100], ["float32"], ["value"])) == len(ask.SHORT)
    assert len(ask.table([], True, [100, 200], ["float32,float64"], ["value"])) == 4 * len(MEASURED)


# what comes out ------------------------------------------------------------------------------------------------------


@pytest.mark.jit
def test_a_run_prints_its_machine_and_a_table():
    code, out, err = bench("mse", "huber:delta=2", *QUICK)
    assert (code, err) == (0, "")
    assert "cores" in out
    assert "value_and_grad, float32" in out
    (heading,) = [line for line in out.splitlines() if line.startswith("loss") and "median" in line]
    assert heading.split()[:3] == ["loss", "n", "median"]
    assert heading.endswith("numpy")
    assert any(line.startswith("huber:delta=2") for line in out.splitlines())
    assert "memory of a call" in out


@pytest.mark.jit
def test_json_and_markdown_go_to_files_or_alone_to_stdout(tmp_path):
    code, out, _ = bench("mse", *QUICK, "--json", "-", "--markdown", tmp_path / "table.md")
    assert code == 0
    given = json.loads(out)
    assert given["machine"]["versions"]["numpy"]
    assert given["results"][0]["case"]["loss"] == "mse"
    assert set(given["results"][0]["timings"]) == {"fastloss", "numpy"}
    document = report.Document.read(out)
    assert report.Document.read(document.to_json()) == document
    written = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert written == report.markdown(document)
    assert "| mse | 1e2 |" in written


@pytest.mark.jit
def test_threads_are_set_and_put_back():
    before = fl.get_num_threads()
    code, out, _ = bench("mse", *QUICK, "--threads", 1, "--json", "-")
    assert code == 0
    assert json.loads(out)["machine"]["threads"] == 1
    assert fl.get_num_threads() == before


@pytest.mark.jit
@pytest.mark.slow
def test_first_calls_are_timed_in_processes_of_their_own():
    code, out, _ = bench("mse", *QUICK, "--compile", "--json", "-")
    assert code == 0
    given = json.loads(out)
    times = given["results"][0]["compile"]
    assert 0 < times["cached"] < times["cold"]
    assert set(given["startup"]) == {"import after numpy", "first result of a process"}


def made(label="mse", size=100, numpy=2.0, **changes):
    """Figures that were never measured."""
    case = {**ask.parse_loss(label).__dict__, "size": size, **changes}
    timings = {OURS: Timing(2e-6, 1.9e-6, 2.2e-6, 1.0, 464), "no-out": Timing(3e-6, 3e-6, 3e-6, 1.5, 1000)}
    timings |= {n: Timing(2e-6 * numpy, 1e-6, 5e-6, numpy, None) for n in BUILDERS if n not in timings}
    return Measured(Case(**case), timings, {}, {"copy": 1e-6, "triad": 1.5e-6, "arithmetic": 0.5e-6})


def wide():
    """A document with the longest name, all contestants, and figures of every length."""
    names = ("mse", "evidential_regression", "generalized_cross_entropy", "cross_entropy[K=32000]")
    results = [made(n, size, ratio) for n in names for size, ratio in ((100, 0.5), (10_000_000, 123.4))]
    return report.Document(about(), 15, results)


def test_the_table_reads_well_at_100_columns(monkeypatch):
    text = io.StringIO()
    terminal = rich.Console(file=text, width=100, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr(command, "make_console", lambda **options: terminal)
    command.show(wide())
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    # No cell is cut, and a name that does not fit is folded, never lost.
    assert "…" not in text.getvalue()
    assert "0.50!" in text.getvalue()


def test_ratios_of_disturbed_samples_are_marked_and_explained(tmp_path):
    calm = made()
    timings = {**calm.timings, "scikit-learn": Timing(1e-2, 1e-3, 2e-2, 4662.0, None, 0.9)}
    busy = dataclasses.replace(calm, timings=timings, others=1.8)
    alone = dataclasses.replace(busy, others=0.02)
    assert "4662?" in report.cells([busy])[1]
    assert (
        report.ratio(
            dataclasses.replace(busy, timings={**timings, "numpy": Timing(1e-6, 0, 0, 0.5, None, 0.6)}), "numpy"
        )
        == "0.50?!"
    )
    cores = about()["cores"]
    text = report.markdown(report.Document(about(), 15, [calm, busy]))
    assert f"The machine was busy: other processes used up to 1.8 of {cores} cores, in 1 of 2 cases." in text
    assert "? marks times and ratios of contestants that waited for a core in most samples" in text
    assert "own threads" not in text
    lines = report.disturbances(report.Document(about(), 15, [calm, alone]))
    assert lines[1] == (
        f"{calm.case.id}: the contestants' own threads disturbed each other (scikit-learn). Name fewer contestants, or"
        " set --threads 1."
    )
    assert report.disturbances(report.Document(about(), 15, [calm])) == []
    document = report.Document(about(), 15, [busy])
    assert report.Document.read(document.to_json()).results == [busy]


def test_losing_rows_are_marked_and_ours_are_not():
    heading, row = report.cells([made(numpy=0.5)])
    found = dict(zip(heading, row, strict=True))
    assert (found["numpy"], found["no-out"], found["median"]) == ("0.50!", "1.50", "2 us")
    assert report.cells([made(numpy=2.0)])[1][heading.index("numpy")] == "2.00"


def test_a_contestant_that_failed_or_has_none_is_told_apart():
    m = made()
    timings = {k: v for k, v in m.timings.items() if k not in ("numpy", "jax")}
    m = Measured(m.case, timings, {"numpy": "numpy disagrees: value 1, expected 2"}, m.roofs)
    found = dict(zip(*report.cells([made("huber"), m])[::2], strict=True))
    assert (found["numpy"], found["jax"]) == ("failed", "-")
    assert report.problems([m]) == ["mse/n=1e2/float32/value_and_grad: numpy disagrees: value 1, expected 2"]


def test_the_machine_in_one_line():
    text = sentence(about())
    assert "\n" not in text
    assert "numpy" in text


# plots ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_plots_are_drawn_and_small(kind, tmp_path):
    plot = pytest.importorskip("fastloss.performance.plot")
    pytest.importorskip("matplotlib")
    path = tmp_path / f"figure.{kind}"
    plot.draw(wide(), str(path))
    assert path.stat().st_size > 5000
    if kind == "svg":
        text = path.read_text(encoding="utf-8")
        xml.dom.minidom.parseString(text)
        for shown in ("cross_entropy[K=32000]", "Roofline", "Throughput", "torch.compile"):
            assert shown in text
        plot.draw(wide(), str(path))
        assert path.read_text(encoding="utf-8") == text


def test_a_plot_of_one_size_has_no_throughput(tmp_path):
    plot = pytest.importorskip("fastloss.performance.plot")
    pytest.importorskip("matplotlib")
    document = report.Document(about(), 3, [made()])
    plot.draw(document, str(tmp_path / "one.svg"))
    assert "Throughput" not in (tmp_path / "one.svg").read_text(encoding="utf-8")


def shown_texts(figure):
    """Return the places (pixels) of all texts that a figure shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hidden = []  # labels of ticks beyond the ends of an axis, which are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.majorTicks, *axis.minorTicks]
        hidden += [t.label1 for t in ticks if not low <= t.get_loc() <= high]
    found = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible() and t not in hidden]
    # Of an annotation too the text alone, without its leader line.
    return [(t.get_text(), Text.get_window_extent(t, canvas.get_renderer())) for t in found]


@pytest.mark.parametrize("make", ["_figure", "_bars"])
def test_no_text_of_the_pictures_covers_another(make):
    plot = pytest.importorskip("fastloss.performance.plot")
    pytest.importorskip("matplotlib")
    document = table.read()
    texts = shown_texts(plot._figure(document) if make == "_figure" else plot._bars(document, table.PICTURED))
    assert len(texts) > 60
    covered = [
        (a, b) for i, (a, x) in enumerate(texts) for b, y in texts[:i] if x.padded(-0.5).overlaps(y.padded(-0.5))
    ]
    assert covered == []


def test_leader_lines_do_not_cross():
    plot = pytest.importorskip("fastloss.performance.plot")

    def is_left(a, b, c):
        return (b[0] - a[0]) * (c[1] - a[1]) > (b[1] - a[1]) * (c[0] - a[0])

    def crosses(a, b, c, d):
        return is_left(a, b, c) != is_left(a, b, d) and is_left(c, d, a) != is_left(c, d, b)

    slots = np.column_stack((np.zeros(14), np.linspace(1, 0, 14)))
    plainly = 0
    for seed in range(20):
        points = np.random.default_rng(seed).uniform(0.1, 1, (14, 2))

        def crossings(chosen, points=points):
            lines = [(p, slots[i]) for p, i in zip(points, chosen, strict=True)]
            return sum(crosses(*a, *b) for i, a in enumerate(lines) for b in lines[:i])

        chosen = plot._uncrossed(points, slots)
        assert sorted(chosen) == list(range(14))
        assert crossings(chosen) == 0
        plainly += crossings(range(14))
    assert plainly > 100


# the pages -----------------------------------------------------------------------------------------------------------


def test_the_pages_show_the_committed_figures():
    assert table.stale() == [], "run python -m bench.table"
    assert table.PLOT.stat().st_size < 100_000
    assert table.PICTURE.stat().st_size < 50_000


def test_one_contestant_is_measured_anew():
    kept, busy = made(numpy=2.0), made(numpy=3.0)
    # The other run took twice as long in all.
    slower = {n: Timing(2 * t.median, 2 * t.p20, 2 * t.p80, t.ratio, t.memory) for n, t in busy.timings.items()}
    slower["no-out"] = Timing(4.4e-6, 4.0e-6, 5.0e-6, 1.1, 2000)
    found = table.with_column(kept, dataclasses.replace(busy, timings=slower), ["no-out", "absent"])
    assert found.timings["no-out"] == Timing(2.2e-6, 2.0e-6, 2.5e-6, 1.1, 2000)
    assert {n: t for n, t in found.timings.items() if n != "no-out"} == {
        n: t for n, t in kept.timings.items() if n != "no-out"
    }


def test_a_changed_figure_makes_the_pages_stale(monkeypatch, tmp_path):
    changed = json.loads(table.FIGURES.read_text(encoding="utf-8"))
    for result in changed["results"]:
        result["timings"]["numpy"]["ratio"] = 987.0
    figures = tmp_path / "performance.json"
    figures.write_text(json.dumps(changed), encoding="utf-8")
    monkeypatch.setattr(table, "FIGURES", figures)
    assert table.stale() == ["README.md", *(str(Path(*p)) for p in PERFORMANCE_PAGES)]


def test_losing_rows_are_in_the_page():
    lost = report.Document(about(), 15, [made(numpy=0.5), made("huber")])
    text = table.section(lost)
    assert "Another library is faster in 1 of 2 rows" in text
    assert "**0.50**" in text
    assert "| `huber` | 1e2 | 2 us |" in text
    assert "No other library is faster" in table.section(report.Document(about(), 15, [made()]))
    assert "Another library is faster in 1 of 2 measurements" in table.summary(lost)


def test_model_of_a_gpu():
    value, both, curved = estimates(["mse"], ["float32"], ["value", "value_and_grad", "grad_and_hess"])
    # Two arrays are read; the gradient is written, then the curvature too.
    assert [value.moved, both.moved, curved.moved] == [8 * SIZE, 12 * SIZE, 16 * SIZE]
    assert both.microseconds == pytest.approx(12 * SIZE / 3e6)
    assert estimates(["gaussian_nll"], ["float64"], ["value_and_grad"])[0].moved == 5 * 8 * SIZE
    assert estimates(["huber"], ["float16"], ["value"])[0].moved == 4 * SIZE
    assert {x.loss for x in estimates([], ["float32"], ["value"]) if x.moved > 0} == {
        name for name, loss in fl.LOSSES.items() if has_kernel(loss.record)
    }


def test_model_of_a_gpu_by_the_command():
    code, out, _ = bench("--cuda-model", "mse", "--json", "-")
    assert code == 0
    assert json.loads(out)[0]["microseconds"] == 67.11
    code, out, _ = bench("--cuda-model", "mse", "huber")
    assert "a model, not a measurement" in out.lower()
    with pytest.raises(InputError, match=r"^ctc has no CUDA kernel; fastloss bench --cuda-model shows the losses"):
        estimates(["ctc"], ["float32"], ["value"])
