"""Losses of points by themselves, each a few numbers of several arrays: a box and its target, some log-probabilities.

Inputs are of shape (n,) or (n, c) with a constant c. The formula gets all numbers of a point, in the order of the
inputs, and returns the value and a tuple of derivatives by the numbers of those inputs that it is differentiated by.
"""

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from .access import alias_scopes
from .blocks import kernel

__all__ = ["run"]

# Names that the template below finds bound when it is specialized.
T: Any = None
formula: Any = None
unpack: Any = None
widest_vectors: Any = None
load: Any = None
store: Any = None
derivatives: Any = None
uniform: Any = None


def points(lo, hi, params, factors, values, *arrays):
    """Value and derivatives of each point."""
    widest_vectors()
    p = unpack(params)
    for i in range(lo, hi):
        out = formula(*load(arrays, i), *p)
        factor = T(factors[0]) if uniform else T(factors[i])
        store(values, arrays, i, np.float64(out[0]), out[1], factor)


def _loader(columns: tuple[int, ...]) -> Any:
    """All numbers of point i, from the arrays of so many columns."""

    @intrinsic
    def load(typingctx, arrays, i):
        result = types.UniTuple(arrays[0].dtype, sum(columns))

        def codegen(context, builder, signature, args):
            numbers = []
            for k, width in enumerate(columns):
                kind = signature.args[0][k]
                data = context.make_array(kind)(context, builder, builder.extract_value(args[0], k)).data
                for c in range(width):
                    place = builder.add(builder.mul(args[1], args[1].type(width)), args[1].type(c))
                    number = builder.load(builder.gep(data, [place], inbounds=True))
                    number.set_metadata("alias.scope", alias_scopes(builder.module, ["input"]))
                    numbers.append(number)
            return context.make_tuple(builder, result, numbers)

        return result(arrays, types.intp), codegen

    return load


def _storer(inputs: int, columns: tuple[int, ...]) -> Any:
    """Write the value of point i, and its derivatives to the arrays that follow the inputs; 0 where the factor is."""

    @intrinsic
    def store(typingctx, values, arrays, i, value, slopes, factor):
        def write(context, builder, kind, array, place, x, name):
            data = context.make_array(kind)(context, builder, array).data
            written = builder.store(x, builder.gep(data, [place], inbounds=True))
            others = [other for other in ("values", "grad") if other != name]
            written.set_metadata("alias.scope", alias_scopes(builder.module, [name]))
            written.set_metadata("noalias", alias_scopes(builder.module, ["input", *others]))

        def codegen(context, builder, signature, args):
            i, factor = args[2], args[5]
            write(context, builder, signature.args[0], args[0], i, args[3], "values")
            zero = ir.Constant(factor.type, 0.0)
            counts = builder.fcmp_unordered("!=", factor, zero)
            number = 0
            for k, width in enumerate(columns):
                kind = signature.args[1][inputs + k]
                array = builder.extract_value(args[1], inputs + k)
                for c in range(width):
                    x = builder.fmul(builder.extract_value(args[4], number), factor)
                    place = builder.add(builder.mul(i, i.type(width)), i.type(c))
                    write(context, builder, kind, array, place, builder.select(counts, x, zero), "grad")
                    number += 1
            return context.get_dummy_value()

        return types.void(values, arrays, types.intp, types.float64, slopes, factor), codegen

    return store


def _load_python(columns: tuple[int, ...]) -> Any:
    return lambda arrays, i: [x for a, _ in zip(arrays, columns, strict=False) for x in np.atleast_1d(a[i])]


def _store_python(inputs: int, columns: tuple[int, ...]) -> Any:
    def store(values, arrays, i, value, slopes, factor):
        values[i] = value
        number = 0
        for a, width in zip(arrays[inputs:], columns, strict=False):
            rows = a.reshape(len(a), width)
            for c in range(width):
                rows[i, c] = slopes[number] * factor if factor else 0.0
                number += 1

    return store


@cache
def _access(read: tuple[int, ...], written: tuple[int, ...]) -> tuple[tuple[str, Any], ...]:
    load, store = (_load_python, _store_python) if config.DISABLE_JIT else (_loader, _storer)
    return ("load", load(read)), ("store", store(len(read), written))


def run(call: Any) -> None:
    """Evaluate every point."""
    inputs = [a for a in call.arrays.values() if a is not None]
    grads = list(call.grads.values())
    read, written = (tuple(1 if a.ndim == 1 else a.shape[1] for a in group) for group in (inputs, grads))
    factors = call.factors() if grads else np.ones(1)
    flags = (*_access(read, written), ("uniform", factors.size == 1))
    points_of = kernel(points, f"{call.record.name}_{len(grads)}", call.name, call.record.function, (), flags)
    work = call.units * (8 + 4 * sum(read))
    points_of(call.units, work, call.numbers(), factors, call.values, *inputs, *grads)
