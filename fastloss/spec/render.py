"""Code generator: traced nodes become the source of a Python function.

`formula` writes a graph back as a formula: a plain function of scalars, which every world can carry, as any built-in
one. With `symbols` of graph.py and `derivatives` of derive.py, these are the ways in and out of a graph::

    graph = Graph(EXACT)
    z, t, delta = symbols(graph, ["z", "t"], ["delta"])
    value, first, second, *_ = evaluate(huber.record.function, z, t, delta)    # a formula with its own derivatives
    total = 0.7 * value + 0.3 * abs(z - t)                                     # operators build nodes, each once
    slope, bend = derivatives(total, [z])                                      # or derive them
    function = formula("mixed", ["z", "t", "delta"], (total, slope, bend), {"delta": 1.0})

The function has the arguments in the order given, those of `defaults` last, and returns the results: operands, or
tuples of operands. Its text is deterministic and its name holds a digest of it, so that kernels on disk are found by
other processes. `source` returns the text, and `restored(name, text)` the function: pickles carry the text.
"""

import hashlib
import linecache
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

from .graph import COMPARISONS, LOGIC, WORDS, Node, Operand, reachable

__all__ = [
    "Dialect",
    "MissingWordError",
    "Source",
    "expression",
    "formula",
    "function",
    "restored",
    "source",
    "tuples",
]

INFIX = frozenset(["+", "-", "*", "/", *COMPARISONS, *LOGIC])


class MissingWordError(LookupError):
    """Error for a formula's function that a library lacks."""


class Dialect(NamedTuple):
    """Functions and constants of a library, as generated code writes them."""

    words: Mapping[str, Any]
    """Library's function for each function in formulas."""
    typed: Callable[[float], Any] | None
    """Conversion of a constant to the arrays' dtype, for functions that would otherwise choose another; None where
    constants are written as literals."""


class Source(NamedTuple):
    """Source of a function, and its global names."""

    text: str
    names: dict[str, Any]

    def compile(self) -> Callable[..., Any]:
        """Return the compiled function."""
        bound = dict(self.names)
        exec(compile(self.text, "<formula>", "exec"), bound)
        return bound["f"]  # type: ignore[no-any-return]


def tuples(x: Any) -> tuple[Operand, ...]:
    """Return a formula's derivatives as a tuple, also for a single prediction."""
    return x if isinstance(x, tuple) else (x,)


def literal(x: Operand) -> str:
    """Return a constant as a literal, which the compiler folds to one constant of the code."""
    if isinstance(x, bool):
        return repr(x)
    if x != x:
        return "(1e999 - 1e999)"
    return repr(float(x)).replace("inf", "1e999")


class _Writer:
    """Writer of nodes; a node used once is written inline, so that its memory can be reused."""

    local = "v"

    def __init__(self, dialect: Dialect, results: Iterable[Operand], inline: bool = False) -> None:
        self.dialect, self.inline = dialect, inline
        self.names: dict[str, Any] = {}
        self.lines: list[str] = []
        self._written: dict[int, str] = {}
        self._uses: dict[int, int] = {}
        for x in results:
            self._count(x)

    def _count(self, x: Operand) -> None:
        if isinstance(x, Node):
            self._uses[x.number] = self._uses.get(x.number, 0) + 1
            if self._uses[x.number] == 1 and x.op not in ("input", "scalar"):
                for a in x.args:
                    self._count(a)

    def write(self, x: Operand) -> str:
        if not isinstance(x, Node):
            if self.inline and self.dialect.typed is not None:
                return self._typed(x)
            return literal(x)
        if x.op in ("input", "scalar"):
            return self.argument(x.args[0])
        if x.number not in self._written:
            text = self._operation(x)
            if self._uses[x.number] > 1 and not self.inline:
                name = f"{self.local}{len(self.lines)}"
                self.lines.append(f"{name} = {text[1:-1] if text[0] == '(' and x.op in INFIX else text}")
                text = name
            self._written[x.number] = text
        return self._written[x.number]

    def argument(self, name: str) -> str:
        return name

    def _operation(self, x: Node) -> str:
        if x.op in INFIX:
            return f"({self.write(x.args[0])} {x.op} {self.write(x.args[1])})"
        if x.op == "neg":
            return f"(-{self.write(x.args[0])})"
        if x.op == "not":
            return f"({self.write(x.args[0])} == False)"
        if x.op not in self.dialect.words:
            raise MissingWordError(x.op)
        self.names[x.op] = self.dialect.words[x.op]
        several = sum(isinstance(a, Node) for a in x.args) < len(x.args)
        return f"{x.op}({', '.join(self._typed(a) if several else self.write(a) for a in x.args)})"

    def _typed(self, x: Operand) -> str:
        if isinstance(x, Node) or self.dialect.typed is None:
            return self.write(x)
        name = "k_" + repr(float(x)).replace("-", "m").replace(".", "_").replace("+", "p")
        self.names[name] = self.dialect.typed(float(x))
        return name


