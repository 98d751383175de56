"""Element access for one, two or four arrays at once, parameters, and domain checks, as functions for kernels.

Spelled out per count, so that every index is a constant: a computed index into a tuple of arrays keeps a loop scalar.
Each is compiled once per process and shared by all kernels.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from .slots import Number, unbound
from .specialize import SCALAR, bind

__all__ = [
    "alias_scopes",
    "at",
    "check",
    "get",
    "narrowed",
    "nothing",
    "padded",
    "put",
    "put_lane",
    "room",
    "same",
    "storing",
    "times",
    "unchecked",
    "unpack",
    "widened",
    "window",
]

_inline = njit(**SCALAR)


class Interval(NamedTuple):
    """Constants that the test of an interval reads."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    low: Any
    """Least number inside, of that type."""
    high: Any
    """Largest number inside, of that type."""


class Unpacking(NamedTuple):
    """Functions that the reader of many parameters calls."""

    first: Callable[..., Any]
    """Function that makes a tuple of the first few parameters of an array."""
    rest: Callable[..., Any]
    """Function that makes a tuple of the parameters after them."""
    FEW: int
    """Length of the first tuple."""


class Store(NamedTuple):
    """Functions that the writers of derivatives call."""

    product: Callable[..., Any]
    """Product of a derivative and a factor."""
    put0: Callable[..., Any]
    """Function that writes the derivative by input 0; so for the others."""
    put1: Callable[..., Any]
    put2: Callable[..., Any]
    put3: Callable[..., Any]


use: Any = unbound(Number, Interval, Store, Unpacking)


# LLVM cannot know that no output overlaps another array (check.output sees to that). It would test at run time, and
# take a scalar loop where arrays lie within a vector of each other: another order of summing, so other last bits.
# Scopes of aliasing say it: inputs share one, each output has its own.
def alias_scopes(module, names):
    """Metadata that names scopes of aliasing."""
    domain = module.add_metadata(["fastloss"])
    return module.add_metadata([module.add_metadata([f"fastloss.{name}", domain]) for name in names])


def _pointer(context, builder, kind, array, i):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [i], inbounds=True)


OUTPUTS = ("values", "lanes", *(f"{which}{k}" for which in ("grad", "hess") for k in range(4)))


# Numbers of 16 bits go by the name of integers: int16 for float16, uint16 for bfloat16.
def widened(builder, kind, bits):
    """A number of 16 bits as one of float32."""
    if kind == types.int16:
        return builder.fpext(builder.bitcast(bits, ir.HalfType()), ir.FloatType())
    word = ir.IntType(32)
    return builder.bitcast(builder.shl(builder.zext(bits, word), word(16)), ir.FloatType())


def narrowed(builder, kind, x):
    """A number of float32 rounded to one of 16 bits."""
    short, word = ir.IntType(16), ir.IntType(32)
    if kind == types.int16:
        return builder.bitcast(builder.fptrunc(x, ir.HalfType()), short)
    # To the nearest, ties to even; a NaN gets the bit that keeps it one.
    bits = builder.bitcast(x, word)
    odd = builder.and_(builder.lshr(bits, word(16)), word(1))
    # Half of the last bit that stays, less one where that bit is even: a carry rounds up.
    rounded = builder.add(builder.add(bits, odd), word(0x7FFF))
    kept = builder.select(builder.fcmp_unordered("uno", x, x), builder.or_(bits, word(0x400000)), rounded)
    return builder.trunc(builder.lshr(kept, word(16)), short)


@intrinsic
def _get(typingctx, a, i):
    def codegen(context, builder, signature, args):
        value = builder.load(_pointer(context, builder, signature.args[0], *args))
        value.set_metadata("alias.scope", alias_scopes(builder.module, ["input"]))
        # In a register: mse of 10 million float16 takes 0.57 of the time of float32, where a copy was made before.
        return widened(builder, a.dtype, value) if isinstance(a.dtype, types.Integer) else value

    return (types.float32 if isinstance(a.dtype, types.Integer) else a.dtype)(a, types.intp), codegen


