"""What every export format promises. A new module in common/formats is tested by this file without any change to it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import formats
from common.errors import DataFormatError, StorageError
from common.formats import Format
from common.table import EmbeddingTable

PLAIN = ("the", "king", "naïve", "日本語", "🙂", "<script>", "a\\nb", "\\", '"quoted"', "x" * 10_000)
WEIRD = (
    "",
    " ",
    "two words",
    "tab\there",
    "line\nbreak",
    "\r",
    "\u00a0",
    "\u2028",
    "\ufeffbom",
    "end ",
    "\x00",
    "\\\n",
)


def table_of(keys: tuple[str, ...], dimensions: int = 5) -> EmbeddingTable:
    """A table whose numbers are hard to print: denormal, largest, signed zero, one bit apart."""
    values = np.random.default_rng(7).standard_normal((len(keys), dimensions)).astype(np.float32)
    limits = np.finfo(np.float32)
    values[0, :4] = (limits.smallest_subnormal, limits.max, -0.0, np.nextafter(np.float32(0.1), np.float32(1)))
    return EmbeddingTable(keys, values)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_same(found: EmbeddingTable, wanted: EmbeddingTable) -> None:
    assert found.keys == wanted.keys
    assert found.vectors.dtype == np.float32
    assert found.vectors.tobytes() == np.ascontiguousarray(wanted.vectors).tobytes()


def check_written_whole(member: Format, folder: Path) -> None:
    table, path = table_of(PLAIN), folder / f"table{member.suffix}"
    member.write(table, path)
    assert path.exists()
    assert not [name for name in everything_in(folder) if "partial" in name]
    if member.read is not None:
        assert_same(member.read(path), table)


def check_replaces(member: Format, folder: Path) -> None:
    path = folder / f"table{member.suffix}"
    member.write(table_of(PLAIN), path)
    member.write(table_of(("only",)), path)
    if member.read is not None:
        assert_same(member.read(path), table_of(("only",)))


def check_any_key_or_refusal(member: Format, folder: Path) -> None:
    for number, key in enumerate(WEIRD):
        table, path = table_of(("before", key, "after")), folder / f"{number}{member.suffix}"
        before = everything_in(folder)
        try:
            member.write(table, path)
        except DataFormatError as refusal:
            assert everything_in(folder) == before
            assert "--format" in refusal.hint
        else:
            if member.read is not None:
                assert_same(member.read(path), table)


def check_refuses_non_finite(member: Format, folder: Path) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        table = table_of(PLAIN)
        table.vectors[-1, -1] = bad
        with pytest.raises(DataFormatError):
            member.write(table, folder / f"bad{member.suffix}")
    assert everything_in(folder) == []


def check_refuses_half_a_character(member: Format, folder: Path) -> None:
    with pytest.raises(DataFormatError):
        member.write(table_of(("good", "\ud800")), folder / f"bad{member.suffix}")
    assert everything_in(folder) == []


def check_leaves_nothing_on_a_full_disk(member: Format, folder: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = table_of(("old", "table"))
    for call in ("fsync", "replace"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(StorageError):
                member.write(table_of(PLAIN), folder / f"table{member.suffix}")
        assert everything_in(folder) == []
    path = folder / f"kept{member.suffix}"
    member.write(old, path)
    before = everything_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError):
            member.write(table_of(PLAIN), path)
    assert everything_in(folder) == before
    if member.read is not None:
        assert_same(member.read(path), old)


def check_damage_is_an_error(member: Format, folder: Path) -> None:
    """A file cut at any place is refused: it never reads as a shorter table or crashes."""
    if member.read is None:
        return
    path = folder / f"table{member.suffix}"
    member.write(table_of(("a", "b", "c")), path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if member.name == "glove_text" and whole[:size].endswith(b"\n"):
            continue  # without a header, a whole number of lines is a whole file
        with pytest.raises(DataFormatError):
            member.read(path)
    with pytest.raises(DataFormatError):
        member.read(folder / "absent")


CHECKS = (
    check_written_whole,
    check_replaces,
    check_any_key_or_refusal,
    check_refuses_non_finite,
    check_refuses_half_a_character,
    check_leaves_nothing_on_a_full_disk,
    check_damage_is_an_error,
)


@pytest.mark.parametrize("name", formats.names())
def test_identity(name: str) -> None:
    member = formats.load(name)
    assert isinstance(member, Format)
    assert member.name == name
    assert member.summary
    assert member.suffix == "" or member.suffix.startswith(".")


@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(name: str, check: object, tmp_path: Path) -> None:
    check(formats.load(name), tmp_path)


SOUND = formats.load("safetensors")


def _leaves_garbage(table: EmbeddingTable, path: Path) -> None:
    path.write_bytes(b"half")
    SOUND.write(table, path)


def _hides_nan(table: EmbeddingTable, path: Path) -> None:
    SOUND.write(EmbeddingTable(table.keys, np.nan_to_num(table.vectors)), path)


def _half_precision(table: EmbeddingTable, path: Path) -> None:
    with np.errstate(over="ignore"):
        SOUND.write(
            EmbeddingTable(table.keys, np.nan_to_num(table.vectors.astype(np.float16)).astype(np.float32)), path
        )


def _strips_keys(table: EmbeddingTable, path: Path) -> None:
    SOUND.write(EmbeddingTable(tuple(key.strip() for key in table.keys), table.vectors), path)


def _reads_anything(path: Path) -> EmbeddingTable:
    try:
        return SOUND.read(path)
    except DataFormatError:
        return table_of(("a",))


BROKEN = {
    "writes in place": replace(SOUND, write=_leaves_garbage),
    "ignores NaN": replace(SOUND, write=_hides_nan),
    "loses bits": replace(SOUND, write=_half_precision),
    "strips keys": replace(SOUND, write=_strips_keys),
    "accepts damage": replace(SOUND, read=_reads_anything),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_contract_rejects_a_broken_format(fault: str, tmp_path: Path) -> None:
    failures = 0
    for number, check in enumerate(CHECKS):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            check(BROKEN[fault], folder)
        except (AssertionError, pytest.fail.Exception):
            failures += 1
    assert failures > 0
