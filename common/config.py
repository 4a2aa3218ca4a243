"""Scenarios: frozen configuration read from TOML, with overrides; unknown keys are refused with the nearest one."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.discovery import nearest
from common.errors import ConfigError, PrivacyConfigError, UsageError

CORPUS = "corpus"  # the value of data.reader that names no reader: records are generated
_PLAIN_WORDS = {  # where pydantic speaks of Python's types
    "tuple_type": 'must be a list, like ["name"]',
    "model_type": "must be a section of settings, not a value",
}

Mode = Literal["none", "central", "local", "example"]
MODES: tuple[str, ...] = get_args(Mode)


class Section(BaseModel):
    """Base of every section: frozen; unknown keys, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskConfig(BaseModel):
    """``[task]``: the family; every other key is one of the family's own options, checked by the family."""

    model_config = ConfigDict(frozen=True, extra="allow")
    family: str = "spectral"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class DataConfig(Section):
    """``[data]``: where the records are and who owns them."""

    reader: str = Field("text", description="one of `fedembed list readers`, or `corpus` for a generated one")
    path: str = Field("", description="file or folder, or the name of a corpus; relative to the scenario file")
    client_key: tuple[str, ...] = Field((), description="field(s) whose value names the client")
    unit: str = Field("record", description="privacy unit: client, record, sentence, document, user, or a field's name")
    text_field: str = Field("text", description="field that holds the text of a JSON line")
    partition: Literal["key", "uniform", "dirichlet", "quantity"] = "key"
    clients: int = Field(0, ge=0, description="number of synthetic clients (partition other than key)")
    alpha: float = Field(0.5, gt=0, description="concentration of the Dirichlet or quantity skew")
    user_field: str = Field("", description="column of the user; without one, found by its usual names")
    item_field: str = Field("", description="column of the item; without one, found by its usual names")
    weight_field: str = Field("", description="column of the rating or count; without one, found by name, else 1")
    timestamp_field: str = Field("", description="column of the time; without one, found by name, else 0")
    label_field: str = Field("", description="array of image labels; without one, found by its usual names")
    classes: tuple[str, ...] = Field((), description="public class names in label order; pictures in folders need them")
    max_line_bytes: int = Field(1_000_000, gt=0)
    max_records: int = Field(100_000_000, gt=0)
    max_array_bytes: int = Field(4_294_967_296, gt=0, description="largest array in a .npz file, uncompressed")
    max_pixels: int = Field(16_777_216, gt=0, description="largest image: height times width")
    holdout: Literal["none", "last", "clients"] = Field(
        "none", description="kept for evaluation: each user's last interaction, or one client in six"
    )


class VocabularyConfig(Section):
    """``[vocabulary]``: the row domain. Never read off the clients' data."""

    source: Literal["public", "hashed"] = "public"
    path: str = Field("python-stdlib", description="file of `key<TAB>count` lines, or the name of a shipped corpus")
    max_rows: int = Field(10_000, gt=0)
    min_count: float = Field(1, ge=0)
    buckets: int = Field(65_536, gt=0, le=16_777_216, description="rows of a hashed domain")


class PrivacyConfig(Section):
    """``[privacy]``: give epsilon (and delta), or noise_multiplier; never both."""

    model_config = ConfigDict(allow_inf_nan=True)  # refused below, as settings without a claim

    mode: Mode = "central"
    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-6
    l2_clip_norm: float | None = Field(None, description="L2 bound of one unit's contribution; families may fix it")
    mechanism: str = Field("gaussian", description="one of `fedembed list mechanisms`")
    test_mode: bool = Field(False, description="noise and sampling from --seed: reproducible, and NOT private")
    selection_ratio: float = Field(5.0, gt=1, le=1e6, description="rows = selected: vote noise / noise_multiplier")
    selection_threshold: float = Field(4.0, ge=-8, le=38, description="rows = selected: in stddevs of the vote noise")

    @model_validator(mode="after")
    def _consistent(self) -> PrivacyConfig:
        if self.mode == "none":
            if self.epsilon is not None or self.noise_multiplier is not None:
                raise PrivacyConfigError(
                    "mode 'none' adds no noise, so epsilon and noise_multiplier must be absent",
                    remedy="Take them out of [privacy]; on the command line: --set privacy.epsilon=",
                )
            return self
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise PrivacyConfigError(
                "give exactly one of privacy.epsilon and privacy.noise_multiplier",
                remedy="Keep one of them; on the command line an empty value takes one out: --set privacy.epsilon=",
            )
        for name in ("epsilon", "noise_multiplier", "l2_clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise PrivacyConfigError(f"privacy.{name} must be positive and finite, not {value}")
        if not 0 < self.delta < 1:
            raise PrivacyConfigError(f"privacy.delta must lie strictly between 0 and 1, not {self.delta}")
        return self


class FederationConfig(Section):
    """``[federation]``: rounds, cohort and the faults to simulate."""

    rounds: int = Field(2, ge=1)
    sampling: Literal["full", "poisson"] = "full"
    rate: float = Field(1.0, gt=0, le=1, description="chance that a client takes part in a round (poisson)")
    rows: Literal["dense", "selected"] = Field("dense", description="noise all rows, or update privately selected ones")
    secure_aggregation: Literal["none"] = "none"
    dropout: float = Field(0.0, ge=0, lt=1, description="simulated share of clients that vanish in a round")
    stragglers: float = Field(0.0, ge=0, lt=1, description="simulated share of clients that answer too late")
    min_clients: int = Field(1, ge=1, description="usable replies below which the round is aborted")
    min_nodes: int = Field(1, ge=1, description="nodes to wait for before the first round")
    round_timeout_s: float = Field(3600.0, gt=0)


class TrainingConfig(Section):
    """``[training]``: the client's local work."""

    local_steps: int = Field(0, ge=0, description="local steps a round; 0 means local_epochs passes")
    local_epochs: int = Field(1, ge=1)
    batch_size: int = Field(64, ge=1, description="units a step: the public divisor in example mode")
    unit_rate: float = Field(0.0, ge=0, le=1, description="chance that a unit enters a local step (example mode)")
    lr: float = Field(0.05, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ServerConfig(Section):
    """``[server]``: how the mean update becomes new parameters."""

    optimizer: Literal["sgd", "adam", "adagrad", "rowwise_adagrad"] = "sgd"
    lr: float = Field(1.0, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    denominator: float | None = Field(None, gt=0, description="public divisor of the sum; default: expected cohort")
    checkpoint_every: int = Field(1, ge=1)


class EvaluationConfig(Section):
    """``[evaluation]``: quality tasks (``name`` or ``name:file``) and keys whose neighbours are shown."""

    tasks: tuple[str, ...] = ()
    neighbors_of: tuple[str, ...] = ()
    loss_clients: int = Field(2, ge=0, description="clients a message that report their loss (mode none only)")


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

    A relative ``data.path``, ``vocabulary.path`` or task file that exists beside the scenario is made absolute.

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
    for section in ("data", "vocabulary"):
        value = raw.get(section, {}).get("path") if isinstance(raw.get(section), dict) else None
        if isinstance(value, str) and value and (base / value).exists():
            raw[section]["path"] = str((base / value).resolve())
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
