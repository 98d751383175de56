"""Other worlds for a formula, as oracles: 50 digits (mpmath), symbols (SymPy), and plain NumPy of one precision.

A formula is carried by its text: float literals become numbers of the world, its words the world's functions, and the
functions it calls are carried along. Independent of the package's own way of doing so.
"""

import math
from fractions import Fraction
from types import FunctionType

import mpmath as mp
import numpy as np
import sympy as sp

DIGITS = 50
mp.mp.dps = DIGITS

IRRATIONAL = {
    0.6931471805599453: lambda m: m.log(2),
    0.34657359027997264: lambda m: m.log(2) / 2,
    45.747713916956386: lambda m: 66 * m.log(2),
    0.7071067811865476: lambda m: 1 / m.sqrt(2),
    1.4142135623730951: lambda m: m.sqrt(2),
    0.7978845608028654: lambda m: m.sqrt(2 / m.pi),
    0.5641895835477563: lambda m: 1 / m.sqrt(m.pi),
    0.3989422804014327: lambda m: 1 / m.sqrt(2 * m.pi),
    0.8105694691387022: lambda m: 8 / m.pi**2,
    -0.8105694691387022: lambda m: -8 / m.pi**2,
    0.4052847345693511: lambda m: 4 / m.pi**2,
    0.9189385332046727: lambda m: m.log(2 * m.pi) / 2,
    1.8378770664093453: lambda m: m.log(2 * m.pi),
    6.283185307179586: lambda m: 2 * m.pi,
}


def exact(x: float) -> Fraction:
    """The number meant by a float literal: 1/3 for 0.333..., 1/16! for 4.779...e-14, and otherwise the float itself."""
    simple = Fraction(x).limit_denominator(10**6)
    if float(simple) == x:
        return simple
    # Beyond 10**14, reciprocals lie closer than floats: each float would be one.
    whole = Fraction(1, round(1 / x)) if 1e-14 < abs(x) < 1e-6 else simple
    return whole if float(whole) == x else Fraction(x)


def mp_number(x: float):
    if x in IRRATIONAL:
        return IRRATIONAL[x](mp)
    if math.isinf(x) or math.isnan(x):
        return mp.mpf(x)
    value = exact(x)
    return mp.mpf(value.numerator) / value.denominator


def sp_number(x: float):
    return IRRATIONAL[x](sp) if x in IRRATIONAL else sp.Rational(exact(x)) if math.isfinite(x) else sp.S(x)


def _mp_log(x):
    return -mp.inf if x == 0 else mp.log(x) if x > 0 else mp.nan


def _mp_log1p(x):
    return mp.log1p(x) if x > -1 else _mp_log(1 + x)


def _mp_gamma_ratio(n):
    h = mp.mpf(1) / 2
    value = mp.loggamma(n + h) - mp.loggamma(n) - mp.log(n) / 2
    return value, mp.psi(0, n + h) - mp.psi(0, n), mp.psi(1, n + h) - mp.psi(1, n)


MP_WORDS = {
    "abs": abs,
    "atan": mp.atan,
    "digamma": lambda x: mp.psi(0, x),
    "epsilon": lambda x: mp.mpf(2) ** -52,
    "exp": mp.exp,
    "expm1": mp.expm1,
    "largest": lambda x: (2 - mp.mpf(2) ** -52) * mp.mpf(2) ** 1023,
    "lgamma": mp.loggamma,
    "log": _mp_log,
    "log1p": _mp_log1p,
    "log1p_unit": _mp_log1p,
    "maximum": max,
    "mills": lambda x: mp.ncdf(-x) / mp.npdf(x),
    "minimum": min,
    "ndtr": mp.ncdf,
    "pow": mp.power,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "sign": mp.sign,
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "sqrt": mp.sqrt,
    "tanh": mp.tanh,
    "trigamma": lambda x: mp.psi(1, x),
    "where": lambda c, a, b: a if c else b,
    # Series of 17 digits in the formulas: their sums.
    "log1p_minus": lambda x: mp.log1p(x) - x,
    "normal_within": lambda x: mp.erf(x / mp.sqrt(2)),
    "gamma_ratio": _mp_gamma_ratio,
    "lgamma_tail": lambda x: mp.loggamma(x) - (x - mp.mpf(1) / 2) * mp.log(x) + x - mp.log(2 * mp.pi) / 2,
    "digamma_tail": lambda x: mp.log(x) - 1 / (2 * x) - mp.psi(0, x),
    "trigamma_tail": lambda x: mp.psi(1, x) - 1 / x - 1 / (2 * x * x),
}


def _sp_gamma_ratio(n):
    value = sp.loggamma(n + sp.Rational(1, 2)) - sp.loggamma(n)
    x = sp.Dummy("x", positive=True)
    first = sp.digamma(x + sp.Rational(1, 2)) - sp.digamma(x)
    return value - sp.log(n) / 2, first.subs(x, n), sp.diff(first, x).subs(x, n)


