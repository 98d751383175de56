"""The fuzzer itself: it draws what it should, finds what is planted, and reports a crash."""

import sys

import calls
import checks
import fuzz
import numpy as np
import pytest
from calls import Call, draw

import fastloss as fl


def rng(*numbers):
    return np.random.default_rng(numbers)


@pytest.mark.parametrize("name", fl.LOSSES)
def test_calls_differ_and_are_ordinary(name):
    drawn = [draw(rng(3, i), name) for i in range(24)]
    first = [c.arrays[c.differentiable[0]] for c in drawn]
    assert len({a.shape for a in first}) > 4
    assert {a.dtype.name for a in first} == {"float32", "float64"}
    assert len({str(c.options) for c in drawn}) > 4
    values = np.concatenate([a.reshape(-1) for a in first])
    assert np.isfinite(values).all()
    assert len(np.unique(values)) > values.size // 3
    assert any(a.size > 16 for a in first)


def test_a_number_is_one_call(monkeypatch):
    monkeypatch.setattr(checks, "check_valid", lambda rng, call: None)
    monkeypatch.setattr(checks, "check_broken", lambda rng, call: None)
    names = sorted(fl.LOSSES)

    def texts(seed):
        return [fuzz.shown(checks.one(seed, i, names)[0]) for i in range(40)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


class Faulty(Call):
    """A call whose result, or whose effect, is not what it should be."""

    fault = None

    def __call__(self, method="value_and_grad", **more):
        return self.fault(self, super().__call__(method, **more), method, more)


def half(x):
    return tuple(map(half, x)) if isinstance(x, tuple) else np.float64(x) / 2 if np.ndim(x) == 0 else x


def write_input(call, result, method, more):
    call.arrays["z"][0] += 1.0
    return result


def warn(call, result, method, more):
    np.float64(1e308) * np.float64(10.0)
    return result


def refuse(call, result, method, more):
    raise ValueError("mse: z is strange; expected another")


def crash(call, result, method, more):
    raise IndexError("list index out of range")


def by_threads(call, result, method, more):
    return half(result) if fl.get_num_threads() == 1 else result


def by_layout(call, result, method, more):
    return result if call.arrays["z"].flags.carray and call.arrays["z"].dtype.isnative else half(result)


def forget_out(call, result, method, more):
    return (result[0], result[1].copy()) if "out" in more else result


def beside_out(call, result, method, more):
    if "out" in more:
        np.lib.stride_tricks.as_strided(more["out"], (more["out"].size + 1,))[-1] = 0.0
    return result


def wrong_rows(call, result, method, more):
    return result * 1.1 if method == "value" else result


FAULTS = {
    write_input: "an input was written|other bits",
    warn: "overflow",
    refuse: "a valid call is refused",
    crash: "list index",
    by_threads: "other bits on one thread",
    by_layout: "other bits from arrays",
    forget_out: "out is not what is returned",
    beside_out: "written beside out",
    wrong_rows: "the value without a gradient",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_what_is_planted_is_found(fault, monkeypatch):
    if fl.get_num_threads() == 1 and fault is by_threads:
        pytest.skip("there is one thread")
    monkeypatch.setattr(Faulty, "fault", staticmethod(fault))
    monkeypatch.setattr(checks, "LAYOUTS", (checks.swapped,))
    z, t = rng(1).normal(size=(2, 20))
    with pytest.raises(Exception, match=FAULTS[fault]):
        checks.check_valid(rng(2), Faulty("mse", {"z": z, "target": t}))
    checks.check_valid(rng(2), Call("mse", {"z": z, "target": t}))


def test_a_wrong_value_and_a_wrong_slope_are_found(monkeypatch):
    z, t = rng(1).normal(size=(2, 20))
    call = Call("mse", {"z": z, "target": t})
    monkeypatch.setattr(checks.reference, "mse", lambda z, t: (z - t) ** 2 + 1e-3)
    with pytest.raises(checks.Finding, match="a value of the reference"):
        checks.check_reference(rng(2), call)
    monkeypatch.setattr(checks.reference, "mse", lambda z, t: 1.01 * (z - t) ** 2)
    with pytest.raises(checks.Finding, match="the slope is"):
        checks.check_slope(rng(2), call)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ValueError("mse: z[0] is 2; allowed: [0, 1]"), None),
        (ValueError("two\nlines of mse"), "no sentence"),
        (TypeError("'NoneType' object is not iterable"), "names neither"),
    ],
)
def test_refusals(error, found):
    call = Call("mse", {"z": np.ones(2), "target": np.ones(2)})
    if found is None:
        checks.check_refusal(call, error)
        return
    with pytest.raises(checks.Finding, match=found):
        checks.check_refusal(call, error)


WORKER = """
import sys
first = int(sys.argv[sys.argv.index("--first") + 1])
print('{"call": %d}' % first, flush=True)
if first == 0:
    import ctypes
    ctypes.string_at(0)
print('{"found": "something", "of": "mse"}')
print('{"done": true}')
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_crash_is_reported_and_the_next_calls_follow(tmp_path, monkeypatch, capsys):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(fuzz, "__file__", str(worker))
    assert fuzz.main(["--seed", "4", "--calls", "5", "--loss", "mse"]) == 1
    out = capsys.readouterr().out
    assert "seed 4, calls from 0" in out
    assert "FOUND in call 0: the process ended with status -11" in out
    assert "python tests/fuzz/fuzz.py --seed 4 --first 0 --calls 1 --loss mse" in out
    assert "FOUND in call 1: something" in out
    assert out.endswith("2 calls, 2 findings, seed 4\n")


def test_every_layout_holds_the_same_numbers():
    for a in (rng(1).normal(size=(3, 4)), np.arange(5), np.array(2.0), np.empty((0, 3))):
        for layout in checks.LAYOUTS:
            np.testing.assert_array_equal(layout(a), a)
    assert len(calls.SIZES) > 10
