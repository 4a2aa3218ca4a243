"""Hop 1: each client's public keys for the round, and the cohort that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

from common.errors import SecAggError
from common.secagg.encoding import pack, pack_list, read_text, unpack_list
from common.secagg.keys import KEY_BYTES, SIGNATURE_BYTES, Identity, verify
from common.secagg.messages import context, fields_of, parts, same
from common.secagg.terms import MOST_NAME_BYTES

MOST_CLIENTS = 1_000_000
_OTHER_KEYS = 3  # identity, signing, sealing


@dataclass(frozen=True)
class Advert:
    """Hop 1: a client's keys for this round, signed by its identity over the digest of the terms.

    Attributes:
        client: its name, 1 to 64 bytes of UTF-8.
        identity: Ed25519 key: from the roster, or made for the round, which then proves nothing about who it is.
        signing: Ed25519 key for this round's confirmations, so that the identity need not be kept between hops.
        sealing: X25519 key for sealed shares.
        masking: X25519 keys, one a phase: one for all would open the first phase's vector of a client that is lost
            in the second (its self-mask is public by then).
        signature: over all of these.
    """

    client: str
    identity: bytes
    signing: bytes
    sealing: bytes
    masking: tuple[bytes, ...]
    signature: bytes

    @classmethod
    def signed(cls, terms_digest: bytes, client: str, *, identity: Identity, keys: Sequence[bytes]) -> Advert:
        """An advert of these public keys: signing, sealing, one masking key a phase."""
        bare = cls(client, identity.public, keys[0], keys[1], tuple(keys[2:]), b"")
        return cls(
            client, bare.identity, bare.signing, bare.sealing, bare.masking, identity.sign(bare.statement(terms_digest))
        )

    def statement(self, terms_digest: bytes) -> bytes:
        """What the identity signs."""
        keys = (self.identity, self.signing, self.sealing, b"".join(self.masking))
        return context("advert", terms_digest, self.client.encode(), *keys)

    def verify(self, terms_digest: bytes) -> None:
        """SecAggError ``bad_signature`` unless the identity signed these keys for these terms."""
        verify(self.identity, self.signature, self.statement(terms_digest))

    def to_bytes(self) -> bytes:
        """The one encoding."""
        keys = b"".join((self.identity, self.signing, self.sealing, *self.masking))
        return pack(b"advert", self.client.encode(), keys, self.signature)

    @classmethod
    def from_bytes(cls, data: bytes, phases: int) -> Advert:
        """An advert for so many phases; SecAggError ``malformed``. The signature is not looked at."""
        client, keys, signature = fields_of(data, "advert", 3)
        if len(keys) != (3 + phases) * KEY_BYTES or len(signature) != SIGNATURE_BYTES:
            raise SecAggError("malformed", "an advert's keys or signature have another size")
        if not 0 < len(client) <= MOST_NAME_BYTES:
            raise SecAggError("malformed", "a client's name is empty or too long")
        first, signing, sealing, *masking = parts(keys, KEY_BYTES)
        return cls(read_text(client), first, signing, sealing, tuple(masking), signature)


@dataclass(frozen=True)
class Adverts(Sequence[Advert]):
    """Hop 1, to everyone: all adverts in the order of their clients' names.

    Keys and signatures stay in one piece each: of a large cohort a client looks at its neighbours' alone.

    Attributes:
        names: strictly increasing.
        keys: of every client identity, signing, sealing, one masking key a phase; 32 bytes each.
        signatures: 64 bytes of every client.
        phases: of the round.
    """

    names: tuple[str, ...]
    keys: bytes
    signatures: bytes
    phases: int

    @classmethod
    def of(cls, adverts: Sequence[Advert]) -> Adverts:
        """These adverts, one or more, in their order."""
        keys = b"".join(b"".join((a.identity, a.signing, a.sealing, *a.masking)) for a in adverts)
        signatures = b"".join(advert.signature for advert in adverts)
        return cls(tuple(advert.client for advert in adverts), keys, signatures, len(adverts[0].masking))

    def to_bytes(self, terms_digest: bytes) -> bytes:
        """The one encoding."""
        names = pack_list([name.encode() for name in self.names])
        return pack(b"cohort", terms_digest, names, self.keys, self.signatures)

    @classmethod
    def from_bytes(cls, data: bytes, *, terms_digest: bytes, phases: int) -> Adverts:
        """The cohort of these terms; no signature is looked at.

        Raises:
            SecAggError: ``wrong_round`` for other terms; ``duplicate_id`` unless the names strictly increase;
                ``malformed``.
        """
        stated, listed, keys, signatures = fields_of(data, "cohort", 4)
        same(stated, terms_digest, "wrong_round")
        names = tuple(map(read_text, unpack_list(listed, most=MOST_CLIENTS)))
        sizes = len(names) * (_OTHER_KEYS + phases) * KEY_BYTES, len(names) * SIGNATURE_BYTES
        if (len(keys), len(signatures)) != sizes:
            raise SecAggError("malformed", "a cohort's keys or signatures have another size")
        if any(a >= b for a, b in pairwise(names)):
            raise SecAggError("duplicate_id", "the clients of a cohort are not in strictly increasing order")
        return cls(names, keys, signatures, phases)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Advert: ...

    @overload
    def __getitem__(self, index: slice) -> list[Advert]: ...

    def __getitem__(self, index: int | slice) -> Advert | list[Advert]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        width = (_OTHER_KEYS + self.phases) * KEY_BYTES
        identity, signing, sealing, *masking = parts(self.keys[index * width : (index + 1) * width], KEY_BYTES)
        signature = self.signatures[index * SIGNATURE_BYTES : (index + 1) * SIGNATURE_BYTES]
        return Advert(self.names[index], identity, signing, sealing, tuple(masking), signature)

    def keys_by_kind(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """All identities, all signing keys, all keys for agreements."""
        keys, width = parts(self.keys, KEY_BYTES), _OTHER_KEYS + self.phases
        agreement = [key for column in range(2, width) for key in keys[column::width]]
        return keys[0::width], keys[1::width], agreement
