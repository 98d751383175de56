"""Loader for modules of cases, each a name with a tracked candidate and a reference that divides its time.

This file imports only the standard library, as workers of a gate load it in environments without fastloss.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType

__all__ = ["Case", "CasesError", "load"]

Case = tuple[Callable[[], object], Callable[[], object]]

NAMES = ("tracked_cases", "cases", "CASES")
"""Accepted names of the function or dictionary in a module of cases."""


class CasesError(ValueError):
    """Error for a module of cases that cannot be used."""


def load(source: str) -> dict[str, Case]:
    """Return the cases of a module, given as the path of a Python file or a dotted name."""
    try:
        cases = _found(source)
    except SystemExit as error:
        raise CasesError(
            f"{source} calls sys.exit({error.code!r}) when it is loaded; expected a module that defines cases()"
        ) from None
    if not isinstance(cases, Mapping) or not cases:
        raise CasesError(f"the cases of {source} are {_short(cases)}; expected a dictionary of at least one case")
    for name, case in cases.items():
        if not isinstance(case, (tuple, list)) or len(case) != 2 or not all(map(callable, case)):
            raise CasesError(f"case {name!r} of {source} is {_short(case)}; expected (candidate, reference), callables")
    return {str(name): (candidate, reference) for name, (candidate, reference) in cases.items()}


def _found(source: str) -> object:
    module = _module(source)
    found = next((getattr(module, n) for n in NAMES if hasattr(module, n)), None)
    if found is None:
        raise CasesError(f"{source} defines no cases(); expected a function that returns a dictionary of cases")
    return found() if callable(found) else found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _module(source: str) -> ModuleType:
    if not source.endswith(".py"):
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{source}.".startswith(f"{error.name}."):
                raise
            raise CasesError(f"there is no module {source}; expected path/to/cases.py or a dotted name") from None
    path = os.path.abspath(source)
    if not os.path.isfile(path):
        raise CasesError(f"there is no file {source}")
    spec = importlib.util.spec_from_file_location("tracked_cases", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Helpers beside the file can be imported, but last: beside it may lie another copy of what is installed.
    sys.path.append(os.path.dirname(path))
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
