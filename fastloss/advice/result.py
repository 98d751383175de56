"""Recommendations: losses with their parameters, reasons, warnings and code."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, overload

from .._terminal import printable

__all__ = ["Advice", "Recommendation"]

CONFIDENCE = {
    "clear": "the evidence is clear",
    "likely": "the evidence points to it",
    "open": "the evidence cannot tell; this is where to start",
}
WIDTH = 80


@dataclass(frozen=True)
class Recommendation:
    """A recommended loss.

    Attributes
    ----------
    name : str
        Name of the loss in the catalogue.
    parameters : dict
        Its parameters, where they differ from the defaults.
    output : str
        What the model's output is, and how predictions follow from it.
    reasons, warnings : list of str
        Sentences, with the figures they rest on.
    optimizer : str
        Which optimisers suit the loss.
    code : str
        Lines that run where `y`, and `pred` with the model's outputs, are defined.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    output: str = ""
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    optimizer: str = ""
    code: str = ""

    @property
    def loss(self) -> Any:
        """The loss with its parameters."""
        import fastloss

        found = fastloss.LOSSES[self.name]
        return found.bind(**self.parameters) if self.parameters else found

    @property
    def label(self) -> str:
        """The loss as the command writes it, `huber:delta=2`."""
        given = ",".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.parameters.items())
        return f"{self.name}:{given}" if given else self.name

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        fields = ("name", "parameters", "output", "reasons", "warnings", "optimizer", "code")
        return {"loss": self.label} | {k: getattr(self, k) for k in fields}


class Advice(Sequence[Recommendation]):
    """Recommendations, the best first; a sequence of `Recommendation`.

    Attributes
    ----------
    kind : str
        What the targets are: "real numbers", "counts", "two classes" and others.
    confidence : {"clear", "likely", "open"}
        How far the evidence decides for the first recommendation.
    facts : dict
        Figures by name.
    """

    def __init__(self, kind: str, confidence: str, facts: dict[str, Any], found: Sequence[Recommendation]) -> None:
        self.kind = kind
        self.confidence = confidence
        self.facts = facts
        self._found = list(found)

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Recommendation]: ...
    def __getitem__(self, index: int | slice) -> Recommendation | list[Recommendation]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self._found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "targets": self.kind,
            "confidence": self.confidence,
            "facts": self.facts,
            "recommendations": [r.to_dict() for r in self],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return the advice as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_html(self) -> str:
        """Return a page of HTML that needs nothing but itself."""
        from ..evaluation.report.page import STYLE

        lines = ["<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">']
        lines += ['<meta name="viewport" content="width=device-width, initial-scale=1">', "<title>Which loss</title>"]
        lines += [f"<style>{STYLE}pre {{ overflow-x: auto; }}</style>", "</head>", "<body>", "<h1>Which loss</h1>"]
        lines += [*self._html_lines(), "</body>", "</html>"]
        return "\n".join(lines) + "\n"

    def _repr_html_(self) -> str:
        return "\n".join(self._html_lines())

    def _html_lines(self) -> list[str]:
        def text(value: Any) -> str:
            return escape(printable(value))

        lines = [f"<p>Targets: {text(self.kind)}. {text(CONFIDENCE[self.confidence].capitalize())}.</p>"]
        lines.append('<div class="wide"><table><tbody>')
        lines += [
            f'<tr><th class="text" scope="row">{text(k)}</th><td>{text(_fact(v))}</td></tr>'
            for k, v in self.facts.items()
        ]
        lines.append("</tbody></table></div>")
        for i, each in enumerate(self, 1):
            lines += [f"<h2>{i}. {text(each.label)}</h2>", f"<p>{text(each.output)}</p>", "<ul>"]
            lines += [f"<li>{text(reason)}</li>" for reason in each.reasons]
            lines += [f'<li class="warn">{text(warning)}</li>' for warning in each.warnings]
            lines += [f"<li>{text(each.optimizer)}</li>"] if each.optimizer else []
            lines += ["</ul>", f"<pre><code>{escape(each.code)}</code></pre>"]
        return lines

    def __repr__(self) -> str:
        lines = [f"Targets: {self.kind}"]
        width = max(map(len, self.facts), default=0)
        lines += [f"  {name:<{width}}  {_fact(value)}" for name, value in self.facts.items()]
        for i, each in enumerate(self, 1):
            head = f"{i}. {each.label}" + (f"   ({CONFIDENCE[self.confidence]})" if i == 1 else "")
            lines += ["", head]
            body = [*each.reasons, *(f"Warning: {w}" for w in each.warnings), each.output, each.optimizer]
            for sentence in filter(None, body):
                lines += textwrap.wrap(sentence, WIDTH - 5, initial_indent="   - ", subsequent_indent="     ")
            lines += [f"     {line}" for line in each.code.splitlines()]
        return "\n".join(printable(line) for line in lines)


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
