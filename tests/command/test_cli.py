"""The command line: what it prints, where, and with which exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from children import everything

import fastloss as fl
from fastloss.evaluation import Report

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
testing = pytest.importorskip("typer.testing")

from fastloss.command.commands import app  # noqa: E402

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
RNG = np.random.default_rng(2)
Z = RNG.normal(size=100)
T = (RNG.random(100) < 0.5).astype(np.int8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores = {f"logit_{i}": RNG.normal(size=100) for i in range(3)}
    pq.write_table(pa.table({"z": Z, "t": T, "p": 1 / (1 + np.exp(-Z)), "w": np.ones(100), **scores}), "data.parquet")
    pq.write_table(pa.table({"z": [0.5, None, 1.0], "t": [1, 0, 1], "p": [0.1, 0.2, 3.2]}), "holes.parquet")
    return tmp_path


def run(*arguments):
    result = testing.CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def fastloss(*arguments, env=ENVIRONMENT):
    command = [sys.executable, "-m", "fastloss", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def test_a_table_of_all_losses(folder):
    code, out, err = run(
        "eval", "data.parquet", "--loss", "bce_with_logits", "--loss", "huber:delta=2", "--pred", "z", "--target", "t"
    )
    assert (code, err) == (0, "")
    expected = fl.evaluate((Z, T), ["bce_with_logits", "huber:delta=2"])
    assert out == f"{expected!r}\n"
    assert f"{expected['huber:delta=2'].mean:.6g}" in out


def test_names_of_other_libraries(folder):
    code, out, err = run("eval", "data.parquet", "-l", "pinball:q=0.9", "-l", "MSE", "--pred", "z", "--target", "t")
    assert code == 0
    assert err == "fastloss: pinball is quantile here\nfastloss: MSE is mse here\n"
    assert out == f"{fl.evaluate((Z, T), ['quantile:q=0.9', 'mse'])!r}\n"
    code, out, err = run("show", "L1Loss")
    assert (code, err) == (0, "fastloss: L1Loss is mae here\n")
    assert "mae" in out
    code, out, err = run("eval", "data.parquet", "-l", "l2_loss", "--pred", "z", "--target", "t")
    assert (code, out) == (2, "")
    assert "no loss named 'l2_loss'; take 0.5 * fl.mse" in err


def test_weights_worst_rows_and_globs_of_columns(folder):
    code, out, _ = run("eval", "*.parquet", "--loss", "mse", "--pred", "p", "--target", "t", "--worst", 2, "-w", "t")
    assert code == 0
    assert "weight sum" in out
    assert re.search(r"rows of largest mse, counted from 0\n +[\d.]+  holes\.parquet, row 2\n", out)
    code, out, _ = run("eval", "data.parquet", "--loss", "cross_entropy", "--pred", "logit_*", "--target", "t")
    assert code == 0
    assert "cross_entropy" in out
    code, out, _ = run("eval", "data.parquet", "-l", "gaussian_nll", "-p", "z", "-p", "p", "-t", "t")
    assert code == 0


def test_json_to_a_file_and_to_stdout(folder):
    columns = ("data.parquet", "--loss", "brier", "--pred", "p", "--target", "t")
    code, out, err = run("eval", *columns, "--json", "-")
    assert (code, err) == (0, "")
    report = Report.from_json(out)
    code, out, _ = run("eval", *columns, "--json", "report.json")
    assert code == 0
    assert "brier" in out
    with open("report.json") as f:
        assert Report.from_json(f.read()) == report
    assert sorted(os.listdir()) == ["data.parquet", "holes.parquet", "report.json"]
    with open("other", "w"):
        assert os.stat("report.json").st_mode == os.stat("other").st_mode


def test_per_sample_file(folder):
    code, out, _ = run(
        "eval", "data.parquet", "--loss", "mae", "--pred", "z", "--target", "t", "--per-sample", "rows.parquet"
    )
    assert code == 0
    assert "rows.parquet" in out
    found = pq.read_table("rows.parquet")
    np.testing.assert_array_equal(found["mae"].to_numpy(), np.abs(Z - T))
    code, _, _ = run(
        "eval", "holes.parquet", "--loss", "mae", "--pred", "z", "--target", "t", "--per-sample", "none.parquet"
    )
    assert code == 2
    assert sorted(os.listdir()) == ["data.parquet", "holes.parquet", "rows.parquet"]


def test_numpy_files_need_no_paths(folder):
    np.save("z.npy", Z)
    np.save("t.npy", T)
    code, out, _ = run("eval", "--loss", "mse", "--pred", "z.npy", "--target", "t.npy")
    assert (code, out) == (0, f"{fl.evaluate((Z, T), 'mse')!r}\n")


def test_invalid_rows(folder):
    columns = ("eval", "holes.parquet", "--loss", "mse", "--pred", "z", "--target", "t")
    code, out, err = run(*columns)
    assert (code, out) == (2, "")
    assert err.startswith("fastloss: holes.parquet, row 1 (from 0): z is null")
    code, out, _ = run(*columns, "--on-invalid", "skip")
    assert code == 0
    assert "1 of 3 rows with a null: left out" in out
    code, out, _ = run(*columns, "--on-invalid", "propagate")
    assert code == 0
    assert "nan" in out


def test_the_sample():
    code, out, err = run("eval", "--sample")
    assert (code, err) == (0, "")
    for name in ("bce_with_logits", "brier", "cross_entropy", "569", "1,797"):
        assert name in out
    code, out, _ = run("eval", "--sample", "--loss", "hinge", "--json", "-", "--worst", 1)
    assert code == 0
    assert json.loads(out)["losses"]["hinge"]["count"] == 569
    code, out, err = run("eval", "--sample", "--loss", "iou")
    assert (code, out) == (2, "")
    assert "the sample holds nothing that iou could be evaluated on" in err
    code, out, _ = run("eval", "--sample", "--json", "-")
    assert [r["rows"] for r in json.loads(out)] == [569, 1797]


MISUSES = {
    "no file": (("eval", "nope.parquet", "-l", "mse", "-p", "z", "-t", "t"), "no such file or directory: nope.parquet"),
    "no match": (("eval", "nope*.csv", "-l", "mse", "-p", "z", "-t", "t"), "no file matches nope*.csv"),
    "no paths": (("eval", "-l", "mse", "-p", "z", "-t", "t"), "no input"),
    "no loss": (("eval", "data.parquet"), "no --loss"),
    "no pred": (("eval", "data.parquet", "-l", "mse"), "no --pred"),
    "no target": (("eval", "data.parquet", "-l", "mse", "-p", "z"), "no --target"),
    "misspelt loss": (("eval", "data.parquet", "-l", "hubr", "-p", "z", "-t", "t"), "did you mean huber"),
    "misspelt parameter": (("eval", "data.parquet", "-l", "huber:detla=2", "-p", "z", "-t", "t"), "did you mean delta"),
    "bad parameter": (("eval", "data.parquet", "-l", "huber:delta=-1", "-p", "z", "-t", "t"), "allowed: (0, inf)"),
    "misspelt column": (("eval", "data.parquet", "-l", "mse", "-p", "logit_4", "-t", "t"), "did you mean 'logit_"),
    "unknown column": (("eval", "data.parquet", "-l", "mse", "-p", "xyz", "-t", "t"), "it has z, t, p, w"),
    "domain": (
        ("eval", "holes.parquet", "-l", "bce", "-p", "p", "-t", "t"),
        "holes.parquet, row 2 (from 0): bce: prediction is 3.2",
    ),
    "mode": (("eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t", "--on-invalid", "no"), "allowed: fail, skip"),
    "worst": (("eval", "data.parquet", "--worst", "-1"), "--worst"),
    "json": (
        ("eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t", "--json", "no/x.json"),
        "cannot write no/x.json",
    ),
    "per sample": (
        ("eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t", "--per-sample", "no/x"),
        "cannot write no/x",
    ),
    "per sample over an input": (
        ("eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t", "--per-sample", "data.parquet"),
        "data.parquet is one of the inputs",
    ),
    "json over an input": (
        ("eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t", "--json", "data.parquet"),
        "data.parquet is one of the inputs",
    ),
    "json over an array": (("eval", "-l", "mse", "-p", "z.npy", "-t", "z.npy", "--json", "z.npy"), "z.npy is one of"),
    "per sample as CSV": (
        ("eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t", "--per-sample", "rows.csv"),
        "expected FILE.parquet",
    ),
    "sample with a mode": (("eval", "--sample", "--on-invalid", "no"), "allowed: fail, skip"),
    "sample with files": (("eval", "data.parquet", "--sample"), "--sample brings its own"),
    "sample without": (("eval", "--sample", "-l", "gaussian_nll"), "sample holds nothing"),
    "no such command": (("evil",), "evil"),
    "no such option": (("eval", "--los", "mse"), "--los"),
    "show": (("show", "hubr"), "did you mean huber"),
    "warmup": (("warmup", "hubr"), "did you mean huber"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_one_sentence_on_stderr_and_exit_code_2(folder, name):
    arguments, message = MISUSES[name]
    np.save("z.npy", Z)
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("fastloss: ")
    assert err.count("\n") == 1
    assert message in err


def test_anything_unexpected_exits_with_1_in_one_line(monkeypatch):
    def broken(request):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("fastloss.evaluation.command.evaluate_command", broken)
    code, out, err = run("eval", "x")
    assert (code, out) == (1, "")
    assert err == "fastloss: unexpected RuntimeError: two lines (FASTLOSS_DEBUG=1 shows the traceback)\n"


def test_losses_of_ones_own_are_shown_and_compiled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import fastloss as fl\nhalf = fl.formula('a * (z - t)**2', a=0.5)\nboth = 0.7 * fl.mse + 0.3 * fl.mae\n"
    (tmp_path / "mine.py").write_text(code)
    status, out, err = run("show", "mine.py:half:a=2")
    assert (status, err) == (0, "")
    assert "(2; default 0.5; allowed: (-inf, inf))" in out
    assert "fastloss eval FILE --loss mine.py:half:a=2" in out
    assert "(0.7; default 1; allowed: (-inf, inf))" in run("show", "mine.py:both")[1]
    status, out, err = run("show", "expr:(p - t)**2")
    assert (status, err) == (0, "")
    assert "(p - t) * (p - t)" in out
    assert "(2; default 1; allowed: (0, inf))" in run("show", "huber:delta=2")[1]
    for wrong, said in (
        ("mine.py", "mine.py is a file; name a loss in it: mine.py:half, mine.py:both"),
        ("mine.py:hlaf", "mine.py has no loss 'hlaf'; it has half, both"),
        ("mine.py:half:b=2", "formula: b is not a parameter; known: a"),
        ("expr:q + t", "the formula has neither z nor p"),
    ):
        status, out, err = run("show", wrong)
        assert (status, out) == (2, "")
        assert said in err
    status, out, err = run("warmup", "mine.py:half", "expr:(p - t)**2")
    assert (status, err) == (0, "")
    assert out.startswith("2 losses ready")


def test_losses_for_problems_are_losses():
    from fastloss.evaluation.describe import FOR

    for names in FOR.values():
        assert len(set(names)) == len(names)
        assert set(names) <= set(fl.LOSSES), set(names) - set(fl.LOSSES)


def test_list_show_doctor_and_version():
    code, out, _ = run("list")
    assert code == 0
    assert all(re.search(rf"^{name} ", out, re.MULTILINE) for name in fl.LOSSES)
    for name in fl.LOSSES:
        code, out, err = run("show", name)
        assert (code, err) == (0, "")
        record = fl.LOSSES[name].record
        assert all(word in out for word in (name, record.summary, record.paper, *record.parameters))
    assert "ties=breslow" in run("list")[1]
    assert re.search(r"^dice .*activation=none", run("list")[1], re.MULTILINE)
    assert max(map(len, run("list", "--for", "outliers")[1].splitlines())) < 160
    assert run("list", "--for", "love")[2].startswith("fastloss: --for is 'love'; allowed: outliers, quantiles,")
    assert run("eval", "-h") == run("eval", "--help")
    code, out, _ = run("doctor")
    assert code == 0
    for word in ("fastloss", "numba", "threads", "vectors", "cache", "CUDA"):
        assert re.search(rf"^{word} ", out, re.MULTILINE)
    assert run("--version") == (0, f"fastloss {fl.__version__}\n", "")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_doctor_says_why_there_is_no_cache(tmp_path, monkeypatch):
    def cache():
        return re.search(r"^cache +(.*)", run("doctor")[1], re.MULTILINE)[1]

    # Compiles its parallel loop before the folder is empty.
    cache()
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("FASTLOSS_CACHE", raising=False)
    tmp_path.chmod(0o755)
    assert cache() == f"{tmp_path}: 0 kernels, 0.0 MB"
    for name, mode in (("one.nbc", 0o600), ("two.nbc", 0o666)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    assert cache().endswith("2 kernels, 0.0 MB, 1 of them not loaded: one is writable by others")
    tmp_path.chmod(0o777)
    assert cache() == f"off: {tmp_path} is writable by others; type: chmod go-w {tmp_path}"
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(tmp_path / "one.nbc"))
    assert "which cannot be made" in cache()
    monkeypatch.setenv("FASTLOSS_CACHE", "off")
    assert cache() == "off: FASTLOSS_CACHE is 'off'"


@pytest.mark.jit
def test_warmup_fills_the_cache(tmp_path):
    pytest.importorskip("numba")
    environment = {**ENVIRONMENT, "FASTLOSS_CACHE_DIR": str(tmp_path)}
    if environment.get("NUMBA_DISABLE_JIT", "0") != "0":
        pytest.skip("nothing is compiled")
    result = fastloss("warmup", "mse", env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 loss ready" in result.stdout
    assert any(f.suffix == ".nbc" for f in tmp_path.iterdir())


def test_a_process_of_its_own(folder):
    columns = ("--loss", "mse", "--pred", "z", "--target", "t")
    good = fastloss("eval", "data.parquet", *columns)
    assert (good.returncode, good.stderr) == (0, "")
    assert "\x1b" not in good.stdout
    bad = fastloss("eval", "holes.parquet", *columns)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.count("\n") == 1
    assert "Traceback" not in bad.stderr
    none = fastloss()
    assert "eval" in none.stdout + none.stderr


WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from fastloss.command.main import main
main(["eval", "data.parquet", "--loss", "mse", "--pred", "z", "--target", "t"])
"""


