"""Losses of points by themselves, each a few numbers of several arrays: a box and its target, some log-probabilities.

Inputs are of shape (n,) or (n, c) with a constant c. The formula gets all numbers of a point, in the order of the
inputs, 0 for those that are not given, and returns the value and a tuple of derivatives by the numbers of the inputs
that it is differentiated by. Parameters that are constants of a kernel leave out what other values of theirs ask for.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from ..call import check
from .runtime.access import alias_scopes
from .runtime.intrinsics import widest_vectors
from .runtime.slots import unbound
from .runtime.staging import lanes
from .runtime.units import kernel

__all__ = ["prepare", "run"]

ONE = np.ones(1)
"""Factor of all points where no derivatives are wanted."""

TILE = 256
"""Points whose factors are read together: one loop serves a factor for all and a factor for each."""


class Slots(NamedTuple):
    """Constants and functions that the template of points reads."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    ZERO: Any
    """Zero in that type."""
    formula: Callable[..., Any]
    """Formula of the loss."""
    load: Callable[..., Any]
    """Function of (arrays, i): all numbers of point i."""
    store: Callable[..., Any]
    """Function of (arrays, i, slopes, factor) that writes the derivatives of point i."""
    given: Callable[..., Any]
    """Function that makes the formula's parameters of an array, constants included."""


use = unbound(Slots)


def points(lo, hi, params, factors, values, *arrays):
    """Value and derivatives of each point."""
    T = use.T
    widest_vectors()
    p = use.given(params)
    held, found = lanes(use.ZERO, TILE), lanes(use.ZERO, TILE)
    for start in range(lo, hi, TILE):
        size = min(TILE, hi - start)
        # Branches once a tile: a test in the loop over points would be one for each.
        if factors.size > 1:
            own = factors[start : start + size]
            for k in range(size):
                held[k] = T(own[k])
        else:
            for k in range(size):
                held[k] = T(factors[0])
        for k in range(size):
            out = use.formula(*use.load(arrays, start + k), *p)
            found[k] = out[0]
            use.store(arrays, start + k, out[1], held[k])
        # In a loop of its own: one number of float64 would halve the vectors of a loop of float32.
        into = values[start : start + size]
        for k in range(size):
            into[k] = np.float64(found[k])


def _loader(columns: tuple[int, ...], number: str) -> Any:
    """All numbers of point i, from the arrays of so many columns; 0 where there is no array, of no columns."""
    real = getattr(types, number)

    @intrinsic
    def load(typingctx, arrays, i):
        result = types.UniTuple(real, sum(max(width, 1) for width in columns))

        def codegen(context, builder, signature, args):
            numbers, present = [], 0
            for width in columns:
                # A constant, by which LLVM folds what depends on this input alone.
                if width == 0:
                    numbers.append(ir.Constant(context.get_value_type(real), 0.0))
                    continue
                kind = signature.args[0][present]
                data = context.make_array(kind)(context, builder, builder.extract_value(args[0], present)).data
                present += 1
                for c in range(width):
                    place = builder.add(builder.mul(args[1], args[1].type(width)), args[1].type(c))
                    x = builder.load(builder.gep(data, [place], inbounds=True))
                    # Keeps the loop vectorised: no output overlaps an input, and LLVM need not test it at run time.
                    x.set_metadata("alias.scope", alias_scopes(builder.module, ["input"]))
                    # Masks come as uint8, without a sign to extend.
                    if isinstance(kind.dtype, types.Integer):
                        x = builder.uitofp(x, context.get_value_type(real))
                    numbers.append(x)
            return context.make_tuple(builder, result, numbers)

        return result(arrays, types.intp), codegen

    return load


def _storer(inputs: int, columns: tuple[tuple[int, int], ...]) -> Any:
    """Write the derivatives of point i to the arrays that follow the inputs; 0 where the factor is.

    Each output has so many columns, and the first of its derivatives among the formula's.
    """

    @intrinsic
    def store(typingctx, arrays, i, slopes, factor):
        def codegen(context, builder, signature, args):
            arrays, i, slopes, factor = args
            zero = ir.Constant(factor.type, 0.0)
            # Unordered, so that a factor of NaN counts.
            counts = builder.fcmp_unordered("!=", factor, zero)
            for k, (width, first) in enumerate(columns):
                kind = signature.args[0][inputs + k]
                data = context.make_array(kind)(context, builder, builder.extract_value(arrays, inputs + k)).data
                for c in range(width):
                    x = builder.fmul(builder.extract_value(slopes, first + c), factor)
                    place = builder.add(builder.mul(i, i.type(width)), i.type(c))
                    # Selected, not multiplied: 0 times an infinite slope would be NaN.
                    x = builder.select(counts, x, zero)
                    written = builder.store(x, builder.gep(data, [place], inbounds=True))
                    written.set_metadata("alias.scope", alias_scopes(builder.module, ["grad"]))
                    written.set_metadata("noalias", alias_scopes(builder.module, ["input"]))
            return context.get_dummy_value()

        return types.void(arrays, types.intp, slopes, factor), codegen

    return store


