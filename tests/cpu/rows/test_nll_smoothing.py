"""Label smoothing of log-probabilities, against torch's cross-entropy, whose log-softmax leaves them as they are."""

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch", reason="needs the peers extra")
F = torch.nn.functional


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    z = rng.normal(0, 2, (9, 5))
    labels = rng.integers(0, 5, 9)
    labels[4] = -100
    return z - np.log(np.exp(z).sum(1, keepdims=True)), labels, rng.uniform(0.5, 2.0, 5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_labels_as_torch(rows, dtype, reduction, weighted):
    lp, labels, cw = rows
    given = {"label_smoothing": 0.2, "class_weight": cw if weighted else None, "reduction": reduction}
    theirs = F.cross_entropy(
        *(torch.tensor(lp), torch.tensor(labels)),
        weight=torch.tensor(cw) if weighted else None,
        label_smoothing=0.2,
        reduction=reduction,
    )
    value, _ = fl.nll.value_and_grad(lp.astype(dtype), labels, **given)
    np.testing.assert_allclose(value, theirs, rtol=1e-12 if dtype is np.float64 else 2e-6)
    # Again, by the plan of small calls, and without the gradient.
    np.testing.assert_allclose(fl.nll(lp.astype(dtype), labels, **given), value, rtol=1e-6)


def test_gradient_and_probabilities(rows):
    lp, labels, cw = rows
    target = np.full((9, 5), 0.2 / 5) + 0.8 * np.eye(5)[np.maximum(labels, 0)]
    kept = labels >= 0
    grad = fl.nll.value_and_grad(lp, labels, label_smoothing=0.2, class_weight=cw, reduction="sum")[1]
    np.testing.assert_allclose(grad, -(target * cw) * kept[:, None], rtol=1e-12)
    hot = np.eye(5)[labels[kept]]
    for _ in range(2):
        dense = fl.nll(lp[kept], hot, label_smoothing=0.2)
        theirs = F.cross_entropy(torch.tensor(lp[kept]), torch.tensor(hot), label_smoothing=0.2)
        assert dense == pytest.approx(theirs.item(), rel=1e-12)
    assert fl.nll(lp, labels) == pytest.approx(F.nll_loss(torch.tensor(lp), torch.tensor(labels)).item(), rel=1e-12)
