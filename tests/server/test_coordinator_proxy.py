"""The reverse proxy that is generated: what reaches Flower from outside, and what does not, whatever is tried."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from common.deployment.flower import free_port, port_answers
from common.errors import DeploymentError
from server.coordinator.home import SETTINGS_FILE, Home, make_home, open_home
from server.coordinator.proxy import write_configuration

FLEET = "/v1/fleet/"


class Upstream(BaseHTTPRequestHandler):
    """Says which path and host it was asked for, and how much came with it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        read = len(self.rfile.read(size))
        large = b"x" * (300_000 if self.path.endswith("/large") else 0)
        body = f"{self.path} {self.headers['Host']} {read} ".encode() + large
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@dataclass(frozen=True)
class Proxy:
    home: Home

    def connection(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        trusting = context or ssl.create_default_context(cafile=str(self.home.authority_file))
        plain = socket.create_connection(("127.0.0.1", self.home.settings.public.port), timeout=5)
        return trusting.wrap_socket(plain, server_hostname="localhost")

    def send(self, request: bytes) -> str:
        """Everything that comes back for raw bytes."""
        with self.connection() as connection:
            connection.sendall(request)
            parts = []
            try:
                while part := connection.recv(65_536):
                    parts.append(part)
            except (ConnectionResetError, ssl.SSLError):
                pass  # a refusal of a body that was still on its way
        return b"".join(parts).decode()

    def ask(self, path: str, *, host: str = "localhost", body: bytes = b"") -> tuple[int, str]:
        """Status and body of a request; the path goes out as it is."""
        method = "POST" if body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = self.send(head.encode() + body)
        return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    folder = tmp_path_factory.mktemp("a coordinator") / "home"
    home = make_home(folder, "trial", ["localhost"], bind="127.0.0.1", port=free_port(), first_port=free_port())
    settings = folder / SETTINGS_FILE
    text = settings.read_text().replace("max_body_mib = 256", "max_body_mib = 1")
    settings.write_text(text.replace("requests_per_second = 200", "requests_per_second = 20"))
    home = open_home(folder)
    write_configuration(home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls" / "server.crt", folder / "tls" / "server.key")
    upstream = ThreadingHTTPServer(("127.0.0.1", home.settings.loopback.superlink_port), Upstream)
    upstream.socket = context.wrap_socket(upstream.socket, server_side=True)
    thread = threading.Thread(target=upstream.serve_forever, args=(0.05,))
    thread.start()
    command = ["nginx", "-e", str(home.inside("logs", "e.log")), "-p", str(home.inside("nginx"))]
    process = subprocess.Popen([*command, "-c", str(home.inside("nginx", "nginx.conf"))], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not port_answers(home.settings.public.port) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield Proxy(home)
    finally:
        process.terminate()
        process.wait(10)
        upstream.shutdown()
        upstream.server_close()
        thread.join()


def test_the_fleet_interface_passes(proxy: Proxy) -> None:
    assert proxy.ask("/v1/fleet/pull") == (200, "/v1/fleet/pull localhost 0 ")
    assert proxy.ask("/v1/fleet/push", body=b"12345") == (200, "/v1/fleet/push localhost 5 ")


def test_whatever_host_is_named_the_upstream_hears_its_own(proxy: Proxy) -> None:
    for host in ("unknown.example", "127.0.0.1:18000", "localhost/v1/control"[:9], "a, b"):
        status, body = proxy.ask("/v1/fleet/x", host=host)
        assert status == 400 or (status, body) == (200, "/v1/fleet/x localhost 0 "), host


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/control/list-runs",
        "/v1/runtime/acquire-task",
        "/health",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v1/fleet",
        "/V1/FLEET/x",
        "/v1/fleetx/x",
        "/v1/fleet/../control/x",
        "/v1/fleet/./../control/x",
        "/v1/fleet/%2e%2e/control/x",
        "/v1/fleet/%2E./control/x",
        "/v1/fleet/..%2fcontrol/x",
        "/v1/fleet%2f..%2fcontrol/x",
        "/v1/fleet/x/../../control/x",
        "/v1/control/x?/v1/fleet/",
        "/v1/control/x#/v1/fleet/",
        "//v1/control/x",
        "https://127.0.0.1/v1/control/x",
        "https://127.0.0.1/v1/fleet/../control/x",
        "http://localhost:18000/v1/control/x",
    ],
)
def test_nothing_else_is_there(proxy: Proxy, path: str) -> None:
    assert proxy.ask(path)[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/%252e%252e/control/x",
        "/v1/fleet/..%252fcontrol/x",
        "/v1/fleet/..;/control/x",
        "/v1/fleet/..\\control\\x",
        "/v1/fleet/%5c..%5ccontrol/x",
        "/v1//fleet//x",
        "//v1/fleet/x",
        "/v1/control/../fleet/x",
        "/v1/fleet/x%00/../../control",
        "/v1/fleet/x%0d%0aGET%20/v1/control%20HTTP/1.1",
        "/v1/fleet/%ff%fe",
        "/v1/fleet/x%3f/../../control/y",
        "https://127.0.0.1/v1/fleet/x",
    ],
)
def test_no_trick_leaves_the_fleet_interface(proxy: Proxy, path: str) -> None:
    """What the upstream is asked for begins with the one prefix, and stays below it once it is decoded."""
    status, body = proxy.ask(path)
    if status == 200:
        asked = body.split()[0]
        assert asked.startswith(FLEET) and not {"..", "%2e%2e"} & set(asked.lower().split("/")), asked
    else:
        assert status in (400, 404)


