"""Risks of the mean losses of groups."""

from typing import Any

import numpy as np

from ...call import check
from ...call.arrays import F64, incoming
from ...call.errors import CallTypeError, CallValueError
from ...spec.record import FINITE_NONNEGATIVE
from .base import Risk, restored

__all__ = ["GroupDRO", "WorstGroup"]


def _codes(what: str, groups: Any) -> Any:
    """Return group labels as a read-only int64 array; raise for anything but whole numbers from 0 on."""
    a = incoming(groups, "groups")
    if a.dtype.kind not in "iu":
        raise CallTypeError(f"has dtype {a.dtype}; expected integers from 0 on", "groups", loss=what)
    a = a.astype(np.int64)
    if a.size and a.min() < 0:
        _refuse(what, a, a < 0, "integers from 0 on")
    a.setflags(write=False)
    return a


def _refuse(what: str, codes: Any, wrong: Any, allowed: str) -> None:
    """Raise for the first wrong label of a group."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), codes.shape))
    raise CallValueError(f"is {codes[index]}; allowed: {allowed}", "groups", index, what)


class _Grouped(Risk):
    """Base class of risks of the mean losses of groups."""

    __slots__ = ()

    def _means(self, losses: Any, masses: Any, groups: int) -> tuple[Any, Any]:
        """Return the mean loss and the mass of each group; the mean of a group without samples is 0."""
        what = type(self).__name__
        if self.groups.shape != losses.shape:
            problem = f"of {what} has shape {self.groups.shape}; expected {losses.shape}, one per loss"
            raise CallValueError(problem, "groups")
        codes = self.groups.reshape(-1)
        each = losses.reshape(-1).astype(F64, copy=False)
        if masses is not None:
            # A sample without mass may hold anything.
            each = np.where(masses != 0.0, each * masses, 0.0)
        mass = np.bincount(codes, masses, groups).astype(F64)
        return np.divide(np.bincount(codes, each, groups), mass, out=np.zeros(groups), where=mass > 0.0), mass

    def _spread(self, losses: Any, masses: Any, mass: Any, shares: Any) -> None:
        """Replace losses by their weights: the share of each group, evenly over its mass."""
        each = np.divide(shares, mass, out=np.zeros(len(mass)), where=mass > 0.0)[self.groups]
        losses[...] = each if masses is None else each * masses.reshape(losses.shape)


class WorstGroup(_Grouped):
    """Largest of the mean losses of groups.

    Each group has the mean of its own samples, however few they are. Groups of equal means share the gradient, groups
    without samples do not count.

    Parameters
    ----------
    groups : integers from 0 on, in the shape of the per-sample losses
        Group of each sample.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> groups = np.array([0, 0, 0, 1])
    >>> fl.mae(np.array([1.0, 2.0, 3.0, 5.0]), np.zeros(4), reduction=fl.risk.WorstGroup(groups))
    5.0
    """

    __slots__ = ()

    def __init__(self, groups: Any) -> None:
        super().__init__(groups=_codes("WorstGroup", groups))

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> float:
        means, mass = self._means(losses, masses, int(self.groups.max()) + 1)
        worst = float(means[mass > 0.0].max())
        if writes:
            at = (means == worst) & (mass > 0.0)
            self._spread(losses, masses, mass, at / max(np.count_nonzero(at), 1))
        return worst


class GroupDRO(_Grouped):
    r"""Group distributionally robust optimisation: a weighted mean of group means, whose weights follow the losses.

    .. math:: q_g \leftarrow \frac{q_g \exp(\eta L_g)}{\sum_h q_h \exp(\eta L_h)}, \qquad \sum_g q_g L_g

    L_g is the mean over the samples of group g alone: a group counts by its weight q_g, not by its size, and the weight
    is no factor of single samples before an average over all of them. The gradient holds q constant. `group_weights`
    starts equal, and `value_and_grad` updates it in place; a call for the value alone returns the same number and
    leaves it as it was. A group without samples in a batch has the mean 0 there.

    Parameters
    ----------
    groups : integers from 0 on, in the shape of the per-sample losses
        Group of each sample.
    eta : float, at least 0
        Step of the weights of groups; 0 keeps them.
    group_weights : (G,) array, optional
        Weights of the groups to start from, which sum to 1; equal ones for the groups 0 to ``max(groups)`` if left out.

    References
    ----------
    Sagawa et al. (2020), Distributionally robust neural networks for group shifts, arXiv:1911.08731.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> dro = fl.risk.GroupDRO(np.array([0, 0, 0, 1]), eta=0.1)
    >>> value, grad = fl.mae.value_and_grad(np.array([1.0, 2.0, 3.0, 5.0]), np.zeros(4), reduction=dro)
    >>> dro.group_weights.round(3)
    array([0.426, 0.574])
    >>> batch = dro.of(np.array([1, 0]))  # the next batch, with the same weights
    """

    __slots__ = ()

    def __init__(self, groups: Any, eta: float = 0.01, group_weights: Any = None) -> None:
        codes = _codes("GroupDRO", groups)
        eta = check.within("eta", eta, FINITE_NONNEGATIVE, "GroupDRO")
        if group_weights is None:
            if not codes.size:
                raise CallValueError(
                    "is empty; expected one group at least, or group_weights", "groups", loss="GroupDRO"
                )
            count = int(codes.max()) + 1
            q = np.full(count, 1.0 / count)
        else:
            q = np.array(incoming(group_weights, "group_weights"), F64).reshape(-1)
            if not (q.size and (q >= 0.0).all() and abs(q.sum() - 1.0) < 1e-6):
                problem = f"is {check.shown(q)}; expected weights that sum to 1"
                raise CallValueError(problem, "group_weights", loss="GroupDRO")
        self._check_codes(codes, q)
        super().__init__(groups=codes, eta=eta, group_weights=q)

    @staticmethod
    def _check_codes(codes: Any, q: Any) -> None:
        if codes.size and codes.max() >= len(q):
            _refuse("GroupDRO", codes, codes >= len(q), f"0 to {len(q) - 1}")

    def of(self, groups: Any) -> "GroupDRO":
        """Return this risk for the samples of another batch; both update the same weights of groups."""
        codes = _codes("GroupDRO", groups)
        self._check_codes(codes, self.group_weights)
        batch: GroupDRO = restored(GroupDRO, {"groups": codes, "eta": self.eta, "group_weights": self.group_weights})
        return batch

    def advance(self, state: Any) -> None:
        """Update the weights of groups."""
        if state is not None:
            self.group_weights[...] = state

    def _weigh(self, losses: Any, masses: Any, total: float, writes: bool) -> tuple[float, Any]:
        means, mass = self._means(losses, masses, len(self.group_weights))
        top = means.max()
        q = self.group_weights * np.exp(self.eta * (means - top))
        q = q / q.sum()
        if writes:
            self._spread(losses, masses, mass, q)
        return float((q * means).sum()), q
