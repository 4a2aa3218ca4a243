"""``fedembed coordinator``: set up, run and watch a coordinator; ``run_commands`` has the runs on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

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
from server.coordinator.run_commands import run_rows

__all__ = ["coordinator_app"]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", hidden=True)]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", hidden=True)]


@coordinator_app.command("init")
def init(  # exception: every parameter is an option of the command
    *,
    host: Annotated[
        list[str], typer.Option("--host", metavar="NAME", help="Name or address that sites know. Repeatable.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The coordinator's name.")] = "coordinator",
    bind: Annotated[str, typer.Option("--bind", metavar="ADDRESS", help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="That sites connect to.")] = 8443,
    first_port: Annotated[int, typer.Option("--loopback-port", metavar="PORT", help="First of three.")] = 18000,
    home: HomeOption = HERE,
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
    answer(
        json_output,
        {"home": made.folder, "invitation": invitation, "authority_sha256": shown},
        f"{made.folder} is ready. Settings: {made.inside(homes.SETTINGS_FILE)}\n"
        f"Give {invitation} to the sites; tell them on another way that its authority is\n  {shown}\n"
        f"Then: fedembed coordinator up --home {home}",
    )


@coordinator_app.command("renew")
def renew(*, home: HomeOption = HERE) -> None:
    """Make a new server certificate, for the names in coordinator.toml; sites need not do anything.

    Example: fedembed coordinator renew
    """
    from common.deployment.certificates import expires
    from server.coordinator import home as homes

    found = opened(home)
    homes.write_server_certificate(found)
    print(f"valid until {expires(found.inside('tls', 'server.crt').read_bytes()):%Y-%m-%d}; restart the coordinator")


@coordinator_app.command("up")
def up(*, home: HomeOption = HERE) -> None:
    """Run the coordinator until it is told to stop (Ctrl-C, SIGTERM): SuperLink, executor, TLS proxy.

    What ends by itself is started again. Logs are in the folder `logs`, health and metrics on loopback.

    Example: fedembed coordinator up
    """
    from common.deployment.journal import Journal
    from server.coordinator.processes import up as run

    found = opened(home)
    public = found.settings.public
    print(f"coordinator {found.settings.name!r} on port {public.port}; stop it with Ctrl-C", flush=True)
    run(found, Journal(found.inside("logs", "coordinator.jsonl")))


@coordinator_app.command("enroll")
def enroll(request: FileArgument, *, home: HomeOption = HERE, json_output: JsonOption = False) -> None:
    """Take a site's request in. FILE is the site's enrolment.json. The site can do nothing before it is approved.

    Example: fedembed coordinator enroll north/enrolment.json
    """
    from server.coordinator import sites

    found = opened(home)
    site = sites.enroll(found, request)
    former = [f"\nKeys of a site of this name were revoked at {s.since}" for s in sites.revoked(found, site.name)]
    answer(
        json_output,
        asdict(site),
        f"{site.name}: {site.status}{''.join(former)}\nIts identity, to compare with the site: {site.identity}\n"
        f"Then: fedembed coordinator approve {site.name}",
    )


@coordinator_app.command("approve")
def approve(name: NameArgument, *, home: HomeOption = HERE, json_output: JsonOption = False) -> None:
    """Let an enrolled site NAME connect; at once where the coordinator is up.

    Example: fedembed coordinator approve north
    """
    _decide(name, "approved", home, json_output)


@coordinator_app.command("revoke")
def revoke(name: NameArgument, *, home: HomeOption = HERE, json_output: JsonOption = False) -> None:
    """Let a site NAME connect no longer; at once where the coordinator is up.

    Example: fedembed coordinator revoke north
    """
    _decide(name, "revoked", home, json_output)


def _decide(name: str, status: str, folder: Path, json_output: bool) -> None:
    from common.deployment.running import is_up
    from common.errors import DeploymentError
    from server.coordinator import sites
    from server.coordinator.processes import environment_of

    home = opened(folder)
    site = sites.decide(home, name, status)
    if is_up(home.folder):
        try:
            sites.register(home, environment_of(home))
        except DeploymentError as error:
            raise DeploymentError(
                f"{name} is {status} in {home.folder}, but {error.message}",
                remedy="Repeat the command; the coordinator does so by itself when its SuperLink starts again.",
            ) from None
    answer(
        json_output, asdict(site), f"{name}: {status}" + ("" if is_up(home.folder) else " (when the coordinator is up)")
    )


@coordinator_app.command("sites")
def list_sites(*, home: HomeOption = HERE, json_output: JsonOption = False) -> None:
    """List the sites, and which are connected.

    Example: fedembed coordinator sites
    """
    from common.deployment.running import is_up
    from server.coordinator import sites
    from server.coordinator.processes import environment_of

    found = opened(home)
    known = sites.registered(found, environment_of(found)) if is_up(found.folder) else {}
    rows = [{**asdict(s), "node": known.get(s.name, {}).get("status", "not up")} for s in sites.sites(found)]
    lines = [f"{row['name']:<24}{row['status']:<10}{row['node']}" for row in rows]
    answer(json_output, {"sites": rows}, "\n".join(lines) or "no site has enrolled")


@coordinator_app.command("status")
def status(*, home: HomeOption = HERE, json_output: JsonOption = False) -> None:
    """Say what is up, which sites are connected and how the runs stand. Exit code 18 where the coordinator is down.

    Example: fedembed coordinator status
    """
    from common.deployment.watching import is_serving
    from server.coordinator import sites
    from server.coordinator.processes import PROGRAMS, environment_of

    found = opened_and_up(home)
    port = found.settings.loopback.health_port
    health = {name: is_serving(port, name) for name in PROGRAMS}
    known = sites.registered(found, environment_of(found))
    rows = [
        {"site": s.name, "status": s.status, "node": known.get(s.name, {}).get("status")} for s in sites.sites(found)
    ]
    listed = run_rows(found)
    lines = [f"{name:<12}{'up' if fine else 'DOWN'}" for name, fine in health.items()]
    lines += [f"site {row['site']:<20}{row['status']:<10}{row['node'] or 'never connected'}" for row in rows]
    lines += [f"run {row['run']:<32}{row['rounds']:<12}{row['status']}" for row in listed]
    answer(json_output, {"programs": health, "sites": rows, "runs": listed}, "\n".join(lines))
