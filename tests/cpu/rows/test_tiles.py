"""Rows of few scores, which go through transposed tiles of 64 rows: every width, every number of rows left over.

The oracle is NumPy in float64, and, for what it has no formula of here, the loop along each row.
"""

import pickle

import numpy as np
import pytest
from numba import config, njit, types

import fastloss as fl
from fastloss import reference
from fastloss.cpu import elementwise as cpu
from fastloss.cpu.rows.drivers import row_helpers
from fastloss.cpu.rows.tiles import GROUP
from fastloss.losses import rows

WIDTHS = list(range(1, 42))
ROWS = [1, 2, 63, 64, 65, 130]
SOME = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40]
if config.DISABLE_JIT:
    WIDTHS, SOME = [1, 2, 5], [1, 3]
    ROWS = [1, 65]
IGNORED = -100

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_width = pytest.mark.parametrize("k", WIDTHS)
some_widths = pytest.mark.parametrize("k", SOME)

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
VARIANTS = {
    "cross_entropy": {"label_smoothing": 0.1, "z_loss": 0.01, "temperature": 1.5},
    "softmax_focal": {},
    "poly1_cross_entropy": {},
    "generalized_cross_entropy": {},
}


def draw(n, k, dtype, ignored=()):
    """Scores and labels, some of which are to be ignored."""
    rng = np.random.default_rng(1000 * n + k)
    labels = rng.integers(0, k, n)
    labels[list(ignored)] = IGNORED
    return rng.normal(0, 3, (n, k)).astype(dtype), labels


def softmax(z, labels):
    """Loss, gradient and curvature of cross-entropy per row, in float64; zero where the label is none."""
    z = z.astype(np.float64)
    kept = labels >= 0
    label = np.where(kept, labels, 0)
    hot = np.arange(z.shape[1]) == label[:, None]
    shifted = z - z.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    p = e / total
    # Sums of the others: 1 - p would cancel.
    rest = np.stack([np.delete(e, j, axis=1).sum(axis=1) for j in range(z.shape[1])], axis=1) / total
    value = np.log(total[:, 0]) - (shifted * hot).sum(axis=1)
    gradient = np.where(hot, -rest, p)
    return value * kept, gradient * kept[:, None], p * rest * kept[:, None]


