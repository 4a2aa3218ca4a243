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

import numpy as np
import torch
from scipy import special, stats

from common.errors import PrivacyConfigError
from common.privacy.rng import NoiseSource
from common.privacy.table_gradients import BLOCK_ROWS, RowSums
from common.table import IntArray


def votes_per_row(touched: torch.Tensor, vote_norm: float) -> torch.Tensor:
    """c_u = C_1 / sqrt(n_u) of every unit, 0 where it touches nothing; float64.

    Args:
        touched: shape (units,): n_u, distinct rows over all tables.
        vote_norm: C_1.
    """
    return torch.where(touched > 0, vote_norm / touched.clamp(min=1).double().sqrt(), torch.zeros(()).double())


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
    """The weight of one table of which every step updates the privately selected rows alone.

    Args:
        weight: (V, D), float32; changed in place.
        source: secret randomness of this table.
        threshold: tau.
        vote_stddev: sigma_1 C_1.
        padding_row: a row that is never selected.
    """

    def __init__(  # exception: the settings of one selection belong together
        self,
        weight: torch.Tensor,
        *,
        source: NoiseSource,
        threshold: float,
        vote_stddev: float,
        padding_row: int | None = None,
    ) -> None:
        self._weight = weight
        self._source = source
        self._threshold = threshold
        self._vote_stddev = vote_stddev
        self._padding = np.array([] if padding_row is None else [padding_row], dtype=np.int64)
        self.selected: list[torch.Tensor] = []  # of every step, ascending: public, as the release shows them

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Current values of ``rows``, shape (R, D): every row is settled at all times."""
        return self._weight.index_select(0, rows)

    def step(self, sums: RowSums | None, *, scale: float, stddev: float) -> None:
        """Select rows, and take ``- scale * (S + z)`` on them, ``z ~ N(0, stddev^2)``."""
        touched = torch.empty(0, dtype=torch.int64, device=self._weight.device) if sums is None else sums.rows
        kept = self._kept(sums)
        excluded = touched.cpu().numpy()
        if len(self._padding):
            excluded = np.union1d(excluded, self._padding)
        fresh = torch.from_numpy(
            false_positives(
                excluded,
                len(self._weight),
                threshold=self._threshold,
                stddev=self._vote_stddev,
                source=self._source,
            )
        ).to(touched.device)
        chosen = touched if kept is None else touched[kept]
        for start in range(0, len(fresh), BLOCK_ROWS):
            rows = fresh[start : start + BLOCK_ROWS]
            self._move(rows, torch.zeros(len(rows), self._weight.shape[1], dtype=torch.float64), scale, stddev)
        if sums is not None and kept is not None:
            some = sums.only(kept)
            for positions, block in some.blocks():
                self._move(some.rows[positions], block, scale, stddev)
        self.selected.append(torch.sort(torch.cat([chosen, fresh])).values)

    def _kept(self, sums: RowSums | None) -> torch.Tensor | None:
        if sums is None:
            return None
        if sums.votes is None:
            raise PrivacyConfigError("row selection needs the units' votes")
        noise = torch.from_numpy(self._source.normal(len(sums.votes), self._vote_stddev)).to(sums.votes.device)
        return torch.nonzero(sums.votes + noise >= self._threshold).reshape(-1)

    def _move(self, rows: torch.Tensor, sums: torch.Tensor, scale: float, stddev: float) -> None:
        if len(rows):
            z = torch.from_numpy(self._source.normal(tuple(sums.shape), stddev)).to(sums.device)
            self._weight.index_add_(0, rows, sums.add_(z).float(), alpha=-scale)

    def flush(self) -> None:
        """Nothing is owed."""


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
