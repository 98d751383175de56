"""Fast path of small calls: plans that the general path leaves for the next call of the same kind.

The general path checks, converts and lays out every argument, 10 to 30 us a call. A plan is a function that holds the
kernel and the settings of one kind of call. It checks what can differ between two calls of that kind, and returns None
wherever anything is unusual: every message and every rare case is made in one place, by the general path.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..call.arrays import (
    BITS,
    F64,
    I64,
    I64_MAX,
    LEAST,
    NAMES,
    rounded,
    unlocked,
)
from ..call.check import SMALLEST
from ..call.reduction import row_mass
from ..cpu.dispatch import (
    CHUNK,
    EMPTY,
    PARALLEL_FROM,
    few_row_driver,
    few_row_setup,
    pair_driver,
    sum_code,
    weighted_pair_driver,
)
from ..spec.record import FINITE_NONNEGATIVE, NONNEGATIVE

__all__ = ["PLANS", "Elements", "Plan", "Rows", "elements", "known_divisor", "rows", "unplanned"]

Plan = Callable[..., tuple[Any, Any] | None]
"""Function of a call's arguments that returns its results, or None where the general path has to serve it."""


def unplanned(*arguments: Any) -> None:
    """Return None, as the plan of a call whose kind has not been made before."""


PLANS = 256
"""Largest number of plans, and of cached layouts, per loss; each K of a row-wise loss takes plans of its own."""

EXACT = 2.0**53
"""Bound on the Python scalars of the fast path: integers below it are exact in float64, and none overflows float32."""

VIEWED_FROM = 1 << 16
"""Size of read-only inputs (bytes) from which a writable view is quicker than a copy: 1.4 us against 4 at 240 kB."""

LARGEST = float(np.finfo(np.float64).max)
"""Largest divisor of the fast path: the largest float64, which Python integers can exceed."""

ndarray, may_share_memory = np.ndarray, np.may_share_memory


def ready(x: Any, dtype: Any, shape: tuple[int, ...], laid: tuple[int, ...]) -> Any:
    """Return an input in the dtype and shape that kernels read; None where the general path has to check it."""
    if type(x) is ndarray:
        if x.shape != shape:
            return None
        if x.dtype is not dtype or not x.flags.carray:
            x = converted(x, dtype)
        return x if x is None or shape == laid else x.reshape(laid)
    if (type(x) is float or type(x) is int) and -EXACT < x < EXACT:
        a = np.empty(laid, dtype)
        a.fill(x)
        return a
    return None


def converted(x: Any, dtype: Any) -> Any:
    """Return an array in a precision, contiguous and not read-only; None where only the general path can convert it."""
    if x.dtype is dtype:
        is_viewed = x.nbytes >= VIEWED_FROM and x.flags.c_contiguous and x.flags.aligned
        return unlocked(x).view(dtype) if is_viewed else x.copy()
    kind = x.dtype.kind
    if kind in "iub":
        return x.astype(dtype, "C")
    if kind != "f":
        return None
    # As in `arrays.contiguous`: 1e300 is infinite in float32, and no warning says so.
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(dtype, "C")


def writable(outs: Any, count: int, dtype: Any, shape: tuple[int, ...], inputs: tuple[Any, ...]) -> bool:
    """Whether outputs have the dtype and shape, are contiguous, and overlap neither the inputs nor each other."""
    if type(outs) is not tuple or len(outs) != count:
        return False
    for i, o in enumerate(outs):
        if type(o) is not ndarray or o.dtype is not dtype or o.shape != shape or not (flags := o.flags).carray:
            return False
        owns = flags.owndata
        for x in inputs + outs[:i] if i else inputs:
            if type(x) is not ndarray:
                continue
            # Saves 100 ns: two arrays that own their memory cannot overlap.
            if not (owns and x is not o and x.flags.owndata) and may_share_memory(o, x):
                return False
    return True


def mass_in(dtype: Any) -> Callable[[Any], float]:
    """Return the function that sums weights of a dtype; it returns 0 where one is negative or the sum is not finite."""
    address, driver, e, nothing = sum_code(NONNEGATIVE, dtype), pair_driver(NAMES[dtype]), EMPTY[dtype], EMPTY[F64]

    def mass_of(weight: Any) -> float:
        mass: float
        mass, negative = driver(address, weight, e, e, 1.0, nothing, CHUNK)
        return 0.0 if negative or not mass < math.inf else mass

    return mass_of


