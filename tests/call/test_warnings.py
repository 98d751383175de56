"""Numbers that overflow, infinities and NaN in any input of any loss: no warning of NumPy leaks from the call.

Warnings are errors in these tests; kernels are those that other tests compile.
"""

import contextlib

import array_cases
import numpy as np
import pytest
from registry_calls import NAMES, within

import fastloss as fl
from fastloss.spec.record import LOOPS

pytestmark = pytest.mark.jit

# As a prediction in float32, 1e300 is infinite; a target of float64 must be converted.
EXTREMES = [1e300, -1e300, np.inf, -np.inf, np.nan]


def put(x, value, at):
    """A copy with one number replaced, or all of them, in the array's own dtype."""
    x = x.copy()
    with np.errstate(all="ignore"):
        x.flat[at] = value
    return x


def given(record):
    """Usual inputs by name: predictions in float32, everything else in float64."""
    if record.family == "arrays":
        made = array_cases.SAMPLES[record.name].make(np.random.default_rng(7))
        made = {k: a for k, a in made.items() if a is not None}
        return {k: a.astype(np.float32) if k in record.predictions else a for k, a in made.items()}
    if record.family == "elementwise":
        domains = zip(record.predictions, record.prediction_domains, strict=True)
        made = {name: within(domain, (6,), np.float32) for name, domain in domains}
        return made if record.target is None else {**made, "target": within(record.target_domain, (6,), np.float64)}
    z, loop = np.linspace(-1.0, 1.0, 12, dtype=np.float32).reshape(4, 3), LOOPS[record.loop]
    dense = np.full(4 if loop.dense == "number" else (4, 3), 1 / 3)
    return {"z": z, "target": dense if loop.dense else np.zeros(4, np.int64)}


def call(loss, inputs):
    """Call a loss with its inputs by name; what it refuses is no matter here."""
    record = loss.record
    if record.family == "arrays":
        args, named = (), inputs
    else:
        predictions = tuple(inputs[name] for name in record.predictions)
        args, named = (predictions if len(predictions) > 1 else predictions[0], inputs.get("target")), {}
    with contextlib.suppress(ValueError):
        loss.value_and_grad(*args, **named)


@pytest.mark.filterwarnings("ignore:.*the marginals are wrong:RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_no_warning_leaks(name):
    loss = fl.LOSSES[name]
    usual = given(loss.record)
    floats = {key: array for key, array in usual.items() if array.dtype.kind == "f" and array.size}
    for key, array in floats.items():
        for value in EXTREMES:
            for at in (array.size // 2, slice(None)):
                call(loss, {**usual, key: put(array, value, at)})


def test_scalar_targets_weights_and_cotangents():
    z = np.ones(4, np.float32)
    assert fl.mae(z, 1e300) == np.inf
    assert fl.mae(z, np.array(1e300)) == np.inf
    assert fl.mae(z, z + 1, weight=np.full(4, 1e300), reduction="sum") == np.inf
    fl.cross_entropy(np.ones((2, 3), np.float32), np.full((2, 3), 1 / 3), weight=[1e308, 1e308])
    _, pull = fl.sequence_log_probs.vjp(np.ones((1, 2, 3), np.float32), [[0, 1]])
    assert not np.isfinite(pull(np.array([1e300]))).all()
    fl.linear_cross_entropy(np.ones((2, 3)), np.ones((4, 3)), [0, 1], weight=[np.inf, 0.0], reduction="none")
