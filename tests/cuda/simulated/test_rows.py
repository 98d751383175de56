"""Losses of rows on the simulated device, against NumPy's textbook forms and their numerical derivatives."""

import re

import numpy as np
import pytest
from left_out import row_inputs

import fastloss as fl
from fastloss import reference
from fastloss.cuda.rows import run as run_rows
from fastloss.spec.record import LOOPS

ROWS = {name: loss for name, loss in fl.LOSSES.items() if loss.record.family == "rows"}
KINDS = [
    (name, kind)
    for name, loss in ROWS.items()
    for kind in ("labels", "dense")
    if getattr(LOOPS[loss.record.loop], kind)
]
each_kind = pytest.mark.parametrize(("name", "kind"), KINDS)
# A scale of 64 makes differences of differences useless.
USUAL = {"arcface": {"scale": 4.0}, "cosface": {"scale": 4.0}, "multi_margin": {"p": 2.0}}


def draw(name, kind, n, k, dtype=np.float64, seed=0):
    """A prediction and a target that the loss takes."""
    z, t = row_inputs(name, kind, k, n, seed).values()
    if kind == "labels":
        return z.astype(dtype), np.random.default_rng(seed).integers(0, k + (ROWS[name].record.loop == "ordinal"), n)
    return z.astype(dtype), t.astype(dtype)


def oracle(name, z, t, c=None, **p):
    """The loss of each row, with class weights c."""
    p = {**USUAL.get(name, {}), **p}
    n, k = z.shape
    f, loop = getattr(reference, name), ROWS[name].record.loop
    c = np.ones(k) if c is None else c
    one_hot = np.eye(k)[t] if t.dtype.kind == "i" and loop != "ordinal" else t
    if name == "cross_entropy":
        if "logit_scale" in p:
            p["temperature"] = p.get("temperature", 1.0) / p.pop("logit_scale")
        return f(z, t, class_weight=c, **p)
    if loop == "ordinal":
        return sum(c[j] * f(z[:, [j]], t - j) for j in range(k))
    if loop == "divergence" or name == "kl_div":
        return sum(c[j] * f(z[:, [j]], one_hot[:, [j]], **p) for j in range(k))
    if name == "label_relaxation":
        return f(z, c * one_hot, **p)
    if loop in ("softmax", "log_probs"):
        return sum(c[j] * one_hot[:, j] * f(z, np.full(n, j), **p) for j in range(k))
    if name == "distillation":
        warmth = p.get("temperature", 2.0)
        lp, lq = (x / warmth - np.logaddexp.reduce(x / warmth, axis=1, keepdims=True) for x in (z, t))
        return warmth**2 * (c * np.exp(lq) * (lq - lp)).sum(axis=1)
    return (1.0 if loop == "ensemble" else one_hot @ c) * f(z, t, **p)


def differences(name, z, t, c=None, columns=None, **p):
    """First derivatives and the diagonal of the second, numerically, of all columns or some."""
    first, second = np.zeros(z.shape), np.zeros(z.shape)
    middle = oracle(name, z, t, c, **p)
    for j in range(z.shape[1]) if columns is None else columns:
        step = np.eye(z.shape[1])[j]
        up, down = (oracle(name, z + h * step, t, c, **p) for h in (1e-5, -1e-5))
        first[:, j] = (up - down) / 2e-5
        up, down = (oracle(name, z + h * step, t, c, **p) for h in (3e-4, -3e-4))
        second[:, j] = (up - 2 * middle + down) / 9e-8
    return first, second


def near(got, expected, digits=8):
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1e-3)
    np.testing.assert_allclose(got, expected, rtol=10.0**-digits, atol=10.0**-digits * scale)


@each_kind
def test_values_and_gradients(name, kind, put, fetch):
    z, t = draw(name, kind, 3, 7)
    loss = ROWS[name].bind(**USUAL.get(name, {}))
    values, grad = map(fetch, loss.value_and_grad(put(z), put(t), reduction="none"))
    near(values, oracle(name, z, t), 12)
    near(grad, differences(name, z, t)[0])
    assert values.dtype == grad.dtype == np.float64


