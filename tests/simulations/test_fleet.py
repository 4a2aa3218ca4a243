"""The benchmark of fifty agents: what it counts, on made-up records; no coordinator and no agent is started."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.deployment.supervisor import Program
from common.errors import ConfigError
from common.work import work_for
from simulations import benchmarks
from simulations.benchmarks import _fleet_agents, _fleet_memory, fleet
from simulations.benchmarks._fleet_memory import Sample, growth
from simulations.local_deployment import three_ports

WAIT_S = 10.0


def test_quick_makes_the_scenario_and_claims_no_bar() -> None:
    rows = benchmarks.load("fleet").run(quick=True)
    assert [row.value for row in rows] == [fleet.ROUNDS, fleet.AGENTS] and all(row.holds is None for row in rows)


def test_every_site_is_asked_in_every_round() -> None:
    federation = work_for(fleet.scenario_of(7, Path("words.tsv")), None).scenario.federation
    assert federation.sampling == "full" and federation.min_nodes == 7


@pytest.mark.parametrize("text", ["1", "", "many", "-3"])
def test_a_number_of_agents_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fleet.AGENTS_VARIABLE, text)
    with pytest.raises(ConfigError, match="number of agents"):
        fleet.number_of_agents()


def test_every_reply_that_is_not_ok_is_counted_under_its_reason() -> None:
    told = [
        {"time": "t", "event": "round", "round": 1, "rounds": 20, "seconds": 3.5, "ok": 8, "no_reply": 2, "failed": 0},
        {"time": "t", "event": "round", "round": 2, "rounds": 20, "seconds": 3.5, "no_reply": 1, "late": 4},
    ]
    assert fleet.not_ok(told) == {"no_reply": 3, "late": 4}
    assert fleet.not_ok([{"event": "round", "round": 1, "seconds": 2.0, "ok": 9}]) == {}


def test_a_site_that_answers_a_round_twice_has_answered_it_once(tmp_path: Path) -> None:
    lines = [{"round": 1, "status": "done"}, {"round": 1, "status": "done"}, {"round": 2, "status": "refused"}]
    path = tmp_path / "activity.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"status": "ready"}]))
    assert fleet.answers(path) == 1


def test_the_time_of_rounds_begins_with_the_end_of_the_one_before() -> None:
    told = [{"event": "round", "round": k, "time": f"2026-01-01T00:00:{k:02d}+00:00"} for k in range(1, 11)]
    start, end = fleet.time_of(told, 5, 8)
    assert end - start == 4.0
    assert all(value != value for value in fleet.time_of(told, 17, 20))


def test_growth_is_that_of_the_means_and_outliers_between_do_not_count() -> None:
    sizes = [(1.0, 100), (2.0, 110), (5.0, 900), (8.0, 105), (9.0, 126)]
    samples = [Sample(time, {"link": size, "nginx": 10}) for time, size in sizes]
    found = growth(samples, (1.0, 2.0), (8.0, 9.0))
    assert found == pytest.approx({"link": 1.1, "nginx": 1.0, "all": 125.5 / 115})


def test_growth_without_samples_holds_no_bar() -> None:
    found = growth([], (1.0, 2.0), (8.0, 9.0))
    assert not found["all"] <= fleet.MOST_GROWTH
    samples = [Sample(1.5, {"link": 100})]
    assert not growth(samples, (1.0, 2.0), (float("nan"), float("nan")))["all"] <= fleet.MOST_GROWTH
    assert not growth([Sample(8.5, {"link": 100})], (1.0, 2.0), (8.0, 9.0))["all"] <= fleet.MOST_GROWTH


def test_memory_is_summed_by_program_over_the_processes_of_one_folder(tmp_path: Path) -> None:
    folder, proc = tmp_path / "coordinator", tmp_path / "proc"
    listed = [
        ("server.coordinator.superlink\0--database\0" + str(folder / "x.db"), tmp_path, 100),
        ("nginx: master", folder / "state", 3),
        ("nginx: worker process", folder / "state", 4),
        ("nginx: worker process", tmp_path / "another", 50),
        ("flower-supernode\0" + str(folder), folder, 70),
    ]
    for number, (words, works_in, size) in enumerate(listed, start=1):
        process = proc / str(number)
        process.mkdir(parents=True)
        (process / "cmdline").write_text(words)
        (process / "cwd").symlink_to(works_in)
        (process / "smaps_rollup").write_text(f"head\nRss: 999 kB\nPss:   {size} kB\nPss_Anon: 1 kB\n")
    (proc / "99").mkdir()  # it ended while it was looked at
    assert _fleet_memory.sizes(folder, proc) == {"server.coordinator.superlink": 100 * 1024, "nginx": 7 * 1024}


def test_the_sampler_looks_again_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with _fleet_memory.Sampler(tmp_path, interval_s=0.01) as sampler:
        deadline = time.monotonic() + WAIT_S
        while len(sampler.samples) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    number = len(sampler.samples)
    time.sleep(0.05)
    assert len(sampler.samples) == number >= 3


def test_requests_that_were_refused_miss_the_bar() -> None:
    fine = [{"time": "a", "status": 200, "path": "/v1/fleet/push-messages"}] * 3
    rows = {row.measure: row for row in fleet._of_proxy(fine, 3)}
    assert rows["requests that the proxy refused"].holds and rows["requests in the busiest second"].value == 3
    refused = fleet._of_proxy([*fine, {"time": "b", "status": 503, "path": "/v1/fleet/x"}], 3)
    assert next(iter(refused)).holds is False


def _program(tmp_path: Path) -> Program:
    return Program("node", ["flower-supernode", "--port", "7"], {"HERE": "1"}, tmp_path, tmp_path / "node.log")


def _ended(pid: int) -> Iterator[bool]:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        yield _fleet_agents.living({"site": {"node": pid}}) == 0
        time.sleep(0.01)


def test_a_forked_program_has_its_own_words_environment_folder_and_log(tmp_path: Path) -> None:
    def tell() -> None:
        os.write(1, json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode())

    pid = _fleet_agents.forked(_program(tmp_path), tell)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    words, environment, folder = json.loads((tmp_path / "node.log").read_text())
    assert words == ["flower-supernode", "--port", "7"] and folder == str(tmp_path)
    assert environment == {"HERE": "1", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": _fleet_agents.EXECUTOR_POLL_S}


def test_a_program_that_ends_is_not_among_the_living(tmp_path: Path) -> None:
    pid = _fleet_agents.forked(_program(tmp_path), signal.pause)
    try:
        assert _fleet_agents.living({"site": {"node": pid}}) == 1
        os.kill(pid, signal.SIGKILL)
        assert any(_ended(pid))  # though nobody has waited for it
    finally:
        os.waitpid(pid, 0)


def test_a_program_that_fails_says_so_in_its_log_and_never_goes_on_as_its_parent(tmp_path: Path) -> None:
    def fail() -> None:
        raise ValueError("no")

    pid = _fleet_agents.forked(_program(tmp_path), fail)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert "node ended: ValueError" in (tmp_path / "node.log").read_text()


def test_the_functions_are_those_of_the_agents_commands(tmp_path: Path) -> None:
    node = _fleet_agents.entry_of(_program(tmp_path))
    assert node.__name__ == "flower_supernode"


def test_the_ports_of_many_sites_are_their_own() -> None:
    taken: set[int] = set()
    firsts = [three_ports(taken) for _ in range(60)]
    ports = {first + k for first in firsts for k in range(3)}
    assert len(ports) == 180 and max(ports) < 32_768  # from there on Linux gives them to outgoing connections


def test_ports_that_answer_are_not_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.local_deployment.port_answers", lambda port: port % 2 == 0 and port < 31_000)
    assert three_ports(set()) > 30_990
