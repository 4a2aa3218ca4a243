"""The plan of a run as a page of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulations.commands.output import bytes_shown, epsilon_shown, shown, table


def lines(described: Mapping[str, Any]) -> list[str]:
    """Lines of text for what ``simulations.cost.describe`` returned: single values, then each nested part."""
    page = _pairs({name: value for name, value in described.items() if not _nested(value)})
    for name, part in described.items():
        if _nested(part):
            page += ["", _words(name), *_part(name, part)]
    return page


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _part(name: str, part: Any) -> list[str]:
    if isinstance(part, Mapping):
        return _pairs({key: _cell(name, value) for key, value in part.items()}, indent="  ")
    columns = list(part[0])
    rows = [(number, *(_cell(name, row[column]) for column in columns)) for number, row in enumerate(part, start=1)]
    return table(("round", *map(_words, columns)), rows)


def _pairs(values: Mapping[str, Any], indent: str = "") -> list[str]:
    width = max((len(_words(name)) for name in values), default=0)
    return [f"{indent}{_words(name).ljust(width)}  {shown(_cell(name, value))}" for name, value in values.items()]


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if name.startswith("epsilon"):
        return epsilon_shown(value)
    return bytes_shown(value) if "bytes" in name else value


def _words(name: str) -> str:
    return name.replace("_", " ")
