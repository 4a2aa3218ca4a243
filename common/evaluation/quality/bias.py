"""Bias: the word embedding association test, WEAT (Caliskan, Bryson and Narayanan, Science 356, 2017).

With s(w) = mean cosine of w with the first attributes - mean cosine with the second:
- ``statistic``: sum of s over the first targets - sum over the second. Above 0: the first targets lean to the first
  attributes, as the file's order supposes.
- ``effect_size``: (mean of s over the first - mean over the second) / standard deviation of s over both. The deviation
  divides by the number of words (ddof 0), as WEFE does; with n - 1, as some code has it, the figure is smaller by
  sqrt((n - 1) / n). Its largest value is 2 for sets of equal size.
- ``p_value``, one-sided: share of the ways to deal the target words into sets of these sizes whose statistic is at
  least as large. All ways are counted where there are at most ``EXACT``; else ``DRAWN`` are drawn and
  (hits + 1) / (drawn + 1) is told, so it is never 0.

Intervals: percentile bootstrap over the words within each of the four sets; Wilson's for a drawn p-value. A word set
that lacks more than ``MOST_MISSING`` of its words is refused: the rest would be another test. Words are looked up as
spelt, else in lower case. No bias measured is not the absence of bias: the test sees these words in this order only.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.quality._intervals import wilson_interval
from common.evaluation.quality._word_sets import LEAST_WORDS, WordSets, read_word_sets
from common.evaluation.quality._words import found, row_finder, stem
from common.evaluation.score import Score
from common.table import EmbeddingTable

MOST_MISSING = 0.2  # WEFE's default too
EXACT = 50_000
DRAWN = 100_000
RESAMPLES = 1_000
_TIE = 1e-12  # statistics that differ by less are equal: the same words added up in another order
BASELINE = "no association"


@dataclass(frozen=True)
class Association:
    """What one test found.

    Attributes:
        statistic: difference of sums, of the sets as found in the table.
        effect_size: standardised difference of means.
        p_value: one-sided.
        p_interval: exact p-values have no width.
    """

    statistic: float
    effect_size: float
    p_value: float
    p_interval: tuple[float, float]


class Bias:
    """``bias:FILE``; see the module."""

    name = "bias"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """Three scores for each test of the file.

        Raises:
            EvaluationError: unreadable file, too many words missing, zero rows or NaN among the words' vectors, or
                all target words have one and the same association.
        """
        tests = read_word_sets(benchmark)
        rows = row_finder(table)
        title = f"{self.name}:{stem(benchmark)}" if benchmark else self.name
        return [
            score
            for test in tests
            for score in _scores(table, rows, test, title=f"{title}:{test.name}" if test.name else title, seed=seed)
        ]


def associations(cosines: NDArray[np.float64], first_attributes: int) -> NDArray[np.float64]:
    """s(w) of each target word, shape (T,), from cosines (T, attributes), first attributes first."""
    return cosines[:, :first_attributes].mean(axis=1) - cosines[:, first_attributes:].mean(axis=1)


def effect_size(s: NDArray[np.float64], first: int) -> float:
    """WEAT's effect size; ``first`` words of ``s`` are the first targets. NaN when all are equal."""
    spread = s.std()
    if spread <= _TIE:
        return math.nan
    return float((s[:first].mean() - s[first:].mean()) / spread)