def function(
    dialect: Dialect,
    arguments: Iterable[str],
    results: Mapping[str, tuple[Operand, str]],
    before: Iterable[str] = (),
) -> Source:
    """Return the source of a function of the arguments to a tuple of results, each an operand and its wrapping text."""
    writer = _Writer(dialect, [x for x, _ in results.values()])
    returned = [around.format(writer.write(x)) for x, around in results.values()]
    if any(around.startswith("full") for _, around in results.values()):
        writer.names["full"] = dialect.words["full"]
    body = [*before, *writer.lines, f"return ({', '.join(returned)},)"]
    return Source(f"def f({', '.join(arguments)}):\n" + "".join(f"    {line}\n" for line in body), writer.names)


def expression(dialect: Dialect, result: Operand) -> Source:
    """Return one expression without local names, in which each constant is a name too."""
    writer = _Writer(dialect, [result], inline=True)
    return Source(writer.write(result), writer.names)


DEEP = 12
"""Levels of nested operations after which a formula's text gives a result a name of its own."""

DIALECT = Dialect({**WORDS, "abs": abs}, None)


class _Formula(_Writer):
    """Writer of formulas: results that are used twice, or deeply nested, get names in the order of their tracing."""

    def __init__(self, arguments: Iterable[str], results: Sequence[Operand]) -> None:
        super().__init__(DIALECT, ())
        while any(a.startswith(self.local) and a[len(self.local) :].isdigit() for a in arguments):
            self.local += "_"
        depths: dict[int, int] = {}
        for node in reachable(results):
            self._uses[node.number] = self._uses.get(node.number, 0)
            inside = [depths.get(a.number, 0) for a in node.args if isinstance(a, Node)]
            depths[node.number] = (max(inside, default=0) + 1) % DEEP
            for a in node.args:
                if isinstance(a, Node):
                    self._uses[a.number] += 1
            if depths[node.number] == 0:
                self._uses[node.number] += 1
        for x in results:
            if isinstance(x, Node):
                self._uses[x.number] += 1
        for node in reachable(results):
            if self._uses[node.number] > 1:
                self.write(node)

    def argument(self, name: str) -> str:
        # The formula may use the word too.
        return f"{name}_" if name in WORDS else name


def formula(
    name: str,
    arguments: Sequence[str],
    results: Sequence[Operand | tuple[Operand, ...]],
    defaults: Mapping[str, float] | None = None,
    doc: str = "",
) -> FunctionType:
    """Return the function of scalars that computes operands of one graph, which no function but words reaches."""
    writer = _Formula(arguments, [x for part in results for x in tuples(part)])
    shown = [_parenthesised(map(writer.write, p)) if isinstance(p, tuple) else writer.write(p) for p in results]
    given = {k: f"={literal(v)}" for k, v in (defaults or {}).items()}
    lines = [*writer.lines, f"return {_parenthesised(shown)}"]
    quoted = f"    {doc.strip()!r}\n" * bool(doc.strip())
    head = f"def {name}({', '.join(writer.argument(a) + given.get(a, '') for a in arguments)}):\n"
    return restored(name, head + quoted + "".join(f"    {line}\n" for line in lines))


def _parenthesised(texts: Iterable[str]) -> str:
    found = list(texts)
    return f"({', '.join(found)}{',' * (len(found) == 1)})"


@cache
def restored(name: str, text: str) -> FunctionType:
    """Return the function of a text that `formula` wrote."""
    # Two kernels whose formulas had one name could link to each other's code.
    unique = f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    file = f"<fastloss {unique}>"
    bound: dict[str, Any] = {**WORDS, "__name__": __name__}
    exec(compile(text, file, "exec"), bound)
    function: FunctionType = bound.pop(name)
    function.__name__ = function.__qualname__ = unique
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    function.__dict__["source"] = text
    return function


def source(function: Callable[..., Any]) -> str:
    """Return the text of a function that `formula` wrote."""
    text: str = function.__dict__["source"]
    return text
