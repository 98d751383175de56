"""Triplets by their cosines, against torch's triplet loss with a distance of one's own."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
F = torch.nn.functional


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_as_torch(swap, dtype):
    rng = np.random.default_rng(14)
    arrays = [rng.normal(size=(20, 5)).astype(dtype) for _ in range(3)]
    x = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    theirs = F.triplet_margin_with_distance_loss(
        *x, distance_function=lambda a, b: 1 - F.cosine_similarity(a, b), margin=0.4, swap=swap
    )
    theirs.backward()
    value, grads = fl.triplet.value_and_grad(*arrays, distance="cosine", margin=0.4, swap=swap)
    tolerance = 1e-10 if dtype is np.float64 else 2e-6
    assert value == pytest.approx(theirs.item(), rel=tolerance)
    for g, a in zip(grads, x, strict=True):
        assert g.dtype == dtype
        np.testing.assert_allclose(g, a.grad, rtol=tolerance, atol=tolerance)


def test_a_vector_of_zeros_and_errors():
    a, zero = np.ones((1, 3)), np.zeros((1, 3))
    value, grads = fl.triplet.value_and_grad(a, zero, a, distance="cosine", margin=0.0)
    assert value == pytest.approx(1.0, rel=1e-15)
    assert not grads[1].any()
    with pytest.raises(ValueError, match="triplet: squared is True, which goes not together with distance='cosine'"):
        fl.triplet(a, a, a, squared=True, distance="cosine")
