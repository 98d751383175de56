"""L-BFGS against torch.optim.LBFGS and SciPy's optima."""

import pickle
import re

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch")


def rosenbrock(w):
    a, b = w[:-1], w[1:]
    value = (100 * (b - a * a) ** 2 + (1 - a) ** 2).sum()
    grad = np.zeros_like(w)
    grad[:-1] += -400 * a * (b - a * a) - 2 * (1 - a)
    grad[1:] += 200 * (b - a * a)
    return float(value), grad


RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((200, 6)), RNG.integers(0, 2, 200).astype(float)


def logistic(w):
    value, grad = fl.bce_with_logits.value_and_grad(X @ w, Y)
    return value + 0.05 * w @ w, X.T @ grad + 0.1 * w


def quadratic(w):
    scale = np.arange(1.0, len(w) + 1)
    return float(0.5 * (scale * w * w).sum() - w.sum()), scale * w - 1.0


PROBLEMS = {"rosenbrock": (rosenbrock, 6), "logistic": (logistic, 6), "quadratic": (quadratic, 9)}


def both(function, n, calls, **options):
    """Parameters, losses and evaluations of both libraries after so many calls of step."""
    start = np.random.default_rng(1).standard_normal(n)
    w, tensor = start.copy(), torch.nn.Parameter(torch.from_numpy(start.copy()))
    ours, theirs = fl.optim.LBFGS([w], **options), torch.optim.LBFGS([tensor], **options)

    def closure():
        value, grad = function(w)
        return value, [grad]

    def torch_closure():
        value, grad = function(tensor.detach().numpy())
        tensor.grad = torch.from_numpy(grad)
        return torch.tensor(value, dtype=torch.float64)

    losses = [(ours.step(closure), float(theirs.step(torch_closure))) for _ in range(calls)]
    return w, tensor.detach().numpy(), losses, ours, theirs


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.1, "max_iter": 6},
        {"line_search_fn": "strong_wolfe", "max_iter": 6},
        {"line_search_fn": "strong_wolfe", "history_size": 2, "max_iter": 8, "max_eval": 9},
        {"line_search_fn": "strong_wolfe", "lr": 0.01, "max_iter": 5},
        {"line_search_fn": "strong_wolfe", "lr": 30.0, "max_iter": 5},
    ],
)
def test_the_first_iterations_are_those_of_torch(name, options):
    w, expected, losses, ours, theirs = both(*PROBLEMS[name], calls=2, **options)
    # Both round differently, and iterations amplify it.
    np.testing.assert_allclose(w, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    for a, b in losses:
        assert a == pytest.approx(b, rel=1e-9)
    found, kept = ours.state_dict()["state"][0], theirs.state_dict()["state"][0]
    assert (found["n_iter"], found["func_evals"]) == (kept["n_iter"], kept["func_evals"])


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_optimum_is_that_of_scipy(name):
    optimize = pytest.importorskip("scipy.optimize")
    function, n = PROBLEMS[name]
    w, _, _, _, _ = both(function, n, calls=10, line_search_fn="strong_wolfe", tolerance_change=1e-14)
    best = optimize.minimize(function, w, jac=True, method="BFGS", options={"gtol": 1e-10})
    assert function(w)[0] <= best.fun + 1e-12 * max(1.0, abs(best.fun))
    assert np.abs(function(w)[1]).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_several_arrays_by_name(dtype):
    w, b = np.zeros((2, 3), dtype).T, np.zeros((), dtype)
    x, y = RNG.standard_normal((50, 3)).astype(dtype), RNG.standard_normal((50, 2)).astype(dtype)
    y += x @ np.ones((3, 2), dtype) + dtype(2.0)
    out = {"w": np.empty((3, 2), dtype), "b": np.empty((), dtype)}

    def closure():
        value, grad = fl.mse.value_and_grad(x @ w + b, y)
        out["w"][...], out["b"][...] = x.T @ grad, grad.sum()
        return value, out  # the same memory at each call

    opt = fl.optim.LBFGS({"w": w, "b": b}, line_search_fn="strong_wolfe", max_iter=60)
    opt.step(closure)
    value = closure()[0]
    a = np.zeros((100, 7))
    a[:50, :3] = a[50:, 3:6] = x
    a[:, 6] = 1.0
    exact = np.linalg.lstsq(a, y.T.reshape(-1).astype(float), rcond=None)[0]
    np.testing.assert_allclose(w, np.stack([exact[:3], exact[3:6]], 1), atol=2e-3 if dtype == np.float32 else 1e-4)
    assert value < 1.0 + opt.step(closure)


def test_saved_and_restored():
    options = {"line_search_fn": "strong_wolfe", "max_iter": 3}
    w, _, _, opt, _ = both(rosenbrock, 6, calls=1, **options)
    again = w.copy()
    other = fl.optim.LBFGS([again])
    other.load_state_dict(opt.state_dict())
    opt3, third = pickle.loads(pickle.dumps((opt, w)))
    for each, p in ((opt, w), (other, again), (opt3, third)):
        each.step(lambda p=p: (rosenbrock(p)[0], [rosenbrock(p)[1]]))
    np.testing.assert_array_equal(again, w)
    np.testing.assert_array_equal(third, w)
    fresh = fl.optim.LBFGS([np.zeros(5)])
    with pytest.raises(ValueError, match="LBFGS: state has 6 elements; expected 5"):
        fresh.load_state_dict(opt.state_dict())
    with pytest.raises(ValueError, match=r"LBFGS: state has no option '[a-z_]+'; expected the state of LBFGS"):
        other.load_state_dict(fl.optim.SGD([np.zeros(6)]).state_dict())


def test_the_rate_at_the_start_of_a_schedule_is_restored():
    opt, other = fl.optim.LBFGS([np.zeros(2)], lr=0.5), fl.optim.LBFGS([np.zeros(2)])
    fl.optim.ExponentialLR(opt, gamma=0.9).step()
    other.load_state_dict(opt.state_dict())
    assert other.param_groups[0]["initial_lr"] == 0.5
    assert other.param_groups[0]["lr"] == 0.45


def test_the_state_of_torch_is_taken():
    options = {"line_search_fn": "strong_wolfe", "max_iter": 3}
    w, _, _, opt, theirs = both(rosenbrock, 6, calls=1, **options)
    again = w.copy()
    other = fl.optim.LBFGS([again])
    other.load_state_dict(theirs.state_dict())
    for each, p in ((opt, w), (other, again)):
        each.step(lambda p=p: (rosenbrock(p)[0], [rosenbrock(p)[1]]))
    np.testing.assert_allclose(again, w, rtol=1e-9)


@pytest.mark.jit
def test_threads_change_no_bits():
    before, found = fl.get_num_threads(), set()
    start = np.random.default_rng(2).standard_normal(200_000)
    try:
        for threads in range(1, before + 1):
            fl.set_num_threads(threads)
            w = start.copy()
            opt = fl.optim.LBFGS([w], max_iter=4, line_search_fn="strong_wolfe")
            opt.step(lambda w=w: (quadratic(w)[0], [quadratic(w)[1]]))
            found.add(w.tobytes())
    finally:
        fl.set_num_threads(before)
    assert len(found) == 1


def test_parameters_are_restored_where_the_closure_fails():
    w, calls = np.ones(3), []

    def closure():
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("no")
        return quadratic(w)[0], [quadratic(w)[1]]

    with pytest.raises(RuntimeError, match="no"):
        fl.optim.LBFGS([w], line_search_fn="strong_wolfe").step(closure)
    np.testing.assert_array_equal(w, 1.0)


WRONG = [
    ({"max_iter": 0}, ValueError, "LBFGS: max_iter is 0; expected at least 1"),
    ({"history_size": 1.5}, TypeError, "LBFGS: history_size is 1.5; expected an integer"),
    ({"line_search_fn": "armijo"}, ValueError, "LBFGS: line_search_fn is 'armijo'; allowed: 'strong_wolfe'"),
    ({"lr": float("nan")}, ValueError, "LBFGS: lr is nan; allowed: [0, inf)"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_errors_of_options(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fl.optim.LBFGS([np.ones(3)], **options)


def test_errors_of_closures():
    opt = fl.optim.LBFGS([np.ones(3)])
    with pytest.raises(TypeError, match=r"LBFGS: closure returned 'float'; expected \(loss, gradients\)"):
        opt.step(lambda: 1.0)
    with pytest.raises(ValueError, match=r"LBFGS grads\[0\] has shape \(2,\); expected \(3,\)"):
        opt.step(lambda: (1.0, [np.ones(2)]))
    with pytest.raises(ValueError, match="LBFGS: the loss at the start is nan; expected a finite one"):
        opt.step(lambda: (float("nan"), [np.ones(3)]))
    with pytest.raises(ValueError, match="LBFGS: params have several groups or dtypes"):
        fl.optim.LBFGS([np.ones(3), np.ones(3, np.float32)])
