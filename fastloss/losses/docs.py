"""Docstrings of losses, composed from their records."""

import textwrap

from ..spec.record import (
    BITS,
    LOOPS,
    REAL,
    SIGNS,
    Formula,
    Input,
    Integers,
    Loop,
    Parameter,
    registered,
)

__all__ = ["docstring", "input_kind", "input_shape", "method_docstring"]


def _kind(spec: Parameter) -> str:
    if spec.choices:
        kind = "{" + ", ".join(f'"{word}"' for word in spec.choices) + "}"
    else:
        kind = "bool" if spec.flag else "int" if isinstance(spec.allowed, Integers) else "float"
    return f"{kind} or None" if spec.none is not None else kind


def _parameters(record: Formula) -> str:
    lines = []
    for name, spec in record.parameters.items():
        kind = _kind(spec)
        allowed = "" if spec.flag or spec.choices else f" Allowed: {spec.allowed}."
        levels = " A vector gives one level per column of the prediction." if spec.vector else ""
        levels += " An array that broadcasts to the prediction gives each element its own." * spec.spread
        text = f"{spec.doc[:1].upper()}{spec.doc[1:]}.{allowed}{levels}"
        lines.append(f"{name} : {kind}, default {spec.show(record.defaults[name])}\n    {text}")
    if record.target_domain in (SIGNS, BITS):
        text = "Whether the targets are -1 and +1, or 0 and 1, which stand for them."
        lines.append(f'labels : {{"signs", "01"}}, default "signs"\n    {text}')
    return "\n".join(lines)


_ARRAY = "float64, float32, float16 or bfloat16"


def _row_target(loop: Loop) -> str:
    words = {"probabilities": "class probabilities (..., K)", "logits": "the teacher's logits (..., K)"}
    dense = {**words, "number": "observed values (...,)", "": ""}[loop.dense]
    last = "K" if loop is LOOPS["ordinal"] else "K - 1"
    labels = f"int labels (...,) from 0 to {last} or ignore_index" if loop.labels else ""
    return ", or ".join(x for x in (labels, dense) if x)


def input_shape(spec: Input) -> str:
    """Return the shape of an input in the notation of NumPy's documentation."""
    axes = ["..." if axis in "*+" else axis.replace("+", " + ") for axis in spec.dims.split()]
    shown = [axis if axis == "..." else axis.upper() for axis in axes]
    labels = " or (N, ...)" if spec.kind == "regions" else ""
    return f"({', '.join(shown)}{',' * (len(shown) == 1)}){labels}"


def input_kind(spec: Input) -> str:
    """Return a description of an input's content in one or two words."""
    words = {"labels": "int labels", "lengths": "int lengths", "offsets": "int offsets", "mask": "bool mask"}
    words["regions"] = "array or int labels"
    words["binary"] = "array of 0 and 1"
    return words.get(spec.kind, "array" if not spec.grad else f"array, {_ARRAY}")


def _inputs(record: Formula) -> str:
    lines = []
    for name, spec in record.inputs.items():
        domain = "" if spec.domain == REAL else f", in {spec.domain}"
        optional = ", optional" if spec.optional else ""
        lines.append(f"{name} : {input_kind(spec)} {input_shape(spec)}{optional}\n    {_sentence(spec.doc + domain)}")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _data(record: Formula) -> str:
    if record.family == "arrays":
        return _inputs(record)
    if record.family == "rows":
        loop = record.row_loop
        what = {"members": "members of each forecast", "cosines": "cosines of K classes"}.get(
            loop.scores, "logits of K thresholds, one fewer than classes" if loop.thresholds else "scores of K classes"
        )
        return (
            f"prediction : array (..., K), {_ARRAY}\n    {what[0].upper()}{what[1:]} along `axis`.\n"
            f"target : array\n    {_row_target(loop)}."
        )
    names = record.predictions
    if len(names) == 1:
        meaning = {"logit": "logits", "log": "logarithm of the mean"}.get(record.link, "predictions")
        first = (
            f"prediction : array, {_ARRAY}\n    {meaning[0].upper()}{meaning[1:]}, in {record.prediction_domains[0]}."
        )
    else:
        domains = ", ".join(f"{n} in {d}" for n, d in zip(names, record.prediction_domains, strict=True))
        first = f"prediction : tuple of {len(names)} arrays, {_ARRAY}\n    {domains}; all but the first also by name."
    if record.target is None:
        return first
    return f"{first}\ntarget : array of the same shape, or a scalar\n    Values in {record.target_domain}."


