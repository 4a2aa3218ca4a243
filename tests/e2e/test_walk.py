"""Both guides as they stand: three sites, a roster, a refusal, an agent and the coordinator killed, a release verified.

Names, numbers of ports, the account and the data's path are this machine's; every other character is the pages'.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.deployment import SITES
from tests.e2e.secret_scan import ProcessList, forms_of_key, forms_of_text, leaks
from tests.e2e.walking import (
    Party,
    blocks_of,
    installed,
    kill_tree,
    lines_of,
    other_account,
    runs_going_on,
    sites_online,
    texts,
    three_ports,
    until,
    why_not,
)

pytestmark = [pytest.mark.sites, pytest.mark.timeout(3600)]
OPERATOR, SITE = "operator.md", "site.md"
MOST_RESUMES = 8


@dataclass
class Walk:
    """Who takes part, and what runs."""

    folder: Path
    operator: Party
    organiser: Party
    sites: dict[str, Party]
    up: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def told(self) -> list[dict[str, object]]:
        """What the run said."""
        return lines_of(self.home / "runs" / "first" / "rounds.jsonl")

    def answers(self, site: str) -> list[dict[str, object]]:
        """What a site answered."""
        return lines_of(self.sites[site].folder / "agent" / "state" / "activity.jsonl")

    def start(self, name: str) -> None:
        """``up`` of the coordinator or of a site."""
        party, page = (self.operator, OPERATOR) if name == "coordinator" else (self.sites[name], SITE)
        self.up[name] = party.start(page, "Start")

    def kill(self, name: str) -> None:
        """A power cut at one of them."""
        kill_tree(self.up.pop(name))

    @property
    def home(self) -> Path:
        """The coordinator's folder."""
        return self.operator.folder / "coordinator"

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait; a failure shows the logs of everybody."""
        until(true, what, logs=self.folder)

    def is_up(self, name: str) -> bool:
        """Whether the ``up`` that was started last has said that everything runs."""
        path = self.home if name == "coordinator" else self.sites[name].folder / "agent"
        said = path / "up.json"
        return said.exists() and json.loads(said.read_text() or "{}").get("pid") == self.up[name].pid

    def all_connected(self) -> None:
        """Wait for every site."""
        self.until(lambda: sites_online(self.home) == len(SITES), "all sites are connected")

    def run_ended(self) -> None:
        """Wait until Flower says that the run is over."""
        self.until(lambda: runs_going_on(self.home) == 0, "Flower takes no run for going on")


def prepared(folder: Path, environment: dict[str, str]) -> Walk:
    """Folders of operator, organiser and sites, and the words of the pages that this machine has others for."""
    own_data = folder / "data"
    own_data.mkdir()
    texts(own_data)
    parties = {}
    for name in ("operator", "organiser", *SITES):
        (folder / name).mkdir()
        parties[name] = Party(folder / name, environment)
    shutil.copy(own_data / "words.tsv", folder / "operator")
    public, loopback = three_ports(), three_ports()
    here = f"--host 127.0.0.1 --bind 127.0.0.1 --port {public} --loopback-port {loopback}"
    parties["operator"].replaced = {"--host coordinator.example.org": here}
    for name in SITES:
        account = f"--user {other_account()}" if other_account() else ""
        data = own_data / "texts" / f"{name}.txt"
        ports = f" --port {three_ports()}"
        parties[name].replaced = {"north": name, "/srv/texts": str(data), " --user fedembed": f" {account}{ports}"}
    return Walk(folder, parties["operator"], parties["organiser"], {name: parties[name] for name in SITES})


@pytest.fixture
def walk() -> Iterator[Walk]:
    """Not in pytest's own folder: that one is closed to the account that the agents run as."""
    folder = Path(tempfile.mkdtemp(prefix="fedembed-walk-"))
    folder.chmod(0o755)
    try:
        environment = installed(folder)
        reason = why_not(environment)
        if reason is not None:
            pytest.skip(reason)
        made = prepared(folder, environment)
        with ExitStack() as stack:
            stack.callback(lambda: [made.kill(name) for name in list(made.up)])
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def set_up(walk: Walk) -> None:
    """The coordinator, three sites and their roster."""
    walk.operator.follow(OPERATOR, "Set up")
    walk.start("coordinator")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: set_up_site(walk, name), SITES))
    for name in SITES:
        walk.organiser.replaced = walk.operator.replaced | {"north": name}
        walk.organiser.follow(SITE, "Agree on a roster", block=0)
    walk.organiser.follow(SITE, "Agree on a roster", block=1)
    shutil.copy(walk.organiser.folder / "roster.json", walk.operator.folder)
    page_words = walk.operator.replaced
    walk.until(lambda: walk.is_up("coordinator"), "the coordinator is up")
    for name in SITES:
        site = walk.sites[name]
        for file in ("roster.json", "organiser.key.pub"):
            shutil.copy(walk.organiser.folder / file, site.folder)
        site.follow(SITE, "Agree on a roster", block=2)
        walk.operator.replaced = {**page_words, "north": name}
        walk.operator.follow(OPERATOR, "Let a site in")
        walk.start(name)
    walk.operator.replaced = page_words
    walk.all_connected()


