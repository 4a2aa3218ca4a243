"""The plan of a run as a page of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulations.commands.output import bytes_shown, shown, table


def lines(described: Mapping[str, Any]) -> list[str]:
    """Lines of text for what ``simulations.federation.describe`` returned: scalars first, then each nested part."""
    scalars = {k: v for k, v in described.items() if not isinstance(v, Mapping)}
    nested = {k: v for k, v in described.items() if isinstance(v, Mapping)}
    page = _pairs(scalars)
    for name, part in nested.items():
        page += ["", _words(name), *_part(part)]
    return page


def _part(part: Mapping[str, Any]) -> list[str]:
    if part and all(isinstance(v, Mapping) for v in part.values()):
        columns = list(dict.fromkeys(column for row in part.values() for column in row))
        rows = [(_words(name), *(_cell(c, row.get(c)) for c in columns)) for name, row in part.items()]
        return table(["", *map(_words, columns)], rows)
    return _pairs(part, indent="  ")


def _pairs(values: Mapping[str, Any], indent: str = "") -> list[str]:
    width = max((len(_words(name)) for name in values), default=0)
    return [f"{indent}{_words(name).ljust(width)}  {shown(_cell(name, value))}" for name, value in values.items()]


def _cell(name: str, value: Any) -> Any:
    if "bytes" in name and isinstance(value, (int, float)) and not isinstance(value, bool):
        return bytes_shown(value)
    return value


def _words(name: str) -> str:
    return name.replace("_", " ")
