"""What a benchmark of a family is: who takes part, and what was asked."""

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Bench"]


class Bench(NamedTuple):
    """One measurement. `make` draws the data and returns what is timed in turn, by name; "fastloss" is ours."""

    name: str
    make: Callable[[], dict[str, Callable[[], object]]]
    against: str = ""
    """The contestant that the target speaks of."""
    at_most: float = float("inf")
    """The target: our time over that contestant's; infinite where none was set."""
    megabytes: float = float("inf")
    """The target: what our call may allocate at most beyond its inputs, at its peak."""
    rounds: int = 7
