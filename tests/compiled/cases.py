"""Every CUDA kernel that a loss can ask for, by name: how it is made."""

from functools import partial

import fastloss as fl
from fastloss.kernels.cuda.elementwise import elementwise_kernel
from fastloss.kernels.cuda.sums import finishing

FORMATS = ("float32", "float64", "float16")
BRAIN = ("mse", "bce_with_logits", "gaussian_nll")  # bfloat16 differs from float16 in how a number is widened

KERNELS = {f"finish-{number}": partial(finishing, number) for number in ("float32", "float64")}
for name, loss in fl.LOSSES.items():
    if loss.record.family == "elementwise":
        KERNELS |= {f"{name}-{f}": partial(elementwise_kernel, loss.record, f, f) for f in FORMATS}
        KERNELS |= {
            f"{name}-{f}": partial(elementwise_kernel, loss.record, f, f) for f in ["bfloat16"] * (name in BRAIN)
        }
