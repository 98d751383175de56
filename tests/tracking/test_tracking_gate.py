"""The gate on a copy of this package: it fails where the copy is 30% slower, and passes where it is not.

FASTLOSS_GATE_REPEATS=5 does both five times in a row.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastloss
from fastloss.tracking import environment

ROOT = Path(fastloss.__file__).parents[1]
REPEATS = range(int(os.environ.get("FASTLOSS_GATE_REPEATS", "1")))

pytest.importorskip("typer")
pytest.importorskip("hatchling", reason="without it, pip would fetch it for every revision")
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="the gate checks out revisions with git")


def git(folder, *arguments):
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout


def commit(folder, message):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def gate(folder, *arguments):
    """Run the gate of this fastloss in the folder; its exit code and what it said."""
    # Sleeping threads of OpenMP, which spare the other tests, wake up late: noise in what is timed here.
    left_out = ("FASTLOSS_", "GITHUB_", "GIT_", "OMP_WAIT_POLICY")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "fastloss", "track", "gate", "--cases", "cases.py", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=600)
    assert len(git(folder, "worktree", "list").splitlines()) == 1
    return done.returncode, done.stdout + done.stderr


def verdicts(text):
    rows = [[cell.strip(" *`") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    return {row[1]: row[-1] for row in rows[2:]}


# A project of one function, which any project may be

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tiny"
version = "1"
dependencies = [{}]
[tool.hatch.metadata]
allow-direct-references = true
"""
SPIN = """\
import time

def spin(seconds={}):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
"""
SPINS = """\
import tiny

def cases():
    return {"spin": (lambda: tiny.spin(), lambda: tiny.spin(1e-4))}
"""


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT.format(""))
    (folder / "tiny.py").write_text(SPIN.format(1e-4))
    (folder / "cases.py").write_text(SPINS)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "Base")
    return folder


def test_any_project_can_be_gated(tiny):
    (tiny / "tiny.py").write_text(SPIN.format(1.5e-4))
    code, text = gate(tiny, "--base", "main")
    assert (code, verdicts(text)) == (1, {"spin": "regression"}), text
    code, text = gate(tiny, "--base", "main", "--threshold", "90%")
    assert (code, verdicts(text)) == (0, {"spin": "unchanged"}), text


def test_the_head_decides_on_cases_and_one_side_may_lack_some(tiny):
    (tiny / "tiny.py").write_text(SPIN.format(1e-4) + "\ndef more():\n    spin()\n")
    (tiny / "cases.py").write_text(SPINS.replace("{", '{"more": (lambda: tiny.more(), tiny.spin), '))
    commit(tiny, "More")
    code, text = gate(tiny, "--base", "HEAD~1", "--head", "HEAD")
    assert (code, verdicts(text)) == (0, {"spin": "unchanged"}), text
    assert "new, nothing to compare with: `more`" in text
    code, text = gate(tiny, "--base", "HEAD", "--head", "HEAD~1")
    assert (code, verdicts(text)) == (0, {"spin": "unchanged"}), text


def test_a_revision_with_other_dependencies_gets_them(tiny, tmp_path):
    helper = tmp_path / "helper"
    helper.mkdir()
    (helper / "pyproject.toml").write_text(PROJECT.format("").replace("tiny", "helper"))
    (helper / "helper.py").write_text(SPIN.format(1e-4))
    (tiny / "pyproject.toml").write_text(PROJECT.format(f'"helper @ {helper.as_uri()}"'))
    (tiny / "tiny.py").write_text("from helper import spin\n")
    code, text = gate(tiny, "--base", "main")
    assert (code, verdicts(text)) == (0, {"spin": "unchanged"}), text


