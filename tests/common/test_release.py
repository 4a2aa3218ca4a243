"""A release is written whole or not at all, and no alteration of it passes verification."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import build_scenario
from common.errors import ReleaseError, StorageError
from common.evaluation import Score
from common.release import ReleaseContents, VerificationReport, load_release, verify, write_release
from common.release.folder import canonical_json, manifest_digest
from common.table import EmbeddingTable
from common.work import work_for

KEYS = ("the", "new york", "", "日本", "a\\nb\n", "<script>", "\t", "x" * 10_000, *(f"word{i}" for i in range(20)))
NEEDED = {"manifest.json", "certificate.json", "evaluation.json", "rounds.json", "report.html", "README.md"}


def contents(mode: str = "central", *, test_mode: bool = False, **changes: Any) -> ReleaseContents:
    """What a run of two rounds hands over, with a real plan's claim."""
    privacy = {"mode": mode, "test_mode": test_mode} | ({} if mode == "none" else {"noise_multiplier": 4.0})
    scenario = build_scenario({"task": {"family": "spectral"}, "privacy": privacy, "federation": {"rounds": 2}})
    plan = work_for(scenario, None).plan
    vectors = np.random.default_rng(3).standard_normal((len(KEYS), 6)).astype(np.float32)
    history = [{"round": k, "step_norm": 1.0, "noise_stddev": plan.noise_stddev} for k in (1, 2)]
    made = ReleaseContents(
        tables={"words": EmbeddingTable(KEYS, vectors)},
        certificate=plan.claim(2),
        scenario=scenario.model_dump(mode="json"),
        evaluation=[Score("similarity", "spearman", 0.5, 0.4, 0.6, 100, 0.9, True, "random table", float("nan"))],
        rounds=history,
        model={"conv.weight": np.ones((2, 3), np.float32)},
        model_config={"family": "spectral"},
        notes={"clients": "two | hospitals", "enrolled_clients": 2},
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "release"
    write_release(folder, contents())
    return folder


@pytest.fixture
def copy(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "release"))


