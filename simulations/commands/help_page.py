"""The page that ``fedembed --help`` prints: commands by what one wants, and the exit codes. Plain text, no imports."""

from __future__ import annotations

from collections.abc import Mapping

import click
from typer.core import TyperCommand, TyperGroup

from simulations.commands.exit_codes import exit_codes

# What somebody wants, and the commands for it; a command that is not named here stands in the last group.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Train": ("simulate", "plan"),
    "Test a claim": ("audit", "conformance"),
    "Look into a release": ("verify", "report", "neighbors", "evaluate", "compare", "export"),
    "Agree who takes part": ("roster",),
    "Find out": ("list", "doctor", "ledger"),
}


class Command(TyperCommand):
    """One command; its help is plain text."""

    def get_help(self, ctx: click.Context) -> str:
        """The help without the escapes that typer writes for rich even where rich is not used."""
        return super().get_help(ctx).replace("\\[", "[")


class Group(TyperGroup):
    """Commands in groups instead of one list, and the exit codes below them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section a group."""
        named = {name for names in GROUPS.values() for name in names}
        rest = tuple(name for name in self.list_commands(ctx) if name not in named)
        for title, names in [*GROUPS.items(), ("More", rest)]:
            present = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            if present:
                with formatter.section(title):
                    formatter.write_dl([(name, command.get_short_help_str(limit=200)) for name, command in present])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes, as the error tree has them."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in exit_codes().items()])
