"""Compiled optimisers: parameters updated in place, by one fused pass over parameter, gradient and state."""

from .train.clip import clip_grad_norm_, clip_grad_value_
from .train.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Lion, NAdam, Optimizer, RMSprop
from .train.optim_lbfgs import LBFGS
from .train.schedules import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    Schedule,
    StepLR,
)
from .train.schedules_adaptive import OneCycleLR, ReduceLROnPlateau

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "LinearLR",
    "Lion",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
]
