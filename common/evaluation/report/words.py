"""How the pages put values into words: rounding that hides no risk, names for observers, nested settings as lines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jinja2 import Template

_SEES = {
    "coordinator": ("The coordinator", "every message that clients send to it"),
    "other_clients": ("Other clients", "the parameters that the coordinator sends in every round"),
    "public": ("The public", "this release: everything in this folder"),
}


@functools.cache
def compiled(page: str) -> Template:
    """The template ``page``, compiled. Every value is escaped: keys and names of a release come from anybody."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(num=number, figure=figure, risk=risk, up=upward, down=downward)
    environment.filters.update(sentence=sentence, drawing=Markup)
    return environment.from_string(page)


def number(value: Any) -> str:
    """A value of a JSON file as the report shows it: four significant digits, thousands apart, words for nothing."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def figure(value: float) -> str:
    """A score as the report shows it: three decimals, so that figures line up."""
    return "–" if np.isnan(value) else f"{value:.3f}".replace("-", "−")


def risk(value: float, decimals: int = 3) -> str:
    """An epsilon or a share of a hundred: rounded up, so that no risk shrinks on its way into words."""
    return upward(value, decimals).rstrip("0").rstrip(".")


def upward(value: float | str | None, decimals: int = 3) -> str:
    """A figure that is worse the larger it is: never rounded down; a fixed number of decimals, to line up."""
    return _rounded(value, decimals, np.ceil)


def downward(value: float | str | None, decimals: int = 3) -> str:
    """A figure that comforts the larger it is (chance, a cap): never rounded up."""
    return _rounded(value, decimals, np.floor)


def _rounded(value: float | str | None, decimals: int, towards: Callable[[float], float]) -> str:
    if value is None or isinstance(value, str) or np.isnan(value):
        return "unlimited" if value == "inf" else "–"
    scaled = 10.0**decimals * value
    # The slack absorbs the rounding of the product alone: 3 must become neither 3.001 nor 2.999.
    close = np.round(scaled)
    whole = close if abs(scaled - close) <= 1e-12 * abs(scaled) else towards(scaled)
    return f"{whole / 10.0**decimals + 0.0:.{decimals}f}".replace("-", "−")


def sentence(text: Any) -> str:
    """The text with a capital first letter; the rest stays as it is, unlike with ``str.capitalize``."""
    return str(text)[:1].upper() + str(text)[1:]


def unit_name(claim: Mapping[str, Any]) -> str:
    """What the claim protects one of."""
    return "client" if claim.get("unit_is_client") else str(claim.get("unit", "unit"))


def observers(claim: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everyone whom the claim speaks about: who that is, what they see, and what the claim says of them."""
    rows = []
    for name, entry in claim.get("observers", {}).items():
        who, sees = _SEES.get(name, (name.replace("_", " ").capitalize(), ""))
        rates = entry.get("tpr_at_fpr") or {}
        rows.append({"who": who, "sees": sees, **entry, "name": name, "caught": rates.get("0.01")})
    return rows


def flattened(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as dotted names; lists as one text."""
    found: list[tuple[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, Mapping):
            found += flattened(item, f"{prefix}{name}.")
        elif isinstance(item, (list, tuple)):
            found.append((f"{prefix}{name}", ", ".join(number(part) for part in item)))
        else:
            found.append((f"{prefix}{name}", item))
    return found
