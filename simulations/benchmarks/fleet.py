"""Fifty agents on one machine, twenty rounds: whether every message comes back, and whether the coordinator grows.

The coordinator is what operators start: TLS proxy, node keys, an executor with a secret. The agents are enrolled and
approved one by one, and every one has its SuperNode, executor and fork server; only their imports are shared
(``_fleet_agents``), because fifty times 0.6 GiB is more than one machine has. All come from one address, as sites
behind one router do. ``FEDEMBED_FLEET_AGENTS`` is another number of them. Needs nginx; Linux; full: some ten minutes.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from client.node import ACTIVITY_FILE
from common.config import Scenario
from common.deployment.journal import Journal
from common.errors import ConfigError, DependencyError
from server.progress import ROUNDS_FILE
from simulations.benchmarks import _fleet_agents, _fleet_memory
from simulations.benchmarks._deployment_texts import generated_texts, small_scenario
from simulations.benchmarks._harness import Row, at_least, at_most, reported
from simulations.local_deployment import LocalDeployment, local_deployment

AGENTS, AGENTS_VARIABLE = 50, "FEDEMBED_FLEET_AGENTS"
ROUNDS = 20
EARLY, LATE = (5, 8), (17, 20)  # rounds whose memory is compared
MOST_GROWTH = 1.05
MIB = 2**20
_NOT_REASONS = frozenset({"time", "event", "round", "rounds", "seconds", "ok"})


class Fleet:
    """See the module."""

    name = "fleet"

    def run(self, quick: bool) -> list[Row]:
        """Quick: the scenario is made, and nothing is started."""
        agents = number_of_agents()
        if quick:
            federation = scenario_of(agents, Path("words.tsv")).federation
            return [reported("rounds", float(federation.rounds)), reported("agents", float(federation.min_nodes))]
        if shutil.which("nginx") is None:
            raise DependencyError("nginx is not installed", remedy="Install it: apt-get install nginx-light")
        with tempfile.TemporaryDirectory(prefix="fedembed-fleet-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            texts, vocabulary = generated_texts(folder / "texts", [f"site{k:02d}" for k in range(agents)])
            with local_deployment(folder / "ours", texts, start=_fleet_agents.all_forked) as deployed:
                with _fleet_memory.Sampler(deployed.coordinator.folder) as sampler:
                    run = deployed.run("fleet", scenario_of(agents, vocabulary))
                told = list(Journal(run.folder / ROUNDS_FILE).read())
                return [
                    *_of_rounds(told, deployed),
                    *_of_proxy(_requests(deployed), agents),
                    *_of_memory(sampler.samples, told),
                    *_of_processes(folder / "ours", deployed),
                ]


def number_of_agents() -> int:
    """From the environment, else 50. Raises ``ConfigError``: no number, or fewer than 2."""
    text = os.environ.get(AGENTS_VARIABLE, str(AGENTS))
    if not text.isdecimal() or int(text) < 2:
        raise ConfigError(f"{AGENTS_VARIABLE}={text!r} is no number of agents", remedy="A whole number from 2 on.")
    return int(text)


def scenario_of(agents: int, vocabulary: Path) -> Scenario:
    """What every site is asked to train: seeded noise, because nothing is claimed."""
    return small_scenario("local", vocabulary, {"rounds": ROUNDS, "min_nodes": agents})


def _of_rounds(told: Sequence[Mapping[str, object]], deployed: LocalDeployment) -> Iterator[Row]:
    """What the run's journal says, and what the sites' own say."""
    rounds = [line for line in told if line["event"] == "round"]
    lost = not_ok(rounds)
    yield reported("agents", float(len(deployed.agents)))
    yield at_least("rounds done", float(len(rounds)), ROUNDS)
    asked = float(ROUNDS * len(deployed.agents))
    yield at_least(
        "replies that were ok, all rounds", float(sum(int(str(line.get("ok", 0))) for line in rounds)), asked
    )
    yield at_most("replies that were not ok, all rounds", float(sum(lost.values())), 0)
    for reason, number in lost.items():
        yield reported(f"replies: {reason}", float(number))
    answered = sum(answers(home.inside("state", ACTIVITY_FILE)) for home in deployed.agents.values())
    yield at_least("rounds that sites have answered, all sites", float(answered), asked)
    yield reported("seconds of a round, median", statistics.median(float(str(line["seconds"])) for line in rounds))


def not_ok(rounds: Sequence[Mapping[str, object]]) -> Counter[str]:
    """Clients whose reply did not count, by reason, over all rounds."""
    found: Counter[str] = Counter()
    for line in rounds:
        found.update({key: int(str(number)) for key, number in line.items() if key not in _NOT_REASONS})
    return +found


def answers(path: Path) -> int:
    """Rounds to which this site's journal has an answer that trained."""
    lines = Journal(path).read()
    return len({line["round"] for line in lines if line.get("round") and line.get("status") == "done"})


