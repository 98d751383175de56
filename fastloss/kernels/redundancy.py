"""Losses of the correlations and covariances between the columns of two embedded views.

The products of columns are matrix products in the precision of the arrays; where there are more columns than rows,
the products of rows stand in for them: sums over d x d become sums over n x n. What is on the diagonal is summed in
float64 from the arrays themselves.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .blas import multiplied, single_threaded
from .blocks import kernel
from .pairs import power_of_two

__all__ = ["run"]

COLUMNS = 256
"""Columns of a unit: enough that what is done once a row costs little, few enough for a first-level cache."""


def inverse_deviation(squares, n, eps):
    """One over a standard deviation, 0 of 0; 1 where `eps` is negative."""
    variance = squares / n + eps
    return 1.0 if eps < 0.0 else 1.0 / math.sqrt(variance) if variance != 0.0 else 0.0


def mean_of(x, k, m, scale, means):
    """Means of columns k to m."""
    means[:] = 0.0
    for i in range(x.shape[0]):
        a = x[i, k:m]
        for j in range(a.size):
            means[j] += np.float64(a[j]) * scale
    for j in range(means.size):
        means[j] /= x.shape[0]


def moments(x, y, k, m, scale, means, others, xx, yy, xy, dd):
    """Sums of squares and of products about the means of columns, and of squared differences."""
    xx[:], yy[:], xy[:], dd[:] = 0.0, 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        a, b = x[i, k:m], y[i, k:m]
        for j in range(a.size):
            e, f = np.float64(a[j]) * scale, np.float64(b[j]) * scale
            dd[j] += (e - f) * (e - f)
            e, f = e - means[j], f - others[j]
            xx[j] += e * e
            yy[j] += f * f
            xy[j] += e * f


def move(x, k, m, scale, means, factors, out):
    """Columns less their means, multiplied."""
    for i in range(x.shape[0]):
        a, b = x[i, k:m], out[i, k:m]
        for j in range(a.size):
            b[j] = (np.float64(a[j]) * scale - means[j]) * factors[j]


def columns(lo, hi, options, x, y, stats, u, v):
    """What is to be known of the columns of two views, and the columns themselves less their means.

    The columns are multiplied by the scale, and divided by their standard deviation unless eps is negative.
    """
    scale, eps, n = options[0], options[1], x.shape[0]
    for unit in range(lo, hi):
        k, m = unit * COLUMNS, min(x.shape[1], (unit + 1) * COLUMNS)
        means, others, xx, yy = stats[0, k:m], stats[1, k:m], stats[2, k:m], stats[3, k:m]
        factors, other_factors = stats[6, k:m], stats[7, k:m]
        mean_of(x, k, m, scale, means)
        mean_of(y, k, m, scale, others)
        moments(x, y, k, m, scale, means, others, xx, yy, stats[4, k:m], stats[5, k:m])
        for j in range(m - k):
            factors[j], other_factors[j] = inverse_deviation(xx[j], n, eps), inverse_deviation(yy[j], n, eps)
        move(x, k, m, scale, means, factors, u)
        move(y, k, m, scale, others, other_factors, v)


def row_products(lo, hi, a, b, sums):
    """Sums of products along rows."""
    for i in range(lo, hi):
        s, x, y = 0.0, a[i], b[i]
        for j in range(x.size):
            s += np.float64(x[j]) * np.float64(y[j])
        sums[i] = s


def standardised(lo, hi, options, x, y, mean, factor, other, other_factor, diagonal, product, grad):
    """The derivative by one view, through the standard deviations of its columns."""
    scale, off, n = options[0], options[1], x.shape[0]
    along = np.empty(COLUMNS)
    for unit in range(lo, hi):
        k, m = unit * COLUMNS, min(x.shape[1], (unit + 1) * COLUMNS)
        s, center, p, start, q, w = along[: m - k], mean[k:m], factor[k:m], other[k:m], other_factor[k:m], diagonal[k:m]
        s[:] = 0.0
        for i in range(n):
            a, b, c = x[i, k:m], y[i, k:m], product[i, k:m]
            for j in range(s.size):
                u, v = (np.float64(a[j]) * scale - center[j]) * p[j], (np.float64(b[j]) * scale - start[j]) * q[j]
                s[j] += (off * c[j] + w[j] * v) * u
        for i in range(n):
            a, b, c, g = x[i, k:m], y[i, k:m], product[i, k:m], grad[i, k:m]
            for j in range(s.size):
                u, v = (np.float64(a[j]) * scale - center[j]) * p[j], (np.float64(b[j]) * scale - start[j]) * q[j]
                g[j] = (off * c[j] + w[j] * v - u * (s[j] / n)) * (p[j] * scale)


def spread_out(lo, hi, options, x, y, mean, apart, product, grad):
    """The derivative by one view: of the difference from the other, of the variances and of the covariances."""
    near, off = options[0], options[1]
    for i in range(lo, hi):
        a, b, p, g = x[i], y[i], product[i], grad[i]
        for j in range(a.size):
            e = np.float64(a[j])
            g[j] = near * (e - np.float64(b[j])) + apart[j] * (e - mean[j]) + off * p[j]


def _moved(x: Any, y: Any, scale: float, eps: float) -> tuple[Any, Any, Any]:
    """Statistics of the columns of two views, and the columns moved, in the precision of the views."""
    n, d = x.shape
    stats, u, v = np.empty((8, d)), np.empty_like(x), np.empty_like(x)
    found = kernel(columns, "columns", "float64", None, (inverse_deviation, mean_of, moments, move))
    found.shared(-(-d // COLUMNS), n * d, np.array([scale, eps]), x, y, stats, u, v)
    return stats, u, v


def _dot(a: Any, b: Any) -> float:
    """The sum of the products of two matrices' elements, in float64."""
    sums = np.empty(len(a))
    kernel(row_products, "row_products", "float64").shared(len(a), a.size, a, b, sums)
    return float(sums.sum())


