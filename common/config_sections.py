"""The sections of a scenario: frozen; unknown keys, NaN and infinity refused."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.errors import PrivacyConfigError

Mode = Literal["none", "central", "local", "example", "distributed"]
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
    mechanism: str | None = Field(
        None, description="one of `fedembed list mechanisms`; left out: skellam in mode distributed, else gaussian"
    )
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
    max_selected_rows: int = Field(0, ge=0, description="selected in mode distributed: rows that get values in a round")
    rows_per_client: int = Field(0, ge=0, description="selected in mode distributed: rows that one client votes for")
    min_contributors: int = Field(
        1, ge=1, description="selected in mode distributed: added to the threshold on a row's noised votes"
    )
    select_every: int = Field(1, ge=0, description="selected in mode distributed: rounds between votes; 0: once a run")
    secure_aggregation: Literal["none", "full", "ideal"] = Field(
        "none", description="mode distributed: full runs the protocol; ideal adds up in the clear inside the simulator"
    )
    bits: Literal[0, 16, 24, 32] = Field(0, description="of a masked number (mode distributed); 0: as few as serve")
    max_clients: int = Field(
        0, ge=0, le=1_000_000, description="largest cohort (mode distributed): sums never overflow"
    )
    colluders: int = Field(0, ge=0, description="clients whose share of the noise may be known (mode distributed)")
    roster: str = Field("", description="file of identities signed offline; empty: a semi-honest coordinator")
    dropout: float = Field(0.0, ge=0, lt=1, description="simulated share of clients that vanish in a round")
    stragglers: float = Field(0.0, ge=0, lt=1, description="simulated share of clients that answer too late")
    min_clients: int = Field(
        1, ge=1, description="usable replies below which a round is aborted; noise is shared out for them"
    )
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