def _requests(deployed: LocalDeployment) -> list[dict[str, object]]:
    lines = deployed.coordinator.inside("logs", "proxy-access.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _of_proxy(requests: Sequence[Mapping[str, object]], agents: int) -> Iterator[Row]:
    """How near the fleet came to the limit of requests from one address."""
    seconds = Counter(str(request["time"]) for request in requests)
    refused = sum(str(request["status"]) == "503" for request in requests)
    yield at_most("requests that the proxy refused", float(refused), 0)
    yield reported("requests in the busiest second", float(max(seconds.values(), default=0)))
    pushed = sum(str(request["path"]).endswith("/push-messages") for request in requests)
    asked = sum(not str(request["path"]).endswith(("/send-node-heartbeat", "/activate-node")) for request in requests)
    yield reported("answers at the proxy, a round and site", pushed / ROUNDS / agents)
    yield reported("requests at the proxy but heartbeats, a round and site", asked / ROUNDS / agents)


def _of_memory(samples: Sequence[_fleet_memory.Sample], told: Sequence[Mapping[str, object]]) -> Iterator[Row]:
    """Growth between the early and the late rounds, and the last sizes in a round."""
    early, late = time_of(told, *EARLY), time_of(told, *LATE)
    in_rounds = [sample for sample in samples if sample.time <= late[1]]
    found = _fleet_memory.growth(samples, early, late)
    words = f"rounds {LATE[0]}-{LATE[1]} / {EARLY[0]}-{EARLY[1]}"
    yield at_most(f"memory of the coordinator, {words}", found.pop("all"), MOST_GROWTH)
    for name, ratio in found.items():
        yield reported(f"memory of {name}, {words}", ratio)
    for name, size in (in_rounds[-1].sizes if in_rounds else {}).items():
        yield reported(f"memory of {name}, MiB", size / MIB)


def time_of(told: Sequence[Mapping[str, object]], first: int, last: int) -> tuple[float, float]:
    """Unix times between which these rounds went on: from the end of the one before to the end of the last.

    NaN where the run did not come so far: nothing lies between.
    """
    ends = {
        int(str(line["round"])): datetime.datetime.fromisoformat(str(line["time"])).timestamp()
        for line in told
        if line["event"] == "round"
    }
    return ends.get(first - 1, float("nan")), ends.get(last, float("nan"))


def _of_processes(folder: Path, deployed: LocalDeployment) -> Iterator[Row]:
    """Flower's database, the agents' processes, and the memory of one agent of the fleet."""
    database = sum(path.stat().st_size for path in deployed.coordinator.inside("state").glob("superlink.db*"))
    yield reported("Flower's database, MiB", database / MIB)
    pids = _fleet_agents.pids_of(folder)
    ended = sum(len(of_site) for of_site in pids.values()) - _fleet_agents.living(pids)
    yield at_most("agents' processes that ended by themselves", float(ended), 0)
    first = next(iter(pids.values()))
    for name, pid in first.items():
        size = _fleet_memory.proportional_size(Path("/proc") / str(pid))
        yield reported(f"memory of one agent's {name}, imports shared, MiB", size / MIB)


BENCHMARK = Fleet()
