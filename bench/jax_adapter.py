"""`fl.jax` beside the same losses in JAX's own operations: `jit(value_and_grad)`, float32, 2 threads.

    python -m bench.jax_adapter [--write]

Both take turns in one process. A row gives the medians and the median of the ratios of neighbours, so that other work
on the machine matters little. Small calls are timed in groups of 50. `--write` puts the table into
bench/results/jax_adapter.md.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fastloss as fl
from bench.beside import tabulate


def huber(p: Any, t: Any) -> Any:
    """Mean Huber loss, delta 1."""
    a = jnp.abs(p - t)
    return jnp.where(a <= 1.0, 0.5 * a * a, a - 0.5).mean()


def mse(p: Any, t: Any) -> Any:
    """Mean squared error."""
    return ((p - t) ** 2).mean()


def bce_with_logits(p: Any, t: Any) -> Any:
    """Mean binary cross-entropy of logits, as optax has it."""
    return -(t * jax.nn.log_sigmoid(p) + (1.0 - t) * jax.nn.log_sigmoid(-p)).mean()


def cross_entropy(z: Any, y: Any) -> Any:
    """Mean cross-entropy of integer labels."""
    return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean()


def cases(n: int) -> dict[str, tuple[Callable[..., Any], Callable[..., Any], Any, Any]]:
    """Return fastloss's and JAX's loss of each row, with prediction and target."""
    rng = np.random.default_rng(0)
    p, t = (jnp.asarray(x, np.float32) for x in rng.normal(size=(2, n)))
    k = 10 if n < 1e6 else 1000
    z, y = p.reshape(n // k, k), jnp.asarray(rng.integers(k, size=n // k))
    return {
        "huber": (fl.jax.huber, huber, p, t),
        "mse": (fl.jax.mse, mse, p, t),
        "bce_with_logits": (fl.jax.bce_with_logits, bce_with_logits, p, jax.nn.sigmoid(t)),
        f"cross_entropy[K={k}]": (fl.jax.cross_entropy, cross_entropy, z, y),
    }


def seconds(step: Callable[..., Any], p: Any, t: Any, calls: int) -> float:
    """Return the mean time of value and gradient (seconds)."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(step(p, t))
    return (time.perf_counter() - start) / calls


def measured(own: Any, other: Any, p: Any, t: Any, n: int) -> tuple[float, float, float]:
    """Return the medians of both (seconds), and the median ratio of neighbours, JAX's over fastloss's."""
    calls, rounds = (50, 60) if n < 1e6 else (1, 15)
    steps = [jax.jit(jax.value_and_grad(loss)) for loss in (own, other)]
    for step in steps:
        seconds(step, p, t, 3)
    times = np.array([[seconds(step, p, t, calls) for step in steps] for _ in range(rounds)])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), float(np.median(times[:, 1] / times[:, 0]))


def main() -> None:
    """Measure, and write the table where `--write` is given."""
    fl.set_num_threads(2)
    tabulate("`fl.jax` beside JAX's own operations", ("fl.jax", "JAX"), cases, measured, "jax_adapter")


if __name__ == "__main__":
    main()