@each_kind
def test_mean_under_weights(name, kind, put, fetch):
    z, t = draw(name, kind, 4, 8, seed=1)
    rng = np.random.default_rng(2)
    w, c = rng.random(4), rng.random(8) + 0.1
    loop, labels = ROWS[name].record.loop, kind == "labels"
    given = None if loop == "ensemble" else c
    kept = np.array([True, True, not labels, True])
    w[1] = 0.0
    expected = oracle(name, z, t, given)
    slope = differences(name, z, t, given)[0]
    counted = w * kept
    if labels and LOOPS[loop].divides:
        counted = counted * c[t]
    if labels:
        t[2] = -100
    loss = ROWS[name].bind(**USUAL.get(name, {}))
    options = {"weight": put(w), "class_weight": put(given)}
    value, grad = map(fetch, loss.value_and_grad(put(z), put(t), **options))
    whole = counted.sum() if loss.record.reduction == "mean" else 1.0
    near(value, np.sum((w * expected)[kept]) / whole, 12)
    near(grad, (w * kept)[:, None] * slope / whole)
    assert value.shape == ()
    assert not grad[~kept | (w == 0)].any()


@each_kind
def test_curvatures(name, kind, put, fetch):
    record = ROWS[name].record
    if not record.second:
        pytest.skip("no second derivative")
    z, t = draw(name, kind, 2, 7, seed=3)
    loss = ROWS[name].bind(**USUAL.get(name, {}))
    first, second = differences(name, z, t)
    grad, hess = map(fetch, loss.grad_and_hess(put(z), put(t)))
    near(grad, first)
    # A formula says 0 of a kink, and of the mean absolute deviation.
    near(hess, second if name != "tv_distance" else hess, 4)


def test_surrogates(put, fetch):
    z, t = draw("multi_margin", "labels", 2, 5, seed=4)
    rows = np.arange(2)
    inside = 1.0 + z - z[rows, t][:, None] > 0
    inside[rows, t] = False
    surrogate = inside / 5.0
    surrogate[rows, t] = surrogate.sum(axis=1)
    near(fetch(fl.multi_margin.grad_and_hess(put(z), put(t), curvature="surrogate")[1]), surrogate)
    others = np.where(np.eye(5, dtype=bool)[t], -np.inf, z)
    best = others.argmax(axis=1)
    expected = np.zeros((2, 5))
    expected[rows, t] = expected[rows, best] = 1.0 + others.max(axis=1) - z[rows, t] > 0
    near(fetch(fl.crammer_singer.grad_and_hess(put(z), put(t), curvature="surrogate")[1]), expected)
    z, t = draw("crps_ensemble", "dense", 2, 5)
    near(fetch(fl.crps_ensemble.grad_and_hess(put(z), put(t), curvature="surrogate")[1]), np.full((2, 5), 0.2))


@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_surrogate_beside_a_z_loss(kind, put, fetch):
    z, t = draw("cross_entropy", kind, 3, 7, seed=6)
    z -= np.array([[0.0], [10.0], [30.0]], z.dtype)
    mass = 1.0 if kind == "labels" else t.astype(np.float64).sum(axis=1, keepdims=True)
    lse = np.logaddexp.reduce(z.astype(np.float64), axis=1, keepdims=True)
    p = np.exp(z - lse)
    for zeta in (0.0, 0.03):
        expected = np.maximum(mass + 2 * zeta * lse, 0) * p * (1 - p) + 2 * zeta * p * p
        near(fetch(fl.cross_entropy.grad_and_hess(put(z), put(t), curvature="surrogate", z_loss=zeta)[1]), expected)
    assert (mass + 2 * zeta * lse < 0).any()


