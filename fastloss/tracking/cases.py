"""A module of cases: names, each with a candidate to track and a reference to divide its time by.

This file needs nothing but Python, as the workers of a gate read it in environments that need not have it.
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
"""What a module of cases may call its function, or its dictionary."""


class CasesError(ValueError):
    """A module of cases that cannot be used."""


def load(source: str) -> dict[str, Case]:
    """The cases of a module, which is the path of a Python file or a dotted name."""
    module = _module(source)
    found = next((getattr(module, n) for n in NAMES if hasattr(module, n)), None)
    if found is None:
        raise CasesError(f"{source} defines no cases(); expected a function that returns a dictionary of cases")
    cases = found() if callable(found) else found
    if not isinstance(cases, Mapping) or not cases:
        raise CasesError(f"the cases of {source} are {_short(cases)}; expected a dictionary of at least one case")
    for name, case in cases.items():
        if not isinstance(case, (tuple, list)) or len(case) != 2 or not all(map(callable, case)):
            raise CasesError(f"case {name!r} of {source} is {_short(case)}; expected (candidate, reference), callables")
    return {str(name): (candidate, reference) for name, (candidate, reference) in cases.items()}


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
