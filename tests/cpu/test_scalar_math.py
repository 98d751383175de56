"""The scalar vocabulary against mpmath: accuracy, special values, and that its loops vectorise."""

import functools
import os
import platform
import re
import subprocess
import sys

import mpmath
import numpy as np
import pytest
from numba import config, njit

from fastloss.cpu.math.scalar_math import VOCABULARY

DTYPES = ["float32", "float64"]
TINIEST = {"float32": 2.0**-149, "float64": 2.0**-1074}
FLAGS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy"}
mpmath.mp.prec = 120

REFERENCE = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "log1p_unit": mpmath.log1p,
    "expm1": mpmath.expm1,
    "tanh": mpmath.tanh,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sqrt": mpmath.sqrt,
    "lgamma": mpmath.loggamma,
    "digamma": lambda x: mpmath.digamma(x) if x > 1e-20 else -1 / x - mpmath.euler,
    "trigamma": lambda x: mpmath.psi(1, x) if x > 1e-20 else 1 / x**2,
    "ndtr": mpmath.ncdf,
    "atan": mpmath.atan,
    "mills": lambda x: mpmath.ncdf(-x) / mpmath.npdf(x) if x < 1e6 else (1 - 1 / x**2) / x,
}
ELEMENTARY = ["exp", "log", "log1p", "log1p_unit", "expm1", "tanh", "atan", "softplus", "sigmoid"]
SPECIAL = ["lgamma", "digamma", "trigamma", "ndtr", "mills"]
UNARY = [*ELEMENTARY, *SPECIAL, "sqrt", "sign"]
BINARY = ["pow", "maximum", "minimum"]


@functools.cache
def compiled(dtype, name):
    """Return a loop over one function of the vocabulary."""
    function = VOCABULARY[dtype][name]
    if name in BINARY:

        @njit(**FLAGS)
        def loop(x, y, out):
            for i in range(x.size):
                out[i] = function(x[i], y[i])

    else:

        @njit(**FLAGS)
        def loop(x, out):
            for i in range(x.size):
                out[i] = function(x[i])

    return loop


def evaluate(dtype, name, *arguments):
    """Return the function of the vocabulary at arrays of arguments."""
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, dtype)) for a in arguments))
    arrays = [a.copy() for a in arrays]
    out = np.empty_like(arrays[0])
    with np.errstate(all="ignore"):  # matters with the JIT off only
        compiled(dtype, name)(*arrays, out)
    return out


def random_bits(rng, dtype, n):
    """Return floats with random bit patterns, NaN left out."""
    unsigned = np.uint32 if dtype == "float32" else np.uint64
    x = rng.integers(0, np.iinfo(unsigned).max, n, dtype=unsigned, endpoint=True).view(dtype)
    return x[~np.isnan(x)]


def points(dtype, name, n=250):
    """Return seeded arguments in all regions where a function may go wrong."""
    rng = np.random.default_rng(20)
    low, high = (-106.0, 91.0) if dtype == "float32" else (-747.0, 711.0)
    signs = rng.choice([-1, 1], n)
    if name == "log1p_unit":
        parts = [rng.random(8 * n), 10.0 ** rng.uniform(-40, 0, n), [0.0, 1.0]]
    elif name == "ndtr":
        lowest = -39 if dtype == "float64" else -14
        parts = [rng.uniform(lowest, 9, 3 * n), rng.uniform(-2, 2, n), -(10.0 ** rng.uniform(-9, 1, n))]
    else:
        parts = [
            random_bits(rng, dtype, 2 * n),
            rng.uniform(-1, 1, n),
            rng.uniform(-4, 4, n),
            rng.uniform(0, 12, n),
            rng.uniform(low, high, 2 * n),
            signs * 10.0 ** rng.uniform(-20, 2, n),
            1 + signs * 10.0 ** rng.uniform(-16, -1, n),
            2 + signs * 10.0 ** rng.uniform(-16, -1, n),
            -1 + 10.0 ** rng.uniform(-16, 0, n),
            np.exp(rng.uniform(low, high - 2.5, n)),
            TINIEST[dtype] * rng.integers(1, 2**20, n),
        ]
    x = np.concatenate([np.asarray(p, dtype) for p in parts])
    lowest = {"log": 0.0, "sqrt": 0.0, "log1p": -1.0, "lgamma": 0.0, "digamma": 0.0, "trigamma": 0.0, "mills": 0.0}
    return x[x > lowest.get(name, -np.inf)]


