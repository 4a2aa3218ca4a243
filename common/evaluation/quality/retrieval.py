"""Retrieval: how early a query's relevant keys come when all candidates are ranked by cosine (full ranking).

Two kinds of file, fields between tabs (docs/quality-tasks.md):

* ``key label``: every key asks for the others of its label, among the labelled keys;
* ``query key gain``: a query asks for the keys of positive gain, among all keys of the table but itself and but those
  that the file names as queries only.

Keys that tie count as in random order (``_ranking_metrics``). What bounds memory: ``_ranking.CHUNK_SCORES``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import EvaluationError
from common.evaluation.quality._fields import finite_number, records, refuse, task_label
from common.evaluation.quality._ranking import Lists, Ranking, asked, lists_of, unit_rows
from common.evaluation.quality._ranking_metrics import (
    Metric,
    average_precision,
    mean_scores,
    measured,
    ndcg,
    recall,
    reciprocal_rank,
)
from common.evaluation.score import Score
from common.table import EmbeddingTable, IntArray

CUTOFF = 10
FORM = "key<TAB>label or query<TAB>key<TAB>gain"
METRICS: dict[str, Metric] = {
    f"recall@{CUTOFF}": partial(recall, k=CUTOFF),
    f"ndcg@{CUTOFF}": partial(ndcg, k=CUTOFF),
    "mrr": reciprocal_rank,
    "map": average_precision,
}


class Retrieval:
    """``retrieval:FILE``: see the module."""

    name = "retrieval"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """``recall@10``, ``ndcg@10``, ``mrr`` and ``map``: means over queries, bootstrap intervals, beside chance.

        The coverage is the share of labelled keys, or of pairs of positive gain, that the table holds; the others are
        left out. Where the benchmark is too large to rank for every query, ``seed`` draws those asked; n says how many.

        Raises:
            EvaluationError: unreadable or malformed file, no query with a relevant key in the table, or a table that
                gives all candidates the same score.
        """
        pairs = read_pairs(benchmark)
        labelled = pairs[0].gain is None
        ranking, coverage = (_of_labels if labelled else _of_judgements)(table, pairs, seed)
        found = measured(ranking, METRICS)
        return mean_scores(found, task=task_label(self.name, benchmark), coverage=coverage, seed=seed)


@dataclass(frozen=True)
class Pair:
    """A key and its label (``gain`` is ``None``), or a query and a key with its gain, zero for an irrelevant one."""

    key: str
    value: str
    gain: float | None


def read_pairs(path: Path | None) -> list[Pair]:
    """Read a benchmark file, all lines of one kind.

    Raises:
        EvaluationError: unreadable, a malformed line, a key or a pair twice, a query that asks for itself, or no line.
    """
    pairs: list[Pair] = []
    seen: set[str | tuple[str, str]] = set()
    for number, fields in records(path, "retrieval", FORM, most=3):
        gain = finite_number(fields[2]) if len(fields) == 3 else None
        if len(fields) == 3 and (gain is None or gain < 0):
            refuse(path, number, "the gain is no number of at least 0")
        if pairs and (pairs[0].gain is None) != (gain is None):
            refuse(path, number, "labels and gains in one file")
        if gain is not None and fields[0] == fields[1]:
            refuse(path, number, "a query that asks for itself")
        identity = fields[0] if gain is None else (fields[0], fields[1])
        if identity in seen:
            refuse(path, number, "a key is labelled twice" if gain is None else "a pair occurs twice")
        seen.add(identity)
        pairs.append(Pair(fields[0], fields[1], gain))
    if not pairs:
        raise EvaluationError(f"{path} is empty: it needs lines of {FORM}")
    return pairs


def _of_labels(table: EmbeddingTable, pairs: list[Pair], seed: int) -> tuple[Ranking, float]:
    held = [pair for pair in pairs if pair.key in table.row_of]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(pair.value for pair in held))}
    classes = np.array([numbers[pair.value] for pair in held], dtype=np.int64)
    sizes = np.bincount(classes)
    queries = np.flatnonzero(sizes[classes] > 1) if held else classes
    if not len(queries):
        raise EvaluationError(f"the table holds {len(held)} of {len(pairs)} labelled keys, and no two of one label")
    queries = queries[asked(len(queries), len(held), seed)]
    unit = unit_rows(table.vectors[[table.row_of[pair.key] for pair in held]])
    members = lists_of(classes, np.arange(len(held)), len(sizes))

    def relevant(start: int, stop: int) -> Lists:
        own = queries[start:stop]
        alike = members.taken(classes[own])
        owners = alike.owners
        others = alike.items != own[owners]
        return lists_of(owners[others], alike.items[others], len(own))

    ranking = Ranking(
        queries=len(queries),
        candidates=len(held),
        scores=lambda a, b: unit[queries[a:b]] @ unit.T,
        relevant=relevant,
        left_out=lambda a, b: Lists(np.arange(b - a + 1), queries[a:b]),
    )
    return ranking, len(held) / len(pairs)


def _of_judgements(table: EmbeddingTable, pairs: list[Pair], seed: int) -> tuple[Ranking, float]:
    wanted = [pair for pair in pairs if pair.gain]
    held = [pair for pair in wanted if pair.key in table.row_of and pair.value in table.row_of]
    if not held:
        raise EvaluationError(
            f"the table holds both keys of none of {len(wanted)} pairs of a query and a relevant key",
        )
    number = {key: place for place, key in enumerate(dict.fromkeys(pair.key for pair in held))}
    rows = np.array([table.row_of[key] for key in number], dtype=np.int64)
    owners = np.array([number[pair.key] for pair in held], dtype=np.int64)
    items = np.array([table.row_of[pair.value] for pair in held], dtype=np.int64)
    lists = lists_of(owners, items, len(rows), gains=np.array([pair.gain for pair in held], dtype=np.float64))
    chosen = asked(len(rows), len(table), seed)
    documents = {pair.value for pair in pairs}
    only_queries = sorted({table.row_of[p.key] for p in pairs if p.key not in documents and p.key in table.row_of})
    blocked = np.array(only_queries, dtype=np.int64)
    unit, asking = unit_rows(table.vectors), rows[chosen]
    ranking = Ranking(
        queries=len(chosen),
        candidates=len(table),
        scores=lambda a, b: unit[asking[a:b]] @ unit.T,
        relevant=lists.taken(chosen).part,
        left_out=lambda a, b: _themselves(asking[a:b], blocked),
        left_out_of_all=blocked,
    )
    return ranking, len(held) / len(wanted)


def _themselves(rows: IntArray, blocked: IntArray) -> Lists:
    """Each query's own row, where it is a candidate at all."""
    candidate = ~np.isin(rows, blocked)
    return lists_of(np.flatnonzero(candidate), rows[candidate], len(rows))


TASK = Retrieval()
