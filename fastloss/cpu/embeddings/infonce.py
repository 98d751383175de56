"""Losses of embeddings that are to find each other: rows of a product of unit vectors, and what each should find."""

from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from ..dispatch import EMPTY
from ..math.scalar_math import sqrt64
from ..runtime.slots import Number, unbound
from ..runtime.units import bound_stages, kernel, launch_of
from .products import Few, Product, bound_few, softmax_of_product

__all__ = ["prepare", "run"]

use = unbound(Number)


def unit_rows(lo, hi, x, unit, lengths):
    """Each row over its length; a row of zeros stays."""
    T = use.T
    for i in range(lo, hi):
        row, u = x[i], unit[i]
        scale = 1.0
        square = 0.0
        for j in range(row.size):
            # In float64: squares of float32 overflow from 1.8e19 on.
            square += np.float64(row[j]) * np.float64(row[j])
        if square < 1e-200 or square > 1e200:
            # Squares of float64 that left its range: taken relative to the largest element.
            top = 0.0
            for j in range(row.size):
                top = max(top, abs(np.float64(row[j])))
            if 0.0 < top < np.inf:
                scale = top
                square = 0.0
                for j in range(row.size):
                    square += (np.float64(row[j]) / top) * (np.float64(row[j]) / top)
        root = sqrt64(square)
        lengths[i] = root * scale
        for j in range(row.size):
            # Two divisions: scale times root may overflow where the quotient does not.
            u[j] = T(np.float64(row[j]) / scale / root) if root != 0.0 else T(0.0)


def through_lengths(lo, hi, unit, lengths, slopes, grad):
    """Derivatives by rows from those by their unit vectors: across the row, over its length; 0 at a row of zeros."""
    T = use.T
    for i in range(lo, hi):
        u, s, g = unit[i], slopes[i], grad[i]
        along, counts = 0.0, lengths[i] != 0.0
        if not lengths[i] < np.inf:
            # A row without slopes does not count, and may hold anything.
            counts = False
            for j in range(s.size):
                counts = counts or s[j] != T(0.0)
        for j in range(u.size):
            # A sum of its own before the loop below, which needs it whole.
            along += np.float64(u[j]) * np.float64(s[j])
        # Along and across in float64: they nearly cancel where the slope points along the row.
        for j in range(u.size):
            across = np.float64(s[j]) - along * np.float64(u[j])
            g[j] = T(across / lengths[i]) if counts else T(0.0)


def same_class(lo, hi, first, labels, share, target):
    """Each row's share at the columns of its class, 0 elsewhere."""
    for i in range(lo, hi):
        t = target[i]
        y, s = labels[first[0] + i], share[first[0] + i]
        for j in range(t.size):
            # Written for a chunk of rows at a time: targets of all rows would be n x n.
            t[j] = s if labels[j] == y else use.T(0.0)


@lru_cache(maxsize=64)
def _normalizing(name: str, n: int, d: int) -> Callable[..., None]:
    """Return the function that divides n rows by their lengths."""
    return launch_of(n, 2.0 * n * d, None, True, unit_rows, "unit_rows", name)


@lru_cache(maxsize=64)
def _going_back(name: str, n: int, d: int) -> Callable[..., None]:
    """Return the function that carries derivatives by n unit vectors to the rows."""
    return launch_of(n, 2.0 * n * d, None, True, through_lengths, "through_lengths", name)


@lru_cache(maxsize=8)
def _in_order(n: int) -> Any:
    """Return the labels of rows that should find the column of their own index, which kernels only read."""
    return np.arange(n)


