"""A real coordinator and a real agent, attacked from outside, by other keys, and by the coordinator itself."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from common.deployment.certificates import Certificate, server_certificate
from common.deployment.flower import port_answers
from server.coordinator.processes import environment_of
from server.coordinator.sites import registered
from tests.e2e.attacked import HOSTILE, OUTSIDE, Place, attacked, run
from tests.e2e.secret_scan import forms_of_key, leaks

pytestmark = [pytest.mark.sites, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with attacked() as made:
        yield made


def reachable(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def test_from_outside_the_fleet_interface_alone_answers(place: Place) -> None:
    loopback = place.home.settings.loopback
    ports = [loopback.superlink_port, loopback.health_port, loopback.metrics_port]
    raw = dict(line.split(" = ") for line in (place.site / "agent.toml").read_text().splitlines() if "_port" in line)
    ports += [int(value.split("#")[0]) for value in raw.values()]
    assert len(ports) == 6
    for port in ports:
        place.until(partial(port_answers, port), f"port {port} answers")
        assert not reachable(OUTSIDE, port), port
    address = f"https://{OUTSIDE}:{place.home.settings.public.port}"
    with httpx.Client(verify=ssl.create_default_context(cafile=str(place.home.authority_file))) as outside:
        for path in ("/", "/v1/control/list-runs", "/v1/runtime/acquire-task", "/health", "/metrics", "/docs"):
            assert outside.post(address + path).status_code == 404, path
        header = {"Content-Type": "application/protobuf"}
        for path in ("pull-messages", "get-run", "get-fab", "push-messages", "register-node", "pull-object"):
            assert outside.post(f"{address}/v1/fleet/{path}", headers=header).status_code in (401, 403), path


UNAUTHORISED = (401, 403)


def answered(place: Place, key: ec.EllipticCurvePrivateKey | None, node: int) -> tuple[int, ...]:
    """Nothing where the coordinator gives this key the messages of a node, else the codes that say who may not."""
    with closing(place.fleet(key)) as fleet:
        try:
            fleet.PullMessages(PullMessagesRequest(node=Node(node_id=node)))
        except httpx.HTTPStatusError as error:
            assert error.response.status_code in UNAUTHORISED, error.response.text
            return UNAUTHORISED
    return ()


def key_of(place: Place) -> ec.EllipticCurvePrivateKey:
    """The key of the site's node."""
    key = load_ssh_private_key((place.site / "keys" / "node").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def node_of(place: Place) -> int:
    """Its number at the coordinator."""
    return int(registered(place.home, environment_of(place.home))["north"]["node-id"])


def test_no_key_and_an_unknown_key_are_refused(place: Place) -> None:
    node = node_of(place)
    assert answered(place, key_of(place), node) == ()
    assert answered(place, None, node) == UNAUTHORISED
    assert answered(place, ec.generate_private_key(ec.SECP384R1()), node) == UNAUTHORISED


def test_an_unknown_key_cannot_register_itself(place: Place) -> None:
    stranger = ec.generate_private_key(ec.SECP384R1())
    public = public_key_to_bytes(stranger.public_key())
    before = registered(place.home, environment_of(place.home))
    with closing(place.fleet(stranger)) as fleet:
        for call in (
            lambda: fleet.RegisterNode(RegisterNodeFleetRequest(public_key=public)),
            lambda: fleet.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=30.0)),
        ):
            with pytest.raises(httpx.HTTPStatusError):
                call()
    assert answered(place, stranger, node_of(place)) == UNAUTHORISED
    assert registered(place.home, environment_of(place.home)).keys() == before.keys()


def test_the_same_key_twice_is_refused(place: Place) -> None:
    key = key_of(place)
    request = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30.0)
    with closing(place.fleet(key)) as fleet, pytest.raises(httpx.HTTPStatusError):
        fleet.ActivateNode(request)
    assert answered(place, key, node_of(place)) == (), "the agent that is up with it stays connected"


