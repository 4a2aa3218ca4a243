"""Recommendation: how high a user's held-out item ranks among all items that the user does not already have.

Users are folded into the released item table in closed form (they were never in it), or given as vectors. Ranking is
full: metrics on a sample of negatives order models differently than the full ranking does, not even in expectation
(Krichene and Rendle, KDD 2020), so a sample is an explicit choice with a warning. Items that tie with the held-out one
count half: a table of constants ranks it in the middle, not first.

A user may have several held-out items: recall and the reciprocal rank of the first are given too, and items that tie
count as in random order (``_ranking_metrics``). With one held-out item recall is the hit rate, so it is not repeated.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.quality._intervals import bootstrap_interval, wilson_interval
from common.evaluation.quality._ranking import Lists
from common.evaluation.quality._several_held_out import scores_of_several
from common.evaluation.score import Score
from common.foldin import fold_in
from common.table import EmbeddingTable, FloatArray, IntArray

CUTOFF = 10
_CHUNK_SCORES = 1 << 22


@dataclass(frozen=True)
class RecommendationBenchmark:
    """Users with the items they have and those held out; rows are numbered as in the table.

    Attributes:
        offsets: shape (U + 1,); user u has ``items[offsets[u]:offsets[u + 1]]``.
        items: row numbers of training items, shape (R,).
        held_out: row numbers of held-out items, none of the user's training items: one a user, shape (U,), or several.
        rows: V, the number of items.
        held_out_offsets: shape (U + 1,); user u's held-out items are ``held_out[held_out_offsets[u]:...]``, at least
            one and none twice; ``None`` where each user has one.
    """

    offsets: IntArray
    items: IntArray
    held_out: IntArray
    rows: int
    held_out_offsets: IntArray | None = None

    def __post_init__(self) -> None:
        held, offsets = self.held_out_lists, self.offsets
        sound = len(offsets) == len(held.offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(self.items)
        sound = sound and held.offsets[0] == 0 and held.offsets[-1] == len(self.held_out)
        sound = sound and bool(np.all(np.diff(offsets) >= 0) and np.all(held.sizes > 0))
        for ids in (self.items, self.held_out):
            sound = sound and bool(np.all((ids >= 0) & (ids < self.rows)))
        if not sound or _shared(Lists(offsets, self.items), held, self.rows):
            raise EvaluationError(
                "the recommendation benchmark contradicts itself", remedy="Write it again with data.holdout = 'last'."
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def held_out_lists(self) -> Lists:
        """Held-out items of each user."""
        one_each = np.arange(len(self.held_out) + 1)
        return Lists(one_each if self.held_out_offsets is None else self.held_out_offsets, self.held_out)

    @property
    def popularity(self) -> NDArray[np.float64]:
        """Training interactions of each item, shape (V,)."""
        return np.bincount(self.items, minlength=self.rows).astype(np.float64)

    def first(self, users: int) -> RecommendationBenchmark:
        """The first ``users`` users."""
        end = int(self.offsets[: users + 1][-1])
        held = self.held_out_lists.part(0, min(users, len(self)))
        own = None if self.held_out_offsets is None else held.offsets
        return RecommendationBenchmark(
            self.offsets[: users + 1], self.items[:end], held.items, rows=self.rows, held_out_offsets=own
        )


def _shared(had: Lists, held: Lists, rows: int) -> bool:
    """Whether a user has a held-out item in training, or twice."""
    codes = held.owners * rows + held.items
    return bool(np.isin(codes, had.owners * rows + had.items).any()) or len(np.unique(codes)) < len(codes)


@dataclass(frozen=True)
class FoldIn:
    """How a user's vector is made from the item table (``common.foldin``)."""

    alpha: float = 1.0
    ridge: float = 0.1