def _giver(constants: tuple[float | None, ...], number: str) -> Any:
    """The parameters in the kernel's precision: constants where one is given, from an array otherwise."""
    real = getattr(types, number)

    @intrinsic
    def given(typingctx, params):
        result = types.UniTuple(real, len(constants))

        def codegen(context, builder, signature, args):
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            form = context.get_value_type(real)
            numbers = []
            for k, constant in enumerate(constants):
                if constant is not None:
                    # Lets LLVM leave out what other values of the parameter ask for.
                    numbers.append(ir.Constant(form, constant))
                    continue
                x = builder.load(builder.gep(data, [ir.Constant(ir.IntType(64), k)]))
                # Parameters come in float64, whatever the precision of the arrays.
                numbers.append(x if x.type == form else builder.fptrunc(x, form))
            return context.make_tuple(builder, result, numbers)

        return result(params), codegen

    return given


def _load_python(columns: tuple[int, ...], number: str) -> Any:
    real = getattr(np, number)

    def load(arrays, i):
        rest = iter(arrays)
        rows = [np.atleast_1d(next(rest)[i]).astype(real) if width else np.zeros(1, real) for width in columns]
        return [x for row in rows for x in row]

    return load


def _store_python(inputs: int, columns: tuple[tuple[int, int], ...]) -> Any:
    def store(arrays, i, slopes, factor):
        for a, (width, first) in zip(arrays[inputs:], columns, strict=False):
            rows = a.reshape(len(a), width)
            for c in range(width):
                rows[i, c] = slopes[first + c] * factor if factor else 0.0

    return store


def _give_python(constants: tuple[float | None, ...], number: str) -> Any:
    real = getattr(np, number)
    return lambda params: tuple(real(x if c is None else c) for x, c in zip(params, constants, strict=True))


@cache
def _compiled(
    function: Any,
    name: str,
    read: tuple[int, ...],
    written: tuple[tuple[int, int], ...],
    constants: tuple[float | None, ...],
) -> Any:
    """The kernel for arrays of so many columns, and outputs of so many columns from a first derivative on."""
    load, store, give = (
        (_load_python, _store_python, _give_python) if config.DISABLE_JIT else (_loader, _storer, _giver)
    )
    flags = (
        ("load", load(read, name)),
        ("store", store(sum(width > 0 for width in read), written)),
        ("given", give(constants, name)),
        ("ZERO", getattr(np, name)(0.0)),
    )
    said = [str(int(c)) for c in constants if c is not None]
    # An input that is left out before another leaves out its derivatives.
    left = ["without" + str(first) for k, (_, first) in enumerate(written) if first != sum(w for w, _ in written[:k])]
    named = [function.__name__, str(len(written)), *left, *said]
    return kernel(points, "_".join(named), name, function, (), flags)


def _written(record: Any, grads: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """Return the columns of each output, and the first of its derivatives among the formula's."""
    found, first = [], 0
    for name in record.predictions:
        dims = record.inputs[name].dims.split()
        width = int(dims[-1]) if dims[-1].isdecimal() else 1
        if name in grads:
            found.append((width, first))
        first += width
    return tuple(found)


def prepare(call: Any) -> Callable[[Any], None]:
    """Return what evaluates every point of calls like one."""
    record, arrays = call.record, call.arrays
    read = tuple(0 if a is None else 1 if a.ndim == 1 else a.shape[1] for a in arrays.values())
    written = _written(record, call.grads)
    numbers = call.numbers()
    named = zip(record.parameters.values(), numbers, strict=False)
    # A parameter that chooses among forms is a constant: each of its values has a kernel without the other forms.
    constants = tuple(float(v) if parameter.constant else None for parameter, v in named)
    found = _compiled(record.function, call.name, read, written, constants)
    launch, complete = found.bound(call.units, call.units * (8 + 4 * sum(read))), all(read)

    def evaluate(call: Any) -> None:
        for low, high in record.ordered:
            check.ordered(low, call[low], high, call[high], call.shape, call.kept(-1))
        arrays = call.arrays.values()
        # Spares a list where all inputs are given, which is nearly always.
        inputs = arrays if complete else [a for a in arrays if a is not None]
        factors = call.factors() if call.grads else ONE
        launch(numbers, factors, call.values, *inputs, *call.grads.values())

    return evaluate


def run(call: Any) -> None:
    """Evaluate every point."""
    prepare(call)(call)
