"""What a run will cost, told before it runs: noise, epsilon, bytes and time. No client's data are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from common.config import Scenario
from common.privacy.distributed import vector_length
from common.privacy.plan import OBSERVERS, PrivacyPlan
from common.update import ParameterSpec
from common.work import Work
from simulations.cohort import ASSUMED_CLIENTS, cohort_is_open, with_cohort
from simulations.federation import enrolled_work
from simulations.selection_cost import bytes_of_phases, votes_selection
from simulations.timing import estimated_seconds

MOST_ROUNDS_SHOWN = 20
_ROW_NUMBER, _OFFSETS, _VALUE = 8, 16, 4  # bytes: int64; two int64 a table; float32


def describe(scenario: Scenario) -> dict[str, Any]:
    """What a run will cost; nothing but a moment's trial on made-up records is run.

    Raises:
        FedembedError: the scenario is refused; the subclass tells why.
    """
    assumed = {"clients_assumed": ASSUMED_CLIENTS} if cohort_is_open(scenario) else {}
    work = enrolled_work(with_cohort(scenario, ASSUMED_CLIENTS))
    plan, federation = work.plan, scenario.federation
    rounds = federation.rounds
    return {
        "family": scenario.task.family,
        "mode": plan.mode,
        "unit": plan.unit,
        "adjacency": plan.adjacency,
        "delta": plan.delta,
        "rounds": rounds,
        "sampling": federation.sampling,
        "rate": federation.rate,
        **assumed,
        "rows": 0 if work.domain is None else len(work.domain),
        "rows_sent": rows_sent(plan),
        "l2_clip_norm": plan.l2_clip_norm,
        "noise_multiplier": plan.noise_multiplier,
        "noise_stddev": plan.noise_stddev,
        **({"selection": votes_selection(work) if plan.votes else selection(work)} if plan.rows == "selected" else {}),
        "epsilon": {observer: plan.epsilon(observer, rounds) for observer in OBSERVERS},
        "epsilon_per_round": [
            {observer: plan.epsilon(observer, r) for observer in OBSERVERS}
            for r in range(1, min(rounds, MOST_ROUNDS_SHOWN) + 1)
        ],
        "bytes_per_round": bytes_per_round(work),
        "seconds": estimated_seconds(work),
    }


def rows_sent(plan: PrivacyPlan) -> str:
    """Which rows of the tables a client's message holds: ``touched``, ``all``, ``all, masked`` or ``selected``."""
    if plan.rows == "selected":
        return "selected"
    others = {"local": "all", "example": "all", "distributed": "all, masked"}
    return others.get(plan.mode, "touched")


def selection(work: Work) -> dict[str, float]:
    """How rows are selected: the two noises that together are ``noise_multiplier``, and what chance alone selects."""
    plan = work.plan
    return {
        "ratio": plan.selection_ratio,
        "threshold": plan.selection_threshold,
        "vote_multiplier": plan.vote_multiplier,
        "value_multiplier": plan.value_multiplier,
        "untouched_rows_kept_a_step": sum(s.shape[0] for s in _tables(work.specs)) * _chance(plan),
    }


def bytes_per_round(work: Work) -> dict[str, int]:
    """Bytes in the arrays of one client's messages of one round, where a node hosts one client.

    Without data a client sends every row, or none (and then at most where its rows would begin and end, 16 bytes a
    table), or those that chance selects: a binomial number, told by its mean.
    """
    sent, received = work.update_specs, sum(_VALUE * math.prod(s.shape) for s in work.specs)
    if work.plan.secure is not None:
        masked = vector_length(work.plan, work.sum_specs) * work.plan.secure.bits // 8
        masked += bytes_of_phases(work)["votes"] if work.plan.votes else 0
        return {"client_receives_at_most": received, "client_sends_beside_keys_and_shares": masked}
    tables, dense = _tables(sent), sum(_VALUE * math.prod(s.shape) for s in sent if not s.is_table)
    whole = dense + sum(_message(s, s.shape[0]) for s in tables)
    empty = {
        "all": whole,
        "touched": dense,
        "selected": dense + sum(_message(s, round(s.shape[0] * _ever(work.plan))) for s in tables),
    }
    return {
        "client_receives_at_most": received,
        "client_sends_at_most": whole,
        "client_without_data_sends": empty[rows_sent(work.plan)],
    }


def _tables(specs: Sequence[ParameterSpec]) -> list[ParameterSpec]:
    return [spec for spec in specs if spec.is_table]


def _message(spec: ParameterSpec, rows: int) -> int:
    """Bytes of ``rows`` rows of a table: where the client's begin and end, their numbers, their values."""
    return _OFFSETS + rows * (_ROW_NUMBER + _VALUE * spec.shape[1])


def _chance(plan: PrivacyPlan) -> float:
    """Of a row that nobody touches to be selected in one step: the threshold is in stddevs of the votes' noise."""
    return math.erfc(plan.selection_threshold / math.sqrt(2)) / 2


def _ever(plan: PrivacyPlan) -> float:
    """Of such a row to be selected in some step of a round."""
    return -math.expm1(plan.local_steps * math.log1p(-_chance(plan))) if _chance(plan) < 1 else 1.0
