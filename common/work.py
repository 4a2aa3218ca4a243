"""The public description of a run's work: server and clients derive it from the scenario and the rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common import families
from common.config import Scenario
from common.families import AdditiveFamily
from common.privacy.plan import PrivacyPlan, make_plan
from common.table import RowDomain
from common.update import ParameterSpec


@dataclass(frozen=True)
class Work:
    """All that is public about the local work of a run."""

    scenario: Scenario
    family: Any
    options: Any
    domain: RowDomain | None
    plan: PrivacyPlan

    @property
    def specs(self) -> tuple[ParameterSpec, ...]:
        """The shared parameters."""
        return self.family.specs(self.options, 0 if self.domain is None else len(self.domain))

    @property
    def update_specs(self) -> tuple[ParameterSpec, ...]:
        """What clients send: the statistics of an additive family, else the parameters themselves."""
        if isinstance(self.family, AdditiveFamily):
            return self.family.statistics_specs(self.options, 0 if self.domain is None else len(self.domain))
        return self.specs


def work_for(scenario: Scenario, domain: RowDomain | None) -> Work:
    """Family, options and privacy plan of a scenario.

    Raises:
        ConfigError, PrivacyConfigError: unknown family or option, or settings without a valid claim.
    """
    family = families.load(scenario.task.family)
    options = families.options_of(family, scenario.task)
    additive = isinstance(family, families.AdditiveFamily)
    plan = make_plan(
        scenario.privacy,
        scenario.federation,
        scenario.training,
        unit=scenario.data.unit,
        additive=additive,
        natural_clip=family.natural_clip(options) if additive else None,
    )
    return Work(scenario=scenario, family=family, options=options, domain=domain, plan=plan)
