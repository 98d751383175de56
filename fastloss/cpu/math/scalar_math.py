"""Scalar functions that LLVM vectorises: one vocabulary in float32 and in float64.

Greatest error in ulp / ns per element (one thread, in cache, 512-bit vectors, Xeon with AVX-512, numba 0.68.1);
elementary float32 over all bit patterns. With the JIT off, overflow, poles and log1p(inf) give NumPy's warnings.

            float32      float64                float32      float64                float32      float64
exp         1.02 / 0.20  1.02 / 0.56   tanh     1.47 / 0.40  1.46 / 1.18   lgamma   5.8 / 0.9    6.3 / 2.9
log         0.95 / 0.28  1.21 / 0.74   softplus 2.00 / 0.37  1.95 / 1.45   digamma  3 eps / 0.6  6 eps / 1.9
log1p       1.55 / 0.32  1.79 / 0.81   sigmoid  2.41 / 0.31  2.39 / 0.78   trigamma 4.5 / 0.4    3.8 / 1.2
log1p_unit  1.40 / 0.14  1.39 / 0.62   pow      0.67 / 1.45  1.69 / 3.7    ndtr     6.1 / 0.7    3.8 / 2.4
expm1       1.46 / 0.18  2.07 / 0.53   atan     1.73 / 0.38  1.28 / 0.95   mills    5.8 / 0.4    5.2 / 1.4
(digamma: error / max(1, |digamma(x)|))
"""

import math

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from ..runtime.specialize import SCALAR
from .coefficients import TABLES32, TABLES64, TABLES_POW

__all__ = ["VOCABULARY"]

_jit = njit(**SCALAR)

_UNROLLED = 10  # LLVM fully unrolls loops of about this length; one that stays a loop costs a factor of 20.


@_jit
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
        return _jit(lambda x: _horner(leading, tail, x))
    head = _polynomial(coefficients[:split])
    return _jit(lambda x: _horner(head(x), tail, x))


@_jit
def _clip(x, low, high):
    """Limit x to a range; NaN comes through."""
    x = high if x > high else x
    return low if x < low else x


@_jit
def where(condition, a, b):
    """Return a where the condition holds, else b."""
    return a if condition else b


@_jit
def maximum(a, b):
    """Return the larger of a and b, NaN if either is NaN."""
    return a if a > b or a != a else b


@_jit
def minimum(a, b):
    """Return the smaller of a and b, NaN if either is NaN."""
    return a if a < b or a != a else b


@_jit
def sqrt(x):
    """Return the correctly rounded square root."""
    return np.sqrt(x)


class _Format:
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


def _log1p_by_polynomial(form, coefficients):
    """Build log1p around zero from the coefficients of (log1p(f) - f + f**2 / 2) / f**3."""
    half = form.real(0.5)
    cubic = form.polynomial(coefficients)
    # Multiplied by f twice, not by f * f, which underflows (slowly) where f**2 does not matter.
    return _jit(lambda f: ((cubic(f) * f - half) * f) * f + f)


def _log1p_by_quotient(form, coefficients):
    """Build log1p around zero from those of log((1 + s) / (1 - s)) / s - 2 in s**2, without the constant, 0."""
    half, two = form.real(0.5), form.real(2)
    even = form.polynomial(coefficients)

    @_jit
    def log1p_tail(f):
        s = f / (two + f)
        square = s * s
        hump = half * f * f
        return f - (hump - s * (hump + even(square) * square))

    return log1p_tail


