"""Code generator: traced nodes become the source of a Python function that calls another library."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..spec.graph import Node, Operand

__all__ = ["Dialect", "MissingWordError", "Source", "expression", "function", "tuples"]

INFIX = frozenset(["+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!=", "&", "|"])


class MissingWordError(LookupError):
    """Error for a formula's function that a library lacks."""


class Dialect(NamedTuple):
    """Functions and constants of a library, as generated code writes them."""

    words: Mapping[str, Any]
    """Library's function for each function in formulas."""
    typed: Callable[[float], Any]
    """Conversion of a constant to the arrays' dtype, for functions that would otherwise choose another."""


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


class _Writer:
    """Writer of nodes; a node used once is written inline, so that its memory can be reused."""

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
            if self.inline:
                return self._typed(x)
            return repr(float(x)) if x == x and abs(x) != float("inf") else f"float('{x}')"
        if x.op in ("input", "scalar"):
            return str(x.args[0])
        if x.number not in self._written:
            text = self._operation(x)
            if self._uses[x.number] > 1 and not self.inline:
                name = f"v{len(self.lines)}"
                self.lines.append(f"{name} = {text[1:-1] if text[0] == '(' and x.op in INFIX else text}")
                text = name
            self._written[x.number] = text
        return self._written[x.number]

    def _operation(self, x: Node) -> str:
        if x.op in INFIX:
            return f"({self.write(x.args[0])} {x.op} {self.write(x.args[1])})"
        if x.op == "neg":
            return f"(-{self.write(x.args[0])})"
        if x.op not in self.dialect.words:
            raise MissingWordError(x.op)
        self.names[x.op] = self.dialect.words[x.op]
        several = sum(isinstance(a, Node) for a in x.args) < len(x.args)
        return f"{x.op}({', '.join(self._typed(a) if several else self.write(a) for a in x.args)})"

    def _typed(self, x: Operand) -> str:
        if isinstance(x, Node):
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
