"""Where losses are computed: on the CPU, on a GPU, or where the arrays lie."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec

from . import check

__all__ = ["BACKENDS", "BackendError", "backend", "chosen", "forced", "missing"]

BACKENDS = ("auto", "cpu", "cuda")

_chosen: ContextVar[str] = ContextVar("fastloss_backend")


class BackendError(RuntimeError):
    """The backend that was asked for cannot be used; the message says why, and what helps."""


forced: list[str] = []
"""Not empty while some thread, or the environment, asks for "cuda". No other name matters to plain arrays, and short
ways take no others."""


def chosen() -> str:
    """The backend that holds here: that of the innermost `backend(...)`, or of FASTLOSS_BACKEND, or "auto"."""
    return _chosen.get(None) or _from_environment()


@cache
def _from_environment() -> str:
    name = os.environ.get("FASTLOSS_BACKEND", "").lower() or "auto"
    if name not in BACKENDS:
        raise check.SettingError(f"FASTLOSS_BACKEND is {name!r}; allowed: {', '.join(map(repr, BACKENDS))}")
    return name


if os.environ.get("FASTLOSS_BACKEND", "").lower() not in ("", "auto", "cpu"):
    forced.append("cuda")


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Compute on one backend within a block: "auto" where the arrays lie, "cpu", or "cuda".

    Raises
    ------
    BackendError
        At a call within the block that "cuda" is asked for and cannot serve.

    Examples
    --------
    >>> import fastloss as fl
    >>> with fl.backend("cpu"):
    ...     fl.mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    check.one_of("backend", name, BACKENDS)
    token = _chosen.set(name)
    asked = [name] * (name == "cuda")
    forced.extend(asked)
    try:
        yield
    finally:
        for word in asked:
            forced.remove(word)
        _chosen.reset(token)


@cache
def missing() -> str:
    """Why CUDA cannot be used here, and what helps; empty where it can."""
    fix = 'pip install "fastloss[cuda13]" (or fastloss[cuda12] for an older driver)'
    if find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed; {fix}"
    try:
        from numba import cuda
    except Exception as error:  # one without its runtime wheel raises whatever its imports do
        return f"numba-cuda cannot be imported ({_told(error)}); {fix}"
    try:
        cuda.current_context()
    except Exception as error:
        return f"CUDA finds no usable device ({_told(error)})"
    try:
        if cuda.compile is not None:  # which the simulator has not
            cuda.compile(_nothing, (), device=True)
    except Exception as error:
        return f"numba-cuda cannot compile ({_told(error)}); {fix}"
    return ""


def _nothing() -> None:
    """Do nothing: what a compiler is tried on."""


def _told(error: Exception) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, " ".join(lines[:2])[:200]])
