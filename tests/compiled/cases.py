"""Every CUDA kernel that a loss can ask for, by name: how it is made."""

from functools import partial

import fastloss as fl
from fastloss.formulas.record import LOOPS
from fastloss.kernels.cuda.elementwise import elementwise_kernel
from fastloss.kernels.cuda.memory import real
from fastloss.kernels.cuda.rows import counting_kernel, row_kernel
from fastloss.kernels.cuda.sums import finishing

FORMATS = ("float32", "float64", "float16")
BRAIN = (
    "mse",
    "bce_with_logits",
    "gaussian_nll",
    "cross_entropy",
    "js_div",
)  # bfloat16 differs from float16 in how a number is widened

KERNELS = {f"finish-{number}": partial(finishing, number) for number in ("float32", "float64")}
KERNELS |= {f"count-{number}": partial(counting_kernel, number) for number in ("float32", "float64")}
for name, loss in fl.LOSSES.items():
    if loss.record.family == "elementwise":
        KERNELS |= {f"{name}-{f}": partial(elementwise_kernel, loss.record, f, f) for f in FORMATS}
        KERNELS |= {
            f"{name}-{f}": partial(elementwise_kernel, loss.record, f, f) for f in ["bfloat16"] * (name in BRAIN)
        }
    if loss.record.family == "rows":
        for kind, there in zip(("labels", "dense"), LOOPS[loss.record.loop][1:], strict=True):
            for f in (*FORMATS, *["bfloat16"] * (name in BRAIN)) * bool(there):
                target = f if kind == "dense" else real(f)
                KERNELS[f"{name}-{kind}-{f}"] = partial(row_kernel, loss.record, kind, f, target)
