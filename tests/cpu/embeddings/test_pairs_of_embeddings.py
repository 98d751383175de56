"""Losses of pairs and triplets of embeddings: torch, mpmath at the extremes, vectors of length 0."""

import mpmath
import numpy as np
import pytest
from array_cases import inputs

import fastloss as fl

mp = mpmath.mp.clone()
mp.dps = 40

rng = np.random.default_rng(5)


def torch_grads(function, arrays):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    leaves = [torch.from_numpy(a).requires_grad_() for a in arrays]
    value = function(torch.nn.functional, *leaves)
    value.backward()
    return value.item(), [leaf.grad.numpy() for leaf in leaves]


def agrees(loss, given, expected, rtol=1e-9, **parameters):
    value, grads = loss.value_and_grad(**given, **parameters)
    np.testing.assert_allclose(value, expected[0], rtol=rtol)
    for a, b in zip(grads, expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("parameters", [{}, {"swap": True, "margin": 0.5}, {"p": 1.0}, {"p": 3.0, "swap": True}])
def test_triplet_of_torch(parameters):
    given = inputs("triplet")
    # Torch adds its epsilon to every difference; at 1e-30 it changes nothing.
    expected = torch_grads(
        lambda f, *x: f.triplet_margin_loss(*x, eps=1e-30, **{"margin": 1.0, **parameters}), list(given.values())
    )
    agrees(fl.triplet, given, expected, **parameters)


@pytest.mark.parametrize("margin", [0.0, 0.3, -0.5])
def test_cosine_embedding_of_torch(margin):
    given = inputs("cosine_embedding")
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    t = torch.from_numpy(given["t"])
    expected = torch_grads(lambda f, a, b: f.cosine_embedding_loss(a, b, t, margin=margin), [given["x1"], given["x2"]])
    # Torch adds 1e-12 under its square roots.
    agrees(fl.cosine_embedding, given, expected, rtol=1e-11, margin=margin)


def test_gradient_penalty_of_torch():
    given = inputs("gradient_penalty")["gradients"]
    value, (grad,) = torch_grads(lambda f, g: (10 * (g.flatten(1).norm(dim=1) - 1) ** 2).mean(), [given])
    ours, slope = fl.gradient_penalty.value_and_grad(given)
    np.testing.assert_allclose(ours, value, rtol=1e-13)
    np.testing.assert_allclose(slope, grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", [{}, {"squared": True}, {"p": 1.0}, {"p": 3.0}, {"swap": True}])
def test_the_gradient_at_distance_zero_is_zero(dtype, parameters):
    x = rng.normal(size=(3, 5)).astype(dtype)
    value, grads = fl.triplet.value_and_grad(x, x, x, **parameters)
    assert value == 1.0
    assert not any(g.any() for g in grads)
    value, grads = fl.triplet.value_and_grad(x, x, x + dtype(0.25), margin=3.0, **parameters)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in grads)
    assert not np.any(grads[1]) or parameters.get("swap")
    np.testing.assert_array_equal(grads[0] + grads[1], -grads[2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_embeddings_and_zero_vectors_are_finite(dtype):
    x, zero = rng.normal(size=(2, 4)).astype(dtype), np.zeros((2, 4), dtype)
    for same, expected in ((1, 0.0), (0, 1.0)):
        value, grads = fl.contrastive.value_and_grad(x, x, np.full(2, same))
        assert value == expected
        assert not any(g.any() for g in grads)
    for pair in ((zero, x), (x, zero), (zero, zero)):
        value, grads = fl.cosine_distance.value_and_grad(*pair)
        assert value == 1.0
        assert not any(g.any() for g in grads)
        value, grads = fl.cosine_embedding.value_and_grad(*pair, np.array([1, -1]), reduction="sum")
        assert value == 1.0
        assert not any(g.any() for g in grads)
    value, grad = fl.gradient_penalty.value_and_grad(zero)
    assert value == 10.0
    assert not grad.any()


def exact_norm(v):
    return mp.sqrt(mp.fsum(mp.mpf(float(e)) ** 2 for e in v))


SIZES = {np.float32: (1e-44, 1e-30, 1.0, 1e18, 1e37), np.float64: (1e-320, 1e-200, 1.0, 1e152, 1e300)}


@pytest.mark.jit
@pytest.mark.parametrize(("dtype", "size"), [(t, s) for t, sizes in SIZES.items() for s in sizes])
def test_huge_and_tiny_vectors_lose_nothing(dtype, size):
    # Draws of its own: of those shared with other tests, the order of all tests decides which elements nearly cancel.
    rng = np.random.default_rng(7)
    eps = np.finfo(dtype).eps
    a, p, n = ((rng.normal(size=(1, 9)) * size).astype(dtype) for _ in range(3))
    near, far = exact_norm((a - p)[0].astype(float)), exact_norm((a - n)[0].astype(float))
    if dtype == np.float32:
        near, far = (exact_norm(a[0].astype(float) - b[0].astype(float)) for b in (p, n))
    value, grads = fl.triplet.value_and_grad(a, p, n, margin=float(2 * far))
    np.testing.assert_allclose(value, float(near - far + 2 * far), rtol=8 * 2.3e-16, atol=1e-323)
    for grad, other, distance in ((grads[1], p, near), (grads[2], n, -far)):
        exact = [(mp.mpf(float(y)) - mp.mpf(float(x))) / distance for x, y in zip(a[0], other[0], strict=True)]
        np.testing.assert_allclose(grad[0], np.array(exact, float), rtol=8 * eps, atol=eps / 4)
    dot = mp.fsum(mp.mpf(float(x)) * mp.mpf(float(y)) for x, y in zip(a[0], p[0], strict=True))
    cosine = dot / exact_norm(a[0]) / exact_norm(p[0])
    value, (grad, _) = fl.cosine_distance.value_and_grad(a, p)
    np.testing.assert_allclose(value, float(1 - cosine), rtol=16 * 2.3e-16)
    exact = [
        (cosine * mp.mpf(float(x)) / exact_norm(a[0]) - mp.mpf(float(y)) / exact_norm(p[0])) / exact_norm(a[0])
        for x, y in zip(a[0], p[0], strict=True)
    ]
    with np.errstate(over="ignore"):
        exact = np.array([float(e) for e in exact]).astype(dtype)
    np.testing.assert_allclose(grad[0], exact, rtol=8 * eps, atol=float(eps / exact_norm(a[0])) if size > 1e-38 else 0)
    # The norm alone, which may fill the range.
    value, grad = fl.gradient_penalty.value_and_grad(a, lam=1.0, center=float(exact_norm(a[0])))
    assert np.sqrt(value) <= 4e-16 * float(exact_norm(a[0]))
    assert np.isfinite(grad).all()


@pytest.mark.jit
def test_differences_beyond_the_range_are_scaled():
    a, b = np.full((1, 2), 1e308), np.full((1, 2), -0.2e308)
    value, (grad, _) = fl.triplet.value_and_grad(a, b, a, margin=0.0)[0], fl.triplet.value_and_grad(a, b, a)[1][:2]
    np.testing.assert_allclose(value, 1.2e308 * 2**0.5, rtol=1e-15)
    np.testing.assert_allclose(grad, np.sqrt(0.5), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_triplet_whose_squares_overflow_is_no_nan(dtype):
    size = dtype(1e30 if dtype == np.float32 else 1e160)
    a, p = np.zeros((3, 2), dtype), np.array([[0, 1], [3, 0], [0, 1]], dtype) * size
    n = np.array([[2, 0], [0, 1], [1, 0]], dtype) * size
    values, grads = fl.triplet.value_and_grad(a, p, n, margin=0.5, squared=True, reduction="none")
    assert values.tolist() == [0.0, np.inf, 0.5]
    slopes = np.array([[0], [2], [2]], dtype)
    for grad, expected in zip(grads, (slopes * (n - p), slopes * p, slopes * -n), strict=True):
        np.testing.assert_allclose(grad, expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("angle", [1e-3, 1e-6])
def test_the_cosine_of_nearly_parallel_vectors_does_not_cancel(angle):
    u = rng.normal(size=64)
    v = rng.normal(size=64)
    v -= (v @ u) / (u @ u) * u
    other = 3.7 * (u + angle * v / np.linalg.norm(v) * np.linalg.norm(u))
    dot = mp.fsum(mp.mpf(x) * mp.mpf(y) for x, y in zip(u, other, strict=True))
    exact = 1 - dot / exact_norm(u) / exact_norm(other)
    value = fl.cosine_distance(u[None], other[None])
    # 1 - cos would be wrong by 1e-16 / value: 2e-10 and 2e-4; rounded unit vectors, by 1e-16 / angle.
    np.testing.assert_allclose(value, float(exact), rtol=4e-16 / angle)


def test_nan_comes_through_and_infinity_costs_nothing_where_it_should():
    a, p, n = (rng.normal(size=(2, 3)) for _ in range(3))
    n[0, 0] = np.inf
    value, grads = fl.triplet.value_and_grad(a, p, n, reduction="none", margin=0.0)
    assert value[0] == 0.0
    assert not any(g[0].any() for g in grads)
    x = np.array([[np.inf, 0.0]])
    assert fl.contrastive(x, np.zeros((1, 2)), np.zeros(1)) == 0.0
    assert fl.contrastive(x, np.zeros((1, 2)), np.ones(1)) == np.inf
    p[1, 1] = np.nan
    for loss, arrays in (
        (fl.triplet, (a, p, n)),
        (fl.contrastive, (a, p, np.array([1, 0]))),
        (fl.cosine_distance, (a, p)),
        (fl.cosine_embedding, (a, p, np.array([1, -1]))),
        (fl.gradient_penalty, (p,)),
    ):
        values, grads = loss.value_and_grad(*arrays, reduction="none")
        assert np.isnan(values[1]), loss.name
        first = grads[0] if isinstance(grads, tuple) else grads
        assert np.isnan(first[1]).all(), loss.name
        assert np.isfinite(first[0]).all(), loss.name


def test_labels_of_pairs_are_checked():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"cosine_embedding: t.*0.*allowed: \{-1, \+1\}"):
        fl.cosine_embedding(x, x, np.array([1, 0]))
    with pytest.raises(ValueError, match=r"contrastive: same.*2.*allowed: \[0, 1\]"):
        fl.contrastive(x, x, np.array([1, 2]))
    with pytest.raises(ValueError, match=r"triplet: p is inf; allowed: \[1, inf\)"):
        fl.triplet(x, x, x, p=np.inf)
    assert fl.contrastive(x, x + 2, np.array([True, False]), reduction="sum") == pytest.approx(12.0, rel=1e-15)


def test_squared_triplets_are_those_of_facenet():
    given = inputs("triplet")
    a, p, n = given.values()
    expected = np.maximum(((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1) + 0.2, 0)
    np.testing.assert_allclose(fl.triplet(a, p, n, squared=True, margin=0.2, reduction="none"), expected, rtol=1e-13)
