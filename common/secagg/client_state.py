"""What a client knows between two hops: public facts, and secrets that are erased as soon as they are used up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import NoReturn

from common.errors import SecAggError
from common.secagg.adverts import MOST_CLIENTS, Advert
from common.secagg.encoding import pack, pack_list, read_text, read_u32, u32, unpack, unpack_list
from common.secagg.messages import Opening, fields_of, from_bitmap
from common.secagg.roster import Roster
from common.secagg.terms import MOST_LENGTH, Terms

_MOST_SECRETS = 64


@dataclass(frozen=True)
class ClientLimits:
    """A client's own policy, from its own disk; terms below it are refused, and the larger of both is enforced.

    Attributes:
        least_cohort: fewest clients that may begin a round.
        least_survivors: fewest vectors in a sum that it helps to open; its share of the noise is sized for these.
        roster_required: refuse rounds whose identities nobody vouches for.
        most_length: longest vector.
        least_degree: fewest neighbours in cohorts above 32 (smaller ones are complete). The default only rules out
            what is never enough; ``graph.degree`` says what a cohort, its colluders and its dropouts need.
        config_hash, model_hash: where given, the terms must name them.
    """

    least_cohort: int
    least_survivors: int
    roster_required: bool = False
    most_length: int = MOST_LENGTH
    least_degree: int = 14
    config_hash: bytes | None = None
    model_hash: bytes | None = None

    def to_bytes(self) -> bytes:
        """The one encoding."""
        numbers = (self.least_cohort, self.least_survivors, self.roster_required, self.most_length, self.least_degree)
        return pack(b"".join(u32(int(n)) for n in numbers), self.config_hash or b"", self.model_hash or b"")

    @classmethod
    def from_bytes(cls, data: bytes) -> ClientLimits:
        """SecAggError ``malformed``."""
        numbers, config_hash, model_hash = unpack(data, 3)
        if len(numbers) != 20:
            raise SecAggError("malformed", "stored limits have another size")
        n = [read_u32(numbers[i : i + 4]) for i in range(0, 20, 4)]
        return cls(n[0], n[1], bool(n[2]), n[3], n[4], config_hash or None, model_hash or None)


class Stage(Enum):
    """Where a client stands in a round."""

    ADVERTISED = "advertised"
    SHARED = "shared"
    MASKED = "masked"
    CONFIRMED = "confirmed"
    REVEALED = "revealed"  # one phase is over, the next has not begun
    DONE = "done"


class Secrets:
    """Named secrets, overwritten when erased; passed from state to state, never copied.

    Python may have made copies that cannot be reached (key objects of the cipher library, freed buffers): erasing
    makes sure that nothing that outlives the call (a state, what is stored of it, a log) still holds them.
    """

    __slots__ = ("_values", "step")

    def __init__(self, values: Mapping[str, bytes], step: int = 0) -> None:
        self._values = {name: bytearray(value) for name, value in values.items()}
        self.step = step

    def __getitem__(self, name: str) -> bytes:
        if name not in self._values:
            raise SecAggError("wrong_phase", "a secret that this hop needs was erased")
        return bytes(self._values[name])

    def put(self, name: str, value: bytes) -> None:
        """Keep one more secret."""
        self._values[name] = bytearray(value)

    def erase(self, *names: str) -> None:
        """Overwrite and forget these."""
        for name in names:
            value = self._values.pop(name)
            value[:] = bytes(len(value))

    def clear(self) -> None:
        """Overwrite and forget all; no state that knew them can go on."""
        self.erase(*list(self._values))
        self.step = -1

    @property
    def names(self) -> tuple[str, ...]:
        """What is still kept."""
        return tuple(sorted(self._values))

    def to_bytes(self) -> bytes:
        """The one encoding: secret."""
        return pack_list([pack(name.encode(), bytes(self._values[name])) for name in self.names])

    @classmethod
    def from_bytes(cls, data: bytes, step: int) -> Secrets:
        """SecAggError ``malformed``."""
        pairs = [unpack(item, 2) for item in unpack_list(data, most=_MOST_SECRETS)]
        return cls({read_text(name): value for name, value in pairs}, step)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self.names)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are stored by to_bytes alone")


@dataclass(frozen=True)
class Place:
    """A client's place in the cohort's graph.

    Attributes:
        cohort: digest of the cohort.
        size: its clients.
        position: this client's, in sorted order.
        threshold: neighbours that open a secret.
        neighbours: positions and adverts, in order; the n-th of them holds the share at place n + 1.
    """

    cohort: bytes
    size: int
    position: int
    threshold: int
    neighbours: tuple[tuple[int, Advert], ...]

    def to_bytes(self) -> bytes:
        """The one encoding."""
        listed = pack_list([pack(u32(position), advert.to_bytes()) for position, advert in self.neighbours])
        return pack(self.cohort, u32(self.size), u32(self.position), u32(self.threshold), listed)

    @classmethod
    def from_bytes(cls, data: bytes, phases: int) -> Place:
        """SecAggError ``malformed``."""
        cohort, size, position, threshold, listed = unpack(data, 5)
        pairs = [unpack(item, 2) for item in unpack_list(listed, most=MOST_CLIENTS)]
        neighbours = tuple((read_u32(at), Advert.from_bytes(advert, phases)) for at, advert in pairs)
        return cls(cohort, read_u32(size), read_u32(position), read_u32(threshold), neighbours)


@dataclass(frozen=True)
class ClientState:
    """One client between two hops. A state serves one transition; using it again ends the round.

    ``to_bytes`` lets a process that dies between hops go on; the bytes are secret. They must replace those of the
    state before on disk before the message is sent: a client that is set back and answers the same hop twice could
    reveal both of a neighbour's secrets.
    """

    stage: Stage
    terms: Terms
    me: str
    limits: ClientLimits
    secrets: Secrets = field(repr=False)
    advert: bytes = b""
    roster: Roster | None = None
    place: Place | None = None
    phase: int = 0
    opening: Opening | None = None
    survivors: bytes = b""
    step: int = 0

    @property
    def known_place(self) -> Place:
        """The place in the graph, which every stage after the first has."""
        if self.place is None:
            raise SecAggError("wrong_phase", "the cohort is not known yet")
        return self.place

    @property
    def known_opening(self) -> Opening:
        """The opening of the phase, which a client that has masked has."""
        if self.opening is None:
            raise SecAggError("wrong_phase", "the phase has not begun")
        return self.opening

    @property
    def roll(self) -> frozenset[int]:
        """Positions of the clients of this phase."""
        return frozenset(from_bitmap(self.known_opening.roll, self.known_place.size))

    @property
    def floor(self) -> int:
        """Fewest vectors in a sum: the terms' or this client's own, whichever is more."""
        return max(self.terms.least_survivors, self.limits.least_survivors)

    @property
    def usable(self) -> bool:
        """Whether a transition may still begin here: not used up, and the round not aborted."""
        return self.secrets.step == self.step

    def abort(self) -> None:
        """End the round for this client: every secret is erased, no state of it goes on."""
        self.secrets.clear()

    def to_bytes(self) -> bytes:
        """Everything, secrets too.

        Raises:
            SecAggError: ``wrong_phase`` for a state that was used up or aborted.
        """
        if not self.usable:
            raise SecAggError("wrong_phase", "this state was used up")
        return pack(
            b"state",
            pack(self.stage.value.encode(), u32(self.step), u32(self.phase), self.me.encode()),
            self.terms.to_bytes(),
            self.limits.to_bytes(),
            self.advert,
            self.roster.to_bytes() if self.roster else b"",
            self.place.to_bytes() if self.place else b"",
            self.opening.to_bytes() if self.opening else b"",
            self.survivors,
            self.secrets.to_bytes(),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ClientState:
        """A stored state; SecAggError ``malformed``."""
        head, terms, limits, advert, roster, place, opening, survivors, secrets = fields_of(data, "state", 9)
        stage, step, phase, me = unpack(head, 4)
        if stage.decode(errors="replace") not in {s.value for s in Stage}:
            raise SecAggError("malformed", "a stored state has no such stage")
        known = Terms.from_bytes(terms)
        return cls(
            stage=Stage(stage.decode()),
            terms=known,
            me=read_text(me),
            limits=ClientLimits.from_bytes(limits),
            secrets=Secrets.from_bytes(secrets, read_u32(step)),
            advert=advert,
            roster=Roster.from_bytes(roster, pinned_organiser=None) if roster else None,
            place=Place.from_bytes(place, len(known.phases)) if place else None,
            phase=read_u32(phase),
            opening=Opening.from_bytes(opening, len(known.phases)) if opening else None,
            survivors=survivors,
            step=read_u32(step),
        )


@contextmanager
def transition(state: ClientState, *stages: Stage) -> Iterator[Secrets]:
    """One hop: from one of these stages, once. Whatever goes wrong inside erases the secrets before it is raised.

    Raises:
        SecAggError: ``wrong_phase`` for a state of another stage, or one that was used up.
    """
    try:
        check_turn(state, stages)
        yield state.secrets
    except BaseException:
        state.abort()
        raise


def check_turn(state: ClientState, stages: tuple[Stage, ...]) -> None:
    """SecAggError ``wrong_phase`` unless it is the turn of this state, and of one of these stages."""
    if not state.usable:
        raise SecAggError("wrong_phase", "this state was used up, or the round was aborted")
    if state.stage not in stages:
        raise SecAggError("wrong_phase", f"a client that has {state.stage.value} does not take this message")