def read_benchmark(path: Path) -> RecommendationBenchmark:
    """Read an ``.npz`` with ``offsets``, ``items``, ``held_out`` and ``rows``, as ``data.holdout`` writes it.

    With several held-out items a user it holds ``held_out_offsets`` too.

    Raises:
        EvaluationError: not such a file.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = ("rows", "offsets", "items", "held_out", *({"held_out_offsets"} & set(file.files)))
            arrays = [np.asarray(file[name]) for name in names]
    except FileNotFoundError:
        raise EvaluationError(f"there is no file {path.name}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise EvaluationError(
            f"{path.name} is no recommendation benchmark (.npz of offsets, items, held_out, rows)"
        ) from None
    shapes = [array.ndim for array in arrays] == [0] + [1] * (len(arrays) - 1)
    if not shapes or any(array.dtype.kind not in "iu" for array in arrays):
        raise EvaluationError(f"{path.name}: offsets, items and held_out must be lists of integers, rows one integer")
    rows, offsets, items, held_out, *several_each = (array.astype(np.int64) for array in arrays)
    own = several_each[0] if several_each else None
    return RecommendationBenchmark(offsets, items, held_out, rows=int(rows), held_out_offsets=own)


Scorer = Callable[[int, int], NDArray[np.floating]]


def ranks(
    benchmark: RecommendationBenchmark, scorer: Scorer, *, negatives: int = 0, seed: int = 0
) -> NDArray[np.float64]:
    """Rank of each user's held-out item, counted from 0; a tie adds one half.

    Args:
        scorer: (first user, last user + 1) -> scores of all items, shape (users, V).
        negatives: 0 ranks among all items but the user's training items; otherwise among that many drawn from these.

    Raises:
        EvaluationError: users have several held-out items, which have no one rank.
    """
    if benchmark.held_out_offsets is not None:
        raise EvaluationError("users have several held-out items: they have no one rank")
    if negatives:
        warnings.warn(
            f"ranking among {negatives} sampled items: figures do not compare with full ranking", stacklevel=2
        )
    rng = np.random.default_rng(seed)
    parts = [_chunk_ranks(benchmark, a, b, scorer(a, b), negatives, rng) for a, b in _chunks(benchmark)]
    return np.concatenate(parts)


def _chunks(benchmark: RecommendationBenchmark) -> Iterator[tuple[int, int]]:
    size = max(1, _CHUNK_SCORES // benchmark.rows)
    for start in range(0, len(benchmark), size):
        yield start, min(start + size, len(benchmark))


def _chunk_ranks(
    benchmark: RecommendationBenchmark,
    start: int,
    stop: int,
    scores: NDArray[np.floating],
    negatives: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    held = benchmark.held_out[start:stop]
    users = np.arange(stop - start)
    candidate = np.ones(scores.shape, dtype=bool)
    own = np.repeat(users, np.diff(benchmark.offsets[start : stop + 1]))
    candidate[own, benchmark.items[benchmark.offsets[start] : benchmark.offsets[stop]]] = False
    candidate[users, held] = False
    if negatives:
        candidate = _sampled(candidate, negatives, rng)
    target = scores[users, held][:, None]
    ties = np.count_nonzero((scores == target) & candidate, axis=1)
    below = np.count_nonzero((scores < target) & candidate, axis=1)  # counted from below: NaN scores rank last
    return np.count_nonzero(candidate, axis=1) - below - ties / 2.0


def _sampled(candidate: NDArray[np.bool_], negatives: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """``negatives`` of each user's candidates, without replacement (all of them where there are fewer)."""
    order = np.where(candidate, rng.random(candidate.shape), 2.0)
    chosen = np.argsort(order, axis=1, kind="stable")[:, :negatives]
    sampled = np.zeros_like(candidate)
    np.put_along_axis(sampled, chosen, True, axis=1)
    return sampled & candidate


