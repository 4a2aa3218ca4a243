"""Both guides as they stand: three sites, a roster, a refusal, an agent and the coordinator killed, a release verified.

Names, numbers of ports, the account and the data's path are this machine's; every other character is the pages'.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from simulations import corpora
from tests.conftest import _data_folder
from tests.e2e.deployment import SITES, planted_texts
from tests.e2e.secret_scan import ProcessList, forms_of_key, forms_of_text, leaks
from tests.e2e.walking import (
    Party,
    blocks_of,
    installed,
    kill_tree,
    lines_of,
    other_account,
    three_ports,
    until,
    why_not,
)

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]
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
        return lines_of(self.folder / "operator" / "coordinator" / "runs" / "first" / "rounds.jsonl")

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

    def connected(self, number: int) -> bool:
        """Whether so many sites are online."""
        script = "fedembed coordinator status --json || true"
        shown = self.operator.run(script)
        return shown.count('"online"') == number

    def ended(self) -> bool:
        """Whether Flower says that the run is over."""
        return "finished" in self.operator.run("fedembed coordinator runs")


def texts(folder: Path) -> Path:
    """A text file a site, by author, and public words; from novels where they are, else planted."""
    data = _data_folder()
    novels = None if data is None else data / "text" / "novels94.jsonl.xz"
    if novels is None or not novels.exists():
        return planted_texts(folder, every=30)
    (folder / "texts").mkdir()
    authors: dict[str, str] = {}
    with lzma.open(novels, "rt") as books:
        for book in map(json.loads, books):
            authors.setdefault(book["author"], book["text"][2_000:60_000])
            if len(authors) == len(SITES):
                break
    for site, text in zip(SITES, authors.values(), strict=True):
        sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.!?])\s+", text)]
        (folder / "texts" / f"{site}.txt").write_text("\n".join(s for s in sentences if len(s) > 60) + "\n")
    words = corpora.vocabulary("python-stdlib")
    (folder / "words.tsv").write_text("".join(f"{w}\t{n}\n" for w, n in words.items()))
    return folder


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
    until(lambda: walk.connected(0), "the coordinator is up")
    for name in SITES:
        site = walk.sites[name]
        for file in ("roster.json", "organiser.key.pub"):
            shutil.copy(walk.organiser.folder / file, site.folder)
        site.follow(SITE, "Agree on a roster", block=2)
        walk.operator.replaced = {**page_words, "north": name}
        walk.operator.follow(OPERATOR, "Let a site in")
        walk.start(name)
    walk.operator.replaced = page_words


def set_up_site(walk: Walk, name: str) -> None:
    """A site's folder, policy and code; the one in the west allows too little."""
    site = walk.sites[name]
    shutil.copy(walk.operator.folder / "coordinator" / "invitation.json", site.folder)
    site.follow(SITE, "Set up")
    site.follow(SITE, "Decide", block=0)
    assert "records" in site.follow(SITE, "Decide", block=1)
    assert "approved" in site.follow(SITE, "Approve the code")
    for party in (walk.operator, walk.organiser):
        shutil.copy(site.folder / "agent" / "enrolment.json", party.folder / f"{name}.json")


def refused_and_allowed(walk: Walk) -> None:
    """One site's policy says no: the operator reads why, and so does the site; then it allows the run."""
    west = walk.sites["west"]
    west.run("sed -i 's/^max_epsilon = .*/max_epsilon = 1.0/' agent/policy.toml")
    walk.operator.follow(OPERATOR, "Start a run")
    until(lambda: any(line["event"] == "failed" for line in walk.told), "the run is refused")
    assert "the limit is 1" in walk.operator.follow(OPERATOR, "Watch")
    assert "refused: epsilon" in west.follow(SITE, "Watch")
    west.follow(SITE, "Decide", block=0)
    until(walk.ended, "the refused run ends")


def resumed(walk: Walk) -> None:
    """``resume``, again where a site that died a moment ago is still taken for its dead self (the guide says so)."""
    for _ in range(MOST_RESUMES):
        told, answered = len(walk.told), len(walk.answers("south"))
        walk.operator.follow(OPERATOR, "Stop, and go on", block=1)
        until(
            lambda told=told, answered=answered: (
                any(line["event"] == "failed" for line in walk.told[told:])
                or any(line["kind"] != "query.prepare" for line in walk.answers("south")[answered:])
            ),
            "sites are asked",
        )
        if all(line["event"] != "failed" for line in walk.told[told:]):
            return
        assert "node_unavailable" in str(walk.told[-1]["message"])
        until(walk.ended, "the run that missed a site ends")
    raise TimeoutError("the site that came back was never found")


