"""Losses of the correlations and covariances between the columns of two embedded views.

The products of columns are matrix products in the precision of the arrays; where there are more columns than rows,
the products of rows stand in for them: sums over d x d become sums over n x n. What is on the diagonal is summed in
float64 from the arrays themselves.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..runtime.blas import multiplied, single_threaded
from ..runtime.specialize import cached_jit
from ..runtime.units import launch_of
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
            # From the difference itself: xx + yy - 2 xy would cancel where the views are alike.
            dd[j] += (e - f) * (e - f)
            # Takes a second pass about the means: sums of squares less squared sums cancel.
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
    """Write the statistics of the columns of two views, and the columns less their means.

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
        # Goes down the columns row by row, as the views lie in memory: a vector of sums, one a column.
        s[:] = 0.0
        for i in range(n):
            a, b, c = x[i, k:m], y[i, k:m], product[i, k:m]
            for j in range(s.size):
                # Standardises the columns again, in float64: the copies of the views are in their own precision.
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


COLUMN_HELPERS = (inverse_deviation, mean_of, moments, move)


@lru_cache(maxsize=64)
def _by_columns(n: int, d: int, kind: int) -> Callable[..., None]:
    """Return the function that moves the columns of n rows of d numbers of a kind of dtype."""
    which = columns, "columns", "float64", None, COLUMN_HELPERS
    return launch_of(-(-d // COLUMNS), n * d, kind, True, *which)


@lru_cache(maxsize=64)
def _by_rows(template: Any, n: int, d: int, kind: int) -> Callable[..., None]:
    """Return the function that runs a kernel on n rows of d numbers of a kind of dtype."""
    return launch_of(n, n * d, kind, True, template, template.__name__, "float64")


@cached_jit(error_model="numpy")
def spreads(stats, free, eps, gamma, push, variances, lacks, aparts):
    """Write the variances of both views, what their deviations lack of gamma, and the slopes that push them apart."""
    for k in range(2):
        for j in range(stats.shape[1]):
            variances[k, j] = stats[2 + k, j] / free
            deviation = math.sqrt(variances[k, j] + eps)
            # A hinge: deviations above gamma are not pulled back.
            lack = gamma - deviation
            # Nothing to push apart where a deviation is large enough or 0; NaN goes on.
            lacks[k, j] = lack if lack > 0.0 or lack != lack else 0.0
            idle = deviation >= gamma or deviation <= 0.0
            aparts[k, j] = 0.0 if idle else push / deviation


def _moved(x: Any, y: Any, scale: float, eps: float) -> tuple[Any, Any, Any]:
    """Statistics of the columns of two views, and the columns moved, in the precision of the views."""
    n, d = x.shape
    stats, u, v = np.empty((8, d)), np.empty_like(x), np.empty_like(x)
    _by_columns(n, d, x.dtype.num)(np.array([scale, eps]), x, y, stats, u, v)
    return stats, u, v


def _dot(a: Any, b: Any) -> float:
    """The sum of the products of two matrices' elements, in float64."""
    sums = np.empty(len(a))
    _by_rows(row_products, *a.shape, a.dtype.num)(a, b, sums)
    return float(np.add.reduce(sums))


def _products(
    products: Callable[..., None], a: Any, b: Any, divisor: float, diagonal: Any, derivatives: bool
) -> tuple[float, list[Any], bool]:
    """Return the sum of squares off the diagonal of C = a^T b / divisor, and the products b C^T and a C.

    The last result tells whether the products include the diagonal.
    """
    n, d = a.shape
    if d >= 2 * n:
        # Costs n^2 d rather than n d^2: where d is large, products of rows give the squares of C without C.
        rows = multiplied(products, a, a.T) / divisor
        others = rows if b is a else multiplied(products, b, b.T) / divisor
        pairs = ((others, a), (rows, b))
        off, whole = _dot(rows, others) - float((diagonal * diagonal).sum()), True
    else:
        c = multiplied(products, a.T, b)
        c /= divisor
        # The diagonal has a term of its own: left in, subtracting its squares again would cancel.
        c.reshape(-1)[:: d + 1] = 0.0
        pairs = ((b, c.T), (a, c))
        off, whole = _dot(c, c), False
    parts = [multiplied(products, *pair) for pair in pairs[: 1 if b is a else 2]] if derivatives else []
    return off, parts, whole


def _barlow_twins(call: Any, grads: dict[str, Any], products: Callable[..., None]) -> None:
    x, y = call["z1"], call["z2"]
    n, d = x.shape
    lam, eps = call.parameters["lam"], call.parameters["eps"]
    largest = max(float(np.abs(x).max()), float(np.abs(y).max()))
    # Nearly all batches spare the product: squares of such numbers stay in range.
    scale = 1.0 if 1e-140 < largest < 1e140 or not math.isfinite(largest) else power_of_two(largest)
    stats, u, v = _moved(x, y, scale, eps * scale * scale if eps > 0.0 else 0.0)
    correlation = stats[4] / n * stats[6] * stats[7]
    off, parts, whole = _products(products, u, v, n, correlation, bool(grads))
    call.values[0] = float(((correlation - 1.0) ** 2).sum()) + (lam * off if lam else 0.0)
    if grads:
        factor = call.factors()[0] / n
        options = np.array([scale, 2.0 * lam * factor])
        diagonal = 2.0 * factor * (correlation - 1.0 - (lam * correlation if whole else 0.0))
        which = standardised, "standardised", "float64"
        derive = launch_of(-(-d // COLUMNS), n * d, x.dtype.num, True, *which)
        own, other = (stats[0], stats[6]), (stats[1], stats[7])
        derive(options, x, y, *own, *other, diagonal, parts[0], grads["z1"])
        derive(options, y, x, *other, *own, diagonal, parts[1], grads["z2"])


def _vicreg(call: Any, grads: dict[str, Any], products: Callable[..., None]) -> None:
    views = (call["z1"], call["z2"])
    n, d = views[0].shape
    sim, var, cov, gamma, eps = (call.parameters[k] for k in ("sim", "var", "cov", "gamma", "eps"))
    stats, *moved = _moved(*views, 1.0, -1.0)
    free = max(n - 1, 1)
    value = sim * float(np.add.reduce(stats[5])) / (n * d)
    variances, lacks, aparts = np.empty((3, 2, d))
    spreads(stats, free, eps, gamma, -0.5 * var / (d * free), variances, lacks, aparts)
    options: Any = None
    derive = options
    pull = 4.0 * cov / (d * free)
    if grads:
        factor = float(call.factors()[0])
        options = factor * np.array([2.0 * sim / (n * d), pull])
        derive = _by_rows(spread_out, n, d, views[0].dtype.num)
    for k, (u, name) in enumerate(zip(moved, ("z1", "z2"), strict=True)):
        value += 0.5 * var * (float(np.add.reduce(lacks[k])) / d)
        off, parts, whole = _products(products, u, u, free, variances[k], bool(grads))
        value += cov * off / d
        if grads:
            apart = aparts[k] - pull * variances[k] if whole else aparts[k]
            derive(options, views[k], views[1 - k], stats[k], factor * apart, parts[0], grads[name])
    call.values[0] = value


def run(call: Any) -> None:
    """Evaluate the batch."""
    grads = call.grads
    if grads and call.factors()[0] == 0.0:
        for g in grads.values():
            g[...] = 0.0
        grads = {}
    loss = _barlow_twins if call.record.name == "barlow_twins" else _vicreg
    n, d = call["z1"].shape
    with single_threaded(n * d * max(n, d)) as products:
        loss(call, grads, products)
