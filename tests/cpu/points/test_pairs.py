"""Losses of pairs, of distances and of adversarial training against torch, papers and each other."""

import numpy as np
import pytest

import fastloss as fl


@pytest.fixture
def rng():
    return np.random.default_rng(50)


def gradients(torch, f, *arrays):
    xs = [torch.tensor(a, requires_grad=True) for a in arrays]
    loss = f(*xs)
    loss.sum().backward()
    return loss.detach().numpy(), [x.grad.numpy() for x in xs]


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_margin_ranking_against_torch(margin, rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    a, b, t = rng.normal(size=60), rng.normal(size=60), rng.choice([-1.0, 1.0], 60)
    a[:10] = b[:10] + margin * t[:10]
    a[:10] = np.where(t[:10] * (a[:10] - b[:10]) == margin, a[:10], b[:10])
    f = torch.nn.functional.margin_ranking_loss
    value, grads = gradients(torch, lambda x, y: f(x, y, torch.tensor(t), margin, reduction="none"), a, b)
    got, found = fl.margin_ranking.value_and_grad((a, b), t, margin=margin, reduction="none")
    np.testing.assert_allclose(got, value, rtol=1e-14)
    for x, y in zip(found, grads, strict=True):
        np.testing.assert_array_equal(x, y)
    assert fl.margin_ranking(a, t, x2=b, margin=margin) == pytest.approx(value.mean(), rel=1e-14)


def test_hinge_embedding_against_torch(rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    x, t = rng.gamma(1.0, size=60), rng.choice([-1.0, 1.0], 60)
    x[:3] = 0.7
    f = torch.nn.functional.hinge_embedding_loss
    value, (grad,) = gradients(torch, lambda z: f(z, torch.tensor(t), 0.7, reduction="none"), x)
    got, found = fl.hinge_embedding.value_and_grad(x, t, margin=0.7, reduction="none")
    np.testing.assert_allclose(got, value, rtol=1e-14)
    np.testing.assert_array_equal(found, grad)


def test_triplet_distance_against_torch(rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    a, p, n = (rng.normal(size=(40, 5)) for _ in range(3))
    dp, dn = (np.linalg.norm(a - x + 1e-6, axis=1) for x in (p, n))
    theirs = torch.nn.functional.triplet_margin_loss(*map(torch.tensor, (a, p, n)), margin=0.8, reduction="none")
    np.testing.assert_allclose(fl.triplet_distance((dp, dn), margin=0.8, reduction="none"), theirs, rtol=1e-12)
    grads = fl.triplet_distance.value_and_grad((dp, dn), margin=0.8, reduction="sum")[1]
    np.testing.assert_array_equal(grads[0], theirs.numpy() > 0)
    np.testing.assert_array_equal(grads[1], -grads[0])
    with pytest.raises(TypeError, match="triplet_distance is a penalty on its arguments alone and takes no target"):
        fl.triplet_distance((dp, dn), dn)


def test_contrastive_distance_is_twice_that_of_the_paper(rng):
    d = rng.gamma(1.0, size=50)
    for same in (0.0, 1.0):
        # Equation 4 of Hadsell et al., whose label is 0 for pairs that belong together.
        y = 1 - same
        paper = (1 - y) * 0.5 * d**2 + y * 0.5 * np.maximum(0, 0.9 - d) ** 2
        np.testing.assert_allclose(
            fl.contrastive_distance(d, same, margin=0.9, reduction="none"), 2 * paper, rtol=1e-14
        )


def test_a_critic_and_its_generator(rng):
    real, fake = rng.normal(size=30), rng.normal(size=30)
    critic = fl.wasserstein_critic(real, 1.0) + fl.wasserstein_critic(fake, 0.0)
    assert critic == pytest.approx(fake.mean() - real.mean(), rel=1e-13)
    assert fl.wasserstein_generator(fake) == pytest.approx(-fake.mean(), rel=1e-14)
    assert fl.gan_hinge(fake, 1.0, generator=True) == pytest.approx(-fake.mean(), rel=1e-14)


def test_adversarial_losses_against_torch(rng):
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    own = torch.nn.functional
    z, t = rng.normal(0, 2, 60), rng.choice([0.0, 1.0], 60)
    smooth = np.where(t == 1.0, 0.9, 0.0)
    cases = [
        (fl.gan_bce.bind(label_smoothing=0.1), lambda x: own.binary_cross_entropy_with_logits(x, torch.tensor(smooth))),
        (fl.gan_hinge, lambda x: torch.where(torch.tensor(t) == 1.0, own.relu(1 - x), own.relu(1 + x)).mean()),
        (fl.lsgan, lambda x: own.mse_loss(x, torch.tensor(t)) / 2),
        (fl.wasserstein_critic, lambda x: torch.where(torch.tensor(t) == 1.0, -x, x).mean()),
    ]
    for loss, f in cases:
        value, (grad,) = gradients(torch, f, z)
        got, found = loss.value_and_grad(z, t)
        assert got == pytest.approx(float(value), rel=1e-13), loss
        np.testing.assert_allclose(found, grad, rtol=1e-13, atol=1e-17)


def test_gradient_penalty(rng):
    norms = np.append(rng.gamma(2.0, size=40), [0.0, 1.0])
    np.testing.assert_allclose(fl.gradient_norm_penalty(norms), 10 * ((norms - 1) ** 2).mean(), rtol=1e-14)
    value, grad = fl.gradient_norm_penalty.value_and_grad(norms, one_sided=True, lam=2.0, reduction="sum")
    assert value == pytest.approx(2 * (np.maximum(norms - 1, 0) ** 2).sum(), rel=1e-14)
    assert not grad[norms <= 1].any()
    with pytest.raises(ValueError, match=r"gradient_norm_penalty: prediction\[1\] is -1; allowed: \[0, inf\)"):
        fl.gradient_norm_penalty(np.array([1.0, -1.0]))


def test_hinges_agree(rng):
    z, t = rng.normal(0, 2, 50), rng.choice([0.0, 1.0], 50)
    z[:2] = t[:2] * 2 - 1
    ours, theirs = fl.gan_hinge.value_and_grad(z, t), fl.hinge.value_and_grad(z, 2 * t - 1)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-14)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-14)
