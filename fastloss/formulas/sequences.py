"""Sequence losses over batches of token sequences of different lengths."""

import math

from ..spec.record import UNIT, Input, Integers, Parameter, arrays
from ..spec.vocabulary import exp

IGNORED = {"ignore_index": (-100.0, Parameter("label of a token that does not count", Integers(), none=-math.inf))}
TOKENS = "np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([1, 0])"


@arrays(
    "sequences.tokens",
    inputs={
        "logits": Input("n t v", "scores of the v words of a vocabulary at each of t steps", grad=True),
        "labels": Input("n t", "the words that follow, padded at will", kind="labels", classes="v"),
        "lengths": Input(
            "n", "steps of each sequence that count; all if not given", "lengths", False, True, classes="t"
        ),
        "mask": Input("n t", "steps that count; all if not given", kind="mask", optional=True),
    },
    checked_by_kernel=("labels",),
    takes_empty=True,
    units="n t",
    options={
        "label_smoothing": (0.0, Parameter("share of the target spread evenly over the vocabulary", UNIT)),
        "normalization": (
            0.0,
            Parameter("the mean over all tokens, or over the sequences' own means", choices=("token", "sequence")),
        ),
        **IGNORED,
    },
    math="-log softmax(z)_label at every step that counts",
    paper="Sutskever et al. (2014), arXiv:1409.3215; teacher forcing: Williams and Zipser (1989)",
    example="np.array([[[0.0, 1.0], [2.0, 0.0]]]), np.array([[1, 0]]), np.array([1])",
)
def sequence_cross_entropy():
    """Cross-entropy of every token of a batch of padded sequences, given the tokens before it.

    Padding is never read and takes no time: its logits and labels may be anything, its gradient is zero. By sequence,
    each value is the token's loss divided by the number of tokens that count in its sequence, so that their sum is the
    sum of the sequences' means, and their mean is the mean over the sequences with any token.
    """


@arrays(
    "sequences.token_means",
    inputs={
        "logits": Input("* v", "scores of the v words of a vocabulary", grad=True),
        "labels": Input("*", "the words that follow", kind="labels", classes="v"),
        "mask": Input("*", "tokens that count; all if not given", kind="mask", optional=True),
    },
    checked_by_kernel=("labels",),
    takes_empty=True,
    options=IGNORED,
    math="exp of the mean of -log softmax(z)_label over the tokens",
    paper="Jelinek et al. (1977), Perplexity: a measure of the difficulty of speech recognition tasks",
    mean_of="cross_entropy",
    example=TOKENS,
)
def perplexity(total, count):
    """Perplexity: the exponential of the mean cross-entropy of the tokens."""
    value = exp(total / count)
    return value, value / count


@arrays(
    "sequences.token_means",
    inputs={
        "logits": Input("* v", "scores of the v words of a vocabulary", grad=True),
        "labels": Input("*", "the words that follow", kind="labels", classes="v"),
        "n_bytes": Input("", "bytes of the text that the tokens stand for", kind="lengths"),
        "mask": Input("*", "tokens that count; all if not given", kind="mask", optional=True),
    },
    checked_by_kernel=("labels",),
    takes_empty=True,
    options=IGNORED,
    math="sum of -log softmax(z)_label over the tokens / (n_bytes log 2)",
    paper="Gao et al. (2020), The Pile, arXiv:2101.00027",
    example=f"{TOKENS}, np.array(5)",
)
def bits_per_byte(total, count, n_bytes):
    """Bits per byte: the cross-entropy of a text (bits) over its number of bytes, independent of the tokens."""
    share = 1.0 / (0.6931471805599453 * n_bytes)
    return total * share, share


@arrays(
    "sequences.unlikelihood",
    inputs={
        "logits": Input("* v", "scores of the v words of a vocabulary", grad=True),
        "candidates": Input(
            "* c", "words that should not come; a repeated one counts once", "labels", False, True, classes="v"
        ),
        "mask": Input("* v", "the same as a mask of the vocabulary", kind="mask", optional=True),
    },
    units="*",
    options={
        "ignore_index": (-100.0, Parameter("what pads the candidates", Integers(), none=-math.inf)),
    },
    math="-sum over the candidates c of log(1 - softmax(z)_c)",
    paper="Welleck et al. (2020), Neural text generation with unlikelihood training, arXiv:1908.04319",
    example="np.array([[0.0, 1.0, 2.0]]), np.array([[2, -100]])",
)
def unlikelihood():
    """Unlikelihood loss of tokens that should not come next, such as recently used ones.

    Candidates are given as indices or as a mask. A row without candidates has a loss of 0 and counts in the mean. The
    true label is no candidate: leave it out.
    """


@arrays(
    "sequences.ctc",
    inputs={
        "log_probs": Input("t n v", "log-probabilities of the v symbols in each of t frames", grad=True),
        "targets": Input("n s", "symbols to be read, padded at will", kind="labels", classes="v"),
        "input_lengths": Input("n", "frames that count; all if not given", kind="lengths", optional=True, classes="t"),
        "target_lengths": Input("n", "symbols that count; all if not given", "lengths", optional=True, classes="s"),
    },
    checked_by_kernel=("targets",),
    takes_empty=True,
    units="n",
    options={
        "blank": (0.0, Parameter("the symbol that stands for none", Integers(0.0))),
        "zero_infinity": (0.0, Parameter("0 in place of the infinite loss of what cannot be aligned", flag=True)),
    },
    math="-log sum of the probabilities of all alignments with the targets",
    paper="Graves et al. (2006), Connectionist temporal classification",
    example="np.log(np.full((4, 1, 3), 1 / 3)), np.array([[1, 2]])",
)
def ctc():
    """Connectionist temporal classification: negative log-likelihood of a sequence, summed over all alignments.

    The derivative is that by the log-probabilities as given; torch returns the one by the logits of a log-softmax
    behind them, which the chain rule makes of this one. The mean is over the sequences; torch's "mean" divides each
    loss by its target's length first: weight=1/lengths and divisor=n say so here. What cannot be aligned has an
    infinite loss and derivatives of zero, where torch's are NaN.
    """
