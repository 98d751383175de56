"""Binds scalar functions into a loop template and compiles it so that the disk cache can hold it.

A closure over a jitted function never hits a disk cache; a copy of the template with the function in a *global* record,
which the template reads as `use`, does. The digest covers template, bound functions, everything they call, all
constants, the jit options and the versions of what compiles them. It is part of the qualified name, because two kernels
of one name can link to each other's code.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from llvmlite.binding import parse_assembly
from numba import config, njit, types
from numba.core import cgutils
from numba.core.ccallback import _CFuncCompiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ..._version import __version__
from .cache import KernelCache, environment
from .deferred import defer, deferring
from .separate import PROMISE, Separate
from .slots import Unbound, names_of

__all__ = [
    "INLINED",
    "INNER",
    "LOOP",
    "SCALAR",
    "Linked",
    "bind",
    "cached_jit",
    "chained",
    "compile_chunk",
    "compile_driver",
    "compiled",
    "digest",
    "in_parallel",
    "inner",
]

INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""For functions that only kernels call; the wrappers would take two thirds of their compilation."""

SCALAR = {**INNER, "fastmath": {"contract", "nsz"}, "forceinline": True}
"""Flags of element functions: never reassoc (it breaks compensated steps), nnan or ninf (NaN comes through)."""

LOOP = {**INNER, "fastmath": {"contract", "reassoc"}}
"""Flags of loops, where reassociation is what lets a sum vectorise.

Not nsz: with both on a sum, LLVM cancels inside its unflagged operands, and s += v - v becomes s += 0 even for NaN.
"""

INLINED = {**LOOP, "forceinline": True}
"""Flags of a loop that is a part of the loop that calls it."""

_CHUNK = {k: v for k, v in LOOP.items() if k not in ("no_cpython_wrapper", "no_cfunc_wrapper")}


VERSIONED = {"llvmlite", "numba", "numpy"}
"""Packages whose text the versions in the environment stand for, as they do for the standard library."""


def _versioned(module: str | None) -> bool:
    return (module or "").split(".")[0] in VERSIONED


def _leaf(h: Any, kind: str, data: bytes) -> None:
    # Length first: 1.0 and 23.0 must not read as 1.02 and 3.0.
    h.update(f"{kind} {len(data)} ".encode() + data)


