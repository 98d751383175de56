"""Signatures and docstrings of losses of PyTorch tensors, under torch's names of options."""

import re
from inspect import Parameter, Signature, signature
from typing import Any

from ..losses.base import Loss
from ..losses.docs import docstring
from ..spec.record import registered

__all__ = ["describe"]

SUFFIX = """Returns
-------
Tensor
    The loss, with a graph where an input requires grad.

Raises
------
ValueError
    Shapes, labels, domains or parameters out of range.
TypeError
    Tensors of another kind, and unknown parameters.
"""


def describe(call: Any, loss: Loss) -> None:
    """Give a function of tensors the signature and the docstring of its loss."""
    record = loss.record
    call.__name__ = call.__qualname__ = loss.name
    call.__signature__ = _signature(loss)
    if registered.get(record.name) is record:
        call.__doc__ = _docstring(loss)
    else:
        call.__doc__ = f"{record.summary}\n\nArguments as `fastloss.{loss.name}`, as tensors; see `fastloss.torch`."


def _signature(loss: Loss) -> Signature:
    """Return the signature of a loss without its backend; a loss of classes has torch's `weight`, that of classes."""
    found = [p for p in signature(loss).parameters.values() if p.name != "backend"]
    if not loss._of_classes:
        return Signature(found)
    names = {"weight": "sample_weight", "class_weight": "weight"}
    found = [p.replace(name=names.get(p.name, p.name)) for p in found]
    if "axis" in [p.name for p in found]:
        found = [p.replace(default=None) if p.name == "axis" else p for p in found]
    first = [p for p in found if p.name == "weight"]
    at = next((i for i, p in enumerate(found) if p.kind is Parameter.KEYWORD_ONLY), len(found))
    return Signature([*found[:at], *first, *(p for p in found[at:] if p.name != "weight")])


def _docstring(loss: Loss) -> str:
    """Return the docstring of a loss of the catalogue with tensors as its arrays."""
    head, _, rest = docstring(loss.record).partition("Parameters\n----------\n")
    arguments, _, rest = rest.partition("\n\nReturns\n")
    _, _, references = rest.partition("\n\nReferences\n")
    entries = re.split(r"\n(?=\w+ : )", arguments)
    entries = [_entry(e, loss._of_classes) for e in entries if not e.startswith("backend : ")]
    places = {e.partition(" : ")[0]: i for i, e in enumerate(entries)}
    if places.get("sample_weight", len(entries)) < places.get("weight", -1):
        # As in the signature: the weight of classes first.
        entries.insert(places["sample_weight"], entries.pop(places["weight"]))
    sections = [f"{head}Parameters\n----------\n" + "\n".join(entries), SUFFIX.strip()]
    if example := _example(loss):
        sections.append(f"Examples\n--------\n{example}")
    if references:
        sections.append(f"References\n{references.strip()}")
    return "\n\n".join(sections) + "\n"


def _entry(text: str, of_classes: bool) -> str:
    """Return the entry of an argument under torch's name."""
    name, _, rest = text.partition(" : ")
    kind, _, doc = rest.partition("\n")
    if name == "divisor":
        kind = "float or Tensor of one number, optional"
    kind = re.sub(r"\barrays\b", "Tensors", re.sub(r"\barray\b", "Tensor", kind))
    if of_classes:
        name = {"weight": "sample_weight", "class_weight": "weight"}.get(name, name)
        if name == "axis":
            kind, doc = "int, optional", "    Axis of the classes; by default 1, as in torch."
    return f"{name} : {kind}\n{doc}"


def _example(loss: Loss) -> str:
    """Return a call of the loss on tensors; empty where its arrays are made by more than literals."""
    call = re.search(r"value_and_grad\((.*)\)$", docstring(loss.record), re.MULTILINE)
    if call is None:
        return ""
    arguments = re.sub(r"np\.log\((\[\[.*?\]\])\)", r"torch.tensor(\1).log()", call[1])
    arguments = arguments.replace("np.array(", "torch.tensor(")
    if "np." in arguments:
        return ""
    setup = f">>> import torch\n>>> import fastloss as fl\n>>> loss = fl.torch.{loss.name}({arguments})"
    return f"{setup}\n>>> loss.shape\ntorch.Size([])"
