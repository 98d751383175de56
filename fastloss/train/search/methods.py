"""Methods that propose points of the unit cube and learn from their scores."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

__all__ = ["METHODS", "Evolution", "Method", "Reinforce"]


class Method(Protocol):
    """Proposer of points, which learns from the scores of a batch; larger scores are better."""

    batch: int

    def ask(self) -> Any:
        """Return a point of the unit cube."""

    def tell(self, points: list[Any], scores: Any) -> None:
        """Learn from the scores of a batch of points."""


class Reinforce:
    """Policy gradient of a normal distribution with a fixed width, as in AM-LFS.

    The mean moves by the average of (score - mean score) / deviation times (point - mean): the gradient of the expected
    score by the mean, times the variance.
    """

    def __init__(self, start: Any, width: float, seed: int) -> None:
        self.mean, self.width = start.copy(), width
        self.rng = np.random.default_rng(seed)
        self.batch = 8

    def ask(self) -> Any:
        """Return a point of the unit cube."""
        return np.clip(self.rng.normal(self.mean, self.width), 0.0, 1.0)

    def tell(self, points: list[Any], scores: Any) -> None:
        """Move the mean towards points of large scores."""
        spread = scores.std()
        if spread > 0.0:
            gains = (scores - scores.mean()) / spread
            self.mean = np.clip(self.mean + gains @ (np.array(points) - self.mean) / len(points), 0.0, 1.0)


class Evolution:
    """CMA-ES within the unit cube, by the package cma."""

    def __init__(self, start: Any, width: float, seed: int) -> None:
        try:
            import cma
        except ImportError:
            problem = 'search: method="cma" needs the package cma: pip install "fastloss[search]"; or use "reinforce"'
            raise ImportError(problem, name="cma") from None
        # CMA-ES adapts a covariance, and the package takes two coordinates at least: the second of one is not used.
        self._count = len(start)
        padded = np.append(start, 0.5) if len(start) == 1 else start
        # To the package, the seed 0 is the time of day.
        options = {"bounds": [0.0, 1.0], "seed": seed % (2**31) + 1, "verbose": -9}
        self._strategy = cma.CMAEvolutionStrategy(padded, width, options)
        self._asked: list[Any] = []
        self.batch = int(self._strategy.popsize)

    def ask(self) -> Any:
        """Return a point of the unit cube."""
        self._asked.append(np.asarray(self._strategy.ask(number=1)[0]))
        return self._asked[-1][: self._count]

    def tell(self, points: list[Any], scores: Any) -> None:
        """Learn from points that were asked for; others were refused."""
        kept = [next(a for a in self._asked if a[: self._count] is p or (a[: self._count] == p).all()) for p in points]
        self._strategy.tell(kept, (-scores).tolist())
        self._asked = []


METHODS: dict[str, Callable[[Any, float, int], Method]] = {"cma": Evolution, "reinforce": Reinforce}
"""Methods by name."""
