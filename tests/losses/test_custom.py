"""Losses of a user's own: derivatives, spelling, errors, pickles, caches; all that a built-in loss has."""

import math
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import fastloss as fl
from fastloss.spec.special import log1mexp
from fastloss.spec.vocabulary import tanh

RANDOM = np.random.default_rng(0)
Z, T = RANDOM.standard_normal((2, 400))
LABELS = (T > 0).astype(float)


@fl.loss
def skewed(z, t, ratio=3):
    """Squared error, with a factor below the target."""
    r = z - t
    return np.where(r > 0, r * r, ratio * r * r)


def expected_skewed(ratio=3.0):
    r = Z - T
    factor = np.where(r > 0, 1.0, ratio)
    return factor * r * r, 2 * factor * r, 2 * factor


def test_value_gradient_and_curvature():
    value, slope, bend = expected_skewed()
    np.testing.assert_allclose(skewed(Z, T, reduction="none"), value)
    loss, grad = skewed.value_and_grad(Z, T)
    assert loss == pytest.approx(value.mean())
    np.testing.assert_allclose(grad, slope / Z.size)
    first, second = skewed.grad_and_hess(Z, T)
    np.testing.assert_allclose(first, slope)
    np.testing.assert_allclose(second, bend)


def test_parameters_weights_reductions_and_outputs():
    value, slope, _ = expected_skewed(5.0)
    weight = np.abs(T)
    loss, grad = skewed.value_and_grad(Z, T, ratio=5, weight=weight)
    assert loss == pytest.approx((weight * value).sum() / weight.sum())
    np.testing.assert_allclose(grad, weight * slope / weight.sum())
    out = np.empty_like(Z)
    loss, grad = skewed.bind(ratio=5.0).value_and_grad(Z, T, reduction="sum", out=out)
    assert grad is out
    np.testing.assert_allclose(out, slope)
    assert skewed(Z, T, divisor=10.0) == pytest.approx(expected_skewed()[0].sum() / 10)
    with pytest.raises(TypeError, match="ratoi"):
        skewed(Z, T, ratoi=1.0)


def test_float32_stays_float32_and_threads_give_equal_bits():
    z, t = np.tile(Z, 500).astype(np.float32), np.tile(T, 500).astype(np.float32)
    one = fl.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            fl.set_num_threads(n)
            results.append(skewed.value_and_grad(z, t))
    finally:
        fl.set_num_threads(one)
    assert results[0][0] == results[1][0]
    assert results[0][1].dtype == np.float32
    assert np.array_equal(results[0][1], results[1][1])


def test_it_stays_out_of_the_catalogue():
    names = list(fl.LOSSES)
    assert "skewed" not in names
    with pytest.raises(TypeError):
        fl.loss(lambda z, t: "no")
    assert list(fl.LOSSES) == names


def test_losses_of_one_name_stay_apart():
    def made(factor):
        @fl.loss
        def same(z, t):
            return factor * (z - t) ** 2

        return same

    two, three = made(2.0), made(3.0)
    assert two(Z, T) == pytest.approx(2 * ((Z - T) ** 2).mean())
    assert three(Z, T) == pytest.approx(3 * ((Z - T) ** 2).mean())
    assert two != three
    assert two == made(2.0)
    assert len({two, three, made(2.0)}) == 2


def test_it_is_immutable_and_describes_itself():
    with pytest.raises(AttributeError, match="immutable"):
        skewed.name = "other"
    assert repr(skewed) == "<loss skewed(z, t, ratio=3.0)>"
    assert repr(skewed.bind(ratio=2)) == "<loss skewed(z, t, ratio=2.0)>"
    assert skewed.name == skewed.__name__ == "skewed"
    assert "Squared error, with a factor below the target." in skewed.__doc__
    assert "def formula(z, t, ratio=3.0):" in skewed.__doc__
    assert "user's own" in type(skewed).__doc__


# Spelling ------------------------------------------------------------------------------------------------------------


def helper(u, power=2):
    return math.pow(abs(u), power)


def numpy_spelling(z, t, delta=1.0):
    a = np.abs(z - t)
    return np.log1p(np.exp(-a)) + np.clip(z, -1, 1) * np.sign(t) + np.maximum(a, delta) + math.exp(-a) + helper(a, 3)


def bare_words(z, t, delta=1.0):
    a = abs(z - t)
    return softplus(-a) + clip(z, -1, 1) * sign(t) + maximum(a, delta) + exp(-a) + a**3  # noqa: F821


def test_numpy_math_and_bare_words_mean_the_same():
    a = np.abs(Z - T)
    expected = np.log1p(np.exp(-a)) + np.clip(Z, -1, 1) * np.sign(T) + np.maximum(a, 1.0) + np.exp(-a) + a**3
    for function in (numpy_spelling, bare_words):
        np.testing.assert_allclose(fl.loss(function)(Z, T, reduction="none"), expected, rtol=1e-13)


