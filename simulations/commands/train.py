"""``fedembed simulate`` and ``fedembed plan``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simulations.commands.output import emit_json, say


class Engine(StrEnum):
    """Where simulated clients run."""

    local = "local"
    ray = "ray"


# What an argument means stands in the command's text: click 8.5 drops the help of typer's arguments.
ScenarioArgument = Annotated[str | None, typer.Argument(metavar="[SCENARIO]", hidden=True)]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, e.g. privacy.epsilon=1; no value: take it out. Repeatable.",
    ),
]
EngineOption = Annotated[
    Engine, typer.Option("--engine", show_default=False, help="local (default): in this process; ray: on Ray.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Public seed of initial values, partition and faults.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def simulate(
    scenario: ScenarioArgument = None,
    *,
    settings: SetOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder of the run and its release.")] = None,
    engine: EngineOption = Engine.local,
    seed: SeedOption = None,
    json_output: JsonOption = False,
) -> None:
    """Run a whole federation on this machine and write a release.

    SCENARIO is a TOML file or a name from `fedembed list scenarios`; without it, the embedded default runs. Nothing
    is downloaded. Progress goes to standard error, the result to standard output.

    Run the same command again to resume after a crash: what was spent stays spent, finished rounds are kept.

    Example: fedembed simulate --set privacy.epsilon=1 --out runs/first
    """
    from simulations import runs
    from simulations.commands import summary
    from simulations.progress import reporter

    telling = reporter(json_output=json_output)
    try:
        result = runs.simulate(
            scenario, out=out, overrides=overrides(settings, seed), engine=engine.value, reporter=telling
        )
    finally:
        telling.done()
    if json_output:
        emit_json(summary.as_json(result))
    else:
        for line in summary.lines(result, runs.find_scenario(scenario, overrides(settings, seed))):
            say(line)


def plan(
    scenario: ScenarioArgument = None,
    *,
    settings: SetOption = None,
    seed: SeedOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show what a run will cost: noise, epsilon for each observer and round, rows, bytes, time.

    No data are read. Time is an estimate: a moment of the same work on made-up records, on this machine.

    SCENARIO is a TOML file or a name from `fedembed list scenarios`; without it, the embedded default.

    Example: fedembed plan my_scenario.toml --set federation.rounds=5
    """
    from simulations import runs
    from simulations.commands import plan_table

    described = runs.plan(scenario, overrides=overrides(settings, seed))
    if json_output:
        emit_json(described)
    else:
        for line in plan_table.lines(described):
            say(line)


def overrides(settings: list[str] | None, seed: int | None) -> list[str]:
    """``--set`` values in the order given, then ``--seed``."""
    return [*(settings or []), *([] if seed is None else [f"seed={seed}"])]
