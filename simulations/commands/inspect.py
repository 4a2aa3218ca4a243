"""``fedembed list``: what can be named in a scenario or on the command line."""

from __future__ import annotations

import ast
import importlib.util
from enum import StrEnum
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_origin

import typer

from simulations.commands.output import emit_json, say, shown
from simulations.commands.train import JsonOption

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_PACKAGES = {
    "families": "common.families",
    "mechanisms": "common.privacy.mechanisms",
    "readers": "client.readers",
    "tasks": "common.evaluation.quality",
    "attacks": "common.evaluation.leakage",
    "formats": "common.formats",
    "corpora": "simulations.corpora",
}


class Kind(StrEnum):
    """What ``fedembed list`` can list."""

    families = "families"
    mechanisms = "mechanisms"
    readers = "readers"
    tasks = "tasks"
    attacks = "attacks"
    formats = "formats"
    corpora = "corpora"
    scenarios = "scenarios"
    options = "options"


def list_members(
    kind: Annotated[
        Kind | None, typer.Argument(metavar="[KIND]", help="What to list; everything without it.", hidden=True)
    ] = None,
    *,
    json_output: JsonOption = False,
) -> None:
    """List what exists: families, mechanisms, readers, tasks, attacks, formats, corpora, scenarios, options.

    KIND is one of these words; without it all but the options are listed. Options are the keys of a scenario, each with
    its default; those of [task] belong to one family each.

    Example: fedembed list options
    """
    kinds = [kind] if kind is not None else [k for k in Kind if k is not Kind.options]
    found = {k.value: described(k) for k in kinds}
    if json_output:
        emit_json(found)
        return
    for name, members in found.items():
        indent = ""
        if kind is None:
            say(name)
            indent = "  "
        width = max((len(m) for m in members), default=0)
        for member, text in members.items():
            say(f"{indent}{member.ljust(width)}  {text}".rstrip())


def described(kind: Kind) -> dict[str, str]:
    """Member name -> first line of what it says about itself. Families are imported for their options alone."""
    if kind is Kind.options:
        return _options()
    if kind is Kind.scenarios:
        from simulations.runs import shipped_scenarios

        return {name: _scenario_line(name) for name in shipped_scenarios()}
    from common.discovery import member_names

    package = _PACKAGES[kind.value]
    found = {name: _first_docstring_line(f"{package}.{name}") for name in member_names(package)}
    return {name.replace("_", "-"): text for name, text in found.items()} if kind is Kind.corpora else found


def _options() -> dict[str, str]:
    """Dotted key -> choices, default and meaning; the keys of [task] with their family in brackets."""
    from common import families
    from common.config import Scenario

    found: dict[str, str] = {}
    for section, field in Scenario.model_fields.items():
        if section == "task":
            found["task.family"] = f"default {field.default.family}; one of `fedembed list families`"
            for name in families.names():
                options = families.load(name).Options.model_fields
                found |= {f"task.{key} ({name})": _said(option) for key, option in options.items()}
        elif hasattr(field.annotation, "model_fields"):
            keys: dict[str, FieldInfo] = field.annotation.model_fields  # type: ignore[union-attr]
            found |= {f"{section}.{key}": _said(option) for key, option in keys.items()}
        else:
            found[section] = _said(field)
    return found


def _said(option: FieldInfo) -> str:
    choices = " | ".join(map(str, get_args(option.annotation))) if get_origin(option.annotation) is Literal else ""
    default = (
        "" if option.is_required() else f"default {shown(option.get_default(call_default_factory=True)) or repr('')}"
    )
    return "; ".join(part for part in (choices, default, option.description) if part)


def _first_docstring_line(module: str) -> str:
    spec = importlib.util.find_spec(module)
    source = spec.loader.get_source(module) if spec is not None and spec.loader is not None else None  # type: ignore[attr-defined]
    text = ast.get_docstring(ast.parse(source)) if source else None
    return text.splitlines()[0] if text else ""


def _scenario_line(name: str) -> str:
    file = resources.files("simulations") / "scenarios" / f"{name}.toml"
    first = file.read_text(encoding="utf-8").splitlines()[:1]
    return first[0].lstrip("# ") if first and first[0].startswith("#") else ""
