"""The parties of the guides' walk: their commands, taken from the pages, run in folders of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.deployment.flower import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("server", "client", "common", "simulations")
COMMAND_TIMEOUT_S = 120.0
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections_of(page: str) -> dict[str, list[str]]:
    """Heading -> its bash blocks, of a page in docs."""
    parts = _HEADING.split((ROOT / "docs" / page).read_text(encoding="utf-8"))
    found = {title: _BLOCK.findall(body) for title, body in zip(parts[1::2], parts[2::2], strict=True)}
    return {title: blocks for title, blocks in found.items() if blocks}


@dataclass
class Party:
    """Somebody with a folder, who follows a page.

    Attributes:
        replaced: names and numbers of the page -> those of this machine.
        done: headings of the page that were followed.
    """

    folder: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    def follow(self, page: str, heading: str, *, block: int = 0) -> str:
        """Run a block of a page; what it printed. Fails where a command does."""
        self.done.add(f"{page}: {heading}: {block}")
        return self.run(self._written(sections_of(page)[heading][block]))

    def run(self, script: str, *, code: int = 0) -> str:
        """Run a script, answering yes when asked."""
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=dict(self.environment),
            input="y\n",
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def start(self, page: str, heading: str) -> subprocess.Popen[bytes]:
        """Begin a block that runs until it is ended."""
        self.done.add(f"{page}: {heading}: 0")
        script = "exec " + self._written(sections_of(page)[heading][0])
        with (self.folder / "up.out").open("ab") as output:
            return subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.folder,
                env=dict(self.environment),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _written(self, script: str) -> str:
        for old, new in self.replaced.items():
            script = script.replace(old, new)
        return script


def blocks_of(page: str) -> set[str]:
    """Every bash block of a page, by the name that ``Party.done`` has for it."""
    return {f"{page}: {title}: {k}" for title, blocks in sections_of(page).items() for k in range(len(blocks))}


def installed(folder: Path) -> dict[str, str]:
    """A copy of the packages that every account can read, with a ``fedembed`` command; the environment to use it."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "fedembed.py", folder / "code")
    command = folder / "bin" / "fedembed"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m simulations.cli "$@"\n')
    command.chmod(0o755)
    (folder / "tmp").mkdir(mode=0o1777)
    (folder / "tmp").chmod(0o1777)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "FEDEMBED_"))}
    path = f"{command.parent}:{Path(sys.executable).parent}:{kept.get('PATH', '')}:/usr/sbin"
    return {**kept, "PATH": path, "PYTHONPATH": str(folder / "code"), "TMPDIR": str(folder / "tmp")}


def other_account() -> str:
    """The account that agents run as: another one where root runs the tests."""
    return "nobody" if os.geteuid() == 0 else ""


def why_not(environment: Mapping[str, str]) -> str | None:
    """Why the walk cannot be done on this machine; ``None`` where it can."""
    for name in ("nginx", "setpriv", "ps"):
        if shutil.which(name, path=environment["PATH"]) is None:
            return f"{name} is not installed"
    if not other_account():
        return None
    command = ["setpriv", f"--reuid={other_account()}", "--clear-groups"]
    command += ["env", sys.executable, "-c", "import client, flwr"]  # setpriv itself looks up with root's rights
    done = subprocess.run(command, env=dict(environment), cwd="/", capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"account {other_account()!r} cannot run {sys.executable}"


def three_ports() -> int:
    """The first of three neighbouring ports that were free a moment ago."""
    import socket

    while True:
        first = free_port()
        if first > 65_000:
            continue
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + 3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first


def until(true: Callable[[], bool], what: str, *, timeout_s: float = 150.0) -> None:
    """Wait for something. Raises ``TimeoutError``."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for: {what}")
        time.sleep(0.3)


def lines_of(path: Path) -> list[dict[str, object]]:
    """Lines of a journal."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def processes() -> Iterator[tuple[int, int]]:
    """(process, parent) of everything that runs here."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            yield int(path.parent.name), int(fields[1])


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """``kill -9`` a process and everything below it, parents first: nginx starts a worker anew when one dies."""
    family, found = [process.pid], list(processes())
    for number in family:
        family += [child for child, parent in found if parent == number]
    for number in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    process.wait(timeout=10)
