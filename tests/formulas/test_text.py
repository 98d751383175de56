"""Formulas from text: what they may hold, and that nothing else gets through."""

import numpy as np
import pytest

import fastloss as fl

TEXTS = {
    "(z - t)**2": lambda z, t: (z - t) ** 2,
    "(p - t)**2 * (1 + (p > t))": lambda p, t: (p - t) ** 2 * (1 + (p > t)),
    "abs(z - t) if z > t else 2 * abs(z - t)": lambda z, t: np.where(z > t, 1, 2) * np.abs(z - t),
    "0 < z < 1": lambda z, t: (z > 0) & (z < 1),
    "(not z > t) + (z > 0 and t > 0) + (z > 1 or t > 1) + 0.0": lambda z, t: (
        ~(z > t) + 1.0 * ((z > 0) & (t > 0)) + ((z > 1) | (t > 1))
    ),
    "np.where(z >= t, z, -z) + math.pi": lambda z, t: np.where(z >= t, z, -z) + np.pi,
    "log1p(exp(-abs(z))) + maximum(z, 0) - z*t": lambda z, t: np.logaddexp(0, z) - z * t,
    "softplus(z) - t * log(sigmoid(z))": lambda z, t: np.logaddexp(0, z) + t * np.logaddexp(0, -z),
    "clip(z, -1, 1) * sign(t) + sqrt(z**2)": lambda z, t: np.clip(z, -1, 1) * np.sign(t) + np.abs(z),
    "+z - -t + ~(z > t)": lambda z, t: z + t + ~(z > t),
    "hypot(z, t) + arcsinh(z) + cbrt(t) + exp2(z) + log10(2 + t * t)": lambda z, t: (
        np.hypot(z, t) + np.arcsinh(z) + np.cbrt(t) + np.exp2(z) + np.log10(2 + t * t)
    ),
    "sinh(z) + cosh(z) + heaviside(z, 0.5) + square(t) + reciprocal(2 + z * z)": lambda z, t: (
        np.sinh(z) + np.cosh(z) + np.heaviside(z, 0.5) + np.square(t) + np.reciprocal(2 + z * z)
    ),
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_mean_what_numpy_means(text):
    from fastloss.losses.custom.points import evaluated

    z, t = np.meshgrid(np.array([-2.5, -1.0, -0.2, 0.0, 0.4, 1.0, 3.0]), np.array([-1.0, 0.0, 0.4, 2.0]))
    with np.errstate(all="ignore"):
        expected = np.asarray(TEXTS[text](z, t), np.float64)
    found = evaluated(fl.formula(text).record.function, [z, t], []) if "t" in text.replace("sqrt", "") else None
    found = found or evaluated(fl.formula(text).record.function, [z], [])
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-13, atol=1e-14)


def test_helpers_and_parameters():
    loss = fl.formula("delta**2 * (s - 1)", s="sqrt(1 + u**2)", u="r / delta", r="z - t", delta=2)
    z, t = np.array([0.5, 3.0]), np.array([0.0, 0.0])
    expected = 4.0 * (np.sqrt(1.0 + (z / 2.0) ** 2) - 1.0)
    np.testing.assert_allclose(loss(z, t, reduction="none"), expected, rtol=1e-15)
    assert loss.defaults == {"delta": 2.0}


ESCAPES = [
    "__import__('os').system('true')",
    "z.__class__",
    "z.__class__.__mro__",
    "().__class__.__bases__[0].__subclasses__()",
    "(lambda: z)()",
    "(lambda x: x)(z)",
    "[x for x in (z, t)]",
    "[z, t][0]",
    "{z: t}",
    "{z}",
    "(z, t)",
    "z[0]",
    "z @ t",
    "z // t",
    "z % t",
    "z << 1",
    "z ^ t",
    "z is t",
    "z in t",
    "z := t",
    "(z := t)",
    "open('/etc/passwd')",
    "eval('z')",
    "exec('z')",
    "compile('z', '', 'eval')",
    "getattr(z, 'graph')",
    "globals()",
    "vars(z)",
    "type(z)",
    "print(z)",
    "np.load('x') + z",
    "np.fromfile(z)",
    "np.linalg.norm(z)",
    "os.system('true') + z",
    "math.__loader__",
    "math.factorial(z)",
    "np.exp.__globals__",
    "np.exp(z, out=t)",
    "np.exp(*[z])",
    "exp(z, t, z)",
    "f'{z}'",
    "'z' + z",
    "b'z'",
    "z + 1j",
    "z + None",
    "z + ...",
    "await z",
    "yield z",
    "z; t",
    "import os",
    "z = t",
    "z if t",
    "",
    "(" * 500 + "z" + ")" * 500,
    "-" * 9000 + "z",
    "z + " * 2400 + "z +",
    "9 ** 9 ** 9 ** 9 + z",
    "z + 1 / 0",
    "z + t + detla",
    "1 + 2",
    "z + p",
    "z" * 20_000,
    "z + e'",
    "z\x00t",
]


@pytest.mark.parametrize("text", ESCAPES, ids=range(len(ESCAPES)))
def test_nothing_but_formulas_gets_through(text):
    with pytest.raises(TypeError, match=r"^formula: ") as error:
        fl.formula(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600 or len(text) > 600


def test_a_text_is_a_text():
    for wrong in (None, 3, b"z", ["z"]):
        with pytest.raises(TypeError, match="expected a text such as"):
            fl.formula(wrong)
    with pytest.raises(TypeError, match="r and s are defined by each other"):
        fl.formula("r + z", r="s", s="r")
    with pytest.raises(TypeError, match=r"delta is \[1\]; expected a number or the text of a formula"):
        fl.formula("z + delta", delta=[1])
    with pytest.raises(TypeError, match=r"neither z nor p"):
        fl.formula("t**2")
    with pytest.raises(TypeError, match=r"detla is unknown; known: z, t, delta"):
        fl.formula("(z - t) / detla", delta=1.0)
