"""Every layout that an array can have gives what contiguous NumPy gives, and no input is ever written."""

import math

import numpy as np
import pytest

import fastloss as fl
from fastloss import reference
from fastloss.dispatch import CHUNK, PARALLEL_FROM
from fastloss.kernels.cpu import BLOCK

pytestmark = pytest.mark.jit

TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-13}


class Case:
    """A loss, how to draw data for it, and what NumPy makes of them in float64: values and gradients, unreduced."""

    def __init__(self, loss, target, value, grad):
        self.loss = loss
        self.target = target
        self.value = value
        self.grad = grad


def sigmoid(z):
    return np.exp(-np.logaddexp(0.0, -z))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


ELEMENTWISE = {
    "mse": Case(fl.mse, "real", reference.mse, lambda z, t: 2 * (z - t)),
    "bce_with_logits": Case(fl.bce_with_logits, "unit", reference.bce_with_logits, lambda z, t: sigmoid(z) - t),
    "huber": Case(fl.huber, "real", reference.huber, lambda z, t: np.clip(z - t, -1, 1)),
}
each_loss = pytest.mark.parametrize("name", ELEMENTWISE)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def draw(case, shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    p = (2 * rng.standard_normal(shape)).astype(dtype)
    t = rng.standard_normal(shape) if case.target == "real" else rng.random(shape)
    return p, t.astype(dtype)


def doubles(*arrays):
    return [np.array(a, np.float64) for a in arrays]


def snapshot(*arrays):
    return [None if a is None else np.asarray(a).tobytes() for a in arrays]


def close(got, expected, dtype):
    tolerance = TOLERANCE[np.dtype(dtype).name]
    expected = np.asarray(expected)
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=tolerance, atol=tolerance * scale)


def check_all(case, p, t, w=None, **call):
    """Value, gradient, per-element output and curvature of one layout against contiguous float64, inputs untouched."""
    z, y = doubles(p, t)
    n = z.size
    held = snapshot(p, t, w)
    weight = np.ones(z.shape) if w is None else np.broadcast_to(np.array(w, np.float64), z.shape)
    values, grads = weight * case.value(z, y), weight * case.grad(z, y)
    total = weight.sum()
    mean, slope = (values.sum() / total, grads / total) if n and total else (0.0, np.zeros_like(grads))
    dtype = np.asarray(p).dtype

    loss = case.loss
    for _ in range(2):  # the second call may take a shorter way
        assert math.isclose(loss(p, t, weight=w), mean, rel_tol=TOLERANCE[dtype.name], abs_tol=1e-300)
        value, grad = loss.value_and_grad(p, t, weight=w)
        assert math.isclose(value, mean, rel_tol=TOLERANCE[dtype.name], abs_tol=1e-300)
        assert grad.dtype == dtype
        assert grad.shape == z.shape
        # Relative to the largest: the gradient of a mean is small.
        close(grad * max(total, 1.0), slope * max(total, 1.0), dtype)
    close(loss(p, t, weight=w, reduction="sum"), values.sum(), dtype)
    each = loss(p, t, weight=w, reduction="none")
    assert each.dtype == dtype
    assert each.shape == z.shape
    close(each, values, dtype)
    g, h = loss.grad_and_hess(p, t, weight=w)
    close(g, grads, dtype)
    assert h.shape == z.shape
    assert snapshot(p, t, w) == held


def filler(x):
    """What must not be read: NaN, or a label of no class."""
    return np.nan if x.dtype.kind == "f" else 99


def transposed(x):
    return np.ascontiguousarray(x.T).T


def reversed_memory(x):
    flip = tuple(slice(None, None, -1) for _ in x.shape)
    return x[flip].copy()[flip]


def strided(x):
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1]), filler(x), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def rows_apart(x):
    tall = np.full((3 * x.shape[0], *x.shape[1:]), filler(x), x.dtype)
    tall[1::3] = x
    return tall[1::3]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def swapped(x):
    return x.astype(x.dtype.newbyteorder())


def unaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    view = raw.view(x.dtype).reshape(x.shape)
    view[...] = x
    assert not view.flags.aligned or x.size == 0
    return view


