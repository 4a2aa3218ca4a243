"""The ``fedembed`` command: what it offers, and how a failure becomes a message and an exit code.

Nothing heavy is imported here: ``fedembed --help`` answers at once, each command imports what it needs.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import click
import typer

from client.agent.commands import agent_app
from client.cli import ledger_app
from common.errors import ConfigError, FedembedError, StorageError, UsageError
from server.cli import coordinator_app
from simulations import doctor
from simulations.commands import audit, compare, conformance, inspect, release, train
from simulations.commands.exit_codes import BROKEN_PIPE, INTERRUPTED
from simulations.commands.help_page import Command, Group
from simulations.commands.output import emit_json, note
from simulations.commands.roster import roster_app

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_TOO_LARGE = "Lower the dimension in [task], vocabulary.max_rows or buckets, or training.batch_size."

_ABOUT = """Train embeddings across parties that never show each other their data, under differential privacy.

Each party (a client) trains on its own data; a coordinator adds up the updates, with noise. The result is a
release: a folder with the table, a certificate of what is claimed about privacy, and what the table is worth.

\b
Try, in this order:
  fedembed simulate                      a whole federation on this machine
  fedembed plan --set privacy.epsilon=1  what a run would cost; runs nothing
  fedembed neighbors RELEASE KEY         look into the table that was made
"""

app = typer.Typer(
    name="fedembed",
    cls=Group,
    help=_ABOUT,
    rich_markup_mode=None,  # plain text: half the time to answer, and the same in a log
    pretty_exceptions_enable=False,
    suggest_commands=False,  # click does
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options of every command; ``main`` has handled both when this runs."""


_COMMANDS: dict[str, Callable[..., None]] = {
    "simulate": train.simulate,
    "plan": train.plan,
    "audit": audit.audit,
    "conformance": conformance.conformance,
    "verify": release.verify,
    "report": release.report,
    "neighbors": release.neighbors,
    "evaluate": release.evaluate,
    "compare": compare.compare,
    "export": release.export,
    "list": inspect.list_members,
    "doctor": doctor.command,
}
for _name, _function in _COMMANDS.items():
    app.command(_name, cls=Command)(_function)
for _group in (coordinator_app, agent_app, ledger_app, roster_app):
    for _command in _group.registered_commands:
        _command.cls = Command  # the same help page as everywhere
    app.add_typer(_group, name=_group.info.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises.

    ``--debug`` and ``--version`` may stand anywhere before ``--``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags, words = _without_flags(given)
    if "--version" in flags:
        print(doctor.version())
        return 0
    return _guarded(words or ["--help"], debug="--debug" in flags)


def _without_flags(given: Sequence[str]) -> tuple[set[str], list[str]]:
    end = given.index("--") if "--" in given else len(given)
    flags = {"--debug", "--version"}
    return flags & set(given[:end]), [word for i, word in enumerate(given) if i >= end or word not in flags]


def _guarded(words: list[str], *, debug: bool) -> int:
    try:
        returned = app(args=words, prog_name="fedembed", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as stop:  # typer ends a closed pipe and shell completion this way
        if isinstance(stop.__context__, BrokenPipeError):
            return _nobody_reads()
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        return _nobody_reads()
    except KeyboardInterrupt:  # outside a command; typer turns the others into the same code
        returned = INTERRUPTED
    except Exception as error:  # the outermost frame: every failure becomes a message and an exit code
        if debug:
            traceback.print_exc()
        return _failed(error, json_output="--json" in words, debug=debug)
    if returned == INTERRUPTED:
        note("fedembed: interrupted; an unfinished simulation resumes when the same command is run again")
    return returned if isinstance(returned, int) else 0


def _nobody_reads() -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor what is still buffered at exit
    return BROKEN_PIPE


def _failed(error: Exception, *, json_output: bool, debug: bool) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and later: a group of commands without a command
        note(str(error))
        return UsageError.exit_code
    kind, message, remedy, code = _explained(error, debug=debug)
    note(f"fedembed: {kind}: {message}")
    if remedy:
        note(f"          {remedy}")
    if json_output:
        emit_json({"error": {"kind": kind, "message": message, "remedy": remedy, "exit_code": code}})
    return code


def _explained(error: Exception, *, debug: bool) -> tuple[str, str, str, int]:
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        error = StorageError(f"cannot write {error.filename or 'to the disk'}: {error.strerror}")
    if isinstance(error, MemoryError):
        error = ConfigError("there is not enough memory for this", remedy=_TOO_LARGE)
    if isinstance(error, FedembedError):
        return type(error).__name__, error.message, error.hint, error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "fedembed"
        return "UsageError", error.format_message(), f"Run `{path} --help` to see what it takes.", error.exit_code
    # The text of an error that nobody foresaw may quote anything, also a record: only --debug shows it.
    remedy = "" if debug else "This is a fault in fedembed; run it again with --debug to see its text and place."
    return type(error).__name__, f"unforeseen{_place(error)}", remedy, 1


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f", in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


if __name__ == "__main__":
    sys.exit(main())
