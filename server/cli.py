"""``fedembed coordinator``: set up, run and watch a coordinator, and the runs on it."""

from __future__ import annotations

import json
from dataclasses import asdict
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
NameArgument = Annotated[str, typer.Argument(metavar="NAME", hidden=True)]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", hidden=True)]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", hidden=True)]
_HERE = Path("coordinator")


@coordinator_app.command("init")
def init(
    *,
    host: Annotated[
        list[str], typer.Option("--host", metavar="NAME", help="Name or address that sites know. Repeatable.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The coordinator's name.")] = "coordinator",
    bind: Annotated[str, typer.Option("--bind", metavar="ADDRESS", help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="That sites connect to.")] = 8443,
    first_port: Annotated[int, typer.Option("--loopback-port", metavar="PORT", help="First of three.")] = 18000,
    home: HomeOption = _HERE,
    json_output: JsonOption = False,
) -> None:
    """Make a coordinator's folder: authority, server certificate, secrets, settings, and an invitation for sites.

    Nothing is started. An existing folder is never touched.

    Example: fedembed coordinator init --host coordinator.example.org
    """
    from common.deployment.certificates import fingerprint
    from server.coordinator import home as homes

    made = homes.make_home(home, name, host, bind=bind, port=port, first_port=first_port)
    invitation = made.inside(homes.INVITATION_FILE)
    shown = fingerprint(made.authority_file.read_bytes())
    _answer(
        json_output,
        {"home": made.folder, "invitation": invitation, "authority_sha256": shown},
        f"{made.folder} is ready. Settings: {made.inside(homes.SETTINGS_FILE)}\n"
        f"Give {invitation} to the sites; tell them on another way that its authority is\n  {shown}\n"
        f"Then: fedembed coordinator up --home {home}",
    )


@coordinator_app.command("renew")
def renew(*, home: HomeOption = _HERE) -> None:
    """Make a new server certificate, for the names in coordinator.toml; sites need not do anything.

    Example: fedembed coordinator renew
    """
    from common.deployment.certificates import expires
    from server.coordinator import home as homes

    found = homes.open_home(home)
    homes.write_server_certificate(found)
    print(f"valid until {expires(found.inside('tls', 'server.crt').read_bytes()):%Y-%m-%d}; restart the coordinator")


@coordinator_app.command("up")
def up(*, home: HomeOption = _HERE) -> None:
    """Run the coordinator until it is told to stop (Ctrl-C, SIGTERM): SuperLink, executor, TLS proxy.

    What ends by itself is started again. Logs are in the folder `logs`, health and metrics on loopback.

    Example: fedembed coordinator up
    """
    from common.deployment.journal import Journal
    from server.coordinator.home import open_home
    from server.coordinator.processes import up as run

    found = open_home(home)
    public = found.settings.public
    print(f"coordinator {found.settings.name!r} on port {public.port}; stop it with Ctrl-C", flush=True)
    run(found, Journal(found.inside("logs", "coordinator.jsonl")))


@coordinator_app.command("enroll")
def enroll(request: FileArgument, *, home: HomeOption = _HERE, json_output: JsonOption = False) -> None:
    """Take a site's request in. FILE is the site's enrolment.json. The site can do nothing before it is approved.

    Example: fedembed coordinator enroll north/enrolment.json
    """
    from server.coordinator import sites
    from server.coordinator.home import open_home

    site = sites.enroll(open_home(home), request)
    _answer(
        json_output,
        asdict(site),
        f"{site.name}: {site.status}\nIts identity, to compare with the site: {site.identity}\n"
        f"Then: fedembed coordinator approve {site.name}",
    )


@coordinator_app.command("approve")
def approve(name: NameArgument, *, home: HomeOption = _HERE, json_output: JsonOption = False) -> None:
    """Let an enrolled site NAME connect; at once where the coordinator is up.

    Example: fedembed coordinator approve north
    """
    _decide(name, "approved", home, json_output)


@coordinator_app.command("revoke")
def revoke(name: NameArgument, *, home: HomeOption = _HERE, json_output: JsonOption = False) -> None:
    """Let a site NAME connect no longer; at once where the coordinator is up.

    Example: fedembed coordinator revoke north
    """
    _decide(name, "revoked", home, json_output)


def _decide(name: str, status: str, folder: Path, json_output: bool) -> None:
    from server.coordinator import sites
    from server.coordinator.processes import environment_of, is_up

    home = _opened(folder)
    site = sites.decide(home, name, status)
    if is_up(home):
        sites.register(home, environment_of(home))
    _answer(json_output, asdict(site), f"{name}: {status}" + ("" if is_up(home) else " (when the coordinator is up)"))


