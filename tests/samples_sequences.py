"""Sample inputs of the losses of sequences."""

import numpy as np
from array_cases import Sample


def spoken(rng, t=9, n=5, v=6):
    """Frames and targets of several lengths, with symbols that repeat; what is padding is no symbol at all."""
    logits = rng.normal(size=(t, n, v))
    targets = np.array([[1, 2, 2, 5], [3, 1, 4, -9], [5, 99, 99, 99], [2, 2, 2, 2], [7, 7, 7, 7]])
    return {
        "log_probs": logits - np.log(np.exp(logits).sum(-1, keepdims=True)),
        "targets": targets,
        "input_lengths": np.array([9, 8, 3, 9, 6]),
        "target_lengths": np.array([4, 3, 1, 4, 0]),
    }


SAMPLES = {
    "ctc": Sample(
        spoken,
        [{}, {"zero_infinity": True}],
        independent=False,
        empty=lambda: {"log_probs": np.zeros((3, 0, 4)), "targets": np.zeros((0, 2), int)},
    ),
}
