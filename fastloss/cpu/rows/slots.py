"""Record of the constants and functions that the templates of row-wise losses read on a CPU.

All templates have the same arguments. ``inputs`` are the scores (n, k), labels (n,), dense target (n, k), row weights
(n,) and class weights (k,). ``outputs`` are the losses (n,), gradient and curvature (n, k), and by-products (n, 3).
Omitted arrays are empty. ``scale`` is the factor of derivatives, ``params`` the parameters, ``helpers`` addresses of
compiled functions, ``streamed`` whether the gradient goes past the caches, and ``scratch`` memory of the chunk.
``stats`` receives the sum of the losses and the number of negative targets.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["RowSlots"]


class RowSlots(NamedTuple):
    """Constants, flags and functions that the templates of row-wise losses read."""

    T: type
    """Number type of the arrays, np.float32 or np.float64."""
    ZERO: Any
    """Zero in that type."""
    INFINITE: Any
    """Infinity in that type."""
    exp: Callable[..., Any]
    """Exponential in that type."""
    log1p: Callable[..., Any]
    """Logarithm of 1 + x in that type."""
    formula: Callable[..., Any]
    """Formula of the loss."""
    unpack: Callable[..., Any]
    """Function that makes the formula's parameters of an array."""
    curved_by: Callable[..., Any]
    """Function that makes a factor of the curvature convex where a surrogate asks for it."""
    derivatives: bool
    """Whether the first derivatives are wanted."""
    curvature: bool
    """Whether the second derivatives are wanted."""
    order: int
    """Index of those among the formula's results: 2 for the curvature, 3 for the surrogate."""
    smooth: bool
    """Whether labels may be smoothed."""
    tiled: bool
    """Whether rows are taken in transposed tiles."""
    stored: bool
    """Whether the exponentials of a row are kept, where its gradient will be."""
    taught: bool
    """Whether the target is a teacher's logits."""
    dense: bool
    """Whether there is a target for each class."""
    top_only: bool
    """Whether the largest margin alone counts."""
    loop: Callable[..., Any]
    """Loop that a template passes rewritten rows to; absent where it passes none."""