@coordinator_app.command("sites")
def list_sites(*, home: HomeOption = _HERE, json_output: JsonOption = False) -> None:
    """List the sites, and which are connected.

    Example: fedembed coordinator sites
    """
    from server.coordinator import sites
    from server.coordinator.processes import environment_of, is_up

    found = _opened(home)
    known = sites.registered(found, environment_of(found)) if is_up(found) else {}
    rows = [{**asdict(s), "node": known.get(s.name, {}).get("status", "not up")} for s in sites.sites(found)]
    lines = [f"{row['name']:<24}{row['status']:<10}{row['node']}" for row in rows]
    _answer(json_output, {"sites": rows}, "\n".join(lines) or "no site has enrolled")


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
    home: HomeOption = _HERE,
    json_output: JsonOption = False,
) -> None:
    """Start a run. SCENARIO is a TOML file; sites read their own data, whatever path stands in it.

    Example: fedembed coordinator submit words.toml --set privacy.epsilon=2 --wait
    """
    from common.config import read_scenario
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    found = _opened(home)
    run = runs.submit(found, read_scenario(scenario, settings or ()), environment_of(found), name=name)
    _answer(json_output and not wait, {"run": run.name, "folder": run.folder}, f"run {run.name}, in {run.folder}")
    if wait:
        _follow(found, run.name, json_output)


@coordinator_app.command("resume")
def resume(
    run: RunArgument,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run until it ends; exit code 11 if it fails.")
    ] = False,
    home: HomeOption = _HERE,
    json_output: JsonOption = False,
) -> None:
    """Take a run up again after its last checkpoint. RUN is the name that `submit` printed.

    What sites have spent stays spent, under the same run; rounds that are on disk are not repeated.

    Example: fedembed coordinator resume 20261122-101500-9f2c --wait
    """
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    found = _opened(home)
    again = runs.resume(found, run, environment_of(found))
    _answer(
        json_output and not wait,
        {"run": run, "from_round": again.rounds_done},
        f"{run}: on after round {again.rounds_done}",
    )
    if wait:
        _follow(found, run, json_output)


@coordinator_app.command("stop")
def stop(run: RunArgument, *, home: HomeOption = _HERE) -> None:
    """Stop a run. RUN is its name; its checkpoint stays, and `resume` goes on from there.

    Example: fedembed coordinator stop 20261122-101500-9f2c
    """
    from server.coordinator import runs
    from server.coordinator.processes import environment_of

    found = _opened(home)
    runs.stop(found, run, environment_of(found))
    print(f"{run}: stopped")


@coordinator_app.command("logs")
def logs(run: RunArgument, *, home: HomeOption = _HERE) -> None:
    """Print what a run told, one JSON object a line. RUN is its name.

    Example: fedembed coordinator logs 20261122-101500-9f2c
    """
    from common.deployment.journal import Journal
    from server.coordinator import runs
    from server.progress import ROUNDS_FILE

    found = runs.run_named(_opened(home), run)
    for line in Journal(found.folder / ROUNDS_FILE).read():
        print(json.dumps(line))


@coordinator_app.command("runs")
def list_runs(*, home: HomeOption = _HERE, json_output: JsonOption = False) -> None:
    """List the runs: rounds that are on disk, and what Flower says of the last submission.

    Example: fedembed coordinator runs
    """
    found = _opened(home)
    rows = _run_rows(found)
    lines = [f"{row['run']:<32}{row['rounds']:<12}{row['status']}" for row in rows]
    _answer(json_output, {"runs": rows}, "\n".join(lines) or "no run was submitted")


@coordinator_app.command("status")
def status(*, home: HomeOption = _HERE, json_output: JsonOption = False) -> None:
    """Say what is up, which sites are connected and how the runs stand. Exit code 18 where the coordinator is down.

    Example: fedembed coordinator status
    """
    from common.deployment.watching import is_serving
    from common.errors import DeploymentError
    from server.coordinator import sites
    from server.coordinator.processes import PROGRAMS, environment_of, is_up

    found = _opened(home)
    if not is_up(found):
        raise DeploymentError(f"the coordinator in {home} is not up", remedy=f"fedembed coordinator up --home {home}")
    port = found.settings.loopback.health_port
    health = {name: is_serving(port, name) for name in PROGRAMS}
    known = sites.registered(found, environment_of(found))
    rows = [
        {"site": s.name, "status": s.status, "node": known.get(s.name, {}).get("status")} for s in sites.sites(found)
    ]
    run_rows = _run_rows(found)
    lines = [f"{name:<12}{'up' if fine else 'DOWN'}" for name, fine in health.items()]
    lines += [f"site {row['site']:<20}{row['status']:<10}{row['node'] or 'never connected'}" for row in rows]
    lines += [f"run {row['run']:<32}{row['rounds']:<12}{row['status']}" for row in run_rows]
    _answer(json_output, {"programs": health, "sites": rows, "runs": run_rows}, "\n".join(lines))


def _run_rows(home: Home) -> list[dict[str, Any]]:
    from server.coordinator import runs
    from server.coordinator.processes import environment_of, is_up

    reachable, rows = is_up(home), []
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
    _answer(
        json_output, {"run": name, "release": run.folder / RELEASE_FOLDER}, f"release in {run.folder / RELEASE_FOLDER}"
    )


def _opened(folder: Path) -> Home:
    from server.coordinator.home import open_home

    return open_home(folder)


def _answer(json_output: bool, facts: dict[str, Any], text: str) -> None:
    print(json.dumps(facts, default=str) if json_output else text, flush=True)
