"""Losses of two views beside their authors' code in torch, and the same in NumPy."""

import numpy as np

import fastloss as fl

from .case import Bench, in_torch
from .pairs import embeddings


def barlow_numpy(z1, z2, lam=0.0051, eps=1e-5):
    """Barlow Twins with its gradients."""
    n = len(z1)
    factors = [1 / np.sqrt(z.var(0) + eps) for z in (z1, z2)]
    a, b = ((z - z.mean(0)) * f for z, f in zip((z1, z2), factors, strict=True))
    c = a.T @ b / n
    on = np.diag(c) - 1
    squares = c * c
    value = (on * on).sum() + lam * (squares.sum() - np.diag(squares).sum())
    c *= 2 * lam / n
    np.fill_diagonal(c, 2 * on / n)
    grads = []
    for own, other, f in ((a, b @ c.T, factors[0]), (b, a @ c, factors[1])):
        grads.append((other - own * (other * own).mean(0)) * f)
    return float(value), tuple(grads)


def barlow_torch(torch, a, b):
    """The authors' code."""
    u, v = (torch.nn.functional.batch_norm(z, None, None, training=True) for z in (a, b))
    c = u.T @ v / len(a)
    on = ((torch.diagonal(c) - 1) ** 2).sum()
    return on + 0.0051 * (c.flatten()[:-1].view(len(c) - 1, len(c) + 1)[:, 1:] ** 2).sum()


def vicreg_torch(torch, a, b):
    """The authors' code."""
    value = 25 * torch.nn.functional.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(0)
        c = z.T @ z / (len(z) - 1)
        value = value + 25 * torch.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean() / 2
        value = value + (c.flatten()[:-1].view(len(c) - 1, len(c) + 1)[:, 1:] ** 2).sum() / len(c)
    return value


def vicreg_numpy(z1, z2):
    """VICReg with its gradients."""
    n, d = z1.shape
    difference = z1 - z2
    value = 25 * (difference * difference).mean()
    grads = []
    for z, sign in ((z1, 1), (z2, -1)):
        centred = z - z.mean(0)
        c = centred.T @ centred / (n - 1)
        deviation = np.sqrt(np.diag(c) + 1e-4)
        np.fill_diagonal(c, 0)
        value += 12.5 * np.maximum(1 - deviation, 0).mean() + (c * c).sum() / d
        pull = np.where(deviation < 1, -12.5 / (d * (n - 1)) / deviation, 0)
        grads.append(sign * 50 / (n * d) * difference + pull * centred + 4 / (d * (n - 1)) * (centred @ c))
    return float(value), tuple(grads)


def case(loss, n, d, numpy_loss, torch_loss):
    def make():
        arrays = embeddings(2, n, d)
        out = tuple(np.empty_like(a) for a in arrays)
        return {
            "fastloss": lambda: loss.value_and_grad(*arrays, out=out),
            "numpy": lambda: numpy_loss(*arrays),
            **in_torch(torch_loss, arrays),
        }

    return make


BENCHES = [
    Bench(f"{name}, {n} x {d}", case(loss, n, d, numpy_loss, torch_loss), "numpy", 1.0)
    for name, loss, numpy_loss, torch_loss in (
        ("Barlow Twins", fl.barlow_twins, barlow_numpy, barlow_torch),
        ("VICReg", fl.vicreg, vicreg_numpy, vicreg_torch),
    )
    for n, d in ((32, 16), (256, 128), (128, 2048))
]
