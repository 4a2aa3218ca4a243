"""Looks for private keys, secrets and data where none may be: files that a walk left, and the list of processes."""

from __future__ import annotations

import base64
import contextlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

SHORTEST_LINE, LOOK_EVERY_S = 40, 0.25
TOKEN = re.compile(r"--token ([0-9a-zA-Z_.-]{16,})")


def forms_of_key(path: Path) -> dict[str, bytes]:
    """The ways in which a key file's secret may show: lines of its text, its number raw, in hexadecimal and base64."""
    data = path.read_bytes()
    if b"-----BEGIN" not in data:
        raw = data
        lines: list[bytes] = []
    else:
        key = (load_ssh_private_key if b"OPENSSH" in data else load_pem_private_key)(data, password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            raw = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
        else:
            raw = key.private_bytes_raw()  # type: ignore[union-attr]
        lines = _secret_lines(data)
    forms = {"raw": raw, "hexadecimal": raw.hex().encode(), "base64": base64.b64encode(raw).rstrip(b"=")}
    return {**forms, **{f"line {k}": line for k, line in enumerate(lines)}}


def _secret_lines(data: bytes) -> list[bytes]:
    """Lines of a key's text; OpenSSH's form begins with the public key, so that its later half counts alone."""
    lines = [
        line for line in data.splitlines() if line and not line.startswith(b"-----") and len(line) >= SHORTEST_LINE
    ]
    return lines[len(lines) // 2 :] if b"OPENSSH" in data else lines


def forms_of_text(path: Path) -> Iterator[bytes]:
    """The first characters of every line that is long enough to be nobody else's."""
    for line in path.read_bytes().splitlines():
        if len(line) >= SHORTEST_LINE:
            yield line[:SHORTEST_LINE]


def leaks(files: Iterable[Path], secrets: Mapping[str, bytes], own: Mapping[str, Path]) -> list[str]:
    """``secret in file`` for every secret that stands in a file other than its own."""
    found = []
    for path in files:
        content = path.read_bytes()
        found += [f"{name} in {path}" for name, secret in secrets.items() if secret in content and own[name] != path]
    return found


class ProcessList:
    """Every command line that ``ps`` would show while the block lasts."""

    def __init__(self) -> None:
        self.lines: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProcessList:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.lines.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())

    def tokens(self) -> set[str]:
        """Flower's task tokens, which it passes on the command line (docs/limitations.md)."""
        return {token for line in self.lines for token in TOKEN.findall(line)}
