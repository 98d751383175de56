"""The disk cache: what names a kernel, what survives damage, and that no second process compiles."""

import ctypes
import hashlib
import json
import os
import stat
import textwrap
from pathlib import Path

import numpy as np
import pytest
from children import run, start, wait
from numba import njit, types

import fastloss as fl
from fastloss.kernels import cache
from fastloss.kernels.specialize import compile_chunk, digest

pytestmark = pytest.mark.jit

# The digest ----------------------------------------------------------------------------------------------------------


def define(source, **names):
    """The function f of a source text."""
    space = {"np": np, "njit": njit, **names}
    exec(textwrap.dedent(source), space)
    return space["f"]


def same(a, b):
    return digest("kind", define(a)) == digest("kind", define(b))


EDITS = {
    "formula": ("def f(x): return x * 2.0", "def f(x): return x + 2.0"),
    "constant": ("def f(x): return x * 2.0", "def f(x): return x * 3.0"),
    "type of a constant": ("def f(x): return x * 2.0", "def f(x): return x * 2"),
    "sign of zero": ("def f(x): return x + 0.0", "def f(x): return x + -0.0"),
    "constants that run together": ("def f(x): return x * 1.0 + 23.0", "def f(x): return x * 1.02 + 3.0"),
    "default": ("def f(x, d=1.0): return x * d", "def f(x, d=2.0): return x * d"),
    "keyword default": ("def f(x, *, d=1.0): return x * d", "def f(x, *, d=2.0): return x * d"),
    "global number": ("c = 1.0\ndef f(x): return x * c", "c = 2.0\ndef f(x): return x * c"),
    "global of NumPy": ("c = np.float32(1)\ndef f(x): return x * c", "c = np.float64(1)\ndef f(x): return x * c"),
    "middle of an array": (
        "c = np.zeros(9999)\ndef f(x): return x * c[5000]",
        "c = np.zeros(9999)\nc[5000] = 1\ndef f(x): return x * c[5000]",
    ),
    "dtype of an array": (
        "c = np.zeros(3)\ndef f(x): return x * c[1]",
        "c = np.zeros(3, np.float32)\ndef f(x): return x * c[1]",
    ),
    "helper": (
        "def g(x): return x * 2.0\ndef f(x): return g(x)",
        "def g(x): return x * 3.0\ndef f(x): return g(x)",
    ),
    "helper of a helper": (
        "def h(x): return x * 2.0\ndef g(x): return h(x)\ndef f(x): return g(x)",
        "def h(x): return x * 3.0\ndef g(x): return h(x)\ndef f(x): return g(x)",
    ),
    "compiled helper": (
        "@njit\ndef g(x): return x * 2.0\ndef f(x): return g(x)",
        "@njit\ndef g(x): return x * 3.0\ndef f(x): return g(x)",
    ),
    "options of a compiled helper": (
        "@njit\ndef g(x): return x * 2.0\ndef f(x): return g(x)",
        "@njit(fastmath=True)\ndef g(x): return x * 2.0\ndef f(x): return g(x)",
    ),
    "flags of a compiled helper": (
        "@njit(fastmath={'nsz'})\ndef g(x): return x * 2.0\ndef f(x): return g(x)",
        "@njit(fastmath={'nsz', 'contract'})\ndef g(x): return x * 2.0\ndef f(x): return g(x)",
    ),
    "which of two helpers": (
        "def g(x): return x\ndef h(x): return -x\na, b, c = g, h, g\ndef f(x): return a(x) + b(x) + c(x)",
        "def g(x): return x\ndef h(x): return -x\na, b, c = g, h, h\ndef f(x): return a(x) + b(x) + c(x)",
    ),
    "helper of an inner function": (
        "def g(x): return x * 2.0\ndef f(x):\n    return (lambda y: g(y))(x)",
        "def g(x): return x * 3.0\ndef f(x):\n    return (lambda y: g(y))(x)",
    ),
    "closure": (
        "def make(c):\n    return lambda x: x * c\nf = make(2.0)",
        "def make(c):\n    return lambda x: x * c\nf = make(3.0)",
    ),
    "closure of a helper": (
        "def make(c):\n    return njit(lambda x: x * c)\ng = make(2.0)\ndef f(x): return g(x)",
        "def make(c):\n    return njit(lambda x: x * c)\ng = make(3.0)\ndef f(x): return g(x)",
    ),
    "table in a closure": (
        "def make(*c):\n    return lambda x: x * c[0] + c[1]\nf = make(1, 23)",
        "def make(*c):\n    return lambda x: x * c[0] + c[1]\nf = make(12, 3)",
    ),
    "shape of a tuple": (
        "c = ((1, 2), 3)\ndef f(x): return x * c[1]",
        "c = (1, (2, 3))\ndef f(x): return x * c[1]",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_the_digest(edit):
    before, after = EDITS[edit]
    assert not same(before, after)
    assert same(before, before)
    assert same(after, after)


def test_a_move_or_a_comment_does_not():
    moved = "\n\n# a comment\nunrelated = 1\ndef f(x):\n\n    return x * 2.0"
    assert same("def f(x): return x * 2.0", moved)


def test_the_parts_are_all_in_the_digest():
    f, g = define("def f(x): return x"), define("def f(x): return -x")
    options = {"fastmath": {"nsz", "contract"}, "error_model": "numpy"}
    base = ("chunk", f, {"formula": g}, types.float64(types.float32), options)
    others = [
        ("driver", *base[1:]),
        (base[0], g, *base[2:]),
        (*base[:2], {"formula": f}, *base[3:]),
        (*base[:2], {"other": g}, *base[3:]),
        (*base[:3], types.float64(types.float64), options),
        (*base[:4], {**options, "fastmath": {"nsz"}}),
        (*base[:4], {**options, "error_model": "python"}),
    ]
    assert len({digest(*parts) for parts in (base, *others)}) == 1 + len(others)
    assert digest(*base) == digest(*base[:4], {"error_model": "numpy", "fastmath": {"contract", "nsz"}})
    assert digest("ab", "c") != digest("a", "bc")


def test_the_versions_are_in_the_digest(monkeypatch):
    f = define("def f(x): return x")
    before = digest(f)
    from fastloss.kernels import specialize

    monkeypatch.setattr(specialize, "__version__", "0.0.test")
    after = digest(f)
    assert after != before
    monkeypatch.setattr(specialize, "environment", lambda: ("numba of tomorrow",))
    assert digest(f) not in (before, after)


def test_a_helper_reached_through_a_module_is_refused():
    # The digest would not see its text change.
    with pytest.raises(AssertionError, match="record"):
        digest(define("def f(x): return record.elementwise(x)", record=fl.formulas.record))
    digest(define("def f(x): return np.sqrt(x)"))


def test_the_digest_is_the_same_in_every_process():
    script = """
    import numpy as np
    from numba import njit
    from fastloss.kernels.specialize import digest

    def make(c):
        return njit(fastmath={"nsz", "contract", "reassoc"})(lambda x: x * c if x in {1.0, 2.0, "a", "b", "c"} else x)

    g = make(2.0)

    def f(x):
        return g(x) + np.exp(x)

    print(digest("chunk", f, {"b": 1, "a": {"x", "y", "z"}}))
    """
    found = {run(script, PYTHONHASHSEED=seed) for seed in (0, 1, 2)}
    assert len(found) == 1
    assert len(found.pop()) == 20


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


@posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_a_folder_that_others_can_write_is_refused(mode, folder):
    kernel()
    folder.chmod(mode)
    assert cache.directory() is None
    assert kernel() == (7.0, False)
    folder.chmod(0o755)
    assert kernel() == (7.0, True)


@posix
def test_a_folder_of_another_user_is_refused(folder, monkeypatch):
    kernel()
    owner = os.getuid()
    monkeypatch.setattr(cache.os, "getuid", lambda: owner + 1)
    assert cache.directory() is None


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("FASTLOSS_CACHE_DIR", str(path))
        assert cache.directory() is None
        assert kernel() == (7.0, False)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


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
from fastloss import dispatch

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
    return folder, json.loads(run(SCRIPT, FASTLOSS_CACHE_DIR=folder, PYTHONHASHSEED=1))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_second_process_compiles_nothing(warm, seed):
    folder, (right, bits, compiled, cached) = warm
    assert right
    assert compiled
    assert cached == [False, False]
    before = files(folder)
    assert len(before) == 7  # two chunks, their drivers, one of small calls with labels, two transposers
    again = json.loads(run(SCRIPT, FASTLOSS_CACHE_DIR=folder, PYTHONHASHSEED=seed))
    assert again == [True, bits, [], [True, True]]
    assert files(folder) == before


SHORT = """
import numpy as np
import fastloss as fl

p = np.arange(9.0)
assert fl.mse(p, np.zeros(9)) == np.mean(p * p)
from fastloss import dispatch
print(*(c[2].cached for c in dispatch._compiled.values()))
"""


def test_eight_processes_on_an_empty_cache(tmp_path):
    folder = tmp_path / "new" / "cache"
    running = [start(SHORT, FASTLOSS_CACHE_DIR=folder) for _ in range(8)]
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
    from fastloss import dispatch

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
