"""Federated implicit ALS against the ``implicit`` package's ALS and BPR, without privacy, on the same split.

MovieLens latest-small, leave-one-out: each user's last rating in time is held out, and its rank among all items that
the user has not rated counts. Every user is a client. The peer is run at several settings and its best mean over the
seeds is taken, for each measure by itself; ours has one setting. Figures are lifts over popularity: of two hit rates
that popularity alone explains for the most part, a plain ratio would say little.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DependencyError
from common.evaluation.quality import recommendation
from common.evaluation.quality.recommendation import RecommendationBenchmark
from simulations.benchmarks._federated import clients_of, privacy, scenario, table_of
from simulations.benchmarks._harness import Row, at_least, reported, unjudged
from simulations.benchmarks._interactions import Population, generated, movielens
from simulations.federation import HELD_OUT_ITEMS

MEASURES = ("hit_rate@10", "ndcg@10")
LEAST_SHARE = 0.95
# Each family with the settings that its privacy-free run needs; (dimension, alpha, regularisation) of the peer.
ALS: dict[str, Any] = {
    "task": {"family": "useritem", "dimension": 64},
    "federation": {"rounds": 10},
}
BPR: dict[str, Any] = {
    "task": {"family": "useritem_bpr", "dimension": 32},
    "federation": {"rounds": 20},
    "training": {"lr": 0.1},
    "server": {"denominator": 1.0},
}
PEER_SETTINGS = ((32, 2.0, 10.0), (32, 5.0, 10.0), (64, 2.0, 0.1), (64, 2.0, 10.0))
PEER_ITERATIONS = 15
QUICK_USERS = 150


class QualityRecommendation:
    """See the module."""

    name = "quality_recommendation"

    def run(self, quick: bool) -> list[Row]:
        """Three seeds; ``quick`` is 150 generated users, one seed, two rounds and no bar.

        Raises:
            DependencyError: the ``implicit`` package is missing. DataError: no folder of benchmark data.
        """
        seeds = range(1 if quick else 3)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            population = generated(folder, QUICK_USERS) if quick else movielens(folder)
            ours: dict[str, list[list[float]]] = {"useritem": [], "useritem_bpr": []}
            for settings in (ALS, BPR):
                for seed in seeds:
                    rounds = {"federation": {"rounds": 2}} if quick else {}
                    chosen = {**settings, **rounds, "seed": seed}
                    ours[settings["task"]["family"]].append(_federated(population, chosen, folder))
            split = recommendation.read_benchmark(next(folder.glob(f"*/{HELD_OUT_ITEMS}")))
        rows = list(_rows(ours, split, seeds))
        return unjudged(rows) if quick else rows


def _rows(ours: dict[str, list[list[float]]], split: RecommendationBenchmark, seeds: range) -> Iterator[Row]:
    popular = recommendation.ranks(split, recommendation.popularity_scorer(split.popularity))
    baseline = np.array([recommendation.hits(popular).mean(), recommendation.gains(popular).mean()])
    peers = [np.mean([_implicit_als(split, setting, seed) for seed in seeds], axis=0) for setting in PEER_SETTINGS]
    best = np.max(peers, axis=0)
    als, bpr = (np.mean(ours[family], axis=0) for family in ("useritem", "useritem_bpr"))
    bpr_peer = np.mean([_implicit_bpr(split, seed) for seed in seeds], axis=0)
    for number, measure in enumerate(MEASURES):
        yield reported(f"popularity: {measure}", float(baseline[number]))
        yield reported(f"implicit ALS, best of {len(peers)} settings: {measure}", float(best[number]))
        yield reported(f"implicit BPR: {measure}", float(bpr_peer[number]))
        yield reported(f"federated ALS: {measure}", float(als[number]))
        yield reported(f"federated BPR: {measure}", float(bpr[number]))
        share = float((als[number] - baseline[number]) / (best[number] - baseline[number]))
        yield at_least(f"federated ALS: share of implicit ALS's lift over popularity, {measure}", share, LEAST_SHARE)


def _federated(population: Population, settings: dict[str, Any], folder: Path) -> list[float]:
    """Hit rate and NDCG of one whole run."""
    chosen = scenario(population.sections, privacy("none", None, 1e-5), settings)
    own = folder / chosen.digest[:16]
    table = table_of(chosen, clients_of(chosen, own), "items")
    return [score.value for score in recommendation.TASK.score(table, own / HELD_OUT_ITEMS, seed=0)]


def _implicit_als(split: RecommendationBenchmark, setting: tuple[int, float, float], seed: int) -> list[float]:
    als = _peer("als").AlternatingLeastSquares
    dimension, alpha, regularisation = setting
    return _fitted(
        als(
            factors=dimension,
            alpha=alpha,
            regularization=regularisation,
            iterations=PEER_ITERATIONS,
            random_state=seed,
            num_threads=1,
        ),
        split,
    )


def _implicit_bpr(split: RecommendationBenchmark, seed: int) -> list[float]:
    bpr = _peer("bpr").BayesianPersonalizedRanking
    return _fitted(bpr(factors=32, learning_rate=0.05, iterations=100, random_state=seed, num_threads=1), split)


def _fitted(model: Any, split: RecommendationBenchmark) -> list[float]:
    from scipy.sparse import csr_matrix

    ones = np.ones(len(split.items), dtype=np.float32)
    model.fit(csr_matrix((ones, split.items, split.offsets), shape=(len(split), split.rows)), show_progress=False)
    rank = recommendation.ranks(split, recommendation.vector_scorer(model.item_factors, model.user_factors))
    return [float(recommendation.hits(rank).mean()), float(recommendation.gains(rank).mean())]


def _peer(module: str) -> Any:
    try:
        from implicit.cpu import als, bpr
    except ImportError:
        raise DependencyError("the peer of this benchmark is not installed", remedy="pip install '.[bench]'") from None
    return {"als": als, "bpr": bpr}[module]


BENCHMARK = QualityRecommendation()
