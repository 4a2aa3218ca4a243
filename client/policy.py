"""The client's own limits, from a file that only its operator writes. A refusal is a normal answer, with numbers."""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from common.config import MODES
from common.discovery import nearest
from common.errors import ConfigError
from common.privacy.claim import OBSERVERS


class Policy(BaseModel):
    """What this client takes part in. An empty tuple allows nothing; a list that is left out has the default below."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_epsilon: float = Field(
        ge=0, description="limit on everything ever spent on a data set under one unit; 0: no run"
    )
    max_delta: float = Field(1e-5, gt=0, le=1)
    modes: tuple[str, ...] = Field(("example", "local"), description="privacy modes; central trusts the coordinator")
    families: tuple[str, ...] | None = Field(None, description="embedding families; left out: every one")
    units: tuple[str, ...] = Field(("client",), description="privacy units that a run may protect")
    mixed_units: bool = Field(False, description="one data set under several units: each has a budget of its own")
    test_mode: bool = Field(False, description="runs whose noise can be subtracted: for trials on invented data")
    min_cohort: int = Field(3, ge=2, description="secure aggregation: fewest clients that begin a round")
    min_survivors: int = Field(3, ge=2, description="secure aggregation: fewest clients in a sum that is opened")
    min_colluders: int = Field(0, ge=0, description="secure aggregation: colluding clients that noise must allow for")
    roster_required: bool = Field(False, description="secure aggregation among identities of a signed roster alone")
    max_rounds: int = Field(1_000, ge=1)
    max_message_bytes: int = Field(268_435_456, ge=1)
    observers: tuple[str, ...] = Field(("public",), description="against each of them a run stays below max_epsilon")
    min_noise_multiplier: float = Field(0.0, ge=0, description="least noise, in units of the clip")
    secure_aggregation_required: bool = Field(False, description="no run without it")
    coordinators: tuple[str, ...] | None = Field(
        None, description="public keys that may ask; left out: whoever reaches it"
    )
    max_epsilon_per_period: float | None = Field(None, ge=0, description="limit on what runs of the last days spend")
    period_days: int = Field(30, ge=1, description="how many days count")
    max_seconds: int | None = Field(None, ge=1, description="longest that one message is worked on")
    hours: tuple[int, int] | None = Field(None, description="begin and end of the working day, the site's own time")

    @field_validator("observers")
    @classmethod
    def _known_observers(cls, observers: tuple[str, ...]) -> tuple[str, ...]:
        for observer in observers:
            if observer not in OBSERVERS:
                raise ValueError(f"no observer {observer!r}{nearest(observer, list(OBSERVERS))}")
        return observers

    @field_validator("hours")
    @classmethod
    def _real_hours(cls, hours: tuple[int, int] | None) -> tuple[int, int] | None:
        if hours is not None and not (0 <= hours[0] < 24 and 0 < hours[1] <= 24 and hours[0] != hours[1]):
            raise ValueError("hours are two numbers from 0 to 24, like [20, 6]")
        return hours

    @field_validator("modes")
    @classmethod
    def _known_modes(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        for mode in modes:
            if mode not in MODES:
                raise ValueError(f"no mode {mode!r}{nearest(mode, list(MODES))}")
        return modes

    @property
    def limits_spend(self) -> bool:
        """Whether what a data set has spent before can lead to a refusal."""
        period = self.max_epsilon_per_period is not None
        return self.max_epsilon < float("inf") or not self.mixed_units or period

    @property
    def period_begins(self) -> str:
        """First day (ISO) of the period that ends today."""
        return (datetime.date.today() - datetime.timedelta(days=self.period_days - 1)).isoformat()

    @classmethod
    def permissive(cls) -> Self:
        """Allows everything: for simulations, whose operator owns all the data."""
        return cls(
            max_epsilon=float("inf"),
            max_delta=1.0,
            modes=MODES,
            units=("*",),
            mixed_units=True,
            test_mode=True,
            min_cohort=2,
            min_survivors=2,
            max_rounds=2**31 - 1,
            max_message_bytes=2**62,
            observers=(),
        )


@dataclass(frozen=True)
class Refusal:
    """Why a client does not take part: a short code for programs, and a sentence with numbers for people.

    Neither holds anything about the data; spend is a fact about runs.
    """

    code: str
    message: str


def read_policy(path: Path) -> Policy:
    """Read a TOML policy; there is no default one, because what a client allows is its operator's decision.

    Raises:
        ConfigError: unreadable, bad TOML, a missing ``max_epsilon``, a bad value, or an unknown key (with the nearest).
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no policy file {path}",
            remedy='Write one: `max_epsilon = 8.0`, and where the coordinator is trusted `modes = ["central"]`.',
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read policy {path}: {error}", remedy="Correct the policy file.") from None
    try:
        return Policy.model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(_explained(str(e["loc"][0]), e["type"], e["msg"]) for e in error.errors())
        raise ConfigError(f"policy {path}: {wrong}", remedy="Correct the policy file.") from None


