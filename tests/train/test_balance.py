"""Balancing of tasks against TorchJD, SciPy's optima and the equations of the papers."""

import numpy as np
import pytest
from scipy.optimize import minimize, nnls

import fastloss as fl
from fastloss import balance
from fastloss.train.balance.quadratic import minimum


def gradients(k, n=30, seed=0, conflict=True):
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(k, n)) * np.exp(rng.normal(size=(k, 1)))
    return g + (0.0 if conflict else 2.0)


CASES = [
    gradients(2),
    gradients(3, seed=1),
    gradients(5, 6, seed=2),
    gradients(8, seed=3),
    gradients(4, conflict=False),
]
DEPENDENT = [np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 1.0]]), np.array([[1.0, 2.0], [2.0, 4.0]]), gradients(6, 3)]
each_case = pytest.mark.parametrize("grads", CASES, ids=lambda g: f"{len(g)} tasks")
each_matrix = pytest.mark.parametrize("grads", [*CASES, *DEPENDENT], ids=lambda g: f"{g.shape}")


def gramian_of(grads):
    return grads @ grads.T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 1024, 40_001])
@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_gramian(k, n, dtype):
    grads = np.random.default_rng(n).normal(size=(k, n)).astype(dtype)
    exact = grads.astype(float) @ grads.astype(float).T
    tolerance = 64 * np.finfo(dtype).eps * n**0.5
    np.testing.assert_allclose(balance.gramian(grads), exact, atol=tolerance * 4)
    np.testing.assert_array_equal(balance.gramian(list(grads)), balance.gramian(grads))


def test_gramian_of_positive_elements_loses_no_digits_to_its_length():
    grads = np.random.default_rng(0).random((3, 500_000), dtype=np.float32)
    exact = gramian_of(grads.astype(float))
    np.testing.assert_allclose(balance.gramian(grads), exact, rtol=np.finfo(np.float32).eps / 8)


def test_gramian_has_the_same_bits_on_any_number_of_threads():
    grads = np.random.default_rng(0).normal(size=(5, 300_000)).astype(np.float32)
    threads = fl.get_num_threads()
    try:
        fl.set_num_threads(1)
        one = balance.gramian(grads)
        fl.set_num_threads(2)
        two = balance.gramian(grads)
    finally:
        fl.set_num_threads(threads)
    np.testing.assert_array_equal(one, two)


def test_gramian_of_parts_strides_halves_and_tensors():
    rng = np.random.default_rng(0)
    parts = [[rng.normal(size=(3, 4)), rng.normal(size=5)] for _ in range(3)]
    whole = np.array([np.concatenate([a.ravel() for a in own]) for own in parts])
    np.testing.assert_allclose(balance.gramian(parts), gramian_of(whole), rtol=1e-12)
    np.testing.assert_allclose(balance.gramian(whole[:, ::2]), gramian_of(whole[:, ::2]), rtol=1e-12)
    half = whole.astype(np.float16)
    np.testing.assert_allclose(balance.gramian(half), gramian_of(half.astype(float)), rtol=1e-5, atol=1e-5)
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(row) for row in whole]
    np.testing.assert_allclose(balance.gramian(tensors), gramian_of(whole), rtol=1e-12)


@each_matrix
def test_mgda_is_the_shortest_combination(grads):
    g = gramian_of(grads)
    w = balance.MGDA().weights(gramian=g)
    assert (w >= 0.0).all()
    assert w.sum() == pytest.approx(1.0, rel=1e-12)
    # The condition of optimality: no gradient is shorter along the combination than the combination itself.
    scale = np.diagonal(g).max()
    assert (g @ w >= w @ g @ w - 1e-10 * scale).all()


@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_quadratic_programs(seed, sums):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 9))
    a = rng.normal(size=(k, max(1, k - seed % 3)))
    q = a @ a.T
    b = a @ rng.normal(size=a.shape[1])
    x = minimum(q, b, sums)
    assert (x >= 0.0).all()
    slope = q @ x + b
    excess = slope - (slope @ x if sums else 0.0)
    assert (excess > -1e-9).all()
    np.testing.assert_allclose(excess * x, 0.0, atol=1e-9)
    if sums:
        assert x.sum() == pytest.approx(1.0, rel=1e-12)


