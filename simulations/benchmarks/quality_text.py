"""Non-private federated word2vec against the same kernel on pooled data: 94 novels, 33 authors, equal passes.

Each author's sentences are cut into ``parts`` shares of equal length, and one share is one round's local work (steps of
at most 512 tokens). A round draws each author with chance ``1 / one_in``, so ``passes * parts * one_in`` rounds make
``passes`` passes over everybody's data in expectation, as many as the centralized run makes.

The changes of a round's few authors are added up (denominator 1). With all 33 in every round neither sum nor mean will
do: the sum overshoots on frequent words, which every author moves the same way, and the mean leaves a rare word, which
one author moves, at a thirty-third of its step (docs/quality.md has the figures).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.config import Scenario
from common.evaluation import quality
from common.families.word2vec import FAMILY
from common.table import EmbeddingTable
from common.units import ClientStore
from common.vocabulary import row_domain
from simulations.benchmarks._federated import clients_of, scenario, table_of
from simulations.benchmarks._harness import Row, at_least, reported, unjudged
from simulations.benchmarks._texts import Text, generated, novels
from simulations.centralized import Schedule, train_centralized
from simulations.federation import enrolled_work

BAR = 0.95
MEASURES = ("WordSim-353", "SimLex-999", "analogies")


@dataclass(frozen=True)
class Size:
    """What is trained: the same model and passes on both sides; ``parts`` and ``one_in`` shape the rounds."""

    rows: int
    dimensions: int
    passes: int
    parts: int
    one_in: int

    @property
    def rounds(self) -> int:
        return self.passes * self.parts * self.one_in


FULL = Size(rows=40_000, dimensions=100, passes=3, parts=24, one_in=33)
QUICK = Size(rows=100, dimensions=8, passes=2, parts=2, one_in=2)
CENTRALIZED_LR = 0.025  # word2vec's own
LOCAL_LR = 0.05


class QualityText:
    """See the module."""

    name = "quality_text"

    def run(self, quick: bool) -> list[Row]:
        """Train both sides once; the bar is on the ratio of their figures; ``quick`` judges none."""
        size = QUICK if quick else FULL
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            text = generated(folder, size.parts) if quick else novels(folder, size.parts)
            chosen = _scenario(text, size)
            rows = _measured(chosen, clients_of(chosen, folder / "clients"), text, size)
        return unjudged(rows) if quick else rows


def _scenario(text: Text, size: Size) -> Scenario:
    return scenario(
        text.sections("part", size.rows),
        {
            "task": {"family": "word2vec", "dimension": size.dimensions},
            "privacy": {"mode": "none"},
            "federation": {"rounds": size.rounds, "sampling": "poisson", "rate": 1.0 / size.one_in},
            "training": {"local_steps": 1, "batch_size": 1, "lr": LOCAL_LR},
            "server": {"denominator": 1.0, "checkpoint_every": size.rounds},
        },
    )


def _measured(chosen: Scenario, store: ClientStore, text: Text, size: Size) -> list[Row]:
    sides, seconds = {}, {}
    for side, train in (("centralized", _centralized), ("federated", _federated)):
        start = time.perf_counter()
        table = train(chosen, store, size)
        seconds[side] = time.perf_counter() - start
        sides[side] = _figures(table, text)
    return [
        reported("clients", len(store)),
        reported("tokens in the vocabulary", int(store.units.offsets[-1])),
        reported("passes over every client's data, both sides", size.passes),
        reported("rounds", size.rounds),
        *(row for measure in sides["centralized"] for row in _compared(measure, sides)),
        *(reported(f"{side}: seconds", taken) for side, taken in seconds.items()),
    ]


def _compared(measure: str, sides: dict[str, dict[str, float]]) -> Iterator[Row]:
    central, federated = sides["centralized"][measure], sides["federated"][measure]
    yield reported(f"{measure}: centralized", central)
    yield reported(f"{measure}: federated", federated)
    ratio = federated / central if central > 0 else float("nan")
    barred = measure in MEASURES
    yield at_least(f"{measure}: ratio", ratio, BAR) if barred else reported(f"{measure}: ratio", ratio)


def _centralized(chosen: Scenario, store: ClientStore, size: Size) -> EmbeddingTable:
    """The kernel on all sentences in the order of authors, one process, learning rate falling to zero."""
    work, domain = enrolled_work(chosen), row_domain(chosen.vocabulary)
    schedule = Schedule(epochs=size.passes, lr=CENTRALIZED_LR, workers=1, seed=chosen.seed)
    parameters = train_centralized(store.units, domain, work.options, schedule)
    return FAMILY.export(parameters, domain, work.options)["words"]


def _federated(chosen: Scenario, store: ClientStore, size: Size) -> EmbeddingTable:
    return table_of(chosen, store, "words")


def _figures(table: EmbeddingTable, text: Text) -> dict[str, float]:
    similarity, analogy = quality.load("similarity"), quality.load("analogy")
    found = {name: similarity.score(table, file, seed=0)[0].value for name, file in text.similarity.items()}
    if text.analogies is not None:
        found["analogies"] = analogy.score(table, text.analogies, seed=0)[0].value
    return found


BENCHMARK = QualityText()
