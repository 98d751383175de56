"""Losses of pairs by TRL's names: value and gradients against torch's autograd of TRL's definitions."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
F = torch.nn.functional
log = F.logsigmoid
BETA, CENTER = 0.2, 0.3


def sorted_(x):
    return torch.sort(x, dim=0).values


def smoothed(h, e):
    return -log(h) * (1 - e) - log(-h) * e


def trl(variant, c, r, rc, rr, e):
    a, b = c - rc, r - rr
    h = BETA * (a - b)
    soft = e or 1e-3
    tilt = torch.sigmoid(h / 0.05)
    forms = {
        "sigmoid": lambda: smoothed(h, e),
        "hinge": lambda: torch.relu(1 - h),
        "robust": lambda: (-log(h) * (1 - e) + log(-h) * e) / (1 - 2 * e),
        "exo_pair": lambda: (
            torch.sigmoid(h) * (log(h) - np.log(1 - soft)) + torch.sigmoid(-h) * (log(-h) - np.log(soft))
        ),
        "nca_pair": lambda: -log(BETA * a) - 0.5 * log(-BETA * a) - 0.5 * log(-BETA * b),
        "bco_pair": lambda: -log(BETA * a - CENTER) - log(-(BETA * b - CENTER)),
        "sppo_hard": lambda: (a - 0.5 / BETA) ** 2 + (b + 0.5 / BETA) ** 2,
        "apo_zero": lambda: 1 - torch.sigmoid(BETA * a) + torch.sigmoid(BETA * b),
        "apo_down": lambda: torch.sigmoid(BETA * a) + 1 - torch.sigmoid(BETA * (a - b)),
        "discopop": lambda: -log(h) * (1 - tilt) + torch.exp(-h) * tilt,
        "aot": lambda: smoothed(BETA * (sorted_(c - r) - sorted_(rc - rr)), e),
        "aot_pair": lambda: smoothed(BETA * (sorted_(a) - sorted_(b)), e),
    }
    return forms[variant]()


@pytest.mark.parametrize("variant", fl.dpo.record.parameters["variant"].choices)
def test_as_trl(variant):
    rng = np.random.default_rng(7)
    arrays = [rng.normal(-20, 6, 24) for _ in range(4)]
    for e in (0.0, 0.1):
        x = [torch.tensor(a, requires_grad=True) for a in arrays]
        theirs = trl(variant, *x, e)
        theirs.mean().backward()
        how = {"beta": BETA, "label_smoothing": e, "variant": variant, "center": CENTER}
        for _ in range(2):
            value, grads = fl.dpo.value_and_grad(*arrays, **how)
            assert value == pytest.approx(theirs.mean().item(), rel=1e-12)
            for got, expected in zip(grads, x, strict=False):
                np.testing.assert_allclose(got, expected.grad, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(fl.dpo(*arrays, reduction="none", **how), theirs.detach(), rtol=1e-12)


def test_far_margins_stay_finite():
    """TRL's discopop is 0 times infinity in float32 where the margin is below -88."""
    far = np.array([-900.0, -100.0, 0.0, 100.0, 900.0], np.float32)
    zero = np.zeros(5, np.float32)
    for variant in ("discopop", "exo_pair", "nca_pair", "robust"):
        given = {"beta": 1.0, "variant": variant, "reduction": "none"}
        value = fl.dpo(far, zero, zero, zero, **given)
        assert np.isfinite(value).all(), variant
        grads = fl.dpo.value_and_grad(far, zero, zero, zero, **given | {"reduction": "sum"})[1]
        assert all(np.isfinite(g).all() for g in grads), variant
    np.testing.assert_allclose(fl.dpo(far, zero, zero, zero, beta=1.0, variant="discopop", reduction="none")[0], 900.0)


def test_ranks_elsewhere():
    rng = np.random.default_rng(8)
    arrays = [rng.normal(-20, 6, 24) for _ in range(4)]
    x = [torch.tensor(a, requires_grad=i < 2) for i, a in enumerate(arrays)]
    fl.torch.dpo(*x, variant="aot").backward()
    grads = fl.dpo.value_and_grad(*arrays, variant="aot")[1]
    np.testing.assert_allclose(x[0].grad, grads[0], rtol=1e-12)
    out = tuple(np.empty(24, np.float32) for _ in range(2))
    single = [a.astype(np.float32) for a in arrays]
    found = fl.dpo.value_and_grad(*single, variant="aot", out=out)[1]
    assert found[0] is out[0]
    np.testing.assert_allclose(out[1], grads[1], rtol=1e-4)
