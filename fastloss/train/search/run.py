"""Search for a loss: candidates are checked, trained by the caller's function, and compared by its metric."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...call import check
from ...call.errors import CallTypeError, CallValueError, naming
from ...losses.base import Loss
from .methods import METHODS, Method
from .signs import leads_to_target
from .space import Space
from .taylor import BOUNDS, taylor

__all__ = ["SearchResult", "Trial", "search"]

WIDTH = 0.2
"""Standard deviation of the first candidates in each parameter, of the distance between its bounds (AM-LFS: 0.2)."""

DRAWS = 200
"""Candidates in a row with derivatives of the wrong sign after which a search ends."""


class Trial(NamedTuple):
    """Candidate of a search.

    Attributes
    ----------
    parameters : dict of str to float
        Parameters of the loss.
    value : float or None
        Metric; None where the candidate was rejected before training.
    seconds : float
        Time that the metric took.
    """

    parameters: dict[str, float]
    value: float | None
    seconds: float


class SearchResult(NamedTuple):
    """Result of a search.

    Attributes
    ----------
    loss : Loss
        The winner: the loss of the best metric.
    value : float
        Its metric.
    parameters : dict of str to float
        Its parameters among those that were searched.
    log : list of Trial
        All candidates in order; the first has the parameters of the loss that was given.
    method : str
    seed : int
    """

    loss: Loss
    value: float
    parameters: dict[str, float]
    log: list[Trial]
    method: str
    seed: int


@naming("search")
def search(
    loss: Loss | str,
    metric: Callable[[Loss], float],
    over: Mapping[str, Any] | None = None,
    *,
    method: str = "cma",
    budget: int = 50,
    seed: int = 0,
    maximize: bool = True,
    accept: Callable[[Loss], bool] = leads_to_target,
    progress: bool | Callable[[int, int, float], Any] = True,
) -> SearchResult:
    """Return the loss of the best metric on held-out data, among losses that differ in parameters.

    Parameters
    ----------
    loss : Loss or "taylor"
        Loss whose parameters are searched, from their defaults: a loss of the catalogue or of your own, or a sum, whose
        parameters `PART_weight` are its weights. "taylor" is TaylorGLO's polynomial of the third degree in the
        probability sigmoid(z) and the label, with eight coefficients; it starts from the squared error.
    metric : function of a Loss
        Trains with the loss, and returns a number of held-out data, such as accuracy. NaN and infinities count as the
        worst.
    over : dict of str to (low, high) or (low, high, "log")
        Bounds of each parameter, between which the search moves evenly or by logarithms. Not needed for "taylor".
    method : {"cma", "reinforce"}
        CMA-ES (needs the extra `search`), or the policy gradient of AM-LFS.
    budget : int
        Calls of the metric, of which the first has the loss as it is given.
    seed : int
        Seed of the candidates. The metric has to take care of its own.
    maximize : bool
        False where smaller metrics are better.
    accept : function of a Loss
        Whether a candidate is worth training. By default those are rejected whose derivative leads away from the target
        where the prediction is wrong, or is 0 everywhere there.
    progress : bool or function of (trained, budget, best value)
        Line on the terminal after the first second, or a function that is called after each candidate.

    Returns
    -------
    SearchResult
        loss, value, parameters, log, method, seed.

    Raises
    ------
    ValueError
        Bounds outside those of a parameter; no candidate that was accepted, or none with a finite metric.
    ImportError
        cma is not installed.

    References
    ----------
    Hansen (2016), The CMA evolution strategy: a tutorial, arXiv:1604.00772; Li et al. (2019), AM-LFS: AutoML for loss
    function search, arXiv:1905.07375; Gonzalez, Miikkulainen (2021), arXiv:2002.00059.

    Examples
    --------
    The median of a few numbers, as the minimum of the mean quantile loss:

    >>> import numpy as np, fastloss as fl
    >>> def error(loss):
    ...     guess = np.quantile([1.0, 2.0, 3.0, 10.0, 20.0], loss.defaults["q"])
    ...     return abs(guess - 3.0)
    >>> start = fl.quantile.bind(q=0.9)
    >>> found = fl.search(start, error, {"q": (0.1, 0.9)}, method="reinforce", maximize=False)
    >>> found.value < 0.1 < found.log[0].value
    True
    """
    if isinstance(loss, str):
        check.one_of("loss", loss, ("taylor",))
        loss = taylor()
        over = dict.fromkeys(loss.record.parameters, BOUNDS) if over is None else over
    if not isinstance(loss, Loss):
        raise CallTypeError(f'is {check.shown(loss)}; expected a loss such as fl.focal, or "taylor"', "loss")
    if not callable(metric):
        raise CallTypeError(f"is {check.shown(metric)}; expected a function of a loss that returns a number", "metric")
    check.one_of("method", method, tuple(METHODS))
    check.integer("budget", budget)
    check.integer("seed", seed)
    if budget < 1:
        raise CallValueError(f"is {budget}; allowed: integers from 1 on", "budget")
    if seed < 0:
        raise CallValueError(f"is {seed}; allowed: integers from 0 on", "seed")
    run = Run(Space(loss, over), metric, accept, (budget, check.flag("maximize", maximize)), progress)
    run.all(METHODS[method](run.space.start, WIDTH, seed))
    return run.result(method, seed)


class Run:
    """State of a search: the log, the best candidate, the progress."""

    def __init__(self, space: Space, metric: Any, accept: Any, settings: tuple[int, bool], progress: Any) -> None:
        self.space, self.metric, self.accept = space, metric, accept
        self.budget, self.maximize = settings
        self.report = Progress(progress)
        self.log: list[Trial] = []
        self.best: Trial | None = None
        self.trained = 0

    def all(self, method: Method) -> None:
        """Train candidates until the budget is spent, or no candidate is accepted any more."""
        try:
            self.train(self.space.start)
            while self.trained < self.budget:
                points: list[Any] = []
                scores: list[float] = []
                while len(points) < method.batch and self.trained < self.budget:
                    point, score = self.accepted(method)
                    if point is None:
                        return
                    points.append(point)
                    scores.append(score)
                if len(points) == method.batch:
                    method.tell(points, _finite(np.array(scores)))
        finally:
            self.report.end()

    def accepted(self, method: Method) -> tuple[Any, float]:
        """Return the next candidate that is accepted, and its score; None after `DRAWS` others."""
        for _ in range(DRAWS):
            point = method.ask()
            score = self.train(point)
            if score is not None:
                return point, score
        return None, 0.0

    def train(self, point: Any) -> float | None:
        """Return the score of a point, larger for better; None for a rejected one."""
        loss, parameters = self.space.at(point), self.space.parameters(point)
        if not self.accept(loss):
            self.log.append(Trial(parameters, None, 0.0))
            return None
        began = time.perf_counter()
        given = self.metric(loss)
        try:
            value = float(given)
        except (TypeError, ValueError):
            raise CallTypeError(f"returned {check.shown(given)}; expected a number", "metric") from None
        trial = Trial(parameters, value, time.perf_counter() - began)
        self.log.append(trial)
        self.trained += 1
        score = value if self.maximize else -value
        if math.isfinite(score) and (self.best is None or score > self.score(self.best)):
            self.best = trial
        self.report(self.trained, self.budget, math.nan if self.best is None else self.best.value)
        return score

    def score(self, trial: Trial) -> float:
        """Return the score of a trained candidate."""
        assert trial.value is not None
        return trial.value if self.maximize else -trial.value

    def result(self, method: str, seed: int) -> SearchResult:
        """Return the best candidate."""
        if self.best is None:
            if not self.trained:
                problem = f"accepted none of {len(self.log)} candidates; other bounds, or accept=, let some through"
                raise CallValueError(problem)
            raise CallValueError(f"returned no finite number for any of {self.trained} losses", "metric")
        assert self.best.value is not None
        loss = self.space.loss.bind(**self.best.parameters)
        return SearchResult(loss, self.best.value, self.best.parameters, self.log, method, seed)


def _finite(scores: Any) -> Any:
    """Return scores with the worst finite one in place of NaN and infinities, 0 where there is none."""
    good = np.isfinite(scores)
    return np.where(good, scores, scores[good].min() if good.any() else 0.0)


class Progress:
    """Progress of a search: a line on the terminal after the first second, or a function of the caller's."""

    def __init__(self, wanted: Any) -> None:
        self._call = wanted if callable(wanted) else None
        self._shows = self._call is None and check.flag("progress", wanted) and sys.stderr.isatty()
        self._began = time.perf_counter()
        self._width = 0

    def __call__(self, trained: int, budget: int, best: Any) -> None:
        """Report that so many of the budget were trained."""
        if self._call is not None:
            self._call(trained, budget, best)
        seconds = time.perf_counter() - self._began
        if self._shows and seconds > 1.0:
            left = seconds / trained * (budget - trained)
            text = f"search: {trained} of {budget} losses trained, best {best:.6g}, {left:.0f} s left"
            self._width = max(self._width, len(text))
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._width:
            print(f"\r{'':<{self._width}}\r", end="", file=sys.stderr, flush=True)
