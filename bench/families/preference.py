"""Preferences, policies and survival times: value and gradient of a million, beside NumPy."""

from functools import partial

import numpy as np

import fastloss as fl

from .case import Bench, in_torch


def softplus_parts(h):
    """log(1 + exp(-h)) and sigmoid(-h), from one exponential."""
    e = np.exp(-np.abs(h))
    return np.maximum(-h, 0) + np.log1p(e), np.where(h >= 0, e, 1) / (1 + e)


def dpo(n):
    c, r, rc, rr = np.random.default_rng(0).normal(-50, 10, (4, n)).astype(np.float32)

    def numpy():
        value, slope = softplus_parts(np.float32(0.1) * ((c - rc) - (r - rr)))
        slope *= np.float32(-0.1 / n)
        return value.mean(dtype=np.float64), slope, -slope

    def torch_value(torch, chosen, rejected, ref_chosen, ref_rejected):
        margin = (chosen - ref_chosen) - (rejected - ref_rejected)
        return -torch.nn.functional.logsigmoid(0.1 * margin).mean()

    out = np.empty_like(c), np.empty_like(c)
    ours = {"fastloss": lambda: fl.dpo.value_and_grad(c, r, rc, rr, out=out), "numpy": numpy}
    return ours | in_torch(torch_value, (c, r), (rc, rr))


def ppo_clip(n):
    p, old, advantage = np.random.default_rng(0).normal(-1, 0.3, (3, n)).astype(np.float32)

    def numpy():
        ratio = np.exp(p - old)
        plain, clipped = ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage
        value = -np.minimum(plain, clipped)
        return value.mean(dtype=np.float64), np.where(plain > clipped, np.float32(0), -plain) / n

    def torch_value(torch, log_prob, before, gain):
        ratio = (log_prob - before).exp()
        return -torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()

    out = np.empty_like(p)
    ours = {"fastloss": lambda: fl.ppo_clip.value_and_grad(p, old, advantage, out=out), "numpy": numpy}
    return ours | in_torch(torch_value, (p,), (old, advantage))


def aft(n):
    rng = np.random.default_rng(0)
    z, t = rng.normal(1, 1, n), rng.gamma(2.0, 2.0, n)
    upper = np.where(rng.random(n) < 0.5, t, np.inf)

    def numpy():
        a = np.log(t) - z
        plus, over = softplus_parts(-a)
        seen = upper == t
        value = np.where(seen, plus + softplus_parts(a)[0] + np.log(t), plus)
        return value.mean(), np.where(seen, -np.tanh(0.5 * a), over - 1) / n

    out = np.empty_like(z)
    ours = partial(fl.aft.value_and_grad, z, t, upper, distribution="logistic", out=out)
    return {"fastloss": ours, "numpy": numpy}


MAKERS = {"dpo": dpo, "ppo_clip": ppo_clip, "aft, logistic": aft}


def contestants(name, n):
    called = MAKERS[name](n)
    value = called["fastloss"]()[0]
    assert all(abs(value - call()[0]) < 1e-5 * abs(value) for call in called.values())
    many = range(max(1, 100_000 // n))
    return {who: lambda call=call: [call() for _ in many] for who, call in called.items()}


BENCHES = [
    *(Bench(f"{name}, 1e6", partial(contestants, name, 1_000_000), "numpy", 1.0) for name in MAKERS),
    *(Bench(f"{name}, 100, 1000 times", partial(contestants, name, 100), "numpy", 1.0) for name in MAKERS),
]
