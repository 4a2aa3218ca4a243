"""``fedembed agent``: set up, check, run and watch a site's agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

agent_app = typer.Typer(
    name="agent",
    help="Run a site's agent: it trains on the site's own data, within the site's own policy.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)

HomeOption = Annotated[Path, typer.Option("--home", metavar="DIR", envvar="FEDEMBED_AGENT", help="The site's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
_HERE = Path("agent")


@agent_app.command("init")
def init(  # exception: every parameter is an option of the command
    *,
    invitation: Annotated[Path, typer.Option("--invitation", metavar="FILE", help="From the coordinator's operator.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of this site, as others will know it.")],
    data: Annotated[Path, typer.Option("--data", metavar="PATH", help="This site's data.")],
    reader: Annotated[str, typer.Option("--reader", metavar="READER", help="See `fedembed list readers`.")] = "text",
    user: Annotated[str, typer.Option("--user", metavar="ACCOUNT", help="That the agent's processes run as.")] = "",
    first_port: Annotated[int, typer.Option("--port", metavar="PORT", help="First of three on loopback.")] = 19100,
    home: HomeOption = _HERE,
    json_output: JsonOption = False,
) -> None:
    """Make a site's folder: keys, policy, description of the data, and the request to be enrolled.

    Nothing is started, and the policy refuses everything until you write your limit into it.

    Example: fedembed agent init --invitation invitation.json --name north --data /srv/texts
    """
    from client.agent import home as homes
    from common.deployment.certificates import fingerprint

    made = homes.make_home(
        home, invitation, name=name, data=(reader, str(data.resolve())), user=user, first_port=first_port
    )
    authority = fingerprint(made.inside("tls", "ca.crt").read_bytes())
    request = made.inside(homes.ENROLMENT_FILE)
    _answer(
        json_output,
        {"home": made.folder, "enrolment": request, "authority_sha256": authority},
        f"{made.folder} is ready. Now\n"
        f"  1. compare with the coordinator's operator, on another way, its authority:\n     {authority}\n"
        f"  2. give {request} to the operator\n"
        f"  3. write your limits into {made.inside(homes.POLICY_FILE)}\n"
        f"  4. fedembed agent check --home {home}\n"
        f"  5. fedembed agent approve-bundle --home {home}\n"
        f"  6. fedembed agent up --home {home}",
    )


@agent_app.command("check")
def check(
    *,
    scenario: Annotated[
        Path | None, typer.Option("--scenario", metavar="FILE", help="A run that is planned: its family and unit.")
    ] = None,
    home: HomeOption = _HERE,
    json_output: JsonOption = False,
) -> None:
    """Read this site's data through its reader and say what would be trained on, in counts alone.

    Nothing is sent and nothing is spent. With --scenario, also whether the policy would take part, and why not.

    Example: fedembed agent check --scenario words.toml
    """
    from client.agent.check import checked
    from client.agent.home import open_home

    found = checked(open_home(home), scenario)
    lines = [f"{key.replace('_', ' '):<28}{value}" for key, value in found.items()]
    _answer(json_output, found, "\n".join(lines))


@agent_app.command("approve-bundle")
def approve_bundle(
    *,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FAB", help="A bundle; by default that of this installation.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Approve without being asked.")] = False,
    home: HomeOption = _HERE,
    json_output: JsonOption = False,
) -> None:
    """Show the hash and the files of a bundle, and let it run at this site.

    A coordinator that sends any other is answered with an error. The same version of fedembed makes the same bundle
    everywhere: one that was made by your own installation needs nobody else's word. An agent that was up before an
    upgrade has the old code in memory, and serves nothing until it is restarted.

    Example: fedembed agent approve-bundle
    """
    import sys

    from client.agent import approval
    from client.agent.home import open_home
    from common.deployment.bundle import own_bundle, read_bundle

    found = open_home(home)
    bundle = own_bundle() if file is None else read_bundle(file)
    for path, digest in bundle.files:
        print(f"{digest[:16]}  {path}", file=sys.stderr)
    print(f"bundle {bundle.digest}", file=sys.stderr)
    if not yes:
        _ask("Let this code run at this site?")
    approval.approve(found, bundle)
    _answer(
        json_output,
        {"bundle": bundle.digest, "files": len(bundle.files)},
        f"approved {bundle.digest}; restart an agent that is up",
    )


@agent_app.command("revoke-bundle")
def revoke_bundle(
    digest: Annotated[str, typer.Argument(metavar="HASH", hidden=True)], *, home: HomeOption = _HERE
) -> None:
    """Let a bundle run no longer. HASH is its hash, or how it begins.

    Example: fedembed agent revoke-bundle 3f6a
    """
    from client.agent import approval
    from client.agent.home import open_home

    approval.revoke(open_home(home), digest)
    print(f"revoked {digest}")


@agent_app.command("up")
def up(*, home: HomeOption = _HERE) -> None:
    """Run the agent until it is told to stop (Ctrl-C, SIGTERM).

    What ends by itself is started again; a coordinator that is away is waited for. Logs are in the folder `logs`.

    Example: fedembed agent up
    """
    from client.agent.home import open_home
    from client.agent.processes import up as run
    from common.deployment.journal import Journal

    found = open_home(home)
    print(f"agent of {found.settings.coordinator!r} at {found.settings.address}; stop it with Ctrl-C", flush=True)
    run(found, Journal(found.inside("agent.jsonl")))


@agent_app.command("status")
def status(*, home: HomeOption = _HERE, json_output: JsonOption = False) -> None:
    """Show rounds served, refusals with reasons, epsilon spent and left, and whether the coordinator can be reached.

    Example: fedembed agent status
    """
    from dataclasses import asdict

    from client.agent.home import open_home
    from client.agent.processes import PROGRAMS
    from client.agent.reach import reach
    from client.agent.record import LEDGER_FILE, activity, spent
    from common.deployment.running import is_up
    from common.deployment.watching import is_serving

    found = open_home(home)
    programs = {
        name: is_serving(found.settings.health_port, name) if is_up(found.folder) else False for name in PROGRAMS
    }
    way = reach(found.settings.address, found.inside("tls", "ca.crt"))
    facts: dict[str, Any] = {
        "programs": programs,
        "coordinator": asdict(way),
        **activity(found),
        "spent": [asdict(a) for a in spent(found)],
    }
    lines = [f"{name:<12}{'up' if fine else 'DOWN'}" for name, fine in programs.items()]
    if facts["rounds_served"] and not found.inside("state", LEDGER_FILE).exists():
        lines += ["ledger      MISSING: the agent refuses to go on; put the latest copy of state/ledger.sqlite back"]
    lines += [f"coordinator {_printable(way.problem) or 'answers'}"]
    lines += [f"rounds served {facts['rounds_served']}, last message {facts['last_contact'] or 'never'}"]
    lines += [
        f"unit {a['unit']}: epsilon {a['epsilon']:.4g} spent, {a['left']:.4g} left (delta {a['delta']:g})"
        for a in facts["spent"]
    ]
    lines += [
        _printable(f"{line.get('time')}  {line['status']}: {line.get('code')}: {line.get('reason')}")
        for line in facts["refusals"]
    ]
    _answer(json_output, facts, "\n".join(lines))


def _ask(question: str) -> None:
    """Raises ``UsageError`` for any answer but yes, and for none."""
    from common.errors import UsageError

    try:
        yes = typer.confirm(question, err=True)
    except typer.Abort:  # nobody is there to answer
        yes = False
    if not yes:
        raise UsageError("not approved: nothing has changed", remedy="Answer y, or give --yes.")


def _printable(text: str) -> str:
    """Without what a terminal would obey: parts of a reason are a coordinator's words."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _answer(json_output: bool, facts: dict[str, Any], text: str) -> None:
    print(json.dumps(facts, default=str) if json_output else text, flush=True)
