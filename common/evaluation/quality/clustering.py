"""Clustering: does k-means on the unit vectors find the labels again? k is the number of labels.

A line is ``key<TAB>label``. Metrics are of the contingency table of labels and clusters: V-measure (Rosenberg and
Hirschberg 2007; the same number as normalised mutual information with the arithmetic mean), the adjusted Rand index
(Hubert and Arabie 1985) and purity. V-measure and purity rise with the number of clusters even by chance, therefore
the baseline is a random table put through the same steps.

Up to ``EXACT_KEYS`` keys Lloyd's algorithm, the best of ten starts; above, mini-batches of ``BATCH`` keys, the best of
three. Memory: the labelled keys' unit vectors, twice, and scikit-learn's distances of one batch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.quality._fields import records, refuse, task_label
from common.evaluation.quality._intervals import RESAMPLES
from common.evaluation.quality._ranking import unit_rows
from common.evaluation.quality._words import BASELINE
from common.evaluation.score import Score
from common.table import EmbeddingTable, FloatArray, IntArray

EXACT_KEYS = 20_000
BATCH = 4_096
FORM = "key<TAB>label"
METRICS = ("v_measure", "adjusted_rand", "purity")
Doubles = NDArray[np.float64]


class Clustering:
    """``clustering:FILE``: see the module."""

    name = "clustering"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """``v_measure``, ``adjusted_rand`` and ``purity``; intervals resample keys, the clusters stay as they are.

        Raises:
            EvaluationError: unreadable or malformed file, fewer than two labels or no two keys of one label among the
                covered keys, or vectors that are all equal.
        """
        labels = read_labels(benchmark)
        held = [key for key in labels if key in table.row_of]
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels[key] for key in held))}
        if not 2 <= len(numbers) < len(held):
            raise EvaluationError(
                f"the table holds {len(held)} of {len(labels)} keys, of {len(numbers)} labels: clustering needs two "
                "labels and two keys of one"
            )
        classes = np.array([numbers[labels[key]] for key in held], dtype=np.int64)
        unit = unit_rows(table.rows(held)).astype(np.float32)
        if np.ptp(unit, axis=0).max() <= 1e-6:
            raise EvaluationError("the vectors of all covered keys are equal: there is nothing to cluster")
        noise = np.random.default_rng(seed).standard_normal(unit.shape, dtype=np.float32)
        found = contingency(classes, clusters(unit, len(numbers), seed=seed))
        blind = contingency(classes, clusters(unit_rows(noise).astype(np.float32), len(numbers), seed=seed))
        make = partial(Score, task=task_label(self.name, benchmark), n=len(held), coverage=len(held) / len(labels))
        lows, highs = intervals(found, seed)
        return [
            make(
                metric=name,
                value=value,
                ci_low=low,
                ci_high=high,
                higher_is_better=True,
                baseline_name=BASELINE,
                baseline_value=chance,
            )
            for name, value, low, high, chance in zip(
                METRICS, agreement(found), lows, highs, agreement(blind), strict=True
            )
        ]


def read_labels(path: Path | None) -> dict[str, str]:
    """Read lines ``key<TAB>label``: key -> label.

    Raises:
        EvaluationError: unreadable, a malformed line, a key twice, or no line.
    """
    labels: dict[str, str] = {}
    for number, (key, label) in records(path, "clustering", FORM, most=2):
        if key in labels:
            refuse(path, number, "a key is labelled twice")
        labels[key] = label
    if not labels:
        raise EvaluationError(f"{path} is empty: it needs lines of {FORM}")
    return labels


def clusters(unit: FloatArray, k: int, *, seed: int) -> IntArray:
    """Cluster of each vector by k-means, shape (n,); fewer than ``k`` where fewer vectors are distinct."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(unit) <= EXACT_KEYS:
        model = KMeans(n_clusters=k, n_init=10, random_state=seed)
    else:
        model = MiniBatchKMeans(n_clusters=k, n_init=3, batch_size=BATCH, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it says that vectors repeat: the metrics judge that
        return np.asarray(model.fit_predict(unit), dtype=np.int64)


class Contingency(NamedTuple):
    """The occupied cells of a table of labels and clusters, shapes (cells,)."""

    label: IntArray
    cluster: IntArray
    keys: IntArray


def contingency(classes: IntArray, found: IntArray) -> Contingency:
    """Count keys by label and cluster."""
    width = int(found.max()) + 1
    cells, keys = np.unique(classes * width + found, return_counts=True)
    return Contingency(cells // width, cells % width, keys)


def agreement(table: Contingency) -> tuple[float, float, float]:
    """V-measure, adjusted Rand index and purity.

    Where labels and clusters are both single, each is 1, as in scikit-learn.
    """
    inside = table.keys > 0
    label, cluster, keys = (part[inside] for part in table)
    n = float(keys.sum())
    rows = np.bincount(label, weights=keys).astype(np.float64)
    columns = np.bincount(cluster, weights=keys).astype(np.float64)
    best = np.zeros(len(columns))
    np.maximum.at(best, cluster, keys)
    mutual = float(np.sum(keys / n * np.log(n * keys / (rows[label] * columns[cluster]))))
    entropies = _entropy(rows / n) + _entropy(columns / n)
    v_measure = 2 * max(mutual, 0.0) / entropies if entropies > 0 else 1.0
    return v_measure, _adjusted_rand(keys.astype(np.float64), rows, columns), float(best.sum()) / n


def intervals(table: Contingency, seed: int) -> tuple[Doubles, Doubles]:
    """95 % intervals of the three metrics: low and high ends, shapes (3,).

    A resample has fewer distinct keys than the sample, which raises its V-measure and purity; so the spread is taken
    about the resamples' own mean and put around the measured value (Efron and Tibshirani 1993, section 10.6).
    """
    rng, n = np.random.default_rng(seed), int(table.keys.sum())
    resamples = (rng.multinomial(n, table.keys / n) for _ in range(RESAMPLES))
    values = np.array([agreement(table._replace(keys=keys)) for keys in resamples])
    centre = np.array(agreement(table)) - values.mean(axis=0)
    low, high = np.quantile(values, [0.025, 0.975], axis=0) + centre
    return low, np.minimum(high, 1.0)


def _entropy(shares: Doubles) -> float:
    occupied = shares[shares > 0]
    return float(-np.sum(occupied * np.log(occupied)))


def _adjusted_rand(cells: Doubles, rows: Doubles, columns: Doubles) -> float:
    """Pairs of keys together in both, above what margins alone would give, over the most that could be."""
    together, by_row, by_column = (float(np.sum(x * (x - 1))) / 2 for x in (cells, rows, columns))
    n = float(cells.sum())
    expected = by_row * by_column / (n * (n - 1) / 2)
    most = (by_row + by_column) / 2
    return (together - expected) / (most - expected) if most != expected else 1.0


TASK = Clustering()