BACKEND = """\
import pathlib, zipfile

def build_wheel(folder, settings=None, metadata=None):
    for name in ("build", "tiny.egg-info"):  # as setuptools does
        pathlib.Path(name).mkdir(exist_ok=True)
        pathlib.Path(name, "left").touch()
    sources = {p: pathlib.Path(p).read_text() for p in ("tiny.py", "tiny_helper.py")}
    sources["tiny-1.dist-info/METADATA"] = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n"
    sources["tiny-1.dist-info/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    names = [*sources, "tiny-1.dist-info/RECORD"]
    sources["tiny-1.dist-info/RECORD"] = "".join(f"{n},,\\n" for n in names)
    with zipfile.ZipFile(pathlib.Path(folder, "tiny-1-py3-none-any.whl"), "w") as wheel:
        for name in names:
            wheel.writestr(name, sources[name])
    return "tiny-1-py3-none-any.whl"
"""


def test_the_working_tree_is_measured_as_it_is_and_nothing_is_left_in_it(tiny):
    """Changed, new, deleted and ignored files; a build that writes beside its sources; cases that Python compiles."""
    (tiny / "backend.py").write_text(BACKEND)
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (tiny / "pyproject.toml").write_text(system + '[project]\nname = "tiny"\nversion = "1"\n')
    (tiny / "tiny_helper.py").write_text("")
    (tiny / "gone.py").write_text("")
    (tiny / ".gitignore").write_text("ignored.txt\n")
    commit(tiny, "A build of its own")
    (tiny / "ignored.txt").write_text("")
    (tiny / "gone.py").unlink()
    (tiny / "tiny.py").write_text("from tiny_helper import spin\n")
    (tiny / "tiny_helper.py").write_text(SPIN.format(1e-4))
    (tiny / "tiny_cases.py").write_text("import os\nassert not os.path.exists('gone.py')\n" + SPINS)
    before = {p: p.read_bytes() for p in tiny.rglob("*") if p.is_file() and ".git" not in p.parts}
    code, text = gate(tiny, "--base", "HEAD", "--cases", "tiny_cases.py")
    assert (code, verdicts(text)) == (0, {"spin": "unchanged"}), text
    assert {p: p.read_bytes() for p in tiny.rglob("*") if p.is_file() and ".git" not in p.parts} == before
    assert git(tiny, "status", "--porcelain").splitlines() == [
        *(" D gone.py", " M tiny.py", " M tiny_helper.py", "?? tiny_cases.py"),
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rules for names and links")
def test_a_copy_of_the_working_tree_has_every_kind_of_change(tmp_path):
    root, copy = tmp_path / "root", tmp_path / "copy"
    (root / "folder").mkdir(parents=True)
    for name in ("same", "changed", "gone", "file", "folder/a", "folder/b", " spaced ", "link"):
        (root / name).write_text(name)
    git(root, "init", "--quiet")
    commit(root, "Base")
    shutil.rmtree(root / "folder")
    for name in ("gone", "file", "link"):
        (root / name).unlink()
    (root / "folder").write_text("a file now")
    (root / "file").mkdir()
    (root / "file" / "inside").write_text("a folder now")
    (root / "changed").write_text("more")
    (root / " spaced ").write_text("more")
    (root / "new").write_text("")
    (root / "link").symlink_to("same")
    if sys.platform == "linux":  # others refuse such a name
        (root / "caf\udce9").write_text("no UTF-8")

    def files(folder):
        paths = [p for p in folder.rglob("*") if ".git" not in p.parts and not p.is_dir()]
        return {str(p.relative_to(folder)): p.is_symlink() or p.read_text() for p in paths}

    with environment.working_tree(root, copy):
        assert files(copy) == files(root)
    assert not copy.exists()


BROKEN = {
    "unknown revision": ("", ("--base", "nowhere"), "'nowhere' is no revision of"),
    "no cases": ("import tiny\nCASES = {}", (), "the cases of"),
    "not of this project": ("CASES = {'a': (int, str)}", (), "a uses nothing of tiny, so it measures no revision"),
    "from elsewhere": (
        "import sys, types\nsys.modules['tiny'] = m = types.ModuleType('tiny')\nm.__file__ = '/else/tiny.py'\n"
        "CASES = {'a': (int, str)}",
        (),
        "tiny was imported from /else/tiny.py, not from the environment of the revision",
    ),
    "an error in the head": (SPINS.replace("tiny.spin()", "tiny.spun()"), (), "has no attribute 'spun'"),
    "a process that dies": (SPINS.replace("tiny.spin()", "__import__('os')._exit(3)"), (), "ended with 3"),
    "few processes": (
        "",
        ("--base", "main", "--processes", "4"),
        "--processes is 4; expected at least 6, by the number of",
    ),
    "no syntax": ("def", (), "SyntaxError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_gate_that_cannot_measure_exits_with_2(tiny, name):
    module, options, message = BROKEN[name]
    if module:
        (tiny / "cases.py").write_text(module)
    code, text = gate(tiny, *(options or ("--base", "main")))
    assert code == 2, text
    assert text.startswith("fastloss: ")
    assert message in text


def test_a_revision_that_cannot_be_installed_exits_with_2(tiny):
    (tiny / "pyproject.toml").write_text("[project]\nname = 1\n")
    code, text = gate(tiny, "--base", "main")
    assert code == 2, text
    assert "pip could not install" in text


# This package

CASES = """
import numpy as np
import fastloss as fl

rng = np.random.default_rng(0)
z = rng.standard_normal(20_000, dtype=np.float32)
t = (rng.random(20_000) < 0.5).astype(np.float32)
rows, labels = z.reshape(-1, 10), rng.integers(0, 10, 2_000)


def cases():
    return {
        "bce_with_logits": (lambda: fl.bce_with_logits(z, t), lambda: np.logaddexp(0, z)),
        "huber": (lambda: fl.huber.value_and_grad(z, t), lambda: np.square(z - t)),
        "cross_entropy": (lambda: fl.cross_entropy(rows, labels), lambda: np.exp(rows).sum(axis=1)),
    }
"""

SLOWDOWN = '''

def _slower(call):
    """The same call, and then 30% of the time that it took."""
    from time import perf_counter

    def slower(*arguments, **options):
        start = perf_counter()
        result = call(*arguments, **options)
        end = perf_counter()
        end += 0.3 * (end - start)
        while perf_counter() < end:
            pass
        return result

    return slower


for _name in ("__call__", "value_and_grad"):
    setattr(ElementwiseLoss, _name, _slower(getattr(ElementwiseLoss, _name)))
'''


@pytest.fixture
def copy(tmp_path):
    """This package in a repository of its own, with one commit."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the gate installs a copy of the repository, which is not here")
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "fastloss", folder / "fastloss", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "cases.py").write_text(CASES)
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "Base")
    return folder


@pytest.mark.slow
@pytest.mark.jit
@pytest.mark.parametrize("repeat", REPEATS)
def test_a_slowdown_of_30_percent_fails(copy, repeat):
    with open(copy / "fastloss" / "losses" / "elementwise.py", "a") as file:
        file.write(SLOWDOWN)
    commit(copy, "Slower")
    code, text = gate(copy, "--base", "HEAD~1", "--head", "main")
    print(text)
    assert code == 1, text
    found = verdicts(text)
    assert (found["bce_with_logits"], found["huber"]) == ("regression", "regression"), text
    assert found["cross_entropy"] != "regression", text


@pytest.mark.slow
@pytest.mark.jit
@pytest.mark.parametrize("repeat", REPEATS)
def test_a_change_that_costs_nothing_passes(copy, repeat):
    with open(copy / "fastloss" / "losses" / "elementwise.py", "a") as file:
        file.write("\n# a comment, in the working tree\n")
    code, text = gate(copy, "--base", "HEAD")
    print(text)
    assert code == 0, text
    assert set(verdicts(text)) == {"bce_with_logits", "huber", "cross_entropy"}