def offset(x):
    """Aligned to its items, not to a cache line."""
    room = np.zeros(x.size + 64, x.dtype)
    first = next(i for i in range(1, 64) if (room.ctypes.data + i * x.itemsize) % 64 == x.itemsize)
    view = room[first : first + x.size].reshape(x.shape)
    view[...] = x
    return view


def mapped(x, path="r"):
    raise NotImplementedError  # replaced by the fixture below: it needs a folder


LAYOUTS = {
    f.__name__: f
    for f in (np.copy, transposed, reversed_memory, strided, rows_apart, read_only, swapped, unaligned, offset, mapped)
}


@pytest.fixture
def lay_out(tmp_path):
    """Lay an array out in memory, by name."""
    count = iter(range(100))

    def make(name, x):
        if name != "mapped":
            laid = LAYOUTS[name](x)
        else:
            path = tmp_path / f"{next(count)}.bin"
            x.tofile(path)
            laid = np.memmap(path, x.dtype, "r", shape=x.shape)
        assert np.array_equal(laid, x)
        return laid

    return make


each_layout = pytest.mark.parametrize("layout", LAYOUTS)

# Elementwise ---------------------------------------------------------------------------------------------------------


@each_loss
@each_dtype
@each_layout
def test_layouts(name, dtype, layout, lay_out):
    case = ELEMENTWISE[name]
    p, t = draw(case, (37, 29), dtype)
    check_all(case, lay_out(layout, p), lay_out(layout, t))
    check_all(case, p, lay_out(layout, t))
    check_all(case, lay_out(layout, p), t)


@each_dtype
@each_layout
def test_layouts_of_weights(dtype, layout, lay_out):
    case = ELEMENTWISE["huber"]
    p, t = draw(case, (37, 29), dtype)
    w = np.random.default_rng(1).random((37, 29)).astype(dtype)
    w[3] = 0.0
    check_all(case, p, t, lay_out(layout, w))
    check_all(case, lay_out(layout, p), lay_out(layout, t), lay_out(layout, w))


@pytest.mark.parametrize("shape", [(29,), (1, 29), (37, 1), (1, 1), (1,), ()], ids=str)
def test_weights_that_broadcast(shape):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (37, 29), "float32")
    w = np.random.default_rng(2).random(shape)
    check_all(case, p, t, w)
    check_all(case, strided(p), t, np.broadcast_to(w, p.shape))


@pytest.mark.parametrize("layout", ["transposed", "reversed_memory", "strided", "unaligned", "mapped"])
def test_layouts_of_a_large_array(layout, lay_out):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (331, 401), "float32")
    assert p.size > PARALLEL_FROM
    check_all(case, lay_out(layout, p), lay_out(layout, t))


@pytest.mark.parametrize(
    ("p_type", "t_type", "w_type"), [("float32", "float64", "int32"), ("float64", "float32", "bool")]
)
def test_mixed_dtypes(p_type, t_type, w_type):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (50,), "float64")
    check_all(case, p.astype(p_type), t.astype(np.float32).astype(t_type), (np.arange(50) % 3).astype(w_type))


@pytest.mark.parametrize("t_type", ["int8", "uint8", "int64", "uint64", "bool", "float16", "longdouble"])
def test_target_dtypes(t_type):
    case = ELEMENTWISE["bce_with_logits"]
    p, _ = draw(case, (50,), "float32")
    t = (np.arange(50) % 2).astype(t_type)
    check_all(case, p, t)


def test_float16():
    case = ELEMENTWISE["bce_with_logits"]
    p, t = draw(case, (40, 30), "float16")
    check_all(case, p, t)
    check_all(case, strided(p), swapped(t))


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    p, t = draw(ELEMENTWISE["mse"], (40,), "float32")
    b = p.astype(ml_dtypes.bfloat16)
    wide = b.astype(np.float64)
    value, grad = fl.mse.value_and_grad(b, t)
    assert math.isclose(value, np.mean((wide - t) ** 2), rel_tol=1e-6)
    assert grad.dtype == b.dtype
    np.testing.assert_allclose(grad.astype(np.float64), (wide - t) / 20, rtol=2**-8)