def errors(dtype, got, want):
    """Return the errors in units of the last place of the exact value, subnormal places included."""
    info = np.finfo(dtype)
    overflow = mpmath.mpf(float(info.max)) * (1 + mpmath.mpf(2) ** (-info.nmant - 2))
    result = []
    for g, w in zip(got.tolist(), want, strict=True):
        if abs(w) >= overflow or not np.isfinite(g):
            result.append(0.0 if abs(w) >= overflow and np.isinf(g) and (g > 0) == (w > 0) else np.inf)
            continue
        exponent = max(mpmath.frexp(w)[1] - 1, info.minexp) if w else info.minexp
        result.append(float(abs(mpmath.mpf(g) - w) / mpmath.mpf(2) ** (exponent - info.nmant)))
    return np.array(result)


def exact(name, x):
    """Return mpmath's values."""
    return [REFERENCE[name](mpmath.mpf(float(v))) for v in x]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ELEMENTARY, "sqrt"])
def test_elementary_functions_within_two_and_a_half_ulp(dtype, name):
    x = points(dtype, name)
    x = x[np.isfinite(x)]
    error = errors(dtype, evaluate(dtype, name, x), exact(name, x))
    worst = int(np.argmax(error))
    assert error[worst] <= (0.5 if name == "sqrt" else 2.5), (x[worst], error[worst])


@pytest.mark.parametrize("dtype", DTYPES)
def test_pow_within_two_and_a_half_ulp(dtype):
    rng = np.random.default_rng(21)
    n, top = 600, np.finfo(dtype).maxexp
    x = [
        np.abs(random_bits(rng, dtype, n)),
        10.0 ** rng.uniform(-3, 3, n),
        1 + rng.uniform(-1, 1, n) * 10.0 ** rng.uniform(-15, 0, n),
        2.0 ** rng.uniform(-top + 2, top - 1, n),
        TINIEST[dtype] * rng.integers(1, 2**20, n),
    ]
    x = np.concatenate([np.asarray(p, dtype) for p in x])
    x = x[np.isfinite(x) & (x > 0) & (x != 1)]
    near_limits = (rng.uniform(-1.2, 1.1, x.size) * top / np.log2(x.astype(np.float64))).astype(dtype)
    x = np.concatenate([x, x])
    y = np.concatenate([near_limits, np.asarray(rng.uniform(-4, 4, near_limits.size), dtype)])
    want = [mpmath.mpf(float(a)) ** mpmath.mpf(float(b)) for a, b in zip(x, y, strict=True)]
    error = errors(dtype, evaluate(dtype, "pow", x, y), want)
    worst = int(np.argmax(error))
    assert error[worst] <= 2.5, (x[worst], y[worst], error[worst])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_functions_close(dtype, name):
    x = points(dtype, name, 120)
    # mpmath needs minutes for lgamma of huge numbers at full precision of the argument; they reduce to a product.
    x = x[np.isfinite(x) & (np.abs(x) < (1e30 if dtype == "float32" else 1e100))]
    want = exact(name, x)
    got = evaluate(dtype, name, x)
    relative = {"float32": 1e-6, "float64": 1e-14}[dtype]
    absolute = 6 * float(np.finfo(dtype).eps) if name == "digamma" else 0.0
    bound = np.maximum(6, relative / float(np.finfo(dtype).eps))
    error = errors(dtype, got, want)
    apart = np.array([float(abs(mpmath.mpf(float(g)) - w)) for g, w in zip(got, want, strict=True)])
    bad = (error > bound) & ~(apart <= absolute)
    assert not bad.any(), (x[bad], error[bad])


