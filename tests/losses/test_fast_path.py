"""The fast path of small calls gives the bits, the errors and the types of the general path."""

import sys
import threading
from itertools import product

import numpy as np
import pytest
from row_cases import ROWS, kinds, scores, targets

import fastloss as fl
from fastloss.losses import arrays, fast_path, rows
from fastloss.losses import elementwise as elementwise_loss
from fastloss.losses.base import remember

ELEMENTWISE = ["mse", "bce_with_logits", "gaussian_nll", "l2"]
f32 = np.float32
ONE_A_LOOP = list({loss.record.loop: name for name, loss in reversed(ROWS.items())}.values())


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def general(monkeypatch):
    """A function that makes a call on the general path, which leaves no plan."""

    def run(call):
        with monkeypatch.context() as m:
            m.setattr(elementwise_loss, "PLANS", 0)
            m.setattr(rows, "PLANS", 0)
            return call()

    return run


@pytest.fixture
def planned(monkeypatch):
    """A function that makes a call again; it fails if the call is not served by a plan."""

    def refuse(*_, **__):
        raise AssertionError("the general path served a call of a known kind")

    def run(call):
        with monkeypatch.context() as m:
            m.setattr(fl.mse.__class__, "_run_any", refuse)
            m.setattr(fl.cross_entropy.__class__, "_run", refuse)
            m.setattr(fl.cosine_distance.__class__, "_run", refuse)
            return call()

    return run


def flat(results):
    """Return all arrays and scalars of a result, in order."""
    if isinstance(results, (tuple, list)):
        return [x for part in results for x in flat(part)]
    return [results]


def agree(one, other):
    """Assert that two results have the same types and bits."""
    ones, others = flat(one), flat(other)
    assert list(map(type, ones)) == list(map(type, others))
    for a, b in zip(ones, others, strict=True):
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.flags.c_contiguous == b.flags.c_contiguous
            assert a.tobytes() == b.tobytes()
        else:
            assert a == b or (a != a and b != b)


def compare(loss, mode, arguments, options, general, planned):
    """Compare a call on the general path with the plan that it leaves, with and without outputs."""
    method = loss if mode == "value" else getattr(loss, mode)

    def call(**more):
        return method(*arguments, **options, **more)

    # A loss that other tests have called in as many kinds as it remembers leaves no more plans.
    loss._plans.clear()
    loss = loss.bind(**{k: v for k, v in options.items() if k in loss.record.parameters})
    loss._plans.clear()
    expected = general(call)
    assert not loss._plans
    agree(call(), expected)
    agree(planned(call), expected)
    if mode == "value":
        return
    given = expected if mode == "grad_and_hess" else expected[1]

    def empty(x):
        return tuple(map(empty, x)) if type(x) is tuple else np.full_like(x, np.nan)

    out = empty(given)
    result = planned(lambda: call(out=out))
    agree(result, expected)
    for a, b in zip(flat(result if mode == "grad_and_hess" else result[1]), flat(out), strict=True):
        assert a is b


def drawn(record, rng, shape, dtype):
    """Return predictions and a target of an elementwise loss."""

    def within(domain):
        x = rng.uniform(0.1, 0.9, shape)
        x = np.where(domain.outside(x), x + 1.0, x)
        return np.where(domain.outside(x), 1.0, x).astype(dtype)

    preds = tuple(map(within, record.prediction_domains))
    target = None if record.target is None else within(record.target_domain)
    return (preds if len(preds) > 1 else preds[0]), target


MODES = ["value", "value_and_grad", "grad_and_hess"]
OPTIONS = [
    {},
    {"weight": "w"},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"reduction": "none", "weight": "w"},
    {"divisor": 7},
    {"divisor": 7.5, "weight": "w"},
    {"weight": 0.5},
    {"weight": "wide"},
]