def agent_killed(walk: Walk) -> None:
    """An agent dies in the middle of the first round and comes back; the run is stopped and goes on."""
    resumed(walk)
    until(lambda: any(a["kind"] == "query.share" for a in walk.answers("north")), "north shares its keys")
    walk.kill("north")
    walk.operator.follow(OPERATOR, "Stop, and go on", block=0)
    until(walk.ended, "the stopped run ends")
    walk.start("north")
    until(lambda: walk.connected(len(SITES)), "north is back")


def coordinator_killed(walk: Walk) -> None:
    """The coordinator dies in the round after the first that is on disk, and goes on from there."""
    resumed(walk)
    until(lambda: any(line["event"] == "round" for line in walk.told), "a round is on disk")
    served = len(walk.answers("south"))
    until(lambda: len(walk.answers("south")) > served, "the next round has begun")
    walk.kill("coordinator")
    walk.operator.run("fedembed coordinator status", code=18)
    walk.start("coordinator")
    until(lambda: walk.connected(len(SITES)), "everybody is back")
    until(walk.ended, "Flower notices that the run is lost")
    resumed(walk)
    finished = walk.folder / "operator" / "coordinator" / "runs" / "first" / "release" / "manifest.json"
    until(lambda: finished.exists() or walk.told[-1]["event"] == "failed", "the run is done", timeout_s=300)
    until(walk.ended, "the run ends")


def test_the_guides_lead_to_a_verified_release_and_nothing_secret_is_left(walk: Walk) -> None:
    with ProcessList() as shown:
        set_up(walk)
        until(lambda: walk.connected(len(SITES)), "three sites are connected")
        refused_and_allowed(walk)
        agent_killed(walk)
        coordinator_killed(walk)
        assert "first" in walk.operator.run("fedembed coordinator runs")
        checked = walk.operator.follow(OPERATOR, "Take the release")
        assert "ok " in checked and "FAILED" not in checked
        walk.operator.follow(OPERATOR, "Renew, revoke")
        until(lambda: walk.connected(len(SITES) - 1), "the revoked site is out")
    no_budget_is_lost(walk)
    nothing_secret_is_left(walk, shown)
    followed = walk.operator.done | walk.organiser.done | set().union(*(s.done for s in walk.sites.values()))
    assert followed == blocks_of(OPERATOR) | blocks_of(SITE)


def no_budget_is_lost(walk: Walk) -> None:
    """What each site's ledger charged covers every round of the release and every one that died."""
    release = walk.folder / "operator" / "coordinator" / "runs" / "first" / "release"
    certificate = json.loads((release / "certificate.json").read_text())
    claimed = certificate["observers"]["coordinator"]["epsilon"]
    for site in walk.sites.values():
        spent = json.loads(site.run("fedembed agent status --json").splitlines()[0])["spent"]
        assert [account["unit"] for account in spent] == ["record"]
        assert spent[0]["epsilon"] >= claimed - 1e-6 > 0


def nothing_secret_is_left(walk: Walk, shown: ProcessList) -> None:
    """Keys, secrets and text stand in their own files alone; a planted copy of each kind is found."""
    keys = [p for p in walk.folder.rglob("*") if p.is_file() and (p.suffix in (".key", ".secret") or p.name == "node")]
    assert len(keys) == 1 + 4 + 3 * len(SITES)
    secrets, own = {}, {}
    for path in keys:
        for form, value in forms_of_key(path).items():
            secrets[f"{path}, {form}"], own[f"{path}, {form}"] = value, path
    for path in (walk.folder / "data" / "texts").iterdir():
        for number, value in enumerate(forms_of_text(path)):
            secrets[f"{path}, line {number}"], own[f"{path}, line {number}"] = value, path
    for number, token in enumerate(sorted(shown.tokens())):
        secrets[f"token {number}"], own[f"token {number}"] = token.encode(), walk.folder
    code = {walk.folder / "code", *(site.folder / "agent" / "approved" / "apps" for site in walk.sites.values())}
    files = [p for p in walk.folder.rglob("*") if p.is_file() and not code & set(p.parents)]
    assert len(files) > 50 and len(secrets) > 100
    assert leaks(files, secrets, own) == []
    commands = "\n".join(shown.lines).encode()
    assert [n for n, value in secrets.items() if value in commands and not n.startswith("token")] == []
    everything = walk.folder / "planted"
    everything.write_bytes(b"\n".join(secrets.values()))
    assert len(leaks([everything], secrets, own)) == len(secrets)
