"""What the word tasks share: reading a benchmark's file, finding its words in the table, the random baseline."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from common.errors import EvaluationError
from common.table import EmbeddingTable

MAX_LINE = 1_000  # characters: no word benchmark has longer lines, a wrong file does
BASELINE = "random table"


def lines(path: Path | None, task: str) -> Iterator[tuple[int, str]]:
    """Numbered, stripped, non-empty lines of a UTF-8 text file, plain or ``.gz``.

    Raises:
        EvaluationError: no file given, unreadable, not text, or a line of more than ``MAX_LINE`` characters.
    """
    if path is None:
        raise EvaluationError(f"the task {task} needs a file", remedy=f"Name it: --task {task}:FILE.")
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if len(line) > MAX_LINE:
                    raise EvaluationError(f"{path}, line {number}: more than {MAX_LINE} characters")
                if line.strip():
                    yield number, line.strip()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {path}: {error}", remedy="Give a UTF-8 text file, plain or .gz.") from None


def stem(path: Path) -> str:
    """The file's name without its suffixes: it names the benchmark in a score."""
    name = path.name.removesuffix(".gz")
    return name.rsplit(".", 1)[0] if "." in name else name


def row_finder(table: EmbeddingTable) -> dict[str, int]:
    """Row of every key and, where no key is spelt that way, of its lower-cased form: training text is lower-cased."""
    rows = {key.lower(): row for row, key in reversed(list(enumerate(table.keys)))}
    return rows | dict(table.row_of)


def found(rows: dict[str, int], words: Iterable[str]) -> list[int] | None:
    """Rows of all words as spelt, else lower-cased; ``None`` when one is missing."""
    hits = [rows.get(word, rows.get(word.lower(), -1)) for word in words]
    return hits if min(hits, default=-1) >= 0 else None


def random_table(table: EmbeddingTable, seed: int) -> EmbeddingTable:
    """A table of the same keys and shape with Gaussian entries: what no training at all scores."""
    vectors = np.random.default_rng(seed).standard_normal(table.vectors.shape, dtype=np.float32)
    return EmbeddingTable(table.keys, vectors)
