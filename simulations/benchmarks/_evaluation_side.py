"""One quality task in a process of its own: ``python -m simulations.benchmarks._evaluation_side JOB``.

JOB is a JSON object (``EvaluationJob``); one JSON object goes to stdout: seconds of the task, peak memory of it all.
The table is made up: what a task costs does not depend on what the vectors mean.
"""

from __future__ import annotations

import json
import resource
import string
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.evaluation import neighbors, quality
from common.evaluation.drift import drift
from common.table import EmbeddingTable

TABLE_ALONE, DRIFT, NEIGHBORS = "the table alone", "drift", "neighbors"


@dataclass(frozen=True)
class EvaluationJob:
    """What one process measures.

    Attributes:
        task: a quality task, or ``DRIFT``, ``NEIGHBORS`` or ``TABLE_ALONE``.
        rows: V.
        dimension: D.
        items: lines of the benchmark file; queries of the neighbour search.
    """

    task: str
    rows: int
    dimension: int
    items: int


def keys_of(rows: int) -> tuple[str, ...]:
    """Different words of five small letters and a ``w``: some tasks read words as runs of letters."""
    letters = string.ascii_lowercase
    return tuple("w" + "".join(letters[i // 26**place % 26] for place in range(4, -1, -1)) for i in range(rows))


def made_up(job: EvaluationJob, seed: int = 0) -> EmbeddingTable:
    """Gaussian rows about a common mean, of unequal strength in the columns."""
    vectors = np.random.default_rng(seed).standard_normal((job.rows, job.dimension), dtype=np.float32)
    vectors *= np.linspace(0.5, 1.5, job.dimension, dtype=np.float32)
    vectors += 0.2
    return EmbeddingTable(keys_of(job.rows), vectors)


Lines = Callable[[Sequence[str], int, np.random.Generator], list[str]]


def _pairs(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    return [f"{keys[a]}\t{keys[b]}\t{a % 97}" for a, b in _different(len(keys), items, rng)]


def _questions(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    drawn = rng.integers(min(len(keys), 30_000), size=(items, 4))
    return [": made-up", *(" ".join(keys[i] for i in line) for line in drawn)]


def _labels(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    chosen = rng.choice(len(keys), min(items, len(keys)), replace=False)
    return [f"{keys[row]}\tclass{i % 20}" for i, row in enumerate(chosen)]


def _gains(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    return [f"{keys[a]}\t{keys[b]}\t1" for a, b in _different(len(keys), items, rng)]


def _partners(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    half = len(keys) // 2
    return [f"{keys[i]}\t{keys[half + i]}" for i in range(min(items, half))]


def _edges(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    parts = ("test", "train")
    return [f"{keys[a]}\t{keys[b]}\t{parts[i % 2]}" for i, (a, b) in enumerate(_different(len(keys), items, rng))]


def _texts(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    topics = np.arange(300).reshape(30, 10)
    return [" ".join(keys[i] for i in rng.choice(topics[line % 30], 20)) for line in range(max(items, 1_000))]


def _word_sets(keys: Sequence[str], items: int, rng: np.random.Generator) -> list[str]:
    sets = [list(keys[8 * i : 8 * i + 8]) for i in range(4)]
    return [json.dumps({"targets": {"x": sets[0], "y": sets[1]}, "attributes": {"a": sets[2], "b": sets[3]}})]


# What each task is asked; those without an entry bring their own.
FILES: dict[str, tuple[str, Lines]] = {
    "similarity": ("pairs.tsv", _pairs),
    "sts": ("pairs.tsv", _pairs),
    "analogy": ("questions.txt", _questions),
    "knn": ("labels.tsv", _labels),
    "clustering": ("labels.tsv", _labels),
    "retrieval": ("gains.tsv", _gains),
    "cross_modal": ("partners.tsv", _partners),
    "link_prediction": ("edges.tsv", _edges),
    "cooccurrence": ("texts.txt", _texts),
    "bias": ("sets.json", _word_sets),
}


def benchmark_file(job: EvaluationJob, keys: Sequence[str], folder: Path) -> Path | None:
    """The file that the task is asked with, made up from the table's keys."""
    rng = np.random.default_rng(1)
    if job.task == "recommendation":
        rows = rng.permutation(job.rows)[: 6 * (min(job.items, job.rows // 6))].reshape(-1, 6)
        path = folder / "users.npz"
        offsets = 5 * np.arange(len(rows) + 1)
        np.savez(path, offsets=offsets, items=rows[:, :5].ravel(), held_out=rows[:, 5], rows=np.int64(job.rows))
        return path
    if job.task not in FILES:
        return None
    name, lines = FILES[job.task]
    (folder / name).write_text("\n".join(lines(keys, job.items, rng)) + "\n", encoding="utf-8")
    return folder / name


def measure(job: EvaluationJob) -> dict[str, Any]:
    """Seconds of the task, and bytes at the peak of the whole process: table, keys and libraries included."""
    table = made_up(job)
    other = made_up(job, seed=1) if job.task == DRIFT else table
    with tempfile.TemporaryDirectory() as folder:
        file = benchmark_file(job, table.keys, Path(folder))
        start = time.perf_counter()
        if job.task == DRIFT:
            drift(table, other)
        elif job.task == NEIGHBORS:
            asked = np.arange(min(job.items, job.rows))
            neighbors.nearest(table.unit_vectors[asked], table.unit_vectors, k=10, own=asked)
        elif job.task != TABLE_ALONE:
            quality.load(job.task).score(table, file, seed=0)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def _different(rows: int, items: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    drawn = rng.integers(rows, size=(2 * items, 2))
    pairs = {(int(min(pair)), int(max(pair))) for pair in drawn if pair[0] != pair[1]}
    return sorted(pairs)[:items]


if __name__ == "__main__":
    print(json.dumps(measure(EvaluationJob(**json.loads(sys.argv[1])))))
