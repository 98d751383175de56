"""What is measured and against whom: cases, data, the NumPy reference, peers, agreement, roofs, figures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import fastloss as fl
from fastloss.performance import agree, machine, roof, run, timing
from fastloss.performance.cases import (
    DTYPES,
    MEASURED,
    MODES,
    SIZES,
    Case,
    cases,
    draw,
    power,
)
from fastloss.performance.contestants import BUILDERS, OURS, Contestant, Outcome, contestants, installed
from fastloss.performance.numpy_reference import source, terms
from fastloss.performance.tracked import TRACKED, tracked_cases
from fastloss.spec.render import MissingWordError

ROWS = [n for n, loss in fl.LOSSES.items() if loss.record.family == "rows"]


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def small(name, **changes):
    """A case of the table with few elements."""
    return dataclasses.replace(next(cases([name], [120], ["float32"], ["value_and_grad"])), **changes)


# cases and data ------------------------------------------------------------------------------------------------------


def test_the_table_holds_every_loss_at_every_size_precision_and_mode():
    table = list(cases())
    modes = sum(len(MODES) - (not fl.LOSSES[name].record.second) for name in MEASURED)
    assert len(table) == modes * len(SIZES) * len(DTYPES)
    assert len({c.id for c in table}) == len(table)


@pytest.mark.parametrize("name", MEASURED)
def test_data_are_in_the_domain_and_the_same_each_time(name):
    case = small(name, size=1000)
    data, again = draw(case), draw(case)
    record = case.bound.record
    assert all(np.array_equal(a, b) for a, b in zip(data.predictions, again.predictions, strict=True))
    for p, domain in zip(data.predictions, record.prediction_domains, strict=True):
        assert p.shape == case.shape
        assert p.dtype == case.dtype
        assert not domain.outside(p).any()
        assert np.unique(p).size > 100
    if case.target == "labels":
        assert set(np.unique(data.target)) == set(range(case.classes + (record.loop == "ordinal")))
    elif data.target is not None:
        assert np.unique(data.target).size > 1
        assert not record.target_domain.outside(data.target).any() or case.target == "number"


def test_large_data_repeat_a_tile_and_its_mean_is_exact():
    case = Case("huber", 300_000)
    data = draw(case)
    assert data.tile < case.size
    assert np.array_equal(data.target[: case.size - data.tile], data.target[data.tile :])
    z, t = data.predictions[0].astype(float), data.target.astype(float)
    assert agree.expected(case, data).value == pytest.approx(fl.reference.huber(z, t).mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("case", "label", "traffic"),
    [
        (Case("mse", 1000, "float64"), "mse", 24_000),
        (Case("mse", 1000, mode="value"), "mse", 8_000),
        (Case("l2", 1000), "l2", 8_000),
        (Case("gaussian_nll", 100, mode="grad_and_hess"), "gaussian_nll", 2800),
        (Case("huber", 100, parameters=(("delta", 2.0),)), "huber:delta=2", 1200),
        (Case("focal", 100, parameters=(("alpha", None),)), "focal:alpha=none", 1200),
        (Case("cross_entropy", 1000, classes=100, target="labels"), "cross_entropy[K=100]", 8080),
        (Case("cross_entropy", 1000, classes=100, target="probabilities"), "cross_entropy[K=100]", 12_000),
    ],
)
def test_a_case_has_a_label_and_knows_what_it_must_move(case, label, traffic):
    assert case.label == label
    assert case.traffic == traffic


def test_sizes_are_short():
    assert [power(n) for n in (64, 100, 10_000_000, 16_000_000, 12_345)] == ["64", "1e2", "1e7", "16e6", "12345"]


# the NumPy reference -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize(("mode", "dtype"), [("value_and_grad", "float32"), ("grad_and_hess", "float64")])
def test_numpy_computes_what_fastloss_computes(name, mode, dtype):
    if mode == "grad_and_hess" and not fl.LOSSES[name].record.second:
        pytest.skip("has no second derivative")
    case = small(name, mode=mode, dtype=dtype)
    data = draw(case)
    entrants = contestants(case, data, [OURS, "no-out", "numpy"])
    if "numpy" not in entrants:
        pytest.skip("this formula needs SciPy")
    found, errors = agree.agreeing(case, data, entrants)
    assert not errors
    assert list(found) == [OURS, "no-out", "numpy"]
    for array in found["numpy"].read(found["numpy"].call()).derivatives:
        assert array.dtype == dtype


@pytest.mark.parametrize("name", MEASURED)
def test_numpy_gives_the_value_alone(name):
    case = small(name, mode="value")
    data = draw(case)
    entrants = contestants(case, data, [OURS, "numpy"])
    if "numpy" not in entrants:
        pytest.skip("this formula needs SciPy")
    assert not agree.agreeing(case, data, entrants)[1]


@pytest.mark.parametrize("name", [n for n in ROWS if fl.LOSSES[n].record.loop == "softmax"] + ["nll"])
@pytest.mark.parametrize("mode", MODES)
def test_numpy_takes_probabilities_too(name, mode):
    case = small(name, mode=mode, target="probabilities", dtype="float64")
    data = draw(case)
    ours, theirs = (c.read(c.call()) for c in contestants(case, data, [OURS, "numpy"]).values())
    assert data.target.shape == case.shape
    assert ours.value == theirs.value or ours.value == pytest.approx(theirs.value, rel=1e-12)
    for a, b in zip(ours.derivatives, theirs.derivatives, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["huber", "bce_with_logits", "tweedie", "quantile"])
def test_parameters_reach_every_contestant(name):
    given = {
        "huber": {"delta": 0.3},
        "bce_with_logits": {"pos_weight": 3.0, "label_smoothing": 0.1},
        "tweedie": {"power": 1.2},
        "quantile": {"q": 0.9},
    }[name]
    case = small(name, parameters=tuple(given.items()), dtype="float64")
    data = draw(case)
    names = [n for n in BUILDERS if installed(n) and n != "torch.compile"]
    assert not agree.agreeing(case, data, contestants(case, data, names))[1]


def test_the_reference_reads_as_one_writes_it():
    assert source(Case("mse", 100)).text == (
        "def f(z, t):\n    s = 1.0 / z.size\n    v0 = z - t\n    return ((s * dot(v0, v0)), ((s * 2.0) * v0),)\n"
    )
    assert "exp" not in source(Case("bce_with_logits", 100, mode="value")).text.replace("exp((-abs(z)))", "")
    assert terms(small("cross_entropy")).text == "def f(lp):\n    return ((-lp), -1.0,)\n"


def test_a_library_without_a_word_of_the_formula_takes_no_part(monkeypatch):
    from fastloss.performance import numpy_reference

    monkeypatch.setattr(numpy_reference, "_special", dict)
    case = small("crps_gaussian")
    with pytest.raises(MissingWordError, match="ndtr"):
        source(case)
    assert "numpy" not in contestants(case, draw(case), ["numpy"])


# peers ---------------------------------------------------------------------------------------------------------------

PEERS = (
    "scikit-learn",
    "torch",
    pytest.param("numexpr", marks=pytest.mark.oracle),
    pytest.param("jax", marks=pytest.mark.oracle),
)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("mode", MODES)
def test_peers_compute_the_same(peer, mode):
    if not installed(peer):
        pytest.skip(f"needs {peer}")
    taken = 0
    for name in ("mse", "huber", "bce_with_logits", "gaussian_nll", "cross_entropy", "multi_margin", "crps_ensemble"):
        case = small(name, mode=mode, dtype="float64")
        data = draw(case)
        entrants = contestants(case, data, [OURS, peer])
        assert agree.agreeing(case, data, entrants)[1] == {}
        taken += peer in entrants
    assert taken >= 2


@pytest.mark.slow
@pytest.mark.jit
@pytest.mark.parametrize("peer", PEERS)
def test_peers_compute_the_same_for_every_loss(peer):
    if not installed(peer):
        pytest.skip(f"needs {peer}")
    for case in cases(None, [60], ["float32"], ["value_and_grad"]):
        data = draw(case)
        assert agree.agreeing(case, data, contestants(case, data, [OURS, peer]))[1] == {}


# agreement -----------------------------------------------------------------------------------------------------------


def altered(contestant, change):
    """A contestant whose outcome is changed."""
    return Contestant(contestant.call, lambda result: change(contestant.read(result)))


def nudged(arrays):
    changed = arrays[0].copy()
    changed[-1] *= 1.01
    return (changed, *arrays[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: Outcome(o.value * 1.001, o.derivatives), "value"),
        (lambda o: Outcome(float("nan"), o.derivatives), "value nan"),
        (lambda o: Outcome(o.value, nudged(o.derivatives)), "derivative 0 is off by"),
        (lambda o: Outcome(o.value, (o.derivatives[0] * np.nan,)), "derivative 0 is off by nan"),
        (lambda o: Outcome(o.value, ()), "0 derivatives, expected 1"),
        (lambda o: Outcome(o.value, (o.derivatives[0][:-1],)), "shape"),
    ],
)
def test_who_computes_something_else_is_named_and_not_timed(change, message):
    case = small("mse", size=1000)
    data = draw(case)
    ours = contestants(case, data, [OURS])[OURS]
    found, errors = agree.agreeing(case, data, {OURS: ours, "wrong": altered(ours, change)})
    assert list(found) == [OURS]
    assert list(errors) == ["wrong"]
    assert errors["wrong"].startswith("wrong disagrees: ")
    assert message in errors["wrong"]


def test_who_fails_is_named_and_not_timed():
    case = small("mse")
    data = draw(case)

    def fail():
        raise RuntimeError("out of\nluck")

    entrants = {**contestants(case, data, [OURS]), "broken": Contestant(fail, lambda r: r)}
    found, errors = agree.agreeing(case, data, entrants)
    assert list(found) == [OURS]
    assert errors == {"broken": "broken failed: RuntimeError: out of luck"}


def test_fastloss_itself_must_agree(monkeypatch):
    case = small("mse")
    data = draw(case)
    ours = contestants(case, data, [OURS])[OURS]
    wrong = {OURS: altered(ours, lambda o: Outcome(o.value + 1.0, o.derivatives))}
    with pytest.raises(ArithmeticError, match="fastloss disagrees: value"):
        agree.agreeing(case, data, wrong)


# measuring -----------------------------------------------------------------------------------------------------------


@pytest.mark.jit
def test_a_measurement_has_times_ratios_memory_and_roofs():
    case = small("mse", size=5000)
    m = run.measure(case, ["no-out", "numpy"], rounds=3)
    assert list(m.timings) == [OURS, "no-out", "numpy"]
    assert m.errors == {}
    assert m.timings[OURS].ratio == 1.0
    for t in m.timings.values():
        assert 0 < t.p20 <= t.median <= t.p80
    # The gradient is 20 kB, which NumPy and a call without out= must take, and the squares too.
    assert m.timings[OURS].memory < 10_000 < 20_000 <= m.timings["no-out"].memory
    assert m.timings["numpy"].memory >= 40_000
    assert set(m.roofs) == {"copy", "triad", "arithmetic"}
    assert m.bandwidth == pytest.approx(60_000 / m.timings[OURS].median)
    assert run.Measured.read(json.loads(json.dumps(m.to_dict()))) == m


@pytest.mark.jit
def test_roofs_copy_and_subtract():
    for name, move in roof.memory(Case("mse", 2_000_000)).items():
        move.call()
        assert move.size == {"copy": 2, "triad": 3}[move.roof] * 8_000_000, name
        moved = move.call.__closure__
        arrays = [x for c in moved for x in _arrays(c.cell_contents)]
        expected = 1.0 if move.roof == "copy" else 0.0
        assert any(np.all(a == expected) for a in arrays), name


def _arrays(x):
    return [x] if isinstance(x, np.ndarray) else []


def test_a_slower_fastloss_is_shown_as_losing():
    fast, slow = run.Timing(1.0, 1.0, 1.0, 0.5), run.Timing(2.0, 2.0, 2.0, 1.0)
    roofs = {"copy": 1.0, "triad": 1.0, "arithmetic": 0.5}
    m = run.Measured(Case("mse", 100), {OURS: slow, "no-out": fast, "numpy": fast}, {}, roofs)
    assert m.lost == ["numpy"]
    assert (m.bound, m.of_roof) == ("memory", 0.5)
    assert dataclasses.replace(m, roofs={**roofs, "arithmetic": 1.5}).bound == "arithmetic"


@pytest.mark.jit
def test_tracked_cases_pair_calls_that_agree():
    pairs = tracked_cases()
    assert list(pairs) == [c.id for c in TRACKED]
    for name, (ours, numpy) in pairs.items():
        mine, theirs = ours(), numpy()
        value = mine[0] if isinstance(mine, tuple) else mine
        assert value == pytest.approx(float(theirs[0]), rel=1e-4), name


# Other work on the machine -------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A function of 2 us on a machine whose scheduler takes the core away during chosen bursts, for 4 ms."""
    taken = {"bursts": [], "count": 0}

    def burst(function, repeats):
        wait = taken["bursts"].pop(0) if taken["bursts"] else False
        taken["count"] += wait
        return 2e-6 * repeats + 4e-3 * wait

    monkeypatch.setattr(timing, "burst", burst)
    monkeypatch.setattr(timing, "_usage", lambda: timing._Usage(taken["count"], 0, 0.0, 0.0))
    return taken