INF, NAN = np.inf, np.nan
SPECIAL_VALUES = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, INF), (-1e4, 0.0)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-40, NAN), (NAN, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-INF, NAN), (-1.5, NAN), (NAN, NAN)],
    "log1p_unit": [(0.0, 0.0), (NAN, NAN)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (NAN, NAN), (1e4, INF), (-1e4, -1.0)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (NAN, NAN), (1e4, 1.0), (-1e4, -1.0)],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (1.0, np.pi / 4), (INF, np.pi / 2), (-INF, -np.pi / 2), (NAN, NAN)],
    "softplus": [(INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, 1e4), (-1e4, 0.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (NAN, NAN), (1e4, 1.0), (-1e4, 0.0)],
    "sqrt": [(0.0, 0.0), (4.0, 2.0), (INF, INF), (-1.0, NAN), (NAN, NAN)],
    "sign": [(0.0, 0.0), (-0.0, 0.0), (3.0, 1.0), (-3.0, -1.0), (INF, 1.0), (-INF, -1.0), (NAN, NAN)],
    "lgamma": [(0.0, INF), (1.0, 0.0), (2.0, 0.0), (INF, INF), (-0.5, NAN), (-INF, NAN), (NAN, NAN)],
    "digamma": [(0.0, -INF), (INF, INF), (-0.5, NAN), (-INF, NAN), (NAN, NAN)],
    "trigamma": [(0.0, INF), (INF, 0.0), (-0.5, NAN), (-INF, NAN), (NAN, NAN)],
    "mills": [(INF, 0.0), (-0.5, NAN), (-INF, NAN), (NAN, NAN)],
    "ndtr": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (NAN, NAN), (1e4, 1.0), (-1e4, 0.0)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SPECIAL_VALUES)
def test_special_values(dtype, name):
    x, want = np.array(SPECIAL_VALUES[name]).T
    got = evaluate(dtype, name, x)
    np.testing.assert_array_equal(got, want.astype(dtype))
    if name in ("log1p", "expm1", "tanh", "atan"):
        assert not np.signbit(got[0])
        assert np.signbit(got[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_with_any_payload_stays_nan(dtype):
    unsigned, quiet = (np.uint32, 0x7FC00000) if dtype == "float32" else (np.uint64, 0x7FF8000000000000)
    x = (np.random.default_rng(3).integers(0, 2**22, 64).astype(unsigned) | unsigned(quiet)).view(dtype)
    for name in UNARY:
        assert np.isnan(evaluate(dtype, name, np.concatenate([x, -x]))).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_of_pow(dtype):
    largest, smallest = float(np.finfo(dtype).max), TINIEST[dtype]
    x = np.array([0.0, 1.0, INF, NAN, 2.0, 0.5, 4.0, largest, smallest], dtype)
    y = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, smallest, largest, -largest, 2.0], dtype)
    x, y = (a.ravel() for a in np.meshgrid(x, y))
    with np.errstate(all="ignore"):
        want = np.power(x, y)
    np.testing.assert_array_max_ulp(evaluate(dtype, "pow", x, y), want, 1)
    assert np.isnan(evaluate(dtype, "pow", [-1.0, -0.5, -INF], [2.0, 0.5, 3.0])).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_extrema_propagate_nan(dtype):
    x, y = [1.0, 2.0, NAN, 1.0, NAN, -INF], [2.0, 1.0, 1.0, NAN, NAN, INF]
    for name in ("maximum", "minimum"):
        np.testing.assert_array_equal(evaluate(dtype, name, x, y), getattr(np, name)(x, y).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_where_chooses(dtype):
    where, real = VOCABULARY[dtype]["where"], np.dtype(dtype).type

    @njit(**FLAGS)
    def choose(condition):
        return where(condition, real(1), real(2))

    assert choose(True) == 1
    assert choose(False) == 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "thresholds"),
    [
        ("exp", (-103.97, -87.34, -0.3465, 0.3465, 88.72, -745.1, -708.4, 709.78)),
        ("expm1", (-20.0, -40.0, -0.3465, 0.3465, 88.72, 709.78)),
        ("log", (2 / 3, 4 / 3, 2**-0.5, 2**0.5, 1.0, 2.0**-126, 2.0**127)),
        ("log1p", (-1 / 3, 1 / 3, 2**0.5 - 1, -1 + 2**-0.5, 0.0, 2.0**127)),
        ("tanh", (-0.55, 0.55, 10.0, 20.0)),
        ("softplus", (-87.34, 0.0, 20.0, -708.4)),
        ("sigmoid", (-87.34, 0.0, -708.4)),
        ("atan", (2**0.5 - 1, 2**0.5 + 1, -(2**0.5) + 1, -(2**0.5) - 1)),
        ("ndtr", (-14.0, 0.0, -38.0)),
    ],
)
def test_no_jump_at_thresholds(dtype, name, thresholds):
    for threshold in thresholds:
        spacing = abs(np.spacing(np.asarray(threshold, dtype)))
        x = np.asarray(threshold, dtype) + spacing * np.arange(-64, 65).astype(dtype)
        y = evaluate(dtype, name, x)
        y = y[np.isfinite(y)]
        # Neighbours may change places within the error bound, never by more.
        assert (np.diff(y) >= -4 * np.spacing(np.abs(y[1:]))).all(), threshold


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_underflow_gradually(dtype):
    bottom, info = TINIEST[dtype], np.finfo(dtype)
    x = np.linspace(np.log(bottom) + 0.5, np.log(float(info.tiny)) - 0.5, 40).astype(dtype)
    for name in ("exp", "softplus", "sigmoid"):
        y = evaluate(dtype, name, x)
        assert ((y > 0) & (y < info.tiny)).all(), name
        assert errors(dtype, y, exact(name, x)).max() <= 2
    inputs = np.asarray(bottom, dtype) * np.arange(1, 50).astype(dtype)
    for name in ("log1p", "log1p_unit", "expm1", "tanh", "atan"):
        assert np.abs(evaluate(dtype, name, inputs) - inputs).max() <= 2 * bottom, name


