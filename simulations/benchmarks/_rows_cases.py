"""The cases of the benchmark rows: tables that the data use wholly, and tables of which they use a part.

Steps and rates fit the time that the benchmark has. Each reach is the one of a coarse search (factors of two to five)
at which all rows, lazily noised, did best at epsilon 8; the other methods take it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.evaluation.quality.recommendation import RecommendationBenchmark
from simulations.benchmarks import _rows_items, _rows_words, _texts
from simulations.benchmarks._privacy_recommendation import popularity_scores
from simulations.benchmarks._rows_training import Problem
from simulations.benchmarks._rows_words import PASSAGE, SENTENCE
from simulations.corpora import planted_ratings

CATALOGUE = 10_000
EVERY_WORD = 1_000_000
EVERYTHING = ("threshold", "ratio", "clip")
# The clip is below nearly every unit's gradient, so each counts alike; see docs/quality.md on the random context table.
TASK: dict[str, Any] = {
    "dimension": 16,
    "negatives": 1,
    "random_table": "context",
    "subsample": 3e-4,
    "max_pairs": 16,
    "shared_negatives": 16,
}
DOCUMENT_TASK = {**TASK, "max_pairs": 48, "max_tokens_per_unit": 2048}
SENTENCES = _rows_words.Training(1_000, SENTENCE, TASK, steps=4, unit_rate=1 / 32, clip=0.003, reach=25.0)
DOCUMENTS = _rows_words.Training(2_000, PASSAGE, DOCUMENT_TASK, steps=4, unit_rate=1 / 16, clip=0.003, reach=25.0)
LISTS = _rows_items.Training(16, 12, 2_000, steps=8, unit_rate=0.25, clip=0.05, reach=1_500.0)
CATALOGUE_LISTS = replace(LISTS, reach=500.0)
FILMS = _rows_items.Training(16, 32, 2_000, steps=4, unit_rate=1.0, clip=0.05, reach=20.0)


@dataclass(frozen=True)
class Case:
    """A problem with what is measured on it.

    Attributes:
        problem: the data, the model and the training.
        textbook: whether a unit's gradient of the whole table's size can be held.
        epsilons: at each, every method runs with every seed.
        sweep: how the names of the sweep's settings begin that are run on it.
        baseline: epsilon -> measure -> figure to read the others beside.
    """

    problem: Problem
    textbook: bool = False
    epsilons: tuple[float, ...] = (8.0, 3.0)
    seeds: int = 4
    sweep: tuple[str, ...] = ()
    baseline: Callable[[float], dict[str, float]] = field(default=lambda epsilon: {})


def full_cases(folder: Path) -> Iterator[Case]:
    """Novels, the generated population and MovieLens."""
    corpus = _rows_words.read(_texts.novels(folder))
    yield Case(_rows_words.problem(corpus, SENTENCES), textbook=True)
    yield Case(_rows_words.problem(corpus, replace(SENTENCES, rows=EVERY_WORD)))
    yield Case(_rows_words.problem(corpus, DOCUMENTS), textbook=True)
    yield Case(_rows_words.problem(corpus, replace(DOCUMENTS, rows=EVERY_WORD)), sweep=("threshold 3 and",))
    people = planted_ratings.USERS
    used, part = (_rows_items.generated_split(people, rows) for rows in (planted_ratings.ITEMS, CATALOGUE))
    crowd = _items("generated population", used, LISTS)
    yield replace(crowd, textbook=True, sweep=EVERYTHING, epsilons=(8.0, 3.0, 1.0))
    crowd = _items("generated population", part, CATALOGUE_LISTS)
    yield replace(crowd, epsilons=(8.0, 3.0, 1.0))
    slower = replace(CATALOGUE_LISTS, reach=CATALOGUE_LISTS.reach / 4)  # what a smaller budget would rather have
    yield replace(_items("generated population, reach / 4", part, slower), epsilons=(3.0, 1.0))
    films = _items("MovieLens latest-small", _rows_items.movielens_split(folder), FILMS)
    yield replace(films, textbook=True)


def quick_cases(folder: Path) -> Iterator[Case]:
    """A generated text and 150 generated users."""
    task = {**TASK, "dimension": 8, "max_pairs": 8, "shared_negatives": 4, "subsample": 0.0}
    training = replace(SENTENCES, rows=60, task=task, steps=2, unit_rate=0.25)
    words = _rows_words.problem(_rows_words.read(_texts.generated(folder)), training)
    yield Case(words, textbook=True, epsilons=(8.0,), seeds=2)
    lists = replace(LISTS, dimension=4, steps=2, unit_rate=1.0)
    items = _rows_items.problem("generated population", _rows_items.generated_split(150, 2_500), lists)
    yield Case(items, epsilons=(8.0,), seeds=2, sweep=EVERYTHING)


def _items(label: str, split: RecommendationBenchmark, training: _rows_items.Training) -> Case:
    def popularity(epsilon: float) -> dict[str, float]:
        scores = popularity_scores(split.first(training.judged), epsilon)
        return {f"popularity under the same epsilon, {score.metric}": score.value for score in scores}

    return Case(_rows_items.problem(label, split, training), baseline=popularity)
