"""The roster: who the parties are, signed offline by their organiser and pinned by every client.

It keeps a coordinator from inventing clients or putting its own keys in the place of theirs. The file is JSON in one
canonical form: keys sorted, no spaces, UTF-8, one newline at the end. Any other bytes are refused, so a digest of the
file names the roster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import SecAggError
from common.secagg.encoding import pack, pack_list
from common.secagg.keys import SIGNATURE_BYTES, Identity, check_identity_public, verify

FORMAT = "fedembed-roster/1"
MOST_BYTES = 64 * 2**20
MOST_NAME_BYTES = 256


@dataclass(frozen=True)
class Roster:
    """Members' names and Ed25519 public keys with their organiser's signature; a valid one whenever it exists.

    Attributes:
        entries: name -> 32-byte public key.
        organiser: the public key that signed.
        signature: 64 bytes over format and entries.
    """

    entries: Mapping[str, bytes]
    organiser: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_entries(self.entries)
        if len(self.signature) != SIGNATURE_BYTES:
            raise SecAggError("bad_signature", "the roster's signature has another length than 64 bytes")
        verify(self.organiser, self.signature, _message(self.entries))

    @classmethod
    def signed(cls, entries: Mapping[str, bytes], organiser: Identity) -> Roster:
        """A roster of ``entries``, signed by ``organiser``.

        Raises:
            SecAggError: ``bad_roster``: see ``check_entries``.
        """
        check_entries(entries)
        return cls(dict(sorted(entries.items())), organiser.public, organiser.sign(_message(entries)))

    @classmethod
    def from_bytes(cls, data: bytes, *, pinned_organiser: bytes | None) -> Roster:
        """A roster from its file.

        Without ``pinned_organiser`` only the file's integrity is checked: anyone could have signed it.

        Raises:
            SecAggError: ``bad_roster``: not a canonical roster; ``bad_signature``: altered; ``wrong_organiser``: signed
                by another key than the pinned one; ``bad_key``: a key that cannot be anybody's.
        """
        fields = _parsed(data)
        organiser, signature = _unhex(fields["organiser"]), _unhex(fields["signature"])
        if pinned_organiser is not None and organiser != pinned_organiser:
            raise SecAggError("wrong_organiser", "the roster is signed by another organiser than the pinned one")
        roster = cls({name: _unhex(key) for name, key in fields["members"].items()}, organiser, signature)
        if roster.to_bytes() != data:
            raise SecAggError("bad_roster", "the roster is not in canonical form")
        return roster

    def to_bytes(self) -> bytes:
        """The file."""
        members = {name: key.hex() for name, key in self.entries.items()}
        return canonical(
            {
                "format": FORMAT,
                "members": members,
                "organiser": self.organiser.hex(),
                "signature": self.signature.hex(),
            }
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the file in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def key_of(self, name: str) -> bytes:
        """The public key of a member.

        Raises:
            SecAggError: ``foreign_id``: no such member.
        """
        if name not in self.entries:
            raise SecAggError("foreign_id", "a party is not in the roster")
        return self.entries[name]


def check_entries(entries: Mapping[str, bytes]) -> None:
    """Refuse what cannot be the members of a roster.

    Raises:
        SecAggError: ``bad_roster``: nobody, a name that is empty, too long or not printable, or one key under two
            names (one party would count twice); ``bad_key``: a key that cannot be anybody's.
    """
    if not entries:
        raise SecAggError("bad_roster", "a roster needs a member")
    for name, key in entries.items():
        if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= MOST_NAME_BYTES:
            raise SecAggError("bad_roster", f"a member's name has from 1 to {MOST_NAME_BYTES} bytes")
        if not name.isprintable() or name != name.strip():
            raise SecAggError("bad_roster", f"the name {name!r} has characters that do not print, or outer spaces")
        check_identity_public(key)
    if len(set(entries.values())) != len(entries):
        raise SecAggError("bad_roster", "two members have the same key")


def canonical(value: Mapping[str, Any]) -> bytes:
    """The one JSON form of a roster: sorted keys, no spaces, UTF-8, a newline at the end."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _message(entries: Mapping[str, bytes]) -> bytes:
    names = sorted(entries)
    return pack(FORMAT.encode(), pack_list([pack(name.encode(), entries[name]) for name in names]))


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MOST_BYTES:
        raise SecAggError("bad_roster", f"a roster has at most {MOST_BYTES} bytes")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise SecAggError("bad_roster", "the roster is not JSON in UTF-8") from None
    wanted = {"format", "members", "organiser", "signature"}
    if not isinstance(fields, dict) or set(fields) != wanted or fields["format"] != FORMAT:
        raise SecAggError("bad_roster", f"the file is not a signed roster of format {FORMAT}")
    if not isinstance(fields["members"], dict):
        raise SecAggError("bad_roster", "the roster's members are not a mapping of names to keys")
    return fields


def _unhex(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""  # an empty key is refused by its length
    except ValueError:
        return b""
