"""Optimal transport by linear programming."""

import numpy as np
import pytest


def program(a, b, cost):
    """The cheapest transport by linear programming: value and plan."""
    optimize = pytest.importorskip("scipy.optimize", reason="needs the peers extra")
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    found = optimize.linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b]), method="highs")
    return found.fun, found.x.reshape(n, m)
