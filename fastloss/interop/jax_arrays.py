"""Checks and conversions of JAX arrays before a loss, by shapes and dtypes alone, and calls of the NumPy losses."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..call import check
from ..call.errors import CallTypeError, CallValueError
from .calls import Call

__all__ = ["called_back", "computed_in", "laid", "results"]

FLOATS = ("float64", "float32", "float16", "bfloat16")


def laid(call: Call, arrays: list[Array]) -> list[Array]:
    """Return the arrays of a call in the dtypes and shapes of its kernels."""
    own = [call.names[i] for i in call.differentiable]
    for i in call.differentiable:
        if arrays[i].dtype.name not in FLOATS:
            what = "prediction" if call.names[i] == "prediction" else call.names[i]
            raise CallTypeError(f"has dtype {arrays[i].dtype}; expected {', '.join(FLOATS[:-1])} or {FLOATS[-1]}", what)
    if call.loss.record.family == "rows" and arrays[0].ndim:
        return _laid_rows(call, arrays)
    if call.loss.record.family != "elementwise" or call.loss._levels or call.loss._rewritten:
        return arrays
    first = arrays[0]
    dtype = jnp.result_type(*[arrays[i] for i in call.differentiable])
    found = []
    for name, x in zip(call.names, arrays, strict=True):
        if name in own:
            check.same_shape(name, x.shape, first.shape)
            found.append(x.astype(dtype))
        elif name == "target":
            if x.ndim:
                check.same_shape(name, x.shape, first.shape)
            found.append(jnp.broadcast_to(x, first.shape).astype(dtype if x.dtype == dtype else computed_in(dtype)))
        else:
            found.append(_spread(name, x, first.shape).astype(computed_in(dtype)))
    return found


def _laid_rows(call: Call, arrays: list[Array]) -> list[Array]:
    """Return the arrays of a row-wise call in the dtypes of its kernels, checked by their shapes."""
    first, record = arrays[0], call.loss.record
    axis, wide = call.axis(first.ndim), computed_in(first.dtype)
    rows, k = (*first.shape[:axis], *first.shape[axis + 1 :]), first.shape[axis]
    found = []
    for name, x in zip(call.names, arrays, strict=True):
        if name == "target":
            check.row_target(record, x.dtype, x.dtype.kind in "iub", x.shape, rows, k)
            if x.dtype.kind not in "iub" and record.row_loop.has_classes:
                check.same_shape(name, x.shape, first.shape)
        elif name == "weight":
            x = _spread(name, x, rows)
        elif name == "class_weight":
            check.class_weight(record, x.shape, k)
        found.append(x if x.dtype.kind in "iub" and name == "target" else x.astype(wide))
    return found


def _spread(name: str, x: Array, shape: tuple[int, ...]) -> Array:
    try:
        return jnp.broadcast_to(x, shape)
    except ValueError:
        raise CallValueError(f"has shape {x.shape}; expected {shape}, or one that broadcasts to it", name) from None


def computed_in(dtype: Any) -> Any:
    """Return the dtype in which kernels compute: float32 for the formats of 16 bits."""
    return dtype if dtype.itemsize > 2 else jnp.dtype(jnp.float32)


def results(call: Call, mode: str, arrays: Sequence[Any]) -> Any:
    """Return the shapes and dtypes of the value, or of the value and the derivatives of a mode."""
    own = [arrays[i] for i in call.differentiable]
    value = jax.ShapeDtypeStruct(call.shape(arrays), own[0].dtype)
    like = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in own)
    return {"value": value, "grad": (value, like), "hess": like, "pull": like}[mode]


def called_back(call: Call, mode: str, arrays: Sequence[Any], *more: Any) -> Any:
    """Return what the NumPy loss returns, through a callback of the runtime."""
    expected = results(call, mode, arrays)
    return jax.pure_callback(partial(_served, call, mode, expected), expected, *arrays, *more, vmap_method="sequential")


def _served(call: Call, mode: str, expected: Any, *arrays: Any) -> Any:
    """Serve a callback; no function of JAX may be called here."""
    given = [np.asarray(x) for x in arrays]
    if mode == "value":
        return np.asarray(call.value(given), expected.dtype)
    if mode == "hess":
        return (np.asarray(call.derivatives(given)[1], expected[0].dtype),)
    if mode == "pull":
        return tuple(np.asarray(g, e.dtype) for g, e in zip(call.pull(given[:-1], given[-1]), expected, strict=True))
    value, grads = call.value_and_grads(given)
    slopes = tuple(np.asarray(g, e.dtype) for g, e in zip(grads, expected[1], strict=True))
    return np.asarray(value, expected[0].dtype), slopes
