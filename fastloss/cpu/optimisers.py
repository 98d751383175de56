"""Updates of parameters by their gradients: one pass over parameter, gradient and state, in place, for every rule.

A rule is a scalar formula of (parameter, gradient, states, numbers) that returns (parameter, states), compiled for a
dtype and for the states that its options need. One driver runs all arrays of a group in a single parallel loop over
fixed chunks. No element depends on another, so the bits are the same on any number of threads.
"""

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, prange, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ..spec.worlds import carry
from . import dispatch
from .runtime.intrinsics import array, call, widest_vectors
from .runtime.objects import HEAD, machine_word
from .runtime.slots import Number, unbound
from .runtime.specialize import INNER, SCALAR, bind, compile_chunk, compile_driver, compiled, inner
from .runtime.units import Kernel
from .runtime.worlds import cpu

__all__ = ["NUMBERS", "STATES", "Batch", "Update", "Updating", "numbers_taken", "update_rows", "update_rows_by"]

STATES = 3
"""Most states (arrays of the parameter's shape) that a rule keeps."""

NUMBERS = 10
"""Most numbers that a rule reads."""

PACKED = [struct.Struct(f"{count}d") for count in range(NUMBERS + 1)]

UPDATE = {**INNER, "fastmath": {"contract", "nsz"}}
"""Flags of the loop: never reassoc, which would undo the forms that the formulas choose."""


class Updating(NamedTuple):
    """Functions and constants that the update of one array reads."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    formula: Callable[..., Any]
    """Formula of the rule."""
    numbers_of: Callable[..., Any]
    """Function that reads the rule's numbers from an array."""
    Numbers: type
    """Record of the numbers that the formula takes."""
    STATES: int
    """Number of states that the formula takes."""
    COUNT: int
    """Number of fields of that record."""
    HOLDS0: bool
    """Whether state 0 is kept, otherwise the formula gets 0 and its result is dropped; so for the others."""
    HOLDS1: bool
    HOLDS2: bool


class Chunking(NamedTuple):
    """Functions that a chunk calls."""

    body: Callable[..., None]
    """Update of one array."""
    views_of: Callable[..., Any]
    """Function that makes arrays of addresses."""


class Grouping(NamedTuple):
    """Functions that the update of rows calls."""

    row: Callable[..., None]
    """Update of one array."""
    kind: type
    """Number type of the arrays."""


use: Any = unbound(Updating, Chunking, Grouping, Number)


def numbers_of(a):
    """Return the numbers of a rule, and those that fill up the row, in the precision of the arrays."""
    T = use.T
    first = (T(a[0]), T(a[1]), T(a[2]), T(a[3]), T(a[4]))
    return (*first, T(a[5]), T(a[6]), T(a[7]), T(a[8]), T(a[9]))


def update(p, g, a, b, c, numbers):
    """Update one array and its states."""
    widest_vectors()
    zero = use.T(0.0)
    # Read before the loop: for all that LLVM knows, a store to a parameter could change them.
    n = use.Numbers(*use.numbers_of(numbers)[: use.COUNT])
    for i in range(p.size):
        # A state that is not kept is a constant: its array and its branch leave the compiled loop.
        x = (a[i] if use.HOLDS0 else zero, b[i] if use.HOLDS1 else zero, c[i] if use.HOLDS2 else zero)
        out = use.formula(p[i], g[i], *x[: use.STATES], n)
        p[i] = out[0]
        if use.HOLDS0:
            a[i] = out[1]
        if use.HOLDS1:
            b[i] = out[2]
        if use.HOLDS2:
            c[i] = out[3]


def _chunk(lo, hi, pointers, numbers):
    p, g, a, b, c = use.views_of(pointers, lo, hi)
    use.body(p, g, a, b, c, numbers)
    return 0.0


def update_rows(lo, hi, order, starts, indices, rows, p, a, numbers):
    """Update the rows lo to hi of those that gradients are given for, after adding up the gradients of each.

    Entries starts[u] to starts[u + 1] of the order are the gradients of one row.
    """
    g = np.empty(rows.shape[1], use.kind)
    none = np.empty(0, use.kind)
    for u in range(lo, hi):
        first, last = starts[u], starts[u + 1]
        row = rows[order[first]]
        for j in range(g.size):
            g[j] = row[j]
        # In the order of the entries, which a stable sort keeps: the same bits on any number of threads.
        for k in range(first + 1, last):
            row = rows[order[k]]
            for j in range(g.size):
                g[j] += row[j]
        r = indices[order[first]]
        use.row(p[r], g, a[r] if a.size > 0 else none, none, none, numbers)


