"""How many of its dimensions does a table use? Needs no benchmark file.

Of the eigenvalues of the covariance matrix of the rows (their mean removed):
- ``participation_ratio``: (sum l)^2 / sum l^2, 1 to D; ``isoscore`` of the task isotropy is (this - 1) / (D - 1).
- ``effective_rank`` (Roy and Vetterli, EUSIPCO 2007): exp of the entropy of the singular values, scaled to sum to 1.
- ``explained_variance@k``, k = 1, 2, 4, ... below D: share of the k largest. Less is better: a large share at k = 1
  means that the table has collapsed.
- ``signal_share``: share of eigenvalues above what pure noise of the same strength in every coordinate reaches in one
  table of a hundred (Johnstone, Annals of Statistics 29, 2001, theorem 1.1). The strength is read off the median
  eigenvalue, so this says nothing beyond one half; it is meant for tables whose noise outweighs most directions, as
  privacy noise does. Left out where there are fewer than 4 rows a dimension.

Of the distances to the two nearest rows, by direction (rows scaled to length 1):
- ``intrinsic_dimension``: TwoNN (Facco et al., Scientific Reports 7, 2017): the slope through the origin of
  -log(1 - F) against log(r2 / r1), the largest tenth of the ratios left out. Equal rows count as
  one. Of a table above ``_rows.SAMPLED_ROWS`` rows, that many are searched among one another.

The baseline is a table of as many Gaussian rows. Where trained tables should lie between that and collapse is not
known in general: read these figures beside those of another release.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.neighbors import nearest
from common.evaluation.quality import _rows
from common.evaluation.quality._words import BASELINE
from common.evaluation.quality.isotropy import participation_ratio
from common.evaluation.score import Score
from common.table import EmbeddingTable, FloatArray, IntArray

LEFT_OUT = 0.1
LEAST_ROWS = 20
_TRACY_WIDOM_99 = 2.0234  # 99 % quantile of the Tracy-Widom law of order 1 (Johnstone 2001, table 1)


class Dimension:
    """See the module."""

    name = "dimension"
    needs = "table"
    reads_training_data = False

    def score(self, table: EmbeddingTable, benchmark: Path | None, *, seed: int) -> list[Score]:
        """The scores of the module's list; ``benchmark`` is not used.

        Raises:
            EvaluationError: see ``_rows.usable_rows``; or no two different distances to neighbours.
        """
        kept = _rows.usable_rows(table, self.name, least=LEAST_ROWS)
        rows = _rows.table_rows(table, kept)
        whole = len(kept) / len(table)
        sample = table.vectors[_rows.public_sample(kept, seed)]
        return [*_spectral(rows, whole, seed), _intrinsic(sample, len(table), seed)]


def _spectral(rows: _rows.Rows, coverage: float, seed: int) -> Iterator[Score]:
    names = metrics(rows.count, rows.dimensions)
    found = _rows.moments(rows, seed)
    chance = _rows.moments(_rows.gaussian_rows(rows, seed), seed)
    every = _rows.all_groups(rows)
    values, baseline = (spectrum_figures(m.covariance(every), int(m.counts.sum())) for m in (found, chance))

    def statistic(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        return spectrum_figures(found.covariance(chosen), int(found.counts[chosen].sum()))

    errors = _rows.half_sample_errors(statistic, len(every), seed)
    for i, name in enumerate(names):
        share = "share" in name or "variance" in name
        low, high = _rows.interval(values[i], errors[i], 0.0 if share else 1.0, 1.0 if share else rows.dimensions)
        yield Score(
            task=Dimension.name,
            metric=name,
            value=float(values[i]),
            ci_low=low,
            ci_high=high,
            n=rows.count,
            coverage=coverage,
            higher_is_better="variance" not in name,
            baseline_name=BASELINE,
            baseline_value=float(baseline[i]),
        )


def metrics(rows: int, dimensions: int) -> list[str]:
    """Names of the figures of ``spectrum_figures`` that are told of such a table."""
    named = ["participation_ratio", "effective_rank", *(f"explained_variance@{k}" for k in _steps(dimensions))]
    return [*named, "signal_share"] if rows >= 4 * dimensions else named


def spectrum_figures(covariance: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Participation ratio, effective rank, explained variances and signal share of one covariance matrix.

    All NaN where there is no variance; the last NaN where there are not more rows than dimensions.
    """
    values = np.clip(np.linalg.eigvalsh(covariance)[::-1], 0.0, None)
    total = values.sum()
    steps = _steps(len(values))
    if not total > 0:
        return np.full(3 + len(steps), math.nan)
    explained = np.cumsum(values)[np.array(steps) - 1] / total
    signal = signal_share(values, rows) if rows > len(values) else math.nan
    return np.array([participation_ratio(covariance), effective_rank(values), *explained, signal])


