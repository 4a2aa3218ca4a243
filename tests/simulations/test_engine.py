"""The coordinator's loop over the in-process engine: what one crash, one lost node or one lost session may cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from client.app import build_app
from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from client.store import by_client, encode_clients, shard
from common.config import Scenario, build_scenario
from common.errors import ConfigError, PrivacyConfigError, RoundError
from common.table import RowDomain
from common.units import ClientStore, Record
from common.work import Work, work_for
from server.exchange import Exchange
from server.progress import LogReporter
from server.run import FederatedRun, Outcome
from simulations.engine import FIRST_NODE_ID, InProcessGrid
from simulations.federation import GivenStore

WORDS = tuple(f"word{chr(97 + i)}" for i in range(12))
DOMAIN = RowDomain(WORDS, np.arange(12, 0, -1).astype(float))


def scenario(**sections: dict[str, object]) -> Scenario:
    raw: dict[str, dict[str, object]] = {
        "task": {"family": "word2vec", "dimension": 4, "shared_negatives": 4, "subsample": 0.0},
        "data": {"unit": "client"},
        "privacy": {"mode": "none"},
        "federation": {"rounds": 3},
        "training": {"local_epochs": 1, "batch_size": 4},
    }
    for name, section in sections.items():
        raw[name] = {**raw.get(name, {}), **section}
    return build_scenario(raw)


def clients_of(work: Work, clients: int = 6) -> ClientStore:
    rng = np.random.default_rng(1)
    records = [Record(f"c{k}", f"c{k}", " ".join(rng.choice(WORDS, 8))) for k in range(clients) for _ in range(5)]
    return encode_clients(by_client(records).items(), work.family, work.options, domain=work.domain)


class Federation:
    """Nodes in this process, one session each; sessions can be replaced as if their process had died."""

    def __init__(self, which: Scenario, directory: Path, *, nodes: int = 1, keeps_table: bool = True) -> None:
        self.work = work_for(which, DOMAIN)
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.ledger = Ledger.open(directory / "ledger.sqlite")
        store = clients_of(self.work)
        shards = [shard(store, k, nodes) for k in range(nodes)]
        self.make = [partial(self._session, part, keeps_table) for part in shards]
        self.sessions = [make() for make in self.make]

    def _session(self, part: ClientStore, keeps_table: bool) -> Session:
        return Session(GivenStore(part), self.ledger, Policy.permissive(), keeps_table=keeps_table, simulated=True)

    def run(self, *, byte_exact: bool = False, offline: Callable[[int], bool] = lambda _: False) -> Outcome:
        app = build_app(lambda context: self.sessions[context.node_id - FIRST_NODE_ID])
        grid = InProcessGrid(app, [{} for _ in self.sessions], byte_exact=byte_exact, offline=offline)
        try:
            return FederatedRun(self.work, Exchange(grid, 5.0), self.directory / "state", LogReporter()).execute()
        finally:
            assert grid.delivered_errors == []


def centre(outcome: Outcome) -> np.ndarray:
    return outcome.state.parameters["centre.weight"]


@pytest.fixture
def plain(tmp_path: Path) -> np.ndarray:
    return centre(Federation(scenario(), tmp_path / "plain").run())


def test_the_table_moves(plain: np.ndarray, tmp_path: Path) -> None:
    work = work_for(scenario(), DOMAIN)
    start = work.family.initial(work.options, work.specs, DOMAIN, 0)["centre.weight"]
    assert np.abs(plain - start).max() > 1e-3


def test_byte_exact_messages_change_nothing(plain: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_array_equal(centre(Federation(scenario(), tmp_path / "b").run(byte_exact=True)), plain)


@pytest.mark.parametrize(("nodes", "keeps_table"), [(1, False), (3, True), (3, False)])
def test_placement_and_table_messages_change_nothing(
    plain: np.ndarray, tmp_path: Path, nodes: int, keeps_table: bool
) -> None:
    outcome = Federation(scenario(), tmp_path / "n", nodes=nodes, keeps_table=keeps_table).run()
    np.testing.assert_allclose(centre(outcome), plain, atol=1e-6)


def test_a_node_that_forgets_everything_is_told_again(plain: np.ndarray, tmp_path: Path) -> None:
    federation = Federation(scenario(), tmp_path / "f", nodes=2)

    def forgets(node_id: int, calls: list[int] = []) -> bool:  # noqa: B006 - counts its own calls
        calls.append(node_id)
        if len(calls) == 5:  # after the first round
            federation.sessions[0] = federation.make[0]()
        return False

    np.testing.assert_allclose(centre(federation.run(offline=forgets)), plain, atol=1e-6)


def test_dropouts_do_not_change_the_divisor(tmp_path: Path) -> None:
    """One round of SGD at server.lr 1: the step is the sum of those who answered over the number enrolled."""
    one = {"rounds": 1}
    full = Federation(scenario(federation=one), tmp_path / "full")
    every = full.run()
    some = Federation(scenario(federation={**one, "dropout": 0.5}), tmp_path / "some").run()
    answered = some.state.history[0]["replies"]["ok"]
    assert 0 < answered < 6
    assert some.state.history[0]["replies"]["dropped"] == 6 - answered
    assert some.state.history[0]["step_norm"] < every.state.history[0]["step_norm"]


def test_too_few_replies_abort_and_a_rerun_resumes(plain: np.ndarray, tmp_path: Path) -> None:
    which = scenario(federation={"min_clients": 6})
    undisturbed = centre(Federation(which, tmp_path / "u", nodes=2).run())
    federation = Federation(which, tmp_path / "a", nodes=2)
    calls: list[int] = []

    def dies_in_round_two(node_id: int) -> bool:
        calls.append(node_id)
        return len(calls) > 4 and node_id == FIRST_NODE_ID + 1

    with pytest.raises(RoundError, match="node_unavailable"):
        federation.run(offline=dies_in_round_two)
    outcome = federation.run()
    assert outcome.resumed_from_round == 1
    np.testing.assert_allclose(centre(outcome), undisturbed, atol=1e-6)


LOCAL = {"mode": "local", "l2_clip_norm": 1.0, "delta": 1e-5}


def crashed_once(which: Scenario, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Run, dying after the replies of round 2 have been seen; then run again."""
    federation = Federation(which, directory)
    original = FederatedRun._apply
    rounds: list[int] = []

    def dies(self: FederatedRun, *arguments: object, **named: object) -> float:
        rounds.append(1)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(FederatedRun, "_apply", dies)
    with pytest.raises(KeyboardInterrupt):
        federation.run()
    return federation.run()


