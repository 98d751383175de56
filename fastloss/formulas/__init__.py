"""The losses, each written once as a scalar formula; importing this package registers them all, in order."""

import importlib
from types import MappingProxyType

from .record import registered

FILES = ("regression", "robust", "counts", "likelihoods", "classification", "softmax")

import importlib.util

for _file in FILES:
    if importlib.util.find_spec(f"{__name__}.{_file}") is None:
        continue
    importlib.import_module(f"{__name__}.{_file}")

ALL = MappingProxyType(registered)
