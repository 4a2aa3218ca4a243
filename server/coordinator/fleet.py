"""The nodes that the SuperLink lets in, by their public keys: listed, added and taken out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from common.deployment.flower import CONNECTION, json_output
from common.errors import DeploymentError, RoundError

# `flwr supernode list` leaves the keys out, and a number alone does not say whose node it is.
_LIST = """
import contextlib, json, sys
from flwr.cli.flower_config import read_superlink_connection
from flwr.cli.utils import init_http_client_from_connection
from flwr.proto.control_pb2 import ListNodesRequest
with contextlib.redirect_stdout(sys.stderr):
    client = init_http_client_from_connection(read_superlink_connection(sys.argv[1]))
    try:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    finally:
        client.close()
print(json.dumps([[str(n.node_id), n.status, n.public_key.decode("latin-1")] for n in nodes]))
"""
_GONE = "unregistered"
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Node:
    """A registered node.

    Attributes:
        number: Flower's.
        status: ``registered``, ``online`` or ``offline``.
        key: its public key, one line in OpenSSH's form.
    """

    number: str
    status: str
    key: str


def nodes(environment: Mapping[str, str]) -> list[Node]:
    """Every node that may sign in. Raises ``DeploymentError``: the SuperLink does not answer."""
    listed = _told([sys.executable, "-c", _LIST, CONNECTION], environment)
    return [Node(number, status, _one_line(key)) for number, status, key in listed if status != _GONE]


def add(public_key: Path, name: str, environment: Mapping[str, str]) -> None:
    """Let a key in. Raises ``DeploymentError``: the SuperLink does not answer, or has had this key before."""
    _told(
        ["flwr", "supernode", "register", str(public_key), CONNECTION, "--name", name, "--format", "json"], environment
    )


def remove(node: Node, environment: Mapping[str, str]) -> None:
    """Let a node in no longer. Raises ``DeploymentError``: the SuperLink does not answer."""
    _told(["flwr", "supernode", "unregister", node.number, CONNECTION, "--format", "json"], environment)


def _told(command: list[str], environment: Mapping[str, str]) -> Any:
    try:
        return json_output(command, environment, timeout_s=TIMEOUT_S)
    except RoundError as error:
        raise DeploymentError(f"the SuperLink does not do as told: {error.message}") from None


def _one_line(key: str) -> str:
    try:
        return load_pem_public_key(key.encode()).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, UnsupportedAlgorithm):
        return ""  # no key of a site: it does not stay
