"""What is trained in an audit: the scenario with rows and clients more, for canaries and for membership."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Scenario, build_scenario
from common.errors import EvaluationError, UsageError
from common.evaluation.audit.verdict import FEWEST_CANARIES
from common.families import AdditiveFamily
from common.files import disk_errors
from common.table import IntArray, RowDomain
from common.units import ClientStore
from common.work import Work, work_for
from server.progress import Reporter
from simulations.audit.asked import Asked, with_questions
from simulations.audit.canaries import DESIGNS, KEY_PREFIX, Canaries, left_out
from simulations.audit.families import canaried, marked
from simulations.cohort import ASSUMED_CLIENTS, with_cohort
from simulations.federation import enrolled_work, prepared_clients

_NEVER = 1e-9  # frequency of a canary's row beside the rarest real one: no negative sample is drawn there


@dataclass(frozen=True)
class Planted:
    """Everything that is fixed before an audited run.

    Attributes:
        given: the scenario, as it was to be audited.
        work: of the audited run: rows for canaries, and a cohort that holds their clients.
        store: real clients first, then those of canaries.
        real_clients: how many are real.
        canaries: which of them are in is known to the auditor alone.
        clients_of: shape (m,), number of the client that would send each canary.
        asked: what attacks on real clients are asked about, and the data before anything was left out for that.
        real_domain: the rows that are not canaries'; ``None`` for encoders.
        left_out: designs of canaries that could not be planted, each with the reason.
    """

    given: Scenario
    work: Work
    store: ClientStore
    real_clients: int
    canaries: Canaries
    clients_of: IntArray
    asked: Asked
    real_domain: RowDomain | None
    left_out: Mapping[str, str]

    def with_canaries(self, round_number: Callable[[], int]) -> Work:
        """The work in which canary units send what they are made for."""
        return canaried(self.work, self.canaries, round_number)

    @property
    def settings(self) -> dict[str, Any]:
        """What was planted, and what could not be, for the record."""
        return {
            "canaries": len(self.canaries),
            "designs_left_out": dict(self.left_out),
            "included": int(self.canaries.included.sum()),
            "clients": self.real_clients,
            "canary_clients": len(self.store) - self.real_clients,
            "secure_aggregation": self.work.scenario.federation.secure_aggregation,
        }

    @property
    def real_keys(self) -> tuple[str, ...] | None:
        """Of these rows; ``None`` for encoders."""
        return None if self.real_domain is None else self.real_domain.keys

    @property
    def real_rows(self) -> int:
        """Rows of the tables that are not canaries'."""
        return self.canaries.first_row


def plant(scenario: Scenario, out: Path, reporter: Reporter, *, count: int, seed: int, masked: bool = False) -> Planted:
    """Read the scenario's data and plant ``count`` canaries of every design that the run allows.

    Args:
        masked: let the protocol of secure aggregation run too; without it the same integers are added up in the clear.

    Raises:
        FedembedError: the scenario or its data cannot be used; or no canary can be planted there.
    """
    if seed < 0:
        raise UsageError(f"the seed of an audit must not be negative, as {seed} is")
    if count < FEWEST_CANARIES:
        raise EvaluationError(
            f"{count} canaries a design are fewer than the {FEWEST_CANARIES} that a verdict needs",
            remedy="Plant 1,000: --canaries 1000.",
        )
    base = enrolled_work(with_cohort(scenario, ASSUMED_CLIENTS))
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    store, asked = with_questions(prepared_clients(base, out, reporter), rng)
    per_row = 1 if _rows_tell_apart(base) else min(s.shape[1] for s in base.update_specs if s.is_table)
    impossible = left_out(base.update_specs, rounds=base.plan.rounds, family=base.family.name)
    allowed = [number for number, name in enumerate(DESIGNS) if name not in impossible]
    design = np.repeat(np.array(allowed, dtype=np.int64), count)
    count = len(design)
    included = rng.random(count) < 0.5
    together = not base.plan.unit_is_client and base.plan.sampling == "full"
    numbers = (
        [np.flatnonzero(included)] if together else [np.flatnonzero(included[k : k + 1]) + k for k in range(count)]
    )
    names = tuple(f"{KEY_PREFIX}client-{k}" for k in range(len(numbers)))
    domain = None if base.domain is None else _extended(base.domain, -(-count // per_row))
    work = work_for(with_room(scenario, len(store), len(names), masked=masked), domain)
    canaries = Canaries(
        included, design, work.update_specs, len(base.domain or ()), per_row, _clip_of(work), work.plan.rounds
    )
    return Planted(
        scenario,
        work,
        marked(store, names, numbers),
        len(store),
        canaries,
        np.full(count, len(store)) if together else len(store) + np.arange(count),
        asked,
        base.domain,
        impossible,
    )


def unprotected(scenario: Scenario) -> Scenario:
    """The same scenario without protection: the control beside which every attack is shown."""
    raw = scenario.model_dump(mode="json")
    raw["privacy"] = {"mode": "none"}
    federation = {"secure_aggregation": "none", "rows": "dense", "max_clients": 0, "colluders": 0, "roster": ""}
    raw["federation"] |= federation | {"bits": 0, "min_clients": 1, "max_selected_rows": 0, "rows_per_client": 0}
    if scenario.privacy.mode == "example":
        raw["training"]["unit_rate"] = 0.0
    return build_scenario(raw)


def _clip_of(work: Work) -> float:
    """What contributions are clipped to; without protection there is no clip, and any length serves."""
    return work.plan.l2_clip_norm if work.plan.mode != "none" else 1.0


def _rows_tell_apart(work: Work) -> bool:
    """Whether every canary needs a row of its own.

    So it is where the final table mixes columns, and where rows that nobody touched may stay away: with rows shared,
    the presence of one would tell of many canaries. Where each client sends whole tables, rows are dear, and shared.
    """
    tables = any(s.is_table for s in work.update_specs)
    chosen = work.plan.mode in ("central", "none") or work.scenario.federation.rows == "selected"
    return isinstance(work.family, AdditiveFamily) or chosen or not tables


def _extended(domain: RowDomain, extra: int) -> RowDomain:
    """The domain with rows at its end whose keys occur in no text and are hardly ever drawn as negatives."""
    frequencies = domain.probabilities
    tiny = np.full(extra, frequencies.min() * _NEVER)
    keys = tuple(f"{KEY_PREFIX}{k}" for k in range(extra))
    return RowDomain((*domain.keys, *keys), np.concatenate([frequencies, tiny]), "public")


def with_room(scenario: Scenario, real: int, more: int, *, masked: bool) -> Scenario:
    """The scenario for ``more`` clients; sums in the clear where they were to be masked: the integers are the same."""
    federation = scenario.federation
    changes: dict[str, object] = {"roster": ""}
    if federation.max_clients:
        changes |= {"max_clients": federation.max_clients + more, "min_clients": federation.min_clients + more}
    if federation.secure_aggregation == "full" and not masked:
        changes["secure_aggregation"] = "ideal"
    evaluation = scenario.evaluation.model_copy(update={"tasks": ()})
    changed = {"federation": federation.model_copy(update=changes), "evaluation": evaluation}
    return with_cohort(scenario.model_copy(update=changed), real + more)