def _row_options(record: Formula) -> str:
    if record.family != "rows":
        return ""
    axis = "axis : int, default -1\n    Where the row lies in the prediction."
    loop = record.row_loop
    if not loop.has_classes:
        return axis
    weighted = f"class_weight : array (K,), optional\n    Factor of each {loop.each}."
    if not loop.labels:
        return f"{weighted}\n{axis}"
    ignored = "ignore_index : int or None, default -100\n    Label whose rows count for nothing; None: no label does."
    if loop.divides:
        weighted += " With labels, the mean divides by their sum."
    return f"{weighted}\n{ignored}\n{axis}"


def _unit(record: Formula) -> str:
    if record.family == "arrays":
        axes = ", ".join("..." if axis in "*+" else axis.upper() for axis in record.units.split())
        whole = "".join(f", one with {k}={w!r}" for k, by in record.units_by.items() for w, x in by.items() if not x)
        return f"value; the loss has values of shape ({axes}){whole}" if axes else "batch"
    return "row" if record.family == "rows" else "element"


def docstring(record: Formula) -> str:
    """Return the NumPy-style docstring of one loss."""
    text = textwrap.dedent("    " + (record.function.__doc__ or "").strip("\n"))
    summary, _, notes = text.strip().partition("\n")
    returns = 'float, or an array with ``reduction="none"``\n    The loss, accumulated in float64.'
    sections = [
        summary,
        f"``{record.math}``" if record.math else "",
        textwrap.dedent(notes).strip(),
        f"Parameters\n----------\n{_arguments(record)}",
        f"Returns\n-------\n{returns}",
        f"Raises\n------\n{RAISES}",
        f"Examples\n--------\n{_example(record)}",
        f"References\n----------\n{record.paper}" if record.paper else "",
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


RAISES = (
    "ValueError\n    Shapes, labels, domains or parameters out of range.\n"
    "TypeError\n    Bool, complex, object or masked arrays, and unknown parameters."
)


def _arguments(record: Formula, method: str = "__call__") -> str:
    """Return the section of the arguments of a call or of another method."""
    weight = f"weight : array, optional\n    Factor of each {_unit(record)}."
    reduction = (
        f'reduction : {{"mean", "sum", "none", "batchmean"}}, default "{record.reduction}"\n'
        "    With weights the mean is sum(w l) / sum(w); of nothing it is 0. batchmean is the sum over the batch size."
    )
    divisor = "divisor : float, optional\n    Replaces the denominator of the mean."
    backend = (
        'backend : {"auto", "cpu", "cuda"}, optional\n'
        "    Where it is computed; by default where the arrays lie, see `fastloss.backend`."
    )
    if method == "bind":
        usual = 'reduction : {"mean", "sum", "none", "batchmean"} or a risk\n    Reduction of calls that name none.'
        return "\n".join(x for x in (_parameters(record), backend, usual) if x)
    reduced = method in ("__call__", "value_and_grad")
    options = (
        _data(record),
        weight,
        _row_options(record),
        *((reduction, divisor) if reduced else ()),
        *_outputs(record, method),
        _parameters(record),
        backend,
    )
    return "\n".join(x for x in options if x)


def _outputs(record: Formula, method: str) -> list[str]:
    """Return the arguments of a method that concern what it computes and where it writes."""
    found = []
    if method == "grad_and_hess":
        surrogate = f" Surrogate: {record.surrogate}." if record.surrogate else ""
        found.append(
            'curvature : {"exact", "surrogate"}, default "exact"\n'
            f"    Second derivative, or the substitute that boosting takes where it is 0 or negative.{surrogate}"
        )
    if method in ("value_and_grad", "grad_and_hess"):
        each = "a pair (gradient, curvature)" if method == "grad_and_hess" else "the gradient"
        if _gradients(record) > 1:
            each += f", with a tuple of {_gradients(record)} arrays for each" if "pair" in each else " of each input"
        found.append(f"out : array or tuple, optional\n    Writable arrays for {each}; they are returned.")
    if method == "value_and_grad" and record.family == "rows" and record.row_loop.describes:
        found.append("details : bool, default False\n    Return `Details` of every row as a third result.")
    return found


def _gradients(record: Formula) -> int:
    """Return the number of arrays that a loss is differentiated by."""
    return sum(x.grad for x in record.inputs.values()) if record.inputs else len(record.predictions)


def method_docstring(method: str, text: str, record: Formula) -> str:
    """Return the NumPy-style docstring of a method of one loss, from that of its class."""
    first, _, rest = textwrap.dedent("    " + text.strip()).strip().partition("\n")
    raises = RAISES
    if method == "grad_and_hess" and not (record.second or record.surrogate is not None):
        raises = "ValueError\n    Always: this loss has no second derivative; use `value_and_grad`."
    if method == "details" and not record.row_loop.describes:
        raises = "ValueError\n    Always: only losses of a softmax have details."
    rest = textwrap.dedent(rest).partition("Parameters\n---")[0].partition("Examples\n---")[0].strip()
    sections = [
        first,
        rest,
        f"The loss: {record.summary}" if record.summary else "",
        f"``{record.math}``" if record.math else "",
        f"Parameters\n----------\n{_arguments(record, method)}",
        f"Returns\n-------\n{_returned(record, method)}",
        f"Raises\n------\n{raises}",
    ]
    is_known = record.name in registered and registered[record.name].function is record.function
    if is_known and (example := _method_example(record, method)):
        sections.append(f"Examples\n--------\n{example}")
    return "\n\n".join(s for s in sections if s) + "\n"


def _returned(record: Formula, method: str) -> str:
    """Return the section of a method's results."""
    if method == "bind":
        return "Loss\n    This loss with other defaults; the same object for the same values."
    if method == "details":
        return "Details\n    Named tuple (loss, logsumexp, argmax, rank), with one entry per row in each."
    several = _gradients(record) > 1
    array = "tuple of arrays" if several else "array"
    of = "its prediction" if several else "the prediction"
    each = f"shape and dtype of {of}" if record.family != "arrays" else "shape and dtype of its input"
    if method == "grad_and_hess":
        return f"gradient, curvature : {array}\n    First and second derivative of each {_unit(record)}, in the {each}."
    value = 'value : float, or an array with ``reduction="none"``\n    The loss, accumulated in float64.'
    return f"{value}\ngradient : {array}\n    Derivative of the reduced loss, in the {each}."


def _method_example(record: Formula, method: str) -> str:
    """Return the example of a method; empty where it has none of its own."""
    call = _example(record)
    if method == "bind":
        shown = [f"{k}={p.show(record.defaults[k], repr)}" for k, p in record.parameters.items()]
        bound = f"fl.{record.name}.bind({shown[0] if shown else ''})"
        return f">>> import fastloss as fl\n>>> {bound} == fl.{record.name}\nTrue"
    if method == "details":
        call = call.replace("loss, grad = ", "found = ").replace("grad.shape\n(2, 3)", "found.argmax.shape\n(2,)")
    if method == "grad_and_hess":
        call = call.replace("loss, grad = ", "grad, hess = ")
    is_lacking = (method == "details" and not record.row_loop.describes) or (
        method == "grad_and_hess" and not record.second
    )
    return "" if is_lacking else call.replace(".value_and_grad", f".{method}")


def _example(record: Formula) -> str:
    setup = ">>> import numpy as np, fastloss as fl\n"
    if record.family == "arrays":
        call = f">>> loss, grad = fl.{record.name}.value_and_grad({record.example})"
        return f"{setup}{call}\n>>> bool(np.isfinite(loss))\nTrue"
    if record.family == "rows":
        z = "np.log([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]])"
        t = "np.array([0.5, -1.0])" if not record.row_loop.has_classes else "np.array([0, 2])"
        loop = record.row_loop
        if loop.dense and loop.has_classes and (not loop.labels or record.name == "kl_div"):
            t = "np.array([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3]])"
        return f"{setup}>>> loss, grad = fl.{record.name}.value_and_grad({z}, {t})\n>>> grad.shape\n(2, 3)"
    ranges = record.prediction_domains
    values = ["np.array([1.5, 2.0])" if getattr(d, "low", 0.0) == 1.0 else "np.array([0.3, 0.6])" for d in ranges]
    prediction = values[0] if len(values) == 1 else f"({', '.join(values)})"
    call = f"fl.{record.name}.value_and_grad({prediction}" + (", np.array([1.0, 1.0]))" if record.target else ")")
    shape = ">>> grad.shape\n(2,)" if len(values) == 1 else f">>> len(grad)\n{len(values)}"
    return f"{setup}>>> loss, grad = {call}\n{shape}"