def sp_words(x, point) -> dict:
    """The words on expressions of the symbol x; conditions are decided at a point, which leaves smooth expressions."""

    def where(condition, a, b):
        return a if sp.sympify(condition).subs(x, point) == True else b  # noqa: E712

    def minimum(a, b):
        # SymPy would decide by exact powers: of barron with alpha = -inf they have 10^18 digits.
        if sp.sympify(a - b).has(x):
            found = [sp.lambdify(x, v, "mpmath")(mp.mpf(point.p) / point.q) for v in (a, b)]
            return a if found[0] < found[1] else b
        return where(a < b, a, b)

    return {
        "abs": lambda x: where(x >= 0, x, -x),
        "atan": sp.atan,
        "digamma": sp.digamma,
        "epsilon": lambda x: sp.Rational(1, 2**52),
        "exp": sp.exp,
        "expm1": lambda x: sp.exp(x) - 1,
        "largest": lambda x: sp.Integer(int(np.finfo(float).max)),
        "lgamma": sp.loggamma,
        "log": sp.log,
        "log1p": lambda x: sp.log(1 + x),
        "log1p_unit": lambda x: sp.log(1 + x),
        "maximum": lambda a, b: where(a > b, a, b),
        "mills": lambda x: (1 - sp.erf(x / sp.sqrt(2))) * sp.exp(x * x / 2) * sp.sqrt(sp.pi / 2),
        "minimum": minimum,
        "ndtr": lambda x: (1 + sp.erf(x / sp.sqrt(2))) / 2,
        "pow": lambda x, y: sp.S(1) if y == 0 else x**y,
        "sigmoid": lambda x: 1 / (1 + sp.exp(-x)),
        "sign": lambda x: where(x > 0, sp.S(1), where(x < 0, sp.S(-1), sp.S(0))),
        "softplus": lambda x: sp.log(1 + sp.exp(x)),
        "sqrt": sp.sqrt,
        "tanh": sp.tanh,
        "trigamma": lambda x: sp.polygamma(1, x),
        "where": where,
        "log1p_minus": lambda x: sp.log(1 + x) - x,
        "normal_within": lambda x: sp.erf(x / sp.sqrt(2)),
        "gamma_ratio": _sp_gamma_ratio,
        "lgamma_tail": lambda x: sp.loggamma(x) - (x - sp.Rational(1, 2)) * sp.log(x) + x - sp.log(2 * sp.pi) / 2,
        "digamma_tail": lambda x: sp.log(x) - 1 / (2 * x) - sp.digamma(x),
        "trigamma_tail": lambda x: sp.polygamma(1, x) - 1 / x - 1 / (2 * x * x),
    }


def _each(f):
    """f of a float64 scalar, over arrays, rounded once to their type."""
    g = np.vectorize(f, otypes=[np.float64])
    return lambda x: g(np.asarray(x, np.float64)).astype(x.dtype)


def np_words(dtype) -> dict:
    """The words on arrays of one type; the special functions by way of 30 digits."""
    number = np.dtype(dtype).type

    def special(f):
        return _each(lambda x: float(f(mp.mpf(x))))

    return {
        "abs": np.abs,
        "atan": np.arctan,
        "digamma": special(lambda x: mp.psi(0, x)),
        "epsilon": lambda x: np.finfo(dtype).eps,
        "exp": np.exp,
        "expm1": np.expm1,
        "largest": lambda x: np.finfo(dtype).max,
        "lgamma": special(mp.loggamma),
        "log": np.log,
        "log1p": np.log1p,
        "log1p_unit": np.log1p,
        "maximum": np.maximum,
        "mills": special(lambda x: mp.ncdf(-x) / mp.npdf(x)),
        "minimum": np.minimum,
        "ndtr": special(mp.ncdf),
        "pow": np.power,
        "sigmoid": lambda x: number(1) / (number(1) + np.exp(-x)),
        "sign": np.sign,
        "softplus": lambda x: np.logaddexp(number(0), x),
        "sqrt": np.sqrt,
        "tanh": np.tanh,
        "trigamma": special(lambda x: mp.psi(1, x)),
        "where": np.where,
    }


def retyped(c, literal):
    """A constant of a function's code with every float in it made a number of the world."""
    if isinstance(c, tuple):
        return tuple(retyped(x, literal) for x in c)
    return literal(c) if isinstance(c, float) else c


def carry(function, literal, words: dict):
    """The text of a formula with other literals and other words, and so every function it calls."""
    code = function.__code__
    constants = tuple(retyped(c, literal) for c in code.co_consts)
    names = {"__builtins__": {}}
    for name in code.co_names:
        if name in words:
            names[name] = words[name]
        else:
            names[name] = carry(function.__globals__[name], literal, words)
    return FunctionType(code.replace(co_consts=constants), names, function.__name__)


def in_mpmath(function):
    """The formula at 50 digits."""
    return carry(function, mp_number, MP_WORDS)


def in_sympy(function, x, point):
    """The formula on expressions of the symbol x, on the branch that it takes at a point."""
    return carry(function, sp_number, sp_words(x, point))


def in_numpy(function, dtype):
    """The formula on arrays, every operation rounded to one type."""
    return carry(function, np.dtype(dtype).type, np_words(dtype))
