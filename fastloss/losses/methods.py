"""Methods of losses as `help` and `inspect.signature` show them: with the inputs and parameters of their loss."""

from collections.abc import Callable
from inspect import Parameter, Signature
from inspect import signature as plain
from types import FunctionType, MethodType
from typing import Any

from ..spec.record import BITS, SIGNS, Formula, registered

__all__ = ["CallSignature", "Described", "describe"]

DESCRIBED = ("value_and_grad", "grad_and_hess", "details", "bind")
"""Methods with a signature and a docstring of each loss's own."""


def describe(kind: type) -> None:
    """Give a class of losses descriptors in place of the methods that it defines."""
    for name in DESCRIBED:
        if name in vars(kind):
            setattr(kind, name, Described(vars(kind)[name]))


class Described:
    """Descriptor of a method: the function itself on the class, a bound method with its own help on a loss.

    The bound method takes the descriptor's place in the loss's dictionary at first use. Later calls find it there, 10
    ns slower than a method of the class. Python looks up `__call__` on the class, so that plain calls cost nothing.
    """

    def __init__(self, function: FunctionType) -> None:
        self.function, self.name = function, function.__name__
        self.serves: dict[type, bool] = {}
        """Whether this is the method of a class, and not one that the class overrides."""

    def __get__(self, loss: Any, owner: type) -> Any:
        if loss is None:
            return self.function
        kind = type(loss)
        if kind not in self.serves:
            self.serves[kind] = next(vars(c)[self.name] for c in kind.__mro__ if self.name in vars(c)) is self
        if not self.serves[kind]:
            # Reached through super(): the dictionary is for methods of the loss's own class.
            return MethodType(self.function, loss)
        method = loss.__dict__[self.name] = MethodType(_copy(self.function, loss), loss)
        return method


def _copy(function: FunctionType, loss: Any) -> FunctionType:
    """Return a method's function with the docstring and the signature of a loss; the code is shared."""
    named = (function.__name__, function.__defaults__, function.__closure__)
    copy = FunctionType(function.__code__, function.__globals__, *named)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    copy.__doc__ = _docstring(function, loss)
    copy.__signature__ = _Signature(function, loss)  # type: ignore[attr-defined]
    return copy


_docstrings: dict[tuple[FunctionType, str], str] = {}


def _docstring(function: FunctionType, loss: Any) -> str:
    """Return the docstring of a method of a loss, composed once for each loss of the catalogue."""
    from .docs import method_docstring

    record: Formula = loss.record
    text = function.__doc__ or ""
    if loss._takes_more:
        return f"{text.rstrip()}\n\n{loss._docstring()}"
    if registered.get(record.name) is not record:
        return method_docstring(function.__name__, text, record)
    key = (function, record.name)
    found = _docstrings.get(key)
    if found is None:
        found = _docstrings[key] = method_docstring(function.__name__, text, record)
    return found


class _Signature(Signature):
    """Signature of a method, whose parameters are composed when they are first asked for: a call needs none."""

    __slots__ = ("_source",)

    def __init__(self, function: FunctionType, loss: Any) -> None:
        self._source: Any = (function, loss)

    @property
    def _composed(self) -> Signature:
        if type(self._source) is tuple:
            function, loss = self._source
            self._source = signature(function, loss, with_self=True)
        return self._source  # type: ignore[no-any-return]

    @property
    def parameters(self) -> Any:
        """Parameters by name, `self` first."""
        return self._composed.parameters

    @property
    def return_annotation(self) -> Any:
        """Annotation of the result; methods of losses have none."""
        return Signature.empty

    def replace(self, **changes: Any) -> Signature:  # type: ignore[override]
        """Return the signature with changes, as `inspect` makes one without `self`."""
        return self._composed.replace(**changes)

    def __str__(self) -> str:
        return str(self._composed)


class CallSignature:
    """Descriptor of `__signature__`: that of a call of a loss; absent from its class."""

    def __get__(self, loss: Any, owner: type) -> Signature:
        if loss is None:
            raise AttributeError("__signature__")
        return signature(owner.__call__, loss)


def signature(function: Callable[..., Any], loss: Any, with_self: bool = False) -> Signature:
    """Return the signature of a method of a loss: its inputs, the method's keywords, the loss's parameters."""
    record = loss.record
    taken = [Parameter("self", Parameter.POSITIONAL_ONLY)] * with_self
    if loss._takes_more and function.__name__ != "bind":
        return Signature([*taken, *list(plain(function).parameters.values())[1:]])
    keywords = _keywords(type(loss), function.__name__)
    if function.__name__ == "bind":
        usual = Parameter("reduction", Parameter.KEYWORD_ONLY, default=record.reduction)
        return Signature([*taken, *_own(loss), usual])
    if record.family == "rows" and not record.row_loop.has_classes:
        keywords.pop("class_weight", None)
    if record.family == "rows" and not record.row_loop.labels:
        keywords.pop("ignore_index", None)
    if record.family == "rows" and not record.row_loop.describes:
        keywords.pop("details", None)
    if "reduction" in keywords:
        keywords["reduction"] = record.reduction
    found = [*taken, *_inputs(record)]
    found += [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in keywords.items()]
    if record.family == "elementwise":
        others = record.predictions[1:]
        found += [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in others]
    return Signature([*found, *_own(loss)])


def _keywords(kind: type, name: str) -> dict[str, Any]:
    """Return the keywords that a method names in a class and in those that it passes the others on to."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        member = vars(base).get(name)
        found |= getattr(getattr(member, "function", member), "__kwdefaults__", None) or {}
    return found


def _inputs(record: Formula) -> list[Parameter]:
    """Return the arrays of a call; after one that may be left out, all have a default."""
    found, optional = [], False
    if record.family == "arrays":
        for name, spec in record.inputs.items():
            optional = optional or spec.optional
            default = None if optional else Parameter.empty
            found.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default))
        return found
    several = len(record.predictions) > 1 and record.link == "difference"
    found.append(Parameter("prediction", Parameter.POSITIONAL_OR_KEYWORD))
    if record.target is not None:
        found.append(Parameter("target", Parameter.POSITIONAL_OR_KEYWORD))
    elif several:
        found.append(Parameter("target", Parameter.POSITIONAL_OR_KEYWORD, default=None))
    return [*found, Parameter("more", Parameter.VAR_POSITIONAL)] if several else found


def _own(loss: Any) -> list[Parameter]:
    """Return the parameters of a loss with the defaults that it is bound to, and the backend."""
    specs = loss.record.parameters
    values = {k: v if type(v) is tuple else specs[k].meant(v) for k, v in loss.defaults.items()}
    if loss.record.target_domain in (SIGNS, BITS):
        values["labels"] = "01" if loss.record.target_domain is BITS else "signs"
    values["backend"] = loss._backend or None
    return [Parameter(name, Parameter.KEYWORD_ONLY, default=value) for name, value in values.items()]
