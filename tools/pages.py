"""Generate the parts of the pages in docs/ that follow from the catalogue, between markers in each page."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from fastloss.formulas import FILES
from fastloss.losses.docs import input_kind, input_shape
from fastloss.spec.record import REAL, Formula

from .elsewhere import tables as tables_of_libraries

__all__ = ["category", "renewed", "sections"]

BEGIN = "<!-- {name}: begin, written by python -m tools.stubs -->"
END = "<!-- {name}: end -->"


def sections(losses: Mapping[str, Any]) -> dict[str, dict[str, Callable[[], str]]]:
    """Return the generated sections by page: the name in their markers, and the function that writes the text."""
    api = {"names": lambda: names(losses), "methods": lambda: methods(losses), "commands": commands}
    gpu = {"kernels": lambda: kernels(losses)}
    optim = {"optimisers": optimisers}
    elsewhere = {"elsewhere": tables_of_libraries}
    return {
        "optimisers.md": optim,
        "elsewhere.md": elsewhere,
        "losses.md": {"losses": lambda: tables(losses)},
        "api-stability.md": api,
        "gpu.md": gpu,
    }


def renewed(page: Path, texts: Mapping[str, Callable[[], str]]) -> str:
    """Return the text of a page with the sections between its markers replaced."""
    text = page.read_text(encoding="utf-8")
    for name, write in texts.items():
        first, last = BEGIN.format(name=name), END.format(name=name)
        head, begin, rest = text.partition(first)
        _, end, tail = rest.partition(last)
        if not (begin and end):
            raise ValueError(f"{page.name} has no lines {first!r} and {last!r} around its section.")
        text = f"{head}{first}\n{write()}\n{last}{tail}"
    return text


def tables(losses: Mapping[str, Any]) -> str:
    """Return a heading and a table of losses for each file of formulas."""
    parts = []
    for file, title in FILES.items():
        own = [loss for loss in losses.values() if loss.record.function.__module__.endswith(f".{file}")]
        if not own:
            continue
        parts += [f"## {title}", ""]
        parts += ["| Loss | Value | Parameters | Prediction | Target | Reference |", "|---|---|---|---|---|---|"]
        parts += [_line(loss.record) for loss in own] + [""]
    return "\n".join(parts).rstrip()


def _line(record: Formula) -> str:
    value = _code(record.math) or record.summary
    parameters = _code(", ".join(_shown(record, k) for k in record.parameters))
    cells = [_code(record.name), value, parameters, *_prediction_and_target(record), record.paper.replace("|", "\\|")]
    return "| " + " | ".join(cells) + " |"


def _shown(record: Formula, name: str) -> str:
    """Return a parameter with its default, as a caller would write it."""
    return f"{name}={record.parameters[name].show(record.defaults[name], '{:.4g}'.format)}"


def _code(text: str) -> str:
    """Return text as code in a cell of a table, where a bar would end the cell."""
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def _within(domain: Any) -> str:
    return "" if domain == REAL else f" in {domain}"


def _prediction_and_target(record: Formula) -> tuple[str, str]:
    """Return the cells that say what a prediction and its target may be."""
    if record.family == "arrays":
        grouped: tuple[list[str], list[str]] = ([], [])
        for name, spec in record.inputs.items():
            shape = input_shape(spec) + _within(spec.domain) + (", optional" if spec.optional else "")
            kind = "" if spec.kind == "float" else input_kind(spec) + " "
            grouped[not spec.grad].append(f"{_code(name)} {kind}{shape}")
        return ", ".join(grouped[0]), ", ".join(grouped[1]) or "none"
    if record.family == "rows":
        return record.row_loop.prediction, record.row_loop.target
    target = "none" if record.target is None else _within(record.target_domain).strip() or "real"
    if len(record.predictions) > 1:
        each = zip(record.predictions, record.prediction_domains, strict=True)
        return "tuple of " + ", ".join(_code(name) + _within(domain) for name, domain in each), target
    link = {"identity": "value", "log": "log of the mean"}.get(record.link, record.link)
    return link + _within(record.prediction_domains[0]), target


def kernels(losses: Mapping[str, Any]) -> str:
    """Return which losses have CUDA kernels and which have none."""
    from fastloss.cuda.placement import has_kernel

    without = [name for name, loss in losses.items() if not has_kernel(loss.record)]
    count = f"{len(losses) - len(without)} of {len(losses)} losses have CUDA kernels. The others have none:"
    return f"{count} {', '.join(map(_code, without))}."


def optimisers() -> str:
    """Return a table of the optimisers, with their updates and sources."""
    from fastloss.optim import LBFGS
    from fastloss.train.optim import RULES

    rows = []
    for name, kind in {**RULES, "LBFGS": LBFGS}.items():
        taken = list(inspect.signature(kind).parameters.values())[1:]
        options = ", ".join(f"{p.name}={p.default!r}" for p in taken)
        source = kind.rule.paper.replace("|", "\\|")
        rows.append(f"| {_code(name)} | {_code(kind.rule.math)} | {_code(options)} | {source} |")
    return "\n".join(["| Optimiser | Update | Options | Source |", "|---|---|---|---|", *rows])


def category(name: str, value: Any, losses: Mapping[str, Any]) -> str:
    """Return the category of a public name, to which docs/api-stability.md makes its promises."""
    rules = {
        "loss": name in losses,
        "exception": isinstance(value, type) and issubclass(value, BaseException),
        "class": isinstance(value, type),
        "module": isinstance(value, ModuleType),
        "mapping": isinstance(value, Mapping),
        "version": name == "__version__",
        "function": callable(value),
    }
    for word, applies in rules.items():
        if applies:
            return word
    raise ValueError(f"fastloss.{name} is a {type(value).__name__}, to which docs/api-stability.md promises nothing.")


def names(losses: Mapping[str, Any]) -> str:
    """Return a table of the public names that are no losses, and the number of those that are."""
    import fastloss

    public: list[str] = vars(fastloss)["__all__"]  # the stub, which mypy reads, has none
    rows = []
    for name in sorted(set(public) - set(losses), key=lambda n: (n.lower(), n)):
        for path, value in _members(name, getattr(fastloss, name)):
            word = category(path, value, losses)
            summary = "Version of the package." if word == "version" else _summary(value)
            rows.append(f"| {_code(path)} | {word} | {summary} |")
    count = f"The other {len(losses)} names are losses, listed in [Losses](losses.md)."
    return "\n".join(["| Name | Category | Summary |", "|---|---|---|", *rows, "", count])


def _members(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a public name and the names within it, of a module or of a function that has methods."""
    yield name, value
    within = getattr(value, "__all__", []) if isinstance(value, ModuleType) else []
    if callable(value) and not isinstance(value, type) and not inspect.isfunction(value):
        within = [x for x in dir(value) if not x.startswith("_")]
    for x in within:
        yield f"{name}.{x}", getattr(value, x)


