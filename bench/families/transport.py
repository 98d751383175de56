"""Losses of transport beside NumPy, SciPy, torch and POT where they are installed."""

import numpy as np

import fastloss as fl
from fastloss import reference

from .case import Bench, in_torch


def _numpy_histograms(a, b):
    """Value and gradient of the distance of histograms over bins one apart."""
    p, t = a / a.sum(axis=1, keepdims=True), b / b.sum(axis=1, keepdims=True)
    d = np.cumsum(p - t, axis=1)[:, :-1]
    slope = np.zeros_like(a)
    slope[:, :-1] = np.cumsum(np.sign(d)[:, ::-1], axis=1)[:, ::-1]
    slope -= (slope * p).sum(axis=1, keepdims=True)
    return float(np.abs(d).sum(axis=1).mean()), slope / a.sum(axis=1, keepdims=True) / len(a)


def histograms(rows=100_000, k=256, p=1.0):
    rng = np.random.default_rng(0)
    a, b = rng.random((rows, k), np.float32), rng.random((rows, k), np.float32)
    out, other = np.empty_like(a), np.empty_like(a)
    cases = {"fastloss": lambda: fl.wasserstein_1d.value_and_grad(a, b, p=p, out=out)}
    if p == 1.0:
        cases["numpy"] = lambda: _numpy_histograms(a, b)
    # As many bytes as the loss reads and writes: two arrays in, one out.
    return cases | {"copy of 1.5 arrays": lambda: (np.copyto(other, a), np.copyto(other[: rows // 2], b[: rows // 2]))}


def few_histograms():
    return {k: v for k, v in histograms(8, 10).items() if k != "copy of 1.5 arrays"}


def _two(n):
    rng = np.random.default_rng(0)
    return rng.normal(size=n), rng.normal(0.5, 2.0, size=n)


def samples(n=1_000_000):
    x, y = _two(n)
    return {
        "fastloss": lambda: fl.wasserstein_samples(x, y),
        "two sorts": lambda: (np.sort(x), np.sort(y)),
    }


def samples_with_gradient(n=1_000_000):
    x, y = _two(n)
    return {
        "fastloss": lambda: fl.wasserstein_samples.value_and_grad(x, y),
        "two sorts": lambda: (np.sort(x), np.sort(y)),
        "two argsorts": lambda: (np.argsort(x), np.argsort(y)),
    }


def few_samples():
    x, y = _two(40)
    cases = {"fastloss": lambda: fl.wasserstein_samples(x, y), "numpy": lambda: reference.wasserstein_samples(x, y)}
    try:
        from scipy.stats import wasserstein_distance
    except ImportError:
        return cases
    return cases | {"scipy": lambda: wasserstein_distance(x, y)}


def energy(n=1_000_000):
    x, y = _two(n)
    cases = {"fastloss": lambda: fl.energy_distance(x, y), "two sorts": lambda: (np.sort(x), np.sort(y))}
    try:
        from scipy.stats import energy_distance
    except ImportError:
        return cases
    return cases | {"scipy": lambda: energy_distance(x, y)}


def clouds(n, d):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)).astype(np.float32), rng.normal(0.3, 1.0, size=(n, d)).astype(np.float32)


def sliced():
    x, y = clouds(5000, 16)
    cases = {"fastloss": lambda: fl.sliced_wasserstein(x, y)}
    u = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)

    def numpy():
        a, b = np.sort(u @ x.T, axis=1), np.sort(u @ y.T, axis=1)
        return float(np.sqrt(((a - b) ** 2).mean()))

    return cases | {"numpy": numpy}


def mmd():
    x, y = clouds(2000, 16)
    cases = {"fastloss": lambda: fl.mmd.value_and_grad(x, y), "numpy, value": lambda: _numpy_mmd(x, y)}

    def value(torch, a, b):
        n = len(a)
        k = [torch.exp(torch.cdist(u, v).square() / -2) for u, v in ((a, a), (b, b), (a, b))]
        return (k[0].sum() + k[1].sum() - 2 * n) / (n * (n - 1)) - 2 * k[2].mean()

    return cases | in_torch(value, (x, y))


def _numpy_mmd(x, y):
    def kernel(u, v):
        return np.exp(-np.maximum((u * u).sum(1)[:, None] + (v * v).sum(1) - 2 * u @ v.T, 0) / 2)

    n = len(x)
    return float((kernel(x, x).sum() + kernel(y, y).sum() - 2 * n) / (n * (n - 1)) - 2 * kernel(x, y).mean())


def sinkhorn(n=500, epsilon=0.01):
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 2)), rng.random((n, 2))
    cost = ((x[:, None] - y) ** 2).sum(axis=2)
    a = np.full(n, 1 / n)
    # The same number of iterations for both.
    options = {"epsilon": epsilon, "tolerance": 1e-300, "max_iterations": 30}

    def ours():
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            fl.sinkhorn(a, a, cost, **options)

    def numpy():
        f, g, shift = np.zeros(n), np.zeros(n), np.log(a)
        for _ in range(30):
            for axis in (1, 0):
                z = ((g if axis else f[:, None]) - cost) / epsilon + (shift if axis else shift[:, None])
                top = z.max(axis=axis, keepdims=True)
                soft = -epsilon * (np.log(np.exp(z - top).sum(axis=axis)) + top.squeeze(axis))
                f, g = (soft, g) if axis else (f, soft)
        return f, g

    return {"fastloss": ours, "numpy": numpy}


BENCHES = [
    Bench("wasserstein_1d, 1e5 x 256", histograms, "numpy", 0.25),
    Bench("wasserstein_1d, p=2, 1e5 x 256", lambda: histograms(p=2.0)),
    Bench("wasserstein_1d, 8 x 10", few_histograms, "numpy", 1.0),
    Bench("wasserstein_samples, 1e6", samples, "two sorts", 1.5),
    Bench("wasserstein_samples with gradient, 1e6", samples_with_gradient),
    Bench("wasserstein_samples, 40", few_samples, "numpy", 1.0),
    Bench("energy_distance, 1e6", energy),
    Bench("sliced_wasserstein, 5000 x 16", sliced),
    Bench("mmd with gradient, 2000 x 16", mmd, "numpy, value", 1.0),
    Bench("sinkhorn, 500 x 500, 30 iterations", sinkhorn, "numpy", 0.5),
    Bench("sinkhorn, 10 x 10, 30 iterations", lambda: sinkhorn(10, 0.1), "numpy", 1.0),
]