def native_assembly(function):
    """Return the assembly of the loop itself, without the wrappers that Python calls."""
    (text,) = function.inspect_asm().values()
    parts = re.split(r"^(_Z\w+|\w+\.\w+):", text, flags=re.MULTILINE)
    return next(body for name, body in zip(parts[1::2], parts[2::2], strict=True) if "cpython" not in name)


@pytest.mark.skipif(config.DISABLE_JIT, reason="needs compiled code")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 assembly")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_loops_vectorise(dtype, name):
    evaluate(dtype, name, *[[1.0]] * (2 if name in BINARY else 1))
    assembly = native_assembly(compiled(dtype, name))
    assert not re.findall(r"\bcallq?\b.*", assembly)
    arithmetic = r"\bv?(?:add|sub|mul|div|sqrt|min|max|cmp\w*|blendv?|blendm|mov[au]|fn?m(?:add|sub)\d+)p{}\b.*%[xyz]mm"
    suffix = "s" if dtype == "float32" else "d"
    assert re.findall(arithmetic.format(suffix), assembly)
    if dtype == "float32" and name != "pow":
        assert not re.findall(r"\bv?(?:add|sub|mul|div|sqrt|cvt\w*2|fn?m(?:add|sub)\d+)[ps]d\b", assembly)


PLAIN_PYTHON = """
import math, warnings
import numpy as np
warnings.simplefilter("error")
from fastloss.cpu.math.scalar_math import VOCABULARY
for dtype, words in VOCABULARY.items():
    real, tolerance = np.dtype(dtype).type, 20 * np.finfo(dtype).eps
    for name in ("exp", "log", "log1p", "expm1", "tanh", "atan", "sqrt", "lgamma"):
        for x in (0.3, 1.7, 30.0):
            got = words[name](real(x))
            assert type(got) is real, (name, got)
            want = getattr(math, name)(real(x))
            assert math.isclose(got, want, rel_tol=tolerance, abs_tol=tolerance), (dtype, name, x, got)
    assert words["pow"](real(2), real(3)) == 8 and type(words["pow"](real(2), real(3))) is real
    for x in (-math.inf, -1e4, -2.0, 0.0, 2.0, 1e4, math.inf, math.nan):
        for name in ("tanh", "atan", "softplus", "sigmoid", "ndtr", "mills", "log", "sign"):
            words[name](real(x))
    for x in (-math.inf, -1e4, math.nan):
        words["exp"](real(x)), words["expm1"](real(x))
"""


def test_plain_python_agrees_without_warnings():
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-c", PLAIN_PYTHON], env=environment, check=True)
