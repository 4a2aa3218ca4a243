"""A node's clients in secure aggregation: one hop a message, with secrets kept between hops and erased after use.

The process that served one hop may not serve the next. Then the states lie in a file of the node's own, readable by
its user alone, that is replaced before an answer leaves and removed with the last one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import SecAggError
from common.files import atomic_files, disk_errors
from common.secagg.client_state import ClientState, Stage
from common.secagg.encoding import pack, pack_list, read_u32, u32, unpack, unpack_list

Key = tuple[int, int, int]  # round, attempt, client
MOST_STATES = 2**20
LOCK_FILE, _FILES = ".secagg.lock", "secagg-*.bin"
FORGOTTEN_S = 86_400.0


@dataclass
class SecretStates:
    """States of the clients of one run, by round, attempt and client.

    Attributes:
        path: where they are kept for the next process; ``None`` where one process serves the whole run.
    """

    run: str
    path: Path | None = None
    states: dict[Key, ClientState] = field(default_factory=dict)

    @classmethod
    def of_run(cls, folder: Path, run: str) -> SecretStates:
        """The states of ``run``, read from ``folder`` if an earlier process left some.

        Raises:
            SecAggError: the file is damaged. StorageError: it cannot be read.
        """
        path = folder / _FILES.replace("*", hashlib.sha256(run.encode()).hexdigest()[:32])
        if not path.exists():
            return cls(run, path)
        with disk_errors(path):
            data = path.read_bytes()
        found = {}
        for item in unpack_list(data, most=MOST_STATES):
            number, attempt, index, state = unpack(item, 4)
            found[read_u32(number), read_u32(attempt), read_u32(index)] = ClientState.from_bytes(state)
        return cls(run, path, found)

    def begin(self, key: Key, state: ClientState) -> None:
        """Keep the first state of a round; for this client the rounds before it are over, and what they left is erased.

        An advert that nothing followed gives way: of a round that was tried again, or that never came.

        Raises:
            SecAggError: ``replay``: the client is past this hop of this attempt, or of a later one.
        """
        own = {k: s for k, s in self.states.items() if k[2] == key[2]}
        if any(k >= key and s.stage is not Stage.ADVERTISED for k, s in own.items()):
            state.abort()
            raise SecAggError("replay", "this client has already answered in this attempt of the round, or a later one")
        for old, left in own.items():
            left.abort()
            del self.states[old]
        self.states[key] = state

    def move(self, key: Key, hop: Callable[[ClientState], tuple[ClientState, bytes]], *, config: bytes) -> bytes:
        """Take one client through one hop; whatever it raises leaves the client out of the round, with no secret.

        Args:
            config: digest of the configuration that this node works by now. Keys that were made for another one do not
                serve it: its minimum of survivors may be lower than what the noise of this one is shared out for.

        Raises:
            SecAggError: as the hop; ``wrong_phase`` for a client that did not begin the round; ``wrong_config``.
        """
        state = self.states.get(key)
        if state is None:
            raise SecAggError("wrong_phase", "this client did not begin the round")
        if state.terms.config_hash != config:
            state.abort()
            raise SecAggError("wrong_config", "the round was begun under another configuration of the run")
        self.states[key], message = hop(state)
        return message

    def save(self) -> None:
        """Make the states durable, before any message that follows from them leaves. Spent ones are not written."""
        if self.path is None:
            return
        kept = [(key, state) for key, state in self.states.items() if state.secrets.step == state.step]
        items = [pack(*map(u32, key), state.to_bytes()) for key, state in kept]
        if not items:
            self.path.unlink(missing_ok=True)
            return
        with atomic_files(self.path) as (partial,):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            partial.write_bytes(pack_list(items))


def _forgotten(folder: Path) -> list[Path]:
    """Secrets of runs that broke off, and of which nobody has asked for so long."""
    return [path for path in folder.glob(_FILES) if time.time() - path.stat().st_mtime > FORGOTTEN_S]


def erase_forgotten(folder: Path) -> None:
    """Erase them, where there are any, whatever the message at hand is about."""
    if _forgotten(folder):
        with disk_errors(folder), (folder / LOCK_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for path in _forgotten(folder):
                path.unlink()


@contextmanager
def held_states(folder: Path, run: str) -> Iterator[SecretStates]:
    """The states of ``run`` in ``folder`` while one message is answered, durable when it is; another message waits.

    Two processes that both began from one file would each write back what the other had used up.

    Raises:
        SecAggError: the file is damaged. StorageError: it cannot be read or written.
    """
    erase_forgotten(folder)
    with disk_errors(folder), (folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for cut_off in folder.glob(".secagg-*.partial"):  # of a process that was killed while it wrote
            cut_off.unlink()
        states = SecretStates.of_run(folder, run)
        try:
            yield states
        finally:
            states.save()
