"""Element access for one, two or four arrays at once, and for a handful of parameters.

Spelled out per count, so that every index is a constant: a computed index into a tuple of arrays keeps a loop scalar.
"""

from typing import Any

import numpy as np
from numba import njit

from .specialize import SCALAR, bind

__all__ = ["EMIT", "access"]

# Names bound when a function below is specialized.
T: Any = None
store: Any = None
order: Any = None
low: Any = None
high: Any = None
checks: Any = None
check0: Any = None
check1: Any = None
check2: Any = None
check3: Any = None
check_target: Any = None
check_weight: Any = None

AT = {
    1: lambda a, i: (a[0][i],),
    2: lambda a, i: (a[0][i], a[1][i]),
    4: lambda a, i: (a[0][i], a[1][i], a[2][i], a[3][i]),
}
WINDOW = {
    1: lambda a, lo, hi: (a[0][lo:hi],),
    2: lambda a, lo, hi: (a[0][lo:hi], a[1][lo:hi]),
    4: lambda a, lo, hi: (a[0][lo:hi], a[1][lo:hi], a[2][lo:hi], a[3][lo:hi]),
}
UNPACK = (
    lambda p: (),
    lambda p: (T(p[0]),),
    lambda p: (T(p[0]), T(p[1])),
    lambda p: (T(p[0]), T(p[1]), T(p[2])),
    lambda p: (T(p[0]), T(p[1]), T(p[2]), T(p[3])),
    lambda p: (T(p[0]), T(p[1]), T(p[2]), T(p[3]), T(p[4])),
)
OUTSIDE = {
    1: lambda x, t, w: check0(x[0]) + check_target(t) + check_weight(w),
    2: lambda x, t, w: check0(x[0]) + check1(x[1]) + check_target(t) + check_weight(w),
    4: lambda x, t, w: (
        check0(x[0]) + check1(x[1]) + check2(x[2]) + check3(x[3]) + check_target(t) + check_weight(w)
    ),
}


def _store1(a, i, d, k):
    a[0][i] = d * k


def _store2(a, i, d, k):
    a[0][i] = d[0] * k
    a[1][i] = d[1] * k


def _store4(a, i, d, k):
    a[0][i] = d[0] * k
    a[1][i] = d[1] * k
    a[2][i] = d[2] * k
    a[3][i] = d[3] * k


STORE = {1: _store1, 2: _store2, 4: _store4}


def _emit_value(v, g, h, i, value, k, out):
    pass


def _emit_rows(v, g, h, i, value, k, out):
    v[i] = value


def _emit_grad(v, g, h, i, value, k, out):
    store(g, i, out[1], k)


def _emit_rows_grad(v, g, h, i, value, k, out):
    v[i] = value
    store(g, i, out[1], k)


def _emit_hess(v, g, h, i, value, k, out):
    store(g, i, out[1], k)
    store(h, i, out[order], k)


EMIT = {
    "value": _emit_value,
    "rows": _emit_rows,
    "grad": _emit_grad,
    "rows_grad": _emit_rows_grad,
    "hess": _emit_hess,
    "surrogate": _emit_hess,
}
"""What each mode stores; the rest of the formula falls to dead code elimination."""


# Violations are counted in the array's own precision (at most a block's worth): a mask summed into an
# integer of another width keeps the loop scalar.
def _never(x):
    return T(0.0)


def _interval(x):
    return (T(1.0) if x < low else T(0.0)) + (T(1.0) if x > high else T(0.0))


def _signs(x):
    distance = abs(abs(x) - T(1.0))
    return T(1.0) if distance > T(0.0) else T(0.0)


def _check(domain: Any, kind: Any) -> Any:
    """Test one number; open ends become closed ones at the next float, and NaN is never outside."""
    if not hasattr(domain, "low"):
        return njit(**SCALAR)(bind(_signs, T=kind))
    low, high = kind(domain.low), kind(domain.high)
    if np.isneginf(low) and np.isposinf(high):
        return njit(**SCALAR)(bind(_never, T=kind))
    low = np.nextafter(low, kind(np.inf)) if domain.low_open else low
    high = np.nextafter(high, kind(-np.inf)) if domain.high_open else high
    return njit(**SCALAR)(bind(_interval, T=kind, low=low, high=high))


def access(record: Any, dtype: str, mode: str, weighted: bool) -> dict[str, Any]:
    """Everything that the elementwise template needs, apart from the formula, for one record and mode."""
    kind = getattr(np, dtype)
    inline = njit(**SCALAR)
    count = len(record.predictions)
    never = inline(bind(_never, T=kind))
    tests = {f"check{i}": _check(d, kind) for i, d in enumerate(record.prediction_domains)}
    tests["check_target"] = _check(record.target_domain, kind) if record.target else never
    tests["check_weight"] = inline(bind(_interval, T=kind, low=kind(0.0), high=kind(np.inf))) if weighted else never
    storing = {"store": inline(STORE[count]), "order": 3 if mode == "surrogate" else 2}
    return {
        "T": kind,
        "at": inline(AT[count]),
        "window": inline(WINDOW[count]),
        "unpack": inline(bind(UNPACK[len(record.parameters)], T=kind)),
        "read": inline((lambda t, i: (t[i],)) if record.target else (lambda t, i: ())),
        "target_of": inline((lambda t: t[0]) if record.target else bind(lambda t: T(0.0), T=kind)),
        "weigh": inline((lambda w, i: w[i]) if weighted else bind(lambda w, i: T(1.0), T=kind)),
        "outside": inline(bind(OUTSIDE[count], **tests)),
        "emit": inline(bind(EMIT[mode], **storing)),
    }
