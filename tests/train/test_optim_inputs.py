"""Parameters and gradients of optimisers: layouts, row-sparse gradients, and errors."""

import re

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)


def layouts():
    base = RNG.standard_normal((6, 8))
    yield "Fortran order", np.asfortranarray(base)
    yield "every other row", base.copy()[::2]
    yield "a column", base.copy()[:, 3]
    yield "backwards", base.copy()[::-1, ::-1]
    yield "one number", np.array(2.0)
    yield "nothing", np.zeros((0, 3))


LAYOUTS = dict(layouts())


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("rule", ["Adam", "SGD"])
def test_any_layout_is_updated_in_place(name, rule):
    w = LAYOUTS[name].copy(order="K") if name == "Fortran order" else LAYOUTS[name]
    plain = np.array(w, order="C")
    a, b = (getattr(fl.optim, rule)([p], lr=0.1) for p in (w, plain))
    for _ in range(3):
        g = np.asarray(RNG.standard_normal(w.shape))
        a.step([np.array(g, order="F")])
        b.step([np.array(g, order="C")])
    np.testing.assert_array_equal(w, plain)


def test_the_rest_of_an_array_is_left_alone():
    base = RNG.standard_normal((6, 8))
    before = base.copy()
    opt = fl.optim.Adam([base[1:4, 2:5]], lr=0.1)
    opt.step([np.ones((3, 3))])
    changed = base != before
    assert changed[1:4, 2:5].all()
    assert changed.sum() == 9


def test_a_gradient_may_be_the_parameter():
    w = RNG.standard_normal(1000)
    expected = w - 0.1 * w
    fl.optim.SGD([w], lr=0.1).step([w])
    np.testing.assert_allclose(w, expected, rtol=1e-15)


def test_gradients_are_not_changed():
    w, g = np.ones(100), RNG.standard_normal(100)
    before = g.copy()
    g.flags.writeable = False
    fl.optim.AdamW([w], maximize=True, weight_decay=0.5).step([g])
    np.testing.assert_array_equal(g, before)


def test_nan_and_infinity_come_through():
    w = np.array([1.0, np.inf, 1.0, 1.0])
    fl.optim.SGD([w], lr=0.1).step([np.array([np.nan, 1.0, np.inf, 1.0])])
    np.testing.assert_array_equal(w, [np.nan, np.inf, -np.inf, 0.9])


