"""Every message: what is wrong, where, the value and what is allowed; and nothing is written."""

import math
import re

import numpy as np
import pytest

import fastloss as fl

P = np.array([0.5, 1.5, -2.0, 3.0], np.float32)
T = np.array([1.0, 0.0, 1.0, 0.0], np.float32)
Z = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])
Y = np.array([2, 0])

jit = pytest.mark.jit


def arrays_in(x):
    if isinstance(x, np.ndarray):
        return [x]
    return [a for item in x for a in arrays_in(item)] if isinstance(x, (tuple, list)) else []


def refuse(error, text, function, *args, spoils=(), **kwargs):
    """Assert the error, its whole text, and that no array given has changed; `spoils` may have been written."""
    held = [a for k, v in enumerate(args) for a in arrays_in(v)]
    held += [a for k, v in kwargs.items() if k not in spoils for a in arrays_in(v)]
    before = [np.asarray(a).tobytes() for a in held]
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert type(caught.value) is error or error is AttributeError
    assert str(caught.value) == text
    assert [np.asarray(a).tobytes() for a in held] == before


def everywhere(loss):
    """The three ways to call a loss."""
    return [loss, loss.value_and_grad, loss.grad_and_hess]


three_ways = pytest.mark.parametrize("way", range(3), ids=["value", "value_and_grad", "grad_and_hess"])

# Shapes --------------------------------------------------------------------------------------------------------------


@three_ways
@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (3,), (5,), (2, 2), (1,), (0,)], ids=str)
def test_target_shape(way, shape):
    text = f"target has shape {shape}; expected (4,), the shape of the prediction"
    refuse(ValueError, text, everywhere(fl.mse)[way], P, np.zeros(shape, np.float32))


def test_target_shape_of_a_column_prediction():
    text = "target has shape (4,); expected (4, 1), the shape of the prediction"
    refuse(ValueError, text, fl.huber, P[:, None], T)


@three_ways
@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 2), (2, 3), ()], ids=str)
def test_labels_shape(way, shape):
    text = f"cross_entropy: target has shape {shape}; expected (2,), one entry per row of the prediction"
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], Z, np.zeros(shape, np.int64))


def test_labels_shape_along_another_axis():
    text = "cross_entropy: target has shape (2,); expected (3,), one entry per row of the prediction"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, axis=0)


@three_ways
def test_number_of_classes(way):
    text = "target has shape (2, 4); expected (2, 3), the shape of the prediction"
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], Z, np.full((2, 4), 0.25))


def test_prediction_without_rows():
    text = "cross_entropy: the prediction is a scalar; expected rows of scores along axis -1"
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
@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "bool"])
def test_integer_predictions(way, dtype):
    text = f"prediction has dtype {dtype}; expected float64, float32, float16 or bfloat16"
    refuse(TypeError, text, everywhere(fl.mse)[way], np.ones(4, dtype), T)
    refuse(TypeError, text, everywhere(fl.cross_entropy)[way], np.ones((2, 3), dtype), Y)


def test_integer_prediction_among_several():
    text = "scale has dtype int64; expected float64, float32, float16 or bfloat16"
    refuse(TypeError, text, fl.laplace_nll.value_and_grad, (P, np.ones(4, np.int64)), T)


@pytest.mark.parametrize("bad", ["longdouble", "clongdouble"])
def test_wider_than_double(bad):
    dtype = np.dtype(bad)
    if dtype == np.float64 or dtype == np.complex128:
        pytest.skip("no wider type on this platform")
    expected = "real numbers" if bad.startswith("c") else "float64, float32, float16 or bfloat16"
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
    with pytest.raises(TypeError, match=r"^prediction is no array of numbers: .*inhomogeneous shape"):
        fl.mse([[1.0], [1.0, 2.0]], T)


def test_no_array_at_all():
    refuse(TypeError, "prediction has dtype object; expected real numbers", fl.mse, object(), T)
    refuse(TypeError, "prediction has dtype object; expected real numbers", fl.mse, None, T)


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
    advice = "is a tensor that requires grad; pass {}.detach()"
    refuse(TypeError, f"prediction {advice.format('prediction')}", fl.mse.value_and_grad, p, T)
    refuse(TypeError, f"target {advice.format('target')}", fl.mse, P, p)
    refuse(TypeError, f"out {advice.format('out')}", fl.mse.value_and_grad, P, T, out=p)
    assert p.detach().numpy().tobytes() == P.tobytes()


