"""Loop over several elementwise losses of one prediction and target, which computes what their formulas share once.

Nothing in the loop is written for sharing: LLVM finds that bce_with_logits and focal take the same exponential.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from numba import types

from ..spec.record import Formula
from .elementwise import evaluation
from .runtime import access
from .runtime.access import get
from .runtime.intrinsics import array, widest_vectors
from .runtime.slots import ABSENT, unbound
from .runtime.specialize import SCALAR, Chunk, compile_chunk, inner

__all__ = ["TILE", "room_of", "together_chunk"]

TILE = 1024
"""Elements of a chunk: the values of twelve losses fit the L2 cache, and the distances between them are constants."""


class Several(NamedTuple):
    """Constants and functions of one loss among several."""

    evaluate: Callable[..., Any]
    """Formula and domains of the loss."""
    put: Callable[..., Any]
    """Function that writes a value."""
    unpack: Callable[..., Any]
    """Function that makes the parameters of an array."""
    rest: Callable[..., Any]
    """This function of the losses after it."""
    parameters: Callable[..., Any]
    """Function that makes the parameters of the losses after it."""
    INPUTS: int
    """Number of inputs: 1 for a loss without a target."""
    FIRST: int
    """Index of the loss's first value."""
    AT: int
    """Index of its first parameter."""
    ROOM: int
    """Number of its parameters, as `access.room` counts them."""
    is_last: bool
    """Whether no loss comes after it."""


class Slots(NamedTuple):
    """Functions that the loop calls."""

    write: Callable[..., Any]
    """Function that writes the values of all losses for one element, and returns the number of violations."""
    parameters: Callable[..., Any]
    """Function that makes the parameters of all losses."""
    TILE: int
    """Number of elements."""


use: Any = unbound(Several, Slots)


def write_values(values, i, x, p):
    """Write the values of this loss and of those after it for one element; return the number of violations."""
    # Inlined for each loss: LLVM sees all formulas of an element at once, and computes what they share once.
    out = use.evaluate(x[: use.INPUTS], p[0])
    use.put(values, use.FIRST + i, out[0])
    if use.is_last:
        return out[4]
    return out[4] + use.rest(values, i, x, p[1:])


def all_parameters(params):
    """Return a tuple of the parameters of this loss and of those after it."""
    own = (use.unpack(params[use.AT : use.AT + use.ROOM]),)
    if use.is_last:
        return own
    return own + use.parameters(params)


def together(preds, target, weight, values, grads, hesses, scale, params, streamed, stats):
    """One tile: write the values of all losses, one after another, and count domain violations.

    The arguments are those of a chunk of one loss, which drivers call in the same way.
    """
    widest_vectors()
    z = preds[0]
    p = use.parameters(params)
    wrong = 0.0
    for i in range(use.TILE):
        # Violations are counted in float64, as values are computed: a count in another width keeps the loop scalar.
        wrong += use.write(values, i, (get(z, i), get(target, i)), p)
    stats[0] = 0.0
    stats[1] = wrong
    return wrong


def room_of(record: Formula) -> int:
    """Return the number of parameters that a loss has in the array for all."""
    return access.room(len(record.function.__defaults__ or ()))


@cache
def _function(losses: tuple[tuple[Any, ...], ...]) -> tuple[Any, Any]:
    """Return the functions that write the values of all losses and make their parameters."""
    write = parameters = ABSENT
    at = sum(room for *_, room in losses)
    for k, (function, domains, surrogate, defaults, room) in reversed([*enumerate(losses)]):
        at -= room
        use = Several(
            evaluate=evaluation(function, domains, 1, "float64", surrogate, defaults, 0).function,
            put=access.put["values"],
            unpack=access.padded("float64", room),
            rest=write,
            parameters=parameters,
            INPUTS=len(domains),
            FIRST=k * TILE,
            AT=at,
            ROOM=room,
            is_last=k + 1 == len(losses),
        )
        write = inner(write_values, SCALAR, use)
        parameters = inner(all_parameters, SCALAR, use)
    return write, parameters


def together_chunk(records: Sequence[Formula], usual: Sequence[bool]) -> Chunk:
    """Compile, or load from the disk cache, the loop over several losses in float64."""
    losses = []
    for record, is_usual in zip(records, usual, strict=True):
        domains = record.prediction_domains + ((record.target_domain,) if record.target else ())
        defaults = tuple(record.defaults.values()) if is_usual else None
        losses.append((record.function, domains, record.surrogate is not None, defaults, room_of(record)))
    one, doubles = array("float64"), types.UniTuple(array("float64"), 1)
    signature = types.float64(doubles, one, one, one, doubles, doubles, types.float64, one, types.boolean, one)
    name = "together_" + "_".join(record.name for record in records)[:80]
    return compile_chunk(together, name, signature, Slots(*_function(tuple(losses)), TILE))
