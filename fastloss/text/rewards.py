"""Rewards of generated text from integer tokens: ROUGE and BLEU of many pairs at once."""

from typing import Any, NamedTuple

import numpy as np

from ..call import check
from ..call.errors import CallTypeError, CallValueError, naming

__all__ = ["Scores", "bleu_sentence", "rouge_l", "rouge_lsum", "rouge_n"]

SMOOTHINGS = ("none", "floor", "add_k", "exp")


class Scores(NamedTuple):
    """Precision, recall and F-score (their harmonic mean) of each pair (n,), float64."""

    precision: Any
    recall: Any
    f: Any


@naming("rouge_l")
def rouge_l(candidates: Any, references: Any, lengths: Any = None, reference_lengths: Any = None) -> Scores:
    """Return ROUGE-L: the share of each sequence that lies in the longest common subsequence of the pair.

    Lin (2004), as the package rouge-score computes it (rougeL, one reference a candidate, no stemming).

    Parameters
    ----------
    candidates, references : array of int, (n, t), or sequence of n sequences of int
        Tokens of each text; arrays may be padded at will where lengths are given.
    lengths, reference_lengths : array of int, (n,), optional
        Number of tokens of each row; for arrays only.

    Returns
    -------
    Scores
        precision, recall, f: arrays of float64, (n,); 0 where nothing is in common.

    Raises
    ------
    ValueError
        Different numbers of candidates and references, lengths outside the arrays.

    Examples
    --------
    >>> from fastloss import rewards
    >>> rewards.rouge_l([[1, 2, 3, 4]], [[1, 3, 4, 5, 6, 7, 8, 9]]).precision
    array([0.75])
    """
    from ..cpu.sequences.rewards import common_subsequence

    a, b = _pairs(candidates, references, lengths, reference_lengths)
    return _scores(common_subsequence(a, b), np.diff(a[1]), np.diff(b[1]))


@naming("rouge_lsum")
def rouge_lsum(
    candidates: Any, references: Any, separator: int, lengths: Any = None, reference_lengths: Any = None
) -> Scores:
    """Return ROUGE-L of summaries: each sentence of the reference is met by all sentences of the candidate together.

    Lin (2004), as the package rouge-score computes it (rougeLsum), which counts no token more often than either text
    has it. Arguments and results are those of `rouge_l`; `separator` is the token between two sentences, such as that
    of a newline, and no token of the texts.

    Examples
    --------
    >>> from fastloss import rewards
    >>> rewards.rouge_lsum([[1, 2, 0, 3, 4]], [[3, 4, 0, 1, 2]], separator=0).f
    array([1.])
    """
    from ..cpu.sequences.summaries import common_summary

    check.integer("separator", separator)
    a, b = _pairs(candidates, references, lengths, reference_lengths)
    return _scores(*common_summary(a, b, int(separator)))


@naming("rouge_n")
def rouge_n(candidates: Any, references: Any, n: int = 2, lengths: Any = None, reference_lengths: Any = None) -> Scores:
    """Return ROUGE-N: the share of n-grams that the pair has in common.

    Lin (2004), as the package rouge-score computes it. Arguments and results are those of `rouge_l`; n is at least 1.

    Examples
    --------
    >>> from fastloss import rewards
    >>> rewards.rouge_n([[1, 2, 3, 4]], [[2, 3, 4, 5, 6]]).recall
    array([0.5])
    """
    from ..cpu.sequences.rewards import common_runs

    _at_least_one("n", n)
    a, b = _pairs(candidates, references, lengths, reference_lengths)
    runs = [np.maximum(np.diff(starts) - n + 1, 0) for _, starts in (a, b)]
    return _scores(common_runs(a, b, np.array([n], np.int64))[:, 0], *runs)


@naming("bleu_sentence")
def bleu_sentence(
    candidates: Any,
    references: Any,
    lengths: Any = None,
    reference_lengths: Any = None,
    *,
    max_n: int = 4,
    smoothing: str = "exp",
    smooth_value: float | None = None,
    effective_order: bool = False,
) -> Any:
    """Return BLEU of each pair: the geometric mean of the precisions of 1- to max_n-grams, times a brevity penalty.

    Papineni et al. (2002), in 0 to 1, one reference a candidate; smoothing as sacrebleu's sentence_bleu, whose figures
    are these times 100 (it takes the effective order by default).

    Parameters
    ----------
    candidates, references, lengths, reference_lengths
        As for `rouge_l`.
    max_n : int
        Length of the longest n-grams.
    smoothing : {"exp", "floor", "add_k", "none"}
        Replacement for precisions of 0: 1/2, 1/4, 1/8 ... of an n-gram, halved at each such precision (exp);
        smooth_value of an n-gram (floor); smooth_value added to the matches and to the total for n of 2 or more
        (add_k); no replacement, so that the score is 0 (none).
    smooth_value : float, optional
        By default 0.1 for floor, 1 for add_k.
    effective_order : bool
        Leave out n-grams that are longer than the candidate, instead of counting them as not found.

    Returns
    -------
    array of float64, (n,)

    Examples
    --------
    >>> from fastloss import rewards
    >>> rewards.bleu_sentence([[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 6]]).round(4)
    array([0.6687])
    """
    check.one_of("smoothing", smoothing, SMOOTHINGS)
    _at_least_one("max_n", max_n)
    a, b = _pairs(candidates, references, lengths, reference_lengths)
    return _bleu(a, b, max_n, smoothing, smooth_value, effective_order)


