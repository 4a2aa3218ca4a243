"""Selected rows in mode distributed: two phases through Flower's messages give the integers of sums in the clear."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import secure_hops, selected
from client.ledger import Ledger
from common import families
from common.config import Scenario, build_scenario
from common.errors import RoundError
from common.privacy import selected_rows
from common.privacy.accounting import event_to_json
from common.release import load_release, verify
from common.vocabulary import row_domain
from common.work import Work
from server import secure_sums
from server.checkpoint import CheckpointDirectory, RunState
from server.progress import LogReporter
from simulations.federation import enrolled_work, run_simulation
from tests.simulations.test_secure_aggregation import distributed_run

CLIENTS, ROWS = 12, 40
BASE: dict[str, Any] = {
    "task": {"family": "word2vec", "dimension": 4},
    "data": {"reader": "corpus", "path": "planted", "unit": "client", "partition": "uniform", "clients": CLIENTS},
    "vocabulary": {"path": "python-stdlib", "max_rows": ROWS},
    "privacy": {
        "mode": "distributed",
        "noise_multiplier": 0.5,
        "l2_clip_norm": 1.0,
        "delta": 1e-3,
        "test_mode": True,
        "selection_ratio": 1.5,
        "selection_threshold": 0.5,
    },
    "federation": {
        "rounds": 3,
        "rows": "selected",
        "rows_per_client": 6,
        "max_selected_rows": 9,
        "select_every": 2,
        "secure_aggregation": "full",
        "min_clients": 7,
        "max_clients": CLIENTS,
    },
    "training": {"local_steps": 2, "batch_size": 4},
}


def scenario(privacy: dict[str, Any] | None = None, **federation: Any) -> Scenario:
    return build_scenario(
        {
            **BASE,
            "federation": {**BASE["federation"], **federation},
            "privacy": {**BASE["privacy"], **(privacy or {})},
        }
    )


def run(chosen: Scenario, folder: Path) -> Any:
    return load_release(run_simulation(chosen, out=folder, engine="local", reporter=LogReporter()).release)


def vectors(release: Any) -> dict[str, np.ndarray]:
    return {name: table.vectors for name, table in release.tables.items()}


class Selections:
    """The rows that the coordinator selected, and the sums that it selected them from, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rows: list[list[int]] = []

        def noted(grid: Any, total: Any) -> Any:
            found = selected_rows.selected_rows(grid, total)
            self.rows.append(found.tolist())
            return found

        patch.setattr(secure_sums, "selected_rows", noted)


