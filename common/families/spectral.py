"""The spectral family: the noisy power method with one contribution of norm 1 per privacy unit.

A unit u (a text, a user's items) is a sparse non-negative vector x_u over the V rows. The coordinator sends Q (V, d).
The unit computes z = Q^T x_u and contributes x_u z^T / (|x_u| |z|): entries in its own rows alone and Frobenius norm
exactly 1, so that adding or removing a unit moves the sum by at most 1 whatever the unit holds. The sum over units is
a weighted co-occurrence matrix times Q, which is one step of subspace iteration.

Sources: Hardt and Price, "The noisy power method" (2014), algorithm 1; Dwork, Talwar, Thakurta and Zhang, "Analyze
Gauss" (2014) for Gaussian noise on a sum of outer products. docs/spectral.md derives the sensitivity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.errors import ConfigError
from common.families import FamilyOptions
from common.families._text import token_rows
from common.table import EmbeddingTable, FloatArray, IntArray, RowDomain
from common.units import Interaction, Record, Units
from common.update import Parameters, ParameterSpec, RowBatch, UpdateBatch, coalesce

TABLE = "rows"


class SpectralOptions(FamilyOptions):
    """``[task]`` of the spectral family."""

    dimension: int = Field(64, ge=1, le=4096, description="columns of the table")
    rarity: float = Field(0.5, ge=0, le=1, description="exponent a: a row with public frequency p weighs p^-a")
    max_repeats: int = Field(2, ge=1, description="more occurrences of a row in one unit count as this many")
    drop_first: bool = Field(True, description="leave out the leading direction, which is overall frequency")


class Spectral:
    """``spectral``: additive over units, so that any unit can be protected; non-private in one or two rounds too."""

    name = "spectral"
    Options = SpectralOptions
    records = "text|interactions"
    row_domain = "rows"

    def specs(self, options: SpectralOptions, rows: int) -> tuple[ParameterSpec, ...]:
        """One table (V, d): Q while the rounds run, the embedding after the last one."""
        return (ParameterSpec(TABLE, (rows, options.dimension), self.row_domain),)

    def statistics_specs(self, options: SpectralOptions, rows: int) -> tuple[ParameterSpec, ...]:
        """What units send has the table's shape."""
        return self.specs(options, rows)

    def natural_clip(self, options: SpectralOptions) -> float:
        """Every contribution has norm 1 by construction."""
        return 1.0

    def initial(
        self, options: SpectralOptions, specs: Sequence[ParameterSpec], domain: RowDomain | None, seed: int
    ) -> Parameters:
        """A random subspace: the orthonormal factor of a seeded Gaussian matrix."""
        gaussian = np.random.default_rng(seed).standard_normal(specs[0].shape)
        return {TABLE: _padded(np.linalg.qr(gaussian)[0], options.dimension)}

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: SpectralOptions) -> Units:
        """Columns ``rows`` (int64, increasing inside a unit) and ``weight`` (float32, positive)."""
        if domain is None:
            raise ConfigError("the spectral family needs a vocabulary: set [vocabulary]")
        found: dict[str, list[IntArray]] = {}
        for record in records:
            found.setdefault(record.unit, []).append(_rows_of(record.value, domain))
        owners = np.repeat(np.arange(len(found)), [sum(map(len, parts)) for parts in found.values()])
        rows = np.concatenate([part for parts in found.values() for part in parts] or [np.empty(0, np.int64)])
        distinct, counts = np.unique(owners * len(domain) + rows, return_counts=True)
        ids = distinct % len(domain)
        rarity = (domain.probabilities * len(domain)) ** -options.rarity
        weight = np.minimum(counts, options.max_repeats) * rarity[ids]
        offsets = np.searchsorted(distinct, np.arange(len(found) + 1, dtype=np.int64) * len(domain))
        return Units(offsets.astype(np.int64), {"rows": ids, "weight": weight.astype(np.float32)})

    def contributions(self, parameters: Parameters, units: Units, options: SpectralOptions) -> UpdateBatch:
        """``x z^T`` of each unit, scaled to Frobenius norm 1; empty units contribute nothing."""
        q = parameters[TABLE]
        x = _unit_vectors(units, len(q))
        z = _normalized(_segment_sums(x.values * q[x.ids], x.offsets))
        return UpdateBatch(units.count, {TABLE: RowBatch(x.offsets, x.ids, x.values * z[x.owners])})

    def server_step(
        self,
        parameters: Parameters,
        noised_sum: Parameters,
        options: SpectralOptions,
        *,
        noise_stddev: float,
        final: bool,
    ) -> Parameters:
        """Orthonormal columns for the next round, or left singular vectors times root singular values at the end."""
        left, singular = _singular(noised_sum[TABLE], noise_stddev)
        if options.drop_first and len(singular) > 1:
            left, singular = left[:, 1:], singular[1:]
        return {TABLE: _padded(left * np.sqrt(singular) if final else left, options.dimension)}

    def export(
        self, parameters: Parameters, domain: RowDomain | None, options: SpectralOptions
    ) -> dict[str, EmbeddingTable]:
        """The table with the domain's keys."""
        if domain is None:
            raise ConfigError("the spectral family needs a vocabulary: set [vocabulary]")
        return {TABLE: EmbeddingTable(domain.keys, parameters[TABLE])}


