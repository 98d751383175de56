"""Preferences, policies and survival times: value and gradient of a million, beside NumPy."""

from functools import partial

import numpy as np

import fastloss as fl

from .case import Bench


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

    out = np.empty_like(c), np.empty_like(c)
    return numpy, lambda: fl.dpo.value_and_grad(c, r, rc, rr, out=out)


def ppo_clip(n):
    p, old, advantage = np.random.default_rng(0).normal(-1, 0.3, (3, n)).astype(np.float32)

    def numpy():
        ratio = np.exp(p - old)
        plain, clipped = ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage
        value = -np.minimum(plain, clipped)
        return value.mean(dtype=np.float64), np.where(plain > clipped, np.float32(0), -plain) / n

    out = np.empty_like(p)
    return numpy, lambda: fl.ppo_clip.value_and_grad(p, old, advantage, out=out)


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
    return numpy, lambda: fl.aft.value_and_grad(z, t, upper, distribution="logistic", out=out)


MAKERS = {"dpo": dpo, "ppo_clip": ppo_clip, "aft, logistic": aft}


def contestants(name, n):
    numpy, ours = MAKERS[name](n)
    many = range(max(1, 100_000 // n))
    assert abs(ours()[0] - numpy()[0]) < 1e-5 * abs(numpy()[0])
    return {"fastloss": lambda: [ours() for _ in many], "numpy": lambda: [numpy() for _ in many]}


BENCHES = [
    *(Bench(f"{name}, 1e6", partial(contestants, name, 1_000_000), "numpy", 1.0) for name in MAKERS),
    *(Bench(f"{name}, 100, 1000 times", partial(contestants, name, 100), "numpy", 1.0) for name in MAKERS),
]
