"""Scenarios: frozen configuration read from TOML, with overrides; unknown keys are refused with the nearest one."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from common.config_sections import (
    MODES,
    DataConfig,
    EvaluationConfig,
    FederationConfig,
    PrivacyConfig,
    Section,
    ServerConfig,
    TaskConfig,
    TrainingConfig,
    VocabularyConfig,
)
from common.discovery import nearest
from common.errors import ConfigError, UsageError

__all__ = [
    "CORPUS",
    "MODES",
    "DataConfig",
    "EvaluationConfig",
    "FederationConfig",
    "PrivacyConfig",
    "Scenario",
    "ServerConfig",
    "TaskConfig",
    "TrainingConfig",
    "VocabularyConfig",
    "apply_overrides",
    "build_scenario",
    "read_scenario",
    "scenario_from_json",
]

CORPUS = "corpus"  # the value of data.reader that names no reader: records are generated
_PLAIN_WORDS = {  # where pydantic speaks of Python's types
    "tuple_type": 'must be a list, like ["name"]',
    "model_type": "must be a section of settings, not a value",
}


class Scenario(Section):
    """One run, completely described. ``digest`` identifies it in checkpoints, ledgers and manifests."""

    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    privacy: PrivacyConfig = PrivacyConfig(epsilon=3.0)
    federation: FederationConfig = FederationConfig()
    training: TrainingConfig = TrainingConfig()
    server: ServerConfig = ServerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = Field(0, ge=0, description="public seed of initial values, partition and simulated faults")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def canonical_json(self) -> str:
        """JSON with sorted keys: what travels to apps and is stored in checkpoints."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def scenario_from_json(text: str) -> Scenario:
    """Inverse of ``Scenario.canonical_json``."""
    return build_scenario(json.loads(text))


def read_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read a TOML scenario and apply ``section.key=value`` overrides.

    A relative ``data.path``, ``vocabulary.path``, ``federation.roster`` or task file that exists beside the scenario is
    made absolute.

    Raises:
        ConfigError: unreadable file, bad TOML, unknown key, bad value.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no scenario file {path}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"scenario {path} is not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"scenario {path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read scenario {path}: {error.strerror}") from None
    return build_scenario(_resolved(apply_overrides(raw, overrides), path.parent))


def _resolved(raw: dict[str, Any], base: Path) -> dict[str, Any]:
    for section, key in (("data", "path"), ("vocabulary", "path"), ("federation", "roster")):
        value = raw.get(section, {}).get(key) if isinstance(raw.get(section), dict) else None
        if isinstance(value, str) and value and (base / value).exists():
            raw[section][key] = str((base / value).resolve())
    evaluation = raw.get("evaluation")
    if isinstance(evaluation, dict) and isinstance(tasks := evaluation.get("tasks"), list):
        evaluation["tasks"] = [_resolved_task(task, base) for task in tasks]
    return raw


def _resolved_task(task: Any, base: Path) -> Any:
    name, _, file = task.partition(":") if isinstance(task, str) else ("", "", "")
    return f"{name}:{(base / file).resolve()}" if file and (base / file).exists() else task


def apply_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``raw`` with ``section.key=value`` strings applied; values are TOML, bare words are strings.

    An empty value takes the key out: its default holds again.

    Raises:
        UsageError: an override without a key or an equals sign.
        ConfigError: a key to be taken out that is neither there nor known.
    """
    merged: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in raw.items()}
    for item in overrides:
        dotted, equals, text = item.partition("=")
        if not equals or not dotted.strip():
            raise UsageError(f"override {item!r} is not of the form section.key=value")
        *path, key = dotted.strip().split(".")
        target = merged
        for part in path:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{dotted!r}: {part!r} is not a section")
        if text.strip():
            target[key] = _toml_value(text.strip())
        elif key in target:
            del target[key]
        else:
            _refuse_unknown_key(dotted.strip(), path, key, target)
    return merged


def _refuse_unknown_key(dotted: str, path: Sequence[str], key: str, present: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for a key that no section has: a slip would leave the old value in force."""
    section = Scenario.model_fields[path[0]].annotation if path and path[0] in Scenario.model_fields else Scenario
    known = {*present, *getattr(section, "model_fields", {})}
    if key not in known:
        raise ConfigError(f"nothing to take out: no key {dotted!r}{nearest(key, sorted(known))}")


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def build_scenario(raw: Mapping[str, Any]) -> Scenario:
    """Validate a nested mapping.

    Raises:
        ConfigError: with the dotted key, what is wrong and, for an unknown key, the nearest known one.
    """
    try:
        return Scenario.model_validate(_without_none(raw))
    except ValidationError as error:
        raise ConfigError("; ".join(_explained(e) for e in error.errors())) from None


def _without_none(raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return {k: _without_none(v) for k, v in raw.items() if v is not None}
    return raw


def _explained(error: Any) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}{nearest(dotted.split('.')[-1], _known_keys(error['loc'][:-1]))}"
    return f"{dotted}: {_PLAIN_WORDS.get(error['type'], error['msg'])}"


def _known_keys(section: Sequence[Any]) -> list[str]:
    model: Any = Scenario
    for part in section:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
