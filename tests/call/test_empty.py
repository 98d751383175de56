"""Calls of nothing, of rows without classes, of single rows: every number of a result is one that was computed."""

import json
import math
from functools import partial

import children
import numpy as np
import pytest

import fastloss as fl

SWEEP = """
import json, sys
sys.path.insert(0, {tests!r})
import numpy as np
from registry_calls import NAMES, calls, flat, ways
from fastloss.call import memory

EMPTY, EMPTY_LIKE, RECYCLED = np.empty, np.empty_like, memory.MemoryPool.empty
POISON = [0]

def filled(a):
    if a.dtype.kind in "fiu":
        a.fill(POISON[0])
    return a

np.empty = lambda *a, **k: filled(EMPTY(*a, **k))
np.empty_like = lambda *a, **k: filled(EMPTY_LIKE(*a, **k))
memory.MemoryPool.empty = lambda *a: filled(RECYCLED(*a))
# All results but those of the fast path are recycled.
memory.SMALLEST = 1

def outcome(function, args, given, number):
    POISON[0] = number
    try:
        return [(x.shape, x.dtype, x.tobytes()) for x in flat(function(*args, **given))]
    except (ValueError, TypeError) as error:
        return str(error)

wrong = []
with np.errstate(all="ignore"):
    for name in NAMES:
        for dtype in (np.float64, np.float16):
            for args, given in calls(name, dtype):
                for i, function in enumerate(ways(name)):
                    if outcome(function, args, given, 77) != outcome(function, args, given, 33):
                        wrong.append([name, dtype.__name__, i, [np.shape(x) for x in (*args, *given.values())]])
print(json.dumps(wrong))
"""


def test_no_result_is_left_unfilled():
    """All memory that is handed out unfilled, scratch of kernels included, holds one number, then another."""
    script = SWEEP.format(tests=str(children.ROOT / "tests"))
    assert json.loads(children.wait(children.start(script, NUMBA_DISABLE_JIT=1), timeout=300.0)) == []


DENSE = ["cross_entropy", "nll", "kl_div", "js_div", "sparsemax_loss", "distillation", "tv_distance"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_no_classes_cost_nothing(dtype):
    z = np.zeros((8, 0), dtype)
    for name in DENSE:
        assert np.array_equal(fl.LOSSES[name](z, z.copy(), reduction="none"), np.zeros(8))
        assert fl.LOSSES[name](z, z.copy()) == 0.0
    assert np.array_equal(fl.crps_ensemble(z, np.ones(8), reduction="none"), np.zeros(8))
    labels = np.full(8, -100)
    loss, grad, details = fl.cross_entropy.value_and_grad(z, labels, reduction="none", details=True)
    assert np.array_equal(loss, np.zeros(8))
    assert grad.shape == (8, 0)
    assert np.array_equal(details.loss, np.zeros(8))
    assert np.array_equal(details.logsumexp, np.full(8, -np.inf))
    assert np.array_equal(details.argmax, np.full(8, -1))
    assert np.array_equal(details.rank, np.zeros(8))


@pytest.mark.parametrize("k", [5, 60])
def test_details_of_probabilities(k):
    rng = np.random.default_rng(k)
    z, t = rng.standard_normal((70, k)), rng.random((70, k))
    t[3] = 0.0
    z[5, 1] = z[5].max() + 1.0
    t[5], z[5, 3] = np.eye(k)[3], z[5, 1]
    details = fl.cross_entropy.details(z, t)
    assert np.array_equal(details.argmax, z.argmax(axis=1))
    picked = z[np.arange(70), t.argmax(axis=1)]
    rank = (z > picked[:, None]).sum(axis=1)
    # Of equal logits the first is ahead; a row without a probable class has no label.
    rank[3], rank[5] = k, 1
    assert np.array_equal(details.rank, rank)
    np.testing.assert_allclose(details.logsumexp, np.logaddexp.reduce(z, axis=1), rtol=1e-14)


def test_no_vocabulary_is_refused_and_no_token_has_perplexity_one():
    none = np.zeros((1, 2, 0))
    for loss in (fl.sequence_cross_entropy, partial(fl.sequence_cross_entropy, ignore_index=None)):
        with pytest.raises(ValueError, match=r"labels\[0, 1\] is 3; allowed: none"):
            loss(none, np.array([[-100, 3]]), lengths=None, mask=np.array([[0, 1]]))
    with pytest.raises(ValueError, match=r"perplexity: labels\[1\] is 0; allowed: none, or -100 \(ignore_index\)"):
        fl.perplexity(none[0], np.array([-100, 0]))
    assert fl.sequence_cross_entropy(none, np.array([[-100, -100]])) == 0.0
    for logits, labels in (
        (np.zeros((0, 3)), np.zeros(0, int)),
        (np.zeros((2, 3)), np.full(2, -100)),
        (none[0], [-100, -100]),
    ):
        value, grad = fl.perplexity.value_and_grad(logits, labels)
        assert value == fl.perplexity(logits, labels, reduction="none") == 1.0
        assert grad.shape == logits.shape
        assert not grad.any()
        assert fl.bits_per_byte(logits, labels, 5) == 0.0


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_no_frames_align_with_no_symbols_alone(zero_infinity):
    frames, targets = np.zeros((0, 3, 4)), np.array([[1, 2], [3, 3], [1, 1]])
    lengths = np.array([2, 0, 1])
    worst = 0.0 if zero_infinity else math.inf
    values, grad = fl.ctc.value_and_grad(
        frames, targets, target_lengths=lengths, zero_infinity=zero_infinity, reduction="none"
    )
    assert values.tolist() == [worst, 0.0, worst]
    assert grad.shape == (0, 3, 4)
    given = fl.ctc(
        np.zeros((2, 3, 4)), targets, np.zeros(3, int), lengths, zero_infinity=zero_infinity, reduction="none"
    )
    assert values.tolist() == given.tolist()
    with pytest.raises(ValueError, match="ctc: blank is 0; allowed: none"):
        fl.ctc(np.zeros((2, 3, 0)), targets)
