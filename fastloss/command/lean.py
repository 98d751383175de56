"""Imports that libraries make for what the command does not do, left out in the command's own process.

Of 1.0 s of processor time of `fastloss eval --sample` with compiled kernels, pandas took 0.2 where it is installed, as
PyArrow imports it with its datasets, and SciPy 0.2, as Numba looks for its BLAS.
"""

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["import_without", "own_process", "spare_imports"]

own_process: list[bool] = []
"""Not empty where the process is the command's, and no other code will miss what it left out."""


class _Refuse:
    """Finder of modules for which one package is missing."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise for the package, and find nothing else."""
        if name == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def import_without(module: str, package: str) -> None:
    """Import a module that does without another package where that is missing, as if it were."""
    if package in sys.modules:
        return
    refuse = _Refuse(package)
    # Not None in sys.modules, for which compiled modules raise nothing.
    sys.meta_path.insert(0, refuse)
    try:
        with suppress(ImportError):
            import_module(module)
    finally:
        sys.meta_path.remove(refuse)


def spare_imports(losses: list[str]) -> None:
    """Import what an evaluation needs without pandas and SciPy, unless a loss comes from a file, which may use them."""
    if own_process and not any(".py:" in name for name in losses):
        import_without("numba.np.arraymath", "scipy")
        import_without("pyarrow.dataset", "pandas")
