"""Weights of several tasks: schedules, and balancing by losses or by the Gramian of gradients."""

from .train.balance.base import Balancer, gramian
from .train.balance.from_gradients import IMTLG, MGDA, AlignedMTL, CAGrad, NashMTL, PCGrad, UPGrad
from .train.balance.from_losses import DWA, FAMO, GLS, RLW, STCH, GradNorm, Uncertainty
from .train.balance.schedules import Constant, Cosine, Cyclic, Exponential, Linear, Step

__all__ = [
    "DWA",
    "FAMO",
    "GLS",
    "IMTLG",
    "MGDA",
    "RLW",
    "STCH",
    "AlignedMTL",
    "Balancer",
    "CAGrad",
    "Constant",
    "Cosine",
    "Cyclic",
    "Exponential",
    "GradNorm",
    "Linear",
    "NashMTL",
    "PCGrad",
    "Step",
    "UPGrad",
    "Uncertainty",
    "gramian",
]
