"""Plans of small calls of losses over several arrays give the bits and the errors of the general path."""

import numpy as np
import pytest
from array_cases import CASES, inputs

import fastloss as fl
from fastloss.losses.arrays import ArrayLoss

each_case = pytest.mark.parametrize(("name", "variant"), CASES)

KINDS = {"float", "double", "labels", "lengths", "binary", "regions"}
"""Kinds of inputs that plans can serve."""


@pytest.fixture
def planned(monkeypatch):
    """List of the results of planned calls, with None for each call that the general path served."""
    served = []
    run = ArrayLoss._run_planned

    def spy(*arguments):
        served.append(run(*arguments))
        return served[-1]

    monkeypatch.setattr(ArrayLoss, "_run_planned", spy)
    return served


def bits(result):
    """Return the shape, dtype and bytes of each array and scalar of a result."""
    if isinstance(result, tuple):
        return [x for r in result for x in bits(r)]
    a = np.asarray(result)
    return [(a.shape, a.dtype, a.tobytes())]


def forget(loss):
    """Drop the plans of a loss, so that the general path serves its next call."""
    loss._plans.clear()
    loss._recent.clear()


@each_case
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_plan_gives_the_bits_of_the_general_path(name, variant, dtype, planned):
    """The second call has other values in arrays of equal shapes, so that values kept from the first would show."""
    loss = fl.LOSSES[name].bind(**variant)
    first, second = (inputs(name, dtype, seed) for seed in (7, 8))
    for reduction in ("mean", "sum", "none"):
        for call in (loss, loss.value_and_grad):
            forget(loss)
            expected = bits(call(**second, reduction=reduction))
            forget(loss)
            call(**first, reduction=reduction)
            for _ in range(2):
                assert bits(call(**second, reduction=reduction)) == expected
    kinds = {loss.record.inputs[k].kind for k in first}
    alike = all(first[k].shape == a.shape and a.ndim for k, a in second.items())
    if dtype is not np.float16 and kinds <= KINDS and alike:
        assert planned[-1] is not None
    forget(loss)


LOGITS = np.zeros((3, 4), "f")
WRONG = [
    ("sequence_cross_entropy", (np.zeros((1, 2, 4), "f"), np.array([[1, 2]]), np.array([2])), 1, 9),
    ("sequence_cross_entropy", (np.zeros((1, 2, 4), "f"), np.array([[1, 2]]), np.array([2])), 2, 3),
    ("linear_cross_entropy", (LOGITS, np.ones((5, 4), "f"), np.array([0, 1, 4])), 2, 5),
    ("cox", (LOGITS[0], np.ones(4, "f"), np.array([1.0, 0.0, 1.0, 1.0], "f")), 2, 2),
    ("wasserstein_1d", (np.ones((2, 3), "f"), np.ones((2, 3), "f")), 1, -1),
    ("dice", (np.full((1, 1, 2), 0.5, "f"), np.zeros((1, 1, 2), "f")), 0, 2),
]


@pytest.mark.parametrize(("name", "arrays", "which", "value"), WRONG, ids=[f"{w[0]}-{w[2]}" for w in WRONG])
def test_a_plan_leaves_errors_to_the_general_path(name, arrays, which, value, planned):
    """Messages do not depend on whether a valid call came before."""
    loss = fl.LOSSES[name]
    bad = [a.copy() for a in arrays]
    bad[which].reshape(-1)[0] = value
    forget(loss)
    with pytest.raises(ValueError) as general:  # noqa: PT011 - compared with the one below
        loss.value_and_grad(*bad)
    loss.value_and_grad(*arrays)
    loss.value_and_grad(*arrays)
    assert planned[-1] is not None
    with pytest.raises(ValueError) as after:  # noqa: PT011
        loss.value_and_grad(*bad)
    assert str(after.value) == str(general.value)


def test_a_plan_takes_no_other_arrays(planned):
    """The general path serves arrays whose dtype, strides, byte order or class differ from the plan's."""
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("f")
    plain = fl.cosine_distance(x, x[::-1].copy())
    fl.cosine_distance(x, x[::-1].copy())
    assert planned[-1] is not None
    for a in (x[::-1], np.asfortranarray(x[::-1]), x[::-1].astype(">f4"), x[::-1].copy().view(np.memmap)):
        assert fl.cosine_distance(x, a) == pytest.approx(plain, rel=1e-6)
        assert planned[-1] is None


def test_a_plan_ends_where_another_backend_is_asked_for(planned):
    x = np.ones((3, 8), "f")
    fl.cosine_distance(x, x)
    with fl.backend("cuda"), pytest.raises(fl.BackendError):
        fl.cosine_distance(x, x)
    assert planned[-1] is None


def test_arrays_in_order_are_served_as_arrays_by_name(planned):
    loss, given = fl.triplet, inputs("triplet", np.float32)
    forget(loss)
    expected = bits(loss.value_and_grad(**given))
    for call in (
        lambda: loss.value_and_grad(*given.values()),
        lambda: loss.value_and_grad(**dict(reversed(given.items()))),
        lambda: loss.value_and_grad(next(iter(given.values())), **dict(list(given.items())[1:])),
    ):
        forget(loss)
        for _ in range(3):
            assert bits(call()) == expected
        assert planned[-1] is not None


def test_plans_of_several_dtypes_are_kept(planned):
    """Calls that take turns do not drop the plans of each other."""
    loss = fl.cosine_distance
    forget(loss)
    calls = [(x, x[::-1].copy()) for x in (np.eye(4, dtype="f"), np.eye(4), np.eye(5))]
    expected = [bits(loss.value_and_grad(*call)) for call in calls]
    del planned[:]
    for _ in range(2):
        assert [bits(loss.value_and_grad(*call)) for call in calls] == expected
    assert all(planned)


def test_a_plan_leaves_long_doubles_to_the_general_path(planned):
    """Rounding them can overflow, of which the general path lets no warning through."""
    boxes = np.array([[0.0, 0.0, 1.0, 1.0]])
    target = np.full((1, 4), np.longdouble("1e400")) if np.finfo(np.longdouble).maxexp > 2000 else boxes.astype("g")
    fl.giou(boxes, target)
    fl.giou(boxes, target)
    assert planned[-1] is None
