"""word2vec on one large client: sentences or documents as units, a small or a large table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from common.config import VocabularyConfig
from common.evaluation.quality.cooccurrence import PublicText, area_under_curve, public_text
from common.evaluation.quality.similarity import read_pairs, spearman
from common.families.word2vec import FAMILY, Word2VecOptions
from common.table import FloatArray, IntArray, RowDomain
from common.text import words
from common.units import Units
from common.vocabulary import row_domain
from simulations.benchmarks._privacy_text import LEAST_PAIRS
from simulations.benchmarks._rows_training import Batch, Problem
from simulations.benchmarks._texts import Text

SENTENCE, PASSAGE = "sentence", "document of 15 sentences"
DELTA = 1e-6
FREQUENT = 1_000  # words that tables of every size here hold
PAIRS = ("WordSim-353", "topics")


@dataclass(frozen=True)
class Corpus:
    """Every token in order, with the numbers of its sentence and document; rows are ranks by public count."""

    tokens: IntArray
    unit_of: Mapping[str, IntArray]
    domain: RowDomain
    public: PublicText | None
    judged: tuple[tuple[str, str, float], ...]

    def units(self, unit: str, rows: int) -> Units:
        """The units that hold at least one of the ``rows`` most frequent words, and those words alone."""
        kept = self.tokens < rows
        sizes = np.unique(self.unit_of[unit][kept], return_counts=True)[1]
        columns = {"rows": self.tokens[kept], "sentence": self.unit_of[SENTENCE][kept]}
        return Units(np.concatenate([[0], np.cumsum(sizes)]), {k: v.astype(np.int32) for k, v in columns.items()})

    def top(self, rows: int) -> RowDomain:
        """The ``rows`` most frequent words."""
        frequencies = None if self.domain.frequencies is None else self.domain.frequencies[:rows]
        return RowDomain(self.domain.keys[:rows], frequencies, self.domain.source)


@dataclass(frozen=True)
class Training:
    """Settings of one words problem; see ``Problem`` for the last four."""

    rows: int
    unit: str
    task: dict[str, Any]
    steps: int
    unit_rate: float
    clip: float
    reach: float


class _Private(nn.Module):
    """The family's module with its loss as the forward pass."""

    def __init__(self, options: Word2VecOptions, domain: RowDomain, seed: int) -> None:
        super().__init__()
        self.tables = FAMILY.module(options, len(domain))
        start = FAMILY.initial(options, FAMILY.specs(options, len(domain)), domain, seed)
        self.tables.load_state_dict({name: torch.from_numpy(values) for name, values in start.items()})

    def forward(self, batch: Batch) -> torch.Tensor:
        return FAMILY.loss(self.tables, batch)


def read(text: Text) -> Corpus:
    """Read and number a corpus once for all problems on it."""
    domain = row_domain(VocabularyConfig(path=str(text.words), max_rows=1_000_000))
    tokens: list[int] = []
    numbers: list[list[int]] = [[], []]
    for keys, found in _sentences(text, domain):
        tokens += found
        for column, key in zip(numbers, keys, strict=True):
            column += [key] * len(found)
    units = {unit: np.array(column) for unit, column in zip((SENTENCE, PASSAGE), numbers, strict=True)}
    lines = [] if text.public is None else text.public.read_text(encoding="utf-8").splitlines()
    pairs = [pair for name in PAIRS if name in text.similarity for pair in read_pairs(text.similarity[name])]
    judged = tuple((pair.first.lower(), pair.second.lower(), pair.judgement) for pair in pairs)
    return Corpus(np.array(tokens), units, domain, public_text(lines) if lines else None, judged)


def problem(corpus: Corpus, training: Training) -> Problem:
    """One words problem."""
    options, domain = Word2VecOptions(**training.task), corpus.top(training.rows)
    units, measures = corpus.units(training.unit, training.rows), _Measures(corpus, domain)
    return Problem(
        label=f"word2vec, {len(domain):,} words, unit {training.unit} ({units.count:,})",
        units=units.count,
        start=lambda seed: _Private(options, domain, seed),
        batch=lambda numbers, rng: FAMILY.batch(units.take(numbers), domain, options, rng),
        scores=lambda module: measures.of(module.get_parameter("tables.centre.weight").detach().numpy()),
        steps=training.steps,
        unit_rate=training.unit_rate,
        clip=training.clip,
        reach=training.reach,
        delta=DELTA,
    )


class _Measures:
    """The pairs that a table covers, chosen once; see ``cooccurrence`` and ``similarity`` in common/evaluation."""

    def __init__(self, corpus: Corpus, domain: RowDomain) -> None:
        row_of = domain.row_of
        self._judged = [(row_of[a], row_of[b], score) for a, b, score in corpus.judged if a in row_of and b in row_of]
        self._coverage = len(self._judged) / max(len(corpus.judged), 1)
        self._pairs, self._together = np.empty((0, 2), np.int64), 0
        if corpus.public is not None:
            self._pairs, self._together = _public_pairs(corpus.public, row_of)

    def of(self, table: FloatArray) -> dict[str, float]:
        """Figures of one table; rows of zeros have a cosine of zero with all others."""
        unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-30)
        found: dict[str, float] = {}
        if len(self._pairs):
            label = np.arange(len(self._pairs)) < self._together
            cosines, frequent = _cosines(unit, self._pairs), (self._pairs < FREQUENT).all(axis=1)
            found["AUC"] = area_under_curve(cosines, label)
            if not frequent.all():
                found[f"AUC of the {FREQUENT:,} most frequent words"] = area_under_curve(
                    cosines[frequent], label[frequent]
                )
        if len(self._judged) >= LEAST_PAIRS or not found:
            judged = np.array(self._judged)
            rank = spearman(_cosines(unit, judged[:, :2].astype(np.int64)), judged[:, 2])
            found[f"similarity ({len(judged)} pairs, {self._coverage:.0%})"] = 0.0 if np.isnan(rank) else rank
        return found


def _cosines(unit: FloatArray, pairs: IntArray) -> np.ndarray:
    return np.einsum("nd,nd->n", unit[pairs[:, 0]], unit[pairs[:, 1]], dtype=np.float64)


def _public_pairs(text: PublicText, row_of: Mapping[str, int]) -> tuple[IntArray, int]:
    """Row pairs used together in public text, then as many and more that never are; and how many are the first."""
    row = np.array([row_of.get(word, -1) for word in text.words])
    together = text.pairs[(row[text.pairs] >= 0).all(axis=1)]
    rng = np.random.default_rng(0)
    mixed = np.concatenate([np.stack([together[:, 0], rng.permutation(together[:, 1])], axis=1) for _ in range(3)])
    apart = mixed[np.asarray(text.together[mixed[:, 0], mixed[:, 1]]).ravel() == 0]
    return row[np.concatenate([together, apart])], len(together)


def _sentences(text: Text, domain: RowDomain) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Numbers of sentence and passage, and the known words' rows."""
    row_of = domain.row_of
    passages: dict[tuple[str, str], int] = {}
    with text.path.open(encoding="utf-8") as lines:
        for number, line in enumerate(map(json.loads, lines)):
            passage = passages.setdefault((line["author"], line["passage"]), len(passages))
            yield (number, passage), [row_of[word] for word in words(line["text"]) if word in row_of]