def _rows_of(value: Any, domain: RowDomain) -> IntArray:
    if isinstance(value, Interaction):
        row = domain.row_of.get(value.item)
        return np.array([] if row is None else [row], dtype=np.int64)
    return token_rows(value, domain.row_of) if isinstance(value, str) else np.empty(0, np.int64)


def _unit_vectors(units: Units, rows: int) -> RowBatch:
    """x of each unit with length 1 and values of shape (R, 1); repeated rows are summed, non-finite units are zero."""
    owners = np.repeat(np.arange(units.count), np.diff(units.offsets))
    weight = units.columns["weight"].astype(np.float32)[:, None]
    x = coalesce(owners, units.columns["rows"], weight, count=units.count, rows=rows)
    squares = np.bincount(x.owners, weights=x.values[:, 0].astype(np.float64) ** 2, minlength=units.count)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.where((squares > 0) & np.isfinite(squares), 1 / np.sqrt(squares), 0.0)[x.owners][:, None]
    values = np.where(factors > 0, x.values * factors, 0.0).astype(np.float32)
    return RowBatch(x.offsets, x.ids, values)


def _segment_sums(values: FloatArray, offsets: IntArray) -> FloatArray:
    """Sum of each segment, shape (K, d); ``reduceat`` would repeat an entry for an empty segment."""
    out = np.zeros((len(offsets) - 1, values.shape[1]), dtype=np.float32)
    filled = np.diff(offsets) > 0
    if filled.any():
        out[filled] = np.add.reduceat(values, offsets[:-1][filled], axis=0)
    return out


def _normalized(z: FloatArray) -> FloatArray:
    """Rows scaled to length 1; a row that is zero or not finite becomes zero."""
    norms = np.sqrt(np.einsum("kd,kd->k", z, z, dtype=np.float64))[:, None]
    good = (norms > 0) & np.isfinite(norms)
    return np.where(good, z / np.where(good, norms, 1.0), 0.0).astype(np.float32)


def _singular(noised: FloatArray, stddev: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Left singular vectors and singular values, these shrunk by what noise alone adds to them.

    A (V, d) matrix of noise adds about ``V stddev^2`` to every squared singular value when V >> d.
    """
    left, singular, _ = np.linalg.svd(noised.astype(np.float64), full_matrices=False)
    return left, np.sqrt(np.maximum(singular**2 - len(noised) * stddev**2, 0.0))


def _padded(columns: NDArray[np.float64], dimension: int) -> FloatArray:
    """``columns`` with zero columns added up to ``dimension``: fewer rows than columns give no more directions."""
    out = np.zeros((len(columns), dimension), dtype=np.float32)
    out[:, : columns.shape[1]] = columns
    return out


FAMILY = Spectral()
