"""Losses of JAX arrays: a function of each name, under `jit`, `grad`, `vmap` and `scan`, and `loss` for any other loss.

``fastloss.jax.huber(pred, target)`` takes the arguments of ``fastloss.huber`` and returns a JAX array.
"""

from collections.abc import Callable
from typing import Any

from .interop.hosts import host, loss_of, no_attribute
from .losses.catalogue import LOSSES

__all__ = ["loss"]


def loss(loss: Any, **parameters: Any) -> Callable[..., Any]:
    """Return any loss as a function of JAX arrays, with derivatives.

    Parameters
    ----------
    loss : str or fastloss.Loss
        Loss: a name, "name:parameter=value", or a loss, such as a sum or one made by `fastloss.formula`.
    **parameters
        Parameters of the loss.

    Returns
    -------
    callable
        Function of predictions and target, with the options of the loss, for `jit`, `grad`, `vmap` and `scan`.

    Raises
    ------
    ModuleNotFoundError
        Without JAX (extra `jax`).

    Examples
    --------
    >>> import jax, jax.numpy as jnp  # doctest: +SKIP
    >>> loss = fl.jax.loss(0.5 * fl.mse + 0.5 * fl.mae)  # doctest: +SKIP
    >>> value, grad = jax.jit(jax.value_and_grad(loss))(jnp.array([1.0, -2.0]), jnp.zeros(2))  # doctest: +SKIP
    >>> value.item(), grad.tolist()  # doctest: +SKIP
    (2.0, [0.75, -1.25])
    """
    host("jax", "jax", "fastloss.jax.loss")
    from .interop.jax import function

    return function(loss_of(loss, parameters))


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module 'fastloss.jax' has no attribute {name!r}")
    if name not in [*LOSSES]:
        raise no_attribute("fastloss.jax", name)
    host("jax", "jax", f"fastloss.jax.{name}")
    from .interop.jax import function

    globals()[name] = function(LOSSES[name])
    return globals()[name]


def __dir__() -> list[str]:
    return [*__all__, *LOSSES]