def p_value(s: NDArray[np.float64], first: int, *, seed: int) -> tuple[float, tuple[float, float]]:
    """One-sided permutation p-value and its interval, from the associations of the target words."""
    bar = s[:first].sum() - _TIE * max(1.0, float(np.abs(s).sum()))
    if math.comb(len(s), first) <= EXACT:
        dealt = np.array(list(itertools.combinations(range(len(s)), first)))
        exact = float(np.mean(s[dealt].sum(axis=1) >= bar))
        return exact, (exact, exact)
    rng, hits = np.random.default_rng(seed), 0
    size = max(1, (4 << 20) // len(s))
    for start in range(0, DRAWN, size):
        lines = np.broadcast_to(s, (min(size, DRAWN - start), len(s)))
        hits += int(np.sum(rng.permuted(lines, axis=1)[:, :first].sum(axis=1) >= bar))
    return (hits + 1) / (DRAWN + 1), wilson_interval(hits + 1, DRAWN + 1)


def association(cosines: NDArray[np.float64], first: int, first_attributes: int, *, seed: int) -> Association:
    """The whole test, from the cosines of target words with attribute words."""
    s = associations(cosines, first_attributes)
    p, p_interval = p_value(s, first, seed=seed)
    return Association(float(s[:first].sum() - s[first:].sum()), effect_size(s, first), p, p_interval)


def _scores(table: EmbeddingTable, rows: dict[str, int], test: WordSets, *, title: str, seed: int) -> list[Score]:
    sets = [
        _present(rows, words, name) for words, name in zip(test.words, (*test.targets, *test.attributes), strict=True)
    ]
    cosines = _cosines(table, sets[0] + sets[1], sets[2] + sets[3])
    tested = association(cosines, len(sets[0]), len(sets[2]), seed=seed)
    if math.isnan(tested.effect_size):
        raise EvaluationError(f"{title}: all target words are associated alike; there is nothing to compare")
    low, high = _intervals(cosines, len(sets[0]), len(sets[2]), seed=seed)
    coverage = sum(map(len, sets)) / sum(map(len, test.words))
    figures = (
        ("statistic", tested.statistic, (low[0], high[0]), False, BASELINE, 0.0),
        ("effect_size", tested.effect_size, (low[1], high[1]), False, BASELINE, 0.0),
        ("p_value", tested.p_value, tested.p_interval, True, "", math.nan),
    )
    return [
        Score(
            task=title,
            metric=metric,
            value=value,
            ci_low=float(ends[0]),
            ci_high=float(ends[1]),
            n=len(sets[0]) + len(sets[1]),
            coverage=coverage,
            higher_is_better=higher,
            baseline_name=name,
            baseline_value=baseline,
        )
        for metric, value, ends, higher, name, baseline in figures
    ]


def _present(rows: dict[str, int], words: tuple[str, ...], name: str) -> list[int]:
    hits = [hit[0] for word in words if (hit := found(rows, (word,)))]
    if len(hits) < LEAST_WORDS or len(words) - len(hits) > MOST_MISSING * len(words):
        raise EvaluationError(
            f"bias: the table has {len(hits)} of the {len(words)} words of {name}; at most {MOST_MISSING:.0%} may lack",
            remedy="Choose words that the table has; what remains of this set would be another test.",
        )
    return hits


def _cosines(table: EmbeddingTable, targets: list[int], attributes: list[int]) -> NDArray[np.float64]:
    """Cosines of target rows with attribute rows, in double precision, without a copy of the table."""
    vectors = table.vectors[targets + attributes].astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise EvaluationError("bias: a word's vector is zero, NaN or infinite: it has no direction")
    unit = vectors / lengths
    return unit[: len(targets)] @ unit[len(targets) :].T


def _intervals(
    cosines: NDArray[np.float64], first: int, first_attributes: int, *, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile intervals of statistic and effect size over words drawn anew within each set."""
    rng = np.random.default_rng(seed)
    second, others = cosines.shape[0] - first, cosines.shape[1] - first_attributes
    values = []
    for _ in range(RESAMPLES):
        targets = np.concatenate([rng.integers(first, size=first), first + rng.integers(second, size=second)])
        drawn = rng.integers(first_attributes, size=first_attributes)
        attributes = np.concatenate([drawn, first_attributes + rng.integers(others, size=others)])
        s = associations(cosines[np.ix_(targets, attributes)], first_attributes)
        values.append((s[:first].sum() - s[first:].sum(), effect_size(s, first)))
    low, high = np.nanquantile(np.array(values), [0.025, 0.975], axis=0)
    return low, high


TASK = Bias()
