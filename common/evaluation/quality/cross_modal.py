"""Cross-modal recall: is the caption that belongs to an image among the first, and the image of a caption?

The file names pairs, ``left key<TAB>right key``. Each left key ranks all right keys of the file by cosine, and each
right key all left keys. A key may stand in several pairs; then the best placed of its partners counts, as is the
custom on Flickr30k and COCO (Karpathy and Fei-Fei, CVPR 2015). Partners that tie count as in random order. Both sides
are rows of one table, or of two with one space. What bounds memory: ``_ranking.CHUNK_SCORES``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from common.errors import EvaluationError
from common.evaluation.quality._fields import records, refuse, task_label
from common.evaluation.quality._intervals import median_interval
from common.evaluation.quality._ranking import Doubles, Lists, Ranking, asked, lists_of, unit_rows
from common.evaluation.quality._ranking_metrics import BASELINE, first_rank, hit, mean_scores, measured
from common.evaluation.score import Score
from common.table import EmbeddingTable

CUTOFFS = (1, 5, 10)
FORM = "left key<TAB>right key"
RECALLS = {f"recall@{k}": partial(hit, k=k) for k in CUTOFFS}
RANK = "median_rank"


class CrossModal:
    """``cross_modal:FILE``: see the module."""

    name = "cross_modal"
    needs = "table"
    reads_training_data = False

    def score(
        self, table: EmbeddingTable, benchmark: Path | None, *, seed: int, other: EmbeddingTable | None = None
    ) -> list[Score]:
        """``recall@1``, ``@5``, ``@10`` and ``median_rank`` (from 1), each ``left_to_right_`` and ``right_to_left_``.

        Recalls are means over queries with bootstrap intervals, the median's interval is exact. The coverage is the
        share of pairs with both keys; the others are left out.

        Args:
            other: table of the right keys; without it they are in ``table`` too.

        Raises:
            EvaluationError: unreadable or malformed file, no covered pair, tables of different dimension, or vectors
                that give all candidates the same score.
        """
        pairs = read_pairs(benchmark, one_table=other is None)
        right_table = table if other is None else other
        if right_table.dimensions != table.dimensions:
            raise EvaluationError(f"vectors of {table.dimensions} and {right_table.dimensions} numbers do not compare")
        held = [(a, b) for a, b in pairs if a in table.row_of and b in right_table.row_of]
        if not held:
            raise EvaluationError(f"the table holds both keys of none of {len(pairs)} pairs")
        left, right = (list(dict.fromkeys(pair[side] for pair in held)) for side in (0, 1))
        place = [{key: number for number, key in enumerate(keys)} for keys in (left, right)]
        linked = np.array([(place[0][a], place[1][b]) for a, b in held], dtype=np.int64)
        units = unit_rows(table.rows(left)), unit_rows(right_table.rows(right))
        scores = []
        for direction, sides in (("left_to_right", (0, 1)), ("right_to_left", (1, 0))):
            query, candidate = sides
            lists = lists_of(linked[:, query], linked[:, candidate], len(units[query]))
            found = measured(_ranking(units[query], units[candidate], lists, seed), {**RECALLS, RANK: first_rank})
            named = {f"{direction}_{name}": values for name, values in found.items()}
            rank = named.pop(f"{direction}_{RANK}")
            task, coverage = task_label(self.name, benchmark), len(held) / len(pairs)
            scores += mean_scores(named, task=task, coverage=coverage, seed=seed)
            scores.append(_median(rank, f"{direction}_{RANK}", task=task, coverage=coverage))
        return scores


def read_pairs(path: Path | None, *, one_table: bool = True) -> list[tuple[str, str]]:
    """Read lines ``left key<TAB>right key``.

    Args:
        one_table: both sides are rows of one table, so no key may stand on both.

    Raises:
        EvaluationError: unreadable, a malformed line, a pair twice, a key on both sides, or no line.
    """
    pairs: dict[tuple[str, str], None] = {}
    sides: tuple[set[str], set[str]] = (set(), set())
    for number, (left, right) in records(path, "cross_modal", FORM, most=2):
        if (left, right) in pairs:
            refuse(path, number, "a pair occurs twice")
        if one_table and (left == right or left in sides[1] or right in sides[0]):
            refuse(path, number, "a key stands on both sides")
        sides[0].add(left)
        sides[1].add(right)
        pairs[left, right] = None
    if not pairs:
        raise EvaluationError(f"{path} is empty: it needs lines of {FORM}")
    return list(pairs)


def _ranking(queries: Doubles, candidates: Doubles, partners: Lists, seed: int) -> Ranking:
    chosen = asked(len(queries), len(candidates), seed)
    return Ranking(
        queries=len(chosen),
        candidates=len(candidates),
        scores=lambda a, b: queries[chosen[a:b]] @ candidates.T,
        relevant=partners.taken(chosen).part,
    )


def _median(rank: tuple[Doubles, Doubles], metric: str, *, task: str, coverage: float) -> Score:
    low, high = median_interval(rank[0])
    return Score(
        task=task,
        metric=metric,
        value=float(np.median(rank[0])),
        ci_low=low,
        ci_high=high,
        n=len(rank[0]),
        coverage=coverage,
        higher_is_better=False,
        baseline_name=BASELINE,
        baseline_value=float(np.median(rank[1])),
    )


TASK = CrossModal()
