"""`fl.jax` beside the same losses written in JAX's own operations, and beside the losses of NumPy arrays."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from interop_cases import case

import fastloss as fl

pytestmark = [pytest.mark.oracle, pytest.mark.jit]

jax = pytest.importorskip("jax")
jnp = jax.numpy
SOME = ("huber", "bce_with_logits", "gaussian_nll", "cross_entropy", "triplet", "dice", "lambda_rank", "ctc")


def huber(p, t, delta=1.0):
    a = jnp.abs(p - t)
    return jnp.where(a <= delta, 0.5 * a * a, delta * (a - 0.5 * delta)).mean()


def bce_with_logits(p, t):
    return jnp.mean(jnp.logaddexp(0.0, p) - p * t)


def log_cosh(p, t):
    return jnp.log(jnp.cosh(p - t)).mean()


def cross_entropy(z, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean()


PEERS = {"huber": huber, "bce_with_logits": bce_with_logits, "log_cosh": log_cosh}


@pytest.fixture
def wide():
    """Arrays of 64 bits."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def drawn(*shape, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape), dtype), jnp.asarray(rng.uniform(0.1, 0.9, shape), dtype)


def close(got, expected, tolerance=1e-5):
    parts = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    for a, b in parts:
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), tolerance, tolerance)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_beside_numpy(name, reduction, wide):
    record, (args, named) = fl.LOSSES[name].record, case(name)
    own = [k for k in record.predictions if k in named]

    def call(first, function):
        if named:
            return function(**{**named, **dict(zip(own, first, strict=True))}, reduction=reduction)
        return function(first, *args[1:], reduction=reduction)

    first = tuple(named[k] for k in own) if named else args[0]
    value = jax.jit(lambda x: call(x, getattr(fl.jax, name)))(first)
    np.testing.assert_array_equal(np.asarray(value), call(first, fl.LOSSES[name]))
    (slopes,) = jax.jit(jax.grad(lambda x: (call(x, getattr(fl.jax, name)) * 2.0).sum(), (0,)))(first)
    total = {"reduction": "sum" if reduction == "none" else "mean"}
    expected = (
        fl.LOSSES[name].value_and_grad(**{**named}, **total)
        if named
        else fl.LOSSES[name].value_and_grad(*args, **total)
    )[1]
    close(slopes, jax.tree.map(lambda g: 2.0 * g, expected), 1e-12)


