"""Runs as a caller asks for them: find the scenario, choose the folder, simulate or plan."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.discovery import nearest
from common.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from common.config import Scenario
    from common.evaluation.report.audit_record import AuditRecord
    from server.progress import Reporter
    from simulations.audit.adversary import Adversary
    from simulations.federation import SimulationResult

DEFAULT_SCENARIO = "default"
ENGINES = ("local", "ray")
RUNS_FOLDER = "fedembed-runs"


def shipped_scenarios() -> list[str]:
    """Names of the scenarios that are installed with fedembed, sorted."""
    folder = resources.files("simulations") / "scenarios"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def find_scenario(scenario: str | Path | None = None, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario: a TOML file, the name of a shipped one, or the embedded default for ``None``.

    Whatever ends in ``.toml`` or has a folder in it is a file; everything else is a name.

    Raises:
        ConfigError: no such file or name (with the nearest known one), or the scenario is refused.
        UsageError: an override is not ``section.key=value``.
    """
    from common.config import read_scenario

    name = DEFAULT_SCENARIO if scenario is None else str(scenario)
    if name.endswith(".toml") or Path(name).name != name:
        return read_scenario(Path(name), overrides)
    known = shipped_scenarios()
    if name not in known:
        raise ConfigError(
            f"no scenario named {name!r}{nearest(name, known)}",
            remedy=f"Shipped scenarios: {', '.join(known) or 'none'}; or give the path of a .toml file.",
        )
    with resources.as_file(resources.files("simulations") / "scenarios" / f"{name}.toml") as path:
        return read_scenario(path, overrides)


def default_out(scenario: str | Path | None, resolved: Scenario) -> Path:
    """Folder of a run without ``--out``: the same command names the same folder, so that a rerun resumes."""
    name = DEFAULT_SCENARIO if scenario is None else Path(scenario).stem
    return Path(RUNS_FOLDER) / f"{name}-{resolved.digest[:8]}"


def audit_out(scenario: str | Path | None, resolved: Scenario) -> Path:
    """Folder for the record of an audit without ``--out``."""
    run = default_out(scenario, resolved)
    return run.with_name(f"audit-{run.name}")


def simulate(
    scenario: str | Path | Scenario | None = None,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    engine: str = "local",
    reporter: Reporter | None = None,
) -> SimulationResult:
    """Run a whole federation on this machine and write the release; a rerun resumes an interrupted run.

    Args:
        scenario: TOML file, shipped name, ``Scenario`` object, or ``None`` for the embedded default.
        out: folder of the run; by default ``fedembed-runs/<name>-<digest>`` in the working folder.
        overrides: ``section.key=value`` strings; not allowed beside a ``Scenario`` object.
        engine: ``local`` (in this process) or ``ray`` (Flower's simulation; needs the extra ``[ray]``).
        reporter: told what happens; by default nobody is.

    Raises:
        FedembedError: the subclass tells the kind of failure.
    """
    from simulations.federation import run_simulation
    from simulations.progress import Silent

    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}{nearest(engine, list(ENGINES))}")
    resolved = _resolved(scenario, overrides)
    name = scenario if isinstance(scenario, (str, Path)) else None
    folder = Path(out) if out is not None else default_out(name, resolved)
    return run_simulation(resolved, out=folder, engine=engine, reporter=reporter or Silent())


def plan(scenario: str | Path | Scenario | None = None, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a run will cost: noise, rows, epsilon per observer and round, bytes, time.

    No data are read. The time is an estimate: a moment of the same work on made-up records, on this machine.

    Raises:
        FedembedError: the scenario is refused; the subclass tells why.
    """
    from simulations.cost import describe

    return describe(_resolved(scenario, overrides))


def audit(
    scenario: str | Path | Scenario | None = None,
    *,
    overrides: Sequence[str] = (),
    canaries: int = 1000,
    seed: int | None = None,
    adversary: Adversary | None = None,
    reporter: Reporter | None = None,
) -> AuditRecord:
    """Train a scenario with canaries, attack it and judge its claim; nothing is written.

    Args:
        canaries: how many are planted of every design.
        seed: of who is planted; by default from the operating system.
        adversary: ``simulations.audit.adversary.Adversary``: how many tables it trains itself, files with answers.

    Raises:
        FedembedError: the subclass tells the kind of failure.
    """
    from simulations.audit.record import record_of
    from simulations.audit.scenario import audit_scenario
    from simulations.progress import Silent

    resolved = _resolved(scenario, overrides)
    name = scenario if isinstance(scenario, (str, Path)) else None
    result = audit_scenario(resolved, reporter=reporter or Silent(), canaries=canaries, seed=seed, adversary=adversary)
    return record_of(result, str(name or DEFAULT_SCENARIO))


def _resolved(scenario: str | Path | Scenario | None, overrides: Sequence[str]) -> Scenario:
    if scenario is None or isinstance(scenario, (str, Path)):
        return find_scenario(scenario, overrides)
    if overrides:
        raise UsageError("overrides belong to a scenario that is read, not to a Scenario object")
    return scenario