def _putter(name):
    @intrinsic
    def put(typingctx, a, i, x):
        def codegen(context, builder, signature, args):
            x = narrowed(builder, a.dtype, args[2]) if isinstance(a.dtype, types.Integer) else args[2]
            written = builder.store(x, _pointer(context, builder, signature.args[0], *args[:2]))
            others = [other for other in OUTPUTS if other != name]
            written.set_metadata("alias.scope", alias_scopes(builder.module, [name]))
            written.set_metadata("noalias", alias_scopes(builder.module, ["input", *others]))
            return context.get_dummy_value()

        return types.void(a, types.intp, types.float32 if isinstance(a.dtype, types.Integer) else a.dtype), codegen

    return put


@intrinsic
def _put_lane(typingctx, a, i, x):
    def codegen(context, builder, signature, args):
        place = _pointer(context, builder, signature.args[0], *args[:2])
        before = builder.load(place)
        after = builder.store(builder.fadd(before, args[2]), place)
        # Lanes overlap no array: without these scopes LLVM stores and loads them around each element that is written.
        others = [name for name in OUTPUTS if name != "lanes"]
        for access in (before, after):
            access.set_metadata("alias.scope", alias_scopes(builder.module, ["lanes"]))
            access.set_metadata("noalias", alias_scopes(builder.module, ["input", *others]))
        return context.get_dummy_value()

    return types.void(a, types.intp, a.dtype), codegen


def _put_lane_python(a, i, x):
    a[i] += x


def _get_python(a, i):
    if a.dtype.kind == "f":
        return a[i]
    half = np.float16 if a.dtype.kind == "i" else _brain_type()
    return a[i : i + 1].view(half).astype(np.float32)[0]


def _put_python(a, i, x):
    if a.dtype.kind != "f":
        with np.errstate(over="ignore"):
            x = np.asarray(x).astype(np.float16 if a.dtype.kind == "i" else _brain_type()).view(a.dtype)
    a[i] = x


def _brain_type() -> Any:
    # Only a caller with such arrays comes here, who has the package that defines them.
    return np.dtype("bfloat16")


get = _get_python if config.DISABLE_JIT else _get
"""An element of an input."""

put = {name: _put_python if config.DISABLE_JIT else _putter(name) for name in OUTPUTS}
"""Write an element of an output, by the name of the output."""

put_lane = _put_lane_python if config.DISABLE_JIT else _put_lane
"""Add to a lane of a sum."""

at = {
    1: _inline(lambda a, i: (get(a[0], i),)),
    2: _inline(lambda a, i: (get(a[0], i), get(a[1], i))),
    3: _inline(lambda a, i: (get(a[0], i), get(a[1], i), get(a[2], i))),
    4: _inline(lambda a, i: (get(a[0], i), get(a[1], i), get(a[2], i), get(a[3], i))),
    5: _inline(lambda a, i: (get(a[0], i), get(a[1], i), get(a[2], i), get(a[3], i), get(a[4], i))),
}
"""The elements of the first arrays at one index, by their number."""


window = {
    1: _inline(lambda a, lo, hi: (a[0][lo:hi],)),
    2: _inline(lambda a, lo, hi: (a[0][lo:hi], a[1][lo:hi])),
    4: _inline(lambda a, lo, hi: (a[0][lo:hi], a[1][lo:hi], a[2][lo:hi], a[3][lo:hi])),
}
"""Functions that return one slice of each of several arrays, by the number of arrays."""


nothing = {2: _inline(lambda a, b: None), 4: _inline(lambda a, b, c, d: None)}
"""Functions that do nothing, by the number of their arguments."""


same = _inline(lambda x: x)
"""Its argument, where other kernels change it."""


def _plain(d, k):
    return d * k


def _masked(d, k):
    # The truth of k, since a literal 0 would widen float32.
    return d * k if k else k


times = {False: _inline(_plain), True: _inline(_masked)}
"""A product; under weights (True) 0 where the weight is, even where the other factor is NaN.

Every kernel multiplies by weights and class weights with it, or skips what has none: the rule of all losses is that
weight 0 removes an element whatever it holds. That NaN and infinity come through everywhere else is why no kernel is
compiled with the flags nnan or ninf. tests/losses/test_nan.py asserts both over the registry.
"""


