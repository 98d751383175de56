"""Optimisers against torch.optim after given gradients, on any number of threads, saved and restored."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch")

STEPS = 1000


@pytest.fixture(autouse=True)
def _double_scalars():
    """Let torch keep NAdam's product of momenta in float64; with float32 it is 4e-11 of the parameter off."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CASES = {
    "SGD": [
        {"lr": 0.01},
        {"lr": 0.01, "momentum": 0.9},
        {"lr": 0.01, "momentum": 0.9, "dampening": 0.3},
        {"lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"lr": 0.01, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.01, "dampening": 0.5},
    ],
    "Adagrad": [
        {},
        {"lr": 0.1, "lr_decay": 0.01},
        {"weight_decay": 0.1, "initial_accumulator_value": 0.5},
        {"eps": 1e-3, "maximize": True},
    ],
    "RMSprop": [
        {},
        {"centered": True},
        {"momentum": 0.9},
        {"centered": True, "momentum": 0.5, "weight_decay": 0.1},
        {"lr": 0.02, "alpha": 0.7, "eps": 1e-3, "maximize": True},
    ],
    "Adadelta": [{}, {"lr": 0.5, "rho": 0.8}, {"eps": 1e-3, "weight_decay": 0.1}, {"maximize": True}],
    "Adam": [
        {},
        {"amsgrad": True},
        {"weight_decay": 0.1},
        {"lr": 0.02, "betas": (0.4, 0.9), "eps": 1e-3},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ],
    "AdamW": [
        {},
        {"amsgrad": True, "weight_decay": 0.2},
        {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-3, "maximize": True},
    ],
    "Adamax": [{}, {"betas": (0.8, 0.9), "weight_decay": 0.1}, {"lr": 0.02, "eps": 1e-3, "maximize": True}],
    "NAdam": [
        {},
        {"momentum_decay": 0.1, "weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-3, "maximize": True},
    ],
}
"""Options by the name of a class of torch.optim, each of them somewhere other than by default."""

EACH = [(name, options) for name, several in CASES.items() for options in several]


def ids(value):
    return "-".join(f"{k}={v}" for k, v in value.items()) or "defaults" if isinstance(value, dict) else value


def gradients(shape, dtype, seed=0, steps=STEPS):
    """Gradients of many magnitudes, some of them 0, that the parameters do not change."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        g = rng.standard_normal(shape) * np.exp(rng.normal(0.0, 2.0, shape))
        yield np.where(rng.random(shape) < 0.05, 0.0, g).astype(dtype)


def both(name, options, dtype, shape=(7, 19), steps=STEPS):
    """Parameters after the same gradients, of this library and of torch."""
    start = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    w, tensor = start.copy(), torch.nn.Parameter(torch.from_numpy(start.copy()))
    ours, theirs = getattr(fl.optim, name)([w], **options), getattr(torch.optim, name)([tensor], **options)
    for g in gradients(shape, dtype, steps=steps):
        ours.step([g])
        tensor.grad = torch.from_numpy(g)
        theirs.step()
    return w, tensor.detach().numpy(), ours, theirs


@pytest.mark.jit
@pytest.mark.parametrize(("name", "options"), EACH, ids=ids)
def test_a_thousand_gradients_give_what_torch_gives(name, options):
    w, exact, _, _ = both(name, options, np.float64)
    assert np.isfinite(w).all()
    assert np.abs(w - exact).max() <= 1e-14 * np.abs(exact).max()
    w, expected, _, _ = both(name, options, np.float32)
    largest = np.abs(expected).max()
    # Rounding errors of a thousand steps: ours are bounded by those of torch, both against float64.
    theirs = np.abs(expected - exact).max()
    assert np.abs(w - exact).max() <= 2.0 * theirs + 4.0 * np.finfo(np.float32).eps * largest


def test_every_option_is_tried():
    for name, several in CASES.items():
        tried = {option for options in several for option in options}
        assert set(inspect.signature(getattr(fl.optim, name)).parameters) - tried <= {"params"}, name


def lion(p, g, m, lr, beta1, beta2, decay):
    """Algorithm 2 of Chen et al. (2023), in NumPy, with the decay as a factor, as in the authors' code."""
    c = beta1 * m + (1 - beta1) * g
    return p * (1 - lr * decay) - lr * np.sign(c), beta2 * m + (1 - beta2) * g


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lion_follows_its_paper(decay):
    w = np.random.default_rng(0).standard_normal(50)
    p, m = w.astype(np.longdouble), np.zeros(50, np.longdouble)
    opt = fl.optim.Lion([w], lr=0.01, betas=(0.8, 0.95), weight_decay=decay)
    for g in gradients(50, np.float64):
        opt.step([g])
        p, m = lion(p, g, m, 0.01, 0.8, 0.95, decay)
    # Steps of equal size round alike: two roundings of half an ulp in each of them.
    np.testing.assert_allclose(w, p.astype(float), rtol=0, atol=STEPS * np.finfo(float).eps * np.abs(w).max())


@pytest.mark.jit
def test_torch_keeps_the_product_of_nadam_in_single_precision():
    torch.set_default_dtype(torch.float32)
    w, expected, _, _ = both("NAdam", {}, np.float64)
    assert 1e-13 < np.abs(w - expected).max() < 1e-9


MANY = [("SGD", {"momentum": 0.9}), ("Adagrad", {}), ("RMSprop", {"centered": True}), ("Adam", {"amsgrad": True})]


@pytest.mark.jit
@pytest.mark.parametrize(("name", "options"), MANY, ids=ids)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_change_no_bits(name, options, dtype):
    shapes, results, before = [(300_001,), (17,), (2, 50_003)], [], fl.get_num_threads()
    try:
        for threads in (1, 2):
            fl.set_num_threads(threads)
            rng = np.random.default_rng(3)
            params = [rng.standard_normal(s).astype(dtype) for s in shapes]
            opt = getattr(fl.optim, name)(params, **options)
            for _ in range(3):
                opt.step([rng.standard_normal(s).astype(dtype) for s in shapes])
            results.append([p.tobytes() for p in params])
    except ValueError:
        pytest.skip("one core")
    finally:
        fl.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize(("name", "options"), MANY, ids=ids)
def test_many_arrays_are_updated_as_one_at_a_time(name, options):
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (), (0,), (4,), (40_000,)]
    params = {f"p{i}": np.asarray(rng.standard_normal(s)) for i, s in enumerate(shapes)}
    params["single"] = rng.standard_normal(6).astype(np.float32)
    alone = {k: p.copy() for k, p in params.items()}
    together, each = (getattr(fl.optim, name), {k: getattr(fl.optim, name)([p], **options) for k, p in alone.items()})
    together = together(params, **options)
    for _ in range(4):
        grads = {k: np.asarray(rng.standard_normal(p.shape), p.dtype) for k, p in params.items()}
        together.step(dict(reversed(grads.items())))
        for k, opt in each.items():
            opt.step([grads[k]])
    for k, p in params.items():
        np.testing.assert_array_equal(p, alone[k])