def test_both_phases_give_the_integers_of_sums_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With clients that drop out before, between and in the phases; a round without votes uses the last selection."""
    faults = {"dropout": 0.2, "stragglers": 0.05}
    noted = Selections(monkeypatch)
    left: list[list[int]] = []
    real = secure_sums.SecureSums._summed

    def counted(self: Any, state: RunState, terms: Any, sums: Any, following: Any = None) -> Any:
        survivors: list[int] = []
        total = sums.total

        def and_survivors(*args: Any, **kwargs: Any) -> Any:
            found = total(*args, **kwargs)
            survivors.append(sums.survivors)
            return found

        sums.total = and_survivors
        left.append(survivors)
        return real(self, state, terms, sums, following)

    monkeypatch.setattr(secure_sums.SecureSums, "_summed", counted)
    full = run(scenario(**faults), tmp_path / "full")
    ideal = run(scenario(**faults, secure_aggregation="ideal"), tmp_path / "ideal")
    for name, found in vectors(full).items():
        assert np.array_equal(found, vectors(ideal)[name]) and np.any(found)
    assert noted.rows[:2] == noted.rows[2:] and all(0 < len(rows) <= 9 for rows in noted.rows)
    assert left[:3] == left[3:] and [len(survivors) for survivors in left[:3]] == [2, 1, 2]
    assert any(first > second for first, second in (left[0], left[2]))  # somebody was lost between the phases
    assert full.certificate["selections_released"] == 2 and full.certificate["void"]
    assert [entry["selected_rows"] for entry in full.rounds] == [len(noted.rows[k]) for k in (0, 0, 1)]


def start(chosen: Scenario) -> dict[str, np.ndarray]:
    family, domain = families.load("word2vec"), row_domain(chosen.vocabulary)
    options = families.options_of(family, chosen.task)
    begun = family.initial(options, family.specs(options, len(domain)), domain, chosen.seed)
    return {name: table.vectors for name, table in family.export(begun, domain, options).items()}


def test_rows_that_were_not_selected_are_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Selections(monkeypatch)
    chosen = scenario(rounds=2, select_every=0, secure_aggregation="ideal")
    found, before = vectors(run(chosen, tmp_path)), start(chosen)
    (rows,) = noted.rows
    for name, table in found.items():
        assert np.flatnonzero(np.any(table != before[name], axis=1)).tolist() == rows


def test_a_run_that_died_after_its_selection_resumes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = scenario(select_every=0, secure_aggregation="ideal")
    whole = vectors(run(chosen, tmp_path / "whole"))
    real = CheckpointDirectory.save

    class Died(BaseException):
        """The process ends here."""

    def save(self: CheckpointDirectory, state: RunState) -> None:
        real(self, state)
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointDirectory, "save", save)
        with pytest.raises(Died):
            run(chosen, tmp_path / "died")
    resumed = vectors(run(chosen, tmp_path / "died"))
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def accounts(folder: Path) -> Counter[tuple[str, int, int]]:
    """(event, rounds reserved, charges) -> clients."""
    with Ledger.open(folder / "ledger.sqlite", create=False) as ledger:
        ledger.verify()
        return Counter((str(entry.event), int(entry.rounds or 0), charges) for entry, charges in ledger.accounts())


def test_votes_and_values_are_charged_apart_and_claimed_together(tmp_path: Path) -> None:
    """With secret noise: what the ledgers hold is what the certificate counts, and the release verifies."""
    chosen = scenario({"test_mode": False})
    release = run(chosen, tmp_path)
    plan = enrolled_work(chosen).plan
    votes, values = (json.dumps(event_to_json(grid.event()), sort_keys=True) for grid in (plan.vote_grid, plan.grid))
    assert accounts(tmp_path) == {(values, 3, 3): CLIENTS, (votes, 2, 2): CLIENTS}
    assert release.certificate["selections_released"] == 2
    assert release.certificate["observers"]["coordinator"]["epsilon"] == plan.epsilon("public", 3, 2)
    assert release.rounds[-1]["epsilon"]["public"] == release.certificate["observers"]["public"]["epsilon"]
    report = verify(tmp_path / "release")
    assert all(check.passed for check in report.checks)


def test_a_selection_that_failed_is_charged_and_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes were summed, the values were not: the round is tried again, with new votes that count as well."""
    chosen = scenario({"test_mode": False}, rounds=2, select_every=0)
    real = secure_hops.mask

    def dies(session: Any, payload: Any) -> Any:
        if payload.text("phase") == "values":
            raise RuntimeError("the node dies")
        return real(session, payload)

    with monkeypatch.context() as patched:
        patched.setattr(secure_hops, "mask", dies)
        with pytest.raises(RuntimeError, match="the node dies") as died:
            run(chosen, tmp_path)
    assert isinstance(died.value.__cause__, RoundError)
    assert "round 1, values" in str(died.value.__cause__) and "nothing was opened" in str(died.value.__cause__)
    release = run(chosen, tmp_path)
    assert (release.certificate["rounds_released"], release.certificate["selections_released"]) == (3, 2)
    charged = {(reserved, charges) for _, reserved, charges in accounts(tmp_path)}
    assert charged == {(2, 2), (1, 2)}  # the node died before it charged the values of the first attempt


def test_sessions_that_live_for_one_message_keep_what_the_second_phase_needs(tmp_path: Path) -> None:
    """Three nodes with a folder each, whose every message is served by a new process, give the same table."""
    chosen = scenario(rounds=2)
    (tmp_path / "nodes").mkdir()
    outcome = distributed_run(chosen, tmp_path / "nodes")
    one = run(chosen, tmp_path / "one")
    assert (outcome.state.round, outcome.selections) == (2, 1)
    assert outcome.state.selected is not None and len(outcome.state.selected) == one.rounds[-1]["selected_rows"]
    found = load_release(tmp_path / "nodes" / "release")
    assert all(np.array_equal(found.tables[name].vectors, table) for name, table in vectors(one).items())


def test_clients_that_are_told_other_rows_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client computes what its masks are bound to from the rows that it received."""
    chosen = scenario(rounds=1)
    real = secure_sums.rows_bytes

    def fewer(rows: Any) -> bytes:
        return real(rows[:-1])

    monkeypatch.setattr(secure_sums, "rows_bytes", fewer)
    with pytest.raises(RoundError, match=r"values: .*nothing was opened. Reasons: .*client says wrong_bind 12"):
        run(chosen, tmp_path)


def test_a_client_whose_rows_cannot_be_told_sends_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    from client.training import Randomness
    from common.privacy.rng import NoiseSource
    from common.units import Units

    work: Work = enrolled_work(scenario())
    nobody = Units(np.array([0, 0]), {"rows": np.empty(0, np.int32), "sentence": np.empty(0, np.int32)})
    broken = Units(np.array([0, 0]), {})
    own = [Randomness(0, NoiseSource.seeded_for_tests(3))] * 2
    quiet, lost = selected.row_votes(work, [nobody, broken], own)
    assert np.array_equal(quiet, lost) and np.any(quiet)