def test_an_attempt_that_the_coordinator_saw_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given noise: the run finishes its rounds, and the claim counts the attempt that crashed."""
    which = scenario(privacy={**LOCAL, "noise_multiplier": 5.0})
    outcome = crashed_once(which, tmp_path / "c", monkeypatch)
    assert (outcome.state.round, outcome.releases) == (3, 4)


def test_a_budget_is_never_exceeded_by_repeated_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given epsilon: the run ends a round early rather than spend more than was promised."""
    which = scenario(privacy={**LOCAL, "epsilon": 8.0})
    federation_plan = work_for(which, DOMAIN).plan
    outcome = crashed_once(which, tmp_path / "c", monkeypatch)
    assert outcome.releases <= federation_plan.max_rounds()
    assert outcome.state.round == outcome.releases - 1
    assert federation_plan.epsilon("public", outcome.releases) <= 8.0


def test_central_noise_is_released_once_a_round_whatever_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = scenario(privacy={"mode": "central", "l2_clip_norm": 1.0, "epsilon": 8.0, "delta": 1e-5})
    outcome = crashed_once(which, tmp_path / "c", monkeypatch)
    assert (outcome.state.round, outcome.releases) == (3, 3)


def test_public_history_of_a_private_run_holds_nothing_about_replies(tmp_path: Path) -> None:
    which = scenario(privacy={**LOCAL, "noise_multiplier": 5.0})
    for entry in Federation(which, tmp_path / "h").run().state.history:
        assert set(entry) == {"round", "step_norm", "noise_stddev", "enrolled_clients"}


@pytest.mark.parametrize(
    ("sections", "error"),
    [
        ({"federation": {"sampling": "poisson", "rate": 0.5, "min_clients": 2}}, PrivacyConfigError),
        ({"server": {"checkpoint_every": 2}}, ConfigError),
    ],
)
def test_settings_that_would_leak_are_refused(tmp_path: Path, sections: dict, error: type[Exception]) -> None:  # type: ignore[type-arg]
    privacy = {"mode": "central", "noise_multiplier": 1.0, "l2_clip_norm": 1.0}
    with pytest.raises(error):
        Federation(scenario(privacy=privacy, **sections), tmp_path / "r").run()


def test_poisson_sampling_asks_about_a_share_of_the_clients(tmp_path: Path) -> None:
    which = scenario(federation={"rounds": 30, "sampling": "poisson", "rate": 0.3})
    outcome = Federation(which, tmp_path / "p").run()
    asked = [entry["replies"].get("ok", 0) for entry in outcome.state.history]
    assert 0.15 < np.mean(asked) / 6 < 0.45
    assert len(set(asked)) > 2
