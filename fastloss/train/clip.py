"""Clipping of gradients, by their common norm or by value."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..call.check import flag, positive
from .optim_checks import NUMBERS, number

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def _writable(name: str, grads: Any) -> list[Any]:
    """Return the gradients that are given, as a list of writable arrays."""
    if isinstance(grads, np.ndarray):
        grads = [grads]
    given = grads.items() if isinstance(grads, Mapping) else enumerate(grads)
    found = []
    for key, g in given:
        if g is None:
            continue
        if not isinstance(g, np.ndarray) or g.dtype not in NUMBERS:
            kind = f"has dtype {g.dtype}" if isinstance(g, np.ndarray) else f"is of type {type(g).__name__}"
            raise TypeError(f"{name}: grads[{key!r}] {kind}; expected an array of float32 or float64, or None")
        if not g.flags.writeable:
            raise ValueError(f"{name}: grads[{key!r}] is read-only; expected an array to clip in place, type: g.copy()")
        found.append(g)
    return found


def clip_grad_norm_(grads: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> float:
    """Scale gradients in place so that their common norm is at most max_norm; return the norm before.

    Gradients are multiplied by ``min(1, max_norm / (norm + 1e-6))``, where the norm is that of all gradients taken as
    one vector, summed in float64: the same bits on any number of threads.

    Parameters
    ----------
    grads : array, or list or dict of arrays
        Gradients of float32 or float64, changed in place. None is passed over.
    max_norm : float
        Largest norm.
    norm_type : float
        Order of the norm, above 0; inf for the largest magnitude.
    error_if_nonfinite : bool
        Raise ValueError where the norm is NaN or infinite, instead of scaling by what follows from it.

    Returns
    -------
    float
        Norm before clipping.

    References
    ----------
    Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent neural networks, arXiv:1211.5063.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> g = np.array([3.0, 4.0])
    >>> fl.optim.clip_grad_norm_([g], 1.0)
    5.0
    >>> g.round(6)
    array([0.6, 0.8])
    """
    from ..cpu import vectors  # brings Numba

    arrays = _writable("clip_grad_norm_", grads)
    largest = number("clip_grad_norm_: max_norm", max_norm)
    order = math.inf if norm_type in (math.inf, "inf") else positive("clip_grad_norm_: norm_type", norm_type)
    raises = flag("clip_grad_norm_: error_if_nonfinite", error_if_nonfinite)
    flat = [_flat(g) for g in arrays]
    norm = vectors.norm(flat, order)
    if raises and not math.isfinite(norm):
        raise ValueError(f"clip_grad_norm_: the norm of the gradients is {norm}; expected a finite one")
    factor = largest / (norm + 1e-6)
    if not factor >= 1.0:
        for g, x in zip(arrays, flat, strict=True):
            vectors.scale(x, factor)
            _back(g, x)
    return norm


def clip_grad_value_(grads: Any, clip_value: float) -> None:
    """Limit each element of the gradients to [-clip_value, clip_value], in place; NaN comes through.

    Parameters
    ----------
    grads : array, or list or dict of arrays
        Gradients of float32 or float64, changed in place. None is passed over.
    clip_value : float
        Largest magnitude.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> g = np.array([3.0, -0.5, -4.0])
    >>> fl.optim.clip_grad_value_([g], 1.0)
    >>> g
    array([ 1. , -0.5, -1. ])
    """
    from ..cpu import vectors

    arrays = _writable("clip_grad_value_", grads)
    bound = number("clip_grad_value_: clip_value", clip_value)
    for g in arrays:
        x = _flat(g)
        vectors.clamp(x, bound)
        _back(g, x)


def _flat(g: Any) -> Any:
    """Return a flat view of a contiguous array, or a flat copy of another."""
    return np.ascontiguousarray(g).reshape(-1)


def _back(g: Any, x: Any) -> None:
    """Write a flat copy back to the array that it was made of."""
    if not g.flags.c_contiguous:
        g[...] = x.reshape(g.shape)
