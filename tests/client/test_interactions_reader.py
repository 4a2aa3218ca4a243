"""The interactions reader: columns by name, users as units, and refusal of every number that is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client.readers import read
from common.config import DataConfig
from common.errors import DataFormatError
from common.units import Interaction, Record


def rows(path: Path, **settings: Any) -> list[Record]:
    return list(read(DataConfig(reader="interactions", path=str(path), **settings)))


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_movielens_columns_are_found(tmp_path: Path) -> None:
    path = written(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,10,4.0,964982703\n2,10,0.5,5\n")
    records = rows(path, client_key=("userId",), unit="user")
    assert [(r.client, r.unit) for r in records] == [("1", "1"), ("2", "2")]
    assert records[0].value == Interaction("1", "10", 4.0, 964982703.0)
    assert {r.client for r in rows(path)} == {"ratings"}
    assert [r.unit for r in rows(path, unit="movieId")] == ["10", "10"]
    assert [r.unit for r in rows(path, unit="interaction")] == ["0", "1"]
    assert {r.unit for r in rows(path, client_key=("user",), unit="client")} == {"1", "2"}


def test_named_columns_come_first_and_weight_is_optional(tmp_path: Path) -> None:
    path = written(tmp_path / "plays.tsv", "listener\tartist\tuser\nann\tAC/DC\tz\n")
    record = rows(path, user_field="listener", unit="user")[0]
    assert (record.unit, record.value) == ("ann", Interaction("ann", "AC/DC"))


def test_repeated_pairs_are_yielded_in_file_order(tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", "user_id,ITEM,score\na,x,1\na,x,2\n")
    assert [r.value.weight for r in rows(path)] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("7731,b,nan,1", "the weight is not finite"),
        ("7731,b,inf,1", "the weight is not finite"),
        ("7731,b,1e999,1", "the weight is not finite"),
        ("7731,b,-1,1", "the weight is not positive"),
        ("7731,b,0,1", "the weight is not positive"),
        ("7731,b,four,1", "the weight is not a number"),
        ("7731,b,1_0,1", "the weight is not a number"),
        ("7731,b,,1", "the weight is not a number"),
        ("7731,b,1,nan", "the timestamp is not finite"),
        ("7731,,1,1", "the item is empty"),
        (" ,7731,1,1", "the user is empty"),
        ("-5,7731,1,1", "the user is a negative number"),
        ("7731,-1,1,1", "the item is a negative number"),
        ("7731,b,1", "3 fields where the header has 4"),
    ],
)
def test_bad_rows_are_refused_with_their_line(tmp_path: Path, row: str, words: str) -> None:
    path = written(tmp_path / "r.csv", f"user,item,rating,timestamp\na,b,1,1\n{row}\n")
    with pytest.raises(DataFormatError) as caught:
        rows(path)
    assert f"r.csv, line 3: {words}" in caught.value.message
    assert "7731" not in caught.value.message


@pytest.mark.parametrize(
    ("header", "settings", "words"),
    [
        ("1,10,4.0", {}, "no column for the user"),
        ("user,thing", {}, "no column for the item"),
        ("user,item,item", {}, "duplicate or empty column"),
        ("user,,item", {}, "duplicate or empty column"),
        ("user,item,movie", {}, "several columns could be the item"),
        ("user,item", {"weight_field": "stars"}, "no column 'stars'"),
        ("user,item,starz", {"weight_field": "stars"}, "did you mean 'starz'?"),
        ("user,item", {"unit": "sesion"}, "no field 'sesion'"),
        ("user,item,session", {"client_key": ("sesion",)}, "did you mean 'session'?"),
    ],
)
def test_unfit_headers_are_refused(tmp_path: Path, header: str, settings: dict[str, Any], words: str) -> None:
    path = written(tmp_path / "r.csv", header + "\n" + ",".join("123456"[: header.count(",") + 1]) + "\n")
    with pytest.raises(DataFormatError, match=r"r\.csv, line") as caught:
        rows(path, **settings)
    assert words in caught.value.message


def test_a_header_alone_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="no records"):
        rows(written(tmp_path / "r.csv", "user,item\n"))


@pytest.mark.data
def test_movielens(data_file: Any) -> None:
    path = data_file("rec/ml-latest-small/ratings.csv.gz")
    records = rows(path, client_key=("userId",), unit="interaction")
    assert len(records) == 100_836
    assert len({r.client for r in records}) == 610
    assert len({r.value.item for r in records}) == 9_724