def test_subclasses_and_lists():
    case = ELEMENTWISE["mse"]
    p, t = draw(case, (4, 5), "float64")
    expected = case.value(p, t).mean()
    assert math.isclose(fl.mse(p.tolist(), t.tolist()), expected, rel_tol=1e-14)
    value, grad = fl.mse.value_and_grad(p.view(np.recarray), t)
    assert math.isclose(value, expected, rel_tol=1e-14)
    assert grad.shape == (4, 5)
    close(grad, 2 * (p - t) / 20, "float64")


# Sizes ---------------------------------------------------------------------------------------------------------------

EDGES = [n + d for n in (BLOCK, CHUNK, PARALLEL_FROM, 2 * CHUNK + BLOCK) for d in (-1, 0, 1)]
SMALL = [0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127]


@each_dtype
@pytest.mark.parametrize("n", sorted({*SMALL, *EDGES}))
def test_sizes(n, dtype):
    for name in ("mse", "bce_with_logits"):
        case = ELEMENTWISE[name]
        check_all(case, *draw(case, n, dtype, seed=n))


@pytest.mark.parametrize("n", EDGES)
def test_nothing_is_written_beyond_the_end(n):
    case = ELEMENTWISE["mse"]
    p, t = draw(case, n, "float32")
    room = np.full(n + 64, 7.0, np.float32)
    out = room[32 : 32 + n]
    _, grad = fl.mse.value_and_grad(p, t, out=out)
    assert grad is out
    assert (room[:32] == 7.0).all()
    assert (room[32 + n :] == 7.0).all()
    close(out * n, 2 * (p.astype(np.float64) - t), "float32")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)], ids=str)
@each_dtype
def test_zero_size(shape, dtype):
    case = ELEMENTWISE["mse"]
    p = np.zeros(shape, dtype)
    check_all(case, p, p.copy())
    check_all(case, p, p.copy(), np.ones(shape))
    check_all(case, read_only(p), swapped(p))
    assert fl.mse(p, p) == 0.0


@each_dtype
def test_zero_dimensions(dtype):
    case = ELEMENTWISE["huber"]
    p, t = np.array(3.0, dtype), np.array(1.0, dtype)
    check_all(case, p, t)
    out = np.zeros((), dtype)
    value, grad = fl.huber.value_and_grad(p, t, out=out)
    assert value == 1.5
    assert grad is out
    assert out == 1.0
    assert fl.huber(3.0, 1.0) == 1.5


def test_a_scalar_target_stands_for_all():
    p, _ = draw(ELEMENTWISE["mse"], (3, 4), "float32")
    assert fl.mse(p, 0.5) == fl.mse(p, np.full((3, 4), 0.5, np.float32))


@pytest.mark.parametrize("n", [1, 3, 49, 1000, PARALLEL_FROM + 1])
def test_every_call_has_the_same_bits(n):
    p, t = draw(ELEMENTWISE["mse"], n, "float32", seed=n)
    fresh = fl.mse.bind()
    fresh = type(fresh)(fresh.record)  # knows no short way yet
    results = [(fresh(p, t), *fresh.value_and_grad(p, t)) for _ in range(3)]
    for value, other, grad in results:
        assert value == other == results[0][0]
        assert grad.tobytes() == results[0][2].tobytes()
    ones = np.ones(n, np.float32)
    assert {fresh(ones, np.zeros(n, np.float32)) for _ in range(3)} == {1.0}


@pytest.mark.slow
def test_more_than_two_gigabytes():
    n = 2**29 + 3 * CHUNK + 5
    p, t = np.zeros((2, n), np.float32)  # pages of zeros take no memory until they are written
    assert p.nbytes > 2**31
    p[[0, 2**29 - 1, 2**29, 2**29 + 1]] = [1.0, 2.0, 3.0, 4.0]
    t[[2**29, n - 1]] = [-3.0, 5.0]
    assert fl.mse(p, t, reduction="sum") == 1 + 4 + 36 + 16 + 25
    assert fl.mse(p, t) == 82 / n


