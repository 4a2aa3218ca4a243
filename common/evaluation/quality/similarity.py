"""Word similarity: Spearman's correlation of cosines with human judgements (Finkelstein et al. 2002, Hill et al. 2015).

A pair with a word that the table lacks is left out, and the coverage says how many were; setting such pairs to zero
or to the mean, as some tools do, changes the figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.quality._words import BASELINE, found, lines, random_table, row_finder, stem
from common.evaluation.score import Score
from common.table import EmbeddingTable, IntArray

RESAMPLES = 1_000
SEPARATORS = ("\t", ",", " ")


@dataclass(frozen=True)
class Pair:
    """Two words and how alike people find them."""

    first: str
    second: str
    judgement: float


class Similarity:
    """See the module."""

    name = "similarity"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """One score, metric ``spearman``, with the bootstrap percentile interval over pairs.

        Raises:
            EvaluationError: unreadable file, no covered pair, or all judgements or all cosines equal.
        """
        pairs = read_pairs(benchmark)
        rows = row_finder(table)
        hits = [(hit, pair.judgement) for pair in pairs if (hit := found(rows, (pair.first, pair.second)))]
        if len(hits) < 2:
            raise EvaluationError(
                f"the table has both words of {len(hits)} of {len(pairs)} pairs: nothing to correlate"
            )
        index = np.array([hit for hit, _ in hits], dtype=np.int64)
        judgements = np.array([judgement for _, judgement in hits])
        cosines = _cosines(table, index)
        value = spearman(cosines, judgements)
        if math.isnan(value):
            raise EvaluationError("the judgements, or the table's cosines, of the covered pairs are all equal")
        low, high = bootstrap_interval(cosines, judgements, seed=seed)
        return [
            Score(
                task=f"similarity:{stem(benchmark)}" if benchmark else "similarity",
                metric="spearman",
                value=value,
                ci_low=low,
                ci_high=high,
                n=len(hits),
                coverage=len(hits) / len(pairs),
                higher_is_better=True,
                baseline_name=BASELINE,
                baseline_value=spearman(_cosines(random_table(table, seed), index), judgements),
            )
        ]


def read_pairs(path: Path | None) -> list[Pair]:
    """Read ``word word judgement`` lines, separated by tabs, commas or blanks; ``#`` begins a comment.

    The first line may be a header: one whose third field is no number.

    Raises:
        EvaluationError: unreadable file, a line that is not a pair, or no pair at all.
    """
    pairs = []
    for number, line in lines(path, "similarity"):
        if line.startswith("#"):
            continue
        separator = next((s for s in SEPARATORS if s in line), None)
        fields = [field.strip() for field in (line.split() if separator == " " else line.split(separator))]
        judgement = _number(fields[2]) if len(fields) >= 3 else None
        if judgement is not None and fields[0] and fields[1]:
            pairs.append(Pair(fields[0], fields[1], judgement))
        elif number > 1 or len(fields) < 3:
            raise EvaluationError(f"{path}, line {number}: expected two words and a number")
    if not pairs:
        raise EvaluationError(f"{path} holds no pair of words")
    return pairs


def spearman(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    """Spearman's rho with ties at their mean rank; NaN when one side is constant."""
    from scipy.stats import rankdata

    return _pearson(rankdata(left), rankdata(right))


def bootstrap_interval(
    left: NDArray[np.floating], right: NDArray[np.floating], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval (95 %) of rho over resampled pairs (Efron 1979); constant resamples are left out."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(left), size=(resamples, len(left)))
    values = np.array([spearman(left[index], right[index]) for index in drawn])
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _pearson(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    left, right = left - left.mean(), right - right.mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 0 else math.nan


def _cosines(table: EmbeddingTable, index: IntArray) -> NDArray[np.float64]:
    unit = table.unit_vectors
    return np.einsum("nd,nd->n", unit[index[:, 0]], unit[index[:, 1]], dtype=np.float64)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


TASK = Similarity()
