"""The spectral family: the noisy power method with one contribution of norm 1 per privacy unit.

A unit u (a text, a user's items) is a sparse non-negative vector over the V rows, weighted in two ways: y_u for the
rows it writes to, x_u for what it says about them. The coordinator sends Q (V, d). The unit computes z = Q^T x_u and
contributes y_u z^T / (|y_u| |z|): entries in its own rows alone and Frobenius norm exactly 1, so that adding or
removing a unit moves the sum by at most 1 whatever the unit holds. The sum over units is a weighted co-occurrence
matrix times Q, which is one step of subspace iteration.

Sources: Hardt and Price, "The noisy power method" (2014), algorithm 1; Dwork, Talwar, Thakurta and Zhang, "Analyze
Gauss" (2014) for Gaussian noise on a sum of outer products. docs/spectral.md derives the sensitivity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.errors import ConfigError
from common.families import FamilyOptions
from common.families._public_start import public_start
from common.families._text import token_rows
from common.table import EmbeddingTable, FloatArray, IntArray, RowDomain
from common.units import Interaction, Record, Units
from common.update import Parameters, ParameterSpec, RowBatch, UpdateBatch, coalesce

TABLE = "rows"


class SpectralOptions(FamilyOptions):
    """``[task]`` of the spectral family."""

    dimension: int = Field(64, ge=1, le=4096, description="columns of the table")
    rarity: float = Field(0.5, ge=0, le=1, description="a: a unit writes to a row of public frequency p with p^-a")
    context_rarity: float = Field(0.25, ge=0, le=1, description="b: that row speaks for the unit with p^-b")
    max_repeats: int = Field(2, ge=1, description="more occurrences of a row in one unit count as this many")
    drop_first: bool = Field(True, description="leave out the leading direction (overall frequency); text: yes")
    start: Literal["random", "python-stdlib"] = Field("random", description="first subspace; or from public text")
    singular_power: float = Field(0.5, ge=0, le=1, description="columns of the result weigh singular value ^ this")


class Spectral:
    """``spectral``: additive over units, so that any unit can be protected with the noise of one sum."""

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
        """A random subspace (the orthonormal factor of a seeded Gaussian matrix), or one from public text."""
        if options.start == "python-stdlib":
            return {TABLE: _padded(public_start(_required(domain), options.dimension), options.dimension)}
        gaussian = np.random.default_rng(seed).standard_normal(specs[0].shape)
        return {TABLE: _padded(np.linalg.qr(gaussian)[0], options.dimension)}

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: SpectralOptions) -> Units:
        """Columns ``rows`` (int64, increasing inside a unit), ``weight`` and ``context`` (float32, positive)."""
        domain = _required(domain)
        found: dict[str, list[IntArray]] = {}
        for record in records:
            found.setdefault(record.unit, []).append(_rows_of(record.value, domain))
        owners = np.repeat(np.arange(len(found)), [sum(map(len, parts)) for parts in found.values()])
        rows = np.concatenate([part for parts in found.values() for part in parts] or [np.empty(0, np.int64)])
        distinct, counts = np.unique(owners * len(domain) + rows, return_counts=True)
        ids = distinct % len(domain)
        capped = np.minimum(counts, options.max_repeats)
        relative = (domain.probabilities * len(domain))[ids]
        columns = {
            "rows": ids,
            "weight": (capped * relative**-options.rarity).astype(np.float32),
            "context": (capped * relative**-options.context_rarity).astype(np.float32),
        }
        offsets = np.searchsorted(distinct, np.arange(len(found) + 1, dtype=np.int64) * len(domain))
        return Units(offsets.astype(np.int64), columns)

    def contributions(self, parameters: Parameters, units: Units, options: SpectralOptions) -> UpdateBatch:
        """``y z^T`` of each unit, scaled to Frobenius norm 1; empty and non-finite units contribute zero."""
        q = parameters[TABLE]
        owners = np.repeat(np.arange(units.count), np.diff(units.offsets))
        both = np.stack([units.columns["weight"], units.columns["context"]], axis=1).astype(np.float32)
        sides = RowBatch(units.offsets, units.columns["rows"], both)
        if np.any(np.diff(owners * len(q) + sides.ids) <= 0):  # several units were joined into one
            sides = coalesce(owners, sides.ids, both, count=units.count, rows=len(q))
        y, x = (_unit_length(side[:, None], sides.offsets) for side in sides.values.T)
        z = _segment_sums(x * q[sides.ids], sides.offsets)
        z = _unit_length(z, np.arange(units.count + 1))
        return UpdateBatch(units.count, {TABLE: RowBatch(sides.offsets, sides.ids, y * z[sides.owners])})

    def server_step(
        self,
        parameters: Parameters,
        noised_sum: Parameters,
        options: SpectralOptions,
        *,
        noise_stddev: float,
        final: bool,
    ) -> Parameters:
        """Orthonormal columns for the next round; at the end left singular vectors times powers of singular values.

        The leading direction is left out in every round, not only at the end: otherwise all z share it and the
        noise in the other directions weighs more. All of this is post-processing of a noised sum.
        """
        left, singular = _singular(noised_sum[TABLE], noise_stddev)
        if options.drop_first and len(singular) > 1:
            left, singular = left[:, 1:], singular[1:]
        return {TABLE: _padded(left * singular**options.singular_power if final else left, options.dimension)}

    def export(
        self, parameters: Parameters, domain: RowDomain | None, options: SpectralOptions
    ) -> dict[str, EmbeddingTable]:
        """The table with the domain's keys."""
        return {TABLE: EmbeddingTable(_required(domain).keys, parameters[TABLE])}


def _required(domain: RowDomain | None) -> RowDomain:
    if domain is None:
        raise ConfigError("the spectral family needs a vocabulary: set [vocabulary]")
    return domain


def _rows_of(value: Any, domain: RowDomain) -> IntArray:
    if isinstance(value, Interaction):
        row = domain.row_of.get(value.item)
        return np.array([] if row is None else [row], dtype=np.int64)
    return token_rows(value, domain.row_of) if isinstance(value, str) else np.empty(0, np.int64)


def _segment_sums(values: NDArray[Any], offsets: IntArray) -> NDArray[Any]:
    """Sum of each segment, shape (K, d); alone, ``reduceat`` would repeat an entry for an empty segment."""
    out = np.zeros((len(offsets) - 1, values.shape[1]), dtype=values.dtype)
    filled = np.diff(offsets) > 0
    if filled.any():
        out[filled] = np.add.reduceat(values, offsets[:-1][filled], axis=0)
    return out


def _unit_length(values: FloatArray, offsets: IntArray) -> FloatArray:
    """Each segment of ``values`` (R, c) scaled to Frobenius norm 1; a zero or non-finite segment becomes zero.

    Squares are float64: those of float32 values neither overflow nor vanish there.
    """
    squares = np.einsum("rc,rc->r", values, values, dtype=np.float64)[:, None]
    norms = np.sqrt(_segment_sums(squares, offsets))
    good = (norms > 0) & np.isfinite(norms)
    per_entry = np.repeat(np.where(good, norms, np.nan), np.diff(offsets), axis=0)
    return np.where(np.isnan(per_entry), 0.0, values / per_entry).astype(np.float32)


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