# Outputs -------------------------------------------------------------------------------------------------------------


@each_loss
@pytest.mark.parametrize(
    "layout", ["copy", "transposed", "reversed_memory", "strided", "rows_apart", "unaligned", "offset"]
)
@each_dtype
def test_layouts_of_outputs(name, layout, dtype, lay_out):
    case = ELEMENTWISE[name]
    p, t = draw(case, (37, 29), dtype)
    held = snapshot(p, t)
    expected = case.grad(*doubles(p, t))
    for _ in range(2):
        out = lay_out(layout, np.full((37, 29), 7.0, dtype))
        whole = out if out.base is None else out.base
        around = np.asarray(whole).tobytes() if layout in ("strided", "rows_apart") else None
        _, grad = case.loss.value_and_grad(p, t, out=out)
        assert grad is out
        close(out * out.size, expected, dtype)
        if around is not None:
            out[...] = 7.0
            assert np.asarray(whole).tobytes() == around
    g, h = (lay_out(layout, np.zeros((37, 29), dtype)) for _ in range(2))
    got = case.loss.grad_and_hess(p, t, out=(g, h))
    assert got[0] is g
    assert got[1] is h
    close(g, expected, dtype)
    close(h, case.loss.grad_and_hess(p, t)[1], dtype)
    assert snapshot(p, t) == held


def test_output_in_a_mapped_file(tmp_path):
    p, t = draw(ELEMENTWISE["mse"], (40,), "float32")
    out = np.memmap(tmp_path / "g", np.float32, "w+", shape=(40,))
    for _ in range(2):
        assert fl.mse.value_and_grad(p, t, out=out)[1] is out
    out.flush()
    close(np.fromfile(tmp_path / "g", np.float32) * 40, 2 * (p - t), "float32")


def test_output_of_a_swapped_prediction():
    p, t = draw(ELEMENTWISE["mse"], (40,), "float32")
    out = np.zeros(40, p.dtype.newbyteorder())
    assert fl.mse.value_and_grad(swapped(p), t, out=out)[1] is out
    close(out * 40, 2 * (p - t), "float32")


def test_outputs_of_several_predictions():
    rng = np.random.default_rng(0)
    mean, t = rng.standard_normal((2, 40))
    scale = rng.random(40) + 0.5
    fresh = fl.laplace_nll.value_and_grad((mean, scale), t)
    wide = np.zeros((40, 3))
    out = (np.zeros(40), wide[:, 1])
    value, grads = fl.laplace_nll.value_and_grad((strided(mean), swapped(scale).astype("<f8")), t, out=out)
    assert grads is out
    assert value == fresh[0]
    for got, expected in zip(out, fresh[1], strict=True):
        assert got.tobytes() == expected.tobytes()
    assert not wide[:, [0, 2]].any()
    close(out[1] * 40, 1 / scale - np.abs(mean - t) / scale**2, "float64")


# Rows ----------------------------------------------------------------------------------------------------------------


def check_rows(p, y, w=None, axis=-1):
    z = np.moveaxis(np.array(p, np.float64), axis, -1)
    k = z.shape[-1]
    labels = np.array(y, np.int64).ravel()
    flat = z.reshape(-1, k)
    weight = np.ones(len(flat)) if w is None else np.broadcast_to(np.array(w, np.float64), z.shape[:-1]).ravel()
    kept = labels != -100
    weight = weight * kept
    hot = np.zeros_like(flat)
    np.put_along_axis(hot, np.where(kept, labels, 0)[:, None], 1.0, axis=1)
    values = weight * reference.cross_entropy(flat, hot)
    slopes = weight[:, None] * (softmax(flat) - hot)
    total = weight.sum()
    dtype = np.asarray(p).dtype
    held = snapshot(p, y, w)
    value, grad = fl.cross_entropy.value_and_grad(p, y, weight=w, axis=axis)
    assert math.isclose(value, values.sum() / total if total else 0.0, rel_tol=TOLERANCE[dtype.name], abs_tol=1e-300)
    assert math.isclose(value, fl.cross_entropy(p, y, weight=w, axis=axis), rel_tol=1e-6, abs_tol=1e-300)
    assert grad.shape == np.shape(p)
    assert grad.dtype == dtype
    close(np.moveaxis(grad, axis, -1) * max(total, 1.0), slopes.reshape(z.shape), dtype)
    each = fl.cross_entropy(p, y, weight=w, axis=axis, reduction="none")
    assert each.shape == z.shape[:-1]
    close(each, values.reshape(z.shape[:-1]), dtype)
    assert snapshot(p, y, w) == held


