"""Sample inputs of the losses of preferences and policies."""

import numpy as np
from array_cases import Sample

N = 20


def nothing(*names):
    return lambda: {k: np.empty(0, bool if k == "desirable" else float) for k in names}


def pairs(rng):
    """Log-probabilities of sequences of some tokens."""
    return {k: rng.normal(-20, 6, N) for k in ("chosen", "rejected", "ref_chosen", "ref_rejected")}


def averages(rng):
    """Log-probabilities of a token."""
    return {k: -rng.gamma(2.0, 0.5, N) for k in ("chosen", "rejected")}


def single(rng):
    given = {k: rng.normal(-20, 6, N) for k in ("log_prob", "ref_log_prob")}
    return given | {"desirable": rng.random(N) < 0.5, "kl": rng.gamma(2.0, size=N)}


def steps(rng):
    """Ratios within the clipped range and beyond it, off its ends."""
    ratio = rng.choice([0.4, 0.7, 0.9, 1.0, 1.1, 1.3, 2.0], N) * np.exp(rng.uniform(-0.01, 0.01, N))
    old = rng.normal(-2, 1, N)
    return {"log_prob": old + np.log(ratio), "old_log_prob": old, "advantage": rng.normal(size=N)}


def tokens(rng):
    return steps(rng) | {"ref_log_prob": rng.normal(-2, 1, N)}


def held_weights(log_prob, old_log_prob, clip_high=5.0, **_):
    return {"held": np.minimum(np.exp(log_prob - old_log_prob), clip_high)}


def rewards(rng):
    given = {k: rng.normal(size=N) for k in ("log_prob", "reward", "baseline")}
    return given | {"entropy": rng.gamma(2.0, size=N)}


def sequences(rng):
    return {k: v for k, v in rewards(rng).items() if k != "entropy"}


PAIR = ("chosen", "rejected", "ref_chosen", "ref_rejected")


def lists(rng):
    """Lists of four candidates."""
    return {"log_prob": rng.normal(-20, 6, (N, 4)), "reward": rng.random((N, 4))}


SAMPLES = {
    "minimum_risk": Sample(
        lists,
        [{}, {"alpha": 0.3}],
        empty=lambda: {"log_prob": np.empty((0, 4)), "reward": np.empty((0, 4))},
    ),
    "dpo": Sample(
        pairs,
        [
            {},
            {"beta": 0.5, "label_smoothing": 0.2},
            {"variant": "discopop", "beta": 0.01},
            {"variant": "bco_pair", "center": 0.3},
        ],
        empty=nothing(*PAIR),
    ),
    "ipo": Sample(pairs, [{}, {"beta": 0.03}], empty=nothing(*PAIR)),
    "simpo": Sample(averages, [{}, {"beta": 2.5, "gamma": 1.4}], empty=nothing("chosen", "rejected")),
    "orpo": Sample(averages, [{}, {"lam": 1.5}], empty=nothing("chosen", "rejected")),
    "kto": Sample(
        single,
        [{}, {"beta": 0.4, "lambda_d": 1.33, "lambda_u": 0.5}],
        empty=nothing("log_prob", "ref_log_prob", "desirable"),
    ),
    "ppo_clip": Sample(
        steps,
        [{}, {"clip": 0.15, "clip_high": 0.28}],
        empty=nothing("log_prob", "old_log_prob", "advantage"),
    ),
    "grpo": Sample(
        tokens,
        [{}, {"clip": 0.15, "clip_high": 0.28, "beta": 0.3}],
        empty=nothing("log_prob", "old_log_prob", "advantage"),
    ),
    "cispo": Sample(
        tokens,
        [{}, {"clip_high": 1.2, "beta": 0.3}],
        empty=nothing("log_prob", "old_log_prob", "advantage"),
        held=held_weights,
    ),
    "sapo": Sample(
        tokens,
        [{}, {"tau_neg": 2.0, "beta": 0.3}],
        empty=nothing("log_prob", "old_log_prob", "advantage"),
    ),
    "reinforce": Sample(rewards, [{}, {"entropy_weight": 0.5}], empty=nothing("log_prob", "reward")),
    "self_critical": Sample(sequences, empty=nothing("log_prob", "reward", "baseline")),
}
