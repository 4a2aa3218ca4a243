"""The parties of the guides' walk: their commands, taken from the pages, run in folders of their own."""

from __future__ import annotations

import compileall
import contextlib
import json
import logging
import lzma
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.deployment.flower import free_port, tail
from simulations import corpora
from tests.conftest import _data_folder
from tests.e2e.deployment import SITES, planted_texts

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("server", "client", "common", "simulations")
COMMAND_TIMEOUT_S, WAIT_S, LOOK_EVERY_S = 600.0, 600.0, 0.2
SHOWN_OF_A_LOG = 1200
LOG = logging.getLogger(__name__)  # pytest shows it with a failure: how long every command and every wait took
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
        began = time.monotonic()
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
        LOG.info("%5.1f s in %s: %s", time.monotonic() - began, self.folder.name, " | ".join(script.split("\n"))[-120:])
        if done.returncode != code:
            said = f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
            pytest.fail(f"exit code {done.returncode}: {script}\n{said}\n{tails(self.folder.parent)}", pytrace=False)
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
    compileall.compile_dir(folder / "code", quiet=1)  # as pip does: else every command would do it again
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
    for name in ("nginx", "setpriv"):
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


def until(true: Callable[[], bool], what: str, *, logs: Path, timeout_s: float = WAIT_S) -> None:
    """Wait for something. Fails the test with what it waited for and the ends of the ``logs`` below a folder."""
    began = time.monotonic()
    while not true():
        if time.monotonic() > began + timeout_s:
            pytest.fail(f"waited {timeout_s:.0f} s in vain until {what}\n{tails(logs)}", pytrace=False)
        time.sleep(LOOK_EVERY_S)
    LOG.info("%5.1f s until %s", time.monotonic() - began, what)


def tails(folder: Path) -> str:
    """How every log, journal and output below a folder ends."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".log", ".jsonl", ".out") and p.is_file())
    return "\n".join(f"--- {p}\n{tail(p.read_text(errors='replace'), SHOWN_OF_A_LOG)}" for p in paths)


def of_database(home: Path, question: str) -> int:
    """One number of Flower's database, which a coordinator's folder has; ``fedembed coordinator`` takes seconds to ask.

    What runs is read here between two commands of a guide, never instead of one.
    """
    database = f"file:{home / 'state' / 'superlink.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True, timeout=10.0)) as connection:
        (number,) = connection.execute(question).fetchone()
    return int(number)


def sites_online(home: Path) -> int:
    """How many nodes the SuperLink takes for being there."""
    online = "SELECT COUNT(*) FROM node WHERE status = 'online' AND online_until > "
    return of_database(home, online + str(time.time()))


def runs_going_on(home: Path) -> int:
    """How many runs Flower does not call finished."""
    return of_database(home, "SELECT COUNT(*) FROM task WHERE finished_at IS NULL")


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
