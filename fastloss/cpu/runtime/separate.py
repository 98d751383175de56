"""Numba's compiler for functions of arrays that do not overlap, so that where they lie changes no bits.

LLVM cannot know that an output overlaps no other array (``check.output`` sees to that). It tests at run time, and takes
a scalar loop, with another order of summing and other last bits, where two arrays are closer than a few vectors.
"""

from typing import Any

from numba import types
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import BaseNativeLowering, NativeLowering
from numba.core.types.containers import BaseTuple

__all__ = ["PROMISE", "Separate"]


def _promise(models: Any, kind: Any, argument: Any) -> None:
    """Mark the memory of an array, or of the arrays in a tuple, as one that no other argument overlaps."""
    # The data alone: shapes and strides are numbers.
    if isinstance(kind, types.Array):
        argument[models[kind].get_field_position("data")].add_attribute("noalias")
    elif isinstance(kind, BaseTuple):
        for each, part in zip(kind, argument, strict=True):
            _promise(models, each, part)


class _Lower(Lower):  # type: ignore[misc]
    """Numba's translator to LLVM, with the promise on every array argument."""

    def setup_function(self, fndesc: Any) -> None:
        """Declare the function."""
        super().setup_function(fndesc)
        # Arguments arrive flat, the fields of each array one by one.
        packer = self.context.get_arg_packer(fndesc.argtypes)
        arguments = packer._unflattener.unflatten(self.call_conv.get_arguments(self.function))
        for kind, argument in zip(fndesc.argtypes, arguments, strict=True):
            _promise(self.context.data_model_manager, kind, argument)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(BaseNativeLowering):  # type: ignore[misc]
    _name = "native_lowering_of_separate_arrays"

    @property
    def lowering_class(self) -> Any:
        return _Lower


class Separate(Compiler):  # type: ignore[misc]
    """Compiler of functions whose array arguments do not overlap, unless none of those that do is written."""

    def define_pipelines(self) -> Any:
        """Return Numba's pipeline with the promise in its translator."""
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [(_Lowering if p is NativeLowering else p, text) for p, text in pipeline.passes]
        pipeline.finalize()
        return [pipeline]


PROMISE = (_promise, _Lower.setup_function)
"""Functions that change the machine code of all kernels, for the names of kernels on disk."""