def _explained(key: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{nearest(key, list(Policy.model_fields))}"
    return f"{key}: {message.removeprefix('Value error, ')}"


# exception: one parameter for each term of a run that a policy limits; they are keywords, and all are needed.
def check(
    policy: Policy, *, mode: str, family: str, unit: str, epsilon: float, delta: float, rounds: int, test_mode: bool
) -> Refusal | None:
    """Whether the policy allows a run with these terms; ``epsilon`` is the run's own, at ``delta``.

    What was spent before is for ``check_spend``. A number that is not one (NaN) is refused.
    """
    if test_mode and not policy.test_mode:
        return Refusal("test_mode", "the run asks for test mode, whose noise anybody can subtract: it is not allowed")
    if mode not in policy.modes:
        return Refusal("mode", f"privacy mode {mode!r} is not among those allowed: {_listed(policy.modes)}")
    if policy.families is not None and family not in policy.families:
        return Refusal("family", f"family {family!r} is not among those allowed: {_listed(policy.families)}")
    if unit not in policy.units and "*" not in policy.units:
        return Refusal("unit", f"privacy unit {unit!r} is not among those allowed: {_listed(policy.units)}")
    if not 1 <= rounds <= policy.max_rounds:
        return Refusal("rounds", f"{rounds} rounds are asked for, between 1 and {policy.max_rounds} are allowed")
    if not delta <= policy.max_delta:
        return Refusal("delta", f"delta {delta:g} exceeds the limit {policy.max_delta:g}")
    if not epsilon <= policy.max_epsilon or policy.max_epsilon == 0:
        return Refusal("epsilon", f"the run alone costs epsilon {epsilon:.4g}, the limit is {policy.max_epsilon:.4g}")
    return None


def check_spend(policy: Policy, *, unit: str, before: float, after: float, other_units: int = 0) -> Refusal | None:
    """Whether the ledger's numbers allow one more run on a data set.

    Args:
        unit: the privacy unit of the run.
        before: epsilon of what was spent under this unit (``Ledger.epsilon``).
        after: the same with the planned run on top.
        other_units: how many other units this data set was used under (``Ledger.units``).
    """
    if other_units and not policy.mixed_units:
        return Refusal("mixed_units", f"the data were used under {other_units} unit(s) other than {unit!r} before")
    if not after <= policy.max_epsilon:
        return Refusal(
            "budget",
            f"epsilon would rise from {before:.4g} to {after:.4g} for unit {unit!r}, "
            f"the limit is {policy.max_epsilon:.4g}",
        )
    return None


def check_period(policy: Policy, *, before: float, after: float) -> Refusal | None:
    """Whether what the last days spent leaves room; the numbers are those of ``check_spend``, of that period."""
    limit = policy.max_epsilon_per_period
    if limit is not None and not after <= limit:
        return Refusal(
            "period",
            f"epsilon of the last {policy.period_days} days would rise from {before:.4g} to {after:.4g}, "
            f"the limit is {limit:.4g}",
        )
    return None


def check_colluders(policy: Policy, colluders: int) -> Refusal | None:
    """Whether noise and graph are sized for as many clients that tell the coordinator their share as the policy wants.

    A sum of T survivors is accounted with T - ``colluders`` shares of the noise.
    """
    if colluders < policy.min_colluders:
        return Refusal(
            "colluders",
            f"the noise allows for {colluders} colluding clients, at least {policy.min_colluders} are demanded",
        )
    return None


def check_message(policy: Policy, message_bytes: int) -> Refusal | None:
    """Whether a message of this size may be taken in or sent."""
    if message_bytes > policy.max_message_bytes:
        return Refusal("message_bytes", f"{message_bytes:,} bytes exceed the limit {policy.max_message_bytes:,}")
    return None


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
