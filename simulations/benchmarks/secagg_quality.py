"""Mode ``distributed`` beside ``central`` at equal epsilon: what the grid of 16 bits and its bounds cost in quality.

Epsilon 8, unit client, every client in every round, the same clients and the same seeds on both sides. Noise is shared
out for all clients; a run that tolerates a tenth of them dropping out has noise larger by 1 / sqrt(0.9) in both parts
of its claim. ``ideal`` sums: the integers are those of the protocol, added up in the clear. word2vec: the sentences of
94 novels dealt out to 4,000 clients, area under the curve of words used together in other text (0.5 is chance).
useritem: a generated population, ranking of one held-out item a user. Means over noise seeds; the standard error is
that of the ratio, from the spread of either side over its seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.evaluation import quality
from common.evaluation.quality.recommendation import read_benchmark
from common.table import EmbeddingTable
from simulations.benchmarks import _interactions
from simulations.benchmarks._federated import clients_of, privacy, scenario, table_of
from simulations.benchmarks._harness import Row, at_least, reported, unjudged
from simulations.benchmarks._texts import Text, novels
from simulations.federation import HELD_OUT_ITEMS

EPSILON, BITS, LEAST_RATIO = 8.0, 16, 0.98
SEEDS = 3
CLIENTS, ROWS = 4_000, 1_000  # of word2vec
USERS, QUICK_USERS = 10_000, 100
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
            return _of_words(novels(folder), folder / "words") + _of_items(folder, range(SEEDS), users=USERS)


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
    found: dict[str, list[Scores]] = {"central": [], "distributed": []}
    for seed in seeds:
        for mode, scores in found.items():
            federation = {"federation": sums} if mode == "distributed" else {}
            chosen = scenario(case.sections, privacy(mode, EPSILON, case.delta), {"seed": seed}, federation)
            scores.append(case.score(table_of(chosen, store, case.table)))
    return [row for metric in found["central"][0] for row in _rows(case, metric, found)]


def _rows(case: Case, metric: str, found: dict[str, list[Scores]]) -> list[Row]:
    central, distributed = (np.array([scores[metric] for scores in found[mode]]) for mode in found)
    title = f"{case.name}, epsilon {EPSILON:g}" + f", {metric}" * (metric != "quality")
    measure, ratio = f"{title}: distributed / central", float(distributed.mean() / central.mean())
    rows = [
        reported(f"{title}: {mode}", float(v.mean())) for mode, v in zip(found, (central, distributed), strict=True)
    ]
    rows.append(at_least(measure, ratio, LEAST_RATIO) if metric == case.barred else reported(measure, ratio))
    if len(central) > 1:
        spread = [v.std(ddof=1) / abs(v.mean()) / np.sqrt(len(v)) for v in (central, distributed)]
        rows.append(reported(f"{measure}, standard error", float(abs(ratio) * np.hypot(*spread))))
    return rows


BENCHMARK = SecaggQuality()