VARIANTS = [
    ("cross_entropy", {"label_smoothing": 0.1}),
    ("cross_entropy", {"temperature": 2.5, "z_loss": 0.05}),
    ("cross_entropy", {"label_smoothing": 0.3, "z_loss": 0.1, "logit_scale": 0.7}),
    ("softmax_focal", {"gamma": 0.5}),
    ("js_div", {"beta": 0.1}),
    ("crps_ensemble", {"fair": True}),
    ("distillation", {"temperature": 0.7}),
    ("dirichlet_evidential", {"lam": 0.0}),
    ("arcface", {"margin": 1.5, "scale": 2.0}),
]


@pytest.mark.parametrize("kind", ["labels", "dense"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_parameters(name, options, kind, put, fetch):
    if (name, kind) not in KINDS:
        pytest.skip("it takes no such target")
    z, t = draw(name, kind, 2, 6, seed=5)
    c = None if name == "crps_ensemble" else np.linspace(0.5, 1.5, 6)
    given = {**options, "class_weight": put(c)}
    values, grad = map(fetch, ROWS[name].value_and_grad(put(z), put(t), reduction="none", **given))
    near(values, oracle(name, z, t, c, **options), 12)
    near(grad, differences(name, z, t, c, **options)[0])


@pytest.mark.parametrize("size", [0.0, 1.0, 10.0])
def test_mean_of_a_z_loss_under_class_weights(size, put, fetch):
    z, t = draw("cross_entropy", "labels", 5, 6, seed=6)
    t[3] = -100
    given = {"label_smoothing": 0.1, "z_loss": 0.1}
    weight, c = np.linspace(0.5, 2.0, 5), size * np.linspace(0.5, 1.5, 6)
    value, grad = map(
        fetch, fl.cross_entropy.value_and_grad(put(z), put(t), weight=put(weight), class_weight=put(c), **given)
    )
    squares = np.where(t < 0, 0.0, weight) * np.logaddexp.reduce(z, axis=1) ** 2
    kept = t >= 0
    own = oracle("cross_entropy", z[kept], t[kept], c, label_smoothing=0.1)
    mass = weight[kept] @ c[t[kept]]
    near(value, 0.1 * squares.sum() / weight[kept].sum() + (weight[kept] @ own / mass if size else 0.0))
    assert np.isfinite(grad).all()
    assert abs(grad).sum() > 0.0


MERGES = [("cross_entropy", "labels"), ("cross_entropy", "dense"), ("crammer_singer", "labels")]
MERGES += [("sparsemax_loss", "labels"), ("kl_div", "dense")]


@pytest.mark.parametrize(("name", "kind"), MERGES)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 2), (3, 33), (2, 130)])
def test_sizes(name, kind, n, k, put, fetch):
    z, t = draw(name, kind, n, k, seed=n)
    values, grad = map(fetch, ROWS[name].value_and_grad(put(z), put(t), reduction="none"))
    near(values, oracle(name, z, t) if name != "crammer_singer" or k > 1 else np.zeros(n), 12)
    near(grad, differences(name, z, t)[0] if name != "crammer_singer" or k > 1 else np.zeros((n, k)))


@pytest.mark.parametrize("block", [64], indirect=True)
@pytest.mark.parametrize(("name", "kind"), MERGES)
def test_row_of_a_block(name, kind, block, put, fetch, monkeypatch):
    monkeypatch.setattr(run_rows, "BLOCK_FROM", 100)
    z, t = draw(name, kind, 2, 301 if name == "kl_div" else 300, np.float32)
    options = {"label_smoothing": 0.1} if name == "cross_entropy" else {}
    value, grad = map(fetch, ROWS[name].value_and_grad(put(z), put(t), **options))
    wide = z.astype(float), t.astype(float) if kind == "dense" else t
    near(value, np.mean(oracle(name, *wide, **options)), 6)
    some = [0, 3, 150, 255, 256, 299]
    near(grad[:, some], (differences(name, *wide, columns=some, **options)[0] / 2)[:, some], 5)


