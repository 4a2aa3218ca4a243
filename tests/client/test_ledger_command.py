"""``ledger show`` and ``ledger verify`` as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client.cli import ledger_app
from client.ledger import Ledger, Reservation
from common.errors import LedgerError

GAUSS = json.dumps({"event": "gaussian", "noise_multiplier": 2.0})
OPEN = json.dumps({"event": "non_private"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.reserve([Reservation(f"{i:064x}", "client", "r1", "hub", GAUSS, 2, 1e-6) for i in range(30)])
        ledger.reserve([Reservation("f" * 64, "record", "r2", "hub", OPEN, 1, 1e-6)])
        ledger.charge("r1", 1, 0, [f"{0:064x}"])
    return tmp_path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(ledger_app, [str(a) for a in arguments], catch_exceptions=True)


def test_show_prints_accounts(folder: Path) -> None:
    result = run("show", folder)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["data", "set", "unit", "runs", "charged", "counted", "delta", "epsilon"]
    assert lines[1].split()[:6] == ["000000000000", "client", "1", "1", "2", "1e-06"]
    assert len(lines) == 1 + 20 + 2
    assert lines[-2] == "... and 11 more; --limit shows them"
    assert lines[-1].startswith("32 rows, head ")


def test_show_as_json_is_one_object(folder: Path) -> None:
    answer = json.loads(run("show", folder / "ledger.sqlite", "--json", "--delta", "1e-5").output)
    assert answer["rows"] == 32 and answer["accounts_total"] == len(answer["accounts"]) == 31
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        expected = ledger.epsilon(f"{0:064x}", "client", 1e-5)
        assert answer["head"] == ledger.head()[1]
    assert answer["accounts"][0]["epsilon"] == expected and answer["accounts"][0]["delta"] == 1e-5
    assert answer["accounts"][30]["epsilon"] == "inf"


def test_verify_accepts_and_refuses(folder: Path) -> None:
    answer = json.loads(run("verify", folder, "--json").output)
    assert answer["verified"] is True
    assert run("verify", folder, "--head", answer["head"].upper()).output == f"whole: 32 rows, head {answer['head']}\n"
    refused = run("verify", folder, "--head", "0" * 64)
    assert isinstance(refused.exception, LedgerError)
    assert "replaced" in refused.exception.message


@pytest.mark.parametrize("command", ["show", "verify"])
def test_reading_creates_nothing(tmp_path: Path, command: str) -> None:
    for path in (tmp_path, tmp_path / "absent.sqlite"):
        result = run(command, path)
        assert isinstance(result.exception, LedgerError)
        assert result.exception.exit_code == 8
    assert list(tmp_path.iterdir()) == []
