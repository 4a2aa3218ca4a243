"""Private row selection: which rows of a table are updated is itself released with noise.

Source: DP-AdaFEST (Ghazi et al. 2023, arXiv 2311.08357, Algorithm 1), with indicators of distinct rows instead of
token counts. Unit u that touches n_u distinct rows of all tables together votes c_u = C_1 / sqrt(n_u) for each of them:
its votes have L2 norm C_1. A row is kept where its noised votes reach the threshold,

    kept = { r : sum_u c_u [u touches r] + N(0, (sigma_1 C_1)^2) >= tau },

and kept rows alone are updated, with N(0, (sigma_2 C_2)^2) on every coordinate of their clipped sum. Both are one
Gaussian mechanism on one sample: sigma = (sigma_1^-2 + sigma_2^-2)^(-1/2).

A row that nobody touched is kept with probability p = P(N(0, 1) >= tau / (sigma_1 C_1)), each by itself. So the number
of those is binomial and, given the number, they are a uniform subset: work follows the rows touched and kept, never V.
A touched row that is not kept leaves no trace: its sum is dropped before anything is computed from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats

from common.errors import PrivacyConfigError
from common.privacy.rng import NoiseSource
from common.privacy.table_gradients import BLOCK_ROWS, RowSums, TableGradients
from common.table import IntArray


@dataclass(frozen=True)
class RowSelection:
    """Settings of ``rows = "selected"`` in ``PrivacyEngine``.

    Attributes:
        noise_multiplier: sigma_1, of the votes.
        threshold: tau, in units of ``vote_norm * noise_multiplier``: 4 keeps 32 untouched rows of a million a step.
        vote_norm: C_1; only its ratio to the threshold matters.
    """

    noise_multiplier: float = 5.0
    threshold: float = 4.0
    vote_norm: float = 1.0


def unit_votes(found: Iterable[TableGradients], units: int, vote_norm: float) -> torch.Tensor:
    """c_u of every unit, shape (units,), from the distinct rows with a gradient in all tables together."""
    counts = [torch.bincount(g.units[g.moving], minlength=units) for g in found]
    if not counts:
        return torch.zeros(units, dtype=torch.float64)
    return votes_per_row(torch.stack(counts).sum(dim=0), vote_norm)


def votes_per_row(touched: torch.Tensor, vote_norm: float) -> torch.Tensor:
    """c_u = C_1 / sqrt(n_u) of every unit, 0 where it touches nothing; float64.

    Args:
        touched: shape (units,): n_u, distinct rows over all tables.
        vote_norm: C_1.
    """
    return torch.where(
        touched > 0, vote_norm / touched.clamp(min=1).double().sqrt(), torch.zeros((), dtype=torch.float64)
    )


def false_positives(touched: IntArray, rows: int, *, threshold: float, stddev: float, source: NoiseSource) -> IntArray:
    """Untouched rows that pass the threshold by their noise alone, ascending.

    Args:
        touched: distinct row numbers, ascending, that are not drawn from (a padding row among them).
        rows: V.

    Source: the count is Binomial(V - R, p), by inversion of a 53-bit uniform; given the count the rows are the first
        distinct ones of a sequence of uniform draws.
    """
    others = rows - len(touched)
    chance = float(special.ndtr(-threshold / stddev))
    count = int(stats.binom.ppf(source.uniform(1)[0], others, chance)) if others and chance > 0 else 0
    ranks = distinct_integers(max(count, 0), others, source)
    return ranks + np.searchsorted(touched - np.arange(len(touched)), ranks, side="right")


def distinct_integers(count: int, high: int, source: NoiseSource) -> IntArray:
    """A uniformly random subset of [0, high) of ``count`` elements, ascending.

    Raises:
        PrivacyConfigError: more elements than there are.
    """
    if count > high:
        raise PrivacyConfigError(f"{count} distinct numbers below {high} do not exist")
    if 2 * count > high:  # draw what is left out instead
        left_out = distinct_integers(high - count, high, source)
        return np.setdiff1d(np.arange(high, dtype=np.int64), left_out, assume_unique=True)
    drawn = np.empty(0, dtype=np.int64)
    while True:
        _, first = np.unique(drawn, return_index=True)
        if len(first) >= count:
            return np.sort(drawn[np.sort(first)[:count]])
        drawn = np.concatenate([drawn, source.integers(count - len(first) + 8, high)])


class SelectedTable:
    """The weight of one table, or of some of its rows, of which every step updates the privately selected rows alone.

    Args:
        weight: (R, D), float32 or float64; changed in place.
        source: secret randomness of this table.
        threshold: tau.
        vote_stddev: sigma_1 C_1.
        padding_row: a row that is never selected.
        row_numbers: shape (R,), ascending: numbers of ``weight``'s rows in a table of ``total_rows``, where it holds
            some of them; selected rows that it lacks are kept apart. By default it is the whole table.
    """

    def __init__(  # exception: the settings of one selection belong together
        self,
        weight: torch.Tensor,
        *,
        source: NoiseSource,
        threshold: float,
        vote_stddev: float,
        padding_row: int | None = None,
        row_numbers: IntArray | None = None,
        total_rows: int | None = None,
    ) -> None:
        self._weight = weight
        self._source = source
        self._threshold = threshold
        self._vote_stddev = vote_stddev
        self._padding = np.array([] if padding_row is None else [padding_row], dtype=np.int64)
        self._numbers = np.arange(len(weight)) if row_numbers is None else row_numbers
        self._total = len(weight) if total_rows is None else total_rows
        self._apart: list[tuple[IntArray, torch.Tensor]] = []
        self.selected: list[IntArray] = []  # row numbers of every step, ascending: public, as the release shows them

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Current values of ``rows`` of the weight, shape (R, D): every row is settled at all times."""
        return self._weight.index_select(0, rows)

    def step(self, sums: RowSums | None, *, scale: float, stddev: float) -> None:
        """Select rows, and take ``- scale * (S + z)`` on them, ``z ~ N(0, stddev^2)``."""
        touched = np.empty(0, np.int64) if sums is None else self._numbers[sums.rows.cpu().numpy()]
        kept = self._kept(sums)
        fresh = false_positives(
            np.union1d(touched, self._padding) if len(self._padding) else touched,
            self._total,
            threshold=self._threshold,
            stddev=self._vote_stddev,
            source=self._source,
        )
        for start in range(0, len(fresh), BLOCK_ROWS):
            self._move_fresh(fresh[start : start + BLOCK_ROWS], scale, stddev)
        if sums is not None:
            some = sums.only(kept)
            for positions, block in some.blocks():
                self._move(some.rows[positions], block.add_(self._normal(len(block), stddev)), scale)
        self.selected.append(np.sort(np.concatenate([touched[kept.cpu().numpy()], fresh])))

    def _kept(self, sums: RowSums | None) -> torch.Tensor:
        """Positions in ``sums.rows`` of the touched rows that are kept."""
        if sums is None:
            return torch.empty(0, dtype=torch.int64)
        if sums.votes is None:
            raise PrivacyConfigError("row selection needs the units' votes")
        noise = torch.from_numpy(self._source.normal(len(sums.votes), self._vote_stddev)).to(sums.votes.device)
        return torch.nonzero(sums.votes + noise >= self._threshold).reshape(-1)

    def _move_fresh(self, numbers: IntArray, scale: float, stddev: float) -> None:
        noise = self._normal(len(numbers), stddev)
        place = np.minimum(np.searchsorted(self._numbers, numbers), max(len(self._numbers) - 1, 0))
        held = self._numbers[place] == numbers if len(self._numbers) else np.zeros(len(numbers), bool)
        self._move(torch.from_numpy(place[held]).to(noise.device), noise[torch.from_numpy(held)], scale)
        if not held.all():
            self._apart.append((numbers[~held], noise[torch.from_numpy(~held)] * -scale))

    def _move(self, rows: torch.Tensor, noised: torch.Tensor, scale: float) -> None:
        self._weight.index_add_(0, rows, noised.to(self._weight.dtype), alpha=-scale)

    def _normal(self, rows: int, stddev: float) -> torch.Tensor:
        drawn = torch.from_numpy(self._source.normal((rows, self._weight.shape[1]), stddev))
        return drawn.to(self._weight.device).double()

    def flush(self) -> None:
        """Nothing is owed."""

    def changed(self) -> tuple[IntArray, torch.Tensor]:
        """Numbers of all rows that some step selected, ascending, and their values; rows held apart began at zero."""
        numbers = np.unique(np.concatenate([np.empty(0, np.int64), *self.selected]))
        values = torch.zeros(len(numbers), self._weight.shape[1], dtype=self._weight.dtype)
        held = np.flatnonzero(np.isin(self._numbers, numbers, assume_unique=True))
        values[torch.from_numpy(np.searchsorted(numbers, self._numbers[held]))] = self._weight[held].cpu()
        for rows, noise in self._apart:
            values.index_add_(0, torch.from_numpy(np.searchsorted(numbers, rows)), noise.cpu().to(values.dtype))
        return numbers, values


def expected_false_positives(rows: int, *, threshold: float, stddev: float) -> float:
    """V p: how many untouched rows a step keeps on average."""
    return rows * float(special.ndtr(-threshold / stddev))


def check_selection(*, vote_norm: float, noise_multiplier: float, threshold: float) -> None:
    """Raises ``PrivacyConfigError`` unless all are finite, and the first two positive."""
    if not (0 < vote_norm < math.inf and 0 < noise_multiplier < math.inf and math.isfinite(threshold)):
        raise PrivacyConfigError(
            f"row selection needs a positive vote norm and noise and a finite threshold, not {vote_norm}, "
            f"{noise_multiplier} and {threshold}",
            remedy="Try vote norm 1, noise multiplier 5, and a threshold of 4 times their product.",
        )