def known_divisor(divisor: Any) -> bool | None:
    """Whether a divisor is given; None where the general path has to check it."""
    if divisor is None:
        return False
    if (type(divisor) is float or type(divisor) is int) and SMALLEST <= divisor <= LARGEST:
        return True
    return None


class Elements(NamedTuple):
    """Kernel and settings of one kind of elementwise call."""

    address: int
    driver: Callable[..., Any]
    packed: Any
    """Parameters of the formula."""
    dtype: Any
    """Computing dtype."""
    stored: Any
    """Dtype of predictions and results; differs from `dtype` for 16-bit formats."""
    predictions: int
    """Number of predictions."""
    target: Any
    """Dtype in which kernels read the target; None where there is no target."""
    orders: int
    """Number of derivative orders."""
    by_row: bool
    """Whether the call returns the loss of each element."""
    averaged: bool
    """Whether the sum is divided by the number of elements, or by the sum of their weights."""
    weighted: bool


def elements(kind: Elements) -> Plan:
    """Return the plan of a kind of elementwise calls."""
    one = kind.predictions == 1 and kind.target is kind.stored is kind.dtype
    if one and kind.orders < 2 and not kind.by_row and (kind.averaged or not kind.weighted):
        return _pair(kind)
    return _elements(kind)


def _pair(kind: Elements) -> Plan:
    """Return the plan of a reduced loss of one prediction and its target, the most frequent call."""
    address, packed, dtype, averaged, weighted = kind.address, kind.packed, kind.dtype, kind.averaged, kind.weighted
    driver = (weighted_pair_driver if weighted else pair_driver)(NAMES[dtype])
    sum_address = sum_code(NONNEGATIVE, dtype) if weighted else 0
    writes, nothing = kind.orders == 1, EMPTY[dtype]
    empty, infinity = np.empty, math.inf

    def run(prediction: Any, target: Any, weight: Any, divisor: Any, out: Any) -> tuple[Any, Any] | None:
        if type(prediction) is not ndarray or prediction.dtype is not dtype:
            return None
        shape, size = prediction.shape, prediction.size
        if not 0 < size < PARALLEL_FROM:
            return None
        if out is not None and not (writes and writable((out,), 1, dtype, shape, (prediction, target, weight))):
            return None
        p = prediction if prediction.flags.carray else converted(prediction, dtype)
        g = nothing if not writes else empty(shape, dtype) if out is None else out
        if type(target) is ndarray and target.dtype is dtype and target.shape == shape and target.flags.carray:
            t = target if len(shape) == 1 else target.reshape(-1)
        elif (t := ready(target, dtype, shape, (size,))) is None:
            return None
        flats = (p, t, g) if len(shape) == 1 else (p.reshape(-1), t, g.reshape(-1))
        if weighted:
            w = ready(weight, dtype, shape, (size,))
            if w is None:
                return None
            total, bad, divided = driver(address, sum_address, *flats, w, packed, CHUNK)
        else:
            divided = size if averaged else 1.0 if divisor is None else divisor
            total, bad = driver(address, *flats, 1.0 / divided, packed, CHUNK)
        if bad == 0.0 and -infinity < total < infinity:
            return total / divided, g if writes else None
        return None

    return run