def _summary(value: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(value) or "").partition("\n")[0]


def methods(losses: Mapping[str, Any]) -> str:
    """Return a table of the public methods and attributes of losses, with the keywords of each."""
    types = list(dict.fromkeys(type(loss) for loss in losses.values()))
    public = sorted({x for kind in types for x in dir(kind) if not x.startswith("_")})
    lines = ["| Method or attribute | Keywords beside the parameters of the loss |", "|---|---|"]
    lines += [f"| `{_written(x)}` | {', '.join(map(_code, _keywords(types, x)))} |" for x in ("__call__", *public)]
    return "\n".join(lines)


def _written(method: str) -> str:
    return "loss(...)" if method == "__call__" else f"loss.{method}"


def _keywords(types: list[type], method: str) -> list[str]:
    """Return the keywords that a method has in any family, with its defaults, in the order of the signatures."""
    found: dict[str, None] = {}
    for kind in types:
        member = getattr(kind, method, None)
        if not inspect.isfunction(member):
            continue
        parameters = inspect.signature(member).parameters.values()
        own = [p for p in parameters if p.default is not p.empty and p.name not in ("prediction", "target")]
        found |= dict.fromkeys(f"{p.name}={p.default!r}" for p in own)
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            found |= {"backend=None": None}
    return list(found)


def commands() -> str:
    """Return a table of the commands of the command line, with their arguments and options. Needs typer."""
    from typer.main import get_command

    from fastloss.command.commands import app

    lines = ["| Command | Arguments and options |", "|---|---|"]
    lines += [f"| `{path}` | {' '.join(shown)} |" for path, shown in _commands(get_command(app), "fastloss")]
    return "\n".join(lines)


def _commands(command: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield a command and those below it, each with its arguments and options."""
    shown = []
    for p in command.params:
        value = (p.metavar or "").replace("|", "\\|")
        value = value or ("N" if p.param_type_name == "option" and not p.is_flag else "")
        option = "/".join(p.opts) if p.param_type_name == "option" else ""
        shown.append(f"`{' '.join(x for x in (option, value) if x)}`")
    inner = getattr(command, "commands", {})
    if shown or not inner:
        yield path, shown
    for name, below in inner.items():
        yield from _commands(below, f"{path} {name}")