@each_case
@pytest.mark.parametrize("c", [0.0, 0.2, 0.5, 0.9])
def test_cagrad_against_scipy(grads, c):
    g = gramian_of(grads)
    k = len(g)
    mean = np.full(k, 1 / k)
    radius = c * np.sqrt(mean @ g @ mean)

    def dual(w):
        return w @ g @ mean + radius * np.sqrt(w @ g @ w)

    options = {"ftol": 1e-15, "maxiter": 1000}
    found = [
        minimize(
            dual, start, bounds=[(0, 1)] * k, constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options=options
        )
        for start in (mean, *np.eye(k) * 0.9 + 0.1 / k)
    ]
    best = min(f.fun for f in found)
    weights = balance.CAGrad(c).weights(gramian=g)
    # The value of the dual is the gain of the slowest task.
    assert (g @ weights).min() == pytest.approx(best, rel=1e-6, abs=1e-9)
    off = weights - mean
    assert np.sqrt(off @ g @ off) == pytest.approx(radius, rel=1e-9)


@each_case
def test_nash_bargaining_solves_its_equation(grads):
    g = gramian_of(grads)
    if balance.MGDA().weights(gramian=g) @ g @ balance.MGDA().weights(gramian=g) < 1e-9:
        pytest.skip("stationary")
    w = balance.NashMTL(max_norm=None).weights(gramian=g)
    np.testing.assert_allclose(g @ w * w, 1.0, rtol=1e-9)
    cut = balance.NashMTL(max_norm=0.5).weights(gramian=g)
    assert np.sqrt(cut @ g @ cut) == pytest.approx(0.5)
    np.testing.assert_allclose(cut / cut.sum(), w / w.sum(), rtol=1e-9)


def test_stationary_points_have_no_bargain():
    g = gramian_of(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    np.testing.assert_array_equal(balance.NashMTL().weights(gramian=g), 0.0)
    np.testing.assert_array_equal(balance.CAGrad(0.5).weights(gramian=g), [0.5, 0.5])
    np.testing.assert_allclose(balance.MGDA().weights(gramian=g), 0.5)


@each_case
def test_imtlg_has_equal_projections(grads):
    g = gramian_of(grads)
    w = balance.IMTLG().weights(gramian=g)
    along = g @ w / np.sqrt(np.diagonal(g))
    np.testing.assert_allclose(along, along[0], rtol=1e-8)
    assert w.sum() == pytest.approx(1.0)


@each_case
def test_aligned_gradients_are_orthogonal(grads):
    # Each weight vector of a single task gives one of the aligned gradients.
    aligned = np.array([balance.AlignedMTL(p).weights(gramian=gramian_of(grads)) for p in np.eye(len(grads))]) @ grads
    products = aligned @ aligned.T
    length = np.linalg.eigvalsh(gramian_of(grads))[0]
    np.testing.assert_allclose(products, length * np.eye(len(grads)), atol=1e-8 * length)


@each_matrix
def test_upgrad_harms_no_task(grads):
    g = gramian_of(grads)
    w = balance.UPGrad().weights(gramian=g)
    assert (g @ w >= -1e-9 * np.diagonal(g).max()).all()


@each_matrix
def test_upgrad_projects_each_gradient(grads):
    g = gramian_of(grads)
    k = len(g)
    projected = [x + grads.T @ nnls(grads.T, -x)[0] for x in grads / k]
    np.testing.assert_allclose(balance.UPGrad().weights(gramian=g) @ grads, np.sum(projected, axis=0), atol=1e-8)


def test_upgrad_leaves_gradients_without_conflict():
    g = gramian_of(np.abs(gradients(4)))
    np.testing.assert_allclose(balance.UPGrad().weights(gramian=g), 0.25)
    np.testing.assert_allclose(balance.PCGrad().weights(gramian=g), 1.0)


def test_pcgrad_of_two_tasks_is_that_of_the_paper():
    a, b = np.array([1.0, 0.5]), np.array([-1.0, 0.2])
    grads = np.array([a, b])
    projected = a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a
    np.testing.assert_allclose(balance.PCGrad().weights(gramian=gramian_of(grads)) @ grads, projected)


def test_pcgrad_and_random_weights_repeat_by_seed_and_step():
    g = gramian_of(gradients(6, 4))
    for balancer in (balance.PCGrad(seed=3), balance.RLW(6, seed=3)):
        first = balancer.weights(gramian=g, step=5)
        np.testing.assert_array_equal(balancer.weights(gramian=g, step=5), first)
        assert (balancer.weights(gramian=g, step=6) != first).any()


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "grads"),
    # AlignedMTL of dependent gradients is left out: the rank of a float Gramian is a matter of tolerance.
    [(name, g) for name in ("IMTLG", "MGDA") for g in [*CASES, *DEPENDENT]] + [("AlignedMTL", g) for g in CASES],
    ids=lambda x: x if isinstance(x, str) else f"{x.shape}",
)
def test_against_torchjd(name, grads):
    torch = pytest.importorskip("torch")
    aggregation = pytest.importorskip("torchjd.aggregation")
    g = gramian_of(grads)
    options = {"MGDA": {"epsilon": 1e-12, "max_iters": 20_000}}.get(name, {})
    theirs = getattr(aggregation, f"{name}Weighting")(**options)(torch.tensor(g)).numpy()
    ours = getattr(balance, name)().weights(gramian=g)
    # Of dependent gradients the weights differ, and their combination does not.
    np.testing.assert_allclose(ours @ grads, theirs @ grads, atol=2e-3 * np.abs(grads).max())


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["GLS", "STCH", "Uncertainty"])
def test_values_and_weights_against_torchjd(name):
    torch = pytest.importorskip("torch")
    scalarization = pytest.importorskip("torchjd.scalarization")
    losses = np.array([0.3, 2.0, 1.1])
    ours = {"GLS": balance.GLS(), "STCH": balance.STCH(0.05), "Uncertainty": balance.Uncertainty(3)}[name]
    theirs = {
        "GLS": lambda: scalarization.GeometricMean(),
        "STCH": lambda: scalarization.STCH(0.05),
        "Uncertainty": lambda: scalarization.UW(3),
    }[name]()
    if name == "Uncertainty":
        ours.log_variances[:] = [0.1, -0.4, 0.7]
        theirs.log_var.data[:] = torch.tensor([0.1, -0.4, 0.7])
    x = torch.tensor(losses, requires_grad=True)
    value = theirs(x)
    value.backward()
    assert ours.value(losses) == pytest.approx(value.item(), rel=1e-6)
    np.testing.assert_allclose(ours.weights(losses), x.grad, rtol=1e-6)
    if name == "Uncertainty":
        np.testing.assert_allclose(ours.value_and_grad(losses)[2], theirs.log_var.grad, rtol=1e-6)