class Update(NamedTuple):
    """Rule, kept states and dtype that a kernel is compiled for."""

    name: str
    """Name of the rule."""
    formula: Any
    """Scalar formula of (parameter, gradient, states, numbers)."""
    holds: tuple[bool, ...]
    """Which states are kept."""
    dtype: str
    """Dtype of the arrays."""


def numbers_taken(formula: Callable[..., Any]) -> Any:
    """Return the record of numbers that the formula of a rule takes: the type of its last parameter."""
    return list(formula.__annotations__.values())[-1]


@cache
def _record(made: Update) -> Updating:
    kind = getattr(np, made.dtype)
    holds = (*made.holds, *[False] * STATES)[:STATES]
    numbers = numbers_taken(made.formula)
    return Updating(
        T=kind,
        formula=carry(made.formula, cpu(made.dtype)),
        numbers_of=inner(numbers_of, SCALAR, Number(kind)),
        Numbers=numbers,
        STATES=len(made.holds),
        COUNT=len(numbers._fields),
        HOLDS0=holds[0],
        HOLDS1=holds[1],
        HOLDS2=holds[2],
    )


@cache
def _views(dtype: str) -> Any:
    """Return the function that makes the arrays lo to hi of parameter, gradient and states, by their addresses."""
    kind, count = array(dtype), 2 + STATES

    @intrinsic
    def views_of(typingctx, pointers, lo, hi):
        def codegen(context, builder, signature, args):
            cells = context.make_array(signature.args[0])(context, builder, args[0]).data
            integer = context.get_value_type(types.intp)
            item = integer(kind.dtype.bitwidth // 8)
            views = []
            for k in range(count):
                base = builder.load(builder.gep(cells, [integer(k)]))
                start = builder.inttoptr(base, context.get_data_type(kind.dtype).as_pointer())
                view = context.make_array(kind)(context, builder)
                absent = builder.icmp_unsigned("==", base, integer(0))
                size = builder.select(absent, integer(0), builder.sub(args[2], args[1]))
                # A view of no elements stands for a state that is not kept, whatever its address.
                data = builder.gep(start, [builder.select(absent, integer(0), args[1])])
                populate_array(view, data, [size], [item], item, ir.Constant(view.meminfo.type, None))
                views.append(view._getvalue())
            return context.make_tuple(builder, signature.return_type, views)

        return types.UniTuple(kind, count)(pointers, types.intp, types.intp), codegen

    return views_of


@cache
def _chunk_kernel(made: Update) -> Any:
    signature = types.float64(types.intp, types.intp, array("int64"), array("float64"))
    body = inner(update, UPDATE, _record(made))
    name = "_".join([made.name, *("01"[held] for held in made.holds), made.dtype])
    with dispatch.compiling:
        return compile_chunk(_chunk, name, signature, Chunking(body, _views(made.dtype)))


BYTES, GRADIENT = 2 + STATES, 3 + STATES
"""Columns of a batch's table, after the addresses of parameter, gradient and states: the size of each of them (bytes),
and the gradient as a Python object."""


@compiled(INNER)
def place_gradients(table):
    """Write the addresses of gradients, given as Python objects; count those that overlap what changes."""
    overlapping = 0
    for i in range(table.shape[0]):
        # Reads the address in the object itself: `.ctypes.data` takes 1 us an array.
        g, size = machine_word(table[i, GRADIENT] + HEAD), table[i, BYTES]
        table[i, 1] = g
        for k in range(BYTES):
            other = table[i, k]
            if k != 1 and other != 0:
                overlapping += (g < other + size) & (other < g + size)
    return overlapping


def _drive(address, table, numbers, plan, parallel):
    """Update the arrays of a group, chunk by chunk, unless a gradient overlaps its parameter."""
    overlapping = place_gradients(table)
    # Does nothing where a gradient overlaps: half a step could neither be repeated nor undone.
    chunks = plan.shape[0] if overlapping == 0 else 0
    for c in prange(chunks):
        i = plan[c, 0]
        call(address, (plan[c, 1], plan[c, 2], table[i], numbers[i]))
    return overlapping


@cache
def _driver() -> Any:
    words, doubles = array("int64", 2), array("float64", 2)
    with dispatch.compiling:
        return compile_driver(_drive, "updates", types.intp(types.intp, words, doubles, words, types.boolean))


class Batch:
    """Arrays of one dtype that one call updates, with their states and the numbers of each."""

    def __init__(self, made: Update, arrays: Sequence[Any], states: Sequence[Sequence[Any]]) -> None:
        self.made, self.arrays, self.states = made, arrays, states
        self.numbers: Any = np.zeros((len(arrays), NUMBERS))
        self.total = sum(a.size for a in arrays)
        self.table = np.zeros((len(arrays), GRADIENT + 1), np.int64)
        for row, a, kept in zip(self.table, arrays, states, strict=True):
            row[0], row[BYTES] = a.ctypes.data, a.nbytes
            row[2 : 2 + len(kept)] = [0 if x is None else x.ctypes.data for x in kept]
        self.plan = self._plan()
        self.driver: Any = None
        self.address = 0

    def _plan(self) -> Any:
        """Return (array, first, last) of each chunk; chunks depend on the sizes alone."""
        # Of all arrays together: many small ones share one parallel loop.
        chunk = dispatch.chunk_of(self.total)
        plan = [(i, lo, min(lo + chunk, a.size)) for i, a in enumerate(self.arrays) for lo in range(0, a.size, chunk)]
        return np.array(plan, np.int64).reshape(-1, 3)

    def compile(self) -> None:
        """Compile the update, or load it from the disk cache."""
        if not config.DISABLE_JIT:
            self.address, self.driver = _chunk_kernel(self.made).address, _driver()

    def set_numbers(self, i: int, row: tuple[float, ...]) -> None:
        """Set the numbers of one array."""
        # Takes half the time of an assignment to a slice.
        PACKED[len(row)].pack_into(self.numbers, i * PACKED[NUMBERS].size, *row)

    def run(self, gradients: Sequence[Any]) -> bool:
        """Update all arrays by C-contiguous gradients of their shapes and dtype; False where a gradient overlaps."""
        if config.DISABLE_JIT:
            self._run_plain(gradients)
            return True
        if self.driver is None:
            self.compile()
        # Spares a list, and an assignment to a slice: 1,000 elements take 4.5 us in all.
        if len(gradients) == 1:
            self.table[0, GRADIENT] = id(gradients[0])
        else:
            self.table[:, GRADIENT] = [id(g) for g in gradients]
        arguments = self.address, self.table, self.numbers, self.plan
        if self.total < dispatch.PARALLEL_FROM:
            return bool(self.driver(*arguments, False) == 0)
        return bool(dispatch.launch(self.driver, self.total, *arguments) == 0)

    def _run_plain(self, gradients: Sequence[Any]) -> None:
        body, none = bind(update, _record(self.made)), np.empty(0, self.made.dtype)
        for p, g, kept, numbers in zip(self.arrays, gradients, self.states, self.numbers, strict=True):
            held = [none if x is None else x.reshape(-1) for x in kept]
            with np.errstate(all="ignore"):
                body(p.reshape(-1), np.array(g).reshape(-1), *[*held, *[none] * STATES][:STATES], numbers)


@cache
def _row_kernel(made: Update) -> Kernel:
    row = inner(update, UPDATE, _record(made)) if not config.DISABLE_JIT else bind(update, _record(made))
    return Kernel(update_rows, f"{made.name}_rows_{made.dtype}", Grouping(row, getattr(np, made.dtype)), {}, False)


def update_rows_by(made: Update, p: Any, state: Any, gradient: tuple[Any, Any], numbers: Any) -> None:
    """Update the rows of p, (n, d), by a gradient given as indices (k,), int64, and rows, (k, d)."""
    indices, rows = gradient
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(order)]]).astype(np.int64)
    units = len(starts) - 1 if len(order) else 0
    kept = np.empty((0, p.shape[1]), p.dtype) if state is None else state
    _row_kernel(made)(units, 4.0 * rows.size, order.astype(np.int64), starts, indices, rows, p, kept, numbers)
