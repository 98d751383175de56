"""`fl.torch` by torch's own checkers, beside torch's own losses, and beside the same loss of NumPy arrays."""

import copy
import pickle

import numpy as np
import pytest
from interop_cases import HELD, NAMES, case

import fastloss as fl

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.jit

quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
SOME = ("huber", "bce_with_logits", "cross_entropy", "gaussian_nll", "triplet", "lambda_rank", "dice", "ctc")


def tensors(x):
    return tuple(map(tensors, x)) if isinstance(x, tuple) else torch.from_numpy(np.array(x))


def leaves(name):
    """A call's tensors, those to differentiate by requiring grad; a function of them; which they are."""
    record, (args, named) = fl.LOSSES[name].record, case(name)
    args, named = tensors(args), {k: tensors(v) for k, v in named.items()}
    if named:
        own = [named[k].requires_grad_() for k in record.predictions if k in named]
    else:
        own = [x.requires_grad_() for x in (args[0] if type(args[0]) is tuple else args[:1])]
    return args, named, own


def by_leaves(function, args, named, own, **options):
    """The function of the leaves alone."""

    def call(*xs):
        where = {id(a): b for a, b in zip(own, xs, strict=True)}

        def swapped(x):
            return tuple(map(swapped, x)) if type(x) is tuple else where.get(id(x), x)

        return function(*swapped(args), **{k: where.get(id(v), v) for k, v in named.items()}, **options)

    return call


def plain(x):
    return tuple(map(plain, x)) if isinstance(x, tuple) else x.detach().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_has_the_gradient_of_numpy(name):
    args, named, own = leaves(name)
    value = getattr(fl.torch, name)(*args, **named)
    value.backward()
    expected, grads = fl.LOSSES[name].value_and_grad(*plain(args), **{k: plain(v) for k, v in named.items()})[:2]
    assert value.item() == expected
    for x, g in zip(own, grads if isinstance(grads, tuple) else (grads,), strict=True):
        assert np.array_equal(x.grad.numpy(), g)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if n not in HELD])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(name, reduction):
    args, named, own = leaves(name)
    options = {} if "reduction" in fl.LOSSES[name].defaults else {"reduction": reduction}
    function = by_leaves(getattr(fl.torch, name), args, named, own, **options)
    assert torch.autograd.gradcheck(function, own, atol=1e-4, rtol=1e-3)


CURVED = ("mse", "huber", "log_cosh", "bce_with_logits", "poisson", "focal")


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"reduction": "none"}, {"divisor": 3.0}], ids=str)
def test_gradgradcheck(name, options):
    args, named, own = leaves(name)
    function = by_leaves(getattr(fl.torch, name), args, named, own, **options)
    assert torch.autograd.gradgradcheck(function, own)


def test_gradgradcheck_with_weights():
    args, _, own = leaves("huber")
    weight = torch.arange(7.0, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda p: fl.torch.huber(p, args[1], weight=weight), own)
    assert torch.autograd.gradcheck(lambda p: fl.torch.huber(p, args[1], weight=weight, reduction="none"), own)


@pytest.mark.parametrize("name", ["cross_entropy", "gaussian_nll", "triplet"])
def test_a_missing_second_derivative_is_told(name):
    args, named, own = leaves(name)
    value = getattr(fl.torch, name)(*args, **named)
    grads = torch.autograd.grad(value, own, create_graph=True)
    with pytest.raises(RuntimeError, match=f"{name} has no second derivative in fl.torch"):
        sum(g.pow(2).sum() for g in grads).backward()


def test_a_third_derivative_is_told():
    args, _, (p,) = leaves("log_cosh")
    (g,) = torch.autograd.grad(fl.torch.log_cosh(p, args[1]), p, create_graph=True)
    (h,) = torch.autograd.grad(g.sum(), p, create_graph=True)
    with pytest.raises(RuntimeError, match=r"log_cosh has no third derivative in fl\.torch"):
        (h.sum() + p.sum()).backward()


def test_hessian_of_torch():
    args, _, (p,) = leaves("log_cosh")
    ours, theirs = (
        torch.autograd.functional.hessian(f, p)
        for f in (lambda x: fl.torch.log_cosh(x, args[1]), lambda x: (x - args[1]).cosh().log().mean())
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", SOME)
def test_opcheck(name):
    from fastloss.interop import torch_graph

    args, named, _ = leaves(name)
    seen = []

    def record(tensors, text):
        seen.append((tensors, text))
        return torch_graph.loss_in_graph(tensors, text)

    import fastloss.interop.torch as adapter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "loss_in_graph", record)
        patch.setattr(adapter, "_modes", lambda: 1)
        for reduction in ("mean", "none"):
            getattr(fl.torch, name)(*args, **named, reduction=reduction)
    assert len(seen) == 2
    for given in seen:
        torch.library.opcheck(torch_graph.loss_in_graph, given)


