"""``fedembed roster``: make identities, collect their public keys, sign the list offline, look at it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import DataError, SecAggError, UsageError
from common.files import write_private, write_whole
from simulations.commands.output import emit_json, note, say, table
from simulations.commands.train import JsonOption

if TYPE_CHECKING:
    from common.secagg.keys import Identity

roster_app = typer.Typer(
    name="roster",
    help="Agree offline who takes part: identities, and a signed list of them that every client pins.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)

_MOST_KEY_BYTES = 10_000

KeyArgument = Annotated[Path, typer.Argument(metavar="KEY", hidden=True)]
DraftArgument = Annotated[Path, typer.Argument(metavar="DRAFT", hidden=True)]
RosterArgument = Annotated[Path, typer.Argument(metavar="ROSTER", hidden=True)]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", hidden=True)]
PublicArgument = Annotated[str, typer.Argument(metavar="PUBLIC", hidden=True)]


@roster_app.command("init")
def init(key: KeyArgument, *, json_output: JsonOption = False) -> None:
    """Make an identity: a private key that never leaves this machine, and a public key for the organiser.

    KEY is the file to make: a private Ed25519 key in PEM form that only you can read. The public key goes into KEY.pub
    and is printed. Members and organiser alike do this once. An existing file is never overwritten.

    Example: fedembed roster init hospital-a.key
    """
    from common.secagg.keys import Identity

    public_file = key.with_name(key.name + ".pub")
    for path in (key, public_file):
        _refuse_existing(path)
    identity = Identity.fresh(os.urandom)
    write_private(key, identity.to_pem())
    write_whole(public_file, f"{identity.public.hex()}\n".encode())
    if json_output:
        emit_json({"private_key": key, "public_key_file": public_file, "public_key": identity.public.hex()})
        return
    say(identity.public.hex())
    note(f"private key in {key}: keep it on this machine; give {public_file} to every site")


@roster_app.command("add")
def add(draft: DraftArgument, name: NameArgument, public: PublicArgument, *, json_output: JsonOption = False) -> None:
    """Add a member to a draft of the roster.

    DRAFT is the file to make or to extend; NAME is what the member calls itself in a run; PUBLIC is its public key: 64
    hexadecimal digits, or a file that holds them. Make sure by another way than this message that the key is theirs.

    Example: fedembed roster add draft.json hospital-a hospital-a.key.pub
    """
    from common.secagg.roster import MOST_BYTES, draft_from_bytes, draft_to_bytes

    entries = draft_from_bytes(_read(draft, MOST_BYTES)) if draft.exists() else {}
    if name in entries:
        raise UsageError(
            f"the draft has a member {name!r} already", remedy="Choose another name, or begin a new draft."
        )
    entries[name] = _public_key(public)
    write_whole(draft, draft_to_bytes(entries))
    if json_output:
        emit_json({"draft": draft, "added": name, "members": len(entries)})
    else:
        say(f"{draft}: {_members(len(entries))}")


@roster_app.command("sign")
def sign(
    draft: DraftArgument,
    roster: RosterArgument,
    *,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The organiser's private key, from `init`.")],
    json_output: JsonOption = False,
) -> None:
    """Sign a draft with the organiser's key: the roster that the members then install.

    DRAFT comes from `fedembed roster add`; ROSTER is the file to make and is never overwritten. Do this on a machine
    that the coordinator has no access to. Members pin the organiser's public key, which is printed.

    Example: fedembed roster sign draft.json roster.json --key organiser.key
    """
    from common.secagg.roster import MOST_BYTES, Roster, draft_from_bytes

    _refuse_existing(roster)
    organiser = _read_identity(key)
    signed = Roster.signed(draft_from_bytes(_read(draft, MOST_BYTES)), organiser)
    write_whole(roster, signed.to_bytes())
    if json_output:
        emit_json(_told(signed.entries, signed.organiser, signed.digest))
        return
    say(f"{roster}: {_members(len(signed.entries))}, signed")
    say(f"organiser  {signed.organiser.hex()}")
    say(f"digest     {signed.digest}")


@roster_app.command("show")
def show(
    roster: RosterArgument,
    *,
    organiser: Annotated[
        str | None,
        typer.Option(metavar="PUBLIC", help="The organiser's public key that you know: digits or a file."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Check a roster's signature and list its members; a draft is listed as unsigned.

    ROSTER is a signed roster or a draft. Without --organiser the check only says that the file is whole, not whose it
    is. Fails with exit code 17 when anything was altered or another organiser signed.

    Example: fedembed roster show roster.json --organiser organiser.key.pub
    """
    from common.secagg.roster import MOST_BYTES, Roster, draft_from_bytes, is_draft

    data = _read(roster, MOST_BYTES)
    pinned = _public_key(organiser) if organiser is not None else None
    if is_draft(data):
        if pinned is not None:
            raise SecAggError("unsigned", "this is a draft: nobody has signed it")
        told = _told(draft_from_bytes(data), None, None)
    else:
        read = Roster.from_bytes(data, pinned_organiser=pinned)
        told = _told(read.entries, read.organiser, read.digest)
    if json_output:
        emit_json({**told, "pinned": pinned is not None})
        return
    for line in table(("member", "public key"), list(told["members"].items())):
        say(line)
    say(f"organiser  {told['organiser'] or 'nobody: a draft, not signed'}")
    if told["digest"]:
        say(f"digest     {told['digest']}")
        if pinned is None:
            note("the signature is the named organiser's; compare that key with the one you know, or give --organiser")


def _told(entries: Mapping[str, bytes], organiser: bytes | None, digest: str | None) -> dict[str, Any]:
    members = {name: key.hex() for name, key in entries.items()}
    return {"members": members, "organiser": organiser.hex() if organiser else None, "digest": digest}


def _members(count: int) -> str:
    return f"{count:,} member{'s' * (count != 1)}"


def _public_key(given: str) -> bytes:
    """A public key from 64 hexadecimal digits, or from a file that holds them."""
    from common.secagg.keys import check_identity_public

    text = given.strip()
    if len(text) != 64 or not _is_hex(text):
        text = _read(Path(given), _MOST_KEY_BYTES).decode(errors="replace").strip()
    if len(text) != 64 or not _is_hex(text):
        raise DataError(
            f"{given} does not hold a public key of 64 hexadecimal digits",
            remedy="Give the file that `fedembed roster init` made and that ends in .pub.",
        )
    public = bytes.fromhex(text)
    check_identity_public(public)
    return public


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdefABCDEF" for character in text)


def _read_identity(path: Path) -> Identity:
    from common.secagg.keys import Identity

    data = _read(path, _MOST_KEY_BYTES)
    if os.name != "nt" and path.stat().st_mode & 0o077:
        raise DataError(
            f"the private key {path} can be read by others", remedy=f"Run `chmod 600 {path}`, or make a new identity."
        )
    return Identity.from_pem(data)


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", remedy="Check the path.") from None
    if len(data) > most_bytes:
        raise DataError(f"{path} has more than {most_bytes:,} bytes", remedy="Check the path.")
    return data


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists; it is never overwritten", remedy="Choose another path, or move it away.")
