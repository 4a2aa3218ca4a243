"""``fedembed roster``: from identities to a signed roster, and every way in which it refuses."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from common.secagg.keys import Identity
from common.secagg.roster import Roster
from simulations import cli


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Function: words of a command -> exit code, standard output, standard error."""

    def command(*words: object) -> tuple[int, str, str]:
        code = cli.main(["roster", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def signed(run) -> Path:  # type: ignore[no-untyped-def]
    """A roster of two members."""
    for name in ("organiser", "a", "b"):
        assert run("init", f"{name}.key")[0] == 0
    for name in ("a", "b"):
        assert run("add", "draft.json", name, f"{name}.key.pub")[0] == 0
    assert run("sign", "draft.json", "roster.json", "--key", "organiser.key")[0] == 0
    return Path("roster.json")


def test_from_identities_to_a_signed_roster(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    organiser = Identity.from_pem(Path("organiser.key").read_bytes())
    roster = Roster.from_bytes(signed.read_bytes(), pinned_organiser=organiser.public)
    assert {name: key.hex() for name, key in roster.entries.items()} == {
        name: Path(f"{name}.key.pub").read_text().strip() for name in ("a", "b")
    }
    code, out, err = run("show", signed, "--organiser", "organiser.key.pub")
    assert (code, err) == (0, "")
    assert all(text in out for text in ("a", "b", organiser.public.hex(), roster.digest))
    assert run("show", signed, "--organiser", organiser.public.hex())[0] == 0


def test_every_step_answers_a_program(run) -> None:  # type: ignore[no-untyped-def]
    made = json.loads(run("init", "o.key", "--json")[1])
    assert made["public_key"] == Path(made["public_key_file"]).read_text().strip() and made["private_key"] == "o.key"
    assert json.loads(run("add", "d.json", "a", "o.key.pub", "--json")[1])["members"] == 1
    told = json.loads(run("sign", "d.json", "r.json", "--key", "o.key", "--json")[1])
    assert told["organiser"] == made["public_key"] and told["members"] == {"a": made["public_key"]}
    shown = json.loads(run("show", "r.json", "--organiser", made["public_key"], "--json")[1])
    assert shown == {**told, "pinned": True}
    draft = json.loads(run("show", "d.json", "--json")[1])
    assert (draft["organiser"], draft["digest"], draft["pinned"]) == (None, None, False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_private_key_is_its_owners_alone(run) -> None:  # type: ignore[no-untyped-def]
    before = os.umask(0)
    try:
        code, out, err = run("init", "a.key")
    finally:
        os.umask(before)
    assert code == 0
    assert stat.S_IMODE(Path("a.key").stat().st_mode) == 0o600
    secret = Identity.from_pem(Path("a.key").read_bytes()).private
    assert secret.hex() not in out + err + Path("a.key.pub").read_text()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_private_key_that_others_can_read_signs_nothing(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    Path("organiser.key").chmod(0o640)
    code, _, err = run("sign", "draft.json", "again.json", "--key", "organiser.key")
    assert code == 5 and "chmod 600" in err and not Path("again.json").exists()


def test_nothing_is_ever_overwritten(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert run("init", "a.key")[0] == 2
    assert run("sign", "draft.json", "roster.json", "--key", "organiser.key")[0] == 2
    assert run("add", "draft.json", "a", "organiser.key.pub")[0] == 2  # another key under a name that is there
    Path("c.key.pub").write_text("kept")
    assert run("init", "c.key")[0] == 2
    Path("link.key").symlink_to("nowhere")
    assert run("init", "link.key")[0] == 2
    after = {path.name: path.read_bytes() for path in Path().iterdir() if path.name not in ("c.key.pub", "link.key")}
    assert after == before and Path("c.key.pub").read_text() == "kept"


def test_the_same_key_under_two_names_is_refused(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("add", "draft.json", "a again", "a.key.pub")
    assert code == 17 and "same key" in err


def test_a_signed_roster_is_not_extended(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    before = signed.read_bytes()
    assert run("add", "roster.json", "c", "organiser.key.pub")[0] == 17
    assert signed.read_bytes() == before


def test_another_organiser_or_an_altered_file_is_refused(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("show", signed, "--organiser", "a.key.pub")
    assert code == 17 and out == "" and "organiser" in err
    signed.write_bytes(signed.read_bytes().replace(b'"a"', b'"c"'))
    code, out, _ = run("show", signed)
    assert code == 17 and out == ""


def test_a_draft_is_never_taken_for_a_roster(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("show", "draft.json")
    assert code == 0 and "not signed" in out
    assert run("show", "draft.json", "--organiser", "organiser.key.pub")[0] == 17


def test_an_unpinned_look_says_what_it_is_worth(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("show", signed)
    assert code == 0 and "--organiser" in err


@pytest.mark.parametrize(
    "public", ["nowhere.pub", "00", "zz" * 32, "a.key", ".", "01" + "00" * 31], ids=lambda text: text[:12]
)
def test_what_is_no_public_key_is_refused(public: str, run) -> None:  # type: ignore[no-untyped-def]
    run("init", "a.key")
    code, _, err = run("add", "draft.json", "b", public)
    assert code in (5, 17) and "Traceback" not in err
    assert not Path("draft.json").exists()


def test_files_that_are_missing_or_something_else_are_named(run, signed: Path) -> None:  # type: ignore[no-untyped-def]
    assert run("show", "nowhere.json")[0] == 5
    assert run("show", ".")[0] == 5
    assert run("show", "a.key")[0] == 17
    assert run("sign", "nowhere.json", "new.json", "--key", "organiser.key")[0] == 5
    assert run("sign", "draft.json", "new.json", "--key", "a.key.pub")[0] in (5, 17)
    assert run("sign", "draft.json", "new.json", "--key", "nowhere.key")[0] == 5
    assert run("init", "nowhere/a.key")[0] == 13
    assert not Path("new.json").exists()


@pytest.mark.parametrize("words", [(), ("init",), ("add", "x"), ("sign", "draft.json", "roster.json"), ("show",)])
def test_missing_words_end_in_a_hint(words: tuple[str, ...], run) -> None:  # type: ignore[no-untyped-def]
    assert run(*words)[0] in (0, 2)


@pytest.mark.parametrize("name", ["init", "add", "sign", "show"])
def test_every_command_has_a_help_page(name: str, run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run(name, "--help")
    assert code == 0 and out.startswith(f"Usage: fedembed roster {name}") and "--json" in out and "Example:" in out
