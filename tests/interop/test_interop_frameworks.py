"""The recipes of docs/interop.md for training frameworks: called as the frameworks call them.

Transformers and Lightning are heavy to install: stand-ins make the calls that these packages document.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastloss as fl

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"


def recipe(heading):
    """Return the code below a heading of the page."""
    section = PAGE.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return section.split("```py", 1)[1].split("\n", 1)[1].split("```", 1)[0]


def parameters_of(compute_loss, micro_batches, logits, labels):
    """Return the gradient that one step of the Trainer accumulates: it calls the function once per micro-batch."""
    import torch

    z = logits.clone().requires_grad_()
    items = (labels != -100).sum()
    for part in torch.arange(len(labels)).chunk(micro_batches):
        outputs = SimpleNamespace(logits=z[part])
        compute_loss(outputs, labels[part], num_items_in_batch=items).backward()
    return z.grad


def test_hugging_face():
    torch = pytest.importorskip("torch")
    names = {}
    exec(recipe("Hugging Face").split("trainer =")[0], {"fl": fl}, names)
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 6, 11), torch.randint(11, (4, 6))
    labels[:, 4:] = -100
    labels[0, 2:] = -100
    z = logits.clone().requires_grad_()
    shifted = torch.nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
    loss = torch.nn.functional.cross_entropy(z.flatten(0, 1), shifted.flatten(), reduction="sum")
    expected = loss / (labels != -100).sum()
    expected.backward()
    whole = names["compute_loss"](SimpleNamespace(logits=logits), labels, num_items_in_batch=(labels != -100).sum())
    torch.testing.assert_close(whole, expected)
    for count in (1, 2, 4):
        got = parameters_of(names["compute_loss"], count, logits, labels)
        torch.testing.assert_close(got, z.grad)
    # Evaluation passes no number: the mean over the labels that count.
    mean = torch.nn.functional.cross_entropy(logits.flatten(0, 1), shifted.flatten())
    torch.testing.assert_close(names["compute_loss"](SimpleNamespace(logits=logits), labels), mean)


def test_a_tensor_as_divisor_is_read_at_each_call():
    torch = pytest.importorskip("torch")
    p, t, n = torch.ones(4), torch.zeros(4), torch.tensor(2)
    assert fl.torch.mse(p, t, divisor=n).item() == 2.0
    n.fill_(4)
    assert fl.torch.mse(p, t, divisor=n).item() == 1.0


def test_lightning():
    torch = pytest.importorskip("torch")

    class LightningModule(torch.nn.Module):
        def save_hyperparameters(self):
            pass

        def log(self, name, value):
            self.logged = {name: value.item()}

    names = {"fl": fl, "torch": torch, "lightning": SimpleNamespace(LightningModule=LightningModule)}
    exec(recipe("Lightning"), names)
    torch.manual_seed(0)
    model = names["Classifier"](torch.nn.Linear(3, 1))
    x, y = torch.randn(8, 3), torch.rand(8).round()
    loss = model.training_step((x, y), 0)
    loss.backward()
    z = model.model(x).squeeze(-1).detach().requires_grad_()
    p = z.sigmoid()
    share, alpha = torch.where(y == 1, p, 1.0 - p), torch.where(y == 1, 0.25, 0.75)
    expected = (-alpha * (1.0 - share) ** 1.5 * share.log()).mean()
    torch.testing.assert_close(loss, expected)
    expected.backward()
    torch.testing.assert_close(model.model.weight.grad, (z.grad[:, None] * x).sum(0, keepdim=True))
    assert model.logged == {"loss": loss.item()}


KERAS = """
import numpy as np
rng = np.random.default_rng(0)
X = rng.normal(size=(32, 4)).astype("float32")
w = rng.random(32).astype("float32")

def train(loss, y, units):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    return model.fit(X, y, sample_weight=w, epochs=3, batch_size=16, verbose=0, shuffle=False).history["loss"]

targets, labels = X[:, :1] * 2, (X[:, 0] > 0).astype("int64") + 1
for ours, theirs, y, units in (
    (huber, keras.losses.Huber(delta=0.5), targets, 1),
    (cross_entropy, keras.losses.SparseCategoricalCrossentropy(from_logits=True), labels, 3),
):
    np.testing.assert_allclose(train(ours, y, units), train(theirs, y, units), 1e-5)
"""


@pytest.mark.oracle
def test_keras(tmp_path):
    if find_spec("keras") is None or find_spec("jax") is None:  # an import needs the backend to be set
        pytest.skip("needs keras and jax")
    program = recipe("Keras 3").split("model.compile")[0] + KERAS
    environment = {**os.environ, "KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for_torch = program.replace("fl.jax", "fl.torch")
    ran = subprocess.run(
        [sys.executable, "-c", for_torch], env={**environment, "KERAS_BACKEND": "torch"}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
