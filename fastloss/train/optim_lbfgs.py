"""L-BFGS: directions from the last pairs of steps and changes of the gradient, in compiled passes."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..call.check import one_of, shown
from .optim_base import COMMON, Closure, Optimizer, Rule
from .optim_checks import Option, dense, whole
from .optim_search import Trial, strong_wolfe

__all__ = ["LBFGS"]

LEAST_CURVATURE = 1e-10
"""Product of a step and the change of the gradient above which a pair is kept."""

KEPT = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")
"""Entries of the state beside the counts, as torch calls them."""


class Memory:
    """Pairs of steps and changes of the gradient, and the direction that follows from them."""

    def __init__(self, size: int) -> None:
        self.size, self.n_iter, self.func_evals = size, 0, 0
        self.d: Any = None
        self.t = 1.0
        self.old_dirs: list[Any] = []
        self.old_stps: list[Any] = []
        self.ro: list[float] = []
        self.H_diag = 1.0
        self.prev_flat_grad: Any = None
        self.prev_loss = math.nan

    def remember(self, g: Any) -> None:
        """Take the last step and the change of the gradient into the memory, where their product is positive."""
        from ..cpu import vectors  # brings Numba

        change, step = g - self.prev_flat_grad, self.d * self.d.dtype.type(self.t)
        product = vectors.dot(change, step)
        if product > LEAST_CURVATURE:
            if len(self.old_dirs) == self.size:
                for pairs in (self.old_dirs, self.old_stps, self.ro):
                    pairs.pop(0)
            self.old_dirs.append(change)
            self.old_stps.append(step)
            self.ro.append(1.0 / product)
            self.H_diag = product / vectors.dot(change, change)

    def direction(self, g: Any) -> tuple[Any, float]:
        """Return the direction of descent by the two-loop recursion, and the slope along it.

        Each pass adds one vector and forms the product that the next one needs: the memory is read once a loop.
        """
        from ..cpu import vectors

        q, changes, steps = -g, self.old_dirs, self.old_stps
        if not changes:
            return q, vectors.dot(g, q)
        shares = [0.0] * len(changes)
        product = vectors.dot(steps[-1], q)
        for i in reversed(range(len(changes))):
            shares[i] = product * self.ro[i]
            product = vectors.add_scaled(q, -shares[i], changes[i], steps[i - 1] if i else changes[0])
        vectors.scale(q, self.H_diag)
        product *= self.H_diag
        for i, share in enumerate(shares):
            following = changes[i + 1] if i + 1 < len(changes) else g
            product = vectors.add_scaled(q, share - product * self.ro[i], steps[i], following)
        return q, product


class LBFGS(Optimizer):
    """L-BFGS: quasi-Newton steps from the last history_size pairs of steps and changes of the gradient.

    ``step(closure)`` runs up to max_iter iterations on one objective. The closure returns the loss and the gradients at
    the present parameters, as ``value_and_grad`` of a loss does.

    Parameters
    ----------
    params : list or dict of arrays
        Arrays of one dtype, float32 or float64, that are updated in place.
    lr : float
        Step length, with line search the first that is tried.
    max_iter : int
        Iterations in a call of step.
    max_eval : int, optional
        Evaluations in a call of step; by default 1.25 times max_iter.
    tolerance_grad : float
        Largest element of the gradient at which the parameters count as optimal.
    tolerance_change : float
        Change of the loss, or of the parameters, below which a call ends.
    history_size : int
        Pairs that are kept; each takes twice the memory of the parameters.
    line_search_fn : {"strong_wolfe"}, optional
        Line search; None takes steps of length lr.

    References
    ----------
    Liu and Nocedal (1989), On the limited memory BFGS method for large scale optimization.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> x, y = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 3.0, 5.0])
    >>> w = np.zeros(2)
    >>> def closure():
    ...     loss, grad = fl.mse.value_and_grad(x @ w, y)
    ...     return loss, [x.T @ grad]
    >>> opt = fl.optim.LBFGS([w], line_search_fn="strong_wolfe")
    >>> round(opt.step(closure), 3)
    11.667
    >>> w.round(4)
    array([1., 2.])
    """

    rule = Rule(
        formula=None,
        states=(),
        options={
            "lr": COMMON["lr"],
            "tolerance_grad": Option("largest element of the gradient at an optimum"),
            "tolerance_change": Option("least change of the loss or the parameters"),
        },
        math="p += t d, d = -H g by the two-loop recursion over the last steps",
        paper="Liu and Nocedal (1989), On the limited memory BFGS method",
    )

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        most = whole("LBFGS: max_iter", max_iter, 1)
        counts = {"max_iter": most, "max_eval": most * 5 // 4 if max_eval is None else max_eval}
        tolerances = {"tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change}
        more = {"history_size": history_size, "line_search_fn": line_search_fn}
        super().__init__(params, {"lr": lr, **counts, **tolerances, **more})
        if len(self.param_groups) > 1 or len({slot.dtype for slot in self._slots}) > 1:
            raise ValueError("LBFGS: params have several groups or dtypes; expected one of each")
        self._memory = Memory(self.defaults["history_size"])

    def _validated(self, options: Mapping[str, Any]) -> dict[str, Any]:
        found = super()._validated({k: v for k, v in options.items() if k in self.rule.options})
        for name in ("max_iter", "max_eval", "history_size"):
            found[name] = whole(f"LBFGS: {name}", options[name], 1)
        if options["line_search_fn"] is not None:
            one_of("LBFGS: line_search_fn", options["line_search_fn"], ("strong_wolfe",))
        return {**found, "line_search_fn": options["line_search_fn"]}

    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """Minimise the closure's loss for up to max_iter iterations, in place; return its value at the start.

        Parameters
        ----------
        closure : callable
            Function without arguments that returns the loss (a number) and the gradients, in the order of the
            parameters or by their names.
        """
        from ..cpu import vectors

        group, memory = self.param_groups[0], self._memory
        for slot in self._slots:
            self._require_writable(slot)
        begun = loss = self._evaluate(closure)
        if not math.isfinite(loss[0]):
            raise ValueError(f"LBFGS: the loss at the start is {loss[0]}; expected a finite one")
        evaluations = 1
        memory.func_evals += 1
        memory.size = group["history_size"]
        for iteration in range(1, group["max_iter"] + 1):
            value, g = loss
            if vectors.norm([g], math.inf) <= group["tolerance_grad"]:
                break
            if memory.n_iter:
                memory.remember(g)
            memory.n_iter += 1
            memory.d, slope = memory.direction(g)
            memory.prev_flat_grad, memory.prev_loss = g, value
            memory.t = group["lr"] * (1.0 if memory.n_iter > 1 else min(1.0, 1.0 / vectors.norm([g], 1.0)))
            if slope > -group["tolerance_change"]:
                break
            last = iteration == group["max_iter"]
            loss, used = self._moved(closure, Trial(0.0, value, g, slope), group["max_eval"] - evaluations, last)
            evaluations += used
            memory.func_evals += used
            longest = vectors.norm([memory.d], math.inf) * memory.t
            small = longest <= group["tolerance_change"] or abs(loss[0] - value) < group["tolerance_change"]
            if last or evaluations >= group["max_eval"] or small:
                break
        return begun[0]

    def _moved(self, closure: Closure, start: Trial, most: int, last: bool) -> tuple[tuple[float, Any], int]:
        """Move the parameters along the direction; return loss and gradient there, and the number of evaluations."""
        from ..cpu import vectors

        memory, x, used = self._memory, self._gathered(), 0
        if self.param_groups[0]["line_search_fn"] is None:
            self._place(x, memory.t)
            # Nobody reads what the last iteration would find.
            return ((start.value, start.gradient), 0) if last else (self._evaluate(closure), 1)

        def trial(step: float) -> Trial:
            nonlocal used
            used += 1
            self._place(x, step)
            try:
                value, g = self._evaluate(closure)
            finally:
                self._place(x, 0.0)
            return Trial(step, value, g, vectors.dot(g, memory.d))

        best = strong_wolfe(trial, start, memory.t, vectors.norm([memory.d], math.inf), most)
        memory.t = best.step
        self._place(x, best.step)
        return (best.value, best.gradient), used

    def _evaluate(self, closure: Closure) -> tuple[float, Any]:
        """Return loss and flat gradient at the present parameters."""
        found = closure()
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"LBFGS: closure returned {shown(type(found).__name__)}; expected (loss, gradients)")
        grads = self._in_order(found[1])
        parts = []
        for slot, g in zip(self._slots, grads, strict=True):
            empty = np.zeros(slot.shape, slot.dtype) if g is None else g
            parts.append(dense(f"LBFGS grads{slot.name}", empty, slot.array).reshape(-1))
        # A copy, as the caller may write the next gradient to the same memory.
        return float(found[0]), np.concatenate(parts)

    def _gathered(self) -> Any:
        """Return a copy of all parameters, as one vector."""
        return np.concatenate([slot.array.reshape(-1) for slot in self._slots])

    def _place(self, x: Any, step: float) -> None:
        """Set the parameters to x and so much of the direction."""
        moved = x if step == 0.0 else x + self._memory.d * x.dtype.type(step)
        start = 0
        for slot in self._slots:
            slot.array[...] = moved[start : start + slot.array.size].reshape(slot.shape)
            start += slot.array.size

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the memory and the options, with the keys of torch."""
        memory = self._memory
        kept = {name: _copied(getattr(memory, name)) for name in KEPT} if memory.n_iter else {}
        found = {"func_evals": memory.func_evals, "n_iter": memory.n_iter, **kept}
        return {"state": {0: found}, "param_groups": super().state_dict()["param_groups"]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore memory and options that `state_dict` returned."""
        (group,) = state_dict["param_groups"]
        options = self._loaded_options(group)
        memory, given = Memory(options["history_size"]), state_dict["state"].get(0, {})
        if given.get("prev_flat_grad") is not None:
            size = sum(slot.array.size for slot in self._slots)
            if len(given["prev_flat_grad"]) != size:
                raise ValueError(f"LBFGS: state has {len(given['prev_flat_grad'])} elements; expected {size}")
            for name in KEPT:
                setattr(memory, name, _copied(given[name]))
        memory.func_evals, memory.n_iter = int(given.get("func_evals", 0)), int(given.get("n_iter", 0))
        self.param_groups[0].update(options)
        self._memory = memory

    def warmup(self) -> None:
        """Compile the kernels, or load them from the disk cache."""
        from ..cpu import vectors

        x = np.ones(1, self._slots[0].dtype)
        vectors.scale(x, 1.0)
        vectors.norm([x], vectors.dot(x, x) + vectors.add_scaled(x.copy(), 0.0, x, x))


def _copied(value: Any) -> Any:
    """Return a copy of an array, of a list of arrays, or a number as it is."""
    if isinstance(value, list):
        return [_copied(x) for x in value]
    return np.array(np.asarray(value)) if np.ndim(value) else float(value)
