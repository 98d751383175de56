"""Transport losses in plain NumPy."""

import numpy as np

__all__ = [
    "cramer",
    "energy_distance",
    "mmd",
    "sinkhorn",
    "sinkhorn_points",
    "sliced_wasserstein",
    "wasserstein_1d",
    "wasserstein_samples",
]


def _coupling(x, y, a, b, p):
    """Return the integral of |Q_x - Q_y|^p over masses from 0 to 1, for two lists of positions with masses."""
    i, j = np.argsort(x, kind="stable"), np.argsort(y, kind="stable")
    f, g = np.cumsum(a[i]) / a.sum(), np.cumsum(b[j]) / b.sum()
    levels = np.concatenate([[0.0], np.sort(np.concatenate([f, g]))])
    middle = (levels[1:] + levels[:-1]) / 2
    q = x[i][np.minimum(np.searchsorted(f, middle), len(x) - 1)]
    r = y[j][np.minimum(np.searchsorted(g, middle), len(y) - 1)]
    return (np.diff(levels) * np.abs(q - r) ** p).sum()


def _by_row(function, x, y, x_weight, y_weight):
    a = np.ones_like(x) if x_weight is None else x_weight
    b = np.ones_like(y) if y_weight is None else y_weight
    rows = [v.reshape(-1, v.shape[-1]) for v in (x, y, a, b)]
    return np.array([function(*row) for row in zip(*rows, strict=True)]).reshape(x.shape[:-1])


def wasserstein_1d(prediction, target, positions=None, p=1.0):
    """Wasserstein distance of histograms, to the power p."""
    u = np.arange(prediction.shape[-1], dtype=np.float64) if positions is None else positions
    if p == 1.0:
        q, t = (h / h.sum(-1, keepdims=True) for h in (prediction, target))
        return (np.abs(np.cumsum(q - t, -1))[..., :-1] * np.diff(u)).sum(-1)
    return _by_row(lambda a, b, *_: _coupling(u, u, a, b, p), prediction, target, None, None)


def wasserstein_samples(x, y, x_weight=None, y_weight=None, p=1.0):
    """Wasserstein distance of samples, to the power p."""
    return _by_row(lambda *row: _coupling(*row, p), x, y, x_weight, y_weight)


def _energy(x, y, a, b):
    a, b = a / a.sum(), b / b.sum()

    def mean(u, v, s, t):
        return s @ np.abs(u[:, None] - v) @ t

    return np.sqrt(2 * mean(x, y, a, b) - mean(x, x, a, a) - mean(y, y, b, b))


def energy_distance(x, y, x_weight=None, y_weight=None):
    """Energy distance."""
    return _by_row(_energy, x, y, x_weight, y_weight)


def cramer(x, y, x_weight=None, y_weight=None):
    """Cramer distance."""
    return energy_distance(x, y, x_weight, y_weight) / np.sqrt(2)


def sliced_wasserstein(x, y, projections=None, n_projections=50, seed=0, p=2.0):
    """Sliced Wasserstein distance."""
    u = np.random.default_rng(seed).standard_normal((n_projections, x.shape[1]))
    u /= np.sqrt((u * u).sum(axis=1, keepdims=True))
    u = u if projections is None else projections
    return wasserstein_samples(u @ x.T, u @ y.T, p=p).mean() ** (1 / p)


def sinkhorn(a, b, cost, epsilon=0.1, tolerance=0.0, max_iterations=100000):
    """Entropic optimal transport: iterated until the potentials stay."""
    a, b = a / a.sum(), b / b.sum()
    f, g = np.zeros_like(a), np.zeros_like(b)
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a)[:, None], np.log(b)
    for _ in range(max_iterations):
        before = f
        f = -epsilon * np.logaddexp.reduce((g - cost) / epsilon + log_b, axis=1)
        g = -epsilon * np.logaddexp.reduce((f[:, None] - cost) / epsilon + log_a, axis=0)
        if np.abs(f - before).max() < 1e-14 * max(1.0, np.abs(f).max()):
            break
    return np.array(f @ a + g @ b)


def sinkhorn_points(
    x, y, x_weight=None, y_weight=None, epsilon=0.1, tolerance=0.0, max_iterations=100000, debias=False
):
    """Entropic optimal transport of points under squared distances."""
    a = np.ones(len(x)) if x_weight is None else x_weight
    b = np.ones(len(y)) if y_weight is None else y_weight

    def between(u, v, s, t):
        return sinkhorn(s, t, ((u[:, None] - v) ** 2).sum(axis=-1), epsilon)

    own = (between(x, x, a, a) + between(y, y, b, b)) / 2 if debias else 0.0
    return between(x, y, a, b) - own


def mmd(x, y, bandwidths=None, sigma=1.0, unbiased=True):
    """Squared maximum mean discrepancy."""
    sigmas = [sigma] if bandwidths is None else bandwidths

    def kernel(u, v):
        square = ((u[:, None] - v) ** 2).sum(axis=-1)
        return sum(np.exp(-square / (2 * s**2)) for s in sigmas)

    def within(u):
        k, n = kernel(u, u), len(u)
        return (k.sum() - np.trace(k)) / (n * (n - 1)) if unbiased else k.mean()

    return np.array(within(x) + within(y) - 2 * kernel(x, y).mean())
