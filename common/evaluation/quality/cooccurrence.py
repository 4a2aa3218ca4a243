"""Do words that public text uses together lie closer than words that it does not? Needs no benchmark file.

Pairs that co-occur in 20-word windows far more often than chance (pointwise mutual information of at least 2 nats, as
in Church and Hanks 1990) are set against pairs with the same words, partners exchanged at random, that never co-occur:
both classes have the same word frequencies. The figure is the chance that a random pair of the first kind has the
higher cosine (area under the ROC curve; ties count half). Without a file the text is the standard library's
documentation; it is public, so the figure costs no privacy, and it is not the text that clients train on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.score import Score
from common.public_text import stdlib_documentation
from common.table import EmbeddingTable, IntArray
from common.text import words

WINDOW_WORDS = 20
MIN_LETTERS = 3
MIN_WINDOWS = 15  # windows that a word must occur in
MIN_TOGETHER = 4
MIN_PMI_NATS = 2.0
MIN_PAIRS = 20
RESAMPLES = 200


@dataclass(frozen=True)
class PublicText:
    """What the benchmark's text says about its frequent words.

    Attributes:
        words: W words, sorted.
        windows: shape (W,): windows that hold the word.
        together: shape (W, W) scipy CSR array: windows that hold both; the diagonal equals ``windows``.
        pairs: shape (P, 2), int64 indices into ``words``, first below second: the pairs used together.
    """

    words: tuple[str, ...]
    windows: NDArray[np.int64]
    together: Any
    pairs: IntArray


class Cooccurrence:
    """``cooccurrence`` (own text) or ``cooccurrence:FILE`` (UTF-8, one text a line)."""

    name = "cooccurrence"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """One score, metric ``auc``; its interval comes from resampling words, because pairs share words.

        The baseline is the best of three that know nothing of meaning: a random table, similar frequency, similar
        spelling.

        Raises:
            EvaluationError: unreadable file, or fewer than 20 pairs in the table.
        """
        text = public_text(_texts(benchmark))
        known = np.array([word in table.row_of for word in text.words], dtype=bool)
        together = text.pairs[known[text.pairs].all(axis=1)]
        rng = np.random.default_rng(seed)
        apart = _exchanged(text, together, rng)
        if min(len(together), len(apart)) < MIN_PAIRS:
            source = "the standard library's documentation" if benchmark is None else benchmark.name
            raise EvaluationError(
                f"the table holds {len(together)} of {len(text.pairs)} pairs of {source}; {MIN_PAIRS} are needed",
                remedy="Name public text of the table's own field: cooccurrence:FILE, one text a line.",
            )
        pairs = np.concatenate([together, apart])
        label = np.arange(len(pairs)) < len(together)
        similarity = cosines(table, text.words, pairs)
        low, high = _interval(similarity, label, pairs, len(text.words), rng)
        baseline_name, baseline = max(_baselines(table, text, pairs, label, rng).items(), key=lambda item: item[1])
        return [
            Score(
                task=self.name if benchmark is None else f"{self.name}:{benchmark.name}",
                metric="auc",
                value=area_under_curve(similarity, label),
                ci_low=low,
                ci_high=high,
                n=len(pairs),
                coverage=len(together) / len(text.pairs),
                higher_is_better=True,
                baseline_name=baseline_name,
                baseline_value=baseline,
            )
        ]


def public_text(texts: Iterable[str]) -> PublicText:
    """Count windows and pick the pairs that ``texts`` use together."""
    from scipy import sparse

    column: dict[str, int] = {}
    flat: list[int] = []
    sizes = [0]
    for window in _windows(texts):
        flat.extend(column.setdefault(word, len(column)) for word in dict.fromkeys(window) if len(word) >= MIN_LETTERS)
        sizes.append(len(flat))
    ones = np.ones(len(flat), dtype=np.int64)
    holds = sparse.csr_array(
        (ones, np.array(flat, dtype=np.int64), np.array(sizes)), shape=(len(sizes) - 1, len(column))
    )
    windows = np.bincount(np.array(flat, dtype=np.int64), minlength=len(column))
    by_name = np.array(sorted(column, key=str), dtype=object)
    order = np.array([column[word] for word in by_name], dtype=np.int64)
    frequent = windows[order] >= MIN_WINDOWS
    holds = holds[:, order[frequent]]
    windows = windows[order[frequent]]
    together = sparse.csr_array(holds.T @ holds)
    upper = sparse.triu(together, k=1).tocoo()
    pmi = np.log(upper.data * float(len(sizes) - 1) / (windows[upper.row] * windows[upper.col]).astype(np.float64))
    chosen = (upper.data >= MIN_TOGETHER) & (pmi >= MIN_PMI_NATS)
    pairs = np.stack([upper.row[chosen], upper.col[chosen]], axis=1).astype(np.int64)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return PublicText(tuple(by_name[frequent]), windows, together, pairs)


def area_under_curve(similarity: NDArray[np.float64], label: NDArray[np.bool_]) -> float:
    """Chance that a labelled pair scores above an unlabelled one, ties counted half (Mann-Whitney U / n1 n0)."""
    return _weighted_area(similarity, label, np.ones(len(label)))


def cosines(table: EmbeddingTable, names: tuple[str, ...], pairs: IntArray) -> NDArray[np.float64]:
    """Cosine of each pair of indices into ``names``; both words must be in the table. Shape (P,)."""
    rows = np.array([table.row_of.get(name, 0) for name in names])[pairs]
    unit = table.unit_vectors
    return np.einsum("pd,pd->p", unit[rows[:, 0]], unit[rows[:, 1]], dtype=np.float64)


def _texts(benchmark: Path | None) -> Iterator[str]:
    if benchmark is None:
        yield from (text for _, text in stdlib_documentation())
        return
    try:
        yield from benchmark.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"cannot read benchmark {benchmark}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}",
            remedy="Give a UTF-8 text file, one text a line.",
        ) from None


def _windows(texts: Iterable[str]) -> Iterator[list[str]]:
    for text in texts:
        found = words(text)
        yield from (found[start : start + WINDOW_WORDS] for start in range(0, len(found), WINDOW_WORDS))


def _exchanged(text: PublicText, together: IntArray, rng: np.random.Generator) -> IntArray:
    """The pairs with their second words exchanged, three times over, without those that do co-occur."""
    if not len(together):
        return together
    mixed = np.concatenate([np.stack([together[:, 0], rng.permutation(together[:, 1])], axis=1) for _ in range(3)])
    return mixed[np.asarray(text.together[mixed[:, 0], mixed[:, 1]]).ravel() == 0]


def _baselines(
    table: EmbeddingTable, text: PublicText, pairs: IntArray, label: NDArray[np.bool_], rng: np.random.Generator
) -> dict[str, float]:
    random = EmbeddingTable(table.keys, rng.standard_normal(table.vectors.shape).astype(np.float32))
    log_frequency = np.log(text.windows)
    grams = [{f"<{word}>"[i : i + 3] for i in range(len(word))} for word in text.words]
    spelling = np.array([len(grams[a] & grams[b]) / len(grams[a] | grams[b]) for a, b in pairs])
    return {
        "random table": area_under_curve(cosines(random, text.words, pairs), label),
        "similar frequency": area_under_curve(-np.abs(np.diff(log_frequency[pairs], axis=1)[:, 0]), label),
        "similar spelling": area_under_curve(spelling, label),
    }


def _interval(
    similarity: NDArray[np.float64], label: NDArray[np.bool_], pairs: IntArray, size: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % bootstrap interval over words: a pair counts as often as both its words are drawn."""
    areas = []
    for _ in range(RESAMPLES):
        drawn = rng.poisson(1.0, size).astype(np.float64)
        weight = drawn[pairs[:, 0]] * drawn[pairs[:, 1]]
        if weight[label].any() and weight[~label].any():
            areas.append(_weighted_area(similarity, label, weight))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)


def _weighted_area(similarity: NDArray[np.float64], label: NDArray[np.bool_], weight: NDArray[np.float64]) -> float:
    _, level = np.unique(similarity, return_inverse=True)
    above = np.bincount(level, weights=weight * label)
    below = np.bincount(level, weights=weight * ~label)
    wins = np.sum(above * (np.cumsum(below) - below / 2))
    return float(wins / (above.sum() * below.sum()))


TASK = Cooccurrence()
