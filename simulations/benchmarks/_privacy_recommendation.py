"""Recommendation under privacy: spectral and ALS beside popularity, the plain one and one under the same epsilon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from common.evaluation import quality
from common.evaluation.quality.recommendation import (
    RecommendationBenchmark,
    popularity_scorer,
    ranks,
    read_benchmark,
    scores_of_ranks,
)
from common.evaluation.score import Score
from common.privacy import accounting
from common.privacy.mechanisms import gaussian
from common.privacy.rng import NoiseSource
from common.table import FloatArray
from simulations.benchmarks._federated import clients_of, privacy, scenario, table_of
from simulations.benchmarks._interactions import GENERATED, Population, generated, movielens
from simulations.benchmarks._scored import EPSILONS, MUST_BEAT, SMALLER, Figure, at_epsilons
from simulations.corpora import planted_ratings
from simulations.federation import HELD_OUT_ITEMS

DELTA = 1e-5
QUICK_USERS = 300


@dataclass(frozen=True)
class Method:
    """A family with the rounds it takes under privacy and without."""

    family: str
    table: str
    task: dict[str, Any]
    private_rounds: int
    plain_rounds: int


METHODS = (
    Method("useritem", "items", {"dimension": 16}, private_rounds=4, plain_rounds=6),
    Method(
        "spectral",
        "rows",
        {"dimension": 16, "rarity": 0.0, "context_rarity": 0.0, "drop_first": False},
        private_rounds=3,
        plain_rounds=3,
    ),
)


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """Every method at every epsilon on the generated population and, in the full size, on MovieLens latest-small."""
    populations = [generated(folder, QUICK_USERS if quick else planted_ratings.USERS)]
    if not quick:
        populations.append(movielens(folder))
    return [figure for population in populations for figure in _of_population(population, folder, quick=quick)]


def _of_population(population: Population, folder: Path, *, quick: bool) -> Iterator[Figure]:
    for method in METHODS[:1] if quick else METHODS:
        yield from _of_method(method, population, folder / f"{population.name}-{method.family}", quick=quick)


def _of_method(method: Method, population: Population, folder: Path, *, quick: bool) -> Iterator[Figure]:
    base = {**population.sections, "task": {"family": method.family, **method.task}}
    store = clients_of(scenario(base, privacy("none", None, DELTA)), folder)
    split = read_benchmark(folder / HELD_OUT_ITEMS)
    plain = popularity_scores(split, None)

    def figures_at(epsilon: float | None) -> list[Figure]:
        rounds = method.plain_rounds if epsilon is None else method.private_rounds
        chosen = scenario(base, privacy("central", epsilon, DELTA), {"federation": {"rounds": rounds}})
        found = quality.load("recommendation").score(table_of(chosen, store, method.table), split, seed=0)
        return _figures(population, method.family, epsilon, found, plain)

    if method is METHODS[0]:  # popularity does not depend on the method
        for epsilon in (*EPSILONS, *SMALLER):
            yield from _figures(population, "popularity", epsilon, popularity_scores(split, epsilon), plain)
    yield from chain(figures_at(None), figures_at(MUST_BEAT)) if quick else at_epsilons(figures_at)


def _figures(
    population: Population, method: str, epsilon: float | None, scores: list[Score], baseline: list[Score]
) -> list[Figure]:
    """Beside plain popularity: what beats it also beats popularity under noise. MovieLens' 610 users carry no bar."""
    label = f"{method}, {population.name}, unit user"
    barred = method != "popularity" and population.name == GENERATED
    pairs = zip(scores, baseline, strict=True)
    return [Figure(label, epsilon, s.metric, s, reference.value, barred=barred) for s, reference in pairs]


def popularity_scores(split: RecommendationBenchmark, epsilon: float | None) -> list[Score]:
    """Popularity of the training items; under privacy each user's items weigh ``n^(-1/2)`` and the sum is noised.

    A user's contribution then has norm 1, so one Gaussian release protects the user (add or remove).
    """
    weights = np.repeat(1.0 / np.sqrt(np.maximum(np.diff(split.offsets), 1)), np.diff(split.offsets))
    total: FloatArray = np.bincount(split.items, weights=weights, minlength=split.rows).astype(np.float32)
    if epsilon is not None:
        sigma = accounting.calibrate(gaussian.MECHANISM.event, epsilon=epsilon, delta=DELTA)
        source = NoiseSource.seeded_for_tests(0).derive("popularity", split.rows)
        total = gaussian.MECHANISM.add_noise({"popularity": total}, sigma, source)["popularity"]
    plain = ranks(split, popularity_scorer(split.popularity))
    own = plain if epsilon is None else ranks(split, popularity_scorer(total.astype(np.float64)))
    return scores_of_ranks(own, baseline=plain, baseline_name="popularity", task="recommendation", seed=0)
