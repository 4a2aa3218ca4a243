"""The record of an audit: what audit.json holds, and all that its page is made from.

``schema`` is the published one (docs/audit.schema.json). Infinite numbers are the string
``"inf"``; a figure that was not measured is ``null``.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SCHEMA_VERSION: Final = 1


def _of_json(value: Any) -> Any:
    """JSON has neither NaN nor infinity, and a writer that dropped them would turn "unlimited" into "not measured"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "inf" if value > 0 else None if math.isnan(value) else value
    return value


Number = Annotated[float | Literal["inf"] | None, BeforeValidator(_of_json)]
Outcome = Literal["CONSISTENT", "VIOLATION FOUND", "INCONCLUSIVE"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Identity(_Part):
    """What was audited, by what, and when."""

    audited: str = Field(description="name or path of the scenario or release")
    kind: Literal["scenario", "release"]
    fedembed: str = Field(description="version of the auditor")
    date: str = Field(description="UTC, ISO 8601")
    scenario: dict[str, Any] = Field(description="all settings")


class Claim(_Part):
    """What was claimed: the fields of a certificate."""

    sentence: str
    certificate: dict[str, Any] = Field(description="as in certificate.json: unit, adjacency, observers, events, ...")


class TestLine(_Part):
    """One statistical test of the claim on canaries."""

    method: str
    design: str = Field(description="of the canaries")
    bound: Number = Field(description="lower bound on epsilon at confidence 1 - alpha")
    estimate: Number = Field(description="point estimate of epsilon; no bound")
    alpha: float
    guesses: int | None = None
    right: int | None = None
    cap: Number = Field(description="the bound if every guess were right")
    attainable: Number = Field(description="what the method shows of a mechanism that is exactly as claimed")
    detectable: Number = Field(description="smallest error of the noise, as a factor, that would have been found")
    refutes: bool
    supplementary: bool = Field(description="whether the design only adds alarms: its silence is not counted on")


class ViewRecord(_Part):
    """What canaries showed to one adversary."""

    view: Literal["sums", "table", "updates"]
    observer: str
    claimed_epsilon: float
    delta: float
    canaries: int
    outcome: Outcome
    reason: str
    noticed: Number = Field(
        description="how many times too small the noise had to be for all tests together to notice in 95 % of all "
        "runs: the largest over designs, without supplementary ones, of the smallest detectable of their tests, "
        "rounded up; null where the silence of some design says nothing"
    )
    auc: Number = Field(description="of the first design's canaries; 0.5 is guessing")
    auc_interval: tuple[float, float] | None = None
    tpr_at_fpr: dict[str, Number] = Field(
        default_factory=dict, description="false positive rate -> share of the first design's canaries that were found"
    )
    trade_off: dict[str, list[float]] = Field(
        default_factory=dict,
        description="lists of equal length: false positive rates (fpr), true positive rates (measured), and the "
        "largest that the claim allows (claimed); of the first design",
    )
    tests: tuple[TestLine, ...]


class LeakRecord(_Part):
    """An attack on the real clients, or on the released vectors."""

    attack: str
    sees: str
    metric: str
    value: Number
    ci_low: Number
    ci_high: Number
    n: int
    chance_name: str
    chance_value: Number
    control_value: Number = Field(description="the same attack on the same data without protection")
    promised: bool = Field(description="whether the guarantee speaks about what the attack wants to know")


class NotRunRecord(_Part):
    """An attack that had nothing to look at."""

    attack: str
    sees: str
    reason: str


class FindingRecord(_Part):
    """One conformance test."""

    test: str
    subject: str
    statistic: str
    holds: bool


class SpendRecord(_Part):
    """Epsilon spent when a round had been released."""

    round: int
    epsilon: dict[str, float] = Field(description="observer -> epsilon; of those against whom something is claimed")


class QualityRecord(_Part):
    """One figure of quality of one run, beside its baseline: the fields of evaluation.json, and whose it is."""

    run: Literal["audited", "unprotected", "released"]
    epsilon: Number = Field(description='claimed against the public; "inf" where nothing is claimed')
    task: str
    metric: str
    value: Number
    ci_low: Number = Field(description="lower end of the 95 % interval")
    ci_high: Number = Field(description="upper end of the 95 % interval")
    n: int
    coverage: float = Field(description="share of the benchmark that the table could answer")
    higher_is_better: bool
    baseline_name: str
    baseline_value: Number


class MapRecord(_Part):
    """First rows of the table on the two directions in which they vary most."""

    keys: tuple[str, ...] = Field(description="public keys of the rows")
    x: tuple[float, ...]
    y: tuple[float, ...]
    variance_share: float = Field(description="share of the rows' variance that the two directions hold")


class AuditRecord(_Part):
    """An audit, whole."""

    schema_version: Literal[1] = SCHEMA_VERSION
    identity: Identity
    outcome: Outcome
    reason: str
    claim: Claim
    views: tuple[ViewRecord, ...]
    leaks: tuple[LeakRecord, ...]
    not_run: tuple[NotRunRecord, ...]
    conformance: tuple[FindingRecord, ...]
    spend: tuple[SpendRecord, ...] = Field(default=(), description="epsilon over rounds, at up to six of them")
    quality: tuple[QualityRecord, ...] = ()
    map: MapRecord | None = Field(
        default=None, description="of the table with its noise; null where the audit cannot vouch for noise"
    )
    absent: dict[str, str] = Field(
        default_factory=dict, description="which of spend, quality and map are missing, and why"
    )
    settings: dict[str, Any] = Field(description="canaries, seed, clients, how sums were taken")
    not_covered: tuple[str, ...] = Field(description="in words, for people")
    seconds: float


def schema() -> str:
    """The JSON schema of audit.json, as docs/audit.schema.json holds it."""
    return json.dumps(AuditRecord.model_json_schema(), indent=1) + "\n"
