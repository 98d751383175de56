"""Messages about outputs: the whole text, and nothing is written."""

import numpy as np
import pytest
from refusals import P, T, Y, Z, jit, refuse

import fastloss as fl


def outputs():
    """Outputs that do not fit P, and why."""
    readonly = np.zeros(4, np.float32)
    readonly.flags.writeable = False
    swapped = np.zeros(4, np.dtype(np.float32).newbyteorder())
    return {
        "shape": (np.zeros(5, np.float32), ValueError, "has shape (5,); expected (4,)"),
        "column": (np.zeros((4, 1), np.float32), ValueError, "has shape (4, 1); expected (4,)"),
        "dtype": (np.zeros(4), TypeError, "has dtype float64; expected float32"),
        "byte order": (swapped, TypeError, f"has dtype {swapped.dtype}; expected float32"),
        "read-only": (readonly, ValueError, "is read-only; expected a writable array"),
        "list": ([0.0] * 4, TypeError, "is a list; expected a NumPy array"),
        "number": (3.0, TypeError, "is a float; expected a NumPy array"),
        "object": (np.zeros(4, object), TypeError, "has dtype object; expected float32"),
    }


each_output = pytest.mark.parametrize("kind", outputs())


@each_output
def test_output(kind):
    out, error, text = outputs()[kind]
    refuse(error, f"out {text}", fl.mse.value_and_grad, P, T, out=out)
    good = np.zeros(4, np.float32)
    refuse(error, f"out[1] {text}", fl.mse.grad_and_hess, P, T, out=(good, out))
    refuse(error, f"out[0] {text}", fl.mse.grad_and_hess, P, T, out=(out, good))
    refuse(error, f"out[1] {text}", fl.laplace_nll.value_and_grad, (P, T + 1), T, out=(good, out))
    pairs = ((good, good.copy()), (good.copy(), out))
    refuse(error, f"out[1][1] {text}", fl.laplace_nll.grad_and_hess, (P, T + 1), T, out=pairs)


@jit
@each_output
def test_output_after_a_good_call(kind):
    # The second call takes the short way.
    fl.mse.value_and_grad(P, T)
    out, error, text = outputs()[kind]
    refuse(error, f"out {text}", fl.mse.value_and_grad, P, T, out=out)


def test_output_of_rows():
    text = "out has shape (2, 4); expected (2, 3)"
    refuse(ValueError, text, fl.cross_entropy.value_and_grad, Z, Y, out=np.zeros((2, 4)))
    text = "out has dtype float32; expected float64"
    refuse(TypeError, text, fl.cross_entropy.value_and_grad, Z, Y, out=np.zeros((2, 3), np.float32))


OVERLAPS = "overlaps an input; inputs are never written, pass another array"


def overlapping():
    """(prediction, target, out) that share memory."""
    base = np.arange(1, 41, dtype=np.float32)
    double = np.arange(1, 21, dtype=np.float64)
    p, t = base[:10], base[20:30]
    return {
        "same prediction": (p, t, p),
        "same target": (p, t, t),
        "other view": (p, t, base[0:10]),
        "partial": (p, t, base[5:15]),
        "reversed": (p, t, p[::-1]),
        "strided prediction": (base[0:20:2], base[20:30], base[0:20:2]),
        "strided, partial": (base[0:20:2], base[20:30], base[4:14]),
        "reversed prediction": (base[9::-1], t, base[:10]),
        "converted target": (base[:10], double[:10], double.view(np.float32)[:10]),
        "strided target": (base[:10], base[20:40:2], base[20:40:2]),
    }


@jit
@pytest.mark.parametrize("kind", overlapping())
@pytest.mark.parametrize("before", [False, True], ids=["first call", "later call"])
def test_output_overlapping_an_input(kind, before):
    p, t, out = overlapping()[kind]
    if before:
        fl.mse.value_and_grad(p, t)
    refuse(ValueError, f"out {OVERLAPS}", fl.mse.value_and_grad, p, t, out=out)
    refuse(ValueError, f"out[1] {OVERLAPS}", fl.mse.grad_and_hess, p, t, out=(np.empty_like(p), out))


