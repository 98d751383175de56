"""First-order optimisers, with the names, arguments and defaults of torch.optim."""

from .optim_base import Optimizer
from .optim_descent import SGD, Adadelta, Adagrad, RMSprop
from .optim_moments import Adam, Adamax, AdamW, Lion, NAdam

__all__ = ["RULES", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Lion", "NAdam", "Optimizer", "RMSprop"]

RULES = {rule.__name__: rule for rule in (SGD, Adagrad, RMSprop, Adadelta, Adam, AdamW, Adamax, NAdam, Lion)}
"""First-order optimisers by name."""