SPARSE = [
    ("SGD", {}),
    ("SGD", {"maximize": True}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "eps": 1e-3}),
]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(("name", "options"), SPARSE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tail", [(5,), (), (2, 3)])
def test_rows_give_what_torch_gives(name, options, dtype, tail):
    start = RNG.standard_normal((30, *tail)).astype(dtype)
    w, tensor = start.copy(), torch.nn.Parameter(torch.from_numpy(start.copy()))
    ours, theirs = getattr(fl.optim, name)([w], **options), getattr(torch.optim, name)([tensor], **options)
    for step in range(50):
        indices = RNG.integers(0, 30, step)  # none at first, later with repetitions
        rows = RNG.standard_normal((step, *tail)).astype(dtype)
        ours.step([(indices, rows)])
        shape = (30, *tail)
        tensor.grad = torch.sparse_coo_tensor(indices[None], torch.from_numpy(rows), shape, check_invariants=True)
        theirs.step()
    bound = 1e-14 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(w, tensor.detach().numpy(), rtol=0, atol=bound * np.abs(start).max(initial=1.0))


@pytest.mark.parametrize(("name", "options"), SPARSE)
def test_rows_give_what_the_dense_gradient_gives(name, options):
    w = RNG.standard_normal((20, 4))
    dense = w.copy()
    a, b = (getattr(fl.optim, name)([p], **options) for p in (w, dense))
    for _ in range(5):
        indices, rows = RNG.integers(0, 20, 30, np.int32), RNG.standard_normal((30, 4))
        g = np.zeros((20, 4))
        np.add.at(g, indices, rows)
        a.step([(indices, rows)])
        b.step([g])
    np.testing.assert_allclose(w, dense, rtol=1e-13)


@pytest.mark.jit
def test_rows_have_the_same_bits_on_any_number_of_threads():
    before, found = fl.get_num_threads(), []
    rng = np.random.default_rng(5)
    indices, rows = rng.integers(0, 5000, 40_000), rng.standard_normal((40_000, 16), np.float32)
    try:
        for threads in range(1, before + 1):
            fl.set_num_threads(threads)
            w = np.zeros((5000, 16), np.float32)
            fl.optim.Adagrad([w], lr=0.1).step([(indices, rows)])
            found.append(w.tobytes())
    finally:
        fl.set_num_threads(before)
    assert len(set(found)) == 1


def readonly():
    w = np.ones(3)
    w.flags.writeable = False
    return w


BASE = np.ones(10)

WRONG_PARAMETERS = [
    ({"params": np.ones(3)}, TypeError, "Adam params is an array; expected a list or a dictionary of arrays, such as"),
    ({"params": []}, ValueError, "Adam params holds no arrays; expected at least one"),
    ({"params": [1.0]}, TypeError, "Adam params[0] is of type float; expected a NumPy array of float32 or float64"),
    ({"params": [np.ones(3, int)]}, TypeError, "Adam params[0] has dtype int64; expected float32 or float64 in native"),
    ({"params": [np.ones(3, ">f8")]}, TypeError, "Adam params[0] has dtype >f8; expected float32 or float64 in native"),
    ({"params": [np.ones(3, np.float16)]}, TypeError, "Adam params[0] has dtype float16; expected"),
    ({"params": {"w": readonly()}}, ValueError, "Adam params['w'] is read-only; expected an array to update in place"),
    ({"params": [torch.ones(2)]}, TypeError, "Adam params[0] is of type Tensor; expected a NumPy array"),
    ({"params": [BASE, BASE]}, ValueError, "Adam params[0] of group 0 and Adam params[1] of group 0 share memory"),
    ({"params": [BASE[::2], BASE[2:5]]}, ValueError, "share memory; expected separate arrays, each of them once"),
    ({"lr": float("nan")}, ValueError, "Adam: lr is nan; allowed: [0, inf)"),
    ({"lr": -1.0}, ValueError, "Adam: lr is -1.0; allowed: [0, inf)"),
    ({"lr": "fast"}, TypeError, "Adam: lr is 'fast'; expected a number"),
    ({"betas": (0.9, 1.0)}, ValueError, "Adam: betas[1] is 1.0; allowed: [0, 1)"),
    ({"betas": 0.9}, ValueError, "Adam: betas is 0.9; expected two numbers"),
    ({"eps": -1e-8}, ValueError, "Adam: eps is -1e-08; allowed: [0, inf)"),
    ({"amsgrad": "yes"}, ValueError, "Adam: amsgrad is 'yes'; allowed: True or False"),
    ({"params": [{"params": [np.ones(2)], "rate": 1}]}, TypeError, "Adam has no option 'rate'"),
    ({"params": [{"lr": 1}]}, ValueError, "Adam group has no entry 'params'"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG_PARAMETERS)
def test_errors_of_parameters(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fl.optim.Adam(**{"params": [np.ones(3)], **options})


@pytest.mark.parametrize("view", [slice(None), slice(None, None, 2)], ids=["contiguous", "copied"])
def test_a_parameter_made_read_only_later_is_not_written(view):
    w, b = np.ones(4)[view], np.ones(4)
    opt, other = fl.optim.Adam({"b": b, "w": w}), fl.optim.LBFGS({"b": b, "w": w})
    w.flags.writeable = False
    grads = {"b": np.ones_like(b), "w": np.ones_like(w)}
    with pytest.raises(ValueError, match=r"Adam params\['w'\] is read-only; expected an array to update in place"):
        opt.step(grads)
    with pytest.raises(ValueError, match=r"LBFGS params\['w'\] is read-only; expected an array to update in place"):
        other.step(lambda: (1.0, grads))
    assert (w == 1.0).all()
    assert (b == 1.0).all()
    assert opt.state_dict()["state"] == {}
    opt.step({"b": np.ones(4), "w": None})
    assert (b < 1.0).all()


def test_arrays_side_by_side_do_not_overlap():
    base = np.ones((4, 2))
    fl.optim.SGD([base[:, 0], base[:, 1]], lr=0.5).step([np.ones(4), np.zeros(4)])
    np.testing.assert_array_equal(base, [[0.5, 1.0]] * 4)


WRONG_GRADIENTS = [
    (np.ones(3), TypeError, "SGD: grads is 'ndarray'; expected a list of arrays, type: [g]"),
    ([], ValueError, "SGD got 0 gradients; expected 2, one a parameter"),
    ({"w": 1}, ValueError, "SGD grads[0] is missing; expected [0], [1]"),
    ([np.ones(4), np.ones(2)], ValueError, "SGD grads[0] has shape (4,); expected (3, 2), the shape of its parameter"),
    (
        [np.ones((3, 2)), np.ones(2, np.float32)],
        TypeError,
        "SGD grads[1] has dtype float32; expected float64, type: g.",
    ),
    ([np.ones((3, 2)), np.ones(2, int)], TypeError, "SGD grads[1] has dtype int64; expected float64"),
    ([np.ones((3, 2)), [1.0, 2.0]], TypeError, "SGD grads[1] is of type list; expected a NumPy array"),
    ([(np.array([3]), np.ones((1, 2))), None], ValueError, "SGD grads[0]: indices[0] is 3; allowed: 0 to 2"),
    ([(np.array([-1]), np.ones((1, 2))), None], ValueError, "SGD grads[0]: indices[0] is -1; allowed: 0 to 2"),
    ([(np.array([1]), np.ones((2, 2))), None], ValueError, "SGD grads[0]: rows have shape (2, 2); expected (1, 2)"),
    (
        [(np.array([1.0]), np.ones((1, 2))), None],
        TypeError,
        "SGD grads[0]: indices have dtype float64; expected integers",
    ),
    ([(np.ones((1, 2)),), None], ValueError, "SGD grads[0] is a tuple of 1; expected (indices, rows)"),
]


@pytest.mark.parametrize(("grads", "error", "message"), WRONG_GRADIENTS)
def test_errors_of_gradients_change_nothing(grads, error, message):
    w, b = np.ones((3, 2)), np.ones(2)
    opt = fl.optim.SGD([w, b], lr=0.1)
    with pytest.raises(error, match=re.escape(message)):
        opt.step(grads)
    assert (w == 1).all()
    assert (b == 1).all()
    assert opt.state_dict()["state"] == {}


def test_errors_of_options_that_do_not_go_together():
    rows = [(np.array([0]), np.ones((1, 2)))]
    with pytest.raises(ValueError, match="nesterov is True; it needs a momentum above 0"):
        fl.optim.SGD([np.ones(2)], nesterov=True)
    with pytest.raises(ValueError, match="takes row-sparse gradients with momentum=0 and weight_decay=0"):
        fl.optim.SGD([np.ones((3, 2))], momentum=0.9).step(rows)
    with pytest.raises(ValueError, match="takes row-sparse gradients with weight_decay=0"):
        fl.optim.Adagrad([np.ones((3, 2))], weight_decay=0.1).step(rows)
    with pytest.raises(TypeError, match="only SGD and Adagrad take row-sparse gradients"):
        fl.optim.Adam([np.ones((3, 2))]).step(rows)
    opt = fl.optim.Adam([np.ones(2)])
    opt.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match=r"Adam: lr of group 0 is nan; allowed: \[0, inf\)"):
        opt.step([np.ones(2)])


def test_errors_of_states():
    opt = fl.optim.Adam([np.ones(2)])
    opt.step([np.ones(2)])
    kept = opt.state_dict()
    with pytest.raises(ValueError, match=r"Adam: state has groups of \[1\] parameters; expected \[2\]"):
        fl.optim.Adam([np.ones(2), np.ones(2)]).load_state_dict(kept)
    with pytest.raises(ValueError, match=r"state exp_avg of params\[0\] has shape \(2,\); expected \(3,\)"):
        fl.optim.Adam([np.ones(3)]).load_state_dict(kept)
    with pytest.raises(ValueError, match="SGD: state has no option 'momentum'; expected the state of SGD"):
        fl.optim.SGD([np.ones(2)]).load_state_dict(kept)
