"""Policy losses of language models against torch's autograd of TRL's definitions."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")


def trl(name, p, old, a, ref, beta):
    ratio = torch.exp(p - old)
    kl = torch.exp(ref - p) - (ref - p) - 1
    if name == "grpo":
        loss = -torch.min(ratio * a, torch.clamp(ratio, 1 - 0.2, 1 + 0.28) * a)
    elif name == "cispo":
        loss = -torch.clamp(ratio, max=1.5).detach() * a * p
    else:
        gates = [torch.sigmoid(tau * (ratio - 1)) * 4 / tau for tau in (1.0, 1.05)]
        loss = -torch.where(a > 0, *gates) * a
    return loss + beta * kl


OWN = {"grpo": {"clip_high": 0.28}, "cispo": {"clip_high": 1.5}, "sapo": {}}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_as_trl(name, beta):
    rng = np.random.default_rng(12)
    p, a, ref = (rng.normal(-1, 1, (4, 6)) for _ in range(3))
    old = p + rng.normal(0, 0.4, p.shape)
    mask = (rng.random(p.shape) < 0.7).astype(float)
    x = torch.tensor(p, requires_grad=True)
    tokens = trl(name, x, *map(torch.tensor, (old, a, ref)), beta)
    given = (p, old, a) if beta == 0.0 else (p, old, a, ref)
    np.testing.assert_allclose(
        fl.LOSSES[name](*given, beta=beta, reduction="none", **OWN[name]), tokens.detach(), rtol=1e-11, atol=1e-15
    )
    # The mean of each answer first, TRL's "grpo".
    m = torch.tensor(mask)
    theirs = ((tokens * m).sum(-1) / m.sum(-1).clamp(min=1.0)).mean()
    theirs.backward()
    weight = mask / np.maximum(mask.sum(-1, keepdims=True), 1.0)
    value, grad = fl.LOSSES[name].value_and_grad(*given, beta=beta, weight=weight, divisor=4.0, **OWN[name])
    assert value == pytest.approx(theirs.item(), rel=1e-11)
    np.testing.assert_allclose(grad, x.grad, rtol=1e-9, atol=1e-15)


def test_a_reference_that_is_missing():
    p = np.zeros(3)
    with pytest.raises(TypeError, match=r"grpo: ref_log_prob is missing, and beta is 0\.04; pass ref_log_prob="):
        fl.grpo(p, p, p, beta=0.04)


def test_ratios_without_bound():
    p, old, a = np.array([1000.0, -1000.0]), np.array([0.0, 0.0]), np.array([1.0, -1.0])
    value, grad = fl.sapo.value_and_grad(p, old, a, reduction="sum")
    assert np.isfinite(value)
    np.testing.assert_array_equal(grad, [0.0, 0.0])
    assert fl.cispo(p, old, a, reduction="none")[0] == -5000.0