def test_a_wait_for_a_core_does_not_decide_how_many_calls_make_a_sample(clock):
    expected = timing.repeats_for(int, 1e-3)
    assert expected >= 500
    for disturbed in ([True], [True] * 3, [False, True, True]):
        clock["bursts"] = list(disturbed)
        assert timing.repeats_for(int, 1e-3) >= 500
    clock["bursts"] = [True] * 1000  # never undisturbed: it ends all the same
    assert timing.repeats_for(int, 1e-3) >= 1


def test_a_sample_says_whether_its_process_waited_for_a_core(clock):
    assert timing.sample(int, 500) == (pytest.approx(2e-6), False)
    clock["bursts"] = [True]
    assert timing.sample(int, 500) == (pytest.approx(1e-5), True)
    clock["bursts"] = [True]
    assert not timing.sample(int, 200_000).is_disturbed  # 4 ms of 404


def test_a_long_burst_of_one_thread_has_the_time_of_the_thread(clock, monkeypatch):
    usages = iter([timing._Usage(0, 0, 1.0, 1.0), timing._Usage(90, 0, 1.4, 1.4)])
    monkeypatch.setattr(timing, "_usage", lambda: next(usages))
    clock["bursts"] = [True]
    assert timing.sample(int, 200_000) == (pytest.approx(2e-6), False)
    usages = iter([timing._Usage(0, 0, 1.0, 1.0), timing._Usage(90, 0, 1.7, 1.4)])  # other threads worked too
    assert timing.sample(int, 200_000).is_disturbed
    usages = iter([timing._Usage(0, 0, 1.0, 1.0), timing._Usage(90, 1, 1.4, 1.4)])  # it waited for something
    assert timing.sample(int, 200_000).is_disturbed


