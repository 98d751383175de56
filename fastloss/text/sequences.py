"""Log-probabilities of whole sequences and gradients through them, as inputs of preference losses."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..call import check, layout
from ..call.arrays import (
    F64,
    compute_dtype,
    direct,
    finish,
    incoming,
    outgoing,
    outputs,
    predicted,
    rounded,
)
from ..call.errors import CallTypeError, CallValueError, named
from ..cpu.dispatch import EMPTY
from ..spec.record import registered

__all__ = ["sequence_log_probs"]

INPUTS = registered["sequence_cross_entropy"].inputs


class _Prepared:
    """Validated tokens of a call, arranged as rows."""

    def __init__(self, logits: Any, labels: Any, lengths: Any, mask: Any, ignore_index: int | None) -> None:
        from ..cpu.sequences import tokens

        check.label_to_ignore(ignore_index)
        given = {"logits": logits, "labels": labels, "lengths": lengths, "mask": mask}
        self.given = given
        self.raw = {k: predicted(v, k) if k == "logits" else incoming(v, k) for k, v in given.items() if v is not None}
        self.dtype = compute_dtype(self.raw["logits"], "logits")
        dims: layout.Dims = {}
        laid: dict[str, Any] = dict.fromkeys(given)
        for k, a in self.raw.items():
            spec = INPUTS[k]
            laid[k] = (
                layout.laid(k, spec, a, self.dtype, dims)
                if spec.kind == "float"
                else layout.laid_integers(k, spec, a, dims, ignore_index, k != "labels")
            )
        self.back = outgoing(logits)
        self.shape: tuple[int, ...] = laid["labels"].shape
        kept = tokens.of(
            laid["logits"], laid["labels"], laid["lengths"], laid["mask"], ignore_index, self.raw["labels"]
        )
        self.rows, self.labels = kept.rows, kept.labels


class SequenceLogProbs:
    """Type of the function `sequence_log_probs`, whose vector-Jacobian product is the method `vjp`."""

    __name__ = "sequence_log_probs"

    def __call__(
        self, logits: Any, labels: Any, lengths: Any = None, mask: Any = None, *, ignore_index: int | None = -100
    ) -> Any:
        """Return the log-probability of each sequence: the sum over its tokens of log softmax(logits) at the label.

        Parameters
        ----------
        logits : array, (n, t, v)
            Scores of the v words of a vocabulary at each of t steps.
        labels : array of int, (n, t)
            Index of the next word at each step. Labels beyond a length or outside the mask are never read.
        lengths : array of int, (n,), optional
            Number of steps of each sequence.
        mask : array of bool, (n, t), optional
            True for steps that count.
        ignore_index : int or None
            Label of a step that does not count.

        Returns
        -------
        array of float64, (n,)
            A sequence of no tokens has a log-probability of 0.

        Raises
        ------
        ValueError
            If a label is outside the vocabulary (its index is named), or shapes do not match.

        Examples
        --------
        >>> import numpy as np, fastloss as fl
        >>> fl.sequence_log_probs(np.zeros((1, 3, 4)), np.array([[0, 3, 1]]), np.array([2]))
        array([-2.77258872])
        """
        return self.vjp(logits, labels, lengths, mask, ignore_index=ignore_index)[0]

    @named
    def vjp(
        self, logits: Any, labels: Any, lengths: Any = None, mask: Any = None, *, ignore_index: int | None = -100
    ) -> tuple[Any, Callable[..., Any]]:
        """Return the log-probabilities, and the function that maps a gradient by them to one by the logits.

        That function, ``pull(cotangent, out=None)``, takes one float per sequence, of either sign, and returns
        sum_i cotangent_i d(log-probability i)/d(logits). It makes a second pass over the logits, which must be
        unchanged.

        Examples
        --------
        A step of direct preference optimisation, with given log-probabilities of a reference model. Gradients of any
        loss that takes log-probabilities, such as dpo, by the chosen and the rejected ones are passed on alike:

        >>> import numpy as np, fastloss as fl
        >>> rng = np.random.default_rng(0)
        >>> logits, labels = rng.normal(size=(2, 3, 5)), np.array([[1, 2, 3], [4, 0, 2]])
        >>> log_probs, pull = fl.sequence_log_probs.vjp(logits, labels)
        >>> margin = log_probs[:1] - log_probs[1:] - 0.5
        >>> loss, grad = fl.bce_with_logits.value_and_grad(0.1 * margin, np.ones(1))
        >>> pull(np.concatenate([0.1 * grad, -0.1 * grad])).shape
        (2, 3, 5)
        """
        from ..cpu.sequences import tokens

        call = _Prepared(logits, labels, lengths, mask, ignore_index)
        none = np.empty((0, call.rows.shape[1]), call.dtype)
        losses = np.zeros(call.labels.size)
        if call.rows.size:
            losses = tokens.nll(call.rows, call.labels, EMPTY[call.dtype], 1.0, 0.0, none)
        with np.errstate(invalid="ignore"):
            sums = 0.0 - losses.reshape(call.shape).sum(axis=1, dtype=np.float64)

        def pull(cotangent: Any, out: Any = None) -> Any:
            return self._pulled(call, cotangent, out)

        return sums if call.back is None else call.back(sums), pull

    @named
    def _pulled(self, call: _Prepared, cotangent: Any, out: Any) -> Any:
        """Return the gradient with respect to the logits."""
        from ..cpu.sequences import tokens

        n, t = call.shape
        given = incoming(cotangent, "cotangent")
        if given.shape != (n,):
            raise CallValueError(f"has shape {given.shape}; expected ({n},), a number per sequence", "cotangent")
        if given.dtype.kind != "f":
            raise CallTypeError(f"has dtype {given.dtype}; expected floats", "cotangent")
        others = [v for k, v in call.given.items() if k != "logits"]
        groups = outputs(out, 1, (call.raw["logits"],), (*others, cotangent))
        result = groups[0][0]
        grad = result.reshape(call.rows.shape) if direct(result, call.dtype) else np.empty(call.rows.shape, call.dtype)
        if call.rows.size:
            weight = np.repeat(given.astype(F64), t)
            labels = np.where(weight, call.labels, -1)
            tokens.nll(call.rows, labels, rounded(weight, call.dtype), -1.0, 0.0, grad)
        if not direct(result, call.dtype):
            result[...] = rounded(grad.reshape(result.shape), result.dtype)
        return finish(groups, out, call.back)[0]

    def __repr__(self) -> str:
        return f"fastloss.{self.__name__}"


sequence_log_probs = SequenceLogProbs()