class _Stack:
    """Embeddings of several arrays, one below the other; unit vectors if asked for."""

    def __init__(self, name: str, arrays: list[Any], normalize: bool) -> None:
        self.name, self.normalize, self.count = name, normalize, len(arrays)
        self.places = []
        n = 0
        for a in arrays:
            self.places.append(slice(n, n + len(a)))
            n += len(a)
        if self.count == 1 and not normalize:
            self.rows = arrays[0]
            return
        self.rows = np.empty((n, arrays[0].shape[1]), arrays[0].dtype)
        self.lengths = np.empty(n)
        for a, at in zip(arrays, self.places, strict=True):
            if normalize:
                _normalizing(name, *a.shape)(a, self.rows[at], self.lengths[at])
            else:
                self.rows[at] = a

    def back(self, slopes: Any, grads: list[Any]) -> None:
        """Write the derivatives by the arrays, given those by the rows."""
        for g, at in zip(grads, self.places, strict=True):
            if self.normalize:
                _going_back(self.name, *g.shape)(self.rows[at], self.lengths[at], slopes[at], g)
            else:
                g[...] = slopes[at]


def _own(lo: int, rows: Any) -> Any:
    """In rows lo and following of a square matrix, the elements on its diagonal."""
    return rows.reshape(-1)[lo :: rows.shape[1] + 1]


def _without_themselves(lo: int, hi: int, scores: Any) -> None:
    """No row finds itself."""
    _own(lo, scores)[...] = -np.inf


def _of_class(name: str, labels: Any, counts: Any, themselves: bool) -> Any:
    """Targets of rows that should find the columns of their class, all of them alike."""
    # Once for each item, not for each pair.
    share = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0.0).astype(name)

    def target(lo: int, hi: int, scores: Any) -> Any:
        goal = np.empty_like(scores)
        fill = kernel(same_class, "same_class", name)
        fill(hi - lo, 0.0, np.array([lo]), labels, share, goal)
        if not themselves:
            _without_themselves(lo, hi, scores)
            _own(lo, goal)[...] = 0.0
        return goal

    return target


def _members(labels: Any) -> Any:
    """Return for each item the number of items with its label."""
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[place].astype(np.float64)


def _evaluate(call: Any, a: _Stack, b: _Stack, grads: list[Any], **against: Any) -> Any:
    """Value of each row of a against the rows of b, and the derivatives by the arrays of both, or of a where b is a."""
    p = Product(a.rows, b.rows, beta=1.0 / call.parameters.get("temperature", 1.0), **against)
    rows = call.parameters["chunk"] or 0
    if not grads:
        softmax_of_product(p, call.values, rows=rows)
        return
    factors = call.factors()
    if call.counted is not None:
        factors = np.where(call.counted, factors, 0.0)
    slopes = np.empty_like(a.rows), np.empty_like(b.rows)
    softmax_of_product(p, call.values, factors, slopes, rows)
    # One product has both derivatives: they are of the same rows.
    if b is a:
        np.add(*slopes, out=slopes[0])
    else:
        b.back(slopes[1], grads[a.count :])
    a.back(slopes[0], grads[: a.count])


def info_nce(call: Any) -> None:
    """Queries against keys and further negatives."""
    normalize = call.parameters["normalize"]
    queries = _Stack(call.name, [call["queries"]], normalize)
    keys = _Stack(call.name, [a for a in (call["keys"], call["negatives"]) if a is not None], normalize)
    _evaluate(call, queries, keys, list(call.grads.values()), labels=_in_order(call.units))


def ntxent(call: Any) -> None:
    """Two views of each sample against all others."""
    n = call.units // 2
    views = _Stack(call.name, [call["z1"], call["z2"]], call.parameters["normalize"])
    other = np.roll(np.arange(2 * n), -n)
    _evaluate(call, views, views, list(call.grads.values()), labels=other, target=_without_themselves)


def supcon(call: Any) -> None:
    """Embeddings against all others, those of their class being right."""
    others = _members(call["labels"]) - 1.0
    whole = others.min() > 0.0
    if not whole:
        call.counted = np.minimum(others, 1.0)
    features = _Stack(call.name, [call["features"]], call.parameters["normalize"])
    against = _of_class(call.name, call["labels"], others, False)
    _evaluate(call, features, features, list(call.grads.values()), target=against)
    if not whole:
        call.values[call.counted == 0.0] = 0.0