@quiet
@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled(name, reduction):
    torch.compiler.reset()  # else eight cases of one code exhaust the limit of recompilations
    args, named, own = leaves(name)
    loss = getattr(fl.torch, name)

    def step(*xs):
        return (by_leaves(loss, args, named, own, reduction=reduction)(*xs) * 2.0).sum()

    expected = torch.autograd.grad(step(*own), own)
    compiled = torch.compile(lambda a, n: (loss(*a, **n, reduction=reduction) * 2.0).sum(), fullgraph=True)
    got = torch.autograd.grad(compiled(args, named), own)
    torch.testing.assert_close(got, expected)


@quiet
def test_a_compiled_model_trains():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    x, y = torch.randn(32, 4), torch.randn(32)

    @torch.compile(fullgraph=True)
    def step(x, y):
        return fl.torch.huber(model(x).squeeze(-1), y, delta=0.5)

    step(x, y).backward()
    got = model.weight.grad.clone()
    model.zero_grad()
    F.huber_loss(model(x).squeeze(-1), y, delta=0.5).backward()
    torch.testing.assert_close(got, model.weight.grad)


PEERS = {
    "huber": (F.huber_loss, {"delta": 0.7}),
    "mse": (F.mse_loss, {}),
    "mae": (F.l1_loss, {}),
    "bce_with_logits": (F.binary_cross_entropy_with_logits, {}),
    "cross_entropy": (F.cross_entropy, {"label_smoothing": 0.1, "ignore_index": 2}),
    "nll": (F.nll_loss, {"ignore_index": 0}),
    "multi_margin": (F.multi_margin_loss, {}),
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_names_and_numbers_of_torch(name, reduction):
    theirs, options = PEERS[name]
    args, _, (p,) = leaves(name)
    up = torch.randn(7 if p.ndim == 1 else 4, dtype=torch.float64) if reduction == "none" else torch.tensor(1.5)
    weight = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64) if p.ndim == 2 else None
    given = {**options, "reduction": reduction, **({} if weight is None else {"weight": weight})}
    results = []
    for loss in (getattr(fl.torch, name), theirs):
        p.grad = None
        value = loss(*args, **given)
        value.backward(up)
        results.append((value.detach(), p.grad))
    torch.testing.assert_close(*results)


def test_classes_lie_along_axis_1_as_in_torch():
    z, y = torch.randn(2, 5, 3, 4, requires_grad=True), torch.randint(5, (2, 3, 4))
    torch.testing.assert_close(fl.torch.cross_entropy(z, y), F.cross_entropy(z, y))
    each = fl.torch.cross_entropy(z, y, reduction="none")
    each.backward(torch.ones_like(each))
    got, z.grad = z.grad, None
    F.cross_entropy(z, y, reduction="sum").backward()
    torch.testing.assert_close(got, z.grad)
    last = fl.torch.cross_entropy(z.movedim(1, -1), y, axis=-1)
    torch.testing.assert_close(last, F.cross_entropy(z, y))