def test_words_of_the_vocabulary_and_closures_come_along():
    scale = np.float32(2.0)
    own = [lambda u: tanh(u)]

    def inner(u):
        return scale * own[0](u) if scale > 1 else u

    @fl.loss
    def f(z, t):
        total = 0
        for k in range(3):
            total += inner(z - t) * k
        return total + log1mexp(1.0 + z * z)

    expected = 6.0 * np.tanh(Z - T) + np.log1p(-np.exp(-1.0 - Z * Z))
    np.testing.assert_allclose(f(Z, T, reduction="none"), expected, rtol=1e-12)


def test_scipy_special_functions():
    special = pytest.importorskip("scipy.special")

    @fl.loss
    def f(z, t):
        return special.expit(z) + special.log_ndtr(0.0) * t + special.xlogy(t * t, 1 + z * z) + special.erf(z)

    expected = special.expit(Z) + special.log_ndtr(0.0) * T + special.xlogy(T * T, 1 + Z * Z) + special.erf(Z)
    np.testing.assert_allclose(f(Z, T, reduction="none"), expected, rtol=1e-12)


def test_several_predictions_and_none_as_target():
    @fl.loss(prediction={"scale": (1e-6, math.inf)})
    def laplace(mean, scale, t):
        return np.abs(mean - t) / scale + np.log(2 * scale)

    scale = np.abs(T) + 0.5
    value, (by_mean, by_scale) = laplace.value_and_grad((Z, scale), T, reduction="sum")
    expected, (mean, spread) = fl.laplace_nll.value_and_grad((Z, scale), T, reduction="sum")
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(by_mean, mean)
    np.testing.assert_allclose(by_scale, spread)
    with pytest.raises(ValueError, match="laplace: scale"):
        laplace((Z, -scale), T)

    @fl.loss(target=None)
    def penalty(a, b):
        return a * a + abs(b)

    assert penalty((Z, T)) == pytest.approx((Z * Z + np.abs(T)).mean())

    @fl.loss
    def ridge(z, strength=0.5):
        return strength * z**2

    assert ridge(Z) == pytest.approx(0.5 * (Z * Z).mean())


def test_domains_are_checked():
    @fl.loss(prediction=(0, 1), target=(0, 1), parameters={"gamma": (0, math.inf)})
    def probabilistic(p, t, gamma=2.0):
        return np.where(t > 0.5, -((1 - p) ** gamma) * np.log(p), -(p**gamma) * np.log(1 - p))

    p = 1 / (1 + np.exp(-Z))
    q = np.where(LABELS > 0, p, 1 - p)
    np.testing.assert_allclose(probabilistic(p, LABELS, reduction="none"), -((1 - q) ** 2) * np.log(q), rtol=1e-10)
    with pytest.raises(ValueError, match=r"probabilistic: prediction\[0\] is .*; allowed: \[0, 1\]"):
        probabilistic(p + 1.0, LABELS)
    with pytest.raises(ValueError, match=r"probabilistic: target"):
        probabilistic(p, LABELS + 0.5)
    with pytest.raises(TypeError, match=r"the domain of the target is \{0, 1\}; expected bounds such as"):
        fl.loss(lambda z, t: z - t, target={0, 1})

    @fl.loss(target={-1, 1})
    def margin(z, t):
        return np.maximum(0, 1 - z * t)

    assert margin(Z, 2 * LABELS - 1) == pytest.approx(fl.hinge(Z, 2 * LABELS - 1))
    with pytest.raises(ValueError, match=r"margin: target"):
        margin(Z, LABELS)
    with pytest.raises(ValueError, match="probabilistic: gamma is -1"):
        probabilistic(p, LABELS, gamma=-1)


def test_a_flag_is_chosen_by_where():
    @fl.loss
    def either(z, t, squared=True):
        return np.where(squared, (z - t) ** 2, np.abs(z - t))

    assert either(Z, T) == pytest.approx(((Z - T) ** 2).mean())
    assert either(Z, T, squared=False) == pytest.approx(np.abs(Z - T).mean())


def test_no_curvature_has_a_surrogate():
    @fl.loss
    def absolute(z, t):
        return abs(z - t)

    first, second = absolute.grad_and_hess(Z, T, curvature="surrogate")
    np.testing.assert_array_equal(first, np.sign(Z - T))
    assert (second == 1.0).all()


