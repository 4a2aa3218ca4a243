"""The bundle: the code that a federation runs, packed by Flower (a FAB) from this installation, always the same way."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from common.deployment.flower import assemble_app, flower_environment, tail, tool
from common.errors import DeploymentError

RUN_KEYS = ("scenario", "out", "benchmarks", "simulation", "coordinator", "bundle")


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
        folder = Path(name)
        app = assemble_app(folder / "app", dict.fromkeys(RUN_KEYS, ""))
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
        DeploymentError: not a bundle, or a file in it leaves its folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(info.filename for info in archive.infolist() if not info.is_dir())
            files = tuple((name, hashlib.sha256(archive.read(name)).hexdigest()) for name in names)
    except (OSError, zipfile.BadZipFile) as error:
        raise DeploymentError(f"cannot read the bundle {path}: {error}") from None
    for name in names:
        if name.startswith("/") or ".." in Path(name).parts or "\\" in name:
            raise DeploymentError(f"the bundle {path} has a file outside its folder: {name!r}")
    if "pyproject.toml" not in names:
        raise DeploymentError(f"{path} is no bundle: it has no pyproject.toml")
    return Bundle(path.read_bytes(), files)
