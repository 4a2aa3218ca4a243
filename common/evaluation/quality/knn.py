"""k nearest neighbours: does a vector's neighbourhood share its class?

Classes that training never saw are judged the same way as any others, so this is the test of an encoder: embed the
benchmark's items, make a table of them, and score it. Neighbours are those of highest cosine; votes count equally, and
a tie goes to the class of the nearest among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.quality._intervals import wilson_interval
from common.evaluation.score import Score
from common.table import EmbeddingTable, FloatArray, IntArray

NEIGHBOURS = 5
PARTS = ("support", "query")
_CHUNK_SCORES = 1 << 22


@dataclass(frozen=True)
class Labels:
    """Keys with their class, and whether a key is labelled support, a query, or (``""``) both in turn."""

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    parts: tuple[str, ...]


def read_labels(path: Path) -> Labels:
    """Lines of ``key<TAB>class``, or ``key<TAB>class<TAB>support|query``: all lines of one kind.

    Raises:
        EvaluationError: unreadable, a malformed line (named by number), a key twice, or kinds mixed.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise EvaluationError(f"cannot read {path.name} as UTF-8 text") from None
    rows: list[tuple[str, str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, *rest = line.split("\t")
        if not key or len(rest) not in (1, 2) or not rest[0] or (len(rest) == 2 and rest[1] not in PARTS):
            raise EvaluationError(f"{path.name}, line {number}: need key, class, and support or query, between tabs")
        rows.append((key, rest[0], rest[1] if len(rest) == 2 else ""))
    if len({key for key, _, _ in rows}) != len(rows):
        raise EvaluationError(f"{path.name}: a key occurs twice")
    if len({part == "" for _, _, part in rows}) != 1:
        raise EvaluationError(f"{path.name}: no labels, or only some lines say support or query")
    keys, classes, parts = zip(*rows, strict=True)
    return Labels(keys, classes, parts)


def predicted(
    support: FloatArray, classes: IntArray, query: FloatArray, *, k: int = NEIGHBOURS, exclude: IntArray | None = None
) -> IntArray:
    """Class of each query by vote of its ``k`` nearest support vectors, shape (Q,).

    Args:
        support: unit vectors, shape (S, D).
        classes: class numbers of the support, shape (S,).
        query: unit vectors, shape (Q, D).
        exclude: for each query, the support row that is the query itself and may not vote; shape (Q,).
    """
    k = min(k, len(support) - (0 if exclude is None else 1))
    found = np.empty(len(query), dtype=np.int64)
    size = max(1, _CHUNK_SCORES // len(support))
    for start in range(0, len(query), size):
        chunk = slice(start, min(start + size, len(query)))
        scores = query[chunk] @ support.T
        if exclude is not None:
            scores[np.arange(len(scores)), exclude[chunk]] = -np.inf
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found[chunk] = _voted(classes[nearest], int(classes.max()) + 1)
    return found


def _voted(votes: IntArray, count: int) -> IntArray:
    """Most frequent class of each row; among equals the one that occurs first."""
    tally = np.zeros((len(votes), count), dtype=np.int64)
    np.add.at(tally, (np.arange(len(votes))[:, None], votes), 1)
    own = np.take_along_axis(tally, votes, axis=1)
    winner: IntArray = np.take_along_axis(votes, np.argmax(own, axis=1)[:, None], axis=1)[:, 0]
    return winner


class Knn:
    """``knn``: accuracy of the vote of the five nearest, beside the share of the most frequent class."""

    name = "knn"
    needs = "table"
    reads_training_data = False

    def score(
        self, table: EmbeddingTable, benchmark: Path | Labels | None, *, seed: int, k: int = NEIGHBOURS
    ) -> list[Score]:
        """Queries against support; without these parts, every key against all others. ``seed`` is not needed.

        Raises:
            EvaluationError: no benchmark, or fewer than two labelled keys (or no query, or no support) in the table.
        """
        if benchmark is None:
            raise EvaluationError("knn needs classes", remedy="Name a file of `key<TAB>class` lines: knn:FILE.")
        labels = read_labels(benchmark) if isinstance(benchmark, Path) else benchmark
        known = [i for i, key in enumerate(labels.keys) if key in table.row_of]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(labels.classes))}
        classes = np.array([numbers[labels.classes[i]] for i in known], dtype=np.int64)
        vectors = table.unit_vectors[[table.row_of[labels.keys[i]] for i in known]]
        support = np.array([labels.parts[i] != "query" for i in known], dtype=bool)
        query = np.array([labels.parts[i] != "support" for i in known], dtype=bool)
        alone = bool(np.all(support & query))
        if not query.any() or support.sum() < 1 + alone:
            raise EvaluationError("too few keys of the knn benchmark are in the table")
        guess = predicted(
            vectors[support], classes[support], vectors[query], k=k, exclude=np.arange(len(known)) if alone else None
        )
        right = guess == classes[query]
        asked = sum(part != "support" for part in labels.parts)
        return [_score(right, classes[query], coverage=len(right) / asked, k=k)]


def _score(right: NDArray[np.bool_], classes: IntArray, *, coverage: float, k: int) -> Score:
    low, high = wilson_interval(int(right.sum()), len(right))
    return Score(
        task="knn",
        metric=f"accuracy@{k}",
        value=float(right.mean()),
        ci_low=low,
        ci_high=high,
        n=len(right),
        coverage=coverage,
        higher_is_better=True,
        baseline_name="most frequent class",
        baseline_value=float(np.bincount(classes).max() / len(classes)),
    )


def labels_of(classes: Sequence[object], parts: Sequence[str] | None = None) -> tuple[tuple[str, ...], Labels]:
    """Keys ``0, 1, ...`` for vectors without names, and their labels."""
    keys = tuple(str(i) for i in range(len(classes)))
    return keys, Labels(keys, tuple(map(str, classes)), tuple(parts) if parts is not None else ("",) * len(keys))


TASK = Knn()
