"""A function from source, for tests of the disk cache."""

import textwrap

import numpy as np
from numba import njit


def define(source, **names):
    """The function f of a source text."""
    space = {"np": np, "njit": njit, **names}
    exec(textwrap.dedent(source), space)
    return space["f"]
