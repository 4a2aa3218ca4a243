"""Other people's readers load what we write, and we load what they write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors

from common import formats
from common.errors import ConfigError, DataFormatError
from common.table import EmbeddingTable


@pytest.fixture
def table() -> EmbeddingTable:
    keys = (*(f"wörd{i}" for i in range(300)), "日本", "🙂", "x" * 5000)
    return EmbeddingTable(keys, np.random.default_rng(0).standard_normal((len(keys), 17)).astype(np.float32))


# gensim leaves the file open when it reads without a header.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [("word2vec_text", {}), ("word2vec_binary", {"binary": True}), ("glove_text", {"no_header": True})],
)
def test_gensim_reads_ours(name: str, options: dict[str, bool], table: EmbeddingTable, tmp_path: Path) -> None:
    formats.load(name).write(table, tmp_path / "vectors")
    loaded = KeyedVectors.load_word2vec_format(str(tmp_path / "vectors"), **options)
    assert tuple(loaded.index_to_key) == table.keys
    np.testing.assert_array_equal(loaded.vectors, table.vectors)


@pytest.mark.parametrize(("name", "binary"), [("word2vec_text", False), ("word2vec_binary", True)])
def test_we_read_gensims(name: str, binary: bool, table: EmbeddingTable, tmp_path: Path) -> None:
    peer = KeyedVectors(table.dimensions)
    peer.add_vectors(list(table.keys), table.vectors)
    peer.save_word2vec_format(str(tmp_path / "vectors"), binary=binary, sort_attr="none")
    ours = formats.load(name).read(tmp_path / "vectors")
    assert ours.keys == table.keys
    np.testing.assert_array_equal(ours.vectors, table.vectors)


def test_we_read_the_c_tools_newlines(table: EmbeddingTable, tmp_path: Path) -> None:
    rows = (key.encode() + b" " + row.tobytes() + b"\n" for key, row in zip(table.keys, table.vectors, strict=True))
    header = f"{len(table)} {table.dimensions}\n".encode()
    (tmp_path / "c.bin").write_bytes(header + b"".join(rows))
    assert formats.load("word2vec_binary").read(tmp_path / "c.bin").keys == table.keys


def test_numpy_and_safetensors_open_without_us(table: EmbeddingTable, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    formats.load("numpy").write(table, tmp_path / "a.npy")
    formats.load("safetensors").write(table, tmp_path / "b.safetensors")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), table.vectors)
    np.testing.assert_array_equal(load_file(tmp_path / "b.safetensors")["vectors"], table.vectors)
    assert (tmp_path / "a.keys.txt").read_text(encoding="utf-8").split("\n")[:-1] == list(table.keys)


def test_projector_files_agree_row_for_row(tmp_path: Path) -> None:
    table = EmbeddingTable(("a", "", " ", "t\tb\nn", "<b>"), np.arange(10, dtype=np.float32).reshape(5, 2))
    formats.load("projector").write(table, tmp_path / "p")
    labels = (tmp_path / "p" / "metadata.tsv").read_text(encoding="utf-8").splitlines()
    tensors = np.loadtxt(tmp_path / "p" / "tensors.tsv", delimiter="\t", dtype=np.float32)
    assert len(labels) == 5
    assert all(label.strip() and "\t" not in label for label in labels)
    np.testing.assert_array_equal(tensors, table.vectors)


@pytest.mark.parametrize(
    "header", [b"9999999999 9999999999\n", b"-1 3\n", b"3 -1\n", b"two 3\n", b"1\n", b"", b"1 2 3\n"]
)
def test_a_lying_header_is_an_error_before_memory_is_taken(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "lie").write_bytes(header + b"a 1 2\n")
    for name in ("word2vec_binary", "word2vec_text"):
        with pytest.raises(DataFormatError):
            formats.load(name).read(tmp_path / "lie")


def test_a_key_with_a_space_is_refused_with_the_remedy(tmp_path: Path) -> None:
    table = EmbeddingTable(("new york",), np.ones((1, 2), np.float32))
    with pytest.raises(DataFormatError, match="white space") as refusal:
        formats.load("word2vec_binary").write(table, tmp_path / "x.bin")
    assert "safetensors" in refusal.value.hint


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "evil.keys.txt").write_bytes(b"a\n")
    with pytest.raises(DataFormatError):
        formats.load("numpy").read(tmp_path / "evil.npy")


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'word2vec_text'"):
        formats.load("word2vec_txt")


def test_a_missing_folder_is_a_storage_error_with_its_name(tmp_path: Path) -> None:
    from common.errors import StorageError

    table = EmbeddingTable(("a",), np.ones((1, 2), np.float32))
    for name in formats.names():
        with pytest.raises(StorageError, match="absent"):
            formats.load(name).write(table, tmp_path / "absent" / "deep" / "x")
