"""Pictures of losses, models and evaluations, drawn with matplotlib (extra `plot`); each function returns its axes."""

from .curves import curves
from .evaluated import groups, reliability, residuals
from .models import decision, landscape
from .style import save, style
from .training import training

__all__ = ["curves", "decision", "groups", "landscape", "reliability", "residuals", "save", "style", "training"]
