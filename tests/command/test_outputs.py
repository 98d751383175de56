"""Files, pipes and devices that the command writes to, and what of it reaches a terminal."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from children import everything

import fastloss as fl
from fastloss._terminal import printable
from fastloss.evaluation import InputError, files

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
testing = pytest.importorskip("typer.testing")

from fastloss.command.commands import app  # noqa: E402

posix = pytest.mark.skipif(os.name != "posix", reason="needs pipes, devices and modes as POSIX has them")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parents[1])}
MSE = ("eval", "data.parquet", "-l", "mse", "-p", "z", "-t", "t")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"z": np.linspace(-1, 1, 50), "t": np.zeros(50)}), "data.parquet")
    return tmp_path


def run(*arguments):
    result = testing.CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def make_node(name, mode, device=0):
    try:
        os.mknod(name, mode | 0o600, device)
        with open(name, "wb"):
            pass
    except OSError as error:
        pytest.skip(f"cannot make a device here: {error}")


@posix
@pytest.mark.parametrize("option", ["--json", "--per-sample"])
def test_a_device_is_written_into_and_stays_one(folder, option):
    make_node("null", stat.S_IFCHR, os.makedev(1, 3))
    assert run(*MSE, option, "null")[0] == 0
    assert stat.S_ISCHR(os.stat("null").st_mode)
    assert sorted(os.listdir()) == ["data.parquet", "null"]
    assert run(*MSE, "--json", "null", "--per-sample", "null")[0] == 0


@posix
@pytest.mark.parametrize("option", ["--json", "--per-sample"])
def test_a_full_disk_names_the_file(folder, option):
    make_node("full", stat.S_IFCHR, os.makedev(1, 7))
    code, out, err = run(*MSE, option, "full")
    assert (code, out, err) == (2, "", "fastloss: cannot write full: No space left on device\n")


@posix
@pytest.mark.parametrize("option", ["--json", "--per-sample"])
def test_a_pipe_is_written_into_and_stays_one(folder, option):
    os.mkfifo("pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_bytes()))
    reader.start()
    assert run(*MSE, option, "pipe")[0] == 0
    reader.join(20)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    if option == "--json":
        assert json.loads(found[0])["rows"] == 50
    else:
        assert pq.read_table(pa.BufferReader(found[0])).num_rows == 50


@posix
def test_a_pipe_that_nobody_reads_any_more_is_named(folder):
    read, write = os.pipe()
    os.close(read)
    code, _, err = run(*MSE, "--json", f"/dev/fd/{write}")
    os.close(write)
    assert (code, err) == (2, f"fastloss: cannot write /dev/fd/{write}: Broken pipe\n")


@posix
def test_process_substitution_and_a_full_standard_output(folder):
    command = f"{sys.executable} -m fastloss {' '.join(MSE)}"
    script = f"{command} --json >(cat > got.json); {command} > /dev/full; echo $?; {command} --json /dev/stdout > both"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    assert done.stderr == "fastloss: cannot write to the standard output: No space left on device\n"
    assert done.stdout.endswith("\n2\n")
    deadline = time.monotonic() + 20
    while not Path("got.json").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads(Path("got.json").read_text())["rows"] == 50
    both = Path("both").read_text()
    assert json.JSONDecoder().raw_decode(both)[0]["rows"] == 50
    assert both.count("mse") == 2


@posix
def test_links_are_followed_and_modes_kept(folder):
    Path("private.json").write_text("old")
    os.chmod("private.json", 0o600)
    os.symlink("private.json", "link.json")
    os.symlink("new.json", "dangling.json")
    for name in ("link.json", "dangling.json"):
        assert run(*MSE, "--json", name)[0] == 0
        assert os.path.islink(name)
        assert json.loads(Path(name).read_text())["rows"] == 50
    assert stat.S_IMODE(os.stat("private.json").st_mode) == 0o600
    assert not os.path.islink("new.json")


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="needs to give files away")
def test_the_owner_is_kept(folder):
    Path("theirs.json").write_text("old")
    os.chown("theirs.json", 1234, 4321)
    os.chmod("theirs.json", 0o640)
    assert run(*MSE, "--json", "theirs.json")[0] == 0
    found = os.stat("theirs.json")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o640)


@posix
def test_a_group_that_cannot_be_kept_gains_nothing(folder, monkeypatch):
    Path("theirs.json").write_text("old")
    os.chmod("theirs.json", 0o640)
    status, refused = os.stat, []

    def refuse(*arguments):
        refused.append(arguments)
        raise PermissionError(1, "no")

    class Foreign:
        def __init__(self, found):
            self.st_mode, self.st_uid, self.st_gid = found.st_mode, found.st_uid, found.st_gid + 1

    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr(os, "stat", lambda p, **k: Foreign(status(p)) if str(p).endswith("theirs.json") else status(p))
    files._permit("data.parquet", "theirs.json")
    monkeypatch.undo()
    assert refused
    assert stat.S_IMODE(os.stat(folder / "data.parquet").st_mode) == 0o600


CLASHES = {
    "two outputs": (("--json", "same", "--per-sample", "./same"), "./same and same are one file"),
    "two outputs, one through a link": (("--json", "link", "--per-sample", "aim"), "aim and link are one file"),
    "an input": (("--json", "data.parquet"), "data.parquet is one of the inputs"),
    "an input through a link": (("--per-sample", "input"), "input is one of the inputs"),
    "an input by another name": (("--json", "hard"), "hard is one of the inputs"),
    "a directory": (("--json", "."), "cannot write .: it is a directory"),
    "no name": (("--json", ""), "cannot write '': No such file or directory"),
    "no directory": (("--per-sample", "no/x"), "cannot write no/x: No such file or directory"),
}


@posix
@pytest.mark.parametrize("name", CLASHES)
def test_outputs_that_would_destroy_something_are_refused(folder, name):
    os.symlink("aim", "link")
    os.symlink("data.parquet", "input")
    os.link("data.parquet", "hard")
    before, options = Path("data.parquet").read_bytes(), CLASHES[name][0]
    code, out, err = run(*MSE, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"fastloss: {CLASHES[name][1]}")
    assert err.count("\n") == 1
    assert Path("data.parquet").read_bytes() == before
    assert sorted(os.listdir()) == ["data.parquet", "hard", "input", "link"]


def test_a_record_is_not_overwritten_by_what_is_made_of_it(folder):
    Path("a.json").write_text("a record")
    code, _, err = run("track", "compare", "a.json", "b.json", "--markdown", "./a.json")
    assert (code, err) == (2, "fastloss: ./a.json is one of the inputs; it would be overwritten\n")
    for arguments in ("a.json --add a.json", "h.svg --plot h.svg", "h.svg --add a.json --plot h.svg"):
        code, _, err = run("track", "history", *arguments.split())
        assert code == 2
        assert "one of the inputs" in err or "are one file" in err
    assert Path("a.json").read_text() == "a record"


def test_an_array_in_a_named_folder_is_an_input(folder):
    os.mkdir("arrays")
    for name in ("z", "t"):
        np.save(f"arrays/{name}.npy", np.ones(3))
    code, _, err = run("eval", "arrays", "-l", "mse", "-p", "z.npy", "-t", "t.npy", "--json", "arrays/z.npy")
    assert (code, err) == (2, "fastloss: arrays/z.npy is one of the inputs; it would be overwritten\n")


@posix
def test_pipes_and_devices_are_no_inputs(folder):
    os.mkfifo("pipe.parquet")
    os.mkfifo("pipe.npy")
    np.save("t.npy", np.ones(3))
    code, out, err = run("eval", "pipe.parquet", "-l", "mse", "-p", "z", "-t", "t")
    assert (code, out, err) == (2, "", "fastloss: pipe.parquet is a pipe; expected a file\n")
    code, out, err = run("eval", "-l", "mse", "-p", "pipe.npy", "-t", "t.npy")
    assert (code, out, err) == (2, "", "fastloss: pipe.npy is a pipe; expected a file\n")
    assert "/dev/null is a device" in run("eval", "/dev/null", "-l", "mse", "-p", "z", "-t", "t")[2]


@posix
def test_temporary_files_that_were_left_behind_are_removed_and_living_ones_kept(folder):
    import fcntl

    names = [f"{files.PREFIX}{i}{files.SUFFIX}" for i in range(4)]
    for name in names:
        Path(name).touch()
    old = time.time() - 2 * files.STALE
    for name in names[:3]:
        os.utime(name, (old, old))
    os.remove(names[2])
    os.symlink("data.parquet", names[2])
    with open(names[1], "rb") as living:
        fcntl.flock(living.fileno(), fcntl.LOCK_EX)
        assert run(*MSE, "--json", "report.json")[0] == 0
    # The first alone: the second is locked, the third is a link, the fourth is young.
    assert sorted(os.listdir()) == sorted([*names[1:], "data.parquet", "report.json"])


def test_an_output_is_locked_while_it_is_written_and_gone_after_an_error(folder):
    fcntl = pytest.importorskip("fcntl")

    def fail():
        with files.output("report.json") as file:
            file.write(b"{")
            (name,) = [n for n in os.listdir() if n.startswith(files.PREFIX)]
            with open(name, "rb") as other, pytest.raises(BlockingIOError):
                fcntl.flock(other.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise InputError("no reason")

    with pytest.raises(InputError, match="no reason"):
        fail()
    assert os.listdir() == ["data.parquet"]


SHOWN = [
    ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
    ("a\nb\tc", r"a\nb\tc"),
    ("\x9b31m", r"\x9b31m"),
    ("\u202egpj.exe", r"\u202egpj.exe"),
    ("\udcff", r"\xff"),
    ("\ud800", r"\ud800"),
    ("line\u2028end", r"line\u2028end"),
    ("[bold red]:smile: 好 é", "[bold red]:smile: 好 é"),
    ("wide\u3000blank\u200djoined", "wide\u3000blank\u200djoined"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN, ids=[s for _, s in SHOWN])
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


NASTY = "\x1b[31m[red]:boom:\u202e\n"


def seen_on_a_terminal(*arguments):
    """The exit code and all that a terminal would get of both streams."""
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "300"}
    command = [sys.executable, "-m", "fastloss", *arguments]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    shown = everything(leader)
    os.close(leader)
    return process.wait(60), shown.decode()


@posix
def test_names_from_files_cannot_steer_a_terminal(folder):
    odd = f"a{NASTY}.parquet"
    pq.write_table(pa.table({f"z{NASTY}": [1.0, 2.0], "t": [0.0, 1.0]}), "plain.parquet")
    os.rename("plain.parquet", odd)
    asked = ("eval", odd, "-l", "mse", "-t", "t", "--worst", "1")
    good = seen_on_a_terminal(*asked, "-p", f"z{NASTY}", "--per-sample", f"out{NASTY}.parquet")
    bad = seen_on_a_terminal(*asked, "-p", "z[b]")
    name = r"\x1b[31m[red]:boom:\u202e\n"
    assert good[0] == 0
    assert f"a{name}.parquet, row 0" in good[1]
    assert f"loss of every row: out{name}.parquet" in good[1]
    assert bad[0] == 2
    assert "has no column 'z[b]' for --pred" in bad[1]
    for _, shown in (good, bad):
        assert not set("\x1b\x9b\u202e") & set(shown)
    compared = seen_on_a_terminal("track", "compare", odd, odd)
    measured = seen_on_a_terminal("bench", NASTY, "--json", f"no{NASTY}/x.json")
    for code, shown in (compared, measured):
        assert code == 2
        assert not set("\x1b\u202e") & set(shown)
        assert "[red]" in shown
