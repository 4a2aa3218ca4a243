"""A coordinator and an agent that are up, for attacks: from another address, with any key, with any code."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.node import ACTIVITY_FILE
from common.deployment.bundle import RUN_KEYS
from common.deployment.flower import assemble_app, free_port, run_status, start_run
from common.deployment.journal import Journal
from server.coordinator.home import Home, open_home
from server.coordinator.processes import environment_of
from tests.e2e.walking import (
    WAIT_S,
    installed,
    other_account,
    runs_going_on,
    sites_online,
    tails,
    three_ports,
    until,
    why_not,
)

OUTSIDE = "127.0.0.2"  # another address of this machine: what is bound to loopback's first does not answer on it
LOG = logging.getLogger(__name__)

HOSTILE = '''
"""A coordinator that sends what it likes, under a bundle that the sites have approved."""
import json
import time
from pathlib import Path

import flwr.app
import numpy as np
from flwr.app import Message
from flwr.serverapp import ServerApp

from common import wire
from common.config import build_scenario
from common.secagg.keys import Identity
from server.sender import Sender

app = ServerApp()
SCENARIO = {"task": {"family": "word2vec", "dimension": 2}, "data": {"reader": "text", "unit": "client"},
            "privacy": {"mode": "local", "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "delta": 1e-5},
            "federation": {"rounds": 2}}


@app.main()
def main(grid, context):
    config = context.run_config
    bundle, identity = str(config["bundle"]), Identity.from_pem(Path(str(config["coordinator"])).read_bytes())
    domain = wire.encode_domain(__import__("common.table", fromlist=["x"]).RowDomain(("wa", "wb")))
    scenario, other = (build_scenario({**SCENARIO, "seed": n}).canonical_json() for n in (0, 1))

    def announced(sender, **changed):
        signed = sender.signed("attack", scenario, domain.config["domain_digest"])
        first = {"protocol": wire.PROTOCOL, "run": "attack", "scenario": scenario, "coordinator": "anybody"}
        return wire.Payload({**first, **domain.config, **signed, **changed}, domain.arrays)

    honest = announced(Sender(identity, bundle))
    large = {**domain.arrays, "zeros": np.zeros(3_000_000, np.uint8)}
    early = wire.Payload({"protocol": wire.PROTOCOL, "run": "attack"})
    trials = [  # those of one list are under way together
        {
            "unsigned": ("query.prepare", announced(Sender())),
            "signed by another": ("query.prepare", announced(Sender(Identity.fresh(lambda n: b"x" * n), bundle))),
            "replayed onto another scenario": ("query.prepare", announced(Sender(identity, bundle), scenario=other)),
            "replayed onto another run": ("query.prepare", announced(Sender(identity, bundle), run="another")),
            "other code": ("query.prepare", announced(Sender(identity, "b" * 64))),
            "oversized": ("query.prepare", wire.Payload(honest.config, large)),
            "a round before it is prepared": ("train.round", early),
            "not ours": ("query.prepare", wire.Payload({"protocol": "other"})),
        },
        {"honest": ("query.prepare", honest)},
        {"honest again": ("query.prepare", honest)},
    ]
    (node,) = grid.get_node_ids()
    found = {}
    for together in trials:
        messages = [Message(wire.pack(p, flwr.app), dst_node_id=node, message_type=k) for k, p in together.values()]
        names = dict(zip(grid.push_messages(messages), together))
        while missing := [number for number, name in names.items() if name not in found]:
            for reply in grid.pull_messages(missing):
                text = str(reply.error.reason) if reply.has_error() else dict(reply.content["config"])
                found[names[reply.metadata.reply_to_message_id]] = text
            time.sleep(0.1)
            Path(str(config["out"]), "found.json").write_text(json.dumps(found, default=str))
'''


def run(environment: Mapping[str, str], *words: str) -> None:
    """A command that has to succeed."""
    began = time.monotonic()
    done = subprocess.run(["fedembed", *words], env=dict(environment), capture_output=True, text=True, check=False)
    LOG.info("%5.1f s: fedembed %s", time.monotonic() - began, " ".join(words)[:80])
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def kept_up(environment: Mapping[str, str], *words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``up``, until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["fedembed", *words], env=dict(environment), stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S)


@dataclass(frozen=True)
class Place:
    """A coordinator and an agent that are up."""

    folder: Path
    home: Home
    environment: Mapping[str, str]

    @property
    def site(self) -> Path:
        return self.folder / "north"

    def fleet(self, key: ec.EllipticCurvePrivateKey | None, port: int = 0) -> FleetHttpClient:
        """A client of the published interface, with this key."""
        interceptors = [] if key is None else [NodeAuthHttpInterceptor(key, key.public_key())]
        address = f"{OUTSIDE}:{port or self.home.settings.public.port}"
        trusted = self.home.authority_file.read_bytes()
        return FleetHttpClient.from_server_address(address, False, trusted, interceptors)

    def answers(self) -> list[dict[str, object]]:
        return list(Journal(self.site / "state" / ACTIVITY_FILE).read())

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait; a failure shows every log."""
        until(true, what, logs=self.folder)

    def submit(self, name: str, change: Callable[[Path], None], **values: str) -> tuple[str, str]:
        """Flower's status of a run of an altered app, once it ended, and what every log says."""
        environment = environment_of(self.home)
        app = assemble_app(self.folder / name / "app", dict.fromkeys(RUN_KEYS, ""))
        change(app)
        out = self.folder / name / "out"
        out.mkdir()
        chosen = dict.fromkeys(RUN_KEYS, "") | {"out": str(out), "coordinator": str(self.home.identity_file)} | values
        lines = [f"{key} = {json.dumps(value)}" for key, value in chosen.items()]
        (app.parent / "run.toml").write_text("\n".join(lines) + "\n")
        number = start_run(app, environment)
        self.until(lambda: runs_going_on(self.home.folder) == 0, f"the run {name!r} has ended")
        return run_status(number, environment), tails(self.folder)


@contextmanager
def attacked() -> Iterator[Place]:
    """Start both, and end them; the test is skipped where a command is missing."""
    with tempfile.TemporaryDirectory(prefix="fedembed-attacked-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        environment = installed(folder)
        reason = why_not(environment)
        if reason is not None:
            pytest.skip(reason)
        command = partial(run, environment)
        (folder / "north.txt").write_text("wa wb wa wb\n" * 50)
        c, north = folder / "c", folder / "north"
        public = ("--host", OUTSIDE, "--bind", OUTSIDE, "--port", str(free_port()))
        command("coordinator", "init", *public, "--loopback-port", str(three_ports()), "--home", str(c))
        user = ("--user", other_account()) if other_account() else ()
        words = ("--invitation", str(c / "invitation.json"), "--name", "north", "--data", str(folder / "north.txt"))
        command("agent", "init", *words, "--port", str(three_ports()), "--home", str(north), *user)
        policy = (north / "policy.toml").read_text().replace("max_epsilon = 0.0", "max_epsilon = 100.0")
        (north / "policy.toml").write_text(policy.replace("268435456", "2000000"))
        command("agent", "approve-bundle", "--yes", "--home", str(north))
        command("coordinator", "enroll", str(north / "enrolment.json"), "--home", str(c))
        command("coordinator", "approve", "north", "--home", str(c))
        place = Place(folder, open_home(c), environment)
        for part, home in (("coordinator", c), ("agent", north)):
            stack.enter_context(kept_up(environment, part, "up", "--home", str(home), log=folder / f"{part}.out"))
            place.until((home / "up.json").exists, f"the {part} is up")
        place.until(lambda: sites_online(c) == 1, "the agent is connected")
        yield place
