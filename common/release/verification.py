"""Check a release from its files alone: nothing altered, nothing missing, and the claim follows from the events."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import ReleaseError
from common.release import folder as names
from common.release.arrays import read_model, read_table
from common.release.checks import Check, VerificationReport, guarded
from common.release.claim import check_claim
from common.release.folder import Folder
from common.release.history import unpublishable
from common.release.reading import check_digest, parse_rounds, parse_scores, read_manifest


def verify(path: Path) -> VerificationReport:
    """Check the release in ``path``. Whatever is wrong becomes a failed check; a crafted release raises nothing."""
    folder = Folder(Path(path))
    checks: list[Check] = []
    try:
        manifest = read_manifest(folder)
    except ReleaseError as error:
        return VerificationReport(folder.root, (Check("manifest", False, error.message),))
    checks.append(Check("manifest", True, f"{len(manifest['files'])} files, format {manifest['format_version']}"))
    checks.append(guarded("files", lambda: _files(folder, manifest)))
    for name in sorted(manifest["files"]):
        checks.append(guarded(f"digest of {name}", partial(_digest, folder, manifest, name)))
    for name in sorted(manifest["tables"]):
        checks.append(guarded(f"table {name}", partial(_table, folder, manifest, name)))
    if names.MODEL in manifest["files"]:
        checks.append(guarded("model", lambda: f"{len(read_model(folder))} arrays, all numbers finite"))
    checks.append(guarded("scenario", lambda: _scenario(manifest)))
    checks.append(guarded("evaluation", lambda: _evaluation(folder)))
    checks.append(guarded("history", lambda: _history(folder, manifest)))
    checks.extend(_claim(folder, manifest))
    return VerificationReport(folder.root, tuple(checks))


def _files(folder: Folder, manifest: dict[str, Any]) -> str:
    present, expected = folder.listing(), {names.MANIFEST, *manifest["files"]}
    missing = sorted((expected | names.REQUIRED) - present)
    extra = sorted(present - expected)
    if missing or extra:
        found = {"missing": missing, "not in the manifest": extra}
        raise ReleaseError("; ".join(f"{what}: {files[:5]!a}" for what, files in found.items() if files))
    return "all files of the manifest are there, and no other"


def _digest(folder: Folder, manifest: dict[str, Any], name: str) -> str:
    check_digest(folder, manifest, name)
    return "SHA-256 as in the manifest"


def _table(folder: Folder, manifest: dict[str, Any], name: str) -> str:
    table = read_table(folder, name)
    if manifest["tables"][name] != {"rows": len(table), "dimensions": table.dimensions}:
        raise ReleaseError(f"table {name} has not the size that manifest.json gives")
    return f"{len(table)} keys for {len(table)} finite vectors of {table.dimensions} numbers"


def _scenario(manifest: dict[str, Any]) -> str:
    from common.config import build_scenario

    if names.scenario_digest(manifest["scenario"]) != manifest["scenario_sha256"]:
        raise ReleaseError("the scenario does not match its digest")
    build_scenario(manifest["scenario"])
    return "valid, digest as in the manifest"


def _evaluation(folder: Folder) -> str:
    return f"{len(parse_scores(folder.read_json(names.EVALUATION)))} scores"


def _history(folder: Folder, manifest: dict[str, Any]) -> str:
    rounds = parse_rounds(folder.read_json(names.ROUNDS))
    found = unpublishable(rounds, _mode(manifest))
    if found:
        raise ReleaseError(f"rounds.json publishes {found!a} without noise")
    return f"{len(rounds)} rounds, public facts only"


def _mode(manifest: dict[str, Any]) -> str:
    privacy = manifest["scenario"].get("privacy")
    return str(privacy.get("mode")) if isinstance(privacy, dict) else "missing"


def _claim(folder: Folder, manifest: dict[str, Any]) -> Iterator[Check]:
    try:
        certificate = folder.read_json(names.CERTIFICATE)
        rounds = parse_rounds(folder.read_json(names.ROUNDS))
    except ReleaseError as error:
        yield Check("certificate", False, error.message)
        return
    entries = [entry.get("rows") for entry in manifest["tables"].values() if isinstance(entry, dict)]
    sizes = {rows for rows in entries if isinstance(rows, int)}
    yield from check_claim(certificate, manifest["scenario"], rounds, row_counts=sizes)
