"""Records of constants and functions bound to a specialised template, which reads them by the one global name `use`.

A module of templates declares the fields as a NamedTuple, `use = unbound(Slots)`, and reads `use.formula`. Building the
record with a field missing is an error, and so is running or compiling a template that was never given one. Numba gets
each field as the global constant that it is: branches on flags are pruned before types are inferred, and the machine
code, the time of compilation and that of loading are those of globals of their own.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import CodeType
from typing import Any, NamedTuple, TypeVar, cast

__all__ = ["ABSENT", "Formula", "Number", "Typed", "Unbound", "fill", "names_of", "resolve_in", "unbound"]

S = TypeVar("S")

_records: set[type] = set()


class Unbound:
    """Placeholder for a record, or a field of one, that a template must not touch: any use of it raises."""

    def __init__(self, *kinds: Any) -> None:
        self.kinds = kinds

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not bound: the template was not specialised")

    def __call__(self, *arguments: Any) -> Any:
        """Refuse to be called."""
        raise TypeError("this kernel has no such function")

    def __bool__(self) -> bool:
        raise TypeError("this kernel has no such flag")

    def __repr__(self) -> str:
        return "unbound"


ABSENT: Any = Unbound()
"""Value of a field that a kernel does without; a branch that reads it must be one that is pruned."""


def unbound(*kinds: type[S]) -> S:
    """Declare the record, or the kinds of it, that the templates of a module read as `use`."""
    _records.update(kinds)
    return cast(S, Unbound(*kinds))


class Number(NamedTuple):
    """Precision, all that templates of sums and comparisons read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""


class Typed(NamedTuple):
    """Constants and functions of templates that compute in the type of their arrays."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    exp: Callable[..., Any]
    """Exponential in that type."""
    formula: Callable[..., Any]
    """Formula of the loss; absent from kernels that are the same for all."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of an array."""


class Formula(NamedTuple):
    """Functions of templates that evaluate a formula in float64."""

    formula: Callable[..., Any]
    """Formula of the loss."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of an array."""


def names_of(code: CodeType) -> list[str]:
    """The global names and attributes that a function uses, its inner functions included."""
    inner = [name for c in code.co_consts if isinstance(c, CodeType) for name in names_of(c)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def fill(template: Callable[..., Any], found: Mapping[str, Any]) -> Any:
    """Build the record that a template reads from values by the names of its fields; None if it reads no record."""
    if "use" not in names_of(template.__code__):
        return None
    (slots,) = template.__globals__["use"].kinds
    missing = [name for name in slots._fields if name not in found]
    if missing:
        raise TypeError(f"{template.__name__}: {slots.__module__}.{slots.__name__} lacks {', '.join(missing)}")
    return slots(**{name: found[name] for name in slots._fields})


def resolve_in(core: str) -> None:
    """Teach a compiler of Numba's, by the package of its core, to take a field of a record for a global constant.

    Typed as the tuple that it is, a record would leave all branches in place: those of other modes do not compile.
    """
    ir, rewrites = import_module(f"{core}.ir"), import_module(f"{core}.rewrites")

    class Resolve(rewrites.Rewrite):  # type: ignore[misc, name-defined]
        """Replaces `use.field` by the field's value."""

        def match(self, func_ir: Any, block: Any, typemap: Any, calltypes: Any) -> bool:
            self.func_ir, self.block = func_ir, block
            return any(self.record_in(a.value) for a in block.find_insts(ir.Assign))

        def record_in(self, value: Any) -> bool:
            return isinstance(value, ir.Global) and type(value.value) in _records

        def define(self, variable: Any, before: Any, value: Any, loc: Any) -> Any:
            definitions = self.func_ir._definitions[variable.name]
            definitions[definitions.index(before)] = value
            return ir.Assign(value, variable, loc)

        def apply(self) -> Any:
            records: dict[str, Any] = {}
            block = ir.Block(self.block.scope, self.block.loc)
            for statement in self.block.body:
                value: Any = statement.value if isinstance(statement, ir.Assign) else None
                if self.record_in(value):
                    records[statement.target.name] = value
                    continue
                if isinstance(value, ir.Expr) and value.op == "getattr" and value.value.name in records:
                    record = records[value.value.name]
                    field = getattr(record.value, value.attr)
                    if field is ABSENT:
                        # Stays an attribute, which no rewrite takes for a constant: where it is not pruned, it has no
                        # type.
                        nothing = ir.Global(value.attr, ABSENT, statement.loc)
                        block.append(self.define(value.value, record, nothing, statement.loc))
                    else:
                        constant = ir.Global(value.attr, field, statement.loc)
                        statement = self.define(statement.target, value, constant, statement.loc)
                block.append(statement)
            return block

    # First of all: other rewrites look for constants.
    rewrites.rewrite_registry.rewrites["before-inference"].insert(0, Resolve)


resolve_in("numba.core")
