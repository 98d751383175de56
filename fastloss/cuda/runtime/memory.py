"""Reading and writing device memory by address, 128 bits at a time, in the format in which it is stored.

A kernel gets addresses, not arrays: a launch then costs no unpacking of shapes and strides, and a load says how wide
and how aligned it is. In the simulator an address is an array, and what stands here in Python is what runs.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba import cuda as numba_cuda

from ...cpu.runtime.access import narrowed, widened
from ...cpu.runtime.specialize import bind

__all__ = [
    "BYTES",
    "SIMULATED",
    "WIDTH",
    "alignment",
    "chained",
    "cuda",
    "device",
    "present",
    "reader",
    "real",
    "spelled",
    "writer",
]

SIMULATED = bool(config.ENABLE_CUDASIM)

WIDTH = {"float32": 4, "float64": 2, "float16": 8, "bfloat16": 8}
"""Elements of 128 bits, by the format in which an array is stored."""


class _Simulated:
    """Stand-in for the module `cuda` in every function that a thread of the simulator runs.

    The simulator itself puts it into the globals of each function for the time of a call, which threads that share
    them would see come and go.
    """

    def __getattr__(self, name: str) -> Any:
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context(), name)


cuda = _Simulated() if SIMULATED else numba_cuda
"""Device functions for kernels: indices of threads, shuffles, shared memory."""

device = (lambda f: f) if SIMULATED else numba_cuda.jit(device=True)
"""Compiles a function that kernels call."""


def chained(templates: Iterable[Callable[..., Any]], use: Any) -> dict[str, Any]:
    """Return device functions by their names, each bound to a record and to those before it."""
    found: dict[str, Any] = {}
    for template in templates:
        found[template.__name__] = device(bind(template, use, **found))
    return found


def spelled(arguments: str, *parts: str, single: bool = False, **bound: Any) -> Any:
    """A function for kernels that returns some expressions, as a tuple or by itself; equal ones are compiled once.

    A loop over them would index tuples by a number that is not constant, and keep them in memory.
    """
    # A 0 of float32 equals one of float64, but is another constant.
    named = tuple((name, tuple(map(type, x)) if type(x) is tuple else type(x), x) for name, x in sorted(bound.items()))
    return _spelled(arguments, ", ".join(parts) + "," * (not single), named)


@cache
def _spelled(arguments: str, body: str, bound: tuple[tuple[str, Any, Any], ...]) -> Any:
    return device(eval(f"lambda {arguments}: ({body})", {name: x for name, _, x in bound}))


def real(stored: str) -> str:
    """The precision in which numbers of a format are computed; of a bool, the byte that it is."""
    return {"float16": "float32", "bfloat16": "float32", "bool": "uint8"}.get(stored, stored)


BYTE = ir.IntType(8)
FORMS = {
    **{"float32": ir.FloatType(), "float64": ir.DoubleType(), "bool": BYTE, "uint8": BYTE},
    **{"int32": ir.IntType(32), "int64": ir.IntType(64), "uint64": ir.IntType(64)},
}
BYTES = {
    "float64": 8,
    "int64": 8,
    "uint64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "bool": 1,
    "uint8": 1,
}


def _form(stored: str) -> Any:
    """How LLVM names a number as it is stored."""
    return FORMS.get(stored, ir.IntType(16))


def alignment(stored: str, width: int) -> int:
    """At which places in memory a group of so many numbers begins."""
    return min(16, width * BYTES[stored])


def _pointer(builder: Any, address: Any, i: Any, form: Any) -> Any:
    """A pointer to global memory: one to memory of any kind would be looked up at each access."""
    # Named global here, as nothing else in the kernel says so.
    base = builder.inttoptr(address, ir.PointerType(form, addrspace=1))
    return builder.gep(base, [i])


BITS = {"float16": types.int16, "bfloat16": types.uint16}
"""The integers by whose names numbers of 16 bits go."""


def _widened(builder: Any, stored: str, x: Any) -> Any:
    return widened(builder, BITS[stored], x) if stored in BITS else x


def _narrowed(builder: Any, stored: str, x: Any) -> Any:
    return narrowed(builder, BITS[stored], x) if stored in BITS else x


@cache
def reader(stored: str, width: int = 1) -> Callable[..., Any]:
    """A function of (address, i): the i-th group of `width` numbers, as a tuple in the precision computed in."""
    if SIMULATED:
        kind = getattr(np, real(stored))
        return lambda a, i: tuple(kind(x) for x in _group(a, i, stored, width))

    from numba.cuda.extending import intrinsic

    number = getattr(types, real(stored))
    result = types.UniTuple(number, width)

    @intrinsic
    def read(typingctx, address, i):
        def codegen(context, builder, signature, args):
            form = _form(stored)
            if width == 1:
                return context.make_tuple(
                    builder, result, [_widened(builder, stored, builder.load(_pointer(builder, *args, form)))]
                )
            group = builder.load(_pointer(builder, *args, ir.VectorType(form, width)))
            # At most 16 bytes, as arrays are aligned: LLVM would assume the size of the vector, and a device refuses
            # a load that is not aligned as it says.
            group.align = alignment(stored, width)
            parts = [builder.extract_element(group, ir.IntType(32)(k)) for k in range(width)]
            return context.make_tuple(builder, result, [_widened(builder, stored, x) for x in parts])

        return result(types.uint64, types.uint64), codegen

    found: Callable[..., Any] = read
    return found


@cache
def writer(stored: str, width: int = 1) -> Callable[..., Any]:
    """A function of (address, i, numbers) that writes the i-th group of `width` numbers."""
    if SIMULATED:
        return _simulated_writer(stored, width)

    from numba.cuda.extending import intrinsic

    @intrinsic
    def write(typingctx, address, i, numbers):
        def codegen(context, builder, signature, args):
            form, (address, i, numbers) = _form(stored), args
            parts = [_narrowed(builder, stored, builder.extract_value(numbers, k)) for k in range(width)]
            if width == 1:
                builder.store(parts[0], _pointer(builder, address, i, form))
                return context.get_dummy_value()
            if stored in ("float16", "bfloat16"):
                # Two halves a word: the compiler stores no more than four numbers at a time.
                form = ir.IntType(32)
                words = [builder.zext(x, form) for x in parts]
                parts = [
                    builder.or_(low, builder.shl(high, form(16)))
                    for low, high in zip(words[::2], words[1::2], strict=True)
                ]
            wide = ir.VectorType(form, len(parts))
            # One vector, stored at once: LLVM joins no stores of single numbers to 128 bits.
            group = ir.Constant(wide, ir.Undefined)
            for k, x in enumerate(parts):
                group = builder.insert_element(group, x, ir.IntType(32)(k))
            builder.store(group, _pointer(builder, address, i, wide)).align = alignment(stored, width)
            return context.get_dummy_value()

        number = getattr(types, real(stored))
        return types.void(types.uint64, types.uint64, types.UniTuple(number, width)), codegen

    found: Callable[..., Any] = write
    return found


def _group(a: Any, i: int, stored: str, width: int) -> Any:
    """The i-th group of an array, whose format must be the one that a kernel would read or write by its address."""
    found = a.dtype.name
    assert found == stored or {found, stored} == {"bool", "uint8"}, f"{found} taken for {stored}"
    return a[int(i) * width : int(i) * width + width]


def _simulated_writer(stored: str, width: int) -> Callable[..., Any]:
    def write(a: Any, i: int, numbers: Any) -> None:
        with np.errstate(over="ignore"):
            _group(a, i, stored, width)[...] = np.array(numbers).astype(a.dtype)

    return write


@device
def _present(address):
    return address != 0


present = (lambda a: a is not None) if SIMULATED else _present
"""Whether an optional array is there: absent ones have the address 0."""
