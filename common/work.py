"""The public description of a run's work: server and clients derive it from the scenario and the rows alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from common import families
from common.config import Scenario
from common.errors import PrivacyConfigError
from common.families import AdditiveFamily, RowFamily
from common.privacy.accounting import check_delta
from common.privacy.plan import PrivacyPlan, make_plan
from common.privacy.plan_sizing import sized
from common.privacy.row_votes import slot_specs
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
        return self.update_specs_of(0 if self.domain is None else len(self.domain))

    def update_specs_of(self, rows: int) -> tuple[ParameterSpec, ...]:
        """``update_specs`` for a row domain of ``rows`` keys."""
        if isinstance(self.family, AdditiveFamily):
            return self.family.statistics_specs(self.options, rows)
        return self.family.specs(self.options, rows)

    @property
    def sum_specs(self) -> tuple[ParameterSpec, ...]:
        """What a secure sum adds up: ``update_specs``, or slots for the rows that clients select."""
        return self.sum_specs_of(0 if self.domain is None else len(self.domain))

    def sum_specs_of(self, rows: int) -> tuple[ParameterSpec, ...]:
        """``sum_specs`` for a row domain of ``rows`` keys."""
        specs, votes = self.update_specs_of(rows), self.plan.votes
        return specs if votes is None else slot_specs(specs, replace(votes, rows=rows))

    def dimension_of(self, rows: int) -> int:
        """How many numbers a sum of updates holds with a row domain of ``rows`` keys (0 for encoders)."""
        return sum(math.prod(spec.shape) for spec in self.sum_specs_of(rows))


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
    work = Work(scenario=scenario, family=family, options=options, domain=domain, plan=plan)
    if domain is None and family.row_domain is not None:
        return work  # in mode distributed this plan accounts nothing yet
    rows = 0 if domain is None else len(domain)
    if plan.votes is not None and not (isinstance(family, RowFamily) and rows):
        raise PrivacyConfigError(
            f"family {family.name!r} does not tell which rows a client holds, so no client can vote on rows",
            remedy="Set federation.rows = 'dense', or use a family with tables and local steps (word2vec).",
        )
    return replace(work, plan=sized(plan, work.dimension_of(rows), rows))


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
