"""A node's clients in secure aggregation: one hop a message, with secrets kept between hops and erased after use.

The process that served one hop may not serve the next. Then the states lie in a file of the node's own, readable by
its user alone, that is replaced before an answer leaves and removed with the last one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import SecAggError
from common.files import atomic_files, disk_errors
from common.secagg.client_state import ClientState, Stage
from common.secagg.encoding import pack, pack_list, read_u32, u32, unpack, unpack_list

Key = tuple[int, int, int]  # round, attempt, client
MOST_STATES = 2**20


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
    def of_run(cls, folder: Path | None, run: str) -> SecretStates:
        """The states of ``run``, read from ``folder`` if an earlier process left some.

        Raises:
            SecAggError: the file is damaged. StorageError: it cannot be read.
        """
        if folder is None:
            return cls(run)
        path = folder / f"secagg-{hashlib.sha256(run.encode()).hexdigest()[:32]}.bin"
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
        """Keep the first state of a round.

        Raises:
            SecAggError: ``replay``: the client is past this hop of this attempt, or saw a later one.
        """
        later = [k for k, s in self.states.items() if k[2] == key[2] and (k > key or (k == key and not _fresh(s)))]
        if later:
            state.abort()
            raise SecAggError("replay", "this client has already answered in this attempt of the round, or a later one")
        for old in [
            k for k in self.states if k[2] == key[2] and k[:2] < key[:2] and self.states[k].stage is Stage.DONE
        ]:
            del self.states[old]
        self.states[key] = state

    def move(self, key: Key, hop: Callable[[ClientState], tuple[ClientState, bytes]]) -> bytes:
        """Take one client through one hop; whatever it raises leaves the client out of the round, with no secret.

        Raises:
            SecAggError: as the hop; ``wrong_phase`` for a client that did not begin the round.
        """
        state = self.states.get(key)
        if state is None:
            raise SecAggError("wrong_phase", "this client did not begin the round")
        self.states[key], message = hop(state)
        return message

    def save(self) -> None:
        """Make the states durable, before any message that follows from them leaves. Spent ones are not written."""
        if self.path is None:
            return
        kept = [(key, state) for key, state in self.states.items() if state.secrets.step == state.step]
        items = [pack(*map(u32, key), state.to_bytes()) for key, state in kept]
        with atomic_files(self.path) as (partial,):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            partial.write_bytes(pack_list(items))


def _fresh(state: ClientState) -> bool:
    """Whether only an advert of it has left: its keys may be replaced by new ones."""
    return state.stage is Stage.ADVERTISED
