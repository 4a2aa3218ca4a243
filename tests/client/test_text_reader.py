"""The text reader: what becomes a client, a unit and a record, and what is refused."""

from __future__ import annotations

import gzip
import json
import lzma
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.readers import read
from client.readers.text import sentences
from common.config import DataConfig
from common.errors import ConfigError, DataError, DataFormatError, DataLimitError

SECRET = "zebra-7731"


def config(path: Path, **settings_: Any) -> DataConfig:
    return DataConfig(reader="text", path=str(path), **settings_)


def values(path: Path, **settings_: Any) -> list[str]:
    return [r.value for r in read(config(path, **settings_))]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, error: type[DataError] = DataFormatError, **settings_: Any) -> str:
    with pytest.raises(error) as caught:
        list(read(config(path, **settings_)))
    assert SECRET not in caught.value.message + caught.value.hint
    assert caught.value.__cause__ is None
    return caught.value.message


def test_a_line_is_a_document_and_the_stem_is_the_client(tmp_path: Path) -> None:
    path = written(tmp_path / "alice.txt", "one two\r\n\n  \nthree\n")
    records = list(read(config(path)))
    assert [(r.client, r.unit, r.value) for r in records] == [("alice", "0", "one two"), ("alice", "1", "three")]


@pytest.mark.parametrize(("unit", "count"), [("document", 2), ("record", 4), ("docstring", 4), ("sentence", 5)])
def test_a_folder_of_text_files(tmp_path: Path, unit: str, count: int) -> None:
    written(tmp_path / "b" / "bob.txt", "one. two\nthree")
    written(tmp_path / "alice.txt", "four\nfive")
    written(tmp_path / ".hidden.txt", "no")
    written(tmp_path / "picture.bin", b"\xff")
    records = list(read(config(tmp_path, unit=unit)))
    assert len(records) == len({r.unit for r in records}) == count
    assert list(dict.fromkeys(r.client for r in records)) == ["alice", "b/bob"]


@pytest.mark.parametrize("unit", ["document", "sentence", "docstring", "record"])
def test_a_field_named_like_a_word_for_single_records_is_the_unit(tmp_path: Path, unit: str) -> None:
    """Else the certificate would speak of one document where a line of it is protected."""
    lines = [json.dumps({unit: f"d{k // 3}", "text": f"line {k}"}) for k in range(6)]
    path = written(tmp_path / "a.jsonl", "\n".join(lines))
    assert [r.unit for r in read(config(path, unit=unit))] == ["d0"] * 3 + ["d1"] * 3


def test_client_key_and_units_from_fields(tmp_path: Path) -> None:
    rows = [{"a": "x/y", "b": 1, "text": "t1"}, {"a": "x", "b": "y/1", "text": "t2"}, {"a": "x/y", "b": 1, "text": ""}]
    path = written(tmp_path / "f.jsonl", "\n".join(map(json.dumps, rows)))
    records = list(read(config(path, client_key=("a", "b"), unit="b")))
    assert [(r.client, r.unit) for r in records] == [("x%2Fy/1", "1"), ("x/y%2F1", "y/1")]
    assert [r.client for r in read(config(path, client_key=("a",)))] == ["x/y", "x"]
    assert {r.unit for r in read(config(path, client_key=("a",), unit="client"))} == {"x/y", "x"}
    assert {r.client for r in read(config(path, client_key=("file",)))} == {"f"}


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_tables_and_compression(tmp_path: Path, suffix: str) -> None:
    table = b'\xef\xbb\xbflabel,text\r\nq,"Where, oh ""where""?"\r\nr,"two\r\nlines"\r\n'
    packed = {"": table, ".gz": gzip.compress(table), ".xz": lzma.compress(table)}[suffix]
    path = written(tmp_path / f"t.csv{suffix}", packed)
    assert values(path, client_key=("label",)) == ['Where, oh "where"?', "two\nlines"]


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    path = written(tmp_path / "t.txt.gz", gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert values(path) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f'{{"text": "{SECRET}"', "line 2: not one JSON object"),
        (f'["{SECRET}"]', "line 2: not one JSON object"),
        ("[" * 100_000, "line 2: not one JSON object"),
        (f'{{"text": "{SECRET}", "x": NaN}}', "line 2: not one JSON object"),
        (f'{{"text": "{SECRET}\\ud800"}}', "line 2: not one JSON object"),
        (f'{{"text": "{SECRET}", "n": {"9" * 5000}}}', "line 2: not one JSON object"),
        (f'{{"text": "a", "text": "{SECRET}"}}', "line 2: a JSON object names a key twice"),
        (f'{{"tex": "{SECRET}"}}', "line 2: no field 'text'; did you mean 'tex'?"),
        ('{"text": 7731}', "line 2: field 'text' is not a string"),
        (f'{{"text": "{SECRET}"}}', "line 2: no field 'who'"),
        (f'{{"text": "{SECRET}", "whom": "w"}}', "line 2: no field 'who'; did you mean 'whom'?"),
        (f'{{"text": "{SECRET}", "who": null}}', "line 2: field 'who' is empty or not a plain value"),
        (f'{{"text": "{SECRET}", "who": ["{SECRET}"]}}', "line 2: field 'who' is empty"),
        (f'{{"text": "{SECRET}", "who": " "}}', "line 2: field 'who' is empty"),
    ],
)
def test_bad_json_lines(tmp_path: Path, line: str, words: str) -> None:
    path = written(tmp_path / "f.jsonl", '{"text": "fine", "who": "w"}\n' + line + "\n")
    assert words in refused(path, client_key=("who",))


