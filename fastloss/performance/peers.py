"""Contestants torch and JAX: each loss by the library's own function where it has one, else by its traced formula.

Both libraries differentiate the value automatically, as in normal use.
"""

import dataclasses
import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..cpu.runtime.threads import get_num_threads
from ..spec.graph import Graph
from ..spec.render import Dialect, function
from . import numpy_reference
from .cases import Case, Data
from .contestants import Contestant, Outcome
from .numpy_reference import arrays, traced

__all__ = ["jax", "torch", "torch_compiled"]


class Library(NamedTuple):
    """Array functions of a library that the loops over rows use beyond the functions in formulas."""

    dialect: Callable[[str], Dialect]
    log_softmax: Callable[[Any], Any]
    pick: Callable[[Any, Any], Any]
    """Function from scores (n, K) and labels to the labels' entries (n,)."""
    others: Callable[[Any, Any, float], Any]
    """Function that returns scores (n, K) with a constant at the labels."""
    largest: Callable[[Any], Any]
    ranks: Callable[[Any], Any]
    """Function from (n, K) to each entry's rank in its row, from 1."""
    sort: Callable[[Any], Any]
    """Function that sorts each row in ascending order."""
    softplus: Callable[[Any], Any]
    columns: Callable[[int], Any]
    """Function from K to the array of 0 to K - 1."""


def value(case: Case, library: Library) -> Callable[..., Any]:
    """Return the reduced loss as a function of the library's arrays, from the formula."""
    asked = dataclasses.replace(case, mode="value")
    mean = case.bound.record.reduction == "mean"
    if not case.classes:
        names, graph = arrays(case), Graph()
        results = traced(asked, **{n: graph.named("input", n) for n in names})
        around = "{}.mean()" if mean else "{}.sum()"
        f = function(library.dialect(case.dtype), names, {"value": (results["value"], around)}).compile()
        return lambda *given: f(*given)[0]
    names, results = numpy_reference.operands_and_results(asked)
    f = function(library.dialect(case.dtype), names, {"value": (results["value"], "{}")}).compile()
    return _rows(case, library, lambda *given: f(*given)[0])


def _rows(case: Case, library: Library, f: Callable[..., Any]) -> Callable[..., Any]:
    """Return the mean over rows of a formula in its loop."""
    k = case.classes
    given = case.bound.defaults
    beta = given.get("scale", 1.0) / given.get("temperature", 1.0)

    def hot(z: Any, y: Any) -> Any:
        return library.others(0.0 * z, y, 1.0)

    def sparse(z: Any, t: Any) -> Any:
        down = -library.sort(-z)
        sums = down.cumsum(-1)
        size = (1.0 + down * (library.columns(k) + 1) > sums).sum(-1)
        return f(z - ((library.pick(sums, size - 1) - 1.0) / size)[:, None], t).sum(-1).mean()

    def evidence(z: Any, t: Any) -> Any:
        e = library.softplus(z)
        return f(e, t, e.sum(-1)[:, None], ((1.0 - t) * e).sum(-1)[:, None]).sum(-1).mean()

    def angular(z: Any, y: Any) -> Any:
        x = library.pick(z, y)
        return -library.pick(library.log_softmax(beta * (z + hot(z, y) * (f(x) - x)[:, None])), y).mean()

    def soft(z: Any) -> Any:
        return library.log_softmax(beta * z)

    loops: dict[tuple[str, str], Callable[..., Any]] = {
        ("softmax", "labels"): lambda z, y: f(library.pick(library.log_softmax(z), y)).mean(),
        ("softmax", "probabilities"): lambda z, t: f(library.log_softmax(z), t).sum(-1).mean(),
        ("log_probs", "labels"): lambda z, y: f(library.pick(z, y)).mean(),
        ("log_probs", "probabilities"): lambda z, t: f(z, t).sum(-1).mean(),
        ("divergence", "probabilities"): lambda z, t: f(z, t).sum(-1).mean(),
        ("margin", "labels"): lambda z, y: library.others(f(z - library.pick(z, y)[:, None]), y, 0.0).mean(),
        ("top_margin", "labels"): lambda z, y: f(
            library.largest(library.others(z, y, -float("inf"))) - library.pick(z, y)
        ).mean(),
        ("ensemble", "number"): lambda z, t: f(z, t[:, None], library.ranks(z)).mean() * k,
        ("sparsemax", "labels"): lambda z, y: sparse(z, hot(z, y)),
        ("sparsemax", "probabilities"): sparse,
        ("ordinal", "labels"): lambda z, y: f(z, (y[:, None] > library.columns(k)) * 1.0).sum(-1).mean(),
        ("evidence", "labels"): lambda z, y: evidence(z, hot(z, y)),
        ("evidence", "probabilities"): evidence,
        ("distillation", "logits"): lambda z, t: f(soft(z), soft(t)).sum(-1).mean() / (beta * beta),
        ("angular", "labels"): angular,
    }
    return loops[case.bound.record.loop, case.target]


