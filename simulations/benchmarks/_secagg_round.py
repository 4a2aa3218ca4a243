"""One round of the real protocol in this process: CPU time and bytes of every hop, the floor's primitives in turns.

Clients and server exchange the bytes that they would send. What is timed is the work on them: a client's from a
message to its answer, the server's in taking an answer and in closing a hop. Making vectors is not timed. CPU time is
what other programs disturb least; both sides use one thread.
"""

from __future__ import annotations

import gc
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from common.errors import SecAggError
from common.secagg.client import advertise, confirm, mask, reveal, share
from common.secagg.client_state import ClientLimits, ClientState
from common.secagg.keys import Identity
from common.secagg.masks import Words, dtype_of
from common.secagg.messages import MaskedVector
from common.secagg.server import RoundServer
from common.secagg.terms import PhaseTerms, Terms
from simulations.benchmarks._secagg_floor import ClientFloor, ServerFloor, Shape

CLIENT, SERVER, CLIENT_FLOOR, SERVER_FLOOR = "client", "server", "client floor", "server floor"
UP, DOWN = "from a client", "to a client"
HOPS = ("advert", "shares", "masked", "confirmation", "reveal")
VECTORS = 4  # different ones, which the clients take in turns
T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """A round to measure.

    Attributes:
        clients: that are asked.
        degree, threshold: of the graph.
        phases: the vectors.
        least: fewest survivors.
        gone: hop -> numbers of the clients that fall silent in it.
        masking: how many clients go on to mask; fewer than all: the round stops there and nothing is opened.
        floor_every: the client's floor runs after every so many clients, the server's after each (no dropouts, one
            phase of 16 bits); 0: neither.
    """

    clients: int
    degree: int
    threshold: int
    phases: tuple[PhaseTerms, ...]
    least: int
    gone: Mapping[str, frozenset[int]] = field(default_factory=dict)
    masking: int | None = None
    floor_every: int = 0

    def terms(self) -> Terms:
        """The round's public parameters."""
        return Terms(
            run="benchmark",
            round=1,
            phases=self.phases,
            least_cohort=self.least,
            least_survivors=self.least,
            degree=self.degree,
            neighbour_threshold=self.threshold,
            config_hash=bytes(32),
            model_hash=bytes(32),
        )


@dataclass
class Outcome:
    """What was measured.

    Attributes:
        seconds: (side, hop) -> CPU seconds of each piece of work.
        sizes: (direction, message) -> bytes of each message.
        wrong: entries of the sums that are not the sum of the survivors' vectors.
        survivors: clients in the last sum.
    """

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    wrong: int = 0
    survivors: int = 0

    def client_ms(self, side: str = CLIENT) -> float:
        """One client's work: the sum of the hops' medians over clients."""
        return 1e3 * sum(float(np.median(v)) for (who, _), v in self.seconds.items() if who == side)

    def total_ms(self, side: str = SERVER) -> float:
        """All work of a side."""
        return 1e3 * sum(sum(v) for (who, _), v in self.seconds.items() if who == side)

    def bytes_of(self, direction: str, message: str = "") -> float:
        """Bytes of one client's message (the median), or of all its messages in one direction."""
        wanted = [v for (way, name), v in self.sizes.items() if way == direction and message in (name, "")]
        return sum(float(np.median(v)) for v in wanted)

    def carried(self) -> int:
        """Bytes of all clients, both ways."""
        return sum(sum(v) for v in self.sizes.values())


def run(setting: Setting, seed: int = 0) -> Outcome:
    """Run a round. Raises ``SecAggError`` where it does not end."""
    with uncollected():
        return _Round(setting, np.random.default_rng(seed)).run()


