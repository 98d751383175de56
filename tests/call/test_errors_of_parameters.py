"""Messages about names, parameters and settings: the whole text, and nothing is written."""

import math

import numpy as np
import pytest
from refusals import P, T, Y, Z, jit, refuse

import fastloss as fl
from fastloss.call.errors import LossNotFoundError

# Names and parameters ------------------------------------------------------------------------------------------------


def test_misspelt_loss():
    text = "no loss named 'hubr'; did you mean huber or pseudo_huber?"
    refuse(LossNotFoundError, text, fl.LOSSES.__getitem__, "hubr")
    assert issubclass(LossNotFoundError, KeyError)
    assert "hubr" not in fl.LOSSES
    text = "no loss named 'qqqqq'; see fastloss.LOSSES for all names"
    refuse(LossNotFoundError, text, fl.LOSSES.__getitem__, "qqqqq")
    text = "module 'fastloss' has no attribute 'hubr'; did you mean huber or pseudo_huber?"
    refuse(AttributeError, text, getattr, fl, "hubr")
    text = "module 'fastloss' has no attribute 'set_num_thread'; did you mean set_num_threads or get_num_threads?"
    refuse(AttributeError, text, getattr, fl, "set_num_thread")
    refuse(AttributeError, "module 'fastloss' has no attribute 'qqqqq'", getattr, fl, "qqqqq")
    assert not hasattr(fl, "__wrapped__")


@pytest.mark.parametrize("call", ["__call__", "value_and_grad", "grad_and_hess", "bind"])
def test_misspelt_parameter(call):
    data = () if call == "bind" else (P, T)
    text = "huber: dleta is not a parameter; did you mean delta?"
    refuse(TypeError, text, getattr(fl.huber, call), *data, dleta=2.0)
    data = () if call == "bind" else (Z, Y)
    text = "cross_entropy: label_smooting is not a parameter; did you mean label_smoothing?"
    refuse(TypeError, text, getattr(fl.cross_entropy, call), *data, label_smooting=0.1)
    text = "cross_entropy: xyz is not a parameter; known: label_smoothing, z_loss, temperature, logit_scale, softcap"
    refuse(TypeError, text, getattr(fl.cross_entropy, call), *data, xyz=0.1)


def test_parameter_of_a_loss_without_any():
    refuse(TypeError, "mse: delta is not a parameter; known: none", fl.mse, P, T, delta=1.0)


@jit
def test_reduction_of_another_type():
    for call in (fl.mse, fl.mse.value_and_grad, fl.quantile.bind(q=(0.1, 0.5, 0.9)), fl.cross_entropy):
        data = (Z, np.zeros(2, np.int64)) if call in (fl.cross_entropy, fl.quantile.bind(q=(0.1, 0.5, 0.9))) else (P, T)
        for _ in range(2):
            refuse(
                ValueError,
                "reduction is ['mean']; allowed: 'mean', 'sum', 'none', 'batchmean'",
                call,
                *data,
                reduction=["mean"],
            )
            refuse(
                ValueError, "reduction is 'x'; allowed: 'mean', 'sum', 'none', 'batchmean'", call, *data, reduction="x"
            )
            given = np.array("mean")
            refuse(
                ValueError,
                f"reduction is {given!r}; allowed: 'mean', 'sum', 'none', 'batchmean'",
                call,
                *data,
                reduction=given,
            )


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
            text = "reduction is 'avg'; allowed: 'mean', 'sum', 'none', 'batchmean'"
            refuse(ValueError, text, call, *data, reduction="avg")
            text = "reduction is 3; allowed: 'mean', 'sum', 'none', 'batchmean'"
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
