"""Scalar functions that LLVM vectorises: one vocabulary in float32 and in float64.

Greatest error in ulp / ns per element (one thread, in cache, 512-bit vectors, Xeon with AVX-512, numba 0.68.1);
elementary float32 over all bit patterns. With the JIT off, overflow, poles and log1p(inf) give NumPy's warnings.

            float32      float64                float32      float64                float32      float64
exp         1.02 / 0.20  1.02 / 0.56   tanh     1.47 / 0.40  1.46 / 1.18   lgamma   5.8 / 0.9    6.3 / 2.9
log         0.95 / 0.28  1.21 / 0.74   softplus 2.00 / 0.37  1.95 / 1.45   digamma  3 eps / 0.6  6 eps / 1.9
log1p       1.55 / 0.32  1.79 / 0.81   sigmoid  2.41 / 0.31  2.39 / 0.78   trigamma 4.5 / 0.4    3.8 / 1.2
log1p_unit  1.40 / 0.14  1.39 / 0.62   pow      0.67 / 1.45  1.69 / 3.7    ndtr     6.1 / 0.7    3.8 / 2.4
expm1       1.46 / 0.18  2.07 / 0.53   atan     1.73 / 0.38  1.28 / 0.95   mills    5.8 / 0.4    5.2 / 1.4
(digamma: error / max(1, |digamma(x)|))
"""

import numpy as np
from numba.core.dispatcher import Dispatcher

from .coefficients import TABLES32, TABLES64, TABLES_POW
from .elementary import (
    Format,
    angles_of,
    constants_of,
    exponentials_of,
    log1p_by_polynomial,
    log1p_by_quotient,
    logarithms_of,
    logistic_of,
    maximum,
    minimum,
    signing,
    sqrt,
    where,
)
from .special import gamma_of, normal_of, power32, power64

__all__ = ["VOCABULARY"]

_FLOAT32 = Format(np.float32, np.int32)
_FLOAT64 = Format(np.float64, np.int64)


def _words(form, tables, log1p_builder):
    """Build the words of one precision but the power function, and the two records that this is made of."""
    log1p_tail, log1p_unit = log1p_builder(form, tables["log1p"]), log1p_builder(form, tables["log1p_unit"])
    with_sign, exponentials = signing(form), exponentials_of(form, tables)
    logarithms = logarithms_of(form, log1p_tail, with_sign, tables)
    exp, expm1, exp_of_sum, _ = exponentials
    log, log1p, _, _ = logarithms
    angles, logistic = angles_of(form, exp, with_sign, tables), logistic_of(form, exp, log1p_unit)
    chosen = (*constants_of(form), where, maximum, minimum, sqrt)
    functions = {f.__name__: f for f in (exp, log, log1p, expm1, *angles, *logistic, *chosen)}
    special = {f.__name__: f for f in (*gamma_of(form, log, tables), *normal_of(form, exp_of_sum, tables))}
    return functions | {"log1p_unit": log1p_unit} | special, exponentials, logarithms


def _vocabularies():
    single, _, _ = _words(_FLOAT32, TABLES32, log1p_by_polynomial)
    # The division costs less than the terms it saves.
    double, exponentials, logarithms = _words(_FLOAT64, TABLES64, log1p_by_quotient)
    single["pow"] = power32(_FLOAT64, exponentials.scale, logarithms, TABLES_POW)
    double["pow"] = power64(_FLOAT64, exponentials.scale, logarithms.split, TABLES_POW)
    return {"float32": single, "float64": double}


VOCABULARY: dict[str, dict[str, Dispatcher]] = _vocabularies()

exp64, log64, log1p64 = (VOCABULARY["float64"][word] for word in ("exp", "log", "log1p"))
pow64, sqrt64 = (VOCABULARY["float64"][word] for word in ("pow", "sqrt"))
sigmoid64, softplus64 = (VOCABULARY["float64"][word] for word in ("sigmoid", "softplus"))
"""Words of float64, for kernels that compute in it whatever the precision of their arrays."""
