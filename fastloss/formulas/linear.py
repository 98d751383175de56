"""Fused losses of a linear layer and a softmax, without the whole matrix of scores."""

import math

from ..spec.record import FINITE_NONNEGATIVE, Input, Integers, Parameter, arrays

CHUNK = Parameter("rows whose scores are held at a time; None for about 64 MB of them", Integers(1.0), none=0.0)
IGNORED = Parameter("label of rows to leave out; None leaves out none", Integers(), none=-math.inf)


@arrays(
    "sequences.linear",
    inputs={
        "hidden": Input("* h", "inputs of the layer", grad=True),
        "projection": Input("k h", "weights of the layer, one row per class", grad=True),
        "labels": Input("*", "class of each row", "labels", classes="k"),
        "bias": Input("k", "bias of the layer", grad=True, optional=True),
        "class_weight": Input(
            "k", "factor of each class, as in cross_entropy", optional=True, domain=FINITE_NONNEGATIVE, shared=True
        ),
    },
    units="*",
    math="cross_entropy(hidden @ projection.T + bias, labels)",
    link="softmax",
    options={"ignore_index": (-100.0, IGNORED), "chunk": (0.0, CHUNK)},
    loop_parameters=("label_smoothing", "z_loss", "temperature", "logit_scale"),
    paper="Wijmans et al. (2024), Cut your losses in large-vocabulary language models, arXiv:2411.09009",
    example="np.eye(4), np.ones((8, 4)), np.arange(4)",
)
def linear_cross_entropy():
    """Softmax cross-entropy of a linear layer's outputs, computed a few rows at a time.

    Beyond the derivatives it takes about 64 MB, or `chunk` rows of scores. The matrix products are NumPy's: OpenBLAS is
    kept to one thread during the call, and `set_num_threads` threads share its products, which changes no bit; another
    BLAS uses threads of its own.
    """