def set_up_site(walk: Walk, name: str) -> None:
    """A site's folder, policy and code."""
    site = walk.sites[name]
    shutil.copy(walk.operator.folder / "coordinator" / "invitation.json", site.folder)
    site.follow(SITE, "Set up")
    site.follow(SITE, "Decide", block=0)
    assert "records" in site.follow(SITE, "Decide", block=1)
    assert "approved" in site.follow(SITE, "Approve the code")
    for party in (walk.operator, walk.organiser):
        shutil.copy(site.folder / "agent" / "enrolment.json", party.folder / f"{name}.json")


def failed(walk: Walk, told: int) -> bool:
    """Whether the run said that it failed, after so many lines."""
    return any(line["event"] == "failed" for line in walk.told[told:])


def agent_killed(walk: Walk) -> None:
    """An agent dies in the middle of the first round; the run is stopped, and the agent started again."""
    walk.operator.follow(OPERATOR, "Start a run")
    walk.until(lambda: any(a["kind"] == "query.share" for a in walk.answers("north")), "north has shared its keys")
    walk.kill("north")
    walk.start("north")
    walk.operator.follow(OPERATOR, "Stop, and go on", block=0)
    walk.run_ended()


def refused(walk: Walk) -> None:
    """One site's policy says no: the operator reads why, and so does the site; then it allows the run.

    The agent that died may still be taken for its dead self, and is a second reason then (the guide says so).
    """
    west, told = walk.sites["west"], len(walk.told)
    west.run("sed -i 's/^max_epsilon = .*/max_epsilon = 1.0/' agent/policy.toml")
    walk.operator.follow(OPERATOR, "Stop, and go on", block=1)
    walk.until(lambda: failed(walk, told), "the run is refused")
    assert "the limit is 1" in walk.operator.follow(OPERATOR, "Watch")
    assert "refused: epsilon" in west.follow(SITE, "Watch")
    west.follow(SITE, "Decide", block=0)
    walk.run_ended()


def resumed(walk: Walk) -> None:
    """``resume``, again where a site that died a moment ago is still taken for its dead self (the guide says so)."""
    for _ in range(MOST_RESUMES):
        told, answered = len(walk.told), len(walk.answers("south"))
        walk.operator.follow(OPERATOR, "Stop, and go on", block=1)
        walk.until(
            lambda told=told, answered=answered: (
                failed(walk, told) or any(a["kind"] != "query.prepare" for a in walk.answers("south")[answered:])
            ),
            "sites are asked for more than whether they take part",
        )
        if not failed(walk, told):
            return
        assert "node_unavailable" in str(walk.told[-1]["message"])
        walk.run_ended()
        walk.all_connected()
    pytest.fail("the site that came back was never found")