# Names and parameters ------------------------------------------------------------------------------------------------


def test_misspelt_loss():
    text = "no loss named 'hubr'; did you mean huber or pseudo_huber?"
    refuse(fl.check.LossNotFoundError, text, fl.LOSSES.__getitem__, "hubr")
    assert issubclass(fl.check.LossNotFoundError, KeyError)
    assert "hubr" not in fl.LOSSES
    text = "no loss named 'qqqqq'; see fastloss.LOSSES for all names"
    refuse(fl.check.LossNotFoundError, text, fl.LOSSES.__getitem__, "qqqqq")
    text = "module 'fastloss' has no attribute 'hubr'; did you mean huber or pseudo_huber?"
    refuse(AttributeError, text, getattr, fl, "hubr")
    text = "module 'fastloss' has no attribute 'set_num_thread'; did you mean set_num_threads or get_num_threads?"
    refuse(AttributeError, text, getattr, fl, "set_num_thread")
    refuse(AttributeError, "module 'fastloss' has no attribute 'qqqqq'", getattr, fl, "qqqqq")
    assert not hasattr(fl, "__wrapped__")


@pytest.mark.parametrize("call", ["__call__", "value_and_grad", "grad_and_hess", "bind"])
def test_misspelt_parameter(call):
    data = () if call == "bind" else (P, T)
    text = "huber has no parameter 'dleta'; did you mean delta?"
    refuse(TypeError, text, getattr(fl.huber, call), *data, dleta=2.0)
    data = () if call == "bind" else (Z, Y)
    text = "cross_entropy has no parameter 'label_smooting'; did you mean label_smoothing?"
    refuse(TypeError, text, getattr(fl.cross_entropy, call), *data, label_smooting=0.1)
    text = "cross_entropy has no parameter 'xyz'; known: label_smoothing, z_loss, temperature, logit_scale"
    refuse(TypeError, text, getattr(fl.cross_entropy, call), *data, xyz=0.1)


def test_parameter_of_a_loss_without_any():
    refuse(TypeError, "mse has no parameter 'delta'; known: none", fl.mse, P, T, delta=1.0)


@jit
def test_reduction_of_another_type():
    for call in (fl.mse, fl.mse.value_and_grad, fl.quantile.bind(q=(0.1, 0.5, 0.9)), fl.cross_entropy):
        data = (Z, np.zeros(2, np.int64)) if call in (fl.cross_entropy, fl.quantile.bind(q=(0.1, 0.5, 0.9))) else (P, T)
        for _ in range(2):
            refuse(ValueError, "reduction is ['mean']; allowed: 'mean', 'sum', 'none'", call, *data, reduction=["mean"])
            refuse(ValueError, "reduction is 'x'; allowed: 'mean', 'sum', 'none'", call, *data, reduction="x")
            given = np.array("mean")
            refuse(ValueError, f"reduction is {given!r}; allowed: 'mean', 'sum', 'none'", call, *data, reduction=given)


def test_class_weight_without_classes():
    text = "crps_ensemble has no classes, so no class_weight; weight is the factor of each row"
    refuse(TypeError, text, fl.crps_ensemble, Z, Z[:, 0], class_weight=np.ones(3))


@jit
def test_levels():
    loss = fl.quantile.bind(q=(0.1, 0.5, 0.9))
    refuse(TypeError, "quantile needs a target", loss, Z, None)
    text = "weight has shape (3, 2); expected (2, 3), or one that broadcasts to it"
    refuse(ValueError, text, loss.value_and_grad, Z, Y, weight=np.ones((3, 2)))
    assert loss(Z, 0.5) == loss(Z, np.full(2, 0.5))


