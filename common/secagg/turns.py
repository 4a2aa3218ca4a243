"""Whose message is awaited in which hop, and what became of those that did not come or did not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from enum import IntEnum

from common.errors import SecAggError


class Hop(IntEnum):
    """What is being collected."""

    ADVERTS = 1
    SHARES = 2
    MASKED = 3
    CONFIRMATIONS = 4
    REVEALS = 5
    FINISHED = 6  # the sum of a phase is known; the next phase may begin
    ABORTED = 7


class Turns:
    """One hop after the other; one message from every client that is awaited.

    Attributes:
        hop: what is being collected.
        reasons: how often which kind of message was refused or missing (codes of ``SecAggError``, and ``silent``,
            ``late``, ``early``, ``duplicate``, ``foreign_id``).
        dropped: why each client that dropped out did.
    """

    def __init__(self) -> None:
        self.hop = Hop.ADVERTS
        self.reasons: Counter[str] = Counter()
        self.dropped: dict[str, str] = {}
        self._awaited: set[str] = set()
        self._heard: set[str] = set()

    @property
    def awaited(self) -> tuple[str, ...]:
        """Clients whose message of this hop has not come; empty while adverts are collected, when anyone may come."""
        return tuple(sorted(self._awaited))

    def _accept(self, client: str, hop: Hop, take: Callable[..., None], *message: bytes) -> bool:
        """Take a message of ``hop``, once, from who is awaited; whoever sends one that does not fit has dropped out."""
        if self.hop is not hop:
            self.reasons["late" if self.hop > hop else "early"] += 1
            return False
        if client not in self._awaited and (hop is not Hop.ADVERTS or client in self._heard):
            dropped = client in self.dropped
            self.reasons["late" if dropped else "duplicate" if client in self._heard else "foreign_id"] += 1
            return False
        self._awaited.discard(client)
        self._heard.add(client)
        try:
            if not all(isinstance(part, bytes) for part in message):
                raise SecAggError("malformed", "a message is not bytes")
            take(client, *message)
        except SecAggError as error:
            self._drop(client, error.code)
            return False
        return True

    def _drop(self, client: str, reason: str) -> None:
        self.reasons[reason] += 1
        self.dropped.setdefault(client, reason)

    def _close(self, hop: Hop) -> None:
        """No more messages of this hop: who is still awaited has dropped out; ``wrong_phase`` in another hop."""
        if self.hop is not hop:
            raise SecAggError("wrong_phase", f"the round is collecting {self.hop.name.lower()}")
        for client in self.awaited:
            self._drop(client, "silent")
        self._awaited = set()

    def _begin(self, hop: Hop, clients: Iterable[str]) -> None:
        self.hop, self._awaited = hop, set(clients)
