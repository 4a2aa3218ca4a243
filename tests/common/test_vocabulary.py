"""The row domain that a scenario names."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import VocabularyConfig
from common.errors import DataError, DataFormatError, FedembedError
from common.vocabulary import row_domain


def from_file(path: Path, text: str | bytes, **settings: object) -> list[tuple[str, float]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    domain = row_domain(VocabularyConfig(path=str(path), **settings))
    assert domain.frequencies is not None
    return list(zip(domain.keys, domain.frequencies.tolist(), strict=True))


def test_most_frequent_keys_first(tmp_path: Path) -> None:
    text = "b\t2\na\t7.5\n\nc\t2\nd\nlong key\t3\r\n"
    assert from_file(tmp_path / "v.tsv", text) == [("a", 7.5), ("long key", 3), ("b", 2), ("c", 2), ("d", 1)]
    assert from_file(tmp_path / "v.tsv", text, max_rows=2) == [("a", 7.5), ("long key", 3)]
    assert from_file(tmp_path / "v.tsv", text, min_count=2.5) == [("a", 7.5), ("long key", 3)]


def test_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    assert from_file(tmp_path / "v.tsv", b"\xef\xbb\xbfa\t1\n") == [("a", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\t1\nb\tmany\n", "line 2: the count is not a number"),
        ("a\t-1\n", "line 1: need a key"),
        ("a\tnan\n", "line 1: need a key"),
        ("a\tinf\n", "line 1: need a key"),
        ("a\t0\n", "line 1: need a key"),
        ("\t3\n", "line 1: need a key"),
        ("a\t1\n\na\t2\n", "line 3: key occurs twice"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_malformed_files_name_the_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        from_file(tmp_path / "v.tsv", text)


def test_nothing_left_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no key"):
        from_file(tmp_path / "v.tsv", "")
    with pytest.raises(DataError, match="no key"):
        from_file(tmp_path / "v.tsv", "a\t1\n", min_count=5)
    with pytest.raises(DataError, match="did you mean 'python-stdlib'"):
        row_domain(VocabularyConfig(path="python-stdlb"))
    with pytest.raises(FedembedError, match="cannot read"):
        row_domain(VocabularyConfig(path=str(tmp_path)))


def test_standard_library_vocabulary() -> None:
    domain = row_domain(VocabularyConfig(max_rows=1000))
    assert len(domain) == 1000
    assert {"file", "string", "error", "thread", "socket", "date", "json", "html"} <= set(domain.keys)
    assert domain.source == "public: python-stdlib"


def test_hashed_buckets() -> None:
    domain = row_domain(VocabularyConfig(source="hashed", buckets=32))
    assert len(domain) == 32
    assert domain.source == "hashed"
    assert domain.frequencies is None
