"""Loss functions with value, gradient and curvature in one fused pass, compiled by Numba."""

from typing import Any

from . import _signals as _signals  # first, as the rest takes a while to import
from ._version import __version__
from .call.backend_choice import backend
from .call.errors import BackendError, CallError, CallTypeError, CallValueError
from .call.memory import release_memory
from .cuda.placement import synchronize
from .losses.base import Loss
from .losses.catalogue import LOSSES

LAZY = {
    "FormulaError": ".spec.spelling",
    "advise": ".advice",
    "array_loss": ".losses.custom.arrays",
    "balance": "",
    "blend": ".train.blend",
    "compare": ".evaluation.compare",
    "combine": ".losses.sums.combine",
    "duckdb": "",
    "evaluate": ".evaluation",
    "formula": ".losses.custom.elements",
    "jax": "",
    "linear": "",
    "loss": ".losses.custom.elements",
    "losses_from": ".losses.custom.elements",
    "mismatches": ".advice",
    "objective": ".interop.boosting",
    "optim": "",
    "plot": "",
    "polars": "",
    "recipes": "",
    "rewards": "",
    "risk": "",
    "row_loss": ".losses.custom.rows",
    "scipy": "",
    "scorer": ".interop.scorer",
    "search": ".train.search.run",
    "sequence_log_probs": ".text.sequences",
    "tasks": ".losses.sums.tasks",
    "torch": "",
}
"""Public names beside the losses, and the modules that are imported when they are first asked for."""

__all__ = [
    "LOSSES",
    "BackendError",
    "CallError",
    "CallTypeError",
    "CallValueError",
    "Loss",
    "__version__",
    "backend",
    "get_num_threads",
    "release_memory",
    "set_num_threads",
    "synchronize",
    *LAZY,
    *LOSSES,
]

globals().update(LOSSES)


def __getattr__(name: str) -> Any:
    if name in LAZY:
        from importlib import import_module

        where = LAZY[name]
        found = getattr(import_module(where, __name__), name) if where else import_module(f".{name}", __name__)
        globals()[name] = found
        return found
    from .call.check import similar
    from .losses.aliases import suggestion

    hint = (suggestion(name, LOSSES) or similar(name, __all__)) if not name.startswith("_") else ""
    raise AttributeError(f"module 'fastloss' has no attribute {name!r}{'; ' * bool(hint)}{hint}")


def __dir__() -> list[str]:
    return sorted(__all__)


def set_num_threads(n: int) -> None:
    """Use n threads for large calls; the result has the same bits for any n."""
    from .cpu.runtime import threads

    threads.set_num_threads(n)


def get_num_threads() -> int:
    """Return how many threads large calls use."""
    from .cpu.runtime import threads

    return threads.get_num_threads()
