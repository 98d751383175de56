"""Losses of language tasks: language modelling, sequence to sequence, summarization."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..call import check
from ..call.arrays import incoming
from ..call.errors import CallTypeError, CallValueError, naming
from ..losses.catalogue import LOSSES
from ..text.rewards import rouge_l
from ..text.sequences import sequence_log_probs
from .base import Predictions, Result, Sum

__all__ = ["language_model", "seq2seq", "summarization"]

PADDING = -1
"""Candidate that stands for none."""


@naming("language_model")
def language_model(
    logits: Any,
    tokens: Any,
    *,
    mask: Any = None,
    shift: bool = True,
    ignore_index: int | None = -100,
    weights: Mapping[str, float] | None = None,
) -> Result:
    r"""Return the loss of a language model: cross-entropy of the next token, and a penalty on the normaliser.

    .. math:: mean(logsumexp(z) - z_label) + w mean(logsumexp(z)^2)

    Parameters
    ----------
    logits : array, (n, t, v)
        Scores of the v words of a vocabulary at each of t steps.
    tokens : array of int, (n, t)
        Tokens of the texts. With `shift`, step i predicts token i + 1, and the last step nothing.
    mask : array of bool, (n, t), optional
        Tokens that are to be predicted: without them a step does not count.
    shift : bool
        Whether tokens are the model's input; False where they are already the labels of each step.
    ignore_index : int or None
        Token that is not predicted, such as padding.
    weights : dict, optional
        Weights of the parts "cross_entropy" (1) and "z_loss" (0); a part of weight 0 is left out. PaLM has 1e-4 for
        z_loss.

    Returns
    -------
    Result
        value; grads of "logits"; parts "cross_entropy" and "z_loss".

    Raises
    ------
    ValueError
        For shapes that do not match, and tokens outside the vocabulary.

    References
    ----------
    Bengio et al. (2003), A neural probabilistic language model; z_loss: Chowdhery et al. (2022), PaLM,
    arXiv:2204.02311.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> found = fl.recipes.language_model(np.zeros((1, 3, 4)), np.array([[0, 3, 1]]), weights={"z_loss": 1e-4})
    >>> {name: round(part, 4) for name, part in found.parts.items()}
    {'cross_entropy': 1.3863, 'z_loss': 1.9218}
    """
    shifts = check.flag("shift", shift)
    z = Predictions(logits=logits)
    total = Sum(z, weights, {"cross_entropy": 1.0, "z_loss": 0.0})
    z.check("logits", "n", "t", "v")
    labels, ignored = _labels(z, tokens, mask, ignore_index)
    if shifts:
        labels = np.concatenate([labels[:, 1:], np.full((len(labels), 1), ignored)], axis=1)
    return _language_model(z["logits"], total, labels, ignored)


def _labels(z: Predictions, tokens: Any, mask: Any, ignore_index: int | None) -> tuple[Any, int]:
    """Return the tokens (n, t) int64, those outside the mask replaced by the label to ignore, and that label."""
    check.label_to_ignore(ignore_index)
    n, t, v = z["logits"].shape
    given = incoming(tokens, "tokens")
    if given.shape != (n, t):
        raise CallValueError(f"has shape {given.shape}; expected ({n}, {t})", "tokens")
    if given.size and given.dtype.kind not in "iu":
        raise CallTypeError(f"has dtype {given.dtype}; expected integers", "tokens")
    # No token of a vocabulary is negative.
    ignored = -100 if ignore_index is None else int(ignore_index)
    labels = given.astype(np.int64)
    if mask is not None:
        counted = incoming(mask, "mask")
        if counted.shape != (n, t):
            raise CallValueError(f"has shape {counted.shape}; expected ({n}, {t})", "mask")
        labels = np.where(counted != 0, labels, ignored)
    wrong = (labels < 0) | (labels >= v)
    if ignore_index is not None or mask is not None:
        wrong &= labels != ignored
    if wrong.any():
        first = check.index_of(int(wrong.argmax()), labels.shape)
        raise CallValueError(f"is {labels[first]}; allowed: {check.labels_allowed(v, ignore_index)}", "tokens", first)
    return labels, ignored


def _language_model(a: Any, total: Sum, labels: Any, ignored: int) -> Result:
    """Return the loss of logits whose labels are as long."""
    loss = LOSSES["cross_entropy"]
    if not total.wants("z_loss"):
        if total.wants("cross_entropy"):
            value, grad = loss.value_and_grad(a, labels, ignore_index=ignored)
            total.add("cross_entropy", value, logits=grad)
        return total.result()
    whole, penalty = total.weight("cross_entropy"), total.weight("z_loss")
    if whole <= 0.0 or penalty < 0.0:
        problem = f"has cross_entropy {whole:g} and z_loss {penalty:g}; expected a positive and a non-negative number"
        raise CallValueError(problem, "weights")
    # One pass for both: the kernel adds the penalty, and returns the normaliser of each row.
    ratio = penalty / whole
    value, grad, details = loss.value_and_grad(a, labels, ignore_index=ignored, z_loss=ratio, details=True)
    counted = labels != ignored
    part = float(np.square(details.logsumexp[counted]).mean()) if counted.any() else 0.0
    total.add("cross_entropy", value - ratio * part, logits=grad)
    total.add("z_loss", part)
    return total.result()


@naming("seq2seq")
def seq2seq(
    logits: Any,
    labels: Any,
    lengths: Any = None,
    *,
    label_smoothing: float = 0.1,
    normalization: str = "token",
    ignore_index: int | None = -100,
    weights: Mapping[str, float] | None = None,
) -> Result:
    r"""Return the loss of a sequence-to-sequence model: smoothed cross-entropy, and unlikelihood of repeated words.

    .. math:: mean cross_entropy(logits, labels) + w mean(-sum_{c in earlier words} log(1 - softmax(z)_c))

    Teacher forcing: step i has seen the true words before i and predicts label i. The words that it is to avoid are the
    earlier true words of its sequence, apart from label i itself.

    Parameters
    ----------
    logits : array, (n, t, v)
        Scores of the v words of a vocabulary at each of t steps.
    labels : array of int, (n, t)
        True word at each step, padded at will beyond the lengths.
    lengths : array of int, (n,), optional
        Steps of each sequence that count.
    label_smoothing : float in [0, 1]
        Share of the target that is spread over the vocabulary.
    normalization : {"token", "sequence"}
        Mean over all tokens, or over the sequences' own means, of the cross-entropy.
    ignore_index : int or None
        Label of a step that does not count.
    weights : dict, optional
        Weights of the parts "cross_entropy" (1) and "unlikelihood" (0); a part of weight 0 is left out.

    Returns
    -------
    Result
        value; grads of "logits"; parts "cross_entropy" and "unlikelihood".

    Raises
    ------
    ValueError
        For shapes that do not match, labels outside the vocabulary, lengths beyond t.

    References
    ----------
    Sutskever et al. (2014), arXiv:1409.3215; label smoothing: Vaswani et al. (2017), arXiv:1706.03762; unlikelihood:
    Welleck et al. (2020), arXiv:1908.04319.

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> labels = np.array([[0, 3, 3]])
    >>> found = fl.recipes.seq2seq(np.zeros((1, 3, 4)), labels, weights={"unlikelihood": 1.0})
    >>> {name: round(part, 4) for name, part in found.parts.items()}
    {'cross_entropy': 1.3863, 'unlikelihood': 0.1918}
    """
    z = Predictions(logits=logits)
    total = Sum(z, weights, {"cross_entropy": 1.0, "unlikelihood": 0.0})
    z.check("logits", "n", "t", "v")
    a, given = z["logits"], incoming(labels, "labels")
    loss = LOSSES["sequence_cross_entropy"].bind(
        label_smoothing=label_smoothing, normalization=normalization, ignore_index=ignore_index
    )
    if total.wants("cross_entropy"):
        value, grad = loss.value_and_grad(a, given, lengths=lengths)
        total.add("cross_entropy", value, logits=grad)
    if total.wants("unlikelihood"):
        earlier, counted = _earlier(given, lengths, ignore_index)
        value, grad = LOSSES["unlikelihood"].value_and_grad(a, earlier, weight=counted, ignore_index=PADDING)
        total.add("unlikelihood", value, logits=grad)
    return total.result()


def _earlier(labels: Any, lengths: Any, ignore_index: int | None) -> tuple[Any, Any]:
    """Return the earlier words of each step's sequence but its own (n, t, t), and the steps that count (n, t)."""
    n, t = labels.shape
    counted = np.ones((n, t), bool) if ignore_index is None else labels != ignore_index
    if lengths is not None:
        counted &= np.arange(t) < incoming(lengths, "lengths").reshape(n, 1)
    words = np.where(counted, labels, PADDING)
    wanted = np.tri(t, k=-1, dtype=bool) & (words[:, None, :] != words[:, :, None]) & counted[:, :, None]
    return np.where(wanted, words[:, None, :], PADDING), counted.astype(np.float64)


