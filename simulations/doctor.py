"""``fedembed doctor``: what is installed, what will be used, and what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tomllib
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any

import typer

from simulations.commands.output import bytes_shown, emit_json, say
from simulations.doctor_deployment import examined_folder, examined_programs
from simulations.finding import Finding

_EXTRAS = {
    "ray": ("ray", "simulations on a Ray cluster: `fedembed simulate --engine ray`"),
    "gensim": ("bench", "comparison with gensim's word2vec in the benchmarks, and a test of the exported files"),
    "implicit": ("bench", "comparison with implicit's ALS in the benchmarks"),
}
_FOLDER_VARIABLES = ("FEDEMBED_COORDINATOR", "FEDEMBED_AGENT")
_LOW_DISK_BYTES = 2_000_000_000


def command(
    *,
    home: Annotated[
        list[Path] | None,
        typer.Option("--home", metavar="DIR", help="A coordinator's or an agent's folder. Repeatable."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Say what is installed, which device will be used and what is missing.

    With --home (or FEDEMBED_COORDINATOR, FEDEMBED_AGENT) also how a deployment's folder stands: storage of messages,
    certificates, who may read keys and write approved code. Exits with 0 unless something must be repaired.
    """
    named = [Path(os.environ[name]) for name in _FOLDER_VARIABLES if os.environ.get(name)]
    findings = list(examined())
    for folder in home or named:
        findings += examined_folder(folder)
    healthy = all(f.level != "missing" for f in findings)
    if json_output:
        emit_json({"healthy": healthy, "findings": findings})
    else:
        width = max(len(f.topic) for f in findings)
        marks = {"ok": " ", "note": "!", "missing": "X"}
        for f in findings:
            say(f"{marks[f.level]} {f.topic.ljust(width)}  {f.found}")
        say("Everything that fedembed requires is here." if healthy else "Lines marked X must be repaired.")
    if not healthy:
        raise typer.Exit(1)


def version() -> str:
    """Version of the installed fedembed, or of the checkout that this file lies in."""
    try:
        return metadata.version("fedembed")
    except metadata.PackageNotFoundError:
        return str(_checkout_project().get("version", "unknown"))


def examined() -> Iterator[Finding]:
    """Look at everything, cheapest first; imports torch."""
    yield Finding("fedembed", version())
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for requirement in requirements():
        yield examined_requirement(requirement)
    yield from _examined_extras()
    yield from examined_programs()
    yield _examined_device()
    yield _examined_threads()
    yield _examined_disk(Path.cwd())
    yield _examined_telemetry()


def requirements() -> list[str]:
    """What fedembed requires, as written in its metadata; extras left out."""
    try:
        declared = metadata.requires("fedembed") or []
    except metadata.PackageNotFoundError:
        declared = list(_checkout_project().get("dependencies", []))
    return [r for r in declared if "extra ==" not in r]


def _checkout_project() -> dict[str, Any]:
    file = Path(__file__).resolve().parent.parent / "pyproject.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))["project"] if file.is_file() else {}


def examined_requirement(requirement: str) -> Finding:
    """Whether a requirement such as ``numpy>=2.0`` is installed in a version that fits."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0]
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, f"not installed: pip install '{requirement}'", "missing")
    if not _fits(installed, requirement):
        return Finding(name, f"{installed} does not fit: pip install '{requirement}'", "missing")
    return Finding(name, installed)


def _fits(installed: str, requirement: str) -> bool:
    if util.find_spec("packaging") is None:
        return True  # presence is all that can be checked; flwr, which brings packaging, is then reported missing
    from packaging.requirements import Requirement

    return Requirement(requirement).specifier.contains(installed, prereleases=True)


def _examined_extras() -> Iterator[Finding]:
    for name, (extra, purpose) in _EXTRAS.items():
        try:
            yield Finding(name, f"{metadata.version(name)} (optional)")
        except metadata.PackageNotFoundError:
            yield Finding(name, f"not installed, optional: {purpose}; pip install 'fedembed[{extra}]'", "note")


def _examined_device() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("device", f"torch cannot be imported: {str(error).splitlines()[0]}", "missing")
    if not torch.cuda.is_available():
        return Finding("device", "cpu (no CUDA device that torch can use)")
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return Finding("device", f"cuda: {name}, {bytes_shown(free)} of {bytes_shown(total)} free")


def _examined_threads() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS")
    suffix = f"; OMP_NUM_THREADS limits torch to {limit}" if limit else ""
    return Finding("cpu threads", f"{usable} usable{suffix}")


def _examined_disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    level = "ok" if free >= _LOW_DISK_BYTES else "note"
    return Finding("free disk", f"{bytes_shown(free)} in {folder}", level)


def _examined_telemetry() -> Finding:
    if os.environ.get("FLWR_TELEMETRY_ENABLED", "1") == "1":
        return Finding(
            "telemetry", "Flower's usage reports are on; set FLWR_TELEMETRY_ENABLED=0 to turn them off", "note"
        )
    return Finding("telemetry", "Flower's usage reports are off")
