"""The word2vec family: word vectors by skip-gram or CBOW with negative sampling (Mikolov et al. 2013, arXiv 1310.4546).

Shared tables: ``centre`` (released) and ``context``. Clients train many steps at once by the batched kernel of
``_skipgram``; ``example`` mode trains the same loss through a torch module, one loss per privacy unit.
Word frequencies, for subsampling and for negatives, are the public ones of the row domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from common.errors import ConfigError
from common.families import FamilyOptions, LocalTraining
from common.families._text import token_rows
from common.table import EmbeddingTable, IntArray, RowDomain
from common.units import Record, Units
from common.update import Parameters, ParameterSpec, UpdateBatch

if TYPE_CHECKING:
    import torch

    from common.families._skipgram import Objective

CENTRE, CONTEXT = "centre.weight", "context.weight"


class Word2VecOptions(FamilyOptions):
    """Options of ``[task]``; the defaults are those of word2vec's own code where it has them."""

    model: Literal["sgns", "cbow"] = "sgns"
    dimension: int = Field(100, ge=1, le=4096)
    window: int = Field(5, ge=1, le=100, description="contexts a side at most; each centre draws its own radius")
    negatives: int = Field(5, ge=1, le=100, description="weight of the negatives, in words a pair")
    subsample: float = Field(1e-3, ge=0, le=1, description="threshold t on the public frequency; 0 keeps every word")
    shared_negatives: int = Field(
        32, ge=1, le=4096, description="rows drawn for 4 blocks of words (example mode: a unit)"
    )
    random_table: Literal["centre", "context"] = Field(
        "centre",
        description="the table that begins random, the other at zero; under much noise take context: no random start "
        "then drowns what the released centre rows learn",
    )
    max_tokens_per_unit: int = Field(1024, ge=2, description="example mode: later tokens of a unit are dropped")
    max_pairs: int = Field(512, ge=1, description="example mode: pairs of a unit at most, drawn at random")


class Word2Vec:
    """See the module."""

    name = "word2vec"
    Options = Word2VecOptions
    records = "text"
    row_domain: str | None = "words"

    def specs(self, options: Word2VecOptions, rows: int) -> tuple[ParameterSpec, ...]:
        """Both tables, shape (rows, dimension)."""
        shape = (rows, options.dimension)
        return ParameterSpec(CENTRE, shape, "words"), ParameterSpec(CONTEXT, shape, "words")

    def initial(
        self, options: Word2VecOptions, specs: Sequence[ParameterSpec], domain: RowDomain | None, seed: int
    ) -> Parameters:
        """Rows of ``random_table`` uniform in +-1/(2D), the others zero; word2vec's code begins with random centres."""
        generator = np.random.default_rng(seed)
        random = CENTRE if options.random_table == "centre" else CONTEXT
        values = {spec.name: np.zeros(spec.shape, dtype=np.float32) for spec in specs}
        drawn = (generator.random(values[random].shape, dtype=np.float32) - np.float32(0.5)) / options.dimension
        return values | {random: drawn.astype(np.float32)}

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: Word2VecOptions) -> Units:
        """Columns ``rows`` and ``sentence`` (the record's number: windows end with their record), both int32."""
        row_of = _required(domain).row_of
        units: dict[str, list[tuple[int, np.ndarray]]] = {}
        for number, record in enumerate(records):
            tokens = token_rows(record.value, row_of) if isinstance(record.value, str) else np.empty(0, np.int64)
            units.setdefault(record.unit, []).append((number, tokens))
        parts = [part for unit in units.values() for part in unit]
        sizes = [sum(len(tokens) for _, tokens in unit) for unit in units.values()]
        offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        empty = np.empty(0, np.int32)
        rows = np.concatenate([empty, *(tokens.astype(np.int32) for _, tokens in parts)])
        sentence = np.concatenate([empty, *(np.full(len(tokens), number, np.int32) for number, tokens in parts)])
        return Units(offsets, {"rows": rows, "sentence": sentence})

    def export(
        self, parameters: Parameters, domain: RowDomain | None, options: Word2VecOptions
    ) -> dict[str, EmbeddingTable]:
        """``words`` (centre rows) first, then ``contexts``."""
        keys = _required(domain).keys
        return {
            "words": EmbeddingTable(keys, np.asarray(parameters[CENTRE], dtype=np.float32)),
            "contexts": EmbeddingTable(keys, np.asarray(parameters[CONTEXT], dtype=np.float32)),
        }

    def local_update(
        self,
        parameters: Parameters,
        clients: Sequence[Units],
        domain: RowDomain | None,
        options: Word2VecOptions,
        *,
        training: LocalTraining,
        seeds: Sequence[int],
    ) -> UpdateBatch:
        """A step is ``batch_size`` units; longer ones are split (``_skipgram_layout.STEP_TOKENS``)."""
        from common.families._skipgram_clients import Settings, train_clients

        settings = Settings(_objective(options), options.subsample, options.shared_negatives, training)
        return train_clients(parameters, clients, _required(domain), settings, seeds=seeds)

    def held_rows(self, units: Units) -> IntArray:
        """The words that occur."""
        return units.columns["rows"].astype(np.int64)

    def module(self, options: Word2VecOptions, rows: int) -> torch.nn.Module:
        """Two embeddings, ``centre`` and ``context``."""
        from common.families._skipgram_units import SkipGram

        return SkipGram(rows, options.dimension)

    def batch(
        self, units: Units, domain: RowDomain | None, options: Word2VecOptions, rng: np.random.Generator
    ) -> Mapping[str, torch.Tensor]:
        """Pairs of every unit, padded to the longest: see ``_skipgram_units.unit_batch``."""
        from common.families._skipgram_units import UnitSettings, unit_batch

        settings = UnitSettings(
            objective=_objective(options),
            subsample=options.subsample,
            shared_negatives=options.shared_negatives,
            max_tokens=options.max_tokens_per_unit,
            max_pairs=options.max_pairs,
        )
        return unit_batch(units, _required(domain), settings, rng)

    def loss(self, module: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean loss over the pairs of each unit, shape (B,)."""
        from common.families._skipgram_units import unit_loss

        return unit_loss(module, batch)


def _objective(options: Word2VecOptions) -> Objective:
    from common.families._skipgram import Objective

    return Objective(options.model, options.window, options.negatives)


def _required(domain: RowDomain | None) -> RowDomain:
    if domain is None:
        raise ConfigError("word2vec needs a row domain of words", remedy="Add a [vocabulary] section.")
    return domain


FAMILY = Word2Vec()
