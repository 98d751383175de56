"""Base class of the balancing methods, checks of their inputs, and the Gramian of gradients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...call import check
from ...call.arrays import F32, F64, compute_dtype, flat, incoming
from ...call.errors import CallTypeError, CallValueError, naming

__all__ = ["Balancer", "count_of", "gramian", "losses_of", "softmax", "square"]


class Balancer:
    """Base class of the methods that balance tasks: its `weights` multiply the losses, and so their gradients."""

    def weights(self, losses: Any = None, gramian: Any = None, step: int = 0) -> Any:
        """Return the weights of the tasks, (k,) float64.

        Parameters
        ----------
        losses : (k,) array-like, optional
            Value of each task's loss.
        gramian : (k, k) array-like, optional
            Inner products of the tasks' gradients, as `gramian` returns.
        step : int
            Number of the step, from 0 on.
        """
        raise NotImplementedError

    @property
    def _name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{self._name}({shown})"


def losses_of(name: str, losses: Any, tasks: int = 0) -> Any:
    """Return the losses of the tasks as float64; raise where they are missing or not one per task."""
    if losses is None:
        raise CallTypeError("needs losses; pass weights(losses=[...]), one value per task", loss=name)
    with naming(name):
        a = incoming(losses, "losses").astype(F64)
    if a.ndim != 1 or (tasks and len(a) != tasks) or not len(a):
        expected = f"({tasks},)" if tasks else "(k,)"
        raise CallValueError(f"has shape {a.shape}; expected {expected}, one per task", "losses", loss=name)
    return a


def square(name: str, gramian: Any) -> Any:
    """Return a Gramian as float64; raise where it is missing or not square."""
    if gramian is None:
        raise CallTypeError("needs gramian; pass weights(gramian=fl.balance.gramian(grads))", loss=name)
    with naming(name):
        a = incoming(gramian, "gramian").astype(F64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not len(a):
        problem = f"has shape {a.shape}; expected (k, k), as fl.balance.gramian returns"
        raise CallValueError(problem, "gramian", loss=name)
    return a


def count_of(name: str, what: str, given: Any) -> int:
    """Return a number of tasks or steps; raise for anything but an integer above 0."""
    with naming(name):
        check.integer(what, given)
        if given < 1:
            raise CallValueError(f"is {given}; allowed: integers from 1 on", what)
    return int(given)


def softmax(x: Any) -> Any:
    """Return the softmax of a vector."""
    e = np.exp(x - x.max())
    return e / e.sum()


def gramian(grads: Any) -> Any:
    r"""Return the Gramian of the gradients of several tasks, in one read of them.

    .. math:: G_{ij} = \langle g_i, g_j \rangle

    Products of 512 elements are summed in the gradients' precision, these sums in float64, in a fixed order: results
    have the same bits on any number of threads.

    Parameters
    ----------
    grads : sequence of k arrays of one shape, (k, ...) array, or sequence of k sequences of arrays
        Gradient of each task by the shared parameters; arrays in a sequence are parts of one gradient. float32 or
        float64; float16 and bfloat16 are widened to float32.

    Returns
    -------
    (k, k) float64 array

    Raises
    ------
    ValueError
        If gradients differ in shape, or there are none.
    TypeError
        If they differ in dtype, or are no floats.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> fl.balance.gramian([np.array([1.0, 2.0]), np.array([0.0, -1.0])])
    array([[ 5., -2.],
           [-2.,  1.]])
    """
    from ...cpu.gramian import gramian as compiled

    with naming("gramian"):
        tasks = [_parts(g, i) for i, g in enumerate(grads)]
        if not tasks:
            raise CallValueError("is empty; expected one gradient per task", "grads")
        _check_alike(tasks)
    total = np.zeros((len(tasks), len(tasks)))
    with np.errstate(all="ignore"):
        for vectors in zip(*tasks, strict=True):
            if vectors[0].size:
                total += compiled(vectors)
    return total


def _check_alike(tasks: list[list[Any]]) -> None:
    """Raise for a gradient that differs from the first in shape or dtype."""
    shapes = [[a.size for a in parts] for parts in tasks]
    for i, own in enumerate(shapes):
        if own != shapes[0]:
            problem = f"has {_said(own)} elements; expected {_said(shapes[0])}, as grads[0]"
            raise CallValueError(problem, "grads", (i,))
    for i, parts in enumerate(tasks):
        for a, first in zip(parts, tasks[0], strict=True):
            if a.dtype != first.dtype:
                raise CallTypeError(f"has dtype {a.dtype}; expected {first.dtype}, as grads[0]", "grads", (i,))


def _said(shapes: list[int]) -> str:
    return str(shapes[0]) if len(shapes) == 1 else str(shapes)


def _parts(gradient: Any, i: int) -> list[Any]:
    """Return the parts of one task's gradient as flat arrays."""
    listed = isinstance(gradient, (tuple, list)) and gradient and np.ndim(gradient[0]) > 0
    given: Sequence[Any] = gradient if listed else (gradient,)
    found = []
    for a in given:
        raw = incoming(a, f"grads[{i}]")
        dtype = compute_dtype(raw, f"grads[{i}]")
        found.append(flat(raw, F32 if dtype == F32 else F64))
    return found