def framed(n, k, dtype, first):
    """Rows that begin some elements after a cache line, amid NaN."""
    memory = np.full(n * k + 256, np.nan, dtype)
    start = 64 + -(memory.ctypes.data // memory.itemsize) % (64 // memory.itemsize) + first
    return memory, memory[start : start + n * k].reshape(n, k)


def close(got, expected, dtype, scale=1.0):
    np.testing.assert_allclose(got, expected, rtol=5 * TOLERANCE[dtype], atol=scale * TOLERANCE[dtype])


# Values and derivatives ----------------------------------------------------------------------------------------------


def test_widths_cover_tiles_and_the_first_beyond():
    assert config.DISABLE_JIT or rows.TILED_TO in WIDTHS[:-1]
    assert GROUP == 64


@each_dtype
@each_width
def test_every_width(k, dtype):
    loss = fl.cross_entropy
    for n in ROWS:
        for ignored in ((), (0, n // 2, n - 1)):
            z, labels = draw(n, k, dtype, ignored)
            held = z.tobytes(), labels.tobytes()
            value, gradient, hess = softmax(z, labels)
            np.testing.assert_allclose(reference.cross_entropy(z.astype(np.float64), labels), value, atol=1e-13)
            count = (labels >= 0).sum()
            mean, slope = (value.sum() / count, gradient / count) if count else (0.0, gradient)

            for _ in range(2):  # the second call may take a shorter way
                close(loss(z, labels), mean, dtype)
                got, got_gradient = loss.value_and_grad(z, labels)
                close(got, mean, dtype)
                close(got_gradient, slope, dtype, 1 / max(count, 1))
            close(loss(z, labels, reduction="none"), value, dtype)
            got, got_gradient = loss.value_and_grad(z, labels, reduction="sum")
            close(got, value.sum(), dtype, n)
            close(got_gradient, gradient, dtype)
            got_gradient, got_hess = loss.grad_and_hess(z, labels)
            close(got_gradient, gradient, dtype)
            close(got_hess, hess, dtype)
            for x in (got_gradient, got_hess):
                assert x.dtype == dtype
                assert not x[labels < 0].any()
            assert (z.tobytes(), labels.tobytes()) == held


@each_dtype
@some_widths
@pytest.mark.parametrize("name", VARIANTS)
def test_as_along_rows(monkeypatch, name, k, dtype):
    """Every loss of a softmax with every option, against the loop that takes each row by itself."""
    rng = np.random.default_rng(k)
    z, labels = draw(130, k, dtype, (0, 70, 129))
    classes, weight = rng.random(k), rng.integers(0, 3, 130)
    bound = fl.LOSSES[name].bind(**VARIANTS[name])

    def results(tiled_to):
        monkeypatch.setattr(rows, "TILED_TO", tiled_to)
        loss = pickle.loads(pickle.dumps(bound))
        for options in ({}, {"class_weight": classes}, {"weight": weight}, {"weight": weight, "class_weight": classes}):
            yield np.asarray(loss(z, labels, **options))
            yield loss(z, labels, reduction="none", **options)
            yield loss.value_and_grad(z, labels, reduction="sum", **options)[1]
            yield from loss.grad_and_hess(z, labels, **options)
        yield from loss.details(z, labels)

    for tiled, along in zip(results(40), results(0), strict=True):
        close(tiled, along, dtype, 4.0)


@each_dtype
@each_width
def test_all_rows_ignored(k, dtype):
    for n in ROWS:
        z, labels = draw(n, k, dtype, range(n))
        out = np.full_like(z, np.nan)
        for reduction in ("mean", "sum"):
            value, gradient = fl.cross_entropy.value_and_grad(z, labels, reduction=reduction, out=out)
            assert value == 0.0
            assert not gradient.any()
        assert not fl.cross_entropy(z, labels, reduction="none").any()
        assert not np.any(fl.cross_entropy.grad_and_hess(z, labels))


@each_dtype
@pytest.mark.parametrize("kind", ["uint8", "int32", "uint64", ">i4"])
@pytest.mark.parametrize("k", [2, 5, 33])
def test_types_of_labels(k, kind, dtype):
    z, labels = draw(130, k, dtype)
    expected, expected_gradient = fl.cross_entropy.value_and_grad(z, labels)
    for _ in range(2):
        value, gradient = fl.cross_entropy.value_and_grad(z, labels.astype(kind))
        assert value == expected
        np.testing.assert_array_equal(gradient, expected_gradient)


@pytest.mark.parametrize("k", [2, 5, 33])
def test_ignored_labels_that_are_classes_or_beyond_a_type(k):
    z, labels = draw(130, k, "float32")
    for ignored, kind in ((1, "uint8"), (255, "uint8"), (-1, "int32")):
        given = np.where(np.arange(130) % 3 == 0, ignored, labels).astype(kind)
        value, gradient, _ = softmax(z, np.where(given == ignored, -1, given.astype(int)))
        got = fl.cross_entropy(z, given, ignore_index=ignored, reduction="none")
        close(got, value, "float32")
        slopes = fl.cross_entropy.value_and_grad(z, given, ignore_index=ignored, reduction="sum")[1]
        close(slopes, gradient, "float32")


# Numbers that are none -----------------------------------------------------------------------------------------------


@each_dtype
@some_widths
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_the_row_is_affected(bad, k, dtype):
    """Columns of a tile lie across its rows: nothing may pass between them."""
    n = 130 if not config.DISABLE_JIT else 66
    z, labels = draw(n, k, dtype)
    rows = np.array([0, 5, 63, 64, n - 1])
    spoilt = z.copy()
    spoilt[rows, rows % k] = bad

    def results(z):
        values, gradient = fl.cross_entropy.value_and_grad(z, labels, reduction="none")
        return [values, gradient, *fl.cross_entropy.grad_and_hess(z, labels)]

    for got, clean in zip(results(spoilt), results(z), strict=True):
        np.testing.assert_array_equal(np.delete(got, rows, axis=0), np.delete(clean, rows, axis=0))
        if not bad < 0:
            # The curvature of a label that nothing else is likelier than may still be a number.
            assert np.isnan(got[rows].reshape(len(rows), -1)).any(axis=1).all()
    if bad < 0 and k > 1:
        # A class that cannot be: no share in the loss unless it is the label.
        values, gradient = results(spoilt)[:2]
        own = labels[rows] == rows % k
        assert np.isposinf(values[rows[own]]).all()
        assert np.isfinite(values[rows[~own]]).all()
        assert not gradient[rows[~own], (rows % k)[~own]].any()


@each_dtype
@some_widths
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_ignored_row_does_not_count_whatever_it_holds(bad, k, dtype):
    rows = np.array([0, 5, 63, 64])
    z, labels = draw(66, k, dtype, rows)
    expected = fl.cross_entropy(z, labels)
    z[rows] = bad
    value, gradient = fl.cross_entropy.value_and_grad(z, labels)
    assert value == expected
    assert not gradient[rows].any()
    assert np.isfinite(gradient).all()
    assert not fl.cross_entropy(z, labels, reduction="none")[rows].any()
    for derivative in fl.cross_entropy.grad_and_hess(z, labels):
        assert not derivative[rows].any()
        assert np.isfinite(derivative).all()


@each_dtype
@some_widths
def test_a_row_of_no_weight_does_not_count(k, dtype):
    rows = np.array([0, 5, 63, 64])
    z, labels = draw(66, k, dtype)
    weight = np.ones(66)
    weight[rows] = 0
    z[rows] = np.nan
    value, gradient = fl.cross_entropy.value_and_grad(z, labels, weight=weight)
    kept = np.delete(z, rows, axis=0), np.delete(labels, rows)
    assert value == pytest.approx(fl.cross_entropy(*kept), rel=1e-5)
    assert not gradient[rows].any()


# Where it is written -------------------------------------------------------------------------------------------------


@each_dtype
@each_width
def test_nothing_is_written_beside_the_output(k, dtype):
    """In every alignment, with what is not to be read beside the input too."""
    for n in ROWS:
        z, labels = draw(n, k, dtype, (n // 2,))
        expected = fl.cross_entropy.value_and_grad(z, labels, reduction="sum")[1]
        slopes, bends = fl.cross_entropy.grad_and_hess(z, labels)
        for first in (0, 1, 4):
            source, given = framed(n, k, dtype, first)
            given[...] = z
            (memory, out), (memory1, out1), (memory2, out2) = (framed(n, k, dtype, first) for _ in range(3))
            fl.cross_entropy.value_and_grad(given, labels, reduction="sum", out=out)
            fl.cross_entropy.grad_and_hess(given, labels, out=(out1, out2))
            for got, wanted in ((out, expected), (out1, slopes), (out2, bends)):
                np.testing.assert_array_equal(got, wanted)
            for m in (source, memory, memory1, memory2):
                assert np.isnan(m).sum() == 256


@pytest.mark.jit
@each_dtype
@some_widths
@pytest.mark.parametrize("first", [0, 1, 16])
def test_past_the_caches(monkeypatch, k, dtype, first):
    """The bits are the same whether results pass the caches or not."""
    for n in (64, 65, 1000, (1 << 16) // k + 65):
        z, labels = draw(n, k, dtype, (0, n - 1))
        results = []
        for streamed in (False, True):
            monkeypatch.setattr(rows, "overflows", lambda *_, on=streamed: on)
            (memory, out), (memory1, out1), (memory2, out2) = (framed(n, k, dtype, first) for _ in range(3))
            value = fl.cross_entropy.value_and_grad(z, labels, reduction="sum", out=out)[0]
            fl.cross_entropy.grad_and_hess(z, labels, out=(out1, out2))
            assert all(np.isnan(m).sum() == 256 for m in (memory, memory1, memory2))
            results.append((value, out, out1, out2))
        for got, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.jit
@each_dtype
@some_widths
def test_same_bits_for_any_number_of_threads(k, dtype):
    n = 300_000 // k + 1
    z, labels = draw(n, k, dtype, (0, 5, n - 1))
    held, results = fl.get_num_threads(), []
    try:
        for threads in (1, 2):
            fl.set_num_threads(threads)
            values = fl.cross_entropy(z, labels, reduction="none")
            derivatives = fl.cross_entropy.grad_and_hess(z, labels)
            results.append((*fl.cross_entropy.value_and_grad(z, labels), values, *derivatives))
    finally:
        fl.set_num_threads(held)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


# The transposition by itself -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transpose():
    """Run what lies at an address on two arrays."""
    if config.DISABLE_JIT:
        return cpu.call

    def through(kind):
        one = cpu.array(kind)
        return njit(types.float64(types.intp, one, one))(lambda address, a, b: cpu.call(address, (a, b)))

    drivers = {kind: through(kind) for kind in ("float32", "float64")}
    return lambda address, arrays: drivers[arrays[0].dtype.name](address, *arrays)


@each_dtype
@each_width
@pytest.mark.parametrize("first", [0, 1])
def test_transposition(transpose, k, dtype, first):
    """There and back is what NumPy does, bit for bit, with nothing written beside; the source stays as it is."""
    (to_columns, to_rows), _ = row_helpers(k, dtype, True, "")
    rng = np.random.default_rng(k)
    rows = rng.normal(size=(GROUP, k)).astype(dtype)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    columns = rows.T.copy()
    for address, given, expected in ((to_columns, rows, columns), (to_rows, columns, rows)):
        source, a = framed(GROUP, k, dtype, first)
        target, b = framed(GROUP, k, dtype, first)
        a, b = a.reshape(-1), b.reshape(-1)
        a[:] = given.reshape(-1)
        b[:] = 7.0
        transpose(address, (a, b))
        np.testing.assert_array_equal(a, given.reshape(-1))
        np.testing.assert_array_equal(b, expected.reshape(-1))
        assert np.isnan(target).sum() == 256 + np.isnan(rows).sum()
        assert np.isnan(source).sum() == 256 + np.isnan(rows).sum()
