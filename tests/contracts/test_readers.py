"""Every reader, found by discovery: clean on its samples; a damaged file gives a DataError or clean records."""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import readers
from common.config import DataConfig
from common.discovery import member_names
from common.errors import DataError, DataFormatError, DataLimitError
from common.units import Image, Interaction, Record

CHECKS: dict[str, type] = {"text": str, "interactions": Interaction, "images": Image}
POSITIONS = 24


def read(reader: Any, data: DataConfig) -> list[Record]:
    return list(readers.limited(reader.read(data), data))


def check_record(record: Record, kind: str) -> None:
    """What a family may rely on."""
    assert type(record) is Record
    for key in (record.client, record.unit):
        assert isinstance(key, str) and key
        key.encode()
    assert type(record.value) is CHECKS[kind]
    if kind == "text":
        assert record.value.strip()
        record.value.encode()
    elif kind == "interactions":
        value = record.value
        assert value.user.strip() and value.item.strip()
        assert math.isfinite(value.weight) and value.weight > 0 and math.isfinite(value.timestamp)
    else:
        value = record.value
        assert value.pixels.dtype == np.uint8 and value.pixels.ndim == 2 and value.pixels.size
        assert isinstance(value.label, int) and value.label >= -1


def files_of(data: DataConfig) -> list[Path]:
    path = Path(data.path)
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def spread(length: int) -> list[int]:
    return sorted({round(x) for x in np.linspace(0, length - 1, POSITIONS)})


def damaged(content: bytes) -> Iterator[bytes]:
    """Cut off, one byte flipped, one byte out of place, noise: many positions of each."""
    for at in spread(len(content)):
        yield content[:at]
        for flip in (0x01, 0x80, 0xFF):
            yield content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
        yield content[:at] + content[at + 1 :]
        yield content[:at] + b"\0" + content[at:]
    yield np.random.default_rng(3).bytes(len(content))


def check_damage(reader: Any, data: DataConfig, content: bytes, file: Path) -> None:
    """Damaged files give a ``DataError`` that names the file and not its content, or records that are clean."""
    file.write_bytes(content)
    try:
        for record in read(reader, data):
            check_record(record, reader.records)
    except DataError as error:
        assert Path(data.path).name in error.message


def check_truncated_compression(reader: Any, data: DataConfig, file: Path) -> None:
    """A compressed file that was cut off is never taken for a whole one."""
    content = file.read_bytes()
    for at in spread(len(content))[1:]:
        file.write_bytes(content[:at])
        with pytest.raises(DataError):
            read(reader, data)
    file.write_bytes(content)


def check_limits(reader: Any, data: DataConfig) -> None:
    """Tight limits refuse with ``DataLimitError``; the record limit is exact."""
    count = len(read(reader, data))
    assert len(read(reader, data.model_copy(update={"max_records": count}))) == count
    tight: list[dict[str, int]] = [{"max_records": count - 1}] if count > 1 else []
    tight += [{"max_line_bytes": 5, "max_array_bytes": 5, "max_pixels": 5}]
    for update in tight:
        with pytest.raises(DataLimitError):
            read(reader, data.model_copy(update=update))


def check_reader(reader: Any, directory: Path) -> None:
    """The whole contract for one reader."""
    samples = reader.samples(directory)
    assert samples
    for data in samples:
        first = read(reader, data)
        assert [(r.client, r.unit) for r in first] == [(r.client, r.unit) for r in read(reader, data)]
        for record in first:
            check_record(record, reader.records)
        units = {(r.client, r.unit) for r in first}
        if data.unit in ("record", reader.records.removesuffix("s")):
            assert len(units) == len(first)
        as_client = read(reader, data.model_copy(update={"unit": "client"}))
        assert all(r.unit == r.client for r in as_client)
        check_limits(reader, data)
        for file in files_of(data):
            check_file(reader, data, file)