def test_an_expired_certificate_is_refused(place: Place, tmp_path: Path) -> None:
    tls = place.home.folder / "tls"
    root = Certificate((tls / "ca.crt").read_bytes(), (tls / "ca.key").read_bytes())
    for days, words in ((-1, "expired"), (1, "")):
        made = server_certificate(root, [OUTSIDE], days=days)
        (tmp_path / "server.pem").write_bytes(made.certificate + made.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem")
        with socket.create_server((OUTSIDE, 0)) as door:
            port = door.getsockname()[1]

            def serve(door: socket.socket = door, context: ssl.SSLContext = context) -> None:
                connection, _ = door.accept()
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

            thread = threading.Thread(target=serve)
            thread.start()
            with closing(place.fleet(None, port)) as fleet, pytest.raises(httpx.HTTPError) as caught:
                fleet.PullMessages(PullMessagesRequest())
            thread.join()
        assert ("expired" in str(caught.value)) == bool(words)


def overwritten(app: Path) -> None:
    path = app / "client" / "app.py"
    path.write_bytes(path.read_bytes().replace(b"All work is in", b"All work was in"))
    hostile(app)


def hostile(app: Path) -> None:
    (app / "server" / "app.py").write_text(HOSTILE)


def test_code_that_nobody_approved_does_nothing(place: Place) -> None:
    before = place.answers()
    place.submit("unapproved", overwritten, bundle="b" * 64, simulation="/etc")
    found = json.loads((place.folder / "unapproved" / "out" / "found.json").read_text())
    assert found and all(isinstance(text, str) and "is not approved at this site" in text for text in found.values())
    assert str(place.site) not in json.dumps(found), "no path of the site leaves it"
    assert place.answers() == before
    assert not (place.site / "state" / "ledger.sqlite").exists()


def test_a_hostile_coordinator_under_approved_code(place: Place) -> None:
    """It alters its own copy of the bundle, which Flower does not read again, and keeps the hash that sites know."""
    (digest,) = json.loads((place.site / "approved" / "bundles.json").read_text())
    installed = place.home.folder / "flower" / "flwr" / "apps" / f"fedembed.fedembed-app.0.1.0.{digest[:8]}"
    installed.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(next((place.site / "approved" / "apps").iterdir()), installed, dirs_exist_ok=True)
    for path in (installed, *installed.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    hostile(installed)
    status, log = place.submit("attack", lambda app: None, bundle=digest, simulation="/etc")
    assert status == "finished:completed", log
    found = json.loads((place.folder / "attack" / "out" / "found.json").read_text())
    codes = {
        name: answer.get("code", answer.get("status")) for name, answer in found.items() if isinstance(answer, dict)
    }
    assert codes == {
        "unsigned": "coordinator",
        "signed by another": "coordinator",
        "replayed onto another scenario": "signature",
        "replayed onto another run": "signature",
        "other code": "bundle",
        "oversized": "message_bytes",
        "a round before it is prepared": "unprepared",
        "honest": "ready",
        "honest again": "ready",
    }
    assert "does not speak" in found["not ours"]
    assert str(place.site) not in json.dumps(found), "no path of the site leaves it"
    with sqlite3.connect(place.site / "state" / "ledger.sqlite") as ledger:
        (reserved,) = ledger.execute("SELECT COUNT(*) FROM entries WHERE kind = 'reserve'").fetchone()
    assert reserved == 1, "a replayed announcement spends nothing more, a refused one nothing at all"


def test_no_secret_is_in_a_log_a_list_of_processes_or_a_database(place: Place) -> None:
    keys = [*(place.site / "keys").iterdir(), *place.home.inside("secrets").iterdir()]
    keys += list(place.home.inside("tls").glob("*.key"))
    forms = {(path, form): secret for path in keys for form, secret in forms_of_key(path).items()}
    secrets = {f"{path}, {form}": secret for (path, form), secret in forms.items()}
    own = {f"{path}, {form}": path for path, form in forms}
    assert len(keys) == 7 and all(sum(path == key for path, _ in forms) >= 3 for key in keys)
    assert leaks((path for path in place.folder.rglob("*") if path.is_file()), secrets, own) == []
    for number in Path("/proc").glob("[0-9]*"):
        for part in ("cmdline", "environ"):
            with suppress(OSError):
                shown = (number / part).read_bytes()
                assert [name for name, secret in secrets.items() if secret in shown] == [], number / part
    planted = place.folder / "planted"
    planted.write_bytes(b"".join(path.read_bytes() for path in keys))
    found = {own[leak.partition(" in ")[0]] for leak in leaks([planted], secrets, own)}
    planted.unlink()
    assert found == set(keys), "a copy of every key is noticed"


def test_a_revoked_key_is_refused(place: Place) -> None:
    """The last test: the agent is cut off."""
    key, node = key_of(place), node_of(place)
    assert answered(place, key, node) == (), "the key is good until it is revoked"
    run(place.environment, "coordinator", "revoke", "north", "--home", str(place.home.folder))
    for _ in range(2):
        assert answered(place, key, node) == UNAUTHORISED