def n_pairs(call: Any) -> None:
    """Anchors against positives, with a price on their lengths."""
    a, p, labels, price = call["anchors"], call["positives"], call["labels"], call.parameters["l2_reg"]
    grads = list(call.grads.values())
    if labels is None:
        against = {"labels": np.arange(call.units)}
    else:
        against = {"target": _of_class(call.name, labels, _members(labels), True)}
    _evaluate(call, _Stack(call.name, [a], False), _Stack(call.name, [p], False), grads, **against)
    if price:
        for k, x in enumerate((a, p)):
            call.values += 0.25 * price * np.einsum("ij,ij->i", x, x, dtype=np.float64)
            if grads:
                factors = np.broadcast_to(call.factors(), call.units)[:, None]
                grads[k] += np.multiply(0.5 * price * factors, x, where=factors != 0.0, out=np.zeros_like(x))


LOSSES = {"info_nce": info_nce, "ntxent": ntxent, "supcon": supcon, "n_pairs": n_pairs}


def run(call: Any) -> None:
    """Evaluate a loss by its name."""
    LOSSES[call.record.name](call)


def _prepare_info_nce(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates calls like one; all arithmetic is in kernels and products, without warnings.

    Small calls run the kernels before the product in one call of the driver, and those after it in another.
    """
    options, writes, name = call.parameters, bool(call.grads), call.name
    n, d = call["queries"].shape
    names = [k for k in ("keys", "negatives") if call[k] is not None]
    ends = list(accumulate(len(call[k]) for k in names))
    m, dtype = ends[-1], call.dtype
    few = bound_few(Few(n, m, d, dtype, writes, 1.0 / options["temperature"]))
    if few is None or options["chunk"] or not options["normalize"]:
        return info_nce
    places = [slice(end - len(call[k]), end) for k, end in zip(names, ends, strict=True)]
    counts, labels, no_bias, work = [n, *[len(call[k]) for k in names]], _in_order(n), EMPTY[dtype], 2.0 * (n + m) * d
    to_unit, to_rows = kernel(unit_rows, "unit_rows", name), kernel(through_lengths, "through_lengths", name)
    normalized = bound_stages(1, work, *[(to_unit, count) for count in counts])
    back = bound_stages(1, work, *[(to_rows, count) for count in counts])
    empty = np.empty

    def evaluate(call: Any) -> None:
        arrays, grads = call.arrays, tuple(call.grads.values())
        scale = float(call.factors()[0]) if writes else 1.0
        if scale == 0.0:
            info_nce(call)
            return
        a, b, of_a, of_b = empty((n, d), dtype), empty((m, d), dtype), empty(n), empty(m)
        parts = [(b, of_b)] if len(places) == 1 else [(b[at], of_b[at]) for at in places]
        given = [(arrays[k], *part) for k, part in zip(names, parts, strict=True)]
        normalized((arrays["queries"], a, of_a), *given)
        slopes: Any = (empty((n, d), dtype), empty((m, d), dtype)) if writes else ()
        few(a, b, no_bias, labels, call.values, scale, slopes)
        if writes:
            by_b = [slopes[1]] if len(places) == 1 else [slopes[1][at] for at in places]
            further = [(*part, s, g) for part, s, g in zip(parts, by_b, grads[1:], strict=True)]
            back((a, of_a, slopes[0], grads[0]), *further)

    return evaluate


def prepare(call: Any) -> Callable[[Any], None]:
    """Return the function that evaluates calls like one, without warnings of NumPy."""
    loss = LOSSES[call.record.name]
    if loss is info_nce:
        return _prepare_info_nce(call)

    def evaluate(call: Any) -> None:
        with np.errstate(all="ignore"):
            loss(call)

    return evaluate