def _elementary(form, log1p_tail, log1p_unit, tables):
    """Build the exponential and logarithmic functions of one precision."""
    real, integer = form.real, form.integer
    shift, sign_mask, magnitude_mask = form.shift, form.sign_mask, form.magnitude_mask
    exponent_mask, exponent_unit = form.exponent_mask, real(2.0**-form.digits)
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    inf, nan, tiny, most = real(np.inf), real(np.nan), form.tiny, form.largest
    int_zero, int_one, one_bits = integer(0), integer(1), integer(form.bias << form.digits)

    log2e, ln2 = real(1 / math.log(2)), real(math.log(2))
    ln2_high, ln2_low = real(tables["ln2"][0]), real(tables["ln2"][1])
    # e**exp_low rounds to zero and e**exp_high overflows; from `saturated` on, expm1(-x) is -1 and tanh(x) is 1.
    exp_low, exp_high = real(-(form.bias + form.digits + 1) * math.log(2)), real((form.bias + 1.4) * math.log(2))
    saturated = real(40)
    # Below it expm1(x) rounds to x.
    linear = real(2.0 ** -(form.digits + 3))
    exp_magic, expm1_magic = form.magic(2 * form.bias), form.magic(form.bias - 1)
    exp_series = form.polynomial(tables["exp"])
    tanh_series = form.polynomial(tables["tanh"])
    tanh_switch = real(0.55)
    atan_series = form.polynomial(tables["atan"])
    atan_flat, atan_steep = real(math.sqrt(2) - 1), real(math.sqrt(2) + 1)
    half_pi_high, half_pi_low = real(tables["half_pi"][0]), real(tables["half_pi"][1])

    subnormal_scale, subnormal_exponent = real(2.0 ** (form.digits + 1)), real(-(form.digits + 1))
    log_origin = integer(tables["log_origin"])

    @_jit
    def with_sign(magnitude, x):
        """Set the sign bit if x has it: results that are zero or of the sign of x keep the sign of zero."""
        return integer(real(magnitude).view(integer) | (real(x).view(integer) & sign_mask)).view(real)

    @_jit
    def scale(y, shifted):
        """Return y * 2**n from n + magic(2 * bias), in two factors: overflow, underflow and NaN need no selection."""
        bits = real(shifted).view(integer)
        first = integer(bits >> int_one)
        second = integer(bits - first)
        return y * integer(first << shift).view(real) * integer(second << shift).view(real)

    @_jit
    def exp_of_sum(x, correction):
        """Return e**(x + correction) for a small correction."""
        # Zero by selection: a product that underflows costs Intel's CPUs over a hundred cycles.
        vanishes = x < exp_low
        x = zero if vanishes else (exp_high if x > exp_high else x)
        shifted = x * log2e + exp_magic
        n = shifted - exp_magic
        r = (x - n * ln2_high) - n * ln2_low + correction
        result = scale(exp_series(r) * (r * r) + r + one, shifted)
        return zero if vanishes else result

    @_jit
    def exp(x):
        """Return e**x."""
        return exp_of_sum(x, zero)

    @_jit
    def expm1(x):
        """Return e**x - 1, accurate near zero."""
        y = _clip(x, -saturated, exp_high)
        shifted = y * log2e + expm1_magic
        n = shifted - expm1_magic
        r = (y - n * ln2_high) - n * ln2_low
        change = exp_series(r) * (r * r) + r
        half_scale = integer(real(shifted).view(integer) << shift).view(real)
        result = half_scale * change + (half_scale - half)
        # Keeps the digits of a subnormal x, of which half_scale would drop the last, and the sign of zero.
        return x if abs(x) < linear else result + result

    @_jit
    def log_edges(y, x):
        """Return y, the logarithm of x, with its values where x is not positive and finite."""
        y = y if x > zero else (-inf if x == zero else nan)
        return y if x < inf else x

    @_jit
    def split(x):
        """Return k and m, m * 2**k = x, with m around one from log_origin to twice that."""
        subnormal = x < tiny
        scaled = x * subnormal_scale if subnormal else x
        bits = integer(real(scaled).view(integer) & magnitude_mask)
        exponent = integer(integer(bits - log_origin) & exponent_mask)
        k = real(exponent) * exponent_unit + (subnormal_exponent if subnormal else zero)
        return k, integer(bits - exponent).view(real)

    @_jit
    def log(x):
        """Return the natural logarithm."""
        k, m = split(x)
        return log_edges(k * ln2 + log1p_tail(m - one), x)

    @_jit
    def log1p(x):
        """Return log(1 + x), accurate near zero."""
        u = one + x
        lost = x - (u - one)
        bits = integer(real(u).view(integer) & magnitude_mask)
        exponent = integer(integer(bits - log_origin) & exponent_mask)
        k = real(exponent) * exponent_unit
        rescale = integer(one_bits - exponent if exponent < one_bits else int_zero).view(real)
        f = (integer(bits - exponent).view(real) - one) + lost * rescale
        return with_sign(log_edges(k * ln2 + log1p_tail(f), u), x)

    @_jit
    def tanh(x):
        """Return the hyperbolic tangent."""
        a = abs(x)
        a = saturated if a > saturated else a
        square = a * a
        small = tanh_series(square) * square * a + a
        large = one - two / (exp(a + a) + one)
        return with_sign(small if a < tanh_switch else large, x)

    @_jit
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

    @_jit
    def softplus(x):
        """Return log(1 + e**x)."""
        return (x if x > zero else zero) + log1p_unit(exp(-abs(x)))

    @_jit
    def sigmoid(x):
        """Return 1 / (1 + e**-x)."""
        e = exp(-abs(x))
        return (e if x < zero else one) / (one + e)

    @_jit
    def sign(x):
        """Return -1, 0 or 1, NaN at NaN."""
        return one if x > zero else (-one if x < zero else x)

    @_jit
    def epsilon(x):
        """Return the distance from 1 to the next larger number."""
        return exponent_unit

    @_jit
    def largest(x):
        """Return the largest finite number."""
        return most

    chosen = (sign, epsilon, largest, where, maximum, minimum, sqrt)
    words = (exp, log, log1p, expm1, tanh, atan, softplus, sigmoid, *chosen)
    return words, exp_of_sum, (scale, split, log_edges)


