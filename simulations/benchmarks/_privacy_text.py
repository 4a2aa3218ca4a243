"""Words under privacy: the spectral family in mode central, word2vec in mode example, both beside a random table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.evaluation import quality
from common.evaluation.score import Score
from common.table import EmbeddingTable
from simulations.benchmarks._federated import clients_of, privacy, scenario, table_of
from simulations.benchmarks._scored import MUST_BEAT, Figure, at_epsilons
from simulations.benchmarks._texts import Text

DELTA = 1e-6
PAIR_TASKS = ("WordSim-353", "RG-65", "MTurk-287", "topics")
LEAST_PAIRS = 30  # fewer covered pairs say nothing: the interval of 12 spans more than half of all correlations
MAY_MISS = ("RG-65",)  # 33 pairs: its interval includes 0 at a correlation of 0.33; it has a target, no bar


@dataclass(frozen=True)
class Method:
    """A family on a unit, with what has to be reached: ``targets[epsilon][measure]``.

    ``plain_sections`` replace ``sections`` where the run without privacy is another one.
    """

    label: str
    family: str
    table: str
    unit: str
    mode: str
    rows: int
    task: dict[str, Any]
    sections: dict[str, Any]
    plain_sections: dict[str, Any] | None = None
    targets: Mapping[float, Mapping[str, float]] = field(default_factory=dict)


SPECTRAL_SENTENCE = Method(
    label="spectral, unit sentence",
    family="spectral",
    table="rows",
    unit="record",
    mode="central",
    rows=10_000,
    task={"dimension": 128},
    sections={"federation": {"rounds": 3}},
    targets={
        8.0: {"WordSim-353": 0.28, "RG-65": 0.27, "MTurk-287": 0.44},
        3.0: {"WordSim-353": 0.16, "RG-65": 0.05, "MTurk-287": 0.29},
    },
)
SPECTRAL_PASSAGE = Method(
    label="spectral, unit 15 sentences",
    family="spectral",
    table="rows",
    unit="passage",
    mode="central",
    rows=2_000,
    task={"dimension": 128},
    sections={"federation": {"rounds": 3}},
    targets={8.0: {"WordSim-353": 0.52}, 3.0: {"WordSim-353": 0.30}},
)
WORD2VEC_EXAMPLE = Method(
    label="word2vec example mode, unit sentence",
    family="word2vec",
    table="words",
    unit="record",
    mode="example",
    rows=2_000,
    task={"dimension": 32, "negatives": 1, "max_pairs": 48, "shared_negatives": 64, "subsample": 3e-4},
    # One step of everybody with every sentence: where sigma is near 1, more steps and smaller samples cost more signal
    # than they win. From zero the step is linear, so lr only scales the table. The clip is below nearly every
    # sentence's gradient, so each counts alike.
    sections={
        "task": {"random_table": "context"},
        "privacy": {"l2_clip_norm": 0.003},
        "federation": {"rounds": 1},
        "training": {"local_steps": 1, "batch_size": 19_000, "unit_rate": 1.0, "lr": 1e6},
    },
    plain_sections={
        "task": {"negatives": 5, "subsample": 1e-4, "shared_negatives": 16},
        "federation": {"rounds": 400, "sampling": "poisson", "rate": 1 / 16},
        "training": {"local_steps": 30, "batch_size": 64, "lr": 0.025},
        "server": {"denominator": 1.0},
    },
)
METHODS = (SPECTRAL_SENTENCE, SPECTRAL_PASSAGE, WORD2VEC_EXAMPLE)
QUICK_ROWS, QUICK_DIMENSION = 100, 8


def figures(text: Text, folder: Path, *, quick: bool) -> list[Figure]:
    """Every method at every epsilon on every word benchmark."""
    methods = [method for method in METHODS if not (quick and method is SPECTRAL_PASSAGE)]
    return [figure for method in methods for figure in _of_method(method, text, folder / method.label, quick=quick)]


def _of_method(method: Method, text: Text, folder: Path, *, quick: bool) -> Iterator[Figure]:
    base = _base(method, text, quick=quick)
    store = clients_of(scenario(base, privacy("none", None, DELTA)), folder)

    def figures_at(epsilon: float | None) -> list[Figure]:
        sections = method.sections if epsilon is not None else method.plain_sections or method.sections
        table = table_of(scenario(base, sections, privacy(method.mode, epsilon, DELTA)), store, method.table)
        return [_figure(method, epsilon, *found) for found in _scores(table, text)]

    return iter(figures_at(MUST_BEAT)) if quick else at_epsilons(figures_at)


def _figure(method: Method, epsilon: float | None, measure: str, score: Score, baseline: float) -> Figure:
    target = math.nan if epsilon is None else method.targets.get(epsilon, {}).get(measure, math.nan)
    return Figure(method.label, epsilon, measure, score, baseline, target, barred=measure not in MAY_MISS)


def _base(method: Method, text: Text, *, quick: bool) -> dict[str, Any]:
    task = dict(method.task)
    if quick:
        task["dimension"] = QUICK_DIMENSION
    sections = text.sections(method.unit, QUICK_ROWS if quick else method.rows)
    return {**sections, "task": {"family": method.family, **task}}


def _scores(table: EmbeddingTable, text: Text) -> Iterator[tuple[str, Score, float]]:
    """Measure, score and baseline; for pairs random tables correlate by 0 in expectation."""
    similarity, together = quality.load("similarity"), quality.load("cooccurrence")
    for name, file in text.similarity.items():
        if name in PAIR_TASKS:
            score = similarity.score(table, file, seed=0)[0]
            if score.n >= LEAST_PAIRS:
                yield name, score, 0.0
    if text.public is not None:
        score = together.score(table, text.public, seed=0)[0]
        yield "words used together (AUC)", score, score.baseline_value
