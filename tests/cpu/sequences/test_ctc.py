"""Connectionist temporal classification: every alignment counted, torch's loss and gradient, extremes and errors."""

import math
from itertools import product

import numpy as np
import pytest
from array_cases import inputs
from numba import njit

import fastloss as fl
from fastloss import reference
from fastloss.cpu.sequences import ctc


def read(path, blank):
    """What an alignment says: repetitions are one symbol, blanks are none."""
    return [s for i, s in enumerate(path) if s != blank and (i == 0 or s != path[i - 1])]


def all_alignments(x, target, blank=0):
    """The loss of one sequence, and the probability of each symbol in each frame given the target."""
    t, v = x.shape
    total, held = 0.0, np.zeros((t, v))
    for path in product(range(v), repeat=t):
        if read(path, blank) == list(target):
            p = math.exp(sum(x[k, s] for k, s in enumerate(path)))
            total += p
            for k, s in enumerate(path):
                held[k, s] += p
    return -math.log(total) if total else math.inf, held / total if total else held


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("target", [[], [1], [3, 1], [1, 1], [1, 3, 3], [3, 3, 3, 3]])
@pytest.mark.parametrize("t", [0, 1, 3, 5])
def test_every_alignment_is_counted_once(t, target, blank):
    x = np.random.default_rng(len(target) + 10 * t).normal(size=(5, 1, 4))
    given = {"targets": np.array([target or [9]]), "input_lengths": np.array([t]), "blank": blank}
    given["target_lengths"] = np.array([len(target)])
    expected, held = all_alignments(x[:t, 0], target, blank)
    value, grad = fl.ctc.value_and_grad(x, **given)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(reference.ctc(x, **given), [expected], rtol=1e-13)
    np.testing.assert_allclose(grad[:t, 0], -held, rtol=1e-12, atol=1e-15)
    assert not grad[t:].any()


def test_the_loss_of_torch_and_its_gradient_by_the_logits():
    torch = pytest.importorskip("torch", reason="needs the peers extra")
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(0, 3, (30, 6, 12))).requires_grad_(True)
    targets = rng.integers(1, 12, (6, 8))
    frames, lengths = np.array([30, 29, 20, 30, 8, 1]), np.array([8, 7, 8, 0, 3, 1])
    log_probs = logits.log_softmax(-1)
    arguments = [torch.from_numpy(a) for a in (targets, frames, lengths)]
    theirs = torch.nn.functional.ctc_loss(log_probs, *arguments, reduction="none")
    theirs.sum().backward()
    given = (log_probs.detach().numpy(), targets, frames, lengths)
    np.testing.assert_allclose(fl.ctc(*given, reduction="none"), theirs.detach(), rtol=1e-13)
    _, grad = fl.ctc.value_and_grad(*given, reduction="sum")
    through = grad - np.exp(given[0]) * grad.sum(-1, keepdims=True)
    np.testing.assert_allclose(through, logits.grad, atol=1e-13)
    mean = torch.nn.functional.ctc_loss(log_probs, *arguments).item()
    ours = fl.ctc(*given, weight=1 / np.maximum(lengths, 1), divisor=len(lengths))
    assert ours == pytest.approx(mean, rel=1e-13)


def test_a_long_sequence_of_unlikely_symbols_neither_underflows_nor_loses_digits():
    # All paths are alike, so the loss is that of one less the log of their number: C(t + n, 2 n) for distinct symbols.
    t, n = 1000, 20
    for level in (-1e-3, -700.0, -1e5, -1e20):
        x = np.full((t, 1, n + 1), level)
        value, grad = fl.ctc.value_and_grad(x, np.arange(1, n + 1)[None])
        assert value == pytest.approx(-t * level - math.log(math.comb(t + n, 2 * n)), rel=1e-13)
        np.testing.assert_allclose(grad.sum(-1), -1.0, rtol=1e-10)


def test_a_loss_near_zero():
    x = np.log(np.array([[[1e-9, 1 - 2e-9, 1e-9]]]))
    assert fl.ctc(x, np.array([[1]])) == pytest.approx(2e-9, rel=1e-6)
    assert fl.ctc(np.zeros((6, 1, 2)), np.zeros((1, 0), int)) == 0.0


@pytest.mark.jit
def test_infinite_log_probabilities():
    x = np.full((3, 1, 3), -math.inf)
    x[[0, 1, 2], 0, [1, 0, 2]] = 0.0
    value, grad = fl.ctc.value_and_grad(x, np.array([[1, 2]]))
    assert value == 0.0
    np.testing.assert_array_equal(grad, np.where(x == 0.0, -1.0, 0.0))
    value, grad = fl.ctc.value_and_grad(x, np.array([[2, 1]]))
    assert value == math.inf
    assert not grad.any()
    least = np.full((3, 1, 3), np.finfo(np.float32).min, np.float32)
    value, grad = fl.ctc.value_and_grad(least, np.array([[1, 2]]))
    assert value == pytest.approx(-3.0 * float(least[0, 0, 0]))
    assert np.isfinite(grad).all()


