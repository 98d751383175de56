"""Errors of a call: fields for programs, and the sentence that is composed of them."""

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

__all__ = [
    "BackendError",
    "CallError",
    "CallTypeError",
    "CallValueError",
    "LossNotFoundError",
    "SettingError",
    "named",
    "naming",
    "warn",
]

PACKAGE = __name__.partition(".")[0]


class SettingError(ValueError):
    """Error for an environment variable with an invalid value."""


class LossNotFoundError(KeyError):
    """Error for an unknown loss name; the message lists similar names."""

    def __str__(self) -> str:
        return str(self.args[0])


class CallError(Exception):
    """Base class of the errors of a call: what is wrong with which argument of which loss.

    Every instance is also a ValueError, a TypeError or, as BackendError, a RuntimeError. The message is composed of the
    attributes: ``{loss}: {argument}[{index}] {problem}``.

    Attributes
    ----------
    loss : str or None
        Name of the loss.
    argument : str or None
        Name of the argument at fault, as in the signature; None where it is no single one.
    index : tuple of int or None
        Index of the first element at fault; None where the whole argument is.
    problem : str
        The rest of the sentence: the value, and what is allowed.

    Examples
    --------
    >>> import fastloss as fl
    >>> try:
    ...     fl.poisson([1.0, 2.0], [3.0, -1.0])
    ... except fl.CallError as error:
    ...     print(error)
    ...     error.loss, error.argument, error.index
    poisson: target[1] is -1; allowed: [0, inf)
    ('poisson', 'target', (1,))
    """

    def __init__(
        self,
        problem: str,
        argument: str | None = None,
        index: tuple[int, ...] | None = None,
        loss: str | None = None,
    ) -> None:
        # The arguments of the base class are what pickle restores; a loss named later travels in __dict__.
        super().__init__(problem, argument, index, loss)
        self.problem, self.argument, self.index, self.loss = problem, argument, index or None, loss

    def __str__(self) -> str:
        words = [self.problem]
        if self.argument is not None:
            place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
            words.insert(0, f"{self.argument}{place}")
        if self.loss is not None:
            words.insert(0, self.loss if self.argument is None else f"{self.loss}:")
        return " ".join(words)

    def without_index(self) -> "CallError":
        """Return this error for a caller whose rows are numbered otherwise: the same sentence, and no index."""
        return type(self)(self.problem, self.argument, None, self.loss)


class CallValueError(CallError, ValueError):
    """Error for an argument with a value or a shape that the loss does not take."""


class CallTypeError(CallError, TypeError):
    """Error for an argument of a type or dtype that the loss does not take, or for a missing or unknown argument."""


class BackendError(CallError, RuntimeError):
    """Error for a requested backend that cannot be used; the message gives the cause and a remedy."""


for _public in (CallError, CallValueError, CallTypeError, BackendError):
    # Tracebacks show the name by which callers catch the error.
    _public.__module__ = "fastloss"


class _Named(Protocol):
    @property
    def __name__(self) -> str: ...


Owner = TypeVar("Owner", bound=_Named)
Given = ParamSpec("Given")
Result = TypeVar("Result")


def named(method: Callable[Concatenate[Owner, Given], Result]) -> Callable[Concatenate[Owner, Given], Result]:
    """Decorate a method of a loss: errors of checks, which know no loss, leave it with the loss's name.

    The decorated methods lie below the fast path, which a frame more would slow down by a tenth.
    """

    @functools.wraps(method)
    def checked(self: Owner, /, *given: Given.args, **options: Given.kwargs) -> Result:
        try:
            return method(self, *given, **options)
        except CallError as error:
            error.loss = error.loss or self.__name__
            raise

    return checked


@contextmanager
def naming(loss: str) -> Iterator[None]:
    """Name the loss in errors of checks that leave a block, or the function that this decorates."""
    try:
        yield
    except CallError as error:
        error.loss = error.loss or loss
        raise


def warn(text: str) -> None:
    """Warn of a call that was served otherwise than asked, at the line of the caller."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (PACKAGE, "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, RuntimeWarning, stacklevel=level)
