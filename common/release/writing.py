"""Write a release: all of it, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from common.errors import ReleaseError
from common.evaluation.report import map_facts, neighbor_lists, write_report
from common.files import atomic_folder
from common.keyfile import encode_keys
from common.release import folder as names
from common.release.arrays import safetensors_bytes
from common.release.card import model_card
from common.release.claim import refuse_unsound
from common.release.contents import ReleaseContents
from common.release.history import refuse_unpublishable, with_spend

_PACKAGES = ("numpy", "torch", "flwr", "opacus", "dp-accounting", "safetensors")


def write_release(directory: Path, contents: ReleaseContents) -> None:
    """Write ``contents`` to ``directory``, which appears only when complete and on the disk.

    An earlier release in ``directory`` is replaced; anything else there is left alone and refused.

    Raises:
        ReleaseError: the directory holds something that is not a release, or the contents may not be published
            (NaN, a claim that does not follow from its events, an un-noised metric, names that are no file names).
        StorageError: the disk is full or not writable; nothing half-written stays behind.
    """
    directory = Path(directory)
    _refuse_foreign(directory)
    refuse_unpublishable(contents.rounds, str(contents.scenario.get("privacy", {}).get("mode")))
    refuse_unsound(contents.certificate)
    contents = replace(contents, rounds=with_spend(contents.rounds, contents.certificate))
    with atomic_folder(directory) as fresh:
        (fresh / "tables").mkdir()
        digests = {name: _written(fresh / name, data) for name, data in _files(contents)}
        (fresh / names.MANIFEST).write_bytes(names.canonical_json(_manifest(contents, digests)))


def versions() -> dict[str, str]:
    """Installed versions of fedembed and of what decides its numbers."""
    found = {}
    for package in ("fedembed", *_PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def _files(contents: ReleaseContents) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of every file but the manifest; one at a time, so tables are not all in memory twice."""
    for name, table in contents.tables.items():
        names.checked_table_name(name)
        if len(set(table.keys)) != len(table.keys):
            raise ReleaseError(f"table {name} holds a key twice")
        yield names.vectors_file(name), safetensors_bytes({"vectors": table.vectors})
        yield names.keys_file(name), encode_keys(table.keys)
    if contents.model:
        yield names.MODEL, safetensors_bytes(contents.model)
        yield names.MODEL_CONFIG, names.canonical_json(contents.model_config)
    evaluation = {
        "scores": [score.to_json() for score in contents.evaluation],
        "neighbors": neighbor_lists(contents.tables, contents.scenario),
        "map": map_facts(contents.tables),
    }
    yield names.EVALUATION, names.canonical_json(evaluation)
    yield names.CERTIFICATE, names.canonical_json(contents.certificate)
    yield names.ROUNDS, names.canonical_json(list(contents.rounds))
    yield names.REPORT, write_report(contents).encode()
    yield names.CARD, model_card(contents).encode()


def _written(path: Path, data: bytes) -> dict[str, Any]:
    path.write_bytes(data)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _manifest(contents: ReleaseContents, digests: dict[str, Any]) -> dict[str, Any]:
    manifest = {
        "format": names.FORMAT_NAME,
        "format_version": names.FORMAT_VERSION,
        "versions": versions(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "scenario": names.plain(contents.scenario),
        "scenario_sha256": names.scenario_digest(names.plain(contents.scenario)),
        "notes": names.plain(contents.notes),
        "tables": {name: {"rows": len(t), "dimensions": t.dimensions} for name, t in contents.tables.items()},
        "files": digests,
    }
    return {**manifest, "manifest_sha256": names.manifest_digest(manifest)}


def _refuse_foreign(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise ReleaseError(f"{directory} exists and is not a folder", remedy="Choose another --out directory.")
    if not directory.is_dir():
        return
    folder = names.Folder(directory)
    present = folder.listing()
    if not present:
        return
    try:
        manifest = folder.read_json(names.MANIFEST)
        known = {names.MANIFEST, *manifest["files"]} if manifest.get("format") == names.FORMAT_NAME else set()
    except (ReleaseError, AttributeError, KeyError, TypeError):
        known = set()
    foreign = sorted(present - known)
    if foreign:
        raise ReleaseError(
            f"{directory} holds files that no release put there ({', '.join(foreign[:3])}); it is left as it was",
            remedy="Choose an empty or new --out directory, or move those files away.",
        )