OUT_OF_RANGE = [
    (fl.huber, {"delta": 0.0}, "huber: delta is 0.0; allowed: (0, inf)"),
    (fl.huber, {"delta": -2}, "huber: delta is -2; allowed: (0, inf)"),
    (fl.huber, {"delta": math.nan}, "huber: delta is nan; allowed: (0, inf)"),
    (fl.quantile, {"q": 1.5}, "quantile: q is 1.5; allowed: [0, 1]"),
    (fl.quantile, {"q": (0.5, -0.1)}, "quantile: q is -0.1; allowed: [0, 1]"),
    (fl.focal, {"alpha": 2.0}, "focal: alpha is 2.0; allowed: [0, 1]"),
    (fl.cross_entropy, {"label_smoothing": 1.5}, "cross_entropy: label_smoothing is 1.5; allowed: [0, 1]"),
    (fl.cross_entropy, {"temperature": 0.0}, "cross_entropy: temperature is 0.0; allowed: (0, inf)"),
    (fl.multi_margin, {"p": 3}, "multi_margin: p is 3; allowed: {1, 2}"),
    (fl.poisson, {"full": "yes"}, "poisson: full is 'yes'; allowed: True or False"),
    (fl.poisson, {"full": 2}, "poisson: full is 2; allowed: True or False"),
]


@pytest.mark.parametrize(("loss", "given", "text"), OUT_OF_RANGE, ids=[t.split(";")[0] for *_, t in OUT_OF_RANGE])
def test_parameter_out_of_range(loss, given, text):
    refuse(ValueError, text, loss.bind, **given)
    data = (Z, Y) if loss.record.family == "rows" else (P, T)
    refuse(ValueError, text, loss.value_and_grad, *data, **given)


def test_parameter_that_is_no_number():
    refuse(TypeError, "huber: delta is 'wide'; expected a number", fl.huber, P, T, delta="wide")
    refuse(TypeError, "huber: delta is None; expected a number", fl.huber, P, T, delta=None)
    refuse(TypeError, "focal: alpha is 'a'; expected a number or None", fl.focal, P, T, alpha="a")
    refuse(TypeError, "huber: delta is [1.0, 2.0]; expected a number", fl.huber, P, T, delta=[1.0, 2.0])
    huge = 10**400
    refuse(ValueError, f"huber: delta is {huge}; allowed: (0, inf)", fl.huber, P, T, delta=huge)


def test_reduction():
    for data, loss in (((P, T), fl.mse), ((Z, Y), fl.cross_entropy)):
        for call in (loss, loss.value_and_grad):
            text = "reduction is 'avg'; allowed: 'mean', 'sum', 'none'"
            refuse(ValueError, text, call, *data, reduction="avg")
            text = "reduction is 3; allowed: 'mean', 'sum', 'none'"
            refuse(ValueError, text, call, *data, reduction=3)


def test_curvature():
    for data, loss in (((P, T), fl.mse), ((Z, Y), fl.cross_entropy)):
        text = "curvature is 'gauss'; allowed: 'exact', 'surrogate'"
        refuse(ValueError, text, loss.grad_and_hess, *data, curvature="gauss")


@pytest.mark.parametrize("divisor", [0, 0.0, -2.0, math.inf, math.nan, "abc", [1.0, 2.0], 10**400], ids=repr)
def test_divisor(divisor):
    for data, loss in (((P, T), fl.mse), ((Z, Y), fl.cross_entropy)):
        text = f"divisor is {divisor!r}; expected a positive finite number"
        error = TypeError if isinstance(divisor, (str, list)) else ValueError
        refuse(error, text, loss, *data, divisor=divisor)
        refuse(error, text, loss.value_and_grad, *data, divisor=divisor, reduction="sum")


def test_divisor_with_nothing_to_divide():
    for data, loss in (((P, T), fl.mse), ((Z, Y), fl.cross_entropy)):
        text = "divisor is given with reduction='none'; it divides a reduced loss"
        refuse(ValueError, text, loss, *data, divisor=4.0, reduction="none")


def test_penalty_takes_no_target():
    refuse(TypeError, "l2 is a penalty on its argument alone and takes no target", fl.l2, P, T)


def test_missing_target():
    refuse(TypeError, "mse needs a target", fl.mse, P)
    refuse(TypeError, "mse needs a target", fl.mse.value_and_grad, P, None)
    refuse(TypeError, "cross_entropy needs a target", fl.cross_entropy, Z, None)


