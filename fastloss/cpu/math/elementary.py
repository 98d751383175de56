"""Builders of elementary scalar functions in one precision: exponentials, logarithms, angles, selections."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from ..runtime.specialize import SCALAR

__all__ = [
    "Exponentials",
    "Format",
    "Logarithms",
    "angles_of",
    "clip",
    "constants_of",
    "exponentials_of",
    "jit",
    "log1p_by_polynomial",
    "log1p_by_quotient",
    "logarithms_of",
    "logistic_of",
    "maximum",
    "minimum",
    "signing",
    "sqrt",
    "where",
]

jit = njit(**SCALAR)

_SATURATED = 40  # tanh(x) rounds to 1, and expm1(-x) to -1, from far below it on

_UNROLLED = 10  # LLVM fully unrolls loops of about this length; one that stays a loop costs a factor of 20.


@jit
def _horner(leading, coefficients, x):
    """Continue Horner's scheme with the next coefficients."""
    value = leading
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def _polynomial(coefficients):
    """Build the polynomial with the given coefficients, the highest power first."""
    split = max(1, len(coefficients) - _UNROLLED)
    tail = coefficients[split:]
    if split == 1:
        leading = coefficients[0]
        return jit(lambda x: _horner(leading, tail, x))
    head = _polynomial(coefficients[:split])
    return jit(lambda x: _horner(head(x), tail, x))


@jit
def clip(x, low, high):
    """Limit x to a range; NaN comes through."""
    x = high if x > high else x
    return low if x < low else x


@jit
def where(condition, a, b):
    """Return a where the condition holds, else b."""
    return a if condition else b


@jit
def maximum(a, b):
    """Return the larger of a and b, NaN if either is NaN."""
    return a if a > b or a != a else b


@jit
def minimum(a, b):
    """Return the smaller of a and b, NaN if either is NaN."""
    return a if a < b or a != a else b


@jit
def sqrt(x):
    """Return the correctly rounded square root."""
    return np.sqrt(x)