def _bleu(a: Any, b: Any, max_n: int, smoothing: str, smooth_value: float | None, effective_order: bool) -> Any:
    """Return BLEU of checked pairs: tokens and offsets of the candidates and of the references."""
    from ..cpu.sequences.rewards import common_runs

    orders = np.arange(1, max_n + 1)
    found = common_runs(a, b, orders).astype(np.float64)
    ours, theirs = np.diff(a[1]), np.diff(b[1])
    runs = np.maximum(ours[:, None] - orders + 1, 0).astype(np.float64)
    common = found.any(axis=1)
    if smoothing == "add_k":
        k = 1.0 if smooth_value is None else check.positive("smooth_value", smooth_value)
        found[:, 1:] += k
        runs[:, 1:] += k
    some = runs > 0.0
    missing = some & (found == 0.0)
    if smoothing == "floor":
        found[missing] = 0.1 if smooth_value is None else check.positive("smooth_value", smooth_value)
    elif smoothing == "exp":
        found[missing] = 0.5 ** np.cumsum(missing, axis=1)[missing]
    brevity = np.minimum(0.0, 1.0 - np.divide(theirs, ours, out=np.ones(len(ours)), where=ours > 0))
    return np.where(common, np.exp(_mean_log(found, runs, effective_order) + brevity), 0.0)


def _mean_log(found: Any, runs: Any, effective_order: bool) -> Any:
    """Return the mean logarithm of the precisions of a pair, of the n-grams that it has with `effective_order`."""
    some, max_n = runs > 0.0, runs.shape[1]
    with np.errstate(divide="ignore"):
        logs = np.log(np.divide(found, runs, out=np.zeros_like(found), where=some))
    counted = some.sum(axis=1) if effective_order else np.full(len(some), max_n)
    if effective_order:
        logs = np.where(some, logs, 0.0)
    return np.divide(logs.sum(axis=1), counted, out=np.full(len(logs), -np.inf), where=counted > 0)


def _at_least_one(what: str, n: Any) -> None:
    check.integer(what, n)
    if n < 1:
        raise CallValueError(f"is {n}; expected 1 or more", what)


def _scores(common: Any, ours: Any, theirs: Any) -> Scores:
    """Return precision, recall and F-score from the number of matches; 0 where a divisor is 0."""
    common = common.astype(np.float64)
    precision, recall = common / np.maximum(ours, 1), common / np.maximum(theirs, 1)
    total = precision + recall
    f = np.divide(2.0 * precision * recall, total, out=np.zeros_like(total), where=total > 0.0)
    return Scores(precision, recall, f)


def _pairs(candidates: Any, references: Any, lengths: Any, reference_lengths: Any) -> tuple[Any, Any]:
    """Return the concatenated tokens of candidates and references, with the offset of each text."""
    a = _joined("candidates", candidates, "lengths", lengths)
    b = _joined("references", references, "reference_lengths", reference_lengths)
    if a[1].size != b[1].size:
        problem = f"hold {a[1].size - 1} texts and references {b[1].size - 1}; expected as many"
        raise CallValueError(problem, "candidates")
    return a, b


def _joined(what: str, texts: Any, beside: str, lengths: Any) -> tuple[Any, Any]:
    _no_text(what, texts)
    if not hasattr(texts, "ndim"):
        if lengths is not None:
            raise CallTypeError(f"belong to arrays; {what} are a {type(texts).__name__}", beside)
        rows = [_tokens(f"{what}[{i}]", row, 1) for i, row in enumerate(texts)]
        sizes = np.array([row.size for row in rows], np.int64)
        flat = np.concatenate([*rows, np.empty(0, np.int64)])
    else:
        whole = _tokens(what, texts, 2)
        sizes = np.full(len(whole), whole.shape[1], np.int64)
        if lengths is not None:
            sizes = _tokens(beside, lengths, 1)
            if sizes.shape != (len(whole),):
                raise CallValueError(f"has shape {sizes.shape}; expected ({len(whole)},)", beside)
            if ((sizes < 0) | (sizes > whole.shape[1])).any():
                i = int(np.argmax((sizes < 0) | (sizes > whole.shape[1])))
                raise CallValueError(f"is {sizes[i]}; allowed: 0 to {whole.shape[1]}", beside, (i,))
        flat = whole[np.arange(whole.shape[1]) < sizes[:, None]]
    return np.ascontiguousarray(flat), np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _no_text(what: str, given: Any) -> None:
    """Raise if a string is given instead of a sequence of tokens."""
    if isinstance(given, (str, bytes)):
        raise CallTypeError("is a string; expected integer tokens, the number of each word", what)


def _tokens(what: str, given: Any, ndim: int) -> Any:
    """Return integer tokens as int64."""
    _no_text(what, given)
    a = np.asarray(given)
    if a.dtype.kind in "US":
        raise CallTypeError("holds strings; expected integer tokens, the number of each word", what)
    if a.ndim != ndim:
        raise CallValueError(f"has shape {a.shape}; expected {'a sequence' if ndim == 1 else '(n, t)'}", what)
    if a.size and (a.dtype.kind not in "iu" or a.dtype == np.uint64):
        raise CallTypeError(f"has dtype {a.dtype}; expected integers", what)
    return a.astype(np.int64)