def test_parameters_without_a_gradient_wait():
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(5) for _ in range(3)]
    ours, theirs = [a.copy() for a in start], [torch.nn.Parameter(torch.from_numpy(a.copy())) for a in start]
    a, b = fl.optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    for step in range(12):
        grads = [rng.standard_normal(5) if (step + i) % 3 else None for i in range(3)]
        a.step(grads)
        for tensor, g in zip(theirs, grads, strict=True):
            tensor.grad = None if g is None else torch.from_numpy(g)
        b.step()
    for w, tensor in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(w, tensor.detach().numpy(), rtol=1e-14)


def test_groups_have_options_of_their_own():
    w, b = np.ones(3), np.ones(2)
    opt = fl.optim.SGD([{"params": [w], "lr": 0.5}, {"params": [b], "momentum": 0.9}], lr=0.1)
    for _ in range(2):
        opt.step([np.ones(3), np.ones(2)])
    np.testing.assert_allclose(w, 0.0, atol=1e-15)
    np.testing.assert_allclose(b, 1 - 0.1 - 0.19)
    opt.param_groups[0]["lr"] = 0.0
    opt.step([np.ones(3), np.ones(2)])
    np.testing.assert_allclose(w, 0.0, atol=1e-15)


def test_momentum_may_be_turned_on_later():
    ours, tensor = np.ones(3), torch.nn.Parameter(torch.ones(3))
    a, b = fl.optim.SGD([ours], lr=0.1), torch.optim.SGD([tensor], lr=0.1)
    for step, g in enumerate(gradients(3, np.float64, steps=6)):
        if step == 2:
            a.param_groups[0]["momentum"] = b.param_groups[0]["momentum"] = 0.9
        a.step([g])
        tensor.grad = torch.from_numpy(g)
        b.step()
    np.testing.assert_allclose(ours, tensor.detach().numpy(), rtol=1e-14)


@pytest.mark.parametrize(("name", "options"), [*EACH, ("Lion", {})], ids=ids)
def test_saved_and_restored(name, options):
    grads = list(gradients((3, 4), np.float64, steps=8))
    w = np.ones((3, 4))
    opt = getattr(fl.optim, name)([w], **options)
    for g in grads[:4]:
        opt.step([g])
    kept, copied = opt.state_dict(), w.copy()
    other = getattr(fl.optim, name)([copied])
    other.load_state_dict(kept)
    pickled = pickle.loads(pickle.dumps((opt, w)))
    deep = copy.deepcopy((opt, w))
    for g in grads[4:]:
        for each in (opt, other, pickled[0], deep[0]):
            each.step([g])
    for found in (copied, pickled[1], deep[1]):
        np.testing.assert_array_equal(found, w)
    assert kept["state"][0]["step"] == 4


@pytest.mark.parametrize(("name", "options"), EACH, ids=ids)
def test_the_state_of_torch_is_taken(name, options):
    w, _, _, theirs = both(name, options, np.float64, steps=5)
    opt = getattr(fl.optim, name)([w])
    opt.load_state_dict(theirs.state_dict())
    straight, _, _, _ = both(name, options, np.float64, steps=6)
    opt.step([list(gradients((7, 19), np.float64, steps=6))[-1]])
    np.testing.assert_allclose(w, straight, rtol=0, atol=1e-13 * np.abs(straight).max())
