"""Every CUDA kernel that a loss can ask for, by name: how it is made."""

from functools import partial

import fastloss as fl
from fastloss.cpu.dispatch import sum_record
from fastloss.cuda.elementwise import elementwise_kernel
from fastloss.cuda.pairs import pairs_kernel
from fastloss.cuda.points import points_kernel
from fastloss.cuda.regions.kernels import collecting, judging, measuring, normalising, spreading
from fastloss.cuda.rows.kernels import balancing_kernel, counting_kernel, row_kernel
from fastloss.cuda.runtime.labels import signing_kernel
from fastloss.cuda.runtime.memory import real
from fastloss.cuda.runtime.scalars import width
from fastloss.cuda.runtime.sums import finishing
from fastloss.spec.record import NONNEGATIVE

FORMATS = ("float32", "float64", "float16")
# bfloat16 differs from float16 in how a number is widened.
BRAIN = ("mse", "bce_with_logits", "gaussian_nll", "cross_entropy", "js_div", "giou")


def point(record, stored):
    """The kernel of a loss of points whose numbers are all stored in one format."""
    specs = record.inputs.values()
    return points_kernel(
        record, stored, tuple(("uint8" if x.kind == "binary" else stored, width(x.dims)) for x in specs)
    )


def pair(record, stored):
    """The kernel of a loss of vectors that are stored in one format, as is what is said of each pair."""
    return pairs_kernel(record, stored, stored if len(record.inputs) > len(record.predictions) else real(stored))


MAKERS = {
    "elementwise": lambda record, f: elementwise_kernel(record, f, f),
    "points": point,
    "embeddings.pairs": pair,
    "regions.sums": lambda record, f: judging(record, f, real(f)),
}
KERNELS = {f"finish-{number}": partial(finishing, number) for number in ("float32", "float64")}
for f in ("float32", "float64"):
    # The sum of weights, which divides a mean under weights.
    KERNELS[f"sum-{f}"] = partial(elementwise_kernel, sum_record(NONNEGATIVE), f, f)
KERNELS |= {f"count-{number}": partial(counting_kernel, number) for number in ("float32", "float64")}
KERNELS |= {f"balance-{number}": partial(balancing_kernel, number) for number in ("float32", "float64")}
KERNELS["sign_labels"] = signing_kernel
for name, loss in fl.LOSSES.items():
    record, formats = loss.record, (*FORMATS, *["bfloat16"] * (name in BRAIN))
    if record.loop in MAKERS:
        KERNELS |= {f"{name}-{f}": partial(MAKERS[record.loop], record, f) for f in formats}
    if "p" in record.parameters and record.loop == "embeddings.pairs":
        KERNELS |= {f"{name}_p-{f}": partial(pairs_kernel, record, f, real(f), False) for f in FORMATS}
    if record.family == "rows":
        for kind in record.row_loop.kinds():
            for f in formats:
                target = f if kind == "dense" else real(f)
                KERNELS[f"{name}-{kind}-{f}"] = partial(row_kernel, record, kind, f, target)
for f in FORMATS:
    KERNELS |= {
        f"regions_normalise-{f}": partial(normalising, f),
        f"regions_measure-{f}": partial(measuring, f, f, "int64", "uint8"),
        f"regions_spread-{f}": partial(spreading, f, f, "int64", "uint8"),
    }
KERNELS |= {f"regions_collect-{number}": partial(collecting, number) for number in ("float32", "float64")}