def _used(value: Any, names: list[str]) -> Any:
    """Return the parts of a global that a function reads: of its template's record, the fields that it names."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {n: getattr(value, n) for n in value._fields if n in names}
    return value


def _undocumented(function: FunctionType) -> CodeType:
    """Return the code of a function without its docstring, the first of its constants."""
    code = function.__code__
    if function.__doc__ is None or code.co_consts[:1] != (function.__doc__,):
        return code
    return code.replace(co_consts=(None, *code.co_consts[1:]))


def _feed(h: Any, value: Any, seen: dict[int, int]) -> None:
    if hasattr(value, "_fastloss_digest"):
        _leaf(h, "inner", value._fastloss_digest.encode())
        return
    if hasattr(value, "py_func"):
        _feed(h, value.targetoptions, seen)
        value = value.py_func
    if isinstance(value, CodeType):
        _leaf(h, "code", value.co_code)
        _feed(h, (value.co_names, value.co_varnames, value.co_argcount, value.co_flags, value.co_consts), seen)
    elif isinstance(value, FunctionType):
        # Their text is not read: the versions in the environment stand for it.
        if _versioned(value.__module__):
            _leaf(h, "function", f"{value.__module__}.{value.__qualname__}".encode())
            return
        # A function may reach itself.
        if id(value) in seen:
            _leaf(h, "again", str(seen[id(value)]).encode())
            return
        seen[id(value)] = len(seen)
        names = names_of(value.__code__)
        used = {n: _used(value.__globals__[n], names) for n in names if n in value.__globals__}
        # What a closure holds determines the code as much as a global does.
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        _leaf(h, "function", value.__qualname__.encode())
        _feed(h, (_undocumented(value), value.__defaults__, value.__kwdefaults__, used, cells), seen)
    elif isinstance(value, (tuple, list)):
        _leaf(h, "items", str(len(value)).encode())
        for item in value:
            _feed(h, item, seen)
    elif isinstance(value, dict):
        _feed(h, sorted(value.items()), seen)
    # Sorted: the order of a set of flags depends on the hash seed of the process.
    elif isinstance(value, (set, frozenset)):
        _feed(h, sorted(map(repr, value)), seen)
    elif isinstance(value, ModuleType):
        known = _versioned(value.__name__) or value.__name__.split(".")[0] in sys.stdlib_module_names
        assert known, f"{value.__name__} is a module: name what a kernel takes of it"
        _leaf(h, "module", value.__name__.encode())
    elif isinstance(value, (np.generic, np.ndarray)):
        _leaf(h, f"{value.dtype}{value.shape}", value.tobytes())
    elif isinstance(value, type) and hasattr(value, "_fields"):
        # A record that a kernel builds or reads by its fields, whose order is part of the code.
        _leaf(h, "record", f"{value!r}{value._fields}".encode())
    elif hasattr(value, "_defn"):
        # A Numba intrinsic: its definition and the code generator inside it.
        _feed(h, value._defn, seen)
    else:
        text = repr(value)
        assert " at 0x" not in text, f"{text} has no name that lasts"
        _leaf(h, "text", text.encode())


def digest(*parts: Any) -> str:
    """A name for machine code: equal digests mean equal code, for functions with all they reach."""
    h = hashlib.sha256()
    _feed(h, (__version__, environment(), PROMISE, *parts), {})
    return h.hexdigest()[:20]


def bind(template: Callable[..., Any], use: Any = None, **functions: Any) -> FunctionType:
    """Copy the template with the record that it reads as `use`, and with other functions by their names."""
    assert isinstance(template, FunctionType)
    bound = functions
    if use is not None:
        declared = template.__globals__.get("use")
        if not isinstance(declared, Unbound) or type(use) not in declared.kinds:
            raise TypeError(f"{template.__name__} of {template.__module__} reads no {type(use).__qualname__}")
        bound = {**functions, "use": use}
    copy = FunctionType(template.__code__, template.__globals__ | bound, template.__name__, template.__defaults__)
    copy.__module__ = template.__module__
    return copy


def _named(function: FunctionType, name: str, key: str) -> FunctionType:
    """Copy a function under a name that holds the digest of all it reaches."""
    copy = bind(function)
    copy.__name__ = name
    copy.__qualname__ = f"{name}_{key}"
    return copy


_inner: dict[str, Callable[..., Any]] = {}


def inner(
    template: Callable[..., Any], options: dict[str, Any], use: Any = None, **functions: Any
) -> Callable[..., Any]:
    """Numba's njit for a function that kernels call, once for all of them, under a name of its own.

    Kernels from the disk cache bring their inner functions along. Of two with one name, from kernels that different
    processes compiled, the linker takes the first: a loss then runs with the formula of another.
    """
    function = bind(template, use, **functions)
    key = digest("inner", function, options)
    if key not in _inner:
        found = njit(**options, pipeline_class=Separate)(_named(function, template.__name__, key))
        # Stands for all that the function reaches: a kernel's digest need not go through that again.
        found._fastloss_digest = key
        _inner[key] = found
    return _inner[key]


def chained(
    templates: Iterable[Callable[..., Any]], options: dict[str, Any], use: Any, functions: dict[str, Any]
) -> dict[str, Any]:
    """Return the functions with compiled ones added by their names, each of which may call those before it."""
    found = dict(functions)
    for template in templates:
        found[template.__name__] = inner(template, options, use, **found)
    return found


def compiled(options: dict[str, Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Numba's njit for a function that is the same in all kernels; what it calls must stand before it."""
    return lambda function: inner(function, options)


def cached_jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Numba's njit for a function that stands by itself, with this package's cache."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if config.DISABLE_JIT:
            # Compiled code lets no warning through.
            return np.errstate(all="ignore")(function)
        options["no_cfunc_wrapper"] = True
        key = digest("jit", function, options)
        assert isinstance(function, FunctionType)
        dispatcher = defer(njit(**options)(_named(function, function.__name__, key)))
        dispatcher._cache = KernelCache(key, function.__name__)
        return dispatcher  # type: ignore[no-any-return]

    return decorate


class Linked(NamedTuple):
    """A function that a template calls by its signature alone, and that is linked to the compiled template.

    Numba takes ten times as long to bring a template to LLVM as LLVM then takes: all that differ in such functions
    alone share the first.
    """

    function: Any
    signature: Any


class Chunk:
    """A compiled chunk kernel: its address, whether it came from the disk cache, and its text where it did not."""

    def __init__(
        self, address: Any, cached: bool, inspect_asm: Callable[[], str], inspect_llvm: Callable[[], str] = str
    ) -> None:
        self.address = address
        self.cached = cached
        self.inspect_asm = inspect_asm
        self.inspect_llvm = inspect_llvm