def draw_rows(n, k, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    y[rng.random(n) < 0.1] = -100
    return (2 * rng.standard_normal((n, k))).astype(dtype), y


@each_layout
@pytest.mark.parametrize("k", [5, 40])
def test_layouts_of_rows(layout, k, lay_out):
    p, y = draw_rows(53, k)
    w = np.random.default_rng(3).random(53)
    check_rows(lay_out(layout, p), lay_out(layout, y), lay_out(layout, w))
    check_rows(p, lay_out(layout, y))
    check_rows(lay_out(layout, p), y)


@pytest.mark.parametrize("y_type", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint64"])
def test_label_dtypes(y_type):
    p, y = draw_rows(53, 5)
    check_rows(p, np.where(y < 0, 1, y).astype(y_type))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("layout", ["copy", "transposed", "strided", "swapped"])
def test_axes(axis, layout, lay_out):
    rng = np.random.default_rng(4)
    p = rng.standard_normal((6, 7, 8)).astype(np.float32)
    shape = [s for i, s in enumerate(p.shape) if i != axis % 3]
    y = rng.integers(0, p.shape[axis], shape)
    check_rows(lay_out(layout, p), lay_out("copy", y), axis=axis)


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 64])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65])
def test_sizes_of_rows(n, k):
    check_rows(*draw_rows(n, k, seed=n))