def test_sample_weight_and_class_weight():
    z, y = torch.randn(6, 3, requires_grad=True), torch.randint(3, (6,))
    rows, classes = torch.rand(6), torch.rand(3)
    got = fl.torch.cross_entropy(z, y, sample_weight=rows)
    expected = (F.cross_entropy(z, y, reduction="none") * rows).sum() / rows.sum()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(fl.torch.cross_entropy(z, y, class_weight=classes), F.cross_entropy(z, y, classes))
    with pytest.raises(TypeError, match="cross_entropy: weight and class_weight are both given"):
        fl.torch.cross_entropy(z, y, weight=classes, class_weight=classes)
    p, t = torch.randn(6), torch.randn(6)
    assert fl.torch.huber(p, t, sample_weight=rows).item() == fl.torch.huber(p, t, weight=rows).item()
    with pytest.raises(TypeError, match="huber: weight and sample_weight are both given"):
        fl.torch.huber(p, t, weight=rows, sample_weight=rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half(dtype):
    p, t = torch.randn(50).to(dtype).requires_grad_(), torch.randn(50).to(dtype)
    loss = fl.torch.huber(p, t)
    loss.backward()
    wide = p.detach().float().requires_grad_()
    expected = F.huber_loss(wide, t.float())
    expected.backward()
    assert loss.dtype == p.grad.dtype == dtype
    assert loss.item() == expected.to(dtype).item()
    torch.testing.assert_close(p.grad, wide.grad.to(dtype), rtol=0.01, atol=1e-4)


def test_autocast():
    p, t = torch.randn(50, 4).bfloat16().requires_grad_(), torch.randn(50, 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = fl.torch.mse(p, t)
        expected = F.mse_loss(p.float(), t)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert p.grad.dtype == torch.bfloat16


def test_several_predictions():
    mean, var, t = torch.randn(9, requires_grad=True), torch.rand(9).add(0.1).requires_grad_(), torch.randn(9)
    results = []
    for call in (
        lambda: fl.torch.gaussian_nll((mean, var), t),
        lambda: fl.torch.gaussian_nll(mean, t, var=var),
        lambda: F.gaussian_nll_loss(mean, t, var, eps=1e-6),
    ):
        mean.grad = var.grad = None
        value = call()
        value.backward()
        results.append((value.detach(), mean.grad, var.grad))
    torch.testing.assert_close(results[0], results[2])
    torch.testing.assert_close(results[1], results[2])
    with pytest.raises(TypeError, match="the predictions as a tuple or by name; 3 arrays given"):
        fl.torch.gaussian_nll(mean, t, var)


def test_one_gradient_alone():
    anchor, positive, negative = torch.randn(3, 5, 4, dtype=torch.float64)
    fl.torch.triplet(anchor.requires_grad_(), positive, negative).backward()
    assert anchor.grad.abs().sum() > 0
    assert positive.grad is None


def test_graphs():
    p, t = torch.randn(20, requires_grad=True), torch.randn(20)
    loss = fl.torch.huber(p, t)
    loss.backward(retain_graph=True)
    once = p.grad.clone()
    loss.backward()
    torch.testing.assert_close(p.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    with torch.no_grad():
        assert not fl.torch.huber(p, t).requires_grad
    assert not fl.torch.huber(p.detach(), t).requires_grad
    p.grad = None
    (fl.torch.huber(p, t) * -3.0).backward()
    torch.testing.assert_close(p.grad, -3.0 * once)


def test_refusals():
    p, t = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    with pytest.raises(TypeError, match=r"huber: target requires grad, .* pass target.detach\(\)"):
        fl.torch.huber(p, t)
    with pytest.raises(TypeError, match=r"huber: weight requires grad, .* pass weight.detach\(\)"):
        fl.torch.huber(p, t.detach(), weight=t.abs())
    with pytest.raises(RuntimeError, match=r"torch\.func does not see into fl\.torch; use backward"):
        torch.func.grad(lambda x: fl.torch.huber(x, t.detach()))(p.detach())
    with pytest.raises(TypeError, match=r"or take the loss from fl\.torch"):
        fl.huber(p, t.detach())
    with pytest.raises(AttributeError, match="did you mean huber"):
        fl.torch.hubre  # noqa: B018
    with pytest.raises(ValueError, match="target has shape"):
        fl.torch.huber(p, torch.zeros(6))


def test_losses_of_a_users_own():
    p, t = torch.randn(5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    quartic = fl.formula("(p - t)**4", name="mine")
    square = fl.formula("(p - t)**2", name="mine")
    torch.testing.assert_close(fl.torch.Loss(quartic)(p, t), (p - t).pow(4).mean())
    torch.testing.assert_close(fl.torch.Loss(square)(p, t), (p - t).pow(2).mean())
    assert torch.autograd.gradgradcheck(lambda x: fl.torch.Loss(quartic)(x, t), p)
    risky = fl.torch.Loss("huber", reduction=fl.risk.CVaR(0.5))
    assert risky(p, t).item() == fl.huber(p.detach(), t, reduction=fl.risk.CVaR(0.5))


def test_module():
    weight = torch.tensor([1.0, 2.0, 3.0])
    loss = fl.torch.Loss("cross_entropy", weight=weight, label_smoothing=0.1)
    assert repr(loss) == "Loss('cross_entropy', label_smoothing=0.1, weight=<(3,)>)"
    assert repr(fl.torch.Loss("focal", gamma=1.5)) == "Loss('focal', gamma=1.5)"
    assert repr(fl.torch.Loss(fl.huber.bind(delta=2.0))) == "Loss(fastloss.huber.bind(delta=2.0))"
    assert list(loss.state_dict()) == ["weight"]
    z, y = torch.randn(6, 3, requires_grad=True), torch.randint(3, (6,))
    expected = F.cross_entropy(z, y, weight, label_smoothing=0.1)
    for same in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(same(z, y), expected)
    other = fl.torch.Loss("cross_entropy", weight=torch.zeros(3), label_smoothing=0.1)
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(z, y), expected)
    p, t = torch.randn(4), torch.randn(4)
    assert fl.torch.Loss(fl.huber.bind(delta=2.0))(p, t).item() == np.float32(fl.huber(p, t, delta=2.0))
    with pytest.raises(TypeError, match="gamma"):
        fl.torch.Loss("huber", gamma=1.5)


TRAINED = {
    "huber": (F.huber_loss, 1),
    "bce_with_logits": (F.binary_cross_entropy_with_logits, 1),
    "cross_entropy": (F.cross_entropy, 3),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_model_trains_to_the_same_losses(name):
    theirs, width = TRAINED[name]

    def train(loss):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, width))
        x = torch.randn(64, 8)
        y = (x[:, 0] > 0).float() if width == 1 else torch.randint(width, (64,))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for _ in range(200):
            optimizer.zero_grad()
            value = loss(model(x).squeeze(-1), y)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        return losses

    np.testing.assert_allclose(train(getattr(fl.torch, name)), train(theirs), atol=1e-5)
