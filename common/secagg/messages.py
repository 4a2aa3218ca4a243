"""The messages of a round, hop by hop, each with one encoding; what is hashed, signed and authenticated around them.

Sets of clients are bitmaps over the sorted cohort: a repeated or foreign client cannot be written down. Nothing that
both sides know is sent: who a share is for follows from its place, since the graph is public.

    hop  from client     from coordinator
    1    Advert          Adverts (the cohort)
    2    Shares          Opening with the sealed shares (first phase), Opening alone (later phases)
    3    Masked          Survivors
    4    Confirmation    Confirmations
    5    Reveal          the sum
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from common.errors import SecAggError
from common.secagg.encoding import pack, read_text, unpack
from common.secagg.keys import PROTOCOL, SIGNATURE_BYTES
from common.secagg.sealing import TAG_BYTES
from common.secagg.shamir import SHARE_BYTES

MOST_BIND_BYTES = 64
SALT_BYTES = 16
HASH_BYTES = 32


def digest(label: str, *fields: bytes) -> bytes:
    """SHA-256 over protocol, purpose and fields."""
    return sha256(context(label, *fields)).digest()


def context(label: str, *fields: bytes) -> bytes:
    """What is signed, authenticated beside a sealed share, or put into a key derivation for the purpose ``label``."""
    return pack(PROTOCOL, label.encode(), *fields)


def sealed_bytes(phases: int) -> int:
    """Size of what one client seals for one neighbour: two shares a phase."""
    return phases * 2 * SHARE_BYTES + TAG_BYTES


def to_bitmap(members: Iterable[int], size: int) -> bytes:
    """Members of range(size), as bits, the lowest first."""
    value = 0
    for member in members:
        value |= 1 << member
    return value.to_bytes((size + 7) // 8, "little")


def from_bitmap(data: bytes, size: int) -> tuple[int, ...]:
    """Members in order; SecAggError ``malformed`` for another length or bits beyond the last client."""
    if len(data) != (size + 7) // 8 or int.from_bytes(data, "little") >> size:
        raise SecAggError("malformed", "a set of clients is not a bitmap over the cohort")
    return tuple(i for i in range(size) if data[i >> 3] >> (i & 7) & 1)


@dataclass(frozen=True)
class Shares:
    """Hop 2: what a client seals for its neighbours, in their order, and commitments to its self-mask seeds.

    ``salt`` is fresh for every message, so that a client which is set back to an older state and shares again does not
    seal two messages under one key.
    """

    cohort: bytes
    salt: bytes
    commitments: tuple[bytes, ...]
    sealed: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The one encoding."""
        return pack(b"shares", self.cohort, self.salt, b"".join(self.commitments), b"".join(self.sealed))

    @classmethod
    def from_bytes(cls, data: bytes, *, phases: int, degree: int) -> Shares:
        """Shares for so many phases and neighbours; SecAggError ``malformed``."""
        cohort, salt, commitments, sealed = fields_of(data, "shares", 4)
        size = sealed_bytes(phases)
        sizes = (len(salt), len(commitments), len(sealed))
        if sizes != (SALT_BYTES, HASH_BYTES * phases, size * degree):
            raise SecAggError("malformed", "a message of shares has another size")
        return cls(cohort, salt, tuple(parts(commitments, HASH_BYTES)), tuple(parts(sealed, size)))


@dataclass(frozen=True)
class Opening:
    """Hop 2, to one client: a phase begins with the clients of ``roll``.

    Attributes:
        cohort: digest of the cohort.
        phase: its name.
        roll: bitmap of the clients whose masks are expected: those that shared; in later phases, the survivors.
        bind: up to 64 bytes that both sides must have computed alike (the digest of the selected rows).
        salts, sealed: one a neighbour in the roll, in order; empty in later phases.
    """

    cohort: bytes
    phase: str
    roll: bytes
    bind: bytes
    salts: tuple[bytes, ...] = ()
    sealed: tuple[bytes, ...] = ()

    @property
    def view(self) -> bytes:
        """Digest of everything that the clients of this phase must agree on before they mask."""
        return digest("view", self.cohort, self.phase.encode(), self.roll, self.bind)

    def to_bytes(self) -> bytes:
        """The one encoding."""
        mail = (b"".join(self.salts), b"".join(self.sealed))
        return pack(b"opening", self.cohort, self.phase.encode(), self.roll, self.bind, *mail)

    @classmethod
    def from_bytes(cls, data: bytes, phases: int) -> Opening:
        """An opening with shares of so many phases; SecAggError ``malformed``."""
        cohort, phase, roll, bind, salts, sealed = fields_of(data, "opening", 6)
        if len(bind) > MOST_BIND_BYTES or len(salts) % SALT_BYTES or len(sealed) % sealed_bytes(phases):
            raise SecAggError("malformed", "an opening has another size")
        mail = tuple(parts(salts, SALT_BYTES)), tuple(parts(sealed, sealed_bytes(phases)))
        return cls(cohort, read_text(phase), roll, bind, *mail)


@dataclass(frozen=True)
class MaskedVector:
    """Hop 3: ``header`` says which view it belongs to; ``body`` is the packed vector, apart so as not to be copied."""

    header: bytes
    body: bytes


@dataclass(frozen=True)
class Survivors:
    """Hop 3, to everyone: the clients whose vectors are in the sum."""

    view: bytes
    survivors: bytes

    @property
    def outcome(self) -> bytes:
        """Digest of the view and who survived: what a confirmation signs and a reveal answers."""
        return digest("outcome", self.view, self.survivors)

    def to_bytes(self) -> bytes:
        """The one encoding."""
        return pack(b"survivors", self.view, self.survivors)

    @classmethod
    def from_bytes(cls, data: bytes) -> Survivors:
        """SecAggError ``malformed``."""
        return cls(*fields_of(data, "survivors", 2))


@dataclass(frozen=True)
class Confirmations:
    """Hop 4, to one client: which of its neighbours signed the outcome (bitmap over the cohort), and how."""

    outcome: bytes
    signers: bytes
    signatures: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The one encoding."""
        return pack(b"confirmations", self.outcome, self.signers, b"".join(self.signatures))

    @classmethod
    def from_bytes(cls, data: bytes) -> Confirmations:
        """SecAggError ``malformed``."""
        outcome, signers, signatures = fields_of(data, "confirmations", 3)
        if len(signatures) % SIGNATURE_BYTES:
            raise SecAggError("malformed", "signatures have another size")
        return cls(outcome, signers, tuple(parts(signatures, SIGNATURE_BYTES)))


def fields_of(data: bytes, tag: str, count: int) -> tuple[bytes, ...]:
    """The fields behind a type tag; SecAggError ``wrong_message`` where the tag is another."""
    found, *fields = unpack(bytes(data), count + 1)
    same(found, tag.encode(), "wrong_message")
    return tuple(fields)


def same(stated: bytes, known: bytes, code: str) -> None:
    """SecAggError ``code`` unless a message states what is known here."""
    if stated != known:
        raise SecAggError(code, "a message belongs to another hop, round, phase or view")


def parts(data: bytes, size: int) -> list[bytes]:
    """Pieces of one size."""
    return [data[i : i + size] for i in range(0, len(data), size)]
