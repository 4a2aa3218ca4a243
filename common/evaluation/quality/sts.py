"""Semantic textual similarity: do cosines of sentences follow people's judgements (Agirre et al., SemEval 2012)?

A line is ``sentence<TAB>sentence<TAB>score``; the first may be a header. A sentence that is a key of the table has
that row; any other is the mean of the vectors of its words (``common.text.words``) that the table has, each as often
as it occurs. A pair with a sentence of neither kind is left out, and the coverage says how many were.

The baseline knows words and no vectors: cosine of TF-IDF weights, fitted on the benchmark's own sentences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.quality._fields import finite_number, records, refuse, task_label
from common.evaluation.quality._intervals import resampled_interval
from common.evaluation.quality._ranking import Doubles, unit_rows
from common.evaluation.quality._words import row_finder
from common.evaluation.quality.similarity import spearman
from common.evaluation.score import Score
from common.table import EmbeddingTable, IntArray
from common.text import words

BASELINE = "TF-IDF overlap"
FORM = "sentence<TAB>sentence<TAB>score"
Pair = tuple[str, str, float]
Correlation = Callable[[Doubles, Doubles], float]


class Sts:
    """``sts:FILE``: see the module."""

    name = "sts"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """``spearman`` and ``pearson`` with bootstrap intervals over pairs, beside TF-IDF on the covered pairs.

        Raises:
            EvaluationError: unreadable or malformed file, fewer than two covered pairs, or judgements or cosines of
                the covered pairs that are all equal.
        """
        pairs = read_pairs(benchmark)
        sides = [sentence_vectors(table, sentences) for sentences in _sides(pairs)]
        held = sides[0][1] & sides[1][1]
        if held.sum() < 2:
            raise EvaluationError(f"the table has vectors for both sentences of {held.sum()} of {len(pairs)} pairs")
        cosines = np.einsum("nd,nd->n", *(unit_rows(vectors[held]) for vectors, _ in sides))
        judged = np.array([pair[2] for pair in pairs])[held]
        if np.ptp(judged) == 0 or np.ptp(cosines) <= 1e-12:
            raise EvaluationError("the judgements, or the cosines, of the covered pairs are all equal")
        overlap = tf_idf_cosines(pairs)[held]
        scores = []
        for name, correlation in (("spearman", spearman), ("pearson", pearson)):
            statistic = partial(_of_resample, correlation, cosines, judged)
            low, high = resampled_interval(statistic, len(judged), seed=seed)
            baseline = correlation(overlap, judged)
            scores.append(
                Score(
                    task=task_label(self.name, benchmark),
                    metric=name,
                    value=correlation(cosines, judged),
                    ci_low=low,
                    ci_high=high,
                    n=len(judged),
                    coverage=len(judged) / len(pairs),
                    higher_is_better=True,
                    baseline_name="" if math.isnan(baseline) else BASELINE,
                    baseline_value=baseline,
                )
            )
        return scores


def read_pairs(path: Path | None) -> list[Pair]:
    """Read lines ``sentence<TAB>sentence<TAB>score``; the first may be a header, whose third field is no number.

    Raises:
        EvaluationError: unreadable, a malformed line, or no pair.
    """
    pairs = []
    for number, fields in records(path, "sts", FORM, most=3):
        judged = finite_number(fields[2]) if len(fields) == 3 else None
        if judged is not None:
            pairs.append((fields[0], fields[1], judged))
        elif number > 1 or len(fields) < 3:
            refuse(path, number, f"expected {FORM}")
    if not pairs:
        raise EvaluationError(f"{path} holds no pair: it needs lines of {FORM}")
    return pairs


def sentence_vectors(table: EmbeddingTable, sentences: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors of sentences, shape (n, D), and which of them the table could make, shape (n,)."""
    rows: Mapping[str, int] = row_finder(table)
    vectors = np.zeros((len(sentences), table.dimensions), dtype=np.float32)
    held = np.zeros(len(sentences), dtype=bool)
    for number, sentence in enumerate(sentences):
        own = [table.row_of[sentence]] if sentence in table.row_of else [rows[w] for w in words(sentence) if w in rows]
        if own:
            vectors[number] = table.vectors[own].mean(axis=0, dtype=np.float64)
            held[number] = True
    return vectors, held


def tf_idf_cosines(pairs: Sequence[Pair]) -> Doubles:
    """Cosine of the TF-IDF weights of each pair's words, shape (n,); 0 for a sentence without words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    sentences = list(chain(*_sides(pairs)))
    if not any(map(words, sentences)):
        return np.zeros(len(pairs))
    weights = TfidfVectorizer(analyzer=words).fit_transform(sentences)
    overlap = weights[: len(pairs)].multiply(weights[len(pairs) :]).sum(axis=1)
    return np.asarray(overlap, dtype=np.float64).reshape(-1)


def pearson(left: Doubles, right: Doubles) -> float:
    """Pearson's r; NaN where one side is constant."""
    left, right = left - left.mean(), right - right.mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 0 else math.nan


def _sides(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [first for first, _, _ in pairs], [second for _, second, _ in pairs]


def _of_resample(correlation: Correlation, left: Doubles, right: Doubles, drawn: IntArray) -> float:
    return correlation(left[drawn], right[drawn])


TASK = Sts()