def test_number_of_predictions():
    text = "laplace_nll takes 2 predictions, (mean, scale), as a tuple or by name"
    refuse(TypeError, text, fl.laplace_nll, P, T)
    refuse(TypeError, text, fl.laplace_nll, (P, P, P), T)
    text = "laplace_nll takes its predictions ('mean', 'scale') as a tuple or by name"
    refuse(TypeError, text, fl.laplace_nll, (P, P), T, scale=P)
    text = "scale has shape (3,); expected (4,), the shape of the prediction"
    refuse(ValueError, text, fl.laplace_nll, (P, P[:3]), T)


# Labels --------------------------------------------------------------------------------------------------------------

SCORES = np.arange(24.0).reshape(2, 3, 4)


@jit
@three_ways
@pytest.mark.parametrize(("label", "dtype"), [(4, "int64"), (-1, "int64"), (127, "int8"), (255, "uint8"), (4, "int32")])
def test_label_out_of_range(way, label, dtype):
    labels = np.array([[0, 1, 2], [3, label, label]], dtype)
    out = np.full((2, 3, 4), 7.0)
    text = f"cross_entropy: target[1, 1] is {label}; allowed: 0 to 3, or -100 (ignore_index)"
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], SCORES, labels)
    if way == 1:
        refuse(ValueError, text, fl.cross_entropy.value_and_grad, SCORES, labels, out=out)


@jit
def test_label_at_the_smallest_integer():
    # What NaN becomes when it is cast.
    low = np.iinfo(np.int64).min
    labels = np.array([0, low])
    text = f"cross_entropy: target[1] is {low}; allowed: 0 to 2"
    refuse(ValueError, text, fl.cross_entropy, Z, labels, ignore_index=None)
    refuse(ValueError, f"{text}, or 0 (ignore_index)", fl.cross_entropy, Z, labels, ignore_index=0)
    refuse(ValueError, f"{text}, or -100 (ignore_index)", fl.cross_entropy, Z, labels)


@jit
def test_unsigned_label_beyond_int64():
    for value in (2**64 - 100, 2**64 - 5, 2**63):
        labels = np.array([1, value], np.uint64)
        text = f"cross_entropy: target[1] is {value}; allowed: 0 to 2, or -100 (ignore_index)"
        refuse(ValueError, text, fl.cross_entropy, Z, labels)


@jit
def test_label_to_ignore_without_ignoring():
    text = "cross_entropy: target[0] is -100; allowed: 0 to 2"
    refuse(ValueError, text, fl.cross_entropy, Z, np.array([-100, 1]), ignore_index=None)


@jit
def test_label_in_a_large_array():
    labels = np.zeros(70_000, np.int64)
    labels[[65_537, 69_000]] = 9, -3
    text = "cross_entropy: target[65537] is 9; allowed: 0 to 1, or -100 (ignore_index)"
    refuse(ValueError, text, fl.cross_entropy.value_and_grad, np.zeros((70_000, 2)), labels)


@jit
def test_label_of_no_class():
    text = "cross_entropy: target[0] is 0; allowed: none, or -100 (ignore_index)"
    refuse(ValueError, text, fl.cross_entropy, np.zeros((2, 0)), np.array([0, 0]))
    refuse(ValueError, text.split(",")[0], fl.cross_entropy, np.zeros((2, 0)), np.array([0, 0]), ignore_index=None)


def test_float_labels():
    text = "cross_entropy: labels have dtype float64; expected integers, or rows of 3 probabilities"
    refuse(TypeError, text, fl.cross_entropy, Z, Y.astype(np.float64))
    text = "multi_margin: the target has dtype float64; expected integer labels"
    refuse(TypeError, text, fl.multi_margin, Z, Y.astype(np.float64))


def test_labels_where_numbers_belong():
    text = "crps_ensemble: target has shape (3,); expected (2,), one entry per row of the prediction"
    refuse(ValueError, text, fl.crps_ensemble, Z, np.zeros(3))


@pytest.mark.parametrize("bad", [1.5, "pad", True, (1,)], ids=repr)
def test_ignore_index(bad):
    text = f"cross_entropy: ignore_index is {bad!r}; expected an integer or None"
    refuse(TypeError, text, fl.cross_entropy, Z, Y, ignore_index=bad)
    refuse(TypeError, text, fl.cross_entropy, Z, np.full((2, 3), 1 / 3), ignore_index=bad)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (1, 3), ()], ids=str)
