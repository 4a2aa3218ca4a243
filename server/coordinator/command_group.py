"""What the commands of ``fedembed coordinator`` share: their group, their options, and how they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from server.coordinator.home import Home

coordinator_app = typer.Typer(
    name="coordinator",
    help="Run a coordinator: sites enrol with it, scenarios are submitted to it.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)

HomeOption = Annotated[
    Path, typer.Option("--home", metavar="DIR", envvar="FEDEMBED_COORDINATOR", help="The coordinator's folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
HERE = Path("coordinator")


def answer(json_output: bool, facts: dict[str, Any], text: str) -> None:
    """The facts as one JSON object, or the text."""
    print(json.dumps(facts, default=str) if json_output else text, flush=True)


def opened(folder: Path) -> Home:
    """The coordinator's folder. Raises ``DeploymentError``."""
    from server.coordinator.home import open_home

    return open_home(folder)


def opened_and_up(folder: Path) -> Home:
    """The folder of a coordinator that is up. Raises ``DeploymentError``."""
    from common.deployment.running import is_up
    from common.errors import DeploymentError

    if not is_up((home := opened(folder)).folder):
        raise DeploymentError(
            f"the coordinator in {folder} is not up", remedy=f"fedembed coordinator up --home {folder}"
        )
    return home
