"""``fedembed ledger show`` and ``fedembed ledger verify``: what a client's own record says, and whether it is whole."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from client.ledger import Entry, Ledger

LEDGER_FILE = "ledger.sqlite"

ledger_app = typer.Typer(
    name="ledger",
    help="Read a client's own record of the privacy it has spent.",
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
)
# What the argument means stands in the commands' text: click 8.5 drops the help of typer's arguments.
LedgerArgument = Annotated[Path, typer.Argument(metavar="LEDGER", hidden=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@dataclass(frozen=True)
class Account:
    """What was spent on one data set under one privacy unit, over all runs.

    Attributes:
        delta: the largest that a run stated, unless the reader asked for another.
        charged: attempts at rounds that the data took part in.
        counted: rounds that count: of each run the larger of reserved and charged.
    """

    fingerprint: str
    unit: str
    runs: tuple[str, ...]
    coordinators: tuple[str, ...]
    charged: int
    counted: int
    delta: float
    epsilon: float


def accounts(ledger: Ledger, delta: float | None = None, limit: int | None = None) -> tuple[list[Account], int]:
    """The first ``limit`` accounts in order of their first reservation, and how many there are."""
    grouped: dict[tuple[str, str], list[tuple[Entry, int]]] = {}
    for entry, charged in ledger.accounts():
        grouped.setdefault((str(entry.fingerprint), str(entry.unit)), []).append((entry, charged))
    return [_account(ledger, runs, delta) for runs in islice(grouped.values(), limit)], len(grouped)


def _account(ledger: Ledger, runs: Sequence[tuple[Entry, int]], delta: float | None) -> Account:
    fingerprint, unit = str(runs[0][0].fingerprint), str(runs[0][0].unit)
    at = max(entry.delta or 0.0 for entry, _ in runs) if delta is None else delta
    return Account(
        fingerprint=fingerprint,
        unit=unit,
        runs=tuple(str(entry.run) for entry, _ in runs),
        coordinators=tuple(dict.fromkeys(str(entry.coordinator) for entry, _ in runs)),
        charged=sum(charged for _, charged in runs),
        counted=ledger.spent(fingerprint, unit).total(),
        delta=at,
        epsilon=ledger.epsilon(fingerprint, unit, at),
    )


@ledger_app.command("show")
def show(
    ledger: LedgerArgument,
    *,
    delta: Annotated[
        float | None,
        typer.Option(metavar="DELTA", help="State epsilon at this delta; by default the largest that a run stated."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Accounts to show; by default 20, with --json all.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Show what was spent on each data set under each privacy unit.

    All runs and coordinators count together. LEDGER is a ledger file, or the folder of a run or site that holds a
    ledger.sqlite. A ledger that does not verify is not shown (exit code 8).

    Example: fedembed ledger show runs/first --delta 1e-6
    """
    with Ledger.open(_file(ledger), create=False) as book:
        book.verify()
        rows, head = book.head()
        shown, total = accounts(book, delta, limit if json_output else limit or 20)
    if json_output:
        _print_json({"rows": rows, "head": head, "accounts": [asdict(a) for a in shown], "accounts_total": total})
        return
    _print_table(shown)
    if total > len(shown):
        print(f"... and {total - len(shown):,} more; --limit shows them")
    print(f"{rows:,} rows, head {head}")


@ledger_app.command("verify")
def verify(
    ledger: LedgerArgument,
    *,
    head: Annotated[
        str | None, typer.Option(metavar="HASH", help="A head kept from earlier, which the chain must contain.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Recompute the hash chain of a ledger and name the first bad row.

    LEDGER is a ledger file, or the folder of a run or site that holds a ledger.sqlite. Fails with exit code 8 when a
    row was altered or is missing. Keep the head that is printed somewhere else: given back with --head, it shows a
    ledger that was replaced as a whole.

    Example: fedembed ledger verify runs/first
    """
    with Ledger.open(_file(ledger), create=False) as book:
        book.verify(head.strip().lower() if head else None)
        rows, last = book.head()
    if json_output:
        _print_json({"verified": True, "rows": rows, "head": last})
    else:
        print(f"whole: {rows:,} rows, head {last}")


def _file(path: Path) -> Path:
    return path / LEDGER_FILE if path.is_dir() else path


def _print_table(shown: Sequence[Account]) -> None:
    cells = [("data set", "unit", "runs", "charged", "counted", "delta", "epsilon")]
    for a in shown:
        numbers = (str(len(a.runs)), str(a.charged), str(a.counted), f"{a.delta:g}", f"{a.epsilon:.4g}")
        cells.append((a.fingerprint[:12], a.unit, *numbers))
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_json(answer: dict[str, Any]) -> None:
    for account in answer.get("accounts", ()):
        if math.isinf(account["epsilon"]):
            account["epsilon"] = "inf"  # JSON has no infinity
    print(json.dumps(answer, allow_nan=False))