def coordinator_killed(walk: Walk) -> None:
    """The coordinator dies in the round after the first that is on disk, and goes on from there to the release."""
    resumed(walk)
    walk.until(lambda: any(line["event"] == "round" for line in walk.told), "a round is on disk")
    served = len(walk.answers("south"))
    walk.until(lambda: len(walk.answers("south")) > served, "the next round has begun")
    walk.kill("coordinator")
    walk.operator.run("fedembed coordinator status", code=18)
    walk.start("coordinator")
    walk.until(lambda: walk.is_up("coordinator"), "the coordinator is back")
    walk.operator.follow(OPERATOR, "Stop, and go on", block=0)
    walk.run_ended()
    told = len(walk.told)
    resumed(walk)
    finished = walk.home / "runs" / "first" / "release" / "manifest.json"
    walk.until(lambda: finished.exists() or failed(walk, told), "the run is done")
    walk.run_ended()
    done = [line["round"] for line in walk.told if line["event"] == "round"]
    assert done[0] == 1 and done == sorted(set(done)) and len(done) > 1, "rounds on disk are not repeated"


def test_the_guides_lead_to_a_verified_release_and_nothing_secret_is_left(walk: Walk) -> None:
    with ProcessList() as shown:
        set_up(walk)
        agent_killed(walk)
        refused(walk)
        coordinator_killed(walk)
        assert "finished:completed" in walk.operator.run("fedembed coordinator runs")
        checked = walk.operator.follow(OPERATOR, "Take the release")
        assert "ok " in checked and "FAILED" not in checked
        assert walk.operator.run("fedembed coordinator status --json").count('"online"') == len(SITES)
        walk.operator.follow(OPERATOR, "Renew, revoke")
        walk.until(lambda: sites_online(walk.home) == len(SITES) - 1, "the revoked site is out")
    no_budget_is_lost(walk)
    nothing_secret_is_left(walk, shown)
    followed = walk.operator.done | walk.organiser.done | set().union(*(s.done for s in walk.sites.values()))
    assert followed == blocks_of(OPERATOR) | blocks_of(SITE)


def no_budget_is_lost(walk: Walk) -> None:
    """What each site's ledger charged covers every round of the release and every one that died."""
    release = walk.folder / "operator" / "coordinator" / "runs" / "first" / "release"
    certificate = json.loads((release / "certificate.json").read_text())
    claimed = certificate["observers"]["coordinator"]["epsilon"]
    for name, site in walk.sites.items():
        spent = json.loads(site.run("fedembed agent status --json").splitlines()[0])["spent"]
        assert [account["unit"] for account in spent] == ["record"]
        assert spent[0]["epsilon"] >= claimed - 1e-6 > 0
        vectors = [a for a in walk.answers(name) if a["kind"] == "train.mask" and a["status"] == "done"]
        assert spent[0]["rounds"] >= len(vectors) > 0, "every vector that left was charged"


def nothing_secret_is_left(walk: Walk, shown: ProcessList) -> None:
    """Keys, secrets and text stand in their own files alone; a planted copy of each kind is found."""
    keys = [p for p in walk.folder.rglob("*") if p.is_file() and (p.suffix in (".key", ".secret") or p.name == "node")]
    assert len(keys) == 1 + 4 + 3 * len(SITES)
    secrets: dict[str, bytes] = {}
    own: dict[str, Path] = {}
    for path in keys:
        for form, value in forms_of_key(path).items():
            secrets[f"{path}, {form}"], own[f"{path}, {form}"] = value, path
    for path in (walk.folder / "data" / "texts").iterdir():
        for number, value in enumerate(forms_of_text(path)):
            secrets[f"{path}, line {number}"], own[f"{path}, line {number}"] = value, path
    tokens = {f"token {number}": token.encode() for number, token in enumerate(sorted(shown.tokens()))}
    own |= dict.fromkeys(tokens, walk.folder)
    code = {walk.folder / "code", *(site.folder / "agent" / "approved" / "apps" for site in walk.sites.values())}
    files = [p for p in walk.folder.rglob("*") if p.is_file() and not code & set(p.parents)]
    database = set((walk.home / "state").glob("superlink.db*"))  # where Flower checks tokens
    assert len(files) > 50 and len(secrets) > 100 and tokens
    assert leaks(files, secrets, own) == []
    assert leaks((path for path in files if path not in database), tokens, own) == []
    commands = "\n".join(shown.lines).encode()
    assert [name for name, value in secrets.items() if value in commands] == []
    everything = walk.folder / "planted"
    everything.write_bytes(b"\n".join([*secrets.values(), *tokens.values()]))
    assert len(leaks([everything], {**secrets, **tokens}, own)) == len(secrets) + len(tokens)
