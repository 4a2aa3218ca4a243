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
from types import MappingProxyType
from typing import Any
from unicodedata import is_normalized

from common.errors import SecAggError
from common.secagg.encoding import pack, pack_list
from common.secagg.keys import SIGNATURE_BYTES, Identity, check_identity_public, verify

FORMAT = "fedembed-roster/1"
DRAFT_FORMAT = "fedembed-roster-draft/1"
MOST_BYTES = 64 * 2**20
MOST_NAME_BYTES = 256
_GET_AGAIN = "Get the roster from its organiser again, and compare its digest with what others have."
_CORRECT = "Correct the member, or begin a new draft with `fedembed roster add`."


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
        object.__setattr__(self, "entries", MappingProxyType(dict(sorted(self.entries.items()))))
        if len(self.signature) != SIGNATURE_BYTES:
            raise SecAggError("bad_signature", "the roster's signature is not 64 bytes", remedy=_GET_AGAIN)
        verify(self.organiser, self.signature, _message(self.entries))

    @classmethod
    def signed(cls, entries: Mapping[str, bytes], organiser: Identity) -> Roster:
        """A roster of ``entries``, signed by ``organiser``.

        Raises:
            SecAggError: ``bad_roster``: see ``check_entries``.
        """
        check_entries(entries)
        return cls(entries, organiser.public, organiser.sign(_message(entries)))

    @classmethod
    def from_bytes(cls, data: bytes, *, pinned_organiser: bytes | None) -> Roster:
        """A roster from its file.

        Without ``pinned_organiser`` only the file's integrity is checked: anyone could have signed it.

        Raises:
            SecAggError: ``bad_roster``: not a canonical roster; ``bad_signature``: altered; ``wrong_organiser``: signed
                by another key than the pinned one; ``bad_key``: a key that cannot be anybody's.
        """
        fields = _parsed(data, FORMAT, {"format", "members", "organiser", "signature"})
        organiser, signature = _unhex(fields["organiser"]), _unhex(fields["signature"])
        if pinned_organiser is not None and organiser != pinned_organiser:
            raise SecAggError("wrong_organiser", "the roster is not signed by the pinned organiser", remedy=_GET_AGAIN)
        roster = cls({name: _unhex(key) for name, key in fields["members"].items()}, organiser, signature)
        if roster.to_bytes() != data:
            raise SecAggError("bad_roster", "the roster is not in canonical form", remedy=_GET_AGAIN)
        return roster

    def to_bytes(self) -> bytes:
        """The file."""
        members = {name: key.hex() for name, key in self.entries.items()}
        return _canonical(
            {
                "format": FORMAT,
                "members": members,
                "organiser": self.organiser.hex(),
                "signature": self.signature.hex(),
            }
        )

    @property
    def file_hash(self) -> bytes:
        """SHA-256 of the file: what a round's terms name."""
        return hashlib.sha256(self.to_bytes()).digest()

    @property
    def digest(self) -> str:
        """The same in hexadecimal."""
        return self.file_hash.hex()

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
        SecAggError: ``bad_roster``: nobody, a name that is empty, too long or not plain text, or one key under two
            names (one party would count twice); ``bad_key``: a key that cannot be anybody's.
    """
    if not entries:
        raise SecAggError("bad_roster", "a roster needs a member", remedy=_CORRECT)
    for name, key in entries.items():
        _check_name(name)
        check_identity_public(key)
    if len(set(entries.values())) != len(entries):
        raise SecAggError("bad_roster", "two members have the same key", remedy=_CORRECT)


def _check_name(name: str) -> None:
    # What a reader cannot tell from another name must not be one: no control characters, one Unicode form.
    if not name.isprintable() or name != name.strip() or not is_normalized("NFC", name):
        raise SecAggError("bad_roster", f"the name {name!r} is not plain printable text in form NFC", remedy=_CORRECT)
    if not 0 < len(name.encode()) <= MOST_NAME_BYTES:
        raise SecAggError("bad_roster", f"a member's name has from 1 to {MOST_NAME_BYTES} bytes", remedy=_CORRECT)


def draft_to_bytes(entries: Mapping[str, bytes]) -> bytes:
    """The file of a roster that nobody has signed; raises as ``check_entries``."""
    check_entries(entries)
    return _canonical({"format": DRAFT_FORMAT, "members": {name: key.hex() for name, key in entries.items()}})


def draft_from_bytes(data: bytes) -> dict[str, bytes]:
    """The inverse of ``draft_to_bytes``.

    Raises:
        SecAggError: ``bad_roster``: not a canonical draft; ``bad_key``: a key that cannot be anybody's.
    """
    fields = _parsed(data, DRAFT_FORMAT, {"format", "members"})
    entries = {name: _unhex(key) for name, key in fields["members"].items()}
    if draft_to_bytes(entries) != data:
        raise SecAggError("bad_roster", "the draft is not in canonical form", remedy=_CORRECT)
    return entries


def is_draft(data: bytes) -> bool:
    """Whether a file calls itself a draft; nothing else about it is checked."""
    return data.startswith(f'{{"format":"{DRAFT_FORMAT}"'.encode())


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _message(entries: Mapping[str, bytes]) -> bytes:
    names = sorted(entries)
    return pack(FORMAT.encode(), pack_list([pack(name.encode(), entries[name]) for name in names]))


def _parsed(data: bytes, form: str, wanted: set[str]) -> dict[str, Any]:
    if len(data) > MOST_BYTES:
        raise SecAggError("bad_roster", f"a roster has at most {MOST_BYTES} bytes", remedy=_GET_AGAIN)
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise SecAggError("bad_roster", "the roster is not JSON in UTF-8", remedy=_GET_AGAIN) from None
    if not isinstance(fields, dict) or set(fields) != wanted or fields["format"] != form:
        raise SecAggError("bad_roster", f"the file is not of the format {form}", remedy=_GET_AGAIN)
    if not isinstance(fields["members"], dict):
        raise SecAggError("bad_roster", "the roster's members are not a mapping of names to keys", remedy=_GET_AGAIN)
    return fields


def _unhex(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""  # an empty key is refused by its length
    except ValueError:
        return b""
