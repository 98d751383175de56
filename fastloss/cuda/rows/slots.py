"""Record of the constants and functions that the templates of a row loop read on a GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...cpu.runtime.slots import unbound

__all__ = ["RowSlots", "use"]


class RowSlots(NamedTuple):
    """Constants, functions and passes over a row that the templates of a row loop read."""

    T: type
    """Number type in which the loss is computed, np.float32 or np.float64."""
    INFINITE: Any
    """Infinity in that type."""
    exp: Callable[..., Any]
    """Exponential in that type."""
    log1p: Callable[..., Any]
    """Logarithm of 1 + x in that type."""
    formula: Callable[..., Any]
    """Formula of the loss; of an angular loss, that of cross-entropy."""
    turning: Callable[..., Any]
    """Formula by which an angular loss changes the label's score."""
    turn: Callable[..., Any]
    """Function of (score, parameters, surrogate): the label's score as it counts, and its derivatives."""
    second: Callable[..., Any]
    """Function of (results, surrogate): the curvature among the formula's results."""
    curved_by: Callable[..., Any]
    """Function of (factor, surrogate) that makes a factor of the curvature convex where a surrogate asks for it."""
    fault_of: Callable[..., Any]
    """Function of (target, class weight): 1 where one of them is outside its domain."""
    read: Callable[..., Any]
    """Reader of a score."""
    read_target: Callable[..., Any]
    """Reader of a target."""
    shifted: Callable[..., Any]
    """Difference of a score and the maximum; 0 of equal ones."""
    evidence: Callable[..., Any]
    """Evidence for a class and its derivative."""
    smooth: bool
    """Whether labels may be smoothed."""
    taught: bool
    """Whether the target is a teacher's logits."""
    turned: bool
    """Whether a formula changes the label's score."""
    dense: bool
    """Whether there is a target for each class."""
    scan: Callable[..., Any]
    """Pass that finds maximum and sum of exponentials of the scores; the passes of other families are absent."""
    learn: Callable[..., Any]
    """Counterpart of `scan` over a teacher's logits."""
    top: Callable[..., Any]
    """Pass that finds the largest score."""
    above: Callable[..., Any]
    """Pass that finds what exceeds a threshold."""
    gather: Callable[..., Any]
    """Pass that sums the evidence."""
    total: Callable[..., Any]
    """Pass that sums values and derivatives."""
    emit: Callable[..., Any]
    """Pass that writes the derivatives."""


use = unbound(RowSlots)
