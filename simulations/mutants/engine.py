"""The table engine gone wrong: clipping, denominators, the account."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import dp_accounting as dp
import numpy as np
import torch

from common.privacy import accounting, engine, table_optimizer, unit_clipping
from common.privacy.engine import PrivacyEngine
from common.privacy.lazy import LazyTable
from common.privacy.table_gradients import TableGradients, clip_factors, squared_norms
from common.privacy.table_optimizer import NoiseScale, TableDPOptimizer
from common.privacy.tables import PrivateTable
from common.privacy.unit_clipping import FlatClip
from simulations.mutants import Mutant, Replacement, instead_of

_make_private, _like = PrivacyEngine.make_private, PrivateTable.like.__func__  # type: ignore[attr-defined]
_begin, _dense_step = TableDPOptimizer.begin, TableDPOptimizer._step_dense


def _repeats_dropped(found: TableGradients, units: int) -> torch.Tensor:
    """Opacus' ghost mode for EmbeddingBag: every row counts once in the norm, however often a bag holds it."""
    squares = torch.linalg.vecdot(found.gradients, found.gradients).double()[found.source]
    return torch.zeros(units, dtype=torch.float64).index_add_(0, found.units, squares)


def _one_table_unclipped(found: TableGradients, units: int) -> torch.Tensor:
    """A norm that sees the first column of a gradient alone."""
    first = TableGradients(found.rows, found.place, found.units, found.source, found.weights, found.gradients[:, :1])
    return squared_norms(first, units)


def _per_layer(self: FlatClip, squares: Any) -> Any:
    return {name: clip_factors(found, self.sensitivity) for name, found in squares.items()}


def _no_factors(squares: torch.Tensor, bound: float) -> torch.Tensor:
    return torch.ones_like(squares)


def _passes_nan(squares: torch.Tensor, bound: float) -> torch.Tensor:
    return (bound / squares.sqrt().clamp(min=1e-300)).clamp(max=1.0)


def _with_divisor(divisor: Any) -> Replacement:
    """``make_private`` with a public divisor that is not public: a function of the data set's size and the rate."""

    def make_private(self: PrivacyEngine, **given: Any) -> Any:
        private = divisor(len(given["data_loader"].dataset), given["unit_rate"])
        return _make_private(self, **given | {"expected_batch_size": private})

    return instead_of(PrivacyEngine, "make_private", make_private)


def _examples_as_units(self: TableDPOptimizer, piece: Any) -> None:
    """Clips examples one by one, whoever owns them."""
    count = len(piece.examples)
    _begin(self, dataclasses.replace(piece, units=np.arange(count), count=count))


def _padding_forgotten(cls: type[PrivateTable], layer: Any) -> PrivateTable:
    made: PrivateTable = _like(cls, layer)
    made.padding_row = None
    return made


def _like_any(cls: type[PrivateTable], layer: Any) -> PrivateTable:
    return cls(*layer.weight.shape, weight=layer.weight.detach())


def _votes_free(sigma: float, rows: str, selection: Any, adaptive: Any) -> NoiseScale:
    return NoiseScale(sigma, sigma, None if selection is None else selection.vote_norm)


def _two_sampled_events(self: PrivacyEngine, delta: float) -> float:
    """Votes and values accounted as two sampled releases, each on a sample of its own."""
    (sigma, rate, count) = self.accountant.history[0]
    parts = [dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(s)) for s in (2.0, (sigma**-2 - 2.0**-2) ** -0.5)]
    return accounting.epsilon(dp.ComposedDpEvent([dp.SelfComposedDpEvent(p, count) for p in parts]), delta)


def _no_hook(self: TableDPOptimizer, hook: Any) -> None:
    """The accountant is never told of a step."""


def _every_second_step(self: TableDPOptimizer, hook: Any) -> None:
    """Counts every second step, as if half of them had been empty."""
    numbers = itertools.count()
    self.step_hook = lambda optimizer: hook(optimizer) if next(numbers) % 2 else None


def _one_stream(self: PrivacyEngine, name: str, table: PrivateTable, noise: Any, selection: Any) -> LazyTable:
    return LazyTable(table.weight.data, source=self._source.derive("table"), padding_row=table.padding_row)


def _dense_without_noise(self: TableDPOptimizer, stddev: float) -> None:
    _dense_step(self, 0.0)


def _dense_too_quiet(self: TableDPOptimizer, stddev: float) -> None:
    _dense_step(self, stddev / math.sqrt(2))


MUTANTS = (
    Mutant(
        "Opacus' EmbeddingBag: repeats dropped from the norm",
        "table_sensitivity",
        replacing=instead_of(table_optimizer, "squared_norms", _repeats_dropped),
    ),
    Mutant(
        "norm of a part of the columns",
        "table_sensitivity",
        replacing=instead_of(table_optimizer, "squared_norms", _one_table_unclipped),
    ),
    Mutant(
        "engine clips layer by layer, accounted as joint",
        "table_sensitivity",
        replacing=instead_of(FlatClip, "factors", _per_layer),
    ),
    Mutant(
        "engine without a clip", "table_sensitivity", replacing=instead_of(unit_clipping, "clip_factors", _no_factors)
    ),
    Mutant(
        "NaN passes the engine's clip",
        "table_sensitivity",
        replacing=instead_of(unit_clipping, "clip_factors", _passes_nan),
    ),
    Mutant(
        "examples of one unit clipped one by one",
        "table_units",
        replacing=instead_of(TableDPOptimizer, "begin", _examples_as_units),
    ),
    Mutant(
        "Opacus' divisor int(n * rate)",
        "table_cardinality",
        replacing=_with_divisor(lambda n, rate: max(1, int(n * rate))),
    ),
    Mutant("divisor: how many units there are", "table_cardinality", replacing=_with_divisor(lambda n, rate: n)),
    Mutant(
        "padding row trained like any other",
        "table_whiteness",
        replacing=instead_of(PrivateTable, "like", classmethod(_padding_forgotten)),
    ),
    Mutant(
        "votes of the selection cost nothing", "one_event", replacing=instead_of(engine, "_noise_scale", _votes_free)
    ),
    Mutant(
        "votes and values as two sampled events",
        "one_event",
        replacing=instead_of(PrivacyEngine, "epsilon", _two_sampled_events),
    ),
    Mutant(
        "steps nobody accounts", "engine_account", replacing=instead_of(TableDPOptimizer, "attach_step_hook", _no_hook)
    ),
    Mutant(
        "every second step accounted",
        "engine_account",
        replacing=instead_of(TableDPOptimizer, "attach_step_hook", _every_second_step),
    ),
    Mutant(
        "two tables draw from one stream",
        "table_whiteness",
        replacing=instead_of(PrivacyEngine, "_row_noise", _one_stream),
    ),
    Mutant(
        "engine adds no noise to dense layers",
        "table_noise",
        replacing=instead_of(TableDPOptimizer, "_step_dense", _dense_without_noise),
    ),
    Mutant(
        "dense noise divided by sqrt(2)",
        "table_noise",
        replacing=instead_of(TableDPOptimizer, "_step_dense", _dense_too_quiet),
    ),
    Mutant(
        "momentum with lazy noise", "refusals", replacing=instead_of(engine, "check_plain_sgd", lambda optimizer: None)
    ),
    Mutant(
        "tables that share one weight",
        "refusals",
        replacing=instead_of(engine, "replace_embeddings", lambda module: None),
    ),
    Mutant(
        "layers that couple units taken as they are",
        "refusals",
        replacing=instead_of(PrivateTable, "like", classmethod(_like_any)),
    ),
)