def test_output_overlapping_a_weight():
    for w in (np.ones(4, np.float32), np.ones(8, np.float32)[::2]):
        refuse(ValueError, f"out {OVERLAPS}", fl.mse.value_and_grad, P, T, weight=w, out=w)
    w = np.ones(2)
    text = f"out {OVERLAPS}"
    refuse(ValueError, text, fl.mse.value_and_grad, np.zeros(2), np.zeros(2), weight=w, out=w)


def test_output_overlapping_rows():
    z = np.zeros((3, 3))
    for out in (z, z.T, z[::-1]):
        refuse(ValueError, f"out {OVERLAPS}", fl.cross_entropy.value_and_grad, z, np.zeros(3, int), out=out)
        refuse(ValueError, f"out {OVERLAPS}", fl.cross_entropy.value_and_grad, z.T, np.zeros(3, int), out=out)
    t = np.full((3, 3), 1 / 3)
    refuse(ValueError, f"out {OVERLAPS}", fl.cross_entropy.value_and_grad, z, t, out=t)
    labels = np.zeros(9, np.int64)
    out = labels.view(np.float64)[:9].reshape(3, 3)
    refuse(ValueError, f"out {OVERLAPS}", fl.cross_entropy.value_and_grad, z, labels[:3], out=out)
    w = np.ones(9)
    out = w.reshape(3, 3)
    refuse(ValueError, f"out {OVERLAPS}", fl.cross_entropy.value_and_grad, z, labels[:3], weight=w[:3], out=out)
    refuse(ValueError, f"out {OVERLAPS}", fl.cross_entropy.value_and_grad, z, labels[:3], class_weight=w[:3], out=out)


@jit
def test_output_interleaved_with_an_input_is_no_overlap():
    base = np.arange(20, dtype=np.float32)
    p, out = base[::2], base[1::2]
    value, grad = fl.mse.value_and_grad(p, np.zeros(10, np.float32), out=out)
    assert grad is out
    assert np.array_equal(p, np.arange(0, 20, 2))
    assert value == np.mean(np.arange(0, 20, 2.0) ** 2)
    assert np.array_equal(out, 2 * p * np.float32(0.1))


def test_outputs_overlapping_each_other():
    g = np.zeros(4, np.float32)
    text = "out[1] overlaps another output; pass two arrays"
    refuse(ValueError, text, fl.mse.grad_and_hess, P, T, out=(g, g))
    refuse(ValueError, text, fl.mse.grad_and_hess, P, T, out=(g, g[::-1]))
    refuse(ValueError, text, fl.cross_entropy.grad_and_hess, Z, Y, out=(Z.copy(),) * 2)
    text = "out[1] overlaps another output; pass two arrays"
    refuse(ValueError, text, fl.laplace_nll.value_and_grad, (P, T + 1), T, out=(g, g))


def test_number_of_outputs():
    g = np.zeros(4, np.float32)
    text = "out is one array; expected a pair (gradient, curvature)"
    refuse(TypeError, text, fl.mse.grad_and_hess, P, T, out=g)
    refuse(TypeError, text, fl.cross_entropy.grad_and_hess, Z, Y, out=Z.copy())
    text = "out has 1 entries; expected a pair (gradient, curvature)"
    refuse(TypeError, text, fl.mse.grad_and_hess, P, T, out=(g,))
    text = "out has 3 entries; expected a pair (gradient, curvature)"
    refuse(TypeError, text, fl.mse.grad_and_hess, P, T, out=(g, g, g))
    text = "out has 1 entries; expected 2 arrays, one per prediction"
    refuse(TypeError, text, fl.laplace_nll.value_and_grad, (P, T + 1), T, out=(g,))
    text = "out is one array; expected 2 arrays, one per prediction"
    refuse(TypeError, text, fl.laplace_nll.value_and_grad, (P, T + 1), T, out=g)
    text = "out[0] is one array; expected 2 arrays, one per prediction"
    refuse(TypeError, text, fl.laplace_nll.grad_and_hess, (P, T + 1), T, out=(g, g))


def test_half_tensors_cannot_be_outputs():
    torch = pytest.importorskip("torch")
    out = torch.zeros(4, dtype=torch.bfloat16)
    text = "out is a bfloat16 tensor, which NumPy cannot write; pass a float32 one"
    refuse(TypeError, text, fl.mse.value_and_grad, torch.from_numpy(P).bfloat16(), T, out=out)
