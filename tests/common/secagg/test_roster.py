from __future__ import annotations

import json

import pytest

from common.secagg import roster as module
from common.secagg.keys import Identity
from common.secagg.roster import Roster, draft_from_bytes, draft_to_bytes, is_draft

from ._tools import refused, stream

ORGANISER = Identity(stream("organiser")(32))
MEMBERS = {name: Identity(stream(name)(32)) for name in ("clinic b", "Ärzte", "a")}
ENTRIES = {name: identity.public for name, identity in MEMBERS.items()}
ROSTER = Roster.signed(ENTRIES, ORGANISER)
DATA = ROSTER.to_bytes()


def read(data: bytes) -> Roster:
    return Roster.from_bytes(data, pinned_organiser=ORGANISER.public)


def rewritten(**changed: object) -> bytes:
    """The file with fields replaced, in canonical form but for that."""
    return module._canonical({**json.loads(DATA), **changed})


def test_a_roster_comes_back_from_its_file() -> None:
    assert read(DATA) == ROSTER
    assert Roster.from_bytes(DATA, pinned_organiser=None) == ROSTER
    assert {name: ROSTER.key_of(name) for name in ENTRIES} == ENTRIES
    assert read(DATA).digest == ROSTER.digest and len(ROSTER.digest) == 64


def test_the_file_is_one_line_of_sorted_json() -> None:
    text = DATA.decode()
    assert text.startswith('{"format":"fedembed-roster/1","members":{"a":"') and text.endswith('"}\n')
    assert "Ärzte" in text and " " not in text.replace("clinic b", "")
    reordered = Roster.signed(dict(reversed(ENTRIES.items())), ORGANISER)
    assert reordered.to_bytes() == DATA


def test_every_changed_byte_is_refused() -> None:
    for place in range(len(DATA)):
        changed = DATA[:place] + bytes([DATA[place] ^ 1]) + DATA[place + 1 :]
        with refused("bad_roster", "bad_signature", "bad_key", "wrong_organiser"):
            read(changed)
        with refused("bad_roster", "bad_signature", "bad_key"):
            Roster.from_bytes(changed, pinned_organiser=None)


def test_every_cut_is_refused() -> None:
    for end in range(len(DATA)):
        with refused("bad_roster"):
            read(DATA[:end])


@pytest.mark.parametrize(
    "other",
    [
        DATA.replace(b",", b", ", 1),
        DATA[:-1],
        DATA + b"\n",
        b"\xef\xbb\xbf" + DATA,
        DATA.decode().encode("utf-16"),
        json.dumps(json.loads(DATA), sort_keys=True, separators=(",", ":")).encode() + b"\n",  # ASCII escapes
        DATA.replace(ORGANISER.public.hex().encode(), ORGANISER.public.hex().upper().encode()),
        DATA.replace(b'"members":{', b'"members":{"a":"%s",' % (b"0" * 64)),  # a name twice: JSON keeps the last
        DATA.replace(b'{"format"', b'{"format":"x","format"'),
    ],
)
def test_other_bytes_for_the_same_roster_are_refused(other: bytes) -> None:
    assert other != DATA
    with refused("bad_roster"):
        read(other)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 100_000,
        rewritten(format="fedembed-roster/2"),
        rewritten(members=[]),
        rewritten(members={}),
        rewritten(note="more"),
        draft_to_bytes(ENTRIES),
    ],
)
def test_what_is_no_roster_is_refused(data: bytes) -> None:
    with refused("bad_roster"):
        read(data)


def test_keys_that_are_no_keys_are_refused() -> None:
    for key in ("", "00", "zz" * 32, "01" + "00" * 31, 5, None):
        with refused("bad_key"):
            read(rewritten(members={"a": key}))
    for organiser in ("", "01" + "00" * 31, 7):
        with refused("bad_key"):
            Roster.from_bytes(rewritten(organiser=organiser), pinned_organiser=None)
    for signature in ("", "00" * 63, "00" * 64, 7):
        with refused("bad_signature"):
            read(rewritten(signature=signature))


def test_only_the_pinned_organisers_signature_counts() -> None:
    other = Roster.signed(ENTRIES, MEMBERS["a"])
    with refused("wrong_organiser"):
        read(other.to_bytes())
    assert Roster.from_bytes(other.to_bytes(), pinned_organiser=None).organiser == MEMBERS["a"].public
    with refused("bad_signature"):  # the right name over another's signature
        read(rewritten(signature=other.signature.hex()))


def test_members_cannot_be_added_taken_away_or_swapped() -> None:
    some = {name: key.hex() for name, key in ENTRIES.items()}
    sybil = Identity(stream("sybil")(32)).public.hex()
    swapped = {"a": some["clinic b"], "clinic b": some["a"], "Ärzte": some["Ärzte"]}
    for members in ({**some, "sybil": sybil}, {"a": some["a"]}, swapped, {**some, "a": sybil}):
        with refused("bad_signature"):
            read(rewritten(members=members))


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\x00", "a\u202eb", "x" * 257, "\ud800", "a\u0308"])
def test_names_that_cannot_be_told_apart_are_refused(name: str) -> None:
    with refused("bad_roster"):
        Roster.signed({name: ENTRIES["a"]}, ORGANISER)
    with refused("bad_roster"):
        draft_to_bytes({name: ENTRIES["a"]})


def test_one_party_is_not_two_members() -> None:
    with refused("bad_roster"):
        Roster.signed({"a": ENTRIES["a"], "b": ENTRIES["a"]}, ORGANISER)


def test_who_is_not_in_the_roster_is_foreign() -> None:
    with refused("foreign_id"):
        ROSTER.key_of("nobody")


def test_a_roster_cannot_be_changed_in_memory() -> None:
    entries = dict(ENTRIES)
    roster = Roster.signed(entries, ORGANISER)
    entries["sybil"] = b""
    assert dict(roster.entries) == ENTRIES
    with pytest.raises(TypeError):
        roster.entries["sybil"] = b""  # type: ignore[index]


def test_a_roster_that_nobody_signed_does_not_exist() -> None:
    with refused("bad_signature"):
        Roster(ENTRIES, ORGANISER.public, bytes(64))


def test_too_large_a_file_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", len(DATA) - 1)
    with refused("bad_roster"):
        read(DATA)


def test_drafts() -> None:
    draft = draft_to_bytes(ENTRIES)
    assert draft_from_bytes(draft) == ENTRIES
    assert is_draft(draft) and not is_draft(DATA) and not is_draft(b"")
    for bad in (DATA, b"", b"{}", draft[:-1], draft + b" ", draft.replace(b":", b": ", 1)):
        with refused("bad_roster"):
            draft_from_bytes(bad)
    with refused("bad_roster"):
        draft_to_bytes({})
