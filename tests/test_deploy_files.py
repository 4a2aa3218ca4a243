"""What is in deploy/: units that systemd takes, and a valid container file that does not run as root."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
UNITS = ("coordinator.service", "agent.service")
HARDENING = ("NoNewPrivileges=yes", "ProtectSystem=strict", "KillMode=control-group", "Restart=on-failure", "User=")
INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def verified(unit: Path, folder: Path) -> str:
    """What systemd finds wrong with a unit, of which the command and the account are replaced by some that exist."""
    text = unit.read_text().replace("/opt/fedembed/bin/fedembed", "/bin/true")
    copy = folder / unit.name
    copy.write_text(re.sub(r"^User=.*", "User=root", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    return "".join(line for line in done.stderr.splitlines(keepends=True) if unit.name in line)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units_and_would_say_what_is_wrong(name: str, tmp_path: Path) -> None:
    assert verified(DEPLOY / name, tmp_path) == ""
    broken = tmp_path / "broken" / name
    broken.parent.mkdir()
    broken.write_text((DEPLOY / name).read_text().replace("KillMode=control-group", "KillMode=everything"))
    assert "kill mode" in verified(broken, tmp_path)


@pytest.mark.parametrize("name", UNITS)
def test_the_units_confine_what_they_start(name: str) -> None:
    lines = (DEPLOY / name).read_text().splitlines()
    assert [want for want in HARDENING if not any(line.startswith(want) for line in lines)] == []


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, the rest) of a container file; lines that go on are one, comments are left out."""
    whole = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(line.split()[0], line.partition(" ")[2]) for line in whole.splitlines() if line.strip()]


def wrong_with(text: str, root: Path) -> list[str]:
    """Unknown instructions, copied files that are not in the repository, and a container that runs as root."""
    found = instructions(text)
    wrong = [f"unknown: {name}" for name, _ in found if name not in INSTRUCTIONS]
    copied = [source for name, rest in found if name == "COPY" for source in rest.split()[:-1]]
    wrong += [f"not there: {source}" for source in copied if not (root / source).exists()]
    users = [rest for name, rest in found if name == "USER"]
    return [*wrong, *([] if users and users[-1] not in ("root", "0") else ["it runs as root"])]


def test_the_container_file_is_valid_and_leaves_root(root: Path) -> None:
    text = (DEPLOY / "Containerfile").read_text()
    assert wrong_with(text, root) == []
    assert wrong_with(text.replace("USER fedembed", "USER root"), root) == ["it runs as root"]
    assert wrong_with(text.replace("WORKDIR", "WORKFOLDER"), root) == ["unknown: WORKFOLDER"] * 2
    assert wrong_with(text.replace("./client", "./clients").replace("COPY client", "COPY clients"), root) == [
        "not there: clients"
    ]


def linted(hadolint: str, text: str) -> str:
    """What hadolint says of a container file, informations aside; nothing where it is content."""
    ignored = ["--ignore", "DL3008", "--failure-threshold", "warning"]  # Debian removes the versions that it mends
    command = [hadolint, "--no-color", *ignored, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_hadolint_finds_nothing_and_would_say_what_is_wrong() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    found = str(beside) if beside.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed")
    text = (DEPLOY / "Containerfile").read_text()
    assert linted(found, text) == ""
    assert "DL3002" in linted(found, text.replace("USER fedembed", "USER root"))
