"""Mode ``distributed`` beside ``central`` at equal epsilon: what the grid of 16 bits and its bounds cost.

First the noise, which needs no training: the standard deviation in a sum over all clients, over that of ``central``.
Then quality: epsilon 8, unit client, every client in every round, the same clients and seeds on both sides, noise
shared out for all clients (a run that tolerates a tenth of them dropping out has 5 % more). Cohorts of 1,000: the sum's
bound grows with the cohort, so the grid of 16 bits becomes coarser with it. ``ideal`` sums: the integers are those of
the protocol, added up in the clear. word2vec: the sentences of 94 novels dealt out to the clients, area under the curve
of words used together in other text (0.5 is chance). useritem: a generated population, ranking of one held-out item a
user. Means over noise seeds; the standard error is that of the ratio, from the spread of either side over its seeds.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.evaluation import quality
from common.evaluation.quality.recommendation import read_benchmark
from common.privacy.plan import make_plan
from common.privacy.plan_sizing import sized
from common.table import EmbeddingTable
from simulations.benchmarks import _interactions
from simulations.benchmarks._federated import clients_of, privacy, scenario, table_of
from simulations.benchmarks._harness import Row, at_least, reported, unjudged
from simulations.benchmarks._texts import Text, novels
from simulations.federation import HELD_OUT_ITEMS

EPSILON, BITS, LEAST_RATIO = 8.0, 16, 0.98
MECHANISMS = ("skellam", "discrete_gaussian")
SEEDS, ITEM_SEEDS = 5, 50  # NDCG@10 of a thousand users varies by a fifteenth from seed to seed
CLIENTS, ROWS = 1_000, 1_000  # of word2vec
USERS, QUICK_USERS = 1_000, 100
COHORTS, DIMENSION = (100, 1_000, 2_000, 4_000, 10_000), 2**15
Scores = dict[str, float]


@dataclass(frozen=True)
class Case:
    """One family on its data.

    Attributes:
        name: in the rows.
        sections: of the scenario, without ``[privacy]`` mode.
        table: that is scored.
        delta: of the claim.
        score: metric -> value of a table; ``barred`` is the metric with the bar.
    """

    name: str
    sections: dict[str, Any]
    table: str
    delta: float
    score: Callable[[EmbeddingTable], Scores]
    barred: str


class SecaggQuality:
    """See the module."""

    name = "secagg_quality"

    def run(self, quick: bool) -> list[Row]:
        """Train both modes with every seed; ``quick``: useritem on few users, one seed, no bar."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if quick:
                return unjudged(_of_items(folder, range(1), users=QUICK_USERS))
            rows = [_noise_row(*case) for case in product(MECHANISMS, (BITS, 24), COHORTS)]
            rows += _of_words(novels(folder), folder / "words")
            return rows + _of_items(folder, range(ITEM_SEEDS), users=USERS)


def _noise_row(mechanism: str, bits: int, clients: int) -> Row:
    """Noise of one round of updates of norm 1, delta 1e-6."""

    def stddev(mode: str, **federation: Any) -> float:
        chosen = PrivacyConfig(
            mode=mode,
            epsilon=EPSILON,
            l2_clip_norm=1.0,
            mechanism=mechanism if federation else None,
        )
        terms = FederationConfig(rounds=1, **federation)
        plan = make_plan(chosen, terms, TrainingConfig(), unit="client", additive=False, natural_clip=None)
        return sized(plan, DIMENSION).noise_stddev if federation else plan.noise_stddev

    sums = {"secure_aggregation": "ideal", "bits": bits, "min_clients": clients, "max_clients": clients}
    measure = f"noise of distributed / central, {mechanism}, {bits} bits, {clients:,} clients"
    return reported(measure, stddev("distributed", **sums) / stddev("central"))


def _of_words(text: Text, folder: Path) -> list[Row]:
    sections = text.sections("client", ROWS)
    sections["data"] |= {"client_key": [], "partition": "uniform", "clients": CLIENTS}
    task = {"family": "word2vec", "dimension": 16, "negatives": 5, "subsample": 1e-3, "random_table": "context"}

    def score(table: EmbeddingTable) -> Scores:
        found = quality.load("cooccurrence").score(table, text.public or Path(), seed=0)
        return {"quality": found[0].value}

    training = {"federation": {"rounds": 1}, "training": {"lr": 0.05}, "privacy": {"l2_clip_norm": 0.3}}
    name = f"word2vec, {CLIENTS:,} clients, AUC of words used together"
    case = Case(name, {**sections, "task": task, **training}, "words", 1e-6, score, "quality")
    return _compared(case, folder, range(SEEDS))


def _of_items(folder: Path, seeds: Sequence[int], *, users: int) -> list[Row]:
    population = _interactions.generated(folder, users)
    task = {"family": "useritem", "dimension": 8}
    sections = {**population.sections, "task": task, "federation": {"rounds": 3}}
    split_folder = folder / "items"

    def score(table: EmbeddingTable) -> Scores:
        split = read_benchmark(split_folder / HELD_OUT_ITEMS)
        return {found.metric: found.value for found in quality.load("recommendation").score(table, split, seed=0)}

    case = Case(f"useritem, {users:,} users", sections, "items", 1e-5, score, "ndcg@10")
    return _compared(case, split_folder, seeds)


def _compared(case: Case, folder: Path, seeds: Sequence[int]) -> list[Row]:
    """Rows of one case: the mean of either mode, the ratio and its standard error."""
    store = clients_of(scenario(case.sections, privacy("none", None, case.delta)), folder)
    sums = {"secure_aggregation": "ideal", "bits": BITS, "min_clients": len(store), "max_clients": len(store)}
    private: dict[str, Any] = {"central": privacy("central", EPSILON, case.delta)}
    for mechanism in MECHANISMS:
        mode = privacy("distributed", EPSILON, case.delta)["privacy"] | {"mechanism": mechanism}
        private[f"distributed, {mechanism}"] = {"privacy": mode, "federation": sums}
    found: dict[str, list[Scores]] = {mode: [] for mode in private}
    for seed in seeds:
        for mode, sections in private.items():
            chosen = scenario(case.sections, sections, {"seed": seed})
            found[mode].append(case.score(table_of(chosen, store, case.table)))
    return [row for metric in found["central"][0] for row in _rows(case, metric, found)]


def _rows(case: Case, metric: str, found: dict[str, list[Scores]]) -> list[Row]:
    """The mean of every mode; of all but the first the ratio to the first, with its standard error."""
    title = f"{case.name}, epsilon {EPSILON:g}" + f", {metric}" * (metric != "quality")
    values = {mode: np.array([scores[metric] for scores in listed]) for mode, listed in found.items()}
    rows = [reported(f"{title}: {mode}", float(v.mean())) for mode, v in values.items()]
    central, *others = values
    for mode in others:
        measure, ratio = f"{title}: {mode} / {central}", float(values[mode].mean() / values[central].mean())
        rows.append(at_least(measure, ratio, LEAST_RATIO) if metric == case.barred else reported(measure, ratio))
        rows.append(reported(f"{measure}, standard error", ratio * _relative_error(values[mode], values[central])))
    return rows


def _relative_error(*sides: NDArray[np.float64]) -> float:
    """Of a ratio of two means over seeds; NaN for one seed."""
    if any(len(side) < 2 for side in sides):
        return math.nan
    return math.hypot(*(side.std(ddof=1) / side.mean() / math.sqrt(len(side)) for side in sides))


BENCHMARK = SecaggQuality()