def settled(options, rng, shape, dtype):
    """Return options with names of weights replaced by arrays."""
    w = rng.uniform(0.0, 2.0, shape).astype(dtype)
    if shape:
        w.reshape(-1)[0] = 0.0
    arrays = {"w": w, "wide": w.astype(np.float64)}
    return {k: arrays.get(v, v) if isinstance(v, str) and k == "weight" else v for k, v in options.items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_calls(name, mode, rng, general, planned):
    loss = fl.LOSSES[name]
    for options, shape in product(OPTIONS, [(7,), (3, 5), ()]):
        if mode == "grad_and_hess" and not set(options) <= {"weight"}:
            continue
        arrays = drawn(loss.record, rng, shape, np.float32)
        compare(loss, mode, arrays, settled(options, rng, shape, np.float32), general, planned)


@pytest.mark.parametrize("name", [n for n, loss in fl.LOSSES.items() if loss.record.family == "elementwise"])
def test_every_elementwise_loss(name, rng, general, planned):
    loss = fl.LOSSES[name]
    compare(loss, "value_and_grad", drawn(loss.record, rng, (9,), np.float32), {}, general, planned)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_targets_of_other_dtypes(dtype, rng, general, planned):
    z = rng.normal(size=12).astype(dtype)
    for target in [
        rng.integers(0, 2, 12),
        rng.integers(0, 2, 12).astype(bool),
        rng.random(12),
        rng.random(12).astype(np.float32),
        rng.random(12).astype(np.float16),
        rng.random(24).astype(np.float32)[::2],
        rng.random(12).astype(">f8"),
        1,
        0.25,
    ]:
        compare(fl.bce_with_logits, "value_and_grad", (z, target), {}, general, planned)


def test_layouts_of_predictions(rng, general, planned):
    z = rng.normal(size=(6, 8)).astype(np.float32)
    for p in (z.T, z[:, ::2], z[::-1]):
        compare(fl.mse, "value_and_grad", (p, np.ones(p.shape, np.float32)), {}, general, planned)
        labels = np.zeros(len(p), np.int64)
        compare(fl.cross_entropy, "value_and_grad", (p, labels), {}, general, planned)


@pytest.mark.parametrize("n", [50, 20_000])
def test_read_only_inputs(n, rng, general, planned):
    # Small ones are copied, larger ones are viewed.
    p, t, w = rng.random((3, n)).astype(np.float32)
    before = [x.copy() for x in (p, t, w)]
    for x in (p, t, w):
        x.flags.writeable = False
    for mode, options in product(MODES, ({}, {"weight": w}, {"reduction": "none"})):
        if mode != "grad_and_hess" or "reduction" not in options:
            compare(fl.mse, mode, (p, t), options, general, planned)
    compare(fl.cross_entropy, "value_and_grad", (p.reshape(-1, 2), np.zeros(n // 2, np.int64)), {}, general, planned)
    assert not any(x.flags.writeable for x in (p, t, w))
    assert all(np.array_equal(x, y) for x, y in zip((p, t, w), before, strict=True))


ROW_OPTIONS = [
    {},
    {"weight": "w"},
    {"class_weight": "c"},
    {"weight": "w", "class_weight": "c"},
    {"reduction": "sum", "class_weight": "c"},
    {"reduction": "none", "weight": "w", "class_weight": "c"},
    {"divisor": 7.0, "weight": "w"},
    {"weight": 0.5},
]


def row_options(options, name, rng, n, k):
    classes = {"w": rng.uniform(0.1, 2.0, n).astype(np.float32), "c": rng.uniform(0.1, 2.0, k).astype(np.float32)}
    if name == "crps_ensemble":
        options = {key: v for key, v in options.items() if key != "class_weight"}
    return {key: classes.get(v, v) if isinstance(v, str) else v for key, v in options.items()}


@pytest.mark.parametrize("name", ONE_A_LOOP)
def test_rows(name, rng, general, planned):
    loss = fl.LOSSES[name]
    modes = ["value", "value_and_grad"] if name == "cross_entropy" else ["value_and_grad"]
    for kind, options, mode in product(kinds(name), ROW_OPTIONS, modes):
        z = scores(rng, name, 9, 5, np.float32)
        t = targets(rng, name, kind, 9, 5, np.float32)
        compare(loss, mode, (z, t), row_options(options, name, rng, 9, 5), general, planned)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_observations_of_any_dtype(dtype, rng, general, planned):
    z, t = rng.normal(size=(9, 5)).astype(dtype), rng.integers(0, 2, 9)
    for target, options in product(map(t.astype, "?bilqfd"), [{}, {"reduction": "none"}, {"weight": 0.5}]):
        compare(fl.crps_ensemble, "value_and_grad", (z, target), options, general, planned)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_cross_entropy_of_labels_of_any_dtype(dtype, rng, general, planned):
    z = rng.normal(size=(2, 6, 5)).astype(dtype)
    labels = rng.integers(0, 5, (2, 6))
    labels[0, 1] = -100
    for t in (labels, labels.astype(np.int8), labels.astype(np.int32), labels.T.copy().T):
        for options in ({}, {"reduction": "none"}, *([{"label_smoothing": 0.1}] if dtype is f32 else [])):
            compare(fl.cross_entropy, "value_and_grad", (z, t), options, general, planned)
    if dtype is f32:
        compare(fl.cross_entropy, "grad_and_hess", (z, labels), {}, general, planned)
    t = np.abs(labels) % 5
    for ignored in (None, 0, 3, 5, 99):
        if dtype is not np.float16 or ignored not in (0, 3):
            arguments = (z, t.astype(np.uint8))
            compare(fl.cross_entropy, "value_and_grad", arguments, {"ignore_index": ignored}, general, planned)


def outcome(call):
    """Return the text of a call's result or of its error."""
    try:
        return repr(call())
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


Z, T, W = np.linspace(-1, 1, 6, dtype=f32), np.linspace(0, 1, 6, dtype=f32), np.ones(6, f32)
ROWS_OF_3, LABELS = Z.reshape(2, 3), np.array([0, 2])
HUGE = np.full(6, 3e38, f32)
UNUSUAL = {
    "target outside": (fl.bce_with_logits, (Z, T), (Z, T - 2), {}),
    "negative weight": (fl.mse, (Z, T), (Z, T), {"weight": W - np.eye(6, dtype=f32)[3] * 2}),
    "no weight": (fl.mse, (Z, T), (Z, T), {"weight": 0 * W}),
    "infinite weight": (fl.mse, (Z, T), (Z, T), {"weight": W * np.inf}),
    "another shape of weight": (fl.mse, (Z, T), (Z, T), {"weight": W[:1]}),
    "overflow": (fl.mse, (Z, T), (HUGE, T), {}),
    "a tuple of one": (fl.mse, (Z, T), ((Z,), T), {}),
    "a list": (fl.mse, (Z, T), (list(Z), T), {}),
    "another shape": (fl.mse, (Z, T), (Z, T[:5]), {}),
    "NaN divisor": (fl.mse, (Z, T), (Z, T), {"divisor": np.nan}),
    "huge divisor": (fl.mse, (Z, T), (Z, T), {"divisor": 10**400}),
    "no divisor": (fl.mse, (Z, T), (Z, T), {"divisor": 0}),
    "unhashable reduction": (fl.mse, (Z, T), (Z, T), {"reduction": ["mean"]}),
    "no target": (fl.mse, (Z, T), (Z, None), {}),
    "NaN target": (fl.mse, (Z, T), (Z, float("nan")), {}),
    "huge target": (fl.mse, (Z, T), (Z, 10**400), {}),
    "label outside": (fl.cross_entropy, (ROWS_OF_3, LABELS), (ROWS_OF_3, LABELS + 1), {}),
    "label at the least integer": (
        fl.cross_entropy,
        (ROWS_OF_3, LABELS),
        (ROWS_OF_3, np.array([0, np.iinfo(np.int64).min])),
        {"ignore_index": 0},
    ),
    "all ignored": (fl.cross_entropy, (ROWS_OF_3, LABELS), (ROWS_OF_3, LABELS * 0 - 100), {}),
    "negative class weight": (
        fl.cross_entropy,
        (ROWS_OF_3, LABELS),
        (ROWS_OF_3, LABELS),
        {"class_weight": np.array([1, -1, 1], f32)},
    ),
    "infinite class weight": (
        fl.cross_entropy,
        (ROWS_OF_3, LABELS),
        (ROWS_OF_3, LABELS),
        {"class_weight": np.array([1, np.inf, 1], f32)},
    ),
    "class weight a number": (fl.cross_entropy, (ROWS_OF_3, LABELS), (ROWS_OF_3, LABELS), {"class_weight": 1.0}),
    "negative row weight": (
        fl.cross_entropy,
        (ROWS_OF_3, LABELS),
        (ROWS_OF_3, LABELS),
        {"weight": np.array([1, -1], f32)},
    ),
    "negative probabilities": (fl.cross_entropy, (ROWS_OF_3, ROWS_OF_3**2), (ROWS_OF_3, ROWS_OF_3), {}),
    "label to ignore a bool": (fl.cross_entropy, (ROWS_OF_3, LABELS), (ROWS_OF_3, LABELS), {"ignore_index": True}),
    "axis an array": (fl.cross_entropy, (ROWS_OF_3, LABELS), (ROWS_OF_3, LABELS), {"axis": np.array([1, 1])}),
    "output of the wrong dtype": (fl.mse, (Z, T), (Z, T), {"out": np.empty(6)}),
    "output over the target": (fl.mse, (Z, T), (Z, T), {"out": T}),
}


def test_an_axis_that_is_no_integer_is_named():
    for call in (fl.cross_entropy, fl.cross_entropy.value_and_grad, fl.cross_entropy.grad_and_hess):
        with pytest.raises(TypeError, match="cross_entropy: axis is array"):
            call(ROWS_OF_3, LABELS, axis=np.array([1, 1]))


@pytest.mark.parametrize("case", UNUSUAL)
def test_what_is_unusual_is_left_to_the_general_path(case, general, monkeypatch):
    loss, usual, unusual, options = UNUSUAL[case]
    plain = {
        k: np.ones(3, f32) if k == "class_weight" else np.ones(usual[1].shape[:1], f32) if k == "weight" else v
        for k, v in options.items()
        if k in ("weight", "class_weight")
    } | ({"divisor": 2.0} if "divisor" in options else {})
    loss._plans.clear()
    expected = general(lambda: outcome(lambda: loss.value_and_grad(*unusual, **options)))
    assert not loss._plans
    loss.value_and_grad(*usual, **plain)
    loss.value_and_grad(*usual)
    assert loss._plans
    assert outcome(lambda: loss.value_and_grad(*unusual, **options)) == expected


def test_plans_are_bounded(rng, monkeypatch):
    monkeypatch.setattr(rows, "PLANS", 3)
    loss = fl.cross_entropy.bind(temperature=1.5)
    for k in (2, 3, 4, 5):
        loss(rng.normal(size=(3, k)).astype(f32), np.zeros(3, np.int64))
    # A call that finds room leaves a plan under up to three keys.
    assert 3 <= len(loss._plans) <= 3 + 2
    assert fast_path.PLANS == 256


def test_the_oldest_plans_make_way_for_new_ones(rng, monkeypatch, planned):
    for module in (rows, arrays, elementwise_loss):
        monkeypatch.setattr(module, "PLANS", 3)
    loss = fl.cross_entropy.bind(temperature=1.25)
    for k in (2, 3, 4, 5):
        z, labels = rng.normal(size=(3, k)).astype(f32), np.zeros(3, np.int64)
        expected = loss(z, labels)
        agree(planned(lambda z=z, labels=labels: loss(z, labels)), expected)
    loss = fl.huber.bind(delta=1.25)
    for reduction in ("sum", "none", "mean"):
        for dtype in (np.float16, f32, np.float64):
            z, t = (rng.normal(size=5).astype(dtype) for _ in range(2))
            expected = loss(z, t, reduction=reduction)
            agree(planned(lambda z=z, t=t, r=reduction: loss(z, t, reduction=r)), expected)
    loss = type(fl.cosine_distance)(fl.cosine_distance.record)
    for n in (2, 3, 4, 5):
        x = np.ones((n, 4), f32)
        loss(x, x)
        # A loss that has as many plans as it keeps makes another for the second call of its kind.
        expected = loss(x, x)
        agree(planned(lambda x=x: loss(x, x)), expected)
        assert [shape for _, shape in [*loss._layouts][-1]] == [(n, 4), (n, 4)]


def test_a_call_of_a_known_kind_drops_no_plan(rng, monkeypatch):
    monkeypatch.setattr(rows, "PLANS", 6)
    loss = fl.cross_entropy.bind(temperature=1.75)
    for k in (2, 3):
        loss(rng.normal(size=(3, k)).astype(f32), np.zeros(3, np.int64))
    before = list(loss._plans)
    # The general path serves calls that give an axis, and leaves the same plans again.
    loss(np.zeros((3, 3), f32), np.zeros(3, np.int64), axis=1)
    assert list(loss._plans) == before


def test_threads_that_fill_a_cache_at_once_keep_it_bounded():
    cache, most, errors = {}, 8, []

    def fill(start):
        try:
            for i in range(start, start + 4000):
                remember(cache, i % 97, i, most)
        except Exception as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=fill, args=(start,)) for start in range(0, 80, 10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    remember(cache, "last", 0, most)
    assert len(cache) <= most
    assert "last" in cache


def test_bound_losses_are_remembered_after_many(rng):
    loss, z = type(fl.huber)(fl.huber.record), rng.normal(size=4)
    for i in range(100):
        loss(z, z, delta=1.0 + i)
    assert loss._with({"delta": 100.0}) is loss._with({"delta": 100.0})
    assert len(loss._bound) == 64


def test_plans_of_arrays_are_bounded(monkeypatch):
    monkeypatch.setattr(arrays, "PLANS", 3)
    loss = type(fl.cosine_distance)(fl.cosine_distance.record)
    for n in (2, 3, 4, 5):
        x = np.ones((n, 4), f32)
        loss(x, x)
    assert len(loss._plans) == len(loss._layouts) == 3
