"""Messages about shapes, dtypes, devices and names of arguments: the whole text, and nothing is written."""

import numpy as np
import pytest
from refusals import P, T, Y, Z, everywhere, refuse, three_ways

import fastloss as fl

# Shapes --------------------------------------------------------------------------------------------------------------


@three_ways
@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (3,), (5,), (2, 2), (1,), (0,)], ids=str)
def test_target_shape(way, shape):
    text = f"target has shape {shape}; expected (4,), the shape of the prediction"
    text += "; pass target[..., 0]" if shape == (4, 1) else ""
    refuse(ValueError, text, everywhere(fl.mse)[way], P, np.zeros(shape, np.float32))


def test_target_shape_of_a_column_prediction():
    text = "target has shape (4,); expected (4, 1), the shape of the prediction"
    text += "; for a column of predictions pass prediction[..., 0]"
    refuse(ValueError, text, fl.huber, P[:, None], T)


@three_ways
@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 2), (2, 3), ()], ids=str)
def test_labels_shape(way, shape):
    text = f"cross_entropy: target has shape {shape}; expected (2,), one entry per row of the prediction"
    one_hot = "; for one-hot rows pass target.argmax(-1), or target.astype(float) as probabilities"
    another = "; for classes along another axis pass axis=0"
    text += {(3,): another, (2, 1): "; pass target[..., 0]", (2, 3): one_hot}.get(shape, "")
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], Z, np.zeros(shape, np.int64))


def test_labels_shape_along_another_axis():
    text = "cross_entropy: target has shape (2,); expected (3,), one entry per row of the prediction"
    text += "; for classes along another axis pass axis=1"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, axis=0)


@three_ways
def test_number_of_classes(way):
    text = "target has shape (2, 4); expected (2, 3), the shape of the prediction"
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], Z, np.full((2, 4), 0.25))


def test_prediction_without_rows():
    text = "cross_entropy: prediction is a scalar; expected rows of scores along axis -1"
    refuse(ValueError, text, fl.cross_entropy, np.float64(3.0), 0)


@pytest.mark.parametrize("axis", [2, -3, 7])
def test_axis(axis):
    text = f"cross_entropy: axis is {axis}; the prediction has 2 dimensions"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, axis=axis)


@pytest.mark.parametrize("axis", [None, 1.0, "rows"])
def test_axis_type(axis):
    refuse(TypeError, f"cross_entropy: axis is {axis!r}; expected an integer", fl.cross_entropy, Z, Y, axis=axis)


# Kinds of arrays -----------------------------------------------------------------------------------------------------


@three_ways
def test_bool_predictions(way):
    text = "prediction has dtype bool; expected float64, float32, float16, bfloat16 or integers"
    text += "; to take True as 1 pass prediction.astype(float)"
    refuse(TypeError, text, everywhere(fl.mse)[way], np.ones(4, bool), T)
    refuse(TypeError, text, everywhere(fl.cross_entropy)[way], np.ones((2, 3), bool), Y)


@pytest.mark.parametrize("bad", ["longdouble", "clongdouble"])
def test_wider_than_double(bad):
    dtype = np.dtype(bad)
    if dtype == np.float64 or dtype == np.complex128:
        pytest.skip("no wider type on this platform")
    expected = "real numbers" if bad.startswith("c") else "float64, float32, float16, bfloat16 or integers"
    refuse(TypeError, f"prediction has dtype {dtype}; expected {expected}", fl.mse, P.astype(dtype), T)


ODD = [
    (np.array([1, 2, 3, 4], object), "object"),
    (np.array([1j, 2, 3, 4]), "complex128"),
    (np.array([1j, 2, 3, 4], np.complex64), "complex64"),
    (np.array(["a", "b", "c", "d"]), "<U1"),
    (np.array([b"a", b"b", b"c", b"d"]), "|S1"),
    (np.array([1, 2, 3, 4], "datetime64[s]"), "datetime64[s]"),
    (np.array([1, 2, 3, 4], "timedelta64[s]"), "timedelta64[s]"),
    (np.zeros(4, [("a", np.float32)]), "[('a', '<f4')]"),
]


@pytest.mark.parametrize(("bad", "dtype"), ODD, ids=[d for _, d in ODD])
def test_dtypes_that_are_no_numbers(bad, dtype):
    for loss in (fl.mse.value_and_grad, fl.mse):
        refuse(TypeError, f"prediction has dtype {dtype}; expected real numbers", loss, bad, T)
        refuse(TypeError, f"target has dtype {dtype}; expected real numbers", loss, P, bad)
        refuse(TypeError, f"weight has dtype {dtype}; expected real numbers", loss, P, T, weight=bad)
    refuse(TypeError, f"target has dtype {dtype}; expected real numbers", fl.cross_entropy, Z, bad[:2])
    text = f"class_weight has dtype {dtype}; expected real numbers"
    refuse(TypeError, text, fl.cross_entropy, Z, Y, class_weight=bad[:3])


def test_masked_arrays():
    advice = "is a masked array; pass .filled(...) values, or the mask as weight"
    masked = np.ma.array(P, mask=[0, 1, 0, 0])
    refuse(TypeError, f"prediction {advice}", fl.mse, masked, T)
    refuse(TypeError, f"target {advice}", fl.mse.value_and_grad, P, masked)
    refuse(TypeError, f"weight {advice}", fl.mse.grad_and_hess, P, T, weight=masked)
    refuse(TypeError, f"target {advice}", fl.cross_entropy, Z, np.ma.array(Y))
    text = "out is a masked array; expected a plain NumPy array"
    refuse(TypeError, text, fl.mse.value_and_grad, P, T, out=np.ma.array(np.zeros_like(P)))


def test_ragged_lists():
    with pytest.raises(TypeError, match=r"^mse: prediction is no array of numbers: .*inhomogeneous shape"):
        fl.mse([[1.0], [1.0, 2.0]], T)


def test_no_array_at_all():
    refuse(TypeError, "prediction has dtype object; expected real numbers", fl.mse, object(), T)
    refuse(TypeError, "mse needs prediction; it takes (prediction, target)", fl.mse, None, T)


class OnGPU:
    shape = (4,)
    dtype = np.dtype(np.float32)
    __cuda_array_interface__ = {"shape": (4,), "typestr": "<f4", "data": (0, False), "version": 3}  # noqa: RUF012

    def __array__(self, *args, **kwargs):
        raise AssertionError("copied to the host without being asked")


def test_arrays_on_a_gpu():
    advice = "lies on a GPU; expected an array in host memory"
    refuse(TypeError, f"prediction {advice}", fl.mse, OnGPU(), T)
    refuse(TypeError, f"target {advice}", fl.mse, P, OnGPU())
    refuse(TypeError, f"weight {advice}", fl.mse, P, T, weight=OnGPU())
    refuse(TypeError, f"out {advice}", fl.mse.value_and_grad, P, T, out=OnGPU())


def test_tensors_requiring_grad():
    torch = pytest.importorskip("torch")
    p = torch.from_numpy(P.copy()).requires_grad_()
    advice = "is a tensor that requires grad; pass {}.detach(), or take the loss from fl.torch"
    refuse(TypeError, f"prediction {advice.format('prediction')}", fl.mse.value_and_grad, p, T)
    refuse(TypeError, f"target {advice.format('target')}", fl.mse, P, p)
    refuse(TypeError, f"out {advice.format('out')}", fl.mse.value_and_grad, P, T, out=p)
    assert p.detach().numpy().tobytes() == P.tobytes()