def test_class_weight_shape(shape):
    text = f"class_weight has shape {shape}; expected (3,), one weight per class"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, class_weight=np.ones(shape))


def test_negative_class_weight():
    text = "cross_entropy: class_weight[2] is -0.5; allowed: [0, inf)"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, class_weight=np.array([1.0, 0.0, -0.5]))


# Domains -------------------------------------------------------------------------------------------------------------

HALF = np.full((3, 4), 0.5)


def with_value(x, where, value):
    x = x.copy()
    x[where] = value
    return x


@jit
def test_probability_outside_the_unit_interval():
    text = "bce: prediction[1, 2] is 3.2; allowed: [0, 1]; for raw scores use bce_with_logits"
    for dtype in (np.float32, np.float64):
        p = with_value(with_value(HALF, (1, 2), 3.2), (2, 0), -1.0).astype(dtype)
        for call in everywhere(fl.bce):
            refuse(ValueError, text, call, p, HALF)
        refuse(ValueError, text, fl.bce.value_and_grad, p, HALF.astype(dtype), out=np.empty_like(p), spoils=("out",))
        refuse(ValueError, text, fl.bce, np.asfortranarray(p), HALF)


@jit
def test_the_value_is_shown_to_its_last_digit():
    p = np.array([0.5, 1.0000001])
    text = "bce: prediction[1] is 1.0000001; allowed: [0, 1]; for raw scores use bce_with_logits"
    refuse(ValueError, text, fl.bce, p, np.array([0.0, 1.0]))
    text = "bce: target[0] is -1e-300; allowed: [0, 1]"
    refuse(ValueError, text, fl.bce, p[:1], np.array([-1e-300]))


@jit
def test_target_outside_its_interval():
    # As often as the call is made: the second one takes the short way.
    t = with_value(HALF, (0, 3), 1.5)
    for _ in range(3):
        refuse(ValueError, "bce_with_logits: target[0, 3] is 1.5; allowed: [0, 1]", fl.bce_with_logits, HALF, t)
        fl.bce_with_logits(HALF, HALF)
    refuse(ValueError, "bce_with_logits: target is 1.5; allowed: [0, 1]", fl.bce_with_logits, HALF, 1.5)


@jit
def test_margin_targets():
    hint = "; for labels 0 and 1 pass 2 * target - 1"
    z = np.zeros(4)
    text = f"hinge: target[1] is 0; allowed: {{-1, +1}}{hint}"
    refuse(ValueError, text, fl.hinge, z, np.array([1, 0, 1, 0]))
    refuse(ValueError, text, fl.hinge.value_and_grad, z, np.array([1.0, 0.0, 1.0, 0.0]))
    refuse(ValueError, "hinge: target[2] is 0.5; allowed: {-1, +1}", fl.hinge, z, np.array([1, -1, 0.5, 0]))


@jit
def test_counts_and_scales():
    text = "poisson: target[2] is -3; allowed: [0, inf)"
    refuse(ValueError, text, fl.poisson, np.zeros(4), np.array([0, 1, -3, -4]))
    for bad in (0.0, -1.0):
        scale = with_value(HALF, (2, 1), bad)
        text = f"laplace_nll: scale[2, 1] is {bad:g}; allowed: (0, inf)"
        refuse(ValueError, text, fl.laplace_nll.value_and_grad, (HALF, scale), HALF)


@jit
def test_a_value_that_leaves_its_domain_when_rounded():
    z = np.zeros(3, np.float32)
    text = "gamma: target[1] is 0 in float32; allowed: (0, inf)"
    refuse(ValueError, text, fl.gamma, z, np.array([1.0, 1e-60, 1.0]))
    assert fl.gamma(z.astype(np.float64), np.array([1.0, 1e-60, 1.0])) > 0


@jit
def test_probability_targets():
    t = np.array([[0.2, 0.3, 0.5], [1.1, -0.1, 0.0]])
    text = "cross_entropy: target[1, 1] is -0.1; allowed: [0, inf)"
    for call in everywhere(fl.cross_entropy):
        refuse(ValueError, text, call, Z, t)
    text = "cross_entropy: target[1, 1] is -0.1; allowed: [0, inf)"
    refuse(ValueError, text, fl.cross_entropy, Z, t.copy(), axis=0)


