"""The ledger: what counts as spent, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.ledger import Ledger, Reservation
from common.errors import LedgerError, StorageError

GAUSS = json.dumps({"event": "gaussian", "noise_multiplier": 2.0}, sort_keys=True)
OTHER = json.dumps({"event": "gaussian", "noise_multiplier": 4.0}, sort_keys=True)
OPEN = json.dumps({"event": "non_private"})


def reservation(fingerprint: str = "d1", run: str = "r1", *, rounds: int = 3, event: str = GAUSS) -> Reservation:
    return Reservation(fingerprint, "client", run, "hub", event, rounds, 1e-6)


@pytest.fixture
def ledger(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Ledger.open(tmp_path / "ledger.sqlite") as opened:
        yield opened


def test_a_run_costs_the_larger_of_reserved_and_charged(ledger: Ledger) -> None:
    ledger.reserve([reservation(rounds=2)])
    assert ledger.spent("d1", "client") == {GAUSS: 2}
    ledger.charge("r1", 1, 0, ["d1"])
    assert ledger.spent("d1", "client") == {GAUSS: 2}
    for attempt in range(4):
        ledger.charge("r1", 2, attempt, ["d1"])
    assert ledger.spent("d1", "client") == {GAUSS: 5}
    assert ledger.spent("d1", "record") == ledger.spent("d2", "client") == Counter()


def test_runs_and_coordinators_add_up(ledger: Ledger) -> None:
    ledger.reserve([reservation(), reservation(run="r2"), reservation(run="r3", event=OTHER, rounds=1)])
    ledger.reserve([replace(reservation(run="r4"), unit="sentence", coordinator="elsewhere")])
    assert ledger.spent("d1", "client") == {GAUSS: 6, OTHER: 1}
    assert ledger.units("d1") == ("client", "sentence")


def test_a_repeated_reservation_changes_nothing_and_a_repeated_charge_is_refused(ledger: Ledger) -> None:
    for attempt in range(3):
        ledger.reserve([reservation(), reservation()])
        if attempt:
            with pytest.raises(LedgerError, match="replay"):
                ledger.charge("r1", 0, 0, ["d1", "d1"])
        else:
            ledger.charge("r1", 0, 0, ["d1", "d1"])
    assert [e.kind for e in ledger.rows()] == ["reserve", "charge"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from(["r1", "r2"]), st.sampled_from(["d1", "d2"])),
        st.tuples(st.just("charge"), st.sampled_from(["r1", "r2"]), st.integers(0, 3), st.integers(0, 2)),
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(OPERATIONS)
def test_spend_equals_a_slow_obvious_count(tmp_path_factory: pytest.TempPathFactory, operations: list[tuple]) -> None:  # type: ignore[type-arg]
    reserved: set[tuple[str, str]] = set()
    charged: dict[tuple[str, str], set[tuple[int, int]]] = {}
    with Ledger.open(tmp_path_factory.mktemp("l") / "l.sqlite") as ledger:
        for kind, run, *rest in operations:
            if kind == "reserve":
                ledger.reserve([reservation(rest[0], run)])
                reserved.add((rest[0], run))
            else:
                names = sorted(d for d, r in reserved if r == run)
                place = (rest[0], rest[1])
                if any(place in charged.get((name, run), ()) for name in names):
                    with pytest.raises(LedgerError, match="replay"):
                        ledger.charge(run, *place, names)
                    continue
                ledger.charge(run, *place, names)
                for name in names:
                    charged.setdefault((name, run), set()).add(place)
        for name in ("d1", "d2"):
            expected = sum(max(3, len(charged.get(k, ()))) for k in reserved if k[0] == name)
            assert ledger.spent(name, "client").total() == expected
        ledger.verify()


def test_epsilon_is_that_of_the_composed_events(ledger: Ledger) -> None:
    import dp_accounting as dp

    ledger.reserve([reservation(), reservation(run="r2", event=OTHER, rounds=2)])
    sigma = (3 / 2.0**2 + 2 / 4.0**2) ** -0.5
    assert ledger.epsilon("d1", "client", 1e-6) == pytest.approx(dp.get_epsilon_gaussian(sigma, 1e-6), rel=1e-3)
    more = (4 / 2.0**2 + 2 / 4.0**2) ** -0.5
    assert ledger.epsilon("d1", "client", 1e-6, {GAUSS: 1}) == pytest.approx(
        dp.get_epsilon_gaussian(more, 1e-6), rel=1e-3
    )
    assert ledger.epsilon("d9", "client", 1e-6) == 0
    ledger.reserve([reservation(run="r3", event=OPEN, rounds=1)])
    assert ledger.epsilon("d1", "client", 1e-6) == float("inf")


@pytest.mark.parametrize(
    "changed",
    [{"event_json": OTHER}, {"rounds": 4}, {"delta": 1e-5}, {"coordinator": "x"}, {"bundle": "b"}],
    ids=str,
)
def test_other_terms_for_a_reserved_run_are_refused(ledger: Ledger, changed: dict[str, str]) -> None:
    ledger.reserve([reservation()])
    new = reservation("d2")
    with pytest.raises(LedgerError, match="other terms"):
        ledger.reserve([new, replace(reservation(), **changed)])
    assert ledger.spent("d2", "client") == Counter(), "all or nothing"
    with pytest.raises(LedgerError, match="differ"):
        ledger.reserve([new, replace(new, **changed)])


@pytest.mark.parametrize(
    "changed",
    [
        {"rounds": 0},
        {"rounds": -1},
        {"rounds": 2**40},
        {"delta": 1.0},
        {"delta": float("nan")},
        {"fingerprint": ""},
        {"unit": ""},
        {"run": ""},
        {"run": "\ud800"},
        {"event_json": "{}"},
        {"event_json": "not json"},
        {"event_json": '{"event": "gaussian", "noise_multiplier": -1}'},
        {"event_json": '{"event": "os.system"}'},
    ],
    ids=str,
)
def test_reservations_without_sense_are_refused(ledger: Ledger, changed: dict[str, str]) -> None:
    with pytest.raises(LedgerError):
        ledger.reserve([replace(reservation(), **changed)])
    assert list(ledger.rows()) == []


def test_charges_without_a_reservation_are_refused(ledger: Ledger) -> None:
    ledger.reserve([reservation("d1"), reservation("d2", run="r2")])
    with pytest.raises(LedgerError, match="no reservation for 1"):
        ledger.charge("r1", 0, 0, ["d1", "d2"])
    for wrong in [("r1", -1, 0), ("r1", 0, -1), ("r1", 2**40, 0), ("\ud800", 0, 0)]:
        with pytest.raises(LedgerError):
            ledger.charge(*wrong, ["d1"])
    assert all(entry.kind == "reserve" for entry in ledger.rows())


def test_the_file_is_durable_private_and_append_only(ledger: Ledger) -> None:
    ledger.reserve([reservation()])
    raw = ledger._connection
    assert raw.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert raw.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert ledger.path.stat().st_mode & 0o077 == 0
    for statement in ("UPDATE entries SET rounds = 1", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)


def test_files_that_are_no_ledger_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing of the kind" * 100)
    raw = sqlite3.connect(tmp_path / "other")
    raw.execute("CREATE TABLE t (x)")
    raw.close()
    for name in ("text", "other"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(LedgerError):
            Ledger.open(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(LedgerError, match="no ledger at"):
        Ledger.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(StorageError, match="cannot be created"):
        Ledger.open(tmp_path / "no" / "folder")
    Ledger.open(tmp_path / "new").close()
    raw = sqlite3.connect(tmp_path / "new")
    raw.execute("PRAGMA user_version = 9")
    raw.close()
    with pytest.raises(LedgerError, match="version 9"):
        Ledger.open(tmp_path / "new")


def test_a_full_disk_refuses_and_leaves_the_ledger_whole(ledger: Ledger) -> None:
    ledger.reserve([reservation(f"d{i}") for i in range(50)])
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    names = [f"d{i}" for i in range(50)]
    with pytest.raises(StorageError, match="nothing was computed") as caught:
        for number in range(100):
            ledger.charge("r1", number, 0, names)
    assert "disk" in caught.value.hint
    charged = Counter(e.round for e in ledger.rows() if e.kind == "charge")
    assert set(charged.values()) <= {50}, "a round is charged whole or not at all"
    ledger.verify()


def test_a_read_only_ledger_refuses(ledger: Ledger) -> None:
    ledger.reserve([reservation()])
    ledger._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError):
        ledger.charge("r1", 0, 0, ["d1"])