def files_of(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def failed(report: VerificationReport) -> str:
    return "; ".join(f"{c.name}: {c.detail}" for c in report.checks if not c.passed)


def edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Alter a JSON file as a careful forger would: in canonical form and with every digest put right."""
    import hashlib

    path = folder / name
    value = json.loads(path.read_bytes())
    changed = change(value)
    data = canonical_json(value if changed is None else changed)
    if name == "manifest.json":
        value = value if changed is None else changed
        data = canonical_json({**value, "manifest_sha256": manifest_digest(value)})
    path.write_bytes(data)
    if name != "manifest.json":
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        edit(folder, "manifest.json", lambda m: m["files"].update({name: entry}))


def test_round_trip(pristine: Path) -> None:
    wanted, found = contents(), load_release(pristine)
    assert set(files_of(pristine)) > NEEDED
    assert list(found.tables) == ["words"]
    assert found.tables["words"].keys == KEYS
    np.testing.assert_array_equal(found.tables["words"].vectors, wanted.tables["words"].vectors)
    np.testing.assert_array_equal(found.model["conv.weight"], wanted.model["conv.weight"])
    assert found.model_config == {"family": "spectral"}
    assert found.certificate == json.loads(json.dumps(wanted.certificate))
    assert found.scenario == wanted.scenario
    assert found.notes["enrolled_clients"] == 2
    assert found.evaluation[0].value == 0.5
    assert np.isnan(found.evaluation[0].baseline_value)
    assert [entry["round"] for entry in found.rounds] == [1, 2]
    assert set(found.neighbors) == {"words"}


def test_a_fresh_release_verifies(pristine: Path) -> None:
    report = verify(pristine)
    assert report.passed, failed(report)
    assert report.warnings == ()
    assert any(c.name == "epsilon recomputed from events" for c in report.checks)


def test_the_history_ends_with_the_epsilon_of_the_claim(pristine: Path) -> None:
    found = load_release(pristine)
    spent = [entry["epsilon"]["public"] for entry in found.rounds]
    assert spent[0] < spent[1] == found.certificate["observers"]["public"]["epsilon"]


def test_tables_are_read_when_first_used_and_checked_then(copy: Path) -> None:
    (copy / "tables" / "words.safetensors").write_bytes(b"garbage")
    found = load_release(copy)
    with pytest.raises(ReleaseError, match="altered"):
        _ = found.tables["words"]
    with pytest.raises(KeyError):
        _ = found.tables["other"]


@pytest.mark.parametrize(("mode", "test_mode"), [("none", False), ("central", True)])
def test_a_void_certificate_is_flagged(mode: str, test_mode: bool, tmp_path: Path) -> None:
    write_release(tmp_path / "r", contents(mode, test_mode=test_mode))
    report = verify(tmp_path / "r")
    assert report.passed, failed(report)
    assert [c.name for c in report.warnings] == ["VOID"]
    assert "VOID" in (tmp_path / "r" / "README.md").read_text()
    assert 'class="banner"' in (tmp_path / "r" / "report.html").read_text()


def test_the_card_has_valid_front_matter_and_no_live_markup(pristine: Path) -> None:
    text = (pristine / "README.md").read_text(encoding="utf-8")
    lines = text.split("---")[1].strip().split("\n")
    front = {name: json.loads(value) for name, _, value in (line.partition(": ") for line in lines)}
    assert front["library_name"] == "fedembed"
    assert "spectral" in front["tags"]
    assert r"two \| hospitals" in text


# Alteration


def test_one_flipped_byte_anywhere_is_found(pristine: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in files_of(pristine):
        data = (pristine / name).read_bytes()
        for place in {0, len(data) // 2, len(data) - 1, int(rng.integers(len(data)))}:
            folder = Path(shutil.copytree(pristine, tmp_path / "copy"))
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            (folder / name).write_bytes(flipped)
            report = verify(folder)
            assert not report.passed, f"{name} at {place}"
            shutil.rmtree(folder)


@pytest.mark.parametrize("name", [*sorted(NEEDED), "tables/words.safetensors", "tables/words.keys.txt", "config.json"])
def test_a_missing_file_is_found(name: str, copy: Path) -> None:
    (copy / name).unlink()
    report = verify(copy)
    assert not report.passed
    assert name in failed(report)


@pytest.mark.parametrize("name", ["extra.txt", "tables/more.safetensors", ".hidden", "folder/inside", "tables/a/b"])
def test_an_extra_file_is_found(name: str, copy: Path) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("x")
    assert "not in the manifest" in failed(verify(copy))


def _lower_epsilon(claim: dict[str, Any]) -> None:
    claim["observers"]["public"]["epsilon"] *= 0.9


def _fewer_rounds(claim: dict[str, Any]) -> None:
    claim["rounds_released"] = 1


def _more_noise(claim: dict[str, Any]) -> None:
    claim["mechanism"]["noise_multiplier"] *= 2


def _invented_events(claim: dict[str, Any]) -> None:
    claim["observers"]["public"]["event"] = {"event": "no_op"}


def _protects_the_coordinator(claim: dict[str, Any]) -> None:
    claim["observers"]["coordinator"] = dict(claim["observers"]["public"])


def _not_void(claim: dict[str, Any]) -> None:
    claim["void"] = not claim["void"]


def _second_accountant_disagrees(claim: dict[str, Any]) -> None:
    claim["observers"]["public"]["second_opinion"]["lower"] *= 2


def _consistent_but_not_the_scenarios(claim: dict[str, Any]) -> Any:
    """A whole honest claim, of another run: every inner check passes and only the scenario tells."""
    scenario = build_scenario(
        {"task": {"family": "spectral"}, "privacy": {"noise_multiplier": 8.0}, "federation": {"rounds": 2}}
    )
    return json.loads(json.dumps(work_for(scenario, None).plan.claim(2)))


FORGERIES = (
    _lower_epsilon,
    _fewer_rounds,
    _more_noise,
    _invented_events,
    _protects_the_coordinator,
    _not_void,
    _second_accountant_disagrees,
    _consistent_but_not_the_scenarios,
)


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda f: f.__name__)
def test_a_forged_claim_with_right_digests_is_found(forgery: Callable[[Any], Any], copy: Path) -> None:
    edit(copy, "certificate.json", forgery)
    report = verify(copy)
    assert not report.passed
    assert "digest" not in failed(report)


@pytest.mark.parametrize(
    "change",
    [
        lambda rounds: rounds[0].update(noise_stddev=0.1),
        lambda rounds: rounds[0].update(loss=1.0),
        lambda rounds: rounds[1]["epsilon"].update(public=0.1),
        lambda rounds: rounds.append(dict(rounds[0])),
        lambda rounds: {"not": "a list"},
        lambda rounds: ["not an object"],
    ],
)
def test_a_forged_history_is_found(change: Callable[[Any], Any], copy: Path) -> None:
    edit(copy, "rounds.json", lambda value: result if (result := change(value)) else None)
    assert not verify(copy).passed


def test_a_forged_scenario_is_found(copy: Path) -> None:
    edit(copy, "manifest.json", lambda m: m["scenario"]["privacy"].update(delta=1e-9))
    assert "does not match its digest" in failed(verify(copy))


# Crafted folders


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "tables/../../outside", "a/b", "..", ".", "", "tables/", "C:\\x", "a\x00b"]
)
def test_a_name_never_leaves_the_folder(name: str, copy: Path) -> None:
    (copy.parent / "outside").write_text("secret")
    edit(copy, "manifest.json", lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 6}}))
    assert "unsafe path" in failed(verify(copy))
    with pytest.raises(ReleaseError, match="unsafe path"):
        load_release(copy)


@pytest.mark.parametrize("name", ["report.html", "README.md"])
def test_what_people_read_is_checked_when_a_release_is_opened(name: str, copy: Path) -> None:
    page = (copy / name).read_bytes()
    (copy / name).write_bytes(page[:-1] + bytes([page[-1] ^ 1]))
    with pytest.raises(ReleaseError, match=f"{name} was altered"):
        load_release(copy)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX links and pipes")
def test_links_and_pipes_are_not_followed(copy: Path) -> None:
    report = copy / "report.html"
    outside = copy.parent / "outside"
    outside.write_bytes(report.read_bytes())
    report.unlink()
    report.symlink_to(outside)
    assert "report.html" in failed(verify(copy))
    report.unlink()
    os.mkfifo(report)
    assert "not a regular file" in failed(verify(copy))
    report.unlink()
    report.write_bytes(outside.read_bytes())
    shutil.move(copy / "tables", copy.parent / "elsewhere")
    (copy / "tables").symlink_to(copy.parent / "elsewhere")
    assert "is a link" in failed(verify(copy))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"fedembed-release"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"1" * 10_000,
        b"NaN",
        b'{"format":"fedembed-release","format_version":2}',
    ],
)
def test_malformed_json_is_a_release_error(data: bytes, copy: Path) -> None:
    for name in ("manifest.json", "certificate.json", "rounds.json", "evaluation.json"):
        kept = (copy / name).read_bytes()
        (copy / name).write_bytes(data)
        assert not verify(copy).passed
        with pytest.raises(ReleaseError):
            load_release(copy)
        (copy / name).write_bytes(kept)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{{",
        (64).to_bytes(8, "little") + b'{"vectors":{"dtype":"F32","shape":[9,9],"data_offsets":[0,9999]}}'[:64],
        (63).to_bytes(8, "little")
        + b'{"vectors":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}  \x00\x00\xc0\x7f',
    ],
)
def test_crafted_vectors_fail_and_do_not_crash(data: bytes, copy: Path) -> None:
    import hashlib

    (copy / "tables" / "words.safetensors").write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit(copy, "manifest.json", lambda m: m["files"].update({"tables/words.safetensors": entry}))
    report = verify(copy)
    assert [c.name for c in report.checks if not c.passed] == ["table words"]


@pytest.mark.parametrize("keys", [b"", b"one\n", b"a\n" * len(KEYS), b"cut", b"\\x\n" * 3, b"\xff\n"])
def test_crafted_keys_fail(keys: bytes, copy: Path) -> None:
    import hashlib

    (copy / "tables" / "words.keys.txt").write_bytes(keys)
    entry = {"sha256": hashlib.sha256(keys).hexdigest(), "bytes": len(keys)}
    edit(copy, "manifest.json", lambda m: m["files"].update({"tables/words.keys.txt": entry}))
    assert [c.name for c in verify(copy).checks if not c.passed] == ["table words"]


JUNK: tuple[Any, ...] = (None, 0, -1, 1e308, "x", [], {}, [[]], {"event": "repeated", "count": 10**30, "of": {}})


def test_junk_in_any_field_of_the_certificate_never_raises(copy: Path) -> None:
    """Replace every field, at every depth, by values of every kind."""
    original = json.loads((copy / "certificate.json").read_bytes())
    rng = np.random.default_rng(5)
    checked = ["mechanism", "sampler", "observers", "delta", "mode", "rounds_released", "void", "accountants", "unit"]
    for path in _paths(original):
        if len(path) > 2 and path[0] != "observers":
            continue
        junk = JUNK[int(rng.integers(len(JUNK)))]
        edit(copy, "certificate.json", lambda _, path=path, junk=junk: _replaced(original, path, junk))
        report = verify(copy)
        if path[0] in checked and len(path) == 1:
            assert not report.passed, path


def _paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in items for path in [(*prefix, key), *_paths(item, (*prefix, key))]]


def _replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copied = value.copy()
    copied[path[0]] = _replaced(value[path[0]], path[1:], junk)
    return copied


# Writing


def test_what_must_not_be_published_is_refused(tmp_path: Path) -> None:
    bad = np.full((1, 2), np.nan, np.float32)
    claim = dict(contents().certificate)
    refused = {
        "NaN": contents(tables={"words": EmbeddingTable(("a",), bad)}),
        "un-noised loss": contents(rounds=[{"round": 1, "loss": 0.3}]),
        "counted replies": contents(rounds=[{"round": 1, "replies": {"ok": 3}}]),
        "claim": contents(certificate={**claim, "void": True}),
        "table name": contents(tables={"../words": contents().tables["words"]}),
        "object array": contents(model={"w": np.array([{}], dtype=object)}),
        "repeated key": contents(tables={"words": EmbeddingTable(("a", "a"), np.ones((2, 2), np.float32))}),
        "unknown type": contents(notes={"when": object()}),
    }
    for reason, made in refused.items():
        with pytest.raises(ReleaseError):
            write_release(tmp_path / "r", made)
        assert list(tmp_path.iterdir()) == [], reason


def test_mode_none_may_publish_its_loss(tmp_path: Path) -> None:
    write_release(tmp_path / "r", contents("none", rounds=[{"round": 1, "loss": 0.3, "replies": {"ok": 2}}]))
    assert verify(tmp_path / "r").passed
    assert load_release(tmp_path / "r").rounds[0]["loss"] == 0.3


def test_a_release_is_replaced_but_a_foreign_folder_is_not(copy: Path, tmp_path: Path) -> None:
    write_release(copy, contents(tables={}))
    assert "tables/words.safetensors" not in files_of(copy)
    assert verify(copy).passed
    (copy / "thesis.tex").write_text("years of work")
    before = files_of(copy)
    with pytest.raises(ReleaseError, match=r"thesis\.tex"):
        write_release(copy, contents())
    assert files_of(copy) == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(ReleaseError):
        write_release(tmp_path / "file", contents())
    (tmp_path / "empty").mkdir()
    write_release(tmp_path / "empty", contents())
    assert verify(tmp_path / "empty").passed


@pytest.mark.parametrize("call", ["fsync", "rename", "write"])
def test_a_full_disk_leaves_nothing_behind(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = contents()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "write":
        monkeypatch.setattr(Path, "write_bytes", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(StorageError, match="disk is full"):
        write_release(tmp_path / "r", made)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_keeps_the_earlier_release(call: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, before = contents(tables={}), files_of(copy)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageError):
            write_release(copy, made)
    assert files_of(copy) == before
    assert sorted(p.name for p in copy.parent.iterdir()) == [copy.name]
    assert verify(copy).passed


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".r.partial").mkdir()
    (tmp_path / ".r.partial" / "half").write_text("x")
    write_release(tmp_path / "r", contents())
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_no_release_is_a_release_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ReleaseError):
            load_release(path)
        assert not verify(path).passed
