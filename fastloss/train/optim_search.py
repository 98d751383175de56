"""Line search under the strong Wolfe conditions: Nocedal and Wright (2006), Numerical Optimization, chapter 3.5.

Bounds of the trial steps, and what is done close to the ends of a bracket, are those of minFunc and torch.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Trial", "strong_wolfe"]

DECREASE, CURVATURE = 1e-4, 0.9
"""Constants of the two conditions: share of the predicted decrease, and of the slope that may be left."""

SHORTEST = 1e-9
"""Length of a bracket, in the largest element of the step, below which the search ends."""


class Trial(NamedTuple):
    """Objective along a direction, at one step."""

    step: float
    """Multiple of the direction."""
    value: float
    """Objective there."""
    gradient: Any
    """Gradient there."""
    slope: float
    """Product of gradient and direction."""


def minimiser(a: Trial, b: Trial, low: float, high: float) -> float:
    """Return the minimiser of the cubic through two values and slopes, within bounds; their middle if it has none."""
    first, second = (a, b) if a.step <= b.step else (b, a)
    mean = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
    square = mean * mean - a.slope * b.slope
    root = math.sqrt(square) if square >= 0 else math.nan
    divisor = second.slope - first.slope + 2 * root
    share = (second.slope + root - mean) / divisor if divisor else math.nan
    if not math.isfinite(share):
        return (low + high) / 2.0
    return min(max(second.step - (second.step - first.step) * share, low), high)


class _Search:
    """State of one search: the function, the trial at the start, and the number of evaluations left."""

    def __init__(self, evaluate: Callable[[float], Trial], start: Trial, most: int) -> None:
        self.evaluate, self.start, self.left = evaluate, start, most

    def falls_short(self, trial: Trial) -> bool:
        """Whether the objective has not decreased enough."""
        return trial.value > self.start.value + DECREASE * trial.step * self.start.slope

    def is_flat(self, trial: Trial) -> bool:
        """Whether little of the slope is left."""
        return abs(trial.slope) <= -CURVATURE * self.start.slope

    def bracket(self, step: float) -> list[Trial]:
        """Return the trial that meets both conditions, or two with such a one between them."""
        before, trial, count = self.start, self.evaluate(step), 0
        while self.left > 0:
            if self.falls_short(trial) or (count > 1 and trial.value >= before.value):
                return [before, trial]
            if self.is_flat(trial):
                return [trial]
            if trial.slope >= 0:
                return [before, trial]
            low, high = trial.step + 0.01 * (trial.step - before.step), trial.step * 10
            following = minimiser(before, trial, low, high)
            before, trial = trial, self.evaluate(following)
            count += 1
            self.left -= 1
        return [self.start, trial]

    def zoom(self, ends: list[Trial], length: float) -> Trial:
        """Return the best trial of a bracket that is narrowed; length is the largest element of the direction."""
        low, high = sorted(ends, key=lambda trial: trial.value)
        slow = False
        while self.left > 0 and abs(high.step - low.step) * length >= SHORTEST:
            step, slow = self._inside(low, high, slow)
            trial = self.evaluate(step)
            self.left -= 1
            if self.falls_short(trial) or trial.value >= low.value:
                low, high = (low, trial) if low.value <= trial.value else (trial, low)
                continue
            if self.is_flat(trial):
                return trial
            if trial.slope * (high.step - low.step) >= 0:
                high = low
            low = trial
        return low

    @staticmethod
    def _inside(low: Trial, high: Trial, slow: bool) -> tuple[float, bool]:
        """Return the next step, away from the ends where the last was close to one, and whether it is close now."""
        first, last = min(low.step, high.step), max(low.step, high.step)
        step, margin = minimiser(low, high, first, last), 0.1 * (last - first)
        if min(last - step, step - first) >= margin:
            return step, False
        if slow or step >= last or step <= first:
            return (last - margin if last - step < step - first else first + margin), False
        return step, True


def strong_wolfe(evaluate: Callable[[float], Trial], start: Trial, step: float, length: float, most: int) -> Trial:
    """Return a trial that meets the strong Wolfe conditions, or the best after so many trials."""
    search = _Search(evaluate, start, most)
    ends = search.bracket(step)
    return ends[0] if len(ends) == 1 else search.zoom(ends, length)