def _products(
    products: Callable[..., None], a: Any, b: Any, divisor: float, diagonal: Any, derivatives: bool
) -> tuple[float, list[Any], bool]:
    """Of C = a^T b / divisor, the squares off the diagonal, summed; b C^T and a C; whether these hold the diagonal."""
    n, d = a.shape
    if d >= 2 * n:
        rows = multiplied(products, a, a.T) / divisor
        others = rows if b is a else multiplied(products, b, b.T) / divisor
        pairs = ((others, a), (rows, b))
        off, whole = _dot(rows, others) - float((diagonal * diagonal).sum()), True
    else:
        c = multiplied(products, a.T, b) / divisor
        c.reshape(-1)[:: d + 1] = 0.0
        pairs = ((b, c.T), (a, c))
        off, whole = _dot(c, c), False
    parts = [multiplied(products, *pair) for pair in pairs[: 1 if b is a else 2]] if derivatives else []
    return off, parts, whole


def _barlow_twins(call: Any, products: Callable[..., None]) -> None:
    x, y = call["z1"], call["z2"]
    n, d = x.shape
    lam, eps = call.parameters["lam"], call.parameters["eps"]
    largest = max(float(np.abs(x).max()), float(np.abs(y).max()))
    scale = 1.0 if 1e-140 < largest < 1e140 or not math.isfinite(largest) else power_of_two(largest)
    stats, u, v = _moved(x, y, scale, eps * scale * scale if eps > 0.0 else 0.0)
    correlation = stats[4] / n * stats[6] * stats[7]
    off, parts, whole = _products(products, u, v, n, correlation, bool(call.grads))
    call.values[0] = float(((correlation - 1.0) ** 2).sum()) + (lam * off if lam else 0.0)
    if call.grads:
        factor = call.factors()[0] / n
        options = np.array([scale, 2.0 * lam * factor])
        diagonal = 2.0 * factor * (correlation - 1.0 - (lam * correlation if whole else 0.0))
        derive = kernel(standardised, "standardised", "float64")
        units, work = -(-d // COLUMNS), n * d
        own, other = (stats[0], stats[6]), (stats[1], stats[7])
        derive.shared(units, work, options, x, y, *own, *other, diagonal, parts[0], call.grads["z1"])
        derive.shared(units, work, options, y, x, *other, *own, diagonal, parts[1], call.grads["z2"])


def _vicreg(call: Any, products: Callable[..., None]) -> None:
    views = (call["z1"], call["z2"])
    n, d = views[0].shape
    sim, var, cov, gamma, eps = (call.parameters[k] for k in ("sim", "var", "cov", "gamma", "eps"))
    stats, *moved = _moved(*views, 1.0, -1.0)
    free = max(n - 1, 1)
    value = sim * float(stats[5].sum()) / (n * d)
    factor = call.factors()[0] if call.grads else 0.0
    for k, u in enumerate(moved):
        variance = stats[2 + k] / free
        deviation = np.sqrt(variance + eps)
        value += 0.5 * var * float(np.maximum(gamma - deviation, 0.0).mean())
        off, parts, whole = _products(products, u, u, free, variance, bool(call.grads))
        value += cov * off / d
        if call.grads:
            short = (deviation < gamma) & (deviation > 0.0)
            apart = np.divide(-0.5 * var / (d * free), deviation, out=np.zeros(d), where=short | np.isnan(deviation))
            pull = 4.0 * cov / (d * free)
            apart -= pull * variance if whole else 0.0
            options = factor * np.array([2.0 * sim / (n * d), pull])
            name = list(call.grads)[k]
            derive = kernel(spread_out, "spread_out", "float64")
            own = views[k], views[1 - k], stats[k], factor * apart, parts[0], call.grads[name]
            derive.shared(n, n * d, options, *own)
    call.values[0] = value


def run(call: Any) -> None:
    """Evaluate the batch."""
    if call.grads and call.factors()[0] == 0.0:
        for g in call.grads.values():
            g[...] = 0.0
        call.grads = {}
    loss = _barlow_twins if call.record.name == "barlow_twins" else _vicreg
    with np.errstate(over="ignore", invalid="ignore"), single_threaded() as products:
        loss(call, products)