@pytest.mark.oracle
def test_histories_against_torchjd():
    torch = pytest.importorskip("torch")
    scalarization = pytest.importorskip("torchjd.scalarization")
    rng = np.random.default_rng(0)
    ours, theirs = balance.DWA(1.5), scalarization.DWA(1.5)
    famo, torch_famo = balance.FAMO(3, rate=0.1), scalarization.FAMO(3, lr=0.1)
    for _ in range(4):
        for _ in range(3):
            losses, after = rng.uniform(0.5, 2.0, (2, 3))
            for mine, other in ((ours, theirs), (famo, torch_famo)):
                x = torch.tensor(losses, requires_grad=True)
                other(x).backward()
                np.testing.assert_allclose(mine.weights(losses), x.grad, rtol=1e-4)
            famo.update(after)
            torch_famo.update(torch.tensor(after))
        ours.end_epoch()
        theirs.step()


def test_uncertainty_by_differences_and_its_optimum():
    balancer = balance.Uncertainty(2, regression=[True, False])
    balancer.log_variances[:] = [0.3, -0.2]
    losses = np.array([1.3, 0.4])
    slopes = balancer.value_and_grad(losses)[2]
    for i in range(2):
        values = []
        for h in (1e-6, -1e-6):
            balancer.log_variances[i] += h
            values.append(balancer.value(losses))
            balancer.log_variances[i] -= h
        assert slopes[i] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)
    # The variance that is learned for a regression is its mean square, which the factor 1/2 brings about.
    balancer.log_variances[:] = [np.log(losses[0]), np.log(2 * losses[1])]
    np.testing.assert_allclose(balancer.value_and_grad(losses)[2], 0.0, atol=1e-12)


def test_stch_takes_a_small_mu_and_the_ideal():
    assert balance.STCH(1e-12).value([1e3, 2e3]) == pytest.approx(1e3)
    balancer = balance.STCH(0.1, preference=[1.0, 2.0], ideal=[0.5, 0.1])
    y = np.array([0.5, 1.8])
    assert balancer.value([1.0, 1.0]) == pytest.approx(0.1 * np.log(np.exp(y / 0.1).sum()))


def test_gradnorm_equalises_training_rates():
    balancer = balance.GradNorm(2, alpha=0.0, rate=1e-4)
    g = np.diag([100.0, 1.0])
    for _ in range(4000):
        weights = balancer.weights(losses=[1.0, 1.0], gramian=g)
    np.testing.assert_allclose(weights * [10.0, 1.0], 20 / 11, rtol=2e-2)
    slow = balance.GradNorm(2)
    slow.weights(losses=[1.0, 1.0], gramian=np.eye(2))
    weights = slow.weights(losses=[0.1, 0.9], gramian=np.eye(2))
    assert weights[1] > weights[0]
    assert weights.sum() == pytest.approx(2.0)


