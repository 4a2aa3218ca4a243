"""``fedembed agent check``: what a site's data look like to a run, in counts alone; nothing is sent or spent."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from client import readers
from client.agent.home import POLICY_FILE, SITE_FILE, AgentHome
from client.gate import check_run
from client.node import site_description
from client.policy import Policy, read_policy
from common import families
from common.config import Scenario, read_scenario
from common.errors import DataError
from common.table import RowDomain


def checked(home: AgentHome, scenario_file: Path | None) -> dict[str, Any]:
    """Counts of the site's records, and what policy and account say of a planned run.

    Raises:
        ConfigError: site file, policy or scenario is wrong.
        DataError: the data cannot be read, or the scenario's vocabulary is not here.
    """
    name, data, _ = site_description(home.inside(SITE_FILE))
    policy = read_policy(home.inside(POLICY_FILE))
    kinds: Counter[str] = Counter()
    units: set[str] = set()
    for record in readers.read(data):
        kinds[type(record.value).__name__] += 1
        units.add(f"{record.client}/{record.unit}")
    found: dict[str, Any] = {
        "site": name,
        "reader": data.reader,
        "records": kinds.total(),
        "units": len(units),
        "policy_max_epsilon": policy.max_epsilon,
        "account": home.user or f"user {os.geteuid()}",
    }
    return found if scenario_file is None else {**found, **_planned(read_scenario(scenario_file), policy)}


def _planned(scenario: Scenario, policy: Policy) -> dict[str, Any]:
    from common.work import work_for

    work = work_for(scenario, _row_domain(scenario))
    refusal = check_run(policy, work, 0)
    answer = "would take part" if refusal is None else f"would refuse: {refusal.message}"
    return {"run_mode": work.plan.mode, "run_epsilon": f"{work.plan.epsilon('public'):.4g}", "policy": answer}


def _row_domain(scenario: Scenario) -> RowDomain | None:
    """The rows that the coordinator is going to send, from the scenario's own vocabulary.

    Raises:
        DataError: its file is not here, or not a vocabulary.
    """
    from common.vocabulary import SHIPPED, row_domain

    if families.load(scenario.task.family).row_domain is None:
        return None
    path = scenario.vocabulary.path
    if scenario.vocabulary.source != "hashed" and path not in SHIPPED and not Path(path).exists():
        raise DataError(
            f"the run's vocabulary {path} is not at this site, and what the run costs depends on it",
            remedy="It is public: get the file from the coordinator's operator and put it beside the scenario.",
        )
    return row_domain(scenario.vocabulary)
