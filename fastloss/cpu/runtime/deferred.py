"""Compilation by Numba that makes machine code of kernels alone, not of every function inside them.

Numba hands the LLVM module of each function to the machine code generator, though a kernel links the module itself: of
107 functions that `fastloss eval --sample` compiles, 15 are ever called by address. Leaving out the others takes 1.6 of
13 seconds. A machine code generator still gets a function where its address is asked for.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

__all__ = ["defer", "deferring"]

_environments: dict[str, Any] = {}
"""Environments of functions without machine code, by the names of the variables that hold their addresses."""


class _Deferred(JITCodeLibrary):  # type: ignore[misc]
    """LLVM module of one function, of which machine code is made when an address is asked for."""

    _emitted = False

    @property
    def codegen(self) -> Any:
        """Receiver of the function's environment, where Numba looks for the code generator."""
        return self

    def set_env(self, name: str, environment: Any) -> None:
        """Keep the environment of a function until there is machine code that reads it."""
        _environments[name] = environment
        if self._emitted:
            self._set_environments()

    def _set_environments(self) -> None:
        for variable in self._final_module.global_variables:
            if variable.name in _environments:
                self._codegen.set_env(variable.name, _environments[variable.name])

    def _finalize_final_module(self) -> None:
        """Take the linked and optimised module for final."""
        self._finalized = True

    def _emit(self) -> None:
        if not self._emitted:
            self._emitted = True
            super()._finalize_final_module()
            self._set_environments()

    def _get_compiled_object(self) -> Any:
        self._ensure_finalized()
        self._emit()
        return super()._get_compiled_object()

    def get_pointer_to_function(self, name: str) -> int:
        """Return the address of a function of the module, or 0 where the module does not define it."""
        self._ensure_finalized()
        try:
            defined = not self._final_module.get_function(name).is_declaration
        except NameError:
            return 0
        if defined:
            self._emit()
        return int(super().get_pointer_to_function(name)) if defined else 0


@contextmanager
def deferring() -> Iterator[None]:
    """Compile with machine code for kernels alone, and without Python's collector of cycles.

    The collector goes through all of Numba's objects a hundred times in vain: 0.9 of 13 seconds.
    """
    with global_compiler_lock:
        codegen, collects = cpu_target.target_context.codegen(), gc.isenabled()
        before = codegen.__dict__.get("_library_class")
        codegen._library_class = _Deferred
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
            if before is None:
                del codegen._library_class
            else:
                codegen._library_class = before


def defer(dispatcher: Any) -> Any:
    """Make a dispatcher of Numba compile so."""
    compile_one: Callable[..., Any] = dispatcher._compiler.compile

    def compile_deferred(*arguments: Any) -> Any:
        with deferring():
            return compile_one(*arguments)

    dispatcher._compiler.compile = compile_deferred
    return dispatcher