# torch ---------------------------------------------------------------------------------------------------------------

WORDS = ("exp", "expm1", "log", "log1p", "maximum", "minimum", "sign", "sqrt", "tanh", "abs", "where", "pow")


@cache
def _torch() -> Library:
    import torch

    def at(z: Any, y: Any) -> Any:
        return torch.nn.functional.one_hot(y, z.shape[-1]).bool()

    def typed(dtype: str) -> Callable[[float], Any]:
        return lambda number: torch.tensor(number, dtype=getattr(torch, dtype))

    special = {
        "lgamma": torch.lgamma,
        "digamma": torch.digamma,
        "trigamma": lambda x: torch.polygamma(1, x),
        "ndtr": torch.special.ndtr,
        "log1p_unit": torch.log1p,
    }
    words = {**{w: getattr(torch, w) for w in WORDS}, **special}
    return Library(
        lambda dtype: Dialect(words, typed(dtype)),
        lambda z: torch.log_softmax(z, -1),
        lambda z, y: z.gather(1, y[:, None])[:, 0],
        lambda z, y, number: z.masked_fill(at(z, y), number),
        lambda z: z.amax(-1),
        lambda z: (z.argsort(-1).argsort(-1) + 1).to(z.dtype),
        lambda z: z.sort(-1).values,
        torch.nn.functional.softplus,
        torch.arange,
    )


def _functional(case: Case, compiled: bool) -> Callable[..., Any] | None:
    """Return torch's own function for the loss with its default parameters."""
    import torch

    own = torch.nn.functional
    # Its gaussian_nll_loss branches on the data, which its compiler refuses.
    if case.parameters or case.target == "probabilities" or (compiled and case.loss == "gaussian_nll"):
        return None
    known: dict[str, Callable[..., Any]] = {
        "mse": own.mse_loss,
        "mae": own.l1_loss,
        "huber": own.huber_loss,
        "smooth_l1": own.smooth_l1_loss,
        "poisson": own.poisson_nll_loss,
        "gaussian_nll": lambda mean, var, t: own.gaussian_nll_loss(mean, t, var),
        "bce": own.binary_cross_entropy,
        "bce_with_logits": own.binary_cross_entropy_with_logits,
        "logistic": own.soft_margin_loss,
        "cross_entropy": own.cross_entropy,
        "nll": own.nll_loss,
        "multi_margin": own.multi_margin_loss,
        "margin_ranking": own.margin_ranking_loss,
        "hinge_embedding": own.hinge_embedding_loss,
    }
    return known.get(case.loss)


def torch(case: Case, data: Data, compiled: bool = False) -> Contestant | None:
    """Build torch's forward and backward pass on CPU tensors."""
    import torch as t

    t.set_num_threads(get_num_threads())
    f = _functional(case, compiled) or value(case, _torch())
    if compiled:
        f = t.compile(f, fullgraph=True, dynamic=False)
    xs = [t.from_numpy(p.copy()).requires_grad_(case.mode != "value") for p in data.predictions]
    target = [] if data.target is None else [t.from_numpy(data.target)]
    if case.mode == "value":
        return Contestant(lambda: f(*xs, *target), lambda result: Outcome(result.item(), ()))

    def call() -> Any:
        loss = f(*xs, *target)
        return loss, t.autograd.grad(loss, xs)

    if case.mode == "value_and_grad":
        return Contestant(call, lambda r: Outcome(r[0].item(), tuple(g.numpy() for g in r[1])))
    return _torch_second(case, f, xs, target)


