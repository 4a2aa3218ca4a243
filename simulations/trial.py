"""T5 of a scenario: a tiny federation over made-up records; what left, what was charged and what is claimed agree."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.ledger import Ledger
from client.store import by_client, encode_clients
from common.config import Scenario, build_scenario
from common.evaluation.conformance import Finding
from common.privacy.accounting import event_to_json
from common.release import load_release
from common.work import Work
from simulations.cohort import with_cohort
from simulations.federation import LEDGER_FILE, enrolled_work, run_locally
from simulations.trial_records import CLIENTS, trial_records

MOST_ROUNDS, MOST_STEPS, _KEYS = 3, 3, 200
_SMALL_DIMENSION = 8


class RoundsSeen:
    """A reporter that counts the rounds whose results were applied: what left, by somebody else than the ledger."""

    def __init__(self) -> None:
        self.rounds = 0

    def preparing(self, message: str) -> None:
        """Nothing to count."""

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        """One more."""
        self.rounds += 1

    def done(self) -> None:
        """Nothing to count."""


def ledger_findings(work: Work) -> list[Finding]:
    """Run the scenario over made-up records, with few rounds and real noise, and compare the accounts.

    Raises:
        FedembedError: the run failed.
    """
    trial = enrolled_work(with_cohort(trial_scenario(work), CLIENTS))
    keys = () if trial.domain is None else trial.domain.keys[:_KEYS]
    clients = by_client(trial_records(trial.family.records.split("|")[0], keys)).items()
    store = encode_clients(clients, trial.family, trial.options, domain=trial.domain)
    seen = RoundsSeen()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        config = {"scenario": trial.scenario.canonical_json(), "out": folder, "benchmarks": "{}", "simulation": folder}
        run_locally(store, out, config, seen)
        claim = load_release(out / "release").certificate
        with Ledger.open(out / LEDGER_FILE, create=False) as ledger:
            return _compared(trial, claim, ledger, seen.rounds)


def trial_scenario(work: Work) -> Scenario:
    """The scenario with its noise fixed, few rounds and steps, small vectors, and nothing evaluated."""
    raw: dict[str, Any] = work.scenario.model_dump(mode="json")
    rounds = min(MOST_ROUNDS, work.plan.rounds)
    raw["privacy"] |= {"epsilon": None, "noise_multiplier": work.plan.noise_multiplier, "test_mode": False}
    raw["federation"] |= {"rounds": rounds, "dropout": 0.0, "stragglers": 0.0, "min_clients": 1, "min_nodes": 1}
    raw["federation"] |= {"max_clients": 0, "colluders": 0, "roster": ""}  # the trial's own cohort
    raw["training"] |= {"device": "cpu", "local_steps": min(MOST_STEPS, work.plan.local_steps), "local_epochs": 1}
    raw["data"] |= {"holdout": "none"}
    raw["evaluation"] = {}
    if "dimension" in type(work.options).model_fields:
        raw["task"] |= {"dimension": min(_SMALL_DIMENSION, work.options.dimension)}
    return build_scenario(raw)


def _compared(work: Work, claim: Mapping[str, Any], ledger: Ledger, rounds: int) -> list[Finding]:
    plan, accounts = work.plan, list(ledger.accounts())
    charges = {count for _, count in accounts}
    reserved = {int(entry.rounds or 0) for entry, _ in accounts}
    drawn = charges == {rounds} if plan.sampling == "full" else max(charges) <= rounds
    event = json.dumps(event_to_json(plan.round_event("public")), sort_keys=True)
    same_event = {entry.event for entry, _ in accounts} == {event}
    released = claim["rounds_released"]
    first = str(accounts[0][0].fingerprint)
    spent, claimed = ledger.epsilon(first, plan.unit, plan.delta), plan.epsilon("public", rounds)
    told = f"{spent:.4f} in the ledger, {claimed:.4f} by the plan"
    found = []
    if plan.sampling == "full" and plan.mode != "example":
        everyone = charges == {rounds} and not plan.amplified
        found = [Finding("T4", "everyone takes part", f"{sorted(charges)} of {rounds} rounds, not amplified", everyone)]
    return [
        *found,
        Finding("T5", "rounds that left", f"{rounds} seen, {released} claimed", rounds == released == plan.rounds),
        Finding("T5", "rounds reserved before the first", f"{sorted(reserved)} of {rounds}", reserved == {rounds}),
        Finding("T5", "rounds charged to each client", f"{sorted(charges)} of {rounds}", drawn),
        Finding("T5", "event in every client's ledger", "the plan's" if same_event else "another one", same_event),
        Finding("T5", "epsilon of a client's ledger", told, spent >= claimed * (1 - 1e-6)),
    ]