def _elements(kind: Elements) -> Plan:
    """Return the plan of any other kind of elementwise calls."""
    address, driver, packed, dtype, stored, count, read_as, orders, by_row, averaged, weighted = kind
    bits = None if stored is dtype else BITS[stored.name]
    half_target = bits is not None and read_as is stored
    e, nothing = EMPTY[dtype], (EMPTY[bits or dtype],) * count
    several, arrays, empty, infinity = count > 1, orders * count, np.empty, math.inf
    divides = weighted and averaged
    mass_of: Any = mass_in(dtype) if divides else None

    def run(prediction: Any, target: Any, weight: Any, divisor: Any, out: Any) -> tuple[Any, Any] | None:
        given = prediction if several else (prediction,)
        if type(given) is not tuple or len(given) != count or type(given[0]) is not ndarray:
            return None
        shape, size = given[0].shape, given[0].size
        laid = (size,)
        preds = []
        for x in given:
            if type(x) is not ndarray or x.dtype is not stored or (x := ready(x, stored, shape, laid)) is None:
                return None
            preds.append(x)
        if not 0 < size < PARALLEL_FROM or (target is None) is not (read_as is None):
            return None
        if half_target and getattr(target, "dtype", None) is not stored:
            return None
        t = e if read_as is None else ready(target, read_as, shape, laid)
        w = ready(weight, dtype, shape, laid) if weighted else e
        if t is None or w is None:
            return None
        if out is None:
            outs: Any = [empty(shape, stored) for _ in range(arrays)]
        elif not writable(outs := opened(out, orders, several), arrays, stored, shape, (*given, target, weight)):
            return None
        values = empty(shape, dtype) if by_row else e
        divided = mass_of(w) if divides else size if averaged else 1.0 if divisor is None else divisor
        if not divided:
            return None
        flats, v = outs, values
        if shape != laid:
            flats, v = [o.reshape(laid) for o in outs], values.reshape(-1)
        if bits:
            preds, flats = [x.view(bits) for x in preds], [o.view(bits) for o in flats]
            t = t.view(bits) if half_target else t
        grads = tuple(flats[:count]) if orders else nothing
        hesses = tuple(flats[count:]) if orders == 2 else nothing
        scale, given = 1.0 / divided, tuple(preds)
        total, bad = driver(address, given, t, w, v, grads, hesses, scale, packed, False, CHUNK, False)
        if bad != 0.0 or not (by_row or orders == 2 or -infinity < total < infinity):
            return None
        results = tuple(outs) if out is None else out
        if orders == 2:
            return (results[:count], results[count:]) if several and out is None else results
        loss = total / divided if not by_row else rounded(values, stored) if bits else values
        return loss, None if not orders else results if several else outs[0]

    return run


def opened(out: Any, orders: int, several: bool) -> Any:
    """Return the arrays of an output as one tuple; None where it is not made of tuples."""
    if orders == 0:
        return None
    if orders == 1:
        return out if several else (out,)
    if not several or type(out) is not tuple:
        return out
    return tuple([o for group in out for o in group]) if all([type(group) is tuple for group in out]) else None


class Rows(NamedTuple):
    """Kernel and settings of one kind of row-wise call."""

    address: int
    driver: Callable[..., Any]
    packed: Any
    """Parameters of the formula."""
    dtype: Any
    """Computing dtype."""
    stored: Any
    """Dtype of scores and results; differs from `dtype` for 16-bit formats."""
    k: int
    """Number of scores per row."""
    labels: int
    """Number of classes that labels name; 0 for dense targets."""
    target: Any
    """Dtype in which kernels read a dense target; int64 for labels that need no conversion."""
    observed: bool
    """Whether the dense target is one observation per row."""
    orders: int
    """Number of derivative orders."""
    by_row: bool
    """Whether the call returns the loss of each row."""
    averaged: bool
    """Whether the sum is divided by the number of rows, or by the sum of their weights."""
    weighted: bool
    classed: bool
    divides: bool
    """Whether the mean is also divided by class weights."""
    ones: Any
    """Class weights of 1 for kernels that read them although the caller gave none; empty for other kernels."""
    tail: tuple[Any, ...]
    """Kernel helpers, number of classes, scratch elements per chunk and rows per chunk."""


def rows(kind: Rows) -> Plan:
    """Return the plan of one kind of row-wise calls."""
    if kind.orders == 2 or kind.by_row or kind.stored is not kind.dtype:
        return _rows(kind)
    plain = kind.labels > 0 and kind.averaged and not (kind.weighted or kind.classed or kind.ones.size)
    return _labelled(kind) if plain else _reduced(kind)


def understood(ignored: Any) -> bool:
    """Whether the fast path takes an ignore_index; the general path refuses or converts any other."""
    return ignored is None or (type(ignored) is int and LEAST <= ignored <= I64_MAX)


def labelled(target: Any, ignored: Any, classes: int) -> tuple[Any, Any, int]:
    """Return labels and ignore_index for kernels, and the number of ignored labels that name a class.

    The labels are None where the general path has to look at ignore_index.
    """
    if target.dtype is not I64 or not target.flags.carray:
        target = target.astype(I64, "C")
    if target.ndim != 1:
        target = target.reshape(-1)
    if type(ignored) is int and (LEAST <= ignored < 0 or classes <= ignored <= I64_MAX):
        return target, ignored, 0
    if ignored is None:
        # As if it were class 0, which no label outside the classes equals.
        return target, 0, 0
    if not understood(ignored):
        return None, 0, 0
    same = target == ignored
    return np.where(same, LEAST, target), LEAST, int(np.count_nonzero(same))