def _special(form, log, exp_of_sum, tables):
    """Build the gamma functions and the normal distribution of one precision."""
    real, integer, half_mask = form.real, form.integer, form.half_mask
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    three_halves, nan = real(1.5), real(np.nan)

    products = tables["lgamma_products"]
    lgamma_switch = real(products + 2.5)
    half_log_tau_less_half = real(0.5 * math.log(2 * math.pi) - 0.5)
    lgamma_series, stirling_series = form.polynomial(tables["lgamma"]), form.polynomial(tables["stirling"])

    steps = tables["digamma_steps"]
    digamma_switch = real(steps)
    digamma_series, trigamma_series = form.polynomial(tables["digamma"]), form.polynomial(tables["trigamma"])

    four, ndtr_limit = real(4), real(40)
    ndtr_series = form.polynomial(tables["ndtr"])
    eight, mills_series = real(8), form.polynomial(tables["mills"])

    @_jit
    def lgamma(x):
        """Return the logarithm of the gamma function for x > 0."""
        large = x > lgamma_switch
        y = lgamma_switch if large else x
        # lgamma(x) = lgamma(2 + v) +- log(product), with v within 1/2 of zero.
        v = y if y < half else (y - one if y < three_halves else y - two)
        product = y * (one + y) if y < half else (y if y < three_halves else one)
        for j in range(products):
            above = y > real(j + 2.5)
            v = y - real(j + 3) if above else v
            product = product * (y - real(j + 1)) if above else product
        logarithm = log(x if large else product)
        small_result = lgamma_series(v) * v + (logarithm if y > two else -logarithm)
        t = one / (x if large else lgamma_switch)
        # log(x) - 1, not (x - 1/2) * log(x) - x, which overflows early and cancels.
        large_result = (x - half) * (logarithm - one) + (stirling_series(t * t) * t + half_log_tau_less_half)
        return (large_result if large else small_result) if x >= zero else nan

    @_jit
    def digamma(x):
        """Return the logarithmic derivative of the gamma function for x > 0."""
        large = x > digamma_switch
        y = digamma_switch if large else x
        numerator, denominator = zero, one
        for j in range(steps):
            factor = y + real(steps - 1 - j)
            numerator = numerator * factor + denominator
            denominator = denominator * factor
        z = x if large else x + digamma_switch
        t = one / z
        tail = (digamma_series(t * t) * t + half) * t
        result = log(z) - tail - (zero if large else numerator / denominator)
        return result if x >= zero else nan

    @_jit
    def trigamma(x):
        """Return the derivative of digamma for x > 0."""
        large = x > digamma_switch
        y = digamma_switch if large else x
        numerator, denominator = zero, one
        for j in range(steps):
            factor = y + real(steps - 1 - j)
            factor = factor * factor
            numerator = numerator * factor + denominator
            denominator = denominator * factor
        t = one / (x if large else x + digamma_switch)
        tail = ((trigamma_series(t * t) * t + half) * t) * t + t
        result = tail + (zero if large else numerator / denominator)
        return result if x >= zero else nan

    @_jit
    def ndtr(x):
        """Return the standard normal distribution function; the lower tail keeps its relative accuracy."""
        a = abs(x)
        a = ndtr_limit if a > ndtr_limit else a
        # e**(-a**2 / 2) from an exact square, because the rounding of a**2 alone would cost hundreds of ulp.
        head = integer(real(a).view(integer) & half_mask).view(real)
        density = exp_of_sum(-half * (head * head), -half * ((a - head) * (a + head)))
        # The series is 1/2 + w * series(w - 1), w = 2 a / (a + 4); one division serves 1 / (a + 4) and 1 / (1 + 2 a).
        shifted, slope = a + four, a + a + one
        inverse = one / (shifted * slope)
        w = (a + a) * (slope * inverse)
        lower = density * ((ndtr_series(w - one) * w + half) * (shifted * inverse))
        return one - lower if x > zero else lower

    @_jit
    def mills(x):
        """Return (1 - ndtr(x)) over the normal density at x, for x >= 0."""
        result = mills_series(one - eight / (x + four)) / (x + half)
        return result if x >= zero else nan

    return lgamma, digamma, trigamma, ndtr, mills