def test_a_second_request_in_a_body_is_part_of_the_body(proxy: Proxy) -> None:
    hidden = b"GET /v1/control/x HTTP/1.1\r\nHost: a\r\n\r\n"
    assert proxy.ask("/v1/fleet/x", body=hidden) == (200, f"/v1/fleet/x localhost {len(hidden)} ")
    both = b"POST /v1/fleet/x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    answer = proxy.send(both + hidden)
    assert "/v1/control" not in answer and " 400 " in answer.splitlines()[0]


def test_large_bodies_pass_up_to_the_limit_and_none_is_written_to_the_disk(proxy: Proxy) -> None:
    """Also where root started nginx, whose workers then cannot enter the folder."""
    assert proxy.ask("/v1/fleet/x", body=b"x" * 2**20) == (200, f"/v1/fleet/x localhost {2**20} ")
    assert proxy.ask("/v1/fleet/x", body=b"x" * (2**20 + 1))[0] == 413
    status, body = proxy.ask("/v1/fleet/large")
    assert status == 200 and len(body) > 300_000
    text = proxy.home.inside("nginx", "nginx.conf").read_text()
    assert "proxy_request_buffering off;" in text and "proxy_max_temp_file_size 0;" in text


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(proxy: Proxy, version: ssl.TLSVersion) -> None:
    old = ssl.create_default_context(cafile=str(proxy.home.authority_file))
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        proxy.connection(old)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_tls_is_taken(proxy: Proxy, version: ssl.TLSVersion) -> None:
    new = ssl.create_default_context(cafile=str(proxy.home.authority_file))
    new.minimum_version = new.maximum_version = version
    with proxy.connection(new) as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")


def test_without_tls_there_is_no_answer_worth_having(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.home.settings.public.port), timeout=5) as plain:
        plain.sendall(b"GET /v1/fleet/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 400 " in plain.recv(1000)


def test_slow_requests_end(proxy: Proxy) -> None:
    """A request whose head never ends holds a connection for as long as the configuration says, here one second."""
    path = proxy.home.inside("nginx", "nginx.conf")
    text = path.read_text()
    assert "client_header_timeout 10s;" in text and "client_body_timeout 120s;" in text
    port = free_port()
    quick = text.replace("client_header_timeout 10s", "client_header_timeout 1s").replace(
        f":{proxy.home.settings.public.port} ssl", f":{port} ssl"
    )
    other = path.with_name("quick.conf")
    other.write_text(quick.replace("nginx.pid", "quick.pid"))
    command = ["nginx", "-e", str(proxy.home.inside("logs", "e.log")), "-p", str(path.parent), "-c", str(other)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not port_answers(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        trusting = ssl.create_default_context(cafile=str(proxy.home.authority_file))
        plain = socket.create_connection(("127.0.0.1", port), timeout=8)
        with trusting.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(b"GET /v1/fleet/x HTTP/1.1\r\nHo")
            assert b"200" not in connection.recv(1000)
    finally:
        process.terminate()
        process.wait(10)


def test_too_many_requests_are_told_so_with_a_status_after_which_flowers_node_asks_again(proxy: Proxy) -> None:
    """The last test of the file: afterwards this address has used up its share of the second."""
    from flwr.supercore.retry.http_retry import _RETRYABLE_STATUS_CODES

    assert 503 in _RETRYABLE_STATUS_CODES and 429 not in _RETRYABLE_STATUS_CODES
    request = b"GET /v1/fleet/x HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /v1/fleet/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answers = proxy.send(request * 60 + last)
    assert answers.count(" 503 ") >= 20
    assert answers.count(" 200 OK") >= 10


@pytest.mark.parametrize("name", ['a"b', "a$b", "a;b", "a{b"])
def test_a_folder_that_nginx_would_misread(tmp_path: Path, name: str) -> None:
    home = make_home(tmp_path / name, "trial", ["localhost"], bind="::1", port=1, first_port=2)
    with pytest.raises(DeploymentError, match="nginx cannot use the folder"):
        write_configuration(home)


def test_an_ipv6_address_to_listen_on(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", "trial", ["localhost"], bind="::1", port=8443, first_port=2)
    write_configuration(home)
    assert "listen [::1]:8443 ssl;" in home.inside("nginx", "nginx.conf").read_text()


@pytest.mark.parametrize(
    ("bind", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.7", "192.0.2.7"), ("*", "127.0.0.1")]
)
def test_where_the_proxy_is_looked_for(tmp_path: Path, bind: str, address: str) -> None:
    """Bound to one address of the machine, it does not answer on loopback."""
    home = make_home(tmp_path / "home", "trial", ["localhost"], bind=bind, port=8443, first_port=2)
    assert home.settings.public.own_address == address
