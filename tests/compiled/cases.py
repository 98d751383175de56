"""Every CUDA kernel that a loss can ask for, by name: how it is made."""

from functools import partial

import fastloss as fl
from fastloss.kernels.cuda.elementwise import elementwise_kernel
from fastloss.kernels.cuda.points import points_kernel
from fastloss.kernels.cuda.scalars import width
from fastloss.kernels.cuda.sums import finishing

FORMATS = ("float32", "float64", "float16")
BRAIN = ("mse", "bce_with_logits", "gaussian_nll", "giou")  # bfloat16 differs from float16 in how a number is widened


def point(record, stored):
    """The kernel of a loss of points whose numbers are all stored in one format."""
    specs = record.inputs.values()
    return points_kernel(
        record, stored, tuple(("uint8" if x.kind == "binary" else stored, width(x.dims)) for x in specs)
    )


KERNELS = {f"finish-{number}": partial(finishing, number) for number in ("float32", "float64")}
for name, loss in fl.LOSSES.items():
    record = loss.record
    make = {"elementwise": lambda record, f: elementwise_kernel(record, f, f), "pointwise": point}.get(record.loop)
    if make is not None:
        formats = (*FORMATS, *["bfloat16"] * (name in BRAIN))
        KERNELS |= {f"{name}-{f}": partial(make, record, f) for f in formats}
