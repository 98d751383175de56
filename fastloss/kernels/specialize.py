"""Binds scalar functions into a loop template and compiles it so that the disk cache can hold it.

A closure over a jitted function never hits a disk cache; a copy of the template with the function as a *global*
does. The digest covers template, bound functions, everything they call, all constants, the jit options and the
versions of what compiles them. It is part of the qualified name, because two kernels of one name can link to
each other's code.
"""

import hashlib
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
from numba import config, njit
from numba.core.ccallback import CFunc

from .._version import __version__
from .cache import KernelCache, environment

__all__ = ["INNER", "LOOP", "SCALAR", "bind", "compile_chunk", "compile_driver", "digest"]

INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""For functions that only kernels call; the wrappers would take two thirds of their compilation."""

SCALAR = {**INNER, "fastmath": {"contract", "nsz"}, "forceinline": True}
"""Flags of element functions: never reassoc (it breaks compensated steps), nnan or ninf (NaN comes through)."""

LOOP = {**INNER, "fastmath": {"contract", "nsz", "reassoc"}}
"""Flags of loops, where reassociation is what lets a sum vectorise."""

_CHUNK = {k: v for k, v in LOOP.items() if k not in ("no_cpython_wrapper", "no_cfunc_wrapper")}


def _feed(h: Any, value: Any, seen: set[int]) -> None:
    if hasattr(value, "py_func"):
        _feed(h, value.targetoptions, seen)
        value = value.py_func
    if isinstance(value, CodeType):
        h.update(value.co_code)
        _feed(h, value.co_names, seen)
        _feed(h, value.co_consts, seen)
        h.update(repr(value.co_varnames).encode())
    elif isinstance(value, FunctionType):
        if id(value) in seen:
            return
        seen.add(id(value))
        h.update(value.__name__.encode())
        _feed(h, value.__code__, seen)
        _feed(h, value.__defaults__, seen)
        for name in value.__code__.co_names:
            if name in value.__globals__:
                h.update(name.encode())
                _feed(h, value.__globals__[name], seen)
        for cell in value.__closure__ or ():
            _feed(h, cell.cell_contents, seen)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _feed(h, item, seen)
    elif isinstance(value, dict):
        _feed(h, sorted(value.items()), seen)
    elif isinstance(value, (set, frozenset)):
        _feed(h, sorted(map(repr, value)), seen)
    elif isinstance(value, ModuleType):
        h.update(value.__name__.encode())
    elif isinstance(value, np.generic):
        h.update(f"{value.dtype}{value.tobytes()!r}".encode())
    elif hasattr(value, "_defn"):
        # A Numba intrinsic: its definition and the code generator inside it.
        _feed(h, value._defn, seen)
    else:
        text = repr(value)
        assert " at 0x" not in text, f"{text} has no name that lasts"
        h.update(text.encode())


def digest(*parts: Any) -> str:
    """A name for machine code: equal digests mean equal code, for functions with all they reach."""
    h = hashlib.sha256()
    seen: set[int] = set()
    for part in (__version__, environment(), *parts):
        _feed(h, part, seen)
        h.update(b"\0")
    return h.hexdigest()[:20]


def bind(template: Callable[..., Any], **bound: Any) -> FunctionType:
    """Copy the template with other globals."""
    assert isinstance(template, FunctionType)
    copy = FunctionType(template.__code__, template.__globals__ | bound, template.__name__, template.__defaults__)
    copy.__module__ = template.__module__
    return copy


def _named(template: Callable[..., Any], name: str, key: str, bound: dict[str, Any]) -> FunctionType:
    copy = bind(template, **bound)
    copy.__name__ = name
    copy.__qualname__ = f"{name}_{key}"
    return copy


class Chunk:
    """A compiled chunk kernel: its address, and whether it came from the disk cache."""

    def __init__(self, address: Any, cached: bool, inspect_asm: Callable[[], str]) -> None:
        self.address = address
        self.cached = cached
        self.inspect_asm = inspect_asm


def compile_chunk(template: Callable[..., Any], name: str, signature: Any, **bound: Any) -> Chunk:
    """Compile a serial kernel, to be called by address from a driver."""
    if config.DISABLE_JIT:
        return Chunk(bind(template, **bound), False, str)
    key = digest("chunk", template, bound, signature, _CHUNK)
    function = _named(template, name, key, bound)
    compiled = CFunc(function, (signature.args, signature.return_type), {}, options=_CHUNK)
    cache = KernelCache(key, name)
    compiled._cache = cache
    compiled.compile()
    return Chunk(compiled.address, cache.hit, lambda: compiled._library.get_asm_str())


def compile_driver(
    template: Callable[..., Any], name: str, signature: Any, parallel: bool = True, **bound: Any
) -> Callable[..., Any]:
    """Compile a function that Python calls, with one signature."""
    options = {"parallel": parallel, "nogil": True, "error_model": "numpy"}
    if config.DISABLE_JIT:
        return bind(template, **bound)
    key = digest("driver", template, bound, signature, options)
    function = _named(template, name, key, bound)
    dispatcher = njit(**options)(function)
    dispatcher._cache = KernelCache(key, name)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher
