"""The public description of a run's work: server and clients derive it from the scenario and the rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common import families
from common.config import Scenario
from common.errors import PrivacyConfigError
from common.families import AdditiveFamily
from common.privacy.accounting import check_delta
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
    if scenario.privacy.mode == "example" and not isinstance(family, families.ModuleFamily):
        raise PrivacyConfigError(
            f"mode 'example' needs a family with a module and a loss per unit, which {family.name!r} has not",
            remedy="Use privacy.mode = 'central' or 'local' with it, or another family (word2vec, image).",
        )
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


def refuse_large_delta(plan: PrivacyPlan, units: int) -> None:
    """Refuse a delta of at least 1/n for the n units that somebody holds; the message does not tell n.

    Raises:
        PrivacyConfigError: publishing one unit outright would still count as private.
    """
    if plan.mode == "none":
        return
    try:
        check_delta(plan.delta, units)
    except PrivacyConfigError:
        raise PrivacyConfigError(
            f"delta = {plan.delta:g} is not below 1/n, with n the privacy units ({plan.unit}) of the data: publishing "
            "one unit at random would satisfy it",
            remedy="Lower privacy.delta well below 1/n: 1e-6 where there are at most some 100,000 units.",
        ) from None