def _labelled(kind: Rows) -> Plan:
    """Return the plan of an unweighted mean over labelled rows, the most frequent call."""
    address, packed, dtype, k, classes = kind.address, kind.packed, kind.dtype, kind.k, kind.labels
    helpers, count, room, chunk = kind.tail
    driver, writes, exact = few_row_driver(NAMES[dtype]), kind.orders == 1, kind.target is I64
    setup = few_row_setup(NAMES[dtype], address, False, (count, room, chunk))
    e, e2, empty = EMPTY[dtype], np.empty((0, 0), dtype), np.empty

    def run(
        prediction: Any, target: Any, weight: Any, class_weight: Any, ignored: Any, divisor: Any, out: Any
    ) -> tuple[Any, Any] | None:
        shape, size, taken = prediction.shape, prediction.size, 0
        if prediction.dtype is not dtype or not 0 < size < PARALLEL_FROM or target.shape != shape[:-1]:
            return None
        grad: Any = out
        if out is None:
            grad = empty(shape, dtype) if writes else None
        elif not (writes and writable((out,), 1, dtype, shape, (prediction, target))):
            return None
        z, g = prediction if prediction.flags.carray else converted(prediction, dtype), grad if writes else e2
        if len(shape) != 2:
            z, g = z.reshape(-1, k), g.reshape(-1, k)
        if exact and type(ignored) is int and LEAST <= ignored < 0 and target.flags.carray:
            # Saves 0.1 us: `labelled` would return the same.
            labels = target if len(shape) == 2 else target.reshape(-1)
        else:
            labels, ignored, taken = labelled(target, ignored, classes)
            if labels is None:
                return None
        arrays = (z, labels, e2, g, e, e, packed, helpers)
        total, bad, mass, wrong = driver(setup, id(arrays), -1.0, ignored)
        if wrong or bad or not mass or (taken and mass + taken != labels.size):
            return None
        return total / mass, grad

    return run