def test_derivatives_by_hand_are_taken():
    @fl.loss
    def by_hand(z, t):
        r = z - t
        return 0.5 * r * r, r, 1.0, 2.0

    assert np.array_equal(by_hand.value_and_grad(Z, T, reduction="sum")[1], Z - T)
    assert (by_hand.grad_and_hess(Z, T, curvature="surrogate")[1] == 2.0).all()

    @fl.loss
    def half_by_hand(z, t):
        return (z - t) ** 4, 4 * (z - t) ** 3

    np.testing.assert_allclose(half_by_hand.grad_and_hess(Z, T)[1], 12 * (Z - T) ** 2, rtol=1e-13)


# Errors --------------------------------------------------------------------------------------------------------------


def with_if(z, t):
    r = z - t
    if r > 0:
        return r
    return -r


def with_choice(z, t):
    return z if 0 < z < 1 else max(t, 0)


def with_and(z, t):
    return np.where(z > 0 and not t > 0, z, t)


def with_sum(z, t):
    return np.sum(z - t)


def with_mean(z, t):
    return (z - t).mean()


def with_loop(z, t):
    return sum(x for x in z)


def with_sine(z, t):
    return np.sin(z - t)


def with_method(z, t):
    return (z - t).clip(0, 1)


def with_array(z, t):
    return z * np.ones(3) - t


def with_unknown(z, t):
    return unknown_function(z - t)  # noqa: F821


def with_float(z, t):
    return float(z) - t


def with_modulo(z, t):
    return z % 2 - t


def with_trigamma(z, t):
    return digamma(digamma(1 + z * z)) - t  # noqa: F821


def with_text(z, t):
    return "value"


def with_wrong_sign(z, t):
    return (z - t) ** 2, 2 * (t - z)


def with_wrong_curvature(z, t):
    return (z - t) ** 4, 4 * (z - t) ** 3, 4 * (z - t) ** 2


def with_too_many(z, t):
    return z, 1.0, 0.0, 1.0, 2.0


def without_value(z, t):
    return np.log(-1 - z * z) + t


def with_list(z, t, levels=(1, 2)):
    return z - t


def with_star(*z):
    return z


def without_prediction(delta=1.0):
    return delta


ERRORS = {
    with_if: 'line {} of test_custom.py, "if r > 0:", branches on data; write np.where(r > 0, ',
    with_choice: "branches on data; write np.where((0 < z) & (z < 1), z, np.maximum(t, 0))",
    with_and: "branches on data; write np.where((z > 0) & ~(t > 0), z, t)",
    with_sum: "calls np.sum, but a formula is that of one element",
    with_mean: "uses .mean(), but a formula is that of one element",
    with_loop: "loops over data",
    with_sine: "calls sin, which no formula has; did you mean sinh or sign?",
    with_method: "uses .clip(); write np.clip(...)",
    with_array: "an array of shape (3,)",
    with_unknown: "raises NameError: name 'unknown_function' is not defined",
    with_float: "makes a Python number of data",
    with_modulo: "uses % or //",
    with_trigamma: "trigamma has no derivative",
    with_text: "returns 'value'; expected numbers",
    with_wrong_sign: "that of the value is",
    with_wrong_curvature: "the second derivative by z is",
    with_too_many: "returns 5 results",
    without_value: "no finite value at any of 400 points of its domain",
    with_list: "the default of levels is (1, 2); expected a number",
    with_star: "takes *z; give each argument a name",
    without_prediction: "the formula has no prediction",
}


@pytest.mark.parametrize("function", ERRORS, ids=lambda f: f.__name__)
def test_errors_name_the_line_and_what_to_write(function):
    with pytest.raises(TypeError) as error:
        fl.loss(function)
    text = str(error.value)
    line = function.__code__.co_firstlineno + 2
    assert ERRORS[function].format(line) in text
    assert text.startswith(f"{function.__name__}: ")
    assert "\n" not in text


def test_errors_of_options():
    with pytest.raises(TypeError, match="f: no option 'convexx'; did you mean convex"):
        fl.loss(lambda z, t: z - t, name="f", convexx=True)
    with pytest.raises(TypeError, match=r"f: the domain of z is \(1, 0\); expected bounds such as \(0, 1\)"):
        fl.loss(lambda z, t: z - t, name="f", prediction=(1, 0))
    with pytest.raises(TypeError, match=r"f: describes \['delta'\]; its parameters are \[\]"):
        fl.loss(lambda z, t: z - t, name="f", parameters={"delta": "width"})
    with pytest.raises(TypeError, match="the name of a loss is a Python name"):
        fl.loss(lambda z, t: z - t, name="a b")
    with pytest.raises(TypeError, match="expected a function"):
        fl.loss(3)