class Format:
    """Constants of a floating-point format, in that format."""

    def __init__(self, real, integer):
        info = np.finfo(real)
        self.real, self.integer = real, integer
        self.digits, self.bias = info.nmant, info.maxexp - 1
        self.tiny, self.largest = info.tiny, info.max
        self.shift = integer(self.digits)
        self.sign_mask = integer(np.iinfo(integer).min)
        self.magnitude_mask = integer(np.iinfo(integer).max)
        self.exponent_mask = integer(-(1 << self.digits))
        # Keeps so few leading bits that a product of two such numbers is exact.
        self.half_mask = integer(-(1 << (self.digits + 2) // 2))

    def magic(self, offset):
        """Return what rounds a number to an integer n when added to it, and leaves n + offset in the low bits."""
        return self.real(1.5 * 2**self.digits + offset)

    def polynomial(self, coefficients):
        """Build a polynomial in this format."""
        return _polynomial(tuple(self.real(c) for c in coefficients))


def log1p_by_polynomial(form, coefficients):
    """Build log1p around zero from the coefficients of (log1p(f) - f + f**2 / 2) / f**3."""
    half = form.real(0.5)
    cubic = form.polynomial(coefficients)
    # Multiplied by f twice, not by f * f, which underflows (slowly) where f**2 does not matter.
    return jit(lambda f: ((cubic(f) * f - half) * f) * f + f)


def log1p_by_quotient(form, coefficients):
    """Build log1p around zero from those of log((1 + s) / (1 - s)) / s - 2 in s**2, without the constant, 0."""
    half, two = form.real(0.5), form.real(2)
    even = form.polynomial(coefficients)

    @jit
    def log1p_tail(f):
        # log((1 + s) / (1 - s)) is odd in s: half as many coefficients as a series in f.
        s = f / (two + f)
        square = s * s
        hump = half * f * f
        return f - (hump - s * (hump + even(square) * square))

    return log1p_tail


class Exponentials(NamedTuple):
    """Exponential functions of one precision."""

    exp: Dispatcher
    expm1: Dispatcher
    exp_of_sum: Dispatcher
    """Exponential of a number and its small correction."""
    scale: Dispatcher
    """Product with a power of two."""


class Logarithms(NamedTuple):
    """Logarithms of one precision."""

    log: Dispatcher
    log1p: Dispatcher
    split: Dispatcher
    """Exponent and mantissa of a number."""
    log_edges: Dispatcher
    """Logarithm with its values at zero, infinity and below zero."""


def signing(form):
    """Build the function that copies a sign."""
    real, integer, sign_mask = form.real, form.integer, form.sign_mask

    @jit
    def with_sign(magnitude, x):
        """Set the sign bit if x has it: results that are zero or of the sign of x keep the sign of zero."""
        return integer(real(magnitude).view(integer) | (real(x).view(integer) & sign_mask)).view(real)

    return with_sign


def exponentials_of(form, tables):
    """Build the exponential functions of one precision."""
    real, integer, shift = form.real, form.integer, form.shift
    zero, half, one, int_one = real(0), real(0.5), real(1), integer(1)

    log2e = real(1 / math.log(2))
    ln2_high, ln2_low = real(tables["ln2"][0]), real(tables["ln2"][1])
    # e**exp_low rounds to zero and e**exp_high overflows; from `saturated` on, expm1(-x) is -1.
    exp_low, exp_high = real(-(form.bias + form.digits + 1) * math.log(2)), real((form.bias + 1.4) * math.log(2))
    saturated = real(_SATURATED)
    # Below it expm1(x) rounds to x.
    linear = real(2.0 ** -(form.digits + 3))
    exp_magic, expm1_magic = form.magic(2 * form.bias), form.magic(form.bias - 1)
    exp_series = form.polynomial(tables["exp"])

    @jit
    def scale(y, shifted):
        """Return y * 2**n from n + magic(2 * bias), in two factors: overflow, underflow and NaN need no selection."""
        bits = real(shifted).view(integer)
        first = integer(bits >> int_one)
        second = integer(bits - first)
        return y * integer(first << shift).view(real) * integer(second << shift).view(real)

    @jit
    def exp_of_sum(x, correction):
        """Return e**(x + correction) for a small correction."""
        # Zero by selection: a product that underflows costs Intel's CPUs over a hundred cycles.
        vanishes = x < exp_low
        x = zero if vanishes else (exp_high if x > exp_high else x)
        shifted = x * log2e + exp_magic
        # The nearest integer, without a conversion: adding 1.5 * 2**digits rounds, and the low bits are n.
        n = shifted - exp_magic
        # ln 2 in two parts (Cody and Waite): n times the high part is exact, so that r keeps the digits of x.
        r = (x - n * ln2_high) - n * ln2_low + correction
        # The small terms first: 1 is added last, so one rounding of the result remains.
        result = scale(exp_series(r) * (r * r) + r + one, shifted)
        return zero if vanishes else result

    @jit
    def exp(x):
        """Return e**x."""
        return exp_of_sum(x, zero)

    @jit
    def expm1(x):
        """Return e**x - 1, accurate near zero."""
        y = clip(x, -saturated, exp_high)
        shifted = y * log2e + expm1_magic
        n = shifted - expm1_magic
        r = (y - n * ln2_high) - n * ln2_low
        change = exp_series(r) * (r * r) + r
        half_scale = integer(real(shifted).view(integer) << shift).view(real)
        result = half_scale * change + (half_scale - half)
        # Keeps the digits of a subnormal x, of which half_scale would drop the last, and the sign of zero.
        return x if abs(x) < linear else result + result

    return Exponentials(exp, expm1, exp_of_sum, scale)


def logarithms_of(form, log1p_tail, with_sign, tables):
    """Build the logarithms of one precision."""
    real, integer = form.real, form.integer
    magnitude_mask, exponent_mask = form.magnitude_mask, form.exponent_mask
    exponent_unit = real(2.0**-form.digits)
    zero, one, inf, nan, tiny = real(0), real(1), real(np.inf), real(np.nan), form.tiny
    int_zero, one_bits = integer(0), integer(form.bias << form.digits)

    ln2 = real(math.log(2))
    subnormal_scale, subnormal_exponent = real(2.0 ** (form.digits + 1)), real(-(form.digits + 1))
    log_origin = integer(tables["log_origin"])

    @jit
    def log_edges(y, x):
        """Return y, the logarithm of x, with its values where x is not positive and finite."""
        y = y if x > zero else (-inf if x == zero else nan)
        return y if x < inf else x

    @jit
    def split(x):
        """Return k and m, m * 2**k = x, with m around one from log_origin to twice that."""
        subnormal = x < tiny
        # A subnormal number has fewer digits than its exponent says: it is made normal, exactly.
        scaled = x * subnormal_scale if subnormal else x
        bits = integer(real(scaled).view(integer) & magnitude_mask)
        exponent = integer(integer(bits - log_origin) & exponent_mask)
        k = real(exponent) * exponent_unit + (subnormal_exponent if subnormal else zero)
        return k, integer(bits - exponent).view(real)

    @jit
    def log(x):
        """Return the natural logarithm."""
        k, m = split(x)
        return log_edges(k * ln2 + log1p_tail(m - one), x)

    @jit
    def log1p(x):
        """Return log(1 + x), accurate near zero."""
        u = one + x
        # What rounding 1 + x lost: the digits that a small x has and 1 + x has not.
        lost = x - (u - one)
        bits = integer(real(u).view(integer) & magnitude_mask)
        exponent = integer(integer(bits - log_origin) & exponent_mask)
        k = real(exponent) * exponent_unit
        rescale = integer(one_bits - exponent if exponent < one_bits else int_zero).view(real)
        f = (integer(bits - exponent).view(real) - one) + lost * rescale
        return with_sign(log_edges(k * ln2 + log1p_tail(f), u), x)

    return Logarithms(log, log1p, split, log_edges)


def angles_of(form, exp, with_sign, tables):
    """Build the hyperbolic tangent and the arc tangent of one precision."""
    real = form.real
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    # From `saturated` on, tanh(x) is 1.
    tanh_series, tanh_switch, saturated = form.polynomial(tables["tanh"]), real(0.55), real(_SATURATED)
    atan_series = form.polynomial(tables["atan"])
    atan_flat, atan_steep = real(math.sqrt(2) - 1), real(math.sqrt(2) + 1)
    half_pi_high, half_pi_low = real(tables["half_pi"][0]), real(tables["half_pi"][1])

    @jit
    def tanh(x):
        """Return the hyperbolic tangent."""
        a = abs(x)
        a = saturated if a > saturated else a
        square = a * a
        small = tanh_series(square) * square * a + a
        large = one - two / (exp(a + a) + one)
        return with_sign(small if a < tanh_switch else large, x)

    @jit
    def atan(x):
        """Return the angle of slope x."""
        a = abs(x)
        steep = a > atan_steep
        middle = a > atan_flat
        # The angle less 90 or 45 degrees, so that its tangent is below that of 22.5.
        top = -one if steep else (a - one if middle else a)
        bottom = a if steep else (a + one if middle else one)
        f = top / bottom
        square = f * f
        low = half_pi_low if steep else (half * half_pi_low if middle else zero)
        high = half_pi_high if steep else (half * half_pi_high if middle else zero)
        return with_sign(high + ((atan_series(square) * square * f + low) + f), x)

    return tanh, atan


def logistic_of(form, exp, log1p_unit):
    """Build the logistic functions of one precision."""
    zero, one = form.real(0), form.real(1)

    @jit
    def softplus(x):
        """Return log(1 + e**x)."""
        return (x if x > zero else zero) + log1p_unit(exp(-abs(x)))

    @jit
    def sigmoid(x):
        """Return 1 / (1 + e**-x)."""
        e = exp(-abs(x))
        return (e if x < zero else one) / (one + e)

    return softplus, sigmoid


def constants_of(form):
    """Build the sign, and the functions that return constants of one precision."""
    zero, one, exponent_unit, most = form.real(0), form.real(1), form.real(2.0**-form.digits), form.largest

    @jit
    def sign(x):
        """Return -1, 0 or 1, NaN at NaN."""
        return one if x > zero else (-one if x < zero else x)

    @jit
    def epsilon(x):
        """Return the distance from 1 to the next larger number."""
        return exponent_unit

    @jit
    def largest(x):
        """Return the largest finite number."""
        return most

    return sign, epsilon, largest
