"""Small valid inputs, and the assertion of an error with its whole text."""

import numpy as np
import pytest

import fastloss as fl

P = np.array([0.5, 1.5, -2.0, 3.0], np.float32)
T = np.array([1.0, 0.0, 1.0, 0.0], np.float32)
Z = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])
Y = np.array([2, 0])
jit = pytest.mark.jit


def arrays_in(x):
    if isinstance(x, np.ndarray):
        return [x]
    return [a for item in x for a in arrays_in(item)] if isinstance(x, (tuple, list)) else []


def refuse(error, text, function, *args, spoils=(), **kwargs):
    """Assert the error, its whole text, and that no array given has changed; `spoils` may have been written.

    The text of an error of a call begins with the loss's name, which `text` may leave out.
    """
    held = [a for k, v in enumerate(args) for a in arrays_in(v)]
    held += [a for k, v in kwargs.items() if k not in spoils for a in arrays_in(v)]
    before = [np.asarray(a).tobytes() for a in held]
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    if isinstance(caught.value, fl.CallError):
        assert type(caught.value) in (fl.CallTypeError, fl.CallValueError)
        loss = caught.value.loss
        assert loss == getattr(function, "__self__", function).name
        text = text if text.startswith(loss) else f"{loss}: {text}"
    else:
        assert type(caught.value) is error or error is AttributeError
    assert str(caught.value) == text
    assert [np.asarray(a).tobytes() for a in held] == before


def everywhere(loss):
    """The three ways to call a loss."""
    return [loss, loss.value_and_grad, loss.grad_and_hess]


three_ways = pytest.mark.parametrize("way", range(3), ids=["value", "value_and_grad", "grad_and_hess"])