def compile_chunk(template: Callable[..., Any], name: str, signature: Any, use: Any = None, **functions: Any) -> Chunk:
    """Compile a serial kernel, to be called by address from a driver."""
    linked = {} if use is None else {k: v for k, v in use._asdict().items() if isinstance(v, Linked)}
    if config.DISABLE_JIT:
        plain = use._replace(**{k: v.function for k, v in linked.items()}) if linked else use
        return Chunk(bind(template, plain, **functions), False, str)
    key = digest("chunk", bind(template, use, **functions), signature, _CHUNK)
    context = cpu_target.target_context
    stored = KernelCache(key, name)

    def rebuild(symbol: str, state: Any) -> tuple[str, Any]:
        return symbol, context.codegen().unserialize_library(state)

    with global_compiler_lock:
        found = stored.load(signature, context, rebuild)
        if found is None:
            called = use._replace(**{k: _call_of(k, v.signature) for k, v in linked.items()}) if linked else use
            with deferring():
                symbol, library = found = _link(bind(template, called, **functions), key, signature, linked)
            stored.save(signature, context, lambda: (symbol, library.serialize_using_object_code()))
        symbol, library = found
        address = library.get_pointer_to_function(symbol)
        return Chunk(address, stored.hit, library.get_asm_str, library.get_llvm_str)


class _FrontEnd(_CFuncCompiler):  # type: ignore[misc]
    """Numba's compiler of C functions, up to LLVM's text."""

    def _customize_flags(self, flags: Any) -> Any:
        flags = super()._customize_flags(flags)
        flags.no_compile = True
        return flags


_translated: dict[str, Any] = {}


def _link(function: FunctionType, key: str, signature: Any, linked: dict[str, Linked]) -> tuple[str, Any]:
    """Translate a function, unless that has been done, and make a library of it and of what is linked to it."""
    own = digest("template", function, signature, _CHUNK)
    if own not in _translated:
        front = _FrontEnd(_named(function, function.__name__, own), cpu_target, _CHUNK, {}, Separate)
        _translated[own] = front.compile(signature.args, signature.return_type)
    translated = _translated[own]
    # The digest of the template is in all its names: with that of the kernel, no two kernels share one.
    text = translated.library.get_llvm_str().replace(own, key)
    libraries = list(translated.library._linking_libraries)
    for k, (called, sig) in linked.items():
        called.compile(sig)
        compiled = called.overloads[sig.args]
        text = text.replace(_symbol(k), compiled.fndesc.mangled_name)
        libraries.append(compiled.library)
    library = cpu_target.target_context.codegen().create_library(key)
    library.enable_object_caching()
    library._final_module.link_in(parse_assembly(text))
    for other in libraries:
        library.add_linking_library(other)
    library.finalize()
    return translated.fndesc.llvm_cfunc_wrapper_name.replace(own, key), library


def _symbol(name: str) -> str:
    return f"fastloss.linked.{name}"


@cache
def _call_of(name: str, signature: Any) -> Any:
    """A call of a function of which no more is known than its signature."""

    @intrinsic
    def call(typingctx, *arguments):
        def codegen(context, builder, taken, args):
            convention, returns = context.call_conv, signature.return_type
            kind = convention.get_function_type(returns, signature.args)
            function = cgutils.get_or_insert_function(builder.module, kind, _symbol(name))
            values = cgutils.unpack_tuple(builder, args[0])
            return convention.call_function(builder, function, returns, signature.args, values)[1]

        return signature.return_type(types.StarArgTuple(signature.args)), codegen

    return call


def compile_driver(
    template: Callable[..., Any], name: str, signature: Any, use: Any = None, **functions: Any
) -> Callable[..., Any]:
    """Compile a function that Python calls, with one signature, for one thread; `in_parallel` gives its companion.

    A parallel loop takes four times as long to compile as a serial one (2.2 of 13 seconds of `fastloss eval --sample`),
    and small calls have no use for it.
    """
    function = bind(template, use, **functions)
    if config.DISABLE_JIT:
        return function
    driver = _driver(function, name, signature, False)
    driver.in_parallel = cache(lambda: _driver(function, f"{name}_parallel", signature, True))
    return driver  # type: ignore[no-any-return]


def _driver(function: FunctionType, name: str, signature: Any, parallel: bool) -> Any:
    options = {"parallel": parallel, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    key = digest("driver", function, signature, options)
    dispatcher = defer(njit(**options)(_named(function, name, key)))
    dispatcher._cache = KernelCache(key, name)
    dispatcher.compile(signature)
    # Arrays of other types are an error, not a second compilation without a word.
    dispatcher.disable_compile()
    return dispatcher


def in_parallel(driver: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a compiled driver that shares its loop among threads, compiled when first asked for."""
    return driver if config.DISABLE_JIT else driver.in_parallel()  # type: ignore[attr-defined]
