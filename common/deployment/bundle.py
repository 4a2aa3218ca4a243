"""The bundle: the code that a federation runs, packed by Flower (a FAB) from this installation, always the same way."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.deployment.flower import assemble_app, flower_environment, tail, tool
from common.deployment.settings import NAME
from common.errors import DeploymentError

RUN_KEYS = ("scenario", "out", "benchmarks", "simulation", "coordinator", "bundle")
_DESCRIPTION = "pyproject.toml"


@dataclass(frozen=True)
class Bundle:
    """A packed bundle.

    Attributes:
        content: the FAB, a zip file.
        files: path and SHA-256 of every file in it, in order of path.
    """

    content: bytes
    files: tuple[tuple[str, str], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the file: Flower's name for it."""
        return hashlib.sha256(self.content).hexdigest()


def own_bundle() -> Bundle:
    """The bundle of this installation: the same version of fedembed gives the same bytes everywhere.

    Raises:
        DeploymentError: Flower cannot pack it.
    """
    with tempfile.TemporaryDirectory(prefix="fedembed-bundle-") as name:
        return bundle_of(assemble_app(Path(name) / "app", dict.fromkeys(RUN_KEYS, "")))


def bundle_of(app: Path) -> Bundle:
    """The bundle that Flower makes of an app folder when it is submitted.

    Raises:
        DeploymentError: Flower cannot pack it.
    """
    with tempfile.TemporaryDirectory(prefix="fedembed-bundle-") as name:
        folder = Path(name)
        done = subprocess.run(
            [tool("flwr"), "build", "--app", str(app)],
            cwd=folder,
            env=flower_environment(folder),
            capture_output=True,
            text=True,
            check=False,
        )
        packed = sorted(folder.glob("*.fab"))
        if done.returncode or len(packed) != 1:
            raise DeploymentError(f"Flower could not pack the bundle: {tail(done.stdout + done.stderr)}")
        return read_bundle(packed[0])


def read_bundle(path: Path) -> Bundle:
    """A bundle from its file.

    Raises:
        DeploymentError: not a bundle; or a file in it, or its own name, leaves its folder.
    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
            files = tuple((name, hashlib.sha256(archive.read(name)).hexdigest()) for name in names)
            described = tomllib.loads(archive.read(_DESCRIPTION).decode()) if _DESCRIPTION in names else None
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise DeploymentError(f"cannot read the bundle {path}: {error}") from None
    for name in names:
        if name.startswith("/") or ".." in Path(name).parts or "\\" in name or not name.isprintable():
            raise DeploymentError(f"the bundle {path} has a file outside its folder: {name!r}")
    if described is None or len(set(names)) != len(names):
        raise DeploymentError(f"{path} is no bundle: it has no {_DESCRIPTION}, or a file twice")
    _check_name(path, described)
    return Bundle(content, files)


def _check_name(path: Path, described: Mapping[str, Any]) -> None:
    """Flower unpacks a bundle into a folder that is named after its publisher, name and version."""
    try:
        project = described["project"]
        parts = [str(described["tool"]["flwr"]["app"]["publisher"]), str(project["name"]), str(project["version"])]
    except (KeyError, TypeError):
        parts = [""]
    wrong = [part for part in parts if not NAME.fullmatch(part)]
    if wrong:
        raise DeploymentError(f"the bundle {path} has a publisher, name or version that is none: {wrong[0]!r}")
