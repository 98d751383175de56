"""Losses of sequences: tokens in their order, of different lengths side by side."""

from .record import Input, Integers, Parameter, arrays


@arrays(
    "ctc",
    inputs={
        "log_probs": Input("t n v", "log-probabilities of the v symbols in each of t frames", grad=True),
        "targets": Input("n s", "symbols to be read, padded at will", kind="labels"),
        "input_lengths": Input("n", "frames that count; all if not given", kind="lengths", optional=True, classes="t"),
        "target_lengths": Input("n", "symbols that count; all if not given", "lengths", optional=True, classes="s"),
    },
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
    """Connectionist temporal classification: the likelihood of a sequence, whatever frames its symbols take.

    The derivative is that by the log-probabilities as given; torch returns the one by the logits of a log-softmax
    behind them, which the chain rule makes of this one. The mean is over the sequences; torch's "mean" divides each
    loss by its target's length first: weight=1/lengths and divisor=n say so here. What cannot be aligned has an
    infinite loss and derivatives of zero, where torch's are NaN.
    """