def _torch_second(case: Case, f: Callable[..., Any], xs: list[Any], target: list[Any]) -> Contestant | None:
    """Return both derivatives of an elementwise loss, by differentiating twice."""
    import torch as t

    if case.classes:
        return None
    n = case.size if case.bound.record.reduction == "mean" else 1

    def call() -> Any:
        first = t.autograd.grad(f(*xs, *target) * n, xs, create_graph=True)
        return first, [t.autograd.grad(g.sum(), x, retain_graph=True)[0] for g, x in zip(first, xs, strict=True)]

    try:
        call()
    except RuntimeError:  # a slope that is constant in pieces has no graph to differentiate
        return None
    return Contestant(call, lambda r: Outcome(None, tuple(x.numpy(force=True) for part in r for x in part)))


def torch_compiled(case: Case, data: Data) -> Contestant | None:
    """Build torch's forward and backward pass, both compiled by torch.compile."""
    import torch as t

    if case.mode == "grad_and_hess":
        return None
    t._dynamo.reset()
    return torch(case, data, compiled=True)


# JAX -----------------------------------------------------------------------------------------------------------------


@cache
def _jax() -> Any:
    os.environ.setdefault("PJRT_NPROC", str(get_num_threads()))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    settings: Any = jax.config
    settings.update("jax_enable_x64", True)
    return jax


@cache
def _jax_library() -> Library:
    jax = _jax()
    jnp, special = jax.numpy, jax.scipy.special

    def at(z: Any, y: Any) -> Any:
        return jnp.arange(z.shape[-1]) == y[:, None]

    def typed(dtype: str) -> Callable[[float], Any]:
        return lambda number: np.dtype(dtype).type(number)

    words = {
        **{w: getattr(jnp, {"pow": "power"}.get(w, w)) for w in WORDS},
        "lgamma": special.gammaln,
        "digamma": special.digamma,
        "trigamma": lambda x: special.polygamma(1, x),
        "ndtr": special.ndtr,
        "log1p_unit": jnp.log1p,
    }
    return Library(
        lambda dtype: Dialect(words, typed(dtype)),
        jax.nn.log_softmax,
        lambda z, y: jnp.take_along_axis(z, y[:, None], 1)[:, 0],
        lambda z, y, number: jnp.where(at(z, y), number, z),
        lambda z: z.max(-1),
        lambda z: (z.argsort(-1).argsort(-1) + 1).astype(z.dtype),
        lambda z: jnp.sort(z, -1),
        jax.nn.softplus,
        jnp.arange,
    )


def jax(case: Case, data: Data) -> Contestant | None:
    """Build JAX's jitted function on the CPU."""
    library = _jax()
    f = value(case, _jax_library())
    xs = [library.numpy.asarray(p) for p in data.predictions]
    target = [] if data.target is None else [library.numpy.asarray(data.target)]
    indices = tuple(range(len(xs)))
    wait = library.block_until_ready
    if case.mode == "value":
        step = library.jit(f)
        return Contestant(lambda: wait(step(*xs, *target)), lambda r: Outcome(float(r), ()))
    if case.mode == "value_and_grad":
        step = library.jit(library.value_and_grad(f, indices))
        return Contestant(
            lambda: wait(step(*xs, *target)), lambda r: Outcome(float(r[0]), tuple(map(np.asarray, r[1])))
        )
    return None if case.classes else _jax_second(case, library, f, xs, target)


def _jax_second(case: Case, library: Any, f: Callable[..., Any], xs: list[Any], target: list[Any]) -> Contestant:
    """Return both derivatives of an elementwise loss; the Hessian times a vector of ones is its diagonal."""
    n = case.size if case.bound.record.reduction == "mean" else 1

    def both(*given: Any) -> Any:
        parts, rest = given[: len(xs)], given[len(xs) :]
        pairs = []
        for i, x in enumerate(parts):

            def first(x: Any, i: int = i) -> Any:
                return library.grad(lambda v: f(*parts[:i], v, *parts[i + 1 :], *rest) * n)(x)

            pairs.append(library.jvp(first, (x,), (library.numpy.ones_like(x),)))
        return [p[0] for p in pairs], [p[1] for p in pairs]

    step = library.jit(both)
    read = lambda r: Outcome(None, tuple(np.asarray(x) for part in r for x in part))  # noqa: E731
    return Contestant(lambda: library.block_until_ready(step(*xs, *target)), read)