WRONG_OPTIONS = [
    ({"name": 3}, "3: the name of a loss is a Python name"),
    ({"prediction": np.array([0, 1])}, "f: the domain of z is array"),
    ({"parameters": ["scale"]}, r"f: parameters is \['scale'\]; expected a dictionary"),
    ({"parameters": {"scale": (2, 3)}}, r"f: the default of scale is 1.0; allowed: \[2, 3\]"),
    ({"reduction": "meen"}, "f: reduction is 'meen'; allowed: 'mean', 'sum', 'none'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS, ids=str)
def test_wrong_options_are_named(options, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        fl.loss(**{"name": "f", **options})(lambda z, t, scale=1.0: scale * (z - t))


def test_parameters_have_no_names_of_options_of_a_call():
    """A call's weight would be taken for the weights of the elements."""
    message = "f: {} is an option of every call; give the parameter another name"
    for name, function in {
        "weight": lambda z, t, weight=1.0: weight * (z - t),
        "curvature": lambda z, t, curvature=1.0: curvature * (z - t),
        "backend": lambda z, t, backend=1.0: backend * (z - t),
    }.items():
        with pytest.raises(TypeError, match=message.format(name)):
            fl.loss(name="f")(function)
    with pytest.raises(TypeError, match=message.format("divisor")):
        fl.formula("(z - t) / divisor", name="f", divisor=2.0)
    with pytest.raises(TypeError, match=message.format("axis")):
        fl.row_loss(name="f")(lambda lp, t, axis=1.0: -axis * lp * t)
    with pytest.raises(TypeError, match=message.format("out")):
        fl.array_loss(inputs={"a": 1}, name="f")(lambda a, out=1.0: a * out)
    with pytest.raises(TypeError, match="array_loss: weight is an option of every call; give the input another name"):
        fl.array_loss(inputs={"a": 1, "weight": 1})


# Pickles, processes, caches ------------------------------------------------------------------------------------------


def test_pickles_keep_text_and_defaults():
    def local(z, t, power=2.0):
        return abs(z - t) ** power

    loss = fl.loss(local).bind(power=1.5)
    copy = pickle.loads(pickle.dumps(loss))
    assert copy == loss
    assert copy.defaults == {"power": 1.5}
    assert copy.record.function is loss.record.function
    assert copy.value_and_grad(Z, T)[0] == loss.value_and_grad(Z, T)[0]
    assert copy.origin == loss.origin


def value_in_process(loss):
    return loss(Z, T)


@pytest.mark.slow
@pytest.mark.jit
def test_process_pools_take_losses():
    loss = fl.loss(lambda z, t: np.log(np.cosh(z - t)), name="local")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(value_in_process, loss).result() == loss(Z, T)


@pytest.mark.slow
@pytest.mark.jit
def test_kernels_come_from_the_disk_in_the_next_process(tmp_path):
    program = (
        "import numpy as np, fastloss as fl\n"
        "from fastloss.cpu import dispatch\n"
        "loss = fl.formula('abs(z - t) ** power + 0.125 * z', power=1.5)\n"
        "print(loss(np.ones(3), np.zeros(3)))\n"
        "print([c[2].cached for k, c in dispatch._compiled.items() if loss.record.function in k])\n"
    )
    environment = {**os.environ, "FASTLOSS_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    found = [subprocess.run(command, capture_output=True, text=True, env=environment, check=True) for _ in range(2)]
    assert [x.stdout.split() for x in found] == [["1.125", "[False]"], ["1.125", "[True]"]]


def test_losses_of_a_file(tmp_path):
    (tmp_path / "shared.py").write_text("import math\ndef size(r):\n    return math.fabs(r)\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "import fastloss as fl\nimport shared\n\n@fl.loss\ndef first(z, t):\n    return shared.size(z - t)\n\n"
        "second = fl.formula('(z - t)**2')\n_hidden = second\n"
    )
    found = fl.losses_from(file)
    assert list(found) == ["first", "second"]
    assert found["first"](Z, T) == pytest.approx(np.abs(Z - T).mean())
    sys.modules.pop("shared", None)
    file.write_text("x = 1\n")
    with pytest.raises(TypeError, match="no loss in it"):
        fl.losses_from(file)
    with pytest.raises(OSError, match="absent"):
        fl.losses_from(tmp_path / "absent.py")


def test_parameters_may_have_the_names_of_functions():
    z, t = np.array([2.0, -1.0]), np.zeros(2)
    own = fl.formula("epsilon * (z - t)**2", epsilon=0.5)
    value, grad = own.value_and_grad(z, t, epsilon=2.0)
    assert value == 5.0
    assert grad.tolist() == [4.0, -2.0]
    assert own.bind(epsilon=3.0).defaults == {"epsilon": 3.0}
    twice = 2.0 * fl.wing
    assert twice(z, t, epsilon=1.0) == pytest.approx(2.0 * fl.wing(z, t, epsilon=1.0), rel=1e-12)
