"""Losses of JAX arrays: functions with derivatives, for eager and traced calls."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..call.errors import CallTypeError, naming
from ..losses.base import Loss
from .calls import array_names, kind_of, name_of
from .jax_arrays import laid
from .jax_rules import differentiable

__all__ = ["function"]


def function(loss: Loss) -> Callable[..., Array]:
    """Return a loss as a function of JAX arrays, with derivatives."""
    record, (name, bound) = loss.record, name_of(loss)
    names = array_names(record)

    @naming(loss.name)
    def call(*arrays: Any, **options: Any) -> Array:
        options = {**bound, **options}
        if "sample_weight" in options and "sample_weight" not in names:
            if options.get("weight") is not None:
                raise TypeError(f"{loss.name}: weight and sample_weight are both given; pass one")
            options["weight"] = options.pop("sample_weight")
        divisor = options.get("divisor")
        if isinstance(divisor, Array) and "divisor" not in record.parameters:
            total: Array = call(*arrays, **{**options, "divisor": None, "reduction": "sum"})
            return total / divisor.astype(total.dtype)
        is_grouped = bool(arrays) and type(arrays[0]) is tuple
        given = [*arrays[0], *arrays[1:]] if is_grouped else list(arrays)
        words = tuple([k for k in options if k in names and options[k] is not None])
        rest = tuple([(k, _static(k, v)) for k, v in options.items() if k not in names])
        count = len(given)
        given += [options[k] for k in words]
        kind, order = kind_of(name, is_grouped, count, words, rest)
        given = [jnp.asarray(given[i]) for i in order]
        found: Array = differentiable(kind)(*laid(kind, given))
        return found.astype(given[0].dtype) if record.family == "rows" else found

    call.__name__ = call.__qualname__ = loss.name
    call.__doc__ = f"{record.summary}\n\nArguments as `fastloss.{loss.name}`, as JAX arrays; see `fastloss.jax`."
    return call


def _static(name: str, value: Any) -> Any:
    """Return an option as a Python value; raise for one that is traced."""
    if isinstance(value, jax.core.Tracer):
        raise CallTypeError("is traced; expected a Python number (mark it with static_argnames)", name)
    if isinstance(value, Array) and value.ndim == 0:
        return value.item()
    return tuple(value) if type(value) is list else value
