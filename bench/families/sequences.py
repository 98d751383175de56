"""Losses of sequences beside torch's."""

import numpy as np

import fastloss as fl

from .case import Bench


def ctc():
    """64 sequences of 200 frames, 100 symbols, 40 of them to be read: loss and gradient."""
    import torch

    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(200, 64, 100)).astype(np.float32))
    log_probs = logits.log_softmax(-1)
    targets = rng.integers(1, 100, (64, 40))
    given = (log_probs.numpy(), targets)
    out = np.empty_like(given[0])
    frames, lengths = torch.full((64,), 200), torch.full((64,), 40)

    def theirs():
        x = log_probs.detach().requires_grad_(True)
        torch.nn.functional.ctc_loss(x, torch.from_numpy(targets), frames, lengths).backward()
        return x.grad

    return {"fastloss": lambda: fl.ctc.value_and_grad(*given, out=out), "torch": theirs}


BENCHES = [Bench("ctc, 64 x 200 frames, 40 of 100 symbols", ctc, "torch", 1.0)]