@pytest.mark.parametrize(("name", "kind"), [("cross_entropy", "labels"), ("kl_div", "dense"), ("nll", "labels")])
def test_half_precision(name, kind, put, fetch):
    z, t = draw(name, kind, 2, 16, np.float16)
    t = t.astype(np.int32) if kind == "labels" else t
    value, grad = map(fetch, ROWS[name].value_and_grad(put(z), put(t)))
    wide = z.astype(float), t.astype(float) if kind == "dense" else t
    near(value, np.mean(oracle(name, *wide)), 5)
    assert value.dtype == np.float32
    assert grad.dtype == np.float16
    near(grad.astype(float), differences(name, *wide)[0] / 2, 3)


def test_probability_close_to_one_keeps_its_digits(put, fetch):
    z = np.array([[50.0, 0.0, 0.0], [0.0, -50.0, -50.0]])
    t = np.zeros(2, int)
    values, grad = map(fetch, fl.cross_entropy.value_and_grad(put(z), put(t), reduction="none"))
    np.testing.assert_allclose(values, 2 * np.exp(-50), rtol=1e-14)
    np.testing.assert_allclose(grad[:, 0], -2 * np.exp(-50), rtol=1e-14)
    dense = np.eye(3)[t]
    np.testing.assert_allclose(fetch(fl.cross_entropy(put(z), put(dense), reduction="none")), values, rtol=1e-14)


@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_infinities(kind, put, fetch):
    z = np.array([[0.0, -np.inf, 1.0, -np.inf], [-np.inf, 0.0, -np.inf, 2.0], [0.0, np.nan, 0.0, 0.0], [np.inf] * 4])
    z = np.vstack([z, [[-np.inf] * 4]])
    t = np.array([0, 0, 0, 0, 0])
    given = t if kind == "labels" else np.eye(4)[t]
    values, grad = map(fetch, fl.cross_entropy.value_and_grad(put(z), put(given), reduction="none"))
    assert values[0] == pytest.approx(np.log1p(np.e))
    assert values[1] == np.inf
    assert np.isnan(values[2:]).all()
    assert np.isnan(grad[2:]).all()
    p = 1 / (1 + np.e)
    near(grad[0], np.array([p - 1, 0.0, 1 - p, 0.0]), 12)


def test_ignored_rows(put, fetch):
    z, t = draw("cross_entropy", "labels", 3, 5)
    loss = fl.cross_entropy
    ignored = np.full(3, -100)
    value, grad = map(fetch, loss.value_and_grad(put(z * np.nan), put(ignored)))
    assert value == 0.0
    assert not grad.any()
    t = np.array([1, 2, 1])
    near(fetch(loss(put(z), put(t), ignore_index=1)), oracle("cross_entropy", z[1:2], t[1:2])[0], 12)
    near(fetch(loss(put(z), put(t.astype(np.int32)), ignore_index=None)), oracle("cross_entropy", z, t).mean(), 12)
    fl.synchronize()


def test_labels_out_of_range_are_nan_and_reported_by_synchronize(put, fetch):
    z, _ = draw("cross_entropy", "labels", 4, 5)
    for label, index in ((5, -100), (-1, -100), (2**40, -100), (-100, None)):
        target = put(np.array([1, -100 if index else 0, label, 7]))
        values, grad = map(fetch, fl.cross_entropy.value_and_grad(put(z), target, ignore_index=index, reduction="none"))
        assert np.flatnonzero(np.isnan(values)).tolist() == [2, 3]
        assert np.isnan(grad[2:]).all()
        assert not np.isnan(grad[:2]).any()
        also = f", or {index} (ignore_index)" if index else ""
        with pytest.raises(ValueError, match=r"cross_entropy: target\[2\] is ") as error:
            fl.synchronize()
        assert str(error.value) == f"cross_entropy: target[2] is {label}; allowed: 0 to 4{also}"
    target = put(np.array([5, 6, 0, 1]))
    assert np.isnan(fetch(fl.ordinal(put(z), target)))
    with pytest.raises(ValueError, match=r"ordinal: target\[1\] is 6; allowed: 0 to 5, or -100"):
        fl.synchronize()
    with fl.backend("cuda"), pytest.raises(ValueError, match=r"nll: target\[1, 1\] is 9; allowed: 0 to 4"):
        fl.nll(z.reshape(2, 2, 5), np.array([[0, 1], [2, 9]]))