@jit
def test_violation_in_a_large_array():
    n = 3 << 20
    t = np.zeros(n, np.float32)
    t[[n - 70_000, n - 5]] = 2.0, -7.0
    p = np.zeros(n, np.float32)
    text = f"bce_with_logits: target[{n - 70_000}] is 2; allowed: [0, 1]"
    refuse(ValueError, text, fl.bce_with_logits.value_and_grad, p, t)


@jit
def test_nan_is_no_violation():
    for where in ("p", "t"):
        p, t = HALF.copy(), HALF.copy()
        (p if where == "p" else t)[1, 1] = math.nan
        value, grad = fl.bce.value_and_grad(p, t)
        assert math.isnan(value)
        assert np.isnan(grad[1, 1])
        assert np.isfinite(np.delete(grad.ravel(), 5)).all()
    assert math.isnan(fl.cross_entropy(with_value(Z, (0, 1), math.nan), Y))
    assert math.isnan(fl.hinge(np.zeros(2), np.array([1.0, math.nan])))


# Weights -------------------------------------------------------------------------------------------------------------


@jit
@three_ways
def test_negative_weight(way):
    w = with_value(np.ones((3, 4)), (2, 1), -0.25)
    refuse(ValueError, "mse: weight[2, 1] is -0.25; allowed: [0, inf)", everywhere(fl.mse)[way], HALF, HALF, weight=w)
    text = "mse: weight[0, 3] is -2; allowed: [0, inf)"
    refuse(ValueError, text, everywhere(fl.mse)[way], HALF, HALF, weight=np.array([1.0, 1.0, 1.0, -2.0]))
    text = "cross_entropy: weight[1] is -1; allowed: [0, inf)"
    refuse(ValueError, text, everywhere(fl.cross_entropy)[way], Z, Y, weight=np.array([1.0, -1.0]))


@jit
def test_weight_of_nan_comes_through():
    w = np.array([1.0, math.nan])
    assert math.isnan(fl.mse(np.ones(2), np.zeros(2), weight=w))
    assert math.isnan(fl.cross_entropy(Z, Y, weight=w))


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 3, 4), (0,)], ids=str)
def test_weight_shape(shape):
    text = f"weight has shape {shape}; expected (3, 4), or one that broadcasts to it"
    refuse(ValueError, text, fl.mse, HALF, HALF, weight=np.ones(shape))


def test_weight_shape_of_rows():
    text = "weight has shape (3,); expected (2,), or one that broadcasts to it"
    refuse(ValueError, text, fl.cross_entropy, Z, Y, weight=np.ones(3))


# Outputs -------------------------------------------------------------------------------------------------------------


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


# The objects themselves ----------------------------------------------------------------------------------------------


def test_losses_are_immutable():
    text = "huber is immutable; bind(...) gives a loss with other defaults"
    refuse(AttributeError, text, setattr, fl.huber, "defaults", {})
    with pytest.raises(TypeError, match="does not support item assignment"):
        fl.huber.defaults["delta"] = 3.0
    with pytest.raises(TypeError, match="does not support item assignment"):
        fl.LOSSES["mine"] = fl.huber


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, True, 10**6], ids=repr)
def test_number_of_threads(n):
    import numba

    limit = numba.config.NUMBA_NUM_THREADS
    text = f"the number of threads is {n!r}; expected a whole number from 1 to {limit}"
    before = fl.get_num_threads()
    refuse(ValueError, text, fl.set_num_threads, n)
    assert fl.get_num_threads() == before


@jit
def test_a_negative_variance_is_refused_unless_it_is_a_logarithm():
    mean, var = np.zeros(3), np.array([1.0, -2.0, 1.0])
    with pytest.raises(ValueError, match=re.escape("gaussian_nll: var[1] is -2; allowed: [0, inf)")):
        fl.gaussian_nll((mean, var), mean)
    logged = fl.gaussian_nll.bind(log_var=True)
    assert np.isfinite(logged((mean, var), mean))
    with pytest.raises(ValueError, match=re.escape("var[1] is -2")):
        logged((mean, var), mean, log_var=False)


@jit
def test_log_loss_names_the_loss_for_raw_scores():
    with pytest.raises(ValueError, match="for raw scores use bce_with_logits"):
        fl.log_loss(np.array([3.2]), np.array([1.0]))