def check_file(reader: Any, data: DataConfig, file: Path) -> None:
    content = file.read_bytes()
    if file.suffix in (".gz", ".xz"):
        check_truncated_compression(reader, data, file)
        opener, maker = {".gz": (gzip.decompress, gzip.compress), ".xz": (lzma.decompress, lzma.compress)}[file.suffix]
        inner = opener(content)
        for number, variant in enumerate(damaged(inner)):
            if number % 7 == 0:
                check_damage(reader, data, maker(variant), file)
    for variant in damaged(content):
        check_damage(reader, data, variant, file)
    for empty in (b"", b"\n", b" \r\n \n"):
        file.write_bytes(empty)
        with pytest.raises(DataFormatError):
            read(reader, data)
    file.write_bytes(content)


@pytest.mark.parametrize("name", member_names("client.readers"))
def test_reader_keeps_the_contract(name: str, tmp_path: Path) -> None:
    reader = readers.load(name)
    assert reader.name == name
    assert reader.records in CHECKS
    assert all(s.startswith(".") and s == s.lower() for s in reader.suffixes)
    check_reader(reader, tmp_path)


@pytest.mark.parametrize("name", member_names("client.readers"))
def test_reader_refuses_a_path_that_is_not_there(name: str, tmp_path: Path) -> None:
    reader = readers.load(name)
    (tmp_path / "nothing").mkdir()
    for path in ("", str(tmp_path / f"absent{reader.suffixes[0]}"), str(tmp_path / "nothing"), "/dev/null"):
        with pytest.raises(DataError):
            read(reader, DataConfig(reader=name, path=path))


class _Lines:
    """A reader as somebody in a hurry writes it; each flaw below must fail the contract."""

    name = "lines"
    records = "text"
    suffixes = (".txt",)

    def samples(self, directory: Path) -> list[DataConfig]:
        path = directory / "a.txt"
        path.write_text("one line\nanother one\nthe third, with ünïcode\n", encoding="utf-8")
        return [DataConfig(path=str(path), unit="record")]

    def read(self, data: DataConfig) -> Iterator[Record]:
        path = Path(data.path)
        raw = path.read_bytes()
        if any(len(line) > data.max_line_bytes for line in raw.split(b"\n")):
            raise DataLimitError(f"{path}: long line")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise DataFormatError(f"{path}: not UTF-8") from None
        unit = (lambda n: "all") if data.unit == "client" else str
        for number, line in enumerate(text.split("\n")):
            if line.strip():
                yield Record("all", unit(number), line)


class _Crashing(_Lines):
    """Lets the decoder's own error out."""

    def read(self, data: DataConfig) -> Iterator[Record]:
        Path(data.path).read_bytes().decode()
        return super().read(data)


class _Talking(_Lines):
    """Quotes the content instead of the place."""

    def read(self, data: DataConfig) -> Iterator[Record]:
        raw = Path(data.path).read_bytes()
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise DataFormatError(f"cannot decode {raw!r}") from None
        return super().read(data)


class _Unlimited(_Lines):
    """Knows no limit on a line."""

    def read(self, data: DataConfig) -> Iterator[Record]:
        return super().read(data.model_copy(update={"max_line_bytes": 1 << 40}))


class _Blank(_Lines):
    """Yields blank lines as records."""

    def read(self, data: DataConfig) -> Iterator[Record]:
        yield from super().read(data)
        yield Record("all", "last" if data.unit != "client" else "all", " ")


class _OneUnit(_Lines):
    """Gives all records of a client one key, although every record was to be a unit."""

    def read(self, data: DataConfig) -> Iterator[Record]:
        return (Record(r.client, "all", r.value) for r in super().read(data))


class _Unstable(_Lines):
    """Keys that differ from one reading to the next."""

    calls = 0

    def read(self, data: DataConfig) -> Iterator[Record]:
        self.calls += 1
        prefix = "" if data.unit == "client" else f"{self.calls}-"
        return (Record(r.client, prefix + r.unit, r.value) for r in super().read(data))


def test_the_contract_accepts_a_correct_reader(tmp_path: Path) -> None:
    check_reader(_Lines(), tmp_path)


@pytest.mark.parametrize("broken", [_Crashing, _Talking, _Unlimited, _Blank, _OneUnit, _Unstable])
def test_the_contract_rejects_a_broken_reader(broken: Callable[[], Any], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, UnicodeDecodeError, pytest.fail.Exception)):
        check_reader(broken(), tmp_path)
