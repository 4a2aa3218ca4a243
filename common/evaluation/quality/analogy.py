"""Word analogies by 3CosAdd on a ``questions-words`` file (Mikolov et al. 2013, arXiv 1301.3781 and NAACL 2013).

"a is to b as c is to ?" is answered by the word nearest to ``b - a + c`` among the first ``VOCABULARY`` keys of the
table, the question's own three words left out. Tables are in frequency order by custom: these are the frequent words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.quality._intervals import wilson_interval
from common.evaluation.quality._words import BASELINE, found, lines, random_table, row_finder, stem
from common.evaluation.score import Score
from common.table import EmbeddingTable, FloatArray, IntArray

VOCABULARY = 30_000
BATCH = 256  # questions a product: bounds the scores in memory to BATCH x VOCABULARY


@dataclass(frozen=True)
class Question:
    """Four words: a is to b as c is to d."""

    words: tuple[str, str, str, str]
    syntactic: bool


class Analogy:
    """See the module."""

    name = "analogy"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """Metrics ``accuracy``, ``accuracy_semantic`` and ``accuracy_syntactic``, each with its Wilson interval.

        A kind of question that the table cannot answer at all gets no score.

        Raises:
            EvaluationError: unreadable file, or no question whose four words are all in the capped table.
        """
        questions = read_questions(benchmark)
        capped = EmbeddingTable(table.keys[:VOCABULARY], table.vectors[:VOCABULARY])
        rows = row_finder(capped)
        hits = [(hit, q.syntactic) for q in questions if (hit := found(rows, q.words))]
        if not hits:
            raise EvaluationError(f"the table has all four words of none of {len(questions)} questions")
        index = np.array([hit for hit, _ in hits], dtype=np.int64)
        right = answers(capped.unit_vectors, index) == index[:, 3]
        chance = answers(random_table(capped, seed).unit_vectors, index) == index[:, 3]
        covered = np.array([syntactic for _, syntactic in hits])
        asked = np.array([q.syntactic for q in questions])
        kinds = {"": (np.full(len(covered), True), len(asked))}
        kinds |= {"_semantic": (~covered, int((~asked).sum())), "_syntactic": (covered, int(asked.sum()))}
        task = f"analogy:{stem(benchmark)}" if benchmark else "analogy"
        scores = (_score(task, kind, right[of], chance[of], total) for kind, (of, total) in kinds.items() if of.any())
        return list(scores)


def read_questions(path: Path | None) -> list[Question]:
    """Read ``: section`` headings and lines of four words; a section whose name begins with ``gram`` is syntactic.

    Raises:
        EvaluationError: unreadable file, a line that has not four words, or no question at all.
    """
    questions, syntactic = [], False
    for number, line in lines(path, "analogy"):
        if line.startswith(":"):
            syntactic = line[1:].strip().startswith("gram")
            continue
        words = line.split()
        if len(words) != 4:
            raise EvaluationError(f"{path}, line {number}: expected four words or a ': section' heading")
        questions.append(Question((words[0], words[1], words[2], words[3]), syntactic))
    if not questions:
        raise EvaluationError(f"{path} holds no question")
    return questions


def answers(unit_vectors: FloatArray, index: IntArray) -> IntArray:
    """Row that answers each question ``index`` (n, 4): the highest cosine with ``b - a + c``, shape (n,)."""
    found_rows = []
    for begin in range(0, len(index), BATCH):
        asked = index[begin : begin + BATCH, :3]
        a, b, c = (unit_vectors[asked[:, i]] for i in range(3))
        scores = (b - a + c) @ unit_vectors.T
        scores[np.arange(len(asked))[:, None], asked] = -np.inf
        found_rows.append(scores.argmax(axis=1))
    return np.concatenate(found_rows)


def _score(task: str, kind: str, right: NDArray[np.bool_], chance: NDArray[np.bool_], total: int) -> Score:
    low, high = wilson_interval(int(right.sum()), len(right))
    return Score(
        task=task,
        metric=f"accuracy{kind}",
        value=float(right.mean()),
        ci_low=low,
        ci_high=high,
        n=len(right),
        coverage=len(right) / total,
        higher_is_better=True,
        baseline_name=BASELINE,
        baseline_value=float(chance.mean()),
    )


TASK = Analogy()
