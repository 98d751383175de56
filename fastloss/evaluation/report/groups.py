"""Reports of groups, made when they are asked for."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..groups.keys import key_order

if TYPE_CHECKING:
    from . import Report

__all__ = ["GroupReports", "united"]


class GroupReports(Mapping[Any, "Report"]):
    """Read-only mapping of keys, in their order, to reports that are made when they are asked for.

    A hundred thousand reports take seconds, and a table shows twenty.
    """

    def __init__(self, found: Mapping[Any, Any], make: Callable[[Any], "Report"] | None = None) -> None:
        self._found = dict(sorted(found.items(), key=lambda each: key_order(each[0])))
        self._make = make
        self._made: dict[int, Report] = {}

    def __getitem__(self, key: Any) -> "Report":
        found = self._found[key]
        if self._make is None:
            return found  # type: ignore[no-any-return]
        if found not in self._made:
            self._made[found] = self._make(found)
        return self._made[found]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __reduce__(self) -> Any:
        return GroupReports, (dict(self),)

    def __repr__(self) -> str:
        keys = ", ".join(repr(key) for key in list(self)[:5])
        return f"<reports of {len(self):,} groups: {keys}{', ...' if len(self) > 5 else ''}>"


def united(a: Mapping[Any, "Report"], b: Mapping[Any, "Report"]) -> dict[Any, "Report"]:
    """Return the groups of two reports, those in both merged."""
    # Not the keys themselves: 1, 1.0 and True are equal, and no NaN is equal to another.
    found = {key_order(key): (key, report) for key, report in a.items()}
    for key, report in b.items():
        at = key_order(key)
        found[at] = (key, found[at][1].merge(report) if at in found else report)
    return dict(found.values())
