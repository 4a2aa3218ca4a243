"""Peers in environments of their own: their pins conflict with ours and with one another's.

An environment is made once in the folder that ``--peers DIR`` or ``FEDEMBED_PEERS`` names, and found there again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DependencyError

FOLDER_VARIABLE = "FEDEMBED_PEERS"
INSTALL_TIMEOUT_S, RUN_TIMEOUT_S = 1800.0, 1800.0
READY = "requirements.txt"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Peer:
    """Software to compare with: what to install, and the script (beside this module) that does the work with it."""

    name: str
    requirements: tuple[str, ...]
    script: str


def folder() -> Path | None:
    """Where environments of peers are kept; ``None`` when nobody asked for a comparison with peers."""
    value = os.environ.get(FOLDER_VARIABLE, "")
    return Path(value).expanduser().resolve() if value else None


def interpreter(peer: Peer, directory: Path) -> Path:
    """The Python of the peer's environment, made now where it is missing: minutes, and a download.

    Raises:
        DependencyError: the environment cannot be made.
    """
    digest = hashlib.sha256("\n".join(peer.requirements).encode()).hexdigest()[:8]
    home = directory / f"{peer.name}-{digest}"
    python = home / "bin" / "python"
    if not (home / READY).is_file():
        print(f"making an environment for {peer.name} in {home}", file=sys.stderr)
        _checked([sys.executable, "-m", "venv", "--clear", str(home)], INSTALL_TIMEOUT_S)
        _checked([str(python), "-m", "pip", "install", "--quiet", *peer.requirements], INSTALL_TIMEOUT_S)
        (home / READY).write_text("\n".join(peer.requirements) + "\n", encoding="utf-8")
    return python


def run_peer(peer: Peer, directory: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that the peer's script prints for ``job``. Raises ``DependencyError``."""
    return _result([str(interpreter(peer, directory)), str(Path(__file__).parent / peer.script)], job)


def run_ours(module: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that ``python -m module JOB`` prints, run by this Python. Raises ``DependencyError``."""
    return _result([sys.executable, "-m", module], job, search=(str(ROOT),))


def _result(command: Sequence[str], job: Mapping[str, Any], search: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in the last line that ``command JOB`` prints."""
    output = _checked([*command, json.dumps(dict(job))], RUN_TIMEOUT_S, search)
    try:
        result = json.loads(output.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise DependencyError(f"{command[0]} printed no result") from None
    return dict(result)


def _checked(command: Sequence[str], timeout_s: float, search: Sequence[str] = ()) -> str:
    with tempfile.TemporaryDirectory() as home:
        try:
            done = subprocess.run(
                list(command),
                cwd=home,
                env=_environment(home, search),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise DependencyError(f"{command[0]} did not end within {timeout_s:g} s") from None
        except (subprocess.CalledProcessError, OSError) as error:
            tail = "\n".join(str(getattr(error, "stderr", "") or error).strip().splitlines()[-8:])
            raise DependencyError(f"{' '.join(command[:4])} failed:\n{tail}") from None
    return done.stdout


def _environment(home: str, search: Sequence[str]) -> dict[str, str]:
    """Every side has all cores, whatever limits this process has; Flower and Ray keep to ``home`` and call nobody."""
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **{name: value for name, value in os.environ.items() if name not in limits},
        "PYTHONPATH": os.pathsep.join(search),
        "FLWR_HOME": str(Path(home) / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
