"""What one round of secure aggregation is about: fixed by the coordinator, checked and signed over by every client."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from common.errors import SecAggError
from common.secagg.encoding import pack, pack_list, read_text, read_u32, u32, unpack, unpack_list
from common.secagg.graph import COMPLETE_UP_TO
from common.secagg.keys import PROTOCOL
from common.secagg.masks import LEAST_BITS, MOST_BITS

TAG = b"terms"
MOST_LENGTH = 2**31
MOST_PHASES = 8
MOST_NAME_BYTES = 64
HASH_BYTES = 32


@dataclass(frozen=True)
class PhaseTerms:
    """One vector to be summed: ``length`` unsigned integers modulo ``2**bits``.

    Attributes:
        name: 1 to 64 bytes of ASCII, unique in the round (``"histogram"``, ``"values"``).
        bits: 8 to 32.
        length: 1 to 2**31 elements.
    """

    name: str
    bits: int
    length: int


@dataclass(frozen=True)
class Terms:
    """The public parameters of one round; :attr:`digest` stands in every signature, key derivation and sealed share.

    Attributes:
        run: name of the run.
        round: number of the round.
        attempt: a round that was aborted is tried again under the next attempt, with new keys and new noise.
        phases: the vectors, in order; every phase has secrets of its own.
        least_cohort: adverts without which the round does not begin.
        least_survivors: T: the fewest vectors that may ever be added up and opened.
        degree: neighbours of each client; a cohort of 32 or fewer is complete all the same.
        neighbour_threshold: t, of ``degree``: shares that open a secret.
        config_hash: SHA-256 of the configuration; a client compares it with what it was given.
        model_hash: SHA-256 of the model that the clients train on.
        roster_hash: SHA-256 of the signed roster that identities come from; a client compares it with its own copy.
            Empty: identities are made for the round, the coordinator could have made them all, and what follows
            protects against a curious coordinator, not against one that lies.

    Raises:
        SecAggError: ``bad_terms`` for a value outside of its range; ``weak_threshold`` where t is not above half of
            the degree (two thirds in signed rounds). With t > k/2 no two disjoint sets of neighbours can open both
            secrets of a client; with t > 2k/3 not even when up to a third of them answers twice (Bonawitz et al. 2017,
            section 6.2).
    """

    run: str
    round: int
    phases: tuple[PhaseTerms, ...]
    least_cohort: int
    least_survivors: int
    degree: int
    neighbour_threshold: int
    config_hash: bytes
    model_hash: bytes
    attempt: int = 0
    roster_hash: bytes = b""

    def __post_init__(self) -> None:
        _require(0 < len(self.run.encode()) <= MOST_NAME_BYTES, "the run's name is empty or too long")
        _require(0 <= self.round < 2**32 and 0 <= self.attempt < 2**32, "round or attempt is out of range")
        _require(0 < len(self.phases) <= MOST_PHASES, "there must be one to eight phases")
        _require(len({p.name for p in self.phases}) == len(self.phases), "two phases have one name")
        for phase in self.phases:
            _require(0 < len(phase.name) <= MOST_NAME_BYTES and phase.name.isascii(), "a phase's name is not usable")
            _require(LEAST_BITS <= phase.bits <= MOST_BITS, "bits must be 8 to 32")
            _require(1 <= phase.length <= MOST_LENGTH, "a vector's length is out of range")
        _require(2 <= self.least_survivors <= self.least_cohort < 2**32, "survivors must be 2 to the least cohort")
        _require(1 <= self.neighbour_threshold <= self.degree < 2**32, "the threshold must be 1 to the degree")
        _require(len(self.config_hash) == HASH_BYTES == len(self.model_hash), "a hash is not 32 bytes")
        _require(len(self.roster_hash) in (0, HASH_BYTES), "a roster's hash is not 32 bytes")
        if not self._strong(self.neighbour_threshold, self.degree):
            bound = "two thirds" if self.signed else "half"
            raise SecAggError("weak_threshold", f"the neighbour threshold is not above {bound} of the degree")

    @property
    def signed(self) -> bool:
        """Whether identities come from a roster."""
        return bool(self.roster_hash)

    def _strong(self, threshold: int, degree: int) -> bool:
        return 3 * threshold > 2 * degree if self.signed else 2 * threshold > degree

    def neighbourhood(self, cohort: int) -> tuple[int, int]:
        """Degree and threshold in a cohort of this size: complete where it is small, the threshold in proportion.

        ``ceil(t k' / k)`` is above the same fraction of k' as t is of k, so what is valid above stays valid.
        """
        complete = cohort - 1
        degree = complete if cohort <= COMPLETE_UP_TO else min(self.degree, complete)
        if degree < complete:
            degree += degree % 2  # a graph of odd degree needs an even cohort
        return degree, -(-self.neighbour_threshold * degree // self.degree)

    def phase(self, name: str) -> int:
        """Index of the phase of this name; SecAggError ``wrong_phase`` where there is none."""
        for index, phase in enumerate(self.phases):
            if phase.name == name:
                return index
        raise SecAggError("wrong_phase", "the round has no phase of this name")

    @property
    def digest(self) -> bytes:
        """SHA-256 over protocol and terms."""
        return sha256(pack(PROTOCOL, self.to_bytes())).digest()

    def to_bytes(self) -> bytes:
        """The one encoding of these terms."""
        sizes = (self.least_cohort, self.least_survivors, self.degree, self.neighbour_threshold)
        numbers = (self.round, self.attempt, *sizes)
        phases = [pack(p.name.encode(), u32(p.bits), u32(p.length)) for p in self.phases]
        return pack(
            TAG,
            self.run.encode(),
            b"".join(map(u32, numbers)),
            pack_list(phases),
            self.config_hash,
            self.model_hash,
            self.roster_hash,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Terms:
        """The terms of a message; SecAggError where they are malformed, not valid, or not in the one encoding."""
        tag, run, numbers, phases, config_hash, model_hash, roster_hash = unpack(data, 7)
        _require(tag == TAG and len(numbers) == 24, "these are not terms")
        at = [read_u32(numbers[i : i + 4]) for i in range(0, 24, 4)]
        return cls(
            run=read_text(run),
            round=at[0],
            attempt=at[1],
            phases=tuple(_phase(item) for item in unpack_list(phases, most=MOST_PHASES)),
            least_cohort=at[2],
            least_survivors=at[3],
            degree=at[4],
            neighbour_threshold=at[5],
            config_hash=config_hash,
            model_hash=model_hash,
            roster_hash=roster_hash,
        )


def _phase(data: bytes) -> PhaseTerms:
    name, bits, length = unpack(data, 3)
    return PhaseTerms(read_text(name), read_u32(bits), read_u32(length))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise SecAggError("bad_terms", message)