def test_schedules():
    linear = balance.Linear([1.0, 0.0], [0.0, 2.0], steps=4)
    np.testing.assert_allclose([linear.weights(step=s) for s in (0, 1, 4, 9)], [[1, 0], [0.75, 0.5], [0, 2], [0, 2]])
    cosine = balance.Cosine(1.0, 0.0, steps=4)
    np.testing.assert_allclose(
        [cosine.weights(step=s)[0] for s in (0, 1, 2, 4)], [1, (2 + 2**0.5) / 4, 0.5, 0], atol=1e-15
    )
    np.testing.assert_allclose(balance.Exponential(2.0, [0.5, 1.0]).weights(step=3), [0.25, 2.0])
    cyclic = balance.Cyclic(0.0, [1.0, 2.0], period=4, rise=1.0)
    np.testing.assert_allclose([cyclic.weights(step=s) for s in (0, 2, 4)], [[0, 0], [0.5, 1], [0, 0]])
    constant = balance.Constant([1.0, 2.0])
    constant.weights()[0] = 9.0
    np.testing.assert_array_equal(constant.weights(), [1.0, 2.0])


def test_a_convex_problem_of_two_tasks():
    # Two quadratics of very different sizes. The Pareto set is the segment between their minima.
    a, b = np.array([1.0, 0.0]), np.array([-1.0, 0.5])
    for balancer in (balance.MGDA(), balance.UPGrad(), balance.CAGrad(0.5), balance.NashMTL(), balance.PCGrad()):
        x = np.array([0.3, 2.0])
        for step in range(700):
            grads = np.array([x - a, 50.0 * (x - b)])
            x -= 0.01 * balancer.weights(gramian=balance.gramian(grads), step=step) @ grads
        share = (x - a) @ (b - a) / ((b - a) @ (b - a))
        assert np.linalg.norm(x - (a + share * (b - a))) < 1e-2, balancer
        assert -1e-3 <= share <= 1 + 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balance.MGDA().weights(losses=[1.0]), r"MGDA needs gramian; pass weights\(gramian="),
        (lambda: balance.GLS().weights(), r"GLS needs losses; pass weights\(losses="),
        (lambda: balance.MGDA().weights(gramian=[1.0]), r"MGDA: gramian has shape \(1,\); expected \(k, k\)"),
        (lambda: balance.FAMO(2).weights([1.0]), r"FAMO: losses has shape \(1,\); expected \(2,\)"),
        (lambda: balance.FAMO(2).weights([1.0, 0.0]), r"FAMO: losses\[1\] is 0\.0; allowed: above 0\.0"),
        (lambda: balance.FAMO(2).update([1.0, 1.0]), "FAMO update comes after weights"),
        (lambda: balance.GLS().value([-1.0]), r"GLS: losses\[0\] is -1\.0; allowed: \[0, inf\]"),
        (lambda: balance.CAGrad(-1.0), r"CAGrad: c is -1\.0; allowed: \[0, inf\)"),
        (lambda: balance.STCH(0.0), r"STCH: mu is 0\.0; allowed: \(0, inf\)"),
        (lambda: balance.UPGrad([1.0]).weights(gramian=np.eye(2)), "UPGrad: preference has 1 entries; expected 2"),
        (lambda: balance.UPGrad([-1.0]), r"UPGrad: preference is \[-1\.0\]; expected non-negative"),
        (lambda: balance.AlignedMTL(scale="max"), "AlignedMTL: scale is 'max'; allowed: 'min', 'median', 'rmse'"),
        (lambda: balance.RLW(0), "RLW: tasks is 0; allowed: integers from 1 on"),
        (lambda: balance.Linear(0.0, 1.0, 0.5), r"Linear: steps is 0\.5; expected an integer"),
        (lambda: balance.Linear([0.0, 1.0], [1.0] * 3, 5), "Linear: end has 3 entries; expected 2"),
        (lambda: balance.Step([1.0], [3]), r"Step: values has shape \(1,\); expected 2 rows"),
        (lambda: balance.Uncertainty(2, regression=0.5), r"Uncertainty: regression is 0\.5; expected True, False"),
        (lambda: balance.gramian([]), "gramian: grads is empty; expected one gradient per task"),
        (lambda: balance.gramian([np.ones(2), np.ones(3)]), r"gramian: grads\[1\] has 3 elements; expected 2"),
        (
            lambda: balance.gramian([np.ones(2), np.ones(2, np.float32)]),
            r"gramian: grads\[1\] has dtype float32; expected float64, as grads\[0\]",
        ),
        (lambda: balance.gramian([["a"]]), r"gramian: grads\[0\] has dtype"),
    ],
)
def test_errors(make, message):
    with pytest.raises(fl.CallError, match=message):
        make()