@pytest.mark.parametrize(
    ("n", "k"), [(CHUNK // 33 + d, 33) for d in (-1, 0, 1)] + [(PARALLEL_FROM // 8 + d, 8) for d in (-1, 0, 1)]
)
def test_rows_around_chunks(n, k):
    check_rows(*draw_rows(n, k, seed=n))


def test_a_row_wider_than_a_chunk():
    check_rows(*draw_rows(3, PARALLEL_FROM + 3))


@pytest.mark.parametrize("shape", [(0, 5), (0, 0), (2, 0, 5)], ids=str)
def test_no_rows(shape):
    p = np.zeros(shape, np.float32)
    value, grad = fl.cross_entropy.value_and_grad(p, np.zeros(shape[:-1], int))
    assert value == 0.0
    assert grad.shape == shape
    assert fl.cross_entropy(p, np.zeros(shape[:-1], int), reduction="none").shape == shape[:-1]


@pytest.mark.parametrize("layout", ["copy", "transposed", "strided", "unaligned"])
@pytest.mark.parametrize("axis", [-1, 0])
def test_outputs_of_rows(layout, axis, lay_out):
    p, _ = draw_rows(6, 5)
    y = np.arange(p.size // p.shape[axis]) % p.shape[axis]
    expected = fl.cross_entropy.value_and_grad(p, y, axis=axis)[1]
    out = lay_out(layout, np.zeros_like(p))
    assert fl.cross_entropy.value_and_grad(p, y, axis=axis, out=out)[1] is out
    assert np.array_equal(out, expected)
    g, h = (lay_out(layout, np.zeros_like(p)) for _ in range(2))
    got = fl.cross_entropy.grad_and_hess(p, y, axis=axis, out=(g, h))
    assert got[0] is g
    assert got[1] is h
    close(g, expected * len(y), "float32")


def test_layouts_of_probability_targets():
    p, _ = draw_rows(20, 7, "float64")
    t = softmax(np.random.default_rng(5).standard_normal((20, 7)))
    expected = reference.cross_entropy(p, t).mean()
    for lay in (np.copy, transposed, strided, reversed_memory, read_only, swapped, unaligned):
        held = snapshot(lay(t))
        laid = lay(t)
        assert math.isclose(fl.cross_entropy(lay(p), laid), expected, rel_tol=1e-13)
        assert math.isclose(fl.cross_entropy(lay(p).T, laid.T, axis=0), expected, rel_tol=1e-13)
        assert snapshot(laid) == held


# Tensors -------------------------------------------------------------------------------------------------------------


def test_tensors():
    torch = pytest.importorskip("torch")
    p, t = draw(ELEMENTWISE["bce_with_logits"], (30, 20), "float32")
    tensors = {
        "plain": (torch.from_numpy(p), torch.from_numpy(t)),
        "transposed": (torch.from_numpy(p.T.copy()).T, torch.from_numpy(t.T.copy()).T),
        "strided": (torch.from_numpy(strided(p)), torch.from_numpy(strided(t))),
        "target of NumPy": (torch.from_numpy(p), t),
        "detached": (torch.from_numpy(p).requires_grad_().detach(), torch.from_numpy(t)),
    }
    expected_value, expected = fl.bce_with_logits.value_and_grad(p, t)
    for name, (a, b) in tensors.items():
        before = a.clone(), torch.as_tensor(b).clone()
        value, grad = fl.bce_with_logits.value_and_grad(a, b)
        assert isinstance(grad, torch.Tensor), name
        assert grad.dtype == torch.float32
        assert value == expected_value
        assert np.array_equal(grad.numpy(), expected)
        each = fl.bce_with_logits(a, b, reduction="none")
        assert isinstance(each, torch.Tensor)
        assert each.shape == (30, 20)
        g, h = fl.bce_with_logits.grad_and_hess(a, b)
        assert isinstance(g, torch.Tensor)
        assert isinstance(h, torch.Tensor)
        out = torch.zeros(20, 30).T if name == "transposed" else torch.zeros(30, 20)
        for _ in range(2):
            assert fl.bce_with_logits.value_and_grad(a, b, out=out)[1] is out
        assert np.array_equal(out.numpy(), expected)
        assert torch.equal(a, before[0])
        assert torch.equal(torch.as_tensor(b), before[1])


def test_tensors_against_torch():
    torch = pytest.importorskip("torch")
    z, y = draw_rows(30, 6)
    tensor = torch.from_numpy(z).requires_grad_()
    labels = torch.from_numpy(y)
    expected = torch.nn.functional.cross_entropy(tensor, labels)
    expected.backward()
    value, grad = fl.cross_entropy.value_and_grad(tensor.detach(), labels)
    assert math.isclose(value, expected.item(), rel_tol=1e-6)
    torch.testing.assert_close(grad, tensor.grad)
    out = torch.empty_like(grad)
    assert fl.cross_entropy.value_and_grad(tensor.detach(), labels, out=out)[1] is out
    assert torch.equal(out, grad)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_tensors(kind):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, kind)
    p, t = draw(ELEMENTWISE["mse"], (64,), "float32")
    a, b = torch.from_numpy(p).to(dtype), torch.from_numpy(t)
    wide = a.double().numpy()
    value, grad = fl.mse.value_and_grad(a, b)
    assert math.isclose(value, np.mean((wide - t) ** 2), rel_tol=1e-5)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad.double().numpy(), (wide - t) / 32, rtol=2**-7, atol=1e-4)
    each = fl.mse(a, b, reduction="none")
    assert each.dtype == dtype
    if kind == "bfloat16":
        out = np.zeros(64, np.float32)
        assert fl.mse.value_and_grad(a, b, out=out)[1] is out
        np.testing.assert_allclose(out, (wide - t) / 32, rtol=1e-5)


def test_other_array_libraries():
    class Exported:
        """Only the protocol."""

        def __init__(self, a):
            self.a = a

        def __dlpack__(self, **kwargs):
            return self.a.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.a.__dlpack_device__()

    p, t = draw(ELEMENTWISE["mse"], (10,), "float32")
    value, grad = fl.mse.value_and_grad(Exported(p), Exported(t))
    assert value == fl.mse(p, t)
    assert isinstance(grad, np.ndarray)
