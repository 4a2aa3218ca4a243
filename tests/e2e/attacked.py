"""A coordinator and an agent that are up, for attacks: from another address, with any key, with any code."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.node import ACTIVITY_FILE
from common.deployment.bundle import RUN_KEYS
from common.deployment.flower import assemble_app, free_port, run_log, run_status, start_run
from common.deployment.journal import Journal
from server.coordinator.home import Home, open_home
from server.coordinator.processes import environment_of

OUTSIDE = "127.0.0.2"  # another address of this machine: what is bound to loopback's first does not answer on it
WAIT_S = 240.0

HOSTILE = '''
"""A coordinator that sends what it likes, under a bundle that the sites have approved."""
import json
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
    trials = {
        "unsigned": ("query.prepare", announced(Sender())),
        "signed by another": ("query.prepare", announced(Sender(Identity.fresh(lambda n: b"x" * n), bundle))),
        "replayed onto another scenario": ("query.prepare", announced(Sender(identity, bundle), scenario=other)),
        "replayed onto another run": ("query.prepare", announced(Sender(identity, bundle), run="another")),
        "other code": ("query.prepare", announced(Sender(identity, "b" * 64))),
        "oversized": ("query.prepare", wire.Payload(honest.config, large)),
        "a round before it is prepared": ("train.round", wire.Payload({"protocol": wire.PROTOCOL, "run": "attack"})),
        "not ours": ("query.prepare", wire.Payload({"protocol": "other"})),
        "honest": ("query.prepare", honest),
        "honest again": ("query.prepare", honest),
    }
    found = {}
    for name, (kind, payload) in trials.items():
        (node,) = grid.get_node_ids()
        message = Message(wire.pack(payload, flwr.app), dst_node_id=node, message_type=kind)
        (reply,) = grid.send_and_receive([message], timeout=120)
        found[name] = str(reply.error.reason) if reply.has_error() else dict(reply.content["config"])
        Path(str(config["out"]), "found.json").write_text(json.dumps(found, default=str))
'''


def fedembed(*words: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from simulations.cli import main; sys.exit(main())", *words]


def run(*words: str) -> None:
    done = subprocess.run(fedembed(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def kept_up(*words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(fedembed(*words), stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"in vain: {what}")
        time.sleep(0.5)


@dataclass(frozen=True)
class Place:
    """A coordinator and an agent that are up."""

    folder: Path
    home: Home

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

    def submit(self, name: str, change: Callable[[Path], None], **values: str) -> tuple[str, str]:
        """Flower's status and log of a run of an altered app."""
        environment = environment_of(self.home)
        app = assemble_app(self.folder / name / "app", dict.fromkeys(RUN_KEYS, ""))
        change(app)
        out = self.folder / name / "out"
        out.mkdir()
        chosen = dict.fromkeys(RUN_KEYS, "") | {"out": str(out), "coordinator": str(self.home.identity_file)} | values
        lines = [f"{key} = {json.dumps(value)}" for key, value in chosen.items()]
        (app.parent / "run.toml").write_text("\n".join(lines) + "\n")
        number = start_run(app, environment)
        until(lambda: run_status(number, environment).startswith("finished"), f"the end of {name}")
        return run_status(number, environment), run_log(number, environment)


def account() -> str:
    """Whom root runs the agent as."""
    if os.geteuid() != 0:
        return ""
    return next((user.pw_name for user in pwd.getpwall() if user.pw_name == "fedembed"), "nobody")


@contextmanager
def attacked() -> Iterator[Place]:
    """Start both, and end them; the test is skipped where a command is missing."""
    for command in ("nginx", "setpriv"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "north.txt").write_text("wa wb wa wb\n" * 50)
        c, north, first, mine = folder / "c", folder / "north", free_port(), free_port()
        public = ("--host", OUTSIDE, "--bind", OUTSIDE, "--port", str(free_port()))
        run("coordinator", "init", *public, "--loopback-port", str(first), "--home", str(c))
        user = ("--user", account()) if account() else ()
        words = ("--invitation", str(c / "invitation.json"), "--name", "north", "--data", str(folder / "north.txt"))
        run("agent", "init", *words, "--port", str(mine), "--home", str(north), *user)
        policy = (north / "policy.toml").read_text().replace("max_epsilon = 0.0", "max_epsilon = 100.0")
        (north / "policy.toml").write_text(policy.replace("268435456", "2000000"))
        run("agent", "approve-bundle", "--yes", "--home", str(north))
        run("coordinator", "enroll", str(north / "enrolment.json"), "--home", str(c))
        run("coordinator", "approve", "north", "--home", str(c))
        for part, home in (("coordinator", c), ("agent", north)):
            stack.enter_context(kept_up(part, "up", "--home", str(home), log=folder / f"{part}.out"))
            until((home / "up.json").exists, f"{part}: {(folder / f'{part}.out').read_text()}")
        yield Place(folder, open_home(c))