WRAPPING = [(2**64 - 100, -100), (2**63, None), (2**64 - 1, -1), (2**63 + 2, 2**63 - 1), (2**64 - 2, 2), (7, -100)]


@pytest.mark.parametrize(("label", "index"), WRAPPING)
def test_unsigned_labels_never_wrap(label, index, put, fetch):
    z, _ = draw("cross_entropy", "labels", 3, 5)
    also = "" if index is None else f", or {index} (ignore_index)"
    target = np.array([0, label, index if index and index > 0 else 1], np.uint64)
    message = f"^{re.escape(f'nll: target[1] is {label}; allowed: 0 to 4{also}')}$"
    with fl.backend("cuda"), pytest.raises(ValueError, match=message):
        fl.nll(z, target, ignore_index=index)
    there = put(target)
    values = fetch(fl.nll(put(z), there, ignore_index=index, reduction="none"))
    assert np.isnan(values).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=message):
        fl.synchronize()
    target[1] = 2
    values = fetch(fl.nll(put(z), put(target), ignore_index=index, reduction="none"))
    rows = np.array([0.0 if y == index else -z[i, y] for i, y in enumerate(target.astype(object))])
    assert values.tolist() == rows.tolist()
    fl.synchronize()


def test_numbers_out_of_their_domains(put, fetch):
    z, t = draw("kl_div", "dense", 3, 4)
    negative = t.copy()
    negative[1, 2] = -0.5
    for name in ("kl_div", "cross_entropy"):
        target = put(negative)
        values, grad = map(fetch, ROWS[name].value_and_grad(put(z), target, reduction="none"))
        assert np.flatnonzero(np.isnan(values)).tolist() == [1]
        assert np.isnan(grad[1, 2])
        assert not np.isnan(grad[[0, 2]]).any()
        with pytest.raises(ValueError, match=rf"{name}: target\[1, 2\] is -0.5; allowed: \[0, inf\)"):
            fl.synchronize()
    weight = put(np.array([1.0, -1.0, 1.0]))
    assert np.isnan(fetch(fl.kl_div(put(z), put(t), weight=weight)))
    with pytest.raises(ValueError, match=r"kl_div: weight\[1\] is -1; allowed: \[0, inf\)"):
        fl.synchronize()
    weight = put(np.array([1.0, 1.0, 1.0, -2.0]))
    for target in (t, np.array([0, 1, 2])):
        assert np.isnan(fetch(fl.cross_entropy(put(z), put(target), class_weight=weight)))
        with pytest.raises(ValueError, match=r"cross_entropy: class_weight\[3\] is -2; allowed: \[0, inf\)"):
            fl.synchronize()


@each_kind
def test_an_infinite_class_weight_is_nan_and_reported_by_synchronize(name, kind, put, fetch):
    if name == "crps_ensemble":
        pytest.skip("it has no classes")
    z, t = draw(name, kind, 3, 4)
    t = np.arange(3) if kind == "labels" else t
    hit = [False, True, False] if kind == "labels" and ROWS[name].record.loop != "ordinal" else [True] * 3
    weight = put(np.array([1.0, np.inf, 1.0, 1.0]))
    message = rf"^{name}: class_weight\[1\] is inf; allowed: \[0, inf\)$"
    values, grad = map(fetch, ROWS[name].value_and_grad(put(z), put(t), class_weight=weight, reduction="none"))
    # Probabilities against an infinite weight may be infinite, each for itself.
    assert (np.isnan(values) if kind == "labels" and name != "ordinal" else ~np.isfinite(values)).tolist() == hit
    assert (~np.isfinite(grad[hit])).any(axis=1).all()
    with pytest.raises(ValueError, match=message):
        fl.synchronize()
    assert np.isnan(fetch(ROWS[name](put(z), put(t), class_weight=weight)))
    with pytest.raises(ValueError, match=message):
        fl.synchronize()