@pytest.mark.parametrize(
    ("name", "dtype"), [("huber", "float32"), *((name, "float64") for name in ("bce_with_logits", "log_cosh"))]
)
def test_beside_jax(name, dtype, wide):
    p, t = drawn(40, dtype=dtype)
    ours, theirs = getattr(fl.jax, name), PEERS[name]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for transform in (
        lambda f: f,
        jax.value_and_grad,
        jax.jacfwd,
        jax.hessian,
        lambda f: jax.jit(jax.value_and_grad(f)),
    ):
        got = transform(ours)(p, t)
        close(got, transform(theirs)(p, t), tolerance)
        assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype(dtype)}

    def penalty(f):
        return jax.grad(lambda x: (jax.grad(f)(x, t) ** 2).sum() * f(x, t))

    close(jax.jit(penalty(ours))(p), penalty(theirs)(p), tolerance)
    close(jax.jvp(lambda x: ours(x, t), (p,), (t,)), jax.jvp(lambda x: theirs(x, t), (p,), (t,)), tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half(dtype):
    p, t = drawn(50)
    half, goal = p.astype(dtype), t.astype(dtype)
    for target in (goal, t):
        value, grad = jax.jit(jax.value_and_grad(fl.jax.huber))(half, target)
        assert value.dtype == grad.dtype == half.dtype
        expected = jax.value_and_grad(huber)(half.astype(np.float32), target.astype(np.float32))
        close((value, grad), expected, 0.01)


def test_options():
    p, t = drawn(30)
    w = jnp.arange(30.0)
    a = jnp.abs(p - t)
    rows = jnp.where(a <= 0.5, 0.5 * a * a, 0.5 * (a - 0.25))
    for options, expected in (
        ({}, lambda r: r.mean()),
        ({"reduction": "sum"}, lambda r: r.sum()),
        ({"divisor": 7.0}, lambda r: r.sum() / 7.0),
        ({"divisor": jnp.float32(7.0)}, lambda r: r.sum() / 7.0),
        ({"weight": w}, lambda r: (r * w).sum() / w.sum()),
        ({"sample_weight": w}, lambda r: (r * w).sum() / w.sum()),
        ({"weight": w, "reduction": "sum"}, lambda r: (r * w).sum()),
        ({"weight": 2.0, "reduction": "none"}, lambda r: 2.0 * r),
    ):
        close(jax.jit(lambda x, o=options: fl.jax.huber(x, t, delta=0.5, **o))(p), expected(rows))
        ours = jax.grad(lambda x, o=options: fl.jax.huber(x, t, delta=0.5, **o).sum())(p)
        theirs = jax.grad(
            lambda x, e=expected: e(
                jnp.where(jnp.abs(x - t) <= 0.5, 0.5 * (x - t) ** 2, 0.5 * (jnp.abs(x - t) - 0.25))
            ).sum()
        )(p)
        close(ours, theirs)
    assert fl.jax.huber(p, t, weight=0.0).item() == 0.0
    assert fl.jax.huber(jnp.zeros(0), jnp.zeros(0)).item() == 0.0
    close(fl.jax.huber(p, 1.0), huber(p, 1.0))
    traced = jax.jit(lambda d: fl.jax.huber(p, t, divisor=d))
    close(traced(4.0), fl.jax.huber(p, t, reduction="sum") / 4.0)


ROW_OPTIONS = [
    {},
    {"weight": "w", "class_weight": "c"},
    {"reduction": "none", "weight": "w", "class_weight": "c"},
    {"divisor": 3.0, "weight": "w"},
    {"label_smoothing": 0.1, "class_weight": "c"},
    {"ignore_index": 1},
    {"ignore_index": None, "reduction": "sum"},
    {"z_loss": 0.01, "class_weight": "c"},
]


@pytest.mark.parametrize("k", [3, 60])
def test_rows_beside_numpy(k):
    # A custom call has the bits of the NumPy loss, whose options are tested beside torch.
    z, w = drawn(8, k)
    arrays = {"w": w[:, 0], "c": w[0]}
    labels, dense = jnp.arange(8) % 3, jax.nn.softmax(z[::-1])
    cases = [(labels, o) for o in ROW_OPTIONS] + [(dense, o) for o in ROW_OPTIONS[:4]]
    for target, options in cases if k == 3 else cases[:2] + cases[-2:]:
        given = {name: arrays.get(x, x) if isinstance(x, str) else x for name, x in options.items()}

        def loss(f, x, total=False, target=target, given=given):
            more = {**given, "reduction": "sum"} if total and given.get("reduction") == "none" else given
            as_numpy = {name: np.asarray(v) if isinstance(v, jax.Array) else v for name, v in more.items()}
            return f(x, target, **given) if not total else f(np.asarray(x), np.asarray(target), **as_numpy)

        value, grad = jax.jit(jax.value_and_grad(lambda x, loss=loss: loss(fl.jax.cross_entropy, x).sum()))(z)
        expected = loss(fl.cross_entropy.value_and_grad, z, True)
        close((value, grad), expected, 1e-6)
    high = z.astype(jnp.bfloat16)
    value, grad = jax.value_and_grad(fl.jax.cross_entropy)(high, labels)
    assert value.dtype == grad.dtype == jnp.bfloat16
    close(value, cross_entropy(high.astype(np.float32), labels), 0.01)


def test_refusals_of_rows():
    z, w = drawn(8, 3)
    with pytest.raises(fl.CallTypeError, match="cross_entropy: target has dtype float32; expected integers"):
        fl.jax.cross_entropy(z, w[:, 0])
    with pytest.raises(fl.CallValueError, match="cross_entropy: class_weight"):
        fl.jax.cross_entropy(z, jnp.zeros(8, int), class_weight=w[:, 0])
    with pytest.raises(Exception, match=r"cross_entropy: a target or .* allowed: labels 0 to 2, or -100"):
        jax.jit(jax.grad(fl.jax.cross_entropy))(z, jnp.full(8, 3)).block_until_ready()
    with pytest.raises(Exception, match=r"cross_entropy: a target or weight .* weights nonnegative"):
        jax.block_until_ready(fl.jax.cross_entropy(z, jnp.zeros(8, int), weight=-w[:, 0]))


def test_vmap():
    p, t = drawn(3, 4, 5)
    for axes, f in (((0, 0), lambda f: f), ((0, None), lambda f: f), ((None, 1), jax.grad), ((2, 0), jax.grad)):
        x = p if axes[0] is not None else p[0]
        x = jnp.moveaxis(x, 0, 2) if axes[0] == 2 else x
        y = t[0] if axes[1] is None else jnp.moveaxis(t, 0, axes[1])
        close(jax.jit(jax.vmap(f(fl.jax.huber), axes))(x, y), jax.vmap(f(huber), axes)(x, y))
    both = [jax.vmap(jax.vmap(f, (0, None)), (None, 0))(p[0], t[0]) for f in (fl.jax.huber, huber)]
    close(*both)
    w = jnp.arange(5.0)
    rows = jax.vmap(lambda a, b: fl.jax.huber(a, b, weight=w))(p[0], t[0])
    expected = [fl.huber(*map(np.asarray, x), weight=np.asarray(w)) for x in zip(p[0], t[0], strict=True)]
    close(rows, np.array(expected))
    assert jax.vmap(fl.jax.huber)(jnp.zeros((0, 3)), jnp.zeros((0, 3))).shape == (0,)
    z, y = p.reshape(2, 6, 5), jnp.arange(12).reshape(2, 6) % 5
    close(jax.vmap(jax.grad(fl.jax.cross_entropy))(z, y), jax.vmap(jax.grad(cross_entropy))(z, y))
    classes = jnp.stack([z[0, 0], 2.0 * z[0, 0]]) ** 2
    rows = jax.vmap(lambda a, b, c: fl.jax.cross_entropy(a, b, class_weight=c, reduction="none"))(z, y, classes)
    for got, *given in zip(rows, z, y, classes, strict=True):
        a, b, c = map(np.asarray, given)
        close(got, fl.cross_entropy(a, b, class_weight=c, reduction="none"), 1e-6)


def test_control_flow():
    p, t = drawn(3, 20)

    def run(f):
        def step(x, y):
            value, slope = jax.value_and_grad(f)(x, y)
            return x - 0.1 * slope, value

        return jax.lax.scan(step, p[0], t)

    close(run(fl.jax.huber), run(huber))
    close(*(jax.grad(lambda x, f=f: run_sum(f, x, t))(p[0]) for f in (fl.jax.huber, huber)))
    close(*(jax.grad(jax.checkpoint(lambda x, f=f: f(jnp.sin(x), t[0])))(p[0]) for f in (fl.jax.huber, huber)))


def run_sum(f, x, t):
    return jax.lax.scan(lambda c, y: (c * 0.9, f(c, y)), x, t)[1].sum()


def test_donation():
    p, t = drawn(1000)
    step = jax.jit(lambda a, b: a - jax.grad(fl.jax.huber)(a, b), donate_argnums=0)
    expected = p - jax.grad(huber)(p, t)
    x, y = p + 0.0, t + 0.0
    for _ in range(3):
        close(step(x + 0.0, y), expected)
    assert y.tolist() == t.tolist()


@pytest.mark.parametrize("name", ["huber", "cross_entropy"])
def test_a_gradient_that_takes_the_buffer_of_its_donated_prediction(name):
    # The kernels read predictions after they wrote parts of the gradient: XLA must keep the two apart in the call, and
    # move the gradient over afterwards.
    loss, own = getattr(fl.jax, name), {"huber": huber, "cross_entropy": cross_entropy}[name]
    p, t = drawn(600, 50) if name == "cross_entropy" else drawn(30_000)
    t = jnp.argmax(t, axis=1) if name == "cross_entropy" else t
    expected = jax.value_and_grad(own)(p, t)
    x = p + 0.0
    place = x.unsafe_buffer_pointer()
    value, slope = jax.jit(jax.value_and_grad(loss), donate_argnums=0)(x, t)
    assert x.is_deleted()
    assert slope.unsafe_buffer_pointer() == place
    close((value, slope), expected)


@pytest.mark.parametrize("labels", [np.int32, np.int8, np.uint8])
def test_integer_labels_have_no_gradient(labels):
    z, _ = drawn(6, 3)
    y = jnp.asarray([0, 1, 2, 0, 1, 2], labels)
    close(jax.jit(jax.value_and_grad(fl.jax.cross_entropy))(z, y), jax.value_and_grad(cross_entropy)(z, y))
    p, t = z[:, 0], jnp.asarray([0, 1, 1, 0, 1, 0], labels)
    both = [jax.jit(jax.grad(f))(p, t) for f in (fl.jax.bce_with_logits, bce_with_logits)]
    close(*both)


def test_the_gradient_by_a_target_is_refused():
    p, t = drawn(6)
    told = r"huber: target is differentiated, but there is no derivative by it; pass jax.lax.stop_gradient\(target\)"
    for call in (
        lambda: jax.grad(fl.jax.huber, 1)(p, t),
        lambda: jax.jit(jax.grad(lambda x: fl.jax.huber(x, 2.0 * x)))(p),
        lambda: jax.jvp(fl.jax.huber, (p, t), (p, t)),
        lambda: jax.hessian(fl.jax.huber, 1)(p, t),
        lambda: jax.lax.scan(lambda c, _: (jax.grad(lambda a: fl.jax.huber(p, a))(c), c), t, jnp.arange(2)),
    ):
        with pytest.raises(TypeError, match=told):
            call()
    with pytest.raises(TypeError, match="huber: weight is differentiated"):
        jax.grad(lambda w: fl.jax.huber(p, t, weight=w))(t)
    with pytest.raises(TypeError, match="lambda_rank: relevance is differentiated"):
        jax.grad(lambda y: fl.jax.lambda_rank(p, y, reduction="none").sum())(t)
    stopped = jax.grad(lambda x: fl.jax.huber(x, jax.lax.stop_gradient(2.0 * x)))(p)
    close(stopped, jax.grad(lambda x: huber(x, jax.lax.stop_gradient(2.0 * x)))(p))
    # What is by the prediction alone, of a function of both, is right.
    close(jax.grad(lambda x: fl.jax.huber(x, t) + (x * t).sum())(p), jax.grad(huber)(p, t) + t)


def test_missing_derivatives_are_told():
    z, _ = drawn(4, 3)
    y = jnp.arange(4) % 3
    with pytest.raises(TypeError, match=r"cross_entropy has no second derivative in fl\.jax"):
        jax.hessian(fl.jax.cross_entropy)(z, y)
    with pytest.raises(TypeError, match=r"lambda_rank has no second derivative in fl\.jax"):
        jax.jacfwd(jax.grad(lambda x: fl.jax.lambda_rank(x, z[:, 1] > 0, reduction="none").sum()))(z[:, 0])
    with pytest.raises(TypeError, match=r"log_cosh has no third derivative in fl\.jax"):
        jax.grad(lambda x: jax.hessian(fl.jax.log_cosh)(x, z[0]).sum())(z[1])


def test_refusals():
    p, t = drawn(5)
    with pytest.raises(fl.CallValueError, match=r"huber: target has shape \(3,\); expected \(5,\)"):
        fl.jax.huber(p, t[:3])
    with pytest.raises(fl.CallValueError, match=r"huber: weight has shape \(3,\); expected \(5,\)"):
        fl.jax.huber(p, t, weight=t[:3])
    with pytest.raises(fl.CallTypeError, match="huber: prediction has dtype int32; expected float64"):
        fl.jax.huber(jnp.arange(5), t)
    with pytest.raises(fl.CallTypeError, match="huber: delta is traced; expected a Python number"):
        jax.jit(lambda d: fl.jax.huber(p, t, delta=d))(2.0)
    with pytest.raises(fl.CallTypeError, match="dleta is not a parameter; did you mean delta"):
        fl.jax.huber(p, t, dleta=2.0)
    with pytest.raises(AttributeError, match="did you mean huber"):
        fl.jax.hubre  # noqa: B018
    with pytest.raises(TypeError, match="huber: weight and sample_weight are both given"):
        fl.jax.huber(p, t, weight=t, sample_weight=t)


def test_errors_of_values_reach_the_caller():
    p, t = drawn(5)
    with pytest.raises(Exception, match=r"bce: an input is outside its domain; allowed: prediction \[0, 1\]"):
        jax.jit(jax.grad(fl.jax.bce))(jnp.full(5, 1.5), t).block_until_ready()
    with pytest.raises(Exception, match=r"huber: an input is outside .* weight \[0, inf\)"):
        jax.block_until_ready(fl.jax.huber(p, t, weight=-t))
    assert np.isfinite(fl.jax.bce(t, t).item())


def test_numpy_losses_of_jax_arrays():
    p, t = drawn(5)
    assert fl.huber(p, t) == fl.huber(np.asarray(p), np.asarray(t))
    for call in (jax.jit(fl.huber), jax.grad(fl.huber), jax.vmap(lambda x, y: fl.huber(x[None], y[None]))):
        with pytest.raises(fl.CallTypeError, match=r"huber: prediction is traced by JAX; take the loss from fl\.jax"):
            call(p, t)


def test_losses_of_a_users_own():
    p, t = drawn(8)
    quartic, square = fl.formula("(p - t)**4", name="mine"), fl.formula("(p - t)**2", name="mine")
    for loss, theirs in (
        (quartic, lambda x, y: ((x - y) ** 4).mean()),
        (square, lambda x, y: ((x - y) ** 2).mean()),
        (0.5 * fl.mse + 0.5 * fl.mae, lambda x, y: (0.5 * (x - y) ** 2 + 0.5 * jnp.abs(x - y)).mean()),
        (fl.huber.bind(delta=0.3), lambda x, y: huber(x, y, 0.3)),
        ("huber:delta=0.3", lambda x, y: huber(x, y, 0.3)),
    ):
        close(jax.jit(jax.value_and_grad(fl.jax.loss(loss)))(p, t), jax.value_and_grad(theirs)(p, t))
    levels = fl.jax.loss("quantile", q=(0.1, 0.9))
    expected = fl.quantile(np.zeros((8, 2), np.float32), np.asarray(t), q=(0.1, 0.9))
    close(levels(jnp.zeros((8, 2)), t), expected)


def test_large_calls_in_threads():
    # Above the size from which drivers are parallel, from several Python threads at once.
    p, t = drawn(200_000)
    expected, found = jax.value_and_grad(huber)(p, t), []
    step = jax.jit(jax.value_and_grad(fl.jax.huber))
    runners = [threading.Thread(target=lambda: found.append(step(p, t))) for _ in range(4)]
    for r in runners:
        r.start()
    for r in runners:
        r.join()
    assert len(found) == 4
    for got in found:
        close(got, expected, 1e-4)
        assert np.array_equal(got[1], found[0][1])
    before = fl.get_num_threads()
    fl.set_num_threads(1)
    try:
        assert step(p, t)[0] == found[0][0]
    finally:
        fl.set_num_threads(before)


PROGRAM = """
import sys
import jax, jax.numpy as jnp
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import fastloss as fl
for name in sys.argv[2:]:
    print(getattr(fl.jax, name)(jnp.array([3.0]), jnp.array([0.0])).item())
"""


def test_the_persistent_cache_of_compiled_programs(tmp_path):
    # The second process compiles nothing anew, and its handlers lie elsewhere.
    def run(*names):
        ran = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), *names], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return [float(x) for x in ran.stdout.split()]

    first = run("mse", "huber")
    stored = sorted(f.name for f in tmp_path.iterdir() if "atime" not in f.name)
    second = run("huber", "mse")
    assert first == [9.0, 2.5]
    assert second == [2.5, 9.0]
    assert stored
    assert stored == sorted(f.name for f in tmp_path.iterdir() if "atime" not in f.name)


def test_callbacks_where_the_runtime_has_no_custom_call(monkeypatch):
    from fastloss.interop import jax_rules

    loss = fl.jax.loss(fl.formula("(p - t)**4", name="elsewhere"))
    monkeypatch.setattr(jax_rules, "served", lambda *_: None)
    p, t = drawn(8)

    def theirs(x, y):
        return ((x - y) ** 4).mean()

    for transform in (lambda f: jax.jit(jax.value_and_grad(f)), jax.hessian, lambda f: jax.vmap(jax.grad(f))):
        args = (p[:, None], t[:, None]) if transform is not jax.hessian else (p, t)
        close(transform(loss)(*args), transform(theirs)(*args), 1e-4)
