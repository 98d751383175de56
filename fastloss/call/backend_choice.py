"""Choice of the backend: the CPU, CUDA, or the device that holds the arrays."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec

from . import check
from .errors import SettingError

__all__ = ["BACKENDS", "backend", "chosen", "cuda_was_selected", "missing"]

BACKENDS = ("auto", "cpu", "cuda")

_chosen: ContextVar[str] = ContextVar("fastloss_backend")


cuda_was_selected: list[bool] = []
"""Flag, not empty once the environment or a `backend("cuda")` block has selected CUDA; before, plans serve every call.

It is never emptied: an asyncio task that starts in such a block keeps its context, and may run after the block ends.
"""


def chosen() -> str:
    """Return the current backend: that of the innermost `backend(...)`, or of FASTLOSS_BACKEND, or "auto"."""
    return _chosen.get(None) or _from_environment()


@cache
def _from_environment() -> str:
    name = os.environ.get("FASTLOSS_BACKEND", "").lower() or "auto"
    if name not in BACKENDS:
        raise SettingError(f"FASTLOSS_BACKEND is {name!r}; allowed: {', '.join(map(repr, BACKENDS))}")
    return name


if os.environ.get("FASTLOSS_BACKEND", "").lower() not in ("", "auto", "cpu"):
    cuda_was_selected.append(True)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Select the backend within a block: "cpu", "cuda", or "auto" for the device that holds the arrays.

    Raises
    ------
    BackendError
        If a call within the block requests "cuda" and CUDA cannot serve it.

    Examples
    --------
    >>> import fastloss as fl
    >>> with fl.backend("cpu"):
    ...     fl.mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    check.one_of("backend", name, BACKENDS)
    token = _chosen.set(name)
    if name == "cuda" and not cuda_was_selected:
        cuda_was_selected.append(True)
    try:
        yield
    finally:
        _chosen.reset(token)


@cache
def missing() -> str:
    """Return the reason that CUDA is unavailable, with a remedy; an empty string where it is available."""
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
    """Do nothing; this empty kernel tests whether CUDA code compiles."""


def _told(error: Exception) -> str:
    """Return an error's message as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, " ".join(lines[:2])[:200]])