def _reduced(kind: Rows) -> Plan:
    """Return the plan of any other reduced row-wise loss in float32 or float64, and of its gradient."""
    address, _, packed, dtype, _, k, classes, read_as, observed, orders = kind[:10]
    averaged, weighted, classed, divides, ones, (helpers, count, room, chunk) = kind[11:]
    driver, writes = few_row_driver(NAMES[dtype]), orders == 1
    setup = few_row_setup(NAMES[dtype], address, divides, (count, room, chunk))
    e, e2, no_labels, empty = EMPTY[dtype], np.empty((0, 0), dtype), EMPTY[I64], np.empty

    def run(
        prediction: Any, target: Any, weight: Any, class_weight: Any, ignored: Any, divisor: Any, out: Any
    ) -> tuple[Any, Any] | None:
        shape, size, taken = prediction.shape, prediction.size, 0
        if prediction.dtype is not dtype or not 0 < size < PARALLEL_FROM:
            return None
        grad: Any = out
        if out is None:
            grad = empty(shape, dtype) if writes else None
        elif not (writes and writable((out,), 1, dtype, shape, (prediction, target, weight, class_weight))):
            return None
        z, g = prediction if prediction.flags.carray else converted(prediction, dtype), grad if writes else e2
        if len(shape) != 2:
            z, g = z.reshape(-1, k), g.reshape(-1, k)
        if classes:
            t, (labels, ignored, taken) = e2, labelled(target, ignored, classes)
            if labels is None or target.shape != shape[:-1] or (taken and (weighted or classed)):
                return None
        elif not understood(ignored):
            return None
        else:
            labels, ignored = no_labels, 0
            t = ready(target, read_as, *((shape[:-1], (size // k, 1)) if observed else (shape, z.shape)))
        w = ready(weight, dtype, shape[:-1], (size // k,)) if weighted else e
        cw = ready(class_weight, dtype, (k,), (k,)) if classed and type(class_weight) is ndarray else ones
        if t is None or w is None or cw is None or (classed and cw is ones):
            return None
        divided = 1.0 if divisor is None else divisor
        if averaged:
            divided = -1.0 if classes else row_mass(w) if weighted else size // k
        scale = 1.0 / (divided or 1.0)
        arrays = (z, labels, t, g, w, cw, packed, helpers)
        total, bad, mass, wrong = driver(setup, id(arrays), scale, ignored)
        divided = mass if divided < 0.0 else divided
        if wrong or bad or not divided or (taken and mass + taken != labels.size):
            return None
        return total / divided, grad

    return run


def _rows(kind: Rows) -> Plan:
    """Return the plan of any other kind of row-wise calls."""
    address, driver, packed, dtype, stored, k, classes, read_as, observed, orders, by_row = kind[:11]
    averaged, weighted, classed, divides, ones, (helpers, count, room, chunk) = kind[11:]
    bits, empty = None if stored is dtype else BITS[stored.name], np.empty
    mass_of: Any = mass_in(dtype) if weighted else None
    e, e2, none2, no_details = EMPTY[dtype], empty((0, 0), dtype), empty((0, 0), stored), empty((0, 0), F64)
    no_labels, no_half = EMPTY[I64], none2.view(bits) if bits else none2
    half_target = bits is not None and read_as is stored

    def run(
        prediction: Any, target: Any, weight: Any, class_weight: Any, ignored: Any, divisor: Any, out: Any
    ) -> tuple[Any, Any] | None:
        shape, size = prediction.shape, prediction.size
        if prediction.dtype is not stored or not 0 < size < PARALLEL_FROM:
            return None
        n = size // k
        laid, leading = (n, k), shape[:-1]
        z = prediction if shape == laid and prediction.flags.carray else ready(prediction, stored, shape, laid)
        if classes:
            t, (labels, ignored, taken) = e2, labelled(target, ignored, classes)
            if target.shape != leading or labels is None or taken:
                return None
        elif not understood(ignored):
            return None
        else:
            labels, ignored = no_labels, 0
            t = ready(target, read_as, leading, (n, 1)) if observed else ready(target, read_as, shape, laid)
        w = ready(weight, dtype, leading, (n,)) if weighted else e
        cw = ready(class_weight, dtype, (k,), (k,)) if classed else ones
        found = derivatives(out, orders, stored, shape, (prediction, target, weight, class_weight))
        if z is None or t is None or w is None or cw is None or found is None:
            return None
        if (weighted and not mass_of(w)) or (classed and not acceptable(class_weight, cw)):
            return None
        grad, hess = (*found, none2, none2)[:2]
        g, h = (grad, hess) if shape == laid or not orders else (grad.reshape(laid), hess.reshape(-1, k))
        v, counted = empty(n, dtype) if by_row else e, cw if divides else e
        divided = 1.0 if divisor is None else divisor
        if averaged:
            divided = -1.0 if classes else n if not weighted else row_mass(w)
        code: tuple[Any, ...] = (helpers, False, count, room, chunk, False)
        arrays: tuple[Any, ...] = (z, labels, t, w, cw, counted, v, g, h, no_details)
        if bits:
            t, half = (e2, t.view(bits)) if half_target else (t, no_half)
            z, g, h, code = z.view(bits), g.view(bits), h.view(bits), (helpers, count, room, chunk, False)
            arrays = (z, labels, t, half, w, cw, counted, v, g, h, no_details)
        total, bad, mass, wrong = driver(address, arrays, 1.0 / divided, ignored, packed, *code)
        divided = mass if divided < 0.0 else divided
        if bad or wrong or not divided:
            return None
        if orders == 2:
            return grad, hess
        loss = rounded(v.reshape(leading), stored) if by_row else total / divided
        return loss, grad if orders else None

    return run


def derivatives(
    out: Any, orders: int, dtype: Any, shape: tuple[int, ...], inputs: tuple[Any, ...]
) -> tuple[Any, ...] | None:
    """Return arrays for the derivatives of one prediction; None where the general path has to check the outputs."""
    if out is None:
        first = (np.empty(shape, dtype),) if orders else ()
        return (*first, np.empty(shape, dtype)) if orders == 2 else first
    outs = (out,) if orders == 1 else out
    return outs if writable(outs, orders, dtype, shape, inputs) else None


def acceptable(given: Any, class_weight: Any) -> bool:
    """Whether class weights were passed as an array and are all finite and nonnegative."""
    return type(given) is ndarray and not FINITE_NONNEGATIVE.outside(class_weight).any()