def _store1(a, i, d, k):
    use.put0(a[0], i, use.product(d, k))


def _store2(a, i, d, k):
    use.put0(a[0], i, use.product(d[0], k))
    use.put1(a[1], i, use.product(d[1], k))


def _store4(a, i, d, k):
    use.put0(a[0], i, use.product(d[0], k))
    use.put1(a[1], i, use.product(d[1], k))
    use.put2(a[2], i, use.product(d[2], k))
    use.put3(a[3], i, use.product(d[3], k))


@cache
def storing(which: str, count: int, weighted: bool) -> Any:
    """A function that writes derivatives d ("grad" or "hess"), times k, at one index."""
    puts = (put[f"{which}{k}"] for k in range(4))
    template = {1: _store1, 2: _store2, 4: _store4}[count]
    return _inline(bind(template, Store(times[weighted], *puts)))


_UNPACK = (
    lambda p: (),
    lambda p: (use.T(p[0]),),
    lambda p: (use.T(p[0]), use.T(p[1])),
    lambda p: (use.T(p[0]), use.T(p[1]), use.T(p[2])),
    lambda p: (use.T(p[0]), use.T(p[1]), use.T(p[2]), use.T(p[3])),
    lambda p: (use.T(p[0]), use.T(p[1]), use.T(p[2]), use.T(p[3]), use.T(p[4])),
)


@cache
def unpack(count: int, dtype: str) -> Any:
    """The first parameters of an array, as a tuple in a kernel's precision."""
    return _inline(bind(_UNPACK[count], Number(getattr(np, dtype))))


PARAMETERS = len(_UNPACK) - 1
"""The most parameters that a formula of the catalogue has; sums of losses have more."""


def _padded(p):
    T = use.T
    zero = T(0.0)
    return (
        T(p[0]) if p.size > 0 else zero,
        T(p[1]) if p.size > 1 else zero,
        T(p[2]) if p.size > 2 else zero,
        T(p[3]) if p.size > 3 else zero,
        T(p[4]) if p.size > 4 else zero,
    )


def _long(p):
    return use.first(p) + use.rest(p[use.FEW :])


def room(count: int) -> int:
    """Return the length of the tuple that holds a number of parameters: a multiple of PARAMETERS."""
    return PARAMETERS * max(1, -(-count // PARAMETERS))


@cache
def padded(dtype: str, length: int) -> Any:
    """The parameters of an array, as a tuple of `room` numbers in a kernel's precision, whatever the loss."""
    first = _inline(bind(_padded, Number(getattr(np, dtype))))
    if length == PARAMETERS:
        return first
    return _inline(bind(_long, Unpacking(first, padded(dtype, length - PARAMETERS), PARAMETERS)))


# Violations are counted in the array's own precision (at most a block's worth): a mask summed into an
# integer of another width keeps the loop scalar.
def _interval(x):
    T = use.T
    # NaN fails both comparisons: it is no violation, and comes through.
    return (T(1.0) if x < use.low else T(0.0)) + (T(1.0) if x > use.high else T(0.0))


def _signs(x):
    T = use.T
    # One comparison for both signs, which NaN fails.
    distance = abs(abs(x) - T(1.0))
    return T(1.0) if distance > T(0.0) else T(0.0)


def _nothing(x):
    return use.T(0.0)


@cache
def unchecked(dtype: str) -> Any:
    """A test that all numbers pass, for kernels that call one whatever the domain."""
    return _inline(bind(_nothing, Number(getattr(np, dtype))))


@cache
def check(domain: Any, dtype: str) -> Any:
    """A test of one number, None where the domain is the whole line.

    Open ends become closed ones at the next float, and NaN is never outside.
    """
    kind = getattr(np, dtype)
    if not hasattr(domain, "low"):
        return _inline(bind(_signs, Number(kind)))
    low, high = kind(domain.low), kind(domain.high)
    if np.isneginf(low) and np.isposinf(high) and not (domain.low_open or domain.high_open):
        return None
    low = np.nextafter(low, kind(np.inf)) if domain.low_open else low
    high = np.nextafter(high, kind(-np.inf)) if domain.high_open else high
    return _inline(bind(_interval, Interval(kind, low, high)))
