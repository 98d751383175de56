"""Contestants of a case: fastloss, the NumPy reference, and the installed libraries."""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..spec.render import MissingWordError
from . import numpy_reference
from .cases import Case, Data
from .numpy_reference import source

__all__ = ["BUILDERS", "OURS", "Contestant", "Outcome", "contestants", "installed"]


OURS = "fastloss"
"""Contestant to which all others are compared."""


class Outcome(NamedTuple):
    """Result of a contestant: the loss, and its derivatives in order."""

    value: float | None
    derivatives: tuple[Any, ...]


class Contestant(NamedTuple):
    """Function to be timed, and the function that converts its result to an `Outcome`."""

    call: Callable[[], Any]
    read: Callable[[Any], Outcome]


def _flat(case: Case, result: Any) -> Outcome:
    """Convert a result of fastloss or of the reference to an `Outcome`."""
    if case.mode == "value":
        return Outcome(float(result), ())
    value, *rest = result if case.mode == "value_and_grad" else (None, *result)
    arrays = [a for x in rest for a in (x if isinstance(x, tuple) else (x,))]
    return Outcome(None if value is None else float(value), tuple(arrays))


def _inputs(case: Case, data: Data) -> tuple[Any, Any]:
    return (data.predictions if len(data.predictions) > 1 else data.predictions[0]), data.target


def fastloss(case: Case, data: Data) -> Contestant:
    """Build the call that writes its results into `out`."""
    if case.mode == "value":
        return fastloss_allocating(case, data)
    prediction, target = _inputs(case, data)
    function = getattr(case.bound, case.mode)
    groups = [tuple(np.empty_like(p) for p in data.predictions) for _ in range(1 + (case.mode == "grad_and_hess"))]
    outs = [g if len(g) > 1 else g[0] for g in groups]
    out = outs[0] if len(outs) == 1 else tuple(outs)
    return Contestant(lambda: function(prediction, target, out=out), lambda result: _flat(case, result))


def fastloss_allocating(case: Case, data: Data) -> Contestant:
    """Build the call that allocates its results."""
    prediction, target = _inputs(case, data)
    function = case.bound if case.mode == "value" else getattr(case.bound, case.mode)
    return Contestant(lambda: function(prediction, target), lambda result: _flat(case, result))


def numpy(case: Case, data: Data) -> Contestant | None:
    """Build the NumPy reference; None where it needs SciPy, which is not installed."""
    try:
        function = numpy_reference.reference(case) if case.classes else source(case).compile()
    except MissingWordError:
        return None
    inputs = (*data.predictions, *([] if data.target is None else [data.target]))
    read = (lambda result: _flat(case, result[0])) if case.mode == "value" else (lambda result: _flat(case, result))
    return Contestant(lambda: function(*inputs), read)


Builder = Callable[[Case, Data], Contestant | None]


class Entry(NamedTuple):
    """Builder of a contestant, and the module that it requires."""

    build: Builder
    needs: str
    """Name of the required module."""


def _late(module: str, name: str) -> Builder:
    """Return a builder whose module is imported on first use."""

    def build(case: Case, data: Data) -> Contestant | None:
        made: Contestant | None = getattr(importlib.import_module(f"{__package__}.{module}"), name)(case, data)
        return made

    return build


BUILDERS: Mapping[str, Entry] = {
    "fastloss": Entry(fastloss, "numba"),
    "no-out": Entry(fastloss_allocating, "numba"),
    "numpy": Entry(numpy, "numpy"),
    "numexpr": Entry(_late("peers_numpy", "numexpr"), "numexpr"),
    "scikit-learn": Entry(_late("peers_numpy", "sklearn"), "sklearn"),
    "torch": Entry(_late("peers", "torch"), "torch"),
    "torch.compile": Entry(_late("peers", "torch_compiled"), "torch"),
    "jax": Entry(_late("peers", "jax"), "jax"),
}


def installed(name: str) -> bool:
    """Whether a contestant's library is installed."""
    return importlib.util.find_spec(BUILDERS[name].needs) is not None


def contestants(case: Case, data: Data, names: Iterable[str]) -> dict[str, Contestant]:
    """Return the named contestants that are installed and support this case."""
    found = {}
    for name in names:
        if installed(name) and (made := BUILDERS[name].build(case, data)) is not None:
            found[name] = made
    return found
