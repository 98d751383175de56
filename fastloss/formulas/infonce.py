"""In-batch contrastive losses: a softmax over inner products of embeddings, whose matrix is never held whole."""

from ..spec.record import NONNEGATIVE, POSITIVE, Input, Parameter, arrays
from .linear import CHUNK

TEMPERATURE = (0.07, Parameter("divides the cosines", POSITIVE))
NORMALIZE = (1.0, Parameter("whether inner products are cosines; a zero vector has cosine 0 with any", flag=True))
PAIR = "np.eye(4), np.ones((4, 4))"


@arrays(
    "embeddings.infonce",
    inputs={
        "queries": Input("n d", "embeddings that are to find their keys", grad=True),
        "keys": Input(
            "n d", "embeddings; the one of the same row is to be found, the others are not", grad=True, shared=True
        ),
        "negatives": Input("m d", "embeddings that no query is to find", grad=True, optional=True),
    },
    units="n",
    math="-log(exp(q_i . k_i / temperature) / sum_j exp(q_i . k_j / temperature)), with unit q, k",
    link="softmax",
    options={"temperature": TEMPERATURE, "normalize": NORMALIZE, "chunk": (0.0, CHUNK)},
    paper="van den Oord et al. (2018), arXiv:1807.03748",
    example=PAIR,
)
def info_nce():
    """Contrastive cross-entropy of queries against the keys of the batch.

    The matrix of all pairs is never held whole; threads share its products as in `linear_cross_entropy`.
    """


@arrays(
    "embeddings.infonce",
    inputs={
        "z1": Input("n d", "embeddings of one view", grad=True, shared=True),
        "z2": Input("n d", "embeddings of the other view of the same samples", grad=True, shared=True),
    },
    units="2 n",
    math="-log(exp(z_i . z_p(i) / temperature) / sum_{j != i} exp(z_i . z_j / temperature)), z all 2n unit vectors",
    link="softmax",
    options={"temperature": TEMPERATURE, "normalize": NORMALIZE, "chunk": (0.0, CHUNK)},
    paper="Chen et al. (2020), SimCLR, arXiv:2002.05709",
    example=PAIR,
)
def ntxent():
    """Normalized temperature-scaled cross-entropy: each of 2n views is to find the other view of its sample.

    The matrix of all pairs is never held whole; threads share its products as in `linear_cross_entropy`.
    """


@arrays(
    "embeddings.infonce",
    inputs={
        "features": Input("n d", "embeddings", grad=True, shared=True),
        "labels": Input("n", "class of each embedding", "labels", shared=True),
    },
    units="n",
    math="-mean_{p != i, y_p = y_i} log(exp(z_i . z_p / temperature) / sum_{j != i} exp(z_i . z_j / temperature))",
    link="softmax",
    options={"temperature": TEMPERATURE, "normalize": NORMALIZE, "chunk": (0.0, CHUNK)},
    paper="Khosla et al. (2020), L_out, arXiv:2004.11362",
    example="np.eye(4), np.array([0, 0, 1, 1])",
)
def supcon():
    """Supervised contrastive loss; embeddings that are alone in their class do not count.

    The matrix of all pairs is never held whole; threads share its products as in `linear_cross_entropy`.
    """


@arrays(
    "embeddings.infonce",
    inputs={
        "anchors": Input("n d", "embeddings", grad=True),
        "positives": Input("n d", "embeddings; the one of the same row is to be found", grad=True, shared=True),
        "labels": Input(
            "n", "class of each pair: positives of one class are found alike", "labels", optional=True, shared=True
        ),
    },
    units="n",
    math="-log(exp(a_i . p_i) / sum_j exp(a_i . p_j)) + l2_reg (|a_i|^2 + |p_i|^2) / 4",
    link="softmax",
    options={"l2_reg": (0.0, Parameter("factor of the squared lengths", NONNEGATIVE)), "chunk": (0.0, CHUNK)},
    paper="Sohn (2016), Improved deep metric learning with multi-class N-pair loss objective",
    example=PAIR,
)
def n_pairs():
    """Cross-entropy of anchors against the positives of the batch, by plain inner products.

    The matrix of all pairs is never held whole; threads share its products as in `linear_cross_entropy`.
    """