@pytest.mark.parametrize("kind", ["labels", "dense"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing(kind, shape, put, fetch):
    z = np.zeros(shape)
    t = np.full(shape[0], -100) if kind == "labels" else z
    value, grad = map(fetch, fl.cross_entropy.value_and_grad(put(z), put(t)))
    assert value == 0.0
    assert grad.shape == shape


@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_axis(kind, put):
    z, t = draw("cross_entropy", kind, 6, 5)
    moved = np.moveaxis(z.reshape(2, 3, 5), -1, 1)
    target = t.reshape(2, 3) if kind == "labels" else np.moveaxis(t.reshape(2, 3, 5), -1, 1)
    with fl.backend("cuda"):
        value, grad = fl.cross_entropy.value_and_grad(moved, target, axis=1)
    near(value, oracle("cross_entropy", z, t).mean(), 12)
    near(np.moveaxis(grad, 1, -1).reshape(6, 5), differences("cross_entropy", z, t)[0] / 6)
    with pytest.warns(RuntimeWarning, match="runs on the CPU, with copies: Numba moves no axes on a device"):
        again = fl.cross_entropy(put(moved), put(target), axis=1)
    assert again.copy_to_host() == pytest.approx(value, rel=1e-12)


def test_wrong_calls(put):
    z, t = put(np.zeros((3, 4))), put(np.zeros(3, int))
    loss = fl.cross_entropy
    with pytest.raises(ValueError, match=r"target has shape \(2,\); expected \(3,\), one entry per row"):
        loss(z, put(np.zeros(2, int)))
    with pytest.raises(ValueError, match=r"target has shape \(3, 5\); expected \(3, 4\)"):
        loss(z, put(np.zeros((3, 5))))
    with pytest.raises(TypeError, match="target has dtype float64; expected integers, or rows of 4 probabilities"):
        loss(z, put(np.zeros(3)))
    with pytest.raises(TypeError, match="multi_margin: target has dtype float64; expected integer labels"):
        fl.multi_margin(z, put(np.zeros(3)))
    with pytest.raises(TypeError, match="distillation: target has dtype int64; expected the teacher's logits"):
        fl.distillation(z, t)
    with pytest.raises(TypeError, match="cross_entropy needs a target"):
        loss(z)
    with pytest.raises(TypeError, match="Numba device array of dtype int64"):
        loss(t, t)
    with pytest.raises(ValueError, match=r"class_weight has shape \(3,\); expected \(4,\), one weight per class"):
        loss(z, t, class_weight=put(np.ones(3)))
    with pytest.raises(ValueError, match="axis is 2; the prediction has 2 dimensions"):
        loss(z, t, axis=2)
    with pytest.raises(ValueError, match="overlaps an input"):
        loss.value_and_grad(z, t, out=z)
    with pytest.raises(fl.BackendError, match="backend is 'cuda', but cross_entropy has no details on a GPU"):
        loss.details(z, t, backend="cuda")


def test_details_fall_back(put, fetch):
    z, t = draw("cross_entropy", "labels", 3, 5)
    with pytest.warns(
        RuntimeWarning, match="cross_entropy runs on the CPU, with copies: cross_entropy has no details on a GPU"
    ):
        found = fl.cross_entropy.details(put(z), put(t))
    expected = fl.cross_entropy.details(z, t)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(fetch(a), b)
    assert fetch(found.loss).shape == (3,)


def test_out_is_written_and_returned(put, fetch):
    z, t = draw("cross_entropy", "labels", 2, 5)
    out = put(np.zeros((2, 5))), put(np.zeros((2, 5)))
    grad, hess = fl.cross_entropy.grad_and_hess(put(z), put(t), out=out)
    assert grad is out[0]
    assert hess is out[1]
    near(fetch(out[0]), differences("cross_entropy", z, t)[0])