def effective_rank(eigenvalues: NDArray[np.float64]) -> float:
    """exp of the entropy of the singular values, which are the roots of these eigenvalues; between 1 and D."""
    share = np.sqrt(eigenvalues) / np.sqrt(eigenvalues).sum()
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def signal_share(eigenvalues: NDArray[np.float64], rows: int) -> float:
    """Share of the eigenvalues of a covariance matrix of ``rows`` rows above the edge of pure noise."""
    n, d = rows - 1, len(eigenvalues)
    root_n, root_d = math.sqrt(n - 1), math.sqrt(d)
    edge = (root_n + root_d) ** 2 + _TRACY_WIDOM_99 * (root_n + root_d) * (1 / root_n + 1 / root_d) ** (1 / 3)
    noise = float(np.median(eigenvalues)) / noise_median(d / n)
    return float(np.mean(eigenvalues > noise * edge / n))


def noise_median(ratio: float) -> float:
    """Median eigenvalue of pure unit noise with ``ratio`` <= 1 dimensions a row (Marchenko and Pastur 1967)."""
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    angle = (np.arange(2_000) + 0.5) * (math.pi / 2_000)  # x = middle + radius cos(angle): no pole at the ends
    x = (low + high) / 2 + (high - low) / 2 * np.cos(angle)
    weight = np.cumsum(np.sin(angle) ** 2 / x)  # from the largest down
    return float(np.interp(weight[-1] / 2, weight, x))


def distance_ratios(vectors: FloatArray) -> NDArray[np.float64]:
    """Distance to the second nearest over that to the nearest of each different row, by direction; sorted."""
    unit = np.unique(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), axis=0)
    if len(unit) < 3:
        return np.empty(0)
    near = nearest(unit, unit, k=2, own=np.arange(len(unit))).rows
    first, second = (
        np.linalg.norm(unit.astype(np.float64) - unit[near[:, i]].astype(np.float64), axis=1) for i in range(2)
    )
    alone = first > _rows.SAME_DIRECTION
    return np.sort(np.maximum(second[alone] / first[alone], 1.0))


def intrinsic_dimension(ratios: NDArray[np.float64]) -> float:
    """TwoNN's estimate from sorted ratios; NaN where all neighbours are at one distance."""
    n = len(ratios)
    used = int(n * (1 - LEFT_OUT))
    x, y = np.log(ratios[:used]), -np.log1p(-np.arange(1, used + 1) / max(n, 1))
    squares = float(x @ x)
    return float(x @ y) / squares if squares > 0 else math.nan


def _intrinsic(sample: FloatArray, size: int, seed: int) -> Score:
    """The score of TwoNN; ``size`` is the number of rows of the whole table."""
    ratios = distance_ratios(sample)
    value = intrinsic_dimension(ratios)
    if len(ratios) < _rows.LEAST_ROWS or math.isnan(value):
        raise EvaluationError(
            f"dimension: {len(ratios)} of {len(sample)} rows are different, with neighbours at too few distances",
            remedy="Check that training moved most rows.",
        )
    gaussian = np.random.default_rng(seed).standard_normal(sample.shape, dtype=np.float32)
    low, high = _rows.interval(value, intrinsic_error(sample, seed), 0.0, math.inf)
    return Score(
        task=Dimension.name,
        metric="intrinsic_dimension",
        value=value,
        ci_low=low,
        ci_high=high,
        n=len(ratios),
        coverage=len(ratios) / size,
        higher_is_better=True,
        baseline_name=BASELINE,
        baseline_value=intrinsic_dimension(distance_ratios(gaussian)),
    )


def intrinsic_error(vectors: FloatArray, seed: int) -> float:
    """Standard error of TwoNN's estimate, of searches among parts of the rows."""

    def statistic(part: IntArray) -> NDArray[np.float64]:
        return np.array([intrinsic_dimension(distance_ratios(vectors[part]))])

    return float(_rows.subsample_errors(statistic, len(vectors), seed)[0])


def _steps(dimensions: int) -> list[int]:
    return [1 << i for i in range(dimensions.bit_length()) if 1 << i < dimensions]


TASK = Dimension()
