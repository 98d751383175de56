"""Subnormal numbers, which kernels of a softmax take for 0.

The vector units of x86-64 may need 150 cycles for an operation that meets or makes one. Where logits have a standard
deviation of 22, one exponential in seven is subnormal in float32, and more derivatives are: cross_entropy took 5 times
as long on one machine, 30 to 40 times on another.
"""

import platform

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .specialize import cached_jit

__all__ = ["flush_subnormals", "flushed_subnormals", "restore_subnormals"]

FLUSH_RESULTS, FLUSH_OPERANDS = 1 << 15, 1 << 6
"""Bits of MXCSR, the control and status word of a thread's vector unit on x86-64."""

X86 = platform.machine().lower() in ("x86_64", "amd64")


def _control(builder, action, pointer):
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{action}mxcsr")
    builder.call(function, [builder.bitcast(pointer, byte)])


@intrinsic
def _flush(typingctx):
    """Take subnormal operands and results for 0 in this thread from here on; return the control word until then."""

    def codegen(context, builder, signature, args):
        word = ir.IntType(32)
        if not X86:
            return word(0)
        room = cgutils.alloca_once(builder, word)
        _control(builder, "st", room)
        before = builder.load(room)
        # The other bits stay: rounding and masks of exceptions are the caller's.
        builder.store(builder.or_(before, word(FLUSH_RESULTS | FLUSH_OPERANDS)), room)
        _control(builder, "ld", room)
        return before

    return types.uint32(), codegen


@intrinsic
def _restore(typingctx, before):
    """Set the control word, and with it what became of subnormal numbers before."""

    def codegen(context, builder, signature, args):
        if X86:
            room = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(args[0], room)
            _control(builder, "ld", room)
        return context.get_dummy_value()

    return types.void(types.uint32), codegen


flush_subnormals = (lambda: 0) if config.DISABLE_JIT else _flush
restore_subnormals = (lambda before: None) if config.DISABLE_JIT else _restore


@cached_jit(error_model="numpy")
def _begin():
    return flush_subnormals()


@cached_jit(error_model="numpy")
def _end(before):
    restore_subnormals(before)


class flushed_subnormals:
    """Take subnormal numbers for 0 in this thread, in products of BLAS too; a generator would take twice as long."""

    __slots__ = ("before",)

    def __enter__(self) -> None:
        self.before = _begin()

    def __exit__(self, *error: object) -> None:
        _end(self.before)
