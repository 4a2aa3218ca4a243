"""Recommendation under privacy: spectral and ALS beside popularity, the plain one and one under the same epsilon."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
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
from simulations.benchmarks._harness import data_folder
from simulations.benchmarks._scored import EPSILONS, MUST_BEAT, Figure, at_epsilons
from simulations.corpora import planted_ratings
from simulations.federation import HELD_OUT_ITEMS

DELTA = 1e-5
QUICK_USERS = 300
GENERATED = "generated population"
RATINGS, MOVIES = "rec/ml-latest-small/ratings.csv.gz", "rec/ml-latest-small/movies.csv.gz"


@dataclass(frozen=True)
class Population:
    """Interactions of users, one client and one privacy unit each; ``catalogue`` lists all items, without counts."""

    name: str
    data: dict[str, Any]
    catalogue: Path

    @property
    def sections(self) -> dict[str, Any]:
        return {
            "data": {"reader": "interactions", **self.data, "unit": "client", "holdout": "last"},
            "vocabulary": {"path": str(self.catalogue), "max_rows": 100_000},
        }


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
    populations = [_generated(folder, QUICK_USERS if quick else planted_ratings.USERS)]
    if not quick:
        populations.append(_movielens(folder))
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
        for epsilon in EPSILONS:
            yield from _figures(population, "popularity", epsilon, popularity_scores(split, epsilon), plain)
    yield from at_epsilons(figures_at, (None, MUST_BEAT) if quick else EPSILONS)


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


def _generated(folder: Path, users: int) -> Population:
    """The first ``users`` of ``planted-ratings`` (``simulations/corpora/planted_ratings.py`` says how it is made)."""
    catalogue, ratings = folder / "items.tsv", folder / "ratings.csv"
    catalogue.write_text("".join(f"{key}\t1\n" for key in planted_ratings.CORPUS.vocabulary()), encoding="utf-8")
    with ratings.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user", "item", "timestamp"))
        for user, items in enumerate(planted_ratings.CORPUS.lists(users)):
            rows.writerows((user, planted_ratings.item_key(int(item)), time) for time, item in enumerate(items))
    return Population(GENERATED, {"path": str(ratings), "client_key": ["user"]}, catalogue)


def _movielens(folder: Path) -> Population:
    """610 users; the list of movies is public, their ratings are not."""
    path = folder / "movies.tsv"
    with gzip.open(data_folder() / MOVIES, "rt", encoding="utf-8", newline="") as file:
        path.write_text("".join(f"{row['movieId']}\t1\n" for row in csv.DictReader(file)), encoding="utf-8")
    data = {"path": str(data_folder() / RATINGS), "client_key": ["userId"]}
    return Population("MovieLens latest-small", data, path)
