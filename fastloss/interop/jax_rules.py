"""Derivatives of losses of JAX arrays.

The tangent of a loss is the product of its gradient and the tangents of the predictions, in JAX's own operations: they
have a transpose, which a callback lacks, so that forward and reverse mode, and one over the other, take the same rule.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from .calls import Call
from .jax_arrays import called_back
from .jax_ffi import served

__all__ = ["differentiable"]


def _run(call: Call, mode: str, arrays: tuple[Any, ...]) -> Any:
    """Return results of a loss by a custom call, or by a callback where the runtime or the loss has none."""
    found = served(call, mode, arrays)
    return called_back(call, mode, arrays) if found is None else found


def _refuse(call: Call, is_given: Iterable[bool]) -> None:
    """Raise for a derivative by an input that has none: a zero would be silently wrong."""
    for i, given in enumerate(is_given):
        if given and i not in call.differentiable:
            name, loss = call.names[i], call.loss.name
            hint = f"pass jax.lax.stop_gradient({name})"
            raise TypeError(f"{loss}: {name} is differentiated, but there is no derivative by it; {hint}")


def _are_given(tangents: tuple[Any, ...]) -> list[bool]:
    return [type(t) is not SymbolicZero for t in tangents]


def _product(call: Call, grads: tuple[Array, ...], tangents: tuple[Any, ...], like: Array) -> Array:
    """Return the tangent of a loss."""
    found: Any = 0.0
    for i, g in zip(call.differentiable, grads, strict=True):
        if type(tangents[i]) is not SymbolicZero:
            part = g * tangents[i]
            if call.reduction != "none":
                part = part.sum()
            elif call.loss.record.family == "rows":
                part = part.sum(axis=call.axis(g.ndim))
            found = found + part.astype(like.dtype)
    return jnp.broadcast_to(jnp.asarray(found, like.dtype), like.shape)


@lru_cache(maxsize=1024)
def differentiable(call: Call) -> Callable[..., Array]:
    """Return the function of the arrays of a kind of call, with its derivatives."""
    found = _by_factors(call) if call.is_pulled else _by_gradient(call)
    named: Callable[..., Array] = jax.jit(found, inline=True)
    return named


def _by_gradient(call: Call) -> Callable[..., Array]:
    """Return a loss whose tangent is the product of its gradient and the tangents of the predictions."""
    value: Any = jax.custom_jvp(lambda *arrays: _run(call, "value", arrays))
    slope = jax.custom_jvp(lambda *arrays: _run(call, "grad", arrays))
    bend = jax.custom_jvp(lambda *arrays: _run(call, "hess", arrays))

    def value_rule(arrays: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        _refuse(call, _are_given(tangents))
        found, grads = slope(*arrays)
        return found, _product(call, grads, tangents, found)

    def slope_rule(arrays: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        _refuse(call, _are_given(tangents))
        if not call.is_curved:
            raise TypeError(f"{call.loss.name} has no second derivative in fl.jax; expected one differentiation")
        found, grads = slope(*arrays)
        (curvature,), tangent = bend(*arrays), tangents[call.differentiable[0]]
        return (found, grads), (_product(call, grads, tangents, found), (curvature * tangent,))

    def bend_rule(arrays: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        _refuse(call, _are_given(tangents))
        raise TypeError(f"{call.loss.name} has no third derivative in fl.jax; expected two differentiations")

    value.defjvp(value_rule, symbolic_zeros=True)
    slope.defjvp(slope_rule, symbolic_zeros=True)
    bend.defjvp(bend_rule, symbolic_zeros=True)
    found: Callable[..., Array] = value
    return found


def _by_factors(call: Call) -> Callable[..., Array]:
    """Return a loss of units that share elements, whose gradient needs a factor for each unit."""
    plain = jax.custom_jvp(lambda *arrays: _run(call, "value", arrays))
    value: Any = jax.custom_vjp(lambda *arrays: plain(*arrays))
    pull = jax.custom_jvp(lambda *arrays: called_back(call, "pull", arrays[:-1], arrays[-1]))

    def forward(*given: Any) -> Any:
        _refuse(call, [x.perturbed for x in given])
        arrays = tuple(x.value for x in given)
        return plain(*arrays), arrays

    def backward(arrays: tuple[Any, ...], up: Any) -> Any:
        if type(up) is SymbolicZero:
            up = jnp.zeros(up.shape, up.dtype)
        grads = dict(zip(call.differentiable, pull(*arrays, up), strict=True))
        return tuple(grads.get(i) for i in range(len(arrays)))

    def refused(arrays: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        raise TypeError(f"{call.loss.name} has no second derivative in fl.jax; expected one differentiation")

    value.defvjp(forward, backward, symbolic_zeros=True)
    plain.defjvp(refused)
    pull.defjvp(refused)
    found: Callable[..., Array] = value
    return found
