"""Carries a formula into a world: float literals retyped, vocabulary bound, helpers carried along.

A world is a type for literals and a dictionary of words. Each backend has one, and so have arbitrary
precision and symbols.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

__all__ = ["World", "carry"]


@dataclass(frozen=True, eq=False)
class World:
    """Backend of the formulas: its type of float literals, its functions by name, its last step on each function."""

    literal: Callable[[float], Any]
    words: Mapping[str, Any]
    finish: Callable[[FunctionType], Any] = lambda f: f


@cache
def carry(function: Callable[..., Any], world: World) -> Any:
    """Return a function with the literals and named functions of a backend, as are all functions that it calls."""
    code = function.__code__
    retyped = code.replace(co_consts=tuple(_literal(c, world) for c in code.co_consts))
    bound = dict(function.__globals__)
    for name in code.co_names:
        if name in world.words:
            bound[name] = world.words[name]
        elif isinstance(bound.get(name), FunctionType):
            bound[name] = carry(bound[name], world)
    return world.finish(FunctionType(retyped, bound, function.__name__))


def _literal(c: Any, world: World) -> Any:
    # Python folds several literals that are returned together into one constant.
    if type(c) is tuple:
        return tuple(_literal(x, world) for x in c)
    return world.literal(c) if type(c) is float else c