def _power(wide, scale, split, log_edges, tables):
    """Build the power functions of both precisions, which work in float64."""
    real, integer, half_mask = wide.real, wide.integer, wide.half_mask
    zero, one, three, inf, nan = real(0), real(1), real(3), real(np.inf), real(np.nan)
    single, single_zero, single_one = np.float32, np.float32(0), np.float32(1)
    magic = wide.magic(2 * wide.bias)

    log2_series, exp2_series32 = wide.polynomial(tables["log2_32"]), wide.polynomial(tables["exp2_32"])
    log_series, exp2_series = wide.polynomial(tables["log"]), wide.polynomial(tables["exp2"])
    # 2 / (3 log 2) in two parts
    factor, factor_high, factor_low = tables["factor"]

    @_jit
    def leading(x):
        return integer(real(x).view(integer) & half_mask).view(real)

    @_jit
    def pow32(x, y):
        """Return x**y for x >= 0."""
        base = single_one if y == single_zero else x
        power = real(single_zero if base == single_one else y)
        wide_base = real(base)
        k, m = split(wide_base)
        p = power * log_edges(log2_series(m - one) * (m - one) + k, wide_base)
        p = _clip(p, -160.0, 130.0)
        shifted = p + magic
        r = p - (shifted - magic)
        return single(scale(exp2_series32(r) * r + one, shifted))

    @_jit
    def pow64(x, y):
        """Return x**y for x >= 0."""
        base = one if y == zero else x
        power = zero if base == one else y
        power = _clip(power, -(2.0**66), 2.0**66)

        k, m = split(base)

        # log2(m) = factor * s * (3 + s**2 + ...), s = (m - 1) / (m + 1), each quantity as a head of half
        # the digits, whose products are exact, and a rest.
        f = m - one
        inverse = one / (m + one)
        s = f * inverse
        s_head = leading(s)
        sum_head = leading(m + one)
        s_rest = ((f - s_head * sum_head) - s_head * (m - (sum_head - one))) * inverse
        square = s * s
        square_head = s_head * s_head
        rest = log_series(square) * (square * square) + s_rest * (s_head + s)
        series_head = leading(three + square_head + rest)
        series_rest = rest - ((series_head - three) - square_head)
        product = s_head * series_head
        product_rest = s_rest * series_head + series_rest * s
        head = leading(product + product_rest)
        head_rest = product_rest - (head - product)
        log_head = factor_high * head
        log_rest = factor_low * head + factor * head_rest
        log2_head = leading(k + (log_head + log_rest))
        log2_rest = log_rest - ((log2_head - k) - log_head)

        power_head = leading(power)
        p = power_head * log2_head
        p_rest = (power - power_head) * log2_head + power * log2_rest
        p = power * -inf if base == zero else p
        p = power * inf if base == inf else p
        p_rest = p_rest if abs(p) < 1100.0 else zero
        p = _clip(p, -1100.0, 1100.0)
        shifted = p + p_rest + magic
        r = (p - (shifted - magic)) + p_rest
        result = scale(exp2_series(r) * r + one, shifted)
        return result if base >= zero else nan

    return pow32, pow64


_FLOAT32 = _Format(np.float32, np.int32)
_FLOAT64 = _Format(np.float64, np.int64)


def _vocabularies():
    words = {}
    for dtype, form, table, log1p_builder in (
        ("float32", _FLOAT32, TABLES32, _log1p_by_polynomial),
        ("float64", _FLOAT64, TABLES64, _log1p_by_quotient),  # the division costs less than the terms it saves
    ):
        log1p_tail, log1p_unit = log1p_builder(form, table["log1p"]), log1p_builder(form, table["log1p_unit"])
        elementary, exp_of_sum, steps = _elementary(form, log1p_tail, log1p_unit, table)
        functions = {f.__name__: f for f in elementary} | {"log1p_unit": log1p_unit}
        special = _special(form, functions["log"], exp_of_sum, table)
        words[dtype] = functions | {f.__name__: f for f in special}
    words["float32"]["pow"], words["float64"]["pow"] = _power(_FLOAT64, *steps, TABLES_POW)
    return words


VOCABULARY: dict[str, dict[str, Dispatcher]] = _vocabularies()

exp64, log64, log1p64 = (VOCABULARY["float64"][word] for word in ("exp", "log", "log1p"))
pow64, sqrt64 = (VOCABULARY["float64"][word] for word in ("pow", "sqrt"))
sigmoid64, softplus64 = (VOCABULARY["float64"][word] for word in ("sigmoid", "softplus"))
"""Words of float64, for kernels that compute in it whatever the precision of their arrays."""