def test_disturbed_rounds_are_left_out_while_enough_others_are_there():
    calm, slow = timing.Sample(1.0, False), timing.Sample(4662.0, True)
    ours = [timing.Sample(0.5, False)] * 10
    found = run._timing([calm] * 4 + [slow] * 6, ours, None)
    assert (found.median, found.ratio, found.disturbed) == (1.0, 2.0, 0.6)
    found = run._timing([calm] * 2 + [slow] * 8, ours, None)
    assert (found.median, found.ratio, found.disturbed) == (4662.0, 9324.0, 0.8)


def test_the_lower_quartile_is_that_of_numpy():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4, 11, 20):
        values = list(rng.random(n))
        assert timing.lower_quartile(values) == pytest.approx(np.quantile(values, 0.25))


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux alone says what all processes used")
def test_work_of_other_processes_is_counted_and_own_work_is_not(monkeypatch):
    seconds = iter([100.0, 103.0, 103.0])
    monkeypatch.setattr(machine, "_processor_seconds", lambda: next(seconds))
    monkeypatch.setattr(machine.time, "process_time", iter([10.0, 11.5, 11.5]).__next__)
    monkeypatch.setattr(machine.time, "perf_counter", iter([0.0, 1.0, 0.1]).__next__)
    others = machine.Others()
    assert others.cores() == 1.5
    assert others.cores() is None
    monkeypatch.undo()
    assert machine._processor_seconds() > 0
