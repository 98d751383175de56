"""Cases tracked from revision to revision: few, small, and quick to build."""

from collections.abc import Callable

from .cases import Case, draw
from .contestants import fastloss, numpy
from .machine import reuse_memory

__all__ = ["TRACKED", "tracked_cases"]

TRACKED = (
    Case("mse", 100),
    Case("mse", 1_000_000),
    Case("huber", 10_000),
    Case("quantile", 10_000, mode="value"),
    Case("log_cosh", 10_000),
    Case("bce_with_logits", 100, mode="value"),
    Case("bce_with_logits", 1_000_000),
    Case("focal", 10_000),
    Case("poisson", 10_000, dtype="float64"),
    Case("gaussian_nll", 10_000),
    Case("cross_entropy", 320, classes=10, target="labels"),
    Case("cross_entropy", 100_000, mode="value", classes=100, target="labels"),
    Case("cross_entropy", 1_000_000, classes=1000, target="labels"),
)


def tracked_cases() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Return by name a call of fastloss, and the NumPy reference's call for the same result."""
    found: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    reuse_memory()
    for case in TRACKED:
        data = draw(case)
        theirs = numpy(case, data)
        assert theirs is not None, f"{case.id} needs SciPy"
        found[case.id] = fastloss(case, data).call, theirs.call
    return found
