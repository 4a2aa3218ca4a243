"""Health and metrics: what they say, that they are on loopback alone, and that a taken port is noticed."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from common.deployment.flower import free_port
from common.deployment.watching import Gauge, health_service, is_serving, metrics_page


def listens_on(port: int) -> set[str]:
    """Local addresses (hexadecimal, as the kernel writes them) that listen on a port."""
    found = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as lines:
            for line in list(lines)[1:]:
                address, _, number = line.split()[1].rpartition(":")
                if int(number, 16) == port and line.split()[3] == "0A":
                    found.add(address)
    return found


def test_health_program_by_program() -> None:
    alive, port = {"node": True, "executor": True}, free_port()
    with health_service(port, lambda: alive):
        assert is_serving(port) is True and is_serving(port, "node") is True
        alive["executor"] = False
        assert is_serving(port) is False, "one is down: all together are not serving"
        assert is_serving(port, "node") is True and is_serving(port, "executor") is False
        assert is_serving(port, "unknown") is None
        assert listens_on(port) == {"0100007F"} or listens_on(port) == {"0000000000000000FFFF00000100007F"}
        with pytest.raises(OSError, match="taken"), health_service(port, lambda: alive):
            pass
    assert is_serving(port, timeout_s=0.5) is None


def test_metrics_are_on_loopback_and_say_what_is_measured() -> None:
    port, runs = free_port(), {"a": 1.0}
    gauges = [Gauge("fedembed_up", "whether", runs, "program"), Gauge("fedembed_bytes", "how many", {"": 5.0})]
    with metrics_page(port, lambda: gauges):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
            text = page.read().decode()
        assert 'fedembed_up{program="a"} 1.0' in text and "fedembed_bytes 5.0" in text
        assert listens_on(port) == {"0100007F"}
        with pytest.raises(OSError), metrics_page(port, lambda: gauges):
            pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
