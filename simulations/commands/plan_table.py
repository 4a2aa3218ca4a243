"""The plan of a run as a page of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulations.commands.output import bytes_shown, shown, table


def lines(described: Mapping[str, Any]) -> list[str]:
    """Lines of text for what ``simulations.federation.describe`` returned: single values, then each nested part."""
    page = _pairs({name: value for name, value in described.items() if not _nested(value)})
    for name, part in described.items():
        if _nested(part):
            page += ["", _words(name), *_part(part)]
    return page


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _part(part: Any) -> list[str]:
    if isinstance(part, Mapping):
        return _pairs(part, indent="  ")
    columns = list(part[0])
    rows = [(number, *(_cell(column, row[column]) for column in columns)) for number, row in enumerate(part, start=1)]
    return table(("round", *map(_words, columns)), rows)


def _pairs(values: Mapping[str, Any], indent: str = "") -> list[str]:
    width = max((len(_words(name)) for name in values), default=0)
    return [f"{indent}{_words(name).ljust(width)}  {shown(_cell(name, value))}" for name, value in values.items()]


def _cell(name: str, value: Any) -> Any:
    if "bytes" in name and isinstance(value, (int, float)) and not isinstance(value, bool):
        return bytes_shown(value)
    return value


def _words(name: str) -> str:
    return name.replace("_", " ")
