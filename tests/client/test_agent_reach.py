"""What a site is told of its way to the coordinator: nothing there, another authority, a clock that is wrong."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from client.agent.reach import MOST_AHEAD_S, MOST_BEHIND_S, clock_problem, reach
from common.deployment.certificates import authority, server_certificate
from common.deployment.flower import free_port


class Proxy(BaseHTTPRequestHandler):
    """Answers like the coordinator's proxy does to whoever asks for no fleet path; its clock may be off."""

    behind_s = 0.0

    def do_GET(self) -> None:
        self.send_error(404)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() - self.behind_s, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(address, the authority's certificate) of a server on this machine."""
    folder = tmp_path_factory.mktemp("tls")
    root = authority("trial")
    made = server_certificate(root, ["127.0.0.1"])
    for name, content in {"ca.crt": root.certificate, "crt": made.certificate, "key": made.key}.items():
        (folder / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", folder / "ca.crt"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("behind_s", "problem"), [(0.0, ""), (60.0, "60 s ahead of"), (-200.0, ""), (-400.0, "400 s behind")]
)
def test_the_clocks_are_compared(
    coordinator: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, behind_s: float, problem: str
) -> None:
    monkeypatch.setattr(Proxy, "behind_s", behind_s)
    found = reach(*coordinator)
    assert found.clock_ahead_s == pytest.approx(behind_s, abs=3.0)
    assert (problem in found.problem) if problem else found.problem == ""


def test_a_coordinator_that_is_away_is_said_to_be(coordinator: tuple[str, Path]) -> None:
    found = reach(f"127.0.0.1:{free_port()}", coordinator[1])
    assert "does not answer" in found.problem
    assert found.clock_ahead_s is None


def test_somebody_else_in_its_place_is_not_taken_for_it(coordinator: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority("another").certificate)
    found = reach(coordinator[0], tmp_path / "ca.crt")
    assert "certificate verify failed" in found.problem
    assert found.clock_ahead_s is None


def test_the_limits_are_flowers_own() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert (MOST_AHEAD_S, MOST_BEHIND_S) == (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)
    assert clock_problem(MOST_AHEAD_S)
    assert clock_problem(-MOST_BEHIND_S)
