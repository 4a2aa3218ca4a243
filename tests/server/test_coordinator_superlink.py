"""Flower's database waits for a lock as long as we say."""

from __future__ import annotations

import sqlite3

import pytest
from flwr.supercore import sql_mixin

from server.coordinator.superlink import WAIT_MS, patient


def test_connections_of_flowers_database_wait_for_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(sql_mixin.SQLITE_PRAGMAS)
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", patient(sql_mixin.SQLITE_PRAGMAS))
    with sqlite3.connect(":memory:") as connection:
        sql_mixin._set_sqlite_pragmas(connection, None)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (WAIT_MS,)
    assert {**before, "busy_timeout": str(WAIT_MS)} == dict(sql_mixin.SQLITE_PRAGMAS)


def test_a_flower_that_has_moved_the_setting_is_not_run() -> None:
    with pytest.raises(SystemExit, match="no longer"):
        patient((("journal_mode", "WAL"),))