@pytest.mark.jit
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_comes_through_in_its_own_sequence(bad):
    given = inputs("ctc")
    clean = fl.ctc(**given, reduction="none")
    given["log_probs"][1, 0, 1] = bad
    values = fl.ctc(**given, reduction="none")
    assert np.isnan(values[0])
    np.testing.assert_array_equal(values[1:], clean[1:])
    weight = np.array([0.0, 1.0, 1.0, 1.0, 1.0])
    value, grad = fl.ctc.value_and_grad(**given, weight=weight)
    assert value == pytest.approx(clean[1:].mean())
    assert not grad[:, 0].any()
    assert np.isfinite(grad).all()


def test_what_cannot_be_aligned():
    x = np.zeros((3, 3, 4))
    targets, lengths = np.array([[1, 1, 2], [1, 2, 3], [1, 1, 1]]), np.array([3, 3, 2])
    values = fl.ctc(x, targets, None, lengths, reduction="none")
    np.testing.assert_allclose(values, [math.inf, 0.0, 0.0], atol=1e-15)
    value, grad = fl.ctc.value_and_grad(x, targets, None, lengths, reduction="sum")
    assert value == math.inf
    assert not grad[:, 0].any()
    assert grad[:, 1].any()
    value, grad = fl.ctc.value_and_grad(x, targets, None, lengths, zero_infinity=True)
    assert value == pytest.approx(0.0, abs=1e-15)
    assert not grad[:, 0].any()


def test_padding_is_never_read():
    given = inputs("ctc")
    expected, grads = fl.ctc.value_and_grad(**given)
    for i, t in enumerate(given["input_lengths"]):
        given["log_probs"][t:, i] = np.nan
        given["targets"][i, given["target_lengths"][i] :] = -(1 << 60)
    value, grad = fl.ctc.value_and_grad(**given)
    assert value == expected
    np.testing.assert_array_equal(grad, grads)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"targets": np.array([[1, 2], [1, 4]])}, r"ctc: targets\[1, 1\] is 4; allowed: 0 to 3, but not 0, which is"),
        ({"targets": np.array([[1, 0], [1, 2]])}, r"ctc: targets\[0, 1\] is 0; allowed: 0 to 3, but not 0"),
        ({"targets": np.array([[1, -1], [1, 2]])}, r"ctc: targets\[0, 1\] is -1; allowed"),
        ({"blank": 4}, r"ctc: blank is 4; allowed: 0 to 3"),
        ({"input_lengths": np.array([5, 6])}, r"ctc: input_lengths\[1\] is 6; allowed: 0 to 5"),
        ({"target_lengths": np.array([3, 1])}, r"ctc: target_lengths\[0\] is 3; allowed: 0 to 2"),
        ({"target_lengths": np.array([1, 1, 1])}, r"ctc: target_lengths has shape \(3,\); expected \(2,\)"),
        ({"targets": np.ones((3, 2), int)}, r"ctc: targets has shape \(3, 2\); expected \(2, s\)"),
    ],
)
def test_what_is_wrong_is_named(change, text):
    given = {"log_probs": np.zeros((5, 2, 4)), "targets": np.array([[1, 2], [1, 2]])}
    with pytest.raises(ValueError, match=text):
        fl.ctc(**{**given, **change})
    with pytest.raises(ValueError, match="blank"):
        fl.ctc(**given, blank=-1)
    with pytest.raises(
        TypeError, match="ctc: target_lengths is missing; targets of all sequences in one dimension need"
    ):
        fl.ctc(given["log_probs"], np.array([1, 2, 1, 2]))


@pytest.mark.parametrize("symbols", [0, 1, 5, 17])
def test_both_forms_of_a_step_backward_have_the_same_bits(symbols):
    rng = np.random.default_rng(symbols)
    back, few = (
        njit(lambda *a: ctc.back(*a), error_model="numpy"),
        njit(lambda *a: ctc.back_few(*a), error_model="numpy"),
    )
    state, p = np.empty((4, symbols + 2)), np.empty((2, symbols + 1))
    for a in (state[::2], p[:1]):
        a[:] = rng.uniform(1.0, 2.0, a.shape)
    for a in (state[1::2], p[1:]):
        a[:] = rng.integers(-2000, 5, a.shape)
    # Nothing is reached beyond the last symbol, nor before the first; and one state of those between.
    for k, i in ((2, 0), (0, -1), (2, -1), (0, symbols // 2)):
        state[k, i], state[k + 1, i] = 0.0, ctc.LOWEST
    skip = np.append(rng.integers(0, 2, symbols + 1).astype(float), 0.0)
    after = np.zeros((4, symbols + 2))
    after[1::2] = ctc.LOWEST
    other = state.copy()
    for _ in range(3):
        back(state, p, skip, after)
        few(other, p, skip)
    np.testing.assert_array_equal(other, state)