@naming("summarization")
def summarization(
    logits: Any,
    labels: Any,
    sampled_logits: Any,
    samples: Any,
    greedy: Any,
    *,
    ignore_index: int = -100,
    weights: Mapping[str, float] | None = None,
) -> Result:
    r"""Return the loss of a summarizer: cross-entropy, and self-critical training by ROUGE-L.

    .. math:: 0.0016 mean cross_entropy(logits, labels)
        + 0.9984 mean_{sequences} (rouge(greedy) - rouge(samples)) log p(samples)

    The reward of a summary is the F-score of ROUGE-L against the labels. Sampled summaries that beat the greedy one
    become more probable.

    Parameters
    ----------
    logits : array, (n, t, v)
        Scores of the v words of a vocabulary at each of t steps, given the true words before.
    labels : array of int, (n, t)
        True summaries, padded by ignore_index.
    sampled_logits : array, (n, s, v)
        Scores from which the samples were drawn, given the sampled words before.
    samples : array of int, (n, s)
        Summaries drawn from the model, padded by ignore_index.
    greedy : array of int, (n, g)
        Summaries of the most probable word at each step, padded by ignore_index.
    ignore_index : int
        Padding.
    weights : dict, optional
        Weights of the parts "cross_entropy" (0.0016) and "self_critical" (0.9984); a part of weight 0 is left out.

    Returns
    -------
    Result
        value; grads of "logits" and "sampled_logits"; parts "cross_entropy" and "self_critical".

    Raises
    ------
    ValueError
        For shapes that do not match, and words outside the vocabulary.

    References
    ----------
    Paulus, Xiong, Socher (2018), A deep reinforced model for abstractive summarization, arXiv:1705.04304; Rennie et al.
    (2017), arXiv:1612.00563; ROUGE-L: Lin (2004).

    Examples
    --------
    >>> import numpy as np, fastloss as fl
    >>> logits, labels = np.zeros((1, 3, 4)), np.array([[1, 2, 3]])
    >>> found = fl.recipes.summarization(logits, labels, logits, np.array([[1, 2, 0]]), np.array([[1, 0, 0]]))
    >>> {name: round(part, 4) for name, part in found.parts.items()}
    {'cross_entropy': 1.3863, 'self_critical': 1.3863}
    """
    check.integer("ignore_index", ignore_index)
    z = Predictions(logits=logits, sampled_logits=sampled_logits)
    total = Sum(z, weights, {"cross_entropy": 0.0016, "self_critical": 0.9984})
    z.check("logits", "n", "t", "v")
    n, _, v = z["logits"].shape
    z.check("sampled_logits", n, "s", v)
    texts = {"labels": labels, "samples": samples, "greedy": greedy}
    words = {k: _words(k, given, n) for k, given in texts.items()}
    if total.wants("cross_entropy"):
        loss = LOSSES["sequence_cross_entropy"]
        value, grad = loss.value_and_grad(z["logits"], words["labels"], ignore_index=ignore_index)
        total.add("cross_entropy", value, logits=grad)
    if total.wants("self_critical"):
        true, ours, best = ([row[row != ignore_index] for row in a] for a in words.values())
        reward, baseline = rouge_l(ours, true).f, rouge_l(best, true).f
        log_probs, pull = sequence_log_probs.vjp(z["sampled_logits"], words["samples"], ignore_index=ignore_index)
        value, grad = LOSSES["self_critical"].value_and_grad(log_probs, reward, baseline=baseline)
        total.add("self_critical", value, sampled_logits=pull(grad))
    return total.result()


def _words(name: str, given: Any, n: int) -> Any:
    """Return the words of n texts."""
    a = incoming(given, name)
    if a.ndim != 2 or len(a) != n:
        raise CallValueError(f"has shape {a.shape}; expected ({n}, t), one text per row of the logits", name)
    if a.size and a.dtype.kind not in "iu":
        raise CallTypeError(f"has dtype {a.dtype}; expected integers", name)
    return a.astype(np.int64)