@pytest.mark.parametrize(
    "content", [SECRET.encode("utf-16"), SECRET.encode("utf-16-le"), f"{SECRET} naïve".encode("latin-1"), b"\xff"]
)
def test_other_encodings_are_refused(tmp_path: Path, content: bytes) -> None:
    assert "f.txt, line 1" in refused(written(tmp_path / "f.txt", content))


def test_files_without_records(tmp_path: Path) -> None:
    assert "empty" in refused(written(tmp_path / "a.txt", ""))
    assert "empty" in refused(written(tmp_path / "a.txt.gz", gzip.compress(b"")))
    assert "no records" in refused(written(tmp_path / "a.jsonl", '{"text": " "}\n'))
    assert "no records" in refused(written(tmp_path / "b.txt", "... !\n"), unit="sentence")
    assert "suffix" in refused(written(tmp_path / "a.pdf", "x"))


def test_unfit_paths(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.txt", DataError)
    with pytest.raises(DataError, match="empty"):
        list(read(DataConfig(path="")))
    with pytest.raises(ConfigError, match="did you mean 'text'"):
        read(DataConfig(reader="texts", path="x"))


def test_a_ten_megabyte_line_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "f.jsonl.gz", gzip.compress(b'{"text": "a"}\n{"text": "' + b"x" * 10_000_000 + b'"}\n'))
    tracemalloc.start()
    message = refused(path, DataLimitError)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "line 2: longer than 1,000,000 bytes (data.max_line_bytes)" in message
    assert peak < 5_000_000
    assert len(values(path, max_line_bytes=11_000_000)) == 2


def test_a_long_file_is_streamed(tmp_path: Path) -> None:
    path = written(tmp_path / "f.txt", b"a line of some thirty letters\n" * 30_000)
    tracemalloc.start()
    count = sum(1 for _ in read(config(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 300_000


def test_a_whole_file_keeps_the_line_limit(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", "line\n" * 10)
    assert "max_line_bytes" in refused(tmp_path, DataLimitError, unit="document", max_line_bytes=20)
    assert len(values(tmp_path, unit="record", max_line_bytes=20)) == 10


def test_an_open_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "f.csv", 'text\n"' + f"{SECRET}\n" * 20_000)
    assert "f.csv, line" in refused(path, DataLimitError)
    assert "quotes" in refused(written(tmp_path / "g.csv", f'text\n"{SECRET}" x\n'))
    assert "2 fields where the header has 1" in refused(written(tmp_path / "h.csv", f"text\n{SECRET},b\n"))
    assert "duplicate" in refused(written(tmp_path / "i.csv", "text,text\na,b\n"))


def test_max_records(tmp_path: Path) -> None:
    path = written(tmp_path / "f.txt", "a\nb\nc\n")
    assert len(values(path, max_records=3)) == 3
    assert "more than 2 records" in refused(path, DataLimitError, max_records=2)


def test_sentences_of_a_small_text() -> None:
    text = 'He came. "Did he?" she said…  Yes!\n3.14 is a number. ...\n\n— \nlast'
    expected = ["He came.", '"Did he?"', "she said…  Yes!", "3.14 is a number.", "last"]
    assert list(sentences(text)) == expected


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="ab .!?\n\"'é", max_size=60))
def test_sentences_lose_no_word_and_join_no_lines(text: str) -> None:
    pieces = list(sentences(text))
    assert all("\n" not in p and p == p.strip() for p in pieces)

    def words(s: str) -> list[str]:
        return [w for w in s.split() if any(c.isalnum() for c in w)]

    assert words(" ".join(pieces)) == words(text)


@pytest.mark.data
def test_shipped_forms_of_real_data(data_file: Any) -> None:
    path = data_file("text/shakespeare_roles.jsonl.xz")
    records = list(read(config(path, client_key=("play", "role"))))
    assert len(records) == len({r.unit for r in records}) == 32_613
    assert len({r.client for r in records}) == 1_564
    banking = data_file("sentences/banking77/train.csv.gz")
    assert len({r.client for r in read(config(banking, client_key=("category",)))}) == 77