@pytest.mark.parametrize("package", ["typer", "rich", "pyarrow"])
def test_without_the_extra_one_sentence_says_what_to_install(folder, package):
    result = subprocess.run([sys.executable, "-c", WITHOUT, package], capture_output=True, text=True, env=ENVIRONMENT)
    assert result.returncode == 2
    assert result.stderr == 'fastloss: the command line needs typer, rich and pyarrow: pip install "fastloss[eval]"\n'


def test_importing_costs_nothing_heavy():
    code = (
        "import fastloss.evaluation, fastloss.command.main, sys;"
        "print(sorted({'numba', 'pyarrow', 'rich', 'typer'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert result.stdout.strip() == "[]"


LEAN = """
import sys
from fastloss.command import lean
from fastloss.command.commands import app
lean.own_process.append(True)
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code
print(sorted({"pandas", "scipy"} & set(sys.modules)), file=sys.stderr)
import scipy.linalg.cython_blas
"""


@pytest.mark.parametrize(("loss", "left_out"), [("mse", True), ("mine.py:own", False)])
def test_libraries_import_no_others_for_what_the_command_does_not_do(folder, loss, left_out):
    pytest.importorskip("scipy")
    (folder / "mine.py").write_text("import fastloss as fl\nown = fl.formula('(z - t)**2')\n")
    arguments = ["eval", "data.parquet", "-l", loss, "-p", "z", "-t", "t", "--json", "-"]
    found = subprocess.run([sys.executable, "-c", LEAN, *arguments], capture_output=True, text=True, env=ENVIRONMENT)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["losses"][loss]["mean"] == pytest.approx(np.mean((Z - T) ** 2))
    assert (found.stderr == "[]\n") == left_out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_progress_on_a_terminal_and_silence_in_a_pipe(folder):
    pty = pytest.importorskip("pty")
    columns = ("eval", "data.parquet", "--loss", "mse", "--pred", "z", "--target", "t")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "fastloss", *columns]
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=environment)
    os.close(follower)
    shown = everything(leader)
    out, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0
    assert b"100 rows" in shown
    assert b"\x1b" not in out
    assert out.decode() == f"{fl.evaluate((Z, T), 'mse')!r}\n"


@pytest.mark.jit
def test_a_bad_setting_is_a_usage_error(tmp_path):
    environment = {**ENVIRONMENT, "FASTLOSS_NUM_THREADS": "many"}
    result = subprocess.run(
        [sys.executable, "-m", "fastloss", "doctor"], capture_output=True, text=True, timeout=120, env=environment
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "FASTLOSS_NUM_THREADS is 'many'; expected a whole number of at least 1" in result.stderr
