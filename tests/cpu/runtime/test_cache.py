"""The disk cache: what survives damage and hostile folders, and that no second process compiles."""

import ctypes
import gc
import hashlib
import json
import os
import stat
import time
from pathlib import Path

import pytest
from cache_cases import define
from children import run, start, wait
from numba import njit, types

from fastloss.cpu.runtime import cache, deferred
from fastloss.cpu.runtime.specialize import INNER, compile_chunk

pytestmark = pytest.mark.jit


# One small kernel ----------------------------------------------------------------------------------------------------


def formula(x):
    return x


def template(x):
    return formula(x) + 1.0


def kernel(source="def f(x): return x * 2.0"):
    """Compile or load a tiny kernel: its value at 3, and whether it came from the cache."""
    chunk = compile_chunk(template, "tiny", types.float64(types.float64), formula=njit(define(source)))
    return ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(chunk.address)(3.0), chunk.cached


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    path = tmp_path / "cache"
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(path))
    monkeypatch.delenv("FASTLOSS_CACHE", raising=False)
    return path


def files(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def test_a_kernel_is_written_once_and_found_again(folder):
    assert kernel() == (7.0, False)
    written = files(folder)
    assert len(written) == 1
    (name,) = written
    assert name.startswith("tiny-")
    assert name.endswith(".nbc")
    assert kernel() == (7.0, True)
    assert files(folder) == written


def test_machine_code_is_made_of_the_kernel_alone(folder, monkeypatch):
    # Numba would make some of the function inside as well, which only the kernel calls.
    emitted, emit = [], deferred._Deferred._emit
    monkeypatch.setattr(deferred._Deferred, "_emit", lambda self: emitted.append(self.name) or emit(self))
    formula = njit(define("def f(x): return x * 2.0"), **INNER)
    chunk = compile_chunk(template, "tiny", types.float64(types.float64), formula=formula)
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(chunk.address)(3.0) == 7.0
    assert len(set(emitted)) == 1
    assert gc.isenabled()


def test_a_function_of_the_callers_own_that_a_kernel_has_compiled_can_be_called(folder):
    formula = njit(define("def f(x): return (x * 2.0, [x])[0]"))
    compile_chunk(template, "tiny", types.float64(types.float64), formula=formula)
    assert len(formula.signatures) == 1
    assert formula(3.0) == 6.0


def test_an_edited_formula_does_not_return_yesterdays_answer(folder):
    assert kernel("def f(x): return x * 2.0") == (7.0, False)
    assert kernel("def f(x): return x * 3.0") == (10.0, False)
    assert kernel("def g(x): return x * 4.0\nf = g") == (13.0, False)
    assert len(files(folder)) == 3
    assert kernel("def f(x): return x * 2.0") == (7.0, True)
    assert kernel("def f(x): return x * 3.0") == (10.0, True)


DAMAGES = {
    "empty": lambda blob: b"",
    "truncated": lambda blob: blob[: len(blob) // 2],
    "cut in the checksum": lambda blob: blob[:17],
    "garbage": lambda blob: bytes(range(256)) * 40,
    "one bit": lambda blob: blob[:-100] + bytes([blob[-100] ^ 1]) + blob[-99:],
    "wrong checksum": lambda blob: bytes(32) + blob[32:],
    "longer": lambda blob: blob + b"\0",
    "checksum of no kernel": lambda blob: hashlib.sha256(b"nothing").digest() + b"nothing",
    "another kernel's form": lambda blob: hashlib.sha256(b"N.").digest() + b"N.",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_written_again(damage, folder):
    assert kernel() == (7.0, False)
    ((name, blob),) = files(folder).items()
    (folder / name).write_bytes(DAMAGES[damage](blob))
    assert kernel() == (7.0, False)
    assert list(files(folder)) == [name]
    assert kernel() == (7.0, True)


def test_a_directory_in_the_place_of_a_file(folder):
    kernel()
    (name,) = files(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert kernel() == (7.0, False)
    assert [p.name for p in folder.iterdir()] == [name]


@pytest.mark.parametrize("broken", ["mkstemp", "replace"])
def test_a_full_disk(broken, folder, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.tempfile if broken == "mkstemp" else cache.os, broken, fail)
    assert kernel() == (7.0, False)
    assert list(folder.iterdir()) == []
    monkeypatch.undo()


def test_caching_off(folder, monkeypatch):
    for word in ("0", "off", "OFF", "false", "no"):
        monkeypatch.setenv("FASTLOSS_CACHE", word)
        assert cache.directory() is None
    assert kernel() == (7.0, False)
    assert not folder.exists()
    monkeypatch.setenv("FASTLOSS_CACHE", "1")
    assert cache.directory() == folder


posix = pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")


@posix
def test_the_folder_is_private(folder):
    kernel()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def warned(*words):
    """Expect the one warning of this process that some words are in."""
    return pytest.warns(RuntimeWarning, match=".*".join(words))


@posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_a_folder_that_others_can_write_is_refused(mode, folder):
    kernel()
    folder.chmod(mode)
    with warned("keeps no compiled kernels", "is writable by others", "chmod go-w"):
        assert cache.directory() is None
    assert kernel() == (7.0, False)  # and no second warning, which would be an error
    folder.chmod(0o755)
    assert kernel() == (7.0, True)


@posix
def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    kernel()
    owner = os.geteuid()
    monkeypatch.setattr(cache.os, "geteuid", lambda: owner + 1)
    with warned("belongs to another user", "FASTLOSS_CACHE_DIR"):
        assert cache.directory() is None


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_loaded(mode, folder):
    # A kernel's file is code: what another user wrote into it would run here.
    assert kernel() == (7.0, False)
    (file,) = folder.iterdir()
    file.chmod(mode)
    with warned("did not load", file.name, "is writable by others"):
        assert kernel() == (7.0, False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kernel() == (7.0, True)


@posix
def test_a_file_of_another_user_is_not_loaded(folder, monkeypatch):
    assert kernel() == (7.0, False)
    (file,) = folder.iterdir()
    real, inode = os.fstat, file.stat().st_ino

    def foreign(handle):
        status = real(handle)
        if status.st_ino != inode:
            return status
        return os.stat_result((*status[:4], status.st_uid + 1, *status[5:]))

    monkeypatch.setattr(cache.os, "fstat", foreign)
    with warned("did not load", file.name, "belongs to another user"):
        assert kernel() == (7.0, False)
    assert kernel() == (7.0, True)


@posix
@pytest.mark.parametrize("other", ["symbolic link", "pipe"])
def test_what_is_no_plain_file_is_replaced(other, folder, tmp_path):
    assert kernel() == (7.0, False)
    (file,) = folder.iterdir()
    file.rename(tmp_path / "elsewhere")
    if other == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(tmp_path / "elsewhere")
    assert kernel() == (7.0, False)
    assert stat.S_ISREG(file.lstat().st_mode)
    assert kernel() == (7.0, True)


def test_a_refused_cache_is_said_once_a_process(tmp_path):
    script = """
    import warnings
    import numpy as np
    import fastloss as fl

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fl.mse(np.ones(3), np.zeros(3)), fl.mae(np.ones(3), np.zeros(3))
    print(*(str(w.message) for w in caught), sep="\\n")
    """
    (tmp_path / "file").touch()
    path = tmp_path / "file"
    reason = f"FASTLOSS_CACHE_DIR is {str(path)!r}, which cannot be made (File exists)"
    assert run(script, FASTLOSS_CACHE_DIR=path).splitlines() == [f"fastloss keeps no compiled kernels: {reason}"]


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        cache._warned.clear()
        monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(path))
        with warned("FASTLOSS_CACHE_DIR is", "cannot be made"):
            assert cache.directory() is None
        assert kernel() == (7.0, False)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("variable", ["FASTLOSS_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_tilde_is_the_home(variable, tmp_path, monkeypatch):
    monkeypatch.delenv("FASTLOSS_CACHE_DIR", raising=False)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    for home in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(home, str(tmp_path))
    monkeypatch.setenv(variable, "~/kernels")
    below = () if variable == "FASTLOSS_CACHE_DIR" else ("fastloss",)
    assert cache.directory() == tmp_path.joinpath("kernels", *below)


def test_abandoned_temporary_files_are_removed(folder):
    kernel()
    old, young, strange = (folder / n for n in ("fastloss-abc_def1.tmp", "fastloss-xyz_def1.tmp", "notes.tmp"))
    earlier = folder / "tmpabcdefgh.tmp"
    for file in (old, earlier, young, strange):
        file.touch()
    for file in (old, earlier, strange):
        os.utime(file, (time.time() - 2 * cache.STALE,) * 2)
    cache._swept.clear()
    kernel("def f(x): return x * 5.0")
    assert not old.exists()
    assert not earlier.exists()
    assert young.exists()  # another process may be writing it
    assert strange.exists()  # not ours


def test_where_there_is_no_home(monkeypatch):
    # A container that runs under a number that no password file knows.
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("FASTLOSS_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.Path, "home", homeless)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    assert cache.directory() is None
    assert kernel() == (7.0, False)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write")
def test_read_only_home(monkeypatch):
    for name in ("FASTLOSS_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/self")
    assert cache.directory() is None
    assert kernel() == (7.0, False)


def test_the_usual_place(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTLOSS_CACHE_DIR", raising=False)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory() == tmp_path / "xdg" / "fastloss"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(cache.Path, "home", lambda: tmp_path)
    assert cache.directory() == tmp_path / ".cache" / "fastloss"
    monkeypatch.setattr(cache.sys, "platform", "darwin")
    assert cache.directory() == tmp_path / "Library" / "Caches" / "fastloss"


# Whole losses, in processes of their own -----------------------------------------------------------------------------

SCRIPT = """
import hashlib, json
import numpy as np
from numba.core import compiler

compiled = []
original = compiler.compile_extra

def counting(typingctx, targetctx, func, *args, **kwargs):
    compiled.append(func.__qualname__)
    return original(typingctx, targetctx, func, *args, **kwargs)

compiler.compile_extra = counting
import fastloss as fl
from fastloss.cpu import dispatch

rng = np.random.default_rng(0)
n = 100_003
p, t = rng.standard_normal(n).astype(np.float32), rng.random(n).astype(np.float32)
z, y = rng.standard_normal((500, 40)).astype(np.float32), rng.integers(0, 40, 500)
h = hashlib.sha256()
for value, grad in (fl.bce_with_logits.value_and_grad(p, t), fl.cross_entropy.value_and_grad(z, y)):
    h.update(np.float64(value).tobytes() + grad.tobytes())
right = abs(fl.bce_with_logits.value_and_grad(p, t)[0] - np.mean(np.logaddexp(0.0, p.astype(float)) - p * t)) < 1e-6
print(json.dumps([bool(right), h.hexdigest(), compiled, [c[2].cached for c in dispatch._compiled.values()]]))
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache that one process has filled, and what that process said."""
    folder = tmp_path_factory.mktemp("warm") / "cache"
    return folder, json.loads(run(SCRIPT, FASTLOSS_CACHE_DIR=folder, PYTHONHASHSEED=1, NUMBA_NUM_THREADS=2))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_second_process_compiles_nothing(warm, seed):
    folder, (right, bits, compiled, cached) = warm
    assert right
    assert compiled
    assert cached == [False, False]
    before = files(folder)
    # Two chunks, their drivers, one in parallel, one of small calls with labels, two transposers.
    assert len(before) == 8
    again = json.loads(run(SCRIPT, FASTLOSS_CACHE_DIR=folder, PYTHONHASHSEED=seed, NUMBA_NUM_THREADS=2))
    assert again == [True, bits, [], [True, True]]
    assert files(folder) == before


SHORT = """
import numpy as np
import fastloss as fl

p = np.arange(9.0)
assert fl.mse(p, np.zeros(9)) == np.mean(p * p)
from fastloss.cpu import dispatch
print(*(c[2].cached for c in dispatch._compiled.values()))
"""


def test_four_processes_on_an_empty_cache(tmp_path):
    folder = tmp_path / "new" / "cache"
    running = [start(SHORT, FASTLOSS_CACHE_DIR=folder) for _ in range(4)]
    for process in running:
        assert wait(process, 100.0) in ("True", "False")
    found = files(folder)
    assert len(found) == 3  # a chunk, a driver of large calls and one of small ones
    assert all(name.endswith(".nbc") for name in found)
    for blob in found.values():
        assert hashlib.sha256(blob[32:]).digest() == blob[:32]
    assert run(SHORT, FASTLOSS_CACHE_DIR=folder) == "True"


def test_warmup(tmp_path):
    folder = tmp_path / "cache"
    run("import fastloss as fl\nfl.huber.warmup(('float64',))", FASTLOSS_CACHE_DIR=folder)
    before = files(folder)
    assert {name.split("-")[0] for name in before} >= {f"huber_{m}_float64" for m in ("value", "grad", "rows", "hess")}
    script = """
    import numpy as np
    import fastloss as fl
    from fastloss.cpu import dispatch

    p = np.linspace(-3, 3, 9)
    for delta in (1.0, 2.0):
        fl.huber(p, 0 * p, delta=delta), fl.huber.value_and_grad(p, 0 * p, delta=delta)
        fl.huber.grad_and_hess(p, 0 * p, delta=delta)
        fl.huber(p, 0 * p, reduction="none")
    print({c[2].cached for c in dispatch._compiled.values()})
    """
    assert run(script, FASTLOSS_CACHE_DIR=folder) == "{True}"
    assert files(folder) == before


ONE_LOSS = """
import sys
import numpy as np
import fastloss as fl

z = np.random.default_rng(0).normal(0, 3, (200, 7)).astype(np.float32)
y = np.arange(200) % 7
for name in sys.argv[1:]:
    value, grad = fl.LOSSES[name].value_and_grad(z, y)
    print(name, value, grad.astype(float).sum(axis=0).tolist())
"""


def test_kernels_compiled_in_different_processes_do_not_mix(tmp_path):
    # Functions inside a kernel once had names that only a process told apart: loaded together, one took another's.
    names, folder = ("cross_entropy", "softmax_focal", "poly1_cross_entropy"), tmp_path / "cache"
    alone = [run(ONE_LOSS, name, FASTLOSS_CACHE_DIR=folder) for name in names]
    assert run(ONE_LOSS, *names, FASTLOSS_CACHE_DIR=folder).splitlines() == alone
    assert run(ONE_LOSS, *reversed(names), FASTLOSS_CACHE_DIR=folder).splitlines() == alone[::-1]