def hits(rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the held-out item is among the first ``CUTOFF``."""
    return (rank < CUTOFF).astype(np.float64)


def gains(rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """NDCG with one relevant item: ``1 / log2(rank + 2)`` among the first ``CUTOFF``, else 0."""
    return np.where(rank < CUTOFF, 1.0 / np.log2(rank + 2.0), 0.0)


def scores_of_ranks(
    rank: NDArray[np.float64], *, baseline: NDArray[np.float64], baseline_name: str, task: str, seed: int
) -> list[Score]:
    """``hit_rate@10`` (Wilson interval) and ``ndcg@10`` (bootstrap interval) beside the baseline's."""
    hit, gain = hits(rank), gains(rank)
    measured = [
        ("hit_rate", hit, wilson_interval(float(hit.sum()), len(hit)), hits(baseline)),
        ("ndcg", gain, bootstrap_interval(gain, seed), gains(baseline)),
    ]
    return [
        Score(
            task=task,
            metric=f"{name}@{CUTOFF}",
            value=float(values.mean()),
            ci_low=interval[0],
            ci_high=interval[1],
            n=len(values),
            coverage=1.0,
            higher_is_better=True,
            baseline_name=baseline_name,
            baseline_value=float(reference.mean()),
        )
        for name, values, interval, reference in measured
    ]


def table_scorer(table: FloatArray, benchmark: RecommendationBenchmark, fold: FoldIn) -> Scorer:
    """Scores by inner product with each user's folded-in vector."""
    users = fold_in(table, benchmark.offsets, benchmark.items, alpha=fold.alpha, ridge=fold.ridge)
    return vector_scorer(table, users)


def vector_scorer(table: FloatArray, users: FloatArray) -> Scorer:
    """Scores by inner product with given user vectors, shape (U, D)."""
    return lambda start, stop: users[start:stop] @ table.T


def popularity_scorer(popularity: NDArray[np.float64]) -> Scorer:
    """The same scores for everybody: how often each item occurs in training."""
    return lambda start, stop: np.broadcast_to(popularity, (stop - start, len(popularity)))


class Recommendation:
    """``recommendation``: hit rate and NDCG at 10 of a table of items, against popularity in the training part."""

    name = "recommendation"
    needs = "table"
    reads_training_data = True

    def score(
        self,
        table: EmbeddingTable,
        benchmark: Path | RecommendationBenchmark | None,
        *,
        seed: int,
        fold: FoldIn | None = None,
        users: FloatArray | None = None,
        negatives: int = 0,
    ) -> list[Score]:
        """Full ranking unless ``negatives`` says how many items to sample instead (with a warning; one held-out item).

        Args:
            benchmark: its rows must be the table's rows.
            users: user vectors (U, D) to use instead of folding in.

        Raises:
            EvaluationError: no benchmark, not one of this table, or vectors that do not fit.
        """
        if benchmark is None:
            raise EvaluationError(
                "recommendation needs a split",
                remedy="Set data.holdout = 'last', or name the file: recommendation:FILE.",
            )
        split = read_benchmark(benchmark) if isinstance(benchmark, Path) else benchmark
        if split.rows != len(table):
            raise EvaluationError(f"the benchmark has {split.rows} items and the table {len(table)}")
        if users is not None and users.shape != (len(split), table.dimensions):
            raise EvaluationError(f"user vectors of shape {users.shape} do not fit {len(split)} users")
        vectors = table.vectors
        scorer = table_scorer(vectors, split, fold or FoldIn()) if users is None else vector_scorer(vectors, users)
        popular = popularity_scorer(split.popularity)
        if split.held_out_offsets is not None and not negatives:
            return scores_of_several(split, scorer, popular, cutoff=CUTOFF, seed=seed)
        return scores_of_ranks(
            ranks(split, scorer, negatives=negatives, seed=seed),
            baseline=ranks(split, popular, negatives=negatives, seed=seed),
            baseline_name="popularity",
            task=self.name if not negatives else f"{self.name}:sampled-{negatives}",
            seed=seed,
        )


TASK = Recommendation()
