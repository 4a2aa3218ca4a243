"""``fedembed coordinator submit|resume|stop|logs|runs``: the runs on a coordinator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.coordinator.command_group import (
    HERE,
    HomeOption,
    JsonOption,
    answer,
    coordinator_app,
    opened,
    opened_and_up,
)

if TYPE_CHECKING:
    from server.coordinator.home import Home

RunArgument = Annotated[str, typer.Argument(metavar="RUN", hidden=True)]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the run until it ends; exit code 11 if it fails.")]


@coordinator_app.command("submit")
def submit(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO", hidden=True)],
    *,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting. Repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="RUN", help="Of the run; by default the time.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run until it ends; exit code 11 if it fails.")
    ] = False,
    home: HomeOption = HERE,
    json_output: JsonOption = False,
) -> None:
    """Start a run. SCENARIO is a TOML file; sites read their own data, whatever path stands in it.

    Example: fedembed coordinator submit words.toml --set privacy.epsilon=2 --wait
    """
    from common.config import read_scenario
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    found = opened_and_up(home)
    run = runs.submit(found, read_scenario(scenario, settings or ()), environment_of(found), name=name)
    answer(json_output and not wait, {"run": run.name, "folder": run.folder}, f"run {run.name}, in {run.folder}")
    if wait:
        _follow(found, run.name, json_output)


@coordinator_app.command("resume")
def resume(
    run: RunArgument,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run until it ends; exit code 11 if it fails.")
    ] = False,
    home: HomeOption = HERE,
    json_output: JsonOption = False,
) -> None:
    """Take a run up again after its last checkpoint. RUN is the name that `submit` printed.

    What sites have spent stays spent, under the same run; rounds that are on disk are not repeated.

    Example: fedembed coordinator resume 20261122-101500-9f2c --wait
    """
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    found = opened_and_up(home)
    again = runs.resume(found, run, environment_of(found))
    answer(
        json_output and not wait,
        {"run": run, "from_round": again.rounds_done},
        f"{run}: on after round {again.rounds_done}",
    )
    if wait:
        _follow(found, run, json_output)


@coordinator_app.command("stop")
def stop(run: RunArgument, *, home: HomeOption = HERE) -> None:
    """Stop a run. RUN is its name; its checkpoint stays, and `resume` goes on from there.

    Example: fedembed coordinator stop 20261122-101500-9f2c
    """
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    found = opened_and_up(home)
    runs.stop(found, run, environment_of(found))
    print(f"{run}: stopped")


@coordinator_app.command("logs")
def logs(run: RunArgument, *, home: HomeOption = HERE) -> None:
    """Print what a run told, one JSON object a line. RUN is its name.

    Example: fedembed coordinator logs 20261122-101500-9f2c
    """
    from common.deployment.journal import Journal
    from server.coordinator import runs
    from server.progress import ROUNDS_FILE

    found = runs.run_named(opened(home), run)
    for line in Journal(found.folder / ROUNDS_FILE).read():
        print(json.dumps(line))


@coordinator_app.command("runs")
def list_runs(*, home: HomeOption = HERE, json_output: JsonOption = False) -> None:
    """List the runs: rounds that are on disk, and what Flower says of the last submission.

    Example: fedembed coordinator runs
    """
    found = opened(home)
    rows = run_rows(found)
    lines = [f"{row['run']:<32}{row['rounds']:<12}{row['status']}" for row in rows]
    answer(json_output, {"runs": rows}, "\n".join(lines) or "no run was submitted")


def run_rows(home: Home) -> list[dict[str, Any]]:
    """Run by run: rounds on disk, what Flower says of it, and whether its release is there."""
    from common.deployment.running import is_up
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    reachable, rows = is_up(home.folder), []
    for run in runs.runs(home):
        said = runs.status(run, environment_of(home)) if reachable else "the coordinator is down"
        total = run.scenario.federation.rounds
        rows.append({"run": run.name, "rounds": f"{run.rounds_done}/{total}", "status": said, "released": run.released})
    return rows


def _follow(home: Home, name: str, json_output: bool) -> None:
    import sys

    from server.coordinate import RELEASE_FOLDER
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    for line in runs.follow(home, name, environment_of(home)):
        print(json.dumps(line), file=sys.stderr, flush=True)
    run = runs.run_named(home, name)
    answer(
        json_output, {"run": name, "release": run.folder / RELEASE_FOLDER}, f"release in {run.folder / RELEASE_FOLDER}"
    )
