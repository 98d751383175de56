"""Surrogate curvatures of every loss that has them: finite and never negative, at every end of every domain."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
from oracles import carry, np_words
from row_cases import ROWS, kinds, targets
from sampling import domains, inside

import fastloss as fl
from fastloss.spec import vocabulary
from fastloss.spec.record import SIGNS, Interval, OneOf, registered

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
CURVED = [f for f in registered.values() if f.second or f.surrogate]
ELEMENTWISE = [f for f in CURVED if f.family == "elementwise"]
MOST = 600
"""Points of a setting."""


def plain(dtype):
    """The special functions in plain Python, which are quicker than fifty digits."""
    names = ("digamma", "lgamma", "mills", "ndtr", "trigamma")
    found = {name: np.vectorize(getattr(vocabulary, name), otypes=[np.float64]) for name in names}
    return {name: lambda x, f=f: f(np.asarray(x, np.float64)).astype(dtype) for name, f in found.items()}


def ends(domain, dtype):
    """Numbers of a domain: its ends and 0 with their neighbours, its largest and smallest magnitudes, some inside."""
    if domain == SIGNS:
        return np.array([-1, 1], dtype)
    if isinstance(domain, OneOf):
        return np.array(domain.values, dtype)
    info = np.finfo(dtype)
    sizes = [
        info.smallest_normal,
        1e-30,
        info.eps,
        1e-3,
        0.3,
        1.0,
        20.0,
        100.0,
        1e4,
        1e15,
        math.sqrt(info.max),
        info.max,
    ]
    sizes = np.array([0.0, *sizes], dtype)
    around = [end + s * sizes for end in (domain.low, domain.high, 0.0) if math.isfinite(end) for s in (1, -1)]
    with np.errstate(over="ignore"):
        found = np.unique(inside(Interval(*domain), np.concatenate(around)))
    return found[np.isfinite(found)]


def settings(record, dtype):
    """The defaults, and each parameter at the ends of what it may be."""
    defaults = {k: dtype(v) for k, v in record.defaults.items() if k not in record.loop_parameters}
    yield defaults
    for name in defaults:
        parameter = record.parameters[name]
        values = [0.0, 1.0] if parameter.flag else ends(parameter.allowed, dtype)
        yield from ({**defaults, name: dtype(v)} for v in values)
        if parameter.none is not None:
            yield {**defaults, name: dtype(parameter.none)}


def rows_of(columns, rng):
    """Every combination of some columns, or some that are drawn."""
    if math.prod(len(c) for c in columns) > MOST:
        return [rng.choice(c, MOST) for c in columns]
    return np.array(list(itertools.product(*columns))).T


@each_dtype
@pytest.mark.parametrize("record", ELEMENTWISE, ids=lambda f: f.name)
def test_finite_and_never_negative(record, dtype):
    """Over the whole domain, for every parameter: the surrogate, or the second derivative where it serves for one."""
    rng = np.random.default_rng(7)
    formula = carry(record.function, dtype, np_words(dtype) | plain(dtype))
    for parameters in settings(record, dtype):
        columns = [ends(d, dtype) for d in domains(record, parameters)]
        columns += [ends(record.target_domain, dtype)] * (record.target is not None)
        data = [np.ascontiguousarray(x, dtype) for x in rows_of(columns, rng)]
        with np.errstate(all="ignore"):
            out = formula(*data, *parameters.values())
        found = out[3 if record.surrogate else 2]
        for h in found if isinstance(found, tuple) else (found,):
            h = np.broadcast_to(h, data[0].shape)
            bad = ~(np.isfinite(h) & (h >= 0))
            case = [x[bad][:3].tolist() for x in (*data, h)] if bad.any() else None
            assert not bad.any(), ({k: float(v) for k, v in parameters.items()}, case)


LARGE = [0.0, 1e-30, 1.0, -1.0, 17.0, -90.0, 104.0, -1e4, 3e38, -3e38]
LOG_PROBS = [0.0, -1e-30, -1e-6, -0.7, -17.0, -88.0, -103.5, -200.0, -1e4, -3e38]
COSINES = [0.0, 1e-30, 1.0, -1.0, 0.5, -0.9, 0.99999994, -0.99999994]
CHANGED = {
    "cross_entropy": [{"z_loss": 1e-30}, {"z_loss": 1e-4}, {"z_loss": 0.3}, {"z_loss": 1e30}, {"z_loss": 1e38}],
    "softmax_focal": [{"gamma": 0.0}, {"gamma": 0.5}, {"gamma": 1e4}],
    "poly1_cross_entropy": [{"epsilon": -1.0}, {"epsilon": 1e30}],
    "generalized_cross_entropy": [{"q": 1e-30}, {"q": 1.0}],
    "js_div": [{"beta": 1e-30}, {"beta": 1 - 2.0**-40}],
    "label_relaxation": [{"alpha": 0.0}, {"alpha": 1e-30}, {"alpha": 0.99}],
    "arcface": [{"margin": 0.0}, {"margin": 1.5}],
}
WHOLE = [name for name in ROWS if ROWS[name].record.second or ROWS[name].record.surrogate]


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in WHOLE for kind in kinds(name)])
def test_rows_are_finite_and_never_negative(name, kind):
    loop = ROWS[name].record.loop
    pool = {"log_probs": LOG_PROBS, "divergence": LOG_PROBS, "angular": COSINES}.get(loop, LARGE)
    rng = np.random.default_rng(3)
    z = np.array([list(x) for x in itertools.product(pool, repeat=2)] + [[x] * 2 for x in pool], np.float32)
    z = np.concatenate([z, rng.choice(np.array(pool, np.float32), (len(z), 2))], axis=1)
    target = targets(rng, name, kind, len(z), 4, np.float32)
    if kind == "dense":
        target[::3] = np.eye(4, dtype=np.float32)[rng.integers(0, 4, len(target[::3]))]
    for changed in [{}, *CHANGED.get(name, [])]:
        second = ROWS[name].grad_and_hess(z, target, curvature="surrogate", **changed)[1]
        bad = ~(np.isfinite(second) & (second >= 0.0)).all(axis=1)
        assert not bad.any(), (changed, z[bad][:3], target[bad][:3], second[bad][:3])


@pytest.mark.parametrize("k", [3, 100])
@pytest.mark.parametrize("kind", ["labels", "dense"])
def test_a_squared_log_sum_exp_counts_where_it_is_convex(kind, k):
    """The second derivative itself where the row's Hessian has no negative eigenvalue, and otherwise at least that."""
    rng = np.random.default_rng(11)
    z = rng.normal(0, 2, (40, k)) - rng.uniform(0, 60, (40, 1))
    z -= np.log(k)
    t = targets(rng, "cross_entropy", kind, len(z), k, np.float64)
    mass = 1.0 if kind == "labels" else t.sum(axis=1)
    lse = np.logaddexp.reduce(z, axis=1)
    p = np.exp(z - lse[:, None])
    for zeta in (1e-4, 0.03):
        pull = mass + 2 * zeta * lse
        exact = pull[:, None] * p * (1 - p) + 2 * zeta * p * p
        convex = np.where(pull[:, None] > 0, exact, 2 * zeta * p * p)
        for curvature, expected in (("exact", exact), ("surrogate", convex)):
            hess = ROWS["cross_entropy"].grad_and_hess(z, t, curvature=curvature, z_loss=zeta)[1]
            np.testing.assert_allclose(hess, expected, rtol=1e-12, atol=1e-14)
        assert (pull < 0).any() == (zeta == 0.03)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_finite_in_16_bits(dtype):
    z = np.array([[12.0, 1.0, 88.5, 100.0]], dtype)
    found = fl.exponential.grad_and_hess(z, np.full_like(z, -1), curvature="surrogate")[1]
    exact = np.minimum(np.exp(z.astype(np.float64)), float(ml_dtypes.finfo(dtype).max))
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=float(ml_dtypes.finfo(dtype).eps))
