"""The losses, each written once as a scalar formula; importing this package registers them all, in order."""

from importlib import import_module
from types import MappingProxyType

from .record import registered

FILES = ("regression", "robust", "counts", "likelihoods", "classification", "softmax", "boxes", "regions")

for _file in FILES:
    import_module(f"{__name__}.{_file}")

ALL = MappingProxyType(registered)
