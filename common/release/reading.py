"""Read a release; every file is compared with its digest before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError, ReleaseError
from common.evaluation.score import Score
from common.release import folder as names
from common.release.arrays import read_model, read_table
from common.release.contents import LazyTables, Release
from common.release.folder import Folder
from common.table import EmbeddingTable

_FIELDS = {
    "format": str,
    "format_version": int,
    "versions": dict,
    "created_utc": str,
    "scenario": dict,
    "scenario_sha256": str,
    "notes": dict,
    "tables": dict,
    "files": dict,
    "manifest_sha256": str,
}


def load_release(path: Path) -> Release:
    """Open a release. Small files are read and checked now, tables and model when they are first used.

    Raises:
        ReleaseError: not a release, of a newer format, incomplete, or altered since it was written.
    """
    folder = Folder(Path(path))
    if not folder.root.is_dir():
        raise ReleaseError(
            f"there is no release folder {path}", remedy="Give the folder that a run printed at its end."
        )
    manifest = read_manifest(folder)
    missing = sorted(names.REQUIRED - set(manifest["files"]))
    if missing:
        raise ReleaseError(f"the release lacks {', '.join(missing)}")
    for name in (names.REPORT, names.CARD):  # people read these as they are
        check_digest(folder, manifest, name)
    evaluation = checked_json(folder, manifest, names.EVALUATION)
    has_model = names.MODEL in manifest["files"]
    return Release(
        path=folder.root,
        manifest=manifest,
        tables=LazyTables(sorted(manifest["tables"]), lambda name: _table(folder, manifest, name)),
        certificate=_mapping(checked_json(folder, manifest, names.CERTIFICATE), names.CERTIFICATE),
        evaluation=parse_scores(evaluation),
        neighbors=_mapping(_mapping(evaluation, names.EVALUATION).get("neighbors", {}), names.EVALUATION),
        rounds=parse_rounds(checked_json(folder, manifest, names.ROUNDS)),
        model_config=_mapping(checked_json(folder, manifest, names.MODEL_CONFIG), "config.json") if has_model else {},
        read_model=lambda: _model(folder, manifest),
    )


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The manifest, checked against its own digest and for the shape of every field.

    Raises:
        ReleaseError: missing, edited, of another format, or with unsafe names.
    """
    manifest = folder.read_json(names.MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != names.FORMAT_NAME:
        raise ReleaseError("manifest.json does not describe a fedembed release")
    if manifest.get("format_version") != names.FORMAT_VERSION:
        raise ReleaseError(
            f"release format {manifest.get('format_version')!r} is unknown to this version of fedembed",
            remedy="Read it with the fedembed version that its manifest names.",
        )
    for name, kind in _FIELDS.items():
        if type(manifest.get(name)) is not kind:
            raise ReleaseError(f"manifest.json: field {name} is missing or not of type {kind.__name__}")
    if names.manifest_digest(manifest) != manifest["manifest_sha256"]:
        raise ReleaseError("manifest.json does not match its own digest: it was edited")
    for name in manifest["tables"]:
        names.checked_table_name(name)
        if not {names.vectors_file(name), names.keys_file(name)} <= set(manifest["files"]):
            raise ReleaseError(f"manifest.json names table {name} without its files")
    for name, entry in manifest["files"].items():
        names.checked_file_name(name)
        if not isinstance(entry, dict) or set(entry) != {"sha256", "bytes"}:
            raise ReleaseError(f"manifest.json: the entry of {name} is not a digest and a size")
    return manifest


def check_digest(folder: Folder, manifest: Mapping[str, Any], name: str) -> None:
    """Compare a file with the size and digest that the manifest gives.

    Raises:
        ReleaseError: they differ, or the file cannot be read.
    """
    entry = manifest["files"].get(name)
    if entry is None:
        raise ReleaseError(f"manifest.json knows no file {name}")
    digest, size = folder.digest(name)
    if size != entry["bytes"] or digest != entry["sha256"]:
        raise ReleaseError(f"{name} was altered: its SHA-256 is not the one in manifest.json")


def checked_json(folder: Folder, manifest: Mapping[str, Any], name: str) -> Any:
    """A JSON file of the release, after its digest was found right."""
    check_digest(folder, manifest, name)
    return folder.read_json(name)


def parse_scores(data: Any) -> list[Score]:
    """Scores of an evaluation file.

    Raises:
        ReleaseError: an entry is not a score.
    """
    scores = _mapping(data, names.EVALUATION).get("scores")
    if not isinstance(scores, list):
        raise ReleaseError("evaluation.json holds no list of scores")
    try:
        return [Score.from_json(entry) for entry in scores]
    except EvaluationError as error:
        raise ReleaseError(f"evaluation.json: {error.message}") from None


def parse_rounds(data: Any) -> list[Mapping[str, Any]]:
    """Entries of a history file.

    Raises:
        ReleaseError: not a list of objects.
    """
    if not isinstance(data, list):
        raise ReleaseError("rounds.json is not a list")
    return [_mapping(entry, names.ROUNDS) for entry in data]


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ReleaseError(f"{name} holds a {type(value).__name__} where an object belongs")
    return value


def _table(folder: Folder, manifest: Mapping[str, Any], name: str) -> EmbeddingTable:
    for file in (names.vectors_file(name), names.keys_file(name)):
        check_digest(folder, manifest, file)
    table = read_table(folder, name)
    if manifest["tables"][name] != {"rows": len(table), "dimensions": table.dimensions}:
        raise ReleaseError(f"table {name} has not the size that manifest.json gives")
    return table


def _model(folder: Folder, manifest: Mapping[str, Any]) -> dict[str, NDArray[np.generic]]:
    if names.MODEL not in manifest["files"]:
        return {}
    check_digest(folder, manifest, names.MODEL)
    return read_model(folder)
