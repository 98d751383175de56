"""Builders of the gamma functions, the normal distribution and the power function in one precision."""

import math
from typing import NamedTuple

import numpy as np
from numba.core.dispatcher import Dispatcher

from .elementary import clip, jit

__all__ = ["gamma_of", "normal_of", "power32", "power64"]


class Normal(NamedTuple):
    """Functions of the normal distribution in one precision."""

    ndtr: Dispatcher
    mills: Dispatcher


class Gamma(NamedTuple):
    """Functions of the gamma family in one precision."""

    lgamma: Dispatcher
    digamma: Dispatcher
    trigamma: Dispatcher


def gamma_of(form, log, tables):
    """Build the gamma functions of one precision."""
    real = form.real
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    three_halves, nan = real(1.5), real(np.nan)

    products = tables["lgamma_products"]
    lgamma_switch = real(products + 2.5)
    half_log_tau_less_half = real(0.5 * math.log(2 * math.pi) - 0.5)
    lgamma_series, stirling_series = form.polynomial(tables["lgamma"]), form.polynomial(tables["stirling"])

    @jit
    def lgamma(x):
        """Return the logarithm of the gamma function for x > 0."""
        large = x > lgamma_switch
        # Both sides are computed: the side that is not taken gets an argument that it can take.
        y = lgamma_switch if large else x
        # lgamma(x) = lgamma(2 + v) +- log(product), with v within 1/2 of zero.
        v = y if y < half else (y - one if y < three_halves else y - two)
        product = y * (one + y) if y < half else (y if y < three_halves else one)
        # A constant number of steps, which LLVM unrolls: selected, not left early, the loop around stays in vectors.
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

    return Gamma(lgamma, *_digamma(form, log, tables))


def _digamma(form, log, tables):
    """Build the first and second logarithmic derivative of the gamma function in one precision."""
    real = form.real
    zero, half, one, nan = real(0), real(0.5), real(1), real(np.nan)

    steps = tables["digamma_steps"]
    digamma_switch = real(steps)
    digamma_series, trigamma_series = form.polynomial(tables["digamma"]), form.polynomial(tables["trigamma"])

    @jit
    def digamma(x):
        """Return the logarithmic derivative of the gamma function for x > 0."""
        large = x > digamma_switch
        y = digamma_switch if large else x
        numerator, denominator = zero, one
        for j in range(steps):
            factor = y + real(steps - 1 - j)
            # A sum of reciprocals as one fraction: a single division.
            numerator = numerator * factor + denominator
            denominator = denominator * factor
        z = x if large else x + digamma_switch
        t = one / z
        tail = (digamma_series(t * t) * t + half) * t
        result = log(z) - tail - (zero if large else numerator / denominator)
        return result if x >= zero else nan

    @jit
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

    return digamma, trigamma


def normal_of(form, exp_of_sum, tables):
    """Build the functions of the normal distribution in one precision."""
    real, integer, half_mask = form.real, form.integer, form.half_mask
    zero, half, one, nan = real(0), real(0.5), real(1), real(np.nan)

    four, ndtr_limit = real(4), real(40)
    ndtr_series = form.polynomial(tables["ndtr"])
    eight, mills_series = real(8), form.polynomial(tables["mills"])

    @jit
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

    @jit
    def mills(x):
        """Return (1 - ndtr(x)) over the normal density at x, for x >= 0."""
        result = mills_series(one - eight / (x + four)) / (x + half)
        return result if x >= zero else nan

    return Normal(ndtr, mills)


def power32(wide, scale, logarithms, tables):
    """Build the power function of float32, which works in float64."""
    real, one = wide.real, wide.real(1)
    single, single_zero, single_one = np.float32, np.float32(0), np.float32(1)
    magic, split, log_edges = wide.magic(2 * wide.bias), logarithms.split, logarithms.log_edges
    log2_series, exp2_series32 = wide.polynomial(tables["log2_32"]), wide.polynomial(tables["exp2_32"])

    @jit
    def pow32(x, y):
        """Return x**y for x >= 0."""
        # x**0 is 1 for every x, NaN too, as IEEE 754 has it.
        base = single_one if y == single_zero else x
        power = real(single_zero if base == single_one else y)
        wide_base = real(base)
        k, m = split(wide_base)
        p = power * log_edges(log2_series(m - one) * (m - one) + k, wide_base)
        # Beyond these bounds the result is 0 or infinite in float32; the integer below would overflow.
        p = clip(p, -160.0, 130.0)
        shifted = p + magic
        r = p - (shifted - magic)
        return single(scale(exp2_series32(r) * r + one, shifted))

    return pow32


def power64(wide, scale, split, tables):
    """Build the power function of float64."""
    real, integer, half_mask = wide.real, wide.integer, wide.half_mask
    zero, one, three, inf, nan = real(0), real(1), real(3), real(np.inf), real(np.nan)
    magic = wide.magic(2 * wide.bias)

    log_series, exp2_series = wide.polynomial(tables["log"]), wide.polynomial(tables["exp2"])
    # 2 / (3 log 2) in two parts
    factor, factor_high, factor_low = tables["factor"]

    @jit
    def leading(x):
        return integer(real(x).view(integer) & half_mask).view(real)

    @jit
    def pow64(x, y):
        """Return x**y for x >= 0."""
        base = one if y == zero else x
        power = zero if base == one else y
        power = clip(power, -(2.0**66), 2.0**66)

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

        # Products of heads are exact: the exponent of a large result needs ten bits more than the result has.
        power_head = leading(power)
        p = power_head * log2_head
        p_rest = (power - power_head) * log2_head + power * log2_rest
        p = power * -inf if base == zero else p
        p = power * inf if base == inf else p
        p_rest = p_rest if abs(p) < 1100.0 else zero
        p = clip(p, -1100.0, 1100.0)
        shifted = p + p_rest + magic
        r = (p - (shifted - magic)) + p_rest
        result = scale(exp2_series(r) * r + one, shifted)
        return result if base >= zero else nan

    return pow64