@contextmanager
def uncollected() -> Iterator[None]:
    """Without passes of the garbage collector over a thousand clients' objects, as ``timeit`` does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Round:
    def __init__(self, setting: Setting, generator: np.random.Generator) -> None:
        self._setting, self._out = setting, Outcome()
        self._server = RoundServer(setting.terms())
        self._states: dict[str, ClientState] = {}
        self._numbers = {f"client-{i:04d}": i for i in range(setting.clients)}
        self._vectors = [_vectors(phase, generator) for phase in setting.phases]
        self._floor = _Floor(setting, self._vectors[0][0]) if setting.floor_every else None

    def run(self) -> Outcome:
        openings = self._beginning()
        for phase in range(len(self._setting.phases)):
            if phase:
                opening = self._timed(SERVER, "opening", self._server.next_phase)
                openings = dict.fromkeys(self._server.awaited, opening)
            self._delivered("opening", phase, openings.values())
            self._masking(openings, phase)
            if self._setting.masking is not None:
                break
            self._ending(phase)
        return self._out

    def _beginning(self) -> Mapping[str, bytes]:
        """Adverts and shares; the openings of the first phase."""
        server, terms = self._server, self._setting.terms().to_bytes()
        limits = ClientLimits(least_cohort=self._setting.least, least_survivors=self._setting.least)

        def first(name: str) -> tuple[ClientState, bytes]:
            identity = Identity.fresh(os.urandom)
            return advertise(terms, name, identity=identity, limits=limits, entropy=os.urandom)

        self._hop("advert", list(self._numbers), first, server.accept_advert)
        cohort = self._timed(SERVER, "advert", server.close_adverts)
        self._delivered("cohort", 0, [cohort] * len(server.awaited))

        def second(name: str) -> tuple[ClientState, bytes]:
            return share(self._states[name], cohort, entropy=os.urandom)

        self._hop("shares", server.awaited, second, server.accept_shares)
        return self._timed(SERVER, "shares", server.close_shares)

    def _masking(self, openings: Mapping[str, bytes], phase: int) -> None:
        vectors, title = self._vectors[phase], self._setting.phases[phase].name

        def third(name: str) -> tuple[ClientState, MaskedVector]:
            vector = vectors[self._numbers[name] % VECTORS]
            return mask(self._states[name], openings[name], vector=vector, phase=title)

        names = self._server.awaited[: self._setting.masking]
        self._hop("masked", names, third, self._server.accept_masked, phase)

    def _ending(self, phase: int) -> None:
        """Confirmations and reveals; the sum, compared with that of the survivors' vectors."""
        server = self._server
        outcome = self._timed(SERVER, "masked", server.close_masked)
        self._delivered("survivors", phase, [outcome] * len(server.survivors))
        self._hop(
            "confirmation",
            server.awaited,
            lambda n: confirm(self._states[n], outcome),
            server.accept_confirmation,
            phase,
        )
        answers = self._timed(SERVER, "confirmation", server.close_confirmations)
        self._delivered("confirmations", phase, answers.values())
        self._hop("reveal", server.awaited, lambda n: reveal(self._states[n], answers[n]), server.accept_reveal, phase)
        total = self._timed(SERVER, "finish", server.finish)
        if self._floor:
            self._timed(SERVER_FLOOR, "finish", self._floor.server.finish)
        self._out.survivors = len(server.survivors)
        self._out.wrong += int(np.count_nonzero(total != self._expected(server.survivors, phase)))

    def _hop(
        self,
        hop: str,
        names: Sequence[str],
        answer: Callable[[str], tuple[ClientState, bytes | MaskedVector]],
        take: Callable[..., bool],
        phase: int = 0,
    ) -> None:
        """Every client that is still there answers, and the server takes it in."""
        for name in names:
            if self._numbers[name] in self._setting.gone.get(hop, ()):
                continue
            self._states[name], message = self._timed(CLIENT, hop, answer, name)
            parts = (message.header, message.body) if isinstance(message, MaskedVector) else (message,)
            self._out.sizes[UP, self._title(hop, phase)].append(sum(map(len, parts)))
            floor_first = self._numbers[name] % 2 == 1  # whoever comes second finds the message in the cache
            if floor_first:
                self._run_floor(name, hop, parts[-1])
            if not self._timed(SERVER, hop, take, name, *parts):
                raise SecAggError("malformed", f"the server refused an answer: {self._server.dropped[name]}")
            if not floor_first:
                self._run_floor(name, hop, parts[-1])

    def _run_floor(self, name: str, hop: str, message: bytes) -> None:
        if self._floor:
            self._timed(SERVER_FLOOR, hop, self._floor.of_server[hop], message)
            if self._numbers[name] % self._setting.floor_every == 0:
                self._timed(CLIENT_FLOOR, hop, self._floor.of_client[hop])

    def _timed(self, side: str, hop: str, work: Callable[..., T], *arguments: Any) -> T:
        start = time.process_time()
        result = work(*arguments)
        self._out.seconds[side, hop].append(time.process_time() - start)
        return result

    def _delivered(self, message: str, phase: int, sent: Iterable[bytes]) -> None:
        self._out.sizes[DOWN, self._title(message, phase)] += map(len, sent)

    def _title(self, message: str, phase: int) -> str:
        return f"{message}, phase {phase + 1}" if phase else message

    def _expected(self, survivors: Sequence[str], phase: int) -> Words:
        taken = np.bincount([self._numbers[name] % VECTORS for name in survivors], minlength=VECTORS)
        vectors, bits = self._vectors[phase], self._setting.phases[phase].bits
        total = sum(vector * np.uint64(count) for vector, count in zip(vectors, taken, strict=True))
        return np.asarray(total & np.uint64((1 << bits) - 1)).astype(dtype_of(bits))


class _Floor:
    """The floor's work in each hop."""

    def __init__(self, setting: Setting, vector: Words) -> None:
        shape = Shape(setting.degree, setting.threshold, len(vector))
        client, self.server = ClientFloor(shape), ServerFloor(shape)
        self.of_client: dict[str, Callable[[], Any]] = {
            "advert": client.advert,
            "shares": client.shares,
            "masked": lambda: client.masked(vector),
            "confirmation": client.confirmation,
            "reveal": client.reveal,
        }
        self.of_server: dict[str, Callable[[bytes], None]] = {
            "advert": lambda _: self.server.signature(),
            "shares": lambda _: None,
            "masked": self.server.masked,
            "confirmation": lambda _: self.server.signature(),
            "reveal": lambda _: None,
        }


def _vectors(phase: PhaseTerms, generator: np.random.Generator) -> list[Words]:
    dtype = dtype_of(phase.bits)
    return [generator.integers(0, 1 << phase.bits, phase.length, dtype=dtype) for _ in range(VECTORS)]
